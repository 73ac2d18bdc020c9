//! A line on the terminal, once a second.

use std::io::{IsTerminal as _, Write as _, stderr};

/// Nanoseconds between two lines.
const PERIOD: u64 = 1_000_000_000;

/// See the module's documentation. Silent where stderr is no terminal.
#[derive(Debug)]
pub struct Progress {
    is_on: bool,
    /// What is counted.
    words: [&'static str; 2],
    next: u64,
    last: [u64; 2],
}

impl Progress {
    /// For this process's stderr. `words` say what is counted, such as "sent" and "received".
    #[must_use]
    pub fn new(words: [&'static str; 2]) -> Self {
        Self {
            is_on: stderr().is_terminal(),
            words,
            next: 0,
            last: [0; 2],
        }
    }

    /// Tells how it goes, if a second has passed at `now`, nanoseconds.
    #[inline]
    pub fn tell(&mut self, now: u64, counts: [u64; 2]) {
        if !self.is_on || now < self.next {
            return;
        }
        self.line(now, counts);
    }

    #[cold]
    #[inline(never)]
    fn line(&mut self, now: u64, counts: [u64; 2]) {
        if self.next > 0 {
            let [first, second] = [0, 1].map(|n| counts[n].saturating_sub(self.last[n]));
            let [one, other] = self.words;
            // Nobody is told of a terminal that is gone.
            let _told = write!(stderr(), "\r{first} {one}/s, {second} {other}/s\x1b[K");
        }
        self.last = counts;
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
