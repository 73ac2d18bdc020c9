//! The table: hash, look up, advance, replace the owner, remove, sweep.
//!
//! A key may be in either of two buckets and in no other (Azar et al., "Balanced Allocations",
//! STOC 1994); every loop here is over those two or has a number of tries in its head. Insertion
//! has a file of its own (`insert`).

use std::io;
use std::sync::Arc;

use crate::census::Census;
use crate::control::Control;
use crate::expiry::{Seconds, Timeouts};
use crate::hash::{FlowHash, HashKey, NO_HINT, Secret};
use crate::index::{Index, Tag, lanes_in};
use crate::key::FlowKey;
use crate::region::{Region, SLOTS};
use crate::slot::{Owner, Reading, Slot};
use crate::state::{Direction, State};

/// How often an update is tried again after another thread's update of the same flow. Each
/// failure means that one of those succeeded; they come at changes of state and when an age is
/// renewed.
#[cfg(not(lb_loom))]
const UPDATE_TRIES: u32 = 8;
#[cfg(lb_loom)]
const UPDATE_TRIES: u32 = 2;

/// A flow as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its state at that moment.
    pub state: State,
    /// What the caller stored: whose it is.
    pub owner: u32,
    /// What the caller stored: who sends its packets.
    pub direction: Direction,
    pub(crate) place: u32,
    pub(crate) word: Control,
}

impl Found {
    /// When it was last seen before.
    #[inline]
    #[must_use]
    pub const fn last_seen(&self) -> Seconds {
        self.word.last_seen()
    }
}

/// A flow to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFlow {
    /// Its state.
    pub state: State,
    /// The caller's: whose it is.
    pub owner: u32,
    /// The caller's: who sends its packets.
    pub direction: Direction,
}

/// Where a sweep goes on: a range of buckets and the next one to look at.
#[derive(Debug, Clone)]
pub struct Cursor {
    from: u32,
    to: u32,
    next: u32,
}

/// What a slot holds, for the census: a state, if any, and whose it is.
pub(crate) type Counted = (Option<State>, Owner);

/// What came of looking for a key in both its buckets.
pub(crate) enum Search {
    /// Here, its time up or not.
    Hit(Found),
    /// In neither bucket.
    Miss,
    /// A record that may be it was being written.
    Unreadable,
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct FlowTable {
    region: Region,
    key: HashKey,
    /// By number of state, see [`Limits`].
    limits: [Limits; 16],
    capacity: usize,
    /// Where it is counted whose flows are here.
    census: Option<Arc<Census>>,
}

/// Ages, in seconds, up to which a flow in one state is left alone.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    /// Older, and a packet renews it.
    fresh: u32,
    /// Older, and it has ended.
    alive: u32,
}

impl Limits {
    fn all(timeouts: &Timeouts) -> [Self; 16] {
        let mut limits = [Self::default(); 16];
        for state in State::ALL {
            let fresh = timeouts.grain(state).0;
            limits[state as usize] = Self {
                fresh,
                alive: timeouts.of(state).0.saturating_add(fresh),
            };
        }
        limits
    }
}

impl FlowTable {
    /// A table with room for `capacity` flows. All memory is taken, and touched, here: at most
    /// 72 bytes a flow.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses the memory.
    pub fn new(capacity: usize, secret: Secret, timeouts: Timeouts) -> io::Result<Self> {
        let key = HashKey::new(secret);
        Ok(Self {
            region: Region::take(capacity, &key)?,
            key,
            limits: Limits::all(&timeouts),
            capacity,
            census: None,
        })
    }

    /// The table, still empty, with its flows counted by owner in `census`.
    #[must_use]
    pub fn counted_in(mut self, census: Arc<Census>) -> Self {
        self.census = Some(census);
        self
    }

    /// How many flows `owner` has, in all tables that are counted together with this one; 0 when
    /// they are not counted.
    #[inline]
    #[must_use]
    pub fn flows_of(&self, owner: u32) -> u64 {
        self.census
            .as_ref()
            .map_or(0, |census| census.flows_of(owner))
    }

    /// How many flows the table is for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many buckets there are: what a sweep goes over.
    #[inline]
    #[must_use]
    pub const fn buckets(&self) -> u32 {
        self.region.buckets()
    }

    /// How many slots there are: no table holds more flows than that.
    #[inline]
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.region.slots()
    }

    /// The memory of the table, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.region.bytes()
    }

    /// The hash by which `key` is placed.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        self.key.hash(key)
    }

    /// The first of three steps before a lookup, each for a whole batch before the next: fetches
    /// the index line of the flow's first bucket into the cache, and waits for nothing.
    #[inline]
    pub fn prefetch_index(&self, hash: FlowHash) {
        let [first, _] = self.buckets_of(hash);
        self.region.prefetch_index(first);
    }

    /// The second: if the flow seems to be in its first bucket, as most are, remembers where.
    /// Else fetches the index line of the second.
    #[inline]
    #[must_use]
    pub fn locate(&self, hash: FlowHash) -> FlowHash {
        let [first, second] = self.buckets_of(hash);
        if let Some(place) = self.candidate(first, hash) {
            return hash.with_hint(place);
        }
        self.region.prefetch_index(second);
        hash
    }

    /// The third: looks into the second bucket where the first had nothing, and fetches the
    /// flow's slot. A lookup with the hash that is returned looks there first.
    #[inline]
    #[must_use]
    pub fn prefetch_slot(&self, hash: FlowHash) -> FlowHash {
        if hash.hint() == NO_HINT {
            return self.prefetch_elsewhere(hash);
        }
        self.region.prefetch_slot(hash.hint());
        hash
    }

    /// The rest of the third step. Apart, so that most flows' is short.
    #[inline(never)]
    fn prefetch_elsewhere(&self, hash: FlowHash) -> FlowHash {
        let [first, second] = self.buckets_of(hash);
        if let Some(place) = self.candidate(second, hash) {
            self.region.prefetch_slot(place);
            return hash.with_hint(place);
        }
        // A new flow, then, which will take the first empty slot, most likely here.
        let lane = self.index(first).lanes().empty().trailing_zeros();
        self.region.prefetch_slot(Self::place(first, lane));
        hash
    }

    /// A slot of a bucket whose tag fits.
    #[inline]
    fn candidate(&self, bucket: u32, hash: FlowHash) -> Option<u32> {
        let lane = self.index(bucket).lanes().any_matching(Tag::of(hash))?;
        Some(Self::place(bucket, lane))
    }

    /// The flow with this key, unless its time is up. Writes nothing.
    ///
    /// A flow whose record is being written by a thread that does not finish is not found.
    #[inline]
    #[must_use]
    pub fn lookup(&self, key: &FlowKey, hash: FlowHash, now: Seconds) -> Option<Found> {
        match self.search(&key.words(), hash) {
            Search::Hit(found) if !self.has_ended(found.word, now) => Some(found),
            Search::Hit(_) | Search::Miss | Search::Unreadable => None,
        }
    }

    /// Puts `new` in the place of a flow that was found, under the same key. `false` when the
    /// flow is no longer there or another thread is writing it.
    pub fn replace(&self, found: &Found, new: NewFlow, now: Seconds) -> bool {
        let owner = Owner {
            owner: new.owner,
            direction: new.direction,
        };
        self.change(found, |slot, seen| {
            let replaced = slot.rewrite(seen, owner, (new.state, now));
            if replaced {
                let before = (seen.state(), Owner::of(found));
                self.count(Some(before), Some((Some(new.state), owner)));
            }
            replaced
        })
    }

    /// Whether a flow that was found has not been renewed for so long that a packet should.
    #[inline]
    #[must_use]
    pub fn is_stale(&self, found: &Found, now: Seconds) -> bool {
        found.word.age(now) > self.limits(found.word).fresh
    }

    /// Takes note of a packet of a flow that was found: its state, and its age if that is
    /// [stale](Self::is_stale) or the state is new. `false` when the flow is no longer there.
    pub fn advance(
        &self,
        found: &Found,
        direction: Direction,
        tcp_flags: u8,
        now: Seconds,
    ) -> bool {
        self.change(found, |slot, seen| {
            let Some(state) = seen.state().filter(|_| !self.has_ended(seen, now)) else {
                return false;
            };
            let next = state.after(direction, tcp_flags);
            let renews = next != state || seen.age(now) > self.limits(seen).fresh;
            // A thread whose clock is behind does not make a flow older than it is.
            let last_seen = if renews {
                now.max(seen.last_seen())
            } else {
                seen.last_seen()
            };
            let moved = seen.moved_to(next, last_seen);
            let updated = moved == seen || slot.update(seen, moved);
            if updated && next != state {
                let owner = Owner::of(found);
                self.count(Some((Some(state), owner)), Some((Some(next), owner)));
            }
            updated
        })
    }

    /// Removes a flow that was found. `false` when it is no longer there.
    pub fn remove(&self, found: &Found) -> bool {
        self.change(found, |slot, seen| {
            let removed = slot.clear(seen);
            if removed {
                self.count(Some((seen.state(), Owner::of(found))), None);
            }
            removed
        })
    }

    /// The share of the table's upkeep of one of `shares` equals, from 0.
    #[must_use]
    pub fn share(&self, index: usize, shares: usize) -> Cursor {
        let (all, shares) = (u64::from(self.buckets()), shares.max(1) as u64);
        let border = |index: u64| {
            let at = all * index.min(shares) / shares;
            u32::try_from(at).unwrap_or(u32::MAX) // it is at most `all`
        };
        let from = border(index as u64);
        Cursor {
            from,
            to: border((index as u64).saturating_add(1)),
            next: from,
        }
    }

    /// Removes ended flows from the next `budget` buckets of a share. Returns how many.
    pub fn sweep(&self, cursor: &mut Cursor, budget: usize, now: Seconds) -> usize {
        let size = cursor.to - cursor.from;
        let budget = u32::try_from(budget).map_or(size, |budget| budget.min(size));
        let mut removed = 0;
        for _ in 0..budget {
            let bucket = cursor.next;
            cursor.next += 1;
            if cursor.next == cursor.to {
                cursor.next = cursor.from;
            }
            // The flows of the bucket after this one are on their way meanwhile.
            for lane in lanes_in(u32::from(self.index(cursor.next).lanes().held())) {
                self.region.prefetch_slot(Self::place(cursor.next, lane));
            }
            for lane in lanes_in(u32::from(self.index(bucket).lanes().held())) {
                let slot = self.slot(Self::place(bucket, lane));
                let word = slot.observe();
                if word.state().is_none() || !self.has_ended(word, now) {
                    continue;
                }
                let owner = self.whose(slot);
                if slot.clear(word) {
                    removed += 1;
                    self.count(owner.map(|owner| (word.state(), owner)), None);
                }
            }
        }
        removed
    }

    /// Shows every flow whose time is not up to `visit`. Flows that come, go or move meanwhile
    /// may be shown or not.
    pub fn for_each(&self, now: Seconds, mut visit: impl FnMut(&FlowKey, &Found)) {
        for place in 0..self.slots() {
            if let Some((key, word, state, owner)) = self.slot(place).read_any()
                && !self.has_ended(word, now)
            {
                visit(&key, &found(place, word, state, owner));
            }
        }
    }

    /// How many slots hold a flow, ended ones that were not swept yet included. Reads the whole
    /// index: about 2 bytes a slot.
    #[must_use]
    pub fn stored(&self) -> usize {
        (0..self.buckets())
            .map(|bucket| self.index(bucket).lanes().held().count_ones() as usize)
            .sum()
    }

    /// The two buckets of a hash, which differ: one from each half of it, scaled to the number
    /// of buckets by multiplication (Lemire, "Fast Random Integer Generation in an Interval", ACM
    /// TOMACS 2019).
    #[inline]
    pub(crate) fn buckets_of(&self, hash: FlowHash) -> [u32; 2] {
        let all = u64::from(self.buckets());
        let scaled = |half: u64| {
            let [_, _, _, _, a, b, c, d] = (half * all).to_le_bytes();
            u32::from_le_bytes([a, b, c, d])
        };
        let first = scaled(hash.value() >> 32);
        let second = scaled(hash.value() & 0xFFFF_FFFF);
        // The number of buckets is even, so an odd number has a neighbour below, an even one above.
        [first, if second == first { first ^ 1 } else { second }]
    }

    #[inline]
    pub(crate) fn index(&self, bucket: u32) -> Index<'_> {
        Index(self.region.index(bucket))
    }

    /// The number of the slot of a bucket's lane (1 and up).
    #[inline]
    pub(crate) const fn place(bucket: u32, lane: u32) -> u32 {
        bucket * SLOTS + lane - 1
    }

    #[inline]
    pub(crate) fn slot(&self, place: u32) -> Slot<'_> {
        Slot::new(&self.region, place)
    }

    /// Whose record a slot holds, if that is counted.
    #[inline]
    pub(crate) fn whose(&self, slot: Slot<'_>) -> Option<Owner> {
        self.census.is_some().then(|| slot.whose())
    }

    /// Counts that a flow in a state has gone from a slot, another come. One that is closed is
    /// none any more.
    pub(crate) fn count(&self, gone: Option<Counted>, come: Option<Counted>) {
        let Some(census) = &self.census else { return };
        let living = |counted: Option<Counted>| {
            let (state, owner) = counted?;
            (!state?.is_closed()).then_some(owner)
        };
        let (gone, come) = (living(gone), living(come));
        if gone == come {
            return;
        }
        if let Some(Owner { owner, direction }) = gone {
            census.leave(owner, direction);
        }
        if let Some(Owner { owner, direction }) = come {
            census.enter(owner, direction);
        }
    }

    /// Whether the time of the flow under a control word is up.
    #[inline]
    pub(crate) fn has_ended(&self, word: Control, now: Seconds) -> bool {
        word.age(now) > self.limits(word).alive
    }

    #[inline]
    fn limits(&self, word: Control) -> Limits {
        self.limits[word.state_number()]
    }

    #[inline]
    pub(crate) fn search(&self, key: &[u64; 5], hash: FlowHash) -> Search {
        if hash.hint() < self.slots()
            && let Reading::Found(word, state, owner) = self.slot(hash.hint()).read(key)
        {
            return Search::Hit(found(hash.hint(), word, state, owner));
        }
        self.search_all(key, hash)
    }

    /// Looks at every slot whose tag fits.
    fn search_all(&self, key: &[u64; 5], hash: FlowHash) -> Search {
        let mut absent = Search::Miss;
        for place in self.candidates(hash) {
            match self.slot(place).read(key) {
                Reading::Found(word, state, owner) => {
                    return Search::Hit(found(place, word, state, owner));
                }
                Reading::Other => {}
                Reading::Unreadable => absent = Search::Unreadable,
            }
        }
        absent
    }

    /// The places of all slots whose tag fits, of both buckets: usually one or none.
    fn candidates(&self, hash: FlowHash) -> impl Iterator<Item = u32> + use<> {
        let [first, second] = self.buckets_of(hash);
        let tag = Tag::of(hash);
        let matching = |bucket| u32::from(self.index(bucket).lanes().matching(tag));
        lanes_in(matching(first) | matching(second) << 16).map(move |lane| {
            let bucket = if lane < 16 { first } else { second };
            Self::place(bucket, lane % 16)
        })
    }

    /// Applies `change` to the slot of a flow that was found, as long as it is the same record,
    /// until it succeeds.
    fn change(&self, found: &Found, change: impl Fn(Slot<'_>, Control) -> bool) -> bool {
        if found.place >= self.slots() {
            return false;
        }
        let slot = self.slot(found.place);
        for _ in 0..UPDATE_TRIES {
            let seen = slot.observe();
            // A busy record is about to have another version: not ours either.
            if !seen.is_same_record(found.word) || seen.state().is_none() {
                return false;
            }
            if change(slot, seen) {
                return true;
            }
        }
        false
    }
}

const fn found(place: u32, word: Control, state: State, owner: Owner) -> Found {
    Found {
        state,
        owner: owner.owner,
        direction: owner.direction,
        place,
        word,
    }
}

#[cfg(test)]
mod tests;
