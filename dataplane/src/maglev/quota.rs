//! How many of a table's slots each member gets.
//!
//! The floor of its exact share, and the slots left over go one each to the largest remainders,
//! equal ones by identity (Hamilton's method). So the quotas add up to the table's size, and each
//! differs from its exact share by less than one slot.

use std::cmp::Reverse;

use super::Member;

/// A member with a weight, and its number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quota {
    /// Position in the list of members.
    pub(super) member: u16,
    /// The member's address and port, as the ring's hash takes them.
    pub(super) identity: [u64; 3],
    /// Above 0.
    pub(super) weight: u32,
    /// Slots to be had, maybe none.
    pub(super) slots: u32,
}

/// The quotas of the members that have a weight, ordered by identity: the order of `members`
/// is forgotten here.
pub(super) fn quotas(size: u32, members: &[Member]) -> Vec<Quota> {
    let mut quotas: Vec<Quota> = (0..=u16::MAX)
        .zip(members)
        .filter(|(_, member)| member.weight > 0)
        .map(|(index, member)| Quota {
            member: index,
            identity: member.identity_words(),
            weight: member.weight,
            slots: 0,
        })
        .collect();
    quotas.sort_by_key(|quota| quota.identity);
    let total: u64 = quotas.iter().map(|quota| u64::from(quota.weight)).sum();
    let mut left = size;
    let mut remainders = Vec::with_capacity(quotas.len());
    for (rank, quota) in quotas.iter_mut().enumerate() {
        let exact = u64::from(size) * u64::from(quota.weight);
        quota.slots = u32::try_from(exact / total).unwrap_or(size);
        left -= quota.slots;
        remainders.push((Reverse(exact % total), rank));
    }
    // Fewer are left than there are members: each remainder is less than one slot.
    let left = usize::try_from(left).unwrap_or(0);
    if left > 0 && left < remainders.len() {
        remainders.select_nth_unstable(left);
    }
    for (_, rank) in remainders.iter().take(left) {
        if let Some(quota) = quotas.get_mut(*rank) {
            quota.slots += 1;
        }
    }
    quotas
}
