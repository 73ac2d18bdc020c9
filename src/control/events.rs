//! What has happened, for those who watch: the last [`KEPT`] events in memory, and the streams of
//! those who follow.
//!
//! An event is told once, where it is logged. It gets the next number, the time, and its one form
//! in JSON: a line. Whoever follows has a place in the numbers; what it has not been sent yet it gets
//! from memory, and where that is gone already it is told how many it has lost. So a slow follower
//! costs nobody anything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::admin::{Admin, Push, Wanted};
use super::health::State;
use super::slab::Key;

/// Events in memory.
pub(crate) const KEPT: usize = 1024;

/// The media type of a stream of events: JSON, one value a line.
pub(crate) const KIND: &str = "application/x-ndjson";

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Packets are let in.
    Ready,
    /// The balancer is to stop.
    Stopping,
    /// A check has changed its mind about a backend.
    Check {
        /// Who is checked.
        address: SocketAddr,
        /// What is known now.
        state: State,
        /// Why, where that is bad news.
        reason: Option<String>,
    },
    /// Another configuration is in force.
    Reloaded {
        /// How many services it has.
        services: usize,
    },
    /// One was refused.
    ReloadRefused {
        /// What is wrong with it, a line each.
        problems: Vec<String>,
    },
    /// A backend may be sent something else than before.
    Backend {
        /// The service's name.
        service: String,
        /// As operators call it.
        backend: String,
        /// Its state before; none: it was not there.
        before: Option<&'static str>,
        /// Its state now; none: it is gone.
        state: Option<&'static str>,
    },
    /// Something else than before becomes of a service's new flows.
    Service {
        /// Its name.
        service: String,
        /// What becomes of them: `served`, `dropped` or `fallen-open`.
        new_flows: &'static str,
    },
    /// An operator has changed a backend, or what he had changed no longer holds.
    Changed {
        /// The service's name.
        service: String,
        /// As operators call it.
        backend: String,
        /// In words.
        change: String,
    },
    /// A backend that somebody waits for has no flow left.
    Drained {
        /// The service's name.
        service: String,
        /// As operators call it.
        backend: String,
    },
    /// What was changed is in the file.
    Saved {
        /// Of how many backends.
        backends: usize,
    },
    /// Flows were forgotten.
    Flushed {
        /// Whose; none: of all services.
        service: Option<String>,
        /// Whose; none: of all backends.
        backend: Option<String>,
        /// How many.
        flows: u64,
    },
}

impl Event {
    /// What kind it is, and what belongs to it.
    fn to_json(&self) -> (&'static str, Value) {
        match self {
            Self::Ready => ("ready", json!({})),
            Self::Stopping => ("stopping", json!({})),
            Self::Check {
                address,
                state,
                reason,
            } => {
                let (address, state) = (address.to_string(), state.to_string());
                let fields = json!({ "address": address, "state": state, "reason": reason });
                ("check", fields)
            }
            Self::Backend {
                service,
                backend,
                before,
                state,
            } => {
                let fields = json!({
                    "service": service,
                    "backend": backend,
                    "before": before,
                    "state": state,
                });
                ("backend", fields)
            }
            Self::Service { service, new_flows } => {
                let fields = json!({ "service": service, "new_flows": new_flows });
                ("service", fields)
            }
            Self::Changed {
                service,
                backend,
                change,
            } => {
                let fields = json!({ "service": service, "backend": backend, "change": change });
                ("changed", fields)
            }
            Self::Drained { service, backend } => {
                ("drained", json!({ "service": service, "backend": backend }))
            }
            Self::Saved { backends } => ("saved", json!({ "backends": backends })),
            Self::Reloaded { services } => ("reloaded", json!({ "services": services })),
            Self::ReloadRefused { problems } => ("reload-refused", json!({ "problems": problems })),
            Self::Flushed {
                service,
                backend,
                flows,
            } => {
                let fields = json!({ "service": service, "backend": backend, "flows": flows });
                ("flushed", fields)
            }
        }
    }

    fn line(&self, number: u64, time: SystemTime) -> String {
        let (kind, mut line) = self.to_json();
        line["number"] = number.into();
        line["time"] = utc(time).into();
        line["event"] = kind.into();
        format!("{line}\n")
    }
}

/// Somebody who is sent events.
#[derive(Debug)]
struct Follower {
    key: Key,
    /// The number of the event that is sent next.
    next: u64,
    /// It stays for those that are to come.
    stays: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Events {
    kept: VecDeque<String>,
    /// The number of the next event; those in memory are the ones before it.
    next: u64,
    followers: Vec<Follower>,
}

impl Events {
    /// Remembers an event, for whoever asks and for those who follow.
    pub(crate) fn tell(&mut self, event: &Event) {
        self.tell_at(event, super::clock::wall());
    }

    fn tell_at(&mut self, event: &Event, time: SystemTime) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.line(self.next, time));
        self.next += 1;
    }

    /// Sends the last so many events to a stream, and if it stays those that come.
    pub(crate) fn follow(&mut self, key: Key, last: usize, stays: bool) {
        let last = u64::try_from(last.min(self.kept.len())).unwrap_or(u64::MAX);
        self.followers.push(Follower {
            key,
            next: self.next - last,
            stays,
        });
    }

    /// Sends what there is to those who follow. To be called every turn of the loop.
    pub(crate) fn feed(&mut self, admin: &mut Admin, wanted: &mut Vec<Wanted>) {
        let Self {
            kept,
            next,
            followers,
        } = self;
        let oldest = *next - u64::try_from(kept.len()).unwrap_or(*next);
        followers.retain_mut(|follower| {
            if follower.next < *next {
                let lost = oldest.saturating_sub(follower.next);
                let from = usize::try_from(follower.next.max(oldest) - oldest).unwrap_or(0);
                let mut bytes = Vec::new();
                if lost > 0 {
                    bytes
                        .extend(format!("{}\n", json!({ "event": "lost", "count": lost })).bytes());
                }
                kept.range(from..)
                    .for_each(|line| bytes.extend(line.as_bytes()));
                match admin.push(follower.key, &bytes, wanted) {
                    Push::Queued => follower.next = *next,
                    Push::Lagging => return true,
                    Push::Gone => return false,
                }
            }
            if !follower.stays {
                admin.finish(follower.key, wanted);
                return false;
            }
            admin.is_open(follower.key)
        });
    }
}

/// The time as RFC 3339 writes it, in UTC and milliseconds.
pub(crate) fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of the Gregorian calendar so many days after 1970-01-01. Counted in eras of
/// 400 years of 146,097 days, whose years begin in March, so that a leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // March to January are 153 days in five months.
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next_year, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_with_its_number_time_and_kind() {
        let mut events = Events::default();
        let time = UNIX_EPOCH + Duration::from_millis(1_763_748_000_123);
        events.tell_at(&Event::Ready, time);
        events.tell_at(&Event::Reloaded { services: 3 }, time);
        let lines: Vec<Value> = events
            .kept
            .iter()
            .map(|line| serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap())
            .collect();
        assert_eq!(
            lines,
            [
                json!({ "number": 0, "time": "2025-11-21T18:00:00.123Z", "event": "ready" }),
                json!({
                    "number": 1,
                    "time": "2025-11-21T18:00:00.123Z",
                    "event": "reloaded",
                    "services": 3,
                }),
            ]
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut events = Events::default();
        for _ in 0..KEPT + 10 {
            events.tell_at(&Event::Ready, UNIX_EPOCH);
        }
        assert_eq!(events.kept.len(), KEPT);
        let first: Value = serde_json::from_str(&events.kept[0]).unwrap();
        assert_eq!(first["number"], 10);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, text) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_454, "2026-01-01"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(days * 86_400 + 86_399);
            assert_eq!(utc(time), format!("{text}T23:59:59.000Z"));
        }
    }
}
