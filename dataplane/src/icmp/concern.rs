//! What an ICMP message is about, told without doing anything: for whoever explains what became of it.

use ringgate_conntrack::FlowKey;

use super::message::{Kind, Message};
use super::quote::Quote;
use super::relay::{Errand, Receiver};
use super::tunnel::Returned;
use crate::backend::BackendId;
use crate::steer::Steering;

/// What an ICMP message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// It asks for an echo.
    Echo,
    /// An error about a packet of this flow, for the client that sent it.
    Client(FlowKey),
    /// An error about a packet of this flow, for the backend that sent it.
    Backend(FlowKey, BackendId),
    /// The same, of a flow that nothing here knows: for the backend that the ring names, and if it is about a
    /// packet that is too big for others too.
    Unknown(FlowKey, BackendId),
    /// An error from within a tunnel, about this inner packet's flow.
    Tunnel(FlowKey),
    /// An error that quotes a packet of this flow, or too little to tell, and goes to nobody.
    Nobody(Option<FlowKey>),
}

impl Concern {
    /// The flow of the packet that is quoted.
    #[must_use]
    pub const fn flow(&self) -> Option<FlowKey> {
        match *self {
            Self::Client(flow)
            | Self::Backend(flow, _)
            | Self::Unknown(flow, _)
            | Self::Tunnel(flow) => Some(flow),
            Self::Nobody(flow) => flow,
            Self::Echo => None,
        }
    }

    /// The backend that it is for.
    #[must_use]
    pub const fn backend(&self) -> Option<BackendId> {
        match *self {
            Self::Backend(_, id) | Self::Unknown(_, id) => Some(id),
            Self::Echo | Self::Client(_) | Self::Tunnel(_) | Self::Nobody(_) => None,
        }
    }
}

/// What the message in `frame` is about; `None` if there is none that anything is done about.
#[cold]
pub(crate) fn concern(steering: &Steering<'_>, frame: &[u8]) -> Option<Concern> {
    let message = Message::judge(frame).ok()?;
    if message.kind == Kind::EchoRequest {
        return Some(Concern::Echo);
    }
    let Some(quote) = Quote::read(frame, message.body(), message.end) else {
        return Some(Concern::Nobody(None));
    };
    if let Some(returned) = Returned::read(steering, frame, &message, &quote)
        && let Some(inner) = returned.inner.key(frame)
    {
        return Some(Concern::Tunnel(inner));
    }
    let key = quote.key(frame);
    let receiver = Errand::read(frame, message, quote).ok();
    let receiver = receiver.and_then(|errand| errand.receiver(steering).ok());
    Some(match (key, receiver) {
        (Some(key), Some(Receiver::Client { .. })) => Concern::Client(key),
        (Some(key), Some(Receiver::Backend(backend, _))) => Concern::Backend(key, backend.id),
        (Some(key), Some(Receiver::Unknown(_, backend))) => Concern::Unknown(key, backend.id),
        (key, _) => Concern::Nobody(key),
    })
}

/// The flow of the packet that the error in `frame` quotes.
#[cold]
pub(crate) fn quoted(frame: &[u8]) -> Option<FlowKey> {
    let message = Message::judge(frame).ok()?;
    match message.kind {
        Kind::Error(_) => Quote::read(frame, message.body(), message.end)?.key(frame),
        Kind::EchoRequest => None,
    }
}
