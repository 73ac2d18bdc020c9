//! All that this program knows of the flow table.

use std::hint::black_box;

use arrayvec::ArrayVec;
use ringgate_conntrack::{
    Direction, Endpoint, FlowHash, FlowKey, FlowTable, Insert, Memory, NewFlow, Profile, Reach,
    Seconds, Secret, State, Tie, Timeouts,
};
use ringgate_dataplane::maglev::flow_hash;
use ringgate_dataplane::newcomers::{Tables, half_open_of};

use crate::micro::frames::place;
use crate::micro::order::BURST;
use crate::micro::stages::Contestant;

/// Any secret is as good as another here, and a fixed one makes runs alike.
const SECRET: Secret = Secret([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

/// A moment that does not move: no flow ends while it is measured.
const NOW: Seconds = Seconds(1_000);

/// UDP.
const PROTOCOL: u8 = 17;

/// The upper half of the second word of an IPv4-mapped address.
const MAPPED: u64 = 0xFFFF << 32;

/// What identifies a flow.
pub(crate) type Key = FlowKey;

/// A table for workers that share it.
///
/// # Errors
///
/// In words, when its memory is refused.
pub(crate) fn shared(capacity: usize) -> Result<Tables, String> {
    Tables::new(capacity, SECRET, Timeouts::default())
        .map_err(|error| format!("no memory for a table of {capacity} flows: {error}"))
}

/// A table in memory that the caller brings.
///
/// # Errors
///
/// In words, when the memory does not do.
pub(crate) fn over(memory: Memory, capacity: usize) -> Result<FlowTable, String> {
    FlowTable::new(memory, capacity, SECRET, Timeouts::default()).map_err(|error| error.to_string())
}

/// The same for workers that share it, with half-open flows beside.
///
/// # Errors
///
/// As [`over`].
pub(crate) fn shared_over(memory: Memory, capacity: usize) -> Result<Tables, String> {
    let half_open = half_open_of(capacity);
    Tables::beside(
        over(memory, capacity)?,
        half_open,
        SECRET,
        Timeouts::default(),
    )
    .map_err(|error| error.to_string())
}

fn empty(capacity: usize) -> Result<FlowTable, String> {
    FlowTable::in_memory(capacity, SECRET, Timeouts::default())
        .map_err(|error| format!("no memory for a table of {capacity} flows: {error}"))
}

/// The key of a flow: an IPv4 client of `10.1.0.0/16` and so on, and a service.
#[inline]
pub(crate) fn key(flow: u32) -> Key {
    let (host, port) = place(flow);
    let client = Endpoint {
        address: [0, MAPPED | (0x0A01_0000 + u64::from(host))],
        port,
    };
    let service = Endpoint {
        address: [0, MAPPED | 0x0A64_0001],
        port: 53,
    };
    FlowKey::new(PROTOCOL, client, service)
}

/// A good hash of a key, as cheap as the table's own, for those that are compared with it.
#[inline]
pub(crate) fn hash(key: &Key) -> u64 {
    flow_hash(key)
}

/// The flow table as a worker uses it, or as somebody would who does not know what comes next.
#[derive(Debug)]
pub(crate) struct Ours {
    table: FlowTable,
    /// Loads what all of a burst will need before it is needed.
    batched: bool,
}

/// A burst's keys and hashes.
type Keys = ArrayVec<(Key, FlowHash), BURST>;

impl Ours {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// In words, when its memory is refused.
    pub(crate) fn new(capacity: usize, batched: bool) -> Result<Self, String> {
        let table = empty(capacity)?;
        Ok(Self { table, batched })
    }

    /// A table that loads ahead, made by the caller.
    pub(crate) const fn around(table: FlowTable) -> Self {
        Self {
            table,
            batched: true,
        }
    }

    /// The memory it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }

    /// Shows each flow's key and hash to `see`.
    #[inline]
    fn each(&self, flows: &[u32], mut see: impl FnMut(&Key, FlowHash) -> bool) -> usize {
        let mut count = 0;
        if !self.batched {
            for flow in flows {
                let key = key(*flow);
                count += usize::from(see(&key, self.table.hash(&key)));
            }
            return count;
        }
        let mut keys: Keys = flows
            .iter()
            .take(BURST)
            .map(|flow| {
                let key = key(*flow);
                (key, self.table.hash(&key))
            })
            .collect();
        self.prefetch(&mut keys);
        for (key, hash) in &keys {
            count += usize::from(see(key, *hash));
        }
        count
    }

    /// As the worker does.
    #[inline]
    fn prefetch(&self, keys: &mut Keys) {
        for (_, hash) in keys.iter() {
            self.table.prefetch_index(*hash);
        }
        for (_, hash) in keys.iter_mut() {
            *hash = self.table.locate(*hash);
        }
        for (_, hash) in keys.iter_mut() {
            *hash = self.table.prefetch_slot(*hash);
        }
    }
}

impl Contestant for Ours {
    fn insert(&self, flows: &[u32]) -> usize {
        let flow = NewFlow {
            state: State::TwoWay,
            owner: 1,
            direction: Direction::FromClient,
            tie: Tie::NONE,
            profile: Profile::DEFAULT,
            reach: Reach::OF_DATAGRAMS,
        };
        self.each(flows, |key, hash| {
            loop {
                match self.table.insert(key, hash, flow, NOW) {
                    Insert::Inserted(_) | Insert::Displaced(_) => return true,
                    Insert::Exists(_) | Insert::Full => return false,
                    Insert::Contended => std::hint::spin_loop(),
                }
            }
        })
    }

    fn find(&self, flows: &[u32]) -> usize {
        self.each(flows, |key, hash| {
            let found = self.table.lookup(key, hash, NOW);
            black_box(found).is_some()
        })
    }

    fn remove(&self, flows: &[u32]) -> usize {
        self.each(flows, |key, hash| {
            let found = self.table.lookup(key, hash, NOW);
            found.is_some_and(|found| self.table.remove(&found))
        })
    }
}

/// Nothing but making keys and hashing them: what of the other figures is not the table's.
#[derive(Debug)]
pub(crate) struct HashOnly(pub(crate) Ours);

impl HashOnly {
    /// How many flows.
    pub(crate) fn hash(&self, flows: &[u32]) {
        for flow in flows {
            black_box(self.0.table.hash(&key(*flow)));
        }
    }
}
