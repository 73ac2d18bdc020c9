//! Flows that are logged by a whole worker: bytes as the test has counted them, in each mode and direction, and the
//! signs by which they end.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use etherparse::{PacketBuilder, TcpHeader};
use ringgate_conntrack::{Direction, Secret};
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::flow_log::{Account, Carried, FlowLog, Succession, Wish};
use ringgate_dataplane::flush::{Flush, Scope};
use ringgate_dataplane::port::memory::Rings;

use super::fragments::{V4, Wire};
use super::frames::udp;
use super::full_nat;
use super::world::{CLIENT, OWN, SERVICES, TUNNELS, World};

const ETHERNET: u64 = 14;
const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;
const RST: u8 = 4;

fn log(every: u32) -> Arc<FlowLog> {
    Arc::new(FlowLog::new(every, 4096, Secret([1, 5])).unwrap())
}

/// A segment of a connection over IPv4, the sender's number always the same.
fn tcp(from: &str, to: &str, flags: u8, data: &[u8]) -> Vec<u8> {
    let [from, to]: [SocketAddrV4; 2] = [from, to].map(|text| text.parse().unwrap());
    let mut header = TcpHeader::new(from.port(), to.port(), 1000, 64_000);
    (header.fin, header.syn) = (flags & FIN != 0, flags & SYN != 0);
    (header.rst, header.ack) = (flags & RST != 0, flags & ACK != 0);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT.0, OWN[0].0)
        .ipv4(from.ip().octets(), to.ip().octets(), 64)
        .tcp_header(header)
        .write(&mut frame, data)
        .unwrap();
    frame
}

/// A world whose workers put down one of so many flows.
fn logged(mut world: World, file: &str, every: u32) -> (World, Arc<FlowLog>) {
    let log = log(every);
    world.log_flows(file, Some(&log));
    (world, log)
}

/// Injects a frame, which leaves by the other port: what left.
fn cross(world: &mut World, port: usize, frame: &[u8]) -> Vec<u8> {
    assert!(world.port(port).inject(frame));
    assert_eq!(world.worker.turn(), 1);
    let mut sent = world.sent();
    assert_eq!(sent[1 - port].len(), 1, "{:?}", world.counts());
    sent[1 - port].remove(0)
}

/// What there is, by the client.
fn accounts(log: &FlowLog) -> BTreeMap<String, Account> {
    let mut all = BTreeMap::new();
    let keep = |account: &Account| {
        all.insert(account.key.source().to_string(), *account);
        Wish::Keep
    };
    log.look(0..log.buckets(), keep, |_, _| {});
    all
}

fn only(log: &FlowLog) -> Account {
    let mut all = accounts(log);
    assert_eq!(all.len(), 1, "{all:?}");
    all.pop_first().unwrap().1
}

fn carried(packets: u64, bytes: u64, last: u64) -> Carried {
    let last = Millis(last);
    Carried {
        packets,
        bytes,
        last,
    }
}

fn ip(frames: &[&[u8]]) -> u64 {
    frames
        .iter()
        .map(|frame| frame.len() as u64 - ETHERNET)
        .sum()
}

#[test]
fn each_mode_counts_what_came_and_only_where_replies_pass_what_was_answered() {
    let file = [SERVICES, TUNNELS].concat();
    for (client, service, backend, has_replies) in [
        ("10.1.0.2:9", "10.100.0.1:53", "10.2.0.11:5353", true),
        (
            "[fd00:1::2]:9",
            "[fd00:100::1]:53",
            "[fd00:2::11]:5353",
            true,
        ),
        (
            "[fd00:1::2]:9",
            "[fd00:100::2]:53",
            "[fd00:2::12]:53",
            false,
        ),
        ("10.1.0.2:9", "10.100.0.4:80", "[fd00:2::11]:80", false),
        ("[fd00:1::2]:9", "[fd00:100::3]:80", "10.2.0.12:80", false),
    ] {
        let (mut world, log) = logged(World::new(&file, Rings::default(), false), &file, 1);
        let [long, short] =
            [b"a longer question".as_slice(), b"query"].map(|data| udp(client, service, data));
        // The first is decided, those after it go on.
        for frame in [&long, &short, &short] {
            cross(&mut world, 0, frame);
            world.clock.advance(10);
        }
        let mut expected = carried(0, 0, 0);
        if has_replies {
            let answer = udp(backend, client, b"an answer");
            cross(&mut world, 1, &answer);
            world.clock.advance(5);
            cross(&mut world, 1, &answer);
            expected = carried(2, ip(&[&answer, &answer]), 5035);
        }
        let account = only(&log);
        assert_eq!(
            account.client,
            carried(3, ip(&[&long, &short, &short]), 5020)
        );
        assert_eq!(
            (account.replies, account.has_replies),
            (expected, has_replies)
        );
        assert_eq!((account.began, log.lost()), (Millis(5000), 0));
        assert_eq!(account.key.source().to_string(), client);
        assert_eq!(account.key.destination().to_string(), service);
        assert_eq!(account.backend.to_string(), backend);
    }
}

#[test]
fn full_nat_counts_both_ways_under_the_clients_own_key() {
    let world = World::with_sources(full_nat::FILE, Rings::default());
    let (mut world, log) = logged(world, full_nat::FILE, 1);
    let (client, listen) = ("10.1.0.2:40000", "10.100.0.7:80");
    cross(&mut world, 0, &full_nat::frame(client, listen, Some(SYN)));
    assert!(accounts(&log).is_empty(), "no handshake is over");
    let ack = full_nat::frame(client, listen, Some(ACK));
    let left = cross(&mut world, 0, &ack);
    let port = u16::from_be_bytes([left[34], left[35]]);
    let reply = full_nat::frame("10.2.0.11:8080", &format!("10.2.0.1:{port}"), Some(ACK));
    cross(&mut world, 1, &reply);
    cross(&mut world, 0, &ack);
    cross(&mut world, 1, &reply);
    let account = only(&log);
    assert_eq!(account.key.source().to_string(), client);
    assert_eq!(account.backend.to_string(), "10.2.0.11:8080");
    assert_eq!(account.client, carried(2, ip(&[&ack, &ack]), 5000));
    assert_eq!(account.replies, carried(2, ip(&[&reply, &reply]), 5000));
}

#[test]
fn a_connection_ends_by_what_each_side_has_said_and_the_next_is_another() {
    use Direction::{FromBackend, FromClient};
    let (mut world, log) = logged(World::new(SERVICES, Rings::default(), false), SERVICES, 1);
    let (client, listen) = ("10.1.0.2:40000", "10.100.0.1:80");
    let to = |flags, data: &[u8]| tcp(client, listen, flags, data);
    let opened = cross(&mut world, 0, &to(SYN, b""));
    let backend = format!("10.2.0.{}:8080", opened[33]);
    let from = |flags, data: &[u8]| tcp(&backend, client, flags, data);
    cross(&mut world, 1, &from(SYN | ACK, b""));
    assert!(
        accounts(&log).is_empty(),
        "it is stored with the handshake's last"
    );
    let there = [to(ACK, b""), to(ACK, b"GET"), to(ACK | FIN, b"")];
    let back = [from(ACK, b"OK"), from(ACK | FIN, b"")];
    cross(&mut world, 0, &there[0]);
    cross(&mut world, 0, &there[1]);
    cross(&mut world, 1, &back[0]);
    assert!(!only(&log).signs.has_fin(FromClient));
    cross(&mut world, 0, &there[2]);
    let signs = only(&log).signs;
    assert!(signs.has_fin(FromClient) && !signs.has_fin(FromBackend));
    cross(&mut world, 1, &back[1]);
    let closed = only(&log);
    assert!(closed.signs.has_fin(FromBackend) && !closed.signs.has_reset(FromBackend));
    assert_eq!(
        closed.client,
        carried(3, ip(&[&there[0], &there[1], &there[2]]), 5000)
    );
    assert_eq!(closed.replies, carried(2, ip(&[&back[0], &back[1]]), 5000));
    // The same ports again: what the SYN says is of neither.
    cross(&mut world, 0, &to(SYN, b""));
    cross(&mut world, 1, &from(SYN | ACK, b""));
    world.clock.advance(50);
    cross(&mut world, 0, &there[0]);
    let (first, why) = log.take_succeeded().unwrap();
    assert_eq!((first, why), (closed, Succession::Renewed));
    let second = only(&log);
    assert_eq!(second.began, Millis(5050));
    assert_eq!(second.client, carried(1, ip(&[&there[0]]), 5050));
    // Which its backend breaks off.
    cross(&mut world, 1, &from(RST, b""));
    let reset = only(&log).signs;
    assert!(reset.has_reset(FromBackend) && !reset.has_reset(FromClient));
    assert_eq!(log.lost(), 0);
}

#[test]
fn a_reset_from_elsewhere_ends_nothing() {
    let (mut world, log) = logged(World::new(SERVICES, Rings::default(), false), SERVICES, 1);
    let (client, listen) = ("10.1.0.2:40000", "10.100.0.1:80");
    for flags in [SYN, ACK, ACK] {
        cross(&mut world, 0, &tcp(client, listen, flags, b""));
    }
    let mut forged = tcp(client, listen, RST, b"");
    // A sequence number far from where the client is; the checksum is not ours to judge.
    forged[38] ^= 0x40;
    cross(&mut world, 0, &forged);
    let account = only(&log);
    assert!(!account.signs.has_reset(Direction::FromClient));
    assert_eq!(account.client.packets, 3);
}

#[test]
fn a_flow_whose_backend_goes_has_an_account_with_each() {
    let (mut world, log) = logged(World::new(SERVICES, Rings::default(), false), SERVICES, 1);
    let frame = tcp("10.1.0.2:40000", "10.100.0.1:80", ACK, b"data");
    cross(&mut world, 0, &frame);
    cross(&mut world, 0, &frame);
    let first = only(&log);
    let down = [first.backend.to_socket()];
    world.publish(SERVICES, &down);
    cross(&mut world, 0, &frame);
    let (before, why) = log.take_succeeded().unwrap();
    assert_eq!((before, why), (first, Succession::Moved));
    let after = only(&log);
    assert_ne!(after.backend, first.backend);
    assert_eq!((before.client.packets, after.client.packets), (2, 1));
}

#[test]
fn what_is_flushed_says_so() {
    let (mut world, log) = logged(World::new(SERVICES, Rings::default(), false), SERVICES, 1);
    for port in [9, 10] {
        cross(
            &mut world,
            0,
            &udp(&format!("10.1.0.2:{port}"), "10.100.0.1:53", b"q"),
        );
    }
    let now = Millis(6000).seconds();
    let parts = world.worker.parts();
    let table = &parts.tables.flows;
    assert!(Flush::new(Scope::All, now).go_on(table, &parts.snapshot, u32::MAX, now));
    assert!(
        accounts(&log)
            .values()
            .all(|account| account.signs.is_flushed())
    );
    // Its next packet is another flow's.
    cross(&mut world, 0, &udp("10.1.0.2:9", "10.100.0.1:53", b"q"));
    assert!(log.take_succeeded().unwrap().0.signs.is_flushed());
    assert!(!accounts(&log)["10.1.0.2:9"].signs.is_flushed());
}

#[test]
fn workers_share_one_log_and_choose_the_same_flows() {
    let (mut world, log) = logged(World::new(SERVICES, Rings::default(), false), SERVICES, 10);
    let mut other = world.beside(SERVICES);
    other.log_flows(SERVICES, Some(&log));
    for port in 1000..3000 {
        let client = format!("10.1.0.2:{port}");
        cross(&mut world, 0, &udp(&client, "10.100.0.1:53", b"query"));
        // The other meets what comes back, and some of what goes on.
        cross(
            &mut other,
            1,
            &udp("10.2.0.11:5353", &client, b"the answer"),
        );
        cross(&mut other, 0, &udp(&client, "10.100.0.1:53", b"query"));
    }
    let chosen = accounts(&log);
    assert!((150..250).contains(&chosen.len()), "{}", chosen.len());
    for account in chosen.values() {
        let query = 20 + 8 + 5;
        assert_eq!(account.client, carried(2, 2 * query, 5000));
        assert_eq!(account.replies, carried(1, 20 + 8 + 10, 5000));
    }
    assert_eq!(log.lost(), 0);
}

#[test]
fn it_begins_with_a_snapshot_and_ends_with_another() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let frame = |port: u16| udp(&format!("10.1.0.2:{port}"), "10.100.0.1:53", b"q");
    cross(&mut world, 0, &frame(1));
    let log = log(1);
    world.log_flows(SERVICES, Some(&log));
    for port in [1, 2, 2] {
        cross(&mut world, 0, &frame(port));
    }
    let one = only(&log);
    assert_eq!(
        (one.key.source().port, one.client.packets),
        (2, 2),
        "who was there before is not known"
    );
    world.log_flows(SERVICES, None);
    for port in [2, 3] {
        cross(&mut world, 0, &frame(port));
    }
    assert_eq!(only(&log), one);
}

#[test]
fn fragments_are_counted_with_their_flow_and_what_is_refused_is_not() {
    let (mut world, log) = logged(World::new(SERVICES, Rings::default(), false), SERVICES, 1);
    let pieces = Wire::query(V4).pieces(7);
    // The last comes first, and is held.
    let (last, rest) = pieces.split_last().unwrap();
    assert!(world.port(0).inject(last));
    world.worker.turn();
    assert!(accounts(&log).is_empty());
    for piece in rest {
        assert!(world.port(0).inject(piece));
        world.worker.turn();
    }
    assert_eq!(world.sent()[1].len(), pieces.len());
    let all: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let count = pieces.len() as u64;
    assert_eq!(only(&log).client, carried(count, ip(&all), 5000));
    // Nobody is there to be sent to.
    world.publish(SERVICES, &["10.2.0.11:5353".parse().unwrap()]);
    let frame = udp("10.1.0.2:77", "10.100.0.1:53", b"q");
    assert!(world.port(0).inject(&frame));
    world.worker.turn();
    assert_eq!(world.sent().concat().len(), 0);
    assert_eq!(accounts(&log).len(), 1);
}
