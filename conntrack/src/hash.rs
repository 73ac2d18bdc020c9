//! SipHash-1-3 over a flow's five words: Aumasson and Bernstein, "SipHash: a fast short-input
//! PRF", INDOCRYPT 2012, with one compression and three finalisation rounds.
//!
//! With a secret key it is safe against floods of colliding flows; with a public one it serves
//! Maglev. It needs only 64-bit additions, rotations and exclusive ors, so that a BPF program
//! can compute it too.

/// A 128-bit key. The flow table's is random and never leaves the process; Maglev's are public.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u64; 2]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The hash of a flow's key under a table's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowHash(pub(crate) u64);

/// SipHash-1-3 of the 40 bytes that are `words` in little-endian order.
#[inline]
#[must_use]
pub const fn siphash13(words: &[u64; 5], secret: Secret) -> u64 {
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

#[inline]
const fn absorb(mut state: [u64; 4], word: u64) -> [u64; 4] {
    state[3] ^= word;
    state = round(state);
    state[0] ^= word;
    state
}

#[inline]
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

    proptest! {
        #[test]
        fn it_is_siphash_1_3(words: [u64; 5], k0: u64, k1: u64) {
            let mut oracle = SipHasher13::new_with_keys(k0, k1);
            for word in words {
                oracle.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash13(&words, Secret([k0, k1])), oracle.finish());
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret([1, 2])), "Secret(..)");
    }
}
