//! Taking over a table that another process has left in shared memory, however it ended.
//!
//! The header says whether it is one (`header`). Then every slot and gate is looked at, once,
//! because a process can be killed between any two of its stores:
//!
//! | it died | it left | what becomes of it |
//! |---|---|---|
//! | inside a gate | a gate that nobody opens any more | opened |
//! | inserting, between claim and publication | a busy slot without a flow; half of a record; the tag of the old flow or of the new | emptied: the flow was not there yet |
//! | removing | a busy slot without a flow; the tag or none | emptied: the flow was gone already |
//! | rewriting | a busy slot with a flow, of its old owner or of its new | emptied: state and owner need not belong together, and the flow begins anew with its next packet |
//! | updating | nothing: one compare-and-swap does it | – |
//! | adopting | some slots still as above | the next adopter looks at all of them |
//!
//! So a killed process costs at most one flow for each of its threads. Beyond that, a slot whose
//! flow no lookup would find (another bucket's, another tag) is emptied, so that nothing in a
//! damaged table holds its place for ever, and a flow that was last seen later than now was seen
//! now: else an adopter whose clock is behind would keep it for as long as that.
//!
//! # What the adopter owes
//!
//! - **Nobody writes meanwhile.** The last process has ended, or its workers have stopped. Readers
//!   may go on: slots are emptied by the protocol that they know.
//! - **The same clock.** Times are seconds of the clock that the last process was given.
//! - **The same owners.** What an owner's number stands for is the callers' agreement, and has
//!   to be handed over beside the memory. An adopter numbers owners as its predecessor did, and
//!   lets numbers that it does not know stand for nobody. It cannot number them anew in the table:
//!   killed in the middle it would leave both numberings, and no way to tell them apart.
//! - **The same source ports.** What the ties of the flows hold ([`crate::source_ports::Lease`]) is held:
//!   their numbers of addresses, groups and the division of ports are the predecessor's, and
//!   no port of theirs is given out to another flow.

use crate::expiry::{Seconds, Timeouts};
use crate::header::AdoptError;
use crate::lanes::{Lanes, Tag};
use crate::memory::Memory;
use crate::region::{Region, SLOTS};
use crate::slot::{Seen, Slot};
use crate::table::FlowTable;

/// What was found in an adopted table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Healed {
    /// Whole flows, ended ones that were not swept yet included.
    pub flows: usize,
    /// Gates that were closed: threads that died inserting.
    pub gates: usize,
    /// Slots that were emptied: threads that died writing, or damage.
    pub slots: usize,
    /// Flows that had been seen later than now: clocks that differ.
    pub ahead: usize,
}

impl FlowTable {
    /// Takes over the table in `memory`, with its flows, capacity and secret, and heals what was
    /// left unfinished. See the module's documentation for what the caller owes: no other
    /// writers, the same clock, the same owners. Reads all of the memory.
    ///
    /// # Errors
    ///
    /// See [`AdoptError`]; the memory is as it was.
    pub fn adopt(
        memory: Memory,
        timeouts: Timeouts,
        now: Seconds,
    ) -> Result<(Self, Healed), AdoptError> {
        let (region, capacity, key) = Region::adopt(memory)?;
        let table = Self::over(region, capacity, key, &timeouts);
        let healed = table.heal(now);
        Ok((table, healed))
    }

    fn heal(&self, now: Seconds) -> Healed {
        let mut healed = Healed::default();
        for bucket in 0..self.buckets() {
            healed.gates += usize::from(self.index(bucket).open());
            let lanes = self.index(bucket).lanes();
            for lane in 1..=SLOTS {
                let slot = self.slot(Self::place(bucket, lane));
                self.heal_slot(slot, (bucket, lane), lanes, now, &mut healed);
            }
        }
        healed
    }

    fn heal_slot(
        &self,
        slot: Slot<'_>,
        (bucket, lane): (u32, u32),
        lanes: Lanes,
        now: Seconds,
        healed: &mut Healed,
    ) {
        let has = |tag| lanes.matching(tag) & 1 << lane != 0;
        let Some((key, seen)) = slot.read_any() else {
            if !slot.observe().is_empty() || !has(Tag::EMPTY) {
                slot.reset();
                healed.slots += 1;
            }
            return;
        };
        let hash = self.hash(&key);
        if !self.buckets_of(hash).contains(&bucket) || !has(Tag::of(hash)) {
            slot.reset();
            healed.slots += 1;
            return;
        }
        healed.flows += 1;
        let Seen { word, state, .. } = seen;
        if word.last_seen() > now {
            healed.ahead += 1;
            slot.update(word, word.moved_to(state, word.profile(), now));
        }
    }
}

#[cfg(test)]
mod tests;
