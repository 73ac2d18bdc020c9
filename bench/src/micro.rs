//! The whole pipeline in memory: what a packet costs without a kernel.
//!
//! A real worker over memory ports; the figure is nanoseconds a packet for parsing, looking up,
//! rewriting and the port's own copies, with flows met in turn, so that beyond the caches every
//! packet's flow is far away.

use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use etherparse::PacketBuilder;
use ringgate_conntrack::{FlowTable, Secret, Timeouts};
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::clock::{Clock, Millis};
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::port::MemoryPort;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::publish::Mailbox;
use ringgate_dataplane::route::{Fib, Link, Target};
use ringgate_dataplane::snapshot::Builder;
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::worker::{Parts, Worker};

use crate::meter;

/// One service of each mode.
const CONFIGURATION: &str = r#"
    [[interface]]
    name = "front"
    [[interface]]
    name = "back"
    [[service]]
    name = "nat"
    listen = "10.100.0.1:53"
    protocol = "udp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:5353"
    [[service]]
    name = "dsr-l2"
    listen = "10.100.0.2:53"
    protocol = "udp"
    forward = "dsr-l2"
      [[service.backend]]
      address = "10.2.0.11"
"#;

/// Room for the most flows that are asked for, both entries each.
const TABLE: usize = 4 << 20;

/// Packets of one turn: a full batch.
const BURST: u32 = 64;

/// A moment that does not move: no flow ends while it is measured.
#[derive(Debug, Clone, Copy)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Millis {
        Millis(1_000_000)
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// `nat` or `dsr-l2`.
    pub mode: String,
    /// How many flows.
    pub flows: u32,
    /// Nanoseconds a packet, all of it.
    pub total: f64,
    /// Nanoseconds a packet that the ports and the loop around them take by themselves.
    pub ports: f64,
}

/// Measures one mode with so many flows over `packets` packets, after every flow was met once.
///
/// # Errors
///
/// In words; only when this program's own configuration is refused.
pub fn pipeline(mode: &str, flows: u32, packets: u64) -> Result<Cost, String> {
    let model = ringgate_config::parse("micro", CONFIGURATION)
        .map_err(|error| error.to_string())?
        .model;
    let service = model
        .services()
        .iter()
        .find(|service| service.name() == mode)
        .ok_or("there are nat and dsr-l2")?
        .listen();
    let (ports, pool) = MemoryPort::bundle(
        2,
        2048,
        Rings {
            record: 0,
            ..Rings::default()
        },
    );
    let snapshot = Builder::default()
        .build(&model, |_, _| Health::Up, &Arc::new(fib()), false)
        .map_err(|error| error.to_string())?;
    let capacity = usize::try_from(flows).map_or(TABLE, |flows| (flows * 2).min(TABLE));
    let mut worker = Worker::new(Parts {
        ports,
        pool,
        partial: vec![false; 2],
        table: Arc::new(
            FlowTable::new(capacity, Secret([1, 2]), Timeouts::default())
                .map_err(|error| error.to_string())?,
        ),
        clock: Still,
        mailbox: Arc::new(Mailbox::default()),
        snapshot: Arc::new(snapshot),
        counters: Arc::new(WorkerCounters::new(2)),
        wanted: Arc::new(ArrayQueue::new(16)),
        index: 0,
        workers: 1,
        busy_poll: true,
    });
    let served = template(service)?;
    // Nobody's: parsed and dropped at the first look, so what is left is ports and loop.
    let strange = template(([10, 100, 0, 9], 9).into())?;
    run(&mut worker, &served, flows, u64::from(flows));
    let total = run(&mut worker, &served, flows, packets);
    let ports = run(&mut worker, &strange, 1, packets);
    Ok(Cost {
        mode: mode.to_owned(),
        flows,
        total,
        ports,
    })
}

/// Sends `packets` packets of `flows` flows through the worker. Nanoseconds a packet.
fn run(worker: &mut Worker<MemoryPort, Still>, template: &[u8], flows: u32, packets: u64) -> f64 {
    let mut next = 0u32;
    let start = meter::now();
    let mut sent = 0;
    while sent < packets {
        if let Some(front) = worker.parts().ports.first_mut() {
            for _ in 0..BURST {
                front.inject_with(|buffer| write(buffer, template, next));
                next = if next + 1 < flows { next + 1 } else { 0 };
            }
        }
        sent += worker.turn() as u64;
    }
    start.elapsed().as_secs_f64() * 1e9 / sent as f64
}

/// One packet of flow `flow`: its port and address differ, and its checksums are left as they
/// are but for IPv4's, which the worker looks at.
fn write(buffer: &mut [u8], template: &[u8], flow: u32) -> usize {
    let Some(frame) = buffer.get_mut(..template.len()) else {
        return 0;
    };
    frame.copy_from_slice(template);
    // Two bytes of the address and of the checksum move in opposite directions.
    if let [.., _, _] = frame
        && let Some(fields) = frame.get_mut(24..36)
        && let [c0, c1, _, _, a0, a1, _, _, _, _, p0, p1] = fields
    {
        let (host, port) = ((flow >> 15) & 0xFF, 1024 + (flow & 0x7FFF));
        let [.., low] = host.to_be_bytes();
        let old = u16::from_be_bytes([*c0, *c1]);
        let delta = ringgate_dataplane::wire::checksum::Delta::default().replace_u16(
            u16::from_be_bytes([*a0, *a1]),
            u16::from_be_bytes([*a0, low]),
        );
        [*c0, *c1] = delta.apply(old).to_be_bytes();
        *a1 = low;
        let [.., high, low] = port.to_be_bytes();
        (*p0, *p1) = (high, low);
    }
    template.len()
}

fn template(to: SocketAddr) -> Result<Vec<u8>, String> {
    let SocketAddr::V4(to) = to else {
        return Err("IPv4 only".to_owned());
    };
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 1, 0, 2], to.ip().octets(), 64)
        .udp(1, to.port());
    let mut frame = Vec::new();
    builder
        .write(&mut frame, &[0; 18])
        .map_err(|error| error.to_string())?;
    Ok(frame)
}

fn fib() -> Fib {
    let link = Link {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(vec![link; 2]);
    if let Ok(prefix) = "10.2.0.0/24".parse() {
        fib.insert_route(
            prefix,
            Target::Port {
                port: 1,
                gateway: None,
            },
        );
    }
    fib.insert_neighbour(1, [10, 2, 0, 11].into(), Mac([2, 0, 0, 0, 0, 9]));
    fib
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_measured() {
        for mode in ["nat", "dsr-l2"] {
            let cost = pipeline(mode, 100, 1000).unwrap();
            assert!(cost.total > 0.0 && cost.ports > 0.0);
        }
        assert!(pipeline("gue", 1, 1).is_err());
    }

    #[test]
    fn written_packets_are_distinct_and_their_headers_right() {
        let template = template(([10, 100, 0, 1], 53).into()).unwrap();
        let mut keys = std::collections::HashSet::new();
        let mut buffer = [0; 128];
        for flow in 0..100_000 {
            let len = write(&mut buffer, &template, flow);
            keys.insert(
                ringgate_dataplane::parse::parse(&buffer[..len], false)
                    .unwrap()
                    .key,
            );
        }
        assert_eq!(keys.len(), 100_000);
    }
}
