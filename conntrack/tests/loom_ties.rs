//! Interleavings around what an entry knows of its flow's other side: a port that it holds has one
//! who gives it back, and who follows it to a slot finds a flow whole. Judged by loom.
//!
//! `RUSTFLAGS="--cfg lb_loom" cargo test -p ringgate-conntrack --test loom_ties --release`

#![cfg(lb_loom)]

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use loom::sync::Arc;
    use loom::thread;
    use ringgate_conntrack::source_ports::*;
    use ringgate_conntrack::*;

    const NOW: Seconds = Seconds(100);
    /// What is closed since `NOW` has ended, what is established has not.
    const LATER: Seconds = Seconds(200);
    const TCP: u8 = 6;

    /// Runs `body` in every interleaving with up to `preemptions` preemptions.
    fn model(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        // A step of a thread is two branches, see `sync`.
        builder.max_branches = 10_000;
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

    /// A table of two slots, in one of which an established flow is, and the ports.
    struct World {
        table: FlowTable,
        ports: SourcePorts,
        /// How often a port was given back.
        given: loom::sync::atomic::AtomicU32,
    }

    impl World {
        fn new() -> (Arc<Self>, Lease) {
            let layout = Layout::new(1024..=1026, 1, 1).unwrap();
            let address: IpAddr = "192.0.2.1".parse().unwrap();
            let sources = SourcePorts::new(layout, &[address], Rests::default(), Secret([1, 2]));
            let (ports, mut seats) = sources.unwrap();
            let backend = Endpoint::from_socket("10.2.0.1:80".parse().unwrap());
            let lease = ports.allocate(&mut seats[0], TCP, &backend, 0, NOW);
            let world = Self {
                table: FlowTable::in_memory(1, Secret([1, 2]), Timeouts::default()).unwrap(),
                ports,
                given: loom::sync::atomic::AtomicU32::new(0),
            };
            assert_eq!(world.table.slots(), 2);
            assert!(world.insert(3, State::Established, Tie::NONE).is_some());
            (Arc::new(world), lease.unwrap())
        }

        fn insert(&self, number: u16, state: State, tie: Tie) -> Option<Placed> {
            let (key, new) = (key(number), new(number, state, tie));
            let insert = self.table.insert(&key, self.table.hash(&key), new, NOW);
            insert.placed()
        }

        fn find(&self, number: u16) -> Option<Found> {
            let key = key(number);
            self.table.lookup(&key, self.table.hash(&key), NOW)
        }

        fn give_back(&self, tie: Tie) {
            if let Some(lease) = Lease::from_tie(tie) {
                assert_eq!(self.ports.release(TCP, lease, NOW), Release::Rests);
                // Relaxed: counted after the threads have ended.
                self.given.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn sweep(&self) {
            let mut all = self.table.share(0, 1);
            let swept = |ended: Ended| self.give_back(ended.whose.tie);
            self.table.sweep(&mut all, usize::MAX, LATER, swept);
        }
    }

    fn key(number: u16) -> FlowKey {
        let wide = u64::from(number);
        let endpoint = |address, port| Endpoint { address, port };
        let (source, destination) = ([wide, !wide], [wide * 3, wide * 5]);
        FlowKey::new(
            TCP,
            endpoint(source, number),
            endpoint(destination, !number),
        )
    }

    fn new(number: u16, state: State, tie: Tie) -> NewFlow {
        NewFlow {
            state,
            owner: u32::from(number),
            direction: Direction::FromClient,
            tie,
            profile: Profile::DEFAULT,
            reach: Reach::UNKNOWN,
        }
    }

    #[test]
    fn a_port_is_given_back_once_whoever_ends_its_flow() {
        model(2, || {
            let (world, lease) = World::new();
            assert!(world.insert(1, State::Closed, lease.to_tie()).is_some());
            let found = world.find(1).unwrap();
            let (sweeper, inserter) = (Arc::clone(&world), Arc::clone(&world));
            let threads = [
                thread::spawn(move || sweeper.sweep()),
                // It takes the flow's place, if that is not empty yet.
                thread::spawn(move || {
                    let placed = inserter.insert(2, State::Established, Tie::NONE);
                    if let Some(ended) = placed.and_then(|placed| placed.ended) {
                        inserter.give_back(ended.whose.tie);
                    }
                }),
            ];
            if world.table.remove(&found) {
                world.give_back(found.tie);
            }
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            assert_eq!(world.find(1), None);
            // Relaxed: the threads have ended.
            assert_eq!(world.given.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn a_port_that_moves_on_with_its_flow_is_not_given_back_by_who_ends_what_it_left() {
        model(3, || {
            let (world, lease) = World::new();
            let waits = world.insert(1, State::Opening, lease.to_tie()).unwrap();
            let found = world.find(1).unwrap();
            let other = Arc::clone(&world);
            // A newcomer that wants the port of the flow that waits longest.
            let thread = thread::spawn(move || {
                let there = other.table.flow_in(waits.slot, NOW);
                let there = there.filter(|(_, there)| {
                    there.tie == lease.to_tie() && there.direction == Direction::FromClient
                });
                there.is_some_and(|(_, there)| other.table.remove(&there))
            });
            // The handshake is complete: the entry still tells the port, and holds it no more.
            let trail = NewFlow {
                direction: Direction::FromBackend,
                ..new(1, State::Opening, lease.to_tie())
            };
            let moved = world.table.replace(&found, trail, NOW);
            let lost = thread.join().unwrap();
            assert!(moved != lost, "moved {moved}, lost {lost}");
            assert_eq!(
                world.find(1).map(|left| (left.direction, left.tie)),
                moved.then_some((Direction::FromBackend, lease.to_tie()))
            );
        });
    }

    #[test]
    fn who_follows_a_tie_finds_a_flow_whole_if_any() {
        model(3, || {
            let (world, lease) = World::new();
            let client = world.insert(1, State::Closed, lease.to_tie()).unwrap();
            let found = world.find(1).unwrap();
            let other = Arc::clone(&world);
            let thread = thread::spawn(move || {
                assert!(other.table.remove(&found));
                other
                    .insert(2, State::Established, Tie::to_slot(7))
                    .unwrap()
            });
            let tied = world.table.key_in(client.slot);
            let whole = [
                (1, State::Closed, lease.to_tie()),
                (2, State::Established, Tie::to_slot(7)),
            ]
            .map(|(number, state, tie)| Some((key(number), new(number, state, tie).whose())));
            assert!(tied.is_none() || whole.contains(&tied), "{tied:?}");
            let placed = thread.join().unwrap();
            assert_eq!((placed.slot, placed.ended), (client.slot, None));
        });
    }
}
