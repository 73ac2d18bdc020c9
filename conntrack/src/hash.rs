//! The hash that places a flow: NH, then a mixing step that loses nothing.
//!
//! NH (Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC: Fast and Secure Message Authentication",
//! CRYPTO 1999; RFC 4418 §5.2) takes the ten 32-bit halves of a key's words, adds a secret to each,
//! and sums five products of pairs. For any two different keys the sums are equal for at most one
//! in 2^32 secrets, whatever the keys: who does not know the secret cannot choose keys that
//! collide, and the table never tells. The 64-bit mixer after it (the finaliser of Steele, Lea and
//! Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) is a bijection; it spreads
//! what NH leaves in structure over all bits, of which buckets and tags are cut.
//!
//! It needs only 64-bit additions, multiplications and shifts, so that a BPF program can
//! compute it too, and costs some thirty instructions, a third of SipHash-1-3's.

use crate::key::FlowKey;

/// A 128-bit key, random for every table. What is expanded of it lies in the table's header
/// (`header`), for those who read the table; nobody else learns it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u64; 2]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The hash of a flow's key under a table's secret, and where the flow may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowHash {
    value: u64,
    /// See [`FlowTable::locate`](crate::FlowTable::locate).
    hint: u32,
}

/// No hint: no table has so many slots.
pub(crate) const NO_HINT: u32 = u32::MAX;

impl FlowHash {
    #[inline]
    pub(crate) const fn from_value(value: u64) -> Self {
        Self {
            value,
            hint: NO_HINT,
        }
    }

    #[inline]
    pub(crate) const fn value(self) -> u64 {
        self.value
    }

    /// Whether the flow is of the one in `every` that are looked at more closely: a share of all keys by
    /// a number that nothing else about their places goes by. 1: each is, 0 too.
    #[inline]
    #[must_use]
    pub const fn is_one_in(self, every: u32) -> bool {
        // The upper half of a product hangs on all bits (Knuth's multiplicative hashing), and is scaled as
        // buckets are. Tags are the lowest bits, which therefore say nothing of it.
        let number = self.value.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        (number * every as u64) >> 32 == 0
    }

    /// A place worth a look before all others; [`NO_HINT`] if there is none.
    #[inline]
    pub(crate) const fn hint(self) -> u32 {
        self.hint
    }

    #[inline]
    pub(crate) const fn with_hint(self, hint: u32) -> Self {
        Self { hint, ..self }
    }
}

/// A secret, expanded: what the hash adds to a key's halves, and to NH's sum.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashKey {
    pairs: [u64; 5],
    last: u64,
    /// What the sum begins with where the addresses' high words are zero, as in IPv4: `last` and
    /// their products.
    last_v4: u64,
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl HashKey {
    /// Expands a secret into six words by SipHash-1-3, a pseudorandom function.
    pub(crate) fn new(secret: Secret) -> Self {
        let word = |number| siphash13(&[number, 0, 0, 0, 0], secret);
        Self::from_words([0, 1, 2, 3, 4, 5].map(word))
    }

    /// The words as they stand in a region's header.
    pub(crate) const fn words(&self) -> [u64; 6] {
        let [a, b, c, d, e] = self.pairs;
        [a, b, c, d, e, self.last]
    }

    /// The same from such words.
    pub(crate) const fn from_words([a, b, c, d, e, last]: [u64; 6]) -> Self {
        let zeros = product(0, a).wrapping_add(product(0, c));
        Self {
            pairs: [a, b, c, d, e],
            last,
            last_v4: last.wrapping_add(zeros),
        }
    }

    /// The hash of `key`.
    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey) -> FlowHash {
        let [a, b, c, d, e] = key.words();
        let [pa, pb, pc, pd, pe] = self.pairs;
        let first = if a | c == 0 {
            self.last_v4
        } else {
            let high = product(a, pa).wrapping_add(product(c, pc));
            self.last.wrapping_add(high)
        };
        let low = product(b, pb).wrapping_add(product(d, pd));
        let sum = first.wrapping_add(low).wrapping_add(product(e, pe));
        FlowHash::from_value(mix(sum))
    }
}

/// The halves of a word, each with its half of the secret added, multiplied.
#[inline]
const fn product(word: u64, secret: u64) -> u64 {
    const LOW: u64 = 0xFFFF_FFFF;
    let low = (word & LOW).wrapping_add(secret & LOW) & LOW;
    let high = (word >> 32).wrapping_add(secret >> 32) & LOW;
    low * high
}

/// A bijection.
#[inline]
pub(crate) const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// SipHash-1-3 of the 40 bytes that are `words` in little-endian order: Aumasson and Bernstein,
/// "SipHash: a fast short-input PRF", INDOCRYPT 2012, with one compression and three finalisation
/// rounds.
const fn siphash13(words: &[u64; 5], secret: Secret) -> u64 {
    let [k0, k1] = secret.0;
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let [a, b, c, d, e] = *words;
    state = absorb(state, a);
    state = absorb(state, b);
    state = absorb(state, c);
    state = absorb(state, d);
    state = absorb(state, e);
    state = absorb(state, 40 << 56); // the last block: no bytes left over, and the length
    state[2] ^= 0xFF;
    state = round(round(round(state)));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

const fn absorb(mut state: [u64; 4], word: u64) -> [u64; 4] {
    state[3] ^= word;
    state = round(state);
    state[0] ^= word;
    state
}

const fn round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v2 = v2.wrapping_add(v3);
    v1 = v1.rotate_left(13) ^ v0;
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.rotate_left(32).wrapping_add(v3);
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::key::Endpoint;

    fn key(n: u32) -> FlowKey {
        let source = Endpoint {
            address: [0, 0xFFFF_0A00_0000 + u64::from(n >> 15)],
            port: 1024 + u16::try_from(n & 0x7FFF).unwrap(),
        };
        let destination = Endpoint {
            address: [0, 0xFFFF_0A64_0001],
            port: 80,
        };
        FlowKey::new(6, source, destination)
    }

    /// The sum as RFC 4418 §5.2.2 writes it: 32-bit numbers in pairs.
    fn nh(key: &FlowKey, hash_key: &HashKey) -> u64 {
        let halves = |words: [u64; 5]| {
            words
                .into_iter()
                .flat_map(|word| [word & 0xFFFF_FFFF, word >> 32])
        };
        let added: Vec<u64> = halves(key.words())
            .zip(halves(hash_key.pairs))
            .map(|(message, secret)| (message + secret) % (1 << 32))
            .collect();
        added.chunks(2).fold(hash_key.last, |sum, pair| {
            sum.wrapping_add(pair[0] * pair[1])
        })
    }

    proptest! {
        #[test]
        fn it_is_siphash_1_3(words: [u64; 5], k0: u64, k1: u64) {
            let mut oracle = SipHasher13::new_with_keys(k0, k1);
            for word in words {
                oracle.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash13(&words, Secret([k0, k1])), oracle.finish());
        }

        #[test]
        fn it_is_nh_mixed(a: [u64; 2], b: [u64; 2], p: u16, q: u16, protocol: u8, is_v4: bool, secret: [u64; 2]) {
            let [a, b] = [a, b].map(|[high, low]| [if is_v4 { 0 } else { high }, low]);
            let (source, destination) = (Endpoint { address: a, port: p }, Endpoint { address: b, port: q });
            let key = FlowKey::new(protocol, source, destination);
            let hash_key = HashKey::new(Secret(secret));
            prop_assert_eq!(hash_key.hash(&key).value(), mix(nh(&key, &hash_key)));
        }
    }

    /// Counts of what falls where must be what chance makes of them: Pearson's statistic within
    /// six standard deviations of its mean.
    fn is_even(counts: &[u32]) -> bool {
        let total: u32 = counts.iter().sum();
        let mean = f64::from(total) / counts.len() as f64;
        let statistic: f64 = counts
            .iter()
            .map(|count| (f64::from(*count) - mean).powi(2) / mean)
            .sum();
        let freedom = (counts.len() - 1) as f64;
        (statistic - freedom).abs() < 6.0 * (2.0 * freedom).sqrt()
    }

    #[test]
    fn neighbouring_keys_spread_over_all_bits() {
        // Flows that differ in the low bits of port and address only, as real ones do.
        for secret in [[0, 0], [1, 2], [u64::MAX, 7]] {
            let hash_key = HashKey::new(Secret(secret));
            for shift in [0, 8, 16, 24, 32, 40, 48, 52] {
                let mut counts = vec![0; 4096];
                for n in 0..1 << 18 {
                    let value = hash_key.hash(&key(n)).value() >> shift;
                    counts[usize::try_from(value & 0xFFF).unwrap()] += 1;
                }
                assert!(is_even(&counts), "secret {secret:?}, bits from {shift}");
            }
        }
    }

    #[test]
    fn a_key_made_of_its_words_hashes_alike() {
        let hash_key = HashKey::new(Secret([3, 4]));
        let again = HashKey::from_words(hash_key.words());
        assert!((0..100).all(|n| again.hash(&key(n)) == hash_key.hash(&key(n))));
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret([1, 2])), "Secret(..)");
        assert_eq!(format!("{:?}", HashKey::new(Secret([1, 2]))), "HashKey(..)");
    }
}
