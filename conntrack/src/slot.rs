//! One slot of the table, and the protocol by which it is read and written: a sequence lock
//! that nobody ever waits for.
//!
//! A slot is one line: the control word and the record, of which the control word says whose it
//! is. Its tag stands in the bucket's index; it belongs to the slot's record, but is only a hint.
//!
//! # Roles and the calls each may make
//!
//! | role | who | calls |
//! |---|---|---|
//! | reader | any thread | `observe`, `read`, `read_any`, `peek` |
//! | updater | any thread with a word it has observed | `update` (state, profile and last seen) |
//! | recorder | any thread with a record it has read | `record` (the reach) |
//! | inserter | the thread inside the gate of the key's first bucket | `replace` |
//! | rewriter | any thread with a word it has observed | `rewrite` (whose it is) |
//! | remover | any thread with a word it has observed | `clear` |
//! | adopter | one thread, before any other process or thread writes again | `reset` |
//!
//! # States of a slot
//!
//! | state | state bits | busy | record |
//! |---|---|---|---|
//! | Empty | 0 | no | means nothing |
//! | Claimed | 0 | yes | an inserter writes it, or a remover clears the tag |
//! | Live | a flow's | no | the flow's |
//! | Rewriting | a flow's | yes | a rewriter writes it |
//!
//! # Transitions
//!
//! Each starts by a compare-and-swap from the very word that was observed, so it happens to that
//! record in that state, last seen then, or not at all.
//!
//! | from | to | by | version | why |
//! |---|---|---|---|---|
//! | Empty, Live | Claimed | inserter | same | a new record is to be written; the flow that was here is gone at once |
//! | Claimed | Live | the same inserter | +1 | its record is complete and its tag set |
//! | Live | Claimed | remover | same | removed or expired: gone at once |
//! | Claimed | Empty | the same remover | +1 | the tag is cleared |
//! | Live | Rewriting | rewriter | same | the owner is to change |
//! | Rewriting | Live | the same rewriter | +1 | the record is complete |
//! | Live | Live | updater | same | a packet was seen; no other word changes, so readers need not notice |
//! | anything | Empty | adopter | +1 | its writer died in the middle of it, or it is damaged (`adopt`) |
//!
//! The reach (`reach`) has no part in this: it changes while the control word stays. Its word
//! carries the version of its record, and a recorder changes it by a compare-and-swap from what it
//! has read with that record, so a recorder that comes late finds another version, or writes to a
//! slot that is empty or claimed, whose reach means nothing until the next record's is stored.
//! A reader finds a reach of the record that it reads: that word too lies between its two looks at
//! the control word, and a later record's is stored after that one is busy.
//!
//! # Prohibited transitions
//!
//! | never | why, and what prevents it |
//! |---|---|
//! | anything from Claimed or Rewriting by another thread | words would mix; every call refuses a busy word. An adopter's does not: it comes after the writer's end |
//! | Live to Live with another record and the same version | a reader could not tell; only `publish` follows stores, and it is given a word of the next version |
//! | a reach under another record's version | the judgement of one flow would reach another; `record` expects the version that was read |
//! | a tag changed by two threads at once | exclusive ors would mix; only who has claimed the slot sets it |
//! | two slots live for one key | only the thread inside the gate inserts, after it has found the key in neither bucket |

use crate::control::Control;
use crate::expiry::{Profile, Seconds};
use crate::index::Index;
use crate::key::FlowKey;
use crate::lanes::Tag;
use crate::memory::Line;
use crate::reach::Reach;
use crate::region::{Region, SLOTS};
use crate::state::State;
use crate::sync::{Ordering, fence, spin_loop};
use crate::whose::{Ended, Whose};

/// How often a record that changes under a reader is read again. Writing one takes ten stores;
/// a reader that finds it unfinished so often has met a writer that is not running, and its packet
/// should not wait for that.
#[cfg(not(lb_loom))]
const READ_TRIES: u32 = 16;
#[cfg(lb_loom)]
const READ_TRIES: u32 = 2;

/// What is written of a flow besides its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) whose: Whose,
    pub(crate) state: State,
    pub(crate) profile: Profile,
    pub(crate) reach: Reach,
    pub(crate) now: Seconds,
}

/// What is read of a flow besides its key, with the word under which it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) word: Control,
    pub(crate) state: State,
    pub(crate) whose: Whose,
    pub(crate) reach: Reach,
}

/// What came of looking for a key in one slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The key is here.
    Found(Seen),
    /// The key is not here.
    Other,
    /// A record that may be the key's was being written at every try.
    Unreadable,
}

/// A slot of a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'a> {
    line: &'a Line,
    region: &'a Region,
    place: u32,
}

impl<'a> Slot<'a> {
    /// The slot at `place`, which is `line`.
    #[inline]
    pub(crate) fn new(region: &'a Region, line: &'a Line, place: u32) -> Self {
        Self {
            line,
            region,
            place,
        }
    }

    /// The control word; loads that follow see at least the record that it stands for.
    #[inline]
    pub(crate) fn observe(&self) -> Control {
        let [control, ..] = &self.line.words;
        // Acquire: pairs with the Release of `publish`, also through the compare-and-swaps of
        // `update`, which continue its release sequence.
        Control(control.load(Ordering::Acquire))
    }

    /// Looks for a key, given as its words.
    #[inline]
    pub(crate) fn read(&self, key: &[u64; 5]) -> Reading {
        for _ in 0..READ_TRIES {
            let seen = self.observe();
            let Some(state) = seen.state() else {
                return Reading::Other;
            };
            if seen.is_busy() {
                spin_loop();
                continue;
            }
            let (found, whose, reach) = self.load();
            let fits = are_equal(&found, key);
            if self.still_holds(seen) {
                return if fits {
                    Reading::Found(Seen {
                        word: seen,
                        state,
                        whose,
                        reach,
                    })
                } else {
                    Reading::Other
                };
            }
        }
        Reading::Unreadable
    }

    /// The control word, the owner and the reach, if the record is `key`'s and nobody is writing here: as
    /// [`read`](Self::read), once and without reasons. The word may be that of an empty slot.
    #[inline]
    pub(crate) fn glance(&self, key: &[u64; 5]) -> Option<(Control, Whose, Reach)> {
        let seen = self.observe();
        let (found, whose, reach) = self.load();
        (!seen.is_busy() && are_equal(&found, key) && self.still_holds(seen))
            .then_some((seen, whose, reach))
    }

    /// The key and whose it is, if there is a flow and nobody is writing here: as
    /// [`read_any`](Self::read_any), once.
    #[inline]
    pub(crate) fn peek(&self) -> Option<(FlowKey, Whose)> {
        let seen = self.observe();
        let (key, whose, _) = self.load();
        let is_whole = !seen.is_busy() && seen.state().is_some() && self.still_holds(seen);
        is_whole.then(|| (FlowKey::from_words(key), whose))
    }

    /// Whatever flow is here, or `None` if there is none or it cannot be read.
    pub(crate) fn read_any(&self) -> Option<(FlowKey, Seen)> {
        for _ in 0..READ_TRIES {
            let seen = self.observe();
            let state = seen.state()?;
            if seen.is_busy() {
                spin_loop();
                continue;
            }
            let (key, whose, reach) = self.load();
            if self.still_holds(seen) {
                let flow = Seen {
                    word: seen,
                    state,
                    whose,
                    reach,
                };
                return Some((FlowKey::from_words(key), flow));
            }
        }
        None
    }

    /// Whose record is here. It belongs to an observed word if a change from that very word
    /// succeeds afterwards.
    pub(crate) fn whose(&self) -> Whose {
        let [.., whose, _] = &self.line.words;
        // Relaxed: nobody else writes it between the observation and the change that confirms it.
        Whose::from_word(whose.load(Ordering::Relaxed))
    }

    /// The record here, about to end: told if a change from the very word that was observed succeeds.
    pub(crate) fn ending(&self) -> Ended {
        let [.., ports, _, _] = &self.line.words;
        // Relaxed: as in `whose`.
        let [protocol, ..] = ports.load(Ordering::Relaxed).to_le_bytes();
        Ended {
            whose: self.whose(),
            protocol,
        }
    }

    #[inline]
    fn load(&self) -> ([u64; 5], Whose, Reach) {
        let [_, a, b, c, d, e, whose, reach] = &self.line.words;
        // Relaxed: whether they belong together is for `still_holds` to say.
        let key = [a, b, c, d, e].map(|word| word.load(Ordering::Relaxed));
        let whose = Whose::from_word(whose.load(Ordering::Relaxed));
        (key, whose, Reach::from_word(reach.load(Ordering::Relaxed)))
    }

    /// Whether what was loaded since `seen` is its record.
    #[inline]
    fn still_holds(&self, seen: Control) -> bool {
        let [control, ..] = &self.line.words;
        // Acquire fence: pairs with the Release fence of `claim`. If a load above saw a word
        // stored by a later writer, then the load below sees that writer's busy word or a later
        // one, and the record is not taken for whole.
        fence(Ordering::Acquire);
        Control(control.load(Ordering::Relaxed)).is_same_record(seen)
    }

    /// Changes the control word alone: another state, profile or time. Fails if the slot no longer
    /// says `expected`.
    pub(crate) fn update(&self, expected: Control, updated: Control) -> bool {
        let [control, ..] = &self.line.words;
        // Relaxed: this thread publishes no other words, and a read-modify-write continues the
        // release sequence of whoever did.
        !expected.is_busy()
            && expected.state().is_some()
            && control
                .compare_exchange(expected.0, updated.0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Changes the reach alone. Fails if it is no longer what was read, with its version.
    pub(crate) fn record(&self, expected: Reach, reach: Reach) -> bool {
        let [.., word] = &self.line.words;
        // Relaxed: this word publishes no other, and what it belongs to is written in it.
        word.compare_exchange(
            expected.to_word(),
            reach.to_word(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        )
        .is_ok()
    }

    /// Puts another flow here. Fails if the slot no longer says `expected`.
    pub(crate) fn replace(
        &self,
        expected: Control,
        key: &[u64; 5],
        tag: Tag,
        entry: &Entry,
    ) -> bool {
        let claimed = self.claim(expected, expected.claimed());
        if claimed {
            let [_, a, b, c, d, e, ..] = &self.line.words;
            for (word, value) in [a, b, c, d, e].into_iter().zip(key) {
                // Relaxed: between the fence of `claim` and `publish`.
                word.store(*value, Ordering::Relaxed);
            }
            self.set_tag(tag);
            self.finish(expected, entry);
        }
        claimed
    }

    /// Gives the flow that stays here to another owner. Fails if the slot no longer says
    /// `expected`.
    pub(crate) fn rewrite(&self, expected: Control, entry: &Entry) -> bool {
        let claimed = expected.state().is_some() && self.claim(expected, expected.rewriting());
        if claimed {
            self.finish(expected, entry);
        }
        claimed
    }

    /// Writes the rest of a record and publishes it.
    fn finish(&self, expected: Control, entry: &Entry) {
        let published = expected.renewed(entry.state, entry.profile, entry.now);
        let [.., whose, reach] = &self.line.words;
        // Relaxed, both: between the fence of `claim` and `publish`. A late recorder's
        // compare-and-swap comes before this exchange and is overwritten, or after and fails. A
        // plain store would do, since none can come between a compare-and-swap and what it read;
        // loom 0.7.2 does not know that rule, and a model is worth the few nanoseconds.
        let word = entry.reach.of_record(published).to_word();
        whose.store(entry.whose.to_word(), Ordering::Relaxed);
        let _last = reach.swap(word, Ordering::Relaxed);
        self.publish(published);
    }

    /// Empties the slot. Fails if it no longer says `expected`.
    pub(crate) fn clear(&self, expected: Control) -> bool {
        let claimed = expected.state().is_some() && self.claim(expected, expected.claimed());
        if claimed {
            self.set_tag(Tag::EMPTY);
            self.publish(expected.emptied());
        }
        claimed
    }

    /// Empties the slot, and its tag, whatever it says: for an adopter, while nobody writes. One
    /// that dies in here leaves a slot that the next one resets.
    pub(crate) fn reset(&self) {
        let seen = self.observe();
        self.set_tag(Tag::EMPTY);
        self.publish(seen.emptied());
    }

    fn set_tag(&self, tag: Tag) {
        let index = Index(self.region.index(self.place / SLOTS));
        index.set(self.place % SLOTS + 1, tag);
    }

    fn claim(&self, expected: Control, busy: Control) -> bool {
        let [control, ..] = &self.line.words;
        // Acquire: pairs with the Release of the last `publish`, so that our stores come after
        // that writer's. Every caller has observed the word itself, which implies as much; a
        // claim should not depend on that.
        let claimed = !expected.is_busy()
            && control
                .compare_exchange(expected.0, busy.0, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if claimed {
            // Release fence: pairs with the Acquire fence of `still_holds`.
            fence(Ordering::Release);
        }
        claimed
    }

    fn publish(&self, published: Control) {
        let [control, ..] = &self.line.words;
        // Release: pairs with the Acquire of `observe` and of `claim`. A plain store: no other
        // thread changes a busy word.
        control.store(published.0, Ordering::Release);
    }
}

/// Whether two keys are alike: without a branch for each word, and without a call.
#[inline]
fn are_equal(mine: &[u64; 5], theirs: &[u64; 5]) -> bool {
    let [a, b, c, d, e] = mine;
    let [p, q, r, s, t] = theirs;
    (a ^ p) | (b ^ q) | (c ^ r) | (d ^ s) | (e ^ t) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::Segment;
    use crate::state::Direction;
    use crate::whose::Tie;

    const NOW: Seconds = Seconds(50);
    const KEY: [u64; 5] = [1, 2, 3, 4, 5];
    const OTHER: [u64; 5] = [1, 2, 3, 4, 6];
    const TAG: Tag = Tag::EMPTY;

    fn whose(number: u32) -> Whose {
        Whose {
            owner: number,
            direction: Direction::FromBackend,
            tie: Tie::to_slot(number * 3),
        }
    }

    fn entry(number: u32, state: State, now: Seconds) -> Entry {
        Entry {
            whose: whose(number),
            state,
            profile: Profile::DEFAULT,
            reach: Reach::at(number << 16),
            now,
        }
    }

    fn found(word: Control, state: State, number: u32) -> Reading {
        Reading::Found(Seen {
            word,
            state,
            whose: whose(number),
            reach: Reach::at(number << 16).of_record(word),
        })
    }

    /// Runs `body` on an empty slot of its own.
    fn with_slot(body: impl FnOnce(Slot<'_>)) {
        let region = crate::testing::region(1);
        body(Slot::new(&region, region.slot(0), 0));
    }

    fn put(slot: Slot<'_>, key: &[u64; 5], number: u32) -> Control {
        let empty = slot.observe();
        assert!(slot.replace(empty, key, TAG, &entry(number, State::Opening, NOW)));
        slot.observe()
    }

    fn force(slot: Slot<'_>, control: Control) {
        slot.line.words[0].store(control.0, Ordering::Relaxed);
    }

    #[test]
    fn a_record_is_found_by_its_key_only() {
        with_slot(|slot| {
            assert_eq!(slot.read(&KEY), Reading::Other);
            let word = put(slot, &KEY, 7);
            assert_eq!(slot.read(&KEY), found(word, State::Opening, 7));
            for changed in 0..5 {
                let mut other = KEY;
                other[changed] ^= 1 << 63;
                assert_eq!(slot.read(&other), Reading::Other);
            }
            let (key, ..) = slot.read_any().unwrap();
            assert_eq!(key.words(), KEY);
            assert_eq!(slot.peek(), Some((key, whose(7))));
            let ended = Ended {
                whose: whose(7),
                protocol: 5,
            };
            assert_eq!(slot.ending(), ended);
        });
    }

    #[test]
    fn a_busy_slot_is_unreadable_and_nobody_changes_it() {
        with_slot(|slot| {
            let live = put(slot, &KEY, 7);
            let busy = live.rewriting();
            force(slot, busy);
            assert_eq!(slot.read(&KEY), Reading::Unreadable);
            assert_eq!((slot.read_any(), slot.peek()), (None, None));
            assert!(!slot.update(busy, live));
            assert!(!slot.replace(busy, &OTHER, TAG, &entry(8, State::Closed, NOW)));
            assert!(!slot.rewrite(busy, &entry(8, State::Closed, NOW)));
            assert!(!slot.clear(busy));
            assert_eq!(slot.observe(), busy);
        });
    }

    #[test]
    fn a_claimed_slot_holds_nobody() {
        with_slot(|slot| {
            force(slot, put(slot, &KEY, 7).claimed());
            assert_eq!(slot.read(&KEY), Reading::Other);
            assert_eq!((slot.read_any(), slot.peek()), (None, None));
        });
    }

    #[test]
    fn an_empty_slot_is_neither_updated_nor_rewritten_nor_cleared() {
        with_slot(|slot| {
            let empty = slot.observe();
            assert!(!slot.update(empty, empty.moved_to(State::Closed, Profile::DEFAULT, NOW)));
            assert!(!slot.rewrite(empty, &entry(8, State::Closed, NOW)));
            assert!(!slot.clear(empty));
            assert_eq!(slot.observe(), empty);
        });
    }

    #[test]
    fn an_observation_that_is_no_longer_true_changes_nothing() {
        with_slot(|slot| {
            let old = put(slot, &KEY, 1);
            let new = put(slot, &OTHER, 2);
            assert!(!slot.update(old, old.moved_to(State::Closed, Profile::DEFAULT, NOW)));
            assert!(!slot.rewrite(old, &entry(3, State::Closed, NOW)));
            assert!(!slot.replace(old, &KEY, TAG, &entry(3, State::Closed, NOW)));
            assert!(!slot.clear(old));
            assert_eq!(slot.read(&OTHER), found(new, State::Opening, 2));
        });
    }

    #[test]
    fn a_rewrite_moves_the_version_and_keeps_the_key() {
        with_slot(|slot| {
            let old = put(slot, &KEY, 1);
            assert!(slot.rewrite(old, &entry(2, State::Established, Seconds(60))));
            let new = slot.observe();
            assert!(!old.is_same_record(new));
            assert_eq!(slot.read(&KEY), found(new, State::Established, 2));
            assert_eq!(new.last_seen(), Seconds(60));
        });
    }

    #[test]
    fn a_reset_slot_is_empty_whatever_it_was_and_another_record() {
        with_slot(|slot| {
            let live = put(slot, &KEY, 7);
            let strange = Control(live.0 | 0xF << 1);
            for left in [live, live.claimed(), live.rewriting(), strange] {
                force(slot, left);
                slot.reset();
                assert!(slot.observe().is_empty());
                assert!(!slot.observe().is_same_record(live));
                assert!(!slot.observe().is_same_record(left));
            }
        });
    }

    #[test]
    fn a_late_recorder_does_not_write_into_another_flow() {
        with_slot(|slot| {
            let old = Reach::at(1 << 16).of_record(put(slot, &KEY, 1));
            // The next flow of the slot is where the old one was: only the version tells them apart.
            let new = put(slot, &OTHER, 1);
            let late = old.after(
                State::Established,
                Segment {
                    tcp_flags: 0,
                    sequence: 9 << 16,
                },
            );
            assert!(!slot.record(old, late.unwrap()));
            assert_eq!(slot.read(&OTHER), found(new, State::Opening, 1));
            let reach = Reach::at(1 << 16).of_record(new);
            let ahead = Reach::at(9 << 16).of_record(new);
            assert!(slot.record(reach, ahead) && !slot.record(reach, ahead));
            assert!(matches!(slot.read(&OTHER), Reading::Found(seen) if seen.reach == ahead));
        });
    }
}
