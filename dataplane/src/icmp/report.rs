//! Errors that the balancer reports itself: a packet becomes, in its own frame, the error about it.

use std::ops::Range;

use ringgate_conntrack::Endpoint;

use super::message::{put, seal};
use crate::parse::Family;
use crate::wire::ethernet;
use crate::wire::ipv4;
use crate::wire::ipv6;
use crate::wire::{checksum, icmpv4, icmpv6};

/// Longest ICMP error, IP header included, bytes: what every host can take (RFC 1812 §4.3.2.3).
const LONGEST_V4: usize = 576;

/// Least MTU of IPv6 (RFC 8200 §5), bytes.
pub(super) const LEAST_MTU_V6: usize = 1280;

/// Longest ICMPv6 error, IP header included, bytes (RFC 4443 §2.4(c)).
const LONGEST_V6: usize = LEAST_MTU_V6;

/// Least MTU of IPv4 (RFC 791 §3.2), bytes.
const LEAST_MTU_V4: u32 = 68;

/// TTL and hop limit of what the balancer says itself (RFC 1700; the hosts' usual).
pub(super) const TTL: u8 = 64;

/// The type of service of errors: precedence 6 (RFC 1812 §4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xC0;

/// What is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// It does not fit; the MTU that it would have to, bytes.
    TooBig(u32),
    /// Its TTL or hop limit was used up.
    TimeExceeded,
    /// Its destination cannot be reached.
    HostUnreachable,
}

impl Report {
    /// Whether a packet may and should be answered with this (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7,
    /// RFC 4443 §2.4(e)). Its source is a host's, as parsing has made sure.
    ///
    /// `packet` begins with its IP header, `frame` with its Ethernet header.
    pub(super) fn suits(self, packet: &[u8], frame: &[u8]) -> bool {
        // Sent to everybody on the link: the low bit of the first byte (IEEE 802.3 §3.2.3).
        let is_to_all = frame.first().is_none_or(|first| first & 1 != 0);
        !is_to_all && self.may_be_about(packet)
    }

    fn may_be_about(self, packet: &[u8]) -> bool {
        match packet.first().map(|first| first >> 4) {
            Some(4) => {
                let word = packet.get(6..).and_then(<[u8]>::first_chunk);
                let word = word.map_or(0x1FFF, |word| u16::from_be_bytes(*word));
                let (is_later_fragment, may_be_fragmented) =
                    (word & 0x1FFF != 0, word & 0x4000 == 0);
                let fits_in_pieces = matches!(self, Self::TooBig(_)) && may_be_fragmented;
                !(is_later_fragment || fits_in_pieces)
            }
            // To a packet of the least MTU nothing could be told that its sender may obey (RFC 8201
            // §4: a smaller MTU than that is ignored).
            Some(6) => match self {
                Self::TooBig(_) => packet.len() > LEAST_MTU_V6,
                Self::TimeExceeded | Self::HostUnreachable => true,
            },
            _ => false,
        }
    }

    /// Type, code, and the four bytes after the checksum.
    fn header(self, family: Family) -> ([u8; 2], [u8; 4]) {
        match (self, family) {
            (Self::TooBig(mtu), Family::V4) => {
                let [_, _, a, b] = mtu.clamp(LEAST_MTU_V4, u16::MAX.into()).to_be_bytes();
                let kind = [icmpv4::UNREACHABLE, icmpv4::FRAGMENTATION_NEEDED];
                (kind, [0, 0, a, b])
            }
            (Self::TooBig(mtu), Family::V6) => {
                let mtu = mtu.max(1280);
                ([icmpv6::PACKET_TOO_BIG, 0], mtu.to_be_bytes())
            }
            (Self::TimeExceeded, Family::V4) => ([icmpv4::TIME_EXCEEDED, 0], [0; 4]),
            (Self::TimeExceeded, Family::V6) => ([icmpv6::TIME_EXCEEDED, 0], [0; 4]),
            (Self::HostUnreachable, Family::V4) => ([icmpv4::UNREACHABLE, icmpv4::HOST], [0; 4]),
            (Self::HostUnreachable, Family::V6) => ([icmpv6::UNREACHABLE, icmpv6::ADDRESS], [0; 4]),
        }
    }
}

/// From whom to whom an error goes: addresses as the words of an [`Endpoint`], of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) family: Family,
    pub(super) source: [u64; 2],
    pub(super) destination: [u64; 2],
}

impl Envelope {
    /// Length of the headers in front of what is quoted, bytes.
    pub(super) const fn headers(self) -> usize {
        match self.family {
            Family::V4 => ipv4::HEADER + icmpv4::HEADER,
            Family::V6 => ipv6::HEADER + icmpv6::HEADER,
        }
    }

    /// How much of a packet of so many bytes an error quotes, bytes.
    pub(super) fn quotes(self, packet: usize) -> usize {
        let longest = match self.family {
            Family::V4 => LONGEST_V4,
            Family::V6 => LONGEST_V6,
        };
        packet.min(longest - self.headers())
    }

    /// Writes the error `report` about the packet at `quoted` over `frame`, whose IP header begins
    /// at `network`. Returns the new length of the frame. `frame` must be long enough for what
    /// [`quotes`](Self::quotes) and [`headers`](Self::headers) say; `None` if it is not, and then
    /// nothing has changed.
    pub(super) fn write(
        self,
        frame: &mut [u8],
        network: usize,
        quoted: Range<usize>,
        report: Report,
    ) -> Option<usize> {
        let len = self.quotes(quoted.len());
        let body = network + self.headers();
        let end = body + len;
        if end > frame.len() || quoted.end > frame.len() || network < 2 {
            return None;
        }
        frame.copy_within(quoted.start..quoted.start + len, body);
        let ethertype = match self.family {
            Family::V4 => ethernet::TYPE_IPV4,
            Family::V6 => ethernet::TYPE_IPV6,
        };
        put(frame, network - 2, ethertype.to_be_bytes())?;
        let packet = frame.get_mut(network..end)?;
        let total = u16::try_from(packet.len()).ok()?;
        let message = match self.family {
            Family::V4 => {
                let (header, message) = packet.split_first_chunk_mut()?;
                *header = self.ipv4(total);
                message
            }
            Family::V6 => {
                let (header, message) = packet.split_first_chunk_mut()?;
                *header = self.ipv6(total);
                message
            }
        };
        let ([kind, code], [a, b, c, d]) = report.header(self.family);
        *message.first_chunk_mut()? = [kind, code, 0, 0, a, b, c, d];
        seal(message, self.family, self.source, self.destination)?;
        Some(end)
    }

    /// The header of a packet of `total` bytes: whole, so its identification is nobody's (RFC 6864
    /// §4.1).
    fn ipv4(self, total: u16) -> [u8; ipv4::HEADER] {
        let [t0, t1] = total.to_be_bytes();
        let [s0, s1, s2, s3] = Endpoint::v4_octets(self.source);
        let [d0, d1, d2, d3] = Endpoint::v4_octets(self.destination);
        let mut header = [
            0x45,
            INTERNETWORK_CONTROL,
            t0,
            t1,
            0,
            0,
            0x40,
            0,
            TTL,
            icmpv4::PROTOCOL,
            0,
            0, //
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ];
        let checksum = !checksum::fold(checksum::sum(&header));
        [header[10], header[11]] = checksum.to_be_bytes();
        header
    }

    /// The header of a packet of `total` bytes, itself included.
    fn ipv6(self, total: u16) -> [u8; ipv6::HEADER] {
        let mut header = [0; ipv6::HEADER];
        let payload = usize::from(total).saturating_sub(ipv6::HEADER);
        let [l0, l1] = u16::try_from(payload).unwrap_or(0).to_be_bytes();
        header[..8].copy_from_slice(&[0x60, 0, 0, 0, l0, l1, icmpv6::PROTOCOL, TTL]);
        let octets = |address| Endpoint { address, port: 0 }.octets();
        header[8..24].copy_from_slice(&octets(self.source));
        header[24..].copy_from_slice(&octets(self.destination));
        header
    }
}
