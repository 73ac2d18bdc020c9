//! Longest prefix match: the most specific of the prefixes that an address is in.
//!
//! One hash table for each length that occurs, longest first, and the range that its prefixes
//! are in: most clients are beyond every prefix but the default route's, and a comparison says so
//! before any hash does. With every length there is, 32 for IPv4 and 128 for IPv6, a lookup still
//! ends.

use std::hash::Hash;
use std::ops::{BitAnd, RangeInclusive};

use ipnet::IpNet;
use ringgate_conntrack::Endpoint;
use rustc_hash::FxHashMap;

/// What is known of prefixes of addresses `A`, which are numbers: the first bit is the highest.
#[derive(Debug, Clone)]
pub(crate) struct Prefixes<A, T> {
    lengths: Vec<Length<A, T>>,
    /// Of the prefix of no bits: the default route.
    default: Option<T>,
}

/// The prefixes of one length.
#[derive(Debug, Clone)]
struct Length<A, T> {
    bits: u8,
    mask: A,
    /// All of them are in it.
    range: RangeInclusive<A>,
    known: FxHashMap<A, T>,
}

impl<A, T> Default for Prefixes<A, T> {
    fn default() -> Self {
        Self {
            lengths: Vec::new(),
            default: None,
        }
    }
}

impl<A: Copy + Ord + Hash + BitAnd<Output = A>, T> Prefixes<A, T> {
    /// Adds or replaces what is known of the prefix of `bits` bits, which are set in `mask`, of
    /// `address`.
    pub(crate) fn insert(&mut self, address: A, bits: u8, mask: A, what: T) {
        if bits == 0 {
            self.default = Some(what);
            return;
        }
        let address = address & mask;
        let place = self
            .lengths
            .binary_search_by(|length| bits.cmp(&length.bits));
        let at = place.unwrap_or_else(|at| {
            let length = Length {
                bits,
                mask,
                range: address..=address,
                known: FxHashMap::default(),
            };
            self.lengths.insert(at, length);
            at
        });
        if let Some(length) = self.lengths.get_mut(at) {
            let (least, most) = (*length.range.start(), *length.range.end());
            length.range = least.min(address)..=most.max(address);
            length.known.insert(address, what);
        }
    }

    /// What is known of the longest prefix that `address` is in.
    #[inline]
    pub(crate) fn get(&self, address: A) -> Option<&T> {
        for length in &self.lengths {
            let address = address & length.mask;
            if length.range.contains(&address)
                && let Some(what) = length.known.get(&address)
            {
                return Some(what);
            }
        }
        self.default.as_ref()
    }
}

/// What is known of prefixes of both IP versions.
#[derive(Debug, Clone)]
pub(crate) struct Nets<T> {
    v4: Prefixes<u32, T>,
    v6: Prefixes<u128, T>,
}

impl<T> Default for Nets<T> {
    fn default() -> Self {
        Self {
            v4: Prefixes::default(),
            v6: Prefixes::default(),
        }
    }
}

impl<T> Nets<T> {
    /// Adds or replaces what is known of a prefix.
    pub(crate) fn insert(&mut self, prefix: IpNet, what: T) {
        let bits = prefix.prefix_len();
        match prefix {
            IpNet::V4(prefix) => {
                let mask = prefix.netmask().to_bits();
                self.v4.insert(prefix.addr().to_bits(), bits, mask, what);
            }
            IpNet::V6(prefix) => {
                let mask = prefix.netmask().to_bits();
                self.v6.insert(prefix.addr().to_bits(), bits, mask, what);
            }
        }
    }

    /// What is known of the longest prefix that `address`, in the words of an [`Endpoint`], is in.
    pub(crate) fn get(&self, address: [u64; 2]) -> Option<&T> {
        let [high, low] = address;
        if (Endpoint { address, port: 0 }).is_v4() {
            let octets = Endpoint::v4_octets(address);
            self.v4.get(u32::from_be_bytes(octets))
        } else {
            self.v6.get(u128::from(high) << 64 | u128::from(low))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(bits: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_every_prefix_finds(
            prefixes in prop::collection::vec((0u32..64, 0u8..=32), 0..40),
            addresses in prop::collection::vec(0u32..64, 1..20),
        ) {
            // Few different bits at both ends, so that prefixes lie in each other.
            let spread = |bits: u32| (bits >> 3) << 29 | (bits & 7);
            let mut table = Prefixes::default();
            let mut list: Vec<(u32, u8, usize)> = Vec::new();
            for (what, (address, bits)) in prefixes.into_iter().enumerate() {
                let address = spread(address) & mask(bits);
                table.insert(spread(address) | address, bits, mask(bits), what);
                let address = (spread(address) | address) & mask(bits);
                list.retain(|known| (known.0, known.1) != (address, bits));
                list.push((address, bits, what));
            }
            for address in addresses.into_iter().map(spread) {
                let of_it = list.iter().filter(|(prefix, bits, _)| address & mask(*bits) == *prefix);
                let longest = of_it.max_by_key(|(_, bits, _)| *bits).map(|(_, _, what)| what);
                prop_assert_eq!(table.get(address), longest);
            }
        }
    }
}
