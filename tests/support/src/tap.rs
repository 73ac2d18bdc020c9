//! Listening on a link: what its host sends and receives, as it is.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use etherparse::{LaxPacketHeaders, NetHeaders, TransportHeader};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::frame::link_address;
use crate::playground::Playground;

/// Longest wait for a frame, seconds.
const PATIENCE: i64 = 5;

/// A socket that hears every frame on a link.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// On an interface of a node; it hears what comes from now on.
    ///
    /// # Panics
    ///
    /// When there is no such interface, or no privilege to open such a socket.
    #[must_use]
    pub fn open(playground: &Playground, node: &str, interface: &str) -> Self {
        let socket = playground.inside(node, || {
            let address = link_address(interface);
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .unwrap();
            bind(socket.as_raw_fd(), &address).unwrap();
            setsockopt(
                &socket,
                sockopt::ReceiveTimeout,
                &TimeVal::seconds(PATIENCE),
            )
            .unwrap();
            socket
        });
        Self { socket }
    }

    /// The sequence number of the next TCP segment from one endpoint to another.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[must_use]
    pub fn sequence(&self, from: SocketAddr, to: SocketAddr) -> u32 {
        let mut buffer = [0; 256];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
                .unwrap_or_else(|error| panic!("no segment from {from} to {to}: {error}"));
            if let Some((ends, sequence)) = segment(&buffer[..length])
                && ends == [from, to]
            {
                return sequence;
            }
        }
    }
}

/// The endpoints and the sequence number of a TCP segment.
fn segment(frame: &[u8]) -> Option<([SocketAddr; 2], u32)> {
    // Lax: the buffer is for headers, and a longer frame is cut.
    let headers = LaxPacketHeaders::from_ethernet(frame).ok()?;
    let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
        return None;
    };
    let addresses: [IpAddr; 2] = match headers.net? {
        NetHeaders::Ipv4(ip, _) => [ip.source.into(), ip.destination.into()],
        NetHeaders::Ipv6(ip, _) => [ip.source.into(), ip.destination.into()],
        NetHeaders::Arp(_) => return None,
    };
    let [from, to] = addresses;
    let ends = [
        SocketAddr::new(from, tcp.source_port),
        SocketAddr::new(to, tcp.destination_port),
    ];
    Some((ends, tcp.sequence_number))
}
