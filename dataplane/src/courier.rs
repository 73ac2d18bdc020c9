//! Packets of this host's own that are to reach one backend as a client's would: those of checks that follow the way
//! of the traffic.
//!
//! A packet is parsed, checked against the way and rewritten by the workers' own code, from the same snapshot; only
//! the backend is not chosen but named, and may be one that gets no traffic. Not for the hot path: the control thread carries a few
//! packets for each check.

use ringgate_conntrack::FlowKey;

use crate::backend::BackendId;
use crate::parse::parse;
use crate::rewrite::{clamp, rewrite};
use crate::route::PortIndex;
use crate::snapshot::Snapshot;
use crate::steer::{Refusal, named::towards};
use crate::verdict::DropReason;
use crate::wire::ethernet;
use crate::xsk::Pool;

/// See the module's documentation.
#[derive(Debug)]
pub struct Courier {
    /// Of one frame, with room in front of it for what a tunnel adds.
    pool: Pool,
}

impl Default for Courier {
    fn default() -> Self {
        Self {
            pool: Pool::anonymous(1),
        }
    }
}

impl Courier {
    /// Makes of an IP packet the frame with which a client's like it reaches a backend, and hands that to `send` with the
    /// interface that it is to leave by. `whom` says which backend, by the packet's flow.
    ///
    /// # Errors
    ///
    /// As of a client's packet; [`DropReason::NotForUs`] when `whom` knows nobody, or the one it names is gone.
    pub fn carry(
        &mut self,
        packet: &[u8],
        snapshot: &Snapshot,
        whom: impl FnOnce(&FlowKey) -> Option<BackendId>,
        send: impl FnOnce(PortIndex, &[u8]),
    ) -> Result<(), Refusal> {
        let mut frame = self.pool.take().ok_or(DropReason::Truncated)?; // it is always given back
        let carried = (|| {
            let ethertype = match packet.first().map(|first| first >> 4) {
                Some(4) => ethernet::TYPE_IPV4,
                Some(6) => ethernet::TYPE_IPV6,
                _ => return Err(DropReason::NotIp.into()),
            };
            frame.set_len(ethernet::HEADER + packet.len());
            let (head, rest) = frame.bytes_mut().split_at_mut(ethernet::HEADER);
            if rest.len() < packet.len() {
                return Err(DropReason::TooBig.into());
            }
            let (addresses, kind) = head.split_at_mut(ethernet::HEADER - size_of_val(&ethertype));
            addresses.fill(0); // both are the way's
            kind.copy_from_slice(&ethertype.to_be_bytes());
            rest.copy_from_slice(packet);
            let parsed = parse(frame.bytes(), false)?;
            let id = whom(&parsed.key).ok_or(DropReason::NotForUs)?;
            let backend = snapshot.backend(id).ok_or(DropReason::NotForUs)?;
            let decision = towards(snapshot, backend, &parsed)?;
            if let Some(most) = decision.most_segment {
                clamp(frame.bytes_mut(), &parsed, most)?;
            }
            rewrite(&mut frame, &parsed, &decision.action, decision.hop)?;
            send(decision.hop.port, frame.bytes());
            Ok(())
        })();
        self.pool.give(frame);
        carried
    }
}
