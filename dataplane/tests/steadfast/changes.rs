//! Backends change in every way there is, in random order, while a hundred thousand connections
//! are alive: each stays with its backend, but for those whose backend was away when they sent.
//!
//! The oracle is `docs/CHANGES-OF-BACKENDS.md`, column *established*: a flow leaves its backend with a packet that it sends while that is down, disabled
//! or removed, and only then; it goes where the ring says, which is to a backend that is up; and
//! there it stays. One that is silent until its backend is back never notices.
//!
//! Some backends only ever change their weight, so half of the connections must never move. Of
//! those that moved some reconnect, as clients do that were reset, so that no backend runs dry.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use ringgate_dataplane::backend::Health;

use super::pool::{Change, Name, Pool, SERVICES, STEADY};
use super::random::Random;
use super::segment::{ACK, RST, SYN, Segment};
use super::world::{BACK, FRONT, GATEWAY, World};

/// Connections.
const FLOWS: u32 = if cfg!(debug_assertions) {
    2000
} else {
    100_000
};
/// Changes of backends.
const CHANGES: u32 = if cfg!(debug_assertions) { 200 } else { 10_000 };
/// After so many, all flows are looked at.
const ROUND: u32 = CHANGES / 20;
/// Flows that send after each change.
const SAMPLE: usize = 10;
/// Time between changes: all together three times what a silent connection is kept for, and a
/// round far less.
const PAUSE_MS: u64 = if cfg!(debug_assertions) {
    120_000
} else {
    2400
};

/// A connection.
#[derive(Debug)]
struct Flow {
    client: SocketAddrV4,
    service: usize,
    /// Its backend, and how often that had been away when it came.
    home: Name,
    absences: u32,
    moves: usize,
}

impl Flow {
    fn segment(&self, flags: u8) -> Segment {
        Segment {
            from: self.client,
            to: SERVICES[self.service],
            flags,
        }
    }
}

/// The worker, what is configured, and the connections.
struct Simulation {
    world: World,
    pool: Pool,
    flows: Vec<Flow>,
    moves: u64,
    opened: u64,
}

impl Simulation {
    fn new() -> Self {
        let pool = Pool::new();
        // Two entries for each nat flow, and room for those of replies of removed backends, which
        // stay until their time is up.
        let world = World::new(&pool.file(), FLOWS as usize * 4);
        let mut simulation = Self {
            world,
            pool,
            flows: Vec::new(),
            moves: 0,
            opened: 0,
        };
        for n in 0..FLOWS {
            let [_, b, c, d] = (n / 50).to_be_bytes();
            let port = 1024 + u16::try_from(n % 50).unwrap();
            let client = SocketAddrV4::new(Ipv4Addr::new(10, b, c, d), port);
            let home = Name { host: 0, life: 0 }; // until it is open
            simulation.flows.push(Flow {
                client,
                service: n as usize % 2,
                home,
                absences: 0,
                moves: 0,
            });
            simulation.open(n as usize);
        }
        simulation
    }

    /// A client's SYN, ACK, and first data.
    fn open(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        let hosts = [SYN, ACK, ACK].map(|flags| {
            let arrival = self.world.pass_one(FRONT, flow.segment(flags)).unwrap();
            Pool::host_of(flow.service, &arrival)
        });
        assert_eq!(hosts, [hosts[0]; 3]);
        let home = self.pool.at(flow.service, hosts[0]).unwrap();
        assert!(home.takes(), "{flow:?} came to {home:?}");
        (flow.home, flow.absences, flow.moves) = (home.name, home.absences, 0);
        self.opened += 1;
    }

    /// Flows that have moved, half of them only after the second time, end and begin anew.
    fn reconnect(&mut self) {
        for index in 0..self.flows.len() {
            let flow = &self.flows[index];
            if flow.moves > index / 2 % 2 {
                let sent = self.world.pass_one(FRONT, flow.segment(RST));
                assert!(sent.is_some());
                self.open(index);
            }
        }
    }

    /// Each of these flows sends a packet, and is answered.
    fn exchange(&mut self, flows: &[usize]) {
        let sent: Vec<Segment> = flows
            .iter()
            .map(|flow| self.flows[*flow].segment(ACK))
            .collect();
        let arrivals = self.world.pass(FRONT, &sent);
        let mut replies = Vec::new();
        for (index, arrival) in flows.iter().zip(arrivals) {
            let host = arrival.map(|arrival| Pool::host_of(self.flows[*index].service, &arrival));
            self.judge(*index, host);
            let flow = &self.flows[*index];
            if let Some(host) = host.filter(|_| flow.service == 0) {
                replies.push(Segment {
                    from: Pool::endpoint(0, host),
                    to: flow.client,
                    flags: ACK,
                });
            }
        }
        let arrivals = self.world.pass(BACK, &replies);
        for (reply, arrival) in replies.iter().zip(arrivals) {
            let arrival = arrival.expect("a reply arrives");
            assert_eq!(arrival.mac, GATEWAY);
            assert_eq!(arrival.segment.from, SERVICES[0]);
            assert_eq!(arrival.segment.to, reply.to);
        }
    }

    /// Whether it is right that a flow's packet came to `host`, or to none.
    fn judge(&mut self, index: usize, host: Option<u8>) {
        let flow = &mut self.flows[index];
        let home = self.pool.find(flow.service, flow.home);
        if home.is_some_and(|home| home.serves()) {
            assert_eq!(host, Some(flow.home.host), "{flow:?} has moved");
            return;
        }
        let Some(host) = host else {
            let any = self.pool.members[flow.service].iter().any(|m| m.takes());
            assert!(!any, "{flow:?} was dropped, and some backend is up");
            return;
        };
        let to = self.pool.at(flow.service, host).expect("a backend");
        assert!(to.takes(), "{flow:?} went to {to:?}");
        assert_eq!(
            self.world.ring_choice(flow.client, SERVICES[flow.service]),
            Some(Pool::endpoint(flow.service, host)),
            "{flow:?} went elsewhere than the ring says"
        );
        (flow.home, flow.absences) = (to.name, to.absences);
        flow.moves += 1;
        self.moves += 1;
    }

    /// Makes the pool's present state the worker's.
    fn publish(&mut self) {
        let members = &self.pool.members;
        self.world.publish(&self.pool.file(), |service, backend| {
            let nth = SERVICES
                .iter()
                .position(|s| service.listen().exact() == Some((*s).into()));
            let is_down = members[nth.unwrap()].iter().any(|member| {
                let endpoint = Pool::endpoint(nth.unwrap(), member.name.host);
                member.down && backend.address() == endpoint.into()
            });
            if is_down { Health::Down } else { Health::Up }
        });
    }

    /// Flows that were with their backend before it was away, and are again.
    fn spared(&self) -> usize {
        let is_spared = |flow: &&Flow| {
            let home = self.pool.find(flow.service, flow.home);
            home.is_some_and(|home| home.serves() && home.absences > flow.absences)
        };
        self.flows.iter().filter(is_spared).count()
    }
}

#[test]
fn backends_come_and_go_and_no_flow_moves() {
    let mut random = Random::of_test("backends_come_and_go");
    let mut simulation = Simulation::new();
    let all: Vec<usize> = (0..simulation.flows.len()).collect();
    let is_steady = |flow: &&Flow| flow.home.host < STEADY;
    let steady: Vec<(SocketAddrV4, Name)> = simulation
        .flows
        .iter()
        .filter(is_steady)
        .map(|flow| (flow.client, flow.home))
        .collect();
    let mut made = [0; Change::COUNT];
    let mut spared = 0;
    for n in 1..=CHANGES {
        made[simulation.pool.change(&mut random) as usize] += 1;
        simulation.publish();
        simulation.world.clock.advance(PAUSE_MS);
        let sample: [usize; SAMPLE] = std::array::from_fn(|_| random.below(all.len()));
        simulation.exchange(&sample);
        if n % ROUND == 0 {
            simulation.exchange(&all);
            spared += simulation.spared();
            simulation.reconnect();
        }
    }
    simulation.exchange(&all);

    let Simulation {
        world,
        flows,
        moves,
        opened,
        ..
    } = simulation;
    let events = &world.counters.flows;
    assert_eq!(events.created.get(), opened, "none was lost");
    assert_eq!(events.rehashed.get(), moves);
    assert_eq!((events.table_full.get(), events.contended.get()), (0, 0));
    let stayed = flows.iter().map(|flow| (flow.client, flow.home));
    let stayed: HashSet<(SocketAddrV4, Name)> = stayed.collect();
    assert!(steady.iter().all(|flow| stayed.contains(flow)));
    // That there was something to see.
    println!(
        "{} flows of steady backends, {moves} moves of others, {spared} times spared; {made:?}",
        steady.len()
    );
    assert!(steady.len() > all.len() / 3);
    assert!(moves > u64::from(FLOWS) / 4 && spared > all.len() / 50);
    assert!(made.iter().all(|times| *times > CHANGES / 100));
}
