//! What the operator said, made impossible to misread.
//!
//! [`parse`] turns the text of a configuration file into a [`Model`], or into every reason why
//! not. It does no I/O. Whoever holds a [`Model`] need not check anything that is written at
//! the head of its type; whoever adds a key adds it to `file/` (that it exists), `model/`
//! (what it means), `resolve/` (how the one becomes the other), an example and a reject.
//!
//! # A complete example
//!
//! ```toml
#![doc = include_str!("../examples/full.toml")]
//! ```
//!
//! ```
//! let text = include_str!("../examples/full.toml");
//! let parsed = ringgate_config::parse("full.toml", text).unwrap();
//! assert!(parsed.warnings.is_empty());
//!
//! let balancer = parsed.model.balancer();
//! assert_eq!(balancer.workers().unwrap().get(), 2);
//! assert_eq!(balancer.cores().unwrap(), [2, 3]);
//!
//! let web = &parsed.model.services()[0];
//! assert_eq!(web.listen().exact(), "10.100.0.1:80".parse().ok());
//! assert_eq!(web.backends()[1].weight(), 0);
//! assert!(web.backends()[2].disabled());
//! assert_eq!(web.health().unwrap().pace().fall, 3);
//!
//! // A port left out is the service's.
//! let syslog = &parsed.model.services()[2];
//! assert_eq!(syslog.backends()[0].address(), "10.2.0.21:514".parse().unwrap());
//! ```
//!
//! # All problems at once
//!
//! ```
//! let text = r#"
//! [[interface]]
//! name = "eth0"
//!
//! [[service]]
//! name = "web"
//! listen = "10.100.0.1:80"
//! protocol = "tcp"
//! forward = "natt"
//! backends = []
//! "#;
//! let problems = ringgate_config::parse("ringgate.toml", text).unwrap_err();
//! assert_eq!(problems.list()[0].to_string(), "ringgate.toml:9:11: service \"web\".forward: \
//!     found \"natt\"; expected one of nat, full-nat, dsr-l2, ipip, gue, gre; did you mean \"nat\"?");
//! assert_eq!(problems.list()[1].cure, "did you mean backend?");
//! ```
//!
//! # Decisions that the keys alone do not show
//!
//! * A check's `timeout` longer than its `interval` is refused, and so is a `jitter` that leaves less
//!   than the timeout of an interval: one check of a backend ends before the next begins. Left out,
//!   the timeout is the default or the interval, whichever is shorter, and the jitter a tenth of the
//!   interval or what the timeout leaves of it.
//! * `passive` without a `fast-interval` shorter than the interval is refused: it is what bounds how
//!   often clients can bring checks forward, and nobody should have it without having chosen it.
//! * `min-healthy` and `when-empty` in one service are refused: `when-below` is about an empty
//!   service too.
//! * A `tcp` check on a `udp` service is allowed; without `port` there is a warning, since few
//!   servers (DNS is one) answer both on one port. Naming the port, even the same, silences it.
//! * `cores` without `workers` sets the number of workers.
//! * A service without backends, or none of them with a weight, is allowed and warned about:
//!   services are often set up before their servers. So is a file without services.
//! * A backend may not have the address of any service, whatever the ports: its packets would
//!   come back.
//! * Two services may share a backend's address and port, but not if one is stateless and both
//!   translate: only a flow entry tells whose reply it is then.
//! * Prefixes of services may nest, the longest that has the port wins; two of one prefix may not
//!   have a port in common, not even a single one within a range.
//! * A service's `forward` has to fit it only if a backend has no mode of its own. Its `tunnel` may
//!   have the keys of all modes that its backends have.
//! * A tunnel's source may not hold the backend's own address: hosts drop packets that seem to come
//!   from themselves, and with a prefix that would be one flow in many.
//! * `stateless = false` beside `quic` is refused rather than obeyed or ignored.
#![forbid(unsafe_code)]

mod address;
mod change;
pub mod diff;
mod duration;
mod error;
mod file;
pub mod limits;
mod mention;
mod model;
mod nearest;
mod resolve;

pub use change::{Change, Misfit, Overlay, Said, Unsaved, WriteError};
pub use error::{Place, Problem, Problems, Warning};
pub use ipnet::IpNet;
pub use mention::{FileUse, Mention};
pub use model::{
    Api, Backend, Balancer, Check, Choose, ClientCertificate, DnsAnswer, DnsCheck, Dscp, Exchange,
    Flap, FlowMemory, Forward, Fragments, GrpcCheck, Health, HealthKind, HttpCheck, HttpMethod,
    Interface, Listen, Log, LogFormat, LogLevel, Metrics, MinHealthy, Mode, Model, MssClamp, Pace,
    PartialChecksums, Passive, Ping, Process, Protocol, Quic, RecordType, Remote, ResponseCode,
    ScriptCheck, Service, Silence, StatusSet, Timeouts, TlsCheck, Tunnel, Verify, Via, Vlan,
    VlanTags, WhenBelow, WhenEmpty,
};

use error::{Findings, Kind, Refusal};

/// A file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What it says.
    pub model: Model,
    /// What it says but probably does not mean, in the order of the file.
    pub warnings: Vec<Warning>,
    /// The files that it names, in no order.
    pub mentions: Vec<Mention>,
}

/// Reads a configuration. `file_name` is only for the places in problems and warnings; nothing
/// is opened.
///
/// # Errors
/// Every problem of the text, at once; nothing of it may be used then.
pub fn parse(file_name: &str, text: &str) -> Result<Parsed, Problems> {
    let mut findings = Findings::new(file_name, text);
    if text.len() > limits::FILE_BYTES_MAX {
        let refusal = Refusal {
            found: format!("{} bytes", text.len()),
            expected: format!("at most {}", limits::FILE_BYTES_MAX),
            cure: "name a configuration file".to_owned(),
        };
        findings.problem(Kind::Structure, &(0..0), String::new(), refusal);
        return Err(findings.refuse());
    }
    let root = file::parse(text, &mut findings);
    let written = file::File::read(root.get_ref(), &mut findings);
    let model = resolve::model(&written, &mut findings);
    findings.finish(model)
}
