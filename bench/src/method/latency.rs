//! Latency at 50, 90 and 100 % of what Ringgate forwards without loss (RFC 8219, section 7.2), at
//! the same loads for the bare forwarder, in turn.

use std::collections::BTreeMap;

use serde_json::json;

use crate::method::bench::Bench;
use crate::method::contestant::Scene;
use crate::method::offer::Traffic;
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;

const LOADS: [u32; 3] = [50, 90, 100];

const CONTESTANTS: [&str; 2] = ["bare", "ringgate"];

/// How long it takes, seconds.
pub(crate) fn estimate(plan: &Plan) -> f64 {
    let round = LOADS.len() as f64 * (plan.window + 0.6) + plan.warmup + Plan::AROUND;
    round * (plan.few_rounds() * CONTESTANTS.len()) as f64
}

/// Measures at shares of `full` frames per second.
pub(crate) fn measure(bench: &mut Bench, full: f64) -> Result<Vec<Row>, String> {
    let mut windows = Vec::new();
    for round in 0..bench.plan.few_rounds() {
        let mut order = CONTESTANTS;
        if round % 2 == 1 {
            order.reverse();
        }
        for who in order {
            windows.extend(turn(bench, who, full, round)?);
        }
    }
    let mut rows = Vec::new();
    for load in LOADS {
        for who in CONTESTANTS {
            let of = windows
                .iter()
                .filter(|one| (one.who, one.load) == (who, load));
            rows.push(row(bench, &of.collect::<Vec<_>>(), who, load));
        }
    }
    Ok(rows)
}

#[derive(Debug)]
struct Window {
    who: &'static str,
    load: u32,
    offered: f64,
    latency: BTreeMap<String, f64>,
}

fn turn(
    bench: &mut Bench,
    who: &'static str,
    full: f64,
    round: usize,
) -> Result<Vec<Window>, String> {
    let scene = Scene::plain(bench.plan.flows);
    let running = bench.start_ours(who, &scene)?;
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
    let mut windows = Vec::new();
    for load in LOADS {
        traffic = Traffic {
            rate: Some(full * f64::from(load) / 100.0),
            warmup: 0.1,
            seconds: bench.plan.window,
            is_judged: true,
            ..traffic
        };
        let shot = traffic.send(&bench.tools, &bench.stop)?;
        bench.keep(
            json!({"method": "latency", "who": who, "case": load.to_string(), "round": round}),
            json!({"offered": shot.offered.round(), "lost": shot.lost,
                "latency_ns": shot.raw["latency_ns"], "limit": shot.limit}),
        );
        windows.push(Window {
            who,
            load,
            offered: shot.offered,
            latency: shot.latency,
        });
    }
    Ok(windows)
}

fn row(bench: &Bench, windows: &[&Window], who: &str, load: u32) -> Row {
    let all = |name: &str| -> Vec<f64> {
        let values = windows.iter().filter_map(|one| one.latency.get(name));
        values.copied().collect()
    };
    let row = Row {
        method: "latency".to_owned(),
        who: who.to_owned(),
        mode: "nat".to_owned(),
        size: "64".to_owned(),
        flows: bench.plan.flows.into(),
        case: load.to_string(),
        unit: "ns, p99".to_owned(),
        offered: median(windows.iter().map(|one| one.offered)),
        ..Row::default()
    }
    .of(&all("p99"));
    let names = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"];
    names
        .iter()
        .fold(row, |row, name| row.with(name, median(all(name))))
}
