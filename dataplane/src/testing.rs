//! Packets for the tests of this crate, built by `etherparse`: the oracle, not our own code.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;

use crate::xsk::{Frame, Pool};

/// Hardware addresses of the far end and of the balancer in built frames.
pub(crate) const FAR: [u8; 6] = [2, 0, 0, 0, 0xFA, 1];
pub(crate) const NEAR: [u8; 6] = [2, 0, 0, 0, 0xEA, 2];

/// TTL and hop limit of built packets.
pub(crate) const TTL: u8 = 64;

/// A socket address from its text.
pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// These bytes in a frame of a pool of their own.
pub(crate) fn framed(bytes: &[u8]) -> Frame {
    let mut frame = Pool::anonymous(1).take().unwrap();
    assert_eq!(frame.fill_from(bytes), bytes.len());
    frame
}

/// A UDP frame with right checksums.
pub(crate) fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (at(source), at(destination));
    let builder = PacketBuilder::ethernet2(FAR, NEAR);
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => builder.ipv4(s.octets(), d.octets(), TTL),
        (IpAddr::V6(s), IpAddr::V6(d)) => builder.ipv6(s.octets(), d.octets(), TTL),
        _ => panic!("mixed families"),
    };
    let builder = builder.udp(source.port(), destination.port());
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A TCP frame with right checksums and these flags (bits as on the wire).
pub(crate) fn tcp(source: &str, destination: &str, flags: u8, payload: &[u8]) -> Vec<u8> {
    tcp_at(source, destination, flags, 1000, payload)
}

/// The same with a sequence number.
pub(crate) fn tcp_at(
    source: &str,
    destination: &str,
    flags: u8,
    sequence: u32,
    payload: &[u8],
) -> Vec<u8> {
    let (source, destination) = (at(source), at(destination));
    let builder = PacketBuilder::ethernet2(FAR, NEAR);
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => builder.ipv4(s.octets(), d.octets(), TTL),
        (IpAddr::V6(s), IpAddr::V6(d)) => builder.ipv6(s.octets(), d.octets(), TTL),
        _ => panic!("mixed families"),
    };
    let mut header =
        etherparse::TcpHeader::new(source.port(), destination.port(), sequence, 64_000);
    header.fin = flags & 1 != 0;
    header.syn = flags & 2 != 0;
    header.rst = flags & 4 != 0;
    header.psh = flags & 8 != 0;
    header.ack = flags & 16 != 0;
    let mut frame = Vec::new();
    builder
        .tcp_header(header)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// The frame with these tags (as on the wire, see [`Tags::to_wire`]) in front of its EtherType.
///
/// [`Tags::to_wire`]: crate::wire::vlan::Tags::to_wire
pub(crate) fn tagged(frame: &[u8], tags: crate::wire::vlan::Tags) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, tags.to_wire()[..tags.wire_len()].iter().copied());
    tagged
}

/// No tag, one and two, of both kinds.
pub(crate) const TAGGINGS: [crate::wire::vlan::Tags; 4] = {
    use crate::wire::vlan::{TPID_CUSTOMER, TPID_SERVICE, Tag, Tags};
    let inner = Tag {
        tpid: TPID_CUSTOMER,
        tci: 0x2064,
    };
    let outer = Tag {
        tpid: TPID_SERVICE,
        tci: 0xB0C8,
    };
    let both = Tags::two(outer, inner);
    [Tags::NONE, Tags::one(inner), Tags::one(outer), both]
};

/// Changes the TTL of an IPv4 frame, header checksum included.
pub(crate) fn set_ttl(frame: &mut [u8], ttl: u8) {
    frame[22] = ttl;
    frame[24..26].fill(0);
    let sum = !ones_sum(&frame[14..transport_offset(frame)], 0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Makes a frame look as a local stack with checksum offload sends it: the checksum field holds
/// the folded pseudo-header sum, not complemented.
pub(crate) fn make_partial(frame: &mut [u8]) {
    let transport = transport_offset(frame);
    let (protocol, pseudo) = pseudo_sum(frame, transport);
    let at = transport + if protocol == 6 { 16 } else { 6 };
    frame[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
}

/// Whether all checksums of a frame are right, computed word by word as RFC 1071 describes.
pub(crate) fn checksums_are_right(frame: &[u8]) -> bool {
    let transport = transport_offset(frame);
    let (protocol, pseudo) = pseudo_sum(frame, transport);
    let header_is_right = frame[14] >> 4 == 6 || ones_sum(&frame[14..transport], 0) == 0xFFFF;
    let unset = protocol == 17 && frame[transport + 6..transport + 8] == [0, 0];
    header_is_right && (unset || ones_sum(&frame[transport..], pseudo.into()) == 0xFFFF)
}

fn transport_offset(frame: &[u8]) -> usize {
    if frame[14] >> 4 == 4 {
        14 + usize::from(frame[14] & 15) * 4
    } else {
        54
    }
}

fn pseudo_sum(frame: &[u8], transport: usize) -> (u8, u16) {
    let (protocol, addresses) = if frame[14] >> 4 == 4 {
        (frame[23], &frame[26..34])
    } else {
        (frame[20], &frame[22..54])
    };
    let length = u32::try_from(frame.len() - transport).unwrap();
    (protocol, ones_sum(addresses, u32::from(protocol) + length))
}

fn ones_sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Cuts a frame with one IP packet into fragments with so many bytes of payload (a multiple of
/// eight), but for the last, as a host would (RFC 791 §3.2, RFC 8200 §4.5).
pub(crate) fn cut(frame: &[u8], identification: u32, bytes: usize) -> Vec<Vec<u8>> {
    let start = transport_offset(frame);
    let (head, payload) = frame.split_at(start);
    let count = payload.len().div_ceil(bytes);
    let pieces = payload.chunks(bytes).enumerate().map(|(index, payload)| {
        let (offset, more) = (index * bytes, index + 1 < count);
        piece(head, payload, identification, offset, more)
    });
    pieces.collect()
}

/// One fragment of the packet that begins with `head`.
pub(crate) fn piece(
    head: &[u8],
    payload: &[u8],
    identification: u32,
    offset: usize,
    more: bool,
) -> Vec<u8> {
    let offset = u16::try_from(offset / 8).unwrap();
    let mut head = head.to_vec();
    if head[14] >> 4 == 4 {
        let total = u16::try_from(head.len() - 14 + payload.len()).unwrap();
        head[16..18].copy_from_slice(&total.to_be_bytes());
        head[18..20].copy_from_slice(&identification.to_be_bytes()[2..]);
        let word = offset | u16::from(more) << 13;
        head[20..22].copy_from_slice(&word.to_be_bytes());
        let ttl = head[22];
        set_ttl(&mut head, ttl);
        return [&head, payload].concat();
    }
    let total = u16::try_from(8 + payload.len()).unwrap();
    head[18..20].copy_from_slice(&total.to_be_bytes());
    let next = std::mem::replace(&mut head[20], 44);
    let word = (offset << 3 | u16::from(more)).to_be_bytes();
    let identification = identification.to_be_bytes();
    [&head, &[next, 0][..], &word, &identification, payload].concat()
}
