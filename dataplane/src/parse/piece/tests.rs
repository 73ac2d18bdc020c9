use proptest::prelude::*;

use super::*;
use crate::parse::parse;
use crate::testing::{cut, piece, tcp, udp};

const V4: (&str, &str) = ("192.0.2.1:4242", "10.100.0.1:80");
const V6: (&str, &str) = ("[2001:db8::1]:4242", "[fd00:100::1]:80");
const PORTS: Ports = Ports {
    source: 4242,
    destination: 80,
};
const ACK: u8 = 0x10;

/// The headers before the transport header, and what follows, of a frame.
fn halves(frame: &[u8]) -> (&[u8], &[u8]) {
    frame.split_at(if frame[14] >> 4 == 4 { 34 } else { 54 })
}

fn refused(frame: &[u8]) -> DropReason {
    parse_piece(frame).unwrap_err()
}

#[test]
fn the_first_fragment_is_described_as_the_whole_packet_would_be() {
    for (source, destination) in [V4, V6] {
        for whole in [
            udp(source, destination, &[7; 1000]),
            tcp(source, destination, ACK, &[7; 1000]),
        ] {
            let packet = parse(&whole, false).unwrap();
            let pieces = cut(&whole, 0xABCD, 400);
            assert_eq!(parse(&pieces[0], false), Err(DropReason::Fragment));
            let first = parse_piece(&pieces[0]).unwrap();
            let header = u16::from(source == V6.0) * 8;
            let start = packet.transport + header;
            let expected = Packet {
                transport: start,
                end: start + 400,
                ip_len: start + 400 - 14,
                ..packet
            };
            assert_eq!(first.packet, expected);
            assert!(!first.packet.is_later_fragment());
            assert_eq!((first.ports(), first.of_ports(PORTS)), (PORTS, expected));
            let key = packet.key;
            let datagram = Datagram {
                source: key.source().address,
                destination: key.destination().address,
                identification: 0xABCD,
                protocol: key.protocol(),
            };
            assert_eq!(first.datagram, datagram);
            for later in &pieces[1..] {
                assert_eq!(parse(later, false), Err(DropReason::Fragment));
                let later = parse_piece(later).unwrap();
                assert_eq!(later.datagram, datagram);
                assert!(later.packet.is_later_fragment());
                let of_flow = later.of_ports(PORTS);
                assert_eq!((of_flow.key, of_flow.tcp_flags), (key, 0));
            }
        }
    }
}

#[test]
fn headers_in_pieces_are_refused() {
    let reason = DropReason::TinyFragment;
    for (source, destination) in [V4, V6] {
        let whole = tcp(source, destination, ACK, &[7; 100]);
        let (head, payload) = halves(&whole);
        for len in [8, 16] {
            let frame = piece(head, &payload[..len], 1, 0, true);
            assert_eq!(refused(&frame), reason, "{len} bytes of TCP");
            let frame = piece(head, &payload[len..], 1, len, false);
            assert_eq!(refused(&frame), reason, "TCP from byte {len} on");
        }
        let mut long = payload.to_vec();
        long[12] = 0x70;
        let frame = piece(head, &long[..24], 1, 0, true);
        assert_eq!(refused(&frame), reason, "28 bytes of header, 24 here");
        assert!(parse_piece(&piece(head, &payload[..24], 1, 0, true)).is_ok());
        assert!(parse_piece(&piece(head, &payload[24..], 1, 24, false)).is_ok());

        let whole = udp(source, destination, &[7; 100]);
        let (head, payload) = halves(&whole);
        // Eight bytes are a whole UDP header.
        assert!(parse_piece(&piece(head, &payload[..8], 1, 0, true)).is_ok());
        assert!(parse_piece(&piece(head, &payload[8..], 1, 8, false)).is_ok());
    }
}

#[test]
fn fragments_that_no_datagram_has_are_refused() {
    let reason = DropReason::BadFragment;
    for (source, destination) in [V4, V6] {
        let whole = udp(source, destination, &[7; 100]);
        let (head, payload) = halves(&whole);
        let uneven = piece(head, &payload[..44], 1, 0, true);
        assert_eq!(refused(&uneven), reason, "44 bytes, and more follow");
        assert!(parse_piece(&piece(head, &payload[..44], 1, 64, false)).is_ok());
        let empty = piece(head, &[], 1, 64, false);
        assert_eq!(refused(&empty), reason, "empty");
        // The last whole eight bytes of the longest packet, whose IPv4 header counts.
        let last = if source == V4.0 { 65_512 } else { 65_528 };
        assert!(parse_piece(&piece(head, &payload[..3], 1, last, false)).is_ok());
        let beyond = piece(head, &payload[..8], 1, last, false);
        assert_eq!(refused(&beyond), reason, "beyond the longest packet");
    }
}

#[test]
fn other_faults_keep_their_reasons() {
    let whole = tcp(V4.0, V4.1, 0, &[7; 100]);
    let (head, payload) = halves(&whole);
    let frame = piece(head, &payload[..24], 1, 0, true);
    assert_eq!(refused(&frame), DropReason::BadTcpHeader, "no flags");
    let mut whole = udp(V4.0, V4.1, &[7; 100]);
    whole[38..40].copy_from_slice(&[0, 7]);
    let (head, payload) = halves(&whole);
    let frame = piece(head, &payload[..24], 1, 0, true);
    assert_eq!(refused(&frame), DropReason::BadLength, "UDP of 7 bytes");
    let mut icmp = head.to_vec();
    icmp[23] = 1;
    let frame = piece(&icmp, &payload[..24], 1, 0, true);
    assert_eq!(refused(&frame), DropReason::UnsupportedProtocol);
    let mut frame = piece(head, &payload[..24], 1, 8, true);
    frame[24] ^= 1;
    assert_eq!(refused(&frame), DropReason::BadIpv4Checksum);
    let frame = piece(head, &payload[..24], 1, 8, true);
    assert_eq!(refused(&frame[..50]), DropReason::BadLength);
    assert_eq!(refused(&whole), DropReason::Fragment, "it is none");
}

#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let whole = udp(V6.0, V6.1, &[7; 100]);
    let (head, payload) = halves(&whole);
    let atomic = piece(head, payload, 1, 0, false);
    let packet = parse(&whole, false).unwrap();
    let expected = Packet {
        transport: packet.transport + 8,
        end: packet.end + 8,
        ip_len: packet.ip_len + 8,
        ..packet
    };
    assert_eq!(parse(&atomic, false), Ok(expected));
    let mut broken = atomic;
    broken[62 + 4..62 + 6].copy_from_slice(&[0, 7]);
    assert_eq!(parse(&broken, false), Err(DropReason::BadLength));
}

proptest! {
    #[test]
    fn a_description_lies_within_its_frame(
        of_v4: bool, is_tcp: bool, word: [u8; 8], at in 14_usize..70, len in 0_usize..200,
    ) {
        let (source, destination) = if of_v4 { V4 } else { V6 };
        let whole = if is_tcp {
            tcp(source, destination, ACK, &[7; 100])
        } else {
            udp(source, destination, &[7; 100])
        };
        let mut frame = cut(&whole, 9, 64).pop().unwrap();
        frame[at..at + 8].copy_from_slice(&word);
        frame.truncate(len.max(30));
        if frame[14] == 0x45 && frame.len() >= 34 {
            crate::testing::set_ttl(&mut frame, 9);
        }
        if let Ok(piece) = parse_piece(&frame) {
            let packet = piece.packet;
            prop_assert!(packet.transport <= packet.end && usize::from(packet.end) <= frame.len());
        }
    }
}
