use std::sync::Arc;

use ringgate_config::Model;
use ringgate_conntrack::{Secret, State, Timeouts};

use super::*;
use crate::backend::Health;
use crate::clock::Millis;
use crate::newcomers::{Newcomers, Tables};
use crate::parse::parse;
use crate::route::{Fib, Link, Neighbour, Target};
use crate::snapshot::{Builder, by_backend};
use crate::testing::{at, set_ttl, tcp, tcp_at, udp};
use crate::wire::ethernet::Mac;

mod full_nat;
pub(super) mod interleaved;
mod life;

const ACK: u8 = 0x10;
const SYN: u8 = 0x02;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

const CLIENT: &str = "10.1.0.2:4242";
const WEB: &str = "10.100.0.1:80";

const SERVICES: &str = r#"
    [[interface]]
    name = "front"
    [[interface]]
    name = "back"

    [[service]]
    name = "web"
    listen = "10.100.0.1:80"
    protocol = "tcp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:8080"
      [[service.backend]]
      address = "10.2.0.12:8080"
      [[service.backend]]
      address = "10.2.0.13:8080"

    [[service]]
    name = "dns"
    listen = "10.100.0.1:53"
    protocol = "udp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:53"

    [[service]]
    name = "direct"
    listen = "10.100.0.2:80"
    protocol = "tcp"
    forward = "dsr-l2"
      [[service.backend]]
      address = "10.2.0.11"
      [[service.backend]]
      address = "10.2.0.12"

    [[service]]
    name = "twin-a"
    listen = "10.100.0.3:80"
    protocol = "tcp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:9090"
      [[service.backend]]
      address = "10.2.0.12:9090"

    [[service]]
    name = "twin-b"
    listen = "10.100.0.4:80"
    protocol = "tcp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:9090"
"#;

/// A balancer without ports: tables, time, and a way to ask.
struct World {
    builder: Builder,
    model: Model,
    fib: Arc<Fib>,
    down: Vec<&'static str>,
    draining: bool,
    snapshot: Snapshot,
    table: Arc<FlowTable>,
    half_open: Arc<FlowTable>,
    newcomers: Newcomers,
    now: u32,
}

impl World {
    fn new() -> Self {
        Self::of(SERVICES, 1024)
    }

    fn of(file: &str, flows: usize) -> Self {
        let model = ringgate_config::parse("test.toml", file).unwrap().model;
        let mut builder = Builder::default();
        let fib = Arc::new(fib());
        let snapshot = builder
            .build(&model, |_, _| Health::Up, &fib, false)
            .unwrap();
        let tables = Tables::new(flows, Secret([1, 2]), Timeouts::default()).unwrap();
        snapshot.lifetimes().apply(&tables);
        let (down, draining) = (Vec::new(), false);
        Self {
            builder,
            model,
            fib,
            down,
            draining,
            snapshot,
            table: tables.flows,
            half_open: Arc::clone(&tables.half_open),
            newcomers: Newcomers::new(tables.half_open, u32::MAX, 1, Millis(1000)),
            now: 1,
        }
    }

    /// Publishes what was changed.
    fn publish(&mut self) {
        let down: Vec<_> = self.down.iter().map(|text| at(text)).collect();
        let health =
            |_: &_, backend: &ringgate_config::Backend| match down.contains(&backend.address()) {
                true => Health::Down,
                false => Health::Up,
            };
        let built = self
            .builder
            .build(&self.model, by_backend(health), &self.fib, self.draining);
        self.snapshot = built.unwrap();
        self.snapshot.lifetimes().apply(&Tables {
            flows: Arc::clone(&self.table),
            half_open: Arc::clone(&self.half_open),
        });
    }

    fn reload(&mut self, file: &str) {
        self.model = ringgate_config::parse("test.toml", file).unwrap().model;
        self.publish();
    }

    /// Clients are at port 0, backends at port 1.
    fn send(&self, frame: &[u8]) -> Result<Decision<'_>, DropReason> {
        self.send_from(u16::from(frame[26..28] == [10, 2]), frame)
    }

    fn send_from(&self, ingress: PortIndex, frame: &[u8]) -> Result<Decision<'_>, DropReason> {
        let packet = parse(frame, false).unwrap();
        let steering = Steering {
            snapshot: &self.snapshot,
            table: &self.table,
            newcomers: &self.newcomers,
            now: Seconds(self.now),
            ingress,
        };
        steering
            .steer(&packet, self.table.hash(&packet.key), frame)
            .map_err(|refusal| refusal.reason)
    }

    fn tcp(&self, from: &str, to: &str, flags: u8) -> Result<Decision<'_>, DropReason> {
        self.send(&tcp(from, to, flags, b""))
    }

    /// The backend that a segment from the client is sent to.
    fn backend_of(&self, from: &str, to: &str, flags: u8) -> String {
        match self.tcp(from, to, flags).unwrap() {
            Decision {
                action: Action::ToBackend(backend),
                ..
            } => backend.to_socket().to_string(),
            other => panic!("not sent to a backend: {other:?}"),
        }
    }

    /// What a reply's source becomes.
    fn source_of(&self, from: &str, to: &str, flags: u8) -> Result<String, DropReason> {
        self.tcp(from, to, flags)
            .map(|decision| match decision.action {
                Action::ToClient(source) => source.to_socket().to_string(),
                other => panic!("not sent to a client: {other:?}"),
            })
    }

    fn flows(&self) -> usize {
        let mut count = 0;
        self.table.for_each(Seconds(self.now), |_, _| count += 1);
        count
    }
}

fn fib() -> Fib {
    let link = |last| Link {
        mac: Mac([2, 0, 0, 0, 9, last]),
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(vec![link(0), link(1)]);
    let on = |port| Target::Port {
        port,
        gateway: None,
    };
    fib.insert_route("10.1.0.0/24".parse().unwrap(), on(0));
    fib.insert_route("10.2.0.0/24".parse().unwrap(), on(1));
    fib.insert_neighbour(0, at(CLIENT).ip(), Mac([2, 0, 0, 0, 1, 2]));
    for host in 11..=13 {
        fib.insert_neighbour(1, [10, 2, 0, host].into(), Mac([2, 0, 0, 0, 2, host]));
    }
    fib
}

#[test]
fn a_syn_leaves_no_trace_and_the_next_segment_stores_both_directions() {
    let world = World::new();
    let backend = world.backend_of(CLIENT, WEB, SYN);
    assert_eq!(world.flows(), 0);
    assert_eq!(
        world.source_of(&backend, CLIENT, SYN | ACK).as_deref(),
        Ok(WEB)
    );
    assert_eq!(world.flows(), 0);
    let decision = world.tcp(CLIENT, WEB, ACK).unwrap();
    assert_eq!(decision.event, FlowEvent::Created);
    assert_eq!(world.flows(), 2);
    assert_eq!(world.backend_of(CLIENT, WEB, ACK), backend);
    assert_eq!(world.source_of(&backend, CLIENT, ACK).as_deref(), Ok(WEB));
    assert_eq!(world.flows(), 2);
}

#[test]
fn direct_return_changes_no_address_and_has_no_replies() {
    let world = World::new();
    let decision = world.tcp(CLIENT, "10.100.0.2:80", ACK).unwrap();
    assert_eq!(decision.action, Action::Direct);
    assert_eq!(world.flows(), 1);
    assert_eq!(
        world.tcp("10.2.0.11:80", CLIENT, ACK),
        Err(DropReason::NotForUs)
    );
}

#[test]
fn a_flow_keeps_its_backend_through_any_change_of_the_others() {
    let mut world = World::new();
    let clients: Vec<String> = (1000..1200)
        .map(|port| format!("10.1.0.2:{port}"))
        .collect();
    let before: Vec<String> = clients
        .iter()
        .map(|client| world.backend_of(client, WEB, ACK))
        .collect();
    let weights = SERVICES.replace(
        "address = \"10.2.0.12:8080\"",
        "address = \"10.2.0.12:8080\"\nweight = 900\n[[service.backend]]\naddress = \"10.2.0.10:8080\"",
    );
    world.reload(&weights);
    for (client, backend) in clients.iter().zip(&before) {
        assert_eq!(&world.backend_of(client, WEB, ACK), backend);
    }
    // Weight 0: its flows stay, new ones go elsewhere.
    world.reload(&SERVICES.replace(
        "address = \"10.2.0.12:8080\"",
        "address = \"10.2.0.12:8080\"\nweight = 0",
    ));
    for (client, backend) in clients.iter().zip(&before) {
        assert_eq!(&world.backend_of(client, WEB, ACK), backend);
        let newcomer = client.replace(":1", ":2");
        assert_ne!(world.backend_of(&newcomer, WEB, SYN), "10.2.0.12:8080");
    }
}

#[test]
fn flows_of_a_backend_that_is_down_disabled_or_removed_go_elsewhere_and_stay_there() {
    let gone: [fn(&mut World); 3] = [
        |world| {
            world.down = vec!["10.2.0.12:8080"];
            world.publish();
        },
        |world| {
            let address = "address = \"10.2.0.12:8080\"";
            world.reload(&SERVICES.replace(address, &format!("{address}\ndisabled = true")));
        },
        |world| {
            let entry = "[[service.backend]]\n      address = \"10.2.0.12:8080\"";
            assert!(SERVICES.contains(entry));
            world.reload(&SERVICES.replace(entry, ""));
        },
    ];
    for take_out in gone {
        let mut world = World::new();
        let clients: Vec<String> = (1000..1100)
            .map(|port| format!("10.1.0.2:{port}"))
            .collect();
        let before: Vec<String> = clients
            .iter()
            .map(|client| world.backend_of(client, WEB, ACK))
            .collect();
        take_out(&mut world);
        let mut moved = Vec::new();
        for (client, backend) in clients.iter().zip(&before) {
            let decision = world.tcp(client, WEB, ACK).unwrap();
            let after = world.backend_of(client, WEB, ACK);
            if backend == "10.2.0.12:8080" {
                assert_eq!(decision.event, FlowEvent::Rehashed);
                assert_ne!(&after, backend);
                moved.push((client, after));
            } else {
                assert_eq!((decision.event, &after), (FlowEvent::None, backend));
            }
        }
        assert!(!moved.is_empty());
        // Back again: those that moved stay where they are, and replies still find the way.
        world.down.clear();
        world.reload(SERVICES);
        for (client, backend) in moved {
            assert_eq!(world.backend_of(client, WEB, ACK), backend);
            assert_eq!(world.source_of(&backend, client, ACK).as_deref(), Ok(WEB));
        }
    }
}

#[test]
fn without_a_backend_nothing_is_sent_unless_the_service_falls_open() {
    let mut world = World::new();
    world.tcp(CLIENT, WEB, ACK).unwrap();
    world.down = vec!["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"];
    world.publish();
    assert_eq!(world.tcp(CLIENT, WEB, ACK), Err(DropReason::NoBackend));
    assert_eq!(
        world.tcp("10.1.0.2:5", WEB, SYN),
        Err(DropReason::NoBackend)
    );
    world.reload(&SERVICES.replacen(
        "forward = \"nat\"",
        "forward = \"nat\"\nwhen-empty = \"open\"",
        1,
    ));
    assert!(world.tcp(CLIENT, WEB, ACK).is_ok());
    assert!(world.tcp("10.1.0.2:5", WEB, SYN).is_ok());
}

#[test]
fn replies_of_two_services_on_one_backend_carry_the_right_address() {
    let world = World::new();
    // Only a table can tell: the SYN is remembered, in both directions.
    assert_eq!(
        world.source_of("10.2.0.11:9090", CLIENT, SYN | ACK),
        Err(DropReason::UnknownReturn)
    );
    let decision = world.tcp(CLIENT, "10.100.0.4:80", SYN).unwrap();
    let half_open = FlowEvent::HalfOpen { displaced: 0 };
    assert_eq!((decision.event, world.flows()), (half_open, 0));
    assert_eq!(
        world
            .source_of("10.2.0.11:9090", CLIENT, SYN | ACK)
            .as_deref(),
        Ok("10.100.0.4:80")
    );
    // The same client port to the other service cannot use the same backend.
    for port in 1..200 {
        let client = format!("10.1.0.2:{port}");
        world.tcp(&client, "10.100.0.4:80", SYN).unwrap();
        assert_eq!(
            world.backend_of(&client, "10.100.0.3:80", SYN),
            "10.2.0.12:9090"
        );
        let source = |backend| world.source_of(backend, &client, ACK).unwrap();
        assert_eq!(source("10.2.0.11:9090"), "10.100.0.4:80");
        assert_eq!(source("10.2.0.12:9090"), "10.100.0.3:80");
    }
}

#[test]
fn where_every_backend_would_mix_up_replies_the_flow_is_refused() {
    let world = World::new();
    let clients = || (1..200).map(|port| format!("10.1.0.2:{port}"));
    let on_first: Vec<String> = clients()
        .filter(|client| world.backend_of(client, "10.100.0.3:80", SYN) == "10.2.0.11:9090")
        .collect();
    assert!(!on_first.is_empty());
    for client in on_first {
        let refused = world.tcp(&client, "10.100.0.4:80", SYN);
        assert_eq!(refused, Err(DropReason::ReturnConflict));
    }
}

#[test]
fn a_finished_connection_makes_room_for_the_next_on_the_same_ports() {
    let world = World::new();
    world.tcp(CLIENT, "10.100.0.4:80", SYN).unwrap();
    world.tcp(CLIENT, "10.100.0.4:80", ACK).unwrap();
    world.tcp("10.2.0.11:9090", CLIENT, RST | ACK).unwrap();
    // Both entries have seen the reset, so another service may have the ports.
    let again = world.tcp(CLIENT, "10.100.0.3:80", SYN).unwrap();
    assert_eq!(again.event, FlowEvent::HalfOpen { displaced: 0 });
    let Action::ToBackend(backend) = again.action else {
        panic!("{again:?}")
    };
    let backend = backend.to_socket().to_string();
    assert_eq!(
        world.source_of(&backend, CLIENT, SYN | ACK).as_deref(),
        Ok("10.100.0.3:80")
    );
}

#[test]
fn an_idle_flow_is_kept_by_either_direction_and_ends_by_time() {
    let mut world = World::new();
    let backend = world.backend_of(CLIENT, WEB, ACK);
    world.tcp(CLIENT, WEB, ACK).unwrap();
    let step = Timeouts::default().of(State::Established).0 - 10;
    for _ in 0..3 {
        // Only the backend speaks: the client's entry must not grow old.
        world.now += step;
        assert_eq!(world.source_of(&backend, CLIENT, ACK).as_deref(), Ok(WEB));
        assert_eq!(world.flows(), 2);
    }
    world.now += step + 60;
    assert_eq!(world.flows(), 0);
    assert_eq!(
        world.tcp(CLIENT, WEB, ACK).unwrap().event,
        FlowEvent::Created
    );
    world.tcp(CLIENT, WEB, FIN_ACK).unwrap();
    world.tcp(&backend, CLIENT, FIN_ACK).unwrap();
    world.now += 300;
    assert_eq!(world.flows(), 0);
}

#[test]
fn draining_refuses_what_is_new_and_serves_what_is_not() {
    let mut world = World::new();
    world.tcp(CLIENT, WEB, ACK).unwrap();
    world.draining = true;
    world.publish();
    assert_eq!(world.tcp("10.1.0.2:9", WEB, SYN), Err(DropReason::Draining));
    assert_eq!(
        world.send(&udp("10.1.0.2:9", "10.100.0.1:53", b"")),
        Err(DropReason::Draining)
    );
    assert!(world.tcp(CLIENT, WEB, ACK).is_ok());
}

#[test]
fn a_full_table_forwards_by_the_ring_alone() {
    let world = World::of(SERVICES, 1024);
    let mut full = 0;
    for n in 0..20_000u32 {
        let client = format!("10.1.0.2:{}", 1024 + n % 60_000);
        let flow = world.tcp(&client, WEB, ACK).unwrap();
        full += usize::from(flow.event == FlowEvent::TableFull);
        world.tcp(&client, WEB, ACK).unwrap(); // established: it may not be displaced
    }
    assert!(full > 10_000, "{full}");
    // The one that did not fit is still served, by the same backend every time.
    let backend = world.backend_of("10.1.0.2:999", WEB, SYN);
    assert_eq!(world.backend_of("10.1.0.2:999", WEB, ACK), backend);
}

#[test]
fn a_flood_of_single_segments_does_not_displace_established_flows() {
    let world = World::of(SERVICES, 1024);
    let established: Vec<String> = (1000..1200)
        .map(|port| format!("10.1.0.2:{port}"))
        .collect();
    for client in &established {
        world.tcp(client, WEB, ACK).unwrap();
        world.tcp(client, WEB, ACK).unwrap();
    }
    for n in 0..60_000u32 {
        let forged = format!("10.1.{}.7:{}", 1 + n / 30_000, 2000 + n % 30_000);
        world
            .tcp(&forged, WEB, [ACK, FIN_ACK][(n % 2) as usize])
            .unwrap();
    }
    let mut left = 0;
    world.table.for_each(Seconds(1), |key, found| {
        let is_ours =
            key.source() == Endpoint::from_socket(at(CLIENT)) || found.state == State::Established;
        left += usize::from(is_ours);
    });
    assert_eq!(left, 2 * established.len());
}

#[test]
fn what_begins_nothing_is_forwarded_and_not_stored() {
    let world = World::new();
    for flags in [RST, RST | ACK, SYN | ACK] {
        assert_eq!(
            world.tcp(CLIENT, WEB, flags).unwrap().event,
            FlowEvent::None
        );
    }
    assert_eq!(world.flows(), 0);
}

#[test]
fn with_direct_return_a_reused_port_begins_anew() {
    let mut world = World::new();
    let to = "10.100.0.2:80";
    let backend = |world: &World, flags| world.tcp(CLIENT, to, flags).unwrap().backend.unwrap();
    let first = backend(&world, ACK);
    world.tcp(CLIENT, to, ACK).unwrap();
    world.tcp(CLIENT, to, FIN_ACK).unwrap();
    let endpoint = world.snapshot.backend(first).unwrap().endpoint.to_socket();
    let address = format!("address = \"{}\"\n", endpoint.ip());
    let direct = SERVICES.find("name = \"direct\"").unwrap();
    let (before, after) = SERVICES.split_at(direct);
    world.reload(&format!(
        "{before}{}",
        after.replacen(&address, &format!("{address}weight = 0\n"), 1)
    ));
    assert_eq!(backend(&world, ACK), first, "the old connection stays");
    let second = backend(&world, SYN);
    assert_ne!(second, first, "the next one is new");
    assert_eq!(backend(&world, ACK), second);
}

#[test]
fn an_entry_of_times_past_does_not_mislead_replies() {
    let mut world = World::new();
    world.tcp(CLIENT, "10.100.0.4:80", SYN).unwrap();
    // The backend leaves the one service, and serves only the other.
    let twin_b = SERVICES.find("name = \"twin-b\"").unwrap();
    let (before, after) = SERVICES.split_at(twin_b);
    world.reload(&format!(
        "{before}{}",
        after.replace("10.2.0.11:9090", "10.2.0.13:9090")
    ));
    let source = world.source_of("10.2.0.11:9090", CLIENT, SYN | ACK);
    assert_eq!(source.as_deref(), Ok("10.100.0.3:80"));
}

#[test]
fn by_source_hash_all_flows_of_a_client_meet_one_backend() {
    let with = "choose = \"source-hash\"\nforward = \"nat\"";
    let by_source = SERVICES.replacen("forward = \"nat\"", with, 1);
    let backends = |file: &str, from: &dyn Fn(u32) -> String| {
        let world = World::of(file, 4096);
        let chosen: std::collections::HashSet<_> = (0..100)
            .map(|n| world.tcp(&from(n), WEB, SYN).unwrap().backend.unwrap())
            .collect();
        chosen.len()
    };
    let many_ports = |n| format!("10.1.0.7:{}", 2000 + n);
    let many_clients = |n| format!("10.1.0.{}:2000", 2 + n);
    assert_eq!(backends(&by_source, &many_ports), 1);
    assert_eq!(backends(&by_source, &many_clients), 3);
    assert_eq!(backends(SERVICES, &many_ports), 3);
}

mod begin;
mod ways;
