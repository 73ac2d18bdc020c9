//! What came out: as text for people and as JSON for programs.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::judge::{Backend, Counts};

/// The exit status of a run whose result says less than what was asked: the generator was the limit.
pub const LIMITED: u8 = 3;

/// A source that sends less than this share of the wanted rate was the limit.
const ENOUGH: f64 = 0.99;

/// Who could not keep up, of the generator's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// It did not send what was asked.
    Source,
    /// Frames arrived and were not taken in time.
    Sink,
}

impl Limit {
    /// As it is called in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Sink => "sink",
        }
    }
}

/// What was sent while it was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offered {
    /// Frames handed to the device; it may have dropped some.
    pub frames: u64,
    /// Of those, with check sequences.
    pub bytes: u64,
    /// For how long.
    pub seconds: f64,
    /// Frames per second that were asked for.
    pub wanted: Option<u64>,
}

impl Offered {
    /// Frames per second.
    #[must_use]
    pub fn pps(&self) -> f64 {
        rate(self.frames, self.seconds)
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Frames.
    pub counts: Counts,
    /// By whom they were to be answered.
    pub backends: Vec<Backend>,
    /// Nanoseconds; `None` if the clocks of both ends have nothing in common.
    pub latency: Option<Latency>,
    /// Frames that arrived at the sink's device and that it did not take in time.
    pub dropped: u64,
    /// For how long it was looked.
    pub seconds: f64,
}

/// A distribution of times, nanoseconds, to three digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// The shortest.
    pub min: u64,
    /// The median, and the quantiles that follow its name: 0.9, 0.99, 0.999, 0.9999.
    pub quantiles: [u64; 5],
    /// The longest.
    pub max: u64,
    /// On the average.
    pub mean: f64,
}

/// The names of [`Latency::quantiles`] and what they are.
const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

impl Latency {
    /// `None` if there is nothing.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            min: histogram.min(),
            quantiles: QUANTILES.map(|(_, quantile)| histogram.value_at_quantile(quantile)),
            max: histogram.max(),
            mean: histogram.mean(),
        })
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("count".to_owned(), json!(self.count));
        object.insert("min".to_owned(), json!(self.min));
        for ((name, _), value) in QUANTILES.iter().zip(self.quantiles) {
            object.insert((*name).to_owned(), json!(value));
        }
        object.insert("max".to_owned(), json!(self.max));
        object.insert("mean".to_owned(), json!(self.mean.round()));
        Value::Object(object)
    }

    /// In one line, microseconds.
    #[must_use]
    pub fn to_text(&self) -> String {
        let micros = |nanoseconds: u64| nanoseconds as f64 / 1_000.0;
        let mut text = format!("min {:.1}", micros(self.min));
        for ((name, _), value) in QUANTILES.iter().zip(self.quantiles) {
            // Writing to a string does not fail.
            let _infallible = write!(text, "  {name} {:.1}", micros(value));
        }
        format!("{text}  max {:.1} us", micros(self.max))
    }
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Of the source; `None` if there was none.
    pub offered: Option<Offered>,
    /// Of the sink; `None` if there was none.
    pub judged: Option<Judged>,
    /// How many flows were asked for at a time.
    pub flows: u32,
    /// Sizes of the frames, with check sequences.
    pub sizes: Vec<usize>,
}

impl Report {
    /// Who of the generator was the limit.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        let is_slow = |offered: &Offered| {
            offered
                .wanted
                .is_some_and(|wanted| offered.pps() < wanted as f64 * ENOUGH)
        };
        if self.offered.as_ref().is_some_and(is_slow) {
            return Some(Limit::Source);
        }
        self.judged
            .as_ref()
            .filter(|judged| judged.dropped > 0)
            .map(|_| Limit::Sink)
    }

    /// What to tell whoever reads only the numbers.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        match (self.limit()?, &self.offered, &self.judged) {
            (Limit::Source, Some(offered), _) => Some(format!(
                "the source was the limit: {:.0} frames/s of {} that were asked for",
                offered.pps(),
                offered.wanted.unwrap_or(0)
            )),
            (_, _, Some(judged)) => Some(format!(
                "the sink was the limit: {} frames arrived and were not taken in time",
                judged.dropped
            )),
            _ => None,
        }
    }

    /// Frames that never arrived whole.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let Some(judged) = &self.judged else {
            return 0;
        };
        let counts = &judged.counts;
        let sent = match &self.offered {
            Some(offered) => offered.frames,
            None => counts.implied,
        };
        sent.saturating_sub(counts.received - counts.duplicated)
    }

    /// Frames that arrived whole, per second of sending.
    #[must_use]
    pub fn received_pps(&self) -> f64 {
        let Some(judged) = &self.judged else {
            return 0.0;
        };
        let seconds = self
            .offered
            .as_ref()
            .map_or(judged.seconds, |offered| offered.seconds);
        rate(judged.counts.received, seconds)
    }

    /// As JSON: `docs/GENERATOR.md` says what is what.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let offered = self.offered.as_ref().map(|offered| {
            json!({
                "frames": offered.frames,
                "bytes": offered.bytes,
                "seconds": offered.seconds,
                "pps": offered.pps().round(),
                "wanted_pps": offered.wanted,
            })
        });
        let counts = self
            .judged
            .as_ref()
            .map(|judged| judged.counts)
            .unwrap_or_default();
        let received = self.judged.as_ref().map(|judged| {
            json!({ "frames": judged.counts.received, "pps": self.received_pps().round() })
        });
        let backends = self.judged.iter().flat_map(|judged| &judged.backends);
        let backends: Map<String, Value> = backends
            .map(|backend| {
                let value = json!({ "frames": backend.frames, "flows": backend.flows });
                (backend.whom.to_string(), value)
            })
            .collect();
        let latency = self.judged.as_ref().and_then(|judged| judged.latency);
        json!({
            "offered": offered,
            "received": received,
            "lost": self.lost(),
            "reordered": counts.reordered,
            "beyond_window": counts.beyond,
            "duplicated": counts.duplicated,
            "corrupt": counts.corrupt,
            "foreign": counts.foreign,
            "sink_dropped": self.judged.as_ref().map_or(0, |judged| judged.dropped),
            "flows": { "asked": self.flows, "seen": counts.flows, "moved": counts.moved },
            "sizes": self.sizes,
            "backends": backends,
            "latency_ns": latency.map(|latency| latency.to_json()),
            "limit": self.limit().map(Limit::name),
        })
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut lines = Vec::new();
        if let Some(offered) = &self.offered {
            let (frames, seconds, pps) = (offered.frames, offered.seconds, offered.pps());
            lines.push(format!(
                "offered   {frames} frames in {seconds:.2} s, {pps:.0}/s"
            ));
        }
        if let Some(judged) = &self.judged {
            let counts = &judged.counts;
            lines.push(format!(
                "received  {}, {:.0}/s",
                counts.received,
                self.received_pps()
            ));
            lines.push(format!(
                "lost {}, reordered {}, duplicated {}, corrupt {}, foreign {}",
                self.lost(),
                counts.reordered,
                counts.duplicated,
                counts.corrupt,
                counts.foreign
            ));
            lines.push(format!(
                "flows     {} of {} seen, {} moved",
                counts.flows, self.flows, counts.moved
            ));
            for backend in &judged.backends {
                let Backend {
                    whom,
                    frames,
                    flows,
                } = backend;
                lines.push(format!("backend   {whom}: {frames} frames, {flows} flows"));
            }
            lines.push(match &judged.latency {
                Some(latency) => format!("latency   {}", latency.to_text()),
                None => {
                    "latency   unknown: nothing arrived, or the ends have no clock in common".into()
                }
            });
        }
        lines.join("\n")
    }
}

/// Per second.
fn rate(frames: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        frames as f64 / seconds
    } else {
        0.0
    }
}
