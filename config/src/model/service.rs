//! One service: where it listens, how it forwards, its backends and their checks.

use std::net::SocketAddr;
use std::time::Duration;

use super::{
    Choose, Forward, Fragments, Health, Listen, MinHealthy, Protocol, Tunnel, WhenBelow, WhenEmpty,
};
use crate::limits;

/// The addresses and ports that clients know and how to forward for them: a table `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub(crate) name: String,
    pub(crate) listen: Listen,
    pub(crate) protocol: Protocol,
    pub(crate) vlan: Option<Vlan>,
    pub(crate) forward: Forward,
    pub(crate) choose: Choose,
    pub(crate) when_empty: WhenEmpty,
    pub(crate) min_healthy: Option<MinHealthy>,
    pub(crate) when_below: WhenBelow,
    pub(crate) mss_clamp: MssClamp,
    pub(crate) fragments: Fragments,
    pub(crate) stateless: bool,
    pub(crate) quic: Option<Quic>,
    pub(crate) slow_start: Duration,
    pub(crate) table_size: u32,
    pub(crate) timeouts: Timeouts,
    pub(crate) health: Option<Health>,
    pub(crate) backends: Vec<Backend>,
}

impl Service {
    /// Its unique name, of `a-z`, `0-9`, `.`, `_`, `-`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub const fn listen(&self) -> &Listen {
        &self.listen
    }

    /// The transport protocol.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What makes a service the same one after a reload: where it listens, and the number of its transport
    /// protocol (IANA). No two of a configuration have the same.
    pub fn identity(&self) -> (Listen, u8) {
        (self.listen, self.protocol.number())
    }

    /// The tags that its packets come with. `None`: with any, or without.
    pub const fn vlan(&self) -> Option<Vlan> {
        self.vlan
    }

    /// How packets reach those backends that do not say otherwise.
    pub const fn forward(&self) -> Forward {
        self.forward
    }

    /// By what new flows choose their backend.
    pub const fn choose(&self) -> Choose {
        self.choose
    }

    /// What happens when no backend is up.
    pub const fn when_empty(&self) -> WhenEmpty {
        self.when_empty
    }

    /// How many of its backends must be healthy. `None`: one.
    pub const fn min_healthy(&self) -> Option<MinHealthy> {
        self.min_healthy
    }

    /// What happens to new flows when fewer are than [`min_healthy`](Self::min_healthy) says.
    pub const fn when_below(&self) -> WhenBelow {
        self.when_below
    }

    /// How many of so many backends, those that are neither disabled nor of weight 0, must be healthy;
    /// at least 1.
    pub fn needs_healthy(&self, of: usize) -> usize {
        self.min_healthy.map_or(1, |least| least.of(of)).max(1)
    }

    /// Whether all backends are used when fewer than that are healthy; else none gets new flows.
    pub fn fails_open(&self) -> bool {
        match self.min_healthy {
            Some(_) => self.when_below == WhenBelow::Open,
            None => self.when_empty == WhenEmpty::Open,
        }
    }

    /// What happens to the maximum segment size that both sides announce.
    pub const fn mss_clamp(&self) -> MssClamp {
        self.mss_clamp
    }

    /// What happens to fragments.
    pub const fn fragments(&self) -> Fragments {
        self.fragments
    }

    /// Whether its flows are not remembered: each packet goes where a new flow would.
    pub const fn stateless(&self) -> bool {
        self.stateless
    }

    /// How a backend is read from the connection id of QUIC packets. `None`: it is not.
    pub const fn quic(&self) -> Option<Quic> {
        self.quic
    }

    /// Over how long a backend that comes back gets its share of new flows. Zero: at once.
    pub const fn slow_start(&self) -> Duration {
        self.slow_start
    }

    /// Slots of the Maglev table, a prime.
    pub const fn table_size(&self) -> u32 {
        self.table_size
    }

    /// How long its flows are kept: what it says itself, and else the balancer.
    pub const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// How backends are checked. `None`: they are always up.
    pub const fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    /// The servers, in the file's order, the disabled ones included; may be empty.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }
}

/// The VLAN tags that a service's packets carry: the key `vlan`. Each is an id of 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vlan {
    /// The tag nearest the MAC addresses.
    pub outer: u16,
    /// The tag after it (IEEE 802.1ad). `None`: there is but one.
    pub inner: Option<u16>,
}

/// The maximum segment size (RFC 9293 3.7.1) in the SYNs of a service, both ways: the key `mss-clamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MssClamp {
    /// As the ends announce it.
    Off,
    /// Lowered to what fits the path by which the balancer sends, outer headers included.
    Path,
    /// Lowered to this, in bytes.
    To(u16),
}

/// Where a QUIC connection id names its backend, in the clear (draft-ietf-quic-load-balancers-21): the
/// key `quic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quic {
    /// The configuration id in the first three bits of a connection id, 0 to 6.
    pub config_id: u8,
    /// Length of the server id after the first byte, 1 to 15 bytes.
    pub server_id_bytes: u8,
}

/// How long a flow in each state is kept after its last packet: the key `timeouts`. Whole seconds,
/// within [`FLOW_TIMEOUT_MIN`](limits::FLOW_TIMEOUT_MIN) and
/// [`FLOW_TIMEOUT_MAX`](limits::FLOW_TIMEOUT_MAX); over all services there are at most
/// [`TIMEOUT_SETS_MAX`](limits::TIMEOUT_SETS_MAX) different ones. The defaults and their reasons
/// are in [`limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// TCP, half open.
    pub opening: Duration,
    /// TCP, open in both directions.
    pub established: Duration,
    /// TCP, one side has sent its FIN.
    pub half_closed: Duration,
    /// TCP, over.
    pub closed: Duration,
    /// Datagrams, not answered so far.
    pub one_way: Duration,
    /// Datagrams in both directions.
    pub two_way: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            opening: limits::OPENING_DEFAULT,
            established: limits::ESTABLISHED_DEFAULT,
            half_closed: limits::HALF_CLOSED_DEFAULT,
            closed: limits::CLOSED_DEFAULT,
            one_way: limits::ONE_WAY_DEFAULT,
            two_way: limits::TWO_WAY_DEFAULT,
        }
    }
}

/// One server of a service: a table `[[service.backend]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) forward: Forward,
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) server_id: Option<Box<[u8]>>,
    pub(crate) weight: u32,
    pub(crate) disabled: bool,
}

impl Backend {
    /// Address and port. A port left out in the file is the service's if that has one, and else 0:
    /// then packets keep their own.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// As operators call it: its address, with its port where it has one of its own.
    pub fn name(&self) -> String {
        match self.address.port() {
            0 => self.address.ip().to_string(),
            _ => self.address.to_string(),
        }
    }

    /// How packets reach it: what it says itself, and else the service.
    pub const fn forward(&self) -> Forward {
        self.forward
    }

    /// How packets to it are wrapped, if [`forward`](Self::forward) is a tunnel.
    pub const fn tunnel(&self) -> Option<&Tunnel> {
        self.tunnel.as_ref()
    }

    /// Its id in connection ids, if the service has [`quic`](Service::quic): as many bytes as that says.
    pub fn server_id(&self) -> Option<&[u8]> {
        self.server_id.as_deref()
    }

    /// Its share of new flows relative to the other weights. 0: it keeps the flows it has and
    /// gets no new ones.
    pub const fn weight(&self) -> u32 {
        self.weight
    }

    /// Whether it is not used at all, neither for new flows nor for those it has.
    pub const fn disabled(&self) -> bool {
        self.disabled
    }
}
