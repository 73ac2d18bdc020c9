//! One flow as it lies in memory: eight words, one cache line, no pointers.
//!
//! | word | bits |
//! |---|---|
//! | 0 | source port 63..48, destination port 47..32, translated port 31..16, protocol 15..8 |
//! | 1 | last seen, seconds 63..32; owner 31..0 |
//! | 2, 3 | source address |
//! | 4, 5 | destination address |
//! | 6, 7 | translated address |
//!
//! The state is not here but in the slot word ([`crate::bucket`]), where it changes by one
//! compare-and-swap together with the check that the slot still holds the same flow.

use crate::expiry::Seconds;
use crate::key::{Endpoint, FlowKey};
use crate::sync::{AtomicU64, Ordering};

/// A flow's words in the table.
#[derive(Debug, Default)]
#[cfg_attr(not(lb_loom), repr(C, align(64)))]
pub(crate) struct Entry {
    words: [AtomicU64; 8],
}

#[cfg(not(lb_loom))]
const _: () = assert!(size_of::<Entry>() == 64 && align_of::<Entry>() == 64);

/// A flow's words, taken out or to be put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: FlowKey,
    pub(crate) translated: Endpoint,
    pub(crate) owner: u32,
    pub(crate) last_seen: Seconds,
}

impl Record {
    const fn to_words(self) -> [u64; 8] {
        let FlowKey {
            source,
            destination,
            protocol,
        } = self.key;
        let ports = (source.port as u64) << 48
            | (destination.port as u64) << 32
            | (self.translated.port as u64) << 16
            | (protocol as u64) << 8;
        [
            ports,
            seen_word(self.last_seen, self.owner),
            source.address[0],
            source.address[1],
            destination.address[0],
            destination.address[1],
            self.translated.address[0],
            self.translated.address[1],
        ]
    }

    const fn from_words(words: [u64; 8]) -> Self {
        let [a, b, c, d, e, f, protocol, _] = words[0].to_be_bytes();
        let source = Endpoint {
            address: [words[2], words[3]],
            port: u16::from_be_bytes([a, b]),
        };
        let destination = Endpoint {
            address: [words[4], words[5]],
            port: u16::from_be_bytes([c, d]),
        };
        let translated = Endpoint {
            address: [words[6], words[7]],
            port: u16::from_be_bytes([e, f]),
        };
        let (last_seen, owner) = split_seen(words[1]);
        Self {
            key: FlowKey::new(protocol, source, destination),
            translated,
            owner,
            last_seen,
        }
    }
}

const fn seen_word(last_seen: Seconds, owner: u32) -> u64 {
    (last_seen.0 as u64) << 32 | owner as u64
}

const fn split_seen(word: u64) -> (Seconds, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    (
        Seconds(u32::from_be_bytes([a, b, c, d])),
        u32::from_be_bytes([e, f, g, h]),
    )
}

impl Entry {
    /// Reads all words. They belong together only if the slot word says so afterwards.
    #[inline]
    pub(crate) fn load(&self) -> Record {
        // Acquire: partner of the stores in `store`, see `crate::bucket`.
        Record::from_words(std::array::from_fn(|index| match self.words.get(index) {
            Some(word) => word.load(Ordering::Acquire),
            None => 0,
        }))
    }

    /// Writes all words. Only whoever holds the slot may do so.
    #[inline]
    pub(crate) fn store(&self, record: Record) {
        for (word, value) in self.words.iter().zip(record.to_words()) {
            // Release: partner of the loads in `load`, see `crate::bucket`.
            word.store(value, Ordering::Release);
        }
    }

    /// When the flow was last seen, without the rest of its line's words.
    #[inline]
    pub(crate) fn last_seen(&self) -> Seconds {
        // Relaxed: a stale age only delays what depends on it.
        split_seen(self.words[1].load(Ordering::Relaxed)).0
    }

    /// Makes `record`'s flow seen `now`.
    ///
    /// If the slot was given to another flow meanwhile, the word differs and nothing happens; if
    /// it is equal by chance (same owner, same second), that flow's age was this one anyway.
    #[inline]
    pub(crate) fn touch(&self, record: &Record, now: Seconds) {
        let old = seen_word(record.last_seen, record.owner);
        let new = seen_word(now, record.owner);
        // Relaxed: the word is complete in itself. A lost race means somebody else touched it.
        let _raced = self.words[1].compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_go_and_come_back(
            a: [u64; 2], b: [u64; 2], c: [u64; 2], p: u16, q: u16, r: u16,
            protocol: u8, owner: u32, seen: u32,
        ) {
            let record = Record {
                key: FlowKey::new(
                    protocol,
                    Endpoint { address: a, port: p },
                    Endpoint { address: b, port: q },
                ),
                translated: Endpoint { address: c, port: r },
                owner,
                last_seen: Seconds(seen),
            };
            let entry = Entry::default();
            entry.store(record);
            prop_assert_eq!(entry.load(), record);
            entry.touch(&record, Seconds(7));
            prop_assert_eq!(entry.last_seen(), Seconds(7));
            prop_assert_eq!(entry.load().owner, owner);
        }
    }
}
