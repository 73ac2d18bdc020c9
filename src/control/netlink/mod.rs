//! The kernel's view of the network, followed through rtnetlink.
//!
//! [`Watcher`] owns one socket: subscribed to changes first, it then dumps every table, so nothing falls
//! between the two. What it learns goes into [`Network`], which answers the questions.
//!
//! # Losing and catching up
//! | what happens | what is done |
//! |---|---|
//! | changes come faster than they are read (ENOBUFS) | every table is dumped again |
//! | a table changes while it is dumped (NLM_F_DUMP_INTR) | that dump is done again, [a few times](dump) |
//! | routes go without a notification ([`state`] knows when) | the routes are dumped again |
//! | a message cannot be understood | counted, logged once, skipped; if its framing is broken, so is the rest of its datagram |
//!
//! Neither blocks: [`Watcher::read`] takes what is there, a bounded number of datagrams a call.
//!
//! | file | owns |
//! |---|---|
//! | [`state`] | links, addresses, neighbours; the queries; the generation |
//! | [`route`] | the routing table: reading, matching |
//! | [`link`] | one interface |
//! | [`ask`] | one request and its answer, where something is to be changed |
//! | [`dump`] | which dump runs, which come next |

pub(crate) mod ask;
mod dump;
pub(crate) mod link;
mod route;
pub(crate) mod state;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::log::limited;

use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use self::dump::{Dumps, End};
use self::state::{Network, Table};

/// What to be told of: the kernel's RTNLGRP_ numbers of `linux/rtnetlink.h`.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// Wanted for the socket's receive buffer, bytes. A full routing table (a million routes) arriving at once
/// is ~100 MB of notifications and overruns any buffer, which is handled; this one holds the burst of an
/// ordinary event, a link with thousands of routes and neighbours going down.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Bytes for one datagram. The kernel makes dump datagrams of at most 32 KiB and larger ones only for
/// a single link with very many virtual functions.
const DATAGRAM: usize = 256 << 10;

/// Datagrams taken in one call of [`Watcher::read`], so that a flood of changes leaves the loop its turns.
const DATAGRAMS_PER_READ: usize = 64;

/// What went wrong with the netlink socket itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// It could not be set up.
    #[error("cannot open a netlink socket ({step}): {source}")]
    Open {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be read or written.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The first dumps did not end.
    #[error("the kernel did not finish describing its network within {0:?}")]
    Unsettled(Duration),
}

/// What has been seen on the socket. For `status` and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Messages taken in.
    pub(crate) messages: u64,
    /// Messages that could not be understood.
    pub(crate) malformed: u64,
    /// Datagrams that did not come from the kernel, dropped.
    pub(crate) foreign: u64,
    /// Times that notifications were lost.
    pub(crate) overruns: u64,
    /// Dumps that were complete.
    pub(crate) dumps: u64,
    /// Dumps that had to be done again, or were taken incomplete.
    pub(crate) interrupted: u64,
    /// Requests that the kernel refused.
    pub(crate) refused: u64,
}

impl Counters {
    /// Every counter with its name, as in `status`.
    pub(crate) const fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("messages", self.messages),
            ("malformed", self.malformed),
            ("foreign", self.foreign),
            ("overruns", self.overruns),
            ("dumps", self.dumps),
            ("interrupted", self.interrupted),
            ("refused", self.refused),
        ]
    }
}

/// The socket and what has been learnt through it.
#[derive(Debug)]
pub(crate) struct Watcher {
    socket: Socket,
    network: Network,
    dumps: Dumps,
    counters: Counters,
    buffer: Vec<u8>,
}

/// How long the kernel may take to tell its tables at start. It takes milliseconds; a full BGP
/// table about a second.
const SETTLE: Duration = Duration::from_secs(10);

/// A watcher that knows all tables. Blocks until it does: for before the loop, and for commands.
///
/// # Errors
/// When the socket cannot be had, or the kernel does not tell.
pub(crate) fn settled() -> Result<Watcher, NetlinkError> {
    let mut watcher = Watcher::open()?;
    watcher.settle(SETTLE)?;
    Ok(watcher)
}

impl Watcher {
    /// Opens the socket in the calling thread's network namespace, subscribes, and asks for the first dump.
    ///
    /// # Errors
    /// When the kernel refuses. No privileges are needed to watch.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let failed = |step| move |source| NetlinkError::Open { step, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("socket"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket
            .set_non_blocking(true)
            .map_err(failed("O_NONBLOCK"))?;
        // Without CAP_NET_ADMIN in the owning namespace only up to net.core.rmem_max; either will do.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)
                .map_err(|errno| failed("SO_RCVBUF")(errno.into()))?;
        }
        for group in GROUPS {
            socket
                .add_membership(group)
                .map_err(failed("NETLINK_ADD_MEMBERSHIP"))?;
        }
        let mut watcher = Self {
            socket,
            network: Network::default(),
            dumps: Dumps::default(),
            counters: Counters::default(),
            buffer: Vec::with_capacity(DATAGRAM),
        };
        watcher.audit()?;
        Ok(watcher)
    }

    /// A duplicate of the socket's descriptor, to wait on until it is readable.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// What is known.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// What has been seen.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether no dump runs or waits: the network is known as it is.
    pub(crate) fn settled(&self) -> bool {
        self.dumps.idle()
    }

    /// Dumps every table again. Not needed for correctness; the loop does it now and then, so that what
    /// nobody thought of does not last for ever.
    ///
    /// # Errors
    /// When the socket cannot be written.
    pub(crate) fn audit(&mut self) -> Result<(), NetlinkError> {
        for table in Table::ALL {
            self.dumps.want(table);
        }
        self.pump()
    }

    /// Reads what has come, at most [`DATAGRAMS_PER_READ`] datagrams of it, without blocking.
    ///
    /// # Errors
    /// When the socket is broken; losing notifications is not that.
    pub(crate) fn read(&mut self) -> Result<(), NetlinkError> {
        for _ in 0..DATAGRAMS_PER_READ {
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.clear();
            let received = self.socket.recv_from(&mut buffer, libc::MSG_DONTWAIT);
            match &received {
                Ok((_, sender)) if sender.port_number() != 0 => self.counters.foreign += 1,
                Ok(_) => self.datagram(&buffer),
                Err(_) => {}
            }
            self.buffer = buffer;
            match received {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.counters.overruns += 1;
                    limited!(
                        warn,
                        "network changes came faster than they were read; reading all again"
                    );
                    for table in Table::ALL {
                        self.dumps.want(table);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.network.take_doubt() {
            self.dumps.want(Table::Routes4);
            self.dumps.want(Table::Routes6);
        }
        self.pump()
    }

    /// Reads until every dump is complete. Blocks: for the start, before there is a loop.
    ///
    /// # Errors
    /// When the socket is broken, or after about this long.
    pub(crate) fn settle(&mut self, patience: Duration) -> Result<(), NetlinkError> {
        /// How long one poll lasts: also how much `patience` may be overdrawn by.
        const STEP: Duration = Duration::from_millis(50);
        let step = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(STEP.subsec_nanos()),
        };
        let mut idle = Duration::ZERO;
        while !self.settled() {
            if idle >= patience {
                return Err(NetlinkError::Unsettled(patience));
            }
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, Some(&step)) {
                Ok(0) => idle += STEP,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            self.read()?;
        }
        Ok(())
    }

    /// Asks the kernel to find out, or to confirm, the Ethernet address of a neighbour (NTF_USE: as if a
    /// packet were waiting for it). The answer comes as a change of [`Network::neighbours`]. Repeated every
    /// few seconds for a neighbour in use it keeps the entry fresh and out of the garbage collector's way;
    /// for one that is confirmed already it costs nothing. Needs CAP_NET_ADMIN: without it the refusal is
    /// counted.
    ///
    /// # Errors
    /// When the socket cannot be written.
    pub(crate) fn resolve(&mut self, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
        if self.network.is_fixed(ifindex, address) {
            return Ok(());
        }
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = ifindex;
        message.header.flags = NeighbourFlags::Use;
        message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::from(
            address,
        ))];
        let sequence = self.dumps.fresh_sequence();
        let message = RouteNetlinkMessage::NewNeighbour(message);
        match self.send(message, NLM_F_REQUEST | NLM_F_CREATE, sequence) {
            // The kernel works a request off within the call and answers some errors right there.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Asks for the next dump, if one is wanted and none runs.
    fn pump(&mut self) -> Result<(), NetlinkError> {
        let Some((table, sequence)) = self.dumps.next() else {
            return Ok(());
        };
        match self.send(dump_request(table), NLM_F_REQUEST | NLM_F_DUMP, sequence) {
            Ok(()) => {
                self.network.begin(table);
                Ok(())
            }
            // EBUSY: a dump still runs on this socket. EAGAIN: its send buffer is full. Both pass.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {
                self.dumps.postpone();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn send(&self, message: RouteNetlinkMessage, flags: u16, sequence: u32) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(())
    }

    /// Takes in one datagram: a row of messages, each at a multiple of four bytes.
    fn datagram(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = match NetlinkBuffer::new_checked(bytes) {
                Ok(buffer) => buffer.length() as usize,
                Err(error) => return self.malformed(&error),
            };
            let (message, _) = bytes.split_at(length.min(bytes.len()));
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                Ok(message) => self.message(message),
                Err(error) => self.malformed(&error),
            }
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn message(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        self.counters.messages += 1;
        let (header, payload) = message.into_parts();
        let sequence = header.sequence_number;
        let interrupted = header.flags & NLM_F_DUMP_INTR != 0;
        match payload {
            NetlinkPayload::InnerMessage(message) => {
                self.dumps.part(sequence, interrupted);
                self.network.apply(header.flags, &message);
            }
            NetlinkPayload::Done(done) => {
                self.dumps.part(sequence, interrupted);
                self.ended(sequence, done.code);
            }
            NetlinkPayload::Error(error) => {
                let code = error.code.map_or(0, |code| code.get());
                if !self.ended(sequence, code) && code != 0 {
                    self.counters.refused += 1;
                    let error = io::Error::from_raw_os_error(code.wrapping_neg());
                    tracing::debug!(%error, "the kernel refused a netlink request");
                }
            }
            _ => {}
        }
    }

    /// If a dump ended with this, closes it.
    fn ended(&mut self, sequence: u32, code: i32) -> bool {
        match self.dumps.end(sequence, code != 0) {
            None => return false,
            Some(End::Complete(table)) => {
                self.counters.dumps += 1;
                self.network.finish(table);
            }
            Some(End::Redo(table)) => {
                self.counters.interrupted += 1;
                tracing::debug!(
                    ?table,
                    "the table changed while it was read; reading it again"
                );
            }
            Some(End::Partial(table)) => {
                self.counters.interrupted += 1;
                limited!(warn, ?table, code, "the table could not be read to its end");
            }
        }
        true
    }

    fn malformed(&mut self, error: &netlink_packet_core::DecodeError) {
        if self.counters.malformed == 0 {
            tracing::warn!(%error, "a netlink message was not understood; further ones are counted only");
        }
        self.counters.malformed += 1;
    }
}

/// The request for a dump of this table.
fn dump_request(table: Table) -> RouteNetlinkMessage {
    match table {
        Table::Links => RouteNetlinkMessage::GetLink(LinkMessage::default()),
        Table::Addresses => RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        Table::Neighbours => RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
        Table::Routes4 | Table::Routes6 => {
            let mut message = RouteMessage::default();
            message.header.address_family = match table {
                Table::Routes4 => AddressFamily::Inet,
                _ => AddressFamily::Inet6,
            };
            RouteNetlinkMessage::GetRoute(message)
        }
    }
}

#[cfg(test)]
mod tests;
