//! What comes out of steering: where a packet goes and how, or why it goes nowhere.

use ringgate_conntrack::{Direction, Endpoint, FlowKey, Tie, Whose};

use super::Steering;
use crate::backend::{Backend, BackendId, Treatment};
use crate::parse::Packet;
use crate::rewrite::{
    Encapsulation, Exchange, concern, encapsulate, exchange, redirect, rewrite, translate,
};
use crate::route::{Hop, Miss, Neighbour, PortIndex};
use crate::verdict::DropReason;
use crate::xsk::Frame;

/// What is done to a packet's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Only the hardware addresses change.
    Direct,
    /// The destination becomes this endpoint, and the packet has been routed once more.
    ToBackend(Endpoint),
    /// The source becomes this endpoint, and the packet has been routed once more.
    ToClient(Endpoint),
    /// The packet, routed once more, goes in another.
    Encapsulate(&'a Encapsulation),
    /// Both endpoints become these, and the packet, from whom it says, has been routed once more.
    Exchange(Exchange, Direction),
}

/// What became of the flow, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEvent {
    /// Nothing worth counting.
    None,
    /// Stored.
    Created,
    /// Remembered as half open.
    HalfOpen {
        /// Entries of other half-open flows that gave way.
        displaced: u8,
    },
    /// Given to another backend.
    Rehashed,
    /// Not stored: no room.
    TableFull,
    /// Not stored: another worker was writing there.
    Contended,
    /// Ended by its backend before it was used; not by every reset.
    Refused,
    /// Left as it was: the packet would end it, and cannot be its sender's own.
    OutOfWindow,
    /// Not stored: datagram flows begin faster than the limit.
    TooFast,
}

/// Where a packet goes and how. What the snapshot has of it stays there: a decision is handed on often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What is done to its headers.
    pub action: Action<'a>,
    /// Where it leaves.
    pub hop: &'a Hop,
    /// The backend it goes to or comes from; `None` for a reply whose flow and service no
    /// longer name one.
    pub backend: Option<BackendId>,
    /// What became of its flow.
    pub event: FlowEvent,
    /// Its segment size is lowered to this, bytes: it is a SYN, and its service wants that.
    pub most_segment: Option<u16>,
}

impl<'a> Decision<'a> {
    pub(super) fn new(
        action: Action<'a>,
        hop: &'a Hop,
        backend: &Backend,
        event: FlowEvent,
    ) -> Self {
        Self {
            action,
            hop,
            backend: Some(backend.id),
            event,
            most_segment: None,
        }
    }

    /// The key that the client's packets have, of the flow that `packet` is of, of which this was decided.
    pub(crate) fn client_key(&self, packet: &Packet) -> FlowKey {
        let key = &packet.key;
        match self.action {
            Action::ToClient(asked) => FlowKey::new(key.protocol(), key.destination(), asked),
            Action::Exchange(to, Direction::FromBackend) => {
                FlowKey::new(key.protocol(), to.destination, to.source)
            }
            _ => *key,
        }
    }

    /// Who sent the packet.
    pub(crate) fn direction(&self) -> Direction {
        match self.is_reply() {
            true => Direction::FromBackend,
            false => Direction::FromClient,
        }
    }

    /// Whether the packet comes from a backend.
    #[inline]
    #[must_use]
    pub fn is_reply(&self) -> bool {
        matches!(
            self.action,
            Action::ToClient(_) | Action::Exchange(_, Direction::FromBackend)
        )
    }
}

/// Where a packet of a flow that goes on as before leaves, and as what.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    pub(super) backend: &'a Backend,
    /// Who sent the packet.
    pub(super) direction: Direction,
    pub(super) hop: &'a Hop,
    /// Where both endpoints are replaced: what by.
    pub(super) tie: Tie,
}

impl<'a> Way<'a> {
    /// The interface it leaves by.
    #[inline]
    #[must_use]
    pub fn port(&self) -> PortIndex {
        self.hop.port
    }

    /// The backend it goes to or comes from.
    #[inline]
    #[must_use]
    pub fn backend(&self) -> BackendId {
        self.backend.id
    }

    /// Who sent it.
    #[inline]
    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    /// As [`Decision::client_key`]; `None` when another worker has changed the flow meanwhile.
    pub(crate) fn client_key(&self, steering: &Steering<'_>, packet: &Packet) -> Option<FlowKey> {
        let key = &packet.key;
        match (&self.backend.treatment, self.direction) {
            (_, Direction::FromClient) => Some(*key),
            (Treatment::Exchange, Direction::FromBackend) => steering.client_of(self.whose(), key),
            (_, Direction::FromBackend) => {
                let asked = self.backend.virtual_endpoint(key.source().port);
                Some(FlowKey::new(key.protocol(), key.destination(), asked))
            }
        }
    }

    /// Whether it comes from the backend.
    #[inline]
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.direction == Direction::FromBackend
    }

    /// Rewrites `frame`, from which `packet` was parsed, as `steering` has decided.
    ///
    /// # Errors
    ///
    /// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes;
    /// [`DropReason::Unstored`] when another worker has changed the flow meanwhile. Nothing is changed then.
    // Always: left to itself, the compiler calls it, and saves six registers each time.
    #[inline(always)]
    pub fn rewrite(
        &self,
        steering: &Steering<'_>,
        frame: &mut Frame,
        packet: &Packet,
    ) -> Result<(), DropReason> {
        if concern(packet, self.hop) {
            return self.rewrite_slowly(steering, frame, packet);
        }
        match (&self.backend.treatment, self.direction) {
            (Treatment::Translate(translations), direction) => {
                let translation = match direction {
                    Direction::FromClient => &translations.to_backend,
                    Direction::FromBackend => &translations.to_client,
                };
                translate(frame.bytes_mut(), packet, translation, self.hop)
            }
            (Treatment::Direct, _) => redirect(frame.bytes_mut(), packet, self.hop),
            (Treatment::Encapsulate(encapsulation), _) => {
                encapsulate(frame, packet, encapsulation, self.hop)
            }
            (Treatment::Exchange, _) => self.exchange(steering, frame, packet),
            (Treatment::Readdress, _) => self.rewrite_slowly(steering, frame, packet),
        }
    }

    /// Replaces both endpoints. Apart, so that others' way is short.
    #[inline(never)]
    fn exchange(
        &self,
        steering: &Steering<'_>,
        frame: &mut Frame,
        packet: &Packet,
    ) -> Result<(), DropReason> {
        let endpoints = steering.exchange_of(self.backend, self.whose(), packet);
        let endpoints = endpoints.ok_or(DropReason::Unstored)?;
        exchange(frame.bytes_mut(), packet, &endpoints, self.hop)
    }

    /// The same, whatever there is to be done.
    #[inline(never)]
    fn rewrite_slowly(
        &self,
        steering: &Steering<'_>,
        frame: &mut Frame,
        packet: &Packet,
    ) -> Result<(), DropReason> {
        let action = self.action(steering, packet);
        rewrite(
            frame,
            packet,
            &action.ok_or(DropReason::Unstored)?,
            self.hop,
        )
    }

    /// What its entry says.
    fn whose(&self) -> Whose {
        Whose {
            owner: self.backend.id.0,
            direction: self.direction,
            tie: self.tie,
        }
    }

    /// What is done to the packet, in one word; `None` when its flow was changed meanwhile.
    fn action(&self, steering: &Steering<'_>, packet: &Packet) -> Option<Action<'a>> {
        Some(match (&self.backend.treatment, self.direction) {
            (Treatment::Exchange, direction) => {
                let endpoints = steering.exchange_of(self.backend, self.whose(), packet)?;
                Action::Exchange(endpoints, direction)
            }
            (_, Direction::FromClient) => Action::to(self.backend, packet),
            (_, Direction::FromBackend) => {
                let port = packet.key.source().port;
                Action::ToClient(self.backend.virtual_endpoint(port))
            }
        })
    }

    /// What was decided, in full.
    pub(crate) fn decision(
        &self,
        steering: &Steering<'_>,
        packet: &Packet,
    ) -> Result<Decision<'a>, Refusal> {
        let action = self.action(steering, packet);
        let action = action.ok_or(DropReason::Unstored)?;
        Ok(Decision::new(
            action,
            self.hop,
            self.backend,
            FlowEvent::None,
        ))
    }
}

impl<'a> Action<'a> {
    /// What is done to a client's packet for `backend`, unless that depends on its flow
    /// ([`Treatment::Exchange`]).
    pub(super) fn to(backend: &'a Backend, packet: &Packet) -> Self {
        match &backend.treatment {
            Treatment::Direct => Self::Direct,
            Treatment::Translate(_) | Treatment::Readdress | Treatment::Exchange => {
                Self::ToBackend(backend.endpoint_for(packet.key.destination().port))
            }
            Treatment::Encapsulate(encapsulation) => Self::Encapsulate(encapsulation),
        }
    }
}

/// Why a packet goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The reason to count.
    pub reason: DropReason,
    /// A next hop that control should ask the kernel for.
    pub wanted: Option<Neighbour>,
    /// Of a packet that is too big: the longest that would fit, bytes.
    pub mtu: Option<u32>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self {
            reason,
            wanted: None,
            mtu: None,
        }
    }
}

impl From<Miss> for Refusal {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::NoRoute => DropReason::NoRoute.into(),
            Miss::NoSource => DropReason::NoSource.into(),
            Miss::NoNeighbour(neighbour) => Self {
                reason: DropReason::NoNeighbour,
                wanted: Some(neighbour),
                mtu: None,
            },
        }
    }
}
