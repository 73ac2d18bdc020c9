use proptest::prelude::*;
use ringgate_conntrack::Endpoint;

use super::*;
use crate::parse::parse;
use crate::testing::{at, checksums_are_right, framed, make_partial, tcp, udp};
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
const BACKEND: [&str; 2] = ["10.2.0.11:8080", "[fd00:2::11]:8080"];

fn endpoint(text: &str) -> Endpoint {
    Endpoint::from_socket(at(text))
}

fn rewritten(frame: &[u8], action: Action<'_>) -> Vec<u8> {
    let mut frame = framed(frame);
    let packet = parse(frame.bytes(), true).unwrap();
    rewrite(&mut frame, &packet, &action, &HOP).unwrap();
    frame.bytes().to_vec()
}

/// The frame that the oracle builds for the translated endpoints.
fn expected(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&HOP.destination.0);
    frame[6..12].copy_from_slice(&HOP.source.0);
    if frame[14] >> 4 == 6 {
        frame[21] -= 1;
        return frame;
    }
    frame[22] -= 1;
    frame[24..26].fill(0);
    let sum = !crate::wire::checksum::fold(crate::wire::checksum::sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn nat_equals_what_the_oracle_builds_in_both_directions() {
    for family in 0..2 {
        let (client, vip, backend) = (CLIENT[family], VIP[family], BACKEND[family]);
        for payload in [&b""[..], b"x", b"some payload"] {
            let to_backend = Action::ToBackend(endpoint(backend));
            let to_client = Action::ToClient(endpoint(vip));
            assert_eq!(
                rewritten(&tcp(client, vip, 0x18, payload), to_backend),
                expected(&tcp(client, backend, 0x18, payload))
            );
            assert_eq!(
                rewritten(&tcp(backend, client, 0x12, payload), to_client),
                expected(&tcp(vip, client, 0x12, payload))
            );
            assert_eq!(
                rewritten(&udp(client, vip, payload), to_backend),
                expected(&udp(client, backend, payload))
            );
            assert_eq!(
                rewritten(&udp(backend, client, payload), to_client),
                expected(&udp(vip, client, payload))
            );
        }
    }
}

#[test]
fn direct_return_changes_hardware_addresses_only() {
    for family in 0..2 {
        let frame = tcp(CLIENT[family], VIP[family], 0x18, b"payload");
        let after = rewritten(&frame, Action::Direct);
        assert_eq!(after[..6], HOP.destination.0);
        assert_eq!(after[6..12], HOP.source.0);
        assert_eq!(after[12..], frame[12..]);
    }
}

#[test]
fn unfinished_checksums_are_completed_in_every_mode() {
    for family in 0..2 {
        let actions = [Action::Direct, Action::ToBackend(endpoint(BACKEND[family]))];
        for action in actions {
            for whole in [
                tcp(CLIENT[family], VIP[family], 0x18, b"odd"),
                udp(CLIENT[family], VIP[family], b"even"),
            ] {
                let mut partial = whole.clone();
                make_partial(&mut partial);
                assert!(!checksums_are_right(&partial));
                assert_eq!(rewritten(&partial, action), rewritten(&whole, action));
            }
        }
    }
}

#[test]
fn a_completed_zero_is_not_taken_for_no_checksum() {
    for family in 0..2 {
        let at = if family == 0 { 40 } else { 60 };
        let whole = (0..=u16::MAX)
            .map(|word| udp(CLIENT[family], VIP[family], &word.to_be_bytes()))
            .find(|frame| frame[at..at + 2] == [0xFF; 2])
            .unwrap();
        let mut partial = whole.clone();
        make_partial(&mut partial);
        for action in [Action::Direct, Action::ToBackend(endpoint(BACKEND[family]))] {
            assert_eq!(rewritten(&partial, action), rewritten(&whole, action));
        }
    }
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut frame = udp(CLIENT[0], VIP[0], b"payload");
    frame[40..42].fill(0);
    let after = rewritten(&frame, Action::ToBackend(endpoint(BACKEND[0])));
    assert_eq!(after[40..42], [0, 0]);
}

#[test]
fn padding_stays() {
    let mut frame = udp(CLIENT[0], VIP[0], b"");
    frame.resize(60, 0xEE);
    let after = rewritten(&frame, Action::ToBackend(endpoint(BACKEND[0])));
    assert_eq!(after[42..], [0xEE; 18]);
    assert!(checksums_are_right(&after[..42]));
}

#[test]
fn options_stay() {
    let mut frame = udp(CLIENT[0], VIP[0], b"x");
    frame.splice(34..34, [1; 8]);
    frame[14] = 0x47;
    frame[16..18].copy_from_slice(&37u16.to_be_bytes());
    crate::testing::set_ttl(&mut frame, 9);
    let after = rewritten(&frame, Action::ToBackend(endpoint(BACKEND[0])));
    assert_eq!(after[34..42], [1; 8]);
    assert_eq!(
        after[42..],
        rewritten(
            &udp(CLIENT[0], VIP[0], b"x"),
            Action::ToBackend(endpoint(BACKEND[0]))
        )[34..]
    );
    assert!(checksums_are_right(&after));
}

#[test]
fn a_frame_that_is_not_the_packets_is_refused() {
    for family in 0..2 {
        for whole in [
            udp(CLIENT[family], VIP[family], b"payload"),
            tcp(CLIENT[family], VIP[family], 0x18, b"payload"),
        ] {
            let mut partial = whole.clone();
            make_partial(&mut partial);
            for frame in [whole, partial] {
                let packet = parse(&frame, true).unwrap();
                for action in [Action::Direct, Action::ToBackend(endpoint(BACKEND[family]))] {
                    for len in 0..frame.len() {
                        let mut cut = framed(&frame[..len]);
                        let result = rewrite(&mut cut, &packet, &action, &HOP);
                        assert_eq!(result, Err(DropReason::Truncated), "{len} bytes");
                    }
                }
            }
        }
    }
}

/// A translation of the destination or of the source, and the endpoints before and after it.
#[derive(Debug, Clone, Copy)]
struct Case {
    to_backend: bool,
    client: Endpoint,
    listen: Endpoint,
    backend: Endpoint,
}

impl Case {
    fn built(&self, is_udp: bool, payload: &[u8], after: bool) -> Vec<u8> {
        let server = if self.to_backend == after {
            self.backend
        } else {
            self.listen
        };
        let (mut source, mut destination) = (self.client.to_string(), server.to_string());
        if !self.to_backend {
            std::mem::swap(&mut source, &mut destination);
        }
        if is_udp {
            udp(&source, &destination, payload)
        } else {
            tcp(&source, &destination, 0x18, payload)
        }
    }

    /// What a translation made beforehand, and an action, make of `frame`: they must agree.
    fn translated(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let (action, translation) = if self.to_backend {
            (
                Action::ToBackend(self.backend),
                Translation::of_destination(self.listen, self.backend),
            )
        } else {
            (
                Action::ToClient(self.listen),
                Translation::of_source(self.backend, self.listen),
            )
        };
        let by_action = rewritten(&frame, action);
        let packet = parse(&frame, true).unwrap();
        translate(&mut frame, &packet, &translation, &HOP).unwrap();
        assert_eq!(frame, by_action);
        frame
    }
}

#[test]
fn every_checksum_that_can_come_out_is_the_one_of_a_full_computation() {
    for (is_udp, at, zero) in [(true, 40, [0xFF; 2]), (false, 50, [0; 2])] {
        let mut zeros = 0;
        // The ports take the checksum once around.
        for port in 0..=u16::MAX {
            let case = Case {
                to_backend: true,
                client: endpoint(CLIENT[0]),
                listen: endpoint(VIP[0]),
                backend: Endpoint {
                    port,
                    ..endpoint(BACKEND[0])
                },
            };
            let after = case.translated(case.built(is_udp, b"payload", false));
            assert_eq!(after, expected(&case.built(is_udp, b"payload", true)));
            zeros += u32::from(after[at..at + 2] == zero);
        }
        assert!(zeros > 0);
    }
}

/// Any endpoint with this first byte, so that no two are equal by chance.
fn any_endpoint(family: usize, first: u8) -> impl Strategy<Value = Endpoint> {
    any::<([u8; 16], u16)>().prop_map(move |(mut octets, port)| {
        octets[0] = first;
        let [a, b, c, d, ..] = octets;
        let ip = if family == 0 {
            [a, b, c, d].into()
        } else {
            std::net::IpAddr::from(octets)
        };
        Endpoint::from_socket((ip, port).into())
    })
}

fn any_case() -> impl Strategy<Value = Case> {
    (0usize..2).prop_flat_map(|family| {
        let ends = [10, 100, 172].map(|first| any_endpoint(family, first));
        (ends, any::<bool>()).prop_map(|([client, listen, backend], to_backend)| Case {
            to_backend,
            client,
            listen,
            backend,
        })
    })
}

proptest! {
    #[test]
    fn translations_equal_actions_and_a_full_computation(
        case in any_case(), is_udp: bool, partial: bool,
        payload in prop::collection::vec(any::<u8>(), 0..64),
        padding in 0usize..20,
    ) {
        let mut frame = case.built(is_udp, &payload, false);
        if partial {
            make_partial(&mut frame);
        }
        frame.resize(frame.len() + padding, 0xEE);
        let mut wanted = expected(&case.built(is_udp, &payload, true));
        wanted.resize(wanted.len() + padding, 0xEE);
        prop_assert_eq!(case.translated(frame), wanted);
    }

    #[test]
    fn a_right_checksum_stays_right_and_a_wrong_one_exactly_as_wrong(
        payload in prop::collection::vec(any::<u8>(), 0..64),
        error in 1u16..0xFFFF, is_udp: bool, family in 0usize..2, port: u16,
    ) {
        let backend = Endpoint { port, ..endpoint(BACKEND[family]) };
        let action = Action::ToBackend(backend);
        let frame = if is_udp {
            udp(CLIENT[family], VIP[family], &payload)
        } else {
            tcp(CLIENT[family], VIP[family], 0x18, &payload)
        };
        let right = rewritten(&frame, action);
        prop_assert!(checksums_are_right(&right));

        let at = if family == 0 { 34 } else { 54 } + if is_udp { 6 } else { 16 };
        let field = |frame: &[u8]| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let mut wrong = frame.clone();
        wrong[at..at + 2].copy_from_slice(&(field(&frame) ^ error).to_be_bytes());
        prop_assume!(!parse(&wrong, true).unwrap().partial && field(&wrong) != 0 && field(&wrong) != 0xFFFF);
        let before = i64::from(field(&wrong)) - i64::from(field(&frame));
        let wrong = rewritten(&wrong, action);
        prop_assert!(!checksums_are_right(&wrong));
        let after = i64::from(field(&wrong)) - i64::from(field(&right));
        prop_assert_eq!((after - before).rem_euclid(0xFFFF), 0);
    }
}
