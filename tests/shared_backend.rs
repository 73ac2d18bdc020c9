//! Promise: two services may share one backend's address and port, and every reply still comes
//! from the address that the client asked, even when one client asks both from one port. Where
//! that is impossible, the second flow is refused and counted, and the first one is untouched.

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, UdpSocket};

    use ringgate_playground::{
        Balancer, Configuration, Conversation, Playground, Service, TcpEcho, UdpEcho, ask,
        connect_from, wait_for_the_way,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const ECHO_PORT: u16 = 7_000;

    /// The virtual addresses of each family, and the client's own.
    const FAMILIES: [([&str; 2], &str); 2] = [
        (["10.100.0.1:7000", "10.100.0.3:7000"], "10.1.0.2"),
        (["[fd00:100::1]:7000", "[fd00:100::3]:7000"], "fd00:1::2"),
    ];

    /// Source ports that ask both services.
    const SOURCE_PORTS: std::ops::Range<u16> = 20_000..20_060;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn udp_replies_come_from_the_address_that_was_asked() {
        let playground = Playground::plan().queues(2).up();
        let _echo = UdpEcho::on_all(&playground, ECHO_PORT);
        let configuration = sharing(Service::udp, &playground.backends().collect::<Vec<_>>());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        for (services, client) in FAMILIES {
            let services = services.map(|text| text.parse::<SocketAddr>().unwrap());
            let client: IpAddr = client.parse().unwrap();
            playground.inside("client", || {
                for service in services {
                    wait_for_the_way(service);
                }
                for port in SOURCE_PORTS {
                    let socket = UdpSocket::bind((client, port)).unwrap();
                    for (service, asked) in services.iter().zip(["alpha", "beta"]) {
                        assert_eq!(ask(&socket, *service, asked).unwrap(), asked, "port {port}");
                    }
                    // Both flows are known by now, and still told apart.
                    for (service, asked) in services.iter().zip(["gamma", "delta"]) {
                        assert_eq!(ask(&socket, *service, asked).unwrap(), asked, "port {port}");
                    }
                }
            });
        }

        let status = balancer.assert_accounts_balance();
        assert_eq!(status.dropped().get("return_conflict"), None, "{status}");
        assert_eq!(status.dropped().get("unknown_return"), None, "{status}");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn tcp_connections_from_one_port_to_both_services_stay_apart() {
        let playground = Playground::plan().queues(2).up();
        let _echo = TcpEcho::on_all(&playground, ECHO_PORT);
        let configuration = sharing(Service::tcp, &playground.backends().collect::<Vec<_>>());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        for (services, client) in FAMILIES {
            let services = services.map(|text| text.parse::<SocketAddr>().unwrap());
            let client: IpAddr = client.parse().unwrap();
            for port in SOURCE_PORTS {
                let from = SocketAddr::new(client, port);
                // A TCP takes nothing as its answer that is not from where it connected to.
                let open = |service| {
                    let stream = playground.inside("client", || connect_from(from, service));
                    Conversation::over(stream.unwrap()).unwrap()
                };
                let mut conversations = services.map(open);
                let first = conversations.each_mut().map(|one| one.say().unwrap());
                assert_ne!(
                    first[0], first[1],
                    "one backend cannot serve port {port} twice"
                );
                for _ in 0..5 {
                    let again = conversations.each_mut().map(|one| one.say().unwrap());
                    assert_eq!(again, first, "port {port}: a flow keeps its backend");
                }
            }
        }

        let status = balancer.assert_accounts_balance();
        assert_eq!(status.dropped().get("return_conflict"), None, "{status}");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn what_cannot_be_told_apart_is_refused_and_counted() {
        let playground = Playground::plan().backends(1).up();
        let _echo = UdpEcho::on_all(&playground, ECHO_PORT);
        let balancer = Balancer::start(RINGGATE, &playground, &sharing(Service::udp, &[1]));
        let [first, second] = FAMILIES[0]
            .0
            .map(|text| text.parse::<SocketAddr>().unwrap());

        playground.inside("client", || {
            wait_for_the_way(first);
            let socket = UdpSocket::bind("10.1.0.2:20000").unwrap();
            assert_eq!(ask(&socket, first, "one").unwrap(), "one");
            assert!(ask(&socket, second, "two").is_err());
            assert_eq!(ask(&socket, first, "three").unwrap(), "three");
            let other = UdpSocket::bind("10.1.0.2:20001").unwrap();
            assert_eq!(ask(&other, second, "four").unwrap(), "four");
        });

        let status = balancer.assert_accounts_balance();
        assert_eq!(
            status.interface("front").number("/dropped/return_conflict"),
            1,
            "{status}"
        );
    }

    /// Two services for each family over the same backends and port.
    fn sharing(kind: fn(&str, &str) -> Service, backends: &[u8]) -> Configuration {
        let listens = FAMILIES.iter().flat_map(|(services, _)| services);
        listens
            .enumerate()
            .fold(Configuration::native(), |all, (n, listen)| {
                let service = kind(&format!("shared{n}"), listen);
                all.service(service.backends(backends.iter().copied(), ECHO_PORT))
            })
    }
}
