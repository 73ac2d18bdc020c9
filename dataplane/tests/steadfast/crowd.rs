//! Keys that were chosen against the ring's hash, which is public, do to the table, whose hash is
//! keyed, what random keys do.
//!
//! Two attackers: one has flows that all fall to one slot of a ring, the other flows whose ring
//! hashes agree in the very bits that would choose the table's buckets if it used that hash. In
//! such a table they would share a thirtieth of the buckets.

use ringgate_conntrack::{
    Direction, Endpoint, FlowKey, FlowTable, Insert, NewFlow, Profile, Reach, Seconds, Secret,
    State, Tie, Timeouts,
};
use ringgate_dataplane::maglev::{Member, Ring, flow_hash};

use super::random::Random;

/// Flows that the attacker has.
const FLOWS: usize = if cfg!(debug_assertions) { 2000 } else { 20_000 };
/// Leading bits that the second attacker makes zero, in each half of the ring's hash.
const ZEROS: u32 = if cfg!(debug_assertions) { 3 } else { 5 };
/// Tables that are tried, each with another secret.
const SECRETS: u64 = 8;
/// Slots of the ring and members with one slot each: what all flows fall to is one slot.
const SLOTS: u32 = if cfg!(debug_assertions) { 101 } else { 1009 };
/// The table is nine tenths full with them.
const CAPACITY: usize = FLOWS * 10 / 9;

const NOW: Seconds = Seconds(1000);

fn endpoint(text: &str) -> Endpoint {
    Endpoint::from_socket(text.parse().unwrap())
}

/// A ring where each slot is another member.
fn ring() -> Ring {
    let members: Vec<Member> = (0..SLOTS)
        .map(|n| Member {
            identity: Endpoint {
                port: u16::try_from(n).unwrap(),
                ..endpoint("198.18.0.1:0")
            },
            weight: 1,
        })
        .collect();
    Ring::build(SLOTS, &members).unwrap()
}

/// So many different flows for which `wanted` holds.
fn flows(random: &mut Random, count: usize, wanted: impl Fn(&FlowKey) -> bool) -> Vec<FlowKey> {
    let service = endpoint("192.0.2.1:80");
    let mut known = std::collections::HashSet::new();
    std::iter::repeat_with(|| {
        FlowKey::new(6, Endpoint::from_socket(random.client().into()), service)
    })
    .filter(|key| wanted(key) && known.insert(*key))
    .take(count)
    .collect()
}

/// Stores an established flow; false when there is no room.
fn store(table: &FlowTable, key: &FlowKey) -> bool {
    let new = NewFlow {
        state: State::Established,
        owner: 1,
        direction: Direction::FromClient,
        tie: Tie::NONE,
        profile: Profile::DEFAULT,
        reach: Reach::UNKNOWN,
    };
    match table.insert(key, table.hash(key), new, NOW) {
        Insert::Inserted(_) => true,
        Insert::Full => false,
        other => panic!("{key}: {other:?}"),
    }
}

/// What it costs to have these flows, all tables together.
#[derive(Debug, Default)]
struct Crowding {
    /// Found only in the second bucket: two index lines instead of one.
    second_looks: usize,
    /// Flows that a table had room for before it refused the first.
    room: usize,
}

impl Crowding {
    /// Fills tables to nine tenths with half of `keys`, and goes on until one is refused.
    fn of(keys: &[FlowKey]) -> Self {
        let (most, rest) = keys.split_at(FLOWS);
        let mut crowding = Self::default();
        for secret in 0..SECRETS {
            let table =
                FlowTable::in_memory(CAPACITY, Secret([secret, 9]), Timeouts::default()).unwrap();
            for key in most {
                assert!(store(&table, key), "{key}: no room at nine tenths");
            }
            for key in most {
                let hash = table.hash(key);
                assert!(table.lookup(key, hash, NOW).is_some(), "{key} is lost");
                // `locate` leaves the hash as it is when the first bucket has no such tag.
                crowding.second_looks += usize::from(table.locate(hash) == hash);
            }
            let more = rest.iter().take_while(|key| store(&table, key));
            crowding.room += FLOWS + more.count();
        }
        crowding
    }
}

/// Whether `mine` exceeds `theirs` by more than a tenth.
fn is_more(mine: usize, theirs: usize) -> bool {
    mine * 10 > theirs * 11
}

#[test]
fn keys_chosen_against_the_public_hash_do_not_crowd_the_table() {
    let mut random = Random::of_test("keys_chosen");
    let ring = ring();
    let is_of_one_slot = |key: &FlowKey| ring.pick(key) == 7;
    let is_of_one_corner = |key: &FlowKey| {
        let hash = flow_hash(key);
        let halves = [hash >> 32, hash & 0xFFFF_FFFF];
        halves.iter().all(|half| half >> (32 - ZEROS) == 0)
    };
    let anyones = Crowding::of(&flows(&mut random, FLOWS * 2, |_| true));
    println!("random: {anyones:?}");
    for (name, chosen) in [
        ("one slot", flows(&mut random, FLOWS * 2, is_of_one_slot)),
        (
            "one corner",
            flows(&mut random, FLOWS * 2, is_of_one_corner),
        ),
    ] {
        let chosen = Crowding::of(&chosen);
        println!("{name}: {chosen:?}");
        assert!(!is_more(chosen.second_looks, anyones.second_looks));
        assert!(!is_more(anyones.room, chosen.room));
    }
}
