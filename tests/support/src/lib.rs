//! What the end-to-end tests are told with: a playground of network namespaces, nginx and echo
//! servers on its backends, a balancer on its `lb`, visitors and raw frames from its client.
//!
//! Everything here cleans up after itself when dropped, also after a panic: processes by pid,
//! namespaces by `scripts/netns down`. Fixtures are made by builders that read as sentences; a
//! fixture that cannot be had panics with what was tried and what came of it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a fixture that fails must fail its test, there and then"
)]

mod account;
mod balancer;
mod clock;
mod configuration;
mod download;
mod echo;
mod frame;
mod namespace;
mod nginx;
mod payload;
mod playground;
mod process;
mod status;
mod visit;

pub use account::{Account, Line};
pub use balancer::Balancer;
pub use clock::{now, pause, until};
pub use configuration::{Backend, Configuration, Service};
pub use download::Download;
pub use echo::{
    Conversation, TcpEcho, UdpEcho, ask, check_datagram, pattern, wait_for_the_way,
};
pub use frame::{Frame, RawLink};
pub use namespace::inside;
pub use nginx::Nginx;
pub use payload::{Payload, sha256_of};
pub use playground::{Plan, Playground};
pub use process::{Process, run};
pub use status::Status;
pub use visit::{Visits, visit};
