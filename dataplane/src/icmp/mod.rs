//! ICMP: errors that concern a flow find its end, packets that cannot go on are answered, and so
//! are echo requests to a service's address.
//!
//! | a frame | becomes | verdict |
//! |---|---|---|
//! | an error of somebody else's (`relay`) | the same error for the backend or client that owns the flow, what it quotes translated back | forwarded |
//! | the same, too big, of a flow that nothing here knows | the same, and copies of it for the service's other backends (`spread`) | forwarded |
//! | an error of a router within a tunnel (`tunnel`) | an error about the inner packet, to its sender, unless a limit withholds it | forwarded |
//! | a packet that does not fit, or whose hops are used up (`report`) | the error about it, to its sender, unless a limit withholds it (`limit`) | answered, else dropped |
//! | an echo request (`echo`) | its reply | answered |
//! | anything else | nothing | dropped |
//!
//! All of it is rare, so all of it is apart from the worker's usual way: what neither steering nor
//! parsing could use comes here as a refusal, and leaves as an [`Outcome`]. Frames are changed in
//! place; only copies take new ones, and only as many as the pool can spare.
//!
//! `docs/decisions/0017-icmp.md` says why things are as they are.

mod concern;
mod echo;
mod limit;
mod message;
mod quote;
mod relay;
mod report;
mod spread;
mod tunnel;

use arrayvec::ArrayVec;
use ringgate_conntrack::Endpoint;

use crate::clock::Millis;
use crate::counters::IcmpCounters;
use crate::parse::{Packet, parse_piece};
use crate::route::PortIndex;
use crate::steer::{Refusal, Steering};
use crate::verdict::DropReason;
use crate::wire::vlan::Tags;
use crate::xsk::{Frame, Pool};

use limit::Limiter;
use message::{Complaint, Kind, Message};
use quote::Quote;
use relay::{Errand, Receiver, depart};
use report::{Envelope, Report};
use tunnel::Returned;

pub use concern::Concern;
pub(crate) use concern::{concern, quoted};
pub use spread::COPIES_MOST;

/// Copies on their way out, each with its interface.
pub type Copies = ArrayVec<(PortIndex, Frame), COPIES_MOST>;

/// What became of a frame that could not be steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It leaves by this interface, on its way to somebody else.
    Forwarded(PortIndex),
    /// It leaves by this interface, as the balancer's own answer to its sender.
    Answered(PortIndex),
    /// It is dropped.
    Refused(Refusal),
}

/// What a worker lends for one frame.
#[derive(Debug)]
pub struct Scene<'a> {
    /// By what it steers.
    pub steering: &'a Steering<'a>,
    /// Where copies get their frames.
    pub pool: &'a mut Pool,
    /// What is counted.
    pub counters: &'a IcmpCounters,
}

/// One worker's part in ICMP: what it may still send, and the copies that wait to be sent.
#[derive(Debug)]
pub struct Icmp {
    reports: Limiter,
    spreads: Limiter,
    /// Where the next spread begins among a service's backends.
    turn: usize,
    /// To be sent, and emptied, after each frame.
    pub copies: Copies,
}

impl Icmp {
    /// For one of `workers` equals, which together may send `per_second` errors of their own, and
    /// as many copies.
    #[must_use]
    pub fn new(per_second: u32, workers: usize, now: Millis) -> Self {
        Self {
            reports: Limiter::new(per_second, workers, now),
            spreads: Limiter::new(per_second, workers, now),
            turn: 0,
            copies: ArrayVec::new(),
        }
    }

    /// What becomes of `frame`, for which there is this refusal and, if it could be parsed, this
    /// packet.
    #[cold]
    #[inline(never)]
    pub fn consider(
        &mut self,
        scene: &mut Scene<'_>,
        packet: Option<&Packet>,
        refusal: Refusal,
        frame: &mut Frame,
    ) -> Outcome {
        let considered = match (refusal.reason, packet) {
            (DropReason::UnsupportedProtocol, None) => self.receive(scene, frame),
            (DropReason::TooBig | DropReason::TtlExpired, Some(packet)) => {
                self.report(scene, packet, refusal, frame)
            }
            // A fragment: of the first one the sender is told, as of a whole packet.
            (DropReason::TooBig | DropReason::TtlExpired, None) => match parse_piece(frame.bytes())
            {
                Ok(piece) if !piece.packet.is_later_fragment() => {
                    self.report(scene, &piece.packet, refusal, frame)
                }
                _ => Err(refusal),
            },
            _ => Err(refusal),
        };
        considered.unwrap_or_else(Outcome::Refused)
    }

    /// A frame that is neither TCP nor UDP.
    fn receive(&mut self, scene: &mut Scene<'_>, frame: &mut Frame) -> Result<Outcome, Refusal> {
        let message = Message::judge(frame.bytes())?;
        match message.kind {
            Kind::EchoRequest => echo(scene, message, frame),
            Kind::Error(complaint) => self.relay(scene, message, complaint, frame),
        }
    }

    fn relay(
        &mut self,
        scene: &mut Scene<'_>,
        message: Message,
        complaint: Complaint,
        frame: &mut Frame,
    ) -> Result<Outcome, Refusal> {
        let quote = Quote::read(frame.bytes(), message.body(), message.end);
        let quote = quote.ok_or(DropReason::IcmpUnknown)?;
        if let Some(returned) = Returned::read(scene.steering, frame.bytes(), &message, &quote) {
            return self.explain(scene, (&message, complaint), &returned, frame);
        }
        let errand = Errand::read(frame.bytes(), message, quote)?;
        let port = match errand.receiver(scene.steering)? {
            Receiver::Client {
                client,
                listen,
                hop,
            } => {
                let port = errand.to_client(frame, (client, listen), &hop)?;
                scene.counters.to_clients.add(1);
                return Ok(Outcome::Forwarded(port));
            }
            Receiver::Backend(backend, source) => errand.to_backend(frame, backend, source)?,
            Receiver::Unknown(service, chosen) => {
                // Without flows the ring is right about all of them, unless connection ids decide.
                let follows_ring = service.stateless && service.quic.is_none();
                if matches!(complaint, Complaint::TooBig { .. }) && !follows_ring {
                    self.spread(scene, &errand, (service, chosen.id), frame);
                }
                errand.to_backend(frame, chosen, None)?
            }
        };
        scene.counters.to_backends.add(1);
        Ok(Outcome::Forwarded(port))
    }

    /// Tells the sender of an inner packet what came of the outer one.
    fn explain(
        &mut self,
        scene: &Scene<'_>,
        (message, complaint): (&Message, Complaint),
        returned: &Returned,
        frame: &mut Frame,
    ) -> Result<Outcome, Refusal> {
        let inner = &returned.inner;
        let envelope = Envelope {
            family: inner.family,
            source: inner.destination,
            destination: inner.source,
        };
        let report = returned.report(complaint).ok_or(DropReason::IcmpIgnored)?;
        let place = Place {
            tags: message.tags,
            network: message.network,
            quoted: inner.network..inner.end,
        };
        let port = self.send(scene, (envelope, report), place, frame)?;
        scene.counters.from_tunnels.add(1);
        Ok(Outcome::Forwarded(port))
    }

    /// Makes of a packet that cannot go on the error about it.
    fn report(
        &mut self,
        scene: &mut Scene<'_>,
        packet: &Packet,
        refusal: Refusal,
        frame: &mut Frame,
    ) -> Result<Outcome, Refusal> {
        let (report, counter) = match (refusal.reason, refusal.mtu) {
            (DropReason::TooBig, Some(mtu)) => (Report::TooBig(mtu), &scene.counters.too_big),
            (DropReason::TtlExpired, _) => (Report::TimeExceeded, &scene.counters.time_exceeded),
            _ => return Err(refusal),
        };
        let network = usize::from(packet.network);
        let quoted = network..network + usize::from(packet.ip_len);
        let bytes = frame.bytes();
        let suits = |quoted: &[u8]| report.suits(quoted, bytes);
        if !bytes.get(quoted.clone()).is_some_and(suits) {
            return Err(refusal);
        }
        let sender = packet.key.source().address;
        let source = speaker(scene.steering, packet).ok_or(refusal)?;
        let envelope = Envelope {
            family: packet.family,
            source,
            destination: sender,
        };
        let place = Place {
            tags: packet.tags,
            network,
            quoted,
        };
        let port = self.send(scene, (envelope, report), place, frame);
        let port = port.map_err(|missing| Refusal {
            wanted: missing.wanted,
            ..refusal
        })?;
        counter.add(1);
        Ok(Outcome::Answered(port))
    }

    /// Writes an error of the balancer's own over `frame`, if the limits allow it. Returns where it
    /// leaves.
    fn send(
        &mut self,
        scene: &Scene<'_>,
        (envelope, report): (Envelope, Report),
        Place {
            tags,
            network,
            quoted,
        }: Place,
        frame: &mut Frame,
    ) -> Result<PortIndex, Refusal> {
        let steering = scene.steering;
        let fib = steering.snapshot.fib();
        let hop = *fib.hop(envelope.destination, envelope.family)?;
        let now = steering.newcomers.now();
        if !self.reports.admits(envelope.destination, now) {
            scene.counters.withheld.add(1);
            return Err(DropReason::IcmpLimited.into());
        }
        let len = network + envelope.headers() + envelope.quotes(quoted.len());
        frame.set_len(len.max(frame.len()));
        let written = envelope.write(frame.bytes_mut(), network, quoted, report);
        frame.set_len(written.ok_or(DropReason::Truncated)?);
        depart(frame, tags, &hop)
    }
}

/// Where in a frame what is.
struct Place {
    /// The VLAN tags that it came with.
    tags: Tags,
    /// Offset of the IP header, bytes.
    network: usize,
    /// Of the packet that an error is about.
    quoted: std::ops::Range<usize>,
}

/// Answers an echo request to a service's address.
fn echo(scene: &Scene<'_>, mut message: Message, frame: &mut Frame) -> Result<Outcome, Refusal> {
    let snapshot = scene.steering.snapshot;
    if !snapshot.is_service_address(message.destination) {
        return Err(DropReason::NotForUs.into());
    }
    if snapshot.is_service_address(message.source) {
        return Err(DropReason::BadSource.into());
    }
    let hop = *snapshot.fib().hop(message.source, message.family)?;
    if message.ip_len() > usize::try_from(hop.mtu).unwrap_or(usize::MAX) {
        return Err(DropReason::TooBig.into());
    }
    echo::answer(frame.bytes_mut(), &mut message)?;
    let port = depart(frame, message.tags, &hop)?;
    scene.counters.echo_replies.add(1);
    Ok(Outcome::Answered(port))
}

/// As whom the balancer reports an error about `packet`: to a client as the address that it asked,
/// to a backend as itself (RFC 1812 §4.3.2.4), or if it has no address there, as the service whose
/// reply it is. Receivers look at what is quoted.
fn speaker(steering: &Steering<'_>, packet: &Packet) -> Option<[u64; 2]> {
    let (key, snapshot) = (&packet.key, steering.snapshot);
    let asked: Endpoint = key.destination();
    if snapshot.service(asked, key.protocol()).is_some() {
        return Some(asked.address);
    }
    let own = snapshot.fib().source(key.source().address, packet.family);
    if steering.is_source(asked) {
        return own.or(Some(asked.address));
    }
    let whose = snapshot.reply_from(key.source(), key.protocol())?;
    own.or_else(|| {
        let (listen, _) = steering.unstored_reply(whose, key).ok()?;
        Some(listen.address)
    })
}

#[cfg(test)]
mod tests;
