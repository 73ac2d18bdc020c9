//! The `udp` check: any datagram, and bytes to be found in the answer.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringgate_config::{Check, Exchange, Silence};
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType};

use super::complaint::Complaint;
use super::datagram::Inquiry;
use super::excerpt::Excerpt;
use super::search::contains;
use super::tcp::family;

/// The question.
#[derive(Debug)]
pub(super) struct Udp(pub(super) Arc<Check>);

impl Udp {
    fn exchange(&self) -> Option<&Exchange> {
        match &*self.0 {
            Check::Udp(exchange) => Some(exchange),
            _ => None,
        }
    }
}

impl Inquiry for Udp {
    fn socket(&mut self, address: SocketAddr) -> Result<OwnedFd, Errno> {
        socket(address)
    }

    fn question(&self) -> Vec<u8> {
        self.exchange()
            .map_or_else(Vec::new, |one| one.send.to_vec())
    }

    fn judge(&self, answer: &[u8]) -> Option<Result<(), Complaint>> {
        let expect = self.exchange()?.expect.as_deref().unwrap_or_default();
        Some(if contains(answer, expect) {
            Ok(())
        } else {
            Err(Complaint::Unexpected(Excerpt::of(answer)))
        })
    }

    fn late(&self) -> Result<(), Complaint> {
        match self.exchange() {
            Some(exchange) if exchange.silence == Silence::Passes => Ok(()),
            _ => Err(Complaint::NoAnswer),
        }
    }
}

/// A UDP socket of this address's family.
pub(super) fn socket(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(family(address), SocketType::DGRAM, flags, None)
}
