//! From one entry of a flow to the other: a backend's entry can name the slot of the client's
//! ([`Tie`](crate::Tie)), where a reply's key does not tell who the client is.
//!
//! A slot's number is a hint: the flow that was there may have gone, and another have come. Who
//! goes there checks what he finds against what he came from.

use crate::expiry::Seconds;
use crate::hash::FlowHash;
use crate::key::FlowKey;
use crate::slot::Slot;
use crate::table::{FlowTable, Found, found};
use crate::whose::Whose;

impl FlowTable {
    /// The key in a slot, and whose it is, unless the slot is empty or being written: for a packet
    /// that goes on as before. Whether its time is up is not asked.
    #[inline]
    #[must_use]
    pub fn key_in(&self, slot: u32) -> Option<(FlowKey, Whose)> {
        let line = self.region.slot_if_any(slot)?;
        Slot::new(&self.region, line, slot).peek()
    }

    /// The flow in a slot, unless there is none or its time is up.
    #[must_use]
    pub fn flow_in(&self, slot: u32, now: Seconds) -> Option<(FlowKey, Found)> {
        let line = self.region.slot_if_any(slot)?;
        let (key, seen) = Slot::new(&self.region, line, slot).read_any()?;
        (!self.has_ended(seen.word, now)).then(|| (key, found(slot, seen)))
    }

    /// A step after [`prefetch_slot`](Self::prefetch_slot), for a whole batch too: fetches the
    /// slot that the flow's entry names, if it does. Waits for the entry.
    #[inline]
    pub fn prefetch_tied(&self, hash: FlowHash) {
        if let Some(line) = self.region.slot_if_any(hash.hint())
            && let Some(tied) = Slot::new(&self.region, line, hash.hint())
                .whose()
                .names_slot()
        {
            self.region.prefetch_slot(tied);
        }
    }
}
