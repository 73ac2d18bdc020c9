//! What `top` takes from a status, and what happened between two of them.
//!
//! Whatever is not there is as if it were nothing: a balancer of another version may say less or more.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// A status of one moment.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Sample {
    pub(super) version: String,
    pub(super) pid: u64,
    pub(super) uptime_ms: u64,
    pub(super) generation: u64,
    pub(super) draining: bool,
    pub(super) control: Control,
    pub(super) flows: Flows,
    pub(super) interfaces: Vec<Interface>,
    pub(super) workers: Vec<Worker>,
    pub(super) services: Vec<Service>,
}

/// The control thread.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Control {
    pub(super) io: String,
}

/// The flow table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Flows {
    pub(super) stored: u64,
    pub(super) capacity: u64,
    pub(super) half_open_stored: u64,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) mode: String,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) forwarded: u64,
    pub(super) answered: u64,
    pub(super) dropped_total: u64,
    pub(super) dropped: BTreeMap<String, u64>,
    pub(super) port: BTreeMap<String, u64>,
    pub(super) kernel: BTreeMap<String, u64>,
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Worker {
    pub(super) index: u64,
    pub(super) core: u64,
    pub(super) busy_turns: u64,
    pub(super) idle_turns: u64,
    pub(super) sleeps: u64,
    pub(super) residence: Residence,
}

/// How long packets stay with a worker.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Residence {
    pub(super) p50_ns: Option<u64>,
    pub(super) p99_ns: Option<u64>,
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) listen: String,
    pub(super) protocol: String,
    pub(super) forward: String,
    pub(super) fallen_open: bool,
    pub(super) check: Option<ServiceCheck>,
    pub(super) backends: Vec<Backend>,
}

/// How a service's backends are checked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ServiceCheck {
    pub(super) kind: String,
    pub(super) took: Took,
}

/// How long its checks take.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Took {
    pub(super) p99_us: Option<u64>,
}

/// A backend of a service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Backend {
    pub(super) address: String,
    pub(super) forward: String,
    pub(super) state: Option<String>,
    pub(super) weight: u64,
    pub(super) effective_weight: Option<f64>,
    pub(super) reachable: bool,
    pub(super) check: Option<BackendCheck>,
    pub(super) flows: u64,
    pub(super) flows_now: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) reply_packets: u64,
    pub(super) reply_bytes: u64,
}

/// A backend's check.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct BackendCheck {
    pub(super) last: Option<String>,
}

/// Kernel counters that are losses; the others are causes of these, or harmless.
const LOSSES: [&str; 2] = ["rx_dropped", "rx_ring_full"];

impl Sample {
    /// Reads a status.
    ///
    /// # Errors
    ///
    /// When something in it is not what it should be.
    pub(super) fn read(status: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(status)
    }

    /// The service of this name.
    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

impl Service {
    /// Its backend at this address.
    pub(super) fn backend(&self, address: &str) -> Option<&Backend> {
        self.backends.iter().find(|one| one.address == address)
    }

    /// A number of its backends, summed.
    pub(super) fn sum(&self, of: impl Fn(&Backend) -> u64) -> u64 {
        self.backends.iter().map(of).sum()
    }
}

impl Backend {
    /// Packets to it and from it.
    pub(super) const fn all_packets(&self) -> u64 {
        self.packets + self.reply_packets
    }

    /// Bits of those.
    pub(super) const fn all_bits(&self) -> u64 {
        (self.bytes + self.reply_bytes) * 8
    }
}

impl Interface {
    /// Packets that the kernel lost before a worker could take them.
    pub(super) fn lost_by_kernel(&self) -> u64 {
        LOSSES
            .iter()
            .filter_map(|name| self.kernel.get(*name))
            .sum()
    }
}

/// Two samples of one process, the later one last; or one, of which there are no rates yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'s> {
    before: Option<&'s Sample>,
    pub(super) now: &'s Sample,
}

impl<'s> Span<'s> {
    /// From `before` to `now`. Another process, or one that was not any older then, is no beginning.
    pub(super) fn new(before: Option<&'s Sample>, now: &'s Sample) -> Self {
        let is_beginning =
            |before: &&Sample| before.pid == now.pid && before.uptime_ms < now.uptime_ms;
        Self {
            before: before.filter(is_beginning),
            now,
        }
    }

    /// How much a number of the sample grew in a second. `None`: there is nothing to compare with, or it
    /// fell, so it is not the same thing any more.
    pub(super) fn rate(&self, of: impl Fn(&'s Sample) -> Option<u64>) -> Option<f64> {
        let before = self.before?;
        let grown = of(self.now)?.checked_sub(of(before)?)?;
        let millis = self.now.uptime_ms - before.uptime_ms;
        Some(per_second(grown, millis))
    }
}

/// Rates are shown with three digits: the precision that goes is nobody's loss.
#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
pub(super) fn per_second(count: u64, millis: u64) -> f64 {
    count as f64 * 1000.0 / millis as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample(pid: u64, uptime_ms: u64, received: u64) -> Sample {
        let status = json!({
            "pid": pid,
            "uptime_ms": uptime_ms,
            "interfaces": [{ "name": "front", "received": received }],
        });
        Sample::read(&status).unwrap()
    }

    fn rate(before: Option<&Sample>, now: &Sample) -> Option<f64> {
        let received = |sample: &Sample| Some(sample.interfaces.first()?.received);
        Span::new(before, now).rate(received)
    }

    #[test]
    fn a_rate_is_what_was_gained_in_a_second() {
        let (before, now) = (sample(1, 1_000, 100), sample(1, 3_000, 400));
        assert_eq!(rate(Some(&before), &now), Some(150.0));
        assert_eq!(rate(None, &now), None, "one sample is no rate");
        assert_eq!(rate(Some(&now), &now), None, "no time has passed");
    }

    #[test]
    fn another_process_or_a_counter_that_fell_has_no_rate() {
        let now = sample(2, 5_000, 400);
        assert_eq!(rate(Some(&sample(1, 1_000, 100)), &now), None);
        assert_eq!(rate(Some(&sample(2, 9_000, 100)), &now), None);
        assert_eq!(rate(Some(&sample(2, 1_000, 500)), &now), None);
        let gone = Sample {
            interfaces: Vec::new(),
            ..sample(2, 1_000, 0)
        };
        assert_eq!(rate(Some(&gone), &now), None);
    }

    #[test]
    fn what_a_status_does_not_say_is_nothing_and_nonsense_is_an_error() {
        let bare = Sample::read(&json!({ "pid": 7, "something": ["new"] })).unwrap();
        assert_eq!((bare.pid, bare.services.len()), (7, 0));
        let silent = json!({ "services": [{ "check": null, "backends": [{ "state": null }] }] });
        assert_eq!(
            Sample::read(&silent).unwrap().services[0].backends[0].state,
            None
        );
        assert!(Sample::read(&json!({ "pid": "seven" })).is_err());
    }
}
