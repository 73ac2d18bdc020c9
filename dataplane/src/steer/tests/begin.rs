//! Flows that begin: half-open ones and their life, turns, fewest flows, the limit for datagrams.

use std::collections::HashMap;

use super::*;

const FIN: u8 = 0x01;
const LIMITED: u32 = 1000;

/// A service whose new flows are given out in this order, to backends of these weights.
fn service(choose: &str, protocol: &str, forward: &str, weights: &[u32]) -> String {
    let mut file = format!(
        "[[interface]]\nname = \"front\"\n[[interface]]\nname = \"back\"\n[[service]]\n\
         name = \"web\"\nlisten = \"10.100.0.1:80\"\nprotocol = \"{protocol}\"\n\
         forward = \"{forward}\"\nchoose = \"{choose}\"\ntable-size = 1009\n"
    );
    for (host, weight) in (11..).zip(weights) {
        file += &format!("[[service.backend]]\naddress = \"10.2.0.{host}\"\nweight = {weight}\n");
    }
    file
}

fn client(n: u32) -> String {
    format!("10.1.0.2:{}", 2000 + n)
}

impl World {
    /// Entries of half-open flows.
    fn awaited(&self) -> usize {
        let mut count = 0;
        self.half_open
            .for_each(self.newcomers.tick(), |_, _| count += 1);
        count
    }

    /// To which backend a SYN, or a datagram, goes: its number in the file.
    fn begin(&self, n: u32, protocol: &str) -> usize {
        let frame = match protocol {
            "tcp" => tcp(&client(n), WEB, SYN, b""),
            _ => udp(&client(n), WEB, b"?"),
        };
        self.number(self.send(&frame).unwrap().backend)
    }

    fn number(&self, id: Option<BackendId>) -> usize {
        let members = &self.snapshot.services()[0].members;
        members.iter().position(|m| Some(*m) == id).unwrap()
    }

    fn states(&self, from: &str, to: &str) -> [Option<State>; 2] {
        let key = FlowKey::new(
            6,
            Endpoint::from_socket(at(from)),
            Endpoint::from_socket(at(to)),
        );
        let hash = self.table.hash(&key);
        let state = |found: Option<Found>| found.map(|found| found.state);
        [
            state(self.table.lookup(&key, hash, Seconds(self.now))),
            state(self.half_open.lookup(&key, hash, self.newcomers.tick())),
        ]
    }
}

#[test]
fn a_half_open_flow_lies_apart_until_its_handshake_is_complete() {
    for choose in ["round-robin", "least-connections"] {
        let world = World::of(&service(choose, "tcp", "nat", &[1, 1, 1]), 1024);
        let backend = world.backend_of(CLIENT, WEB, SYN);
        assert_eq!((world.flows(), world.awaited()), (0, 2));
        // Whatever is sent again meets the same flow, and takes no other's turn.
        for _ in 0..5 {
            assert_eq!(world.backend_of(CLIENT, WEB, SYN), backend);
            let source = world.source_of(&backend, CLIENT, SYN | ACK);
            assert_eq!(source.as_deref(), Ok(WEB));
        }
        assert_eq!((world.flows(), world.awaited()), (0, 2));
        let done = world.tcp(CLIENT, WEB, ACK).unwrap();
        assert_eq!(done.event, FlowEvent::Created);
        assert_eq!(
            done.action,
            Action::ToBackend(Endpoint::from_socket(at(&backend)))
        );
        assert_eq!((world.flows(), world.awaited()), (2, 0));
        let established = [Some(State::Established), None];
        assert_eq!(world.states(CLIENT, WEB), established);
        assert_eq!(world.states(&backend, CLIENT), established);
        assert_eq!(world.backend_of(CLIENT, WEB, ACK), backend);
        let id = done.backend.unwrap();
        assert_eq!(world.table.flows_of(id.0), 1);
    }
}

#[test]
fn a_refused_handshake_is_closed_and_the_next_begins_anew() {
    let world = World::of(&service("round-robin", "tcp", "nat", &[1, 1]), 1024);
    let first = world.backend_of(CLIENT, WEB, SYN);
    assert_eq!(
        world.source_of(&first, CLIENT, RST | ACK).as_deref(),
        Ok(WEB)
    );
    assert_eq!(world.states(CLIENT, WEB), [None, Some(State::Closed)]);
    assert_eq!(world.states(&first, CLIENT), [None, Some(State::Closed)]);
    let second = world.backend_of(CLIENT, WEB, SYN);
    assert_ne!(first, second, "the next one's turn");
    assert_eq!(world.states(CLIENT, WEB), [None, Some(State::Opening)]);
    assert_eq!((world.flows(), world.awaited()), (0, 2));
    // The client gives up.
    world.tcp(CLIENT, WEB, RST).unwrap();
    assert_eq!(world.states(&second, CLIENT), [None, Some(State::Closed)]);
    assert_eq!(world.flows(), 0);
}

#[test]
fn a_half_open_flow_whose_backend_goes_down_begins_with_another() {
    let mut world = World::of(&service("least-connections", "tcp", "nat", &[1, 1]), 1024);
    let first = world.backend_of(CLIENT, WEB, SYN);
    let lost = world.tcp(CLIENT, WEB, SYN).unwrap().backend.unwrap();
    world.down = vec![if first.starts_with("10.2.0.11") {
        "10.2.0.11:80"
    } else {
        "10.2.0.12:80"
    }];
    world.publish();
    let second = world.backend_of(CLIENT, WEB, SYN);
    assert_ne!(first, second);
    assert_eq!(world.awaited(), 2);
    assert_eq!(world.table.flows_of(lost.0), 0);
    assert_eq!(world.backend_of(CLIENT, WEB, ACK), second);
    assert_eq!((world.flows(), world.awaited()), (2, 0));
}

#[test]
fn a_complete_handshake_that_finds_no_room_waits_with_its_backend() {
    let world = World::of(&service("round-robin", "tcp", "nat", &[1, 1]), 12);
    let mut kept = Vec::new();
    let mut waiting = Vec::new();
    for n in 0..200 {
        let client = client(n);
        let backend = world.backend_of(&client, WEB, SYN);
        let done = world.tcp(&client, WEB, ACK).unwrap();
        assert_eq!(world.backend_of(&client, WEB, ACK), backend);
        match done.event {
            FlowEvent::Created => kept.push((client, backend)),
            FlowEvent::TableFull => waiting.push((client, backend)),
            other => panic!("{other:?}"),
        }
    }
    assert!(kept.len() >= 6 && waiting.len() > 100);
    // Where an old one ends there is room, and the half-open entries were not used up by waiting.
    for (client, _) in &kept {
        world.tcp(client, WEB, RST).unwrap();
    }
    let created = waiting.iter().filter(|(client, backend)| {
        let decision = world.tcp(client, WEB, ACK).unwrap();
        assert_eq!(
            decision.action,
            Action::ToBackend(Endpoint::from_socket(at(backend)))
        );
        decision.event == FlowEvent::Created
    });
    assert!(created.count() >= 3);
}

#[test]
fn turns_are_given_by_weight_to_those_that_take_new_flows() {
    for (protocol, forward) in [
        ("tcp", "nat"),
        ("tcp", "dsr-l2"),
        ("udp", "nat"),
        ("udp", "dsr-l2"),
    ] {
        let mut world = World::of(&service("round-robin", protocol, forward, &[3, 0, 2]), 4096);
        for cycle in 0..20 {
            let mut counts = [0; 3];
            for n in 0..5 {
                counts[world.begin(cycle * 5 + n, protocol)] += 1;
            }
            assert_eq!(counts, [3, 0, 2], "{protocol} {forward}");
        }
        world.down = vec!["10.2.0.13:80"];
        world.publish();
        assert!((200..250).all(|n| world.begin(n, protocol) == 0));
    }
}

#[test]
fn the_fewest_flows_for_the_weight_get_the_next_one() {
    for (protocol, forward) in [("tcp", "nat"), ("udp", "nat"), ("udp", "dsr-l2")] {
        let file = service("least-connections", protocol, forward, &[100, 50, 0]);
        let world = World::of(&file, 4096);
        let mut counts = [0; 3];
        for n in 0..300 {
            counts[world.begin(n, protocol)] += 1;
            // Never further than one flow from what the weights say.
            let [a, b, none] = counts;
            assert!(a <= 2 * b + 2 && b <= a / 2 + 1 && none == 0, "{counts:?}");
        }
        assert_eq!(counts, [200, 100, 0], "{protocol} {forward}");
    }
}

#[test]
fn flows_that_stay_longer_with_one_backend_send_the_others_to_the_rest() {
    let world = World::of(
        &service("least-connections", "tcp", "nat", &[1, 1, 1]),
        4096,
    );
    let mut held: Vec<Vec<String>> = vec![Vec::new(); 3];
    let mut given = [0; 3];
    for n in 0..3000 {
        let host = world.begin(n, "tcp");
        world.tcp(&client(n), WEB, ACK).unwrap();
        given[host] += 1;
        held[host].push(client(n));
        // With the second backend connections take three times as long.
        let ends = |host: usize| n % 8 < if host == 1 { 1 } else { 3 };
        for (host, clients) in held.iter_mut().enumerate() {
            if !clients.is_empty() && ends(host) {
                let client = clients.remove(0);
                world.tcp(&client, WEB, RST).unwrap();
            }
        }
    }
    let loads = held.iter().map(Vec::len).collect::<Vec<_>>();
    let spread = loads.iter().max().unwrap() - loads.iter().min().unwrap();
    assert!(spread <= 2, "{loads:?} of {given:?}");
    assert!(
        given[1] * 2 < given[0] && given[1] * 2 < given[2],
        "{given:?}"
    );
}

#[test]
fn in_a_large_service_the_best_of_a_few_keeps_the_load_even() {
    let weights: Vec<u32> = (0..200).map(|n| if n % 2 == 0 { 10 } else { 20 }).collect();
    let file = service("least-connections", "udp", "nat", &weights).replace("1009", "20011");
    let mut world = World::of(&file, 1 << 16);
    let mut fib = fib();
    for host in 14..=210 {
        fib.insert_neighbour(1, [10, 2, 0, host].into(), Mac([2, 0, 0, 0, 2, host]));
    }
    world.fib = Arc::new(fib);
    world.publish();
    let mut counts = vec![0_u32; 200];
    for n in 0..12_000 {
        counts[world.begin(n, "udp")] += 1;
    }
    // 40 for each weight of 10. By the ring alone the fullest would have half as many again.
    for (count, weight) in counts.iter().zip(&weights) {
        let share = 4 * weight;
        assert!(
            (share * 8 / 10..=share * 11 / 10).contains(count),
            "{counts:?}"
        );
    }
}

#[test]
fn what_is_met_in_mid_stream_goes_where_the_ring_says() {
    for choose in ["round-robin", "least-connections"] {
        let world = World::of(&service(choose, "tcp", "nat", &[1, 1, 1]), 4096);
        for n in 0..100 {
            let decision = world.tcp(&client(n), WEB, ACK).unwrap();
            let key = parse(&tcp(&client(n), WEB, ACK, b""), false).unwrap().key;
            assert_eq!(
                decision.backend,
                world.snapshot.services()[0].choose(&key, 0)
            );
        }
        assert_eq!((world.flows(), world.awaited()), (200, 0));
    }
}

#[test]
fn datagrams_beyond_the_limit_go_where_the_ring_says_and_leave_no_trace() {
    for choose in [
        "flow-hash",
        "source-hash",
        "round-robin",
        "least-connections",
    ] {
        let mut world = World::of(&service(choose, "udp", "nat", &[1, 1, 1]), 4096);
        let half_open = Arc::clone(&world.half_open);
        world.newcomers = Newcomers::new(half_open, LIMITED, 1, Millis(1000));
        let burst = LIMITED / 10;
        for n in 0..burst {
            let frame = udp(&client(n), WEB, b"?");
            assert_eq!(world.send(&frame).unwrap().event, FlowEvent::Created);
        }
        for n in burst..burst * 3 {
            let frame = udp(&client(n), WEB, b"?");
            let key = parse(&frame, false).unwrap().key;
            let decision = world.send(&frame).unwrap();
            let ring = world.snapshot.services()[0].choose(&key, 0);
            assert_eq!(
                (decision.event, decision.backend),
                (FlowEvent::TooFast, ring)
            );
        }
        assert_eq!(world.flows(), burst as usize * 2);
        // Known flows are not concerned, and time makes room.
        let known = world.send(&udp(&client(0), WEB, b"?")).unwrap();
        assert_eq!(known.event, FlowEvent::None);
        world.newcomers.advance(Millis(1001));
        let next = world.send(&udp(&client(burst * 4), WEB, b"?")).unwrap();
        assert_eq!(next.event, FlowEvent::Created);
    }
}

#[test]
fn where_nothing_can_be_remembered_the_ring_decides() {
    for choose in ["round-robin", "least-connections"] {
        let world = World::of(&service(choose, "udp", "nat", &[1, 1, 1]), 12);
        // Flows that may not be evicted fill the table.
        for n in 0..200 {
            let number = world.begin(n, "udp");
            world
                .send(&udp(
                    &format!("10.2.0.{}:80", 11 + number),
                    &client(n),
                    b"!",
                ))
                .unwrap();
        }
        let full = (1000..1100).filter(|n| {
            let frame = udp(&client(*n), WEB, b"?");
            let decision = world.send(&frame).unwrap();
            let key = parse(&frame, false).unwrap().key;
            let is_full = decision.event == FlowEvent::TableFull;
            assert!(!is_full || decision.backend == world.snapshot.services()[0].choose(&key, 0));
            is_full
        });
        assert!(full.count() > 50);
    }
}

impl World {
    /// Every owner's count is what a look at every entry says.
    fn assert_counts<'a>(&self, owners: impl Iterator<Item = &'a u32>) {
        let mut counts: HashMap<u32, u64> = HashMap::new();
        for table in [&self.table, &self.half_open] {
            // As if no time had passed: ended entries count until they are swept.
            table.for_each(Seconds(0), |_, found| {
                let is_first = found.direction == Direction::FromClient;
                *counts.entry(found.owner).or_default() +=
                    u64::from(is_first && !found.state.is_closed());
            });
        }
        for owner in owners {
            let expected = counts.get(owner).copied().unwrap_or(0);
            assert_eq!(self.table.flows_of(*owner), expected, "{owner:#x}");
        }
    }
}

/// Every count of live flows against a look at every entry, after whatever can happen to flows.
#[test]
fn counts_of_live_flows_are_exact_after_any_churn() {
    let file = service("least-connections", "tcp", "nat", &[1, 2, 3])
        + &service("round-robin", "tcp", "nat", &[1, 1, 1])
            .split_once("[[service]]")
            .map(|(_, rest)| format!("[[service]]{rest}"))
            .unwrap()
            .replace("10.100.0.1:80", "10.100.0.5:80")
            .replace("web", "twin");
    let without = file.replacen(
        "[[service.backend]]\naddress = \"10.2.0.12\"\nweight = 2\n",
        "",
        1,
    );
    let mut world = World::of(&file, 300);
    let mut random = 1_u64;
    let mut below = |bound: u32| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((random >> 33) % u64::from(bound)).unwrap()
    };
    let mut cursors = [world.table.share(0, 1), world.half_open.share(0, 1)];
    let (mut owners, mut events) = (HashMap::new(), HashMap::new());
    for step in 0..30_000_u32 {
        let (client, to) = (
            client(below(400)),
            [WEB, "10.100.0.5:80"][below(2) as usize],
        );
        let flags = [SYN, SYN, ACK, ACK, ACK, FIN | ACK, RST][below(7) as usize];
        let sent = match below(4) {
            0 => world.tcp(&format!("10.2.0.{}:80", 11 + below(3)), &client, flags),
            _ => world.tcp(&client, to, flags),
        };
        if let Ok(decision) = sent {
            *events.entry(format!("{:?}", decision.event)).or_insert(0) += 1;
            decision.backend.map(|id| owners.insert(id.0, ()));
        }
        match below(2000) {
            0 => world.down = vec!["10.2.0.11:80"],
            1 => world.down.clear(),
            2 => world.reload(&without),
            3 => world.reload(&file),
            4 => world.now += 3000,
            n if n < 100 => world.now += 1,
            _ => continue,
        }
        world.publish();
        world.newcomers.advance(Millis(u64::from(world.now) * 1000));
        let now = Seconds(world.now);
        world.table.sweep(&mut cursors[0], 2, now, |_| {});
        world
            .half_open
            .sweep(&mut cursors[1], 2, world.newcomers.tick(), |_| {});
        if step % 50 == 0 {
            world.assert_counts(owners.keys());
        }
    }
    for event in [
        "Created",
        "Rehashed",
        "TableFull",
        "HalfOpen { displaced: 0 }",
    ] {
        assert!(
            events.get(event).is_some_and(|times| *times > 20),
            "{event}: {events:?}"
        );
    }
    assert!(owners.len() > 6);
}
