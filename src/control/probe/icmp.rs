//! The `icmp` check: an echo request (RFC 792, RFC 4443), and the reply to it.
//!
//! By a ping socket where `net.ipv4.ping_group_range` lets this process have one: the kernel then hands over
//! nothing but replies to it. Else by a raw socket (CAP_NET_RAW), which is handed every ICMP packet of the
//! backend's: those that are no reply to this very request are passed over.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, ipproto};

use super::complaint::Complaint;
use super::datagram::Inquiry;
use super::tcp::family;

/// Bytes of an echo message's head.
const HEAD: usize = 8;

/// The question.
#[derive(Debug)]
pub(super) struct Echo {
    is_ipv4: bool,
    /// Made by a raw socket: the identifier is ours, and over IPv4 the packet begins with its IP header.
    is_raw: bool,
    /// In identifier, sequence number and data: no other request of ours has it.
    nonce: u64,
}

impl Echo {
    pub(super) const fn new(address: SocketAddr, nonce: u64) -> Self {
        Self {
            is_ipv4: address.is_ipv4(),
            is_raw: false,
            nonce,
        }
    }

    /// Type of the request and of its reply.
    const fn types(&self) -> (u8, u8) {
        if self.is_ipv4 { (8, 0) } else { (128, 129) }
    }
}

impl Inquiry for Echo {
    fn socket(&mut self, address: SocketAddr) -> Result<OwnedFd, Errno> {
        let protocol = if self.is_ipv4 {
            ipproto::ICMP
        } else {
            ipproto::ICMPV6
        };
        let open = |kind| {
            let flags = SocketFlags::CLOEXEC;
            rustix::net::socket_with(family(address), kind, flags, Some(protocol))
        };
        match open(SocketType::DGRAM) {
            Err(Errno::ACCESS | Errno::PERM | Errno::PROTONOSUPPORT) => {
                self.is_raw = true;
                open(SocketType::RAW)
            }
            opened => opened,
        }
    }

    fn question(&self) -> Vec<u8> {
        let [i0, i1, s0, s1, ..] = self.nonce.to_be_bytes();
        let mut message = vec![self.types().0, 0, 0, 0, i0, i1, s0, s1];
        message.extend_from_slice(&self.nonce.to_be_bytes());
        // The kernel fills in what IPv6 and ping sockets need.
        if self.is_ipv4
            && let [high, low] = checksum(&message).to_be_bytes()
            && let Some(place) = message.get_mut(2..4)
        {
            place.copy_from_slice(&[high, low]);
        }
        message
    }

    fn judge(&self, answer: &[u8]) -> Option<Result<(), Complaint>> {
        let mut message = answer;
        if self.is_raw && self.is_ipv4 {
            let words = usize::from(answer.first()? & 0x0f);
            message = answer.get(words * 4..)?;
        }
        let is_reply = message.first() == Some(&self.types().1);
        let is_ours = message.get(HEAD..)? == self.nonce.to_be_bytes();
        (is_reply && is_ours).then_some(Ok(()))
    }
}

/// The internet checksum (RFC 1071) of a message of an even number of bytes.
fn checksum(message: &[u8]) -> u16 {
    let words = message.as_chunks::<2>().0.iter().copied();
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reply_to_this_very_request_counts() {
        let address = SocketAddr::from(([10, 0, 0, 1], 0));
        let echo = Echo::new(address, 0x1122_3344_5566_7788);
        let mut reply = echo.question();
        assert_eq!(
            checksum(&reply),
            0,
            "RFC 1071: a good message sums to nothing"
        );
        assert_eq!(echo.judge(&reply), None, "a request is no reply");
        reply[0] = 0;
        assert_eq!(echo.judge(&reply), Some(Ok(())));
        reply[15] ^= 1;
        assert_eq!(echo.judge(&reply), None, "another's");
        for length in 0..16 {
            assert_eq!(echo.judge(&reply[..length]), None, "{length} bytes");
        }
        let raw = Echo {
            is_raw: true,
            ..Echo::new(address, 7)
        };
        let mut packet = vec![0x46; 24];
        packet.extend_from_slice(&raw.question());
        packet[24] = 0;
        assert_eq!(raw.judge(&packet), Some(Ok(())), "behind options");
        assert_eq!(raw.judge(&[]), None);
        let ipv6 = Echo::new("[::1]:0".parse().unwrap(), 9);
        let mut reply = ipv6.question();
        assert_eq!(reply[..4], [128, 0, 0, 0], "the kernel sums it");
        reply[0] = 129;
        assert_eq!(ipv6.judge(&reply), Some(Ok(())));
    }
}
