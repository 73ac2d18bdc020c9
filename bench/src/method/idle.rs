//! A balancer without traffic: what it takes of a core, and how long its first packet waits.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use ringgate_dataplane::pin::pin;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use serde_json::json;

use crate::meter;
use crate::method::bench::Bench;
use crate::method::child::Stop;
use crate::method::contestant::Scene;
use crate::method::offer::Traffic;
use crate::method::outcome::{Row, median};
use crate::method::plan::Plan;

/// Frames per second: between two of them everybody goes to sleep.
const SELDOM: f64 = 2.0;

/// How long seldom packets come, seconds.
const SPELL: f64 = 3.5;

/// Times that a thread is woken, and how long it sleeps before.
const WAKES: usize = 6;
const WAKE_PAUSE: Duration = Duration::from_millis(250);

/// Its CPU, which is who forwards' else, and the CPU of who wakes it, which is the generator's.
const SLEEPER: usize = 1;
const WAKER: usize = 0;

/// How long idling takes, seconds.
pub(crate) fn estimate(plan: &Plan) -> f64 {
    plan.idle + Plan::START + 1.0
}

/// How long first packets take, seconds.
pub(crate) fn estimate_first(_plan: &Plan) -> f64 {
    3.0 * (SPELL + Plan::SHOT) + 2.0 * Plan::START + WAKES as f64 * WAKE_PAUSE.as_secs_f64()
}

/// The row `idle`.
pub(crate) fn measure(bench: &mut Bench) -> Result<Vec<Row>, String> {
    Ok(vec![idle(bench)?])
}

/// Rows `first-packet`: of both; of the wire, which is one link with the same source and sink at its
/// ends and nobody between; and of a thread that sleeps as a worker does and is woken by another
/// CPU, which is what this host takes for that and nothing else.
pub(crate) fn first_packets(bench: &mut Bench) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for who in ["bare", "ringgate"] {
        let running = bench.start_ours(who, &Scene::plain(1))?;
        let traffic = Traffic::flood(&running, "64", 1, SPELL);
        rows.push(first_packet(bench, who, traffic)?);
    }
    let wire = Traffic {
        lane: bench.lane("wire")?.wire(),
        to: Scene::plain(1).service(),
        flows: 1,
        size: "64".to_owned(),
        rate: None,
        warmup: 0.0,
        seconds: SPELL,
        is_judged: true,
    };
    rows.push(first_packet(bench, "wire", wire)?);
    let woken = wake_ups(&bench.stop)?;
    bench.keep(
        json!({"method": "first-packet", "who": "wake-up"}),
        json!({"microseconds": woken}),
    );
    rows.push(named("wake-up").of(&woken));
    Ok(rows)
}

fn idle(bench: &mut Bench) -> Result<Row, String> {
    let running = bench.start_ours("ringgate", &Scene::plain(1))?;
    let process = running.process().ok_or("no process")?;
    // What starting has left behind is over.
    bench.stop.pause(Duration::from_secs(1))?;
    let (start, before) = (meter::now(), cpu_seconds(process)?);
    bench.stop.pause(Duration::from_secs_f64(bench.plan.idle))?;
    let used = cpu_seconds(process)? - before;
    let passed = start.elapsed().as_secs_f64();
    bench.keep(
        json!({"method": "idle", "who": "ringgate"}),
        json!({"cpu_seconds": used, "seconds": passed}),
    );
    let row = Row {
        method: "idle".to_owned(),
        who: "ringgate".to_owned(),
        unit: "% of a core".to_owned(),
        ..Row::default()
    };
    Ok(row.of(&[100.0 * used / passed]))
}

fn first_packet(bench: &mut Bench, who: &str, traffic: Traffic) -> Result<Row, String> {
    let traffic = Traffic {
        rate: Some(SELDOM),
        is_judged: true,
        ..traffic
    };
    let shot = traffic.send(&bench.tools, &bench.stop)?;
    bench.keep(
        json!({"method": "first-packet", "who": who}),
        shot.raw.clone(),
    );
    let micros = |name: &str| shot.latency.get(name).map(|ns| ns / 1000.0);
    let row = Row {
        value: median(micros("p50")),
        least: micros("min"),
        most: micros("max"),
        ..named(who)
    };
    Ok(row
        .with("packets", Some(shot.offered_frames))
        .with("lost", Some(shot.lost)))
}

fn named(who: &str) -> Row {
    Row {
        method: "first-packet".to_owned(),
        who: who.to_owned(),
        case: format!("one each {:.1} s", 1.0 / SELDOM),
        unit: "µs".to_owned(),
        ..Row::default()
    }
}

/// Microseconds from one CPU's writing to an eventfd to another's having returned from poll(2),
/// in which it slept as long as a worker would have.
fn wake_ups(stop: &Stop) -> Result<Vec<f64>, String> {
    let error = |error: rustix::io::Errno| format!("an eventfd: {error}");
    let event = eventfd(0, EventfdFlags::empty()).map_err(error)?;
    let (tell, told) = sync_channel(1);
    std::thread::scope(|scope| {
        let event = &event;
        let sleeper = scope.spawn(move || -> Result<(), String> {
            pin(SLEEPER).map_err(|error| error.to_string())?;
            for _ in 0..WAKES {
                let _one = poll(&mut [PollFd::new(event, PollFlags::IN)], None).map_err(error)?;
                // Who listens no more has been interrupted.
                let _gone = tell.send(meter::now());
                let _one = rustix::io::read(event, &mut [0; 8]).map_err(error)?;
            }
            Ok(())
        });
        let waker = scope.spawn(move || {
            pin(WAKER).map_err(|error| error.to_string())?;
            let woken = wake(event, &told, stop);
            // Whatever came between, the sleeper is let go.
            while woken.is_err() && told.try_recv() != Err(TryRecvError::Disconnected) {
                let _full = rustix::io::write(event, &1u64.to_ne_bytes());
            }
            woken
        });
        let woken = waker.join();
        let woken = woken.unwrap_or_else(|_| Err("the waker ended early".to_owned()));
        let ended = sleeper.join();
        ended.unwrap_or_else(|_| Err("the sleeper ended early".to_owned()))?;
        woken
    })
}

fn wake(event: &OwnedFd, told: &Receiver<Instant>, stop: &Stop) -> Result<Vec<f64>, String> {
    let mut woken = Vec::new();
    for _ in 0..WAKES {
        stop.pause(WAKE_PAUSE)?;
        let start = meter::now();
        let _written = rustix::io::write(event, &1u64.to_ne_bytes())
            .map_err(|error| format!("an eventfd: {error}"))?;
        let end = told
            .recv()
            .map_err(|_| "the sleeper ended early".to_owned())?;
        woken.push(end.duration_since(start).as_secs_f64() * 1e6);
    }
    Ok(woken)
}

/// CPU time of all threads of a process since they began, kernel time included.
fn cpu_seconds(process: u32) -> Result<f64, String> {
    let directory = format!("/proc/{process}/task");
    let said = |error: std::io::Error| format!("{directory}: {error}");
    let mut ticks = 0;
    for thread in fs::read_dir(&directory).map_err(said)? {
        let file = thread.map_err(said)?.path().join("stat");
        let text = fs::read_to_string(file).map_err(said)?;
        ticks += ticks_of(&text).ok_or_else(|| format!("{directory}: not a stat file: {text}"))?;
    }
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// User and kernel time of a stat file (proc(5)): fields 14 and 15, counted behind the name,
/// which may have spaces and brackets in it.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_read_behind_a_name_with_brackets() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194304 100 0 0 0 42 8 0 0 20 0 3 0 100 0 0";
        assert_eq!(ticks_of(stat), Some(50));
        assert_eq!(ticks_of("7 (a) S 1"), None);
        assert_eq!(ticks_of(""), None);
    }

    #[test]
    fn a_process_that_works_uses_time() {
        let before = cpu_seconds(std::process::id()).unwrap();
        let start = meter::thread_cpu();
        while meter::thread_cpu() - start < Duration::from_millis(100) {}
        assert!(cpu_seconds(std::process::id()).unwrap() >= before + 0.05);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
