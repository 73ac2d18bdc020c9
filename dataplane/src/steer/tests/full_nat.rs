//! Flows whose source is one of the balancer's own addresses.

use std::collections::HashSet;
use std::net::IpAddr;

use ringgate_conntrack::source_ports::{Layout, Rests, Seat, SourcePorts};
use ringgate_conntrack::{NewFlow, Span};

use super::*;
use crate::flush::{Flush, Scope};
use crate::rewrite::Exchange;

mod crowds;
mod together;

const FILE: &str = r#"
    [balancer]
    nat-sources = ["10.2.0.1", "10.2.0.2"]
    [[interface]]
    name = "front"
    [[interface]]
    name = "back"
    [[service]]
    name = "web"
    listen = "10.100.0.1:80"
    protocol = "tcp"
    forward = "full-nat"
      [[service.backend]]
      address = "10.2.0.11:8080"
      [[service.backend]]
      address = "10.2.0.12:8080"
    [[service]]
    name = "dns"
    listen = "10.100.0.1:53"
    protocol = "udp"
    forward = "full-nat"
      [[service.backend]]
      address = "10.2.0.11:53"
    [[service]]
    name = "many"
    listen = "10.101.0.0/24:0"
    protocol = "tcp"
    forward = "full-nat"
      [[service.backend]]
      address = "10.2.0.13"
"#;

const MANY: &str = "10.101.0.77:8443";
const DNS: &str = "10.100.0.1:53";
const WORKERS: usize = 2;
/// Of each source, worker and group.
const PORTS: u16 = 50;
const RESTS: Rests = Rests {
    tcp: Span(60),
    udp: Span(30),
};

/// The world with source ports, and what of it another worker has.
struct Sourced {
    world: World,
    ports: Arc<SourcePorts>,
    other: Newcomers,
}

impl std::ops::Deref for Sourced {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Sourced {
    fn new() -> Self {
        Self::of(FILE, 4096, PORTS)
    }

    fn of(file: &str, flows: usize, ports: u16) -> Self {
        let mut world = World::of(file, flows);
        let last = 1024 + ports * u16::try_from(WORKERS).unwrap() - 1;
        let layout = Layout::new(1024..=last, WORKERS, 4).unwrap();
        let sources = world.model.balancer().nat_sources().to_vec();
        let made = SourcePorts::new(layout, &sources, RESTS, Secret([5, 6]));
        let (ports, seats) = made.unwrap();
        let ports = Arc::new(ports);
        world.builder.with_sources(Arc::clone(&ports));
        world.publish();
        let half_open = Arc::clone(&world.half_open);
        let mut seats = seats.into_iter().map(|seat: Seat| {
            let half_open = Arc::clone(&half_open);
            Newcomers::new(half_open, u32::MAX, WORKERS, Millis(1000)).seated(Some(seat))
        });
        world.newcomers = seats.next().unwrap();
        let other = seats.next().unwrap();
        Self {
            world,
            ports,
            other,
        }
    }

    /// So many seconds later, with nothing swept.
    fn pass(&mut self, seconds: u32) {
        self.world.now += seconds;
        let now = Millis(u64::from(self.world.now) * 1000);
        self.world.newcomers.advance(now);
        self.other.advance(now);
    }

    fn sweep(&self) {
        let sources = self.snapshot.sources();
        let ended = |ended| self.newcomers.settle(sources, ended);
        let mut all = self.table.share(0, 1);
        self.table
            .sweep(&mut all, usize::MAX, Seconds(self.now), ended);
        let mut all = self.half_open.share(0, 1);
        let tick = self.newcomers.tick();
        self.half_open.sweep(&mut all, usize::MAX, tick, ended);
    }

    fn usage(&self) -> (usize, usize) {
        let usage = self.snapshot.sources().unwrap().usage(Seconds(self.now));
        usage.fold((0, 0), |(held, resting), (_, usage)| {
            (held + usage.held, resting + usage.resting)
        })
    }

    fn change_sources(&mut self, addresses: &[&str]) {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let changed = self.ports.changed(&addresses, RESTS, Seconds(self.now));
        self.ports = Arc::new(changed.unwrap());
        self.world.builder.with_sources(Arc::clone(&self.ports));
        self.world.publish();
    }

    /// As the other worker, at the backends' interface.
    fn send_to_other(&self, frame: &[u8]) -> Result<Decision<'_>, DropReason> {
        let packet = parse(frame, false).unwrap();
        let steering = Steering {
            snapshot: &self.snapshot,
            table: &self.table,
            newcomers: &self.other,
            now: Seconds(self.now),
            ingress: u16::from(frame[26..28] == [10, 2]),
        };
        steering
            .steer(&packet, self.table.hash(&packet.key), frame)
            .map_err(|refusal| refusal.reason)
    }

    /// What a client's segment leaves with: source and destination.
    fn there(&self, from: &str, to: &str, flags: u8) -> Result<(String, String), DropReason> {
        exchanged(self.tcp(from, to, flags)?, Direction::FromClient)
    }

    fn back(&self, from: &str, to: &str, flags: u8) -> Result<(String, String), DropReason> {
        exchanged(self.tcp(from, to, flags)?, Direction::FromBackend)
    }

    /// A flow whose handshake is complete: its source and its backend.
    fn establish(&self, from: &str, to: &str) -> (String, String) {
        let begun = self.there(from, to, SYN).unwrap();
        let (source, backend) = begun.clone();
        assert_eq!(
            self.back(&backend, &source, SYN | ACK),
            Ok((to.to_owned(), from.to_owned()))
        );
        assert_eq!(self.there(from, to, ACK), Ok(begun.clone()));
        begun
    }

    fn half_open(&self) -> usize {
        let mut count = 0;
        let tick = self.newcomers.tick();
        self.half_open.for_each(tick, |_, _| count += 1);
        count
    }

    /// Whoever holds a port has an entry, and each entry's is held.
    fn assert_ports_are_those_of_the_flows(&self) {
        let mut held = HashSet::new();
        let mut add = |key: &FlowKey, found: &Found| {
            if let Some(lease) = crate::newcomers::held(found.whose()) {
                assert!(
                    held.insert((key.protocol(), lease)),
                    "two holders of {lease:?}"
                );
            }
        };
        self.table.for_each(Seconds(self.now), &mut add);
        self.half_open.for_each(self.newcomers.tick(), &mut add);
        assert_eq!(self.usage().0, held.len());
    }
}

fn exchanged(decision: Decision<'_>, from: Direction) -> Result<(String, String), DropReason> {
    match decision.action {
        Action::Exchange(
            Exchange {
                source,
                destination,
            },
            direction,
        ) if direction == from => {
            assert_eq!(decision.is_reply(), from == Direction::FromBackend);
            Ok((source.to_string(), destination.to_string()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_ways_have_the_port_that_the_first_packet_got() {
    let world = Sourced::new();
    let (source, backend) = world.there(CLIENT, WEB, SYN).unwrap();
    assert!(
        source.starts_with("10.2.0.1:") || source.starts_with("10.2.0.2:"),
        "{source}"
    );
    assert!(["10.2.0.11:8080", "10.2.0.12:8080"].contains(&&*backend));
    assert_eq!(
        (world.flows(), world.half_open(), world.usage()),
        (0, 2, (1, 0))
    );
    // Sent once more, it is the same flow; so says the reply, also to another worker.
    assert_eq!(
        world.there(CLIENT, WEB, SYN),
        Ok((source.clone(), backend.clone()))
    );
    let asked = (WEB.to_owned(), CLIENT.to_owned());
    let reply = tcp(&backend, &source, SYN | ACK, b"");
    let decision = world.send_to_other(&reply).unwrap();
    assert_eq!(
        exchanged(decision, Direction::FromBackend),
        Ok(asked.clone())
    );
    let done = world.tcp(CLIENT, WEB, ACK).unwrap();
    assert_eq!(done.event, FlowEvent::Created);
    assert_eq!(
        (world.flows(), world.half_open(), world.usage()),
        (2, 0, (1, 0))
    );
    for _ in 0..2 {
        assert_eq!(
            world.there(CLIENT, WEB, ACK),
            Ok((source.clone(), backend.clone()))
        );
        let decision = world
            .send_to_other(&tcp(&backend, &source, ACK, b"data"))
            .unwrap();
        assert_eq!((decision.hop.port, decision.event), (0, FlowEvent::None));
        assert_eq!(
            exchanged(decision, Direction::FromBackend),
            Ok(asked.clone())
        );
    }
    world.assert_ports_are_those_of_the_flows();
}

#[test]
fn a_service_of_many_addresses_and_ports_answers_from_the_one_that_was_asked() {
    let world = Sourced::new();
    for asked in [MANY, "10.101.0.78:8443", "10.101.0.77:22"] {
        let (source, backend) = world.establish(CLIENT, asked);
        assert_eq!(backend, format!("10.2.0.13:{}", at(asked).port()));
        let reply = world.back(&backend, &source, ACK);
        assert_eq!(reply, Ok((asked.to_owned(), CLIENT.to_owned())));
    }
    assert_eq!(world.usage(), (3, 0));
}

#[test]
fn a_datagram_flow_is_stored_at_once_or_not_forwarded() {
    let mut world = Sourced::new();
    let there = world.send(&udp(CLIENT, DNS, b"?")).unwrap();
    assert_eq!(there.event, FlowEvent::Created);
    let (source, backend) = exchanged(there, Direction::FromClient).unwrap();
    let reply = world.send_to_other(&udp(&backend, &source, b"!")).unwrap();
    let asked = (DNS.to_owned(), CLIENT.to_owned());
    assert_eq!(exchanged(reply, Direction::FromBackend), Ok(asked));
    assert_eq!((world.flows(), world.usage()), (2, (1, 0)));
    // A moment in which no other may begin.
    let half_open = Arc::clone(&world.half_open);
    world.world.newcomers = Newcomers::new(half_open, 1, 1, Millis(1000));
    for port in 0..100 {
        let client = format!("10.1.0.2:{}", 2000 + port);
        let sent = world.send(&udp(&client, DNS, b"?"));
        assert!(matches!(
            sent,
            Err(DropReason::SourcePortsHeld | DropReason::Unstored)
        ));
    }
    let refused = world.send(&udp("10.1.0.2:1", DNS, b"?")).unwrap_err();
    assert_eq!(refused, DropReason::Unstored);
}

#[test]
fn a_port_comes_back_when_its_flow_ends_and_rests() {
    let mut world = Sourced::new();
    let (source, backend) = world.establish(CLIENT, WEB);
    world.tcp(CLIENT, WEB, FIN_ACK).unwrap();
    world.tcp(&backend, &source, FIN_ACK).unwrap();
    assert_eq!(world.usage(), (1, 0));
    // The same client again: another port, since the backend remembers this one.
    let (again, _) = world.there(CLIENT, WEB, SYN).unwrap();
    assert_ne!(again, source);
    assert_eq!((world.usage(), world.flows()), ((1, 1), 0));
    assert_eq!(
        world.back(&backend, &source, ACK),
        Err(DropReason::UnknownReturn)
    );
    world.tcp(CLIENT, WEB, RST).unwrap();
    world.pass(15);
    world.sweep();
    assert_eq!((world.usage(), world.half_open()), ((0, 2), 0));
    world.pass(61);
    assert_eq!(world.usage(), (0, 0));
}

#[test]
fn an_established_flow_that_falls_silent_gives_its_port_back() {
    let mut world = Sourced::new();
    world.establish(CLIENT, WEB);
    let there = world.send(&udp(CLIENT, DNS, b"?")).unwrap();
    exchanged(there, Direction::FromClient).unwrap();
    world.pass(200);
    world.sweep();
    assert_eq!(world.usage(), (1, 1), "the datagram's");
    world.pass(7500);
    world.sweep();
    assert_eq!((world.usage(), world.flows()), ((0, 1), 0));
}

#[test]
fn a_flow_whose_backend_is_gone_gets_a_port_with_the_next() {
    let mut world = Sourced::new();
    let (source, backend) = world.establish(CLIENT, WEB);
    let other = if backend == "10.2.0.11:8080" {
        "10.2.0.12:8080"
    } else {
        "10.2.0.11:8080"
    };
    world.world.down = vec![if other == "10.2.0.11:8080" {
        "10.2.0.12:8080"
    } else {
        "10.2.0.11:8080"
    }];
    world.world.publish();
    let decision = world.tcp(CLIENT, WEB, ACK).unwrap();
    assert_eq!(decision.event, FlowEvent::Rehashed);
    let (next, to) = exchanged(decision, Direction::FromClient).unwrap();
    assert_eq!(
        (to.as_str(), world.usage(), world.flows()),
        (other, (1, 1), 2)
    );
    assert_ne!(next, source);
    let asked = Ok((WEB.to_owned(), CLIENT.to_owned()));
    assert_eq!(world.back(other, &next, ACK), asked);
    assert_eq!(
        world.back(&backend, &source, ACK),
        Err(DropReason::UnknownReturn)
    );
    world.assert_ports_are_those_of_the_flows();
}

#[test]
fn a_reply_that_names_a_slot_of_another_flow_is_dropped() {
    let world = Sourced::new();
    let (source, backend) = world.establish(CLIENT, WEB);
    let key = |from: &str, to: &str| {
        let [from, to] = [from, to].map(|text| Endpoint::from_socket(at(text)));
        FlowKey::new(6, from, to)
    };
    let find = |key: FlowKey| {
        let now = Seconds(world.now);
        world
            .table
            .lookup(&key, world.table.hash(&key), now)
            .unwrap()
    };
    let (client, reply) = (find(key(CLIENT, WEB)), find(key(&backend, &source)));
    assert_eq!(reply.tie.slot(), Some(client.slot()));
    // Into the very slot comes another flow, with another source.
    assert!(world.table.remove(&client));
    let mut slot = None;
    for port in 5000.. {
        let other = format!("10.1.0.2:{port}");
        world.establish(&other, WEB);
        slot = Some(find(key(&other, WEB)).slot());
        if slot == Some(client.slot()) || port > 5040 {
            break;
        }
    }
    assert!(slot.is_some());
    assert_eq!(
        world.back(&backend, &source, ACK),
        Err(DropReason::UnknownReturn)
    );
    // Nor is a client's entry anybody's who sends to its source from elsewhere.
    let (source, backend) = world.establish("10.1.0.2:4999", WEB);
    let elsewhere = backend.replace(":8080", ":8081");
    assert_eq!(
        world.back(&elsewhere, &source, ACK),
        Err(DropReason::UnknownReturn)
    );
    let reply = tcp(&backend, &source, ACK, b"");
    assert_eq!(world.send_from(0, &reply), Err(DropReason::WrongInterface));
    assert!(world.send_from(1, &reply).is_ok());
}

#[test]
fn replies_find_their_client_again_after_their_entry_was_displaced() {
    let mut world = Sourced::new();
    let (source, backend) = world.establish(CLIENT, WEB);
    let [from, to] = [&*backend, &*source].map(|text| Endpoint::from_socket(at(text)));
    let key = FlowKey::new(6, from, to);
    let reply = world.table.lookup(&key, world.table.hash(&key), Seconds(1));
    assert!(world.table.remove(&reply.unwrap()));
    assert_eq!(
        world.back(&backend, &source, ACK),
        Err(DropReason::UnknownReturn)
    );
    // The client's next packet that renews its age stores it anew.
    world.pass(600);
    world.there(CLIENT, WEB, ACK).unwrap();
    assert_eq!(
        world.back(&backend, &source, ACK),
        Ok((WEB.to_owned(), CLIENT.to_owned()))
    );
    assert_eq!(world.usage(), (1, 0));
}

#[test]
fn where_no_port_is_free_a_newcomer_is_told_why() {
    let mut world = Sourced::of(&FILE.replace(", \"10.2.0.2\"", ""), 4096, 4);
    let client = |n: u16| format!("10.1.0.2:{}", 3000 + n);
    let established: Vec<_> = (0..3).map(|n| world.establish(&client(n), MANY)).collect();
    assert_eq!(
        world.there(&client(3), MANY, SYN),
        Err(DropReason::SourcePortsHeld)
    );
    assert_eq!(
        world.tcp(&client(3), MANY, SYN),
        Err(DropReason::SourcePortsHeld)
    );
    // Two end, and rest for a minute.
    for n in 0..2 {
        world.tcp(&client(n), MANY, RST).unwrap();
    }
    world.pass(20);
    world.sweep();
    assert_eq!(world.usage(), (1, 2));
    assert_eq!(
        world.there(&client(4), MANY, SYN).map(|_| ()),
        Ok(()),
        "the one that was kept"
    );
    assert_eq!(world.there(&client(4), MANY, ACK).map(|_| ()), Ok(()));
    assert_eq!(
        world.there(&client(5), MANY, SYN),
        Err(DropReason::SourcePortsResting)
    );
    // Those that have one go on.
    let (source, backend) = &established[2];
    assert!(world.there(&client(2), MANY, ACK).is_ok());
    assert!(world.back(backend, source, ACK).is_ok());
    world.pass(61);
    assert!(world.there(&client(5), MANY, SYN).is_ok());
}

#[test]
fn a_flush_gives_ports_back() {
    let mut world = Sourced::new();
    for port in 3000..3020 {
        world.establish(&format!("10.1.0.2:{port}"), WEB);
        world.establish(&format!("10.1.0.2:{port}"), MANY);
    }
    world.pass(1);
    let web = world.snapshot.services()[0].listen;
    for (scope, flows, held) in [(Scope::Service(web, 6), 20, 20), (Scope::All, 20, 0)] {
        let now = Seconds(world.now);
        let mut flush = Flush::new(scope, now);
        assert!(flush.go_on(&world.table, &world.snapshot, u32::MAX, now));
        assert_eq!((flush.flows(), flush.entries()), (flows, 2 * flows));
        assert_eq!(world.usage().0, held);
        world.assert_ports_are_those_of_the_flows();
    }
    assert_eq!(world.flows(), 0);
}

#[test]
fn a_flow_of_another_mode_begins_anew_with_its_next_packet() {
    let mut world = Sourced::new();
    let plain = FILE
        .replace("forward = \"full-nat\"", "forward = \"nat\"")
        .replace("/24:0", "/32:0");
    world.establish(CLIENT, WEB);
    world.world.reload(&plain);
    let decision = world.tcp(CLIENT, WEB, ACK).unwrap();
    assert!(
        matches!(decision.action, Action::ToBackend(_)),
        "{decision:?}"
    );
    let fresh = "10.1.0.2:999";
    world.tcp(fresh, WEB, ACK).unwrap();
    world.world.reload(FILE);
    let decision = world.tcp(fresh, WEB, ACK).unwrap();
    assert_eq!(decision.event, FlowEvent::Rehashed);
    let (source, backend) = exchanged(decision, Direction::FromClient).unwrap();
    assert_eq!(
        world.back(&backend, &source, ACK),
        Ok((WEB.to_owned(), fresh.to_owned()))
    );
    world.assert_ports_are_those_of_the_flows();
    world.pass(20_000);
    world.sweep();
    assert_eq!(world.usage().0, 0);
}

#[test]
fn flows_of_an_address_that_is_removed_go_on_and_new_ones_have_others() {
    let mut world = Sourced::of(&FILE.replace(", \"10.2.0.2\"", ""), 4096, PORTS);
    let (source, backend) = world.establish(CLIENT, WEB);
    assert!(source.starts_with("10.2.0.1:"));
    world.there("10.1.0.2:77", WEB, SYN).unwrap();
    world.change_sources(&["10.2.0.9"]);
    assert_eq!(
        world.there(CLIENT, WEB, ACK),
        Ok((source.clone(), backend.clone()))
    );
    assert_eq!(
        world.back(&backend, &source, ACK),
        Ok((WEB.to_owned(), CLIENT.to_owned()))
    );
    let (new, _) = world.establish("10.1.0.2:78", WEB);
    assert!(new.starts_with("10.2.0.9:"), "{new}");
    world.tcp(CLIENT, WEB, RST).unwrap();
    world.pass(200);
    world.sweep();
    assert_eq!(world.usage(), (1, 2), "only the new one's is held");
    world.pass(61);
    // Forgotten by the next change.
    world.change_sources(&["10.2.0.9"]);
    assert_eq!(
        world.back(&backend, &source, ACK),
        Err(DropReason::NotForUs)
    );
}

#[test]
fn a_worker_that_does_not_know_a_source_yet_gives_its_port_back_later() {
    let mut world = Sourced::of(&FILE.replace(", \"10.2.0.2\"", ""), 4096, PORTS);
    let before = Arc::clone(&world.ports);
    world.change_sources(&["10.2.0.9"]);
    let (source, _) = world.there(CLIENT, WEB, SYN).unwrap();
    assert!(source.starts_with("10.2.0.9:"));
    let key = FlowKey::new(
        6,
        Endpoint::from_socket(at(CLIENT)),
        Endpoint::from_socket(at(WEB)),
    );
    let found = world
        .half_open
        .lookup(&key, world.table.hash(&key), world.newcomers.tick());
    assert!(world.half_open.remove(&found.unwrap()));
    let lease = crate::newcomers::held(found.unwrap().whose()).unwrap();
    world.other.give_back(Some(&before), 6, lease);
    assert_eq!(world.usage(), (1, 0));
    world.other.repay(Some(&before));
    assert_eq!(world.usage(), (1, 0));
    world.other.repay(world.snapshot.sources());
    world.other.repay(world.snapshot.sources());
    assert_eq!(world.usage(), (0, 1));
}
