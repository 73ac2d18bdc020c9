//! A bucket: eight slots, whose slot words fill one cache line, and an [`Entry`] for each.
//!
//! A slot word tells what its entry holds, and guards it as a sequence lock does (Boehm, "Can
//! seqlocks get along with programming language memory models?", MSPC 2012):
//!
//! | bits | field |
//! |---|---|
//! | 63..40 | tag: 24 bits of the flow's hash |
//! | 39..32 | state ([`State`]); 0 = empty |
//! | 31 | busy: somebody is writing the entry |
//! | 30..0 | version: moves on whenever the slot changes hands; wraps |
//!
//! # Roles
//!
//! | role | calls |
//! |---|---|
//! | reader | [`Bucket::read`] |
//! | writer | [`Bucket::write`] (fills an empty slot, replaces a flow), [`Bucket::clear`], [`Bucket::set_state`]; any thread, any slot |
//! | toucher | [`Entry::touch`]; any thread |
//!
//! # States of a slot
//!
//! empty · held (state ≠ 0) · busy (either, with the busy bit)
//!
//! # Transitions
//!
//! | from → to | who | how |
//! |---|---|---|
//! | empty, held → busy | a writer | compare-and-swap of the very word it has seen, so a slot that changed meanwhile is left alone |
//! | busy → held | that writer | Release store, version + 1 |
//! | held → empty | a writer | compare-and-swap, version + 1; the entry's words stay as they are |
//! | held → held, another state | a writer | compare-and-swap, same version |
//!
//! # Prohibited
//!
//! | transition | why |
//! |---|---|
//! | busy → anything, by another thread | its stores would mix with the writer's. A writer does eight stores between two and cannot fail in between |
//! | held → held with other words and the same version | a reader would take half of each |
//!
//! # Atomics
//!
//! | word | writer | ordering | partner |
//! |---|---|---|---|
//! | slot word, to busy | writer | Acquire on success | the last writer's Release |
//! | entry words | writer | Release | reader's Acquire loads: whoever reads a word of the new entry then sees busy or a later slot word |
//! | slot word, from busy | writer | Release | reader's first Acquire load: sees the whole entry |
//!
//! Release stores and Acquire loads of the entry's words take the place of the two fences of the
//! paper: on x86 both are plain moves, and loom can judge them.

use crate::entry::{Entry, Record};
use crate::expiry::Seconds;
use crate::state::State;
use crate::sync::{AtomicU64, Ordering, relax};

/// Slots of a bucket: as many slot words as a cache line holds.
pub(crate) const SLOTS: usize = 8;

/// How often a reader looks again at a slot that is being written. A writer holds it for eight
/// stores, about 5 ns; this covers one that was interrupted for microseconds, no more.
const LOOKS: usize = if cfg!(lb_loom) { 2 } else { 64 };

const BUSY: u64 = 1 << 31;
const VERSION: u64 = BUSY - 1;
const STATE_SHIFT: u32 = 32;
const TAG: u64 = !0 << 40;

/// A slot word's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    /// The tag of a hash: its upper 24 bits. Buckets are chosen by the lower ones.
    #[inline]
    pub(crate) const fn tag(hash: u64) -> u64 {
        hash & TAG
    }

    #[inline]
    pub(crate) const fn has_tag(self, tag: u64) -> bool {
        self.0 & TAG == tag
    }

    #[inline]
    pub(crate) const fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }

    /// `None` when the slot is empty.
    #[inline]
    pub(crate) const fn state(self) -> Option<State> {
        let [_, _, _, state, ..] = self.0.to_be_bytes();
        State::from_number(state)
    }

    /// The tag it carries.
    #[inline]
    pub(crate) const fn own_tag(self) -> u64 {
        self.0 & TAG
    }

    const fn with_state(self, state: State) -> Self {
        Self(self.0 & !(0xFF << STATE_SHIFT) | (state as u64) << STATE_SHIFT)
    }

    const fn next_version(self) -> u64 {
        self.0.wrapping_add(1) & VERSION
    }

    /// Whether both name the same tenancy of a slot, whatever the flow's state.
    pub(crate) const fn is_same_tenancy(self, other: Self) -> bool {
        (self.0 ^ other.0) & (TAG | BUSY | VERSION) == 0
    }
}

/// What a reader found in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// A flow, whole.
    Held(Word, State, Record),
    /// Nothing, or a flow of another tag.
    Other,
    /// Still being written after [`LOOKS`] looks.
    Busy,
}

/// The slot words, on one cache line.
#[derive(Debug, Default)]
#[cfg_attr(not(lb_loom), repr(C, align(64)))]
pub(crate) struct Line {
    words: [AtomicU64; SLOTS],
}

#[cfg(not(lb_loom))]
const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

/// A bucket: a line and its entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket<'a> {
    pub(crate) line: &'a Line,
    pub(crate) entries: &'a [Entry],
}

impl<'a> Bucket<'a> {
    /// Slots in order.
    #[inline]
    pub(crate) fn slots(self) -> impl Iterator<Item = Slot<'a>> {
        self.line
            .words
            .iter()
            .zip(self.entries)
            .map(|(word, entry)| Slot { word, entry })
    }

    /// The slot at a position below [`SLOTS`].
    #[inline]
    pub(crate) fn slot(self, index: usize) -> Option<Slot<'a>> {
        self.slots().nth(index)
    }

    /// Loads the line for its side effect on the cache.
    #[inline]
    pub(crate) fn warm(self) -> u64 {
        // Relaxed: the value is not used.
        self.line.words[0].load(Ordering::Relaxed)
    }
}

/// One slot: its word and its entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    word: &'a AtomicU64,
    entry: &'a Entry,
}

impl Slot<'_> {
    /// The slot word as it is now.
    #[inline]
    pub(crate) fn word(self) -> Word {
        // Acquire: partner of the publishing store in `write`.
        Word(self.word.load(Ordering::Acquire))
    }

    /// The flow, if the slot holds one with this tag.
    #[inline]
    pub(crate) fn read(self, tag: u64) -> Read {
        let mut word = self.word();
        if !word.has_tag(tag) {
            return Read::Other;
        }
        for _ in 0..LOOKS {
            if word.is_busy() {
                relax();
                word = self.word();
                continue;
            }
            let Some(state) = word.state().filter(|_| word.has_tag(tag)) else {
                return Read::Other;
            };
            let record = self.entry.load();
            // Acquire: ordered after the entry's Acquire loads. Had any of those words been
            // written by a later writer, this would be that writer's slot word.
            let again = Word(self.word.load(Ordering::Acquire));
            if again.is_same_tenancy(word) {
                return Read::Held(word, state, record);
            }
            word = again;
        }
        Read::Busy
    }

    /// When the slot's flow was last seen; means something only while the word stays the same.
    #[inline]
    pub(crate) fn last_seen(self) -> Seconds {
        self.entry.last_seen()
    }

    /// Makes the flow of `record`, read from this slot, seen `now`.
    #[inline]
    pub(crate) fn touch(self, record: &Record, now: Seconds) {
        self.entry.touch(record, now);
    }

    /// Puts a flow into the slot if its word is still `seen`.
    pub(crate) fn write(self, seen: Word, tag: u64, state: State, record: Record) -> bool {
        // The tag is there at once, so that a second writer of the same flow sees it coming.
        let busy = seen.0 & (VERSION | 0xFF << STATE_SHIFT) | BUSY | tag;
        // Acquire: nothing of this write happens before the slot is ours.
        let claimed =
            self.word
                .compare_exchange(seen.0, busy, Ordering::Acquire, Ordering::Relaxed);
        if seen.is_busy() || claimed.is_err() {
            return false;
        }
        self.entry.store(record);
        let held = Word(tag | seen.next_version()).with_state(state);
        // Release: whoever sees this word sees the entry whole.
        self.word.store(held.0, Ordering::Release);
        true
    }

    /// Empties the slot if its word is still `seen`.
    pub(crate) fn clear(self, seen: Word) -> bool {
        // Relaxed: no word of the entry changes.
        !seen.is_busy()
            && self
                .word
                .compare_exchange(
                    seen.0,
                    seen.next_version(),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Changes the state of the flow that `seen` names, whatever its state is by now. Gives up
    /// when the slot has changed hands, or after losing the race a few times.
    pub(crate) fn set_state(self, seen: Word, next: impl Fn(State) -> State) -> Option<State> {
        for _ in 0..LOOKS {
            let now = self.word();
            let state = now.state()?;
            if !now.is_same_tenancy(seen) {
                return None;
            }
            let wanted = next(state);
            // Relaxed: no word of the entry changes.
            if wanted == state
                || self
                    .word
                    .compare_exchange(
                        now.0,
                        now.with_state(wanted).0,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    )
                    .is_ok()
            {
                return Some(wanted);
            }
        }
        None
    }
}

#[cfg(all(test, lb_loom))]
mod loom_tests {
    //! Interleavings of two threads on one slot. Run by the stage `loom` of `scripts/test`.

    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::key::{Endpoint, FlowKey};

    const TAG_A: u64 = 0xABCDEF << 40;

    #[derive(Default)]
    struct World {
        word: AtomicU64,
        entry: Entry,
    }

    impl World {
        fn slot(&self) -> Slot<'_> {
            Slot {
                word: &self.word,
                entry: &self.entry,
            }
        }
    }

    /// Every interleaving in which a thread is interrupted at most three times: all of the
    /// protocol's races need fewer, and unbounded the first test takes minutes.
    fn explore(scenario: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(scenario);
    }

    /// A record all of whose parts say the same number.
    fn record(n: u16) -> Record {
        let endpoint = Endpoint {
            address: [n.into(), n.into()],
            port: n,
        };
        Record {
            key: FlowKey::new(6, endpoint, endpoint),
            translated: endpoint,
            owner: n.into(),
            last_seen: Seconds(n.into()),
        }
    }

    fn is_whole(found: Record) -> bool {
        [1, 2].into_iter().any(|n| found == record(n))
    }

    #[test]
    fn loom_a_reader_never_sees_half_a_flow() {
        explore(|| {
            let world = Arc::new(World::default());
            assert!(
                world
                    .slot()
                    .write(Word(0), TAG_A, State::Opening, record(1))
            );
            let writer = Arc::clone(&world);
            let handle = thread::spawn(move || {
                let seen = writer.slot().word();
                assert!(writer.slot().write(seen, TAG_A, State::Opening, record(2)));
            });
            if let Read::Held(_, _, found) = world.slot().read(TAG_A) {
                assert!(is_whole(found), "{found:?}");
            }
            handle.join().unwrap();
            assert!(
                matches!(world.slot().read(TAG_A), Read::Held(_, _, found) if found == record(2))
            );
        });
    }

    #[test]
    fn loom_of_two_writers_one_wins_and_the_other_knows() {
        explore(|| {
            let world = Arc::new(World::default());
            let other = Arc::clone(&world);
            let handle = thread::spawn(move || {
                other
                    .slot()
                    .write(Word(0), TAG_A, State::Opening, record(2))
            });
            let mine = world
                .slot()
                .write(Word(0), TAG_A, State::Opening, record(1));
            let theirs = handle.join().unwrap();
            assert!(mine != theirs);
            let winner = record(if mine { 1 } else { 2 });
            assert!(matches!(world.slot().read(TAG_A), Read::Held(_, _, found) if found == winner));
        });
    }

    #[test]
    fn loom_a_late_change_does_not_reach_the_next_flow() {
        explore(|| {
            let world = Arc::new(World::default());
            assert!(
                world
                    .slot()
                    .write(Word(0), TAG_A, State::Established, record(1))
            );
            let seen = world.slot().word();
            let other = Arc::clone(&world);
            let handle = thread::spawn(move || {
                let word = other.slot().word();
                other.slot().clear(word)
                    && other
                        .slot()
                        .write(other.slot().word(), TAG_A, State::Established, record(2))
            });
            let changed = world.slot().set_state(seen, |_| State::Closed);
            if handle.join().unwrap() {
                let Read::Held(_, state, found) = world.slot().read(TAG_A) else {
                    panic!()
                };
                assert_eq!((state, found), (State::Established, record(2)));
            } else {
                // The change came between the other's look and its attempt.
                assert_eq!(changed, Some(State::Closed));
            }
        });
    }

    #[test]
    fn loom_an_age_and_a_state_change_at_once_lose_nothing() {
        explore(|| {
            let world = Arc::new(World::default());
            assert!(
                world
                    .slot()
                    .write(Word(0), TAG_A, State::Established, record(1))
            );
            let seen = world.slot().word();
            let other = Arc::clone(&world);
            let handle = thread::spawn(move || {
                other
                    .slot()
                    .set_state(seen, |state| state.after(crate::Direction::FromBackend, 1));
            });
            world
                .slot()
                .set_state(seen, |state| state.after(crate::Direction::FromClient, 1));
            world.slot().touch(&record(1), Seconds(9));
            handle.join().unwrap();
            let Read::Held(_, state, found) = world.slot().read(TAG_A) else {
                panic!()
            };
            assert_eq!((state, found.last_seen), (State::Closed, Seconds(9)));
        });
    }
}
