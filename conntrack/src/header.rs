//! The header: what makes a piece of memory a flow table, and what it is refused for.
//!
//! Two lines of plain words in the machine's byte order:
//!
//! | word | content |
//! |---|---|
//! | 0 | [`MAGIC`]; written last, so memory whose maker died before is no table |
//! | 1 | [`VERSION`] of the whole layout (`region`) |
//! | 2 | number of lines, header included |
//! | 3 | number of buckets, even |
//! | 4 | capacity in flows, from which 2, 3 and 5 follow |
//! | 5 | first line of the slots |
//! | 6 | 0 |
//! | 7 | check sum: [`check_sum`] of words 1 to 6 and 8 to 13 |
//! | 8..14 | the hash key (`hash`) |
//! | 14, 15 | 0 |
//!
//! The hash key is in here because whoever looks a flow up has to hash alike. It is as secret as
//! the flows beside it: who can read the one can read the other, and needs no collisions.

use thiserror::Error;

use crate::hash::{HashKey, mix};
use crate::memory::{LINE_BYTES, Memory};
use crate::region::Shape;
use crate::sync::{AtomicU64, Ordering};

/// "ringflow" in ASCII, most significant byte first.
pub const MAGIC: u64 = 0x7269_6E67_666C_6F77;

/// Version of the layout.
pub const VERSION: u64 = 3;

pub(crate) const HEADER_LINES: usize = 2;

const WORDS: usize = HEADER_LINES * 8;

/// Why memory was not made a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NewError {
    /// Too little.
    #[error("{found} lines of memory are too few for a table that takes {needed}")]
    Short {
        /// Lines there are.
        found: usize,
        /// Lines it takes.
        needed: usize,
    },
    /// It has been used.
    #[error(
        "the memory does not begin with zeroes but has {found:#018x} in word {word}: a new table \
         takes fresh memory, an old one is adopted"
    )]
    Used {
        /// Which word of it.
        word: usize,
        /// What is there.
        found: u64,
    },
}

/// Why memory was not taken for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AdoptError {
    /// No room for a header.
    #[error("{found} lines of memory are too few for a flow table's header of {HEADER_LINES}")]
    Headless {
        /// Lines there are.
        found: usize,
    },
    /// Something else, or a table whose maker died before it was finished.
    #[error(
        "the memory begins with {found:#018x}, expected {MAGIC:#018x}: it holds no flow table, or \
         one that was never finished; start with a new one"
    )]
    Magic {
        /// What it begins with.
        found: u64,
    },
    /// Another machine's.
    #[error(
        "the flow table was written by a machine of the other byte order; start with a new one"
    )]
    ByteOrder,
    /// Another release's.
    #[error(
        "the flow table has layout version {found}, expected {VERSION}: it was written by another \
         release; start with a new one"
    )]
    Version {
        /// Its version.
        found: u64,
    },
    /// A number that does not follow from the capacity.
    #[error(
        "the flow table's header says {found} {what}, expected {expected} for its capacity of \
         {capacity} flows: it is damaged; start with a new one"
    )]
    Shape {
        /// What is counted.
        what: &'static str,
        /// The header's number.
        found: u64,
        /// What follows from the capacity.
        expected: u64,
        /// The header's capacity.
        capacity: u64,
    },
    /// The check sum is wrong: some word is, perhaps of the hash key.
    #[error(
        "the flow table's header has check sum {found:#018x}, expected {expected:#018x}: it is \
         damaged; start with a new one"
    )]
    CheckSum {
        /// The header's.
        found: u64,
        /// What follows from its words.
        expected: u64,
    },
    /// Part of the table is missing.
    #[error(
        "the flow table takes {expected} lines of {LINE_BYTES} bytes, and the memory has {found}: \
         it is not, or not all of, the memory that the table was made in"
    )]
    Length {
        /// Lines there are.
        found: usize,
        /// Lines the header says.
        expected: usize,
    },
}

/// Makes blank memory a table's.
pub(crate) fn write(memory: &Memory, capacity: usize, key: &HashKey) -> Result<Shape, NewError> {
    let shape = Shape::of(capacity);
    let (found, needed) = (memory.len(), shape.lines);
    if found < needed {
        return Err(NewError::Short { found, needed });
    }
    for (word, content) in words(memory).enumerate() {
        // Relaxed: memory that is made a table has no other users.
        let found = content.load(Ordering::Relaxed);
        if found != 0 {
            return Err(NewError::Used { word, found });
        }
    }
    let header = compose(shape, capacity, key);
    for (word, value) in words(memory).zip(header).skip(1) {
        // Relaxed: published by the store below.
        word.store(value, Ordering::Relaxed);
    }
    for (word, value) in words(memory).zip(header).take(1) {
        // Release: pairs with the Acquire of `read`. Who sees the magic sees the rest.
        word.store(value, Ordering::Release);
    }
    Ok(shape)
}

/// Reads a table's header: its shape, capacity and hash key.
pub(crate) fn read(memory: &Memory) -> Result<(Shape, usize, HashKey), AdoptError> {
    let found = memory.len();
    if found < HEADER_LINES {
        return Err(AdoptError::Headless { found });
    }
    let mut header = [0; WORDS];
    for (value, word) in header.iter_mut().zip(words(memory)) {
        // Acquire: the magic's pairs with the Release of `write`; the others' cost nothing.
        *value = word.load(Ordering::Acquire);
    }
    let [
        magic,
        version,
        lines,
        buckets,
        capacity,
        slots_at,
        _,
        sum,
        a,
        b,
        c,
        d,
        e,
        f,
        ..,
    ] = header;
    match magic {
        MAGIC => {}
        swapped if swapped == MAGIC.swap_bytes() => return Err(AdoptError::ByteOrder),
        found => return Err(AdoptError::Magic { found }),
    }
    if version != VERSION {
        return Err(AdoptError::Version { found: version });
    }
    let flows = usize::try_from(capacity).unwrap_or(usize::MAX);
    let shape = Shape::of(flows);
    for (what, found, expected) in [
        ("lines", lines, shape.lines as u64),
        ("buckets", buckets, u64::from(shape.buckets)),
        ("lines before the slots", slots_at, shape.slots_at as u64),
    ] {
        if found != expected {
            return Err(AdoptError::Shape {
                what,
                found,
                expected,
                capacity,
            });
        }
    }
    let expected = check_sum(&header);
    if sum != expected {
        return Err(AdoptError::CheckSum {
            found: sum,
            expected,
        });
    }
    if found < shape.lines {
        return Err(AdoptError::Length {
            found,
            expected: shape.lines,
        });
    }
    Ok((shape, flows, HashKey::from_words([a, b, c, d, e, f])))
}

fn words(memory: &Memory) -> impl Iterator<Item = &AtomicU64> {
    let lines = memory.lines().iter().take(HEADER_LINES);
    lines.flat_map(|line| &line.words)
}

fn compose(shape: Shape, capacity: usize, key: &HashKey) -> [u64; WORDS] {
    let [a, b, c, d, e, f] = key.words();
    let mut header = [
        MAGIC,
        VERSION,
        shape.lines as u64,
        u64::from(shape.buckets),
        capacity as u64,
        shape.slots_at as u64,
        0,
        0,
        a,
        b,
        c,
        d,
        e,
        f,
        0,
        0,
    ];
    header[7] = check_sum(&header);
    header
}

/// Each word but the magic and the sum itself, in turn, added to the sum so far and mixed (`mix`
/// of `hash`). Against accidents, not against forgery.
fn check_sum(header: &[u64; WORDS]) -> u64 {
    let summed = header
        .iter()
        .enumerate()
        .filter(|(at, _)| !matches!(at, 0 | 7));
    summed.fold(0, |sum: u64, (_, word)| mix(sum.wrapping_add(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Secret;

    const CAPACITY: usize = 1000;

    fn key() -> HashKey {
        HashKey::new(Secret([1, 2]))
    }

    fn table() -> Memory {
        let memory = Memory::private(Shape::of(CAPACITY).lines).unwrap();
        write(&memory, CAPACITY, &key()).unwrap();
        memory
    }

    fn word(memory: &Memory, at: usize) -> &AtomicU64 {
        words(memory).nth(at).unwrap()
    }

    /// What is said of a table with `change` applied to one word of its header.
    fn changed(at: usize, change: impl Fn(u64) -> u64) -> AdoptError {
        let memory = table();
        // Relaxed, both: one thread.
        let old = word(&memory, at).load(Ordering::Relaxed);
        word(&memory, at).store(change(old), Ordering::Relaxed);
        read(&memory).unwrap_err()
    }

    #[test]
    fn the_header_says_what_it_is_and_is_read_again() {
        let memory = table();
        let shape = Shape::of(CAPACITY);
        // Relaxed: one thread.
        let header: Vec<u64> = words(&memory)
            .map(|word| word.load(Ordering::Relaxed))
            .collect();
        let numbers = [
            shape.lines,
            shape.buckets as usize,
            CAPACITY,
            shape.slots_at,
        ];
        assert_eq!(header[..2], [MAGIC, VERSION]);
        assert_eq!(header[2..6], numbers.map(|number| number as u64));
        assert_eq!(shape.slots_at, 2 + shape.buckets as usize / 2);
        assert_eq!((header[6], &header[8..14]), (0, &key().words()[..]));
        assert_eq!(MAGIC.to_be_bytes(), *b"ringflow");
        assert_eq!(read(&memory), Ok((shape, CAPACITY, key())));
    }

    #[test]
    fn a_wrong_word_is_refused_whichever_it_is() {
        for at in 0..WORDS {
            for bit in [0, 1, 17, 63] {
                let _refused = changed(at, |old| old ^ 1 << bit);
            }
        }
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_was_expected() {
        let shape = Shape::of(CAPACITY);
        assert_eq!(changed(0, |_| 0), AdoptError::Magic { found: 0 });
        assert_eq!(changed(0, u64::swap_bytes), AdoptError::ByteOrder);
        assert_eq!(changed(1, |_| 1), AdoptError::Version { found: 1 });
        for (at, what, right) in [
            (2, "lines", shape.lines),
            (3, "buckets", shape.buckets as usize),
            (5, "lines before the slots", shape.slots_at),
        ] {
            let wrong = AdoptError::Shape {
                what,
                found: right as u64 + 2,
                expected: right as u64,
                capacity: CAPACITY as u64,
            };
            assert_eq!(changed(at, |old| old + 2), wrong);
        }
        assert!(matches!(
            changed(4, |old| old * 2),
            AdoptError::Shape { .. }
        ));
        assert!(matches!(changed(4, |_| u64::MAX), AdoptError::Shape { .. }));
        for key in 8..14 {
            assert!(matches!(
                changed(key, |old| !old),
                AdoptError::CheckSum { .. }
            ));
        }
        let text = changed(1, |_| 1).to_string();
        assert!(text.contains("version 1, expected 3"), "{text}");
    }

    #[test]
    fn memory_that_is_too_short_is_refused() {
        let needed = Shape::of(CAPACITY).lines;
        let short = Memory::private(needed - 1).unwrap();
        let found = needed - 1;
        assert_eq!(
            write(&short, CAPACITY, &key()),
            Err(NewError::Short { found, needed })
        );
        // All of the header, but not all of the table.
        for (to, from) in words(&short).zip(words(&table())) {
            // Relaxed, both: one thread.
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let expected = needed;
        assert_eq!(read(&short), Err(AdoptError::Length { found, expected }));
        let headless = read(&Memory::private(1).unwrap());
        assert_eq!(headless, Err(AdoptError::Headless { found: 1 }));
    }

    #[test]
    fn used_memory_does_not_become_a_new_table() {
        let again = write(&table(), CAPACITY, &key());
        assert_eq!(
            again,
            Err(NewError::Used {
                word: 0,
                found: MAGIC
            })
        );
    }

    #[test]
    fn a_table_whose_maker_died_before_the_end_is_none() {
        let whole = table();
        for written in 1..WORDS {
            let memory = Memory::private(Shape::of(CAPACITY).lines).unwrap();
            for at in 1..=written {
                // Relaxed, both: one thread.
                let value = word(&whole, at).load(Ordering::Relaxed);
                word(&memory, at).store(value, Ordering::Relaxed);
            }
            assert_eq!(read(&memory), Err(AdoptError::Magic { found: 0 }));
        }
    }
}
