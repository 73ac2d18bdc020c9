use proptest::prelude::*;
use std::collections::HashMap;

use super::*;
use crate::expiry::Span;
use crate::insert::Insert;
use crate::key::Endpoint;

const SECRET: Secret = Secret([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210]);

fn key(n: u32) -> FlowKey {
    let endpoint = |host: u32, port| Endpoint {
        address: [0, 0xFFFF_0A00_0000 + u64::from(host)],
        port,
    };
    FlowKey::new(
        6,
        endpoint(n >> 14, 1024 + u16::try_from(n & 0x3FFF).unwrap()),
        endpoint(1, 80),
    )
}

fn flow(state: State, owner: u32) -> NewFlow {
    NewFlow {
        state,
        owner,
        direction: Direction::FromClient,
        tie: Tie::NONE,
        profile: Profile::DEFAULT,
        reach: Reach::UNKNOWN,
    }
}

fn table(capacity: usize) -> FlowTable {
    FlowTable::in_memory(capacity, SECRET, Timeouts::default()).unwrap()
}

fn insert(table: &FlowTable, n: u32, state: State, now: u32) -> Insert {
    let key = key(n);
    table.insert(&key, table.hash(&key), flow(state, n), Seconds(now))
}

fn lookup(table: &FlowTable, n: u32, now: u32) -> Option<Found> {
    let key = key(n);
    table.lookup(&key, table.hash(&key), Seconds(now))
}

#[test]
fn what_is_stored_is_found_until_its_time_is_up() {
    let table = table(100);
    assert_eq!(lookup(&table, 1, 0), None);
    assert!(matches!(
        insert(&table, 1, State::OneWay, 10),
        Insert::Inserted(_)
    ));
    let found = lookup(&table, 1, 130).unwrap();
    assert_eq!(
        (found.state, found.owner, found.last_seen()),
        (State::OneWay, 1, Seconds(10))
    );
    assert_eq!(found.direction, Direction::FromClient);
    assert_eq!(insert(&table, 1, State::OneWay, 20), Insert::Exists(found));
    // 120 s and the grain of 30 s after the last packet.
    assert!(lookup(&table, 1, 160).is_some());
    assert_eq!(lookup(&table, 1, 161), None);
    assert_eq!(table.stored(), 1);
    assert!(matches!(
        insert(&table, 1, State::Opening, 161),
        Insert::Inserted(_)
    ));
    assert_eq!(
        (lookup(&table, 1, 161).unwrap().state, table.stored()),
        (State::Opening, 1)
    );
}

#[test]
fn a_steady_flow_is_found_also_where_another_has_its_tag() {
    let plain = Segment {
        tcp_flags: 0x10,
        sequence: 0,
    };
    let now = Seconds(10);
    let (mut alike, mut secret) = (0, 0);
    // Tags have 16 bits, so of some 200 tables with thirty flows one has two alike in a bucket.
    while alike < 3 {
        secret += 1;
        let table = FlowTable::in_memory(27, Secret([secret, 1]), Timeouts::default()).unwrap();
        for n in 0..27 {
            let new = NewFlow {
                reach: Reach::at(0),
                ..flow(State::Established, n)
            };
            let _room = table.insert(&key(n), table.hash(&key(n)), new, now);
        }
        for n in 0..27 {
            let hash = table.prefetch_slot(table.locate(table.hash(&key(n))));
            let found = table.lookup(&key(n), hash, now);
            let steady = table.steady(&key(n), hash, plain, now);
            assert_eq!(
                steady,
                found.map(|found| found.whose()),
                "flow {n} under secret {secret}"
            );
            alike += u32::from(found.is_some_and(|found| found.place != hash.hint()));
        }
    }
}

#[test]
fn a_packet_keeps_a_flow_and_moves_its_state() {
    let table = table(100);
    insert(&table, 1, State::Opening, 0);
    let found = lookup(&table, 1, 5).unwrap();
    table.advance(&found, Direction::FromClient, 0x10, Seconds(5));
    let found = lookup(&table, 1, 5).unwrap();
    assert_eq!(
        (found.state, found.last_seen()),
        (State::Established, Seconds(5))
    );
    assert!(lookup(&table, 1, 7000).is_some());
}

#[test]
fn a_flow_that_gave_way_is_not_changed_through_its_old_name() {
    let table = table(100);
    insert(&table, 1, State::Established, 0);
    let old = lookup(&table, 1, 0).unwrap();
    assert!(table.remove(&old));
    assert!(!table.remove(&old));
    insert(&table, 1, State::Established, 3);
    table.advance(&old, Direction::FromClient, 0x04, Seconds(9));
    assert!(!table.replace(&old, flow(State::Closed, 9), Seconds(9)));
    let found = lookup(&table, 1, 3).unwrap();
    assert_eq!(
        (found.state, found.owner, found.last_seen()),
        (State::Established, 1, Seconds(3))
    );
    assert!(table.replace(&found, flow(State::Established, 9), Seconds(4)));
    assert_eq!(lookup(&table, 1, 4).unwrap().owner, 9);
    assert_eq!(table.stored(), 1);
}

#[test]
fn a_table_holds_its_capacity() {
    const CAPACITY: u32 = 500_000;
    let table = table(CAPACITY.try_into().unwrap());
    assert!(table.memory_bytes() <= 72 * table.capacity());
    let is_lost = |n: &u32| insert(&table, *n, State::Established, 0).placed().is_none();
    let lost = (0..CAPACITY).filter(is_lost).count();
    assert!(lost * 500 < table.capacity(), "{lost} of {CAPACITY}");
    assert_eq!(table.stored(), table.capacity() - lost);
}

#[test]
fn newcomers_displace_the_unestablished_and_never_the_established() {
    let table = table(12);
    assert_eq!(table.buckets(), 2);
    let mut established = Vec::new();
    for n in 0..6 {
        assert!(matches!(
            insert(&table, n, State::Established, 0),
            Insert::Inserted(_)
        ));
        established.push(n);
    }
    for n in 100..1000 {
        let stored = insert(&table, n, State::Opening, 1);
        assert!(matches!(stored, Insert::Inserted(_) | Insert::Displaced(_)));
        assert!(lookup(&table, n, 1).is_some());
    }
    for n in &established {
        assert!(lookup(&table, *n, 1).is_some());
    }
    let mut full = 0;
    for n in 2000..3000 {
        match insert(&table, n, State::Established, 2) {
            Insert::Inserted(_) | Insert::Displaced(_) => established.push(n),
            Insert::Full => full += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(established.len() <= 30 && full > 900);
    for n in &established {
        assert!(lookup(&table, *n, 2).is_some());
    }
    // Their time up, they give way.
    assert!(matches!(
        insert(&table, 5000, State::Established, 8000),
        Insert::Inserted(_)
    ));
}

#[test]
fn sweeps_of_all_shares_remove_what_has_ended_and_nothing_else() {
    let table = table(1000);
    for n in 0..500 {
        insert(
            &table,
            n,
            if n % 2 == 0 {
                State::Established
            } else {
                State::Closed
            },
            0,
        );
    }
    let mut removed = 0;
    for share in 0..3 {
        let mut cursor = table.share(share, 3);
        removed += table.sweep(&mut cursor, usize::MAX, Seconds(100), |_| {});
    }
    assert_eq!((removed, table.stored()), (250, 250));
    for n in 0..500 {
        assert_eq!(lookup(&table, n, 100).is_some(), n % 2 == 0);
    }
}

#[test]
fn a_sweep_goes_round_its_share_a_few_buckets_at_a_time() {
    let table = table(1000);
    for n in 0..500 {
        insert(&table, n, State::Closed, 0);
    }
    let mut cursor = table.share(0, 1);
    let steps = table.buckets().div_ceil(7);
    let removed: usize = (0..steps)
        .map(|_| table.sweep(&mut cursor, 7, Seconds(100), |_| {}))
        .sum();
    assert_eq!((removed, table.stored()), (500, 0));
}

#[test]
fn shares_cover_the_table_once() {
    let table = table(10_000);
    for shares in [1, 2, 3, 7] {
        let mut next = 0;
        for index in 0..shares {
            let cursor = table.share(index, shares);
            assert_eq!(cursor.from, next);
            next = cursor.to;
        }
        assert_eq!(next, table.buckets());
    }
}

/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        u32::try_from((mixed ^ mixed >> 27) % bound).unwrap()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u32, usize),
    Packet(u32, bool, u8),
    Remove(u32),
    Replace(u32, u32),
    Sweep,
    Wait(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let flags = prop::sample::select(vec![0u8, 0x02, 0x10, 0x11, 0x12, 0x04]);
    prop_oneof![
        4 => (0u32..40, 0usize..7).prop_map(|(n, state)| Op::Insert(n, state)),
        4 => (0u32..40, any::<bool>(), flags).prop_map(|(n, d, f)| Op::Packet(n, d, f)),
        1 => (0u32..40).prop_map(Op::Remove),
        1 => (0u32..40, any::<u32>()).prop_map(|(n, owner)| Op::Replace(n, owner)),
        1 => Just(Op::Sweep),
        2 => (0u32..300).prop_map(Op::Wait),
    ]
}

proptest! {
    #[test]
    fn it_behaves_like_a_plain_map(ops in prop::collection::vec(op(), 0..300)) {
        let table = table(1000);
        let timeouts = Timeouts::default();
        let mut map: HashMap<u32, (State, u32, u32)> = HashMap::new();
        let mut now = 0;
        for op in ops {
            map.retain(|_, (state, seen, _)| !timeouts.has_ended(*state, Seconds(*seen), Seconds(now)));
            match op {
                Op::Insert(n, state) => {
                    let state = State::ALL[state];
                    let expected = map.contains_key(&n);
                    let result = insert(&table, n, state, now);
                    prop_assert_eq!(matches!(result, Insert::Exists(_)), expected);
                    map.entry(n).or_insert((state, now, n));
                }
                Op::Packet(n, from_client, flags) => {
                    let found = lookup(&table, n, now);
                    let direction = if from_client { Direction::FromClient } else { Direction::FromBackend };
                    prop_assert_eq!(found.is_some(), map.contains_key(&n));
                    if let (Some(found), Some((state, seen, _))) = (found, map.get_mut(&n)) {
                        table.advance(&found, direction, flags, Seconds(now));
                        let changes = state.after(direction, flags) != *state;
                        if changes || timeouts.is_stale(*state, Seconds(*seen), Seconds(now)) {
                            *seen = now;
                        }
                        *state = state.after(direction, flags);
                    }
                }
                Op::Remove(n) => {
                    let found = lookup(&table, n, now);
                    prop_assert_eq!(found.is_some_and(|found| table.remove(&found)), map.remove(&n).is_some());
                }
                Op::Replace(n, owner) => {
                    let replaced = lookup(&table, n, now)
                        .is_some_and(|found| table.replace(&found, flow(State::TwoWay, owner), Seconds(now)));
                    prop_assert_eq!(replaced, map.contains_key(&n));
                    map.entry(n).and_modify(|flow| *flow = (State::TwoWay, now, owner));
                }
                Op::Sweep => {
                    table.sweep(&mut table.share(0, 1), usize::MAX, Seconds(now), |_| {});
                    prop_assert_eq!(table.stored(), map.len());
                }
                Op::Wait(seconds) => now += seconds,
            }
        }
        map.retain(|_, (state, seen, _)| !timeouts.has_ended(*state, Seconds(*seen), Seconds(now)));
        let mut seen = HashMap::new();
        table.for_each(Seconds(now), |key, found| {
            seen.insert(*key, (found.state, found.last_seen().0, found.owner));
        });
        let expected: HashMap<_, _> = map.into_iter().map(|(n, flow)| (key(n), flow)).collect();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn each_flow_ends_by_the_timeouts_of_its_profile() {
    let table = table(100);
    let [short, long] = [1, 15].map(|number| Profile::new(number).unwrap());
    let timeouts = |seconds| Timeouts {
        established: Span(seconds),
        ..Timeouts::default()
    };
    table.set_timeouts(short, &timeouts(8));
    table.set_timeouts(long, &timeouts(1000));
    for (n, profile) in [(1, short), (2, long), (3, Profile::DEFAULT)] {
        let new = NewFlow {
            profile,
            ..flow(State::Established, n)
        };
        let stored = table.insert(&key(n), table.hash(&key(n)), new, Seconds(0));
        assert!(matches!(stored, Insert::Inserted(_)));
        assert_eq!(lookup(&table, n, 0).unwrap().profile(), profile);
    }
    let found = |now| [1, 2, 3].map(|n| lookup(&table, n, now).is_some());
    // A quarter of the time, at most 30 s, is the grain that comes on top.
    assert_eq!(found(10), [true, true, true]);
    assert_eq!(found(11), [false, true, true]);
    let mut all = table.share(0, 1);
    assert_eq!(table.sweep(&mut all, usize::MAX, Seconds(10), |_| {}), 0);
    assert_eq!(table.sweep(&mut all, usize::MAX, Seconds(11), |_| {}), 1);
    assert_eq!(found(1030), [false, true, true]);
    assert_eq!(table.sweep(&mut all, usize::MAX, Seconds(1031), |_| {}), 1);
    assert_eq!(found(1031), [false, false, true]);
    assert_eq!(table.stored(), 1);
}

#[test]
fn a_profile_can_change_for_its_flows_and_a_flow_its_profile() {
    let table = table(100);
    insert(&table, 1, State::Established, 0);
    insert(&table, 2, State::Established, 0);
    let short = Profile::new(7).unwrap();
    let timeouts = Timeouts {
        established: Span(8),
        ..Timeouts::default()
    };
    table.set_timeouts(short, &timeouts);
    let flow = lookup(&table, 1, 5).unwrap();
    assert!(table.assign(&flow, short));
    let moved = lookup(&table, 1, 5).unwrap();
    assert_eq!((moved.profile(), moved.state), (short, State::Established));
    assert_eq!(moved.last_seen(), Seconds(0));
    assert!(table.is_stale(&moved, Seconds(3)) && !table.is_stale(&flow, Seconds(3)));
    assert_eq!(lookup(&table, 1, 11), None);
    assert!(lookup(&table, 2, 11).is_some());
    table.set_timeouts(Profile::DEFAULT, &timeouts);
    assert_eq!(lookup(&table, 2, 11), None);
    assert!(table.remove(&flow) && !table.assign(&flow, short));
}

#[test]
fn what_follows_is_noted_and_what_is_foreign_is_not() {
    const RST: u8 = 0x04;
    let segment = |tcp_flags, sequence| Segment {
        tcp_flags,
        sequence,
    };
    let table = table(100);
    let new = NewFlow {
        reach: Reach::at(0xFFF0_0000),
        ..flow(State::Established, 1)
    };
    table.insert(&key(1), table.hash(&key(1)), new, Seconds(0));
    let first = lookup(&table, 1, 0).unwrap();
    assert!(!table.follow(&first, segment(RST, 1 << 31)));
    assert_eq!(lookup(&table, 1, 0), Some(first));
    // Over the end of the numbers.
    assert!(table.follow(&first, segment(0x10, 0x0010_0000)));
    let second = lookup(&table, 1, 0).unwrap();
    assert!(second.reach.covers(0x0010_0000) && !first.reach.covers(0x0010_0000));
    // Who knows only what was before changes nothing.
    assert!(table.follow(&first, segment(0x10, 0x0030_0000)));
    assert_eq!(lookup(&table, 1, 0), Some(second));
    // Nor does what belongs to a flow that has given its place to another.
    assert!(table.remove(&second));
    table.insert(&key(1), table.hash(&key(1)), new, Seconds(0));
    let next = lookup(&table, 1, 0).unwrap();
    assert!(table.follow(&second, segment(0x10, 0x0030_0000)));
    assert_eq!(lookup(&table, 1, 0), Some(next));
}

#[test]
fn each_owners_flows_are_counted_however_they_come_and_go() {
    let census = Arc::new(Census::default());
    let tables = [(); 2].map(|()| table(200).counted_in(Arc::clone(&census)));
    let mut dice = Dice(7);
    let mut below = |bound: u64| dice.below(bound);
    let mut sweep = tables[0].share(0, 1);
    let mut times = [0; 7];
    for now in 0..20_000 {
        let (table, n) = (&tables[below(2) as usize], below(400));
        let owner = below(20) | below(2) << 16;
        let state = State::ALL[below(7) as usize];
        let new = flow(state, owner);
        let now = Seconds(now / 10);
        let key = key(n);
        let found = table.lookup(&key, table.hash(&key), now);
        match (found, below(5)) {
            (Some(found), 0) => times[0] += usize::from(table.remove(&found)),
            (Some(found), 2) => {
                // FIN, SYN, ACK, RST
                let flags = [0x11, 0x02, 0x10, 0x04][below(4) as usize];
                let direction = [Direction::FromClient, Direction::FromBackend][below(2) as usize];
                times[6] += usize::from(table.advance(&found, direction, flags, now));
            }
            (Some(found), 1) => times[1] += usize::from(table.replace(&found, new, now)),
            _ => match table.insert(&key, table.hash(&key), new, now) {
                Insert::Inserted(_) => times[2] += 1,
                Insert::Displaced(_) => times[3] += 1,
                _ => times[4] += 1,
            },
        }
        times[5] += tables[0].sweep(&mut sweep, 1, now, |_| {});
    }
    assert!(times.iter().all(|times| *times > 50), "{times:?}");
    // The oracle: every entry, whether its time is up or not.
    let mut counts = HashMap::new();
    for table in &tables {
        table.for_each(Seconds(0), |_, found| {
            *counts.entry(found.owner).or_insert(0) += u64::from(!found.state.is_closed())
        });
    }
    for owner in (0..20).flat_map(|place| [place, place | 1 << 16]) {
        // Once a later generation has come, the earlier ones count for nothing.
        let expected = if owner >> 16 == 1 {
            counts.get(&owner).copied().unwrap_or(0)
        } else {
            0
        };
        assert_eq!(tables[0].flows_of(owner), expected, "{owner:#x}");
    }
}

/// Who takes an entry out of the table is told what it held; each that was stored is told of once.
#[test]
fn each_entry_that_ends_is_told_of_once_however_it_ends() {
    let table = table(200);
    let mut dice = Dice(11);
    let mut sweep = table.share(0, 1);
    // What the entries hold: a number for each that was ever stored.
    let (mut next, mut held) = (0, std::collections::HashSet::new());
    let mut times = [0; 4];
    for step in 0..30_000 {
        let now = Seconds(step / 10);
        let key = key(dice.below(400));
        let hash = table.hash(&key);
        next += 1;
        let new = NewFlow {
            tie: Tie::from_bits(next),
            ..flow(State::ALL[dice.below(7) as usize], 7)
        };
        let mut ended = |tie: Tie, way: usize| {
            assert!(held.remove(&tie), "told twice, or never stored: {tie:?}");
            times[way] += 1;
        };
        let found = table.lookup(&key, hash, now);
        let stored = match (found, dice.below(4)) {
            (Some(found), 0) => {
                assert!(table.remove(&found) && !table.remove(&found));
                ended(found.tie, 0);
                false
            }
            (Some(found), 1) => {
                assert!(table.replace(&found, new, now) && !table.remove(&found));
                ended(found.tie, 1);
                true
            }
            _ => match table.insert(&key, hash, new, now) {
                Insert::Inserted(placed) | Insert::Displaced(placed) => {
                    if let Some(before) = placed.ended {
                        assert_eq!((before.protocol, before.whose.owner), (6, 7));
                        ended(before.whose.tie, 2);
                    }
                    let (there, whose) = table.key_in(placed.slot).unwrap();
                    assert_eq!((there, whose), (key, new.whose()));
                    let (_, same) = table.flow_in(placed.slot, now).unwrap();
                    assert_eq!((same.slot(), same.tie), (placed.slot, new.tie));
                    true
                }
                _ => false,
            },
        };
        if stored {
            held.insert(new.tie);
        }
        table.sweep(&mut sweep, 1, now, |entry| {
            assert!(held.remove(&entry.whose.tie), "swept twice");
            times[3] += 1;
        });
    }
    assert!(times.iter().all(|times| *times > 50), "{times:?}");
    let swept = table.sweep(&mut sweep, usize::MAX, Seconds(1 << 20), |entry| {
        assert!(held.remove(&entry.whose.tie), "swept twice");
    });
    assert!(swept > 50 && held.is_empty());
}

#[test]
fn a_slot_without_a_flow_has_no_key_and_nor_has_a_number_beyond() {
    let table = table(10);
    insert(&table, 1, State::Closed, 0);
    let found = lookup(&table, 1, 0).unwrap();
    assert!(table.flow_in(found.slot(), Seconds(0)).is_some());
    assert_eq!(
        table.flow_in(found.slot(), Seconds(1000)),
        None,
        "it has ended"
    );
    assert!(
        table.key_in(found.slot()).is_some(),
        "and was not swept yet"
    );
    assert!(table.remove(&found));
    for slot in (0..table.slots()).chain([table.slots(), u32::MAX]) {
        assert_eq!(table.key_in(slot), None);
        assert_eq!(table.flow_in(slot, Seconds(0)), None);
    }
}
