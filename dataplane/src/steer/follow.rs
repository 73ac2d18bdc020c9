//! Later fragments: they go where their flow goes, and begin, change and end nothing.

use ringgate_conntrack::FlowHash;

use super::{Decision, FlowEvent, Refusal, Steering, way_to};
use crate::backend::BackendId;
use crate::parse::Packet;
use crate::service::Service;
use crate::verdict::DropReason;

impl Steering<'_> {
    /// The way of a client's fragment that has its flow's key but no transport header. A flow that is
    /// not stored, or whose backend is gone, goes by the ring, as its first fragment does.
    #[cold]
    pub(super) fn follow(
        &self,
        service: &Service,
        packet: &Packet,
        hash: FlowHash,
    ) -> Result<Decision, Refusal> {
        let stored = self.table.lookup(&packet.key, hash, self.now);
        let found = stored.or_else(|| self.awaited(service, packet, hash));
        let backend = match found.and_then(|found| self.serving(BackendId(found.owner))) {
            Some(backend) => backend,
            None => self.by_ring(service, packet)?,
        };
        let (action, hop) = way_to(backend, packet)?;
        Ok(Decision::new(action, hop, backend, FlowEvent::None))
    }

    /// The way of a client's fragment to the service at this position, of which the addresses are all that
    /// is known: where the ring sends its client, whose ports do not matter.
    ///
    /// # Errors
    ///
    /// The one reason why it must be dropped.
    #[cold]
    pub fn by_address(&self, service: u16, packet: &Packet) -> Result<Decision, Refusal> {
        let service = self.snapshot.service_at(service);
        let backend = self.by_ring(service.ok_or(DropReason::NotForUs)?, packet)?;
        let (action, hop) = way_to(backend, packet)?;
        Ok(Decision::new(action, hop, backend, FlowEvent::None))
    }
}
