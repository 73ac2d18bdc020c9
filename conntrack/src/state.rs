//! The life of a flow as a pure function: state, direction and flags in, state out.
//!
//! It follows RFC 9293 §3.3.2 as far as somebody in the middle can: a balancer sees segments,
//! not what the hosts made of them, and with direct server return only one direction.
//!
//! | state | meaning | from it |
//! |---|---|---|
//! | `Opening` | one segment of the client was seen, a SYN or another | its next one without SYN: `Established` |
//! | `Established` | the handshake is done | FIN: half closed |
//! | `ClientClosed`, `BackendClosed` | a FIN from that side | the other side's FIN: `Closed`; a new SYN from the client: `Opening` |
//! | `Closed` | both FINs, or a RST | a new SYN from the client: `Opening` |
//! | `OneWay` | datagrams from the client | one from the backend: `TwoWay` |
//! | `TwoWay` | datagrams both ways | |
//!
//! A RST closes from any TCP state. Whether a RST or FIN can be its sender's own is judged before
//! this function is asked (`reach`): what is forged from elsewhere never gets here.

/// IANA number of TCP.
const TCP: u8 = 6;
pub(crate) const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Where in its life a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// TCP, half open.
    Opening = 1,
    /// TCP, open in both directions.
    Established = 2,
    /// TCP, the client has sent its FIN.
    ClientClosed = 3,
    /// TCP, the backend has sent its FIN.
    BackendClosed = 4,
    /// TCP, over.
    Closed = 5,
    /// Datagrams, only from the client so far.
    OneWay = 6,
    /// Datagrams in both directions.
    TwoWay = 7,
}

/// Who sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The client.
    FromClient,
    /// The backend.
    FromBackend,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::FromClient => Self::FromBackend,
            Self::FromBackend => Self::FromClient,
        }
    }
}

impl State {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Opening,
        Self::Established,
        Self::ClientClosed,
        Self::BackendClosed,
        Self::Closed,
        Self::OneWay,
        Self::TwoWay,
    ];

    /// The state of a flow whose first packet seen is this one from the client; `None` when such
    /// a packet begins nothing. `tcp_flags` is the header's flags byte, ignored for other
    /// protocols.
    ///
    /// A segment in mid-stream opens a flow like a SYN does, and only the client's next one
    /// establishes it: else a flood of single forged segments would fill the table with flows
    /// that may not be evicted.
    #[inline]
    #[must_use]
    pub const fn opened_by(protocol: u8, tcp_flags: u8) -> Option<Self> {
        if protocol != TCP {
            Some(Self::OneWay)
        } else if tcp_flags & RST != 0 || tcp_flags & (SYN | ACK) == SYN | ACK {
            None
        } else {
            Some(Self::Opening)
        }
    }

    /// The state after a packet.
    #[inline]
    #[must_use]
    pub const fn after(self, direction: Direction, tcp_flags: u8) -> Self {
        use Direction::{FromBackend, FromClient};
        if matches!(self, Self::OneWay | Self::TwoWay) {
            return if matches!(direction, FromBackend) {
                Self::TwoWay
            } else {
                self
            };
        }
        let is_syn = tcp_flags & (SYN | ACK) == SYN;
        if tcp_flags & RST != 0 {
            return Self::Closed;
        }
        if tcp_flags & FIN != 0 {
            return match (self, direction) {
                (Self::Closed, _)
                | (Self::BackendClosed, FromClient)
                | (Self::ClientClosed, FromBackend) => Self::Closed,
                (_, FromClient) => Self::ClientClosed,
                (_, FromBackend) => Self::BackendClosed,
            };
        }
        match (self, direction) {
            (_, FromClient) if is_syn && self.may_be_reopened() => Self::Opening,
            (Self::Opening, FromClient) if tcp_flags & SYN == 0 => Self::Established,
            _ => self,
        }
    }

    /// Whether a packet is like most: UDP, or a segment that neither opens, ends nor resets.
    #[inline]
    pub(crate) const fn is_usual(tcp_flags: u8) -> bool {
        tcp_flags & (SYN | FIN | RST) == 0
    }

    /// Whether such a packet of this direction leaves the state as it is.
    pub(crate) const fn is_kept_by_usual(self, direction: Direction) -> bool {
        self.after(direction, ACK) as u8 == self as u8
    }

    /// Whether the connection is over.
    #[inline]
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Closed)
    }

    /// Whether a SYN from the client begins a new connection on the same ports: one side at least
    /// has said that it is done. Where only the client's segments are seen (direct server
    /// return), its own FIN is all there ever is.
    #[inline]
    #[must_use]
    pub const fn may_be_reopened(self) -> bool {
        matches!(
            self,
            Self::ClientClosed | Self::BackendClosed | Self::Closed
        )
    }

    /// Whether a newcomer may take the place of a flow in this state before its time is up.
    #[inline]
    #[must_use]
    pub const fn may_be_evicted(self) -> bool {
        matches!(self, Self::Opening | Self::Closed | Self::OneWay)
    }

    /// As `status` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Established => "established",
            Self::ClientClosed => "client-closed",
            Self::BackendClosed => "backend-closed",
            Self::Closed => "closed",
            Self::OneWay => "one-way",
            Self::TwoWay => "two-way",
        }
    }

    /// The state with this number; `None` for any other number.
    #[inline]
    #[must_use]
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Opening),
            2 => Some(Self::Established),
            3 => Some(Self::ClientClosed),
            4 => Some(Self::BackendClosed),
            5 => Some(Self::Closed),
            6 => Some(Self::OneWay),
            7 => Some(Self::TwoWay),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{FromBackend, FromClient};
    use super::State::{BackendClosed, ClientClosed, Closed, Established, OneWay, Opening, TwoWay};
    use super::*;

    #[test]
    fn the_whole_transition_table() {
        // Columns: SYN, SYN+ACK, ACK, FIN+ACK, RST; first from the client, then from the backend.
        let flags = [SYN, SYN | ACK, ACK, FIN | ACK, RST];
        let table = [
            (
                Opening,
                [Opening, Opening, Established, ClientClosed, Closed],
                [Opening, Opening, Opening, BackendClosed, Closed],
            ),
            (
                Established,
                [Established, Established, Established, ClientClosed, Closed],
                [Established, Established, Established, BackendClosed, Closed],
            ),
            (
                ClientClosed,
                [Opening, ClientClosed, ClientClosed, ClientClosed, Closed],
                [ClientClosed, ClientClosed, ClientClosed, Closed, Closed],
            ),
            (
                BackendClosed,
                [Opening, BackendClosed, BackendClosed, Closed, Closed],
                [
                    BackendClosed,
                    BackendClosed,
                    BackendClosed,
                    BackendClosed,
                    Closed,
                ],
            ),
            (
                Closed,
                [Opening, Closed, Closed, Closed, Closed],
                [Closed, Closed, Closed, Closed, Closed],
            ),
            (OneWay, [OneWay; 5], [TwoWay; 5]),
            (TwoWay, [TwoWay; 5], [TwoWay; 5]),
        ];
        assert_eq!(table.map(|(state, _, _)| state), State::ALL);
        for (state, from_client, from_backend) in table {
            for (flag, expected) in flags.into_iter().zip(from_client) {
                assert_eq!(
                    state.after(FromClient, flag),
                    expected,
                    "{state:?} client {flag:#x}"
                );
            }
            for (flag, expected) in flags.into_iter().zip(from_backend) {
                assert_eq!(
                    state.after(FromBackend, flag),
                    expected,
                    "{state:?} backend {flag:#x}"
                );
            }
        }
    }

    #[test]
    fn the_first_packet_says_where_a_flow_begins() {
        assert_eq!(State::opened_by(TCP, SYN), Some(Opening));
        assert_eq!(State::opened_by(TCP, ACK), Some(Opening));
        assert_eq!(State::opened_by(TCP, FIN | ACK), Some(Opening));
        assert_eq!(State::opened_by(TCP, RST | ACK), None);
        assert_eq!(State::opened_by(TCP, SYN | ACK), None);
        assert_eq!(State::opened_by(17, 0), Some(OneWay));
    }

    #[test]
    fn numbers_go_and_come_back() {
        for number in 0..=u8::MAX {
            let state = State::from_number(number);
            assert_eq!(
                state.map(|state| state as u8),
                (1..=7).contains(&number).then_some(number)
            );
        }
    }
}
