use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice};
use proptest::prelude::*;
use ringgate_config::IpNet;
use ringgate_conntrack::Endpoint;
use ringgate_conntrack::fragments::Ports;

use super::*;
use crate::parse::{parse, parse_piece};
use crate::testing::{at, cut, framed, make_partial, piece, tcp, udp};
use crate::wire::ethernet::Mac;
use crate::wire::vlan::Tags;

const HOP: Hop = Hop {
    port: 1,
    destination: Mac([2; 6]),
    source: Mac([4; 6]),
    mtu: 1500,
    tags: Tags::NONE,
    keeps_tags: false,
};

const CLIENT: [&str; 2] = ["10.1.0.2:4242", "[fd00:1::2]:4242"];
const VIP: [&str; 2] = ["10.100.0.1:80", "[fd00:100::1]:80"];
const SOURCE: [&str; 2] = ["10.2.0.1", "fd00:2::1"];
const FAR_END: [&str; 2] = ["10.2.0.11", "fd00:2::11"];

const PLAIN: Tunnel = Tunnel {
    variant: 1,
    port: 6080,
    key: None,
    source: None,
    dscp: Dscp::Copy,
    checksum: false,
};

fn words(address: &str) -> [u64; 2] {
    Endpoint::from_socket((address.parse::<std::net::IpAddr>().unwrap(), 0).into()).address
}

/// To the far end of outer family `outer`, 0 for IPv4.
fn encapsulation(forward: Forward, tunnel: &Tunnel, outer: usize) -> Encapsulation {
    let source = [words(SOURCE[outer]), [0, 0]];
    let family = [Family::V4, Family::V6][outer];
    let to = (words(FAR_END[outer]), family);
    Encapsulation::new(forward, tunnel, source, to).unwrap()
}

fn encapsulated(frame: &[u8], encapsulation: &Encapsulation) -> Vec<u8> {
    let mut frame = framed(frame);
    let packet = parse(frame.bytes(), true).unwrap();
    encapsulate(&mut frame, &packet, encapsulation, &HOP).unwrap();
    frame.bytes().to_vec()
}

/// An outer IP header as the oracle reads it.
#[derive(Debug, PartialEq, Eq)]
struct Outer {
    protocol: u8,
    traffic_class: u8,
    flow_label: u32,
    source: std::net::IpAddr,
    payload: Vec<u8>,
}

/// Takes the outer IP header off, checking all that has but one right value.
fn opened(frame: &[u8], outer: usize) -> Outer {
    assert_eq!((&frame[..6], &frame[6..12]), (&[2; 6][..], &[4; 6][..]));
    let packet = &frame[14..];
    if outer == 0 {
        assert_eq!(frame[12..14], [8, 0]);
        let header = Ipv4HeaderSlice::from_slice(packet).unwrap();
        let whole = header.to_header();
        assert_eq!(whole.header_checksum, whole.calc_header_checksum());
        assert_eq!(usize::from(header.total_len()), packet.len());
        assert!(header.dont_fragment() && !header.is_fragmenting_payload());
        assert_eq!((header.ttl(), header.identification()), (64, 0));
        assert_eq!(header.destination_addr().to_string(), FAR_END[0]);
        Outer {
            protocol: header.protocol().0,
            traffic_class: packet[1],
            flow_label: 0,
            source: header.source_addr().into(),
            payload: packet[20..].to_vec(),
        }
    } else {
        assert_eq!(frame[12..14], [0x86, 0xDD]);
        let header = Ipv6HeaderSlice::from_slice(packet).unwrap();
        assert_eq!(usize::from(header.payload_length()), packet.len() - 40);
        assert_eq!(header.hop_limit(), 64);
        assert_eq!(header.destination_addr().to_string(), FAR_END[1]);
        Outer {
            protocol: header.next_header().0,
            traffic_class: header.traffic_class(),
            flow_label: header.flow_label().value(),
            source: header.source_addr().into(),
            payload: packet[40..].to_vec(),
        }
    }
}

/// The IP packet of a frame, one hop older.
fn aged(frame: &[u8]) -> Vec<u8> {
    let mut packet = frame[14..].to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
    } else {
        packet[8] -= 1;
        let mut header = Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
        header.header_checksum = header.calc_header_checksum();
        let bytes = header.to_bytes();
        packet[..bytes.len()].copy_from_slice(&bytes);
    }
    packet
}

/// Whether the sum over the pseudo header and all bytes of an outer datagram is right.
fn udp_sum_is_right(datagram: &[u8], source: &str, destination: &str) -> bool {
    let pseudo = checksum::pseudo_header(words(source), words(destination), 17, datagram.len());
    checksum::fold(checksum::add(pseudo, checksum::sum(datagram))) == 0xFFFF
}

/// Every pair of outer and inner family, with a TCP and a UDP packet.
fn each(mut test: impl FnMut(usize, usize, Vec<u8>)) {
    for outer in 0..2 {
        for inner in 0..2 {
            test(outer, inner, tcp(CLIENT[inner], VIP[inner], 0x18, b"odd"));
            test(outer, inner, udp(CLIENT[inner], VIP[inner], b"payload!"));
        }
    }
}

const INNER_PROTOCOL: [u8; 2] = [IpNumber::IPV4.0, IpNumber::IPV6.0];

#[test]
fn ipip_is_the_packet_behind_an_ip_header() {
    each(|outer, inner, frame| {
        let encapsulation = encapsulation(Forward::Ipip, &PLAIN, outer);
        let opened = opened(&encapsulated(&frame, &encapsulation), outer);
        assert_eq!(opened.protocol, INNER_PROTOCOL[inner]);
        assert_eq!(opened.payload, aged(&frame));
        assert_eq!(opened.source.to_string(), SOURCE[outer]);
        assert_eq!(usize::from(encapsulation.overhead()), [20, 40][outer]);
    });
}

#[test]
fn gre_has_the_ethertype_and_the_key_if_there_is_one() {
    each(|outer, inner, frame| {
        let ethertype = [[0x08, 0x00], [0x86, 0xDD]][inner];
        let plain = encapsulation(Forward::Gre, &PLAIN, outer);
        let payload = opened(&encapsulated(&frame, &plain), outer).payload;
        assert_eq!(payload[..4], [&[0, 0][..], &ethertype].concat());
        assert_eq!(payload[4..], aged(&frame));
        let key = Some(0xDEAD_BEEF);
        let keyed = encapsulation(Forward::Gre, &Tunnel { key, ..PLAIN }, outer);
        let found = opened(&encapsulated(&frame, &keyed), outer);
        assert_eq!(found.protocol, 47);
        let expected = [&[0x20, 0][..], &ethertype, &[0xDE, 0xAD, 0xBE, 0xEF]].concat();
        assert_eq!(found.payload[..8], expected);
        assert_eq!(found.payload[8..], aged(&frame));
        assert_eq!(keyed.overhead(), plain.overhead() + 4);
    });
}

#[test]
fn what_fragments_do_not_tell_of_the_sum_is_summed() {
    let tunnel = Tunnel {
        checksum: true,
        ..PLAIN
    };
    each(|outer, inner, _| {
        let encapsulation = encapsulation(Forward::Gue, &tunnel, outer);
        let whole = udp(CLIENT[inner], VIP[inner], &[7; 100]);
        let is_right = |frame: &[u8], piece: &[u8]| {
            let payload = opened(frame, outer).payload;
            assert_eq!(payload[8..], aged(piece));
            udp_sum_is_right(&payload, SOURCE[outer], FAR_END[outer])
        };
        let mut ports = Vec::new();
        for piece in cut(&whole, 7, 48) {
            let mut frame = framed(&piece);
            let packet = parse_piece(&piece).unwrap().of_ports(Ports {
                source: 4242,
                destination: 80,
            });
            encapsulate_piece(&mut frame, &packet, &encapsulation, &HOP).unwrap();
            assert!(is_right(frame.bytes(), &piece));
            ports.push(opened(frame.bytes(), outer).payload[..2].to_vec());
        }
        ports.dedup();
        assert_eq!(ports.len(), 1, "all of a flow take one way");
        if inner == 1 {
            let (head, payload) = whole.split_at(54);
            let atomic = piece(head, payload, 7, 0, false);
            assert!(is_right(&encapsulated(&atomic, &encapsulation), &atomic));
        }
    });
}

#[test]
fn gue_is_a_datagram_of_either_variant_whose_checksum_is_right_or_none() {
    each(|outer, inner, frame| {
        for (variant, header) in [(0, vec![0, INNER_PROTOCOL[inner], 0, 0]), (1, vec![])] {
            for checksum in [false, true] {
                let tunnel = Tunnel {
                    variant,
                    checksum,
                    ..PLAIN
                };
                let encapsulation = encapsulation(Forward::Gue, &tunnel, outer);
                let found = opened(&encapsulated(&frame, &encapsulation), outer);
                assert_eq!(found.protocol, 17);
                let datagram = &found.payload;
                assert!(datagram[0] >= 0xC0, "an ephemeral port");
                assert_eq!(datagram[2..4], 6080u16.to_be_bytes());
                assert_eq!(
                    usize::from(u16::from_be_bytes([datagram[4], datagram[5]])),
                    datagram.len()
                );
                if checksum {
                    assert!(udp_sum_is_right(datagram, SOURCE[outer], FAR_END[outer]));
                } else {
                    assert_eq!(datagram[6..8], [0, 0]);
                }
                assert_eq!(datagram[8..8 + header.len()], header);
                assert_eq!(datagram[8 + header.len()..], aged(&frame));
            }
        }
    });
}

#[test]
fn a_checksum_that_cannot_be_derived_is_summed() {
    let tunnel = Tunnel {
        checksum: true,
        ..PLAIN
    };
    for (outer, inner) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let encapsulation = encapsulation(Forward::Gue, &tunnel, outer);
        let start = [34, 54][inner];
        // A UDP datagram without a checksum, and one that is shorter than its packet.
        let mut bare = udp(CLIENT[inner], VIP[inner], b"payload");
        bare[start + 6..start + 8].fill(0);
        let mut short = udp(CLIENT[inner], VIP[inner], b"payload");
        let len = u16::from_be_bytes([short[start + 4], short[start + 5]]) - 3;
        short[start + 4..start + 6].copy_from_slice(&len.to_be_bytes());
        let mut partial = tcp(CLIENT[inner], VIP[inner], 0x18, b"payload");
        make_partial(&mut partial);
        for frame in [bare, short, partial] {
            let found = opened(&encapsulated(&frame, &encapsulation), outer);
            assert!(udp_sum_is_right(
                &found.payload,
                SOURCE[outer],
                FAR_END[outer]
            ));
        }
    }
}

#[test]
fn an_unfinished_inner_checksum_is_completed() {
    for inner in 0..2 {
        let whole = tcp(CLIENT[inner], VIP[inner], 0x18, b"payload");
        let mut partial = whole.clone();
        make_partial(&mut partial);
        let encapsulation = encapsulation(Forward::Ipip, &PLAIN, 0);
        assert_eq!(
            encapsulated(&partial, &encapsulation),
            encapsulated(&whole, &encapsulation)
        );
    }
}

#[test]
fn padding_and_tags_stay_outside() {
    let frame = udp(CLIENT[0], VIP[0], b"x");
    let mut padded = frame.clone();
    padded.resize(60, 0xEE);
    let encapsulation = encapsulation(Forward::Ipip, &PLAIN, 1);
    let expected = encapsulated(&frame, &encapsulation);
    assert_eq!(encapsulated(&padded, &encapsulation), expected);
    // A link-layer header of any length: two bytes more than usual, and longer than all that is new.
    for longer in [2, 100] {
        let mut frame = framed(&[vec![0; longer], frame.clone()].concat());
        let contents = Contents {
            family: Family::V4,
            network: 14 + u16::try_from(longer).unwrap(),
            len: 29,
            entropy: entropy(&parse(&udp(CLIENT[0], VIP[0], b"x"), false).unwrap().key),
            rest_sum: None,
        };
        wrap(&mut frame, &contents, &encapsulation, &HOP).unwrap();
        assert_eq!(frame.bytes(), expected);
    }
}

#[test]
fn ecn_is_copied_and_dscp_as_configured() {
    for inner in 0..2 {
        let mut frame = udp(CLIENT[inner], VIP[inner], b"x");
        // DSCP 46 and "congestion experienced".
        let traffic_class: u8 = 46 << 2 | 3;
        if inner == 0 {
            frame[15] = traffic_class;
            let mut header = Ipv4HeaderSlice::from_slice(&frame[14..])
                .unwrap()
                .to_header();
            header.header_checksum = header.calc_header_checksum();
            frame[14..34].copy_from_slice(&header.to_bytes());
        } else {
            frame[14] = 0x60 | traffic_class >> 4;
            frame[15] = traffic_class << 4;
        }
        for outer in 0..2 {
            for (dscp, expected) in [(Dscp::Copy, traffic_class), (Dscp::Set(10), 10 << 2 | 3)] {
                let encapsulation = encapsulation(Forward::Ipip, &Tunnel { dscp, ..PLAIN }, outer);
                let found = opened(&encapsulated(&frame, &encapsulation), outer);
                assert_eq!(found.traffic_class, expected);
                assert_eq!(found.payload, aged(&frame));
            }
        }
    }
}

#[test]
fn flows_differ_in_port_label_and_where_wanted_source_and_each_stays_what_it_is() {
    let prefixes: [IpNet; 2] = [
        "10.9.0.0/24".parse().unwrap(),
        "fd00:9::/112".parse().unwrap(),
    ];
    for (outer, prefix) in prefixes.iter().enumerate() {
        let hosts = match prefix {
            IpNet::V4(prefix) => [0, prefix.hostmask().to_bits().into()],
            IpNet::V6(prefix) => words(&prefix.hostmask().to_string()),
        };
        let source = [words(&prefix.addr().to_string()), hosts];
        let to = (words(FAR_END[outer]), [Family::V4, Family::V6][outer]);
        let encapsulation = Encapsulation::new(Forward::Gue, &PLAIN, source, to).unwrap();
        let mut seen = [const { Vec::new() }; 3];
        for client in 0..64 {
            let client = format!("10.1.0.2:{}", 1000 + client);
            let packet = |payload| {
                opened(
                    &encapsulated(&udp(&client, VIP[0], payload), &encapsulation),
                    outer,
                )
            };
            let (first, second) = (packet(b"1"), packet(b"second"));
            assert!(
                prefix.contains(&first.source)
                    && encapsulation.may_be_from(words(&first.source.to_string()))
            );
            let of = |found: &Outer| (found.source, found.flow_label, found.payload[..2].to_vec());
            assert_eq!(of(&first), of(&second), "one flow");
            seen[0].push(first.source.to_string());
            seen[1].push(first.flow_label.to_string());
            seen[2].push(format!("{:?}", &first.payload[..2]));
        }
        assert!(!encapsulation.may_be_from(words(SOURCE[outer])));
        for (what, mut values) in ["source", "label", "port"].iter().zip(seen) {
            values.sort();
            values.dedup();
            let varies = *what != "label" || outer == 1;
            assert!(
                if varies {
                    values.len() > 40
                } else {
                    values.len() == 1
                },
                "{what}: {}",
                values.len()
            );
        }
    }
}

#[test]
fn other_modes_are_no_tunnels() {
    for forward in [Forward::Nat, Forward::FullNat, Forward::DsrL2] {
        let to = (words(FAR_END[0]), Family::V4);
        assert_eq!(
            Encapsulation::new(forward, &PLAIN, [words(SOURCE[0]), [0; 2]], to),
            None
        );
    }
}

#[test]
fn a_frame_that_is_not_the_packets_is_refused() {
    each(|outer, _, frame| {
        let tunnel = Tunnel {
            checksum: true,
            ..PLAIN
        };
        let encapsulation = encapsulation(Forward::Gue, &tunnel, outer);
        let packet = parse(&frame, true).unwrap();
        for len in 0..frame.len() {
            let mut frame = framed(&frame[..len]);
            let result = encapsulate(&mut frame, &packet, &encapsulation, &HOP);
            assert_eq!(result, Err(DropReason::Truncated), "{len} bytes");
        }
        let mut full = framed(&frame);
        assert!(full.grow_head(240) && full.shrink_head(240));
        while full.grow_head(1) {}
        let mut moved = packet;
        moved.network += 256;
        moved.transport += 256;
        moved.end += 256;
        assert_eq!(
            encapsulate(&mut full, &moved, &encapsulation, &HOP),
            Ok(()),
            "room is made at the front"
        );
    });
}

proptest! {
    #[test]
    fn derived_checksums_are_those_of_all_bytes(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        port: u16, is_udp: bool, outer in 0usize..2, inner in 0usize..2, variant in 0u8..2,
    ) {
        let client = [format!("10.1.0.2:{port}"), format!("[fd00:1::2]:{port}")];
        let frame = if is_udp {
            udp(&client[inner], VIP[inner], &payload)
        } else {
            tcp(&client[inner], VIP[inner], 0x10, &payload)
        };
        let tunnel = Tunnel { checksum: true, variant, ..PLAIN };
        let encapsulation = encapsulation(Forward::Gue, &tunnel, outer);
        let found = opened(&encapsulated(&frame, &encapsulation), outer);
        prop_assert!(udp_sum_is_right(&found.payload, SOURCE[outer], FAR_END[outer]));
    }
}

#[test]
fn addresses_are_read_as_they_are_written() {
    assert_eq!(
        octets(Endpoint::from_socket(at("10.2.0.1:0")).address)[12..],
        [10, 2, 0, 1]
    );
}
