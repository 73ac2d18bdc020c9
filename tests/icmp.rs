//! Promise: ICMP works through the balancer, with real kernels at both ends. Connections learn the
//! path's MTU in both directions by ICMP alone; errors reach the socket whose packet they are
//! about, at clients and at backends; probes and pings are answered.

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::thread;
    use std::time::Duration;

    use ringgate_playground::{Balancer, Configuration, Playground, Service, until};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Where the servers listen.
    const PORT: u16 = 7_000;

    /// What each end sends.
    const BYTES: usize = 1 << 20;

    /// How long the kernel takes for what is in its hands.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A service and its backend's own address, in both families.
    const NAT: [[&str; 2]; 2] = [
        ["10.100.0.1:7000", "10.2.0.11:7000"],
        ["[fd00:100::1]:7000", "[fd00:2::11]:7000"],
    ];
    /// With direct return the backend has the service's address.
    const DIRECT: [[&str; 2]; 2] = [
        ["10.100.0.2:7000", "10.100.0.2:7000"],
        ["[fd00:100::2]:7000", "[fd00:100::2]:7000"],
    ];

    fn start(playground: &Playground) -> Balancer {
        let mut configuration = Configuration::native();
        for (family, [listen, _]) in ["4", "6"].into_iter().zip(NAT) {
            for service in [Service::tcp, Service::udp] {
                let protocol = service("", listen).to_string().contains("\"udp\"");
                let name = format!("nat{family}{}", if protocol { "u" } else { "t" });
                let service = service(&name, listen).backends(playground.backends(), PORT);
                configuration = configuration.service(service);
            }
        }
        for (family, [listen, _]) in ["4", "6"].into_iter().zip(DIRECT) {
            let service = Service::udp(&format!("direct{family}"), listen).direct();
            configuration = configuration.service(service.backends(playground.backends(), PORT));
        }
        Balancer::start(RINGGATE, playground, &configuration)
    }

    fn icmp(balancer: &Balancer, counter: &str) -> u64 {
        balancer.status().number(&format!("/icmp/{counter}"))
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn connections_learn_the_paths_mtu_both_ways_by_icmp_alone() {
        let playground = Playground::plan().backends(1).up();
        for words in [
            "route change 10.2.0.0/24 dev back proto kernel scope link src 10.2.0.1 mtu 1300",
            "route change 10.1.0.0/24 dev front proto kernel scope link src 10.1.0.1 mtu 1320",
            "-6 route replace fd00:2::/64 dev back proto kernel metric 256 mtu 1300",
            "-6 route replace fd00:1::/64 dev front proto kernel metric 256 mtu 1320",
        ] {
            playground.change("lb", words);
        }
        let balancer = start(&playground);
        for [service, backend] in NAT {
            let listener = playground.inside("b1", || TcpListener::bind(backend).unwrap());
            let server = thread::spawn(move || echo(&listener));
            playground.inside("client", || exchange(service));
            server.join().unwrap();
        }
        for (node, family, to, mtu) in [
            ("client", "-4", "10.100.0.1", "mtu 1300"),
            ("client", "-6", "fd00:100::1", "mtu 1300"),
            ("b1", "-4", "10.1.0.2", "mtu 1320"),
            ("b1", "-6", "fd00:1::2", "mtu 1320"),
        ] {
            let learned = playground.run_on(node, "ip", &[family, "route", "get", to]);
            assert!(learned.contains(mtu), "{node}: {learned}");
        }
        let status = balancer.assert_accounts_balance();
        assert!(status.number("/icmp/too_big") >= 4);
        assert_eq!(status.number("/icmp/withheld"), 0);
        assert_eq!(playground.checksum_errors(), 0);
    }

    /// Takes all that one client sends, and sends it back.
    fn echo(listener: &TcpListener) {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    }

    fn exchange(service: &str) {
        let said: Vec<u8> = (0..=250).cycle().take(BYTES).collect();
        let mut stream = TcpStream::connect(service).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&said).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert!(said == heard, "{service}: {} bytes came back", heard.len());
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_client_hears_that_nobody_listens_at_the_backend() {
        let playground = Playground::plan().backends(1).up();
        let balancer = start(&playground);
        for [service, _] in NAT {
            let error = playground.inside("client", || {
                let socket = connected(service);
                socket.send(b"is there anybody?").unwrap();
                socket.recv(&mut [0; 64]).unwrap_err()
            });
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{service}");
        }
        assert_eq!(icmp(&balancer, "to_clients"), 2);
        balancer.assert_accounts_balance();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_backend_hears_that_its_client_is_gone() {
        let playground = Playground::plan().backends(1).up();
        let balancer = start(&playground);
        for [service, backend] in NAT.into_iter().chain(DIRECT) {
            let server = playground.inside("b1", || UdpSocket::bind(backend).unwrap());
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            playground.inside("client", || connected(service).send(b"a question").unwrap());
            let (_, client) = server.recv_from(&mut [0; 64]).unwrap();
            server.connect(client).unwrap();
            server.send(b"an answer, too late").unwrap();
            let error = server.recv(&mut [0; 64]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{service}");
        }
        assert_eq!(icmp(&balancer, "to_backends"), 4);
        balancer.assert_accounts_balance();
    }

    fn connected(to: &str) -> UdpSocket {
        let to: SocketAddr = to.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        socket
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn probes_and_pings_are_answered() {
        let playground = Playground::plan().backends(1).up();
        let balancer = start(&playground);
        let expired = |node| playground.kernel_counter(node, "Icmp", "InTimeExcds");
        let before = expired("client");
        playground.inside("client", || {
            let probe = connected(NAT[0][0]);
            probe.set_ttl(1).unwrap();
            probe.send(b"who is there?").unwrap();
        });
        until(PATIENCE, "time exceeded", || {
            (expired("client") > before).then_some(())
        });
        assert_eq!(icmp(&balancer, "time_exceeded"), 1);
        for (address, size) in [
            ("10.100.0.1", "56"),
            ("10.100.0.2", "1472"),
            ("fd00:100::1", "1452"),
            ("fd00:100::2", "0"),
        ] {
            let arguments = ["-c", "2", "-i", "0.1", "-W", "5", "-s", size, address];
            let said = playground.run_on("client", "ping", &arguments);
            assert!(said.contains("2 received"), "{said}");
        }
        assert_eq!(icmp(&balancer, "echo_replies"), 8);
        balancer.assert_accounts_balance();
    }
}
