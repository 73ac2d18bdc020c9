//! Promise: `ringgate explain` tells the truth. The backend that it names for a flow is the one
//! that the flow gets, asked of the running balancer or of its file; and once the flow exists,
//! it says so, and what it says stays true when the ring changes.

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::process::Command;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Nginx, Payload, Playground, Service, connect_from,
        request, run,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Client and service, in both families and modes.
    const WAYS: [(&str, &str); 4] = [
        ("10.1.0.2", "10.100.0.1:80"),
        ("fd00:1::2", "[fd00:100::1]:80"),
        ("10.1.1.2", "10.100.0.2:80"),
        ("fd00:1:1::2", "[fd00:100::2]:80"),
    ];

    const SOURCE_PORTS: std::ops::Range<u16> = 21_000..21_025;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn the_backend_that_is_named_is_the_one_that_answers() {
        let playground = Playground::plan().up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 11), "1m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        for (client, service) in WAYS {
            let service: SocketAddr = service.parse().unwrap();
            for port in SOURCE_PORTS {
                let from = SocketAddr::new(client.parse().unwrap(), port);
                let live = balancer.explain(from, service);
                let file = ask_file(&balancer, from, service);
                assert_eq!(live["backend"], file["backend"], "{from} to {service}");
                assert_eq!(
                    (&live["stored"], &file["stored"]),
                    (&false.into(), &false.into())
                );
                let answered = request(open(&playground, from, service)).unwrap();
                assert_eq!(node_of(&live), answered, "{from} to {service}: {live}");
            }
        }
        balancer.assert_accounts_balance();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_flow_that_exists_is_known_and_keeps_its_backend_through_a_new_ring() {
        let playground = Playground::plan().up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 11), "1m");
        let configuration = Configuration::native().web(playground.backends());
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let service: SocketAddr = "10.100.0.1:80".parse().unwrap();
        let open_from = |port| {
            let from = SocketAddr::new("10.1.0.2".parse().unwrap(), port);
            (from, open(&playground, from, service))
        };
        let flows: Vec<(SocketAddr, TcpStream)> = SOURCE_PORTS.map(open_from).collect();
        let before: Vec<String> = flows
            .iter()
            .map(|(from, _)| node_of(&balancer.explain(*from, service)))
            .collect();

        // Only the third takes new flows from now on.
        let web4 = Service::tcp("web4", "10.100.0.1:80").checked();
        let tired = |number| Backend::at(format!("10.2.0.{}:8080", 10 + number)).weight(0);
        let web4 = web4
            .backend(tired(1))
            .backend(tired(2))
            .backends(3..=3, 8080);
        balancer.reload(&Configuration::native().service(web4));
        for ((from, stream), backend) in flows.into_iter().zip(before) {
            let answer = balancer.explain(from, service);
            assert_eq!(
                (node_of(&answer), &answer["stored"]),
                (backend.clone(), &true.into())
            );
            assert_eq!(request(stream).unwrap(), backend, "{from}: {answer}");
        }
        let other = balancer.explain("10.1.0.2:22000".parse().unwrap(), service);
        assert_eq!(
            (node_of(&other).as_str(), &other["stored"]),
            ("b3", &false.into())
        );
    }

    fn open(playground: &Playground, from: SocketAddr, service: SocketAddr) -> TcpStream {
        playground
            .inside("client", || connect_from(from, service))
            .unwrap()
    }

    fn ask_file(balancer: &Balancer, from: SocketAddr, to: SocketAddr) -> serde_json::Value {
        let (from, to) = (from.to_string(), to.to_string());
        let flow = [
            "explain",
            "--json",
            "--protocol",
            "tcp",
            "--from",
            &from,
            "--to",
            &to,
        ];
        let output = run(Command::new(RINGGATE)
            .args(flow)
            .arg("--config")
            .arg(balancer.file()));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `b2` for 10.2.0.12:8080 and [fd00:2::12]:8080.
    fn node_of(answer: &serde_json::Value) -> String {
        let backend: SocketAddr = answer["backend"].as_str().unwrap().parse().unwrap();
        let host = backend.ip().to_string();
        let last = host.rsplit(['.', ':']).next().unwrap();
        format!("b{}", last.parse::<u8>().unwrap() - 10)
    }
}
