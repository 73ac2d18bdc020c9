//! The table: fixed size, two candidate buckets a flow, full is a value.
//!
//! A flow lives in one of two buckets that its hash names; a newcomer takes the emptier one
//! (Azar et al., "Balanced Allocations", STOC 1994), so that buckets overflow only when nearly
//! all are full. Two threads that insert the same flow at the same moment choose alike unless
//! others interfere between them; then both copies may exist for a while. Lookups always find the
//! first, and the other ends by time; should the two threads have had different snapshots, and the
//! copies different owners, the flow may change its backend once, when the first copy goes.

use crate::bucket::{Bucket, Line, Read, SLOTS, Slot, Word};
use crate::entry::{Entry, Record};
use crate::expiry::{Seconds, Timeouts};
use crate::hash::{FlowHash, Secret, siphash13};
use crate::key::{Endpoint, FlowKey};
use crate::state::{Direction, State};

/// Slots for each flow of the capacity, in quarters: with two choices of eight-slot buckets a
/// table at four fifths of its slots loses fewer than one newcomer in a thousand (measured by
/// the test `a_table_holds_its_capacity`).
const SLACK_QUARTERS: usize = 5;

/// A flow as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its state at that moment.
    pub state: State,
    /// What the caller stored: whose it is.
    pub owner: u32,
    /// What the caller stored: the other address that belongs to it.
    pub translated: Endpoint,
    /// When it was last seen before.
    pub last_seen: Seconds,
    key: FlowKey,
    place: usize,
    word: Word,
}

impl Found {
    const fn record(&self) -> Record {
        Record {
            key: self.key,
            translated: self.translated,
            owner: self.owner,
            last_seen: self.last_seen,
        }
    }
}

/// A flow to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFlow {
    /// Its state.
    pub state: State,
    /// The caller's: whose it is.
    pub owner: u32,
    /// The caller's: the other address that belongs to it.
    pub translated: Endpoint,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// Stored.
    Inserted,
    /// The key is in the table already, with this flow.
    Exists(Found),
    /// Both buckets are full of flows that a newcomer must not displace.
    Full,
    /// Another thread was writing the place. Trying again later will do.
    Contended,
}

/// Where a sweep goes on: a range of buckets and the next one to look at.
#[derive(Debug, Clone)]
pub struct Cursor {
    from: usize,
    to: usize,
    next: usize,
}

/// See the module's and the crate's documentation.
#[derive(Debug)]
pub struct FlowTable {
    lines: Box<[Line]>,
    entries: Box<[Entry]>,
    secret: Secret,
    timeouts: Timeouts,
    capacity: usize,
}

impl FlowTable {
    /// A table with room for `capacity` flows. All memory is taken, and touched, here:
    /// 72 bytes a slot, and between 1.25 and 2.5 slots a flow.
    #[must_use]
    pub fn new(capacity: usize, secret: Secret, timeouts: Timeouts) -> Self {
        let slots = capacity.saturating_mul(SLACK_QUARTERS).div_ceil(4);
        let buckets = slots.div_ceil(SLOTS).max(2).next_power_of_two();
        Self {
            lines: (0..buckets).map(|_| Line::default()).collect(),
            entries: (0..buckets * SLOTS).map(|_| Entry::default()).collect(),
            secret,
            timeouts,
            capacity,
        }
    }

    /// How many flows the table is for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many buckets there are.
    #[inline]
    #[must_use]
    pub const fn buckets(&self) -> usize {
        self.lines.len()
    }

    /// The hash by which `key` is placed.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        FlowHash(siphash13(&key.words(), self.secret))
    }

    /// Loads the first of the flow's two index lines, so that it is in the cache when the flow
    /// is looked up. The value means nothing; hand it to [`std::hint::black_box`].
    #[inline]
    #[must_use]
    pub fn warm(&self, hash: FlowHash) -> u64 {
        self.bucket(self.candidates(hash)[0])
            .map_or(0, Bucket::warm)
    }

    /// The flow with this key, unless its time is up. Writes nothing.
    #[inline]
    #[must_use]
    pub fn lookup(&self, key: &FlowKey, hash: FlowHash, now: Seconds) -> Option<Found> {
        match self.find(key, hash) {
            Search::Found(found) if !self.timeouts.has_ended(found.state, found.last_seen, now) => {
                Some(found)
            }
            _ => None,
        }
    }

    /// Stores a flow under a key that has none.
    ///
    /// A newcomer takes, in this order: the place of an ended flow of the same key, an empty
    /// slot of the emptier bucket, an ended flow's, a closed one's, that of the half-open or
    /// unanswered flow that was seen longest ago. Never that of an established one.
    pub fn insert(&self, key: &FlowKey, hash: FlowHash, new: NewFlow, now: Seconds) -> Insert {
        let place = match self.find(key, hash) {
            Search::Found(found) if self.timeouts.has_ended(found.state, found.last_seen, now) => {
                Some((found.place, found.word))
            }
            Search::Found(found) => return Insert::Exists(found),
            Search::Busy => return Insert::Contended,
            Search::Absent => self.place_for(hash, now),
        };
        let Some((place, word)) = place else {
            return Insert::Full;
        };
        let record = Record {
            key: *key,
            translated: new.translated,
            owner: new.owner,
            last_seen: now,
        };
        let written = self
            .slot(place)
            .is_some_and(|slot| slot.write(word, Word::tag(hash.0), new.state, record));
        if written {
            Insert::Inserted
        } else {
            Insert::Contended
        }
    }

    /// Puts `new` in the place of a flow that was found, under the same key. `false` when the
    /// flow is no longer there or another thread is writing it.
    pub fn replace(&self, found: &Found, new: NewFlow, now: Seconds) -> bool {
        let record = Record {
            key: found.key,
            translated: new.translated,
            owner: new.owner,
            last_seen: now,
        };
        self.slot(found.place).is_some_and(|slot| {
            // Its state may have moved on since it was found; the tenancy must not have.
            let word = slot.word();
            word.is_same_tenancy(found.word) && slot.write(word, word.own_tag(), new.state, record)
        })
    }

    /// Takes note of a packet of a flow that was found: its state, and its age if that is a
    /// second or more. Nothing happens if the flow is no longer there.
    #[inline]
    pub fn advance(&self, found: &Found, direction: Direction, tcp_flags: u8, now: Seconds) {
        let Some(slot) = self.slot(found.place) else {
            return;
        };
        if found.state.after(direction, tcp_flags) != found.state {
            slot.set_state(found.word, |state| state.after(direction, tcp_flags));
        }
        if found.last_seen != now {
            slot.touch(&found.record(), now);
        }
    }

    /// Removes a flow that was found. `false` when it is no longer there.
    pub fn remove(&self, found: &Found) -> bool {
        self.slot(found.place).is_some_and(|slot| {
            let word = slot.word();
            word.is_same_tenancy(found.word) && slot.clear(word)
        })
    }

    /// The share of the table's upkeep of one of `shares` equals, from 0.
    #[must_use]
    pub fn share(&self, index: usize, shares: usize) -> Cursor {
        let shares = shares.max(1);
        let from = self.buckets() * index.min(shares) / shares;
        let to = self.buckets() * (index + 1).min(shares) / shares;
        Cursor {
            from,
            to,
            next: from,
        }
    }

    /// Removes ended flows from the next `budget` buckets of a share. Returns how many.
    pub fn sweep(&self, cursor: &mut Cursor, budget: usize, now: Seconds) -> usize {
        let mut removed = 0;
        for _ in 0..budget.min(cursor.to - cursor.from) {
            let Some(bucket) = self.bucket(cursor.next) else {
                break;
            };
            removed += bucket
                .slots()
                .filter(|slot| self.clear_if_ended(*slot, now))
                .count();
            cursor.next = if cursor.next + 1 < cursor.to {
                cursor.next + 1
            } else {
                cursor.from
            };
        }
        removed
    }

    /// Shows every flow whose time is not up to `visit`. Flows that come, go or move meanwhile
    /// may be shown or not.
    pub fn for_each(&self, now: Seconds, mut visit: impl FnMut(&FlowKey, &Found)) {
        for place in 0..self.entries.len() {
            let Some(slot) = self.slot(place) else { break };
            if let Read::Held(word, state, record) = slot.read(slot.word().own_tag()) {
                let found = found(place, word, state, record);
                if !self.timeouts.has_ended(state, found.last_seen, now) {
                    visit(&record.key, &found);
                }
            }
        }
    }

    /// How many slots hold a flow, ended ones that were not swept yet included. Reads the whole
    /// index: 8 bytes a slot.
    #[must_use]
    pub fn stored(&self) -> usize {
        let buckets = (0..self.buckets()).filter_map(|index| self.bucket(index));
        buckets
            .map(|bucket| {
                bucket
                    .slots()
                    .filter(|s| s.word().state().is_some())
                    .count()
            })
            .sum()
    }

    /// The two buckets of a flow; they may be one.
    #[inline]
    fn candidates(&self, hash: FlowHash) -> [usize; 2] {
        // The number of buckets is a power of two; the tag is the hash's upper 24 bits.
        let mask = self.lines.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only the low bits are wanted"
        )]
        let low = hash.0 as usize;
        [low & mask, (low >> mask.count_ones()) & mask]
    }

    #[inline]
    fn bucket(&self, index: usize) -> Option<Bucket<'_>> {
        let line = self.lines.get(index)?;
        let entries = self.entries.get(index * SLOTS..(index + 1) * SLOTS)?;
        Some(Bucket { line, entries })
    }

    #[inline]
    fn slot(&self, place: usize) -> Option<Slot<'_>> {
        self.bucket(place / SLOTS)?.slot(place % SLOTS)
    }

    #[inline]
    fn find(&self, key: &FlowKey, hash: FlowHash) -> Search {
        let tag = Word::tag(hash.0);
        let mut busy = false;
        for candidate in self.candidates(hash) {
            let Some(bucket) = self.bucket(candidate) else {
                continue;
            };
            for (index, slot) in bucket.slots().enumerate() {
                match slot.read(tag) {
                    Read::Held(word, state, record) if record.key == *key => {
                        return Search::Found(found(
                            candidate * SLOTS + index,
                            word,
                            state,
                            record,
                        ));
                    }
                    Read::Held(..) | Read::Other => {}
                    Read::Busy => busy = true,
                }
            }
        }
        if busy { Search::Busy } else { Search::Absent }
    }

    /// The slot that a newcomer takes, and its word.
    fn place_for(&self, hash: FlowHash, now: Seconds) -> Option<(usize, Word)> {
        let [first, second] = self.candidates(hash);
        let emptier = if self.held(second) < self.held(first) {
            [second, first]
        } else {
            [first, second]
        };
        let mut best: Option<(Claim, usize, Word)> = None;
        for (order, candidate) in emptier.into_iter().enumerate() {
            let Some(bucket) = self.bucket(candidate) else {
                continue;
            };
            for (index, slot) in bucket.slots().enumerate() {
                let word = slot.word();
                let Some(claim) = self.claim(slot, word, order, now) else {
                    continue;
                };
                if best.is_none_or(|(best, _, _)| claim < best) {
                    best = Some((claim, candidate * SLOTS + index, word));
                }
            }
        }
        best.map(|(_, place, word)| (place, word))
    }

    /// What a newcomer would displace in a slot; `None` when it must not.
    fn claim(&self, slot: Slot<'_>, word: Word, order: usize, now: Seconds) -> Option<Claim> {
        if word.is_busy() {
            return None;
        }
        let Some(state) = word.state() else {
            return Some(Claim::Empty(order));
        };
        let last_seen = slot.last_seen();
        if self.timeouts.has_ended(state, last_seen, now) {
            Some(Claim::Ended)
        } else if state.is_closed() {
            Some(Claim::Closed)
        } else if state.may_be_evicted() {
            Some(Claim::Unestablished(last_seen))
        } else {
            None
        }
    }

    fn held(&self, candidate: usize) -> usize {
        self.bucket(candidate).map_or(SLOTS, |bucket| {
            bucket
                .slots()
                .filter(|slot| slot.word().state().is_some())
                .count()
        })
    }

    fn clear_if_ended(&self, slot: Slot<'_>, now: Seconds) -> bool {
        let word = slot.word();
        // Should the flow be touched between these two looks, it is removed all the same: it had
        // ended, and nobody finds an ended flow to touch it but who found it a moment before.
        word.state().is_some_and(|state| {
            self.timeouts.has_ended(state, slot.last_seen(), now) && slot.clear(word)
        })
    }
}

/// What looking for a key came to.
enum Search {
    Found(Found),
    Absent,
    /// Not found, but a slot with its tag is being written.
    Busy,
}

/// How little a newcomer disturbs, in order of preference. An empty slot's number is the order
/// of its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Empty(usize),
    Ended,
    Closed,
    Unestablished(Seconds),
}

const fn found(place: usize, word: Word, state: State, record: Record) -> Found {
    let Record {
        key,
        translated,
        owner,
        last_seen,
    } = record;
    Found {
        state,
        owner,
        translated,
        last_seen,
        key,
        place,
        word,
    }
}

#[cfg(test)]
mod tests;
