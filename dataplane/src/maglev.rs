//! Maglev consistent hashing: Eisenbud et al., "Maglev: A Fast and Reliable Software Network
//! Load Balancer", NSDI 2016, §3.4.
//!
//! A [`Ring`] is built on the control side from the members alone: their addresses and weights.
//! The order in which they are given does not matter and the hash keys are public constants, so
//! every balancer with the same configuration builds the same ring, and ECMP in front of
//! several balancers may send a flow to any of them.
//!
//! Departure from the paper: instead of one slot a turn, members take turns in proportion to
//! their weights and stop at an exact quota (largest remainder), so that each member's share of
//! the slots differs from its share of the weights by less than one slot.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ringgate_conntrack::{Endpoint, FlowKey, Secret, siphash13};

/// Key of the hash that gives a member its first slot. Public and fixed: part of the contract
/// between balancers. The value is the ASCII text "ringgate offset1".
const OFFSET_KEY: Secret = Secret([0x7269_6E67_6761_7465, 0x206F_6666_7365_7431]);
/// Key of the hash that gives a member its stride. ASCII "ringgate strides".
const STRIDE_KEY: Secret = Secret([0x7269_6E67_6761_7465, 0x2073_7472_6964_6573]);
/// Key of the hash that places a flow. ASCII "ringgate flowkey".
const FLOW_KEY: Secret = Secret([0x7269_6E67_6761_7465, 0x2066_6C6F_776B_6579]);

/// One backend as the ring knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Address and port: the identity that places it on the ring.
    pub identity: Endpoint,
    /// Share of new flows, relative to the other members'. Members of weight 0 get no slot.
    pub weight: u32,
}

/// A lookup table of prime size; each slot names a member by its position in the list that the
/// ring was built from.
#[derive(Debug, PartialEq, Eq)]
pub struct Ring {
    slots: Box<[u16]>,
}

impl Ring {
    /// Builds the ring of `size` slots (a prime, see `config`) for `members`.
    ///
    /// `None` when no member has a weight: such a service has no backend for new flows.
    /// Members beyond the 65,536th are not placed; `config` refuses so many.
    #[must_use]
    pub fn build(size: u32, members: &[Member]) -> Option<Self> {
        let mut placed: Vec<Turn> = quotas(size, members);
        if placed.is_empty() {
            return None;
        }
        // The rank by identity settles every tie, whatever the order of `members`.
        placed.sort_by_key(|turn| members.get(usize::from(turn.member)).map(identity_words));
        let mut queue: BinaryHeap<Reverse<(Due, usize)>> = placed
            .iter()
            .enumerate()
            .map(|(rank, turn)| Reverse((turn.due(), rank)))
            .collect();
        let mut slots = vec![None; usize::try_from(size).ok()?].into_boxed_slice();
        while let Some(Reverse((_, rank))) = queue.pop() {
            let Some(turn) = placed.get_mut(rank) else {
                continue;
            };
            turn.claim(&mut slots);
            if turn.taken < turn.quota {
                queue.push(Reverse((turn.due(), rank)));
            }
        }
        slots
            .into_iter()
            .collect::<Option<Box<[u16]>>>()
            .map(|slots| Self { slots })
    }

    /// The member that a new flow goes to.
    #[inline]
    #[must_use]
    pub fn pick(&self, key: &FlowKey) -> u16 {
        self.pick_nth(key, 0)
    }

    /// The `nth` choice for a flow: that of the slot `nth` places after the flow's own. For a
    /// flow that cannot use its first choice.
    #[inline]
    #[must_use]
    pub fn pick_nth(&self, key: &FlowKey, nth: u32) -> u16 {
        let size = self.slots.len() as u64;
        let slot = (siphash13(&key.words(), FLOW_KEY) % size + u64::from(nth)) % size;
        usize::try_from(slot)
            .ok()
            .and_then(|slot| self.slots.get(slot))
            .copied()
            .unwrap_or(0)
    }

    /// Number of slots of each of the first `members` members.
    #[must_use]
    pub fn shares(&self, members: usize) -> Vec<u32> {
        let mut shares = vec![0; members];
        for slot in &self.slots {
            if let Some(share) = shares.get_mut(usize::from(*slot)) {
                *share += 1;
            }
        }
        shares
    }

    /// Number of slots whose member differs from `other`'s, for rings of one member list.
    #[must_use]
    pub fn moved(&self, other: &Self) -> usize {
        self.slots
            .iter()
            .zip(&other.slots)
            .filter(|(mine, theirs)| mine != theirs)
            .count()
    }
}

/// A member while the ring is being filled.
#[derive(Debug)]
struct Turn {
    member: u16,
    /// Slots it must end up with.
    quota: u32,
    /// Slots it has.
    taken: u32,
    /// The slot it tries next, and the stride to the one after; both below the ring's size.
    next: u64,
    stride: u64,
    size: u64,
}

/// When a turn is due: (2·taken + 1) / quota, compared exactly by cross-multiplication.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    numerator: u64,
    quota: u64,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Both factors are below 2^33, so products fit 128 bits with ease.
        let mine = u128::from(self.numerator) * u128::from(other.quota);
        mine.cmp(&(u128::from(other.numerator) * u128::from(self.quota)))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Turn {
    fn due(&self) -> Due {
        Due {
            numerator: 2 * u64::from(self.taken) + 1,
            quota: u64::from(self.quota),
        }
    }

    /// Takes the next free slot of the member's permutation. The size is prime, so the
    /// permutation reaches every slot, and a quota is only given where slots are free.
    fn claim(&mut self, slots: &mut [Option<u16>]) {
        for _ in 0..slots.len() {
            let slot = usize::try_from(self.next)
                .ok()
                .and_then(|next| slots.get_mut(next));
            self.next = (self.next + self.stride) % self.size;
            if let Some(slot @ None) = slot {
                *slot = Some(self.member);
                self.taken += 1;
                return;
            }
        }
    }
}

/// Gives each weighted member its number of slots: the floor of its exact share, and the slots
/// left over to the largest remainders (ties by identity). The quotas add up to `size`.
fn quotas(size: u32, members: &[Member]) -> Vec<Turn> {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let mut turns: Vec<(u64, [u64; 3], Turn)> = Vec::new();
    let mut left = u64::from(size);
    for (index, member) in (0..=u16::MAX).zip(members) {
        if member.weight == 0 {
            continue;
        }
        let exact = u64::from(size) * u64::from(member.weight);
        let quota = u32::try_from(exact / total).unwrap_or(size);
        left -= u64::from(quota);
        turns.push((
            exact % total,
            identity_words(member),
            turn(size, index, member, quota),
        ));
    }
    turns.sort_by_key(|(remainder, identity, _)| (Reverse(*remainder), *identity));
    for (_, _, turn) in &mut turns {
        if left == 0 {
            break;
        }
        turn.quota += 1;
        left -= 1;
    }
    turns
        .into_iter()
        .map(|(_, _, turn)| turn)
        .filter(|turn| turn.quota > 0)
        .collect()
}

fn turn(size: u32, member: u16, description: &Member, quota: u32) -> Turn {
    let size = u64::from(size);
    let [high, low, port] = identity_words(description);
    let words = [high, low, port, 0, 0];
    Turn {
        member,
        quota,
        taken: 0,
        next: siphash13(&words, OFFSET_KEY) % size,
        stride: siphash13(&words, STRIDE_KEY) % (size - 1).max(1) + 1,
        size,
    }
}

fn identity_words(member: &Member) -> [u64; 3] {
    let [high, low] = member.identity.address;
    [high, low, u64::from(member.identity.port)]
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use proptest::prelude::*;

    use super::*;

    fn member(host: u16, weight: u32) -> Member {
        let [high, low] = host.to_be_bytes();
        let address = SocketAddr::new(Ipv4Addr::new(10, 2, high, low).into(), 80);
        Member {
            identity: Endpoint::from_socket(address),
            weight,
        }
    }

    fn flow(n: u32) -> FlowKey {
        let client = SocketAddr::new(Ipv4Addr::from(0x0A01_0000 + n / 50_000).into(), 0);
        let client = Endpoint {
            port: u16::try_from(n % 50_000).unwrap(),
            ..Endpoint::from_socket(client)
        };
        FlowKey::new(6, client, member(0, 1).identity)
    }

    #[test]
    fn no_weight_means_no_ring() {
        assert_eq!(Ring::build(65_537, &[]), None);
        assert_eq!(Ring::build(65_537, &[member(1, 0), member(2, 0)]), None);
    }

    #[test]
    fn the_smallest_rings_work() {
        assert_eq!(Ring::build(2, &[member(1, 1)]).unwrap().shares(1), [2]);
        assert_eq!(
            Ring::build(3, &[member(1, 1), member(2, 1), member(3, 1)])
                .unwrap()
                .shares(3),
            [1, 1, 1]
        );
    }

    #[test]
    fn the_ring_is_the_published_one() {
        // Changing the hash, the keys or the order of turns splits a cluster in an upgrade.
        let members: Vec<Member> = (1..=3).map(|host| member(host, u32::from(host))).collect();
        let ring = Ring::build(13, &members).unwrap();
        assert_eq!(ring.shares(3), [2, 4, 7]);
        assert_eq!(*ring.slots, PUBLISHED);
    }
    const PUBLISHED: [u16; 13] = [1, 2, 2, 1, 2, 2, 1, 0, 2, 2, 2, 1, 0];

    #[test]
    fn losing_one_of_a_hundred_moves_little_more_than_its_share() {
        let members: Vec<Member> = (0..100).map(|host| member(host, 100)).collect();
        let mut without = members.clone();
        without[42].weight = 0;
        let before = Ring::build(65_537, &members).unwrap();
        let after = Ring::build(65_537, &without).unwrap();
        let own = usize::try_from(before.shares(100)[42]).unwrap();
        let moved = before.moved(&after);
        // Paper §5.3: at M = 100 N a few percent of the unaffected slots move, here about 1 %.
        assert!(
            moved >= own && moved - own < 65_537 / 40,
            "own {own}, moved {moved}"
        );
    }

    #[test]
    fn flows_spread_as_the_weights_say() {
        let members = [member(1, 100), member(2, 200), member(3, 100)];
        let ring = Ring::build(65_537, &members).unwrap();
        let mut hits = [0u32; 3];
        for n in 0..100_000 {
            hits[usize::from(ring.pick(&flow(n)))] += 1;
        }
        for (hits, expected) in hits.into_iter().zip([25_000u32, 50_000, 25_000]) {
            // Five standard deviations of a binomial of this size are below 800.
            assert!(hits.abs_diff(expected) < 800, "{hits} of {expected}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn shares_are_exact_and_order_does_not_matter(
            mut members in prop::collection::vec((any::<u16>(), 0u32..1000), 1..40),
            size in prop::sample::select(vec![41u32, 251, 4093, 65_537]),
            seed: u64,
        ) {
            members.sort_by_key(|(host, _)| *host);
            members.dedup_by_key(|(host, _)| *host);
            let members: Vec<Member> =
                members.into_iter().map(|(host, weight)| member(host, weight)).collect();
            let total: u64 = members.iter().map(|m| u64::from(m.weight)).sum();
            let Some(ring) = Ring::build(size, &members) else {
                prop_assert_eq!(total, 0);
                return Ok(());
            };
            for (share, m) in ring.shares(members.len()).into_iter().zip(&members) {
                let exact = u64::from(size) * u64::from(m.weight);
                prop_assert!((u64::from(share) * total).abs_diff(exact) < total);
            }
            let mut order: Vec<usize> = (0..members.len()).collect();
            order.sort_by_key(|index| siphash13(&[*index as u64, seed, 0, 0, 0], FLOW_KEY));
            let shuffled: Vec<Member> = order.iter().map(|index| members[*index]).collect();
            let other = Ring::build(size, &shuffled).unwrap();
            for (slot, other_slot) in ring.slots.iter().zip(&other.slots) {
                prop_assert_eq!(usize::from(*slot), order[usize::from(*other_slot)]);
            }
        }
    }
}
