//! How many messages may be sent: so many a second in total, and few to one host (RFC 1812 §4.3.2.8,
//! RFC 4443 §2.4(f)).
//!
//! Two layers of token buckets. The total one is exact. Those of hosts lie in a table of fixed
//! size, found by a hash of the address; hosts that meet in one place share what it has, so a
//! flood from forged addresses costs some hosts their errors, and nothing else. Time is an
//! argument, memory is taken at start.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use crate::clock::Millis;

/// Places for hosts: 16 KiB a worker. Twice as many errors as are sent in a second by default
/// would have to go to different hosts before two of them often meet.
const PLACES: usize = 2048;

/// Most messages to one host in a second, and at once. A path's MTU is learned with one, and
/// traceroute sends three probes for a hop.
const HOST_RATE: u64 = 10;

/// How much of a second's messages may come at once, one part of so many.
const BURSTS_IN_SECOND: u64 = 10;

/// The least that may come at once.
const BURST_LEAST: u64 = 10;

/// Tokens are thousandths of a message: a rate a second is as many a millisecond.
const TOKENS_OF_MESSAGE: u64 = 1000;

/// Tokens, and when they were last counted.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u64,
    counted: Millis,
}

impl Bucket {
    /// Moves time on, at so many messages a second and at most `most` tokens.
    fn refill(&mut self, rate: u64, most: u64, now: Millis) {
        let elapsed = now.0.saturating_sub(self.counted.0);
        self.counted = now;
        let more = rate.saturating_mul(elapsed);
        self.tokens = self.tokens.saturating_add(more).min(most);
    }

    fn has_one(&self) -> bool {
        self.tokens >= TOKENS_OF_MESSAGE
    }

    fn take(&mut self) {
        self.tokens = self.tokens.saturating_sub(TOKENS_OF_MESSAGE);
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: u64,
    total: Bucket,
    hosts: Box<[Bucket]>,
}

impl Limiter {
    /// For one of `workers` equals, which together may send `per_second` messages.
    pub(super) fn new(per_second: u32, workers: usize, now: Millis) -> Self {
        let rate = (u64::from(per_second) / workers.max(1) as u64).max(1);
        let full = |tokens| Bucket {
            tokens,
            counted: now,
        };
        Self {
            rate,
            total: full(burst(rate)),
            hosts: vec![full(HOST_RATE * TOKENS_OF_MESSAGE); PLACES].into(),
        }
    }

    /// Whether a message may be sent on behalf of the host at `address` now; if so, it counts as
    /// sent. Addresses of one IPv6 `/64` are one host: it has them all.
    pub(super) fn admits(&mut self, address: [u64; 2], now: Millis) -> bool {
        let Some(host) = self.hosts.get_mut(place(address)) else {
            return false;
        };
        self.total.refill(self.rate, burst(self.rate), now);
        host.refill(HOST_RATE, HOST_RATE * TOKENS_OF_MESSAGE, now);
        let admitted = self.total.has_one() && host.has_one();
        if admitted {
            self.total.take();
            host.take();
        }
        admitted
    }

    /// The same without a limit for the host.
    pub(super) fn admits_any(&mut self, now: Millis) -> bool {
        self.total.refill(self.rate, burst(self.rate), now);
        let admitted = self.total.has_one();
        if admitted {
            self.total.take();
        }
        admitted
    }
}

fn burst(rate: u64) -> u64 {
    (rate / BURSTS_IN_SECOND).max(BURST_LEAST) * TOKENS_OF_MESSAGE
}

fn place([high, low]: [u64; 2]) -> usize {
    let mut hasher = FxHasher::default();
    // IPv4 addresses have a high word of zero, and all that tells them apart in the low.
    if high == 0 { low } else { high }.hash(&mut hasher);
    let [.., a, b] = hasher.finish().to_be_bytes();
    usize::from(u16::from_be_bytes([a, b])) % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: [u64; 2] = [0, 0xFFFF_0A01_0002];

    fn admitted(limiter: &mut Limiter, address: [u64; 2], now: u64) -> usize {
        (0..1000)
            .take_while(|_| limiter.admits(address, Millis(now)))
            .count()
    }

    #[test]
    fn one_host_gets_ten_at_once_and_ten_a_second() {
        let mut limiter = Limiter::new(1_000_000, 1, Millis(5000));
        assert_eq!(admitted(&mut limiter, HOST, 5000), 10);
        assert_eq!(admitted(&mut limiter, HOST, 5099), 0);
        assert_eq!(admitted(&mut limiter, HOST, 5100), 1);
        assert_eq!(admitted(&mut limiter, HOST, 5500), 4);
        let patience = u64::MAX;
        assert_eq!(admitted(&mut limiter, HOST, patience), 10, "not saved up");
    }

    #[test]
    fn all_together_get_a_tenth_of_the_rate_at_once_and_then_the_rate() {
        let mut limiter = Limiter::new(4000, 4, Millis(0));
        let mut admitted = |now| {
            (0..10_000_u64)
                .filter(|host| limiter.admits([host << 40, 0], Millis(now)))
                .count()
        };
        assert_eq!(admitted(0), 100);
        assert_eq!(admitted(1), 1);
        for ms in 2..1000 {
            assert_eq!(admitted(ms), 1, "{ms}");
        }
    }

    #[test]
    fn the_least_rate_is_one_a_second() {
        let mut limiter = Limiter::new(1, 8, Millis(0));
        let mut admits = |now| limiter.admits_any(Millis(now));
        assert_eq!((0..100).filter(|_| admits(0)).count(), 10);
        assert!(!admits(999));
        assert!(admits(1000));
        assert!(!admits(1000));
    }

    #[test]
    fn hosts_of_one_network_share_and_others_do_not() {
        let mut limiter = Limiter::new(1_000_000, 1, Millis(0));
        let [network, other] = [0xFD00_0001_0000_0000, 0xFD00_0001_0000_0001];
        assert_eq!(admitted(&mut limiter, [network, 1], 0), 10);
        assert_eq!(admitted(&mut limiter, [network, 2], 0), 0);
        assert_ne!(place([network, 1]), place([other, 1]));
        assert_eq!(admitted(&mut limiter, [other, 1], 0), 10);
    }

    #[test]
    fn neighbouring_addresses_are_spread_over_the_places() {
        let v4 = (0..1024).map(|n| place([0, 0xFFFF_0A00_0000 + n]));
        let v6 = (0..1024).map(|n| place([0xFD00_0001_0000_0000 + n, 1]));
        for places in [
            v4.collect::<std::collections::HashSet<_>>(),
            v6.collect::<std::collections::HashSet<_>>(),
        ] {
            // 2048 (1 - e^(-1/2)) = 806 of 1024 by chance.
            assert!(places.len() > 700, "{}", places.len());
        }
    }
}
