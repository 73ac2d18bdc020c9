//! What the program should do with a frame, from the same bytes and the same [`Steered`], in plain
//! Rust: slices for pointers, a look at everything for maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::frames::{OWN, TCP, UDP};
use crate::steered::{Steered, SteeredService, SteeredWay};
use ringgate_config::Vlan;

/// What becomes of a frame: a counter each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(super) enum Fate {
    Other,
    Vlan,
    Service,
    Return,
    Fragment,
    Icmp,
    Echo,
}

/// What there is to know of a packet that may be the balancer's.
struct Seen {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    protocol: u8,
}

enum Kind {
    Whole,
    Fragment,
    Error,
    Echo,
}

/// What [`Steered`] does not have.
pub(super) struct World<'a> {
    pub(super) steered: &'a Steered,
    pub(super) locals: &'a [IpAddr],
}

impl World<'_> {
    pub(super) fn fate(&self, frame: &[u8]) -> Fate {
        self.judge(frame).unwrap_or(Fate::Other)
    }

    fn judge(&self, frame: &[u8]) -> Option<Fate> {
        if frame.get(..6)? != OWN {
            return None;
        }
        let (vlan, packet) = untag(frame.get(12..)?)?;
        let (kind, seen) = read(packet)?;
        let service = match kind {
            Kind::Whole | Kind::Error => self.service_at(&seen),
            Kind::Fragment => self.tags_of(&seen, |s| s.fragments && s.protocol == seen.protocol),
            Kind::Echo => self.tags_of(&seen, |_| self.steered.echo),
        };
        match (service, kind) {
            (Some(Some(wanted)), _) if vlan != Some(wanted) => Some(Fate::Vlan),
            (Some(_), Kind::Whole) => Some(Fate::Service),
            (Some(_), Kind::Fragment) => Some(Fate::Fragment),
            (Some(_), Kind::Error) => Some(Fate::Icmp),
            (Some(_), Kind::Echo) => Some(Fate::Echo),
            (None, Kind::Whole) => self.returns(&seen).then_some(Fate::Return),
            (None, Kind::Fragment) => self.fragment_returns(&seen).then_some(Fate::Fragment),
            (None, Kind::Error) => {
                (self.returns(&seen) || self.tunnels(&seen)).then_some(Fate::Icmp)
            }
            (None, Kind::Echo) => None,
        }
    }

    /// The tags that the service at the destination wants.
    fn service_at(&self, seen: &Seen) -> Option<Option<Vlan>> {
        let fits = |service: &&SteeredService| {
            service.protocol == seen.protocol
                && service.prefix.contains(&seen.to.0)
                && service.ports.contains(seen.to.1)
        };
        let services = self.steered.services.iter().filter(fits);
        let service = services.max_by_key(|service| service.prefix.prefix_len());
        service.map(|service| service.vlan)
    }

    /// The tags that all services of the destination address want that are meant.
    fn tags_of(
        &self,
        seen: &Seen,
        meant: impl Fn(&SteeredService) -> bool,
    ) -> Option<Option<Vlan>> {
        let services = self.steered.services.iter();
        let mut tags: Vec<_> = services
            .filter(|service| service.prefix.contains(&seen.to.0) && meant(service))
            .map(|service| service.vlan)
            .collect();
        tags.dedup();
        match tags[..] {
            [] => None,
            [one] => Some(one),
            _ => Some(None),
        }
    }

    fn returns(&self, seen: &Seen) -> bool {
        self.steered.returns.iter().any(|one| {
            (one.address, one.protocol) == (seen.from.0, seen.protocol)
                && one.ports.contains(seen.from.1)
                && match one.way {
                    SteeredWay::Nat => !self.locals.contains(&seen.to.0),
                    SteeredWay::FullNat => {
                        self.steered.pool.contains(&seen.to.0)
                            && self.steered.pool_ports.contains(seen.to.1)
                    }
                }
        })
    }

    fn fragment_returns(&self, seen: &Seen) -> bool {
        self.steered.returns.iter().any(|one| {
            one.fragments
                && (one.address, one.protocol) == (seen.from.0, seen.protocol)
                && match one.way {
                    SteeredWay::Nat => !self.locals.contains(&seen.to.0),
                    SteeredWay::FullNat => self.steered.pool.contains(&seen.to.0),
                }
        })
    }

    fn tunnels(&self, seen: &Seen) -> bool {
        let sources = &self.steered.tunnel_sources;
        let ours =
            self.locals.contains(&seen.to.0) || sources.iter().any(|net| net.contains(&seen.to.0));
        let end = (seen.from.0, seen.protocol, seen.from.1);
        let mut tunnels = self.steered.tunnels.iter();
        ours && tunnels.any(|tunnel| (tunnel.address, tunnel.protocol, tunnel.port) == end)
    }
}

/// The packet behind EtherType and tags, if there are at most two.
fn untag(mut rest: &[u8]) -> Option<(Option<Vlan>, &[u8])> {
    let mut numbers = Vec::new();
    while let [0x81 | 0x91, 0x00, a, b, behind @ ..] | [0x88, 0xA8, a, b, behind @ ..] = rest {
        numbers.push(u16::from_be_bytes([a & 0x0F, *b]));
        rest = behind;
    }
    let vlan = match numbers[..] {
        [] => None,
        [outer] => Some(Vlan { outer, inner: None }),
        [outer, inner] => Some(Vlan {
            outer,
            inner: Some(inner),
        }),
        _ => return None,
    };
    match rest {
        [0x08, 0x00, packet @ ..] => (*packet.first()? >> 4 == 4).then_some((vlan, packet)),
        [0x86, 0xDD, packet @ ..] => (*packet.first()? >> 4 == 6).then_some((vlan, packet)),
        _ => None,
    }
}

/// An IP packet's header: addresses, protocol, whether it is a fragment and a later one, payload.
struct Header<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    is_fragment: bool,
    is_later: bool,
    payload: &'a [u8],
}

fn header(packet: &[u8]) -> Option<Header<'_>> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    if packet.first()? >> 4 == 4 {
        let address = |at: usize| {
            let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(bytes)))
        };
        let length = usize::from(packet[0] & 15) * 4;
        let field = word(6)?;
        return Some(Header {
            from: address(12)?,
            to: address(16)?,
            protocol: packet[9],
            is_fragment: field & 0x3FFF != 0,
            is_later: field & 0x1FFF != 0,
            // What the header announces may not be there: the payload is empty then.
            payload: packet.get(length..).unwrap_or_default(),
        })
        .filter(|_| length >= 20);
    }
    let address = |at: usize| {
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        let address = Ipv6Addr::from(bytes);
        let is_mapped = address.to_ipv4_mapped().is_some();
        (!is_mapped).then_some(IpAddr::V6(address))
    };
    let (from, to) = (address(8)?, address(24)?);
    let whole = Header {
        from,
        to,
        protocol: packet[6],
        is_fragment: false,
        is_later: false,
        payload: &packet[40..],
    };
    if whole.protocol != 44 {
        return Some(whole);
    }
    Some(Header {
        protocol: packet[40..].first().copied()?,
        is_fragment: true,
        is_later: word(42)? >> 3 != 0,
        payload: packet.get(48..)?,
        ..whole
    })
}

fn two_ports(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d, ..] = *payload else {
        return None;
    };
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

fn read(packet: &[u8]) -> Option<(Kind, Seen)> {
    let header = header(packet)?;
    let seen = |(from, to)| Seen {
        from: (header.from, from),
        to: (header.to, to),
        protocol: header.protocol,
    };
    match header.protocol {
        TCP | UDP if header.is_later => Some((Kind::Fragment, seen((0, 0)))),
        TCP | UDP => Some((Kind::Whole, seen(two_ports(header.payload)?))),
        1 if header.from.is_ipv4() && !header.is_fragment => match *header.payload.get(..8)? {
            [8, 0, ..] => Some((Kind::Echo, seen((0, 0)))),
            [3 | 11 | 12, ..] => error(&header.payload[8..], 4),
            _ => None,
        },
        58 if header.from.is_ipv6() && !header.is_fragment => match *header.payload.get(..8)? {
            [128, 0, ..] => Some((Kind::Echo, seen((0, 0)))),
            [1..=4, ..] => error(&header.payload[8..], 6),
            _ => None,
        },
        _ => None,
    }
}

/// The answer to the packet that an error is about.
fn error(embedded: &[u8], version: u8) -> Option<(Kind, Seen)> {
    if embedded.first()? >> 4 != version {
        return None;
    }
    let header = header(embedded)?;
    if header.is_later {
        return None;
    }
    let (from, to) = match header.protocol {
        TCP | UDP => two_ports(header.payload)?,
        4 | 41 | 47 => (0, 0),
        _ => return None,
    };
    Some((
        Kind::Error,
        Seen {
            from: (header.to, to),
            to: (header.from, from),
            protocol: header.protocol,
        },
    ))
}
