//! Promise: with `full-nat` backends need no route to clients. They answer an address of the
//! balancer's own, and clients are answered by the address that they asked; over IPv4 and IPv6, one
//! worker and two. The balancer's host talks to the backends from the same addresses meanwhile, and
//! every source port comes back.

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, UdpSocket};

    use ringgate_playground::{
        Balancer, Configuration, Download, Nginx, Payload, Playground, Service, Status, UdpEcho,
        ask, visit, wait_for_the_way,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Short connections to each service.
    const VISITS: usize = 300;
    /// First packets that may meet a bucket whose writer was stopped; see `accounts`.
    const STOPPED_MID_WRITE: u64 = 5;
    const ECHO_PORT: u16 = 7_000;
    const SOURCE_PORTS: std::ops::Range<u16> = 20_000..20_050;

    /// A service, its protocol's, and where it listens.
    const WEB: [(&str, &str); 2] = [("web4", "10.100.0.1:80"), ("web6", "[fd00:100::1]:80")];
    const ECHO: [(&str, &str, &str); 2] = [
        ("echo4", "10.100.0.1:7000", "10.1.0.2"),
        ("echo6", "[fd00:100::1]:7000", "fd00:1::2"),
    ];

    /// The balancer's own addresses towards the backends: also where its checks come from.
    const SOURCES: &[&str] = &["10.2.0.1", "fd00:2::1"];

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn backends_without_a_route_to_clients_serve_them_native_one_queue() {
        serves(Configuration::native(), 1, true);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn backends_without_a_route_to_clients_serve_them_native_two_queues() {
        serves(Configuration::native(), 2, false);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn backends_without_a_route_to_clients_serve_them_generic() {
        serves(Configuration::generic(), 1, true);
    }

    fn serves(configuration: Configuration, queues: u8, checksum_offload: bool) {
        let plan = Playground::plan()
            .queues(queues)
            .checksum_offload(checksum_offload);
        let playground = plan.generic(configuration.mode() == "generic").up();
        for number in playground.backends() {
            for family in ["-4", "-6"] {
                playground.change(
                    &format!("b{number}"),
                    &format!("{family} route del default"),
                );
            }
        }
        let payload = Payload::megabytes(50, 1);
        let _nginx = Nginx::on_all(&playground, &payload, "1m");
        let _echo = UdpEcho::on_all(&playground, ECHO_PORT);
        let balancer = Balancer::start(RINGGATE, &playground, &over(&playground, configuration));

        for (service, address) in WEB {
            let visits = playground.visits(address.parse().unwrap(), VISITS);
            assert_eq!(visits.failures, Vec::<String>::new(), "{service}");
            assert_eq!(
                visits.answers.len(),
                playground.backends().count(),
                "{visits:?}"
            );
            let url = format!("http://{address}/file");
            let received = Download::start(&playground, &url).finish();
            assert_eq!(
                received.as_ref(),
                Ok(&payload.sha256),
                "{}",
                balancer.status()
            );
        }
        echoes(&playground);
        // The host's own connections, from the very addresses that flows come from.
        for number in playground.backends() {
            for address in [
                format!("10.2.0.{}:8080", 10 + number),
                format!("[fd00:2::{}]:8080", 10 + number),
            ] {
                let address: SocketAddr = address.parse().unwrap();
                let answered = playground.inside("lb", || visit(address));
                assert_eq!(answered.unwrap(), format!("b{number}"));
            }
        }
        accounts(&balancer, &playground);
        every_port_comes_back(&balancer);
    }

    /// The services, checked, over the playground's backends.
    fn over(playground: &Playground, configuration: Configuration) -> Configuration {
        let full =
            |service: Service, port| service.full_nat().backends(playground.backends(), port);
        let web = WEB
            .iter()
            .fold(configuration.sources(SOURCES), |all, (name, listen)| {
                all.service(full(Service::tcp(name, listen).checked(), 8080))
            });
        ECHO.iter().fold(web, |all, (name, listen, _)| {
            all.service(full(Service::udp(name, listen), ECHO_PORT))
        })
    }

    fn echoes(playground: &Playground) {
        for (_, service, client) in ECHO {
            let (service, client): (SocketAddr, IpAddr) =
                (service.parse().unwrap(), client.parse().unwrap());
            playground.inside("client", || {
                wait_for_the_way(service);
                for port in SOURCE_PORTS {
                    let socket = UdpSocket::bind((client, port)).unwrap();
                    assert_eq!(ask(&socket, service, "hello").unwrap(), "hello");
                }
            });
        }
    }

    fn accounts(balancer: &Balancer, playground: &Playground) {
        let status = balancer.assert_accounts_balance();
        assert_eq!(playground.checksum_errors(), 0);
        let mut dropped = status.dropped();
        dropped.remove("no_neighbour");
        // One that runs is waited for; a worker whom the host stops while it writes to a bucket has the other
        // drop what would begin a flow there, and the client's stack sends it again.
        let unstored = dropped.remove("unstored").unwrap_or_default();
        assert!(unstored <= STOPPED_MID_WRITE, "{unstored} unstored");
        assert!(dropped.is_empty(), "{dropped:?}");
        for (service, _) in WEB {
            assert_eq!(status.sum_of_backends(service, "flows"), VISITS as u64 + 1);
            assert!(
                status.sum_of_backends(service, "reply_packets") > 0,
                "{status}"
            );
            for (name, backend) in status.backends(service) {
                assert_eq!(backend.text("/state"), "up", "{name}: its check goes on");
            }
        }
        let sources = status.list("/sources");
        let addresses: Vec<&str> = sources
            .iter()
            .map(|source| source.text("/address"))
            .collect();
        assert_eq!(addresses, SOURCES);
        assert!(
            sources.iter().all(|source| source.number("/held") > 0),
            "{status}"
        );
    }

    /// `explain` tells the source of a flow; flushed, no flow holds any.
    fn every_port_comes_back(balancer: &Balancer) {
        for (_, service, client) in ECHO {
            let client: IpAddr = client.parse().unwrap();
            let from = SocketAddr::new(client, SOURCE_PORTS.start);
            let flow = [
                "--protocol",
                "udp",
                "--from",
                &from.to_string(),
                "--to",
                service,
            ];
            let told = balancer.ask(&[&["explain"], flow.as_slice()].concat());
            let told = String::from_utf8(told.stdout).unwrap();
            let mut lines = told.lines().filter_map(|line| line.strip_prefix("source"));
            let source: SocketAddr = lines.next().unwrap().trim().parse().unwrap();
            assert!(SOURCES.contains(&&*source.ip().to_string()), "{told}");
        }
        let flushed = balancer.ask(&["flush", "--all"]);
        assert!(flushed.status.success(), "{flushed:?}");
        let held = |status: &Status| -> u64 {
            let sources = status.list("/sources");
            sources.iter().map(|source| source.number("/held")).sum()
        };
        // Flows whose last packets come after the flush may be half open once more.
        let status = balancer.status();
        let resting: u64 = status
            .list("/sources")
            .iter()
            .map(|one| one.number("/resting"))
            .sum();
        assert!(resting > 2 * VISITS as u64, "{status}");
        assert_eq!(held(&status), 0, "{status}");
    }
}
