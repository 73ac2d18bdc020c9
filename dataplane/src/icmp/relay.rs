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
//!
//! Full NAT replaces both endpoints, and only its flow's entries know the one of them: an error about a
//! flow that is not in the table goes nowhere.

use ringgate_conntrack::{Endpoint, FlowKey, Found};

use super::message::Message;
use super::quote::Quote;
use crate::backend::{Backend, BackendId, Cost, Treatment};
use crate::returns::Return;
use crate::rewrite::{Contents, entropy, set_tags, wrap};
use crate::route::{Hop, PortIndex};
use crate::service::Service;
use crate::steer::{Refusal, Steering};
use crate::verdict::DropReason;
use crate::wire::Side;
use crate::wire::ethernet::EthernetMut;
use crate::wire::vlan::Tags;
use crate::xsk::Frame;

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
    /// To the backend that has the flow, which knows its client by this source, if not by its own.
    Backend(&'a Backend, Option<Endpoint>),
    /// To a backend of this service. The flow is not known here: another balancer has it, or
    /// none remembers it. `Backend` is whom the ring names.
    Unknown(&'a Service, &'a Backend),
    /// To the client of a NAT flow: as whom and what the two ends of the quoted packet are known to it, and
    /// where it is. The source is none that was replaced.
    Client {
        /// The client itself, where its source was replaced.
        client: Option<Endpoint>,
        /// The service's endpoint.
        listen: Endpoint,
        /// Where it leaves.
        hop: Hop,
    },
}

impl Errand {
    /// The errand that `message` in `frame` is on, which quotes `quote`.
    ///
    /// # Errors
    ///
    /// [`DropReason::IcmpUnknown`] if it does not quote enough to name a flow, or was not sent to
    /// the source of what it quotes, where errors go (RFC 792, RFC 4443 §2.2).
    pub(super) fn read(frame: &[u8], message: Message, quote: Quote) -> Result<Self, DropReason> {
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
            let serving = |found: Found| {
                let backend = steering.serving(BackendId(found.owner))?;
                Some((backend, steering.source_of(&found)))
            };
            return match known.and_then(serving) {
                Some((backend, source)) => Ok(Receiver::Backend(backend, source)),
                None => {
                    let chosen = service.choose(&flow, 0).and_then(|id| snapshot.backend(id));
                    let backend = chosen.ok_or(DropReason::NoBackend)?;
                    Ok(Receiver::Unknown(service, backend))
                }
            };
        }
        if steering.is_source(key.source()) {
            return self.exchanged_client(steering);
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
            Some(backend) => (backend.virtual_endpoint(reply.source().port), backend),
            None => steering.unstored_reply(whose, &reply)?,
        };
        // As with replies: who is elsewhere cannot know of the packet.
        if backend.hop.is_ok_and(|hop| hop.port != steering.ingress) {
            return Err(DropReason::WrongInterface.into());
        }
        let (client, family) = (self.message.destination, self.message.family);
        let hop = *steering.snapshot.fib().hop(client, family)?;
        Ok(Receiver::Client {
            client: None,
            listen,
            hop,
        })
    }

    /// The same where both endpoints were replaced.
    fn exchanged_client<'a>(&self, steering: &Steering<'a>) -> Result<Receiver<'a>, Refusal> {
        let (backend, flow) = steering
            .exchanged_flow(&self.key.reversed())
            .ok_or(DropReason::IcmpUnknown)?;
        if backend.hop.is_ok_and(|hop| hop.port != steering.ingress) {
            return Err(DropReason::WrongInterface.into());
        }
        let (client, listen) = (flow.source(), flow.destination());
        let fib = steering.snapshot.fib();
        let hop = *fib.hop(client.address, self.message.family)?;
        Ok(Receiver::Client {
            client: Some(client),
            listen,
            hop,
        })
    }

    /// Makes of the error in `frame` what `backend` is to get. Returns where it leaves.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent there.
    pub(super) fn to_backend(
        mut self,
        frame: &mut Frame,
        backend: &Backend,
        source: Option<Endpoint>,
    ) -> Result<PortIndex, Refusal> {
        let hop = backend.hop?;
        self.check_path(backend.cost, &hop)?;
        match &backend.treatment {
            // The error is addressed to the service, whose address the backend has.
            Treatment::Direct => {}
            Treatment::Encapsulate(encapsulation) => {
                let message = &self.message;
                let contents = Contents {
                    family: message.family,
                    network: u16::try_from(message.network).unwrap_or(u16::MAX),
                    len: u16::try_from(message.ip_len()).unwrap_or(u16::MAX),
                    // The way of the client's packets, whose outer headers it gets.
                    entropy: entropy(&self.key.reversed()),
                    rest_sum: None,
                };
                wrap(frame, &contents, encapsulation, &hop)?;
            }
            Treatment::Translate(_) | Treatment::Readdress => {
                let listen = self.key.source();
                let to = backend.endpoint_for(listen.port);
                self.translate(frame.bytes_mut(), Side::Source, (listen, to), None)?;
            }
            Treatment::Exchange => {
                let source = source.ok_or(DropReason::IcmpUnknown)?;
                let (listen, client) = (self.key.source(), self.key.destination());
                let to = backend.endpoint_for(listen.port);
                let other = Some((client, source));
                self.translate(frame.bytes_mut(), Side::Source, (listen, to), other)?;
            }
        }
        depart(frame, self.message.tags, &hop)
    }

    /// Makes of the error in `frame` what the client is to get. Returns where it leaves.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent there.
    pub(super) fn to_client(
        mut self,
        frame: &mut Frame,
        (client, listen): (Option<Endpoint>, Endpoint),
        hop: &Hop,
    ) -> Result<PortIndex, Refusal> {
        self.check_path(Cost::ROUTED, hop)?;
        let (sent_from, sent_to) = (self.key.source(), self.key.destination());
        let other = client.map(|client| (sent_from, client));
        self.translate(
            frame.bytes_mut(),
            Side::Destination,
            (sent_to, listen),
            other,
        )?;
        depart(frame, self.message.tags, hop)
    }

    /// What the way out demands, as of any packet. Nobody is told: never an error about an error.
    fn check_path(&self, cost: Cost, hop: &Hop) -> Result<(), DropReason> {
        if self.message.ttl < cost.hops {
            return Err(DropReason::TtlExpired);
        }
        let len = self.message.ip_len() + usize::from(cost.bytes);
        if usize::try_from(hop.mtu).is_ok_and(|mtu| len > mtu) {
            return Err(DropReason::TooBig);
        }
        Ok(())
    }

    /// Replaces the endpoint of the quoted packet that is on `quoted`'s side, and the message's own
    /// address that stands opposite: an error about what was sent from here comes here. `other` is what
    /// becomes of the quoted packet's other endpoint; where that is its source, the message is sent to it.
    fn translate(
        &mut self,
        frame: &mut [u8],
        quoted: Side,
        (from, to): (Endpoint, Endpoint),
        other: Option<(Endpoint, Endpoint)>,
    ) -> Result<(), DropReason> {
        let (quote, message) = (&mut self.quote, &mut self.message);
        let own = match quoted {
            Side::Source => Side::Destination,
            Side::Destination => Side::Source,
        };
        let mut translate = || {
            quote.readdress(frame, quoted, (from, to))?;
            message.readdress(frame, own, to.address)?;
            if let Some((from, to)) = other {
                quote.readdress(frame, own, (from, to))?;
                // Whoever reports to a backend stays who it is.
                if own == Side::Source {
                    message.readdress(frame, Side::Destination, to.address)?;
                }
            }
            message.age(frame)?;
            message.seal(frame)
        };
        let translated = translate();
        translated.ok_or(DropReason::Truncated)
    }
}

/// Addresses `frame` to the next hop, with the tags that lead there; it came with `tags`. Returns
/// where it leaves.
pub(super) fn depart(frame: &mut Frame, tags: Tags, hop: &Hop) -> Result<PortIndex, Refusal> {
    let ethernet = frame.bytes_mut().first_chunk_mut();
    let ethernet = ethernet.ok_or(DropReason::Truncated)?;
    EthernetMut::new(ethernet).set_addresses(hop.destination, hop.source);
    set_tags(frame, tags, hop)?;
    Ok(hop.port)
}

/// The entry of a flow in either table.
pub(super) fn known(steering: &Steering<'_>, key: &FlowKey) -> Option<Found> {
    let (hash, half) = (steering.table.hash(key), steering.half_open());
    let stored = steering.table.lookup(key, hash, steering.now);
    stored.or_else(|| half.table.lookup(key, hash, half.now))
}
