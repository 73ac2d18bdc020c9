//! What traffic notices of changes: backends that go and come, a reload, a balancer that is killed.
//!
//! Traffic of a modest, even rate flows, something is done to the balancer meanwhile, and the sink
//! says what was lost and which flows changed their backend.

use std::time::Duration;

use serde_json::json;

use crate::method::bench::Bench;
use crate::method::contestant::{Running, Scene, configure, reload, start};
use crate::method::offer::{Shot, Traffic};
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;
use crate::method::topology::{BACKENDS, Lane};

/// Frames per second: far below what anybody forwards, so that losses are the disturbance's.
const RATE: f64 = 50_000.0;

/// Flows: each has some packets before and after.
const FLOWS: u32 = 10_000;

/// All flows are there by then: seconds.
const WARM_UP: f64 = 0.5;

/// Reloads of one window.
const RELOADS: u32 = 3;

/// Windows with reloads, and as many without.
const RELOAD_ROUNDS: usize = 2;

/// Times that the balancer is killed.
const KILLS: usize = 3;

/// How long a window takes with everything around it, seconds.
fn window(plan: &Plan) -> f64 {
    plan.disturbed + WARM_UP + Plan::SHOT + Plan::START
}

/// How long all changes of backends take, seconds.
pub(crate) fn estimate_churn(plan: &Plan) -> f64 {
    4.0 * window(plan)
}

/// How long all reloads take, seconds.
pub(crate) fn estimate_reload(plan: &Plan) -> f64 {
    (2 * plan.rounds.min(RELOAD_ROUNDS)) as f64 * window(plan)
}

/// How long all kills take, seconds.
pub(crate) fn estimate_reset(plan: &Plan) -> f64 {
    KILLS.min(plan.rounds) as f64 * window(plan)
}

/// One of eight backends goes, or comes back, with flow entries and without: the share of flows
/// that change their backend though the one they had stays.
pub(crate) fn churn(bench: &mut Bench) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for stateless in [false, true] {
        let how = if stateless {
            "without flow entries"
        } else {
            "flow entries"
        };
        for (what, before, after) in [
            ("one of eight goes", BACKENDS, BACKENDS - 1),
            ("an eighth comes", BACKENDS - 1, BACKENDS),
        ] {
            let scene = |backends| Scene {
                backends,
                stateless,
                ..scene()
            };
            let running = bench.start_ours("ringgate", &scene(before))?;
            let shot = disturbed(bench, &running, |bench, lane| {
                configure(&scene(after), lane, 100)?;
                reload(lane, &bench.tools, &bench.stop)
            })?;
            let case = format!("{what}, {how}");
            bench.keep(
                json!({"method": "churn", "who": "ringgate", "case": case}),
                shot.raw.clone(),
            );
            let gone = if after < before {
                flows_of(&shot, after)
            } else {
                0.0
            };
            rows.push(churn_row(&shot, case, gone));
        }
    }
    Ok(rows)
}

fn churn_row(shot: &Shot, case: String, gone: f64) -> Row {
    let broken = (shot.moved - gone).max(0.0);
    let row = Row {
        method: "churn".to_owned(),
        case,
        unit: "% of flows broken".to_owned(),
        ..named()
    };
    let share = 100.0 * broken / shot.seen.max(1.0);
    row.of(&[share])
        .with("broken", Some(broken))
        .with("of the backend that went", Some(gone))
        .with("seen", Some(shot.seen))
        .with("lost", Some(shot.lost))
}

/// Flows that were seen at one backend.
fn flows_of(shot: &Shot, number: usize) -> f64 {
    let address = scene().backend(number, Some(scene().backend_port()));
    let own = shot.backends.iter().filter(|(name, _)| **name == address);
    own.map(|(_, flows)| flows).sum()
}

/// The configuration is read again under load, each time with another weight, beside the same
/// traffic without.
pub(crate) fn reloads(bench: &mut Bench) -> Result<Vec<Row>, String> {
    let cases = [("without reloads", 0), ("three reloads", RELOADS)];
    let mut shots = [Vec::new(), Vec::new()];
    let scene = Scene {
        backends: BACKENDS,
        ..scene()
    };
    for round in 0..bench.plan.rounds.min(RELOAD_ROUNDS) {
        for ((case, times), shots) in cases.iter().zip(&mut shots) {
            let running = bench.start_ours("ringgate", &scene)?;
            let shot = disturbed(bench, &running, |bench, lane| {
                for weight in 0..*times {
                    configure(&scene, lane, 50 + 10 * weight)?;
                    reload(lane, &bench.tools, &bench.stop)?;
                    bench.stop.pause(Duration::from_millis(200))?;
                }
                Ok(())
            })?;
            bench.keep(
                json!({"method": "reload", "who": "ringgate", "case": case, "round": round}),
                shot.raw.clone(),
            );
            shots.push(shot);
        }
    }
    let rows = cases.iter().zip(&shots).map(|((case, _), shots)| {
        let row = Row {
            method: "reload".to_owned(),
            case: (*case).to_owned(),
            unit: "frames lost".to_owned(),
            ..named()
        };
        row.of(&shots.iter().map(|shot| shot.lost).collect::<Vec<_>>())
            .with("moved", median(shots.iter().map(|shot| shot.moved)))
            .with("sent", median(shots.iter().map(|shot| shot.offered_frames)))
    });
    Ok(rows.collect())
}

/// The balancer is killed and started again at once: RFC 6201, frames lost by the rate at which
/// they came (section 4, the frame-loss method).
pub(crate) fn resets(bench: &mut Bench) -> Result<Vec<Row>, String> {
    let mut shots = Vec::new();
    for round in 0..KILLS.min(bench.plan.rounds) {
        let running = bench.start_ours("ringgate", &scene())?;
        let traffic = traffic(bench, &running);
        let mut again = None;
        let shot = disturbed_by(bench, &traffic, |bench, lane| {
            running.kill();
            let started = start("ringgate", &scene(), lane, &bench.tools, &bench.stop);
            again = Some(started.map_err(|refusal| refusal.to_string())?);
            Ok(())
        })?;
        drop(again);
        bench.keep(
            json!({"method": "reset", "who": "ringgate", "round": round}),
            shot.raw.clone(),
        );
        shots.push(shot);
    }
    let times: Vec<f64> = shots
        .iter()
        .map(|shot| 1000.0 * shot.lost / shot.offered.max(1.0))
        .collect();
    let row = Row {
        method: "reset".to_owned(),
        case: "kill -9, started again at once".to_owned(),
        unit: "ms".to_owned(),
        ..named()
    };
    Ok(vec![
        row.of(&times)
            .with("lost", median(shots.iter().map(|shot| shot.lost)))
            .with("moved", median(shots.iter().map(|shot| shot.moved))),
    ])
}

fn disturbed(
    bench: &Bench,
    running: &Running,
    act: impl FnOnce(&Bench, &Lane) -> Result<(), String>,
) -> Result<Shot, String> {
    disturbed_by(bench, &traffic(bench, running), act)
}

fn traffic(bench: &Bench, to: &Running) -> Traffic {
    Traffic {
        rate: Some(RATE),
        warmup: WARM_UP,
        is_judged: true,
        ..Traffic::flood(to, "64", FLOWS, bench.plan.disturbed)
    }
}

/// Traffic, in whose second third something is done.
fn disturbed_by(
    bench: &Bench,
    traffic: &Traffic,
    act: impl FnOnce(&Bench, &Lane) -> Result<(), String>,
) -> Result<Shot, String> {
    let underway = traffic.begin(&bench.tools)?;
    let before = traffic.warmup + traffic.seconds / 3.0;
    bench.stop.pause(Duration::from_secs_f64(before))?;
    act(bench, &traffic.lane)?;
    underway.end(&bench.stop)
}

fn scene() -> Scene {
    Scene::plain(FLOWS)
}

fn named() -> Row {
    Row {
        who: "ringgate".to_owned(),
        mode: "nat".to_owned(),
        size: "64".to_owned(),
        flows: FLOWS.into(),
        offered: Some(RATE),
        ..Row::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_whose_backend_went_are_not_broken() {
        let shot = Shot::read(
            r#"{"offered":{"frames":100000,"seconds":2},"lost":3,
            "flows":{"asked":10000,"seen":10000,"moved":1300},
            "backends":{"10.2.0.11:5353":{"frames":1,"flows":8000},"10.2.0.18:5353":{"frames":1,"flows":1250}}}"#,
        )
        .unwrap();
        let gone = flows_of(&shot, BACKENDS - 1);
        assert_eq!(gone, 1250.0);
        let row = churn_row(&shot, "one goes".to_owned(), gone);
        assert_eq!((row.value, row.figure("broken")), (Some(0.5), Some(50.0)));
        // More that left than moved: the rest was not seen again.
        let row = churn_row(&shot, "one goes".to_owned(), 2000.0);
        assert_eq!(row.value, Some(0.0));
    }
}
