//! One of the balancer's addresses: the cells of its ports, and their queues.

use std::net::{IpAddr, SocketAddr};

use crate::expiry::Seconds;
use crate::hash::{Secret, mix};
use crate::key::Endpoint;
use crate::source_ports::queue::{self, Ends, Queue, Status};
use crate::source_ports::{Layout, Lease, NoPort, Protocol, Release, Usage};
use crate::sync::AtomicU64;

/// An address and who holds its ports.
#[derive(Debug)]
pub(super) struct Source {
    number: u8,
    address: [u64; 2],
    layout: Layout,
    /// For each protocol and group one for each port.
    cells: Box<[AtomicU64]>,
    /// For each protocol and group one for each worker.
    queues: Box<[Ends]>,
}

impl Source {
    /// All ports are free at once, every queue in another order.
    pub(super) fn new(number: u8, address: IpAddr, layout: Layout, secret: Secret) -> Self {
        let address = Endpoint::from_socket(SocketAddr::new(address, 0)).address;
        let ranges = Protocol::ALL.len() * layout.groups;
        let cells = (0..ranges * layout.ports).map(|_| AtomicU64::new(0));
        let mut cells: Box<[AtomicU64]> = cells.collect();
        let mut dice = Dice::new(secret, address);
        let mut queues = Vec::with_capacity(ranges * layout.workers);
        for cells in cells.chunks_exact_mut(layout.ports) {
            for worker in 0..layout.workers {
                let (first, end) = block(&layout, worker);
                let mut order: Vec<u64> = (first as u64..end as u64).collect();
                dice.shuffle(&mut order);
                queues.push(queue::fill(cells, &order));
            }
        }
        Self {
            number,
            address,
            layout,
            cells,
            queues: queues.into_boxed_slice(),
        }
    }

    /// See [`Layout::memory_bytes`].
    pub(super) const fn memory_bytes(layout: &Layout) -> usize {
        let ranges = Protocol::ALL.len() * layout.groups;
        ranges * (layout.ports * size_of::<AtomicU64>() + layout.workers * size_of::<Ends>())
    }

    /// What it is called in a [`Lease`].
    pub(super) const fn number(&self) -> u8 {
        self.number
    }

    pub(super) const fn address(&self) -> [u64; 2] {
        self.address
    }

    pub(super) fn ip(&self) -> IpAddr {
        let endpoint = Endpoint {
            address: self.address,
            port: 0,
        };
        endpoint.to_socket().ip()
    }

    /// Takes a port of `worker`'s block.
    #[inline]
    pub(super) fn take(
        &self,
        protocol: Protocol,
        group: usize,
        worker: usize,
        now: Seconds,
    ) -> Result<Lease, NoPort> {
        let queue = self.queue(protocol, group, worker);
        let place = queue.ok_or(NoPort::Held)?.take(now)?;
        let offset = u16::try_from(place).map_err(|_| NoPort::Held)?;
        let group = u16::try_from(group).map_err(|_| NoPort::Held)?;
        let port = self.layout.first.wrapping_add(offset);
        Ok(Lease::new(self.number, group, port))
    }

    /// Gives a port back to its block.
    #[inline]
    pub(super) fn give(&self, protocol: Protocol, lease: Lease, free_from: Seconds) -> Release {
        let place = lease.port().checked_sub(self.layout.first).map(usize::from);
        let Some(place) = place.filter(|place| *place < self.layout.ports) else {
            return Release::Foreign;
        };
        let worker = owner(&self.layout, place);
        match self.queue(protocol, lease.group(), worker) {
            Some(queue) if queue.give(place as u64, free_from) => Release::Rests,
            _ => Release::NotHeld,
        }
    }

    #[inline]
    fn queue(&self, protocol: Protocol, group: usize, worker: usize) -> Option<Queue<'_>> {
        let Layout {
            ports,
            workers,
            groups,
            ..
        } = self.layout;
        let range = protocol as usize * groups + group;
        let ends = self.queues.get(range * workers + worker)?;
        let cells = self.cells.get(range * ports..(range + 1) * ports)?;
        Some(Queue { ends, cells })
    }

    /// Whether no port is held or rests. Looks at all of them: for control.
    pub(super) fn is_quiet(&self, now: Seconds) -> bool {
        let is_free = |cell| matches!(queue::status(cell, now), Status::Free);
        self.cells.iter().all(is_free)
    }

    /// What has become of its ports.
    pub(super) fn usage(&self, now: Seconds) -> Usage {
        let mut usage = Usage::default();
        let ranges = Protocol::ALL.into_iter();
        for (protocol, group) in
            ranges.flat_map(|protocol| (0..self.layout.groups).map(move |group| (protocol, group)))
        {
            for worker in 0..self.layout.workers {
                let Some(queue) = self.queue(protocol, group, worker) else {
                    continue;
                };
                let (first, end) = block(&self.layout, worker);
                let more = queue.usage(first..end, now);
                usage.ports += more.ports;
                usage.held += more.held;
                usage.resting += more.resting;
            }
        }
        usage
    }
}

/// The places of a worker's ports, and the one after. The last worker has what remains.
const fn block(layout: &Layout, worker: usize) -> (usize, usize) {
    let each = layout.ports / layout.workers;
    let end = if worker + 1 == layout.workers {
        layout.ports
    } else {
        (worker + 1) * each
    };
    (worker * each, end)
}

/// Whose block a place is in.
#[inline]
const fn owner(layout: &Layout, place: usize) -> usize {
    let worker = place / (layout.ports / layout.workers);
    if worker < layout.workers {
        worker
    } else {
        layout.workers - 1
    }
}

/// Numbers that nobody guesses who has not the secret.
struct Dice {
    state: u64,
    step: u64,
}

impl Dice {
    fn new(secret: Secret, address: [u64; 2]) -> Self {
        let [a, b] = secret.0;
        let [high, low] = address;
        Self {
            state: mix(a ^ mix(low)),
            // Odd, so that all states are visited.
            step: mix(b ^ mix(high ^ !low)) | 1,
        }
    }

    /// SplitMix (Steele, Lea, Flood, OOPSLA 2014), with a step of its own.
    const fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(self.step);
        mix(self.state)
    }

    /// Fisher and Yates'.
    fn shuffle(&mut self, order: &mut [u64]) {
        for end in (1..order.len()).rev() {
            order.swap(end, super::reduce(self.roll(), end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_in_one_block() {
        for (last, workers) in [(1033, 1), (1033, 3), (1033, 5), (32767, 7)] {
            let layout = Layout::new(1024..=last, workers, 1).unwrap();
            let mut expected = 0;
            for worker in 0..workers {
                let (first, end) = block(&layout, worker);
                assert_eq!(first, expected);
                assert!((first..end).all(|place| owner(&layout, place) == worker));
                expected = end;
            }
            assert_eq!(expected, layout.ports);
        }
    }
}
