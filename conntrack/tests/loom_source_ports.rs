//! Interleavings of the worker that takes source ports and others that give them back, judged by
//! loom.
//!
//! `RUSTFLAGS="--cfg lb_loom" cargo test -p ringgate-conntrack --test loom_source_ports --release`
//!
//! The model is the shipping code: a source of three ports, of which two can be held.

#![cfg(lb_loom)]

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use loom::sync::Arc;
    use loom::thread;
    use ringgate_conntrack::source_ports::*;
    use ringgate_conntrack::{Endpoint, Seconds, Secret, Span};

    const TCP: u8 = 6;
    const NOW: Seconds = Seconds(100);
    /// All that were given back at `NOW` have rested.
    const RESTED: Seconds = Seconds(101);

    /// Runs `body` in every interleaving with up to `preemptions` preemptions.
    fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        let runs = std::sync::Arc::new(AtomicU32::new(0));
        let count = std::sync::Arc::clone(&runs);
        builder.check(move || {
            count.fetch_add(1, Ordering::Relaxed);
            body();
        });
        // A model that loom takes to have no races judges nothing.
        let runs = runs.load(Ordering::Relaxed);
        assert!(runs > 20, "only {runs} interleavings were tried");
    }

    fn ports() -> (Arc<SourcePorts>, Seat) {
        let layout = Layout::new(1024..=1026, 1, 1).unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let rests = Rests {
            tcp: Span(0),
            udp: Span(0),
        };
        let (set, seats) = SourcePorts::new(layout, &[address], rests, Secret([1, 2])).unwrap();
        (Arc::new(set), seats.into_iter().next().unwrap())
    }

    fn to() -> Endpoint {
        Endpoint::from_socket("10.2.0.1:80".parse().unwrap())
    }

    fn take(ports: &SourcePorts, seat: &mut Seat, now: Seconds) -> Result<Lease, NoPort> {
        ports.allocate(seat, TCP, &to(), 0, now)
    }

    fn give(ports: &SourcePorts, lease: Lease) -> Release {
        ports.release(TCP, lease, NOW)
    }

    #[test]
    fn ports_come_back_from_two_threads_while_one_takes() {
        model(4, || {
            let (ports, mut seat) = ports();
            let held = [(); 2].map(|()| take(&ports, &mut seat, NOW).unwrap());
            assert_eq!(take(&ports, &mut seat, NOW), Err(NoPort::Held));
            // What a holder did is done when the next one has the port.
            let words = Arc::new([(); 3].map(|()| loom::sync::atomic::AtomicU32::new(0)));
            let word = |lease: &Lease| usize::from(lease.port() - 1024);
            let threads = held.map(|from| {
                let (ports, words) = (Arc::clone(&ports), Arc::clone(&words));
                thread::spawn(move || {
                    // Relaxed: it is the allocator that has to order this.
                    words[word(&from)].store(1, Ordering::Relaxed);
                    assert_eq!(give(&ports, from), Release::Rests);
                })
            });
            let early: Vec<_> = [(); 2]
                .into_iter()
                .filter_map(|()| take(&ports, &mut seat, RESTED).ok())
                .collect();
            for from in early.iter().filter(|from| held.contains(from)) {
                // Relaxed: as above.
                assert_eq!(words[word(from)].load(Ordering::Relaxed), 1, "not yet done");
            }
            let threads = threads.into_iter();
            threads.for_each(|thread| thread.join().unwrap());
            // What could not be had before can be had now, each port once.
            let late = std::iter::from_fn(|| take(&ports, &mut seat, RESTED).ok());
            let mut all: Vec<u16> = early
                .into_iter()
                .chain(late)
                .map(|lease| lease.port())
                .collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 2);
        });
    }

    #[test]
    fn a_port_given_back_is_taken_again_at_once_and_given_back_again() {
        model(4, || {
            let (ports, mut seat) = ports();
            let held = [(); 2].map(|()| take(&ports, &mut seat, NOW).unwrap());
            let other = Arc::clone(&ports);
            let thread = thread::spawn(move || {
                assert_eq!(give(&other, held[0]), Release::Rests);
            });
            // Taken as soon as it is linked, and given back while the other may still be busy.
            if let Ok(from) = take(&ports, &mut seat, RESTED) {
                assert_ne!(from, held[1], "two holders");
                assert_eq!(give(&ports, from), Release::Rests);
            }
            assert_eq!(give(&ports, held[1]), Release::Rests);
            thread.join().unwrap();
            let all = std::iter::from_fn(|| take(&ports, &mut seat, RESTED).ok());
            assert_eq!(all.count(), 2);
        });
    }

    #[test]
    fn of_two_who_give_back_the_same_port_one_does() {
        model(4, || {
            let (ports, mut seat) = ports();
            let from = take(&ports, &mut seat, NOW).unwrap();
            let threads = [(); 2].map(|()| {
                let ports = Arc::clone(&ports);
                thread::spawn(move || give(&ports, from))
            });
            let done = threads.map(|thread| thread.join().unwrap());
            assert!(done.contains(&Release::Rests) && done.contains(&Release::NotHeld));
            let all = std::iter::from_fn(|| take(&ports, &mut seat, RESTED).ok());
            assert_eq!(all.count(), 2);
        });
    }
}
