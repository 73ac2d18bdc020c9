//! Many flows at once: floods, and everything that can happen to flows in any order.

use std::collections::HashMap;

use super::*;

#[test]
fn a_flood_of_syns_takes_no_port_from_who_completes_a_handshake() {
    let mut world = Sourced::of(FILE, 1 << 16, 500);
    let established: Vec<_> = (0..40)
        .map(|n| world.establish(&format!("10.1.0.2:{}", 100 + n), MANY))
        .collect();
    let mut served = Vec::new();
    let mut displaced = 0_u32;
    for n in 0..40_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let forged = format!("10.{}.{b}.{c}:{}", 128 + a, 1024 + n % 5000);
        let decision = world.tcp(&forged, MANY, SYN).unwrap();
        if let FlowEvent::HalfOpen { displaced: more } = decision.event {
            displaced += u32::from(more);
        }
        if n % 400 == 0 {
            // A client whose round trip takes a hundred SYNs of the flood.
            served.push((n, world.there("10.1.0.2:9000", MANY, SYN)));
        }
        if n % 400 == 100 {
            let (_, begun) = served.last().unwrap();
            let (source, backend) = begun.clone().unwrap();
            assert!(
                world.back(&backend, &source, SYN | ACK).is_ok(),
                "after {n}"
            );
            assert_eq!(
                world.there("10.1.0.2:9000", MANY, ACK),
                Ok((source, backend))
            );
            world.tcp("10.1.0.2:9000", MANY, RST).unwrap();
        }
        if n % 1000 == 0 {
            world.pass(1);
            world.sweep();
        }
    }
    assert!(displaced > 30_000, "{displaced} gave way");
    for (n, (source, backend)) in (0..).zip(&established) {
        let client = format!("10.1.0.2:{}", 100 + n);
        assert_eq!(
            world.there(&client, MANY, ACK),
            Ok((source.clone(), backend.clone()))
        );
    }
    world.assert_ports_are_those_of_the_flows();
    world.pass(20_000);
    world.sweep();
    assert_eq!(
        (world.usage().0, world.half_open(), world.flows()),
        (0, 0, 0)
    );
}

/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ mixed >> 27) % bound
    }

    fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

/// What clients and backends send, in any order.
struct Traffic {
    dice: Dice,
    /// Sources and backends of some flows.
    flows: Vec<(String, String)>,
}

impl Traffic {
    fn next(&mut self) -> Vec<u8> {
        let dice = &mut self.dice;
        let client = format!("10.1.0.2:{}", 1024 + dice.below(3000));
        let to = *dice.pick(&[WEB, MANY, "10.101.0.9:80"]);
        let flags = *dice.pick(&[SYN, SYN, ACK, ACK, ACK, FIN_ACK, RST]);
        match dice.below(5) {
            0 => udp(&client, DNS, b"?"),
            1 if !self.flows.is_empty() => {
                let (source, backend) = dice.pick(&self.flows);
                let flags = *self.dice.pick(&[SYN | ACK, ACK, FIN_ACK]);
                tcp(backend, source, flags, b"")
            }
            _ => tcp(&client, to, flags, b""),
        }
    }

    fn remember(&mut self, decision: &Decision<'_>) {
        let Action::Exchange(exchange, Direction::FromClient) = decision.action else {
            return;
        };
        let Exchange {
            source,
            destination,
        } = exchange;
        let flow = (source.to_string(), destination.to_string());
        if self.flows.len() < 500 {
            self.flows.push(flow);
        } else {
            let place = usize::try_from(self.dice.below(500)).unwrap();
            self.flows[place] = flow;
        }
    }
}

/// A hundred thousand flows, begun and ended in every way there is: afterwards all ports are free.
#[test]
fn whatever_happens_to_flows_no_port_is_lost_or_has_two_holders() {
    let mut world = Sourced::of(FILE, 600, 600);
    let mut traffic = Traffic {
        dice: Dice(17),
        flows: Vec::new(),
    };
    let mut events = HashMap::<String, u32>::new();
    let mut cursors = [world.table.share(0, 1), world.half_open.share(0, 1)];
    for step in 0..200_000 {
        let frame = traffic.next();
        let sent = if traffic.dice.below(2) == 0 {
            world.send(&frame)
        } else {
            world.send_to_other(&frame)
        };
        let event = match sent {
            Ok(decision) => {
                traffic.remember(&decision);
                format!("{:?}", decision.event)
            }
            Err(reason) => reason.name().to_owned(),
        };
        *events.entry(event).or_default() += 1;
        happen(&mut world, traffic.dice.below(4000), &mut cursors);
        if step % 20_000 == 0 {
            world.sweep();
            world.assert_ports_are_those_of_the_flows();
        }
    }
    let times = |event: &str| events.get(event).copied().unwrap_or(0);
    let waiting = ["HalfOpen { displaced: 0 }", "HalfOpen { displaced: 1 }"];
    for event in [
        "Created",
        "Rehashed",
        "unknown_return",
        "unstored",
        waiting[0],
        waiting[1],
    ] {
        assert!(times(event) > 10, "{event}: {events:?}");
    }
    let begun = times("Created") + waiting.map(times).iter().sum::<u32>();
    assert!(begun > 100_000, "{begun}");
    world.pass(20_000);
    world.sweep();
    let left = (world.usage().0, world.flows(), world.half_open());
    assert_eq!(left, (0, 0, 0));
    world.pass(61);
    assert_eq!(world.usage(), (0, 0));
}

/// Something that changes the world around flows, now and then.
fn happen(world: &mut Sourced, what: u64, cursors: &mut [ringgate_conntrack::Cursor; 2]) {
    match what {
        0 => world.world.down = vec!["10.2.0.11:8080"],
        1 => world.world.down.clear(),
        2 => world.pass(300),
        3 => {
            let now = Seconds(world.now);
            let mut flush = Flush::new(Scope::All, now);
            flush.go_on(&world.table, &world.snapshot, 8, now);
        }
        4 => world.change_sources(&["10.2.0.1", "10.2.0.2"]),
        5 => world.change_sources(&["10.2.0.2", "10.2.0.3"]),
        n if n < 200 => world.pass(1),
        _ => return,
    }
    world.world.publish();
    let sources = world.snapshot.sources();
    let ended = |ended| world.newcomers.settle(sources, ended);
    let now = Seconds(world.now);
    world.table.sweep(&mut cursors[0], 2, now, ended);
    let tick = world.newcomers.tick();
    world.half_open.sweep(&mut cursors[1], 2, tick, ended);
}
