//! Any bytes to the parser: no panic, and what it describes is what `etherparse` reads there.
//!
//! The two ways of the parser are held against each other: with a VLAN tag more, a plain packet
//! takes the general way, and must be described the same, four bytes further on.
#![no_main]

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, UdpHeaderSlice};
use libfuzzer_sys::fuzz_target;
use ringgate_conntrack::Endpoint;
use ringgate_dataplane::parse::{Family, Layers, Packet, parse};
use ringgate_dataplane::verdict::DropReason;
use ringgate_dataplane::wire::vlan::{Framing, TPID_CUSTOMER, Tag, Tags};
use ringgate_fuzz::sums;

fuzz_target!(|frame: &[u8]| {
    for partial_possible in [false, true] {
        let result = parse(frame, partial_possible);
        both_ways_agree(frame, partial_possible, result);
        match result {
            Ok(packet) => {
                describes(frame, &packet);
                assert!(partial_possible || !packet.partial);
                needs_all_of_it(frame, &packet, partial_possible);
            }
            Err(reason) => is_refused_rightly(frame, reason),
        }
    }
});

const TAG: Tag = Tag {
    tpid: TPID_CUSTOMER,
    tci: 0x2064,
};

fn both_ways_agree(frame: &[u8], partial_possible: bool, result: Result<Packet, DropReason>) {
    let Some(Framing { tags, .. }) = Framing::of(frame) else {
        return assert_eq!(result, Err(DropReason::Truncated));
    };
    let tags = match (tags.outer(), tags.inner()) {
        (None, _) => Tags::one(TAG),
        (Some(outer), None) => Tags::two(TAG, outer),
        // A third tag is another matter.
        (Some(_), Some(_)) => return,
    };
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, [0x81, 0, 0x20, 0x64]);
    let expected = result.map(|packet| Packet {
        network: packet.network + 4,
        transport: packet.transport + 4,
        end: packet.end + 4,
        tags,
        ..packet
    });
    assert_eq!(parse(&tagged, partial_possible), expected);
}

/// The description is the oracle's.
fn describes(frame: &[u8], packet: &Packet) {
    let [network, transport, end] = [packet.network, packet.transport, packet.end].map(usize::from);
    assert_eq!(network, 14 + packet.tags.wire_len());
    let ip_end = network + usize::from(packet.ip_len);
    assert!(
        network + 20 <= transport && transport + 8 <= end && end <= ip_end && ip_end <= frame.len()
    );
    let ip = &frame[network..ip_end];
    let (source, destination, protocol, ttl, header) = match packet.family {
        Family::V4 => {
            let header = Ipv4HeaderSlice::from_slice(ip).unwrap();
            assert!(!header.is_fragmenting_payload());
            assert!(is_right(&header));
            assert_eq!(usize::from(header.total_len()), ip.len());
            let len = header.slice().len();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                header.protocol(),
                header.ttl(),
                len,
            )
        }
        Family::V6 => {
            let header = Ipv6HeaderSlice::from_slice(ip).unwrap();
            assert_eq!(usize::from(header.payload_length()) + 40, ip.len());
            let (source, destination) = (header.source_addr(), header.destination_addr());
            // A fragment that is its whole datagram (RFC 6946) is a packet with a longer header.
            let (protocol, len) = match header.next_header() {
                IpNumber::IPV6_FRAGMENTATION_HEADER => {
                    assert_eq!([ip[42], ip[43] & !6], [0, 0]);
                    (IpNumber(ip[40]), 48)
                }
                protocol => (protocol, 40),
            };
            let ttl = header.hop_limit();
            (source.into(), destination.into(), protocol, ttl, len)
        }
    };
    let _: (std::net::IpAddr, std::net::IpAddr) = (source, destination);
    assert_eq!(network + header, transport);
    assert_eq!(ttl, packet.ttl);
    let segment = &frame[transport..end];
    let (from, to, flags, sequence, sum) = if protocol.0 == 6 {
        let header = TcpHeaderSlice::from_slice(segment).unwrap();
        assert_eq!(end, ip_end);
        let sum = header.checksum();
        (
            header.source_port(),
            header.destination_port(),
            segment[13],
            header.sequence_number(),
            sum,
        )
    } else {
        assert_eq!(protocol.0, 17);
        let header = UdpHeaderSlice::from_slice(segment).unwrap();
        assert_eq!(usize::from(header.length()), segment.len());
        (
            header.source_port(),
            header.destination_port(),
            0,
            0,
            header.checksum(),
        )
    };
    assert_eq!((packet.tcp_flags, packet.tcp_sequence), (flags, sequence));
    assert_eq!(packet.key.protocol(), protocol.0);
    assert_eq!(
        packet.key.source(),
        Endpoint::from_socket((source, from).into())
    );
    assert_eq!(
        packet.key.destination(),
        Endpoint::from_socket((destination, to).into())
    );
    let pseudo = sums::fold(sums::pseudo(sums::addresses(ip), protocol.0, segment.len()));
    assert!(!packet.partial || sum == pseudo);
}

/// One byte less is not enough, padding changes nothing, and the frame can be cut.
fn needs_all_of_it(frame: &[u8], packet: &Packet, partial_possible: bool) {
    let ip_end = usize::from(packet.network) + usize::from(packet.ip_len);
    assert_eq!(
        parse(&frame[..ip_end], partial_possible).as_ref(),
        Ok(packet)
    );
    assert!(parse(&frame[..ip_end - 1], partial_possible).is_err());
    let mut bytes = frame.to_vec();
    let layers = Layers::cut(&mut bytes, packet).unwrap();
    assert_eq!(
        layers.transport,
        &frame[usize::from(packet.transport)..usize::from(packet.end)]
    );
    let short = usize::from(packet.end) - 1;
    assert!(Layers::cut(&mut bytes[..short], packet).is_none());
}

/// What the oracle finds to be an ordinary packet is not refused.
fn is_refused_rightly(frame: &[u8], reason: DropReason) {
    let Some(Framing {
        network, ethertype, ..
    }) = Framing::of(frame)
    else {
        return;
    };
    let Some((protocol, segment)) = ordinary(ethertype, &frame[network..]) else {
        return;
    };
    let is_ordinary = match protocol {
        6 => TcpHeaderSlice::from_slice(segment).is_ok_and(|header| {
            let ends = header.fin() || header.rst();
            (header.syn() || header.ack() || header.rst()) && !(header.syn() && ends)
        }),
        17 => UdpHeaderSlice::from_slice(segment)
            .is_ok_and(|header| (8..=segment.len()).contains(&usize::from(header.length()))),
        _ => false,
    };
    assert!(!is_ordinary, "refused for {reason:?}");
}

/// The protocol and the payload of an IP packet between hosts that may send and be sent to.
fn ordinary(ethertype: u16, packet: &[u8]) -> Option<(u8, &[u8])> {
    match ethertype {
        0x0800 => {
            let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
            let payload = packet.get(header.slice().len()..usize::from(header.total_len()))?;
            let [first, ..] = header.source();
            let is_whole = is_right(&header) && !header.is_fragmenting_payload();
            let is_host = (1..=223).contains(&first) && first != 127;
            let differ = header.source() != header.destination();
            (is_whole && is_host && differ).then_some((header.protocol().0, payload))
        }
        0x86DD => {
            let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
            let payload = packet.get(40..)?.get(..header.payload_length().into())?;
            let is_global = |address: [u8; 16]| (0x20..0xFE).contains(&address[0]);
            let are_hosts = is_global(header.source()) && is_global(header.destination());
            let differ = header.source() != header.destination();
            (are_hosts && differ).then_some((header.next_header().0, payload))
        }
        _ => None,
    }
}

/// Whether the header checksum is. Over the bytes, since the oracle's own leaves out the reserved flag.
fn is_right(header: &Ipv4HeaderSlice<'_>) -> bool {
    sums::fold(sums::add(header.slice(), 0)) == 0xFFFF
}
