//! Which flow is next, and which addresses it has.
//!
//! So many flows live at a time, numbered from 0. With a rate of new flows, the oldest dies for
//! each that is born, and the new one takes its place: number N is followed in its place by N +
//! flows. Each place keeps its share of the traffic.
//!
//! `bpf/blast.bpf.c` chooses in the same way, from the same picks.

use std::str::FromStr;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand_distr::{Distribution as _, Zipf};

/// The client port of flow 0.
pub const FIRST_PORT: u16 = 1024;

/// Flows that one client address has, each from its own port.
pub const FLOWS_PER_ADDRESS: u32 = 50_000;

/// Picks that are drawn once and gone through in turn: as good as fresh ones for some seconds'
/// statistics, and free of arithmetic when a frame is due.
pub const PICKS: usize = 1 << 20;

/// How traffic divides over flows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Division {
    /// Flow after flow in turn.
    Uniform,
    /// The flow of rank k gets a share that is as 1 / k^s (Zipf's law), drawn at random.
    Zipf(f64),
}

impl FromStr for Division {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let exponent = match text.split_once(':') {
            None if text == "uniform" => return Ok(Self::Uniform),
            None if text == "zipf" => Some(1.0),
            Some(("zipf", exponent)) => exponent.parse().ok(),
            _ => None,
        };
        exponent
            .filter(|s: &f64| s.is_finite() && *s >= 0.0)
            .map(Self::Zipf)
            .ok_or_else(|| format!("found {text:?}, expected uniform, zipf or zipf:EXPONENT"))
    }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Spread {
    flows: u32,
    new_per_second: u32,
    /// Places, drawn; empty if it goes from place to place in turn.
    picks: Vec<u32>,
    turn: u64,
}

impl Spread {
    /// At least one flow. The same `seed` gives the same choices.
    #[must_use]
    pub fn new(flows: u32, division: Division, new_per_second: u32, seed: u64) -> Self {
        let flows = flows.max(1);
        let picks = match division {
            Division::Uniform => Vec::new(),
            Division::Zipf(exponent) => draw(flows, exponent, seed),
        };
        Self {
            flows,
            new_per_second,
            picks,
            turn: 0,
        }
    }

    /// How many live at a time.
    #[must_use]
    pub const fn flows(&self) -> u32 {
        self.flows
    }

    /// New flows each second.
    #[must_use]
    pub const fn new_per_second(&self) -> u32 {
        self.new_per_second
    }

    /// The places that are gone through in turn; none if that is simply all of them.
    #[must_use]
    pub fn picks(&self) -> &[u32] {
        &self.picks
    }

    /// The next frame's flow, `since_start` nanoseconds after flow 0 was born.
    pub fn next(&mut self, since_start: u64) -> u32 {
        let flows = u64::from(self.flows);
        let place = if self.picks.is_empty() {
            self.turn % flows
        } else {
            let at = self.turn % self.picks.len() as u64;
            // Below the length, which is a usize.
            self.picks
                .get(usize::try_from(at).unwrap_or(0))
                .map_or(0, |pick| u64::from(*pick))
        };
        self.turn += 1;
        let born = self.born(since_start);
        // The one number in born..born + flows that belongs to this place.
        let flow = born + (place + flows - born % flows) % flows;
        // Numbers wrap after 2^32 flows.
        u32::try_from(flow % (1 << 32)).unwrap_or(0)
    }

    /// How many have been replaced by new ones until then.
    #[must_use]
    pub fn born(&self, since_start: u64) -> u64 {
        let born = u128::from(since_start) * u128::from(self.new_per_second) / 1_000_000_000;
        u64::try_from(born).unwrap_or(u64::MAX)
    }
}

/// Where flow `flow` comes from: how far its address is from the first client's, and its port.
#[must_use]
pub fn source_of(flow: u32) -> (u32, u16) {
    // The remainder is below 50,000.
    let port = u16::try_from(flow % FLOWS_PER_ADDRESS).unwrap_or(0);
    (flow / FLOWS_PER_ADDRESS, FIRST_PORT + port)
}

/// Draws places by their rank.
fn draw(flows: u32, exponent: f64, seed: u64) -> Vec<u32> {
    let Ok(zipf) = Zipf::new(f64::from(flows), exponent) else {
        return Vec::new();
    };
    let mut random = SmallRng::seed_from_u64(seed);
    (0..PICKS)
        .map(|_| {
            let rank = zipf.sample(&mut random);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rank is a whole number from 1 to the number of flows"
            )]
            let rank = rank as u32;
            rank.saturating_sub(1).min(flows - 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn uniform_goes_through_all_in_turn() {
        let mut spread = Spread::new(3, Division::Uniform, 0, 1);
        let flows: Vec<u32> = (0..7).map(|n| spread.next(n * 1_000_000_000)).collect();
        assert_eq!(flows, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn new_flows_take_the_places_of_the_oldest() {
        let mut spread = Spread::new(4, Division::Uniform, 1, 1);
        let mut at = |seconds: u64| -> Vec<u32> {
            (0..4)
                .map(|_| spread.next(seconds * 1_000_000_000))
                .collect()
        };
        assert_eq!(at(0), [0, 1, 2, 3]);
        assert_eq!(at(1), [4, 1, 2, 3]);
        assert_eq!(at(3), [4, 5, 6, 3]);
        assert_eq!(at(9), [12, 9, 10, 11]);
    }

    #[test]
    fn shares_are_those_of_the_law() {
        let mut spread = Spread::new(1_000, Division::Zipf(1.0), 0, 7);
        let mut counts: HashMap<u32, u32> = HashMap::new();
        for _ in 0..PICKS {
            *counts.entry(spread.next(0)).or_default() += 1;
        }
        assert!(counts.keys().all(|flow| *flow < 1_000));
        // The harmonic number of 1,000 is 7.485; a share's deviation is far below a tenth here.
        for rank in [1u32, 2, 10, 100] {
            let expected = f64::from(u32::try_from(PICKS).unwrap()) / 7.485 / f64::from(rank);
            let found = f64::from(counts[&(rank - 1)]);
            assert!(
                (found / expected - 1.0).abs() < 0.1,
                "rank {rank}: {found} of {expected}"
            );
        }
        let again = Spread::new(1_000, Division::Zipf(1.0), 0, 7);
        assert_eq!(again.picks(), spread.picks());
        assert_ne!(
            Spread::new(1_000, Division::Zipf(1.0), 0, 8).picks(),
            spread.picks()
        );
    }

    #[test]
    fn divisions_are_read_as_they_are_written() {
        assert_eq!("uniform".parse(), Ok(Division::Uniform));
        assert_eq!("zipf".parse(), Ok(Division::Zipf(1.0)));
        assert_eq!("zipf:1.2".parse(), Ok(Division::Zipf(1.2)));
        for wrong in ["", "zipf:", "zipf:-1", "zipf:nan", "even", "uniform:2"] {
            assert!(wrong.parse::<Division>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn each_flow_has_its_own_source() {
        assert_eq!(source_of(0), (0, 1024));
        assert_eq!(source_of(49_999), (0, 51_023));
        assert_eq!(source_of(50_000), (1, 1024));
        assert_eq!(source_of(u32::MAX), (85_899, 1024 + 17_295));
    }
}
