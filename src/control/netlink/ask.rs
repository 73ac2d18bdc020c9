//! A request that changes the kernel's network, and its answer, on a socket of its own.
//!
//! The kernel carries a request out within the call that sends it, so the answer is there when that returns: nothing
//! waits here.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Bytes for an answer; the longest is of a link with all its statistics.
const ANSWER: usize = 32 << 10;

/// Has the kernel carry out a request, with these flags besides those of every request, and returns what it
/// tells, if anything.
///
/// # Errors
///
/// What the kernel says against it, or against the socket.
pub(crate) fn ask(
    message: RouteNetlinkMessage,
    flags: u16,
) -> io::Result<Option<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut told = None;
    loop {
        let mut answer = Vec::with_capacity(ANSWER);
        socket.recv(&mut answer, libc::MSG_DONTWAIT)?;
        let mut left = answer.as_slice();
        while !left.is_empty() {
            let broken = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let length = NetlinkBuffer::new_checked(left).map_err(broken)?.length() as usize;
            let (first, _) = left.split_at(length.min(left.len()));
            let first = NetlinkMessage::<RouteNetlinkMessage>::deserialize(first);
            match first.map_err(broken)?.into_parts().1 {
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(told),
                        Some(_) => Err(error.to_io()),
                    };
                }
                NetlinkPayload::InnerMessage(message) => told = Some(message),
                _ => {}
            }
            left = left.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
