//! Which ports a fragmented datagram has: remembered from its first fragment, for the later ones.
//!
//! Only a datagram's first fragment has the transport header. Who forwards by ports must keep them
//! until the other fragments have passed, and any worker may get those: a NIC that spreads packets over its
//! queues by ports can do so with the first fragment only.
//!
//! A [`FragmentTable`] has a fixed number of places, in buckets of [`WAYS`]. A datagram's bucket is
//! found by a keyed hash (`hash`), so nobody outside can choose datagrams that meet in one. A new
//! datagram takes the place whose turn it is, which is that of the bucket's oldest. So neither
//! storing nor finding looks at more than one bucket, a flood displaces only what has been there
//! longest, and no table is ever full.
//!
//! # A place
//!
//! One line, guarded by a sequence lock of which nobody waits for the other side:
//!
//! | word | content |
//! |---|---|
//! | 0 | control: twice the number of records that were written here, and one more while the next is |
//! | 1 to 4 | source and destination address |
//! | 5 | identification, protocol |
//! | 6 | the second in which it was stored, source port, destination port |
//! | 7 | in a bucket's first place: how many datagrams took a place of the bucket |
//!
//! | role | who | what |
//! |---|---|---|
//! | reader | any thread | looks once at each place; one that is being written, or is written meanwhile, is not the datagram's. The caller keeps the fragment for a moment and looks again |
//! | writer | any thread | claims a place by a compare-and-swap from the control word that it observed; where that fails, another writer has the place, and the next one is tried |
//!
//! Two workers that store the same datagram at the same moment may leave two records. Both scan a
//! bucket in the same order, so one is found and renewed from then on, and the other ends by time.

use std::io;

use crate::expiry::{Seconds, Span};
use crate::hash::{HashKey, Secret};
use crate::key::FlowKey;
use crate::memory::{LINE_BYTES, Line, Memory};
use crate::sync::{Ordering, fence};

/// Places of a bucket. With more of them, how long a datagram stays in a flood depends less on
/// chance; eight are 512 bytes in a row.
#[cfg(not(lb_loom))]
pub const WAYS: usize = 8;
/// Places of a bucket in a model.
#[cfg(lb_loom)]
pub const WAYS: usize = 2;

/// How long a datagram's ports are kept: 30 s, as long as Linux waits for the rest of an IPv4
/// datagram (`IP_FRAG_TIME`). RFC 791 §3.2 proposes 15 s, RFC 8200 §4.5 has 60. What comes later is
/// of no use to the receiver; and a busy source has gone through the 16 bits of IPv4's
/// identifications in less (RFC 4963), so that longer would rather do harm.
pub const LIFETIME: Span = Span(30);

/// What all fragments of a datagram have in common (RFC 791 §3.2; RFC 8200 §4.5 leaves out the
/// protocol, which all fragments of a datagram have alike unless somebody forges them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// Source address, in the words of an [`Endpoint`](crate::Endpoint).
    pub source: [u64; 2],
    /// Destination address, likewise.
    pub destination: [u64; 2],
    /// The identification; IPv4's are 16 bits long.
    pub identification: u32,
    /// IANA protocol number.
    pub protocol: u8,
}

impl Datagram {
    const fn words(&self) -> [u64; 5] {
        let [a, b] = self.source;
        let [c, d] = self.destination;
        let last = (self.identification as u64) << 8 | self.protocol as u64;
        [a, b, c, d, last]
    }
}

/// A datagram's ports, host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    /// Who sends.
    pub source: u16,
    /// Whom it is sent to.
    pub destination: u16,
}

/// What became of a datagram whose first fragment was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It has a place.
    Anew,
    /// It had one, and has it with these ports from now on.
    Again,
    /// It has the place of another whose time was not up.
    Displaced,
    /// It has none: others were writing wherever it could have been.
    Contended,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct FragmentTable {
    memory: Memory,
    buckets: usize,
    hash_key: HashKey,
}

impl FragmentTable {
    /// A table for at least so many datagrams at once.
    ///
    /// # Errors
    ///
    /// The system's, if it refuses the memory.
    pub fn new(datagrams: usize, secret: Secret) -> io::Result<Self> {
        let buckets = datagrams.div_ceil(WAYS).max(1);
        Ok(Self {
            memory: Memory::private(buckets.saturating_mul(WAYS))?,
            buckets,
            hash_key: HashKey::new(secret),
        })
    }

    /// How many datagrams there is room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.buckets * WAYS
    }

    /// Its memory, bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.capacity() * LINE_BYTES
    }

    /// Remembers the ports of a datagram, over those of an older one of the same name: sources use
    /// identifications again.
    pub fn store(&self, datagram: &Datagram, ports: Ports, now: Seconds) -> Stored {
        let words = datagram.words();
        let bucket = self.bucket(&words);
        let value = to_word(ports, now);
        let same = bucket.iter().find_map(|line| {
            let (control, _) = read(line, &words)?;
            Some((line, control))
        });
        if let Some((line, control)) = same {
            // Who was faster has stored the same datagram, or displaced it; in the next place it
            // would be there twice.
            return if write(line, control, &words, value) {
                Stored::Again
            } else {
                Stored::Contended
            };
        }
        for line in bucket.iter().map(|_| oldest(bucket)) {
            let control = observe(line);
            // Relaxed: if it is not the observed record's, the claim fails.
            let before = line.words[6].load(Ordering::Relaxed);
            if !is_busy(control) && write(line, control, &words, value) {
                let is_alive = control != EMPTY && is_alive(before, now);
                return if is_alive {
                    Stored::Displaced
                } else {
                    Stored::Anew
                };
            }
        }
        Stored::Contended
    }

    /// The ports of a datagram, if its first fragment was seen not longer than [`LIFETIME`] ago.
    #[must_use]
    pub fn ports(&self, datagram: &Datagram, now: Seconds) -> Option<Ports> {
        let words = datagram.words();
        let mut found = self.bucket(&words).iter();
        let (_, value) = found.find_map(|line| read(line, &words))?;
        is_alive(value, now).then_some(from_word(value))
    }

    fn bucket(&self, words: &[u64; 5]) -> &[Line; WAYS] {
        let hash = self.hash_key.hash(&FlowKey::from_words(*words)).value();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the product's upper half is below the number of buckets"
        )]
        let bucket = ((u128::from(hash) * self.buckets as u128) >> 64) as usize;
        let (buckets, _) = self.memory.lines().as_chunks();
        &buckets[bucket]
    }
}

/// The control word of a place that was never written.
const EMPTY: u64 = 0;

const fn is_busy(control: u64) -> bool {
    control & 1 != 0
}

const fn to_word(ports: Ports, now: Seconds) -> u64 {
    (now.0 as u64) << 32 | (ports.source as u64) << 16 | ports.destination as u64
}

const fn from_word(word: u64) -> Ports {
    let [a, b, c, d, ..] = word.to_le_bytes();
    Ports {
        source: u16::from_le_bytes([c, d]),
        destination: u16::from_le_bytes([a, b]),
    }
}

/// Whether a record of this time still counts.
fn is_alive(word: u64, now: Seconds) -> bool {
    let stored = word >> 32;
    u64::from(now.0).saturating_sub(stored) <= u64::from(LIFETIME.0)
}

/// The place of a bucket whose turn it is. Each call takes a turn.
fn oldest(bucket: &[Line; WAYS]) -> &Line {
    let [first, ..] = bucket;
    // Relaxed: it says where to begin, and nothing else depends on it.
    let turn = first.words[7].fetch_add(1, Ordering::Relaxed);
    let place = usize::try_from(turn % WAYS as u64).unwrap_or(0);
    &bucket[place]
}

/// The control word; loads that follow see at least the record that it stands for.
fn observe(line: &Line) -> u64 {
    // Acquire: pairs with the Release of `write`.
    line.words[0].load(Ordering::Acquire)
}

/// The control word and the last word of the record here, if it is whole and this datagram's.
fn read(line: &Line, words: &[u64; 5]) -> Option<(u64, u64)> {
    let control = observe(line);
    if control == EMPTY || is_busy(control) {
        return None;
    }
    let [word, a, b, c, d, e, value, _] = &line.words;
    // Relaxed: whether they belong together is for the second look to say.
    let found = [a, b, c, d, e].map(|word| word.load(Ordering::Relaxed));
    let value = value.load(Ordering::Relaxed);
    // Acquire fence: pairs with the Release fence of `write`. If a load above saw a later writer's
    // word, then the load below sees that writer's busy word or a later one.
    fence(Ordering::Acquire);
    let is_whole = word.load(Ordering::Relaxed) == control;
    (is_whole && found == *words).then_some((control, value))
}

/// Puts a record here. Fails if the place no longer says `expected`.
fn write(line: &Line, expected: u64, words: &[u64; 5], value: u64) -> bool {
    let [control, a, b, c, d, e, last, _] = &line.words;
    // Acquire: pairs with the Release below, so that these stores come after the last writer's.
    let claimed =
        control.compare_exchange(expected, expected | 1, Ordering::Acquire, Ordering::Relaxed);
    if claimed.is_err() {
        return false;
    }
    // Release fence: pairs with the Acquire fence of `read`.
    fence(Ordering::Release);
    for (word, content) in [a, b, c, d, e].into_iter().zip(words) {
        // Relaxed: between the fence above and the store below.
        word.store(*content, Ordering::Relaxed);
    }
    last.store(value, Ordering::Relaxed);
    // Release: pairs with the Acquire of `observe`. A plain store: nobody else changes a busy word.
    control.store(expected.wrapping_add(2), Ordering::Release);
    true
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const SECRET: Secret = Secret([1, 2]);

    fn datagram(number: u32) -> Datagram {
        let wide = u64::from(number);
        Datagram {
            source: [0, 0xFFFF_0A01_0000 + wide % 3],
            destination: [wide % 2, 0xFFFF_0A64_0001],
            identification: number,
            protocol: if number.is_multiple_of(5) { 6 } else { 17 },
        }
    }

    fn ports(source: u16) -> Ports {
        Ports {
            source,
            destination: !source,
        }
    }

    /// A bucket as a list, the oldest first; who is stored again stays where it is.
    #[derive(Default)]
    struct Oracle(VecDeque<(u32, Ports, u32)>);

    impl Oracle {
        fn store(&mut self, number: u32, ports: Ports, now: u32) -> Stored {
            if let Some(same) = self.0.iter_mut().find(|(one, ..)| *one == number) {
                *same = (number, ports, now);
                return Stored::Again;
            }
            self.0.push_back((number, ports, now));
            let displaced = (self.0.len() > WAYS).then(|| self.0.pop_front()).flatten();
            match displaced {
                Some((_, _, stored)) if now - stored <= LIFETIME.0 => Stored::Displaced,
                _ => Stored::Anew,
            }
        }

        fn ports(&self, number: u32, now: u32) -> Option<Ports> {
            let mut known = self.0.iter();
            let (_, ports, _) =
                known.find(|(one, _, stored)| *one == number && now - stored <= LIFETIME.0)?;
            Some(*ports)
        }
    }

    #[test]
    fn words_hold_what_they_are_given() {
        let ports = Ports {
            source: 0xABCD,
            destination: 0x1234,
        };
        let word = to_word(ports, Seconds(u32::MAX));
        assert_eq!(from_word(word), ports);
        assert!(is_alive(word, Seconds(0)) && is_alive(word, Seconds(u32::MAX)));
    }

    #[test]
    fn no_part_of_a_datagrams_name_is_left_out() {
        let table = FragmentTable::new(64, SECRET).unwrap();
        let one = datagram(7);
        assert_eq!(table.store(&one, ports(9), Seconds(1)), Stored::Anew);
        let others = [
            Datagram {
                source: [1, one.source[1]],
                ..one
            },
            Datagram {
                source: [0, 1],
                ..one
            },
            Datagram {
                destination: [0, one.destination[1]],
                ..one
            },
            Datagram {
                destination: [1, 1],
                ..one
            },
            Datagram {
                identification: 7 | 1 << 31,
                ..one
            },
            Datagram { protocol: 6, ..one },
        ];
        for other in others {
            assert_eq!(table.ports(&other, Seconds(1)), None, "{other:?}");
        }
        assert_eq!(table.ports(&one, Seconds(1)), Some(ports(9)));
    }

    #[test]
    fn a_flood_displaces_the_oldest_of_a_bucket_and_takes_no_more_room() {
        let table = FragmentTable::new(8192, SECRET).unwrap();
        assert_eq!(table.capacity(), 8192);
        let (mut anew, mut displaced) = (0, 0);
        for number in 0..100_000 {
            match table.store(&datagram(number), ports(1), Seconds(5)) {
                Stored::Anew => anew += 1,
                Stored::Displaced => displaced += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((anew, displaced), (8192, 100_000 - 8192));
        // The latest are there: fewer came after each than would fill its bucket.
        let latest = 99_000..100_000;
        let known = latest.filter(|number| table.ports(&datagram(*number), Seconds(5)).is_some());
        assert!(known.count() > 990);
        // All of it is over at once, and the next ones displace nothing that counts.
        let later = Seconds(5 + LIFETIME.0 + 1);
        assert_eq!(table.ports(&datagram(99_999), later), None);
        assert_eq!(table.store(&datagram(7), ports(1), later), Stored::Anew);
    }

    proptest! {
        #[test]
        fn a_bucket_behaves_like_a_plain_list(
            steps in prop::collection::vec((0_u32..14, 0_u16..4, 0_u32..12, any::<bool>()), 1..200),
        ) {
            let table = FragmentTable::new(WAYS, SECRET).unwrap();
            let mut oracle = Oracle::default();
            let mut now = 0;
            for (number, port, elapsed, stores) in steps {
                // Mostly at once, so that a bucket fills before its datagrams' time is up.
                now += elapsed.saturating_sub(8);
                if stores {
                    prop_assert_eq!(
                        table.store(&datagram(number), ports(port), Seconds(now)),
                        oracle.store(number, ports(port), now)
                    );
                }
                for number in 0..14 {
                    prop_assert_eq!(
                        table.ports(&datagram(number), Seconds(now)),
                        oracle.ports(number, now)
                    );
                }
            }
        }
    }
}
