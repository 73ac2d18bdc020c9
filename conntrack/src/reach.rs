//! How far the sender of a flow's packets has come in its sequence space, and which segments can
//! be its own: a pure function, and the word of a slot that it is kept in.
//!
//! Whoever knows a connection's addresses and ports can forge a segment of it from anywhere. The
//! receiving host judges it by the window (RFC 9293 §3.10.7.4, RFC 5961 §3.2): a forged RST
//! reaches it and does nothing, unless its sequence number was guessed. A balancer that took every
//! RST for the end of the connection would be easier to deceive than the hosts it serves. So an
//! entry knows, coarsely, where its own sender is, and a RST or FIN from elsewhere changes nothing
//! here. It is forwarded all the same: the receiver has the last word.
//!
//! | segment | within [`WINDOW`] of the reach | elsewhere |
//! |---|---|---|
//! | RST | accepted | foreign |
//! | FIN | accepted, moves the reach like any other | foreign |
//! | any other, ahead by more than a unit | moves the reach | one strike |
//! | any other | ends a row of strikes | one strike |
//!
//! A single segment from elsewhere moves nothing, or a blind attacker would first move the reach
//! and then close the flow there. But a sender may really be elsewhere: its packets went through
//! another balancer for a while. Then all of its segments are, and follow each other: [`STRIKES`]
//! in a row, each in the same 8 MiB as the one before or in the next, and none at the old place
//! between, move the reach. Forging that many takes about as many packets as forging a RST for every window of the
//! sequence space (2^32 / 2^23 = 512), so it is no short cut.
//!
//! While a flow is `Opening` nothing is judged and every segment sets the reach: a flow that any
//! newcomer may displace needs no protection from forged segments, and its numbers only begin. A
//! reach that is not known yet (the other direction's entry when a flow is stored) accepts
//! everything and is set by the first segment. Datagrams have no numbers: theirs is never asked.
//!
//! # The word
//!
//! | bits | content |
//! |---|---|
//! | 0..8 | strikes in a row |
//! | 8 | the reach is not known |
//! | 9..16 | 0 |
//! | 16..32 | where the window before the reach begins: high half of a sequence number, so units of 64 KiB |
//! | 32..41 | where the last strike was: the nine high bits of a sequence number, 8 MiB |
//! | 41..64 | version of the record that it belongs to (`control`) |
//!
//! The low half is laid out for the one question that every packet asks, [`Reach::covers`]: a mask
//! that must find nothing, and one subtraction in the arithmetic of sequence numbers.
//!
//! The word is written under the slot's protocol when a record is, and by compare-and-swap alone
//! while the record stands. The version makes the two agree: a writer that comes late, with what
//! it has read of a flow that is gone, finds another version and changes nothing.

use crate::control::Control;
use crate::state::{FIN, RST, State};

/// How far from the reach a RST or FIN is believed, either side, in bytes: 4 MiB, the largest send
/// buffer that Linux gives a connection unless told otherwise (`tcp_wmem`). A sender has no more
/// than that in flight, so neither a segment sent again nor one after a burst that was lost before
/// it came here is further away.
pub const WINDOW: u32 = 1 << 22;

/// Segments in a row from one other place that move the reach there.
pub const STRIKES: u32 = 256;

/// The reach is kept in units of this many bytes.
const UNIT: u32 = 1 << 16;
/// How many units ahead a segment may be before the reach follows: one, so that what comes out of
/// order around the border of a unit does not matter and a flow at full speed writes to its slot
/// every 128 KiB, some ninety segments.
const SLACK: u32 = UNIT;

const STRIKES_MASK: u64 = 0xFF;
const UNKNOWN: u64 = 1 << 8;
/// What keeps a reach from being asked at all.
const UNSETTLED: u32 = 0x1FF;
const STRUCK_SHIFT: u32 = 32;
const STRUCK_MASK: u64 = 0x1FF;
/// Of a sequence number: what is left are blocks of 8 MiB.
const BLOCK_SHIFT: u32 = 23;
const VERSION_SHIFT: u32 = 41;
const VERSION_MASK: u64 = !0 << VERSION_SHIFT;

/// What of a segment says where its sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The header's flags byte.
    pub tcp_flags: u8,
    /// Its sequence number, host order.
    pub sequence: u32,
}

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach(u64);

impl Reach {
    /// Of a sender of whom no segment was seen yet.
    pub const UNKNOWN: Self = Self(UNKNOWN);

    /// Of datagrams, which have no numbers: where a packet without one is always covered.
    pub const OF_DATAGRAMS: Self = Self::at(0);

    /// Of a sender whose last segment had this sequence number.
    #[must_use]
    pub const fn at(sequence: u32) -> Self {
        Self(0).moved(sequence)
    }

    /// Whether a segment with this sequence number is where it should be and nothing is to be
    /// noted of it: so it is for nearly all.
    #[inline]
    #[must_use]
    pub const fn covers(self, sequence: u32) -> bool {
        let low = self.low();
        low & UNSETTLED == 0 && sequence.wrapping_sub(low) < WINDOW + SLACK + UNIT
    }

    /// The reach after a segment of its sender in a flow in `state`; `None` if the segment is a
    /// RST or FIN that cannot be the sender's own, as far as we can see.
    #[must_use]
    pub const fn after(self, state: State, segment: Segment) -> Option<Self> {
        let Segment {
            tcp_flags,
            sequence,
        } = segment;
        if matches!(state, State::OneWay | State::TwoWay) {
            return Some(self);
        }
        let resets = tcp_flags & RST != 0;
        if matches!(state, State::Opening) {
            return Some(if resets { self } else { self.moved(sequence) });
        }
        if tcp_flags & (RST | FIN) != 0 && !self.is_near(sequence) {
            return None;
        }
        Some(if resets {
            self
        } else {
            self.followed(sequence)
        })
    }

    /// The reach after a segment that neither resets nor comes from elsewhere with a FIN.
    const fn followed(self, sequence: u32) -> Self {
        if !self.is_near(sequence) {
            self.struck(sequence)
        } else if self.is_known() && self.settled().covers(sequence) {
            self.settled()
        } else {
            self.moved(sequence)
        }
    }

    /// After a segment from elsewhere.
    const fn struck(self, sequence: u32) -> Self {
        let block = (sequence >> BLOCK_SHIFT) as u64;
        let last = self.0 >> STRUCK_SHIFT;
        // One further, one back, or the same, on a circle.
        let is_next = block.wrapping_sub(last).wrapping_add(1) & STRUCK_MASK <= 2;
        let before = self.0 & STRIKES_MASK;
        let strikes = if before > 0 && is_next { before + 1 } else { 1 };
        if strikes >= STRIKES as u64 {
            return self.moved(sequence);
        }
        let Self(settled) = self.settled();
        Self(settled | block << STRUCK_SHIFT | strikes)
    }

    /// At another number, without strikes.
    const fn moved(self, sequence: u32) -> Self {
        let begin = (sequence - sequence % UNIT).wrapping_sub(WINDOW);
        Self(self.0 & VERSION_MASK | begin as u64)
    }

    /// At the same number, without strikes.
    const fn settled(self) -> Self {
        self.moved(self.low().wrapping_add(WINDOW))
    }

    #[inline]
    const fn low(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    const fn is_known(self) -> bool {
        self.0 & UNKNOWN == 0
    }

    /// Whether a sequence number is within the window, give or take a unit, or there is none yet.
    /// Numbers wrap (RFC 9293 §3.4).
    const fn is_near(self, sequence: u32) -> bool {
        let begin = self.settled().low();
        !self.is_known() || sequence.wrapping_sub(begin) < 2 * WINDOW + UNIT
    }

    /// As it is kept beside the record whose control word this is.
    pub(crate) const fn of_record(self, control: Control) -> Self {
        Self(self.0 & !VERSION_MASK | control.version() << VERSION_SHIFT)
    }

    #[inline]
    pub(crate) const fn to_word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) const fn from_word(word: u64) -> Self {
        Self(word)
    }
}

const _: () = {
    assert!(WINDOW.is_multiple_of(UNIT) && SLACK.is_multiple_of(UNIT));
    assert!(STRIKES as u64 - 1 <= STRIKES_MASK);
    // What is struck is elsewhere by at least as much as a block can hide.
    assert!(1 << BLOCK_SHIFT == 2 * WINDOW);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::expiry::{Profile, Seconds};

    const ACK: u8 = 0x10;
    const ENDS: [u8; 4] = [RST, RST | ACK, FIN | ACK, FIN];
    const JUDGED: [State; 4] = [
        State::Established,
        State::ClientClosed,
        State::BackendClosed,
        State::Closed,
    ];

    fn segment(tcp_flags: u8, sequence: u32) -> Segment {
        Segment {
            tcp_flags,
            sequence,
        }
    }

    /// The same, by plain numbers: the sender's unit, and the strikes with their block.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Oracle {
        at: Option<u32>,
        strikes: Option<(u32, u32)>,
    }

    /// The way from one place to another on a circle of `all`, the short way round.
    fn way(from: u32, to: u32, all: i64) -> i64 {
        let ahead = (i64::from(to) - i64::from(from)).rem_euclid(all);
        if ahead < all / 2 { ahead } else { ahead - all }
    }

    impl Oracle {
        fn after(self, segment: Segment) -> Option<Self> {
            let (here, block) = (segment.sequence / UNIT, segment.sequence / (8 << 20));
            let (reset, fin) = (segment.tcp_flags & RST != 0, segment.tcp_flags & FIN != 0);
            let there = |at| Self {
                at: Some(at),
                strikes: None,
            };
            let Some(at) = self.at else {
                return Some(if reset { self } else { there(here) });
            };
            let ahead = way(at, here, 1 << 16);
            if ahead.abs() <= 64 {
                let at = if ahead > 1 { here } else { at };
                return Some(if reset { self } else { there(at) });
            }
            if reset || fin {
                return None;
            }
            let count = match self.strikes {
                Some((count, last)) if way(last, block, 512).abs() <= 1 => count + 1,
                _ => 1,
            };
            Some(if count == 256 {
                there(here)
            } else {
                Self {
                    at: self.at,
                    strikes: Some((count, block)),
                }
            })
        }
    }

    fn seen(reach: Reach) -> Oracle {
        let low = u32::try_from(reach.0 & 0xFFFF_FFFF).unwrap();
        let at = low.wrapping_add(WINDOW) / UNIT;
        let strikes = low % 256;
        let struck = u32::try_from(reach.0 >> STRUCK_SHIFT & STRUCK_MASK).unwrap();
        Oracle {
            at: reach.is_known().then_some(at),
            strikes: (strikes > 0).then_some((strikes, struck)),
        }
    }

    /// Steps from one sequence number to the next: mostly small ones, and then anywhere.
    fn steps() -> impl Strategy<Value = Vec<(u8, u32, usize)>> {
        let flags = prop_oneof![8 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST)];
        let step = prop_oneof![
            4 => 0..4 * UNIT,
            2 => (0..2 * WINDOW).prop_map(|back| back.wrapping_neg()),
            2 => WINDOW - 2 * UNIT..WINDOW + 2 * UNIT,
            1 => any::<u32>(),
        ];
        proptest::collection::vec(
            (flags, step, prop_oneof![9 => Just(1), 1 => Just(300_usize)]),
            1..60,
        )
    }

    proptest! {
        #[test]
        fn it_agrees_with_plain_arithmetic(start: Option<u32>, steps in steps()) {
            let mut reach = start.map_or(Reach::UNKNOWN, Reach::at);
            let mut oracle = Oracle { at: start.map(|start| start / UNIT), strikes: None };
            let mut sequence = start.unwrap_or(0);
            for (tcp_flags, step, times) in steps {
                sequence = sequence.wrapping_add(step);
                for _ in 0..times {
                    let segment = segment(tcp_flags, sequence);
                    for state in JUDGED {
                        prop_assert_eq!(reach.after(state, segment), reach.after(JUDGED[0], segment));
                    }
                    let (next, expected) = (reach.after(JUDGED[0], segment), oracle.after(segment));
                    prop_assert_eq!(next.map(seen), expected);
                    prop_assert!(!reach.covers(sequence) || next == Some(reach));
                    reach = next.unwrap_or(reach);
                    oracle = expected.unwrap_or(oracle);
                }
            }
        }

        #[test]
        fn a_sender_that_goes_on_is_never_taken_for_another(
            start: u32,
            moves in proptest::collection::vec((0..WINDOW - UNIT, 0..WINDOW - 2 * UNIT), 1..200),
        ) {
            // However far it goes: each segment is at most a window after the furthest one,
            // and one sent again at most a window before it.
            let mut reach = Reach::at(start);
            let mut furthest = u64::from(start);
            for (step, back) in moves {
                furthest += u64::from(step);
                let low = |position: u64| (position & 0xFFFF_FFFF) as u32;
                for position in [furthest, furthest - u64::from(back).min(furthest)] {
                    let again = segment(ACK, low(position));
                    for tcp_flags in ENDS {
                        let ends = segment(tcp_flags, low(position));
                        prop_assert!(reach.after(State::Established, ends).is_some());
                    }
                    reach = reach.after(State::Established, again).unwrap();
                    prop_assert_eq!(seen(reach).strikes, None);
                }
            }
        }

        #[test]
        fn what_ends_a_flow_from_elsewhere_is_foreign(at: u32, away in WINDOW + UNIT..u32::MAX - WINDOW - UNIT) {
            for state in JUDGED {
                for tcp_flags in ENDS {
                    let forged = segment(tcp_flags, at.wrapping_add(away));
                    prop_assert_eq!(Reach::at(at).after(state, forged), None);
                }
            }
        }

        #[test]
        fn its_version_stays_with_the_record(word: u64, sequence: u32, flags: u8) {
            let control = Control(word & !1).renewed(State::Established, Profile::DEFAULT, Seconds(1));
            let reach = Reach::at(sequence).of_record(control);
            prop_assert_eq!(reach.to_word() >> VERSION_SHIFT, control.version());
            for state in State::ALL {
                if let Some(next) = reach.after(state, segment(flags, sequence.wrapping_mul(3))) {
                    prop_assert_eq!(next.to_word() >> VERSION_SHIFT, control.version());
                }
            }
        }
    }

    #[test]
    fn one_segment_from_elsewhere_moves_nothing_and_many_in_a_row_do() {
        let (home, away) = (7 * WINDOW, 0xF000_0000);
        let mut reach = Reach::at(home);
        for _ in 1..STRIKES {
            reach = reach.after(State::Established, segment(ACK, away)).unwrap();
            assert_eq!(reach.after(State::Established, segment(RST, away)), None);
        }
        // One from where the sender is, and the row is over.
        let at_home = reach.after(State::Established, segment(ACK, home)).unwrap();
        assert_eq!(at_home, Reach::at(home));
        let moved = reach.after(State::Established, segment(ACK, away));
        assert_eq!(moved, Some(Reach::at(away)));
    }

    #[test]
    fn an_opening_flow_and_an_unknown_reach_judge_nothing() {
        let away = segment(FIN | ACK, 1 << 31);
        let opening = Reach::at(0).after(State::Opening, away);
        assert_eq!(opening, Some(Reach::at(1 << 31)));
        let reset = Reach::at(0).after(State::Opening, segment(RST, 1 << 31));
        assert_eq!(reset, Some(Reach::at(0)));
        for state in JUDGED {
            assert_eq!(Reach::UNKNOWN.after(state, away), Some(Reach::at(1 << 31)));
            let reset = Reach::UNKNOWN.after(state, segment(RST, 1 << 31));
            assert_eq!(reset, Some(Reach::UNKNOWN));
        }
        assert!(!Reach::UNKNOWN.covers(0));
    }

    #[test]
    fn datagrams_are_never_judged() {
        for state in [State::OneWay, State::TwoWay] {
            for flags in [0, RST, FIN] {
                let after = Reach::OF_DATAGRAMS.after(state, segment(flags, 1 << 31));
                assert_eq!(after, Some(Reach::OF_DATAGRAMS));
            }
        }
        assert!(Reach::OF_DATAGRAMS.covers(0));
    }
}
