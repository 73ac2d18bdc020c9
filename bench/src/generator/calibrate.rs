//! What the generator itself can do on this host: source and sink back to back over a veth pair of
//! its own making. A measurement above that says nothing of what is between.

use std::process::{Command, Stdio};
use std::time::Duration;

use ringgate_dataplane::wire::ethernet::Mac;
use serde_json::{Value, json};

use super::blast::{Out, Times, Traffic, blast};
use super::netns::Place;
use super::progress::Progress;
use super::report::{Latency, Report};
use super::shape::{Ends, Kind, Size};
use super::spread::Division;

/// Hardware addresses of both ends.
const HARDWARE: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];

/// Flows that it is calibrated with.
const FLOWS: u32 = 1_000;

/// Steps of the search: the result is within 1 / 2^7 of the highest rate, below 1 %.
const STEPS: u32 = 7;

/// The rate at which the latency's floor is looked for: far below any limit.
const CALM: u64 = 10_000;

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The highest rate without loss by AF_XDP, frames per second.
    pub pps: u64,
    /// The same with live frames.
    pub pps_live_frames: u64,
    /// At 10,000 frames a second by AF_XDP.
    pub latency: Option<Latency>,
    /// Sizes of the frames, with check sequences.
    pub sizes: Vec<usize>,
}

impl Calibration {
    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "pps": self.pps,
            "pps_live_frames": self.pps_live_frames,
            "latency_ns": self.latency.as_ref().map(Latency::to_json),
            "sizes": self.sizes,
        })
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let latency = match &self.latency {
            Some(latency) => latency.to_text(),
            None => "nothing arrived".to_owned(),
        };
        format!(
            "back to back, without loss, frames of {:?} bytes\n\
             AF_XDP       {}/s\nlive frames  {}/s\nlatency      {latency}",
            self.sizes, self.pps, self.pps_live_frames
        )
    }
}

/// Looks for the highest rates, each step for `each`.
///
/// # Errors
///
/// In words: no privileges or no `ip`; a run that failed; or not even the lowest rate passed without
/// loss, so that nothing that is measured here would mean anything.
pub fn calibrate(size: Size, each: Duration) -> Result<Calibration, String> {
    let pair = Pair::new()?;
    let mut progress = Progress::new(["", ""]);
    let mut found = [0; 2];
    for (live, found) in [false, true].into_iter().zip(&mut found) {
        let name = if live { "live frames" } else { "AF_XDP" };
        let trial = |rate| pair.trial(size, rate, live, each);
        *found =
            search(trial, |rate| progress.say(&format!("{name}, {rate}/s")))?.ok_or_else(|| {
                format!("{name}: frames are lost at any rate: nothing can be measured")
            })?;
    }
    progress.say("latency");
    let calm = pair.trial(size, Some(CALM.min(found[0])), false, each)?;
    Ok(Calibration {
        pps: found[0],
        pps_live_frames: found[1],
        latency: calm.judged.and_then(|judged| judged.latency),
        sizes: calm.sizes,
    })
}

/// The highest rate that `trial` passes, in [`STEPS`] halvings below what it does without a rate.
fn search(
    mut trial: impl FnMut(Option<u64>) -> Result<Report, String>,
    mut tell: impl FnMut(u64),
) -> Result<Option<u64>, String> {
    let most = trial(None)?;
    let offered = most.offered.map_or(0.0, |offered| offered.pps());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of frames: far below 2^53, not negative"
    )]
    let (mut low, mut high) = (0, offered as u64);
    let mut best = None;
    for _ in 0..STEPS {
        let rate = low + (high - low).div_ceil(2);
        if rate == 0 {
            break;
        }
        tell(rate);
        let report = trial(Some(rate))?;
        if report.limit().is_none() && report.lost() == 0 {
            (low, best) = (rate, Some(rate));
        } else {
            high = rate;
        }
    }
    Ok(best)
}

/// Two namespaces and a veth pair. Removed when it is dropped.
struct Pair {
    names: [String; 2],
}

impl Pair {
    fn new() -> Result<Self, String> {
        let process = std::process::id();
        let pair = Self {
            names: ["a", "b"].map(|end| format!("rgcal-{process}-{end}")),
        };
        let [a, b] = &pair.names;
        let [near, far] = HARDWARE.map(|address| address.to_string());
        for name in [a, b] {
            ip(&["netns", "add", name])?;
            // No neighbour discovery, no multicast: nothing but what is sent.
            ip(&[
                "netns",
                "exec",
                name,
                "sysctl",
                "-qw",
                "net.ipv6.conf.default.disable_ipv6=1",
            ])?;
        }
        ip(&[
            "-n", a, "link", "add", "a0", "address", &near, "type", "veth", "peer", "name", "b0",
            "address", &far, "netns", b,
        ])?;
        ip(&["-n", a, "link", "set", "a0", "up"])?;
        ip(&["-n", b, "link", "set", "b0", "up"])?;
        // With a queue discipline a full ring pushes back instead of losing frames.
        run(
            "tc",
            &[
                "-n", a, "qdisc", "replace", "dev", "a0", "root", "pfifo", "limit", "1000",
            ],
        )?;
        Ok(pair)
    }

    fn trial(
        &self,
        size: Size,
        rate: Option<u64>,
        live: bool,
        each: Duration,
    ) -> Result<Report, String> {
        let place = |number: usize, interface: &str| Place {
            interface: interface.to_owned(),
            namespace: self.names.get(number).cloned(),
        };
        let ends = Ends {
            near: HARDWARE[0],
            far: HARDWARE[1],
            from: [10, 1, 0, 2].into(),
            to: ([10, 100, 0, 1], 53).into(),
        };
        let traffic = Traffic {
            ends,
            kind: Kind::Udp,
            size,
            flows: FLOWS,
            division: Division::Uniform,
            new_flows: 0,
            rate,
            seed: 1,
        };
        let times = Times {
            warmup: each / 4,
            measured: each,
        };
        let out = Out {
            place: place(0, "a0"),
            live,
        };
        blast(&traffic, &out, Some(&place(1, "b0")), times)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.names {
            // It may never have been there.
            let _gone = ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {}: {}",
        arguments.join(" "),
        said.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::judge::Counts;
    use crate::generator::report::{Judged, Offered};

    /// A generator that sends up to `most` a second, of which those above `whole` are lost.
    fn generator(most: u64, whole: u64) -> impl FnMut(Option<u64>) -> Result<Report, String> {
        move |wanted| {
            let frames = wanted.map_or(most, |wanted| wanted.min(most));
            let counts = Counts {
                received: frames.min(whole),
                ..Counts::default()
            };
            let judged = Judged {
                counts,
                backends: Vec::new(),
                latency: None,
                dropped: 0,
                seconds: 1.0,
            };
            let offered = Offered {
                frames,
                bytes: frames * 64,
                seconds: 1.0,
                wanted,
            };
            Ok(Report {
                offered: Some(offered),
                judged: Some(judged),
                flows: 1,
                sizes: vec![64],
            })
        }
    }

    #[test]
    fn the_highest_rate_without_loss_is_found_to_a_hundredth_of_the_most() {
        for whole in [1_000_000, 640_000, 100_000, 30_000] {
            let found = search(generator(1_000_000, whole), |_| {})
                .unwrap()
                .unwrap();
            assert!(
                found <= whole && whole - found <= 8_000,
                "{found} of {whole}"
            );
        }
    }

    #[test]
    fn no_rate_is_reported_that_was_not_generated() {
        assert_eq!(search(generator(1_000_000, 0), |_| {}).unwrap(), None);
        assert_eq!(search(generator(0, 0), |_| {}).unwrap(), None);
        let failing = |_| Err("no such device".to_owned());
        assert_eq!(search(failing, |_| {}), Err("no such device".to_owned()));
    }
}
