//! What is handed over through a flow or a source port arrives whole: plain memory that changes
//! hands by nothing else, for ThreadSanitizer to judge (stage `tsan` of `scripts/test`).
//!
//! The crate's own words are all atomic, so a sanitizer that looks for plain accesses that race has
//! nothing to say of them. It does of memory that threads own in turn: if an ordering of the
//! crate were too weak, the next owner's access would race with the last one's.
#![expect(
    unsafe_code,
    reason = "memory that changes hands by the orderings under test has no safe form"
)]

#[cfg(test)]
mod tests {
    use std::cell::UnsafeCell;
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use ringgate_conntrack::source_ports::{Layout, Lease, Release, Rests, Seat, SourcePorts};
    use ringgate_conntrack::{
        Direction, Endpoint, FlowKey, FlowTable, NewFlow, Profile, Reach, Seconds, Secret, Span,
        State, Tie, Timeouts,
    };

    const THREADS: u32 = 3;
    const ROUNDS: u32 = if cfg!(miri) { 300 } else { 100_000 };
    const KEYS: u64 = 40;
    const FIRST_PORT: u16 = 1024;
    const TCP: u8 = 6;
    const NOW: Seconds = Seconds(100);

    /// Plain memory; each word has one owner at a time.
    struct Plain(Vec<UnsafeCell<[u64; 2]>>);

    // SAFETY: `own` is called by a word's owner only; that there is one at a time is what the tests
    // here are about.
    unsafe impl Sync for Plain {}

    impl Plain {
        fn new(words: u16) -> Self {
            Self((0..words).map(|_| UnsafeCell::new([0, !0])).collect())
        }

        /// What the last owner left is whole; leaves something else. Only for the word's owner.
        fn own(&self, word: usize, mark: u64) {
            // SAFETY: the caller owns the word, so that nobody else has a reference to it.
            let [a, b] = unsafe { &mut *self.0[word].get() };
            assert_eq!(*a, !*b, "torn");
            (*a, *b) = (mark, !mark);
        }
    }

    /// Marsaglia's, one for each thread.
    fn roll(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// Each thread begins flows that name a word it owns, and ends those of others: who removes the
    /// flow owns the word.
    #[test]
    fn a_flow_hands_over_what_it_names() {
        let table = FlowTable::in_memory(4096, Secret([3, 5]), Timeouts::default()).unwrap();
        let plain = Plain::new(30);
        let mut threads: Vec<(u32, u64)> = (0..THREADS).zip(1..).collect();
        on_threads(&mut threads, |(thread, random)| {
            let mut owned: Vec<u32> = (*thread * 10..*thread * 10 + 10).collect();
            for _ in 0..ROUNDS {
                let number = roll(random) % KEYS;
                exchange(&table, &plain, &mut owned, number, *random);
            }
        });
    }

    fn exchange(table: &FlowTable, plain: &Plain, owned: &mut Vec<u32>, number: u64, mark: u64) {
        let end = |port| Endpoint {
            address: [number, !number],
            port,
        };
        let key = FlowKey::new(TCP, end(1), end(2));
        let hash = table.hash(&key);
        if let Some(found) = table.lookup(&key, hash, NOW) {
            if table.remove(&found) {
                plain.own(usize::try_from(found.owner).unwrap(), mark);
                owned.push(found.owner);
            }
        } else if let Some(owner) = owned.pop() {
            plain.own(usize::try_from(owner).unwrap(), mark);
            let flow = NewFlow {
                state: State::Established,
                owner,
                direction: Direction::FromClient,
                tie: Tie::NONE,
                profile: Profile::DEFAULT,
                reach: Reach::UNKNOWN,
            };
            if table.insert(&key, hash, flow, NOW).placed().is_none() {
                owned.push(owner);
            }
        }
    }

    /// Who holds a port owns its word. Flows are handed from thread to thread, and whoever has one
    /// gives its port back.
    ///
    /// With `RINGGATE_RACE` in the environment the hand-over between threads is too weak, which is a
    /// race: the stage `tsan` sees whether that is noticed.
    #[test]
    fn a_port_is_its_holders_alone() {
        // AcqRel: Release of the word that came with the port, Acquire of the one got in exchange.
        let exchange = match std::env::var_os("RINGGATE_RACE") {
            Some(_) => Ordering::Relaxed,
            None => Ordering::AcqRel,
        };
        let layout = Layout::new(FIRST_PORT..=FIRST_PORT + 23, 3, 1).unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let rests = Rests {
            tcp: Span(0),
            udp: Span(0),
        };
        let (ports, seats) = SourcePorts::new(layout, &[address], rests, Secret([1, 2])).unwrap();
        let (plain, flow) = (Plain::new(24), AtomicU32::new(0));
        let own = |lease: Lease, mark| plain.own(usize::from(lease.port() - FIRST_PORT), mark);
        let to = Endpoint::from_socket("10.2.0.1:80".parse().unwrap());
        let mut seats: Vec<(Seat, u64)> = seats.into_iter().zip(1..).collect();
        on_threads(&mut seats, |(seat, random)| {
            for round in 0..ROUNDS {
                let mark = roll(random);
                let mut mine = 0;
                if let Ok(lease) = ports.allocate(seat, TCP, &to, 0, Seconds(round)) {
                    own(lease, mark);
                    mine = lease.to_tie().bits();
                }
                let other = flow.swap(mine, exchange);
                if let Some(lease) = Lease::from_tie(Tie::from_bits(other)) {
                    own(lease, mark);
                    let released = ports.release(TCP, lease, Seconds(round));
                    assert_eq!(released, Release::Rests);
                }
            }
        });
    }

    /// One thread for each state. Joined one by one: the end of a scope alone is ordered by the
    /// standard library's atomics, of which the sanitizer knows nothing.
    fn on_threads<S: Send>(states: &mut [S], work: impl Fn(&mut S) + Sync) {
        thread::scope(|scope| {
            let work = &work;
            let threads = states
                .iter_mut()
                .map(|state| scope.spawn(move || work(state)));
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        });
    }
}
