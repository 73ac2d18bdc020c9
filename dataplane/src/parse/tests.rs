use proptest::prelude::*;

use ringgate_conntrack::Endpoint;

use super::*;
use crate::testing::{TAGGINGS, at, make_partial, tagged, tcp, udp};
use crate::wire::checksum;

const V4: (&str, &str) = ("10.1.0.2:4242", "10.100.0.1:80");
const V6: (&str, &str) = ("[fd00:1::2]:4242", "[fd00:100::1]:80");

/// Sets the IPv4 header checksum right after a change.
fn seal(frame: &mut [u8]) {
    let end = 14 + usize::from(frame[14] & 15) * 4;
    frame[24..26].fill(0);
    let sum = !checksum::fold(checksum::sum(&frame[14..end]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn refused(frame: &[u8]) -> DropReason {
    parse(frame, true).unwrap_err()
}

#[test]
fn both_families_and_protocols_are_described() {
    for (source, destination) in [V4, V6] {
        let family = if source == V4.0 {
            Family::V4
        } else {
            Family::V6
        };
        let start = if source == V4.0 { 34 } else { 54 };
        let (from, to) = (
            Endpoint::from_socket(at(source)),
            Endpoint::from_socket(at(destination)),
        );
        let frame = tcp(source, destination, 0x12, b"abc");
        let packet = parse(&frame, true).unwrap();
        let expected = Packet {
            key: FlowKey::new(6, from, to),
            family,
            ttl: 64,
            tcp_flags: 0x12,
            tcp_sequence: 1000,
            partial: false,
            network: 14,
            transport: start,
            end: start + 23,
            ip_len: start + 23 - 14,
            tags: Tags::NONE,
        };
        assert_eq!(packet, expected);

        let frame = udp(source, destination, b"");
        let packet = parse(&frame, true).unwrap();
        let expected = Packet {
            key: FlowKey::new(17, from, to),
            tcp_flags: 0,
            tcp_sequence: 0,
            end: start + 8,
            ip_len: start - 6,
            ..expected
        };
        assert_eq!(packet, expected);
    }
}

/// Tags move what is behind them, and change nothing else; every layer is found there.
#[test]
fn tagged_packets_are_described_as_untagged_ones_are() {
    for (source, destination) in [V4, V6] {
        for mut plain in [
            tcp(source, destination, 0x12, b"abc"),
            udp(source, destination, b"abc"),
        ] {
            make_partial(&mut plain);
            let expected = parse(&plain, true).unwrap();
            for tags in TAGGINGS {
                let mut frame = tagged(&plain, tags);
                let len = u16::try_from(tags.wire_len()).unwrap();
                let packet = parse(&frame, true).unwrap();
                let expected = Packet {
                    network: expected.network + len,
                    transport: expected.transport + len,
                    end: expected.end + len,
                    tags,
                    ..expected
                };
                assert_eq!(packet, expected);
                for cut in 0..frame.len() {
                    assert!(parse(&frame[..cut], true).is_err(), "{cut} bytes");
                    assert!(Layers::cut(&mut frame[..cut], &packet).is_none());
                }
                let layers = Layers::cut(&mut frame, &packet).unwrap();
                assert_eq!(layers.transport[layers.transport.len() - 3..], *b"abc");
                match layers.network {
                    NetworkMut::V4(header) => assert_eq!(header.0[..], plain[14..34]),
                    NetworkMut::V6(header) => assert_eq!(header.0[..], plain[14..54]),
                }
            }
        }
    }
}

#[test]
fn padding_and_options_are_outside_and_inside() {
    let mut frame = udp(V4.0, V4.1, b"x");
    frame.resize(60, 0xEE);
    assert_eq!(parse(&frame, false).unwrap().end, 43);

    // Eight bytes of options (NOP), total length and checksum to match.
    let mut frame = udp(V4.0, V4.1, b"x");
    frame.splice(34..34, [1; 8]);
    frame[14] = 0x47;
    frame[16..18].copy_from_slice(&37u16.to_be_bytes());
    seal(&mut frame);
    let packet = parse(&frame, false).unwrap();
    assert_eq!((packet.transport, packet.end, packet.ip_len), (42, 51, 37));
}

#[test]
fn every_truncation_is_refused() {
    for (source, destination) in [V4, V6] {
        for frame in [
            tcp(source, destination, 0x10, b"payload"),
            udp(source, destination, b"payload"),
        ] {
            for len in 0..frame.len() {
                let reason = refused(&frame[..len]);
                assert!(
                    matches!(reason, DropReason::Truncated | DropReason::BadLength),
                    "{len} bytes: {reason:?}"
                );
            }
        }
    }
}

/// Breaks a TCP frame of IPv4 or IPv6.
type Change = fn(&mut Vec<u8>);
#[rustfmt::skip]
const BROKEN: &[(&str, &str, Change, DropReason)] = &[
    ("an EtherType of ARP", "4", |f| f[12..14].copy_from_slice(&[8, 6]), DropReason::NotIp),
    ("a VLAN tag before ARP", "4", |f| { f.splice(12..14, [0x81, 0, 0, 9, 8, 6]); }, DropReason::NotIp),
    ("three VLAN tags", "4", |f| { f.splice(12..12, [0x81, 0, 0, 9].repeat(3)); }, DropReason::NotIp),
    ("a VLAN tag, and a wrong header checksum", "4", |f| { f[24] ^= 1; f.splice(12..12, [0x81, 0, 0, 9]); },
        DropReason::BadIpv4Checksum),
    ("version 5", "4", |f| f[14] = 0x55, DropReason::BadIpv4Header),
    ("a header of 16 bytes", "4", |f| f[14] = 0x44, DropReason::BadIpv4Header),
    ("a header longer than the frame", "4", |f| { f[14] = 0x4F; f.truncate(60); }, DropReason::Truncated),
    ("a wrong header checksum", "4", |f| f[24] ^= 1, DropReason::BadIpv4Checksum),
    ("a total length beyond the frame", "4", |f| { f[16] = 9; seal(f) }, DropReason::BadLength),
    ("a total length below the header", "4", |f| { f[17] = 19; f[16] = 0; seal(f) }, DropReason::BadLength),
    ("a first fragment", "4", |f| { f[20] = 0x20; seal(f) }, DropReason::Fragment),
    ("a later fragment", "4", |f| { f[21] = 1; seal(f) }, DropReason::Fragment),
    ("ICMP", "4", |f| { f[23] = 1; seal(f) }, DropReason::UnsupportedProtocol),
    ("version 4 in an IPv6 frame", "6", |f| f[14] = 0x45, DropReason::BadIpv6Header),
    ("a payload length beyond the frame", "6", |f| f[18] = 9, DropReason::BadLength),
    ("a hop-by-hop header", "6", |f| f[20] = 0, DropReason::UnsupportedProtocol),
    ("a fragment header", "6", |f| f[20] = 44, DropReason::Fragment),
    ("a data offset below the header", "4", |f| f[46] = 0x40, DropReason::BadTcpHeader),
    ("a data offset beyond the segment", "4", |f| f[46] = 0xF0, DropReason::BadLength),
    ("no flags", "4", |f| f[47] = 0, DropReason::BadTcpHeader),
    ("FIN alone", "6", |f| f[67] = 1, DropReason::BadTcpHeader),
    ("SYN and FIN", "6", |f| f[67] = 3, DropReason::BadTcpHeader),
    ("SYN and RST", "4", |f| f[47] = 6, DropReason::BadTcpHeader),
];

#[test]
fn broken_headers_have_their_own_reasons() {
    for (what, family, change, reason) in BROKEN {
        let (source, destination) = if *family == "4" { V4 } else { V6 };
        let mut frame = tcp(source, destination, 0x10, b"payload");
        change(&mut frame);
        assert_eq!(refused(&frame), *reason, "{what}");
    }
}

#[test]
fn udp_lengths_may_be_short_but_not_wrong() {
    for (length, expected) in [
        (7, Err(DropReason::BadLength)),
        (0, Err(DropReason::BadLength)),
        (13, Err(DropReason::BadLength)),
        (12, Ok(46)),
        (9, Ok(43)),
        (8, Ok(42)),
    ] {
        let mut frame = udp(V4.0, V4.1, b"1234");
        frame[38..40].copy_from_slice(&u16::to_be_bytes(length));
        assert_eq!(
            parse(&frame, false).map(|packet| packet.end),
            expected,
            "length {length}"
        );
    }
}

#[test]
fn impossible_sources_are_refused() {
    for source in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "239.9.9.9",
        "255.255.255.255",
        "10.100.0.1",
    ] {
        let frame = udp(&format!("{source}:99"), V4.1, b"");
        assert_eq!(refused(&frame), DropReason::BadSource, "{source}");
    }
    for source in ["::", "::1", "ff02::1", "fd00:100::1"] {
        let frame = udp(&format!("[{source}]:99"), V6.1, b"");
        assert_eq!(refused(&frame), DropReason::BadSource, "{source}");
    }
    for source in ["1.0.0.1", "126.255.0.1", "223.0.0.1", "240.0.0.1"] {
        assert!(
            parse(&udp(&format!("{source}:99"), V4.1, b""), false).is_ok(),
            "{source}"
        );
    }
}

#[test]
fn ipv4_mapped_addresses_inside_ipv6_are_refused() {
    for field in [22, 38] {
        let mut frame = udp(V6.0, V6.1, b"");
        frame[field..field + 16]
            .copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 100, 0, 1]);
        assert_eq!(refused(&frame), DropReason::BadIpv6Header);
    }
}

#[test]
fn unfinished_checksums_are_recognised_only_where_they_are_possible() {
    for (source, destination) in [V4, V6] {
        for mut frame in [
            tcp(source, destination, 0x10, b"payload"),
            udp(source, destination, b"odd"),
        ] {
            assert!(!parse(&frame, true).unwrap().partial);
            make_partial(&mut frame);
            assert!(parse(&frame, true).unwrap().partial);
            assert!(!parse(&frame, false).unwrap().partial);
        }
    }
}

#[test]
fn layers_fit_only_their_own_frame() {
    let mut frame = tcp(V4.0, V4.1, 0x10, b"payload");
    let packet = parse(&frame, false).unwrap();
    let layers = Layers::cut(&mut frame, &packet).unwrap();
    assert_eq!(&layers.transport[20..], b"payload");
    for len in 0..frame.len() {
        assert!(Layers::cut(&mut frame[..len], &packet).is_none());
    }
}

/// Every kind of plain frame, with and without padding and unfinished checksums.
fn plain_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (source, destination) in [V4, V6] {
        for payload in [&b""[..], b"odd", b"some payload"] {
            for whole in [
                tcp(source, destination, 0x02, payload),
                tcp(source, destination, 0x18, payload),
                udp(source, destination, payload),
            ] {
                let mut padded = whole.clone();
                padded.extend([0xEE; 7]);
                let mut partial = whole.clone();
                make_partial(&mut partial);
                frames.extend([whole, padded, partial]);
            }
        }
    }
    frames
}

/// The two ways must not differ in anything.
fn assert_both_ways_agree(frame: &[u8]) {
    for partial_possible in [false, true] {
        assert_eq!(
            parse(frame, partial_possible),
            general::parse(frame, partial_possible),
            "{frame:02x?}"
        );
    }
}

#[test]
fn plain_frames_take_the_short_way() {
    for frame in plain_frames() {
        assert!(
            plain::parse(&frame, true, &mut |_| {}).is_some(),
            "{frame:02x?}"
        );
        assert_both_ways_agree(&frame);
    }
}

#[test]
fn both_ways_agree_on_every_truncation_and_every_value_of_every_header_byte() {
    for frame in plain_frames() {
        for len in 0..frame.len() {
            assert_both_ways_agree(&frame[..len]);
        }
        let mut changed = frame.clone();
        for at in 12..frame.len().min(74) {
            for value in 0..=255 {
                changed[at] = value;
                assert_both_ways_agree(&changed);
                // Behind a wrong IPv4 checksum the other checks would never be reached.
                if (14..34).contains(&at) && changed[14] == 0x45 {
                    seal(&mut changed);
                    assert_both_ways_agree(&changed);
                }
            }
            changed.copy_from_slice(&frame);
        }
    }
}

#[test]
fn both_ways_agree_on_both_forms_of_zero_as_unfinished_checksum() {
    let mut seen = [0; 2];
    for low in 0..=u16::MAX {
        let mut frame = udp(V4.0, V4.1, b"");
        frame[28..30].copy_from_slice(&low.to_be_bytes());
        seal(&mut frame);
        for (form, seen) in [0, 0xFF].into_iter().zip(&mut seen) {
            frame[40..42].fill(form);
            assert_both_ways_agree(&frame);
            *seen += usize::from(parse(&frame, true).unwrap().partial);
        }
    }
    // The sum of a pseudo header is never 0, and once in 65,535 it is 0xFFFF.
    assert_eq!(seen, [0, 1]);
}

#[test]
fn both_ways_agree_where_offsets_end() {
    for (source, destination) in [V4, V6] {
        for template in [
            udp(source, destination, b""),
            tcp(source, destination, 0x10, b""),
        ] {
            for ip_len in 65_500..=65_535u16 {
                let mut frame = template.clone();
                frame.resize(14 + usize::from(ip_len), 0);
                let (at, len) = if source == V4.0 {
                    (16, ip_len)
                } else {
                    (18, ip_len - 40)
                };
                frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
                if source == V4.0 {
                    seal(&mut frame);
                    frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
                } else {
                    frame[58..60].copy_from_slice(&(ip_len - 40).to_be_bytes());
                }
                for padding in [0, 1, 100] {
                    frame.resize(14 + usize::from(ip_len) + padding, 0);
                    assert_eq!(parse(&frame, false), general::parse(&frame, false));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn both_ways_agree_on_mutated_frames(
        kind in 0usize..54,
        changes in prop::collection::vec((12usize..90, any::<u8>()), 0..5),
        addresses in prop::option::of(any::<[u8; 32]>()),
        sealed: bool,
        cut in prop::option::of(0usize..90),
    ) {
        let mut frame = plain_frames().swap_remove(kind);
        if let Some(addresses) = addresses {
            let (from, len) = if frame[14] == 0x45 { (26, 8) } else { (22, 32) };
            frame[from..from + len].copy_from_slice(&addresses[..len]);
        }
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if sealed && frame[14] == 0x45 {
            seal(&mut frame);
        }
        frame.truncate(cut.unwrap_or(frame.len()));
        assert_both_ways_agree(&frame);
    }

    #[test]
    fn no_bytes_panic_and_what_is_accepted_can_be_cut(
        mut frame in prop::collection::vec(any::<u8>(), 0..200),
        family in prop::sample::select(vec![[8u8, 0], [0x86, 0xDD]]),
        tags in prop::sample::select(TAGGINGS.to_vec()),
        version: bool,
    ) {
        if frame.len() > 15 {
            frame[12..14].copy_from_slice(&family);
            frame[14] = if version { 0x45 } else { 0x60 };
            frame = tagged(&frame, tags);
        }
        assert_both_ways_agree(&frame);
        if let Ok(packet) = parse(&frame, true) {
            prop_assert!(Layers::cut(&mut frame, &packet).is_some());
        }
    }
}
