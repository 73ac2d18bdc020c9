use proptest::prelude::*;

use super::layer::{Checksum, Layer, Tcp};
use super::payload::pattern;
use super::*;

fn names() -> Names {
    Names::new(vec![
        ("client".to_owned(), Mac([2, 0, 0, 0, 1, 2])),
        ("front".to_owned(), Mac([2, 0, 0, 0, 9, 0])),
    ])
}

fn frame(line: &str) -> Vec<u8> {
    Packet::parse(line, &names()).unwrap().bytes()
}

fn line(frame: &[u8]) -> String {
    Dissector::default().frame(frame).text(&names())
}

/// Lines that are written as they were read.
#[rustfmt::skip]
const LINES: &[&str] = &[
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 / tcp 40000 > 80 SYN seq 1 mss 1460",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 df / tcp 40000 > 80 PSH ACK seq 1 ack 7 win 500 nop nop timestamps 1 2 / \"GET / HTTP/1.0\"",
    "eth client > 02:00:00:00:09:01 / ip6 fd00:1::2 > fd00:100::1 hlim 3 flow 0x12345 / tcp 40000 > 80 SYN mss 1440 sack-permitted wscale 7",
    "eth client > front / vlan 100 / ip 10.1.0.2 > 10.100.0.1 dscp 46 ecn 1 id 7 / udp 5000 > 53 / 100 bytes",
    "eth client > front / vlan 200 tpid 0x88a8 / vlan 100 priority 5 drop-eligible / ip6 fd00::1 > fd00::2 / udp 5000 > 53",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 options \"01010101\" / udp 5000 > 53 no-checksum / \"query\" / padding 13",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 / udp 5000 > 53 bad-checksum / \"query\"",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 bad-checksum 0x1234 / udp 5000 > 53 partial-checksum / \"query\" / padding hex \"ee\"",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 bad-length 99 / udp 5000 > 53 bad-length 99 / \"query\"",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 / udp 5000 > 53 length 10 / \"query\"",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 id 7 frag 0 more / udp 5000 > 53 / 1472 bytes / missing 528",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 id 7 frag 1480 protocol udp / 528 bytes from 1472",
    "eth client > front / ip6 fd00::1 > fd00::2 / frag 0 more id 7 / udp 5000 > 53 / 1440 bytes / missing 60",
    "eth client > front / ip6 fd00::1 > fd00::2 / frag 1448 id 7 protocol udp / 60 bytes from 1440",
    "eth client > front / ip6 fd00::1 > fd00::2 / hop-by-hop data \"050200000000\" / udp 5000 > 53",
    "eth client > front / ip 10.9.0.1 > 10.2.0.11 / ip 10.1.0.2 > 10.100.0.1 / tcp 40000 > 80 ACK",
    "eth client > front / ip6 fd00::1 > fd00::2 / ip 10.1.0.2 > 10.100.0.1 ttl 63 / tcp 40000 > 80 RST",
    "eth client > front / ip 10.9.0.1 > 10.2.0.11 / gre key 7 / ip6 fd00:1::2 > fd00:100::1 / udp 5000 > 53 / 100 bytes",
    "eth client > front / ip 10.9.0.1 > 10.2.0.11 / gre seq 9 with-checksum / ip 10.1.0.2 > 10.2.0.1 / udp 5000 > 53",
    "eth client > front / ip 10.9.0.1 > 10.2.0.11 / gre bad-checksum / ip 10.1.0.2 > 10.2.0.1 / udp 5000 > 53",
    "eth client > front / ip6 fd00::1 > fd00::2 / udp 50000 > 6080 / gue 1 / ip 10.1.0.2 > 10.100.0.1 / tcp 40000 > 80 FIN ACK",
    "eth client > front / ip 10.9.0.1 > 10.2.0.11 / udp 50000 > 6080 no-checksum / gue 0 / ip6 fd00::1 > fd00::2 / tcp 40000 > 80 ACK",
    "eth front > client / ip 10.1.0.1 > 10.1.0.2 / icmp frag-needed mtu 1480 / quote ip 10.1.0.2 > 10.100.0.1 df / tcp 40000 > 80 seq 1 first 8 / missing 1452",
    "eth front > client / ip 10.1.0.1 > 10.1.0.2 / icmp port-unreachable / quote ip 10.1.0.2 > 10.100.0.1 / udp 5000 > 53 / missing 100",
    "eth front > client / ip 10.1.0.1 > 10.1.0.2 / icmp ttl-exceeded / quote ip 10.1.0.2 > 10.100.0.1 ttl 1 / tcp 40000 > 80 ACK seq 1 / 30 bytes / missing 50",
    "eth front > client / ip 10.1.0.1 > 10.1.0.2 / icmp ttl-exceeded / quote ip 10.1.0.2 > 10.100.0.1 ttl 1 / tcp 40000 > 80 ACK seq 1 checksum 0x1234 / \"text\" / missing 50",
    "eth front > client / ip6 fd00::1 > fd00::2 / icmp6 too-big mtu 1400 / quote ip6 fd00::2 > fd00::9 / tcp 40000 > 80 ACK seq 1 / 1180 bytes / missing 20",
    "eth front > client / ip 10.1.0.1 > 10.1.0.2 / icmp host-unreachable / quote ip 10.9.0.1 > 10.2.0.11 / gre key 7 / ip 10.1.0.2 > 10.100.0.1 / tcp 1 > 2 seq 5 first 8 / missing 60",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 / icmp echo-request id 5 seq 1 / 56 bytes",
    "eth client > front / ip6 fd00::1 > fd00::2 / icmp6 echo-reply id 5 seq 1 bad-checksum / 56 bytes",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 / icmp type 42 code 1 rest 0x00000007",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 protocol sctp / hex \"ffee\"",
    "eth client > front type 0x0806 / hex \"0001\"",
    "eth client > front / ip 10.1.0.2 > 10.100.0.1 / tcp 40000 > 80 no-flags words 15 bad-checksum 0x0001",
    "hex \"00ff\"",
];

#[test]
fn a_line_is_written_as_it_was_read() {
    for text in LINES {
        assert_eq!(line(&frame(text)), *text);
    }
}

#[test]
fn bytes_are_what_another_builder_makes() {
    use etherparse::PacketBuilder;
    let ethernet = || PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 9, 0]);
    let written = |text: &str, builder: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = Vec::new();
        builder(&mut frame);
        assert_eq!(line(&frame), text);
        assert_eq!(self::frame(text), frame);
    };
    written(
        "eth client > front / ip 10.1.0.2 > 10.100.0.1 df / udp 5000 > 53 / \"query\"",
        &|frame| {
            let ip = ethernet().ipv4([10, 1, 0, 2], [10, 100, 0, 1], 64);
            ip.udp(5000, 53).write(frame, b"query").unwrap();
        },
    );
    let v6 = |last| [0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    written(
        "eth client > front / ip6 fd00::1 > fd00::2 hlim 9 / tcp 1 > 2 SYN seq 3 win 4 mss 5 / \"x\"",
        &|frame| {
            let tcp = ethernet().ipv6(v6(1), v6(2), 9).tcp(1, 2, 3, 4).syn();
            let options = [etherparse::TcpOptionElement::MaximumSegmentSize(5)];
            tcp.options(&options).unwrap().write(frame, b"x").unwrap();
        },
    );
    written(
        "eth client > front / vlan 100 / ip 10.1.0.2 > 10.100.0.1 df / icmp echo-request id 5 seq 6 / 4 bytes",
        &|frame| {
            let vlan = ethernet().single_vlan(100.try_into().unwrap());
            let ip = vlan.ipv4([10, 1, 0, 2], [10, 100, 0, 1], 64);
            ip.icmpv4_echo_request(5, 6)
                .write(frame, &pattern(0, 4))
                .unwrap();
        },
    );
    written(
        "eth client > front / ip6 fd00::1 > fd00::2 / icmp6 echo-reply id 5 seq 6 / \"odd\"",
        &|frame| {
            let ip = ethernet().ipv6(v6(1), v6(2), 64);
            ip.icmpv6_echo_reply(5, 6).write(frame, b"odd").unwrap();
        },
    );
}

#[test]
fn what_cannot_be_read_is_named_with_its_part() {
    for (text, part, problem) in [
        (
            "eth client > nobody",
            "eth client > nobody",
            "`nobody` is neither",
        ),
        (
            "eth client > front / ip 10.1 > 10.2",
            "ip 10.1 > 10.2",
            "invalid IPv4 address",
        ),
        ("udp 1 > 70000", "udp 1 > 70000", "number too large"),
        (
            "udp 1 > 2 length 70000",
            "udp 1 > 2 length 70000",
            "no number that fits",
        ),
        ("udp 1 < 2", "udp 1 < 2", "`>` is expected where `<` stands"),
        (
            "tcp 1 > 2 SIN",
            "tcp 1 > 2 SIN",
            "`SIN` is nothing that this layer has",
        ),
        ("icmp nonsense", "icmp nonsense", "there are echo-reply"),
        ("what", "what", "begins no layer"),
        ("udp 1 > 2 / ", "", "a word is missing"),
        ("\"text", "\"text", "does not end"),
        ("5 bytes more", "5 bytes more", "`more` is nothing"),
    ] {
        let error = Packet::parse(text, &names()).unwrap_err();
        assert_eq!(error.part, part, "{text}");
        assert!(error.problem.contains(problem), "{text}: {error}");
    }
}

#[test]
fn a_flipped_bit_of_a_covered_byte_is_told() {
    for text in [
        LINES[1], LINES[2], LINES[3], LINES[14], LINES[20], LINES[28],
    ] {
        let whole = frame(text);
        let start = whole.len() - line_payload(text);
        for at in start..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 4;
            assert!(line(&broken).contains("bad-"), "{text}: byte {at}");
        }
    }
}

/// How many bytes at the end of a frame can be changed without making another header of them.
fn line_payload(text: &str) -> usize {
    if text.contains("GET") { 14 } else { 2 }
}

/// A frame to start from, changed at some places and cut.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((0usize..120, any::<u8>()), 0..6);
    let cut = prop::option::of(0usize..120);
    (0..LINES.len(), changes, cut).prop_map(|(which, changes, cut)| {
        let mut frame = frame(LINES[which]);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(cut.unwrap_or(frame.len()));
        frame
    })
}

/// There and back loses nothing: bytes to layers to bytes, and layers to a line to layers.
fn assert_nothing_is_lost(frame: &[u8]) {
    let packet = Dissector::default().frame(frame);
    assert_eq!(packet.bytes(), frame, "{}", packet.text(&names()));
    let text = packet.text(&names());
    let again = Packet::parse(&text, &names());
    assert_eq!(
        again.map(|packet| packet.bytes()).as_deref(),
        Ok(frame),
        "{text}"
    );
}

proptest! {
    #[test]
    fn nothing_is_lost_of_any_bytes(frame in prop::collection::vec(any::<u8>(), 1..200)) {
        assert_nothing_is_lost(&frame);
    }

    #[test]
    fn nothing_is_lost_of_changed_frames(frame in any_frame()) {
        prop_assume!(!frame.is_empty());
        assert_nothing_is_lost(&frame);
    }

    #[test]
    fn every_wrong_checksum_is_told(value: u16) {
        let right = frame(LINES[0]);
        let mut packet = Dissector::default().frame(&right);
        let Some(Layer::Tcp(tcp)) = packet.layers.last_mut() else { panic!("no TCP") };
        *tcp = Tcp { checksum: Checksum::Wrong(value), ..tcp.clone() };
        let is_told = line(&packet.bytes()).contains("-checksum");
        prop_assert_eq!(is_told, packet.bytes() != right);
    }
}
