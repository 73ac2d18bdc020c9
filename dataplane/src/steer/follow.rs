//! Later fragments: they go where their flow goes, and begin, change and end nothing.

use ringgate_conntrack::{FlowHash, Tie};

use super::{Decision, FlowEvent, Refusal, Steering};
use crate::parse::Packet;
use crate::service::Service;
use crate::verdict::DropReason;

impl<'a> Steering<'a> {
    /// The way of a client's fragment that has its flow's key but no transport header. A flow that is
    /// not stored, or whose backend is gone, goes by the ring, as its first fragment does.
    #[cold]
    pub(super) fn follow(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<Decision<'a>, Refusal> {
        let stored = self.table.lookup(&packet.key, hash, self.now);
        let found = stored.or_else(|| self.awaited(service, packet, hash));
        let known = found.and_then(|found| Some((self.serving_flow(&found)?, found.tie)));
        let (backend, tie) = match known {
            Some(known) => known,
            None => (self.by_ring(service, packet)?, Tie::NONE),
        };
        let (action, hop) = self.way_to(backend, tie, packet)?;
        Ok(Decision::new(action, hop, backend, FlowEvent::None))
    }

    /// The way of a client's fragment to the service at this position, of which the addresses are all that
    /// is known: where the ring sends its client, whose ports do not matter.
    ///
    /// # Errors
    ///
    /// The one reason why it must be dropped.
    #[cold]
    pub fn by_address(&self, service: u16, packet: &Packet) -> Result<Decision<'a>, Refusal> {
        let service = self.snapshot.service_at(service);
        let service = service.ok_or(DropReason::NotForUs)?;
        if !service.admits(packet.tags) {
            return Err(DropReason::WrongVlan.into());
        }
        let backend = self.by_ring(service, packet)?;
        let (action, hop) = self.way_to(backend, Tie::NONE, packet)?;
        Ok(Decision::new(action, hop, backend, FlowEvent::None))
    }
}
