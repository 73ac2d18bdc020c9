//! Two workers that meet packets of one flow at the same time, in every order of their steps.

use super::super::interleaved::Orders;
use super::*;

const DATA: u8 = 0x18;

/// What a packet became: source and destination.
type Sent = Result<(String, String), DropReason>;

impl Sourced {
    /// Both workers at once.
    fn send_together(&mut self, orders: &mut Orders, frames: [&[u8]; 2]) -> [Sent; 2] {
        let Self { world, other, .. } = self;
        let (snapshot, table) = (&world.snapshot, &*world.table);
        let (now, newcomers) = (Seconds(world.now), &mut world.newcomers);
        let send = |newcomers: &mut Newcomers, frame: &[u8]| {
            let packet = parse(frame, false).unwrap();
            let ingress = u16::from(frame[26..28] == [10, 2]);
            let steering = Steering {
                snapshot,
                table,
                newcomers,
                now,
                ingress,
            };
            let sent = steering.steer(&packet, table.hash(&packet.key), frame);
            let decision = sent.map_err(|refusal| refusal.reason)?;
            let from = [Direction::FromClient, Direction::FromBackend][usize::from(ingress)];
            exchanged(decision, from)
        };
        orders.play(|| send(newcomers, frames[0]), || send(other, frames[1]))
    }

    /// Has the flow end, and its port rest and come back.
    fn end(&mut self, from: &str, to: &str) {
        let _sent = self.tcp(from, to, RST);
        self.pass(200);
        self.sweep();
        self.pass(61);
        assert_eq!(self.usage(), (0, 0));
        assert_eq!((self.flows(), self.half_open()), (0, 0));
    }
}

/// A handshake up to the client's last packet.
fn begin(world: &Sourced) -> (String, String) {
    let begun = world.there(CLIENT, WEB, SYN).unwrap();
    let reply = world.back(&begun.1, &begun.0, SYN | ACK);
    assert_eq!(reply, Ok((WEB.to_owned(), CLIENT.to_owned())));
    begun
}

#[test]
fn both_packets_that_end_a_handshake_are_forwarded_whoever_moves_the_flow() {
    let mut world = Sourced::new();
    for flags in [ACK, DATA, FIN_ACK, SYN] {
        let mut orders = Orders::new();
        while orders.are_left() {
            let begun = begin(&world);
            let frames = [ACK, flags].map(|flags| tcp(CLIENT, WEB, flags, b""));
            let sent = world.send_together(&mut orders, [&frames[0], &frames[1]]);
            assert_eq!(sent, [Ok(begun.clone()), Ok(begun.clone())]);
            assert_eq!((world.flows(), world.half_open()), (2, 0));
            assert_eq!(world.usage(), (1, 0));
            world.assert_ports_are_those_of_the_flows();
            let asked = (WEB.to_owned(), CLIENT.to_owned());
            assert_eq!(world.back(&begun.1, &begun.0, ACK), Ok(asked));
            assert_eq!(world.there(CLIENT, WEB, ACK), Ok(begun));
            world.end(CLIENT, WEB);
        }
        assert!(orders.played() > 50, "{}", orders.played());
    }
}

#[test]
fn a_reply_finds_its_client_while_its_flow_moves() {
    let mut world = Sourced::new();
    for flags in [SYN | ACK, DATA] {
        let mut orders = Orders::new();
        while orders.are_left() {
            let (source, backend) = begin(&world);
            let frames = [
                tcp(CLIENT, WEB, ACK, b""),
                tcp(&backend, &source, flags, b""),
            ];
            let sent = world.send_together(&mut orders, [&frames[0], &frames[1]]);
            let asked = (WEB.to_owned(), CLIENT.to_owned());
            assert_eq!(sent, [Ok((source, backend)), Ok(asked)]);
            assert_eq!((world.flows(), world.half_open()), (2, 0));
            world.end(CLIENT, WEB);
        }
        assert!(orders.played() > 50, "{}", orders.played());
    }
}

#[test]
fn where_the_flow_table_is_full_both_packets_go_by_the_half_open_flow() {
    let mut world = Sourced::of(FILE, 1, PORTS);
    let mut orders = Orders::new();
    while orders.are_left() {
        let endpoint = |number: u64| Endpoint {
            address: [number, !number],
            port: 9,
        };
        for number in 0..200 {
            let key = FlowKey::new(6, endpoint(number), endpoint(number << 32));
            let filler = NewFlow {
                state: State::Established,
                owner: u32::MAX,
                direction: Direction::FromClient,
                tie: Tie::NONE,
                profile: ringgate_conntrack::Profile::DEFAULT,
                reach: ringgate_conntrack::Reach::UNKNOWN,
            };
            let hash = world.table.hash(&key);
            let _room = world.table.insert(&key, hash, filler, Seconds(world.now));
        }
        let stored = world.flows();
        let begun = begin(&world);
        let frames = [ACK, DATA].map(|flags| tcp(CLIENT, WEB, flags, b""));
        let sent = world.send_together(&mut orders, [&frames[0], &frames[1]]);
        assert_eq!(sent, [Ok(begun.clone()), Ok(begun)]);
        assert_eq!((world.flows(), world.half_open()), (stored, 2));
        assert_eq!(world.usage(), (1, 0));
        world.assert_ports_are_those_of_the_flows();
        world.pass(8000);
        world.sweep();
        world.end(CLIENT, WEB);
    }
    assert!(orders.played() > 50, "{}", orders.played());
}

#[test]
fn both_first_packets_of_a_flow_get_one_port() {
    let mut world = Sourced::new();
    for first in [tcp(CLIENT, WEB, SYN, b""), udp(CLIENT, DNS, b"?")] {
        let mut orders = Orders::new();
        while orders.are_left() {
            let [one, other] = world.send_together(&mut orders, [&first, &first]);
            assert!(one.is_ok());
            assert_eq!(one, other);
            assert_eq!(world.flows() + world.half_open(), 2);
            assert_eq!(world.usage().0, 1);
            world.assert_ports_are_those_of_the_flows();
            world.end(CLIENT, WEB);
        }
        assert!(orders.played() > 5, "{}", orders.played());
    }
}

#[test]
fn both_packets_of_a_flow_whose_backend_is_gone_get_the_same_other() {
    let mut world = Sourced::new();
    let mut orders = Orders::new();
    while orders.are_left() {
        let (_, backend) = world.establish(CLIENT, WEB);
        let both = ["10.2.0.11:8080", "10.2.0.12:8080"];
        world.world.down = both.into_iter().filter(|one| *one == backend).collect();
        world.world.publish();
        let frame = tcp(CLIENT, WEB, DATA, b"");
        let [one, other] = world.send_together(&mut orders, [&frame, &frame]);
        let (_, to) = one.clone().unwrap();
        assert_ne!(to, backend);
        assert_eq!(one, other);
        world.assert_ports_are_those_of_the_flows();
        world.world.down.clear();
        world.world.publish();
        world.end(CLIENT, WEB);
    }
    assert!(orders.played() > 10, "{}", orders.played());
}

/// The other worker began the flow, and needs its port for a newcomer while this one moves it.
#[test]
fn a_flow_that_moves_while_it_should_give_way_keeps_its_port_or_loses_it() {
    let mut world = Sourced::of(&FILE.replace(", \"10.2.0.2\"", ""), 4096, 8);
    let mut orders = Orders::new();
    let mut kept = [0, 0];
    while orders.are_left() {
        let begun = exchanged(
            world.send_to_other(&tcp(CLIENT, MANY, SYN, b"")).unwrap(),
            Direction::FromClient,
        );
        for port in 5001..5004 {
            let client = format!("10.1.0.2:{port}");
            world.send_to_other(&tcp(&client, MANY, SYN, b"")).unwrap();
        }
        let frames = [
            tcp(CLIENT, MANY, ACK, b""),
            tcp("10.1.0.2:5004", MANY, SYN, b""),
        ];
        let [moved, newcomer] = world.send_together(&mut orders, [&frames[0], &frames[1]]);
        assert!(newcomer.is_ok(), "{newcomer:?}");
        kept[usize::from(moved == begun)] += 1;
        world.assert_ports_are_those_of_the_flows();
        for port in 5001..=5004 {
            let _sent = world.tcp(&format!("10.1.0.2:{port}"), MANY, RST);
        }
        world.end(CLIENT, MANY);
    }
    assert!(kept.iter().all(|times| *times > 5), "{kept:?}");
}
