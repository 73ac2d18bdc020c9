//! Threads at full speed: no port has two holders, whoever gives it back, and none is lost.

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::thread;

    use ringgate_conntrack::source_ports::{
        Layout, Lease, NoPort, Release, Rests, Seat, SourcePorts,
    };
    use ringgate_conntrack::{Endpoint, Seconds, Secret, Span, Tie};

    const WORKERS: usize = 3;
    const FIRST: u16 = 1024;
    /// Few, so that the queues run empty all the time.
    const PORTS: u16 = 24;
    const TCP: u8 = 6;
    const ROUNDS: u32 = if cfg!(miri) { 300 } else { 300_000 };
    /// Places in which flows stand between who begins and who ends them.
    const PLACES: u64 = 20;

    /// What all threads share.
    struct Shared {
        ports: SourcePorts,
        backend: Endpoint,
        /// Whether somebody holds the port, as the holders say.
        held: Vec<AtomicBool>,
        /// What flows hold, as their entries have it.
        flows: Vec<AtomicU32>,
    }

    impl Shared {
        fn new() -> (Self, Vec<Seat>) {
            let layout = Layout::new(FIRST..=FIRST + PORTS - 1, WORKERS, 1).unwrap();
            let address: IpAddr = "192.0.2.1".parse().unwrap();
            let rests = Rests {
                tcp: Span(0),
                udp: Span(0),
            };
            let (ports, seats) =
                SourcePorts::new(layout, &[address], rests, Secret([1, 2])).unwrap();
            let shared = Self {
                ports,
                backend: Endpoint::from_socket("10.2.0.1:80".parse().unwrap()),
                held: (0..PORTS).map(|_| AtomicBool::new(false)).collect(),
                flows: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
            };
            (shared, seats)
        }

        /// Begins a flow where there is none, or ends the one that is there, whoever began it.
        /// Whether there was a port.
        fn turn(&self, seat: &mut Seat, place: u64, now: Seconds) -> Result<(), NoPort> {
            let flow = &self.flows[usize::try_from(place).unwrap()];
            // Acquire: pairs with the Release below. So a flow table hands its flows on, too.
            let held = flow.swap(0, Ordering::Acquire);
            if let Some(lease) = Lease::from_tie(Tie::from_bits(held)) {
                self.end(lease, now);
                return Ok(());
            }
            let lease = self.ports.allocate(seat, TCP, &self.backend, 0, now)?;
            // Relaxed: it is the allocator that has to order this after the last holder's.
            let was_held =
                self.held[usize::from(lease.port() - FIRST)].swap(true, Ordering::Relaxed);
            assert!(!was_held, "two holders of {lease:?}");
            // Release: pairs with the Acquire above.
            let placed = flow.compare_exchange(
                0,
                lease.to_tie().bits(),
                Ordering::Release,
                Ordering::Relaxed,
            );
            if placed.is_err() {
                self.end(lease, now);
            }
            Ok(())
        }

        fn end(&self, lease: Lease, now: Seconds) {
            // Relaxed: as in `turn`.
            let was_held =
                self.held[usize::from(lease.port() - FIRST)].swap(false, Ordering::Relaxed);
            assert!(was_held, "nobody holds {lease:?}");
            let released = self.ports.release(TCP, lease, now);
            assert_eq!(released, Release::Rests);
        }
    }

    #[test]
    fn ports_given_back_by_other_threads_are_neither_shared_nor_lost() {
        let (shared, mut seats) = Shared::new();
        let refused: u32 = thread::scope(|scope| {
            let shared = &shared;
            let threads: Vec<_> = seats
                .iter_mut()
                .zip(1u64..)
                .map(|(seat, mut random)| {
                    scope.spawn(move || {
                        let mut refused = 0;
                        for round in 0..ROUNDS {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            // A second from time to time, so that some have rested and some not.
                            let now = Seconds(round / 8);
                            refused += u32::from(shared.turn(seat, random % PLACES, now).is_err());
                        }
                        refused
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert!((1..ROUNDS * 3).contains(&refused), "{refused} were refused");
        for flow in &shared.flows {
            // Relaxed: the threads have ended.
            let held = Tie::from_bits(flow.load(Ordering::Relaxed));
            if let Some(lease) = Lease::from_tie(held) {
                shared.end(lease, Seconds(ROUNDS));
            }
        }
        // All are free again, but for the one that each queue keeps.
        for seat in &mut seats {
            let mut count = 0;
            let now = Seconds(ROUNDS + 1);
            while shared
                .ports
                .allocate(seat, TCP, &shared.backend, 0, now)
                .is_ok()
            {
                count += 1;
            }
            assert_eq!(count, PORTS / 3 - 1);
        }
    }
}
