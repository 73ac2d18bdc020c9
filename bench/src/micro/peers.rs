//! General maps under the same keys, hash and operations as the flow table.
//!
//! The hash is the flow table's, keyed as it must be where strangers choose the keys, so that what
//! is compared is the table and not the hash. Each map has room for all from the start, and is used as
//! its documentation suggests: `papaya` with one guard for a burst, `dashmap` with its default number of
//! shards, `hashbrown` behind a `parking_lot` mutex that is taken for each operation.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use parking_lot::Mutex;

use crate::micro::Plan;
use crate::micro::report::Row;
use crate::micro::stages::{Contestant, Entrant, capacity, measure};
use crate::micro::table::{Key, Ours, hash, key};

/// Rows of all contestants, the project's own table among them, with so many flows on so many
/// threads.
///
/// # Errors
///
/// In words: a contestant did not do what it was measured for.
pub(crate) fn compare(flows: u32, threads: usize, plan: &Plan) -> Result<Vec<Row>, String> {
    let capacity = capacity(flows);
    let (batched, single) = (Ours::new(capacity, true)?, Ours::new(capacity, false)?);
    let (papaya, dash) = (Papaya::new(capacity), Dash::new(capacity));
    let locked = Locked::new(capacity);
    let entrants: [Entrant<'_>; 5] = [
        ("ringgate", &batched),
        ("ringgate-single", &single),
        ("papaya", &papaya),
        ("dashmap", &dash),
        ("hashbrown-mutex", &locked),
    ];
    let rows = measure(&entrants, flows, threads, plan)?;
    let rows = rows.into_iter().map(|row| Row {
        stage: peer_stage(row.stage),
        ..row
    });
    Ok(rows.collect())
}

/// The stage's name in a comparison.
fn peer_stage(stage: &str) -> &'static str {
    match stage {
        "lookup-hit" => "peer-hit",
        "lookup-miss" => "peer-miss",
        "insert" => "peer-insert",
        _ => "peer-remove",
    }
}

/// What is stored under a key.
#[derive(Debug, Clone, Copy)]
struct Flow {
    owner: u32,
    last_seen: u32,
    state: u8,
}

const FLOW: Flow = Flow {
    owner: 1,
    last_seen: 1_000,
    state: 7,
};

impl Flow {
    /// A look at all of it.
    fn sum(self) -> u32 {
        self.owner ^ self.last_seen ^ u32::from(self.state)
    }
}

/// A key whose hash is the flow table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PeerKey(Key);

impl Hash for PeerKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(hash(&self.0));
    }
}

/// Hands the hash on.
#[derive(Debug, Clone, Copy, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Build = BuildHasherDefault<Identity>;

fn peer_key(flow: &u32) -> PeerKey {
    PeerKey(key(*flow))
}

fn count(flows: &[u32], mut succeeds: impl FnMut(PeerKey) -> bool) -> usize {
    flows.iter().filter(|flow| succeeds(peer_key(flow))).count()
}

struct Papaya(papaya::HashMap<PeerKey, Flow, Build>);

impl Papaya {
    fn new(capacity: usize) -> Self {
        Self(papaya::HashMap::with_capacity_and_hasher(
            capacity,
            Build::default(),
        ))
    }
}

impl Contestant for Papaya {
    fn insert(&self, flows: &[u32]) -> usize {
        let map = self.0.pin();
        count(flows, |key| map.insert(key, FLOW).is_none())
    }

    fn find(&self, flows: &[u32]) -> usize {
        let map = self.0.pin();
        count(flows, |key| {
            map.get(&key).copied().map(Flow::sum).is_some_and(looked_at)
        })
    }

    fn remove(&self, flows: &[u32]) -> usize {
        let map = self.0.pin();
        count(flows, |key| map.remove(&key).is_some())
    }
}

struct Dash(dashmap::DashMap<PeerKey, Flow, Build>);

impl Dash {
    fn new(capacity: usize) -> Self {
        Self(dashmap::DashMap::with_capacity_and_hasher(
            capacity,
            Build::default(),
        ))
    }
}

impl Contestant for Dash {
    fn insert(&self, flows: &[u32]) -> usize {
        count(flows, |key| self.0.insert(key, FLOW).is_none())
    }

    fn find(&self, flows: &[u32]) -> usize {
        count(flows, |key| {
            self.0
                .get(&key)
                .map(|flow| flow.sum())
                .is_some_and(looked_at)
        })
    }

    fn remove(&self, flows: &[u32]) -> usize {
        count(flows, |key| self.0.remove(&key).is_some())
    }
}

struct Locked(Mutex<hashbrown::HashMap<PeerKey, Flow, Build>>);

impl Locked {
    fn new(capacity: usize) -> Self {
        Self(Mutex::new(hashbrown::HashMap::with_capacity_and_hasher(
            capacity,
            Build::default(),
        )))
    }
}

impl Contestant for Locked {
    fn insert(&self, flows: &[u32]) -> usize {
        count(flows, |key| self.0.lock().insert(key, FLOW).is_none())
    }

    fn find(&self, flows: &[u32]) -> usize {
        count(flows, |key| {
            self.0
                .lock()
                .get(&key)
                .copied()
                .map(Flow::sum)
                .is_some_and(looked_at)
        })
    }

    fn remove(&self, flows: &[u32]) -> usize {
        count(flows, |key| self.0.lock().remove(&key).is_some())
    }
}

/// So that a value that was found is also read.
fn looked_at(sum: u32) -> bool {
    std::hint::black_box(sum);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_does_all_four() {
        let rows = compare(1_000, 1, &Plan::smallest()).unwrap();
        assert_eq!(rows.len(), 5 * 4);
        assert!(
            rows.iter()
                .all(|row| row.stage.starts_with("peer-") && row.ns > 0.0)
        );
    }

    #[test]
    fn a_peers_hash_is_the_tables() {
        use std::hash::BuildHasher as _;
        let key = peer_key(&7);
        assert_eq!(Build::default().hash_one(key), hash(&key.0));
    }
}
