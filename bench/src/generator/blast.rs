//! One run: source only, sink only, or both, for so long.
//!
//! A source by AF_XDP and the sink take turns in one thread: send what is due, then take what has
//! arrived. Nothing sleeps there: a generator that does is late. Live frames are the kernel's work in
//! a thread of their own, since one call lasts as long as the run; the sink's thread then sleeps
//! when there is nothing, to leave the CPU to it.

use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use ringgate_dataplane::port::{Port, XskPort};

use super::device::{Device, Use};
use super::judge::Judge;
use super::live::Live;
use super::netns::Place;
use super::pace::{BURST, Pace};
use super::progress::Progress;
use super::report::{Judged, Latency, Offered, Report};
use super::shape::{Ends, Kind, Size, shapes};
use super::sink::Sink;
use super::source::{Maker, Plan, PortSource};
use super::spread::{Division, Spread};
use super::stamp::TIMES;
use crate::meter;

/// How long the sink must have been quiet after the end, nanoseconds.
const QUIET: u64 = 50_000_000;

/// How long the sink's thread sleeps when there is nothing, beside live frames. Its ring holds several
/// milliseconds.
const NAP: Duration = Duration::from_micros(200);

/// What is told meanwhile.
const WORDS: [&str; 2] = ["sent", "received"];

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
    let sizes = plan.shapes.iter().map(super::shape::Shape::size).collect();
    let judge = Judge::new(Some(service), places(traffic))?;
    let mut progress = Progress::new(WORDS);
    let mut run = Run {
        source: None,
        sink,
        judge,
        rate: traffic.rate,
    };
    let sent = if out.live {
        run.go_live(&out.place, &plan, times, &mut progress)?
    } else {
        let device = Device::open(&out.place, Use::Send)?;
        run.source = Some(PortSource::new(device.port, device.pool, Maker::new(plan)));
        run.go(times, clock, &mut progress)
    };
    drop(progress);
    Ok(run.report(Some(sent), traffic.flows, sizes, true))
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
    let mut progress = Progress::new(WORDS);
    let _nothing = run.go(times, clock, &mut progress);
    drop(progress);
    let mut report = run.report(None, flows, Vec::new(), has_common_clock);
    if let Some(judged) = &mut report.judged {
        judged.seconds = measured.as_secs_f64();
    }
    Ok(report)
}

/// What was sent.
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
    /// What sends.
    pub source: Option<PortSource<P>>,
    /// What receives.
    pub sink: Option<Sink<P>>,
    /// Who looks at it.
    pub judge: Judge,
    /// Frames per second.
    pub rate: Option<u64>,
}

impl<P: Port> Run<P> {
    /// Runs for `times` by `clock`, which tells nanoseconds.
    pub fn go(&mut self, times: Times, clock: impl Fn() -> u64, progress: &mut Progress) -> Sent {
        self.go_with(times, clock, progress, &mut |_| {})
    }

    /// The same; `between` is called in each turn between sending and receiving, for ports of
    /// memory.
    pub(crate) fn go_with(
        &mut self,
        times: Times,
        clock: impl Fn() -> u64,
        progress: &mut Progress,
        between: &mut impl FnMut(&mut Self),
    ) -> Sent {
        let start = clock();
        let begin = start + nanoseconds(times.warmup);
        let end = begin + nanoseconds(times.measured);
        let mut pace = Pace::new(self.rate, start);
        let (mut now, mut number, mut first) = (start, 0, 0);
        let mut began = None;
        self.measure_from(begin);
        while now < end {
            if began.is_none() && now >= begin {
                self.settle(&clock);
                now = clock();
                self.measure_from(now);
                pace = Pace::new(self.rate, now);
                (began, first) = (Some(now), number);
            }
            if let Some(source) = &mut self.source {
                let due = pace.due(now, BURST);
                let taken = source.send(due, now);
                pace.took(taken);
                number += u64::from(taken);
            }
            between(self);
            if let Some(sink) = &mut self.sink {
                sink.turn(&mut self.judge, &clock);
            }
            now = clock();
            progress.tell(now, [number - first, self.judge.counts().received]);
        }
        self.drain(clock);
        let plan = self.source.as_ref().map(PortSource::plan);
        Sent {
            frames: number - first,
            bytes: plan.map_or(0, |plan| plan.bytes(first..number)),
            elapsed: now - began.unwrap_or(now),
        }
    }

    /// The same with live frames out of `place`.
    fn go_live(
        &mut self,
        place: &Place,
        plan: &Plan,
        times: Times,
        progress: &mut Progress,
    ) -> Result<Sent, String> {
        let rate = self.rate;
        let [warmup, measured] = [times.warmup, times.measured].map(nanoseconds);
        // Not yet.
        self.judge.measure_from(clock() + TIMES / 4);
        let (tell, told) = sync_channel(1);
        let (go, gone) = sync_channel(1);
        let sent = thread::scope(|scope| {
            let source = scope.spawn(move || {
                let mut live = Live::open(place, plan)?;
                if warmup > 0 {
                    live.run(rate, warmup, clock)?;
                }
                // Who listens no more has failed, and says so.
                let _told = tell.send(clock());
                let _go = gone.recv();
                live.run(rate, measured, clock)
            });
            while !source.is_finished() {
                if let Ok(since) = told.try_recv() {
                    self.judge.measure_from(since);
                    let _told = go.send(());
                }
                let sink = self.sink.as_mut();
                if sink.map_or(0, |sink| sink.turn(&mut self.judge, clock)) == 0 {
                    thread::sleep(NAP);
                }
                progress.tell(clock(), [0, self.judge.counts().received]);
            }
            source
                .join()
                .unwrap_or_else(|_| Err("the source's thread ended early".to_owned()))
        });
        self.drain(clock);
        let (frames, bytes) = sent?;
        Ok(Sent {
            frames,
            bytes,
            elapsed: measured,
        })
    }

    /// Where there is no source, all counts.
    fn measure_from(&mut self, since: u64) {
        if self.source.is_some() {
            self.judge.measure_from(since);
        }
    }

    /// Waits until what was numbered has been taken by the device, so that nothing is measured that
    /// was made before.
    fn settle(&mut self, clock: &impl Fn() -> u64) {
        let limit = clock() + QUIET;
        while let Some(source) = &mut self.source {
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
            let is_done = self.source.as_mut().is_none_or(PortSource::flush);
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
        sent: Option<Sent>,
        flows: u32,
        sizes: Vec<usize>,
        has_common_clock: bool,
    ) -> Report {
        let seconds = sent.map_or(0, |sent| sent.elapsed);
        let seconds = Duration::from_nanos(seconds).as_secs_f64();
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
        let offered = sent.map(|sent| Offered {
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
pub(crate) fn clock() -> u64 {
    nanoseconds(meter::elapsed())
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
