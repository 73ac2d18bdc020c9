//! One end's port: segments in, segments out.

use ringgate_dataplane::port::{Batch, Port};
use ringgate_dataplane::xsk::Pool;

use super::segment::Segment;
use crate::generator::sink::arrival;

/// Batches of one turn.
const MOST_BATCHES: usize = 8;

/// See the module's documentation.
#[derive(Debug)]
pub struct Wire<P> {
    port: P,
    pool: Pool,
    inward: Batch,
    outward: Batch,
    /// Segments that could not be sent, because no frame was free.
    unsent: u64,
}

impl<P: Port> Wire<P> {
    /// By `port`, with frames of `pool`.
    #[must_use]
    pub fn new(port: P, pool: Pool) -> Self {
        Self {
            port,
            pool,
            inward: Batch::new(),
            outward: Batch::new(),
            unsent: 0,
        }
    }

    /// Sends `segment` with the next [`flush`](Self::flush), or at once if many wait. One that the
    /// device does not take is lost, as on any wire: who sent it sends it again.
    #[inline]
    pub fn send(&mut self, segment: &Segment) {
        if self.outward.is_full() {
            self.flush();
        }
        let frame = if self.outward.is_full() {
            None
        } else {
            self.pool.take()
        };
        let Some(mut frame) = frame else {
            self.unsent += 1;
            return;
        };
        frame.set_len(segment.frame_len());
        segment.write(frame.bytes_mut());
        self.outward.push(frame);
    }

    /// Lets what was sent leave.
    pub fn flush(&mut self) {
        self.port.recycle(&mut self.pool);
        if !self.outward.is_empty() {
            self.port.transmit(&mut self.outward);
        }
        if self.port.transmitting() > 0 {
            self.port.kick();
            self.port.recycle(&mut self.pool);
        }
    }

    /// Shows segments that have arrived to `see`, with the time of their arrival, and this wire to
    /// answer by. Returns how many frames there were; what is no TCP, or damaged, is passed over.
    pub fn receive(
        &mut self,
        clock: impl Fn() -> u64,
        mut see: impl FnMut(&mut Self, &Segment, u64),
    ) -> usize {
        let mut seen = 0;
        for _ in 0..MOST_BATCHES {
            self.port.recycle(&mut self.pool);
            let mut batch = std::mem::take(&mut self.inward);
            if self.port.receive(&mut self.pool, &mut batch) == 0 {
                self.inward = batch;
                break;
            }
            let now = clock();
            for mut frame in batch.drain(..) {
                let time = arrival(&mut frame).unwrap_or(now);
                let segment = Segment::read(frame.bytes());
                self.pool.give(frame);
                if let Some(segment) = segment {
                    see(self, &segment, time);
                }
                seen += 1;
            }
            self.inward = batch;
        }
        seen
    }

    /// Frames that the kernel had to drop, because nobody took them in time, and segments that were
    /// never sent.
    pub fn dropped(&mut self) -> u64 {
        self.port.refresh_kernel_counters();
        let counters = self.port.counters();
        counters.rx_ring_full + counters.rx_dropped + counters.fill_empty + self.unsent
    }
}
