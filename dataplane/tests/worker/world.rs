//! A whole worker over memory ports, with the test as both ends of both wires and as the clock.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::source_ports::{Layout, Rests, Seat, SourcePorts};
use ringgate_conntrack::{Seconds, Secret, Timeouts};
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::flow_log::FlowLog;
use ringgate_dataplane::newcomers::Tables;
use ringgate_dataplane::port::MemoryPort;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::publish::Mailbox;
use ringgate_dataplane::route::{Fib, Link, Neighbour, Target};
use ringgate_dataplane::snapshot::{Builder, Snapshot, by_backend};
use ringgate_dataplane::verdict::DropReason;
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::worker::{Parts, Worker};

use super::hand::Hand;

/// Hardware address of the balancer's interface at each port.
pub(crate) const OWN: [Mac; 2] = [Mac([2, 0, 0, 0, 9, 0]), Mac([2, 0, 0, 0, 9, 1])];
/// Hardware address of the client.
pub(crate) const CLIENT: Mac = Mac([2, 0, 0, 0, 1, 2]);
/// Chunks of the world's region.
pub(crate) const CHUNKS: u32 = 2048;

/// nat and dsr-l2, TCP and UDP, IPv4 and IPv6.
pub(crate) const SERVICES: &str = r#"
    [[interface]]
    name = "front"
    [[interface]]
    name = "back"
    [[service]]
    name = "web4"
    listen = "10.100.0.1:80"
    protocol = "tcp"
    forward = "nat"
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11:8080"
      [[service.backend]]
      address = "10.2.0.12:8080"
    [[service]]
    name = "web6"
    listen = "[fd00:100::1]:80"
    protocol = "tcp"
    forward = "nat"
    table-size = 251
      [[service.backend]]
      address = "[fd00:2::11]:8080"
      [[service.backend]]
      address = "[fd00:2::12]:8080"
    [[service]]
    name = "dns4"
    listen = "10.100.0.1:53"
    protocol = "udp"
    forward = "nat"
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11:5353"
    [[service]]
    name = "dns6"
    listen = "[fd00:100::1]:53"
    protocol = "udp"
    forward = "nat"
    table-size = 251
      [[service.backend]]
      address = "[fd00:2::11]:5353"
    [[service]]
    name = "direct4"
    listen = "10.100.0.2:80"
    protocol = "tcp"
    forward = "dsr-l2"
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11"
    [[service]]
    name = "direct6"
    listen = "[fd00:100::2]:53"
    protocol = "udp"
    forward = "dsr-l2"
    table-size = 251
      [[service.backend]]
      address = "[fd00:2::12]"
"#;

/// A tunnel of each mode, to backends of either family, from addresses of its own.
pub(crate) const TUNNELS: &str = r#"
    [[service]]
    name = "ipip44"
    listen = "10.100.0.3:80"
    protocol = "udp"
    forward = "ipip"
    tunnel = { source = "10.9.0.1" }
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11"
      [[service.backend]]
      address = "10.2.0.12"
    [[service]]
    name = "gre46"
    listen = "10.100.0.4:80"
    protocol = "udp"
    forward = "gre"
    tunnel = { source = "fd00:9::1", key = 7 }
    table-size = 251
      [[service.backend]]
      address = "[fd00:2::11]"
    [[service]]
    name = "gue64"
    listen = "[fd00:100::3]:80"
    protocol = "udp"
    forward = "gue"
    tunnel = { source = "10.9.0.0/24", variant = 0 }
    table-size = 251
      [[service.backend]]
      address = "10.2.0.12"
    [[service]]
    name = "gue66"
    listen = "[fd00:100::4]:80"
    protocol = "udp"
    forward = "gue"
    tunnel = { source = "fd00:9::1" }
    table-size = 251
      [[service.backend]]
      address = "[fd00:2::12]"
"#;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) worker: Worker<MemoryPort, Hand>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) wanted: Arc<ArrayQueue<Neighbour>>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) clock: Hand,
    fragments: Arc<FragmentTable>,
    builder: Builder,
}

/// Routes and neighbours of the world: clients at port 0, backends at port 1.
pub(crate) fn fib() -> Arc<Fib> {
    let link = |mac| Link {
        mac,
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(OWN.map(link).to_vec());
    for (prefix, port) in [
        ("10.1.0.0/24", 0),
        ("fd00:1::/64", 0),
        ("10.2.0.0/24", 1),
        ("fd00:2::/64", 1),
    ] {
        fib.insert_route(
            prefix.parse().unwrap(),
            Target::Port {
                port,
                gateway: None,
            },
        );
    }
    for client in ["10.1.0.2", "fd00:1::2"] {
        fib.insert_neighbour(0, client.parse().unwrap(), CLIENT);
    }
    for (host, name) in [(11, "11"), (12, "12")] {
        fib.insert_neighbour(
            1,
            format!("10.2.0.{name}").parse().unwrap(),
            backend_mac(host),
        );
        fib.insert_neighbour(
            1,
            format!("fd00:2::{name}").parse().unwrap(),
            backend_mac(host),
        );
    }
    Arc::new(fib)
}

/// Hardware address of the backend that ends in this number.
pub(crate) fn backend_mac(host: u8) -> Mac {
    Mac([2, 0, 0, 0, 2, host])
}

fn snapshot(
    builder: &mut Builder,
    file: &str,
    down: &[SocketAddr],
    fib: &Arc<Fib>,
) -> Arc<Snapshot> {
    let model = ringgate_config::parse("test.toml", file).unwrap().model;
    let health = |_: &_, backend: &ringgate_config::Backend| match down.contains(&backend.address())
    {
        true => Health::Down,
        false => Health::Up,
    };
    Arc::new(
        builder
            .build(&model, by_backend(health), fib, false)
            .unwrap(),
    )
}

impl World {
    /// A worker for this configuration over rings of these sizes.
    pub(crate) fn new(file: &str, rings: Rings, partial: bool) -> Self {
        let tables = Tables::new(4096, Secret([7, 9]), Timeouts::default()).unwrap();
        let fragments = Arc::new(FragmentTable::new(64, Secret([7, 9])).unwrap());
        let sourced = (Builder::default(), None);
        Self::around(sourced, file, (rings, partial), tables, fragments)
    }

    /// The same with the sources that the configuration names.
    pub(crate) fn with_sources(file: &str, rings: Rings) -> Self {
        let model = ringgate_config::parse("test.toml", file).unwrap().model;
        let balancer = model.balancer();
        let layout = Layout::new(balancer.nat_source_ports(), 1, 4).unwrap();
        let made = SourcePorts::new(
            layout,
            balancer.nat_sources(),
            Rests::default(),
            Secret([3, 4]),
        );
        let (ports, seats) = made.unwrap();
        let tables = Tables::new(4096, Secret([7, 9]), Timeouts::default()).unwrap();
        let fragments = Arc::new(FragmentTable::new(64, Secret([7, 9])).unwrap());
        let mut builder = Builder::default();
        builder.with_sources(Arc::new(ports));
        let sourced = (builder, seats.into_iter().next());
        Self::around(sourced, file, (rings, false), tables, fragments)
    }

    /// A second worker on the same tables, with the same configuration `file`, and ports of its
    /// own.
    pub(crate) fn beside(&mut self, file: &str) -> Self {
        let tables = self.worker.parts().tables.clone();
        let fragments = Arc::clone(&self.fragments);
        let sourced = (Builder::default(), None);
        Self::around(sourced, file, (Rings::default(), false), tables, fragments)
    }

    /// How many source ports flows hold.
    pub(crate) fn held(&mut self) -> usize {
        let snapshot = Arc::clone(&self.worker.parts().snapshot);
        let usage = snapshot.sources().unwrap().usage(Seconds(0));
        usage.map(|(_, usage)| usage.held).sum()
    }

    fn around(
        (mut builder, seat): (Builder, Option<Seat>),
        file: &str,
        (rings, partial): (Rings, bool),
        tables: Tables,
        fragments: Arc<FragmentTable>,
    ) -> Self {
        let (ports, pool) = MemoryPort::bundle(2, CHUNKS, rings);
        let counters = Arc::new(WorkerCounters::new(2));
        let wanted = Arc::new(ArrayQueue::new(4));
        let mailbox = Arc::new(Mailbox::default());
        let clock = Hand::default();
        clock.advance(5000);
        let worker = Worker::new(Parts {
            ports,
            pool,
            partial: vec![partial; 2],
            tables,
            fragments: Arc::clone(&fragments),
            udp_new_flows: u32::MAX,
            icmp_per_second: 1000,
            seat,
            clock: clock.clone(),
            mailbox: Arc::clone(&mailbox),
            snapshot: snapshot(&mut builder, file, &[], &fib()),
            counters: Arc::clone(&counters),
            wanted: Arc::clone(&wanted),
            index: 0,
            workers: 1,
            busy_poll: false,
        });
        Self {
            worker,
            counters,
            wanted,
            mailbox,
            clock,
            fragments,
            builder,
        }
    }

    /// Posts a new snapshot.
    pub(crate) fn publish(&mut self, file: &str, down: &[SocketAddr]) {
        self.publish_over(file, down, &fib());
    }

    /// The same, with flows put down there from now on.
    pub(crate) fn log_flows(&mut self, file: &str, log: Option<&Arc<FlowLog>>) {
        self.builder.with_flow_log(log.cloned());
        self.publish(file, &[]);
    }

    /// The same over other routes and neighbours.
    pub(crate) fn publish_over(&mut self, file: &str, down: &[SocketAddr], fib: &Arc<Fib>) {
        let snapshot = snapshot(&mut self.builder, file, down, fib);
        self.mailbox.post(snapshot);
    }

    pub(crate) fn port(&mut self, port: usize) -> &mut MemoryPort {
        &mut self.worker.parts().ports[port]
    }

    /// What left by each port since the last look.
    pub(crate) fn sent(&mut self) -> [Vec<Vec<u8>>; 2] {
        [self.port(0).take_sent(), self.port(1).take_sent()]
    }

    /// Every counter of both interfaces by name, for comparing before and after.
    pub(crate) fn counts(&self) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        for (port, interface) in self.counters.interfaces.iter().enumerate() {
            counts.push((format!("{port}.received"), interface.received.get()));
            counts.push((
                format!("{port}.received_bytes"),
                interface.received_bytes.get(),
            ));
            counts.push((format!("{port}.forwarded"), interface.forwarded.get()));
            counts.push((format!("{port}.answered"), interface.answered.get()));
            for reason in DropReason::ALL {
                counts.push((
                    format!("{port}.{}", reason.name()),
                    interface.dropped(*reason),
                ));
            }
        }
        let flows = &self.counters.flows;
        counts.push(("created".into(), flows.created.get()));
        counts.push(("rehashed".into(), flows.rehashed.get()));
        counts.push(("table_full".into(), flows.table_full.get()));
        counts.push(("contended".into(), flows.contended.get()));
        counts.push(("out_of_window".into(), flows.out_of_window.get()));
        counts.push(("expired".into(), flows.expired.get()));
        for (name, counter) in self.counters.icmp.named() {
            counts.push((format!("icmp.{name}"), counter.get()));
        }
        let fragments = &self.counters.fragments;
        counts.push(("first".into(), fragments.first.get()));
        counts.push(("followed".into(), fragments.followed.get()));
        counts.push(("held".into(), fragments.held.get()));
        counts.push(("displaced".into(), fragments.displaced.get()));
        counts.push(("unplaced".into(), fragments.unplaced.get()));
        counts
    }

    /// received = forwarded + answered + Σ dropped, at each interface.
    pub(crate) fn assert_identity(&self) {
        for interface in &self.counters.interfaces {
            let dropped: u64 = DropReason::ALL
                .iter()
                .map(|reason| interface.dropped(*reason))
                .sum();
            assert_eq!(
                interface.received.get(),
                interface.forwarded.get() + interface.answered.get() + dropped
            );
        }
    }
}
