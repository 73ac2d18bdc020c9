//! Insertion: who gets a slot, and who has to give one up.
//!
//! A thread enters the gate of the key's first bucket, looks for the key in both buckets, chooses
//! a slot and replaces what is there. Inside the gate it is the only one that can insert this key,
//! so a key that it has not found stays absent until its own record is published: no duplicate
//! exists at any moment. A loser of the race finds [`Insert::Exists`], or [`Insert::Contended`] at
//! the gate.
//!
//! Slots, best first:
//!
//! | class | of several |
//! |---|---|
//! | the key's own, its time up | there is one |
//! | empty | of the first bucket while that is less than half full, so that lookups seldom need the second; else of the bucket with more of them |
//! | a flow whose time is up | any |
//! | `Closed` | silent for longest, of equals any |
//! | `Opening`, `OneWay` | silent for longest, of equals any |
//!
//! Flows in other states are never evicted. That is exact, not probable: the slot is claimed by a
//! compare-and-swap from the word on which the choice was made, which fails if the flow has
//! meanwhile moved on.

use crate::control::Control;
use crate::expiry::Seconds;
use crate::hash::FlowHash;
use crate::key::FlowKey;
use crate::lanes::{Tag, lanes_in};
use crate::region::SLOTS;
use crate::table::{FlowTable, Found, NewFlow, Search};
use crate::whose::Ended;

/// How often a slot is chosen again after it changed under the choice. Other buckets' inserters
/// and updaters of its flow can do that.
#[cfg(not(lb_loom))]
const CHOICE_TRIES: u32 = 4;
#[cfg(lb_loom)]
const CHOICE_TRIES: u32 = 2;

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Stored.
    Inserted(Placed),
    /// Stored, in the place of a flow whose time was not up but which may be evicted.
    Displaced(Placed),
    /// The key is in the table already, with this flow.
    Exists(Found),
    /// Both buckets are full of flows that a newcomer must not displace.
    Full,
    /// Another thread was writing the place. Trying again later will do.
    Contended,
}

/// Where a flow was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Placed {
    /// The number of its slot.
    pub slot: u32,
    /// The entry that was there before, its time up or not.
    pub ended: Option<Ended>,
}

impl Insert {
    /// Where it was stored, if it was.
    #[must_use]
    pub const fn placed(&self) -> Option<Placed> {
        match self {
            Self::Inserted(placed) | Self::Displaced(placed) => Some(*placed),
            Self::Exists(_) | Self::Full | Self::Contended => None,
        }
    }
}

/// How little a newcomer disturbs by taking a slot; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Empty,
    Ended,
    Closed(Seconds),
    Unproven(Seconds),
}

/// A slot that may be taken, and the word on which that was decided.
#[derive(Clone, Copy)]
struct Choice {
    place: u32,
    word: Control,
    /// It holds a flow whose time is not up.
    displaces: bool,
}

/// What came of choosing a slot.
enum Chosen {
    Slot(Choice),
    /// Every slot holds a flow that may not be evicted.
    None,
    /// None to be had now, but some are being written.
    Busy,
}

impl FlowTable {
    /// Stores a flow under a key that has none, see the module's documentation.
    pub fn insert(&self, key: &FlowKey, hash: FlowHash, new: NewFlow, now: Seconds) -> Insert {
        let words = key.words();
        let [first, _] = self.buckets_of(hash);
        let Some(_inside) = self.index(first).enter() else {
            return Insert::Contended;
        };
        for _ in 0..CHOICE_TRIES {
            let choice = match self.search(&words, hash) {
                Search::Unreadable => continue,
                Search::Miss => match self.choose(hash, now) {
                    Chosen::Slot(choice) => choice,
                    Chosen::None => return Insert::Full,
                    Chosen::Busy => continue,
                },
                Search::Hit(found) if self.has_ended(found.word, now) => Choice {
                    place: found.place,
                    word: found.word,
                    displaces: false,
                },
                Search::Hit(found) => return Insert::Exists(found),
            };
            let entry = new.entry(now);
            let slot = self.slot(choice.place);
            let before = choice.word.state();
            let ended = before.is_some().then(|| slot.ending());
            if slot.replace(choice.word, &words, Tag::of(hash), &entry) {
                let gone = ended.map(|ended| (before, ended.whose));
                self.count(gone, Some((Some(new.state), entry.whose)));
                let slot = choice.place;
                let placed = Placed { slot, ended };
                return if choice.displaces {
                    Insert::Displaced(placed)
                } else {
                    Insert::Inserted(placed)
                };
            }
        }
        Insert::Contended
    }

    /// The best slot in the two buckets of `hash`.
    fn choose(&self, hash: FlowHash, now: Seconds) -> Chosen {
        let [first, second] = self.buckets_of(hash).map(|bucket| {
            let lanes = self.index(bucket).lanes();
            (bucket, lanes.empty(), lanes.held())
        });
        let (room, room_elsewhere) = (first.1.count_ones(), second.1.count_ones());
        let emptier = if room > SLOTS / 2 || room >= room_elsewhere {
            [first, second]
        } else {
            [second, first]
        };
        let mut busy = false;
        // Mostly there is room, and then no flow need be looked at, only the two indices.
        for (bucket, empty, _) in emptier {
            for lane in lanes_in(u32::from(empty)) {
                let place = Self::place(bucket, lane);
                let word = self.slot(place).observe();
                if word.is_empty() {
                    return Chosen::Slot(Choice {
                        place,
                        word,
                        displaces: false,
                    });
                }
                busy = true;
            }
        }
        // Ages are whole seconds, so in a flood all are equal; a fixed order among equals would
        // always displace the one that came last.
        let turn = hash.value() >> 20;
        let mut best: Option<((Claim, u64), Choice)> = None;
        for (bucket, _, held) in emptier {
            for lane in lanes_in(u32::from(held)) {
                let place = Self::place(bucket, lane);
                let word = self.slot(place).observe();
                busy |= word.is_busy();
                let Some(claim) = self.claim(word, now) else {
                    continue;
                };
                let rank = (claim, (u64::from(lane) ^ turn) & 0xF);
                if best.is_none_or(|(least, _)| rank < least) {
                    let choice = Choice {
                        place,
                        word,
                        displaces: claim > Claim::Ended,
                    };
                    best = Some((rank, choice));
                }
            }
        }
        match best {
            Some((_, choice)) => Chosen::Slot(choice),
            None if busy => Chosen::Busy,
            None => Chosen::None,
        }
    }

    /// What a newcomer would displace, or `None` if it must not.
    fn claim(&self, word: Control, now: Seconds) -> Option<Claim> {
        if word.is_empty() {
            return Some(Claim::Empty); // since the index was read
        }
        let state = word.state().filter(|_| !word.is_busy())?;
        if self.has_ended(word, now) {
            return Some(Claim::Ended);
        }
        if state.is_closed() {
            return Some(Claim::Closed(word.last_seen()));
        }
        state
            .may_be_evicted()
            .then(|| Claim::Unproven(word.last_seen()))
    }
}
