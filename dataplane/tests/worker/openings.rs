//! How connections begin, backend by backend: SYNs, SYN-ACKs, and resets that say no.

use ringgate_dataplane::port::memory::Rings;

use super::world::{OWN, SERVICES, World};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn segment(from: &str, to: &str, flags: u8, sequence: u32) -> Vec<u8> {
    let [from, to] = [from, to].map(|text| text.parse::<std::net::SocketAddrV4>().unwrap());
    let mut header = etherparse::TcpHeader::new(from.port(), to.port(), sequence, 64_000);
    (header.syn, header.ack, header.rst) = (flags & SYN != 0, flags & ACK != 0, flags & RST != 0);
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], OWN[0].0)
        .ipv4(from.ip().octets(), to.ip().octets(), 64)
        .tcp_header(header)
        .write(&mut bytes, b"")
        .unwrap();
    bytes
}

/// What the only backend of a service was counted: SYNs, SYN-ACKs, refusals.
fn openings(world: &mut World) -> [u64; 3] {
    let snapshot = std::sync::Arc::clone(&world.worker.parts().snapshot);
    let counters = world
        .counters
        .backend(snapshot.services()[0].members[0])
        .unwrap();
    [&counters.syns, &counters.syn_acks, &counters.refusals].map(|counter| counter.get())
}

const CLIENT: &str = "10.1.0.2:999";
const SERVICE: &str = "10.100.0.1:80";
const BACKEND: &str = "10.2.0.11:8080";

/// One service, one backend, with these lines of its own.
fn world(forward: &str) -> World {
    let file = format!(
        "[balancer]\nnat-sources = [\"10.2.0.1\"]\n[[interface]]\nname = \"front\"\n[[interface]]\n\
         name = \"back\"\n[[service]]\nname = \"web\"\nlisten = \"{SERVICE}\"\nprotocol = \"tcp\"\n\
         {forward}\ntable-size = 251\n[[service.backend]]\naddress = \"10.2.0.11{}\"\n",
        if forward.contains("dsr") { "" } else { ":8080" }
    );
    World::with_sources(&file, Rings::default())
}

/// Passes a frame, which must leave by the other side.
fn pass(world: &mut World, ingress: usize, frame: &[u8]) -> Vec<u8> {
    assert!(world.port(ingress).inject(frame));
    world.worker.turn();
    let mut sent = world.sent();
    assert_eq!(sent[1 - ingress].len(), 1, "{:?}", world.counts());
    sent[1 - ingress].remove(0)
}

/// A conversation's packets, each with what is counted after it.
fn play(world: &mut World, packets: &[(usize, u8, u32, [u64; 3])]) {
    // Where the backend sends its answers.
    let mut peer = CLIENT.to_owned();
    for (step, (ingress, flags, sequence, expected)) in packets.iter().enumerate() {
        let (from, to) = match ingress {
            0 => (CLIENT, SERVICE),
            _ => (BACKEND, &*peer),
        };
        let sent = pass(world, *ingress, &segment(from, to, *flags, *sequence));
        if *ingress == 0 {
            let source = &sent[26..30];
            let port = u16::from_be_bytes([sent[34], sent[35]]);
            peer = format!(
                "{}.{}.{}.{}:{port}",
                source[0], source[1], source[2], source[3]
            );
        }
        assert_eq!(openings(world), *expected, "step {step}");
    }
    world.assert_identity();
}

const MODES: [&str; 3] = [
    "forward = \"nat\"",
    "forward = \"nat\"\nchoose = \"round-robin\"",
    "forward = \"full-nat\"",
];

#[test]
fn a_syn_and_its_answer_are_counted() {
    for mode in MODES {
        play(
            &mut world(mode),
            &[
                (0, SYN, 1000, [1, 0, 0]),
                (0, SYN, 1000, [2, 0, 0]), // once more
                (1, SYN | ACK, 5000, [2, 1, 0]),
                (0, ACK, 1001, [2, 1, 0]),
                (1, ACK, 5001, [2, 1, 0]),
            ],
        );
    }
}

#[test]
fn a_refused_syn_is_counted_whether_or_not_it_was_remembered() {
    for mode in MODES {
        play(
            &mut world(mode),
            &[(0, SYN, 1000, [1, 0, 0]), (1, RST | ACK, 0, [1, 0, 1])],
        );
    }
}

#[test]
fn an_abort_before_the_connection_is_used_is_a_refusal() {
    play(
        &mut world(MODES[0]),
        &[
            (0, SYN, 1000, [1, 0, 0]),
            (1, SYN | ACK, 5000, [1, 1, 0]),
            (0, ACK, 1001, [1, 1, 0]),
            (1, RST | ACK, 5001, [1, 1, 1]),
            (1, RST | ACK, 5001, [1, 1, 1]), // once is enough
        ],
    );
}

#[test]
fn an_abort_of_a_connection_in_use_is_none() {
    for mode in MODES {
        play(
            &mut world(mode),
            &[
                (0, SYN, 1000, [1, 0, 0]),
                (1, SYN | ACK, 5000, [1, 1, 0]),
                (0, ACK, 1001, [1, 1, 0]),
                (0, ACK, 1002, [1, 1, 0]),
                (1, RST | ACK, 5001, [1, 1, 0]),
            ],
        );
    }
}

/// What a client can make a server send that is well: the answer to a segment of no connection.
#[test]
fn a_reset_that_acknowledges_nothing_is_none() {
    play(
        &mut world(MODES[0]),
        &[
            (1, RST, 7, [0, 0, 0]), // of a flow that nobody knows
            (0, ACK, 1000, [0, 0, 0]),
            (1, RST, 7, [0, 0, 0]),
        ],
    );
    // Nor is one that answers no SYN, of a connection that is not remembered.
    play(&mut world(MODES[0]), &[(1, RST | ACK, 5001, [0, 0, 0])]);
}

#[test]
fn clients_resets_are_nobodys_fault() {
    play(
        &mut world(MODES[0]),
        &[
            (0, SYN, 1000, [1, 0, 0]),
            (1, SYN | ACK, 5000, [1, 1, 0]),
            (0, RST | ACK, 1001, [1, 1, 0]),
        ],
    );
}

#[test]
fn of_direct_return_only_syns_are_seen() {
    play(
        &mut world("forward = \"dsr-l2\""),
        &[(0, SYN, 1000, [1, 0, 0]), (0, ACK, 1001, [1, 0, 0])],
    );
}

#[test]
fn datagrams_open_nothing() {
    let mut world = World::new(SERVICES, Rings::default(), false);
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 2], OWN[0].0)
        .ipv4([10, 1, 0, 2], [10, 100, 0, 1], 64)
        .udp(0x0202, 53)
        .write(&mut frame, &[0xFF; 64])
        .unwrap();
    pass(&mut world, 0, &frame);
    let snapshot = std::sync::Arc::clone(&world.worker.parts().snapshot);
    let counters = world
        .counters
        .backend(snapshot.services()[2].members[0])
        .unwrap();
    assert_eq!((counters.packets.get(), counters.syns.get()), (1, 0));
}
