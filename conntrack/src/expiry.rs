//! How long a flow is kept after its last packet, and why.

use crate::state::State;

/// A moment, in whole seconds since an arbitrary start that all users of a table share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seconds(pub u32);

/// A span of time in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u32);

/// How long a flow in each state is kept after its last packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Half-open TCP. A client gives up after about a minute of unanswered SYNs
    /// (`tcp_syn_retries` = 6 of Linux backs off for 67 s before the last).
    pub opening: Span,
    /// Established TCP: 2 h 4 min, the least that RFC 5382 REQ-5 allows, four minutes over the
    /// first keepalive (RFC 9293 §3.8.4).
    pub established: Span,
    /// Half-closed TCP: 4 min, the transitory timeout of RFC 5382 REQ-5. The side that is still
    /// open may go on for as long as it likes: every packet starts the time anew.
    pub half_closed: Span,
    /// Closed TCP: 10 s for what is still under way. Not TIME-WAIT: the hosts keep that.
    pub closed: Span,
    /// Datagrams that were never answered: 2 min, the least that RFC 4787 REQ-5 allows.
    pub one_way: Span,
    /// Datagrams both ways: 5 min, what RFC 4787 REQ-5 recommends.
    pub two_way: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            opening: Span(70),
            established: Span(2 * 60 * 60 + 4 * 60),
            half_closed: Span(4 * 60),
            closed: Span(10),
            one_way: Span(2 * 60),
            two_way: Span(5 * 60),
        }
    }
}

impl Timeouts {
    /// How long a flow in `state` is kept.
    #[inline]
    #[must_use]
    pub const fn of(&self, state: State) -> Span {
        match state {
            State::Opening => self.opening,
            State::Established => self.established,
            State::ClientClosed | State::BackendClosed => self.half_closed,
            State::Closed => self.closed,
            State::OneWay => self.one_way,
            State::TwoWay => self.two_way,
        }
    }

    /// How old a flow's last-seen may get before a packet renews it: a quarter of its time, at
    /// most half a minute. So a flow of many packets a second writes to its cache line, and to that
    /// of its other entry, hardly ever.
    #[inline]
    #[must_use]
    pub const fn grain(&self, state: State) -> Span {
        let quarter = self.of(state).0 / 4;
        Span(if quarter < 30 { quarter } else { 30 })
    }

    /// Whether a packet now should renew the last-seen of a flow in `state`.
    #[inline]
    #[must_use]
    pub const fn is_stale(&self, state: State, last_seen: Seconds, now: Seconds) -> bool {
        now.0.saturating_sub(last_seen.0) > self.grain(state).0
    }

    /// Whether a flow in `state`, last seen then, has ended by now: its time is up even if its
    /// last packet came just before it would have been renewed.
    ///
    /// Workers' clocks agree but are read at different moments: a flow seen "later" than now has
    /// just been seen.
    #[inline]
    #[must_use]
    pub const fn has_ended(&self, state: State, last_seen: Seconds, now: Seconds) -> bool {
        now.0.saturating_sub(last_seen.0) > self.of(state).0 + self.grain(state).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_that_is_not_renewed_lives_its_whole_time_still() {
        let timeouts = Timeouts::default();
        for state in State::ALL {
            let (span, grain) = (timeouts.of(state).0, timeouts.grain(state).0);
            assert!(grain <= 30 && grain * 4 <= span);
            // The packet at 100 + grain did not renew it; it ends a whole span later.
            assert!(!timeouts.is_stale(state, Seconds(100), Seconds(100 + grain)));
            assert!(timeouts.is_stale(state, Seconds(100), Seconds(101 + grain)));
            assert!(!timeouts.has_ended(state, Seconds(100), Seconds(100 + grain + span)));
        }
    }

    #[test]
    fn a_flow_ends_after_its_time_and_not_before() {
        let timeouts = Timeouts::default();
        for state in State::ALL {
            let span = timeouts.of(state).0 + timeouts.grain(state).0;
            assert!(!timeouts.has_ended(state, Seconds(100), Seconds(100 + span)));
            assert!(timeouts.has_ended(state, Seconds(100), Seconds(101 + span)));
            assert!(!timeouts.has_ended(state, Seconds(100), Seconds(99)));
        }
    }
}
