//! Floods of SYNs against a table half full of established connections.

use std::net::{Ipv4Addr, SocketAddrV4};

use ringgate_conntrack::State;
use ringgate_dataplane::clock::Clock;

use super::random::Random;
use super::segment::{ACK, SYN, SYN_ACK, Segment};
use super::world::{BACK, FRONT, GATEWAY, INTERFACES, World, backend_address};

/// Flows that the table is for.
const CAPACITY: usize = if cfg!(debug_assertions) {
    10_000
} else {
    1_000_000
};
/// Established nat connections: two entries each, so half the table.
const ESTABLISHED: usize = CAPACITY / 4;
/// Rounds of the flood, and what begins and ends in each: one handshake.
const ROUNDS: usize = 1000;
/// SYNs of a round: ten for each flow of the capacity in all.
const SYNS: usize = CAPACITY * 10 / ROUNDS;
/// How long a round takes: a million SYNs a second against a million flows.
const ROUND_MS: u64 = 10;

/// Of the handshakes begun during the flood, how many percent at least are complete, with both
/// entries, where half-open flows are remembered.
const COMPLETE_PERCENT: usize = 95;

const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
const ALT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 80);

/// A nat service with so many backends.
fn service(name: &str, listen: SocketAddrV4, backends: u8) -> String {
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\nprotocol = \"tcp\"\n\
         forward = \"nat\"\ntable-size = 4093\n"
    );
    for host in 0..backends {
        let address = backend_address(0, host);
        text += &format!("[[service.backend]]\naddress = \"{address}:8080\"\n");
    }
    text
}

/// A connection whose handshake has begun.
#[derive(Debug, Clone, Copy)]
struct Connection {
    client: SocketAddrV4,
    service: SocketAddrV4,
    backend: SocketAddrV4,
}

/// The worker, its services, and who is connected.
struct Siege {
    world: World,
    services: Vec<SocketAddrV4>,
    connections: Vec<Connection>,
    clients: u32,
    /// SYNs of the flood that did not leave.
    refused: usize,
}

impl Siege {
    fn new(file: &str, services: &[SocketAddrV4]) -> Self {
        let mut siege = Self {
            world: World::new(&format!("{INTERFACES}{file}"), CAPACITY),
            services: services.to_vec(),
            connections: Vec::new(),
            clients: 0,
            refused: 0,
        };
        for _ in 0..ESTABLISHED {
            let connection = siege.begin();
            for flags in [ACK, ACK] {
                assert!(siege.send(&connection, flags));
            }
            siege.connections.push(connection);
        }
        siege
    }

    /// The next client's SYN.
    fn begin(&mut self) -> Connection {
        let [_, b, c, d] = (self.clients / 16).to_be_bytes();
        let port = 2000 + u16::try_from(self.clients % 16).unwrap();
        let client = SocketAddrV4::new(Ipv4Addr::new(10, b, c, d), port);
        let service = self.services[self.clients as usize % self.services.len()];
        self.clients += 1;
        let syn = Segment {
            from: client,
            to: service,
            flags: SYN,
        };
        let arrival = self.world.pass_one(FRONT, syn).expect("a SYN arrives");
        Connection {
            client,
            service,
            backend: arrival.segment.to,
        }
    }

    /// Whether a segment of the client arrives at its backend.
    fn send(&mut self, connection: &Connection, flags: u8) -> bool {
        let segment = Segment {
            from: connection.client,
            to: connection.service,
            flags,
        };
        let arrival = self.world.pass_one(FRONT, segment);
        arrival.is_some_and(|arrival| arrival.segment.to == connection.backend)
    }

    /// Whether a segment of the backend arrives at its client.
    fn answer(&mut self, connection: &Connection, flags: u8) -> bool {
        let segment = Segment {
            from: connection.backend,
            to: connection.client,
            flags,
        };
        let expected = Segment {
            from: connection.service,
            ..segment
        };
        let arrival = self.world.pass_one(BACK, segment);
        arrival.is_some_and(|arrival| arrival.mac == GATEWAY && arrival.segment == expected)
    }

    /// Whether both entries are there and established.
    fn is_established(&self, connection: &Connection) -> bool {
        let Connection {
            client,
            service,
            backend,
        } = *connection;
        let both = [
            self.world.state(client, service),
            self.world.state(backend, client),
        ];
        both == [Some(State::Established); 2]
    }

    /// SYNs of a round, from anybody.
    fn flood(&mut self, random: &mut Random) {
        let syns: Vec<Segment> = (0..SYNS)
            .map(|_| Segment {
                from: random.client(),
                to: self.services[random.below(self.services.len())],
                flags: SYN,
            })
            .collect();
        for (part, syns) in (1..).zip(syns.chunks(SYNS.div_ceil(10))) {
            let left = self.world.pass_unseen(FRONT, syns);
            self.refused += syns.len() - left;
            self.world
                .clock
                .advance(ROUND_MS * part / 10 - ROUND_MS * (part - 1) / 10);
        }
    }

    /// Every established connection sends, is answered, and both its entries are there.
    fn assert_all_are_there(&mut self) {
        for connection in std::mem::take(&mut self.connections) {
            assert!(self.is_established(&connection), "{connection:?}");
            assert!(self.send(&connection, ACK), "{connection:?}");
            assert!(self.answer(&connection, ACK), "{connection:?}");
        }
    }

    /// How many entries are in which state: established, half open, others.
    fn census(&self) -> [usize; 3] {
        let mut census = [0; 3];
        let now = self.world.clock.now().seconds();
        self.world.table.for_each(now, |_, found| {
            census[match found.state {
                State::Established => 0,
                State::Opening => 1,
                _ => 2,
            }] += 1;
        });
        census
    }
}

#[test]
fn a_syn_flood_leaves_no_trace() {
    let mut random = Random::of_test("a_syn_flood_leaves_no_trace");
    let mut siege = Siege::new(&service("web", WEB, 20), &[WEB]);
    assert_eq!(siege.world.table.stored(), ESTABLISHED * 2);
    let mut begun: Vec<Connection> = Vec::new();
    for round in 0..ROUNDS + 2 {
        if round < ROUNDS {
            begun.push(siege.begin());
            assert!(siege.answer(&begun[round], SYN_ACK));
        }
        // A round trip is a round of the flood.
        if (1..=ROUNDS).contains(&round) {
            assert!(siege.send(&begun[round - 1], ACK));
        }
        if round >= 2 {
            assert!(siege.send(&begun[round - 2], ACK));
        }
        siege.flood(&mut random);
        if round % 100 == 0 {
            let acked = round.min(ROUNDS);
            assert_eq!(siege.world.table.stored(), (ESTABLISHED + acked) * 2);
        }
        let old = siege.connections[random.below(ESTABLISHED)];
        assert!(siege.send(&old, ACK) && siege.answer(&old, ACK));
    }
    assert_eq!(siege.world.table.stored(), (ESTABLISHED + ROUNDS) * 2);
    assert_eq!(siege.census(), [(ESTABLISHED + ROUNDS) * 2, 0, 0]);
    assert_eq!(siege.refused, 0);
    siege.connections.extend(begun);
    siege.assert_all_are_there();
    let flows = &siege.world.counters.flows;
    assert_eq!(flows.created.get(), (ESTABLISHED + ROUNDS) as u64);
    assert_eq!((flows.table_full.get(), flows.rehashed.get()), (0, 0));
}

/// Where a table must tell whose a flow or its reply is, half-open flows lie in a region of their
/// own. There the flood's and the newcomers' displace each other, the oldest first; the flow table
/// does not see the flood at all.
fn a_flood_fills_the_half_open_region_and_nothing_else(
    name: &str,
    file: &str,
    to: &[SocketAddrV4],
) {
    let mut random = Random::of_test(name);
    let mut siege = Siege::new(file, to);
    let [stored, created] = [ESTABLISHED * 2, ESTABLISHED];
    assert_eq!(siege.world.table.stored(), stored);
    assert_eq!(siege.world.half_open.stored(), 0);
    let mut begun: Vec<Connection> = Vec::new();
    let mut answered = 0;
    for round in 0..ROUNDS + 2 {
        if round < ROUNDS {
            begun.push(siege.begin());
        }
        siege.flood(&mut random);
        // A round trip is a round of the flood; the backend is half way.
        if round < ROUNDS {
            answered += usize::from(siege.answer(&begun[round], SYN_ACK));
        }
        if (1..=ROUNDS).contains(&round) {
            siege.send(&begun[round - 1], ACK);
        }
        if round >= 2 {
            siege.send(&begun[round - 2], ACK);
        }
        let old = siege.connections[random.below(ESTABLISHED)];
        assert!(siege.send(&old, ACK) && siege.answer(&old, ACK));
        if round == ROUNDS / 2 {
            // What has come is no more than the handshakes that were completed.
            assert!(siege.world.table.stored() <= stored + round * 2);
        }
    }
    begun.retain(|connection| siege.is_established(connection));
    let flows = &siege.world.counters.flows;
    println!(
        "{name}: of {ROUNDS} {answered} answered, {} complete; half open {} of {}, displaced {}",
        begun.len(),
        siege.world.half_open.stored(),
        siege.world.half_open.slots(),
        flows.half_open_displaced.get(),
    );
    assert!(begun.len() * 100 >= ROUNDS * COMPLETE_PERCENT);
    let [established, half_open, others] = siege.census();
    assert!(established >= stored + begun.len() * 2 && others == 0);
    // A client that was displaced is met in mid-stream, as if the balancer had been restarted.
    assert!(established + half_open <= stored + ROUNDS * 2);
    assert!(flows.created.get() <= (created + ROUNDS) as u64);
    assert_eq!((flows.rehashed.get(), flows.table_full.get()), (0, 0));
    // Flooded it was: no room is left, and far more came than found some.
    let slots = siege.world.half_open.slots() as usize;
    assert!(siege.world.half_open.stored() > slots * 99 / 100);
    assert!(flows.half_open.get() > 9 * CAPACITY as u64);
    assert!(flows.half_open_displaced.get() > 9 * CAPACITY as u64);
    siege.connections.extend(begun);
    siege.assert_all_are_there();
}

#[test]
fn a_syn_flood_on_shared_backends_fills_the_half_open_region_only() {
    let file = service("web", WEB, 1) + &service("alt", ALT, 1);
    a_flood_fills_the_half_open_region_and_nothing_else(
        "a_syn_flood_on_shared",
        &file,
        &[WEB, ALT],
    );
}

#[test]
fn a_syn_flood_where_the_fewest_flows_decide_fills_the_half_open_region_only() {
    let chosen = "forward = \"nat\"\nchoose = \"least-connections\"";
    let file = service("web", WEB, 20).replace("forward = \"nat\"", chosen);
    a_flood_fills_the_half_open_region_and_nothing_else(
        "a_syn_flood_where_the_fewest",
        &file,
        &[WEB],
    );
}
