//! A whole worker over memory ports: clients behind a gateway at port 0, backends at port 1.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use ringgate_config::{Backend, Service};
use ringgate_conntrack::fragments::FragmentTable;
use ringgate_conntrack::{Endpoint, FlowKey, FlowTable, Secret, State, Timeouts};
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::clock::Clock as _;
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::newcomers::Tables;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::port::{BATCH, MemoryPort};
use ringgate_dataplane::publish::Mailbox;
use ringgate_dataplane::route::{Fib, Link, Target};
use ringgate_dataplane::snapshot::{Builder, Snapshot, by_backend};
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::worker::{Parts, Worker};

use super::hand::Hand;
use super::segment::{Arrival, Segment, Template};

/// The port where clients are, and the one where backends are.
pub(crate) const FRONT: usize = 0;
pub(crate) const BACK: usize = 1;

/// IANA protocol number.
const TCP: u8 = 6;

/// The gateway to the clients.
pub(crate) const GATEWAY: Mac = Mac([2, 0, 0, 0, 1, 1]);

/// Both interfaces, at the head of every configuration.
pub(crate) const INTERFACES: &str =
    "[[interface]]\nname = \"front\"\n[[interface]]\nname = \"back\"\n";

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) worker: Worker<MemoryPort, Hand>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) table: Arc<FlowTable>,
    pub(crate) half_open: Arc<FlowTable>,
    pub(crate) clock: Hand,
    /// What was published last.
    pub(crate) snapshot: Arc<Snapshot>,
    mailbox: Arc<Mailbox>,
    builder: Builder,
    fib: Arc<Fib>,
    template: Template,
}

/// Address of a backend: there are 256 in each of some groups.
pub(crate) fn backend_address(group: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, group, host)
}

/// Its hardware address.
pub(crate) fn backend_mac(group: u8, host: u8) -> Mac {
    Mac([2, 0, 0, 0, group, host])
}

fn fib() -> Fib {
    let link = |last| Link {
        mac: Mac([2, 0, 0, 0, 9, last]),
        mtu: 1500,
        up: true,
    };
    let gateway: IpAddr = [192, 0, 2, 254].into();
    let mut fib = Fib::new(vec![link(0), link(1)]);
    for (prefix, port, gateway) in [("10.0.0.0/8", 0, Some(gateway)), ("198.18.0.0/15", 1, None)] {
        fib.insert_route(prefix.parse().unwrap(), Target::Port { port, gateway });
    }
    fib.insert_neighbour(0, gateway, GATEWAY);
    for group in 0..2 {
        for host in 0..=u8::MAX {
            let address = backend_address(group, host).into();
            fib.insert_neighbour(1, address, backend_mac(group, host));
        }
    }
    fib
}

fn build(
    builder: &mut Builder,
    file: &str,
    health: impl Fn(&Service, &Backend) -> Health,
    fib: &Arc<Fib>,
) -> Arc<Snapshot> {
    let model = ringgate_config::parse("test.toml", file).unwrap().model;
    Arc::new(
        builder
            .build(&model, by_backend(health), fib, false)
            .unwrap(),
    )
}

impl World {
    /// A worker for this configuration, all backends up, with a table for so many flows.
    pub(crate) fn new(file: &str, flows: usize) -> Self {
        let (fib, mut builder) = (Arc::new(fib()), Builder::default());
        let snapshot = build(&mut builder, file, |_, _| Health::Up, &fib);
        let (ports, pool) = MemoryPort::bundle(2, 2048, Rings::default());
        let counters = Arc::new(WorkerCounters::new(2));
        let mailbox = Arc::new(Mailbox::default());
        let clock = Hand::default();
        clock.advance(5000);
        let tables = Tables::new(flows, Secret([7, 9]), Timeouts::default()).unwrap();
        let worker = Worker::new(Parts {
            ports,
            pool,
            partial: vec![false; 2],
            tables: tables.clone(),
            fragments: Arc::new(FragmentTable::new(64, Secret([7, 9])).unwrap()),
            udp_new_flows: u32::MAX,
            icmp_per_second: 1000,
            seat: None,
            clock: clock.clone(),
            mailbox: Arc::clone(&mailbox),
            snapshot: Arc::clone(&snapshot),
            counters: Arc::clone(&counters),
            wanted: Arc::new(ArrayQueue::new(4)),
            index: 0,
            workers: 1,
            busy_poll: true,
        });
        Self {
            worker,
            counters,
            table: tables.flows,
            half_open: tables.half_open,
            clock,
            snapshot,
            mailbox,
            builder,
            fib,
            template: Template::new(),
        }
    }

    /// Builds and posts the next snapshot.
    pub(crate) fn publish(&mut self, file: &str, health: impl Fn(&Service, &Backend) -> Health) {
        self.snapshot = build(&mut self.builder, file, health, &self.fib);
        self.mailbox.post(Arc::clone(&self.snapshot));
    }

    /// Sends segments in by one port, and says what left of each by the other. The client's
    /// endpoint, which never changes, tells which is which.
    pub(crate) fn pass(&mut self, ingress: usize, segments: &[Segment]) -> Vec<Option<Arrival>> {
        let mut arrivals = Vec::with_capacity(segments.len());
        for batch in segments.chunks(BATCH) {
            self.turn(ingress, batch);
            let begin = arrivals.len();
            self.worker.parts().ports[1 - ingress].drain_sent(|frame| {
                let arrival = Arrival::read(frame);
                let client = |segment: &Segment| match ingress {
                    FRONT => segment.from,
                    _ => segment.to,
                };
                while client(&batch[arrivals.len() - begin]) != client(&arrival.segment) {
                    arrivals.push(None);
                }
                arrivals.push(Some(arrival));
            });
            arrivals.resize(begin + batch.len(), None);
        }
        arrivals
    }

    /// As [`pass`](Self::pass), for one segment.
    pub(crate) fn pass_one(&mut self, ingress: usize, segment: Segment) -> Option<Arrival> {
        self.pass(ingress, &[segment])[0]
    }

    /// As [`pass`](Self::pass), only counting what left.
    pub(crate) fn pass_unseen(&mut self, ingress: usize, segments: &[Segment]) -> usize {
        let mut left = 0;
        for batch in segments.chunks(BATCH) {
            self.turn(ingress, batch);
            self.worker.parts().ports[1 - ingress].drain_sent(|_| left += 1);
        }
        left
    }

    fn turn(&mut self, ingress: usize, batch: &[Segment]) {
        let port = &mut self.worker.parts().ports[ingress];
        for segment in batch {
            assert!(port.inject_with(|buffer| self.template.write(buffer, segment)));
        }
        assert_eq!(self.worker.turn(), batch.len());
    }

    /// The state of the flow of segments from one endpoint to another, if there is one.
    pub(crate) fn state(&self, from: SocketAddrV4, to: SocketAddrV4) -> Option<State> {
        let endpoint = |socket: SocketAddrV4| Endpoint::from_socket(socket.into());
        let key = FlowKey::new(TCP, endpoint(from), endpoint(to));
        let now = self.clock.now().seconds();
        let found = self.table.lookup(&key, self.table.hash(&key), now)?;
        Some(found.state)
    }

    /// Endpoint of the backend that the ring alone would give a flow, whatever the table says.
    pub(crate) fn ring_choice(&self, from: SocketAddrV4, to: SocketAddrV4) -> Option<SocketAddrV4> {
        let endpoint = |socket: SocketAddrV4| Endpoint::from_socket(socket.into());
        let key = FlowKey::new(TCP, endpoint(from), endpoint(to));
        let service = self.snapshot.service(key.destination(), TCP)?;
        let backend = self.snapshot.backend(service.choose(&key, 0)?)?;
        backend.endpoint.to_socket().to_string().parse().ok()
    }
}
