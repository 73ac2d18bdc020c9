//! The far end of a tunnel, in userspace: it hears the backend's link, checks and strips what is
//! wrapped, and gives what was inside to the backend's kernel by a TUN device. There the virtual
//! address is on `lo`, a real TCP answers, and the answer leaves directly to the client.
//!
//! It stands in for the kernel's own tunnels where a kernel has none, and is stricter than they
//! are (`wrapping`): whatever is wrong with a packet is a complaint, and the packet is not
//! delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use nix::sys::socket::{MsgFlags, bind, recv};
use rustix::net::{AddressFamily, RawProtocol, SocketFlags, SocketType, eth, socket_with, sockopt};

use crate::frame::link_address;
use crate::playground::Playground;
use crate::threads::{GLANCE, Threads, goes_on};
use crate::tun::Tun;
use crate::wrapping::{GRE, GUE_PORT, IPIP, IPV6, Unwrapped, Wrapping, unwrap};

/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// What may wait to be read, bytes: several windows of TCP.
const BUFFER: usize = 16 << 20;

/// After how many packets the sockets that nobody listens to are emptied: many fit.
const EMPTY_EVERY: u64 = 64;

/// How many complaints, and how many sources of each kind, are remembered.
const REMEMBERED: usize = 64;

/// What came out of a tunnel so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Emerged {
    /// Packets by versions of IP, outer and inner.
    pub packets: BTreeMap<[u8; 2], u64>,
    /// The first outer sources, by the same; their port is 0 where there is none.
    pub sources: BTreeMap<[u8; 2], BTreeSet<SocketAddr>>,
    /// The length of the longest outer packet, bytes, by the same.
    pub longest: BTreeMap<[u8; 2], usize>,
    /// The first complaints about packets.
    pub complaints: Vec<String>,
}

/// A far end on a backend's `eth0`, which gives up its work when dropped.
#[derive(Debug)]
pub struct Decapsulator {
    emerged: Arc<Mutex<Emerged>>,
    #[expect(dead_code, reason = "held for its drop")]
    threads: Threads,
    #[expect(dead_code, reason = "held open")]
    port: UdpSocket,
}

impl Decapsulator {
    /// Starts one on the backend with this number, for packets that are wrapped like this in
    /// either version of IP.
    ///
    /// # Panics
    ///
    /// When it cannot have its sockets or its TUN device.
    #[must_use]
    pub fn start(playground: &Playground, number: u8, wrapping: Wrapping) -> Self {
        let node = format!("b{number}");
        let emerged = Arc::new(Mutex::new(Emerged::default()));
        let tun = Arc::new(Tun::open(playground, &node));
        // Of both families: IPV6_V6ONLY is off by default. Nobody reads it; when it is full the
        // kernel drops in silence.
        let port = playground.inside(&node, || UdpSocket::bind(("::", GUE_PORT)).unwrap());
        let mut threads = Threads::new();
        let families = [
            (eth::IP, AddressFamily::INET),
            (eth::IPV6, AddressFamily::INET6),
        ];
        for (protocol, family) in families {
            let link = playground.inside(&node, || listen(protocol));
            let deaf = playground.inside(&node, || deaf_sockets(family));
            let (tun, emerged) = (Arc::clone(&tun), Arc::clone(&emerged));
            threads.add(move |stop| relay(&link, &deaf, wrapping, &tun, &emerged, stop));
        }
        Self {
            emerged,
            threads,
            port,
        }
    }

    /// One on every backend of the playground.
    ///
    /// # Panics
    ///
    /// When one cannot be had.
    #[must_use]
    pub fn on_all(playground: &Playground, wrapping: Wrapping) -> Vec<Self> {
        let start = |number| Self::start(playground, number, wrapping);
        playground.backends().map(start).collect()
    }

    /// What came out of all of these so far.
    ///
    /// # Panics
    ///
    /// When one of their threads has panicked.
    #[must_use]
    pub fn all(far_ends: &[Self]) -> Emerged {
        let all = far_ends.iter().map(Self::emerged);
        all.fold(Emerged::default(), Emerged::and)
    }

    /// What came out so far.
    ///
    /// # Panics
    ///
    /// When one of its threads has panicked.
    #[must_use]
    pub fn emerged(&self) -> Emerged {
        self.emerged.lock().unwrap().clone()
    }
}

/// Sockets with which the kernel takes what arrives for wanted. Without, or while they are full, it
/// tells the balancer that it knows no such protocol.
fn deaf_sockets(family: AddressFamily) -> Vec<OwnedFd> {
    let open = |number: u8| {
        let protocol = RawProtocol::new(number.into()).unwrap();
        let protocol = Some(rustix::net::Protocol::from_raw(protocol));
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol).unwrap();
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).unwrap();
        socket
    };
    [IPIP, IPV6, GRE].map(open).into()
}

/// Forgets what they have heard.
fn empty(deaf: &[OwnedFd]) {
    for socket in deaf {
        while recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT).is_ok() {}
    }
}

/// Hears what arrives at `eth0`, and not what leaves, as a socket for all protocols would.
fn listen(protocol: rustix::net::Protocol) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        flags,
        Some(protocol),
    );
    let socket = socket.unwrap();
    bind(socket.as_raw_fd(), &link_address("eth0")).unwrap();
    sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).unwrap();
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(GLANCE)).unwrap();
    socket
}

fn relay(
    link: &OwnedFd,
    deaf: &[OwnedFd],
    wrapping: Wrapping,
    tun: &Tun,
    emerged: &Mutex<Emerged>,
    stop: &AtomicBool,
) {
    let mut buffer = vec![0; usize::from(u16::MAX) + ETHERNET];
    for turn in 0_u64.. {
        if !goes_on(stop) {
            return;
        }
        if turn % EMPTY_EVERY == 0 {
            empty(deaf);
        }
        // An error is the timeout, or the end of the playground.
        let Ok(length) = recv(link.as_raw_fd(), &mut buffer, MsgFlags::empty()) else {
            continue;
        };
        let Some(packet) = buffer.get(ETHERNET..length) else {
            continue;
        };
        let Some(found) = unwrap(packet, wrapping) else {
            continue;
        };
        let delivered = found.and_then(|found| match tun.deliver(found.packet) {
            Ok(()) => Ok(found),
            Err(error) => Err(format!("not taken by the kernel: {error}")),
        });
        emerged.lock().unwrap().add(delivered);
    }
}

impl Emerged {
    /// What came out of either.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (versions, count) in other.packets {
            *self.packets.entry(versions).or_default() += count;
        }
        for (versions, length) in other.longest {
            let longest = self.longest.entry(versions).or_default();
            *longest = length.max(*longest);
        }
        for (versions, sources) in other.sources {
            self.sources.entry(versions).or_default().extend(sources);
        }
        self.complaints.extend(other.complaints);
        self
    }

    fn add(&mut self, found: Result<Unwrapped<'_>, String>) {
        match found {
            Ok(found) => {
                *self.packets.entry(found.versions).or_default() += 1;
                let longest = self.longest.entry(found.versions).or_default();
                *longest = found.outer_length.max(*longest);
                let sources = self.sources.entry(found.versions).or_default();
                if sources.len() < REMEMBERED {
                    sources.insert(found.source);
                }
            }
            Err(complaint) if self.complaints.len() < REMEMBERED => {
                self.complaints.push(complaint);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::frame::RawLink;
    use crate::wrapping::tests::{WRAPPINGS, datagram, pair, wrap};
    use crate::{UdpEcho, until};

    /// Without a balancer: the test wraps.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn what_is_inside_meets_the_kernel_and_is_answered_directly() {
        let playground = Playground::plan().backends(1).up();
        let _echo = UdpEcho::on_all(&playground, 7_000);
        let link = RawLink::open(&playground, "client", "c1");
        let macs = [
            playground.hardware_address("b1", "eth0"),
            playground.hardware_address("client", "c1"),
        ];
        for wrapping in WRAPPINGS {
            let far_end = Decapsulator::start(&playground, 1, wrapping);
            for versions in [[4, 4], [4, 6], [6, 4], [6, 6]] {
                let ([from, to], _) = pair(versions[0]);
                let (_, [client, service]) = pair(versions[1]);
                let socket = playground
                    .inside("client", || UdpSocket::bind(client))
                    .unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(3)))
                    .unwrap();
                let word = format!("{wrapping:?} {versions:?}");
                let packet = datagram(socket.local_addr().unwrap(), service, word.as_bytes());
                let ethertype: [u8; 2] = if versions[0] == 4 {
                    [8, 0]
                } else {
                    [0x86, 0xDD]
                };
                let outer = wrap(&packet, from, to, wrapping);
                let frame = [&macs[0][..], &macs[1], &ethertype, &outer].concat();
                link.send(&frame);

                let mut buffer = [0; 128];
                let (length, answered) = socket.recv_from(&mut buffer).expect(&word);
                assert_eq!((&buffer[..length], answered), (word.as_bytes(), service));

                // With one bit of it wrong it is complained of, and goes no further.
                let mut wrong = frame;
                wrong[ETHERNET + outer.len() - packet.len()] ^= 0x10; // IPv5 or IPv7
                link.send(&wrong);
            }
            let emerged = until(Duration::from_secs(3), "all have come", || {
                Some(far_end.emerged()).filter(|seen| seen.complaints.len() == 4)
            });
            let once = [[4, 4], [4, 6], [6, 4], [6, 6]].map(|versions| (versions, 1));
            assert_eq!(emerged.packets, BTreeMap::from(once), "{emerged:?}");
        }
        // Nobody was told that there is no such protocol or port.
        let refusals = [
            ("Icmp", "OutDestUnreachs"),
            ("", "Icmp6OutDestUnreachs"),
            ("", "Icmp6OutParmProblems"),
        ];
        for (group, name) in refusals {
            assert_eq!(playground.kernel_counter("b1", group, name), 0, "{name}");
        }
    }
}
