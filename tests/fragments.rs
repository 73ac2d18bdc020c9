//! Promise: datagrams larger than the MTU arrive whole, and so do their answers, over `nat` and
//! `dsr-l2`, IPv4 and IPv6. The kernels at both ends cut them and put them together.

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use ringgate_playground::{
        Balancer, Configuration, Playground, Service, UdpEcho, check_datagram, wait_for_the_way,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const ECHO_PORT: u16 = 7_000;

    const SERVICES: [(&str, &str); 4] = [
        ("echo4", "10.100.0.1:7000"),
        ("echo6", "[fd00:100::1]:7000"),
        ("direct4", "10.100.0.2:7000"),
        ("direct6", "[fd00:100::2]:7000"),
    ];

    /// From one byte over the MTU to nearly what a length field can say.
    const SIZES: [usize; 4] = [1_473, 2_953, 8_000, 65_000];

    /// Payload of a fragment with an MTU of 1500, a multiple of eight less 20 of IP, or 40 and 8.
    const PAYLOAD_V4: usize = 1_480;
    const PAYLOAD_V6: usize = 1_448;

    /// Datagrams of each size: as many source ports, so that every backend takes part.
    const FLOWS: usize = 20;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn large_datagrams_come_back() {
        large_datagrams_come_back_over(Configuration::native(), 1);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn large_datagrams_come_back_over_two_queues() {
        large_datagrams_come_back_over(Configuration::native(), 2);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn large_datagrams_come_back_by_generic_xdp() {
        large_datagrams_come_back_over(Configuration::generic(), 1);
    }

    fn large_datagrams_come_back_over(configuration: Configuration, queues: u8) {
        let plan = Playground::plan().queues(queues);
        let playground = plan.generic(configuration.mode() == "generic").up();
        let _echo = UdpEcho::on_all(&playground, ECHO_PORT);
        let over = |service: Service| service.backends(playground.backends(), ECHO_PORT);
        let configuration = SERVICES.iter().fold(configuration, |all, (name, listen)| {
            let service = Service::udp(name, listen);
            let is_direct = name.starts_with("direct");
            all.service(over(if is_direct { service.direct() } else { service }))
        });
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        for (service, address) in SERVICES {
            let address: SocketAddr = address.parse().unwrap();
            playground.inside("client", || {
                wait_for_the_way(address);
                for size in SIZES {
                    for _ in 0..FLOWS {
                        let outcome = check_datagram(&connected(address), size);
                        assert!(outcome.is_ok(), "{service}: {outcome:?}");
                    }
                }
            });
        }

        let status = balancer.assert_accounts_balance();
        assert_eq!(playground.checksum_errors(), 0, "wrong checksums arrived");
        let of = |name: &str| status.number(&format!("/fragments/{name}"));
        // Of each size and family: two services' there, and one's back through the balancer.
        let ways = 3 * FLOWS;
        assert_eq!(of("first"), (2 * SIZES.len() * ways) as u64);
        let later = |payload: usize| -> usize {
            let pieces = SIZES.map(|size| (size + 8).div_ceil(payload));
            pieces.iter().map(|pieces| pieces - 1).sum()
        };
        let later = ways * (later(PAYLOAD_V4) + later(PAYLOAD_V6));
        assert_eq!(of("followed"), later as u64);
        for (service, _) in SERVICES {
            for (address, backend) in status.backends(service) {
                let packets = backend.number("/packets");
                assert!(packets > 60, "{service}: {packets} to {address}");
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
