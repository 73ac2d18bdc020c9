//! A line on the terminal, once a second.

use std::io::{IsTerminal as _, Write as _, stderr};

use super::judge::Counts;

/// Nanoseconds between two lines.
const PERIOD: u64 = 1_000_000_000;

/// See the module's documentation. Silent where stderr is no terminal.
#[derive(Debug)]
pub struct Progress {
    is_on: bool,
    next: u64,
    last: (u64, u64),
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// For this process's stderr.
    #[must_use]
    pub fn new() -> Self {
        Self {
            is_on: stderr().is_terminal(),
            next: 0,
            last: (0, 0),
        }
    }

    /// Tells how it goes, if a second has passed at `now`, nanoseconds.
    #[inline]
    pub fn tell(&mut self, now: u64, sent: u64, counts: &Counts) {
        if !self.is_on || now < self.next {
            return;
        }
        self.line(now, sent, counts);
    }

    #[cold]
    #[inline(never)]
    fn line(&mut self, now: u64, sent: u64, counts: &Counts) {
        let (last_sent, last_received) = self.last;
        if self.next > 0 {
            let (sent, received) = (sent - last_sent, counts.received - last_received);
            // Nobody is told of a terminal that is gone.
            let _told = write!(stderr(), "\r{sent} sent/s, {received} received/s   ");
        }
        self.last = (sent, counts.received);
        self.next = now + PERIOD;
    }

    /// Tells something else: `text` in place of the line.
    pub fn say(&mut self, text: &str) {
        if self.is_on {
            let _told = write!(stderr(), "\r{text}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_on && self.next > 0 {
            let _told = write!(stderr(), "\r\x1b[K");
        }
    }
}
