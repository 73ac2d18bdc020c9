//! The validated model. One that exists is valid: every field is private and only
//! [`parse`](crate::parse) builds it, after everything was checked.
//!
//! What a reader may rely on, beside the types:
//! * at least one interface; interface and service names are unique;
//! * no two services share address, port and protocol; no port is 0;
//! * no address is unspecified, loopback, multicast, broadcast or IPv4-mapped, none has a zone;
//! * a backend is of its service's address family, is not the address of any service, and is
//!   listed once in its service; with [`Forward::DsrL2`] its port is the service's;
//! * all numbers are within [`limits`](crate::limits), a table size is prime and not smaller
//!   than its service's number of backends.
//!
//! A service may have no backend, or none with a weight (a warning says so), and one backend's
//! address and port may stand in several services. Order is the file's; nothing may depend on
//! it but the order of output.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits;

/// What the reading of a word needs of an enum.
pub(crate) trait Word: Copy + 'static {
    fn all() -> &'static [Self];
    fn spelling(self) -> &'static str;
}

/// Defines an enum of words in the file: one spelling each, used for reading, writing and errors.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* #[doc = concat!(" (`", $word, "`)")] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// How the configuration file spells it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl Word for $name {
            fn all() -> &'static [Self] {
                Self::ALL
            }

            fn spelling(self) -> &'static str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// How the sockets of an interface are bound.
    Mode {
        /// Zero-copy, else native copy, else generic; the one really bound is reported.
        Auto = "auto",
        /// Zero-copy or refuse to start.
        ZeroCopy = "zerocopy",
        /// The driver's XDP hook with copying, or refuse to start.
        Copy = "copy",
        /// The kernel's generic XDP hook, which every driver has.
        Generic = "generic",
    }
}

words! {
    /// What is done about frames whose transport checksum a local stack left to the hardware.
    PartialChecksums {
        /// Complete them on interfaces whose driver hands over such frames (veth, tun), trust the others.
        Auto = "auto",
        /// Recognise and complete them on every frame received.
        Complete = "complete",
        /// Take every checksum as it is.
        Trust = "trust",
    }
}

words! {
    /// What the flow table lies in.
    FlowMemory {
        /// A BPF map: other processes and BPF programs can read it, and the next process can take it over.
        Map = "map",
        /// Memory of the process alone, in huge pages where the host has them: faster with millions of flows.
        Private = "private",
    }
}

words! {
    /// The transport protocol of a service.
    Protocol {
        /// Transmission Control Protocol, RFC 9293.
        Tcp = "tcp",
        /// User Datagram Protocol, RFC 768.
        Udp = "udp",
    }
}

impl Protocol {
    /// IANA's assigned internet protocol number, as in the IPv4 protocol and IPv6 next header field.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

words! {
    /// How packets reach a backend.
    Forward {
        /// Destination address and port are rewritten; replies return through the balancer.
        Nat = "nat",
        /// Only the MAC address is rewritten; the backend holds the service's address and answers the client directly.
        DsrL2 = "dsr-l2",
    }
}

words! {
    /// By what a new flow gets its backend.
    Choose {
        /// Its addresses and ports: flows spread as evenly as can be.
        FlowHash = "flow-hash",
        /// The client's address alone: all flows of a client go to the same backend.
        SourceHash = "source-hash",
        /// The backends' turns, in proportion to their weights.
        RoundRobin = "round-robin",
        /// How many flows each backend has for its weight: the one with the fewest.
        LeastConnections = "least-connections",
    }
}

words! {
    /// What happens to packets of a service none of whose backends is up.
    WhenEmpty {
        /// They are dropped, counted.
        Drop = "drop",
        /// Those that are down, or not checked to the end yet, are treated as up; the disabled and those of
        /// weight 0 are not.
        Open = "open",
    }
}

words! {
    /// What a health check does.
    HealthKind {
        /// Opens a TCP connection to the backend and closes it again.
        Tcp = "tcp",
    }
}

/// Everything the operator said, complete and consistent. See the module's head for what holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub(crate) balancer: Balancer,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) services: Vec<Service>,
}

impl Model {
    /// What concerns the process as a whole.
    pub const fn balancer(&self) -> &Balancer {
        &self.balancer
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
}

/// One virtual address and how to forward for it: a table `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) forward: Forward,
    pub(crate) choose: Choose,
    pub(crate) when_empty: WhenEmpty,
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

    /// The virtual address and port; flow label and scope of an IPv6 address are 0.
    pub const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The transport protocol.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How packets reach the backends.
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
    pub(crate) weight: u32,
    pub(crate) disabled: bool,
}

impl Backend {
    /// Address and port; a port left out in the file is the service's.
    pub const fn address(&self) -> SocketAddr {
        self.address
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

/// How the backends of a service are checked: the key `health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub(crate) kind: HealthKind,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
    pub(crate) port: Option<NonZeroU16>,
}

impl Health {
    /// What a check does.
    pub const fn kind(&self) -> HealthKind {
        self.kind
    }

    /// From the start of one check to the start of the next.
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// How long a check may take before it has failed; never longer than the interval.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Good checks in a row that bring a backend up; at least 1.
    pub const fn rise(&self) -> u32 {
        self.rise
    }

    /// Failed checks in a row that take a backend down; at least 1.
    pub const fn fall(&self) -> u32 {
        self.fall
    }

    /// The port checked in place of the backend's; never 0.
    pub fn port(&self) -> Option<u16> {
        self.port.map(NonZeroU16::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_numbers_are_ianas() {
        assert_eq!((Protocol::Tcp.number(), Protocol::Udp.number()), (6, 17));
    }

    #[test]
    fn words_print_as_the_file_spells_them_and_obey_a_width() {
        assert_eq!(format!("[{:<7}]", Forward::DsrL2), "[dsr-l2 ]");
        assert_eq!(Mode::ZeroCopy.as_str(), "zerocopy");
        assert_eq!(Forward::ALL.len(), 2);
    }
}
