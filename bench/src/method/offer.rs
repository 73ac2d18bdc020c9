//! Traffic: `blast` and `connect` as programs of their own, and their results read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::method::child::{Background, Ran, Stop};
use crate::method::contestant::{Running, Tools};
use crate::method::topology::{FIRST_CLIENT, FIRST_CLIENT_6, FRONT, Lane, NEAR};

/// The source's CPU, and the sink's.
const CORE: &str = "0";

/// Frames per second from which on the kernel makes them.
const LEAST_LIVE: f64 = 1_000.0;

/// Exit status of a generator that was the limit itself: its result counts, and says so.
const LIMITED: i32 = 3;

/// What a run of the generator may take beyond its traffic.
const SLACK: Duration = Duration::from_secs(20);

/// UDP traffic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) lane: Lane,
    pub(crate) to: SocketAddr,
    pub(crate) flows: u32,
    /// Bytes, or `imix`.
    pub(crate) size: String,
    /// Frames per second; none: as many as can be.
    pub(crate) rate: Option<f64>,
    pub(crate) warmup: f64,
    pub(crate) seconds: f64,
    /// Whether what arrives is looked at. If not, the source has its CPU to itself.
    pub(crate) is_judged: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shot {
    pub(crate) offered: f64,
    pub(crate) offered_frames: f64,
    pub(crate) seconds: f64,
    pub(crate) lost: f64,
    pub(crate) moved: f64,
    pub(crate) seen: f64,
    /// Flows by backend.
    pub(crate) backends: BTreeMap<String, f64>,
    /// Nanoseconds by name.
    pub(crate) latency: BTreeMap<String, f64>,
    /// `source` or `sink`.
    pub(crate) limit: Option<String>,
    /// All that was said.
    pub(crate) raw: Value,
}

impl Shot {
    /// Share of the frames that did not arrive.
    pub(crate) fn loss_ratio(&self) -> f64 {
        if self.offered_frames > 0.0 {
            self.lost / self.offered_frames
        } else {
            1.0
        }
    }

    /// Reads the generator's JSON.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let raw: Value =
            serde_json::from_str(text).map_err(|error| format!("blast's answer: {error}"))?;
        let needed = |place: &str| {
            raw.pointer(place)
                .and_then(Value::as_f64)
                .ok_or_else(|| format!("blast's answer has no number {place}: {raw}"))
        };
        let number = |place: &str| raw.pointer(place).and_then(Value::as_f64).unwrap_or(0.0);
        let numbers = |place: &str, below: &str| -> BTreeMap<String, f64> {
            let object = raw.pointer(place).and_then(Value::as_object);
            let pairs = object.into_iter().flatten();
            let value = |value: &Value| value.pointer(below).and_then(Value::as_f64);
            pairs
                .filter_map(|(name, of)| Some((name.clone(), value(of)?)))
                .collect()
        };
        let (frames, seconds) = (needed("/offered/frames")?, needed("/offered/seconds")?);
        Ok(Self {
            offered: if seconds > 0.0 { frames / seconds } else { 0.0 },
            offered_frames: frames,
            seconds,
            lost: number("/lost"),
            moved: number("/flows/moved"),
            seen: number("/flows/seen"),
            backends: numbers("/backends", "/flows"),
            latency: numbers("/latency_ns", ""),
            limit: raw["limit"].as_str().map(str::to_owned),
            raw,
        })
    }
}

impl Traffic {
    /// As fast as it can be made, nobody looking at it.
    pub(crate) fn flood(to: &Running, size: &str, flows: u32, seconds: f64) -> Self {
        Self {
            lane: to.lane.clone(),
            to: to.target,
            flows,
            size: size.to_owned(),
            rate: None,
            warmup: 0.0,
            seconds,
            is_judged: false,
        }
    }

    fn command(&self, tools: &Tools) -> Command {
        let mut command = Command::new(&tools.bench);
        command.args(["blast", "--json", "--core", CORE]);
        // The kernel makes them in its own rhythm, which is too coarse for a few.
        if self.rate.is_none_or(|rate| rate >= LEAST_LIVE) {
            command.arg("--live-frames");
        }
        command.args(["--near", NEAR, "--far", FRONT]);
        command.args(["--out", &format!("c0@{}", self.lane.source)]);
        if self.is_judged {
            command.args(["--in", &format!("{}@{}", self.lane.inlet, self.lane.sink)]);
        }
        let from = if self.to.is_ipv6() {
            FIRST_CLIENT_6
        } else {
            FIRST_CLIENT
        };
        let rate = self
            .rate
            .map_or_else(|| "max".to_owned(), |rate| format!("{:.0}", rate.max(1.0)));
        let options = [
            ("--from", from.to_owned()),
            ("--to", self.to.to_string()),
            ("--flows", self.flows.to_string()),
            ("--size", self.size.clone()),
            ("--rate", rate),
            ("--warmup", format!("{:.2}", self.warmup)),
            ("--seconds", format!("{:.2}", self.seconds)),
        ];
        for (name, value) in options {
            command.args([name, &value]);
        }
        command
    }

    /// Begins; the caller does something meanwhile.
    pub(crate) fn begin(&self, tools: &Tools) -> Result<Underway, String> {
        Ok(Underway {
            process: Background::start(&mut self.command(tools))?,
            limit: Duration::from_secs_f64(self.warmup + self.seconds) + SLACK,
        })
    }

    /// Sends it.
    pub(crate) fn send(&self, tools: &Tools, stop: &Stop) -> Result<Shot, String> {
        self.begin(tools)?.end(stop)
    }
}

/// Traffic that flows.
#[derive(Debug)]
pub(crate) struct Underway {
    process: Background,
    limit: Duration,
}

impl Underway {
    /// Waits for its end.
    pub(crate) fn end(self, stop: &Stop) -> Result<Shot, String> {
        Shot::read(&answer(self.process.wait(self.limit, stop)?, "blast")?)
    }
}

/// TCP connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connections {
    pub(crate) lane: Lane,
    pub(crate) to: SocketAddr,
    /// First client. Not who was before: a proxy that was killed leaves half-closed sockets in the
    /// kernel, and who comes from the same address and port gets no SYN-ACK from them.
    pub(crate) from: String,
    pub(crate) clients: u32,
    pub(crate) concurrent: u32,
    pub(crate) seconds: u32,
    /// Whether they are left open.
    pub(crate) linger: bool,
}

impl Connections {
    /// Opens them; the answer is the generator's JSON.
    pub(crate) fn open(&self, tools: &Tools, stop: &Stop) -> Result<Value, String> {
        let mut command = Command::new(&tools.bench);
        command.args(["connect", "--json", "--core", CORE]);
        command.args(["--out", &format!("c0@{}", self.lane.source)]);
        command.args(["--in", &format!("{}@{}", self.lane.inlet, self.lane.sink)]);
        command.args(["--near", NEAR, "--far", FRONT, "--from", &self.from]);
        let options = [
            ("--to", self.to.to_string()),
            ("--clients", self.clients.to_string()),
            ("--concurrent", self.concurrent.to_string()),
            ("--seconds", self.seconds.to_string()),
            ("--rate", "max".to_owned()),
            ("--size", "64".to_owned()),
        ];
        for (name, value) in options {
            command.args([name, &value]);
        }
        if self.linger {
            command.arg("--linger");
        }
        let limit = Duration::from_secs(self.seconds.into()) + SLACK;
        let text = answer(
            Background::start(&mut command)?.wait(limit, stop)?,
            "connect",
        )?;
        serde_json::from_str(&text).map_err(|error| format!("connect's answer: {error}"))
    }
}

fn answer(mut ran: Ran, what: &str) -> Result<String, String> {
    if ran.code == Some(LIMITED) && !ran.out.trim().is_empty() {
        ran.code = Some(0);
    }
    ran.good(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_agreed() {
        let shot = Shot::read(
            r#"{"offered":{"frames":1000,"bytes":64000,"seconds":2.0,"pps":500,"wanted_pps":500},
            "received":{"frames":990,"pps":495},"lost":10,"reordered":0,"duplicated":0,"corrupt":0,
            "foreign":0,"flows":{"asked":8,"seen":7,"moved":2},
            "backends":{"10.2.0.11:5353":{"frames":990,"flows":7}},
            "latency_ns":{"count":990,"min":5,"p50":20,"p99.9":70,"max":90,"mean":21.5},"limit":null}"#,
        )
        .unwrap();
        assert_eq!((shot.offered, shot.loss_ratio()), (500.0, 0.01));
        assert_eq!(
            (shot.moved, shot.seen, shot.limit.as_deref()),
            (2.0, 7.0, None)
        );
        assert_eq!(shot.backends["10.2.0.11:5353"], 7.0);
        assert_eq!((shot.latency["p50"], shot.latency["p99.9"]), (20.0, 70.0));
    }

    #[test]
    fn a_source_alone_has_neither_losses_nor_latencies() {
        let text = r#"{"offered":{"frames":10,"seconds":1},"received":null,"lost":null,
            "latency_ns":null,"limit":"source"}"#;
        let shot = Shot::read(text).unwrap();
        assert_eq!((shot.lost, shot.latency.len()), (0.0, 0));
        assert_eq!(shot.limit.as_deref(), Some("source"));
        assert!(Shot::read("{}").unwrap_err().contains("/offered/frames"));
        assert!(Shot::read("").is_err());
    }
}
