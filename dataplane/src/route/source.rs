//! Source addresses: which of the host's own addresses the kernel would use.
//!
//! A short form of two long algorithms, enough for what a balancer's host has:
//!
//! - IPv4 (`inet_select_addr`, net/ipv4/devinet.c): primary addresses of the egress device, first
//!   one in whose subnet the neighbour is; where the device has none, those of other devices, which
//!   is how hosts with all their addresses on the loopback device work.
//! - IPv6 (RFC 6724 §5, `ipv6_dev_get_saddr`): of the egress device rather than another, unique
//!   local to unique local and global to global, permanent rather than temporary, most leading
//!   bits in common with the destination. Only addresses of the destination's scope: a link-local
//!   source reaches nobody beyond the link.
//!
//! Tentative and deprecated addresses are not handed in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

use super::LinkIndex;
use crate::parse::Family;

/// How far an address reaches: the kernel's `RT_SCOPE_` numbers (linux/rtnetlink.h), where a
/// larger one reaches less far.
pub type Scope = u8;

/// Everywhere: `RT_SCOPE_UNIVERSE`.
const UNIVERSE: Scope = 0;
/// This link: `RT_SCOPE_LINK`.
const LINK: Scope = 253;

/// An address of this host that can be a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAddress {
    /// The link that has it; none when that is not one of the balancer's.
    pub link: Option<LinkIndex>,
    /// The address.
    pub address: IpAddr,
    /// Of its subnet, bits.
    pub prefix_len: u8,
    /// How far it reaches; the kernel has none for IPv6, where the address tells.
    pub scope: Scope,
    /// `IFA_F_SECONDARY`: not the first of its subnet (IPv4), or temporary (IPv6, RFC 8981).
    pub secondary: bool,
}

/// What is known of the way to a destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Towards {
    pub(super) link: LinkIndex,
    /// None: the destination is on the link.
    pub(super) gateway: Option<IpAddr>,
    pub(super) destination: IpAddr,
}

/// The source that the kernel would use where the route asks for none. `own` is in the kernel's
/// order: the first of equals wins.
pub(super) fn choose(own: &[OwnAddress], towards: Towards) -> Option<IpAddr> {
    match towards.destination {
        IpAddr::V4(destination) => choose_v4(own, towards, destination),
        IpAddr::V6(destination) => choose_v6(own, towards, destination),
    }
}

fn choose_v4(own: &[OwnAddress], towards: Towards, destination: Ipv4Addr) -> Option<IpAddr> {
    let (near, farthest) = match towards.gateway {
        None => (Some(destination), LINK),
        Some(IpAddr::V4(gateway)) => (Some(gateway), UNIVERSE),
        // An IPv6 gateway (RFC 8950) is in no IPv4 subnet.
        Some(IpAddr::V6(_)) => (None, UNIVERSE),
    };
    let rank = |own: &OwnAddress| {
        let IpAddr::V4(address) = own.address else {
            return None;
        };
        let on_link = own.link == Some(towards.link);
        let fits = !own.secondary && own.scope <= farthest && (on_link || own.scope < LINK);
        let subnet = Ipv4Net::new(address, own.prefix_len).ok()?;
        let is_near = on_link && near.is_some_and(|near| subnet.contains(&near));
        fits.then_some((on_link, is_near))
    };
    best(own, rank)
}

fn choose_v6(own: &[OwnAddress], towards: Towards, destination: Ipv6Addr) -> Option<IpAddr> {
    let link_local = destination.is_unicast_link_local();
    let rank = |own: &OwnAddress| {
        let IpAddr::V6(address) = own.address else {
            return None;
        };
        let on_link = own.link == Some(towards.link);
        let fits = if link_local {
            on_link && address.is_unicast_link_local()
        } else {
            !address.is_unicast_link_local() && !address.is_loopback()
        };
        let same_label = address.is_unique_local() == destination.is_unique_local();
        let common = (address.to_bits() ^ destination.to_bits()).leading_zeros();
        let common = common.min(own.prefix_len.into());
        fits.then_some((on_link, same_label, !own.secondary, common))
    };
    best(own, rank)
}

/// An address of `family` for who is reached through `link` by the other family: one of the link's, else of another.
pub(super) fn beside(own: &[OwnAddress], link: LinkIndex, family: Family) -> Option<IpAddr> {
    let rank = |own: &OwnAddress| {
        let fits = match (own.address, family) {
            (IpAddr::V4(address), Family::V4) => own.scope < LINK && !address.is_loopback(),
            (IpAddr::V6(address), Family::V6) => {
                !address.is_unicast_link_local() && !address.is_loopback()
            }
            _ => false,
        };
        fits.then_some((own.link == Some(link), !own.secondary))
    };
    best(own, rank)
}

/// The first of those of the highest rank; those without one are left out.
fn best<R: Ord>(own: &[OwnAddress], rank: impl Fn(&OwnAddress) -> Option<R>) -> Option<IpAddr> {
    let ranked = own.iter().rev().filter_map(|own| Some((rank(own)?, own)));
    // Of equals `max_by` takes the last, which is the first of `own`.
    let (_, best) = ranked.max_by(|(one, _), (other, _)| one.cmp(other))?;
    Some(best.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "10.1.0.1/24 link 0": an address of the universe, primary, of this link ("-": of none).
    fn own(text: &str) -> OwnAddress {
        let words: Vec<&str> = text.split(' ').collect();
        let (address, bits) = words[0].split_once('/').unwrap();
        OwnAddress {
            link: words[1].parse().ok(),
            address: address.parse().unwrap(),
            prefix_len: bits.parse().unwrap(),
            scope: if words.contains(&"link") {
                LINK
            } else {
                UNIVERSE
            },
            secondary: words.contains(&"secondary"),
        }
    }

    fn chosen(own_addresses: &[&str], gateway: Option<&str>, destination: &str) -> String {
        let own_addresses: Vec<_> = own_addresses.iter().map(|text| own(text)).collect();
        let towards = Towards {
            link: 0,
            gateway: gateway.map(|text| text.parse().unwrap()),
            destination: destination.parse().unwrap(),
        };
        choose(&own_addresses, towards)
            .map_or_else(|| "none".to_owned(), |address| address.to_string())
    }

    #[test]
    fn ipv4_takes_the_neighbours_subnet_then_the_device_then_the_host() {
        let all = [
            "192.0.2.1/32 -",
            "10.1.0.1/24 0",
            "10.1.0.7/24 0 secondary",
            "10.5.0.7/24 0",
            "169.254.9.9/16 0 link",
            "10.9.0.1/24 1",
        ];
        assert_eq!(chosen(&all, Some("10.5.0.254"), "8.8.8.8"), "10.5.0.7");
        assert_eq!(chosen(&all, Some("10.77.0.1"), "8.8.8.8"), "10.1.0.1");
        assert_eq!(
            chosen(&all, Some("fe80::1"), "8.8.8.8"),
            "10.1.0.1",
            "RFC 8950"
        );
        assert_eq!(chosen(&all, None, "10.5.0.9"), "10.5.0.7", "on the link");
        assert_eq!(chosen(&all, None, "169.254.1.1"), "169.254.9.9");
        assert_eq!(
            chosen(&all, Some("169.254.1.1"), "8.8.8.8"),
            "10.1.0.1",
            "too near"
        );
        assert_eq!(
            chosen(&[all[0], all[5]], Some("10.5.0.254"), "8.8.8.8"),
            "192.0.2.1"
        );
        assert_eq!(chosen(&all[4..5], Some("10.5.0.254"), "8.8.8.8"), "none");
        assert_eq!(
            chosen(&["2001:db8::1/64 0"], None, "8.8.8.8"),
            "none",
            "the other family"
        );
    }

    #[test]
    fn beside_the_way_the_links_own_addresses_come_first() {
        let all = [
            "127.0.0.1/8 -",
            "::1/128 -",
            "192.0.2.1/32 -",
            "169.254.9.9/16 0 link",
            "10.9.0.1/24 1",
            "10.1.0.7/24 0 secondary",
            "10.1.0.1/24 0",
            "fe80::1/64 0",
            "2001:db8:9::1/64 1",
        ];
        let own: Vec<_> = all.iter().map(|text| own(text)).collect();
        let chosen = |link, family| beside(&own, link, family).map(|address| address.to_string());
        assert_eq!(chosen(0, Family::V4).as_deref(), Some("10.1.0.1"));
        assert_eq!(chosen(1, Family::V4).as_deref(), Some("10.9.0.1"));
        assert_eq!(chosen(0, Family::V6).as_deref(), Some("2001:db8:9::1"));
        assert_eq!(chosen(9, Family::V4).as_deref(), Some("192.0.2.1"), "any");
        assert_eq!(beside(&own[..2], 0, Family::V4), None);
        assert_eq!(beside(&own[..2], 0, Family::V6), None);
    }

    #[test]
    fn ipv6_follows_the_order_of_rfc_6724() {
        let all = [
            "fe80::1/64 0",
            "2001:db8:1::1/64 0 secondary",
            "2001:db8:1::2/64 0",
            "2001:db8:5::1/64 0",
            "fd00::1/64 0",
            "2001:db8:9::1/64 1",
            "::1/128 -",
        ];
        let beyond = |destination| chosen(&all, Some("fe80::99"), destination);
        assert_eq!(
            beyond("2001:db8:1::9"),
            "2001:db8:1::2",
            "not the temporary one"
        );
        assert_eq!(
            beyond("2001:db8:5::9"),
            "2001:db8:5::1",
            "more leading bits"
        );
        assert_eq!(beyond("fd77::9"), "fd00::1", "the same label");
        assert_eq!(
            beyond("2001:db8:9::9"),
            "2001:db8:1::2",
            "the device before the bits"
        );
        assert_eq!(chosen(&all, None, "fe80::9"), "fe80::1");
        assert_eq!(
            chosen(&[all[0], all[5]], Some("fe80::99"), "2001:db8::1"),
            "2001:db8:9::1"
        );
        assert_eq!(
            chosen(&[all[0], all[6]], Some("fe80::99"), "2001:db8::1"),
            "none"
        );
    }
}
