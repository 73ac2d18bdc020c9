//! TCP: connections per second, and how many are held at once.

use serde_json::{Value, json};

use crate::method::bench::Bench;
use crate::method::contestant::Scene;
use crate::method::offer::Connections;
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;
use crate::method::topology::BACKENDS;

/// Addresses of clients: enough for ports not to run out.
const CLIENTS: u32 = 200;

/// Connections that are under way at once while their rate is measured.
const UNDER_WAY: u32 = 512;

/// Seconds that flows are opened for when they are to be held.
const HOLD: u32 = 5;

/// How long it takes, seconds.
pub(crate) fn estimate(plan: &Plan, who: usize) -> f64 {
    (who * plan.few_rounds()) as f64 * (f64::from(seconds(plan)) + 2.0 * Plan::AROUND)
}

/// How long holding takes, seconds.
pub(crate) fn estimate_held() -> f64 {
    f64::from(HOLD) + 4.0
}

/// Rows `connections`, contestants in turn.
pub(crate) fn measure(bench: &mut Bench, who: &[String]) -> Result<Vec<Row>, String> {
    let mut rates: Vec<Vec<Value>> = vec![Vec::new(); who.len()];
    for round in 0..bench.plan.few_rounds() {
        for (name, rates) in who.iter().zip(&mut rates) {
            let Some(running) = bench.start(name, &scene())? else {
                continue;
            };
            let connections = Connections {
                to: running.target,
                clients: CLIENTS,
                concurrent: UNDER_WAY,
                seconds: seconds(&bench.plan),
                linger: false,
            };
            let result = connections.open(&bench.tools, &bench.stop)?;
            bench.keep(
                json!({"method": "connections", "who": name, "round": round}),
                result.clone(),
            );
            rates.push(result);
        }
    }
    let rows = who.iter().zip(&rates).filter(|(_, all)| !all.is_empty());
    Ok(rows.map(|(name, all)| row(name, all)).collect())
}

/// The row `concurrent` of one contestant.
pub(crate) fn hold(bench: &mut Bench, who: &str) -> Result<Vec<Row>, String> {
    let Some(running) = bench.start(who, &scene())? else {
        return Ok(Vec::new());
    };
    let connections = Connections {
        to: running.target,
        clients: CLIENTS,
        concurrent: bench.plan.held,
        seconds: HOLD,
        linger: true,
    };
    let result = connections.open(&bench.tools, &bench.stop)?;
    bench.keep(json!({"method": "concurrent", "who": who}), result.clone());
    let row = Row {
        method: "concurrent".to_owned(),
        unit: "connections".to_owned(),
        case: format!("{} asked for", bench.plan.held),
        ..named(who)
    };
    let held = number(&result, "/concurrent");
    let row = row.of(&held.into_iter().collect::<Vec<_>>());
    Ok(vec![
        row.with("failed", number(&result, "/failed"))
            .with("opened per second", number(&result, "/per_second")),
    ])
}

fn row(who: &str, all: &[Value]) -> Row {
    let each = |place: &str| {
        all.iter()
            .filter_map(|one| number(one, place))
            .collect::<Vec<_>>()
    };
    let mut limits = all.iter().filter_map(|one| one["limit"].as_str());
    let row = Row {
        method: "connections".to_owned(),
        unit: "connections/s".to_owned(),
        limit: limits.next_back().map(str::to_owned),
        ..named(who)
    }
    .of(&each("/per_second"));
    row.with("failed", median(each("/failed")))
        .with("retransmitted", median(each("/retransmitted")))
        .with("connect p99, ns", median(each("/connect_ns/p99")))
        .with("whole p50, ns", median(each("/whole_ns/p50")))
}

fn named(who: &str) -> Row {
    Row {
        who: who.to_owned(),
        mode: "nat".to_owned(),
        ..Row::default()
    }
}

fn scene() -> Scene {
    Scene {
        protocol: "tcp",
        backends: BACKENDS,
        ..Scene::plain(0)
    }
}

fn seconds(plan: &Plan) -> u32 {
    if plan.window >= 1.0 { 2 } else { 1 }
}

fn number(value: &Value, place: &str) -> Option<f64> {
    value.pointer(place).and_then(Value::as_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_median_of_the_answers() {
        let answer = |rate: f64, limit: Option<&str>| {
            json!({"opened": 9, "completed": 9, "failed": 1, "retransmitted": 4, "per_second": rate,
                "connect_ns": {"p99": 5000}, "whole_ns": {"p50": 9000}, "limit": limit})
        };
        let row = row(
            "haproxy",
            &[
                answer(10.0, None),
                answer(30.0, Some("source")),
                answer(20.0, None),
            ],
        );
        assert_eq!(
            (row.value, row.least, row.most),
            (Some(20.0), Some(10.0), Some(30.0))
        );
        assert_eq!(row.limit.as_deref(), Some("source"));
        assert_eq!(row.figure("retransmitted"), Some(4.0));
        assert_eq!(row.figure("connect p99, ns"), Some(5000.0));
    }
}
