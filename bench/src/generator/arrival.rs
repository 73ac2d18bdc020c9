//! What a frame at the sink is: ours and whole, ours and damaged, or somebody else's.
//!
//! It is read as a backend would: through VLAN tags, and through one tunnel header (IP in IP, GRE,
//! GUE). Where it was sent, by outer address, is the backend that the balancer chose.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ringgate_dataplane::wire::checksum::{fold, is_zero, sum};
use ringgate_dataplane::wire::ethernet::Mac;

use super::stamp::{Read, Stamp};

/// Whom the balancer chose, as far as a frame tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whom {
    /// The destination's address and port; without a port in a tunnel that has none (0).
    Address(SocketAddr),
    /// The destination is the service itself (direct return): the hardware address tells.
    Hardware([u8; 6]),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) if address.port() == 0 => address.ip().fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Hardware(address) => Mac(*address).fmt(f),
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Not from our source.
    Foreign,
    /// It was ours, or nobody can tell: a checksum or the stamp's check is wrong.
    Corrupt,
    /// As it was sent, but for what balancers change.
    Whole(Stamp, Whom),
}

/// Reads `frame`. `service` is what clients address.
#[must_use]
pub fn read(frame: &[u8], service: Option<SocketAddr>) -> Arrival {
    let Some(hardware) = frame.first_chunk::<6>() else {
        return Arrival::Foreign;
    };
    match transport(frame, Checksums::Whole) {
        Err(Refused::Foreign) => Arrival::Foreign,
        Err(Refused::Corrupt) => Arrival::Corrupt,
        Ok(found) => match Stamp::read(found.payload) {
            Read::Foreign => Arrival::Foreign,
            Read::Damaged => Arrival::Corrupt,
            Read::Whole(stamp) => {
                let whom = found.outer.unwrap_or(found.destination);
                let is_service = Some(whom) == service;
                let whom = if is_service {
                    Whom::Hardware(*hardware)
                } else {
                    Whom::Address(whom)
                };
                Arrival::Whole(stamp, whom)
            }
        },
    }
}

/// What `frame` carries, in whatever tunnel.
///
/// # Errors
///
/// [`Refused`].
pub(crate) fn transport(frame: &[u8], checksums: Checksums) -> Result<Transport<'_>, Refused> {
    let packet = untagged(frame).ok_or(Refused::Foreign)?;
    datagram(packet, None, checksums)
}

/// Which checksums are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksums {
    /// Those over everything.
    Whole,
    /// Also those over the pseudo header alone: frames of a kernel that leaves the rest to a device,
    /// and the device is a veth (CHECKSUM_PARTIAL).
    OrPartial,
}

/// Why there is no datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is something else.
    Foreign,
    /// A checksum or a length is wrong.
    Corrupt,
}

/// A datagram or segment with right checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transport<'a> {
    /// IANA protocol number: 6 or 17.
    pub(crate) protocol: u8,
    /// Where it comes from.
    pub(crate) source: SocketAddr,
    /// Where it goes.
    pub(crate) destination: SocketAddr,
    /// Where the tunnel goes, if it came through one.
    pub(crate) outer: Option<SocketAddr>,
    /// From the source port on.
    pub(crate) header: &'a [u8],
    /// Behind the header.
    pub(crate) payload: &'a [u8],
}

/// A version of IP's header, as far as it matters.
struct Ip<'a> {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    /// Sum of both addresses.
    addresses: u64,
    rest: &'a [u8],
}

/// The packet behind the hardware addresses and up to two tags.
fn untagged(frame: &[u8]) -> Option<&[u8]> {
    let mut at = 12;
    for _ in 0..3 {
        match frame.get(at..at + 2)? {
            [0x08, 0x00] | [0x86, 0xDD] => return frame.get(at + 2..),
            [0x81, 0x00] | [0x88, 0xA8] => at += 4,
            _ => return None,
        }
    }
    None
}

fn ip(packet: &[u8]) -> Result<Ip<'_>, Refused> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(packet),
        Some(6) => ipv6(packet),
        _ => Err(Refused::Foreign),
    }
}

/// RFC 791, without fragments.
fn ipv4(packet: &[u8]) -> Result<Ip<'_>, Refused> {
    let header = packet.first_chunk::<20>().ok_or(Refused::Foreign)?;
    let len = usize::from(header[0] & 0xF) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let whole = packet
        .get(..len)
        .filter(|_| len >= 20)
        .ok_or(Refused::Corrupt)?;
    if !is_zero(sum(whole)) {
        return Err(Refused::Corrupt);
    }
    // More fragments, or not the first one.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3FFF != 0 {
        return Err(Refused::Foreign);
    }
    let [.., s0, s1, s2, s3, a, b, c, d] = *header;
    Ok(Ip {
        protocol: header[9],
        source: IpAddr::from([s0, s1, s2, s3]),
        destination: IpAddr::from([a, b, c, d]),
        addresses: sum(&header[12..]),
        rest: packet.get(len..total).ok_or(Refused::Corrupt)?,
    })
}

/// RFC 8200, without extension headers.
fn ipv6(packet: &[u8]) -> Result<Ip<'_>, Refused> {
    let header = packet.first_chunk::<40>().ok_or(Refused::Foreign)?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let source = header[8..].first_chunk::<16>().ok_or(Refused::Foreign)?;
    let destination = header.last_chunk::<16>().ok_or(Refused::Foreign)?;
    Ok(Ip {
        protocol: header[6],
        source: Ipv6Addr::from(*source).into(),
        destination: Ipv6Addr::from(*destination).into(),
        addresses: sum(&header[8..]),
        rest: packet.get(40..40 + len).ok_or(Refused::Corrupt)?,
    })
}

/// The datagram in `packet`, which `outer` carries.
fn datagram(
    packet: &[u8],
    outer: Option<SocketAddr>,
    checksums: Checksums,
) -> Result<Transport<'_>, Refused> {
    let ip = ip(packet)?;
    let word = |at: usize| match ip.rest.get(at..at + 2) {
        Some([high, low]) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    let destination = SocketAddr::new(ip.destination, word(2));
    let found = |header, payload| Transport {
        protocol: ip.protocol,
        source: SocketAddr::new(ip.source, word(0)),
        destination,
        outer,
        header,
        payload,
    };
    match ip.protocol {
        6 => {
            let header = usize::from(ip.rest.get(12).ok_or(Refused::Foreign)? >> 4) * 4;
            right(&ip, ip.rest, word(16), checksums)?;
            let is_long = header >= 20;
            let payload = ip.rest.get(header..).filter(|_| is_long);
            Ok(found(ip.rest, payload.ok_or(Refused::Corrupt)?))
        }
        17 => {
            let len = usize::from(word(4));
            let whole = ip.rest.get(..len).filter(|_| len >= 8);
            let whole = whole.ok_or(Refused::Corrupt)?;
            // Zero: none was made (RFC 768; in tunnels over IPv6 too, RFC 6935).
            if word(6) != 0 {
                right(&ip, whole, word(6), checksums)?;
            }
            let payload = &whole[8..];
            match gue(payload).filter(|_| outer.is_none()) {
                Some(packet) if matches!(Stamp::read(payload), Read::Foreign) => {
                    datagram(packet, Some(destination), checksums)
                }
                _ => Ok(found(whole, payload)),
            }
        }
        4 | 41 if outer.is_none() => {
            datagram(ip.rest, Some(SocketAddr::new(ip.destination, 0)), checksums)
        }
        47 if outer.is_none() => {
            let packet = gre(ip.rest).ok_or(Refused::Foreign)?;
            datagram(packet, Some(SocketAddr::new(ip.destination, 0)), checksums)
        }
        _ => Err(Refused::Foreign),
    }
}

/// Whether the checksum in `datagram`, `found`, is right.
fn right(ip: &Ip<'_>, datagram: &[u8], found: u16, checksums: Checksums) -> Result<(), Refused> {
    let pseudo = ip.addresses + u64::from(ip.protocol) + datagram.len() as u64;
    let is_partial = checksums == Checksums::OrPartial && found == fold(pseudo);
    if is_zero(pseudo + sum(datagram)) || is_partial {
        Ok(())
    } else {
        Err(Refused::Corrupt)
    }
}

/// The packet in GUE (draft-ietf-intarea-gue-09): variant 0 with a header, variant 1 without.
fn gue(payload: &[u8]) -> Option<&[u8]> {
    let first = *payload.first()?;
    match first >> 6 {
        0 if matches!(payload.get(1), Some(4 | 41)) => {
            payload.get(4 + usize::from(first & 0x1F) * 4..)
        }
        1 => Some(payload),
        _ => None,
    }
}

/// The packet in GRE (RFC 2784, RFC 2890).
fn gre(rest: &[u8]) -> Option<&[u8]> {
    let [flags, _, kind @ ..] = rest.first_chunk::<4>()?;
    let options = [0x80, 0x20, 0x10]
        .iter()
        .filter(|bit| flags & **bit != 0)
        .count();
    matches!(kind, [0x08, 0x00] | [0x86, 0xDD])
        .then(|| rest.get(4 + 4 * options..))
        .flatten()
}
