//! One run: source and sink in turn, in one thread, for so long.
//!
//! Source only, sink only, or both. The order of a turn is: send what is due, then take what has
//! arrived. Nothing sleeps: a generator that does is late.

use std::net::SocketAddr;
use std::time::Duration;

use ringgate_dataplane::port::{Port, XskPort};

use super::device::{Device, Use};
use super::judge::Judge;
use super::live::Live;
use super::netns::Place;
use super::pace::Pace;
use super::progress::Progress;
use super::report::{Judged, Latency, Offered, Report};
use super::shape::{Ends, Kind, Size, shapes};
use super::sink::Sink;
use super::source::{Maker, Plan, PortSource, Source};
use super::spread::{Division, Spread};
use crate::meter;

/// How long the sink must have been quiet after the end, nanoseconds.
const QUIET: u64 = 50_000_000;

/// How long it waits for that at most, nanoseconds.
const PATIENCE: u64 = 2_000_000_000;

/// What is to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// Between whom.
    pub ends: Ends,
    /// What.
    pub kind: Kind,
    /// How long.
    pub size: Size,
    /// How many flows live at a time.
    pub flows: u32,
    /// How it divides over them.
    pub division: Division,
    /// Flows born each second, each for an old one.
    pub new_flows: u32,
    /// Frames per second; `None`: as many as can be.
    pub rate: Option<u64>,
    /// Of what is drawn at random.
    pub seed: u64,
}

/// How long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// It runs before it is measured.
    pub warmup: Duration,
    /// It is measured.
    pub measured: Duration,
}

/// Where the source is and how it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    /// Its interface.
    pub place: Place,
    /// By live frames, not by AF_XDP.
    pub live: bool,
}

/// Sends `traffic` out of `out`; what arrives at `inlet`, if given, is judged.
///
/// # Errors
///
/// In words.
pub fn blast(
    traffic: &Traffic,
    out: &Out,
    inlet: Option<&Place>,
    times: Times,
) -> Result<Report, String> {
    let service = traffic.ends.to;
    // First the sink: live frames need a peer with a program.
    let (sink, _steering) = match inlet {
        Some(place) => open_sink(place).map(|(sink, steering)| (Some(sink), steering))?,
        None => (None, None),
    };
    let plan = plan(traffic, clock());
    let maker = Maker::new(plan.clone());
    let source = if out.live {
        Source::Live(Live::open(&out.place, &plan)?)
    } else {
        let device = Device::open(&out.place, Use::Send)?;
        Source::Port(Box::new(PortSource::new(device.port, device.pool, maker)))
    };
    let judge = Judge::new(Some(service), places(traffic))?;
    let sizes = plan.shapes.iter().map(super::shape::Shape::size).collect();
    let mut run = Run {
        source: Some((source, plan)),
        sink,
        judge,
        rate: traffic.rate,
    };
    let sent = run.go(times, clock, &mut Progress::new())?;
    Ok(run.report(sent, traffic.flows, sizes, true))
}

/// Judges what arrives at `inlet` for so long. `flows` are expected, to `service` if that is known.
/// Latencies are told if both ends have a clock in common, which only the caller knows.
///
/// # Errors
///
/// In words.
pub fn sink(
    inlet: &Place,
    service: Option<SocketAddr>,
    flows: u32,
    measured: Duration,
    has_common_clock: bool,
) -> Result<Report, String> {
    let (sink, _steering) = open_sink(inlet)?;
    // Twice as many: new flows may come.
    let judge = Judge::new(service, flows as usize * 2)?;
    let mut run: Run<XskPort> = Run {
        source: None,
        sink: Some(sink),
        judge,
        rate: None,
    };
    let times = Times {
        warmup: Duration::ZERO,
        measured,
    };
    let sent = run.go(times, clock, &mut Progress::new())?;
    Ok(run.report(sent, flows, Vec::new(), has_common_clock))
}

/// What [`Run::go`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// While it was measured.
    pub frames: u64,
    /// Of those, with check sequences.
    pub bytes: u64,
    /// How long it was measured, nanoseconds.
    pub elapsed: u64,
}

/// A source, a sink, or both; and the judge.
#[derive(Debug)]
pub struct Run<P> {
    /// What sends, and what it sends.
    pub source: Option<(Source<P>, Plan)>,
    /// What receives.
    pub sink: Option<Sink<P>>,
    /// Who looks at it.
    pub judge: Judge,
    /// Frames per second.
    pub rate: Option<u64>,
}

impl<P: Port> Run<P> {
    /// Runs for `times` by `clock`, which tells nanoseconds.
    ///
    /// # Errors
    ///
    /// In words, if the kernel refuses to send.
    pub fn go(
        &mut self,
        times: Times,
        clock: impl Fn() -> u64,
        progress: &mut Progress,
    ) -> Result<Sent, String> {
        let start = clock();
        let begin = start + nanoseconds(times.warmup);
        let end = begin + nanoseconds(times.measured);
        let mut pace = Pace::new(self.rate, start);
        let (mut now, mut number, mut sent) = (start, 0, Sent::default());
        let mut began = None;
        if self.source.is_some() {
            self.judge.measure_from(begin);
        }
        while now < end {
            if began.is_none() && now >= begin {
                self.settle(&clock);
                now = clock();
                if self.source.is_some() {
                    self.judge.measure_from(now);
                }
                pace = Pace::new(self.rate, now);
                began = Some(now);
            }
            let frames = self.send(&mut pace, now)?;
            for _ in 0..frames {
                if began.is_some() {
                    sent.frames += 1;
                    sent.bytes += self
                        .source
                        .as_ref()
                        .map_or(0, |(_, plan)| plan.size(number));
                }
                number += 1;
            }
            if let Some(sink) = &mut self.sink {
                sink.turn(&mut self.judge, &clock);
            }
            now = clock();
            progress.tell(now, sent.frames, self.judge.counts());
        }
        sent.elapsed = now - began.unwrap_or(now);
        self.drain(clock);
        Ok(sent)
    }

    fn send(&mut self, pace: &mut Pace, now: u64) -> Result<u32, String> {
        let Some((source, _)) = &mut self.source else {
            return Ok(0);
        };
        let due = pace.due(now, source.most());
        let sent = source.send(due, now)?;
        pace.took(sent);
        Ok(sent)
    }

    /// Waits until what was numbered has been taken by the device, so that nothing is measured that
    /// was made before.
    fn settle(&mut self, clock: &impl Fn() -> u64) {
        let limit = clock() + QUIET;
        while let Some((source, _)) = &mut self.source {
            let is_done = source.flush();
            if let Some(sink) = &mut self.sink {
                sink.turn(&mut self.judge, clock);
            }
            if is_done || clock() >= limit {
                break;
            }
        }
    }

    /// Takes what is still on its way.
    fn drain(&mut self, clock: impl Fn() -> u64) {
        let limit = clock() + PATIENCE;
        let mut last = clock();
        loop {
            let is_done = self
                .source
                .as_mut()
                .is_none_or(|(source, _)| source.flush());
            let seen = self
                .sink
                .as_mut()
                .map_or(0, |sink| sink.turn(&mut self.judge, &clock));
            let now = clock();
            if seen > 0 {
                last = now;
            }
            let is_quiet = self.sink.is_none() || now - last >= QUIET;
            if (is_done && is_quiet) || now >= limit {
                break;
            }
        }
    }

    /// What came out.
    pub fn report(
        &mut self,
        sent: Sent,
        flows: u32,
        sizes: Vec<usize>,
        has_common_clock: bool,
    ) -> Report {
        let seconds = Duration::from_nanos(sent.elapsed).as_secs_f64();
        let latency = has_common_clock
            .then(|| Latency::of(self.judge.latency()))
            .flatten();
        let judge = &self.judge;
        let judged = self.sink.as_mut().map(|sink| Judged {
            counts: *judge.counts(),
            backends: judge.backends().to_vec(),
            latency,
            dropped: sink.dropped(),
            seconds,
        });
        let offered = self.source.as_ref().map(|_| Offered {
            frames: sent.frames,
            bytes: sent.bytes,
            seconds,
            wanted: self.rate,
        });
        Report {
            offered,
            judged,
            flows,
            sizes,
        }
    }
}

/// The plan for `traffic`, whose first flows are born at `started`.
#[must_use]
pub fn plan(traffic: &Traffic, started: u64) -> Plan {
    let (shapes, turns) = shapes(&traffic.ends, traffic.kind, traffic.size);
    let Traffic {
        flows,
        division,
        new_flows,
        seed,
        ..
    } = *traffic;
    Plan {
        shapes,
        turns,
        spread: Spread::new(flows, division, new_flows, seed),
        started,
    }
}

/// How many flows the judge keeps: those that live, and the dead of a second.
fn places(traffic: &Traffic) -> usize {
    let dead = if traffic.new_flows > 0 {
        traffic.flows.max(traffic.new_flows)
    } else {
        0
    };
    traffic.flows as usize + dead as usize
}

fn open_sink(place: &Place) -> Result<(Sink<XskPort>, Option<super::device::Steering>), String> {
    let device = Device::open(place, Use::Receive)?;
    Ok((Sink::new(device.port, device.pool), device.steering))
}

/// CLOCK_MONOTONIC, which the kernel's `bpf_ktime_get_ns` is too.
fn clock() -> u64 {
    nanoseconds(meter::elapsed())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
