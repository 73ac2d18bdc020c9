//! The bare forwarder: receive on A, transmit on B, nothing else but the hardware addresses.
//!
//! It is what AF_XDP alone costs on this host: the same sockets, ring sizes, steering program,
//! batches and turns as the balancer's worker, without parsing, tables, counters or rewriting.
//! The ratio of the balancer's rate to this one is what Ringgate itself costs.

use std::os::fd::AsFd as _;
use std::time::Duration;

use ringgate_dataplane::pin::{PinError, pin};
use ringgate_dataplane::port::xsk::XskPort;
use ringgate_dataplane::port::{Batch, Port};
use ringgate_dataplane::steered::{Steered, SteeredService};
use ringgate_dataplane::wire::ethernet::{EthernetMut, Mac};
use ringgate_dataplane::xsk::{
    AttachError, BindMode, Binding, OpenError, Options, SteerError, SteeringProgram, XdpMode, open,
};

use crate::meter;

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
    /// A program could not be attached.
    Attach(AttachError),
    /// A map could not be filled.
    Steer(SteerError),
    /// A socket could not be opened.
    Open(OpenError),
    /// The CPU could not be had.
    Pin(PinError),
}

impl std::fmt::Display for BareError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attach(error) => error.fmt(f),
            Self::Steer(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
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
    let names = [&path.front, &path.back];
    let mut programs = Vec::new();
    for name in names {
        programs.push(SteeringProgram::attach(name, XdpMode::Native).map_err(BareError::Attach)?);
    }
    let bindings = names.map(|name| Binding {
        name: name.clone(),
        queue: 0,
    });
    let options = Options {
        mode: BindMode::Copy,
        huge_pages: true,
        ..Options::default()
    };
    let (mut ports, mut pool) = open(&bindings, &options).map_err(BareError::Open)?;
    let steered = Steered {
        services: vec![SteeredService::at(service, 17)],
        ..Steered::default()
    };
    for (program, port) in programs.iter_mut().zip(&ports) {
        program.sync(&steered).map_err(BareError::Steer)?;
        program
            .register(0, port.as_fd())
            .map_err(BareError::Steer)?;
    }
    let (start, cpu) = (meter::now(), meter::thread_cpu());
    let (mut frames, mut idle) = (0, 0);
    let mut batch = Batch::new();
    while start.elapsed() < duration {
        let moved = turn(&mut ports, &mut pool, &mut batch, path);
        frames += moved;
        idle = if moved > 0 { 0 } else { idle + 1 };
        if idle >= SPIN_TURNS {
            XskPort::wait(&mut ports, 10);
        }
    }
    let cpu = meter::thread_cpu() - cpu;
    for program in &mut programs {
        program.unregister(0).map_err(BareError::Steer)?;
    }
    for port in ports {
        let _home = port.close(&mut pool);
    }
    Ok(Forwarded { frames, cpu })
}

/// One turn over both ports, as the worker's.
fn turn(
    ports: &mut [XskPort],
    pool: &mut ringgate_dataplane::xsk::Pool,
    batch: &mut Batch,
    path: &Path,
) -> u64 {
    let [front, back] = ports else { return 0 };
    front.recycle(pool);
    front.receive(pool, batch);
    for frame in batch.iter_mut() {
        if let Some(header) = frame.bytes_mut().first_chunk_mut() {
            EthernetMut::new(header).set_addresses(path.destination, path.source);
        }
    }
    let moved = back.transmit(batch) as u64;
    for frame in batch.drain(..) {
        pool.give(frame);
    }
    back.recycle(pool);
    front.kick();
    back.kick();
    moved
}
