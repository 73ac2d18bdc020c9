//! Promise: a check `via = "service"` reaches its backend as a client's packet would: through the tunnel, or with the service's address as
//! destination. So a backend that is up and listens, but does not take the traffic, is seen to be down, while the check of
//! the backend itself says up. Nothing of what that takes is left on the host.

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Decapsulator, Nginx, Payload, Playground, Service,
        Status, UdpEcho, Wrapping,
    };
    use rustix::process::Signal;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// How long a few checks may take, on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// How both ways are asked.
    const PACE: &str = "interval = \"200ms\", timeout = \"200ms\", rise = 2, fall = 2";

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
    fn ipip_over_io_uring() {
        tunnels_are_seen_to_work_and_not_to("ipip", "", Wrapping::Ipip, "io_uring");
    }
}
