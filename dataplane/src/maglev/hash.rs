//! The ring's hash: five words to 64 bits, the same on every balancer.
//!
//! Not a secret and not safe against who looks for collisions; it need not be, a client gains
//! nothing by them but the backend of its choice, which it could have by trying. The flow table
//! has a keyed hash of its own.
//!
//! Every word is folded onto itself, so that its high bits count in the low half too, and
//! multiplied by an odd constant of its own; the products are added to a seed and the sum goes
//! through the finaliser of `SplitMix64`. The five products do not wait for each other. Only
//! 64-bit additions, multiplications, shifts and exclusive ors, so that a BPF program could
//! compute it too.

/// The initial state of SHA-512 (FIPS 180-4, §5.3.5), its first five words made odd: numbers
/// that nobody chose.
const FACTORS: [u64; 5] = [
    0x6A09_E667_F3BC_C908 | 1,
    0xBB67_AE85_84CA_A73B,
    0x3C6E_F372_FE94_F82B,
    0xA54F_F53A_5F1D_36F1,
    0x510E_527F_ADE6_82D1,
];

/// The hash of `words` under `seed`.
#[inline]
#[must_use]
pub(super) const fn hash(words: &[u64; 5], seed: u64) -> u64 {
    let [a, b, c, d, e] = *words;
    let [fa, fb, fc, fd, fe] = FACTORS;
    let left = fold(a, fa).wrapping_add(fold(b, fb));
    let right = fold(c, fc).wrapping_add(fold(d, fd));
    finish(
        left.wrapping_add(right)
            .wrapping_add(fold(e, fe).wrapping_add(seed)),
    )
}

#[inline]
const fn fold(word: u64, factor: u64) -> u64 {
    (word ^ (word >> 32)).wrapping_mul(factor)
}

/// The finaliser of `SplitMix64`: variant 13 of Stafford, "Better Bit Mixing", 2011.
#[inline]
const fn finish(mut sum: u64) -> u64 {
    sum = (sum ^ (sum >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    sum = (sum ^ (sum >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    sum ^ (sum >> 31)
}

/// Maps a hash to `0..range` by the high half of a product instead of a division: Lemire, "Fast
/// Random Integer Generation in an Interval", 2019. No result is more frequent than another by
/// more than `range` / 2^64.
#[inline]
#[must_use]
pub(super) fn reduce(hash: u64, range: usize) -> usize {
    let product = u128::from(hash) * range as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// IPv4 flows: client, its port, and one service.
    fn v4(client: u32, port: u16) -> [u64; 5] {
        let client = 0xFFFF_0000_0000 | u64::from(client);
        let ports = u64::from(port) << 32 | 443 << 16 | 6;
        [0, client, 0, 0xFFFF_0A64_0001, ports]
    }

    fn v6(high: u64, low: u64, port: u16) -> [u64; 5] {
        let ports = u64::from(port) << 32 | 443 << 16 | 6;
        [high, low, 0x2001_0DB8_0000_0001, 1, ports]
    }

    /// Pearson's statistic over `buckets`, in standard deviations from its mean: beyond 5 once
    /// in three million for hashes as good as random.
    fn deviation(buckets: usize, keys: impl Iterator<Item = [u64; 5]>) -> f64 {
        let mut counts = vec![0u32; buckets];
        for words in keys {
            counts[reduce(hash(&words, 7), buckets)] += 1;
        }
        let total: u32 = counts.iter().sum();
        let expected = f64::from(total) / buckets as f64;
        let statistic: f64 = counts
            .iter()
            .map(|count| (f64::from(*count) - expected).powi(2) / expected)
            .sum();
        let freedom = buckets as f64 - 1.0;
        (statistic - freedom) / (2.0 * freedom).sqrt()
    }

    #[test]
    fn regular_keys_spread_like_random_ones() {
        let ports = || 1024..=u16::MAX;
        for buckets in [101, 251, 1009, 4093] {
            let sets: [(&str, f64); 8] = [
                (
                    "ports",
                    deviation(buckets, ports().map(|port| v4(0x0A01_0002, port))),
                ),
                (
                    "hosts",
                    deviation(buckets, (0..200_000).map(|host| v4(0x0A00_0000 + host, 53))),
                ),
                (
                    "every 256th host",
                    deviation(buckets, (0..60_000).map(|host| v4(host << 8, 53))),
                ),
                (
                    "every 65,536th host",
                    deviation(buckets, (0..65_536).map(|host| v4(host << 16, 53))),
                ),
                (
                    "hosts and ports",
                    deviation(
                        buckets,
                        (0..500_000u32)
                            .map(|n| v4(0x0A01_0000 + (n >> 9), 1024 + (n & 511) as u16)),
                    ),
                ),
                (
                    "prefixes of IPv6",
                    deviation(
                        buckets,
                        (0..100_000).map(|n| v6(0x2001_0DB8_0000_0000 + n, 1, 53)),
                    ),
                ),
                (
                    "high bits of IPv6",
                    deviation(buckets, (0..65_536).map(|n| v6(n << 48, 1, 53))),
                ),
                (
                    "interfaces of IPv6",
                    deviation(
                        buckets,
                        (0..100_000).map(|n| v6(0x2001_0DB8_0000_0000, n << 40 | n, 53)),
                    ),
                ),
            ];
            for (name, deviation) in sets {
                // Better than random is a pattern as well.
                assert!(deviation.abs() < 5.0, "{name} over {buckets}: {deviation}");
            }
        }
    }

    #[test]
    fn every_bit_of_the_key_reaches_every_bit_that_places() {
        const SAMPLES: u32 = 2_000;
        // A table has fewer than 2^23 slots: these bits decide.
        for input in 0..320 {
            let mut flips = [0u32; 23];
            for sample in 0..SAMPLES {
                let mut words = v4(sample.wrapping_mul(0x9E37_79B9), 1024);
                let before = hash(&words, 7);
                words[input / 64] ^= 1 << (input % 64);
                let changed = before ^ hash(&words, 7);
                for (bit, flips) in flips.iter_mut().enumerate() {
                    *flips += u32::from(changed >> (63 - bit) & 1 == 1);
                }
            }
            for flips in flips {
                // Six standard deviations of a fair coin are 134.
                assert!(flips.abs_diff(SAMPLES / 2) < 134, "bit {input}: {flips}");
            }
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(hash(&[0; 5], 0), 0);
        assert_eq!(finish(0x9E37_79B9_7F4A_7C15), 0xE220_A839_7B1D_CDAF); // SplitMix64 of seed 0
        assert_eq!(hash(&v4(0x0A01_0002, 40_000), 0), PUBLISHED);
    }
    /// Computed by another program from the module's words.
    const PUBLISHED: u64 = 0x4815_5DF5_7CE4_E983;

    proptest! {
        #[test]
        fn reduction_stays_in_range_and_keeps_order(a: u64, b: u64, range in 1usize..8_388_594) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(reduce(low, range) <= reduce(high, range));
            prop_assert!(reduce(high, range) < range);
            prop_assert_eq!(reduce(0, range), 0);
            prop_assert_eq!(reduce(u64::MAX, range), range - 1);
        }
    }
}
