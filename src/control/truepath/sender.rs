//! Frames out of this host's interfaces, as they are.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, sendto, socket,
};

/// A packet socket that hears nothing: it is bound to no protocol.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: OwnedFd,
    /// Of each interface that something was sent by.
    addresses: Vec<LinkAddr>,
}

impl Sender {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW, or confined.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        Ok(Self {
            socket,
            addresses: Vec::new(),
        })
    }

    /// Sends a frame by the interface with this number.
    ///
    /// # Errors
    ///
    /// What the kernel says: the interface is gone or down, its queue is full.
    pub(crate) fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let is_it = |address: &&LinkAddr| u32::try_from(address.ifindex()) == Ok(ifindex);
        let address = match self.addresses.iter().find(is_it) {
            Some(address) => *address,
            None => {
                self.addresses = link_addresses()?;
                let address = self.addresses.iter().find(is_it).copied();
                address.ok_or(io::ErrorKind::NotFound)?
            }
        };
        let sent = sendto(
            self.socket.as_raw_fd(),
            frame,
            &address,
            MsgFlags::MSG_DONTWAIT,
        );
        Ok(sent.map(drop)?)
    }
}

/// Where frames can be sent.
fn link_addresses() -> io::Result<Vec<LinkAddr>> {
    let all = getifaddrs()?.filter_map(|one| one.address);
    let links = all.filter(|address| address.family() == Some(AddressFamily::Packet));
    Ok(links
        .filter_map(|address| address.as_link_addr().copied())
        .collect())
}
