//! Every bound and default of the configuration, each with its reason, and the relations
//! between them checked while compiling.
//!
//! A number that appears in an error text, an example or a test comes from here. What other
//! rooms size by it (map entries, index widths) may rely on a [`Model`](crate::Model) never
//! exceeding it.

use std::ops::RangeInclusive;
use std::time::Duration;

// --- the file ---

/// Room for one backend in the file, in bytes: its table with every key takes under 200.
const BACKEND_TEXT_BYTES: usize = 256;

/// Longest text parsed, in bytes: 16 MiB, room for [`BACKENDS_TOTAL_MAX`] backends. A larger
/// file is a wrong path, not a configuration.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// How many problems (or warnings) are kept in full; the rest is counted. More than anyone
/// reads, and it keeps the memory of a hopeless file bounded.
pub const PROBLEMS_MAX: usize = 1_000;

/// Longest piece of the file quoted in an error, in characters: one terminal line.
pub const QUOTE_CHARS_MAX: usize = 60;

// --- [api] ---

/// Longest name of a group, in bytes (`LOGIN_NAME_MAX` of useradd and its like).
pub const GROUP_BYTES_MAX: usize = 32;

/// Longest DNS name, in bytes as text (RFC 1035, 2.3.4: 255 on the wire).
pub const DNS_NAME_BYTES_MAX: usize = 253;

// --- [balancer] ---

/// Most workers. One worker serves one queue index, and 256 is above the queue count of
/// current NICs (mlx5 and ice: one per core, at most 256 in common hosts).
pub const WORKERS_MAX: u16 = 256;

/// Highest CPU number that `cores` may name: Linux is built for at most 8,192 CPUs
/// (`NR_CPUS_RANGE_END` in arch/x86/Kconfig), counted from 0.
pub const CORE_MAX: usize = 8_192 - 1;

/// Most memory of one flow of the capacity, in bytes, the flow table's word. Only for the derivations
/// here.
const FLOW_BYTES: usize = 72;

/// Smallest flow table. Below it even the shards of the table would be nearly empty, and a
/// test that wants a full table can still fill it.
pub const FLOWS_MIN: usize = 1 << 10;

/// Largest flow table: 64 Mi flows, at most 4.5 GiB of memory.
pub const FLOWS_MAX: usize = 1 << 26;

/// Flow table unless the file says otherwise: 1 Mi flows, at most 72 MiB.
pub const FLOWS_DEFAULT: usize = 1 << 20;

/// Shortest of the `timeouts`: the flow table counts in whole seconds.
pub const FLOW_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Longest of the `timeouts`: a week. A flow that says nothing for longer has lost an end.
pub const FLOW_TIMEOUT_MAX: Duration = Duration::from_hours(7 * 24);

/// Most different sets of `timeouts` over all services: a flow has four bits to tell which is its.
pub const TIMEOUT_SETS_MAX: usize = 16;

/// `opening` unless the file says otherwise: a client gives up after about a minute of unanswered
/// SYNs (`tcp_syn_retries` = 6 of Linux backs off for 67 s before the last).
pub const OPENING_DEFAULT: Duration = Duration::from_secs(70);

/// `established` unless the file says otherwise: the least that RFC 5382 REQ-5 allows, four
/// minutes over the first keepalive (RFC 9293 3.8.4).
pub const ESTABLISHED_DEFAULT: Duration = Duration::from_mins(2 * 60 + 4);

/// `half-closed` unless the file says otherwise: the transitory timeout of RFC 5382 REQ-5.
pub const HALF_CLOSED_DEFAULT: Duration = Duration::from_mins(4);

/// `closed` unless the file says otherwise: for what is still under way. Not TIME-WAIT, which the
/// hosts keep.
pub const CLOSED_DEFAULT: Duration = Duration::from_secs(10);

/// `one-way` unless the file says otherwise: the least that RFC 4787 REQ-5 allows.
pub const ONE_WAY_DEFAULT: Duration = Duration::from_mins(2);

/// `two-way` unless the file says otherwise: what RFC 4787 REQ-5 recommends.
pub const TWO_WAY_DEFAULT: Duration = Duration::from_mins(5);

/// Part of the flow table that new UDP flows may take in a second, unless the file says otherwise: a
/// quarter of its flows, which are half its entries in `nat`. An unanswered flow gives way to newcomers, so
/// a flood of forged datagrams leaves the others at least about a second for their first answer.
pub const UDP_NEW_FLOWS_SHARE: usize = 4;

/// Highest `udp-new-flows-per-second`: more packets than any link brings, so no limit at all.
pub const UDP_NEW_FLOWS_MAX: u32 = 1_000_000_000;

/// Longest `drain`. A supervisor that waits longer than an hour for a stop is not waiting for it.
pub const DRAIN_MAX: Duration = Duration::from_hours(1);

/// `drain` unless the file says otherwise: long enough for ordinary requests to finish,
/// well below the 90 s after which systemd kills (`DefaultTimeoutStopSec`).
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(5);

/// Admin socket unless the file says otherwise (`RuntimeDirectory=ringgate` in systemd's terms).
pub const ADMIN_DEFAULT: &str = "/run/ringgate/admin.sock";

/// Longest path of a unix socket, in bytes: `sun_path` is 108 (unix(7)), one for the final NUL.
pub const ADMIN_BYTES_MAX: usize = 108 - 1;

/// Most `nat-sources`. With the default ports that is two million connections at once to each
/// backend, twice the default table.
pub const NAT_SOURCES_MAX: usize = 64;

/// Lowest port that `nat-source-ports` may hold: below it are the well-known ones of RFC 6335, which
/// some servers take for a privileged client.
pub const NAT_SOURCE_PORT_MIN: u16 = 1_024;

/// Fewest `nat-source-ports`: each worker has a part of its own, which holds one port back.
pub const NAT_SOURCE_PORTS_FEWEST: u16 = 2 * WORKERS_MAX;

/// `nat-source-ports` unless the file says otherwise: all below those that Linux gives to its own
/// connections (`ip_local_port_range`, from 32,768).
pub const NAT_SOURCE_PORTS_DEFAULT: RangeInclusive<u16> = NAT_SOURCE_PORT_MIN..=32_767;

/// Highest `icmp-per-second`: a link's worth of the smallest errors, so no limit at all.
pub const ICMP_PER_SECOND_MAX: u32 = 1_000_000;

/// `icmp-per-second` unless the file says otherwise: what Linux documents for itself (`icmp_msgs_per_sec`).
pub const ICMP_PER_SECOND_DEFAULT: u32 = 1_000;

/// Fewest datagrams whose fragments are followed: fewer would not survive one burst of a link.
pub const FRAGMENTS_MIN: usize = 64;

/// Most datagrams whose fragments are followed: a million for the seconds that one lives are more
/// than any link brings in earnest.
pub const FRAGMENTS_MAX: usize = 1 << 20;

/// Datagrams whose fragments are followed unless the file says otherwise. Each lives for seconds at
/// most, so that is thousands of fragmented datagrams a second.
pub const FRAGMENTS_DEFAULT: usize = 8_192;

// --- [process] ---

/// Longest name of a user or a group, in bytes: what useradd(8) takes.
pub const ACCOUNT_BYTES_MAX: usize = 32;

// --- [log] ---

/// Highest `flows`: of a million new flows in a second one is logged.
pub const LOGGED_FLOWS_MAX: u32 = 1_000_000;

/// Flows that are followed at once for the log: 200 bytes each, and what control looks at once a second. Who
/// has more samples them.
pub const FOLLOWED_FLOWS: usize = 1 << 16;

// --- [metrics] ---

/// Highest `residence-sample`: at a million turns a second one is measured every second.
pub const RESIDENCE_SAMPLE_MAX: u32 = 1_000_000;

/// `residence-sample` unless the file says otherwise. A measured turn reads the clock twice, some 50 ns
/// each: of 64 turns with a batch each that is less than one part in a thousand.
pub const RESIDENCE_SAMPLE_DEFAULT: u32 = 64;

// --- [[interface]] ---

/// Longest interface name, in bytes: `IFNAMSIZ` is 16 (linux/if.h), one for the final NUL.
pub const INTERFACE_NAME_BYTES_MAX: usize = 16 - 1;

/// Most interfaces. Every worker opens one socket on each of them over one shared UMEM.
pub const INTERFACES_MAX: usize = 16;

// --- [[service]] ---

/// Longest service name, in bytes: a DNS label (RFC 1035, 2.3.4), so that a name can be used as one.
pub const SERVICE_NAME_BYTES_MAX: usize = 63;

/// Most services: entries of the steering program's service map.
pub const SERVICES_MAX: usize = 4_096;

/// Most backends over all services: each can be named by 16 bits with one value left to mean "none".
pub const BACKENDS_TOTAL_MAX: usize = u16::MAX as usize;

/// Most services over one address that have a prefix or several ports, those of shorter prefixes
/// included: the steering program looks through the port ranges of an address one by one.
pub const PORT_RANGES_MAX: usize = 8;

/// VLAN ids that a packet can belong to: 0 means priority only, 4095 is reserved (IEEE 802.1Q 9.6).
pub const VLAN_IDS: RangeInclusive<u16> = 1..=4_094;

/// What `mss-clamp` may say: from the default of IPv4 (RFC 9293 3.7.1, 576 less two headers) to the
/// largest packet less the two IPv4 headers.
pub const MSS_CLAMP: RangeInclusive<u16> = 536..=65_495;

/// Destination port of GUE unless the file says otherwise: IANA's for it.
pub const GUE_PORT_DEFAULT: u16 = 6_080;

/// Largest DSCP: it has six bits (RFC 2474, 3).
pub const DSCP_MAX: u8 = 63;

/// Highest `config-id` of `quic`: three bits, all ones mean that the connection id names no server
/// (draft-ietf-quic-load-balancers-21).
pub const QUIC_CONFIG_ID_MAX: u8 = 6;

/// Longest server id, in bytes: a connection id has 20 (RFC 9000 17.2), one is the first byte and
/// at least four are the nonce (draft-ietf-quic-load-balancers-21).
pub const SERVER_ID_BYTES_MAX: u8 = 15;

/// Smallest Maglev table: the smallest prime that gives one backend its
/// [`SLOTS_PER_BACKEND`] slots.
pub const TABLE_SIZE_MIN: u32 = 101;

/// Largest Maglev table: the largest prime below 2^23, 32 MiB at four bytes a slot.
pub const TABLE_SIZE_MAX: u32 = 8_388_593;

/// Maglev table unless the file says otherwise: the small table of the Maglev paper
/// (Eisenbud et al., NSDI 2016, 5.3), a prime just above 2^16.
pub const TABLE_SIZE_DEFAULT: u32 = 65_537;

/// Table slots for each backend below which shares grow uneven by more than about 1 %
/// (Maglev paper, 3.4: "M to be larger than 100 x N"): below it there is a warning.
pub const SLOTS_PER_BACKEND: u32 = 100;

/// Largest weight: what IPVS takes (ipvsadm(8)), so that weights can be carried over.
pub const WEIGHT_MAX: u32 = 65_535;

/// Weight unless the file says otherwise: can be halved and cut by percents without fractions.
pub const WEIGHT_DEFAULT: u32 = 100;

/// Longest `slow-start`. What takes longer than an hour to warm up is loaded by weights, by hand.
pub const SLOW_START_MAX: Duration = Duration::from_hours(1);

// --- health ---

/// Shortest check interval. At 10 ms a thousand backends already make 100,000 checks a second.
pub const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Longest check interval.
pub const INTERVAL_MAX: Duration = Duration::from_hours(1);

/// Check interval unless the file says otherwise.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// Shortest check timeout: below a millisecond a busy server and a dead one look the same.
/// The longest is the service's interval, so that one check ends before the next begins.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Check timeout unless the file says otherwise; a shorter interval lowers it to itself.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);

/// Most checks in a row that `rise` or `fall` may ask for.
pub const STREAK_MAX: u32 = 100;

/// Good checks in a row that bring a backend up, unless the file says otherwise: one could be luck.
pub const RISE_DEFAULT: u32 = 2;

/// Failed checks in a row that take a backend down, unless the file says otherwise:
/// detection within `fall * interval + timeout`, 3.5 s with the defaults.
pub const FALL_DEFAULT: u32 = 3;

/// What part of the interval `jitter` is unless the file says otherwise: enough to pull balancers
/// apart that were started together, over some tens of checks, and too little to be noticed.
pub const JITTER_PART: u32 = 10;

/// Most changes of side that `flap` can be about; 0 is none, no damping.
pub const FLAP_CHANGES_MAX: u32 = 100;

/// Changes of side within [`FLAP_WITHIN_DEFAULT`] that are too many: three times down, three times up.
/// Less may be a restart that went wrong once.
pub const FLAP_CHANGES_DEFAULT: u32 = 6;

/// Bounds of `flap.within`, `flap.hold` and `flap.most`. A backend that is to be out for more than a
/// day is one to disable.
pub const FLAP_SPAN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// In what time changes of side are counted.
pub const FLAP_WITHIN_DEFAULT: Duration = Duration::from_mins(1);

/// How long a backend is held down the first time, as Envoy ejects an outlier (30 s).
pub const FLAP_HOLD_DEFAULT: Duration = Duration::from_secs(30);

/// How long it is held down at most. Route flap damping (RFC 2439) went up to an hour, and was given
/// up by many for being too long (RIPE-378).
pub const FLAP_MOST_DEFAULT: Duration = Duration::from_mins(10);

/// Bounds of `report-ttl`.
pub const REPORT_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// How long a report counts unless the file says otherwise: three of an agent's that reports every ten
/// seconds.
pub const REPORT_TTL_DEFAULT: Duration = Duration::from_secs(30);

/// Longest text of a check (a path, a body to look for, what is sent), in bytes: a datagram without
/// fragments has room for it, and so has the head of a request (RFC 9110 4.1 asks for 8,000 there).
pub const CHECK_TEXT_MAX: usize = 1_024;

/// Most of a body that is searched, in bytes.
pub const BODY_WITHIN_MAX: u32 = 1 << 20;

/// `body-within` unless the file says otherwise: a page of status, not a download.
pub const BODY_WITHIN_DEFAULT: u32 = 64 << 10;

/// Longest label of a domain name, in bytes (RFC 1035 2.3.4).
pub const DNS_LABEL_MAX: usize = 63;

/// Longest domain name as text, without the final dot: 255 bytes on the wire (RFC 1035 2.3.4).
pub const DNS_NAME_MAX: usize = 253;

/// Most `arguments` of a script.
pub const ARGUMENTS_MAX: usize = 64;

/// Longest path of a file that is named, in bytes: the kernel's `PATH_MAX` is 4,096 with the final NUL.
pub const FILE_PATH_MAX: usize = 4_096 - 1;

const _: () = {
    assert!(FILE_BYTES_MAX >= BACKENDS_TOTAL_MAX * BACKEND_TEXT_BYTES);
    assert!(FLOWS_MIN <= FLOWS_DEFAULT && FLOWS_DEFAULT <= FLOWS_MAX);
    assert!(
        FLOWS_MAX * FLOW_BYTES <= 9 << 29,
        "the doc of FLOWS_MAX says 4.5 GiB"
    );
    assert!(
        FLOWS_DEFAULT * FLOW_BYTES <= 72 << 20,
        "the doc of FLOWS_DEFAULT says 72 MiB"
    );
    assert!(CLOSED_DEFAULT.as_secs() >= FLOW_TIMEOUT_MIN.as_secs());
    assert!(ESTABLISHED_DEFAULT.as_secs() <= FLOW_TIMEOUT_MAX.as_secs());
    assert!(DRAIN_DEFAULT.as_millis() <= DRAIN_MAX.as_millis());
    assert!(*NAT_SOURCE_PORTS_DEFAULT.start() >= NAT_SOURCE_PORT_MIN);
    assert!(
        *NAT_SOURCE_PORTS_DEFAULT.end() - *NAT_SOURCE_PORTS_DEFAULT.start()
            >= NAT_SOURCE_PORTS_FEWEST
    );
    assert!(ICMP_PER_SECOND_DEFAULT <= ICMP_PER_SECOND_MAX);
    assert!(FRAGMENTS_MIN <= FRAGMENTS_DEFAULT && FRAGMENTS_DEFAULT <= FRAGMENTS_MAX);
    assert!(ADMIN_DEFAULT.len() <= ADMIN_BYTES_MAX);
    assert!(is_prime(TABLE_SIZE_MIN) && is_prime(TABLE_SIZE_DEFAULT) && is_prime(TABLE_SIZE_MAX));
    assert!(TABLE_SIZE_MIN >= SLOTS_PER_BACKEND);
    assert!(TABLE_SIZE_MIN <= TABLE_SIZE_DEFAULT && TABLE_SIZE_DEFAULT <= TABLE_SIZE_MAX);
    // A service can hold all backends and still give each its slots.
    assert!(BACKENDS_TOTAL_MAX * SLOTS_PER_BACKEND as usize <= TABLE_SIZE_MAX as usize);
    assert!(BACKENDS_TOTAL_MAX <= TABLE_SIZE_DEFAULT as usize);
    // The sum of all weights fits 32 bits, so a share can be computed in 64 without overflow.
    assert!(BACKENDS_TOTAL_MAX as u64 * WEIGHT_MAX as u64 <= u32::MAX as u64);
    assert!(WEIGHT_DEFAULT <= WEIGHT_MAX);
    assert!(INTERVAL_MIN.as_millis() <= INTERVAL_DEFAULT.as_millis());
    assert!(INTERVAL_DEFAULT.as_millis() <= INTERVAL_MAX.as_millis());
    assert!(TIMEOUT_MIN.as_millis() <= TIMEOUT_DEFAULT.as_millis());
    assert!(TIMEOUT_DEFAULT.as_millis() <= INTERVAL_DEFAULT.as_millis());
    // The default timeout, lowered to any allowed interval, is still allowed.
    assert!(TIMEOUT_MIN.as_millis() <= INTERVAL_MIN.as_millis());
    assert!(RISE_DEFAULT >= 1 && RISE_DEFAULT <= STREAK_MAX);
    assert!(FALL_DEFAULT >= 1 && FALL_DEFAULT <= STREAK_MAX);
    assert!(FLAP_CHANGES_DEFAULT <= FLAP_CHANGES_MAX);
    assert!(FLAP_HOLD_DEFAULT.as_secs() <= FLAP_MOST_DEFAULT.as_secs());
    assert!(FLAP_MOST_DEFAULT.as_secs() <= FLAP_SPAN.end().as_secs());
    assert!(REPORT_TTL_DEFAULT.as_secs() >= REPORT_TTL.start().as_secs());
};

/// Whether `n` is a prime, by trial division: at most 1,448 steps for [`TABLE_SIZE_MAX`].
pub const fn is_prime(n: u32) -> bool {
    if n < 2 || n.is_multiple_of(2) {
        return n == 2;
    }
    let mut divisor = 3;
    while divisor <= n / divisor {
        if n.is_multiple_of(divisor) {
            return false;
        }
        divisor += 2;
    }
    true
}

/// The primes next to `n` that a table may have: the nearest at or below, the nearest at or
/// above, each within [`TABLE_SIZE_MIN`] and [`TABLE_SIZE_MAX`]. For the cure of a wrong size.
pub fn table_sizes_around(n: u32) -> (Option<u32>, Option<u32>) {
    let below = (TABLE_SIZE_MIN..=n.min(TABLE_SIZE_MAX))
        .rev()
        .find(|&n| is_prime(n));
    let above = (n.max(TABLE_SIZE_MIN)..=TABLE_SIZE_MAX).find(|&n| is_prime(n));
    (below, above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_agree_with_a_sieve() {
        let mut composite = vec![false; 100_000];
        for n in 2..composite.len() {
            assert_eq!(is_prime(u32::try_from(n).unwrap()), !composite[n], "{n}");
            for multiple in (n * n..composite.len()).step_by(n) {
                composite[multiple] = true;
            }
        }
        assert!(!is_prime(0) && !is_prime(1));
        assert!(is_prime(u32::MAX - 4) && !is_prime(u32::MAX));
    }

    #[test]
    fn the_largest_table_is_the_largest_prime_below_its_power_of_two() {
        assert!((TABLE_SIZE_MAX + 1..1 << 23).all(|n| !is_prime(n)));
        assert!((SLOTS_PER_BACKEND..TABLE_SIZE_MIN).all(|n| !is_prime(n)));
    }

    #[test]
    fn neighbours_of_a_size_are_primes_within_the_bounds() {
        assert_eq!(table_sizes_around(65_536), (Some(65_521), Some(65_537)));
        assert_eq!(table_sizes_around(65_537), (Some(65_537), Some(65_537)));
        assert_eq!(table_sizes_around(0), (None, Some(TABLE_SIZE_MIN)));
        assert_eq!(table_sizes_around(u32::MAX), (Some(TABLE_SIZE_MAX), None));
    }
}
