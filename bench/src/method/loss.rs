//! Rates without loss and with half a per cent (NDR and PDR): the search with a contestant and
//! judged traffic.

use serde_json::json;

use crate::method::bench::Bench;
use crate::method::contestant::Scene;
use crate::method::offer::Traffic;
use crate::method::outcome::Row;
use crate::method::plan::Plan;
use crate::method::search::{Answer, Ask, Found, Search, run};

/// Share of a load that has to be offered for the trial to count. The generator itself complains
/// below 0.99; a machine that is shared takes a hundredth of a short trial now and then, and what is
/// lost is told of what was sent.
const OFFERED: f64 = 0.97;

/// What a trial takes beyond itself, seconds.
const AROUND: f64 = 0.5;

/// Trials of an ordinary search: what is planned for. Twice as many are the limit.
const USUAL: f64 = 14.0;

/// How long it takes with one contestant, seconds.
pub(crate) fn estimate(plan: &Plan) -> f64 {
    USUAL * (plan.trial + AROUND) + plan.warmup + Plan::AROUND
}

/// Searches. Rows `ndr` and `pdr`; none if `who` is not to be had.
pub(crate) fn measure(bench: &mut Bench, who: &str) -> Result<Vec<Row>, String> {
    let scene = Scene::plain(bench.plan.flows);
    let Some(running) = bench.start(who, &scene)? else {
        return Ok(Vec::new());
    };
    let mut traffic = Traffic {
        to: running.target,
        flows: scene.flows,
        size: "64".to_owned(),
        rate: None,
        warmup: 0.0,
        seconds: bench.plan.warmup,
        is_judged: false,
    };
    traffic.send(&bench.tools, &bench.stop)?;
    traffic.is_judged = true;
    let mut search = Search::new(&bench.plan.goals(), bench.plan.limits());
    let found = run(&mut search, |ask| trial(bench, &traffic, who, ask))?;
    Ok(found.iter().map(|found| row(who, &scene, found)).collect())
}

fn trial(bench: &mut Bench, traffic: &Traffic, who: &str, ask: Ask) -> Result<Answer, String> {
    let traffic = Traffic {
        rate: Some(ask.load),
        seconds: ask.seconds,
        // The first frames wake everybody up.
        warmup: 0.1,
        ..traffic.clone()
    };
    let shot = traffic.send(&bench.tools, &bench.stop)?;
    bench.keep(
        json!({"method": "search", "who": who, "load": ask.load.round(), "seconds": ask.seconds}),
        json!({"offered": shot.offered.round(), "lost": shot.lost, "ratio": shot.loss_ratio(),
            "limit": shot.limit}),
    );
    Ok(match shot.limit.as_deref() {
        // Its sink could not: less is asked of it from here on.
        Some("sink") => Answer::SourceLimited(shot.offered * (1.0 - shot.loss_ratio())),
        _ if shot.offered < ask.load * OFFERED => Answer::SourceLimited(shot.offered),
        _ => Answer::Lost(shot.loss_ratio()),
    })
}

fn row(who: &str, scene: &Scene, found: &Found) -> Row {
    Row {
        method: found.goal.name.to_owned(),
        who: who.to_owned(),
        mode: scene.mode.to_owned(),
        size: "64".to_owned(),
        flows: scene.flows.into(),
        unit: "frames/s".to_owned(),
        // The relevant lower bound: what may be offered. What comes out of it is beside it.
        value: found.lower,
        least: found.lower,
        most: found.upper,
        limit: Some(found.end.name().to_owned()),
        ..Row::default()
    }
    .with("throughput", found.throughput)
}
