//! How long a flow is kept after its last packet, and why.
//!
//! [`Timeouts`] are one set of spans, one for each state. A table knows up to [`Profile::COUNT`]
//! sets, and each flow has the number of one: its [`Profile`]. What a number stands for can be
//! changed while the table is in use, for all of the number's flows at once; which number a flow
//! has, with any of its packets.

use crate::state::State;

/// A moment, in whole seconds since an arbitrary start that all users of a table share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seconds(pub u32);

/// A span of time in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u32);

/// The number of one of a table's sets of timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Profile(u8);

impl Profile {
    /// How many there are: what four bits of a flow's control word can tell apart.
    pub const COUNT: usize = 16;

    /// The first.
    pub const DEFAULT: Self = Self(0);

    /// The profile with this number; `None` from [`COUNT`](Self::COUNT) on.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// All of them, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0_u8..).map_while(Self::new)
    }

    /// Its number, below [`COUNT`](Self::COUNT).
    #[inline]
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The one that the low four bits name.
    #[inline]
    pub(crate) const fn from_low_bits(bits: u8) -> Self {
        Self(bits & 0xF)
    }
}

/// How long a flow in each state is kept after its last packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
