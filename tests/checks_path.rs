//! Promise: a check `via = "service"` reaches its backend as a client's packet would: through the tunnel, or with the service's address as
//! destination. So a backend that is up and listens, but does not take the traffic, is seen to be down, while the check of
//! the backend itself says up. Nothing of what that takes is left on the host.

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Decapsulator, Nginx, Payload, Playground, Process,
        Service, Status, UdpEcho, Wrapping,
    };
    use rustix::process::Signal;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");
    const HEALTH_SERVER: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/support/servers/health_server.py"
    );

    /// How long a few checks may take, on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// How both ways are asked.
    const PACE: &str = "interval = \"400ms\", timeout = \"400ms\", rise = 2, fall = 2";

    /// Services of tunnels: name, what they listen on, their backends' addresses but for the last number.
    const TUNNELS: [(&str, &str, &str); 4] = [
        ("4in4", "10.100.0.2:8001", "10.2.0."),
        ("6in4", "[fd00:100::2]:8002", "10.2.0."),
        ("4in6", "10.100.0.2:8003", "fd00:2::"),
        ("6in6", "[fd00:100::2]:8004", "fd00:2::"),
    ];

    fn tunnel(
        name: &str,
        listen: &str,
        backends: &str,
        forward: &'static str,
        keys: &str,
        health: &str,
    ) -> Service {
        let service = Service::tcp(name, listen)
            .tunnel(forward, keys)
            .with(format!("health = {{ {health}, {PACE} }}"));
        (11..=12).fold(service, |service, last| {
            service.backend(Backend::at(format!("{backends}{last}")))
        })
    }

    fn state(status: &Status, service: &str, last: u8) -> String {
        let backends = status.backends(service);
        let ends = [format!(".{last}:"), format!(":{last}]:")];
        let is_it = |address: &&String| ends.iter().any(|end| address.contains(end.as_str()));
        let address = backends.keys().find(is_it).unwrap();
        backends[address].text("/state").to_owned()
    }

    /// What there is of a kind on the balancer's host, by `ip`.
    fn left(playground: &Playground) -> Vec<String> {
        let mut all = Vec::new();
        for arguments in [
            &["-o", "link", "show", "type", "tun"][..],
            &["-4", "rule", "show"],
            &["-6", "rule", "show"],
            &["-4", "route", "show", "table", "21063"],
            &["-6", "route", "show", "table", "21063"],
        ] {
            let mut ip = playground.on("lb", "ip");
            let output = ip.args(arguments).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let of_ours = |line: &&str| line.contains("ringgate") || line.contains("0x52470001");
            all.extend(text.lines().filter(of_ours).map(str::to_owned));
        }
        all
    }

    fn tunnels_are_seen_to_work_and_not_to(
        forward: &'static str,
        keys: &str,
        wrapping: Wrapping,
        driver: &str,
    ) {
        let playground = Playground::plan().backends(2).up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 1), "8m");
        let mut far_ends = Decapsulator::on_all(&playground, wrapping);
        let mut configuration = Configuration::native();
        for (name, listen, backends) in TUNNELS {
            let health = "kind = \"http\", via = \"service\"";
            configuration =
                configuration.service(tunnel(name, listen, backends, forward, keys, health));
        }
        let (_, listen, backends) = TUNNELS[0];
        let listen = listen.replace("8001", "8005");
        let direct = tunnel(
            "direct",
            &listen,
            backends,
            forward,
            keys,
            "kind = \"tcp\", port = 8080",
        );
        configuration = configuration.service(direct);
        let environment = [("RINGGATE_DRIVER", driver)];
        let balancer = Balancer::start_with(RINGGATE, &playground, &configuration, &environment);
        let names = TUNNELS.map(|(name, ..)| name);
        let all = |status: &Status, states: [&str; 2]| {
            names
                .iter()
                .all(|name| [state(status, name, 11), state(status, name, 12)] == states)
                && state(status, "direct", 11) == "up"
                && state(status, "direct", 12) == "up"
        };
        balancer.wait_for(PATIENCE, "all are up", |status| all(status, ["up", "up"]));
        // The host, its nginx and its addresses are as before: only nobody takes the tunnel.
        drop(far_ends.pop());
        let status =
            balancer.wait_for(PATIENCE, "b2 is down", |status| all(status, ["up", "down"]));
        let said = status.text("/services/0/backends/1/check/last").to_owned();
        assert!(said.contains("does not take the tunnel"), "{said}");
        far_ends.push(Decapsulator::start(&playground, 2, wrapping));
        let status = balancer.wait_for(PATIENCE, "b2 is up again", |status| {
            all(status, ["up", "up"])
        });
        let path = &status.0["control"]["true_path"];
        assert_eq!(path["unsent"], 0, "{path}");
        assert_eq!(path["dropped"], serde_json::json!({}), "{path}");
        for far_end in &far_ends {
            assert_eq!(far_end.emerged().complaints, Vec::<String>::new());
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn ipip() {
        tunnels_are_seen_to_work_and_not_to("ipip", "", Wrapping::Ipip, "io_uring");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn ipip_over_epoll() {
        tunnels_are_seen_to_work_and_not_to("ipip", "", Wrapping::Ipip, "epoll");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gre() {
        let wrapping = Wrapping::Gre { key: Some(7) };
        tunnels_are_seen_to_work_and_not_to("gre", "key = 7", wrapping, "io_uring");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gue() {
        let wrapping = Wrapping::Gue {
            variant: 0,
            checksums: [true, true],
        };
        let keys = "variant = 0, checksum = true";
        tunnels_are_seen_to_work_and_not_to("gue", keys, wrapping, "epoll");
    }

    /// Services with direct return, each asked in both ways.
    fn direct(via: &str) -> Configuration {
        let mut configuration = Configuration::native().drain("1s");
        for (name, address, numbers) in [("4", "10.100.0.2", 1..=2), ("6", "[fd00:100::2]", 1..=2)]
        {
            let health = |how: &str| format!("health = {{ {how}, {PACE} }}");
            let page = Service::tcp(&format!("page{name}"), &format!("{address}:80"));
            let page = page.with(health(&format!("kind = \"http\", via = \"{via}\"")));
            // A datagram service that is asked for a page.
            let other = Service::udp(&format!("other{name}"), &format!("{address}:9"));
            let other = other.with(health(&format!(
                "kind = \"tcp\", port = 80, via = \"{via}\""
            )));
            let echo = Service::udp(&format!("echo{name}"), &format!("{address}:7000"));
            let echo = echo.with(health(&format!(
                "kind = \"udp\", send = \"anybody?\", via = \"{via}\""
            )));
            let near = Service::tcp(&format!("near{name}"), &format!("{address}:8001"));
            let near = near.with(health("kind = \"tcp\", port = 8080"));
            for service in [page, other, echo, near] {
                let service = service.direct().backends(numbers.clone(), 0);
                configuration = configuration.service(service);
            }
        }
        configuration
    }

    const BY_SERVICE: [&str; 6] = ["page4", "page6", "other4", "other6", "echo4", "echo6"];

    /// That everything is up but, in those services, the second backend.
    fn all_but(status: &Status, down: &[&str]) -> bool {
        let near = ["near4", "near6"];
        BY_SERVICE.iter().chain(&near).all(|name| {
            let second = if down.contains(name) { "down" } else { "up" };
            state(status, name, 11) == "up" && state(status, name, 12) == second
        })
    }

    fn a_backend_without_the_services_address_is_seen(driver: &str) {
        let playground = Playground::plan().backends(2).up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 1), "8m");
        let _echo = UdpEcho::on_all(&playground, 7_000);
        let environment = [("RINGGATE_DRIVER", driver)];
        let mut balancer =
            Balancer::start_with(RINGGATE, &playground, &direct("service"), &environment);
        balancer.wait_for(PATIENCE, "all are up", |status| all_but(status, &[]));
        playground.change("b2", "addr del 10.100.0.2/32 dev lo");
        let status = balancer.wait_for(PATIENCE, "b2 is down over IPv4", |status| {
            all_but(status, &["page4", "other4", "echo4"])
        });
        let check = &status.backend("page4", 2).0["check"];
        assert_eq!(
            (&check["via"], &check["asked"]),
            (&"service".into(), &"10.100.0.2:80".into())
        );
        let near = &status.backend("near4", 2).0["check"];
        assert_eq!(
            (&near["via"], &near["asked"]),
            (&"backend".into(), &serde_json::Value::Null)
        );
        playground.change("b2", "addr del fd00:100::2/128 dev lo");
        balancer.wait_for(PATIENCE, "and over IPv6", |status| {
            all_but(status, &BY_SERVICE)
        });

        // The checks of the backends themselves notice nothing.
        balancer.reload(&direct("backend"));
        balancer.wait_for(PATIENCE, "all are taken for up", |status| {
            all_but(status, &[])
        });
        balancer.reload(&direct("service"));
        balancer.wait_for(PATIENCE, "down again", |status| {
            all_but(status, &BY_SERVICE)
        });
        playground.change("b2", "addr add 10.100.0.2/32 dev lo");
        playground.change("b2", "addr add fd00:100::2/128 dev lo nodad");
        balancer.wait_for(PATIENCE, "up again", |status| all_but(status, &[]));
        let said = |check: &str| balancer.log().matches(check).count();
        assert_eq!(
            said("10.2.0.11"),
            said("up backend=10.2.0.11"),
            "b1 was never down: {}",
            balancer.log()
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_backend_without_the_services_address_is_seen_over_io_uring() {
        a_backend_without_the_services_address_is_seen("io_uring");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_backend_without_the_services_address_is_seen_over_epoll() {
        a_backend_without_the_services_address_is_seen("epoll");
    }

    /// A name server and a gRPC server at the service's address alone.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn names_and_calls_are_asked_through_it_too() {
        let playground = Playground::plan().backends(1).up();
        let quiet = |command: &mut Command| {
            Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
        };
        let mut dnsmasq = playground.on("b1", "dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        dnsmasq.args(["--user=root", "--pid-file=", "--bind-interfaces"]);
        dnsmasq.args([
            "--listen-address=10.100.0.2",
            "--address=/a.example/192.0.2.1",
        ]);
        let mut grpc = playground.on("b1", HEALTH_SERVER);
        grpc.arg("10.100.0.2:50051");
        let _servers = [quiet(&mut dnsmasq), quiet(&mut grpc)];
        let asked = |how: &str| format!("health = {{ {how}, via = \"service\", {PACE} }}");
        let names = Service::udp("names", "10.100.0.2:53").with(asked(
            "kind = \"dns\", name = \"a.example\", expect = \"192.0.2.1\"",
        ));
        let calls = Service::tcp("calls", "10.100.0.2:50051").with(asked("kind = \"grpc\""));
        let mut configuration = Configuration::native();
        for service in [names, calls] {
            configuration = configuration.service(service.direct().backends(1..=1, 0));
        }
        let balancer = Balancer::start_unready(RINGGATE, &playground, &configuration, &[]);
        let both = |status: &Status, wanted: &str| {
            ["names", "calls"]
                .iter()
                .all(|name| state(status, name, 11) == wanted)
        };
        balancer.wait_for(PATIENCE, "both are up", |status| both(status, "up"));
        playground.change("b1", "addr del 10.100.0.2/32 dev lo");
        balancer.wait_for(PATIENCE, "both are down", |status| both(status, "down"));
    }

    /// Device, a rule and a route of each family.
    const ALL_OF_IT: usize = 5;

    fn nothing_is_left(driver: &str) {
        let playground = Playground::plan().backends(2).up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 1), "8m");
        let _echo = UdpEcho::on_all(&playground, 7_000);
        let confined = |via| direct(via).table("[process]\nuser = \"nobody\"\nseccomp = true");
        let environment = [("RINGGATE_DRIVER", driver)];
        let mut balancer =
            Balancer::start_unready(RINGGATE, &playground, &confined("backend"), &environment);
        // Whom it becomes must be able to read the file again.
        fs::set_permissions(balancer.directory(), Permissions::from_mode(0o755)).unwrap();
        balancer.wait_until_ready();
        assert_eq!(left(&playground), [""; 0], "nobody has asked for it");
        for _ in 0..3 {
            balancer.reload(&confined("service"));
            balancer.wait_for(PATIENCE, "all are up", |status| {
                let is_so = |name: &&str| status.backend(name, 1).0["check"]["via"] == "service";
                BY_SERVICE.iter().all(is_so) && all_but(status, &[])
            });
            assert_eq!(
                left(&playground).len(),
                ALL_OF_IT,
                "{:?}",
                left(&playground)
            );
            balancer.reload(&confined("backend"));
            balancer.wait_for(PATIENCE, "nothing is left", |_| {
                left(&playground).is_empty()
            });
        }
        balancer.reload(&confined("service"));
        balancer.signal(Signal::KILL);
        balancer.wait(PATIENCE);
        balancer.restart();
        balancer.wait_for(PATIENCE, "all are up", |status| all_but(status, &[]));
        assert_eq!(
            left(&playground).len(),
            ALL_OF_IT,
            "{:?}",
            left(&playground)
        );

        // Somebody takes the device away.
        playground.change("lb", "link del ringgate-check");
        balancer.wait_for(PATIENCE, "it is there again", |_| {
            left(&playground).len() == ALL_OF_IT
        });
        balancer.wait_for(PATIENCE, "and all are up", |status| all_but(status, &[]));

        balancer.signal(Signal::TERM);
        let ended = balancer.wait(PATIENCE).code();
        assert_eq!(ended, Some(0), "{}", balancer.log());
        assert_eq!(left(&playground), [""; 0]);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn nothing_is_left_and_a_confined_process_has_it_again_over_io_uring() {
        nothing_is_left("io_uring");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn nothing_is_left_and_a_confined_process_has_it_again_over_epoll() {
        nothing_is_left("epoll");
    }
}
