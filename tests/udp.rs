//! Promise: every datagram that fits arrives as it was sent, and so does its answer, at every
//! size from 0 bytes to the MTU; over `nat` and `dsr-l2`, IPv4 and IPv6, with the senders'
//! checksum offload on and off. The kernels at both ends verify the checksums, and count none
//! that is wrong.

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use ringgate_playground::{
        Balancer, Configuration, Playground, Service, UdpEcho, check_datagram, wait_for_the_way,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// The largest payloads in an MTU of 1500: less 20 or 40 of IP and 8 of UDP.
    const LARGEST_V4: usize = 1_472;
    const LARGEST_V6: usize = 1_452;

    /// Datagrams from one source port, so that many flows and every backend take part.
    const DATAGRAMS_A_FLOW: usize = 50;

    const ECHO_PORT: u16 = 7_000;

    const SERVICES: [(&str, &str, usize); 4] = [
        ("echo4", "10.100.0.1:7000", LARGEST_V4),
        ("echo6", "[fd00:100::1]:7000", LARGEST_V6),
        ("direct4", "10.100.0.2:7000", LARGEST_V4),
        ("direct6", "[fd00:100::2]:7000", LARGEST_V6),
    ];

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_size_comes_back_with_checksum_offload() {
        every_size_comes_back(Configuration::native(), 1, true);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_size_comes_back_without_checksum_offload() {
        every_size_comes_back(Configuration::native(), 2, false);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_size_comes_back_by_generic_xdp() {
        every_size_comes_back(Configuration::generic(), 1, true);
    }

    fn every_size_comes_back(configuration: Configuration, queues: u8, checksum_offload: bool) {
        let plan = Playground::plan()
            .queues(queues)
            .checksum_offload(checksum_offload);
        let playground = plan.generic(configuration.mode() == "generic").up();
        let _echo = UdpEcho::on_all(&playground, ECHO_PORT);
        let over = |service: Service| service.backends(playground.backends(), ECHO_PORT);
        let configuration = SERVICES
            .iter()
            .fold(configuration, |all, (name, listen, _)| {
                let service = Service::udp(name, listen);
                let is_direct = name.starts_with("direct");
                all.service(over(if is_direct { service.direct() } else { service }))
            });
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        for (service, address, largest) in SERVICES {
            let address: SocketAddr = address.parse().unwrap();
            playground.inside("client", || {
                wait_for_the_way(address);
                for first in (0..=largest).step_by(DATAGRAMS_A_FLOW) {
                    let socket = connected(address);
                    for length in first..=largest.min(first + DATAGRAMS_A_FLOW - 1) {
                        let outcome = check_datagram(&socket, length);
                        assert!(outcome.is_ok(), "{service}: {outcome:?}");
                    }
                }
            });
        }

        let status = balancer.assert_accounts_balance();
        assert_eq!(
            playground.checksum_errors(),
            0,
            "wrong checksums arrived somewhere"
        );
        for (service, _, _) in SERVICES {
            for (address, backend) in status.backends(service) {
                assert!(
                    backend.number("/packets") > 0,
                    "{service}: none to {address}"
                );
            }
        }
    }

    fn connected(to: SocketAddr) -> UdpSocket {
        let unspecified = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(unspecified).unwrap();
        socket.connect(to).unwrap();
        socket
    }
}
