//! Warnings that can repeat, told now and then, with how many were withheld.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two of a kind.
const EVERY: Duration = Duration::from_secs(10);

/// Lets one of a kind through in ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Limit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    withheld: u64,
}

impl Limit {
    /// Nothing was told yet.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State {
            next: None,
            withheld: 0,
        }))
    }

    /// Whether another one is to be told now; then how many were withheld since the last. The inner `None`: none.
    pub(crate) fn admit(&self, now: Instant) -> Option<Option<u64>> {
        // A number and a time: whoever panicked left them whole.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.next.is_some_and(|next| now < next) {
            state.withheld += 1;
            return None;
        }
        state.next = Some(now + EVERY);
        let withheld = std::mem::take(&mut state.withheld);
        Some((withheld > 0).then_some(withheld))
    }
}

/// Logs like `tracing::warn!` and its like (`limited!(warn, …)`), but from one place in the code no more than once in
/// ten seconds; `withheld` says how many there were in between.
macro_rules! limited {
    ($level:ident, $($event:tt)+) => {{
        static LIMIT: $crate::log::Limit = $crate::log::Limit::new();
        if let Some(withheld) = LIMIT.admit($crate::control::clock::now()) {
            tracing::$level!(withheld, $($event)+);
        }
    }};
}

pub(crate) use limited;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::clock::now;

    #[test]
    fn one_is_told_and_the_next_one_counts_those_between() {
        let (limit, start) = (Limit::new(), now());
        let at = |tenths: u32| start + EVERY / 10 * tenths;
        assert_eq!(limit.admit(start), Some(None));
        assert_eq!(limit.admit(start), None);
        assert_eq!(limit.admit(at(9)), None);
        assert_eq!(limit.admit(at(10)), Some(Some(2)));
        assert_eq!(limit.admit(at(19)), None);
        assert_eq!(limit.admit(at(40)), Some(Some(1)));
        assert_eq!(limit.admit(at(50)), Some(None), "none in between");
    }
}
