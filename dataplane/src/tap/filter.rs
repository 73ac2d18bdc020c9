//! Which packets a tap takes: an expression over what a packet is, was made and became of it.
//!
//! Compiled by control, evaluated by workers: a list in postfix order, of bounded length and depth. A test
//! about addresses or ports is true of a packet if it is true of it as it came *or* as it left, so that
//! both sides of a translation and the outside of a tunnel can be asked for by whatever is known.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use arrayvec::ArrayVec;
use ipnet::IpNet;
use ringgate_config::Listen;
use ringgate_conntrack::Endpoint;

use super::{Fate, Look, Record};
use crate::backend::Backend;
use crate::parse::Family;
use crate::route::PortIndex;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::verdict::DropReason;

/// Longest expression: tests and operators together. Nobody types more.
pub const MOST: usize = 64;

/// One element of an expression in postfix order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// Puts down whether this is so.
    Is(Test),
    /// Turns round what was put down last.
    Not,
    /// Makes one of the last two: both.
    And,
    /// Makes one of the last two: at least one.
    Or,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who sent it.
    Source,
    /// To whom it is sent.
    Destination,
    /// Either of the two.
    Either,
}

/// One question about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// It came with this IANA protocol number.
    Protocol(u8),
    /// It came with this IP version.
    Family(Family),
    /// An end, or one of the packet that it quotes, lies in this prefix.
    Net(End, IpNet),
    /// An end, or one of the packet that it quotes, has one of these ports.
    Ports(End, RangeInclusive<u16>),
    /// It came, or left, with this VLAN's tag; `None`: with any.
    Vlan(Option<u16>),
    /// It came as a fragment.
    Fragment,
    /// It came with one of these TCP flags.
    TcpFlags(u8),
    /// It belongs to the service that listens here for this protocol.
    Service(Listen, u8),
    /// It goes to or comes from a backend at this address, with this port if one is named.
    Backend(IpAddr, Option<u16>),
    /// It came in by this interface.
    Ingress(PortIndex),
    /// It left by this interface.
    Egress(PortIndex),
    /// This worker had it.
    Worker(u16),
    /// It was forwarded.
    Forwarded,
    /// It was answered.
    Answered,
    /// It was held.
    Held,
    /// It was dropped.
    Dropped,
    /// It was dropped for this reason.
    DroppedFor(DropReason),
}

/// An expression that is not one, or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// More than [`MOST`] terms.
    #[error("the filter is too long: at most {MOST} tests and operators")]
    TooLong,
    /// An operator lacks what it works on, or something is left over.
    #[error("the filter is not an expression")]
    Unbalanced,
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Box<[Term]>);

impl Filter {
    /// Takes every packet.
    #[must_use]
    pub fn all() -> Self {
        Self(Box::default())
    }

    /// The filter that these terms are; none: every packet.
    ///
    /// # Errors
    ///
    /// See [`Unfit`].
    pub fn new(terms: Vec<Term>) -> Result<Self, Unfit> {
        if terms.len() > MOST {
            return Err(Unfit::TooLong);
        }
        let mut depth = 0_usize;
        for term in &terms {
            depth = match term {
                Term::Is(_) => depth + 1,
                Term::Not if depth >= 1 => depth,
                Term::And | Term::Or if depth >= 2 => depth - 1,
                Term::Not | Term::And | Term::Or => return Err(Unfit::Unbalanced),
            };
        }
        if depth > 1 {
            return Err(Unfit::Unbalanced);
        }
        Ok(Self(terms.into()))
    }

    /// Whether nothing is known yet that rules the packet out: it came like this by `ingress`.
    pub(super) fn may_take(&self, came: &Look, ingress: PortIndex, worker: u16) -> bool {
        let ask = |test: &Test| match test {
            Test::Protocol(protocol) => Some(came.protocol == *protocol),
            Test::Family(family) => Some(came.family == Some(*family)),
            Test::Fragment => Some(came.is_fragment),
            Test::TcpFlags(flags) => Some(came.tcp_flags & flags != 0),
            Test::Ingress(port) => Some(ingress == *port),
            Test::Worker(number) => Some(worker == *number),
            _ => None,
        };
        self.evaluate(ask) != Some(false)
    }

    /// Whether it takes a packet of which all is known. `looks`: as it came, and as it left.
    pub(super) fn takes(&self, record: &Record, looks: [&Look; 2], snapshot: &Snapshot) -> bool {
        self.evaluate(|test| Some(is_so(test, record, looks, snapshot))) != Some(false)
    }

    /// The value of the expression, where `ask` knows not all (Kleene's logic).
    fn evaluate(&self, mut ask: impl FnMut(&Test) -> Option<bool>) -> Option<bool> {
        let mut values: ArrayVec<Option<bool>, MOST> = ArrayVec::new();
        for term in &self.0 {
            let value = match term {
                Term::Is(test) => ask(test),
                Term::Not => values.pop()?.map(|value| !value),
                Term::And => match (values.pop()?, values.pop()?) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                },
                Term::Or => match (values.pop()?, values.pop()?) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                },
            };
            values.push(value);
        }
        // Nothing asked: everything is taken.
        values.pop().unwrap_or(Some(true))
    }
}

fn is_so(test: &Test, record: &Record, looks: [&Look; 2], snapshot: &Snapshot) -> bool {
    let [came, _] = looks;
    let service = || record.service.and_then(|index| snapshot.service_at(index));
    let backend = || record.backend.and_then(|id| snapshot.backend(id));
    match test {
        Test::Protocol(protocol) => came.protocol == *protocol,
        Test::Family(family) => came.family == Some(*family),
        Test::Net(end, net) => has_end(looks, *end, |one| {
            one.address != [0; 2] && net.contains(&one.to_socket().ip())
        }),
        Test::Ports(end, ports) => has_end(looks, *end, |one| {
            one.port != 0 && ports.contains(&one.port)
        }),
        Test::Vlan(id) => looks.into_iter().any(|look| match id {
            Some(id) => look.tags.ids().any(|one| one == *id),
            None => !look.tags.is_none(),
        }),
        Test::Fragment => came.is_fragment,
        Test::TcpFlags(flags) => came.tcp_flags & flags != 0,
        Test::Service(listen, protocol) => service()
            .is_some_and(|one: &Service| one.listen == *listen && one.protocol == *protocol),
        Test::Backend(address, port) => backend().is_some_and(|one: &Backend| {
            let at = one.endpoint.to_socket();
            at.ip() == *address && port.is_none_or(|port| at.port() == port)
        }),
        Test::Ingress(port) => record.ingress == *port,
        Test::Egress(port) => record.fate.egress() == Some(*port),
        Test::Worker(number) => record.worker == *number,
        Test::Forwarded => matches!(record.fate, Fate::Forwarded(_)),
        Test::Answered => matches!(record.fate, Fate::Answered(_)),
        Test::Held => record.fate == Fate::Held,
        Test::Dropped => matches!(record.fate, Fate::Dropped(_)),
        Test::DroppedFor(reason) => record.fate == Fate::Dropped(*reason),
    }
}

/// Whether it is so of that end of the packet, as it came or left, or of the one that it quotes.
fn has_end(looks: [&Look; 2], end: End, is_so: impl Fn(Endpoint) -> bool) -> bool {
    let of = |source, destination| match end {
        End::Source => is_so(source),
        End::Destination => is_so(destination),
        End::Either => is_so(source) || is_so(destination),
    };
    looks.into_iter().any(|look| {
        of(look.source, look.destination)
            || look
                .quoted
                .is_some_and(|quoted| of(quoted.source(), quoted.destination()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(value: bool) -> Term {
        // What tells apart without a record: a protocol that the look has or not.
        Term::Is(Test::Protocol(if value { 6 } else { 17 }))
    }

    fn verdict(terms: Vec<Term>) -> bool {
        let look = Look {
            protocol: 6,
            ..Look::of(&[])
        };
        Filter::new(terms).unwrap().may_take(&look, 0, 0)
    }

    #[test]
    fn an_expression_has_the_value_of_its_logic() {
        let unknown = || Term::Is(Test::Dropped);
        for (terms, value) in [
            (vec![], true),
            (vec![is(true)], true),
            (vec![is(false)], false),
            (vec![is(false), Term::Not], true),
            (vec![is(true), is(false), Term::And], false),
            (vec![is(true), is(false), Term::Or], true),
            (vec![is(false), is(false), Term::Or], false),
            (vec![unknown()], true),
            (vec![unknown(), Term::Not], true),
            (vec![unknown(), is(false), Term::And], false),
            (vec![unknown(), is(true), Term::And], true),
            (vec![unknown(), is(false), Term::Or], true),
            (vec![unknown(), is(true), Term::Or, Term::Not], false),
        ] {
            assert_eq!(verdict(terms.clone()), value, "{terms:?}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for terms in [
            vec![Term::Not],
            vec![Term::And],
            vec![is(true), Term::Or],
            vec![is(true), is(true)],
        ] {
            assert_eq!(Filter::new(terms), Err(Unfit::Unbalanced));
        }
        let long = std::iter::once(is(true))
            .chain((0..32).flat_map(|_| [is(true), Term::And]))
            .collect();
        assert_eq!(Filter::new(long), Err(Unfit::TooLong));
    }
}
