//! Bytes of quotes and of reports, against `etherparse`, from any packet and at any length.

use etherparse::{IcmpEchoHeader, Icmpv4Slice, Icmpv4Type, Icmpv6Slice, NetSlice, SlicedPacket};
use proptest::prelude::*;

use super::message::{Complaint, Kind, Message};
use super::quote::Quote;
use super::report::{Envelope, Report};
use crate::parse::Family;
use crate::testing::{at, set_ttl, tcp, udp};
use crate::verdict::DropReason;
use crate::wire::{Side, ethernet};
use ringgate_conntrack::Endpoint;

fn socket(address: u32, port: u16, is_v4: bool) -> String {
    let [a, b, c, d] = address.to_be_bytes();
    if is_v4 {
        format!("{a}.{b}.{c}.{d}:{port}")
    } else {
        format!("[fd00:{a:x}:{b:x}::{c:x}{d:02x}]:{port}")
    }
}

fn packet(protocol: u8, from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    if protocol == 6 {
        tcp(from, to, 0x10, payload)
    } else {
        udp(from, to, payload)
    }
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint::from_socket(at(text))
}

proptest! {
    #[test]
    fn a_quote_becomes_what_the_other_end_had_sent(
        is_v4: bool, is_tcp: bool, hosts: [u32; 3], ports: [u16; 3],
        payload in prop::collection::vec(any::<u8>(), 0..40),
        cut in 0_usize..40,
    ) {
        let [client, service, backend] =
            [0, 1, 2].map(|n| socket(hosts[n], ports[n], is_v4));
        let protocol = if is_tcp { 6 } else { 17 };
        for side in [Side::Source, Side::Destination] {
            let built = |ours: &str| match side {
                Side::Source => packet(protocol, ours, &client, &payload),
                Side::Destination => packet(protocol, &client, ours, &payload),
            };
            let (mut bytes, expected) = (built(&service), built(&backend));
            let least = if is_v4 { 34 } else { 54 } + 20;
            let end = bytes.len().saturating_sub(cut).max(least.min(bytes.len()));
            let mut quote = Quote::read(&bytes, ethernet::HEADER, end).unwrap();
            let key = quote.key(&bytes).unwrap();
            let (ours, theirs) = match side {
                Side::Source => (key.source(), key.destination()),
                Side::Destination => (key.destination(), key.source()),
            };
            prop_assert_eq!((ours, theirs), (endpoint(&service), endpoint(&client)));
            let to = endpoint(&backend);
            prop_assert!(quote.readdress(&mut bytes, side, (ours, to)).is_some());
            prop_assert_eq!(&bytes[..end], &expected[..end]);
            let again = Quote::read(&bytes, ethernet::HEADER, end).unwrap();
            prop_assert_eq!(again, quote);
        }
    }

    #[test]
    fn a_report_is_a_message_that_the_oracle_understands(
        is_v4: bool, len in 0_usize..1500, mtu: u32, expired: bool, hosts: [u32; 2],
    ) {
        let [client, service] = hosts.map(|host| socket(host, 9, is_v4));
        let mut frame = udp(&client, &service, &vec![0xA5; len]);
        let before = frame[ethernet::HEADER..].to_vec();
        let family = if is_v4 { Family::V4 } else { Family::V6 };
        let envelope = Envelope {
            family,
            source: endpoint(&service).address,
            destination: endpoint(&client).address,
        };
        let report = if expired { Report::TimeExceeded } else { Report::TooBig(mtu) };
        let quoted = ethernet::HEADER..frame.len();
        frame.resize(frame.len() + envelope.headers(), 0);
        let end = envelope.write(&mut frame, ethernet::HEADER, quoted, report).unwrap();
        frame.truncate(end);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let most = if is_v4 { 548 } else { 1232 };
        let expected = &before[..before.len().min(most)];
        let longest = if is_v4 { 576 } else { 1280 };
        prop_assert!(frame.len() <= ethernet::HEADER + longest);
        let body = match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
                let source = Endpoint::v4_octets(envelope.source);
                let destination = Endpoint::v4_octets(envelope.destination);
                prop_assert_eq!((header.source, header.destination), (source, destination));
                let icmp = Icmpv4Slice::from_slice(ip.payload().payload).unwrap();
                let checksum = icmp.icmp_type().calc_checksum(icmp.payload());
                prop_assert_eq!(icmp.checksum(), checksum);
                let told = mtu.clamp(68, 65_535).to_be_bytes();
                let rest = if expired { [0; 4] } else { [0, 0, told[2], told[3]] };
                prop_assert_eq!(icmp.bytes5to8(), rest);
                icmp.payload().to_vec()
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                prop_assert_eq!(header.hop_limit(), 64);
                let icmp = Icmpv6Slice::from_slice(ip.payload().payload).unwrap();
                prop_assert!(icmp.is_checksum_valid(header.source(), header.destination()));
                let rest = if expired { 0 } else { mtu.max(1280) };
                prop_assert_eq!(icmp.bytes5to8(), rest.to_be_bytes());
                icmp.payload().to_vec()
            }
            NetSlice::Arp(_) => return Err(TestCaseError::fail("ARP")),
        };
        prop_assert_eq!(&body, expected);
    }

    #[test]
    fn no_bytes_are_a_quote_that_cannot_be_looked_at(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120), version: bool, at in 0_usize..60,
    ) {
        if let Some(first) = bytes.get_mut(at) {
            *first = if version { 0x45 } else { 0x60 };
        }
        let end = bytes.len();
        if let Some(mut quote) = Quote::read(&bytes, at, end)
            && let Some(key) = quote.key(&bytes)
        {
            let to = endpoint("192.0.2.1:80");
            prop_assert!(quote.readdress(&mut bytes, Side::Source, (key.source(), to)).is_some());
            prop_assert_eq!(bytes.len(), end);
        }
        let _judged = Message::judge(&bytes);
    }
}

#[test]
fn a_quote_of_ipv6_is_looked_into_behind_a_fragment_header() {
    let plain = udp("[fd00::1]:53", "[fd00::2]:999", b"data");
    let fragment = |offset: u16| {
        let mut bytes = plain.clone();
        bytes[20] = 44;
        let [high, low] = (offset << 3 | 1).to_be_bytes();
        bytes.splice(54..54, [17, 0, high, low, 0, 0, 0, 7]);
        bytes
    };
    let key_of = |bytes: &[u8]| Quote::read(bytes, 14, bytes.len())?.key(bytes);
    let key = key_of(&fragment(0)).unwrap();
    assert_eq!(Some(key), key_of(&plain));
    assert_eq!(key_of(&fragment(1)), None);
    for len in 14..14 + 40 + 8 + 4 {
        assert_eq!(key_of(&fragment(0)[..len]), None, "{len}");
    }
}

#[test]
fn reports_are_silent_where_the_standards_want_silence() {
    let (expired, too_big) = (Report::TimeExceeded, Report::TooBig(1400));
    let suits = |report: Report, frame: &[u8]| report.suits(&frame[14..], frame);
    let v4 = udp("192.0.2.1:1", "192.0.2.2:2", b"");
    assert!(suits(expired, &v4) && suits(too_big, &v4));
    for (word, may_expire, may_be_too_big) in [
        ([0x00, 0x00], true, false),
        ([0x20, 0x00], true, false),
        ([0x40, 0x01], false, false),
        ([0x60, 0x00], true, true),
    ] {
        let mut frame = v4.clone();
        frame[20..22].copy_from_slice(&word);
        assert_eq!(suits(expired, &frame), may_expire, "{word:?}");
        assert_eq!(suits(too_big, &frame), may_be_too_big, "{word:?}");
    }
    let v6 = |len| udp("[fd00::1]:1", "[fd00::2]:2", &vec![0; len]);
    assert!(suits(expired, &v6(0)));
    assert!(!suits(too_big, &v6(1280 - 48)), "the least MTU of IPv6");
    assert!(suits(too_big, &v6(1281 - 48)));
    for first in [0x01, 0x33, 0xFF] {
        let mut frame = v6(1300);
        frame[0] = first;
        assert!(!suits(expired, &frame) && !suits(too_big, &frame));
    }
    assert!(!suits(expired, &v4[..14]));
}

#[test]
fn a_report_that_does_not_fit_its_frame_changes_nothing() {
    let mut frame = udp("192.0.2.1:1", "192.0.2.2:2", b"data");
    let before = frame.clone();
    let envelope = Envelope {
        family: Family::V4,
        source: endpoint("192.0.2.2:2").address,
        destination: endpoint("192.0.2.1:1").address,
    };
    let quoted = 14..frame.len();
    assert_eq!(
        envelope.write(&mut frame, 14, quoted, Report::TimeExceeded),
        None
    );
    assert_eq!(frame, before);
}

#[test]
fn a_message_is_judged_by_its_own_version_only() {
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
    let echo = Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 2 });
    let mut frame = Vec::new();
    let builder = builder.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 9).icmpv4(echo);
    builder.write(&mut frame, b"ping").unwrap();
    let message = Message::judge(&frame).unwrap();
    assert_eq!(message.kind, Kind::EchoRequest);
    assert_eq!((message.ip_len(), message.body(), message.ttl), (32, 42, 9));
    // ICMPv6's number in IPv4, and the other way round.
    let foreign = udp("192.0.2.1:1", "192.0.2.2:2", b"");
    assert_eq!(
        Message::judge(&foreign),
        Err(DropReason::UnsupportedProtocol)
    );
    frame[23] = 58;
    set_ttl(&mut frame, 9);
    assert_eq!(Message::judge(&frame), Err(DropReason::UnsupportedProtocol));
    let too_big = Kind::Error(Complaint::TooBig { mtu: 1300 });
    frame[23] = 1;
    set_ttl(&mut frame, 9);
    frame[34..42].copy_from_slice(&[3, 4, 0, 0, 0, 0, 5, 0x14]);
    let checksum = crate::wire::icmpv4::checksum(&frame[34..]);
    frame[36..38].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(
        Message::judge(&frame).map(|message| message.kind),
        Ok(too_big)
    );
}
