//! TCP connections through whatever is between, both ends without a kernel's stack.
//!
//! | room | owns |
//! |---|---|
//! | [`client`] | many connections, their states and time-outs |
//! | [`server`] | answers, without memory |
//! | [`segment`], [`wire`] | segments as frames, and a port for them |
//! | [`wheel`] | the time-outs' timers |

pub mod client;
pub mod segment;
pub mod server;
pub mod wheel;
pub mod wire;

#[cfg(test)]
mod tests;

use std::time::Duration;

use ringgate_dataplane::port::Port;
use serde_json::{Map, Value, json};

use self::client::{Client, Tally};
use self::segment::Segment;
use self::server::{Server, Way};
use self::wire::Wire;
use super::blast::{clock, nanoseconds};
use super::device::{Device, Use};
use super::judge::Backend;
use super::netns::Place;
use super::pace::{BURST, Pace};
use super::progress::Progress;
use super::report::{Latency, Limit};
use super::shape::Ends;

/// Handshakes that are under way at a time while connections are left open.
const MOST_OPENING: usize = 1_024;

/// How long connections that are under way may go on after the end, nanoseconds: a SYN that was lost
/// is sent again after one second.
const PATIENCE: u64 = 3_000_000_000;

/// A rate below this share of the wanted one was limited by something.
const ENOUGH: f64 = 0.99;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Order {
    /// Between whom.
    pub ends: Ends,
    /// How many client addresses.
    pub clients: u32,
    /// Connections at a time.
    pub concurrent: u32,
    /// New ones per second; `None`: as many as can be.
    pub rate: Option<u64>,
    /// How long new ones begin.
    pub duration: Duration,
    /// Whether they stay open once they have their response.
    pub linger: bool,
    /// Bytes of a response.
    pub size: usize,
    /// Of the server's secret.
    pub seed: u64,
}

/// Does `order` out of `out`; what arrives at `inlet`, if given, is answered there.
///
/// # Errors
///
/// In words.
pub fn connect(order: &Order, out: &Place, inlet: Option<&Place>) -> Result<Outcome, String> {
    let inside = inlet
        .map(|place| Device::open(place, Use::Receive))
        .transpose()?;
    let outside = Device::open(out, Use::Receive)?;
    let client = Client::new(
        order.ends,
        order.clients,
        order.concurrent,
        order.size,
        order.linger,
        clock(),
    )?;
    let server = Server::new(order.ends.to, order.size, order.seed);
    let (_inner, inside) = match inside {
        Some(device) => (device.steering, Some(Wire::new(device.port, device.pool))),
        None => (None, None),
    };
    let _outer = outside.steering;
    let mut both = Both {
        client,
        outside: Wire::new(outside.port, outside.pool),
        server,
        inside,
        direct: Vec::new(),
        most_opening: if order.linger {
            MOST_OPENING
        } else {
            order.concurrent as usize
        },
        was_full: false,
    };
    let mut progress = Progress::new(["begun", "completed"]);
    Ok(both.run(order, clock, &mut progress))
}

/// Client and server, and what is between them and their interfaces.
#[derive(Debug)]
struct Both<P> {
    client: Client,
    outside: Wire<P>,
    server: Server,
    inside: Option<Wire<P>>,
    /// Answers that do not go through the balancer.
    direct: Vec<Segment>,
    most_opening: usize,
    /// Whether connections would have begun, and there was no room.
    was_full: bool,
}

impl<P: Port> Both<P> {
    fn run(&mut self, order: &Order, clock: impl Fn() -> u64, progress: &mut Progress) -> Outcome {
        let start = clock();
        let end = start + nanoseconds(order.duration);
        let mut pace = Pace::new(order.rate, start);
        let mut now = start;
        while now < end {
            self.begin(&mut pace, now);
            self.turn(&clock, now);
            now = clock();
            let tally = self.client.tally();
            progress.tell(now, [tally.started, tally.completed]);
        }
        let in_time = self.client.tally().completed;
        let seconds = Duration::from_nanos(now - start).as_secs_f64();
        while self.client.under_way() > 0 && now < end + PATIENCE {
            self.turn(&clock, now);
            now = clock();
        }
        Outcome {
            tally: *self.client.tally(),
            seconds,
            in_time,
            wanted: order.rate,
            connect: Latency::of(self.client.connect_times()),
            whole: Latency::of(self.client.whole_times()),
            backends: self.server.backends(),
            unknown: self.server.resets(),
            dropped: self.outside.dropped() + self.inside.as_mut().map_or(0, Wire::dropped),
            was_full: self.was_full,
        }
    }

    /// Begins connections as they are due.
    fn begin(&mut self, pace: &mut Pace, now: u64) {
        let due = pace.due(now, BURST);
        for _ in 0..due {
            if self.client.under_way() >= self.most_opening || !self.client.has_room() {
                self.was_full = true;
                break;
            }
            let Some(segment) = self.client.begin(now) else {
                self.was_full = true;
                break;
            };
            self.outside.send(&segment);
            pace.took(1);
        }
    }

    /// Everything but beginning connections.
    fn turn(&mut self, clock: &impl Fn() -> u64, now: u64) {
        let Self {
            client,
            outside,
            server,
            inside,
            direct,
            ..
        } = self;
        client.expire(now, |segment| outside.send(segment));
        outside.flush();
        if let Some(inside) = inside {
            inside.receive(clock, |wire, segment, _| match server.answer(segment) {
                Some(Way::Back(answer)) => wire.send(&answer),
                Some(Way::Direct(answer)) => direct.push(answer),
                None => {}
            });
            inside.flush();
        }
        outside.receive(clock, |wire, segment, time| {
            if let Some(answer) = client.see(segment, time) {
                wire.send(&answer);
            }
        });
        for segment in direct.drain(..) {
            if let Some(answer) = client.see(&segment, now) {
                outside.send(&answer);
            }
        }
        outside.flush();
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What happened, to the last connection.
    pub tally: Tally,
    /// How long new ones began.
    pub seconds: f64,
    /// Completed in that time.
    pub in_time: u64,
    /// New ones per second that were asked for.
    pub wanted: Option<u64>,
    /// From the SYN to its answer.
    pub connect: Option<Latency>,
    /// From the SYN to the end.
    pub whole: Option<Latency>,
    /// Who was spoken to: segments, and connections.
    pub backends: Vec<Backend>,
    /// Requests to a backend that had not opened the connection.
    pub unknown: u64,
    /// Frames that the generator itself lost.
    pub dropped: u64,
    /// Whether the limit of connections at a time held others back.
    pub was_full: bool,
}

impl Outcome {
    /// Completed per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.in_time as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// Who of the generator was the limit.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        let begun = self.tally.started as f64 / self.seconds.max(f64::MIN_POSITIVE);
        let is_slow = self
            .wanted
            .is_some_and(|wanted| begun < wanted as f64 * ENOUGH);
        match (self.dropped > 0, is_slow && !self.was_full) {
            (true, _) => Some(Limit::Sink),
            (_, true) => Some(Limit::Source),
            _ => None,
        }
    }

    /// As JSON: `docs/GENERATOR.md` says what is what.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let backends: Map<String, Value> = self
            .backends
            .iter()
            .map(|backend| {
                let value = json!({ "frames": backend.frames, "flows": backend.flows });
                (backend.whom.to_string(), value)
            })
            .collect();
        let latency = |latency: &Option<Latency>| latency.as_ref().map(Latency::to_json);
        let Tally {
            started,
            opened,
            completed,
            failed,
            reset,
            retransmitted,
            most_open,
            ..
        } = self.tally;
        json!({
            "started": started,
            "opened": opened,
            "completed": completed,
            "failed": failed,
            "reset": reset,
            "retransmitted": retransmitted,
            "unknown": self.unknown,
            "per_second": self.per_second().round(),
            "seconds": self.seconds,
            "wanted_per_second": self.wanted,
            "concurrent": most_open,
            "was_full": self.was_full,
            "connect_ns": latency(&self.connect),
            "whole_ns": latency(&self.whole),
            "backends": backends,
            "dropped": self.dropped,
            "limit": self.limit().map(Limit::name),
        })
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let tally = &self.tally;
        let mut lines = vec![
            format!(
                "{} begun, {} opened, {} completed, {:.0}/s; at most {} at a time",
                tally.started,
                tally.opened,
                tally.completed,
                self.per_second(),
                tally.most_open
            ),
            format!(
                "{} failed, {} reset, {} segments sent again",
                tally.failed, tally.reset, tally.retransmitted
            ),
        ];
        for (name, latency) in [("connect", &self.connect), ("whole  ", &self.whole)] {
            if let Some(latency) = latency {
                lines.push(format!("{name}   {}", latency.to_text()));
            }
        }
        for Backend {
            whom,
            frames,
            flows,
        } in &self.backends
        {
            lines.push(format!(
                "backend   {whom}: {flows} connections, {frames} segments"
            ));
        }
        lines.join("\n")
    }
}
