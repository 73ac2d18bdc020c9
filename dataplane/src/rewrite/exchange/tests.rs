use proptest::prelude::*;

use super::*;
use crate::parse::parse;
use crate::testing::{at, checksums_are_right, make_partial, set_ttl, tcp, udp};
use crate::wire::checksum::{fold, sum};
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
const SOURCE: [&str; 2] = ["10.2.0.1:1024", "[fd00:2::1]:1024"];
const BACKEND: [&str; 2] = ["10.2.0.11:8080", "[fd00:2::11]:8080"];

fn exchanged(frame: &[u8], source: &str, destination: &str) -> Result<Vec<u8>, DropReason> {
    let mut frame = frame.to_vec();
    let packet = parse(&frame, true).unwrap();
    let [source, destination] = [source, destination].map(|text| Endpoint::from_socket(at(text)));
    let endpoints = Exchange {
        source,
        destination,
    };
    exchange(&mut frame, &packet, &endpoints, &HOP).map(|()| frame)
}

/// As the oracle builds it, one hop later.
fn expected(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&HOP.destination.0);
    frame[6..12].copy_from_slice(&HOP.source.0);
    if frame[14] >> 4 == 6 {
        frame[21] -= 1;
    } else {
        frame[22] -= 1;
        frame[24..26].fill(0);
        let right = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&right.to_be_bytes());
    }
    frame
}

#[test]
fn both_ways_equal_what_the_oracle_builds() {
    for family in 0..2 {
        let (client, vip) = (CLIENT[family], VIP[family]);
        let (source, backend) = (SOURCE[family], BACKEND[family]);
        for payload in [&b""[..], b"x", b"some payload"] {
            for [from, to, source, to_be] in [
                [client, vip, source, backend],
                [backend, source, vip, client],
            ] {
                assert_eq!(
                    exchanged(&tcp(from, to, 0x18, payload), source, to_be),
                    Ok(expected(&tcp(source, to_be, 0x18, payload)))
                );
                assert_eq!(
                    exchanged(&udp(from, to, payload), source, to_be),
                    Ok(expected(&udp(source, to_be, payload)))
                );
            }
        }
    }
}

#[test]
fn unfinished_checksums_are_completed() {
    for family in 0..2 {
        for whole in [
            tcp(CLIENT[family], VIP[family], 0x18, b"odd"),
            udp(CLIENT[family], VIP[family], b"even"),
        ] {
            let mut partial = whole.clone();
            make_partial(&mut partial);
            let ends = (SOURCE[family], BACKEND[family]);
            let after = exchanged(&partial, ends.0, ends.1);
            assert_eq!(after, exchanged(&whole, ends.0, ends.1));
            assert!(checksums_are_right(&after.unwrap()));
        }
    }
}

#[test]
fn options_padding_and_the_absence_of_a_checksum_stay() {
    let mut frame = udp(CLIENT[0], VIP[0], b"x");
    frame[40..42].fill(0);
    frame.splice(34..34, [1; 8]);
    frame[14] = 0x47;
    frame[16..18].copy_from_slice(&37_u16.to_be_bytes());
    set_ttl(&mut frame, 9);
    frame.extend([0xEE; 9]);
    let after = exchanged(&frame, SOURCE[0], BACKEND[0]).unwrap();
    assert_eq!((after.len(), &after[34..42]), (frame.len(), &[1; 8][..]));
    assert_eq!(after[48..50], [0; 2], "no checksum");
    assert_eq!((after[22], &after[50..]), (8, &frame[50..]));
    assert!(checksums_are_right(&after[..51]));
}

#[test]
fn a_frame_that_is_not_the_packets_is_refused() {
    for family in 0..2 {
        let whole = tcp(CLIENT[family], VIP[family], 0x18, b"payload");
        let packet = parse(&whole, true).unwrap();
        let endpoints = Exchange {
            source: Endpoint::from_socket(at(SOURCE[family])),
            destination: Endpoint::from_socket(at(BACKEND[family])),
        };
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            let refused = exchange(&mut cut, &packet, &endpoints, &HOP);
            assert_eq!(refused, Err(DropReason::Truncated), "{len} bytes");
        }
    }
}

/// Any endpoint with this first byte, so that no two are equal by chance.
fn any_endpoint(family: usize, first: u8) -> impl Strategy<Value = String> {
    any::<([u8; 16], u16)>().prop_map(move |(mut octets, port)| {
        octets[0] = first;
        let [a, b, c, d, ..] = octets;
        let ip = if family == 0 {
            [a, b, c, d].into()
        } else {
            std::net::IpAddr::from(octets)
        };
        std::net::SocketAddr::new(ip, port).to_string()
    })
}

fn any_endpoints() -> impl Strategy<Value = [String; 4]> {
    (0..2_usize).prop_flat_map(|family| [11, 12, 13, 14].map(|first| any_endpoint(family, first)))
}

proptest! {
    #[test]
    fn it_equals_a_full_computation(
        [from, to, source, to_be] in any_endpoints(), is_udp: bool, partial: bool,
        payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let built = |from: &str, to: &str| match is_udp {
            true => udp(from, to, &payload),
            false => tcp(from, to, 0x18, &payload),
        };
        let mut frame = built(&from, &to);
        if partial {
            make_partial(&mut frame);
        }
        prop_assert_eq!(exchanged(&frame, &source, &to_be), Ok(expected(&built(&source, &to_be))));
    }

    #[test]
    fn a_wrong_checksum_stays_exactly_as_wrong(
        [from, to, source, to_be] in any_endpoints(), error in 1_u16..0xFFFF,
    ) {
        let frame = tcp(&from, &to, 0x18, b"payload");
        let right = exchanged(&frame, &source, &to_be).unwrap();
        let at = if frame[14] >> 4 == 6 { 70 } else { 50 };
        let field = |frame: &[u8]| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let mut wrong = frame.clone();
        wrong[at..at + 2].copy_from_slice(&(field(&frame) ^ error).to_be_bytes());
        prop_assume!(!parse(&wrong, true).unwrap().partial && ![0, 0xFFFF].contains(&field(&wrong)));
        let before = i64::from(field(&wrong)) - i64::from(field(&frame));
        let wrong = exchanged(&wrong, &source, &to_be).unwrap();
        prop_assert!(!checksums_are_right(&wrong));
        let after = i64::from(field(&wrong)) - i64::from(field(&right));
        prop_assert_eq!((after - before).rem_euclid(0xFFFF), 0);
    }
}
