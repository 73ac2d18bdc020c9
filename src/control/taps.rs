//! A tap that an operator has opened: from the workers' records to the lines or blocks of a stream.
//!
//! One at a time. It ends by itself: with as many packets or bytes as were asked for, when its time is up,
//! or when its client goes. Then the workers are told to give it up, and what they had put down
//! by then is sent still, before the stream ends. A record that finds no room, here or on its way to the
//! client, is counted as lost and told.

pub(crate) mod capture;
pub(crate) mod expression;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringgate_conntrack::Seconds;
use ringgate_dataplane::snapshot::Snapshot;
use ringgate_dataplane::tap::filter::Filter;
use ringgate_dataplane::tap::{Limits, Record, Tap};
use serde_json::json;

use super::admin::{Admin, Push, Wanted};
use super::events::utc;
use super::slab::Key;
use crate::explanation::telling::Telling;
use capture::Capture;

/// Records that wait between workers and control. 4 KiB each, and taken every [`PACE`].
const WAITING: usize = 1024;

/// How often records are taken while a tap is open.
pub(crate) const PACE: Duration = Duration::from_millis(2);

/// Records that are told in a turn: a few milliseconds' work, since each is told in words.
const IN_TURN: usize = 128;

/// Snapshots that are remembered for records that were made by them.
const PAST_MOST: usize = 8;

/// How a tap is shown.
#[derive(Debug)]
enum Form {
    /// Each packet's way in words, JSON, one a line.
    Trace,
    /// Packets with comments.
    Capture(Capture),
}

/// How much an operator wants at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Packets.
    pub(crate) packets: u64,
    /// How long.
    pub(crate) time: Duration,
    /// Of the stream.
    pub(crate) bytes: u64,
    /// Kept of each frame, from its first byte on.
    pub(crate) snap: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Showing {
    key: Key,
    tap: Arc<Tap>,
    form: Form,
    interfaces: Vec<String>,
    /// What is added to workers' time to get nanoseconds since 1970.
    offset: u64,
    until: Instant,
    bytes_left: u64,
    /// Packets that were told, and of records those that were not.
    told: u64,
    lagged: u64,
    lost_told: u64,
    /// When the last packet came, nanoseconds since 1970.
    last: u64,
    /// What is sent last.
    ending: Option<Vec<u8>>,
    /// Newest last.
    snapshots: VecDeque<Arc<Snapshot>>,
    /// Why it is about to end, once it is.
    over: Option<&'static str>,
}

impl Showing {
    /// Opens a tap for whoever has `key`: a capture, or a trace. `monotonic` and `wall` are one moment on
    /// the workers' clock, in nanoseconds, and on everybody's.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub(crate) fn open(
        (key, is_capture): (Key, bool),
        filter: Filter,
        bounds: &Bounds,
        interfaces: Vec<String>,
        (now, monotonic, wall): (Instant, u64, SystemTime),
    ) -> Result<Self, String> {
        let form = match is_capture {
            true => Form::Capture(
                Capture::begin(&interfaces, bounds.snap).map_err(|error| error.to_string())?,
            ),
            false => Form::Trace,
        };
        let limits = Limits {
            packets: bounds.packets,
            waiting: WAITING,
            snap: bounds.snap,
        };
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self {
            key,
            tap: Arc::new(Tap::new(filter, limits)),
            form,
            interfaces,
            offset: since.saturating_sub(monotonic),
            until: now + bounds.time,
            bytes_left: bounds.bytes,
            told: 0,
            lagged: 0,
            lost_told: 0,
            last: since,
            ending: None,
            snapshots: VecDeque::new(),
            over: None,
        })
    }

    /// What workers are given.
    pub(crate) const fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    /// Remembers a snapshot that records may be made by.
    pub(crate) fn know(&mut self, snapshot: &Arc<Snapshot>) {
        let newest = self.snapshots.back();
        if newest.is_none_or(|newest| newest.generation != snapshot.generation) {
            if self.snapshots.len() == PAST_MOST {
                self.snapshots.pop_front();
            }
            self.snapshots.push_back(Arc::clone(snapshot));
        }
    }

    /// Sends what there is. Whether the workers are to give the tap up now.
    pub(crate) fn feed(
        &mut self,
        admin: &mut Admin,
        wanted: &mut Vec<Wanted>,
        (now, seconds): (Instant, Seconds),
    ) -> bool {
        if let Form::Capture(capture) = &mut self.form {
            // The beginning of the file, before there is any packet.
            let bytes = capture.take();
            if !bytes.is_empty() {
                self.send(&bytes, admin, wanted);
            }
        }
        for _ in 0..IN_TURN {
            let Some(record) = self.tap.take() else { break };
            self.tell(&record, admin, wanted, seconds);
            self.tap.give(record);
        }
        if self.over.is_some() {
            return false;
        }
        self.over = if !admin.is_open(self.key) {
            Some("gone")
        } else if self.tap.is_full() {
            Some("packets")
        } else if self.bytes_left == 0 {
            Some("bytes")
        } else if now >= self.until {
            Some("time")
        } else {
            None
        };
        self.over.is_some()
    }

    /// Whether it is over, all workers have given it up, and all that they had put down was sent. Then the
    /// stream has been ended.
    pub(crate) fn ends(&mut self, admin: &mut Admin, wanted: &mut Vec<Wanted>) -> bool {
        let Some(why) = self.over else {
            return false;
        };
        // Workers have clones, and give them back from their next turn on.
        if Arc::strong_count(&self.tap) > 1 {
            return false;
        }
        if !self.tap.is_drained() {
            return false;
        }
        let (told, lost, at) = (self.told, self.lost(), self.last);
        let bytes = self.ending.get_or_insert_with(|| match &mut self.form {
            Form::Trace => {
                let end = json!({ "end": why, "packets": told, "lost": lost });
                format!("{end}\n").into_bytes()
            }
            Form::Capture(capture) => {
                // To memory: it does not fail.
                let _written = capture.end(told, lost, at);
                capture.take()
            }
        });
        if admin.push(self.key, bytes, wanted) == Push::Lagging {
            return false;
        }
        admin.finish(self.key, wanted);
        true
    }

    /// Tells of one packet.
    fn tell(&mut self, record: &Record, admin: &mut Admin, wanted: &mut Vec<Wanted>, now: Seconds) {
        let made_by = |one: &&Arc<Snapshot>| one.generation == record.generation;
        let snapshot = self.snapshots.iter().find(made_by);
        let Some(snapshot) = snapshot.or_else(|| self.snapshots.back()) else {
            self.lagged += 1;
            return;
        };
        let telling = Telling {
            snapshot,
            interfaces: &self.interfaces,
            now,
        };
        let at = record.at.saturating_add(self.offset);
        self.last = at;
        let lost = self.lost();
        let bytes = match &mut self.form {
            Form::Trace => {
                let mut told = telling.tell(record);
                told["number"] = (self.told + 1).into();
                told["time"] = nanos_utc(at).into();
                if lost > self.lost_told {
                    told["lost"] = (lost - self.lost_told).into();
                }
                format!("{told}\n").into_bytes()
            }
            Form::Capture(capture) => {
                // To memory: it does not fail.
                let _written = capture.put(record, at, &telling.comment(record));
                capture.take()
            }
        };
        if self.send(&bytes, admin, wanted) {
            self.told += 1;
            self.lost_told = lost;
        }
    }

    /// Sends what belongs together. Whether it was taken.
    fn send(&mut self, bytes: &[u8], admin: &mut Admin, wanted: &mut Vec<Wanted>) -> bool {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let Some(left) = self.bytes_left.checked_sub(len) else {
            // What does not fit ends it, and nothing smaller comes after.
            self.bytes_left = 0;
            return false;
        };
        match admin.push(self.key, bytes, wanted) {
            Push::Queued => {
                self.bytes_left = left;
                true
            }
            Push::Lagging | Push::Gone => {
                self.lagged += 1;
                false
            }
        }
    }

    /// Why it is over, how many packets were told, and how many more matched.
    pub(crate) fn account(&self) -> (&'static str, u64, u64) {
        (self.over.unwrap_or("open"), self.told, self.lost())
    }

    fn lost(&self) -> u64 {
        self.tap.lost() + self.lagged
    }
}

/// A time as RFC 3339 writes it, in UTC and nanoseconds.
fn nanos_utc(nanos: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_nanos(nanos);
    let text = utc(time);
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{seconds}.{:09}Z", nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests;
