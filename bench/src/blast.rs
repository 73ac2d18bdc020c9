//! The source: sends traffic through an AF_XDP port as fast as the host lets it.

use std::time::Duration;

use ringgate_dataplane::port::{Batch, Port as _};
use ringgate_dataplane::xsk::{BindMode, Binding, OpenError, Options, open};

use crate::meter;
use crate::traffic::Traffic;

/// What was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// Frames that the device took.
    pub frames: u64,
    /// For how long.
    pub elapsed: Duration,
}

/// Sends for `duration` out of queue 0 of `interface`.
///
/// # Errors
///
/// When the interface cannot be opened.
pub fn blast(
    interface: &str,
    traffic: &mut Traffic,
    duration: Duration,
) -> Result<Offered, OpenError> {
    let binding = Binding {
        name: interface.to_owned(),
        queue: 0,
    };
    let options = Options {
        mode: BindMode::Copy,
        ..Options::default()
    };
    let (mut ports, mut pool) = open(&[binding], &options)?;
    let mut batch = Batch::new();
    let start = meter::now();
    let mut frames = 0;
    while start.elapsed() < duration {
        for port in &mut ports {
            port.recycle(&mut pool);
            while !batch.is_full()
                && let Some(mut frame) = pool.take()
            {
                frame.set_len(frame.room());
                let len = traffic.write(frame.bytes_mut());
                frame.set_len(len);
                batch.push(frame);
            }
            frames += port.transmit(&mut batch) as u64;
            port.kick();
        }
    }
    let elapsed = start.elapsed();
    let lost: u64 = ports.iter().map(|port| port.counters().kick_busy).sum();
    for port in ports {
        let closed = port.close(&mut pool);
        frames -= closed.unsent as u64;
    }
    Ok(Offered {
        frames: frames.saturating_sub(lost),
        elapsed,
    })
}
