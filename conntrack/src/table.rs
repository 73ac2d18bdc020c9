//! The table: hash, look up, advance, replace the owner, remove.
//!
//! A key may be in either of two buckets and in no other (Azar et al., "Balanced Allocations",
//! STOC 1994); every loop here is over those two or has a number of tries in its head. Insertion
//! has a file of its own (`insert`), and so has what goes over all of it (`sweep`).

use std::io;
use std::sync::Arc;

use crate::census::Census;
use crate::control::Control;
use crate::expiry::{Profile, Seconds, Span, Timeouts};
use crate::hash::{FlowHash, HashKey, NO_HINT, Secret};
use crate::header::NewError;
use crate::index::Index;
use crate::key::FlowKey;
use crate::lanes::{Tag, lanes_in};
use crate::memory::Memory;
use crate::reach::{Reach, Segment};
use crate::region::{Region, SLOTS, Shape};
use crate::slot::{Entry, Reading, Seen, Slot};
use crate::state::{Direction, State};
use crate::sync::{Ordering, Setting};
use crate::whose::{Tie, Whose};

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
    /// What the caller stored: what is known of the other side.
    pub tie: Tie,
    /// How far that sender had come.
    pub reach: Reach,
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

    /// Which timeouts it has.
    #[inline]
    #[must_use]
    pub const fn profile(&self) -> Profile {
        self.word.profile()
    }

    /// The number of its slot, below [`FlowTable::slots`].
    #[inline]
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.place
    }

    /// Whose it is.
    #[inline]
    #[must_use]
    pub const fn whose(&self) -> Whose {
        Whose {
            owner: self.owner,
            direction: self.direction,
            tie: self.tie,
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
    /// The caller's: who sends its packets.
    pub direction: Direction,
    /// The caller's: what is known of the other side.
    pub tie: Tie,
    /// Which timeouts it has.
    pub profile: Profile,
    /// How far the sender has come.
    pub reach: Reach,
}

impl NewFlow {
    /// Whose it is.
    #[must_use]
    pub const fn whose(&self) -> Whose {
        Whose {
            owner: self.owner,
            direction: self.direction,
            tie: self.tie,
        }
    }

    pub(crate) const fn entry(&self, now: Seconds) -> Entry {
        Entry {
            whose: self.whose(),
            state: self.state,
            profile: self.profile,
            reach: self.reach,
            now,
        }
    }
}

/// What a slot holds, for the census: a state, if any, and whose it is.
pub(crate) type Counted = (Option<State>, Whose);

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
    pub(crate) region: Region,
    key: HashKey,
    /// By [`Control::limits_number`], see [`Limits`].
    limits: [Limits; STATES * Profile::COUNT],
    capacity: usize,
    /// Where it is counted whose flows are here.
    census: Option<Arc<Census>>,
}

/// Numbers that a state can have.
const STATES: usize = 16;

/// Ages, in seconds, up to which a flow in one state under one profile is left alone.
#[derive(Debug)]
struct Limits {
    /// Older, and a packet renews it.
    fresh: Setting,
    /// Older, and it has ended.
    alive: Setting,
}

impl Limits {
    const fn new() -> Self {
        Self {
            fresh: Setting::new(0),
            alive: Setting::new(0),
        }
    }
}

impl FlowTable {
    /// An empty table with room for `capacity` flows, in `memory`: as many lines as
    /// [`lines`](Self::lines) says or more, and all of them zero.
    ///
    /// # Errors
    ///
    /// See [`NewError`].
    pub fn new(
        memory: Memory,
        capacity: usize,
        secret: Secret,
        timeouts: Timeouts,
    ) -> Result<Self, NewError> {
        let key = HashKey::new(secret);
        let region = Region::take(memory, capacity, &key)?;
        Ok(Self::over(region, capacity, key, &timeouts))
    }

    /// The same in private memory of its own, all of which is taken, and touched, here.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses the memory.
    pub fn in_memory(capacity: usize, secret: Secret, timeouts: Timeouts) -> io::Result<Self> {
        let memory = Memory::private(Self::lines(capacity))?;
        Self::new(memory, capacity, secret, timeouts).map_err(io::Error::other)
    }

    /// How many lines of [`LINE_BYTES`](crate::LINE_BYTES) bytes a table for so many flows takes:
    /// at most 72 bytes a flow.
    #[must_use]
    pub fn lines(capacity: usize) -> usize {
        Shape::of(capacity).lines
    }

    pub(crate) fn over(region: Region, capacity: usize, key: HashKey, timeouts: &Timeouts) -> Self {
        let table = Self {
            region,
            key,
            limits: [const { Limits::new() }; STATES * Profile::COUNT],
            capacity,
            census: None,
        };
        for profile in Profile::all() {
            table.set_timeouts(profile, timeouts);
        }
        table
    }

    /// Gives a profile other timeouts: all flows that have it live by them from now on, those
    /// that are stored already too.
    pub fn set_timeouts(&self, profile: Profile, timeouts: &Timeouts) {
        for state in State::ALL {
            let number = usize::from(profile.number()) * STATES + state as usize;
            if let Some(limits) = self.limits.get(number) {
                let fresh = timeouts.grain(state).0;
                let alive = timeouts.of(state).0.saturating_add(fresh);
                // Relaxed: either is as good before a change as after it.
                limits.fresh.store(fresh, Ordering::Relaxed);
                limits.alive.store(alive, Ordering::Relaxed);
            }
        }
    }

    /// How long a flow in `state` under this profile is kept after its last packet.
    #[must_use]
    pub fn lifetime(&self, profile: Profile, state: State) -> Span {
        let number = usize::from(profile.number()) * STATES + state as usize;
        let of = |limits: &Limits| {
            // Relaxed, both: as good before a change as after it.
            let alive = limits.alive.load(Ordering::Relaxed);
            alive.saturating_sub(limits.fresh.load(Ordering::Relaxed))
        };
        Span(self.limits.get(number).map_or(0, of))
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

    /// Where its flows are counted, if they are.
    #[must_use]
    pub const fn census(&self) -> Option<&Arc<Census>> {
        self.census.as_ref()
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
        self.region.prefetch_index(self.first_bucket(hash));
    }

    /// The second: if the flow seems to be in its first bucket, as most are, remembers where.
    /// Else fetches the index line of the second.
    #[inline]
    #[must_use]
    pub fn locate(&self, hash: FlowHash) -> FlowHash {
        match self.candidate(self.first_bucket(hash), hash) {
            Some(place) => hash.with_hint(place),
            None => self.prefetch_second(hash),
        }
    }

    /// The rest of the second step. Apart, so that most flows' is short.
    #[inline(never)]
    fn prefetch_second(&self, hash: FlowHash) -> FlowHash {
        let [_, second] = self.buckets_of(hash);
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
        let lanes = self.index(bucket).lanes().matching(Tag::of(hash));
        (lanes != 0).then(|| Self::place(bucket, lanes.trailing_zeros()))
    }

    /// Whose the flow with this key is, if the flow is where `hash` says
    /// (see [`prefetch_slot`](Self::prefetch_slot)), and a packet with this segment (all zero for a
    /// datagram) neither changes its state nor should renew its age or move its reach. `None` says
    /// nothing: then [`lookup`](Self::lookup) knows. Writes nothing.
    #[inline]
    #[must_use]
    pub fn steady(
        &self,
        key: &FlowKey,
        hash: FlowHash,
        segment: Segment,
        now: Seconds,
    ) -> Option<Whose> {
        let line = self.region.slot_if_any(hash.hint())?;
        let slot = Slot::new(&self.region, line, hash.hint());
        match slot.glance(&key.words()) {
            Some(record) => self.if_steady(record, segment, now),
            None => self.steady_elsewhere(key, hash, segment, now),
        }
    }

    /// The rest of [`steady`](Self::steady), with the record.
    #[inline]
    fn if_steady(
        &self,
        (seen, whose, reach): (Control, Whose, Reach),
        segment: Segment,
        now: Seconds,
    ) -> Option<Whose> {
        // A flow that is fresh has not ended: see `Limits`.
        let is_steady = seen.stays(whose.direction, segment.tcp_flags)
            && !self.is_stale_at(seen, now)
            && reach.covers(segment.sequence);
        is_steady.then_some(whose)
    }

    /// The same for a flow whose tag another flow of its bucket has too.
    #[cold]
    #[inline(never)]
    fn steady_elsewhere(
        &self,
        key: &FlowKey,
        hash: FlowHash,
        segment: Segment,
        now: Seconds,
    ) -> Option<Whose> {
        let Search::Hit(found) = self.search_all(&key.words(), hash) else {
            return None;
        };
        let record = (found.word, found.whose(), found.reach);
        self.if_steady(record, segment, now)
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
    /// flow is no longer there or another thread is writing it. Of several that try with the same
    /// finding, by this or [`remove`](Self::remove), one succeeds: what the flow's entry held is
    /// then that one's.
    pub fn replace(&self, found: &Found, new: NewFlow, now: Seconds) -> bool {
        let entry = new.entry(now);
        self.change(found, |slot, seen| {
            let replaced = slot.rewrite(seen, &entry);
            if replaced {
                let before = (seen.state(), found.whose());
                self.count(Some(before), Some((Some(new.state), entry.whose)));
            }
            replaced
        })
    }

    /// Takes note of where the sender of a flow that was found has come with a segment, and says
    /// whether the segment can be its own, see [`Reach::after`]. If not, nothing is noted, and
    /// nothing should be made of it.
    ///
    /// Where another thread notes something at the same time, one of the two is kept: either was
    /// there a moment ago.
    #[inline(never)]
    pub fn follow(&self, found: &Found, segment: Segment) -> bool {
        let Some(reach) = found.reach.after(found.state, segment) else {
            return false;
        };
        if reach != found.reach && found.place < self.slots() {
            self.slot(found.place).record(found.reach, reach);
        }
        true
    }

    /// Whether a flow that was found has not been renewed for so long that a packet should.
    #[inline]
    #[must_use]
    pub fn is_stale(&self, found: &Found, now: Seconds) -> bool {
        self.is_stale_at(found.word, now)
    }

    /// Gives a flow that was found another profile. `false` when it is no longer there.
    pub fn assign(&self, found: &Found, profile: Profile) -> bool {
        self.change(found, |slot, seen| {
            let Some(state) = seen.state() else {
                return false;
            };
            let moved = seen.moved_to(state, profile, seen.last_seen());
            moved == seen || slot.update(seen, moved)
        })
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
            let renews = next != state || self.is_stale_at(seen, now);
            // A thread whose clock is behind does not make a flow older than it is.
            let last_seen = if renews {
                now.max(seen.last_seen())
            } else {
                seen.last_seen()
            };
            let moved = seen.moved_to(next, seen.profile(), last_seen);
            let updated = moved == seen || slot.update(seen, moved);
            if updated && next != state {
                let whose = found.whose();
                self.count(Some((Some(state), whose)), Some((Some(next), whose)));
            }
            updated
        })
    }

    /// Removes a flow that was found. `false` when it is no longer there, so that of several who
    /// try one has what its entry held.
    pub fn remove(&self, found: &Found) -> bool {
        self.change(found, |slot, seen| {
            let removed = slot.clear(seen);
            if removed {
                self.count(Some((seen.state(), found.whose())), None);
            }
            removed
        })
    }

    /// The two buckets of a hash, which differ: one from each half of it, scaled to the number
    /// of buckets by multiplication (Lemire, "Fast Random Integer Generation in an Interval", ACM
    /// TOMACS 2019).
    #[inline]
    pub(crate) fn buckets_of(&self, hash: FlowHash) -> [u32; 2] {
        let first = self.first_bucket(hash);
        let second = self.scaled(hash.value() & 0xFFFF_FFFF);
        // The number of buckets is even, so an odd number has a neighbour below, an even one above.
        [first, if second == first { first ^ 1 } else { second }]
    }

    /// The first of [`Self::buckets_of`].
    #[inline]
    fn first_bucket(&self, hash: FlowHash) -> u32 {
        self.scaled(hash.value() >> 32)
    }

    /// A number of 32 bits scaled to the number of buckets.
    #[inline]
    fn scaled(&self, half: u64) -> u32 {
        // Neither factor exceeds 32 bits.
        let [_, _, _, _, a, b, c, d] = half.wrapping_mul(u64::from(self.buckets())).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    #[inline]
    pub(crate) fn index(&self, bucket: u32) -> Index<'_> {
        Index(self.region.index(bucket))
    }

    /// The number of the slot of a bucket's lane (1 and up).
    #[inline]
    pub(crate) const fn place(bucket: u32, lane: u32) -> u32 {
        bucket
            .wrapping_mul(SLOTS)
            .wrapping_add(lane)
            .wrapping_sub(1)
    }

    #[inline]
    pub(crate) fn slot(&self, place: u32) -> Slot<'_> {
        Slot::new(&self.region, self.region.slot(place), place)
    }

    /// Counts that a flow in a state has gone from a slot, another come. One that is closed is
    /// none any more.
    pub(crate) fn count(&self, gone: Option<Counted>, come: Option<Counted>) {
        let Some(census) = &self.census else { return };
        let living = |counted: Option<Counted>| {
            let (state, whose) = counted?;
            (!state?.is_closed()).then_some((whose.owner, whose.direction))
        };
        let (gone, come) = (living(gone), living(come));
        if gone == come {
            return;
        }
        if let Some((owner, direction)) = gone {
            census.leave(owner, direction);
        }
        if let Some((owner, direction)) = come {
            census.enter(owner, direction);
        }
    }

    /// Whether the time of the flow under a control word is up.
    #[inline]
    pub(crate) fn has_ended(&self, word: Control, now: Seconds) -> bool {
        // Relaxed: as good before a change as after it.
        word.age(now) > self.limits(word).alive.load(Ordering::Relaxed)
    }

    #[inline]
    fn is_stale_at(&self, word: Control, now: Seconds) -> bool {
        // Relaxed: as good before a change as after it.
        word.age(now) > self.limits(word).fresh.load(Ordering::Relaxed)
    }

    #[inline]
    const fn limits(&self, word: Control) -> &Limits {
        &self.limits[word.limits_number()]
    }

    #[inline]
    pub(crate) fn search(&self, key: &[u64; 5], hash: FlowHash) -> Search {
        if hash.hint() < self.slots()
            && let Reading::Found(seen) = self.slot(hash.hint()).read(key)
        {
            return Search::Hit(found(hash.hint(), seen));
        }
        self.search_all(key, hash)
    }

    /// Looks at every slot whose tag fits.
    fn search_all(&self, key: &[u64; 5], hash: FlowHash) -> Search {
        let mut absent = Search::Miss;
        for place in self.candidates(hash) {
            match self.slot(place).read(key) {
                Reading::Found(seen) => return Search::Hit(found(place, seen)),
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
        let lanes = self.matching(first, tag) | self.matching(second, tag) << 16;
        lanes_in(lanes).map(move |lane| {
            let bucket = if lane < 16 { first } else { second };
            Self::place(bucket, lane % 16)
        })
    }

    /// The lanes of a bucket whose tags fit. Always inlined: a call would cost more than what it
    /// does.
    #[inline(always)]
    fn matching(&self, bucket: u32, tag: Tag) -> u32 {
        u32::from(self.index(bucket).lanes().matching(tag))
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

#[inline]
pub(crate) const fn found(place: u32, seen: Seen) -> Found {
    Found {
        state: seen.state,
        owner: seen.whose.owner,
        direction: seen.whose.direction,
        tie: seen.whose.tie,
        reach: seen.reach,
        place,
        word: seen.word,
    }
}

#[cfg(test)]
mod tests;
