//! Random numbers that are the same everywhere, from one seed.

use std::net::{Ipv4Addr, SocketAddrV4};

/// xorshift64*.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator of a test, from `STEADFAST_SEED` if that is set. Says how to have it again.
    pub(crate) fn of_test(name: &str) -> Self {
        let seed = std::env::var("STEADFAST_SEED")
            .map_or(0x5EED, |text| text.parse::<u64>().expect("a number"));
        let release = if cfg!(debug_assertions) {
            ""
        } else {
            " --release"
        };
        println!(
            "replay: STEADFAST_SEED={seed} cargo test{release} -p ringgate-dataplane --test steadfast {name}"
        );
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }

    /// Any address and port of the clients' network, 10.0.0.0/8.
    pub(crate) fn client(&mut self) -> SocketAddrV4 {
        let [b, c, d, high, low, ..] = self.next().to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(10, b, c, d), u16::from_be_bytes([high, low]))
    }
}
