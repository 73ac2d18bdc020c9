//! Frames made one by one, and sent by a port.

use std::ops::Range;

use ringgate_dataplane::port::{Batch, Port};
use ringgate_dataplane::xsk::{Frame, Pool};

use super::shape::{Shape, TURNS, turn_of};
use super::spread::Spread;
use super::stamp::Stamp;

/// What to send, in which order, to whom.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What frames look like.
    pub shapes: Vec<Shape>,
    /// Which of them is next, as numbers into `shapes`.
    pub turns: [u8; TURNS],
    /// Which flow is next.
    pub spread: Spread,
    /// When flow 0 was born, nanoseconds.
    pub started: u64,
}

impl Plan {
    /// The shape of frame number `number`.
    fn shape(&self, number: u64) -> Option<&Shape> {
        // Below TURNS.
        let turn = usize::try_from(turn_of(number, self.spread.flows())).unwrap_or(0);
        self.shapes.get(usize::from(self.turns[turn]))
    }

    /// Bytes of frame number `number`, with check sequence.
    fn size(&self, number: u64) -> u64 {
        self.shape(number).map_or(0, |shape| shape.size() as u64)
    }

    /// Bytes of the frames of these numbers, with check sequences.
    #[must_use]
    pub fn bytes(&self, numbers: Range<u64>) -> u64 {
        match self.shapes.as_slice() {
            [only] => (numbers.end - numbers.start) * only.size() as u64,
            _ => numbers.map(|number| self.size(number)).sum(),
        }
    }
}

/// Makes frames, one after the other.
#[derive(Debug)]
pub struct Maker {
    plan: Plan,
    /// The flow in each place, and how many frames it has sent.
    sent: Vec<(u32, u32)>,
    number: u64,
}

impl Maker {
    /// Nothing is sent yet.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let places = plan.spread.flows() as usize;
        Self {
            plan,
            sent: vec![(0, 0); places],
            number: 0,
        }
    }

    /// What it makes.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Makes `frame` the next one, sent at `now`, and returns its stamp.
    #[inline]
    pub fn make(&mut self, frame: &mut Frame, now: u64) -> Stamp {
        let flow = self.plan.spread.next(now.saturating_sub(self.plan.started));
        let place = flow as usize % self.sent.len();
        let (last, next) = &mut self.sent[place];
        if *last != flow {
            (*last, *next) = (flow, 0);
        }
        let stamp = Stamp {
            flow,
            sequence: *next,
            time: now % super::stamp::TIMES,
        };
        *next = next.wrapping_add(1);
        if let Some(shape) = self.plan.shape(self.number) {
            frame.fill_from(shape.template());
            shape.write(frame.bytes_mut(), stamp);
        }
        self.number += 1;
        stamp
    }
}

/// A port and the frames to send by it.
#[derive(Debug)]
pub struct PortSource<P> {
    port: P,
    pool: Pool,
    maker: Maker,
    batch: Batch,
}

impl<P: Port> PortSource<P> {
    /// Sends by `port`, with frames of `pool`.
    #[must_use]
    pub fn new(port: P, pool: Pool, maker: Maker) -> Self {
        Self {
            port,
            pool,
            maker,
            batch: Batch::new(),
        }
    }

    /// The port, for what lies behind it.
    #[cfg(test)]
    pub(crate) fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// What it sends.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        self.maker.plan()
    }

    /// Sends up to `most` frames, at most a batch, as many as the port takes now. Returns how many.
    pub fn send(&mut self, most: u32, now: u64) -> u32 {
        self.port.recycle(&mut self.pool);
        // What the port did not take last time goes first: it has been numbered.
        let room = (most as usize)
            .min(self.batch.capacity())
            .saturating_sub(self.batch.len());
        for _ in 0..room {
            let Some(mut frame) = self.pool.take() else {
                break;
            };
            self.maker.make(&mut frame, now);
            self.batch.push(frame);
        }
        let taken = self.port.transmit(&mut self.batch);
        if self.port.transmitting() > 0 {
            self.port.kick();
        }
        // At most a batch.
        u32::try_from(taken).unwrap_or(u32::MAX)
    }

    /// Sends what is queued. Whether all of it has gone.
    pub fn flush(&mut self) -> bool {
        self.port.recycle(&mut self.pool);
        self.port.transmit(&mut self.batch);
        self.port.kick();
        self.port.recycle(&mut self.pool);
        self.batch.is_empty() && self.port.transmitting() == 0
    }
}
