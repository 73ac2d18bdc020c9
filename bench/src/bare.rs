//! The bare forwarder: receive on A, transmit on B, nothing else but the hardware addresses.
//!
//! It is what AF_XDP alone costs on this host: the same sockets, ring sizes, steering program,
//! batches and turns as the balancer's worker, without parsing, tables, counters or rewriting.
//! The ratio of the balancer's rate to this one is what Ringgate itself costs.

use std::time::Duration;

use ringgate_dataplane::pin::{PinError, pin};
use ringgate_dataplane::port::xsk::XskPort;
use ringgate_dataplane::port::{Batch, Port};
use ringgate_dataplane::steered::{Steered, SteeredService};
use ringgate_dataplane::wire::ethernet::{EthernetMut, Mac};
use ringgate_dataplane::xsk::Pool;

use crate::meter;
use crate::pair::{PairError, pair};

/// Idle turns before it sleeps, as the worker does.
const SPIN_TURNS: u32 = 500;

/// What was forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// Frames handed to the TX ring.
    pub frames: u64,
    /// CPU time of the forwarding thread, kernel time included.
    pub cpu: Duration,
}

/// Why it did not run.
#[derive(Debug)]
pub enum BareError {
    /// The interfaces could not be opened.
    Pair(PairError),
    /// The CPU could not be had.
    Pin(PinError),
}

impl std::fmt::Display for BareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pair(error) => error.fmt(f),
            Self::Pin(error) => error.fmt(f),
        }
    }
}

/// Where it forwards from and to.
#[derive(Debug, Clone)]
pub struct Path {
    /// The interface it receives on.
    pub front: String,
    /// The interface it transmits on.
    pub back: String,
    /// Hardware address of that interface.
    pub source: Mac,
    /// Hardware address of the far end.
    pub destination: Mac,
    /// The CPU it runs on.
    pub core: usize,
}

/// Forwards what is for `service` (UDP) for `duration`.
///
/// # Errors
///
/// [`BareError`].
pub fn forward(
    path: &Path,
    service: std::net::SocketAddr,
    duration: Duration,
) -> Result<Forwarded, BareError> {
    pin(path.core).map_err(BareError::Pin)?;
    let steered = Steered {
        services: vec![SteeredService::at(service, 17)],
        ..Steered::default()
    };
    let opened = pair([&path.front, &path.back], &steered);
    let (programs, mut ports, mut pool) = opened.map_err(BareError::Pair)?;
    let (start, cpu) = (meter::now(), meter::thread_cpu());
    let (mut frames, mut idle) = (0, 0);
    let mut batch = Batch::new();
    while start.elapsed() < duration {
        let moved = turn(&mut ports, &mut pool, &mut batch, path);
        frames += moved as u64;
        idle = if moved > 0 { 0 } else { idle + 1 };
        if idle >= SPIN_TURNS {
            XskPort::wait(&mut ports, 10);
        }
    }
    let cpu = meter::thread_cpu() - cpu;
    programs.close(ports, pool).map_err(BareError::Pair)?;
    Ok(Forwarded { frames, cpu })
}

/// One turn over both ports, as the worker's. Returns how many frames it has handed on.
pub(crate) fn turn<P: Port>(
    ports: &mut [P],
    pool: &mut Pool,
    batch: &mut Batch,
    path: &Path,
) -> usize {
    let [front, back] = ports else { return 0 };
    front.recycle(pool);
    front.receive(pool, batch);
    for frame in batch.iter_mut() {
        if let Some(header) = frame.bytes_mut().first_chunk_mut() {
            EthernetMut::new(header).set_addresses(path.destination, path.source);
        }
    }
    let moved = back.transmit(batch);
    for frame in batch.drain(..) {
        pool.give(frame);
    }
    back.recycle(pool);
    front.kick();
    back.kick();
    moved
}
