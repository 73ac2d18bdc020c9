//! TCP: connections per second, and how many are held at once.

use serde_json::{Value, json};

use crate::method::bench::Bench;
use crate::method::contestant::Scene;
use crate::method::offer::Connections;
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;
use crate::method::topology::BACKENDS;

/// Addresses of clients: enough for ports not to run out; at most 254, see `Bench::newcomers`.
const CLIENTS: u32 = 200;

/// Connections that are under way at once while their rate is measured.
const UNDER_WAY: u32 = 512;

/// Seconds that flows are opened for when they are to be held.
const HOLD: u32 = 5;

/// What is waited for at the end: a SYN that was lost is sent again after a second, and some are.
const LATE: f64 = 0.6;

/// How long it takes with so many contestants and rounds, seconds.
pub(crate) fn estimate(plan: &Plan, who: usize, rounds: usize) -> f64 {
    who as f64 * (Plan::START + rounds as f64 * (f64::from(seconds(plan)) + LATE + Plan::SHOT))
}

/// How long holding takes, seconds.
pub(crate) fn estimate_held() -> f64 {
    Plan::START + f64::from(HOLD) + LATE + Plan::SHOT
}

/// Rows `connections`, contestants in turn. What was measured before counts as well.
pub(crate) fn measure(
    bench: &mut Bench,
    who: &[String],
    rounds: usize,
) -> Result<Vec<Row>, String> {
    let mut seated = bench.seat_all(who, &scene())?;
    let first = bench.next_round(&json!({"method": "connections"}));
    for round in first..first + rounds {
        for name in &seated {
            let seconds = seconds(&bench.plan);
            let result = open(bench, name, UNDER_WAY, seconds, false)?;
            bench.keep(
                json!({"method": "connections", "who": name, "round": round}),
                result,
            );
        }
        seated.reverse();
    }
    bench.send_peers_home();
    let rows = who.iter().filter_map(|name| {
        let of = json!({"method": "connections", "who": name});
        let all: Vec<&Value> = bench.kept(&of).map(|one| &one["result"]).collect();
        (!all.is_empty()).then(|| row(name, &all))
    });
    Ok(rows.collect())
}

/// The row `concurrent` of one contestant.
pub(crate) fn hold(bench: &mut Bench, who: &str) -> Result<Vec<Row>, String> {
    if !bench.seat(who, &scene())? {
        return Ok(Vec::new());
    }
    let held = bench.plan.held;
    let result = open(bench, who, held, HOLD, true)?;
    bench.keep(json!({"method": "concurrent", "who": who}), result.clone());
    bench.send_peers_home();
    let row = Row {
        method: "concurrent".to_owned(),
        unit: "connections".to_owned(),
        case: format!("{held} asked for"),
        ..named(who)
    };
    let held = number(&result, "/concurrent");
    let row = row.of(&held.into_iter().collect::<Vec<_>>());
    Ok(vec![
        row.with("failed", number(&result, "/failed"))
            .with("opened per second", number(&result, "/per_second")),
    ])
}

/// Opens connections to who is seated.
fn open(
    bench: &mut Bench,
    who: &str,
    concurrent: u32,
    seconds: u32,
    linger: bool,
) -> Result<Value, String> {
    let from = bench.newcomers();
    let running = bench
        .resident(who)
        .ok_or_else(|| format!("{who} is not seated"))?;
    let connections = Connections {
        lane: running.lane.clone(),
        to: running.target,
        from,
        clients: CLIENTS,
        concurrent,
        seconds,
        linger,
    };
    connections.open(&bench.tools, &bench.stop)
}

fn row(who: &str, all: &[&Value]) -> Row {
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
    if plan.window >= 2.0 { 3 } else { 1 }
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
                &answer(10.0, None),
                &answer(30.0, Some("source")),
                &answer(20.0, None),
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
