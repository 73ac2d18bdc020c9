//! The stamp: eighteen bytes of each payload, by which the sink knows what it sees.
//!
//! | bytes | what, big-endian |
//! |---|---|
//! | 0..2 | [`MAGIC`] |
//! | 2..6 | number of the flow |
//! | 6..10 | number of the frame in its flow, from 0, wrapping (RFC 1982) |
//! | 10..16 | time of sending: the low 48 bits of CLOCK_MONOTONIC, nanoseconds |
//! | 16..18 | check over all of that |
//!
//! It fits the smallest frame of UDP over IPv4. `bpf/blast.bpf.c` writes the same.

/// Bytes of a stamp.
pub const BYTES: usize = 18;

/// How a stamp begins: "Rg".
pub const MAGIC: u16 = 0x5267;

/// Times are modulo this, nanoseconds: 78 hours.
pub const TIMES: u64 = 1 << 48;

/// Odd, and no sixteen bits in a row are alike: so a change of any one bit of what is multiplied
/// changes the upper sixteen bits of the product.
const FACTORS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9];

/// What one frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Number of its flow.
    pub flow: u32,
    /// Number in its flow.
    pub sequence: u32,
    /// When it was sent, nanoseconds below [`TIMES`].
    pub time: u64,
}

/// What the place of a stamp held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Something else: no magic, or too short.
    Foreign,
    /// A stamp whose check is wrong.
    Damaged,
    /// A stamp.
    Whole(Stamp),
}

impl Stamp {
    /// The nine words, in the order of the wire.
    #[must_use]
    pub const fn words(self) -> [u16; BYTES / 2] {
        let [f0, f1, f2, f3] = self.flow.to_be_bytes();
        let [s0, s1, s2, s3] = self.sequence.to_be_bytes();
        let [_, _, t0, t1, t2, t3, t4, t5] = self.time.to_be_bytes();
        [
            MAGIC,
            u16::from_be_bytes([f0, f1]),
            u16::from_be_bytes([f2, f3]),
            u16::from_be_bytes([s0, s1]),
            u16::from_be_bytes([s2, s3]),
            u16::from_be_bytes([t0, t1]),
            u16::from_be_bytes([t2, t3]),
            u16::from_be_bytes([t4, t5]),
            self.check(MAGIC),
        ]
    }

    /// Reads what `payload` begins with.
    #[must_use]
    pub fn read(payload: &[u8]) -> Read {
        let Some(bytes) = payload.first_chunk::<BYTES>() else {
            return Read::Foreign;
        };
        let [
            m0,
            m1,
            f0,
            f1,
            f2,
            f3,
            s0,
            s1,
            s2,
            s3,
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            c0,
            c1,
        ] = *bytes;
        if u16::from_be_bytes([m0, m1]) != MAGIC {
            return Read::Foreign;
        }
        let stamp = Self {
            flow: u32::from_be_bytes([f0, f1, f2, f3]),
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            time: u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]),
        };
        if stamp.check(MAGIC) == u16::from_be_bytes([c0, c1]) {
            Read::Whole(stamp)
        } else {
            Read::Damaged
        }
    }

    /// Nanoseconds from the stamp's time to `now`, if that is not earlier (by less than half of
    /// [`TIMES`]).
    #[must_use]
    pub const fn age(self, now: u64) -> Option<u64> {
        let age = now.wrapping_sub(self.time) % TIMES;
        if age < TIMES / 2 { Some(age) } else { None }
    }

    const fn check(self, magic: u16) -> u16 {
        let numbers = ((self.flow as u64) << 32) | self.sequence as u64;
        let times = ((magic as u64) << 48) | (self.time % TIMES);
        let mixed = numbers.wrapping_mul(FACTORS[0]) ^ times.wrapping_mul(FACTORS[1]);
        let [high, low, ..] = mixed.to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(stamp: Stamp) -> Vec<u8> {
        stamp
            .words()
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect()
    }

    const SOME: [Stamp; 3] = [
        Stamp {
            flow: 0,
            sequence: 0,
            time: 0,
        },
        Stamp {
            flow: 7,
            sequence: u32::MAX,
            time: TIMES - 1,
        },
        Stamp {
            flow: 0xDEAD_BEEF,
            sequence: 0x0102_0304,
            time: 0x1234_5678_9ABC,
        },
    ];

    #[test]
    fn what_was_written_is_read() {
        for stamp in SOME {
            assert_eq!(Stamp::read(&bytes_of(stamp)), Read::Whole(stamp));
        }
        assert_eq!(Stamp::read(&bytes_of(SOME[2])[..17]), Read::Foreign);
    }

    #[test]
    fn any_one_bit_that_is_wrong_is_seen() {
        for stamp in SOME {
            for bit in 0..BYTES * 8 {
                let mut bytes = bytes_of(stamp);
                bytes[bit / 8] ^= 1 << (bit % 8);
                let expected = if bit < 16 {
                    Read::Foreign
                } else {
                    Read::Damaged
                };
                assert_eq!(Stamp::read(&bytes), expected, "bit {bit} of {stamp:?}");
            }
        }
    }

    #[test]
    fn age_goes_over_the_end_of_the_times() {
        let stamp = Stamp {
            flow: 0,
            sequence: 0,
            time: TIMES - 10,
        };
        assert_eq!(stamp.age(TIMES + 5), Some(15));
        assert_eq!(stamp.age(5), Some(15));
        assert_eq!(stamp.age(TIMES - 11), None);
    }
}
