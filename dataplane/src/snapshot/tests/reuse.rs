//! What is reused of the last snapshot is what would have been made anew.

use std::fmt::Write as _;

use super::*;
use crate::route::{Link, Target};
use crate::wire::ethernet::Mac;

/// Numbers below a bound, always the same ones.
struct Dice(u64);

impl Dice {
    /// xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

#[derive(Clone)]
struct Server {
    host: u64,
    weight: u64,
    disabled: bool,
    health: Health,
}

#[derive(Clone)]
struct Listed {
    number: u64,
    kind: u64,
    name: u64,
    more: u64,
    servers: Vec<Server>,
}

/// By number, so that a service has one kind for good: others need other addresses.
const KINDS: [(&str, &str); 4] = [("nat", ":8080"), ("nat", ""), ("ipip", ""), ("dsr-l2", "")];

const MORE: [&str; 6] = [
    "",
    "choose = \"round-robin\"",
    "choose = \"least-connections\"",
    "slow-start = \"30s\"",
    "min-healthy = 2\nwhen-below = \"open\"",
    "timeouts = { tcp-established = \"1h\" }",
];

impl Listed {
    fn new(number: u64, dice: &mut Dice) -> Self {
        let mut one = Self {
            number,
            kind: dice.below(4),
            name: number,
            more: dice.below(6),
            servers: Vec::new(),
        };
        for host in 1..6 {
            if dice.one_in(2) {
                one.servers.push(Server::new(host));
            }
        }
        one
    }

    fn text(&self) -> String {
        let kind = usize::try_from(self.kind).unwrap();
        let (forward, port) = KINDS[kind];
        let more = MORE[usize::try_from(self.more).unwrap()];
        let mut text = format!(
            "[[service]]\nname = \"s{}-{}\"\nlisten = \"10.100.0.{}:80\"\nprotocol = \"tcp\"\n\
             forward = \"{forward}\"\ntable-size = 251\n{more}\n",
            self.number, self.name, self.number
        );
        for server in &self.servers {
            // Translated backends are shared now and then, others never are asked for replies.
            let host = if kind == 0 {
                server.host
            } else {
                server.host + 10
            };
            let Server {
                weight, disabled, ..
            } = server;
            write!(
                text,
                "[[service.backend]]\naddress = \"10.2.0.{host}{port}\"\nweight = {weight}\ndisabled = {disabled}\n"
            )
            .unwrap();
        }
        text
    }
}

impl Server {
    const fn new(host: u64) -> Self {
        Self {
            host,
            weight: 100,
            disabled: false,
            health: Health::Pending,
        }
    }
}

/// One change, of whatever sort.
fn edit(services: &mut Vec<Listed>, dice: &mut Dice) {
    let count = services.len() as u64;
    match dice.below(12) {
        0 => {
            let number = dice.below(9) + 1;
            if services.iter().all(|one| one.number != number) {
                let at = usize::try_from(dice.below(count + 1)).unwrap();
                services.insert(at, Listed::new(number, dice));
            }
        }
        1 if count > 1 => drop(services.remove(usize::try_from(dice.below(count)).unwrap())),
        2 => services.reverse(),
        what if count > 0 => {
            let at = usize::try_from(dice.below(count)).unwrap();
            change(&mut services[at], what, dice);
        }
        _ => {}
    }
}

fn change(one: &mut Listed, what: u64, dice: &mut Dice) {
    let servers = one.servers.len() as u64;
    let host = dice.below(6) + 1;
    match what {
        3 => one.more = dice.below(6),
        4 => one.name += 1,
        5 if one.servers.iter().all(|server| server.host != host) => {
            let at = usize::try_from(dice.below(servers + 1)).unwrap();
            one.servers.insert(at, Server::new(host));
        }
        _ if servers == 0 => {}
        6 => drop(
            one.servers
                .remove(usize::try_from(dice.below(servers)).unwrap()),
        ),
        7 => one.servers.reverse(),
        _ => {
            let server = &mut one.servers[usize::try_from(dice.below(servers)).unwrap()];
            match dice.below(4) {
                0 => server.weight = dice.below(3) * 50,
                1 => server.disabled = !server.disabled,
                2 => server.health = Health::Up,
                _ => {
                    let said = [Health::Up, Health::Down, Health::Suspect, Health::Pending];
                    server.health = said[usize::try_from(dice.below(4)).unwrap()];
                }
            }
        }
    }
}

fn network(last: u64) -> Arc<Fib> {
    let mac = Mac([2, 0, 0, 0, 0, u8::try_from(last).unwrap()]);
    let mut fib = Fib::new(vec![Link {
        mac,
        mtu: 1500,
        up: true,
    }]);
    let target = Target::Port {
        port: 0,
        gateway: None,
    };
    fib.insert_route("10.2.0.0/16".parse().unwrap(), target);
    for host in 1..20 {
        let neighbour = format!("10.2.0.{host}").parse().unwrap();
        fib.insert_neighbour(0, neighbour, mac);
    }
    Arc::new(fib)
}

/// All that a snapshot has for a model, in words.
fn told(snapshot: &Snapshot, model: &Model) -> String {
    let mut told = format!(
        "{:#?}\n{:#?}\n{:?}\n{:?}\n",
        snapshot.services, snapshot.backends, snapshot.steered, snapshot.lifetimes
    );
    for identity in model.services().iter().flat_map(identities_of) {
        let found = snapshot.reply_from(identity.address, identity.protocol);
        let shared = snapshot.returns.is_shared(&identity);
        writeln!(told, "{found:?} {shared}").unwrap();
    }
    for service in model.services() {
        let at = Endpoint::from_socket(service.listen().exact().unwrap());
        writeln!(told, "{:?}", snapshot.service_of(at, 6)).unwrap();
    }
    told
}

#[test]
fn what_is_reused_is_what_would_have_been_made() {
    let (mut built, mut shared, mut reused) = (0, 0, 0);
    for seed in 1..=12 {
        let mut dice = Dice(seed * 0x9E37_79B9);
        let (mut reusing, mut plain) = (Builder::default(), Builder::default());
        let (mut services, mut now) = (Vec::new(), 1_000_u64);
        let mut fib = network(1);
        for _ in 0..80 {
            for _ in 0..=dice.below(3) {
                edit(&mut services, &mut dice);
            }
            if dice.one_in(10) {
                fib = network(dice.below(9));
            }
            now += dice.below(9_000);
            let text: String = services.iter().map(Listed::text).collect();
            let text = format!("[[interface]]\nname = \"eth0\"\n{text}");
            let Ok(parsed) = ringgate_config::parse("test.toml", &text) else {
                continue; // such as two ways for the replies of one backend
            };
            let model = parsed.model;
            let health = |service: &ringgate_config::Service, at: usize| {
                let octet = service.listen().prefix().addr().to_string();
                let number = octet.rsplit('.').next().unwrap().parse::<u64>().unwrap();
                let listed = services.iter().find(|one| one.number == number).unwrap();
                listed.servers[at].health
            };
            let last = reusing.parts.each.clone();
            let one = reusing.at(Millis(now)).build(&model, health, &fib, false);
            let one = one.unwrap();
            // Nothing of the last is believed but where backends stood, and no ring is there yet.
            plain.parts = std::mem::take(&mut plain.parts).doubted();
            plain.rings.clear();
            let other = plain.at(Millis(now)).build(&model, health, &fib, false);
            shared += usize::from(one.returns.has_shared());
            let (one, other) = (told(&one, &model), told(&other.unwrap(), &model));
            assert_eq!(one, other, "seed {seed}, {text}");
            assert_eq!(reusing.next_step(), plain.next_step());
            built += 1;
            let is_kept = |part| last.iter().any(|last| Arc::ptr_eq(last, part));
            reused += reusing
                .parts
                .each
                .iter()
                .filter(|part| is_kept(part))
                .count();
        }
    }
    assert!(
        built > 500 && shared > 30 && reused > 100,
        "{built} {shared} {reused}"
    );
}

#[test]
fn after_a_snapshot_that_could_not_be_made_nobody_has_anothers_id() {
    let mut builder = Builder::default();
    let first = build(&mut builder, FILE, &[]);
    // As far as it gets before slots are missing: the second backend's is free.
    let ids = builder.registry.exchange(
        &[BackendIdentity {
            address: Endpoint::from_socket(at("10.2.0.12:8080")),
            ..identities_of(&model(FILE).services()[0]).next().unwrap()
        }],
        std::iter::empty(),
    );
    assert_eq!(ids, Ok(vec![]));
    builder.parts = std::mem::take(&mut builder.parts).doubted();
    let back = build(&mut builder, FILE, &[]);
    let (before, now) = (super::ids(&first), super::ids(&back));
    assert_eq!((before[0], before[2]), (now[0], now[2]));
    assert_ne!(before[1], now[1]);
    assert!(back.backend(before[1]).is_none() && back.backend(now[1]).is_some());
}
