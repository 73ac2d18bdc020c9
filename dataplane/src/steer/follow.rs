//! Later fragments: they go where their flow goes, and begin, change and end nothing.

use ringgate_conntrack::FlowHash;

use super::{Decision, FlowEvent, Refusal, Steering, way_to};
use crate::backend::BackendId;
use crate::parse::Packet;
use crate::service::Service;

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
}
