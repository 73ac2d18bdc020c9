//! The words of the file: enums with one spelling each, for reading, writing and errors.

use std::fmt;

/// What the reading of a word needs of an enum.
pub(crate) trait Word: Copy + 'static {
    fn all() -> &'static [Self];
    fn spelling(self) -> &'static str;
}

/// Defines an enum of words in the file: one spelling each, used for reading, writing and errors.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// For whom the log is written.
    LogFormat {
        /// For people.
        Text = "text",
        /// For programs: an object a line.
        Json = "json",
    }
}

words! {
    /// How weighty what is logged is, the most first; each stands for itself and those before it.
    LogLevel {
        /// What an operator must look at.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// Every change of state.
        Info = "info",
        /// What leads to it.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
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
        /// Source and destination are rewritten, the source to an address of the balancer's own;
        /// so replies return through it wherever the backend is.
        FullNat = "full-nat",
        /// Only the MAC address is rewritten; the backend holds the service's address and answers the client directly.
        DsrL2 = "dsr-l2",
        /// Wrapped in IP (RFC 2003, RFC 2473); the backend unwraps, holds the service's address and
        /// answers the client directly, as in the other tunnels.
        Ipip = "ipip",
        /// Wrapped in UDP (draft-ietf-intarea-gue-09).
        Gue = "gue",
        /// Wrapped in GRE (RFC 2784).
        Gre = "gre",
    }
}

impl Forward {
    /// Whether packets are wrapped in outer headers.
    pub const fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue | Self::Gre)
    }

    /// Whether a backend is of its service's address family.
    pub const fn keeps_family(self) -> bool {
        !self.is_tunnel()
    }

    /// Whether a backend may have a port other than its service's.
    pub const fn rewrites_port(self) -> bool {
        matches!(self, Self::Nat | Self::FullNat)
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

impl Choose {
    /// Whether the choice depends on the flows before, so that it must be remembered.
    pub const fn has_state(self) -> bool {
        matches!(self, Self::RoundRobin | Self::LeastConnections)
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
    /// What happens to new flows of a service with fewer healthy backends than `min-healthy`.
    WhenBelow {
        /// They are dropped, counted. Flows that are known go on.
        Closed = "closed",
        /// All backends are used that are neither disabled nor of weight 0.
        Open = "open",
    }
}

words! {
    /// What follows from signs of trouble in the traffic that passes (`nat`, `full-nat`).
    Passive {
        /// Nothing: they are not looked at.
        Off = "off",
        /// The next check is brought forward.
        Check = "check",
        /// And where most new flows fail, the backend gets no more of them until a check succeeds.
        Suspect = "suspect",
    }
}

words! {
    /// What happens to the fragments of a service's packets.
    Fragments {
        /// Each datagram's are followed: they go where its first fragment goes.
        Track = "track",
        /// The client's address alone decides, nothing is remembered.
        ByAddress = "by-address",
        /// They are dropped, counted.
        Drop = "drop",
    }
}

words! {
    /// Who answers echo requests to the addresses of services.
    Ping {
        /// The balancer.
        Answer = "answer",
        /// The host's network stack, if the addresses are its own.
        Kernel = "kernel",
    }
}

words! {
    /// Which VLAN tags packets carry that leave by an interface.
    VlanTags {
        /// Those of the VLAN device that the route names, or none.
        Route = "route",
        /// Where the route gives none, those that the packet came with.
        Keep = "keep",
    }
}

words! {
    /// What a health check does.
    HealthKind {
        /// Opens a TCP connection to the backend and closes it again.
        Tcp = "tcp",
        /// Asks for a page.
        Http = "http",
        /// Asks for a page over TLS.
        Https = "https",
        /// Sends a datagram and looks at the answer.
        Udp = "udp",
        /// Asks a name server.
        Dns = "dns",
        /// Pings.
        Icmp = "icmp",
        /// Calls the gRPC health service.
        Grpc = "grpc",
        /// Runs a program.
        Script = "script",
        /// Nothing: an agent outside says how the backend is.
        Reported = "reported",
    }
}

impl HealthKind {
    /// Whether it opens a TCP connection.
    pub const fn is_over_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Http | Self::Https | Self::Grpc)
    }
}

words! {
    /// The method of an HTTP check.
    HttpMethod {
        /// The page.
        Get = "GET",
        /// Its head alone.
        Head = "HEAD",
        /// What can be done with it.
        Options = "OPTIONS",
    }
}

words! {
    /// By which way a check reaches its backend.
    Via {
        /// To the backend's own address, as any other host's packets.
        Backend = "backend",
        /// To the service's address, handled as a client's packet for this backend.
        Service = "service",
    }
}

words! {
    /// What it means that a datagram is not answered.
    Silence {
        /// The backend is down.
        Fails = "fails",
        /// It is not known to be down.
        Passes = "passes",
    }
}

words! {
    /// A type of records in the domain name system (RFC 1035, RFC 3596, RFC 2782).
    RecordType {
        /// IPv4 address.
        A = "A",
        /// IPv6 address.
        Aaaa = "AAAA",
        /// Name server.
        Ns = "NS",
        /// Another name.
        Cname = "CNAME",
        /// Start of authority.
        Soa = "SOA",
        /// Name of an address.
        Ptr = "PTR",
        /// Mail exchange.
        Mx = "MX",
        /// Text.
        Txt = "TXT",
        /// Where a service is.
        Srv = "SRV",
    }
}

words! {
    /// How a name server answers (RFC 1035 4.1.1).
    ResponseCode {
        /// No error.
        NoError = "NOERROR",
        /// It did not understand the question.
        FormErr = "FORMERR",
        /// It failed.
        ServFail = "SERVFAIL",
        /// There is no such name.
        NxDomain = "NXDOMAIN",
        /// It does not do that.
        NotImp = "NOTIMP",
        /// It will not.
        Refused = "REFUSED",
    }
}

impl ResponseCode {
    /// The code on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
        }
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
        assert_eq!(Forward::ALL.len(), 6);
    }
}
