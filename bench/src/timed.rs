//! A port that tells how long each of its calls took.

use std::time::Duration;

use ringgate_dataplane::port::{Batch, Closed, Port, PortCounters};
use ringgate_dataplane::xsk::Pool;

use crate::meter;

/// Time within a port's calls, the clock's own reading included: one a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Taking frames from the RX ring.
    pub receive: Duration,
    /// Bringing sent frames home and stocking the fill ring; on some devices the kernel is told, too.
    pub recycle: Duration,
    /// Putting frames into the TX ring.
    pub transmit: Duration,
    /// Telling the kernel: in copy mode it sends within this call.
    pub kick: Duration,
    /// How many calls there were, of any kind.
    pub calls: u64,
}

impl Spent {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.receive + self.recycle + self.transmit + self.kick
    }

    /// Of two ports.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            receive: self.receive + other.receive,
            recycle: self.recycle + other.recycle,
            transmit: self.transmit + other.transmit,
            kick: self.kick + other.kick,
            calls: self.calls + other.calls,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Timed<P> {
    /// The port itself.
    pub inner: P,
    /// What its calls have taken.
    pub spent: Spent,
}

impl<P> Timed<P> {
    /// Nothing spent yet.
    pub fn new(inner: P) -> Self {
        Self {
            inner,
            spent: Spent::default(),
        }
    }

    fn time<T>(
        &mut self,
        part: fn(&mut Spent) -> &mut Duration,
        call: impl FnOnce(&mut P) -> T,
    ) -> T {
        let began = meter::elapsed();
        let result = call(&mut self.inner);
        *part(&mut self.spent) += meter::elapsed() - began;
        self.spent.calls += 1;
        result
    }
}

impl<P: Port> Port for Timed<P> {
    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) -> usize {
        self.time(|spent| &mut spent.receive, |port| port.receive(pool, batch))
    }

    fn transmit(&mut self, frames: &mut Batch) -> usize {
        self.time(|spent| &mut spent.transmit, |port| port.transmit(frames))
    }

    fn recycle(&mut self, pool: &mut Pool) {
        self.time(|spent| &mut spent.recycle, |port| port.recycle(pool));
    }

    fn kick(&mut self) {
        self.time(|spent| &mut spent.kick, Port::kick);
    }

    fn transmitting(&self) -> usize {
        self.inner.transmitting()
    }

    fn counters(&self) -> PortCounters {
        self.inner.counters()
    }

    fn refresh_kernel_counters(&mut self) {
        self.inner.refresh_kernel_counters();
    }

    /// On the first port alone: where clients' packets come in.
    fn wait(ports: &mut [Self], timeout_ms: u32) {
        if let Some(first) = ports.first_mut() {
            P::wait(std::slice::from_mut(&mut first.inner), timeout_ms);
        }
    }

    fn close(self, pool: &mut Pool) -> Closed {
        self.inner.close(pool)
    }
}

#[cfg(test)]
mod tests {
    use ringgate_dataplane::port::MemoryPort;
    use ringgate_dataplane::port::memory::Rings;

    use super::*;

    #[test]
    fn every_call_is_handed_on_and_counted() {
        let (ports, mut pool) = MemoryPort::bundle(1, 256, Rings::default());
        let mut port = Timed::new(ports.into_iter().next().unwrap());
        let mut batch = Batch::new();
        port.recycle(&mut pool);
        port.inner.inject_with(|buffer| {
            buffer[..60].fill(7);
            60
        });
        assert_eq!(port.receive(&mut pool, &mut batch), 1);
        assert_eq!(port.transmit(&mut batch), 1);
        port.kick();
        assert_eq!(port.transmitting(), port.inner.transmitting());
        assert_eq!(port.counters().transmitted, 1);
        assert_eq!(port.spent.calls, 4);
        assert_eq!(port.spent.and(port.spent).total(), port.spent.total() * 2);
        assert_eq!(port.close(&mut pool).lost, 0);
    }
}
