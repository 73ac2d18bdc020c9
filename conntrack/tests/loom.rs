//! Interleavings of two and three threads on a table of two slots, judged by loom.
//!
//! `RUSTFLAGS="--cfg lb_loom" cargo test -p ringgate-conntrack --test loom --release`
//!
//! The model is the shipping code with smaller constants: buckets of one slot, two tries where
//! there would be more. Preemptions are bounded, as loom's documentation advises for models with
//! many steps.

#![cfg(lb_loom)]

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use loom::sync::Arc;
    use loom::thread;
    use ringgate_conntrack::*;

    const NOW: Seconds = Seconds(100);
    const SECRET: Secret = Secret([1, 2]);
    const TCP: u8 = 6;
    const ACK: u8 = 0x10;
    const FIN_ACK: u8 = 0x11;

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
        // A model that loom takes to have no races judges nothing (`sync` has the story).
        let runs = runs.load(Ordering::Relaxed);
        assert!(runs > 20, "only {runs} interleavings were tried");
    }

    fn table() -> Arc<FlowTable> {
        let table = FlowTable::in_memory(1, SECRET, Timeouts::default()).unwrap();
        assert_eq!(table.slots(), 2);
        Arc::new(table)
    }

    fn key(number: u16) -> FlowKey {
        let wide = u64::from(number);
        let source = Endpoint {
            address: [wide, !wide],
            port: number,
        };
        let destination = Endpoint {
            address: [wide * 3, wide * 5],
            port: !number,
        };
        FlowKey::new(TCP, source, destination)
    }

    /// What a flow's owner must be for its key: a torn record would show.
    fn new(number: u16, state: State, owner: u16) -> NewFlow {
        NewFlow {
            state,
            owner: u32::from(number) << 16 | u32::from(owner),
            direction: if owner.is_multiple_of(2) {
                Direction::FromClient
            } else {
                Direction::FromBackend
            },
            tie: Tie::from_bits(u32::from(number) << 16 | u32::from(owner)),
            profile: Profile::DEFAULT,
            reach: Reach::at(u32::from(owner) << 16),
        }
    }

    fn insert(table: &FlowTable, number: u16, state: State, owner: u16) -> Insert {
        let flow = new(number, state, owner);
        table.insert(&key(number), table.hash(&key(number)), flow, NOW)
    }

    fn put(table: &FlowTable, number: u16, state: State, owner: u16) -> Found {
        assert!(matches!(
            insert(table, number, state, owner),
            Insert::Inserted(_)
        ));
        find(table, number).unwrap()
    }

    fn owner(found: &Found) -> u16 {
        (found.owner & 0xFFFF).try_into().unwrap()
    }

    /// A lookup, whose finding must be whole.
    fn find(table: &FlowTable, number: u16) -> Option<Found> {
        let found = table.lookup(&key(number), table.hash(&key(number)), NOW);
        if let Some(found) = &found {
            let whole = new(number, found.state, owner(found));
            assert_eq!(
                (found.owner, found.direction, found.tie),
                (whole.owner, whole.direction, whole.tie),
                "torn"
            );
        }
        found
    }

    fn copies(table: &FlowTable, number: u16) -> usize {
        let mut copies = 0;
        table.for_each(NOW, |found, _| copies += usize::from(*found == key(number)));
        copies
    }

    #[test]
    fn two_insertions_of_one_key_leave_one_record() {
        model(4, || {
            let table = table();
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || insert(&other, 1, State::Opening, 11));
            let mine = insert(&table, 1, State::Opening, 22);
            let theirs = thread.join().unwrap();
            let inserted = [mine, theirs]
                .iter()
                .filter(|outcome| outcome.placed().is_some())
                .count();
            assert_eq!(inserted, 1, "{mine:?} {theirs:?}");
            assert_eq!(copies(&table, 1), 1);
            for outcome in [mine, theirs] {
                if let Insert::Exists(flow) = outcome {
                    assert_eq!(find(&table, 1), Some(flow));
                }
            }
        });
    }

    #[test]
    fn an_insertion_among_removals_leaves_no_second_record() {
        // A slot becomes free between two insertions of one key: the second must not take it for
        // a sign that the key is absent.
        model(2, || {
            let table = table();
            let old = put(&table, 2, State::Closed, 33);
            let (other, third) = (Arc::clone(&table), Arc::clone(&table));
            let insertion = thread::spawn(move || insert(&other, 1, State::Opening, 11));
            let removal = thread::spawn(move || third.remove(&old));
            let mine = insert(&table, 1, State::Opening, 22);
            let theirs = insertion.join().unwrap();
            let _gone = removal.join().unwrap();
            assert!(copies(&table, 1) <= 1, "{mine:?} {theirs:?}");
        });
    }

    #[test]
    fn insertions_of_two_keys_take_two_slots() {
        model(4, || {
            let table = table();
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || insert(&other, 1, State::Established, 11));
            let mine = insert(&table, 2, State::Established, 22).placed().is_some();
            let theirs = thread.join().unwrap().placed().is_some();
            assert_eq!(copies(&table, 1), usize::from(theirs));
            assert_eq!(copies(&table, 2), usize::from(mine));
            assert!(mine || theirs);
            // Each is found by its tag, which no other lane's change has damaged.
            assert_eq!(find(&table, 1).is_some(), theirs);
            assert_eq!(find(&table, 2).is_some(), mine);
        });
    }

    #[test]
    fn a_lookup_during_an_insertion_finds_all_or_nothing() {
        model(4, || {
            let table = table();
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || insert(&other, 1, State::Established, 11));
            if let Some(found) = find(&table, 1) {
                assert_eq!(owner(&found), 11);
            }
            assert!(matches!(thread.join().unwrap(), Insert::Inserted(_)));
            assert!(find(&table, 1).is_some());
        });
    }

    #[test]
    fn a_lookup_by_a_hint_during_an_eviction_finds_either_flow_whole() {
        model(2, || {
            let table = table();
            put(&table, 1, State::Closed, 11);
            put(&table, 3, State::Established, 33);
            // The hint stays with the slot, so the reader goes to it whatever the tag says.
            let hint = table.prefetch_slot(table.locate(table.hash(&key(1))));
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || insert(&other, 2, State::Established, 22));
            if let Some(found) = table.lookup(&key(1), hint, NOW) {
                assert_eq!((owner(&found), found.state), (11, State::Closed));
            }
            if let Some(found) = find(&table, 2) {
                assert_eq!((owner(&found), found.state), (22, State::Established));
            }
            assert!(
                find(&table, 3).is_some(),
                "the established flow is always found"
            );
            assert!(matches!(thread.join().unwrap(), Insert::Displaced(_)));
            assert_eq!(table.lookup(&key(1), hint, NOW), None);
            assert!(find(&table, 2).is_some());
        });
    }

    #[test]
    fn a_lookup_during_removal_and_reuse_finds_a_flow_whole() {
        model(2, || {
            let table = table();
            put(&table, 3, State::Established, 33);
            let flow = put(&table, 1, State::Established, 11);
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || {
                assert!(other.remove(&flow));
                insert(&other, 1, State::Opening, 12)
            });
            if let Some(found) = find(&table, 1) {
                let expected = [(11, State::Established), (12, State::Opening)];
                assert!(
                    expected.contains(&(owner(&found), found.state)),
                    "{found:?}"
                );
            }
            assert!(matches!(thread.join().unwrap(), Insert::Inserted(_)));
            assert_eq!(owner(&find(&table, 1).unwrap()), 12);
        });
    }

    #[test]
    fn a_lookup_during_a_rewriting_finds_the_old_or_the_new() {
        model(2, || {
            let table = table();
            let flow = put(&table, 1, State::Established, 11);
            let other = Arc::clone(&table);
            let thread =
                thread::spawn(move || other.replace(&flow, new(1, State::Established, 12), NOW));
            if let Some(found) = find(&table, 1) {
                assert!([11, 12].contains(&owner(&found)));
            }
            assert!(thread.join().unwrap());
            assert_eq!(owner(&find(&table, 1).unwrap()), 12);
        });
    }

    #[test]
    fn a_rewriting_and_an_advance_are_both_kept_or_one_is_refused() {
        model(4, || {
            let table = table();
            let flow = put(&table, 1, State::Opening, 11);
            let other = Arc::clone(&table);
            let thread =
                thread::spawn(move || other.replace(&flow, new(1, State::Opening, 12), NOW));
            let advanced = table.advance(&flow, Direction::FromClient, ACK, NOW);
            let rewritten = thread.join().unwrap();
            let found = find(&table, 1).unwrap();
            assert_eq!(owner(&found), if rewritten { 12 } else { 11 });
            assert!(rewritten || advanced);
            if !rewritten {
                assert_eq!(found.state, State::Established);
            }
        });
    }

    #[test]
    fn a_flow_that_was_told_it_is_established_is_not_evicted() {
        model(4, || {
            let table = table();
            put(&table, 3, State::Established, 33);
            let flow = put(&table, 1, State::Opening, 11);
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || insert(&other, 2, State::Established, 22));
            let advanced = table.advance(&flow, Direction::FromClient, ACK, NOW);
            let inserted = matches!(thread.join().unwrap(), Insert::Displaced(_));
            assert_eq!(advanced, !inserted);
            assert_eq!(find(&table, 1).is_some(), !inserted);
            assert_eq!(find(&table, 2).is_some(), inserted);
        });
    }

    #[test]
    fn two_advances_are_both_kept() {
        model(4, || {
            let table = table();
            let flow = put(&table, 1, State::Established, 11);
            let other = Arc::clone(&table);
            let thread =
                thread::spawn(move || other.advance(&flow, Direction::FromBackend, FIN_ACK, NOW));
            let mine = table.advance(&flow, Direction::FromClient, FIN_ACK, NOW);
            let theirs = thread.join().unwrap();
            assert!(mine && theirs);
            assert_eq!(find(&table, 1).unwrap().state, State::Closed);
        });
    }

    #[test]
    fn a_renewed_flow_is_not_swept() {
        model(4, || {
            let table = table();
            let flow = put(&table, 1, State::Opening, 11);
            // This thread's clock is a second behind: the flow has not ended for it.
            let timeouts = Timeouts::default();
            let grain = timeouts.grain(State::Opening).0;
            let last = Seconds(NOW.0 + timeouts.opening.0 + grain);
            let over = Seconds(last.0 + 1);
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || {
                other.sweep(&mut other.share(0, 1), usize::MAX, over, |_| {})
            });
            let renewed = table.advance(&flow, Direction::FromClient, 0x02, last);
            let swept = thread.join().unwrap();
            assert_eq!(swept, usize::from(!renewed));
            let found = table.lookup(&key(1), table.hash(&key(1)), over);
            assert_eq!(found.is_some(), renewed);
            assert_eq!(table.stored(), usize::from(renewed));
        });
    }

    #[test]
    fn a_sweep_and_a_removal_take_a_flow_out_once() {
        model(4, || {
            let table = table();
            let flow = put(&table, 1, State::Closed, 11);
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || {
                other.sweep(&mut other.share(0, 1), usize::MAX, Seconds(1000), |_| {})
            });
            let removed = table.remove(&flow);
            let swept = thread.join().unwrap();
            assert_eq!(usize::from(removed) + swept, 1);
            assert_eq!(table.stored(), 0);
            // Nothing is left of it that would keep a newcomer out.
            put(&table, 2, State::Established, 22);
            assert_eq!(table.stored(), 1);
        });
    }

    const fn segment(unit: u16) -> Segment {
        Segment {
            tcp_flags: ACK,
            sequence: (unit as u32) << 16,
        }
    }

    /// The furthest that a reach covers is one unit ahead of it.
    fn is_at(found: &Found, unit: u16) -> bool {
        let covers = |unit| found.reach.covers(segment(unit).sequence);
        covers(unit + 1) && !covers(unit + 2)
    }

    #[test]
    fn a_late_recorder_does_not_write_into_the_flow_that_took_the_place() {
        model(2, || {
            let table = table();
            let flow = put(&table, 1, State::Closed, 11);
            put(&table, 3, State::Established, 33);
            let other = Arc::clone(&table);
            // The newcomer's reach is the same as the old flow's: only versions tell them apart.
            let thread = thread::spawn(move || insert(&other, 2, State::Established, 11));
            assert!(table.follow(&flow, segment(40)));
            if let Some(found) = find(&table, 2) {
                assert!(is_at(&found, 11));
            }
            assert!(matches!(thread.join().unwrap(), Insert::Displaced(_)));
            let found = find(&table, 2).unwrap();
            assert!(is_at(&found, 11), "{found:x?}");
        });
    }

    #[test]
    fn a_recorder_during_a_rewriting_leaves_the_rewriter_s_reach() {
        model(2, || {
            let table = table();
            let flow = put(&table, 1, State::Established, 11);
            let other = Arc::clone(&table);
            let thread =
                thread::spawn(move || other.replace(&flow, new(1, State::Established, 12), NOW));
            assert!(table.follow(&flow, segment(40)));
            if let Some(found) = find(&table, 1) {
                let expected = if owner(&found) == 12 {
                    [12, 12]
                } else {
                    [11, 40]
                };
                assert!(expected.iter().any(|unit| is_at(&found, *unit)));
            }
            assert!(thread.join().unwrap());
            assert!(is_at(&find(&table, 1).unwrap(), 12));
        });
    }

    #[test]
    fn of_two_recorders_one_is_kept() {
        model(3, || {
            let table = table();
            let flow = put(&table, 1, State::Established, 11);
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || {
                assert!(other.follow(&flow, segment(30)));
                find(&other, 1).unwrap()
            });
            assert!(table.follow(&flow, segment(40)));
            let mine = find(&table, 1).unwrap();
            let theirs = thread.join().unwrap();
            let found = find(&table, 1).unwrap();
            assert_eq!([mine.reach, theirs.reach], [found.reach; 2]);
            assert!([30, 40].iter().any(|unit| is_at(&found, *unit)));
        });
    }

    #[test]
    fn another_profile_and_an_advance_are_both_kept() {
        model(3, || {
            let table = table();
            let flow = put(&table, 1, State::Established, 11);
            let profile = Profile::new(5).unwrap();
            let other = Arc::clone(&table);
            let thread = thread::spawn(move || other.assign(&flow, profile));
            assert!(table.advance(&flow, Direction::FromClient, FIN_ACK, NOW));
            assert!(thread.join().unwrap());
            let found = find(&table, 1).unwrap();
            assert_eq!(
                (found.profile(), found.state),
                (profile, State::ClientClosed)
            );
        });
    }
}
