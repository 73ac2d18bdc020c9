//! Interleavings of those who store and look up fragmented datagrams, judged by loom.
//!
//! `RUSTFLAGS="--cfg lb_loom" cargo test -p ringgate-conntrack --test loom_fragments --release`
//!
//! The model is the shipping code with one bucket of two places.

#![cfg(lb_loom)]

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use loom::sync::Arc;
    use loom::thread;
    use ringgate_conntrack::fragments::*;
    use ringgate_conntrack::{Seconds, Secret};

    const NOW: Seconds = Seconds(100);

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

    fn table() -> Arc<FragmentTable> {
        let table = FragmentTable::new(2, Secret([1, 2])).unwrap();
        assert_eq!(table.capacity(), 2);
        Arc::new(table)
    }

    /// Every word of a name tells whose it is.
    fn datagram(number: u16) -> Datagram {
        let wide = u64::from(number);
        Datagram {
            source: [wide, !wide],
            destination: [wide * 3, wide * 5],
            identification: u32::from(number),
            protocol: 17,
        }
    }

    /// What is stored of a datagram for the `round`th time: a mixture would show.
    fn ports(number: u16, round: u16) -> Ports {
        Ports {
            source: number << 8 | round,
            destination: !(number << 8 | round),
        }
    }

    fn store(table: &FragmentTable, number: u16, round: u16) -> Stored {
        table.store(&datagram(number), ports(number, round), NOW)
    }

    /// Which round's ports are found; they must be whole.
    fn find(table: &FragmentTable, number: u16) -> Option<u16> {
        let found = table.ports(&datagram(number), NOW)?;
        let round = found.source & 0xFF;
        assert_eq!(found, ports(number, round), "torn");
        Some(round)
    }

    #[test]
    fn a_reader_finds_a_datagram_whole_or_not_at_all_while_it_is_displaced() {
        model(3, || {
            let table = table();
            assert_eq!(store(&table, 1, 1), Stored::Anew);
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || {
                assert_eq!(store(&other, 2, 1), Stored::Anew);
                assert_eq!(store(&other, 3, 1), Stored::Displaced);
            });
            let _before = find(&table, 1);
            let _after = find(&table, 3);
            thread.join().unwrap();
            let found = [1, 2, 3].map(|number| find(&table, number));
            assert_eq!(found, [None, Some(1), Some(1)]);
        });
    }

    #[test]
    fn ports_are_the_old_or_the_new_ones_while_they_change() {
        model(3, || {
            let table = table();
            assert_eq!(store(&table, 1, 1), Stored::Anew);
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || {
                assert_eq!(store(&other, 1, 2), Stored::Again);
            });
            let mut last = 0;
            for _ in 0..2 {
                if let Some(round) = find(&table, 1) {
                    assert!(round >= last, "back to the old ones");
                    last = round;
                }
            }
            thread.join().unwrap();
            assert_eq!(find(&table, 1), Some(2));
        });
    }

    #[test]
    fn two_writers_have_a_place_each() {
        model(3, || {
            let table = table();
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || store(&other, 1, 1));
            assert_eq!(store(&table, 2, 1), Stored::Anew);
            assert_eq!(thread.join().unwrap(), Stored::Anew);
            assert_eq!([1, 2].map(|number| find(&table, number)), [Some(1); 2]);
        });
    }

    #[test]
    fn three_writers_of_two_places_mix_nothing_and_are_told_the_truth() {
        model(2, || {
            let table = table();
            let threads = [1, 2].map(|number| {
                let table = Arc::clone(&table);
                thread::spawn(move || store(&table, number, 1))
            });
            let mine = store(&table, 3, 1);
            let stored = [mine]
                .into_iter()
                .chain(threads.map(|thread| thread.join().unwrap()));
            let stored: Vec<Stored> = stored.collect();
            let count = |what| stored.iter().filter(|one| **one == what).count();
            let found = [1, 2, 3].iter().filter(|n| find(&table, **n).is_some());
            // What has a place has it, but for one displaced by the third.
            let placed = count(Stored::Anew) + count(Stored::Displaced);
            assert_eq!(found.count(), placed - count(Stored::Displaced));
            assert_eq!(placed + count(Stored::Contended), 3);
        });
    }

    #[test]
    fn one_datagram_stored_by_two_is_found_with_the_ports_of_one() {
        model(3, || {
            let table = table();
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || store(&other, 1, 1));
            let mine = store(&table, 1, 2);
            let theirs = thread.join().unwrap();
            assert!(mine != Stored::Displaced && theirs != Stored::Displaced);
            let found = find(&table, 1).unwrap();
            // Who is stored again has replaced the other's.
            match (mine, theirs) {
                (Stored::Again, _) => assert_eq!(found, 2),
                (_, Stored::Again) => assert_eq!(found, 1),
                _ => {}
            }
        });
    }
}
