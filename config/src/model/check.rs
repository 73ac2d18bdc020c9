//! What a health check asks of a backend, by kind.

mod said;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use super::{HealthKind, HttpMethod, RecordType, ResponseCode, Silence};

/// One way to ask a backend whether it works: what `health` says besides when to ask.
///
/// Plain data that is equal where it asks the same: backends of several services that are asked alike
/// are asked once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Check {
    /// Opens a TCP connection and closes it again.
    Tcp,
    /// Asks for a page (HTTP/1.1, RFC 9112).
    Http(HttpCheck),
    /// Asks for a page over TLS.
    Https(HttpCheck, TlsCheck),
    /// Sends a datagram and looks at what comes back.
    Udp(Exchange),
    /// Asks a name server (RFC 1035) over UDP.
    Dns(DnsCheck),
    /// Sends an echo request (RFC 792, RFC 4443).
    Icmp,
    /// Calls `grpc.health.v1.Health/Check`, over TLS if that is given.
    Grpc(GrpcCheck, Option<TlsCheck>),
    /// Runs a program; its exit status is the answer.
    Script(ScriptCheck),
}

impl Check {
    /// How the file calls its kind.
    pub const fn kind(&self) -> HealthKind {
        match self {
            Self::Tcp => HealthKind::Tcp,
            Self::Http(_) => HealthKind::Http,
            Self::Https(..) => HealthKind::Https,
            Self::Udp(_) => HealthKind::Udp,
            Self::Dns(_) => HealthKind::Dns,
            Self::Icmp => HealthKind::Icmp,
            Self::Grpc(..) => HealthKind::Grpc,
            Self::Script(_) => HealthKind::Script,
        }
    }

    /// What it needs for TLS, if it speaks that.
    pub const fn tls(&self) -> Option<&TlsCheck> {
        match self {
            Self::Https(_, tls) | Self::Grpc(_, Some(tls)) => Some(tls),
            _ => None,
        }
    }
}

/// What an HTTP check asks for and what answer is good.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HttpCheck {
    /// The method.
    pub method: HttpMethod,
    /// The request target: begins with '/', printable ASCII without spaces.
    pub path: String,
    /// The host header. `None`: the address asked, with its port.
    pub host: Option<String>,
    /// Status codes that are good.
    pub status: StatusSet,
    /// Bytes that the body must contain. `None`: it is not read.
    pub body: Option<Box<[u8]>>,
    /// How much of the body is searched, bytes.
    pub body_within: u32,
}

/// Ranges of status codes, each within 100 to 599: in order, none adjacent to the next or overlapping it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatusSet(Box<[(u16, u16)]>);

impl StatusSet {
    /// The ranges (first and last) put in order and together.
    pub(crate) fn new(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged.into())
    }

    /// Whether this status is among them.
    pub fn contains(&self, status: u16) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (first, last)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// How a check speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsCheck {
    /// The name that the backend's certificate must be for, sent as SNI. `None`: the address asked.
    pub server_name: Option<String>,
    /// Whom to believe.
    pub verify: Verify,
    /// What this balancer shows when it is asked for a certificate.
    pub client: Option<ClientCertificate>,
}

/// Whose signature makes a backend's certificate good.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verify {
    /// The host's certificate authorities.
    System,
    /// Those in this PEM file, absolute path.
    File(PathBuf),
    /// Anybody's: the certificate is not looked at.
    Nobody,
}

/// PEM files of a certificate chain and its key, absolute paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientCertificate {
    /// The chain, the own certificate first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// A datagram and what is expected back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exchange {
    /// What is sent; not empty.
    pub send: Box<[u8]>,
    /// Bytes that an answer must contain. `None`: any answer will do.
    pub expect: Option<Box<[u8]>>,
    /// What it means that nothing comes back within the timeout.
    pub silence: Silence,
}

/// A question to a name server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsCheck {
    /// The name, labels of 1 to 63 bytes, without the final dot; empty is the root.
    pub name: String,
    /// The type of record asked for.
    pub record: RecordType,
    /// The response code that is good.
    pub rcode: ResponseCode,
    /// What one of the answer's records must say. `None`: it is not looked at.
    pub expect: Option<DnsAnswer>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DnsAnswer {
    /// Of an address record.
    Address(IpAddr),
    /// The name in it, without the final dot, compared without case; or a text record's text.
    Text(String),
}

/// A call of the gRPC health service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrpcCheck {
    /// The service asked about; empty: the server as a whole.
    pub service: String,
    /// The `:authority` of the call. `None`: the address asked, with its port.
    pub authority: Option<String>,
}

/// A program whose exit status 0 is success.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScriptCheck {
    /// Its absolute path.
    pub command: PathBuf,
    /// What it is called with, besides its name.
    pub arguments: Vec<String>,
}
