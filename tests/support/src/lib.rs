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
mod crowd;
mod decapsulator;
mod download;
mod echo;
mod export;
mod frame;
mod namespace;
mod nginx;
mod payload;
mod playground;
mod process;
mod status;
mod tap;
mod threads;
mod tier;
mod tun;
mod upload;
mod visit;
mod wrapping;

pub use account::{Account, Line};
pub use balancer::Balancer;
pub use clock::{now, pause, until};
pub use configuration::{Backend, Configuration, Service};
pub use crowd::Crowd;
pub use decapsulator::{Decapsulator, Emerged};
pub use download::Download;
pub use echo::{Conversation, TcpEcho, UdpEcho, ask, check_datagram, pattern, wait_for_the_way};
pub use export::Export;
pub use frame::{Frame, RawLink};
pub use namespace::inside;
pub use nginx::Nginx;
pub use payload::{Payload, sha256_of};
pub use playground::{Plan, Playground};
pub use process::{Process, run};
pub use status::Status;
pub use tap::Tap;
pub use tier::{Kind as ProxyKind, Proxy};
pub use upload::upload;
pub use visit::{Visits, connect_from, request, visit};
pub use wrapping::Wrapping;

#[cfg(test)]
mod tests {
    use super::*;

    /// Past the balancer, by the client's own link to the switch: what the fixtures do alone.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn fixtures_work_without_a_balancer_and_leave_nothing() {
        let playground = Playground::plan().backends(2).up();
        let namespace = playground.namespace("client");
        let payload = Payload::megabytes(1, 10);
        let mut nginx = Nginx::on_all(&playground, &payload, "1m");
        let target = "10.2.0.12:8080".parse().unwrap();
        let visits = playground.visits(target, 20);
        assert_eq!((visits.of("b2"), visits.failures), (20, Vec::new()));
        let download = Download::start(&playground, "http://[fd00:2::11]:8080/file");
        assert_eq!(download.backend(), "b1");
        assert_eq!(download.finish(), Ok(payload.sha256));

        nginx[0].kill();
        assert!(
            playground
                .inside("b1", || visit("10.2.0.11:8080".parse().unwrap()))
                .is_err()
        );
        nginx[0].restart();
        assert_eq!(
            playground
                .inside("b1", || visit("10.2.0.11:8080".parse().unwrap()))
                .unwrap(),
            "b1"
        );

        let _udp = UdpEcho::on_all(&playground, 7_000);
        let _tcp = TcpEcho::on_all(&playground, 7_000);
        playground.inside("client", || {
            wait_for_the_way("10.2.0.11:7000".parse().unwrap())
        });
        let target = "[fd00:2::11]:7000".parse().unwrap();
        let mut conversation = Conversation::open(&playground, target).unwrap();
        assert_eq!(conversation.say().unwrap(), "b1");
        assert_eq!(conversation.say().unwrap(), "b1");

        let before = playground.kernel_counter("b1", "Udp", "InCsumErrors");
        let macs = [
            playground.hardware_address("client", "c1"),
            playground.hardware_address("b1", "eth0"),
        ];
        let frame = Frame::datagram(
            macs,
            "10.2.0.200:9".parse().unwrap(),
            "10.2.0.11:7000".parse().unwrap(),
        );
        let link = RawLink::open(&playground, "client", "c1");
        link.send(frame.clone().with_transport(6, &[0xDE, 0xAD]).bytes());
        until(
            std::time::Duration::from_secs(2),
            "the wrong checksum was seen",
            || (playground.kernel_counter("b1", "Udp", "InCsumErrors") == before + 1).then_some(()),
        );
        assert_eq!(playground.checksum_errors(), before + 1);

        drop(playground);
        assert!(!std::path::Path::new("/run/netns").join(namespace).exists());
    }
}
