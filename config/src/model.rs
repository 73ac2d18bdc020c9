//! The validated model. One that exists is valid: only [`parse`](crate::parse()) builds it, after
//! everything was checked.
//!
//! What a reader may rely on, beside the types:
//! * at least one interface; interface and service names are unique;
//! * no two services share a prefix and a protocol and have a port in common; at most
//!   [`PORT_RANGES_MAX`](crate::limits::PORT_RANGES_MAX) of those that are not
//!   [`exact`](Listen::exact) cover one address; port 0 is served only where every port is;
//! * no address is unspecified, loopback, multicast, broadcast or IPv4-mapped, none has a zone, and
//!   no prefix holds one that is;
//! * a backend is at no address of any service and is listed once in its service; unless its
//!   [`Forward::is_tunnel`] it is of its service's address family; unless its
//!   [`Forward::rewrites_port`] its port is the service's, or 0 where that has several;
//! * the service of a [`Forward::Nat`] backend has one address, and gives it no port of its own where
//!   it has several; the family of a [`Forward::FullNat`] backend has a source;
//! * only UDP services are stateless, none of them chooses by state or has a [`Forward::FullNat`]
//!   backend, and no other `nat` service has the endpoint of one of its `nat` backends;
//! * one with [`Quic`] is stateless, and all its backends have different server ids of its length;
//!   backends of other services have none;
//! * a service with [`Fragments::ByAddress`] chooses by [`Choose::SourceHash`];
//! * what is checked has a port, its own or the check's, unless by [`Check::Icmp`] or [`Check::Script`];
//!   a check has ended before the next one starts,
//!   and one that signs bring forward has a shorter interval to come after;
//! * a backend has a [`Tunnel`] if its mode is one, with a source of its family that does not
//!   hold its address;
//! * all numbers are within [`limits`](crate::limits), a table size is prime and not smaller
//!   than its service's number of backends.
//!
//! A service may have no backend, or none with a weight (a warning says so), and one backend's
//! address and port may stand in several services. Order is the file's; nothing may depend on
//! it but the order of output.

mod api;
mod check;
mod health;
mod host;
mod listen;
mod metrics;
mod service;
mod tunnel;
mod words;

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use api::{Api, Remote};
pub use check::{
    Check, ClientCertificate, DnsAnswer, DnsCheck, Exchange, GrpcCheck, HttpCheck, ScriptCheck,
    StatusSet, TlsCheck, Verify,
};
pub use health::{Flap, Health, MinHealthy, Pace};
pub use host::{Log, Process};
pub use listen::Listen;
pub use metrics::Metrics;
pub use service::{Backend, MssClamp, Quic, Service, Timeouts, Vlan};
pub use tunnel::{Dscp, Tunnel};
pub(crate) use words::Word;
pub use words::{
    Choose, FlowMemory, Forward, Fragments, HealthKind, HttpMethod, LogFormat, LogLevel, Mode,
    PartialChecksums, Passive, Ping, Protocol, RecordType, ResponseCode, Silence, Via, VlanTags,
    WhenBelow, WhenEmpty,
};

/// Everything the operator said, complete and consistent. See the module's head for what holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub(crate) balancer: Balancer,
    pub(crate) log: Log,
    pub(crate) process: Process,
    pub(crate) metrics: Metrics,
    pub(crate) api: Api,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) services: Vec<Service>,
}

impl Model {
    /// What concerns the process as a whole.
    pub const fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// The log.
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// What the process is allowed once it is up.
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// What is told to whoever collects metrics.
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Who may ask a running balancer.
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// The interfaces that packets come from and leave by; at least one.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The services, in the file's order; may be empty.
    pub fn services(&self) -> &[Service] {
        &self.services
    }
}

/// What concerns the process as a whole: the table `[balancer]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    pub(crate) workers: Option<NonZeroU16>,
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) flows: usize,
    pub(crate) flow_memory: FlowMemory,
    pub(crate) udp_new_flows: u32,
    pub(crate) busy_poll: bool,
    pub(crate) drain: Duration,
    pub(crate) timeouts: Timeouts,
    pub(crate) nat_sources: Vec<IpAddr>,
    pub(crate) nat_source_ports: RangeInclusive<u16>,
    pub(crate) icmp_per_second: u32,
    pub(crate) ping: Ping,
    pub(crate) fragments: usize,
    pub(crate) admin: PathBuf,
}

impl Balancer {
    /// How many workers. `None`: one for each receive queue of the interfaces. Where the file
    /// gives cores alone, their number.
    pub const fn workers(&self) -> Option<NonZeroU16> {
        self.workers
    }

    /// The CPU of each worker, no CPU twice, as many as [`workers`](Self::workers).
    /// `None`: chosen at start.
    pub fn cores(&self) -> Option<&[usize]> {
        self.cores.as_deref()
    }

    /// How many flows the table must be able to hold. Any number within the limits, not
    /// necessarily a power of two.
    pub const fn flows(&self) -> usize {
        self.flows
    }

    /// What the table lies in.
    pub const fn flow_memory(&self) -> FlowMemory {
        self.flow_memory
    }

    /// How many UDP flows are stored in a second at most, by all workers together; at least 1.
    pub const fn udp_new_flows(&self) -> u32 {
        self.udp_new_flows
    }

    /// Whether workers never sleep on their sockets.
    pub const fn busy_poll(&self) -> bool {
        self.busy_poll
    }

    /// How long a stop waits for established flows to end.
    pub const fn drain(&self) -> Duration {
        self.drain
    }

    /// How long flows are kept, where their service does not say otherwise.
    pub const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Addresses of the balancer's own that `full-nat` takes as source, none twice; may be empty.
    pub fn nat_sources(&self) -> &[IpAddr] {
        &self.nat_sources
    }

    /// The source ports of `full-nat`.
    pub fn nat_source_ports(&self) -> RangeInclusive<u16> {
        self.nat_source_ports.clone()
    }

    /// How many ICMP errors the balancer makes in a second at most, all workers together; at least 1.
    pub const fn icmp_per_second(&self) -> u32 {
        self.icmp_per_second
    }

    /// Who answers echo requests to the addresses of services.
    pub const fn ping(&self) -> Ping {
        self.ping
    }

    /// How many datagrams have their fragments followed at once.
    pub const fn fragments(&self) -> usize {
        self.fragments
    }

    /// Absolute path of the admin socket, short enough for `sun_path`, without NUL.
    pub fn admin(&self) -> &Path {
        &self.admin
    }
}

/// One network interface: a table `[[interface]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) partial_checksums: PartialChecksums,
    pub(crate) vlan_tags: VlanTags,
}

impl Interface {
    /// Its name, as the kernel would take it (it need not exist).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How its sockets are bound.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// What is done about partially checksummed frames received on it.
    pub const fn partial_checksums(&self) -> PartialChecksums {
        self.partial_checksums
    }

    /// Which VLAN tags leave with packets by it.
    pub const fn vlan_tags(&self) -> VlanTags {
        self.vlan_tags
    }
}
