//! Every way a packet can leave the data path. One counter each, see `docs/COUNTERS.md`.
//!
//! `DropReason` is the whole list: a packet that is not forwarded has exactly one of these
//! reasons, and [`crate::counters`] has exactly one counter for each, by construction.

/// How a packet left a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Handed to the TX ring of the egress interface.
    Forwarded,
    /// Handed to the TX ring of the interface that leads to its sender, as the balancer's own
    /// answer.
    Answered,
    /// Its frame went back to the pool, for this reason.
    Dropped(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $cure:literal;)+) => {
        /// Why a packet was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of its counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The counter's name, as in `status` and `docs/COUNTERS.md`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means: a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// Whose doing it is and what an operator can do about it.
            #[must_use]
            pub const fn cure(self) -> &'static str {
                match self { $(Self::$variant => $cure,)+ }
            }
        }
    };
}

drop_reasons! {
    /// The frame ends before the headers it announces.
    Truncated = "truncated", "the sender built a broken frame";
    /// The EtherType, behind at most two VLAN tags, is neither IPv4 nor IPv6.
    NotIp = "not_ip", "the steering program should have passed it to the kernel: report it";
    /// IPv4 version or header length field out of range.
    BadIpv4Header = "bad_ipv4_header", "the sender built a broken packet";
    /// The IPv4 header checksum does not add up.
    BadIpv4Checksum = "bad_ipv4_checksum", "the packet was damaged on the way: check cabling and NIC errors";
    /// The version field of an IPv6 header is not 6, or an address is IPv4-mapped.
    BadIpv6Header = "bad_ipv6_header", "the sender built a broken packet";
    /// A length field disagrees with the bytes that are there.
    BadLength = "bad_length", "the sender built a broken packet";
    /// A TCP data offset below five words, or flags that no TCP sends together.
    BadTcpHeader = "bad_tcp_header", "a scanner, or a broken sender";
    /// A fragment to or from a service with `fragments = "drop"`.
    Fragment = "fragment", "lower the sender's MTU, or set the service's fragments = \"track\"";
    /// A first fragment without the whole transport header, or a later one that reaches into it
    /// (RFC 1858, RFC 3128).
    TinyFragment = "tiny_fragment", "somebody tries to get past filters: no stack sends such fragments";
    /// A fragment that is empty, or ends beyond the longest packet, or within eight bytes though
    /// more follow.
    BadFragment = "bad_fragment", "the sender built a broken packet";
    /// A later fragment whose datagram's first one did not come in time, or not before the balancer
    /// stopped.
    FragmentTimeout = "fragment_timeout", "the first fragment was lost or dropped; many: raise [balancer] fragments, or lower the senders' MTU";
    /// A later fragment that waited for its datagram's first one until others needed its place.
    FragmentDisplaced = "fragment_displaced", "a flood of fragments, or a path that reorders them heavily: lower the senders' MTU";
    /// Neither TCP nor UDP, or behind other IPv6 extension headers than one for fragments.
    UnsupportedProtocol = "unsupported_protocol", "the steering program should have passed it to the kernel: report it";
    /// The checksum of an ICMP message does not add up.
    BadIcmpChecksum = "bad_icmp_checksum", "the packet was damaged on the way: check cabling and NIC errors";
    /// An ICMP message of a type, or with IP options, that is neither answered nor forwarded.
    IcmpIgnored = "icmp_ignored", "normal: source quench, for one, is to be ignored (RFC 6633)";
    /// An ICMP error that quotes no packet of a service, or too little of it.
    IcmpUnknown = "icmp_unknown", "a few: normal after a reload; many: somebody forges errors, or a router quotes too little";
    /// An ICMP error from within a tunnel, that was to be reported to the inner packet's sender
    /// while the limits allowed no more.
    IcmpLimited = "icmp_limited", "raise icmp-per-second, if so many errors are to be expected";
    /// A source address that no host may use (RFC 1122 §3.2.1.3), equal to the destination, or a
    /// service's own.
    BadSource = "bad_source", "somebody forges packets: filter them at the border";
    /// TTL or hop limit used up where we route (RFC 791, RFC 8200), and the sender was not told.
    TtlExpired = "ttl_expired", "a routing loop, or a traceroute passing through";
    /// Neither to a service nor from a backend of one.
    NotForUs = "not_for_us", "normal for a moment after a reload; else report it";
    /// The service has no backend that may take the flow.
    NoBackend = "no_backend", "bring a backend up, or set when-empty = \"open\"";
    /// A new flow while the balancer drains before stopping.
    Draining = "draining", "normal while stopping: another balancer should hold the address by now";
    /// For a service that asks for another VLAN than the packet came in, or for one at all.
    WrongVlan = "wrong_vlan", "normal for a moment after a reload; else somebody sends past the VLAN, or the service's vlan is wrong";
    /// A backend's reply that came in by another interface than the one that leads to it.
    WrongInterface = "wrong_interface", "somebody forges replies, or routes to and from the backend differ";
    /// A reply from a backend of several services, or to a source of `full-nat`, of a flow that is not in
    /// the table.
    UnknownReturn = "unknown_return", "normal for stragglers of flows that have ended; else raise [balancer] flows, or give each service its own backend port";
    /// The client reaches two services with one port, and every backend tried serves both.
    ReturnConflict = "return_conflict", "give each service its own backend port";
    /// A new `full-nat` flow, and flows hold all source ports that it could have.
    SourcePortsHeld = "source_ports_held", "add addresses to [balancer] nat-sources, or widen nat-source-ports";
    /// A new `full-nat` flow, and the source ports that no flow holds rest after their last one.
    SourcePortsResting = "source_ports_resting", "connections end faster than their ports may be used again (60 s TCP, 30 s UDP): add addresses to [balancer] nat-sources";
    /// A packet of a `full-nat` flow that is in no table and cannot be stored: there is no room, another
    /// worker was writing there, datagram flows begin too fast, or the packet begins no flow.
    Unstored = "unstored", "normal for stragglers of flows that have ended; else raise [balancer] flows or udp-new-flows-per-second";
    /// No route to the next hop through an interface of the balancer.
    NoRoute = "no_route", "add a route (ip route get ADDRESS), or the interface to the configuration";
    /// The next hop's hardware address is not known yet; the kernel was asked for it.
    NoNeighbour = "no_neighbour", "normal for a first packet; else the next hop does not answer ARP or ND";
    /// The host has no address of its own to send to a tunnel's far end from.
    NoSource = "no_source", "give the egress interface an address, or the tunnel a source";
    /// The packet is larger than the egress MTU, and its sender was not told.
    TooBig = "too_big", "give both sides the same MTU, or set mss-clamp; IPv4 without don't-fragment is never answered";
    /// The TX ring of the egress interface is full.
    EgressFull = "egress_full", "the egress link or its worker is saturated";
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason's place in [`DropReason::ALL`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_at_its_own_place_and_names_are_unique() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert_eq!(
                DropReason::ALL
                    .iter()
                    .filter(|r| r.name() == reason.name())
                    .count(),
                1
            );
            assert!(!reason.cure().is_empty());
            let meaning = reason.meaning();
            assert!(
                meaning.ends_with('.') && !meaning.starts_with(' '),
                "{meaning}"
            );
        }
    }
}
