//! Where the time of a packet goes between the two interfaces, with the kernel in it: `stages`, of
//! the balancer's worker and of the bare forwarder, under more traffic than either forwards.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::method::bench::Bench;
use crate::method::child::Background;
use crate::method::contestant::Scene;
use crate::method::offer::Traffic;
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;
use crate::method::topology::{BACK, SINK, inside};

/// Parts of a frame's time, in the order of a turn.
const PARTS: [&str; 6] = ["receive", "recycle", "own", "transmit", "kick", "all"];

const CONTESTANTS: [&str; 2] = ["bare", "ringgate"];

/// Whole seconds that are timed.
const SECONDS: u32 = 2;

/// Turns of each.
const ROUNDS: usize = 2;

/// What setting up and ending may take.
const SLACK: Duration = Duration::from_secs(20);

/// How long it takes, seconds.
pub(crate) fn estimate(plan: &Plan) -> f64 {
    let window = f64::from(SECONDS) + Plan::SHOT + Plan::START;
    (CONTESTANTS.len() * plan.rounds.min(ROUNDS)) as f64 * window
}

/// Rows `step`, contestants in turn.
pub(crate) fn measure(bench: &mut Bench) -> Result<Vec<Row>, String> {
    let mut windows = Vec::new();
    for round in 0..bench.plan.rounds.min(ROUNDS) {
        for who in CONTESTANTS {
            let window = window(bench, who)?;
            bench.keep(
                json!({"method": "step", "who": who, "round": round}),
                window.clone(),
            );
            windows.push((who, parts(&window)));
        }
    }
    let mut rows = Vec::new();
    for part in PARTS {
        for who in CONTESTANTS {
            let of = windows.iter().filter(|(name, _)| *name == who);
            let values: Vec<f64> = of.filter_map(|(_, all)| all.get(part)).copied().collect();
            let row = Row {
                method: "step".to_owned(),
                who: who.to_owned(),
                mode: "nat".to_owned(),
                size: "64".to_owned(),
                flows: bench.plan.flows.into(),
                case: part.to_owned(),
                unit: "ns a frame".to_owned(),
                ..Row::default()
            };
            rows.extend(median(values.iter().copied()).map(|_| row.of(&values)));
        }
    }
    Ok(rows)
}

fn window(bench: &mut Bench, who: &str) -> Result<Value, String> {
    let scene = Scene::plain(bench.plan.flows);
    // Nobody is there.
    let lane = bench.lane("stages")?;
    let mut command = inside(&lane.node, &bench.tools.bench);
    command.args([
        "stages", "--front", "front", "--back", "back", "--core", "1",
    ]);
    command.args(["--source", BACK, "--destination", SINK]);
    command.args(["--seconds", &SECONDS.to_string()]);
    if who == "bare" {
        command.arg("--bare");
    }
    let timed = Background::start(&mut command)?;
    let traffic = Traffic {
        lane,
        to: scene.service(),
        flows: scene.flows,
        size: "64".to_owned(),
        rate: None,
        warmup: 0.0,
        // Until shortly after its end.
        seconds: f64::from(SECONDS) + 0.5,
        is_judged: false,
    };
    // A veth takes frames of this kind only when its peer has a program.
    bench.stop.pause(Duration::from_millis(500))?;
    let underway = traffic.begin(&bench.tools)?;
    let limit = Duration::from_secs(SECONDS.into()) + SLACK;
    let text = timed
        .wait(limit, &bench.stop)?
        .good("ringgate-bench stages")?;
    drop(underway);
    serde_json::from_str(&text).map_err(|error| format!("the answer of stages: {error}"))
}

/// Nanoseconds of a frame by part.
fn parts(window: &Value) -> BTreeMap<&'static str, f64> {
    let of = |part: &'static str| Some((part, window["nanoseconds_a_frame"][part].as_f64()?));
    PARTS.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_stages_tells_them() {
        let window = json!({"frames": 7, "nanoseconds_a_frame": {"receive": 100, "recycle": 20,
            "own": 60.5, "transmit": 15, "kick": 2900, "all": 3100, "clock": 1}});
        let parts = parts(&window);
        assert_eq!(parts.len(), PARTS.len());
        assert_eq!((parts["own"], parts["kick"]), (60.5, 2900.0));
    }
}
