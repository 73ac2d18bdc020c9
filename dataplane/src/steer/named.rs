//! A packet whose backend is known before it is looked at: a check's.

use super::{Action, Decision, FlowEvent, Refusal, hop_to, most_segment};
use crate::backend::Backend;
use crate::parse::Packet;
use crate::snapshot::Snapshot;
use crate::verdict::DropReason;

/// What a worker does with a client's `packet` of a flow that `backend` has. Whether the backend may be sent anything is
/// not asked, and nothing is stored.
///
/// # Errors
///
/// As [`Steering::decide`](super::Steering::decide); [`DropReason::Unstored`] where what is done depends on the flow's entry
/// ([`Treatment::Exchange`](crate::backend::Treatment)).
pub(crate) fn towards<'a>(
    snapshot: &'a Snapshot,
    backend: &'a Backend,
    packet: &Packet,
) -> Result<Decision<'a>, Refusal> {
    if backend.exchanges() {
        return Err(DropReason::Unstored.into());
    }
    let hop = hop_to(backend, packet)?;
    let action = Action::to(backend, packet);
    let mut decision = Decision::new(action, hop, backend, FlowEvent::None);
    if let Some(service) = snapshot.service_at(backend.service) {
        decision.most_segment = most_segment(service, packet, &decision, None);
    }
    Ok(decision)
}
