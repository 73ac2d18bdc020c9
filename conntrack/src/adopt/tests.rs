use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

use proptest::prelude::*;

use super::*;
use crate::control::Control;
use crate::expiry::Profile;
use crate::hash::Secret;
use crate::insert::Insert;
use crate::key::{Endpoint, FlowKey};
use crate::reach::Reach;
use crate::region::Shape;
use crate::state::{Direction, State};
use crate::sync::{AtomicU64, Ordering};
use crate::table::{Found, NewFlow};
use crate::testing::memory_file;
use crate::whose::Tie;

const CAPACITY: usize = 200;
const FLOWS: u16 = 150;
const NOW: Seconds = Seconds(1000);

/// The flow at which somebody dies.
const VICTIM: u16 = 77;

fn key(n: u16) -> FlowKey {
    let client = Endpoint {
        address: [0, 0xFFFF_0A00_0001],
        port: n,
    };
    let service = Endpoint {
        address: [0, 0xFFFF_0A64_0001],
        port: 80,
    };
    FlowKey::new(6, client, service)
}

fn flow(n: u16) -> NewFlow {
    NewFlow {
        state: State::Established,
        owner: u32::from(n) * 3,
        direction: if n.is_multiple_of(2) {
            Direction::FromClient
        } else {
            Direction::FromBackend
        },
        tie: Tie::to_slot(u32::from(n)),
        profile: Profile::DEFAULT,
        reach: Reach::at(u32::from(n)),
    }
}

fn insert(table: &FlowTable, n: u16) -> Insert {
    table.insert(&key(n), table.hash(&key(n)), flow(n), NOW)
}

fn find(table: &FlowTable, n: u16) -> Option<Found> {
    let found = table.lookup(&key(n), table.hash(&key(n)), NOW)?;
    assert_eq!(found.whose(), flow(n).whose());
    Some(found)
}

/// A table's memory, in which somebody dies.
struct Scene {
    file: OwnedFd,
    /// As the dying process has it.
    table: FlowTable,
    /// As something that knows nothing of tables has it.
    raw: Memory,
}

impl Scene {
    fn new() -> Self {
        let lines = FlowTable::lines(CAPACITY);
        let file = memory_file(lines);
        let map = || Memory::shared(&file, lines).unwrap();
        let secret = Secret([5, 6]);
        let table = FlowTable::new(map(), CAPACITY, secret, Timeouts::default()).unwrap();
        for n in 0..FLOWS {
            assert!(matches!(insert(&table, n), Insert::Inserted(_)));
        }
        let raw = map();
        Self { file, table, raw }
    }

    fn adopt_at(&self, now: Seconds) -> (FlowTable, Healed) {
        let memory = Memory::shared(&self.file, self.raw.len()).unwrap();
        FlowTable::adopt(memory, Timeouts::default(), now).unwrap()
    }

    fn place(&self, n: u16) -> u32 {
        find(&self.table, n).unwrap().place
    }

    fn slot_words(&self, place: u32) -> &[AtomicU64; 8] {
        &self.raw.lines()[Shape::of(CAPACITY).slots_at + place as usize].words
    }

    fn control(&self, place: u32) -> Control {
        // Relaxed, here and below: one thread.
        Control(self.slot_words(place)[0].load(Ordering::Relaxed))
    }

    fn store(&self, place: u32, word: usize, value: u64) {
        self.slot_words(place)[word].store(value, Ordering::Relaxed);
    }

    /// Sets a slot's tag as whoever has claimed it would.
    fn set_tag(&self, place: u32, tag: Tag) {
        self.table.index(place / SLOTS).set(place % SLOTS + 1, tag);
    }

    /// Closes the gate that an inserter of `n` goes through, for ever.
    fn die_inside(&self, n: u16) {
        let [first, _] = self.table.buckets_of(self.table.hash(&key(n)));
        let _never_dropped = ManuallyDrop::new(self.table.index(first).enter().unwrap());
    }

    /// Adopts, and sees that all flows but `lost` are there and can come and go as ever.
    fn heals(&self, lost: &[u16], expected: Healed) {
        let (table, healed) = self.adopt_at(NOW);
        assert_eq!(healed, expected);
        for n in 0..FLOWS {
            assert_eq!(find(&table, n).is_some(), !lost.contains(&n), "{n}");
        }
        assert_eq!(table.stored(), healed.flows);
        for n in lost {
            assert!(matches!(insert(&table, *n), Insert::Inserted(_)));
        }
        for n in 0..FLOWS {
            assert!(table.remove(&find(&table, n).unwrap()));
            assert!(matches!(insert(&table, n), Insert::Inserted(_)));
        }
        let (_, again) = self.adopt_at(NOW);
        let flows = usize::from(FLOWS);
        assert_eq!(
            again,
            Healed {
                flows,
                ..Healed::default()
            }
        );
    }
}

fn left(flows: u16, gates: usize, slots: usize) -> Healed {
    Healed {
        flows: flows.into(),
        gates,
        slots,
        ahead: 0,
    }
}

#[test]
fn a_second_table_finds_every_flow_and_goes_on() {
    let scene = Scene::new();
    let found: Vec<_> = (0..FLOWS).map(|n| find(&scene.table, n)).collect();
    let (table, healed) = scene.adopt_at(NOW);
    assert_eq!(healed, left(FLOWS, 0, 0));
    assert_eq!((table.capacity(), table.stored()), (CAPACITY, FLOWS.into()));
    for (n, found) in (0..FLOWS).zip(found) {
        assert_eq!(table.hash(&key(n)), scene.table.hash(&key(n)));
        assert_eq!(find(&table, n), found);
    }
    // What one does the other sees, for as long as both are there.
    assert!(table.remove(&find(&table, 3).unwrap()));
    assert_eq!(find(&scene.table, 3), None);
    let scene = Scene { table, ..scene };
    assert!(matches!(insert(&scene.table, 3), Insert::Inserted(_)));
    scene.heals(&[], left(FLOWS, 0, 0));
}

#[test]
fn an_inserter_that_died_anywhere_costs_nothing_but_its_flow() {
    let words = key(FLOWS).words();
    for stored in 0..=6 {
        for tagged in [false, true] {
            let scene = Scene::new();
            scene.die_inside(FLOWS);
            assert_eq!(insert(&scene.table, FLOWS), Insert::Contended);
            let hash = scene.table.hash(&key(FLOWS));
            let [bucket, _] = scene.table.buckets_of(hash);
            let empty = scene.table.index(bucket).lanes().empty().trailing_zeros();
            let place = FlowTable::place(bucket, empty);
            scene.store(place, 0, scene.control(place).claimed().0);
            for (word, value) in (1..).zip(words.into_iter().chain([9])).take(stored) {
                scene.store(place, word, value);
            }
            if tagged {
                scene.set_tag(place, Tag::of(hash));
            }
            scene.heals(&[], left(FLOWS, 1, 1));
        }
    }
}

#[test]
fn an_inserter_that_died_in_anothers_place_costs_that_flow() {
    let (words, hash_of) = (key(FLOWS).words(), |scene: &Scene| {
        scene.table.hash(&key(FLOWS))
    });
    for stored in 0..=6 {
        for tagged in [false, true] {
            let scene = Scene::new();
            scene.die_inside(FLOWS);
            let place = scene.place(VICTIM);
            scene.store(place, 0, scene.control(place).claimed().0);
            for (word, value) in (1..).zip(words.into_iter().chain([9])).take(stored) {
                scene.store(place, word, value);
            }
            if tagged {
                scene.set_tag(place, Tag::of(hash_of(&scene)));
            }
            scene.heals(&[VICTIM], left(FLOWS - 1, 1, 1));
        }
    }
}

#[test]
fn an_inserter_that_died_behind_its_work_leaves_a_gate_only() {
    let scene = Scene::new();
    scene.die_inside(VICTIM);
    scene.heals(&[], left(FLOWS, 1, 0));
}

#[test]
fn a_remover_that_died_has_removed() {
    for tagged in [false, true] {
        let scene = Scene::new();
        let place = scene.place(VICTIM);
        scene.store(place, 0, scene.control(place).claimed().0);
        if !tagged {
            scene.set_tag(place, Tag::EMPTY);
        }
        scene.heals(&[VICTIM], left(FLOWS - 1, 0, 1));
    }
}

#[test]
fn a_rewriter_that_died_costs_its_flow() {
    for written in [false, true] {
        let scene = Scene::new();
        let place = scene.place(VICTIM);
        scene.store(place, 0, scene.control(place).rewriting().0);
        if written {
            scene.store(place, 6, 12345);
        }
        scene.heals(&[VICTIM], left(FLOWS - 1, 0, 1));
    }
}

#[test]
fn an_adopter_that_died_is_followed_by_another() {
    // Its tag is gone, and the slot still says what the last adopter found there.
    for busy in [false, true] {
        let scene = Scene::new();
        let place = scene.place(VICTIM);
        if busy {
            scene.store(place, 0, scene.control(place).rewriting().0);
        }
        scene.set_tag(place, Tag::EMPTY);
        scene.heals(&[VICTIM], left(FLOWS - 1, 0, 1));
    }
}

#[test]
fn what_no_lookup_would_find_holds_no_place() {
    let scene = Scene::new();
    let place = scene.place(VICTIM);
    scene.set_tag(place, Tag::of(scene.table.hash(&key(VICTIM + 1))));
    scene.heals(&[VICTIM], left(FLOWS - 1, 0, 1));

    let scene = Scene::new();
    let other = (0..FLOWS).find(|n| {
        let theirs = scene.place(*n) / SLOTS;
        let hash = scene.table.hash(&key(VICTIM));
        !scene.table.buckets_of(hash).contains(&theirs)
    });
    let (from, to) = (scene.place(VICTIM), scene.place(other.unwrap()));
    for word in 1..7 {
        let value = scene.slot_words(from)[word].load(Ordering::Relaxed);
        scene.store(to, word, value);
    }
    scene.heals(&[other.unwrap()], left(FLOWS - 1, 0, 1));

    let scene = Scene::new();
    let place = scene.place(VICTIM);
    scene.store(place, 0, scene.control(place).0 | 0b1_1110);
    scene.heals(&[VICTIM], left(FLOWS - 1, 0, 1));
}

#[test]
fn a_flow_from_the_future_does_not_outlive_its_time() {
    let scene = Scene::new();
    let (table, healed) = scene.adopt_at(Seconds(10));
    assert_eq!((healed.flows, healed.ahead), (FLOWS.into(), FLOWS.into()));
    let timeouts = Timeouts::default();
    let last = 10 + timeouts.established.0 + timeouts.grain(State::Established).0;
    let alive = |now| table.lookup(&key(1), table.hash(&key(1)), Seconds(now));
    assert_eq!(
        alive(last).map(|found| found.last_seen()),
        Some(Seconds(10))
    );
    assert_eq!(alive(last + 1), None);
}

#[test]
fn memory_without_a_table_is_left_as_it_was() {
    let blank = || Memory::private(FlowTable::lines(CAPACITY));
    let refused = FlowTable::adopt(blank().unwrap(), Timeouts::default(), NOW);
    assert_eq!(refused.unwrap_err(), AdoptError::Magic { found: 0 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_damage_behind_the_header_is_healed_once_and_for_all(
        damage in proptest::collection::vec((16..8 * 200_usize, any::<u64>()), 1..200),
    ) {
        let scene = Scene::new();
        for (at, value) in damage {
            let line = scene.raw.lines().get(at / 8);
            if let Some(line) = line {
                line.words[at % 8].store(value, Ordering::Relaxed);
            }
        }
        let (table, healed) = scene.adopt_at(NOW);
        prop_assert_eq!(table.stored(), healed.flows);
        // Every slot that is not a flow's can be had again.
        let mut shown = 0;
        table.for_each(Seconds(0), |key, found| {
            shown += 1;
            let again = table.lookup(key, table.hash(key), Seconds(0));
            assert_eq!(again.map(|again| again.place), Some(found.place));
        });
        prop_assert_eq!(shown, healed.flows);
        for n in FLOWS..4 * FLOWS {
            prop_assert!(insert(&table, n) != Insert::Contended);
        }
        let (_, again) = scene.adopt_at(NOW);
        prop_assert_eq!((again.gates, again.slots, again.ahead), (0, 0, 0));
    }
}
