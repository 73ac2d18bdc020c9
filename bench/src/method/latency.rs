//! Latency at 50, 90 and 100 % of what Ringgate forwards without loss (RFC 8219, section 7.2), at
//! the same loads for the bare forwarder, in turn.

use serde_json::{Value, json};

use crate::method::bench::Bench;
use crate::method::contestant::Scene;
use crate::method::loss::WAKING;
use crate::method::offer::Traffic;
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;

const LOADS: [u32; 3] = [50, 90, 100];

const CONTESTANTS: [&str; 2] = ["bare", "ringgate"];

/// How long it takes with so many rounds, seconds.
pub(crate) fn estimate(plan: &Plan, rounds: usize) -> f64 {
    let window = plan.window + WAKING + Plan::SHOT;
    (LOADS.len() * rounds * CONTESTANTS.len()) as f64 * window
}

/// Measures at shares of `full` frames per second, contestants in turn load by load. What was
/// measured before counts as well.
pub(crate) fn measure(bench: &mut Bench, full: f64, rounds: usize) -> Result<Vec<Row>, String> {
    let scene = Scene::plain(bench.plan.flows);
    let mut who = bench.seat_all(&CONTESTANTS.map(str::to_owned), &scene)?;
    let first = bench.next_round(&json!({"method": "latency"}));
    for round in first..first + rounds {
        for load in LOADS {
            for who in &who {
                window(bench, who, full, load, round)?;
            }
        }
        who.reverse();
    }
    let mut rows = Vec::new();
    for load in LOADS {
        for who in CONTESTANTS {
            let of = json!({"method": "latency", "who": who, "case": load.to_string()});
            let windows: Vec<&Value> = bench.kept(&of).map(|one| &one["result"]).collect();
            rows.push(row(bench, &windows, who, load));
        }
    }
    Ok(rows)
}

fn window(bench: &mut Bench, who: &str, full: f64, load: u32, round: usize) -> Result<(), String> {
    let traffic = Traffic {
        rate: Some(full * f64::from(load) / 100.0),
        warmup: WAKING,
        is_judged: true,
        seconds: bench.plan.window,
        ..bench.warm(who, "64", bench.plan.flows)?
    };
    let shot = traffic.send(&bench.tools, &bench.stop)?;
    bench.keep(
        json!({"method": "latency", "who": who, "case": load.to_string(), "round": round}),
        json!({"offered": shot.offered.round(), "lost": shot.lost,
            "latency_ns": shot.raw["latency_ns"], "limit": shot.limit}),
    );
    Ok(())
}

fn row(bench: &Bench, windows: &[&Value], who: &str, load: u32) -> Row {
    let all = |name: &str| -> Vec<f64> {
        let values = windows
            .iter()
            .filter_map(|one| one["latency_ns"][name].as_f64());
        values.collect()
    };
    let row = Row {
        method: "latency".to_owned(),
        who: who.to_owned(),
        mode: "nat".to_owned(),
        size: "64".to_owned(),
        flows: bench.plan.flows.into(),
        case: load.to_string(),
        unit: "ns, p99".to_owned(),
        offered: median(windows.iter().filter_map(|one| one["offered"].as_f64())),
        ..Row::default()
    }
    .of(&all("p99"));
    let names = ["min", "p50", "p90", "p99", "p99.9", "p99.99", "max", "mean"];
    names
        .iter()
        .fold(row, |row, name| row.with(name, median(all(name))))
}
