//! A balancer without ports: configuration, checks, table, and packets to ask it with.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::{PacketBuilder, TcpHeader};
use ringgate_config::Model;
use ringgate_conntrack::{Endpoint, FlowKey, Seconds, Secret, Timeouts};
use ringgate_dataplane::backend::{Backend, Health};
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::flush::{Flush, Scope};
use ringgate_dataplane::newcomers::{Newcomers, Tables};
use ringgate_dataplane::parse::parse;
use ringgate_dataplane::route::{Fib, Link, Target};
use ringgate_dataplane::snapshot::{Builder, Snapshot, by_backend};
use ringgate_dataplane::steer::{Action, Decision, FlowEvent, Steering};
use ringgate_dataplane::verdict::DropReason;
use ringgate_dataplane::wire::ethernet::Mac;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const SYN_ACK: u8 = 0x12;

/// A TCP service, a UDP service, and one whose backends `TWIN` has as well.
pub(crate) const WEB: &str = "10.100.0.1:80";
pub(crate) const DNS: &str = "10.100.0.1:53";
pub(crate) const SHARED: &str = "10.100.0.2:80";
const TWIN: &str = "10.100.0.3:80";

/// The host whose backends change.
pub(crate) const VICTIM: u8 = 12;
pub(crate) const HOSTS: [u8; 3] = [11, 12, 13];

/// One backend in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) host: u8,
    pub(crate) weight: u32,
    pub(crate) disabled: bool,
    /// Not the file's: whether checks fail.
    pub(crate) health: Health,
}

impl Entry {
    pub(crate) fn of(host: u8) -> Self {
        Self {
            host,
            weight: 100,
            disabled: false,
            health: Health::Up,
        }
    }
}

/// What the operator and the checks say, alike for every service.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) entries: Vec<Entry>,
    pub(crate) when_empty: &'static str,
    pub(crate) slow_start: Duration,
}

impl Pool {
    pub(crate) fn of(hosts: &[u8]) -> Self {
        Self {
            entries: hosts.iter().copied().map(Entry::of).collect(),
            when_empty: "drop",
            slow_start: Duration::ZERO,
        }
    }

    pub(crate) fn victim(&mut self) -> &mut Entry {
        self.host(VICTIM)
    }

    pub(crate) fn host(&mut self, host: u8) -> &mut Entry {
        let mut entries = self.entries.iter_mut();
        entries.find(|entry| entry.host == host).unwrap()
    }

    fn model(&self) -> Model {
        let mut text =
            "[[interface]]\nname = \"front\"\n[[interface]]\nname = \"back\"\n".to_owned();
        for (name, listen, protocol, port) in [
            ("web", WEB, "tcp", 8080),
            ("dns", DNS, "udp", 53),
            ("shared", SHARED, "tcp", 9090),
            ("twin", TWIN, "tcp", 9090),
        ] {
            text += &format!(
                "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\n\
                 forward = \"nat\"\nwhen-empty = \"{}\"\nslow-start = \"{}ms\"\n",
                self.when_empty,
                self.slow_start.as_millis(),
            );
            for entry in &self.entries {
                text += &format!(
                    "[[service.backend]]\naddress = \"10.2.0.{}:{port}\"\nweight = {}\ndisabled = {}\n",
                    entry.host, entry.weight, entry.disabled
                );
            }
        }
        ringgate_config::parse("test.toml", &text).unwrap().model
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) pool: Pool,
    pub(crate) snapshot: Snapshot,
    pub(crate) tables: Tables,
    newcomers: Newcomers,
    pub(crate) now: Millis,
    builder: Builder,
    fib: Arc<Fib>,
}

impl Scene {
    pub(crate) fn new(pool: Pool) -> Self {
        let (mut builder, fib, now) = (Builder::default(), Arc::new(fib()), Millis(5000));
        let snapshot = build(&mut builder, &pool, &fib, now);
        let tables = Tables::new(16_384, Secret([3, 5]), Timeouts::default()).unwrap();
        Self {
            pool,
            snapshot,
            newcomers: Newcomers::new(Arc::clone(&tables.half_open), u32::MAX, 1, now),
            tables,
            now,
            builder,
            fib,
        }
    }

    /// Makes the pool's present state the workers'.
    pub(crate) fn publish(&mut self) {
        self.snapshot = build(&mut self.builder, &self.pool, &self.fib, self.now);
    }

    /// Changes the pool, and publishes.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Pool)) {
        change(&mut self.pool);
        self.publish();
    }

    /// When control would publish again by itself.
    pub(crate) fn next_step(&self) -> Option<Millis> {
        self.builder.next_step()
    }

    /// Flushes, a bucket at a time. How many flows.
    pub(crate) fn flush(&self, scope: Scope) -> u64 {
        let now = self.now.seconds();
        let mut flush = Flush::new(scope, now);
        while !flush.go_on(&self.tables.flows, &self.snapshot, 1, now) {}
        flush.flows()
    }

    fn steer(&self, ingress: u16, frame: &[u8]) -> Result<Decision<'_>, DropReason> {
        let packet = parse(frame, false).unwrap();
        self.newcomers.advance(self.now);
        let steering = Steering {
            snapshot: &self.snapshot,
            table: &self.tables.flows,
            newcomers: &self.newcomers,
            now: self.now.seconds(),
            ingress,
        };
        let decision = steering.steer(&packet, self.tables.flows.hash(&packet.key), frame);
        decision.map_err(|refusal| refusal.reason)
    }

    /// Sends a client's packet: TCP with these flags, or a datagram to [`DNS`]. Which host it goes
    /// to, and what became of its flow.
    pub(crate) fn send(
        &self,
        client: SocketAddr,
        to: &str,
        flags: u8,
    ) -> Result<(u8, FlowEvent), DropReason> {
        let to: SocketAddr = to.parse().unwrap();
        let frame = match to.port() {
            53 => datagram(client, to),
            _ => segment(client, to, flags),
        };
        let decision = self.steer(0, &frame)?;
        let Action::ToBackend(backend) = decision.action else {
            panic!("not to a backend: {decision:?}");
        };
        Ok((host_of(backend), decision.event))
    }

    /// Sends a reply of `host`'s backend of a service to a client. The address it leaves with.
    pub(crate) fn reply(
        &self,
        host: u8,
        service: &str,
        client: SocketAddr,
        flags: u8,
    ) -> Result<String, DropReason> {
        let from = |port| SocketAddr::from(([10, 2, 0, host], port));
        let frame = match service {
            WEB => segment(from(8080), client, flags),
            SHARED => segment(from(9090), client, flags),
            _ => datagram(from(53), client),
        };
        let decision = self.steer(1, &frame)?;
        let Action::ToClient(source) = decision.action else {
            panic!("not to a client: {decision:?}");
        };
        Ok(source.to_socket().to_string())
    }

    /// The host that the ring has for a client's flow; `None` without a ring.
    pub(crate) fn ring_choice(&self, client: SocketAddr, service: &str) -> Option<u8> {
        let to: SocketAddr = service.parse().unwrap();
        let (client, listen) = (Endpoint::from_socket(client), Endpoint::from_socket(to));
        let protocol = if to.port() == 53 { 17 } else { 6 };
        let built = self.snapshot.service(listen, protocol).unwrap();
        let id = built.choose(&FlowKey::new(protocol, client, listen), 0)?;
        Some(host_of(self.snapshot.backend(id).unwrap().endpoint))
    }

    /// The backend of [`WEB`] on a host.
    pub(crate) fn backend(&self, host: u8) -> Option<&Backend> {
        let web = &self.snapshot.services()[0];
        let mut backends = web
            .members
            .iter()
            .filter_map(|id| self.snapshot.backend(*id));
        backends.find(|backend| host_of(backend.endpoint) == host)
    }

    /// Entries of the flow table.
    pub(crate) fn entries(&self) -> usize {
        let mut entries = 0;
        self.tables
            .flows
            .for_each(self.seconds(), |_, _| entries += 1);
        entries
    }

    pub(crate) fn seconds(&self) -> Seconds {
        self.now.seconds()
    }
}

fn build(builder: &mut Builder, pool: &Pool, fib: &Arc<Fib>, now: Millis) -> Snapshot {
    let health = |_: &_, backend: &ringgate_config::Backend| {
        let host = host_of(Endpoint::from_socket(backend.address()));
        let mut entries = pool.entries.iter();
        entries.find(|entry| entry.host == host).unwrap().health
    };
    builder
        .at(now)
        .build(&pool.model(), by_backend(health), fib, false)
        .unwrap()
}

fn host_of(endpoint: Endpoint) -> u8 {
    match endpoint.to_socket().ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => panic!("there are none here"),
    }
}

/// The `n`th client.
pub(crate) fn client(n: u16) -> SocketAddr {
    let [high, low] = n.to_be_bytes();
    SocketAddr::from(([10, 1, high, low], 4000))
}

fn fib() -> Fib {
    let link = |last| Link {
        mac: Mac([2, 0, 0, 0, 9, last]),
        mtu: 1500,
        up: true,
    };
    let gateway: IpAddr = [192, 0, 2, 1].into();
    let mut fib = Fib::new(vec![link(0), link(1)]);
    for (prefix, port, gateway) in [("10.1.0.0/16", 0, Some(gateway)), ("10.2.0.0/24", 1, None)] {
        fib.insert_route(prefix.parse().unwrap(), Target::Port { port, gateway });
    }
    fib.insert_neighbour(0, gateway, Mac([2, 0, 0, 0, 1, 1]));
    for host in HOSTS {
        fib.insert_neighbour(1, [10, 2, 0, host].into(), Mac([2, 0, 0, 0, 2, host]));
    }
    fib
}

fn between(
    from: SocketAddr,
    to: SocketAddr,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
        panic!("there are none here");
    };
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4(
        source.octets(),
        destination.octets(),
        64,
    )
}

fn segment(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let mut header = TcpHeader::new(from.port(), to.port(), 1000, 64_000);
    header.syn = flags & SYN != 0;
    header.ack = flags & ACK != 0;
    let mut frame = Vec::new();
    let builder = between(from, to).tcp_header(header);
    builder.write(&mut frame, b"").unwrap();
    frame
}

fn datagram(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = between(from, to).udp(from.port(), to.port());
    builder.write(&mut frame, b"?").unwrap();
    frame
}
