//! The greatest rate: traffic is offered faster than anybody forwards, contestants take turns, and
//! what reaches the sink's link is counted. Nobody looks at the frames: the source has its CPU to
//! itself, and the sink's end costs as little as can be.

use std::time::Duration;

use serde_json::{Value, json};

use crate::method::bench::{Bench, warm_up};
use crate::method::contestant::Scene;
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;

/// The source is the limit if it offers less than this times what arrives.
const AMPLE: f64 = 1.05;

/// What is on its way has arrived by then.
const SETTLED: Duration = Duration::from_millis(50);

/// What is compared.
#[derive(Debug, Clone)]
pub(crate) struct Rates {
    pub(crate) who: Vec<String>,
    pub(crate) scene: Scene,
    /// Sizes and numbers of flows, which take turns as contestants do.
    pub(crate) cases: Vec<(String, u32)>,
    pub(crate) rounds: usize,
}

impl Rates {
    /// How long it takes, seconds.
    pub(crate) fn estimate(&self, plan: &Plan) -> f64 {
        let bring_in = |flows: u32| warm_up(plan, flows).0 + Plan::SHOT;
        let warming: f64 = self.cases.iter().map(|(_, flows)| bring_in(*flows)).sum();
        let windows = (self.cases.len() * self.rounds) as f64 * (plan.window + Plan::SHOT);
        self.who.len() as f64 * (Plan::START + warming + windows)
    }

    /// Measures in turn. What was measured of the same before counts as well.
    pub(crate) fn measure(&self, bench: &mut Bench) -> Result<Vec<Row>, String> {
        let mut who = bench.seat_all(&self.who, &self.scene)?;
        let first = self.cases.first().ok_or("nothing to measure")?;
        let first = bench.next_round(&self.of(first));
        for round in first..first + self.rounds {
            for case in &self.cases {
                for who in &who {
                    self.window(bench, who, case, round)?;
                }
            }
            // Whoever comes first in one round is last in the next.
            who.reverse();
        }
        bench.send_peers_home();
        let rows = self.cases.iter().flat_map(|case| {
            let of = self.of(case);
            let windows: Vec<Window> = bench.kept(&of).filter_map(Window::read).collect();
            self.rows(case, &windows)
        });
        Ok(rows.collect())
    }

    /// What all windows of a case have in common.
    fn of(&self, (size, flows): &(String, u32)) -> Value {
        json!({"method": "rate", "mode": self.scene.mode, "family": self.scene.family(),
            "size": size, "flows": flows})
    }

    fn window(
        &self,
        bench: &mut Bench,
        who: &str,
        case: &(String, u32),
        round: usize,
    ) -> Result<(), String> {
        let mut traffic = bench.warm(who, &case.0, case.1)?;
        traffic.seconds = bench.plan.window;
        let before = traffic.lane.arrived(&bench.stop)?;
        let shot = traffic.send(&bench.tools, &bench.stop)?;
        bench.stop.pause(SETTLED)?;
        let frames = traffic.lane.arrived(&bench.stop)?.saturating_sub(before) as f64;
        let arrived = frames / shot.seconds.max(f64::MIN_POSITIVE);
        let mut of = self.of(case);
        (of["who"], of["round"]) = (who.into(), round.into());
        bench.keep(
            of,
            json!({"offered": shot.offered, "arrived": arrived, "seconds": shot.seconds}),
        );
        Ok(())
    }

    fn rows(&self, case: &(String, u32), windows: &[Window]) -> Vec<Row> {
        let of = |who: &str| {
            let who = who.to_owned();
            windows.iter().filter(move |one| one.who == who)
        };
        let rows = self.who.iter().filter_map(|who| {
            let arrived: Vec<f64> = of(who).map(|one| one.arrived).collect();
            let offered = median(of(who).map(|one| one.offered))?;
            let ratios = of(who).filter_map(|one| {
                let same = of("bare").find(|other| other.round == one.round)?;
                (same.arrived > 0.0).then(|| one.arrived / same.arrived)
            });
            let ratios: Vec<f64> = ratios.filter(|_| who != "bare").collect();
            let row = Row {
                method: "rate".to_owned(),
                who: who.clone(),
                mode: self.scene.mode.to_owned(),
                family: self.scene.family().to_owned(),
                size: case.0.clone(),
                flows: case.1.into(),
                unit: "frames/s".to_owned(),
                ratio: median(ratios.iter().copied()),
                offered: Some(offered),
                ..Row::default()
            }
            .of(&arrived)
            .with("windows", Some(arrived.len() as f64))
            .with(
                "pairs",
                Some(ratios.len() as f64).filter(|&pairs| pairs > 0.0),
            );
            let is_source = row.value.is_some_and(|value| offered < value * AMPLE);
            Some(Row {
                limit: is_source.then(|| "source".to_owned()),
                ..row
            })
        });
        rows.collect()
    }
}

/// A window's result.
#[derive(Debug, Clone, PartialEq)]
struct Window {
    who: String,
    round: u64,
    offered: f64,
    arrived: f64,
}

impl Window {
    fn read(window: &Value) -> Option<Self> {
        Some(Self {
            who: window["who"].as_str()?.to_owned(),
            round: window["round"].as_u64()?,
            offered: window["result"]["offered"].as_f64()?,
            arrived: window["result"]["arrived"].as_f64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(who: &str, round: u64, arrived: f64) -> Window {
        Window {
            who: who.to_owned(),
            round,
            offered: 400.0,
            arrived,
        }
    }

    fn rates() -> Rates {
        Rates {
            who: vec!["bare".to_owned(), "ringgate".to_owned()],
            scene: Scene::plain(100),
            cases: vec![("64".to_owned(), 100)],
            rounds: 3,
        }
    }

    #[test]
    fn the_ratio_is_that_of_rounds_and_not_of_medians() {
        // The machine was slow in the second round, for both.
        let windows = [
            window("bare", 0, 300.0),
            window("ringgate", 0, 270.0),
            window("ringgate", 1, 135.0),
            window("bare", 1, 150.0),
            window("bare", 2, 390.0),
            window("ringgate", 2, 351.0),
        ];
        let case = ("64".to_owned(), 100);
        let rows = rates().rows(&case, &windows);
        assert_eq!((rows[0].value, rows[0].ratio), (Some(300.0), None));
        assert_eq!(rows[1].value, Some(270.0));
        assert!((rows[1].ratio.unwrap() - 0.9).abs() < 1e-9);
        assert_eq!((rows[1].least, rows[1].most), (Some(135.0), Some(351.0)));
        assert_eq!(
            (rows[0].limit.clone(), rows[0].figure("pairs")),
            (None, None)
        );
        assert_eq!(rows[1].figure("pairs"), Some(3.0));
        // A row of who was not there is not there.
        assert_eq!(rates().rows(&case, &windows[..1]).len(), 1);
        let scarce = rates().rows(&case, &[window("bare", 0, 399.0)]);
        assert_eq!(scarce[0].limit.as_deref(), Some("source"));
    }

    #[test]
    fn a_window_is_read_as_it_is_kept() {
        let mut of = rates().of(&("64".to_owned(), 100));
        (of["who"], of["round"]) = ("bare".into(), 2.into());
        of["result"] = json!({"offered": 400.0, "arrived": 300.0, "seconds": 1.0});
        assert_eq!(Window::read(&of), Some(window("bare", 2, 300.0)));
        of["result"] = Value::Null;
        assert_eq!(Window::read(&of), None);
    }
}
