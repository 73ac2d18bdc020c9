//! Threads at full speed on a small table of fragmented datagrams: whatever is found was stored so.

#[cfg(test)]
mod tests {
    use std::thread;

    use ringgate_conntrack::fragments::{Datagram, FragmentTable, Ports, Stored};
    use ringgate_conntrack::{Seconds, Secret};

    const THREADS: u64 = 3;
    const ROUNDS: u32 = if cfg!(miri) { 300 } else { 300_000 };
    /// More than there are places, so that they displace each other all the time.
    const DATAGRAMS: u64 = 24;
    const PLACES: usize = 16;

    fn datagram(number: u64) -> Datagram {
        Datagram {
            source: [number, !number],
            destination: [number * 3, number * 5],
            identification: u32::try_from(number).unwrap(),
            protocol: 17,
        }
    }

    /// What is stored of a datagram in a round: a mixture would show.
    fn ports(number: u64, round: u32) -> Ports {
        let [round, ..] = round.to_le_bytes();
        let source = u16::from_le_bytes([round, u8::try_from(number).unwrap()]);
        Ports {
            source,
            destination: source.wrapping_mul(0x9E37) ^ 0x5555,
        }
    }

    #[test]
    fn what_is_found_was_stored_so() {
        let table = FragmentTable::new(PLACES, Secret([1, 2])).unwrap();
        let found: u32 = thread::scope(|scope| {
            let table = &table;
            let threads: Vec<_> = (1..=THREADS)
                .map(|mut random| {
                    scope.spawn(move || {
                        let mut found = 0;
                        for round in 0..ROUNDS {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            let number = random % DATAGRAMS;
                            let now = Seconds(round / 1024);
                            if random & 1 << 40 == 0 {
                                let _any =
                                    table.store(&datagram(number), ports(number, round), now);
                            } else if let Some(seen) = table.ports(&datagram(number), now) {
                                let [low, of] = seen.source.to_le_bytes();
                                assert_eq!(u64::from(of), number, "another's");
                                assert_eq!(seen, ports(number, low.into()), "torn");
                                found += 1;
                            }
                        }
                        found
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert!(found > ROUNDS / 4, "only {found} were found");
        // Nobody writes any more: every place can be had.
        let later = Seconds(ROUNDS);
        for number in 100..200 {
            let stored = table.store(&datagram(number), ports(number, 1), later);
            assert!(matches!(stored, Stored::Anew | Stored::Displaced));
            let found = table.ports(&datagram(number), later);
            assert_eq!(found, Some(ports(number, 1)));
        }
    }
}
