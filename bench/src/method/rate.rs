//! The greatest rate: traffic is offered faster than anybody forwards, contestants take turns, and
//! what reaches the sink's link is counted. Nobody looks at the frames: the source has its CPU to
//! itself, and the sink's end costs as little as can be.

use serde_json::json;

use crate::method::bench::Bench;
use crate::method::contestant::Scene;
use crate::method::offer::Traffic;
use crate::method::outcome::{Row, median};
use crate::method::topology;

/// Flows that come in during an ordinary warm-up.
const QUICK_FLOWS: u32 = 150_000;

/// Frames per second at which more are brought in: slowly enough for none to be lost.
const GENTLE: f64 = 150_000.0;

/// The source is the limit if it offers less than this times what arrives.
const AMPLE: f64 = 1.05;

/// What is compared.
#[derive(Debug, Clone)]
pub(crate) struct Rates<'a> {
    pub(crate) who: &'a [String],
    pub(crate) scene: Scene,
    pub(crate) size: String,
    pub(crate) rounds: usize,
}

/// A window's result.
#[derive(Debug, Clone, Copy)]
struct Window {
    place: usize,
    round: usize,
    offered: f64,
    arrived: f64,
}

impl Rates<'_> {
    /// How long it takes, seconds.
    pub(crate) fn estimate(&self, bench: &Bench) -> f64 {
        let windows = self.who.len() * self.rounds;
        let more = (warmup(bench, self.scene.flows).0 - bench.plan.warmup) * windows as f64;
        bench.plan.windows(windows) + more
    }

    /// Measures, interleaved.
    pub(crate) fn measure(&self, bench: &mut Bench) -> Result<Vec<Row>, String> {
        let mut windows = Vec::new();
        for round in 0..self.rounds {
            let mut order: Vec<usize> = (0..self.who.len()).collect();
            // Whoever comes first in one round is last in the next.
            if round % 2 == 1 {
                order.reverse();
            }
            for place in order {
                let Some(who) = self.who.get(place) else {
                    continue;
                };
                if let Some((offered, arrived)) = self.window(bench, who, round)? {
                    windows.push(Window {
                        place,
                        round,
                        offered,
                        arrived,
                    });
                }
            }
        }
        Ok(self.rows(&windows))
    }

    /// Packets per second offered and arrived; nothing from who is not to be had.
    fn window(
        &self,
        bench: &mut Bench,
        who: &str,
        round: usize,
    ) -> Result<Option<(f64, f64)>, String> {
        let Some(running) = bench.start(who, &self.scene)? else {
            return Ok(None);
        };
        let (seconds, rate) = warmup(bench, self.scene.flows);
        let mut traffic = Traffic {
            to: running.target,
            flows: self.scene.flows,
            size: self.size.clone(),
            rate,
            warmup: 0.0,
            seconds,
            is_judged: false,
        };
        traffic.send(&bench.tools, &bench.stop)?;
        (traffic.rate, traffic.seconds) = (None, bench.plan.window);
        let before = topology::arrived(&bench.stop)?;
        let shot = traffic.send(&bench.tools, &bench.stop)?;
        bench.stop.pause(std::time::Duration::from_millis(200))?;
        let frames = topology::arrived(&bench.stop)?.saturating_sub(before) as f64;
        let arrived = frames / shot.seconds.max(f64::MIN_POSITIVE);
        bench.keep(
            json!({"method": "rate", "who": who, "mode": self.scene.mode, "size": self.size,
                "flows": self.scene.flows, "round": round}),
            json!({"offered": shot.offered, "arrived": arrived, "seconds": shot.seconds}),
        );
        Ok(Some((shot.offered, arrived)))
    }

    fn rows(&self, windows: &[Window]) -> Vec<Row> {
        let bare = self.who.iter().position(|who| who == "bare");
        let of = |place| windows.iter().filter(move |one| one.place == place);
        let rows = self.who.iter().enumerate().filter_map(|(place, who)| {
            let arrived: Vec<f64> = of(place).map(|one| one.arrived).collect();
            let offered = median(of(place).map(|one| one.offered))?;
            let ratios = of(place).filter_map(|one| {
                let same = of(bare?).find(|other| other.round == one.round)?;
                (same.arrived > 0.0).then(|| one.arrived / same.arrived)
            });
            let row = Row {
                method: "rate".to_owned(),
                who: who.clone(),
                mode: self.scene.mode.to_owned(),
                size: self.size.clone(),
                flows: self.scene.flows.into(),
                unit: "frames/s".to_owned(),
                ratio: (who != "bare").then(|| median(ratios)).flatten(),
                offered: Some(offered),
                ..Row::default()
            }
            .of(&arrived);
            let is_source = row.value.is_some_and(|value| offered < value * AMPLE);
            Some(Row {
                limit: is_source.then(|| "source".to_owned()),
                ..row
            })
        });
        rows.collect()
    }
}

/// Seconds and rate at which so many flows are brought in before a window.
fn warmup(bench: &Bench, flows: u32) -> (f64, Option<f64>) {
    if flows <= QUICK_FLOWS {
        return (bench.plan.warmup, None);
    }
    (f64::from(flows) / GENTLE + 0.5, Some(GENTLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_rounds_and_not_of_medians() {
        let who = ["bare".to_owned(), "ringgate".to_owned()];
        let rates = Rates {
            who: &who,
            scene: Scene::plain(100),
            size: "64".to_owned(),
            rounds: 3,
        };
        let window = |place, round, arrived| Window {
            place,
            round,
            offered: 400.0,
            arrived,
        };
        // The machine was slow in the second round, for both.
        let windows = [
            window(0, 0, 300.0),
            window(1, 0, 270.0),
            window(1, 1, 135.0),
            window(0, 1, 150.0),
            window(0, 2, 390.0),
            window(1, 2, 351.0),
        ];
        let rows = rates.rows(&windows);
        assert_eq!((rows[0].value, rows[0].ratio), (Some(300.0), None));
        assert_eq!(rows[1].value, Some(270.0));
        assert!((rows[1].ratio.unwrap() - 0.9).abs() < 1e-9);
        assert_eq!((rows[1].least, rows[1].most), (Some(135.0), Some(351.0)));
        assert_eq!(rows[0].limit, None);
        // A row of who was not there is not there.
        assert_eq!(rates.rows(&windows[..1]).len(), 1);
        let scarce = rates.rows(&[window(0, 0, 399.0)]);
        assert_eq!(scarce[0].limit.as_deref(), Some("source"));
    }
}
