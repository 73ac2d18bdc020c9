//! Where the time of a packet goes between two interfaces: the balancer's own worker, and the bare forwarder,
//! each on ports that tell how long their calls took.
//!
//! The clock is read twice in each call of a port, some ten calls a turn; what that takes is told beside the
//! rest, and is part of each stage. What is between the calls is the balancer's own work: parse, look up,
//! decide, rewrite, count. [`micro`](crate::micro) and `scripts/instructions` divide that further.

use std::time::Duration;

use ringgate_dataplane::pin::pin;
use ringgate_dataplane::port::{Batch, XskPort};
use ringgate_dataplane::worker::Worker;
use serde_json::{Value, json};

use crate::bare;
use crate::meter;
use crate::micro::table;
use crate::micro::world::Plan;
use crate::pair::{Programs, pair};
use crate::timed::{Spent, Timed};

/// Readings of the clock that its cost is the mean of.
const READINGS: u32 = 100_000;

/// What became of a window.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Frames received.
    pub frames: u64,
    /// Turns, and those of them that found frames.
    pub turns: u64,
    /// See [`turns`](Self::turns).
    pub busy_turns: u64,
    /// Time of the turns that found frames.
    pub busy: Duration,
    /// Of that, within the ports.
    pub spent: Spent,
}

/// Runs the balancer's worker from `path.front` to `path.back` for `duration`: every mode and family at the addresses
/// of [`Service`](crate::micro::world::Service).
///
/// # Errors
///
/// In words.
pub fn balancer(path: &bare::Path, entries: usize, duration: Duration) -> Result<Window, String> {
    let mut plan = Plan::new(table::shared(entries)?, 1, (1, false))?;
    let (programs, ports, pool) = open(path, plan.snapshot.steered())?;
    let ports = ports.into_iter().map(Timed::new).collect();
    let mut worker = Worker::new(plan.parts(0, (ports, pool)));
    let window = watch(duration, &mut worker, Worker::turn, |worker| {
        spent(&worker.parts().ports)
    });
    let left = worker.stop();
    let ports = left.ports.into_iter().map(|port| port.inner).collect();
    programs
        .close(ports, left.pool)
        .map_err(|error| error.to_string())?;
    Ok(window)
}

/// The same with the bare forwarder.
///
/// # Errors
///
/// In words.
pub fn forwarder(path: &bare::Path, duration: Duration) -> Result<Window, String> {
    let plan = Plan::new(table::shared(1024)?, 1, (1, false))?;
    let (programs, ports, mut pool) = open(path, plan.snapshot.steered())?;
    let mut ports: Vec<Timed<XskPort>> = ports.into_iter().map(Timed::new).collect();
    let mut batch = Batch::new();
    let window = watch(
        duration,
        &mut ports,
        |ports| bare::turn(ports, &mut pool, &mut batch, path),
        |ports| spent(ports),
    );
    let ports = ports.into_iter().map(|port| port.inner).collect();
    programs
        .close(ports, pool)
        .map_err(|error| error.to_string())?;
    Ok(window)
}

fn open(
    path: &bare::Path,
    steered: &ringgate_dataplane::steered::Steered,
) -> Result<(Programs, Vec<XskPort>, ringgate_dataplane::xsk::Pool), String> {
    pin(path.core).map_err(|error| error.to_string())?;
    pair([&path.front, &path.back], steered).map_err(|error| error.to_string())
}

/// Turns for `duration`, and adds up those that find something. The others are the source's doing.
fn watch<T>(
    duration: Duration,
    forwarder: &mut T,
    mut turn: impl FnMut(&mut T) -> usize,
    mut spent: impl FnMut(&mut T) -> Spent,
) -> Window {
    let mut window = Window {
        frames: 0,
        turns: 0,
        busy_turns: 0,
        busy: Duration::ZERO,
        spent: Spent::default(),
    };
    let end = meter::elapsed() + duration;
    let mut before = spent(forwarder);
    let mut now = meter::elapsed();
    while now < end {
        let found = turn(forwarder);
        let (then, after) = (
            std::mem::replace(&mut now, meter::elapsed()),
            spent(forwarder),
        );
        window.turns += 1;
        if found > 0 {
            window.busy_turns += 1;
            window.frames += found as u64;
            window.busy += now - then;
            window.spent = window.spent.and(difference(after, before));
        }
        before = after;
    }
    window
}

fn spent(ports: &[Timed<XskPort>]) -> Spent {
    let ports = ports.iter().map(|port| port.spent);
    ports.fold(Spent::default(), Spent::and)
}

fn difference(after: Spent, before: Spent) -> Spent {
    Spent {
        receive: after.receive - before.receive,
        recycle: after.recycle - before.recycle,
        transmit: after.transmit - before.transmit,
        kick: after.kick - before.kick,
        calls: after.calls - before.calls,
    }
}

/// What a reading of the clock takes, on average.
fn clock() -> Duration {
    let began = meter::elapsed();
    for _ in 0..READINGS {
        std::hint::black_box(meter::elapsed());
    }
    (meter::elapsed() - began) / READINGS
}

impl Window {
    /// Nanoseconds a frame, by stage.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let frames = self.frames.max(1);
        let each = |time: Duration| {
            // A tenth of a nanosecond is more than the clock can tell.
            let tenths = time.as_nanos().saturating_mul(10) / u128::from(frames);
            f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0
        };
        let Spent {
            receive,
            recycle,
            transmit,
            kick,
            calls,
        } = self.spent;
        // Two readings a call, of which about one is in what the call is told to take.
        let clocks = u32::try_from(calls).unwrap_or(u32::MAX);
        let clock = clock().saturating_mul(clocks.saturating_mul(2));
        json!({
            "frames": self.frames,
            "turns": self.turns,
            "busy_turns": self.busy_turns,
            "frames_a_busy_turn": self.frames / self.busy_turns.max(1),
            "nanoseconds_a_frame": {
                "receive": each(receive),
                "recycle": each(recycle),
                "own": each(self.busy.saturating_sub(self.spent.total())),
                "transmit": each(transmit),
                "kick": each(kick),
                "all": each(self.busy),
                "clock": each(clock),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_the_ports_and_what_is_not_make_up_the_whole() {
        let window = Window {
            frames: 10,
            turns: 9,
            busy_turns: 2,
            busy: Duration::from_nanos(1000),
            spent: Spent {
                receive: Duration::from_nanos(100),
                recycle: Duration::from_nanos(50),
                transmit: Duration::from_nanos(150),
                kick: Duration::from_nanos(400),
                calls: 0,
            },
        };
        let told = window.to_json();
        let stage = |name: &str| told["nanoseconds_a_frame"][name].as_f64().unwrap();
        let stages = ["receive", "recycle", "own", "transmit", "kick"];
        let sum: f64 = stages.into_iter().map(stage).sum();
        assert!((sum - stage("all")).abs() < 0.1, "{told}");
        assert!((stage("own") - 30.0).abs() < 0.1, "{told}");
        assert_eq!(told["frames_a_busy_turn"], 5);
    }

    #[test]
    fn only_turns_that_find_something_count() {
        let mut found = [0_usize, 3, 0, 4].into_iter().cycle();
        let window = watch(
            Duration::from_millis(1),
            &mut (),
            |()| found.next().unwrap(),
            |()| Spent::default(),
        );
        assert!(window.turns >= 2 * window.busy_turns);
        assert!(window.frames >= 3 * window.busy_turns);
        assert!(window.frames <= 4 * window.busy_turns);
    }
}
