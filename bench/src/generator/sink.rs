//! The receiving end: takes what is there and shows it to the judge.
//!
//! When a frame arrived is what the device's program wrote in front of it (`bpf/sink.bpf.c`), so
//! that it does not matter when this thread comes to look. Where there is no such mark, it is when
//! the thread looked.

use ringgate_dataplane::port::{Batch, Port};
use ringgate_dataplane::xsk::{Frame, Pool};

use super::judge::Judge;

/// `MARK` in `bpf/sink.bpf.c`.
const MARK: u64 = 0x5269_6E67_6761_7465;

/// Bytes of the mark and of the time behind it.
const MARK_BYTES: u16 = 16;

/// Batches of one turn, so that a flood does not keep the source from its turn.
const MOST_BATCHES: usize = 32;

/// See the module's documentation.
#[derive(Debug)]
pub struct Sink<P> {
    port: P,
    pool: Pool,
    batch: Batch,
}

impl<P: Port> Sink<P> {
    /// Receives by `port`, whose frames are from `pool`.
    #[must_use]
    pub fn new(port: P, pool: Pool) -> Self {
        Self {
            port,
            pool,
            batch: Batch::new(),
        }
    }

    /// Shows what has arrived to `judge`. Returns how much it was. `clock` is asked after each
    /// batch was taken: everything in it was there then.
    #[inline]
    pub fn turn(&mut self, judge: &mut Judge, clock: impl Fn() -> u64) -> usize {
        let mut seen = 0;
        for _ in 0..MOST_BATCHES {
            self.port.recycle(&mut self.pool);
            if self.port.receive(&mut self.pool, &mut self.batch) == 0 {
                break;
            }
            let now = clock();
            for mut frame in self.batch.drain(..) {
                let time = arrival(&mut frame).unwrap_or(now);
                judge.see(frame.bytes(), time);
                self.pool.give(frame);
                seen += 1;
            }
        }
        seen
    }

    /// Frames for this socket that the kernel had to drop, because nobody took them in time or had
    /// room for them.
    pub fn dropped(&mut self) -> u64 {
        self.port.refresh_kernel_counters();
        let counters = self.port.counters();
        counters.rx_ring_full + counters.rx_dropped + counters.fill_empty
    }

    /// The port, for what lies behind it.
    #[cfg(test)]
    pub(crate) fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }
}

/// The time that stands in front of `frame`, if one does.
#[inline]
pub(crate) fn arrival(frame: &mut Frame) -> Option<u64> {
    if !frame.grow_head(MARK_BYTES) {
        return None;
    }
    let (words, _) = frame.bytes().as_chunks::<8>();
    let found = match words {
        [mark, time, ..] if u64::from_ne_bytes(*mark) == MARK => Some(u64::from_ne_bytes(*time)),
        _ => None,
    };
    // It has just grown by as much.
    frame.shrink_head(MARK_BYTES);
    found
}
