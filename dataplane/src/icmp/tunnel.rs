//! Errors from within a tunnel: what they quote is an outer packet of ours, and what they mean is told
//! to the sender of the inner one (RFC 2003 §4, RFC 2473 §8).
//!
//! | reported about the outer packet | told about the inner one |
//! |---|---|
//! | too big | too big, with as much less as the outer headers take |
//! | unreachable, time exceeded | host (IPv6: address) unreachable: of the tunnel the sender knows nothing |
//! | source route failed, parameter problem | nothing: the outer header is the balancer's own doing |
//!
//! A too-big is told of an inner packet without DF, too, unlike what we say of our own (RFC 792): RFC 2003 §4.1
//! has it relayed whatever the packet was, and its sender can cut it, while behind the outer header, which
//! says DF, nobody does.
//!
//! No state is kept of it (RFC 2003 §5.1 would have the balancer remember the tunnel's MTU): the
//! senders keep it. The price is that a router must quote the inner packet too, as far as its
//! ports; RFC 1812 §4.3.2.3 and RFC 4443 ask for as much as fits, and those in use do it.

use ringgate_conntrack::FlowKey;

use super::message::{Complaint, Message};
use super::quote::Quote;
use super::relay::known;
use super::report::{self, Report};
use crate::backend::{Backend, BackendId, Treatment};
use crate::parse::{Family, general};
use crate::steer::Steering;
use crate::wire::{ethernet, icmpv4, udp};

/// IANA protocol numbers of what an outer header may be followed by.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;

/// Length of the GRE header, and of each of its options, and of GUE's, bytes.
const WORD: usize = 4;

/// Most backends of a service that are looked at for the one whose outer packet it is.
const SCANNED_MOST: usize = 1024;

/// MTUs in use below which a packet did not fit where a router does not tell (RFC 1191 §7).
const PLATEAUS: [u32; 8] = [17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];

/// An inner packet, in the quote of an outer one of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Returned {
    /// What came of it, and where.
    pub(super) inner: Quote,
    /// Its length when it was whole, bytes.
    len: usize,
    /// What the outer headers take, bytes.
    overhead: usize,
    /// IP version and protocol number of the outer header.
    outer: (Family, u8),
}

impl Returned {
    /// What `message`, whose quote is `outer`, brings back; `None` if that is no outer packet of a
    /// tunnel of ours, or too little of one.
    pub(super) fn read(
        steering: &Steering<'_>,
        frame: &[u8],
        message: &Message,
        outer: &Quote,
    ) -> Option<Self> {
        if outer.source != message.destination {
            return None;
        }
        let start = inner_of(frame, outer)?;
        let inner = Quote::read(frame, start, outer.end)?;
        let key = inner.key(frame)?;
        let snapshot = steering.snapshot;
        // Whoever forges this has an error sent to whom he wants, so it is looked at twice.
        let is_ours = general::is_possible_source(inner.source)
            && !snapshot.is_service_address(inner.source)
            && is_by(steering, &key, outer);
        is_ours.then_some(Self {
            inner,
            len: inner.written_len(frame)?,
            overhead: start - outer.network,
            outer: (outer.family, outer.protocol),
        })
    }

    /// What its sender is told, if anything.
    pub(super) fn report(&self, complaint: Complaint) -> Option<Report> {
        match complaint {
            Complaint::TooBig { mtu } => {
                let overhead = u32::try_from(self.overhead).ok()?;
                let report = Report::TooBig(self.told(mtu).saturating_sub(overhead));
                // An IPv6 packet of the least MTU would have to be fragmented on the way (RFC 2473
                // §7.1), and its sender cannot make it shorter.
                let may_shrink = self.inner.family == Family::V4 || self.len > report::LEAST_MTU_V6;
                may_shrink.then_some(report)
            }
            Complaint::Unreachable { code } => match (self.outer, code) {
                ((Family::V4, _), icmpv4::SOURCE_ROUTE) => None,
                // Only UDP has ports.
                ((Family::V4, protocol), icmpv4::PORT) if protocol != udp::PROTOCOL => None,
                _ => Some(Report::HostUnreachable),
            },
            Complaint::TimeExceeded => Some(Report::HostUnreachable),
            Complaint::Parameter => None,
        }
    }

    /// The MTU for the outer packet: as told, or a guess.
    fn told(&self, mtu: u32) -> u32 {
        let len = self.len + self.overhead;
        let is_less = |plateau: &&u32| usize::try_from(**plateau).is_ok_and(|p| p < len);
        if mtu > 0 {
            mtu
        } else {
            PLATEAUS.iter().find(is_less).copied().unwrap_or(0)
        }
    }
}

/// Where the inner packet begins.
fn inner_of(frame: &[u8], outer: &Quote) -> Option<usize> {
    let payload = outer.payload?;
    let bytes = frame.get(payload..outer.end)?;
    let len = match outer.protocol {
        IPV4 | IPV6 => 0,
        GRE => {
            let [flags, version, kind @ ..] = *bytes.first_chunk::<WORD>()?;
            let kind = u16::from_be_bytes(kind);
            if version & 7 != 0 || !matches!(kind, ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6) {
                return None;
            }
            // Checksum, key, sequence number (RFC 2784 §2.1, RFC 2890 §2).
            let options = [0x80, 0x20, 0x10].iter().filter(|flag| flags & **flag != 0);
            WORD + WORD * options.count()
        }
        udp::PROTOCOL => {
            let first = *bytes.get(udp::HEADER)?;
            match first >> 6 {
                0 => udp::HEADER + WORD + WORD * usize::from(first & 0x1F),
                1 => udp::HEADER,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(payload + len)
}

/// Whether a backend of the flow's service is reached through this tunnel.
fn is_by(steering: &Steering<'_>, key: &FlowKey, outer: &Quote) -> bool {
    let snapshot = steering.snapshot;
    let leads = |backend: &Backend| match &backend.treatment {
        Treatment::Encapsulate(encapsulation) => {
            encapsulation.destination() == outer.destination
                && encapsulation.may_be_from(outer.source)
        }
        Treatment::Direct
        | Treatment::Translate(_)
        | Treatment::Readdress
        | Treatment::Exchange => false,
    };
    let Some(service) = snapshot.service(key.destination(), key.protocol()) else {
        return false;
    };
    let owner = known(steering, key).map(|found| BackendId(found.owner));
    let others = service.members.iter().copied().take(SCANNED_MOST);
    let mut candidates = owner.into_iter().chain(others);
    candidates.any(|id| snapshot.backend(id).is_some_and(leads))
}
