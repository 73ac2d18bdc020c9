//! Errors that others report: to whom of the two ends of the flow that they quote, and as what.
//!
//! | the quoted packet | was sent by | the error goes to |
//! |---|---|---|
//! | from a service to a client | a backend: directly, or through us | that backend |
//! | from a client to a NAT backend | a client, through us | that client |
//!
//! The flow is looked up and left as it is: anybody can forge an error, so none of them keeps a
//! flow alive or ends it (RFC 5508 §4.2, RFC 5927). The ends judge for themselves, by the sequence
//! numbers that are quoted.
//!
//! Where addresses are translated, the quoted packet becomes what the receiver of the error had
//! sent. An error on its way to a client then comes from the service (RFC 5508 REQ-5: from the
//! translator's own address, whoever in the realm behind it reported), one on its way to a backend
//! from whoever reported it (REQ-4).

use ringgate_config::Forward;
use ringgate_conntrack::{Endpoint, FlowKey, Found};

use super::message::Message;
use super::quote::Quote;
use crate::backend::{Backend, BackendId};
use crate::route::{Hop, PortIndex};
use crate::service::Service;
use crate::snapshot::Return;
use crate::steer::{Refusal, Steering};
use crate::verdict::DropReason;
use crate::wire::Side;
use crate::wire::ethernet::EthernetMut;

/// An error and the flow of the packet that it quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Errand {
    message: Message,
    quote: Quote,
    /// The quoted packet's flow, in its direction.
    key: FlowKey,
}

/// To whom an error goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Receiver<'a> {
    /// To the backend that has the flow.
    Backend(&'a Backend),
    /// To a backend of this service. The flow is not known here: another balancer has it, or
    /// none remembers it. `Backend` is whom the ring names.
    Unknown(&'a Service, &'a Backend),
    /// To the client of a NAT flow; the service's endpoint and where the client is.
    Client(Endpoint, Hop),
}

impl Errand {
    /// The errand that `message` in `frame` is on.
    ///
    /// # Errors
    ///
    /// [`DropReason::IcmpUnknown`] if it does not quote enough to name a flow, or was not sent to
    /// the source of what it quotes, where errors go (RFC 792, RFC 4443 §2.2).
    pub(super) fn read(frame: &[u8], message: Message) -> Result<Self, DropReason> {
        let quote = Quote::read(frame, message.body(), message.end);
        let quote = quote.ok_or(DropReason::IcmpUnknown)?;
        if quote.family != message.family || quote.source != message.destination {
            return Err(DropReason::IcmpUnknown);
        }
        let key = quote.key(frame).ok_or(DropReason::IcmpUnknown)?;
        Ok(Self {
            message,
            quote,
            key,
        })
    }

    /// Finds the receiver.
    ///
    /// # Errors
    ///
    /// The one reason why there is none.
    pub(super) fn receiver<'a>(&self, steering: &Steering<'a>) -> Result<Receiver<'a>, Refusal> {
        let (key, snapshot) = (&self.key, steering.snapshot);
        if let Some(service) = snapshot.service(key.source(), key.protocol()) {
            // The client's packets have the flow's key.
            let flow = key.reversed();
            let known = known(steering, &flow);
            return match known.and_then(|found| steering.serving(BackendId(found.owner))) {
                Some(backend) => Ok(Receiver::Backend(backend)),
                None => {
                    let chosen = service.choose(&flow, 0).and_then(|id| snapshot.backend(id));
                    let backend = chosen.ok_or(DropReason::NoBackend)?;
                    Ok(Receiver::Unknown(service, backend))
                }
            };
        }
        match snapshot.reply_from(key.destination(), key.protocol()) {
            Some(whose) => self.client(steering, whose),
            None => Err(DropReason::IcmpUnknown.into()),
        }
    }

    /// The client that sent the quoted packet, which was then translated for a backend.
    fn client<'a>(&self, steering: &Steering<'a>, whose: Return) -> Result<Receiver<'a>, Refusal> {
        let reply = self.key.reversed();
        let sender = known(steering, &reply).and_then(|found| steering.sender(&found, &reply));
        let (listen, backend) = match sender {
            Some(backend) => (backend.listen, backend),
            None => steering.unstored_reply(whose, &reply)?,
        };
        // As with replies: who is elsewhere cannot know of the packet.
        if backend.hop.is_ok_and(|hop| hop.port != steering.ingress) {
            return Err(DropReason::WrongInterface.into());
        }
        let (client, family) = (self.message.destination, self.message.family);
        let hop = *steering.snapshot.fib().hop(client, family)?;
        Ok(Receiver::Client(listen, hop))
    }

    /// Makes of the error in `frame` what `backend` is to get. Returns where it leaves.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent there.
    pub(super) fn to_backend(
        mut self,
        frame: &mut [u8],
        backend: &Backend,
    ) -> Result<PortIndex, Refusal> {
        let hop = backend.hop?;
        let is_routed = match backend.forward {
            // Direct return: the error is addressed to the service, whose address the backend has.
            Forward::DsrL2 => false,
            Forward::Nat => {
                let listen = self.key.source();
                let to = backend.endpoint;
                self.quote
                    .readdress(frame, Side::Source, (listen, to))
                    .and_then(|()| self.message.readdress(frame, Side::Destination, to.address))
                    .ok_or(DropReason::Truncated)?;
                true
            }
        };
        self.leave(frame, &hop, is_routed)
    }

    /// Makes of the error in `frame` what the client is to get. Returns where it leaves.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent there.
    pub(super) fn to_client(
        mut self,
        frame: &mut [u8],
        listen: Endpoint,
        hop: &Hop,
    ) -> Result<PortIndex, Refusal> {
        let sent_to = self.key.destination();
        self.quote
            .readdress(frame, Side::Destination, (sent_to, listen))
            .and_then(|()| self.message.readdress(frame, Side::Source, listen.address))
            .ok_or(DropReason::Truncated)?;
        self.leave(frame, hop, true)
    }

    /// The last of it: hops, room, checksum, hardware addresses.
    fn leave(mut self, frame: &mut [u8], hop: &Hop, is_routed: bool) -> Result<PortIndex, Refusal> {
        let message = &mut self.message;
        if message.ttl < if is_routed { 2 } else { 1 } {
            return Err(DropReason::TtlExpired.into());
        }
        if message.ip_len() > usize::try_from(hop.mtu).unwrap_or(usize::MAX) {
            return Err(DropReason::TooBig.into());
        }
        if is_routed {
            let aged = message.age(frame).and_then(|()| message.seal(frame));
            aged.ok_or(DropReason::Truncated)?;
        }
        let ethernet = frame.first_chunk_mut().ok_or(DropReason::Truncated)?;
        EthernetMut::new(ethernet).set_addresses(hop.destination, hop.source);
        Ok(hop.port)
    }
}

/// The entry of a flow in either table.
fn known(steering: &Steering<'_>, key: &FlowKey) -> Option<Found> {
    let (hash, half) = (steering.table.hash(key), steering.half_open());
    let stored = steering.table.lookup(key, hash, steering.now);
    stored.or_else(|| half.table.lookup(key, hash, half.now))
}
