//! Malformed and hostile frames of every kind: counted, never a crash, and nothing changed but
//! what the mode says.
//!
//! Frames are made by a seeded generator: well-formed ones, and what becomes of them when bits
//! flip, ends are cut, lengths lie and fields take their extreme values. Each goes through a
//! whole worker alone, and what comes out is held against an oracle that knows nothing of the
//! code: the bytes that a mode may change, and the one's-complement sum that it must not.
//!
//! A release build sends ten million. `HOSTILE_SEED` and `HOSTILE_FRAMES` replay a failure.

use std::net::SocketAddr;

use super::messages::{Ip, message};
use super::world::{CLIENT, OWN, SERVICES, TUNNELS, World, backend_mac};
use etherparse::PacketBuilder;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::verdict::DropReason;
use ringgate_dataplane::xsk::{CHUNK_BYTES, HEADROOM_BYTES};

/// Frames sent unless `HOSTILE_FRAMES` says otherwise.
const FRAMES: u64 = if cfg!(debug_assertions) {
    100_000
} else {
    10_000_000
};

/// xorshift64*: small, fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// Well-formed frames to start from: for each service, of each backend, and of nobody.
fn seeds() -> Vec<(usize, Vec<u8>)> {
    let pairs = [
        (0, 6, "10.1.0.2:4242", "10.100.0.1:80"),
        (0, 6, "[fd00:1::2]:4242", "[fd00:100::1]:80"),
        (0, 17, "10.1.0.2:4242", "10.100.0.1:53"),
        (0, 17, "[fd00:1::2]:4242", "[fd00:100::1]:53"),
        (0, 6, "10.1.0.2:4242", "10.100.0.2:80"),
        (0, 17, "[fd00:1::2]:4242", "[fd00:100::2]:53"),
        (1, 6, "10.2.0.12:8080", "10.1.0.2:4242"),
        (1, 6, "[fd00:2::11]:8080", "[fd00:1::2]:4242"),
        (1, 17, "10.2.0.11:5353", "10.1.0.2:4242"),
        (1, 17, "[fd00:2::11]:5353", "[fd00:1::2]:4242"),
        (0, 17, "10.1.0.2:4242", "10.100.0.9:9"),
        (1, 6, "10.2.0.99:1", "10.1.0.2:4242"),
    ];
    let mut seeds = Vec::new();
    for (port, protocol, from, to) in pairs {
        for flags in [0x02u8, 0x10, 0x12, 0x11, 0x04, 0x18] {
            for payload in [&b""[..], b"x", b"an odd payload, or an even one"] {
                seeds.push((port, frame(protocol, from, to, flags, payload)));
            }
        }
    }
    // Longer than the egress interfaces take.
    for (port, protocol, from, to) in &pairs[..4] {
        seeds.push((*port, frame(*protocol, from, to, 0x18, &[7; 1600])));
    }
    seeds.extend(messages());
    seeds
}

/// Errors about the flows of [`seeds`], in both directions, and echo requests.
fn messages() -> Vec<(usize, Vec<u8>)> {
    let mut messages = Vec::new();
    for (port, protocol, from, to) in [
        (0, 6, "10.100.0.1:80", "10.1.0.2:4242"),
        (0, 17, "[fd00:100::1]:53", "[fd00:1::2]:4242"),
        (0, 6, "10.100.0.2:80", "10.1.0.2:4242"),
        (1, 17, "10.1.0.2:4242", "10.2.0.11:5353"),
        (1, 6, "[fd00:1::2]:4242", "[fd00:2::11]:8080"),
    ] {
        let quoted = frame(protocol, from, to, 0x10, b"what was sent");
        let source: SocketAddr = from.parse().unwrap();
        let (router, errors, echo) = match source {
            SocketAddr::V4(_) => ("198.51.100.7", [(3, 4), (3, 1), (11, 0), (12, 0)], 8),
            SocketAddr::V6(_) => ("2001:db8:7::7", [(2, 0), (1, 4), (3, 0), (4, 1)], 128),
        };
        let to = source.ip().to_string();
        let macs = [OWN[0].0, CLIENT.0];
        for (kind, code) in errors {
            for most in [28, 48, quoted.len() - 14] {
                let ip = Ip::new(router, &to, 64);
                let error = (kind, code, [0, 0, 5, 0]);
                let end = quoted.len().min(14 + most);
                messages.push((port, message(macs, ip, error, &quoted[14..end])));
            }
        }
        let client = if echo == 8 { "10.1.0.2" } else { "fd00:1::2" };
        let asked = Ip::new(client, &to, 64);
        messages.push((port, message(macs, asked, (echo, 0, [0; 4]), b"ping")));
    }
    // A router within a tunnel, about an outer packet.
    let inner = frame(17, "10.1.0.2:4242", "10.100.0.3:80", 0, b"what was sent");
    let macs = [OWN[1].0, backend_mac(11).0];
    let mut outer = message(
        macs,
        Ip::new("10.9.0.1", "10.2.0.11", 64),
        (0, 0, [0; 4]),
        &inner[14..],
    );
    outer.drain(34..42);
    outer[17] -= 8;
    outer[23] = 4;
    for (kind, code) in [(3, 4), (3, 1), (11, 0)] {
        let ip = Ip::new("198.51.100.7", "10.9.0.1", 64);
        let error = (kind, code, [0, 0, 5, 0]);
        messages.push((1, message(macs, ip, error, &outer[14..])));
    }
    messages
}

fn frame(protocol: u8, from: &str, to: &str, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], OWN[0].0);
    let builder = match (from, to) {
        (SocketAddr::V4(s), SocketAddr::V4(d)) => {
            builder.ipv4(s.ip().octets(), d.ip().octets(), 64)
        }
        (SocketAddr::V6(s), SocketAddr::V6(d)) => {
            builder.ipv6(s.ip().octets(), d.ip().octets(), 64)
        }
        _ => panic!("mixed families"),
    };
    let mut frame = Vec::new();
    if protocol == 17 {
        builder
            .udp(from.port(), to.port())
            .write(&mut frame, payload)
            .unwrap();
        return frame;
    }
    let mut header = etherparse::TcpHeader::new(from.port(), to.port(), 1, 64_000);
    (header.fin, header.syn, header.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    (header.psh, header.ack) = (flags & 8 != 0, flags & 16 != 0);
    builder
        .tcp_header(header)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// Does a few bad things to a frame; often makes the IPv4 header checksum right again, so that
/// what lies behind that check is reached too.
fn spoil(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        let len = frame.len();
        match random.below(11) {
            0 => frame.truncate(random.below(len + 1)),
            1 => frame.extend((0..random.below(64)).map(|n| n.to_be_bytes()[7])),
            2 if len > 20 => frame[14 + random.below(6)] = random.byte(),
            3 if len > 16 => frame[16 + random.below(len.min(18) - 16)] = random.byte(),
            4 if len > 34 => frame[22 + random.below(12)] = [0, 1, 127, 224, 255][random.below(5)],
            5 if len > 54 => frame[34 + random.below(len - 34)] = random.byte(),
            6 if len > 14 => frame[12 + random.below(2)] = random.byte(),
            7 if len > 34 && frame[14] == 0x45 => {
                let options = (random.below(10) + 1) * 4;
                frame.splice(34..34, vec![1; options]);
                frame[14] = 0x45 + u8::try_from(options / 4).unwrap();
                let total = u16::try_from(frame.len() - 14).unwrap();
                frame[16..18].copy_from_slice(&total.to_be_bytes());
            }
            8 if len > 34 && frame[14] >> 4 == 4 => {
                let field = fragment_field(random, 0) | u16::from(random.below(2) == 0) << 13;
                frame[20..22].copy_from_slice(&field.to_be_bytes());
            }
            9 if len > 54 && frame[14] >> 4 == 6 => {
                let field = fragment_field(random, 3) | u16::from(random.below(2) == 0);
                let [high, low] = field.to_be_bytes();
                let header = [frame[20], random.byte(), high, low, 0, 0, 0, 1];
                frame.splice(54..54, header);
                frame[20] = 44;
                let payload = u16::try_from(frame.len() - 54).unwrap();
                frame[18..20].copy_from_slice(&payload.to_be_bytes());
            }
            _ if len > 0 => {
                let at = random.below(len);
                frame[at] ^= 1 << random.below(8);
            }
            _ => {}
        }
    }
    if random.below(4) != 0 {
        seal(frame);
    }
    if random.below(4) != 0 {
        seal_icmp(frame);
    }
}

/// Where a frame's ICMP message is, and the sum of its pseudo header's words.
fn icmp(frame: &[u8]) -> Option<(std::ops::Range<usize>, u32)> {
    let word = |at: usize| {
        Some(usize::from(u16::from_be_bytes(
            *frame.get(at..)?.first_chunk()?,
        )))
    };
    let (range, pseudo) = match (frame.get(14)? >> 4, frame.get(20)?, frame.get(23)?) {
        (4, _, 1) => {
            let start = 14 + usize::from(frame[14] & 15) * 4;
            (start..14 + word(16)?, 0)
        }
        (6, 58, _) => {
            let len = word(18)?;
            let addresses = u32::from(ones_sum(frame.get(22..54)?));
            (54..54 + len, addresses + 58 + u32::try_from(len).unwrap())
        }
        _ => return None,
    };
    let is_there = range.len() >= 8 && frame.len() >= range.end;
    is_there.then_some((range, pseudo))
}

/// The ICMP checksum field's right value, were it zero; zero if it is right.
fn icmp_sum(frame: &[u8]) -> Option<u16> {
    let (range, pseudo) = icmp(frame)?;
    let mut sum = pseudo + u32::from(ones_sum(&frame[range]));
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    Some(!u16::try_from(sum).unwrap())
}

/// Makes the ICMP checksum right, if there is one.
fn seal_icmp(frame: &mut [u8]) {
    let Some((range, _)) = icmp(frame) else {
        return;
    };
    frame[range.start + 2..range.start + 4].fill(0);
    if let Some(sum) = icmp_sum(frame) {
        frame[range.start + 2..range.start + 4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A fragment's offset, in units of eight bytes, from this bit on: mostly a small one.
fn fragment_field(random: &mut Random, from: u32) -> u16 {
    let offset = [0, 0, 1, 2, 3, 0x1FFF][random.below(6)];
    offset << from
}

/// Makes the IPv4 header checksum right, if there is one.
fn seal(frame: &mut [u8]) {
    let Some(version) = frame.get(14) else { return };
    let end = 14 + usize::from(version & 15) * 4;
    if version >> 4 != 4 || end < 34 || frame.len() < end {
        return;
    }
    frame[24..26].fill(0);
    let sum = !ones_sum(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// The oracle of ICMP: what leaves is right itself, and carries the data that came, be it as what an
/// error quotes, or as what was to be echoed.
fn assert_is_a_message(before: &[u8], after: &[u8]) {
    assert_eq!(icmp_sum(after), Some(0), "the ICMP checksum is right");
    let (new, _) = icmp(after).unwrap();
    let header = new.start - 14;
    if header < 40 {
        assert_eq!(ones_sum(&after[14..new.start]), 0xFFFF);
    }
    // IPv4 in what an error quotes: where it begins.
    let inner = icmp(before).and_then(|(old, _)| {
        let outer = before.get(old.start + 8..)?;
        let header = usize::from(*outer.first()? & 15) * 4;
        (*outer.get(9)? == 4 && after.len() < before.len()).then_some(old.start + 8 + header)
    });
    if let Some((old, _)) = icmp(before).filter(|_| inner.is_none()) {
        assert_eq!((before.len(), old.clone()), (after.len(), new));
        assert!(icmp_sum(before) == Some(0), "a wrong one goes nowhere");
        // Beyond the headers that are quoted at most: 60 bytes of IPv4, 20 of TCP.
        let data = (old.start + 8 + 80).min(old.end);
        assert_eq!(before[data..], after[data..]);
    } else {
        let quoted = &after[new.start + 8..new.end];
        let most = if header < 40 { 548 } else { 1232 };
        // Of an outer packet, what is in it.
        let start = inner.unwrap_or(14);
        assert_eq!(quoted, &before[start..start + quoted.len()]);
        assert!(quoted.len() == most || quoted.len() <= before.len() - 14);
    }
}

/// The oracle: `after` is `before`, changed only where the mode may, and as wrong as it was.
fn assert_only_what_the_mode_says(before: &[u8], after: &[u8]) {
    assert_eq!(before.len(), after.len());
    let is_v4 = before[14] >> 4 == 4;
    let (addresses, ttl) = if is_v4 { (26..34, 22) } else { (22..54, 21) };
    let word = |at: usize| u16::from_be_bytes([before[at], before[at + 1]]);
    let (transport, protocol, offset) = if is_v4 {
        let header = usize::from(before[14] & 15) * 4;
        (14 + header, before[23], word(20) & 0x1FFF)
    } else if before[20] == 44 {
        (62, before[54], word(56) >> 3)
    } else {
        (54, before[20], 0)
    };
    // A later fragment has none.
    let has_header = offset == 0;
    let checksum = transport + if protocol == 6 { 16 } else { 6 };
    let is_routed = before[ttl] != after[ttl];
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        let may_change = at < 12
            || is_routed
                && (at == ttl
                    || is_v4 && (24..26).contains(&at)
                    || addresses.contains(&at)
                    || has_header && (transport..transport + 4).contains(&at)
                    || has_header && (checksum..checksum + 2).contains(&at));
        assert!(
            old == new || may_change,
            "byte {at} changed from {old:#x} to {new:#x}"
        );
    }
    if !is_routed {
        return;
    }
    assert_eq!(after[ttl], before[ttl] - 1);
    if is_v4 {
        assert_eq!(
            ones_sum(&after[14..transport]),
            0xFFFF,
            "the header checksum is right"
        );
    }
    if !has_header {
        return;
    }
    if protocol == 17 && before[checksum..checksum + 2] == [0, 0] {
        assert_eq!(after[checksum..checksum + 2], [0, 0], "none stays none");
        return;
    }
    // Addresses, ports and checksum together: whatever the sum was, it stays, and so the
    // checksum is as right or as wrong as before. Zero is the same as all ones.
    let total = |frame: &[u8]| {
        let mut covered = frame[addresses.clone()].to_vec();
        covered.extend_from_slice(&frame[transport..transport + 4]);
        covered.extend_from_slice(&frame[checksum..checksum + 2]);
        ones_sum(&covered) % 0xFFFF
    };
    assert_eq!(
        total(before),
        total(after),
        "the transport checksum's error changed"
    );
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn hostile_frames_are_counted_and_change_nothing_but_what_the_mode_says() {
    let seed = variable("HOSTILE_SEED", 0x5EED);
    let frames = variable("HOSTILE_FRAMES", FRAMES);
    println!(
        "replay: HOSTILE_SEED={seed} HOSTILE_FRAMES={frames} cargo test --release -p ringgate-dataplane --test worker hostile"
    );
    let mut random = Random(seed | 1);
    let seeds = seeds();
    let mut world = World::new(&[SERVICES, TUNNELS].concat(), Rings::default(), false);
    let mut frame = Vec::new();
    for _ in 0..frames {
        let (port, start) = &seeds[random.below(seeds.len())];
        frame.clear();
        frame.extend_from_slice(start);
        spoil(&mut frame, &mut random);
        // What is longer a device drops.
        frame.truncate(CHUNK_BYTES - HEADROOM_BYTES);
        send_one(&mut world, *port, &frame);
        world.clock.advance(u64::from(random.byte() == 0));
    }
    world.assert_identity();
    let interfaces = &world.counters.interfaces;
    let total: u64 = interfaces
        .iter()
        .map(|interface| interface.received.get())
        .sum();
    assert_eq!(total, frames);
    for reason in REACHED {
        let count: u64 = interfaces
            .iter()
            .map(|interface| interface.dropped(reason))
            .sum();
        assert!(count > 0, "{} was never reached", reason.name());
    }
    assert!(
        interfaces
            .iter()
            .all(|interface| interface.forwarded.get() > frames / 20)
    );
    for (name, counter) in world.counters.icmp.named() {
        // The world is emptied after each frame, and few of these name unknown flows.
        let is_rare = matches!(name, "copies_lost" | "copies_withheld");
        assert!(is_rare || counter.get() > 0, "{name} was never counted");
    }
}

/// What a stranger's frame can be dropped for.
const REACHED: [DropReason; 19] = [
    DropReason::Truncated,
    DropReason::NotIp,
    DropReason::BadIpv4Header,
    DropReason::BadIpv4Checksum,
    DropReason::BadIpv6Header,
    DropReason::BadLength,
    DropReason::BadTcpHeader,
    DropReason::TinyFragment,
    DropReason::BadFragment,
    DropReason::FragmentTimeout,
    DropReason::UnsupportedProtocol,
    DropReason::BadSource,
    DropReason::TtlExpired,
    DropReason::NotForUs,
    DropReason::NoRoute,
    DropReason::NoNeighbour,
    DropReason::BadIcmpChecksum,
    DropReason::IcmpIgnored,
    DropReason::IcmpUnknown,
];

/// Sends one frame through the worker and looks at what leaves. What waits for another is given
/// no time to find it.
fn send_one(world: &mut World, port: usize, frame: &[u8]) {
    let held = world.counters.fragments.held.get();
    assert!(world.port(port).inject(frame));
    assert_eq!(world.worker.turn(), 1);
    if world.counters.fragments.held.get() > held {
        world.clock.advance(100);
        assert_eq!(world.worker.turn(), 0);
    }
    for out in 0..2 {
        world.port(out).drain_sent(|after| match icmp(after) {
            Some(_) => assert_is_a_message(frame, after),
            None => assert_only_what_the_mode_says(frame, after),
        });
    }
    while world.wanted.pop().is_some() {}
}

#[test]
fn frames_cut_at_every_byte_are_counted() {
    let mut world = World::new(&[SERVICES, TUNNELS].concat(), Rings::default(), false);
    let mut sent = 0;
    for (port, frame) in seeds() {
        for len in 0..=frame.len() {
            send_one(&mut world, port, &frame[..len]);
            sent += 1;
        }
    }
    world.assert_identity();
    let received: u64 = world
        .counters
        .interfaces
        .iter()
        .map(|i| i.received.get())
        .sum();
    assert_eq!(received, sent);
}
