//! Rates without loss and with half a per cent (NDR and PDR): the search with a contestant and
//! judged traffic.

use serde_json::json;

use crate::method::bench::Bench;
use crate::method::contestant::Scene;
use crate::method::offer::Traffic;
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;
use crate::method::search::{Answer, Ask, Found, Search};

/// Share of a load that has to be offered for a trial without much loss to count. The generator
/// itself complains below 0.99, but a machine that is shared takes some hundredths of a short trial
/// from it, between which it sends as was asked. What was offered in fact is what is reported.
const OFFERED: f64 = 0.85;

/// The first frames wake everybody up: seconds that are not judged.
pub(crate) const WAKING: f64 = 0.1;

/// A trial that lost more than any goal allows counts however little was offered: more would not
/// have lost less.
const MUCH: f64 = 0.005;

/// Trials of an ordinary search, half of them short: what is planned for.
const USUAL: f64 = 17.0;

/// How long it takes with so many contestants, seconds.
pub(crate) fn estimate(plan: &Plan, who: usize) -> f64 {
    let search = USUAL * (plan.trial * 0.75 + WAKING + Plan::SHOT);
    who as f64 * (search + plan.warmup + Plan::SHOT + Plan::START)
}

/// Searches, contestants in turn trial by trial, so that what the host is busy with meets all.
/// Rows `ndr` and `pdr` of those that are to be had.
pub(crate) fn measure(bench: &mut Bench, who: &[String]) -> Result<Vec<Row>, String> {
    let scene = Scene::plain(bench.plan.flows);
    let who = bench.seat_all(who, &scene)?;
    let mut searches: Vec<Searching> = Vec::new();
    for who in who {
        searches.push(Searching {
            who,
            search: Search::new(&bench.plan.goals(), bench.plan.limits()),
            offered: Vec::new(),
        });
    }
    let mut is_on = true;
    while is_on {
        is_on = false;
        for one in &mut searches {
            is_on |= one.go_on(bench, &scene)?;
        }
    }
    bench.send_peers_home();
    let rows = searches.iter().flat_map(|one| {
        let found = one.search.results();
        let rows = found
            .iter()
            .map(|found| row(&one.who, &scene, found, &one.offered));
        rows.collect::<Vec<_>>()
    });
    Ok(rows.collect())
}

/// A contestant's search.
#[derive(Debug)]
struct Searching {
    who: String,
    search: Search,
    /// Loads, and which share of them was offered.
    offered: Vec<(f64, f64)>,
}

impl Searching {
    /// One trial, if there is one more to make.
    fn go_on(&mut self, bench: &mut Bench, scene: &Scene) -> Result<bool, String> {
        let Some(ask) = self.search.ask() else {
            return Ok(false);
        };
        let (answer, share) = trial(bench, &self.who, scene.flows, ask)?;
        self.offered.push((ask.load, share));
        self.search.tell(answer);
        Ok(true)
    }
}

fn trial(bench: &mut Bench, who: &str, flows: u32, ask: Ask) -> Result<(Answer, f64), String> {
    let traffic = Traffic {
        rate: Some(ask.load),
        seconds: ask.seconds,
        warmup: WAKING,
        is_judged: true,
        ..bench.warm(who, "64", flows)?
    };
    let shot = traffic.send(&bench.tools, &bench.stop)?;
    bench.keep(
        json!({"method": "search", "who": who, "load": ask.load.round(), "seconds": ask.seconds}),
        json!({"offered": shot.offered.round(), "lost": shot.lost, "ratio": shot.loss_ratio(),
            "limit": shot.limit}),
    );
    let share = (shot.offered / ask.load).min(1.0);
    let answer = judge(shot.loss_ratio(), share, shot.limit.as_deref(), ask);
    Ok((answer, share))
}

/// What a trial says that lost `loss` of what was sent, which was `share` of what was asked.
fn judge(loss: f64, share: f64, limit: Option<&str>, ask: Ask) -> Answer {
    match limit {
        // Its sink could not: less is asked of it from here on.
        Some("sink") => Answer::SourceLimited(ask.load * share * (1.0 - loss)),
        _ if loss > MUCH || share >= OFFERED => Answer::Lost(loss),
        _ => Answer::SourceLimited(ask.load * share),
    }
}

fn row(who: &str, scene: &Scene, found: &Found, offered: &[(f64, f64)]) -> Row {
    let share = |load: f64| {
        let at = offered.iter().filter(|(asked, _)| *asked == load);
        median(at.map(|(_, share)| *share)).unwrap_or(1.0)
    };
    Row {
        method: found.goal.name.to_owned(),
        who: who.to_owned(),
        mode: scene.mode.to_owned(),
        size: "64".to_owned(),
        flows: scene.flows.into(),
        unit: "frames/s".to_owned(),
        // What was offered at the relevant lower bound. What came out of it is beside it.
        value: found.lower.map(|load| load * share(load)),
        least: found.lower.map(|load| load * share(load)),
        most: found.upper,
        limit: Some(found.end.name().to_owned()),
        ..Row::default()
    }
    .with("asked for", found.lower)
    .with(
        "forwarded",
        found
            .lower
            .zip(found.throughput)
            .map(|(load, out)| out * share(load)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::search::End;

    #[test]
    fn a_trial_counts_if_it_was_offered_or_lost_much() {
        let ask = Ask {
            load: 1000.0,
            seconds: 1.0,
        };
        assert_eq!(judge(0.0, 0.9, Some("source"), ask), Answer::Lost(0.0));
        assert_eq!(judge(0.6, 0.5, Some("source"), ask), Answer::Lost(0.6));
        assert_eq!(
            judge(0.001, 0.5, Some("source"), ask),
            Answer::SourceLimited(500.0)
        );
        assert_eq!(
            judge(0.5, 1.0, Some("sink"), ask),
            Answer::SourceLimited(500.0)
        );
    }

    #[test]
    fn what_is_reported_is_what_was_offered() {
        let goal = Plan::full().goals()[1].clone();
        let found = Found {
            goal,
            lower: Some(1000.0),
            upper: Some(1020.0),
            throughput: Some(995.0),
            end: End::Width,
        };
        let offered = [(1000.0, 0.9), (1000.0, 0.95), (1000.0, 1.0), (1020.0, 0.1)];
        let row = row("bare", &Scene::plain(1), &found, &offered);
        assert_eq!((row.value, row.most), (Some(950.0), Some(1020.0)));
        assert_eq!(row.figure("forwarded"), Some(945.25));
        assert_eq!(row.limit.as_deref(), Some("width"));
    }
}
