//! Promise: the generator reports what is there, over real AF_XDP sockets: nothing is lost where
//! nothing loses, by whichever source; and connections complete through kernels and proxies.

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Output, Stdio};
    use std::time::Duration;

    use serde_json::Value;

    const BENCH: &str = env!("CARGO_BIN_EXE_ringgate-bench");

    /// The exit status of a run that was slower than asked, on a busy machine.
    const LIMITED: i32 = 3;

    /// Namespaces source, lb and sink, joined by two veth pairs as `docs/GENERATOR.md` draws them.
    struct Net {
        prefix: String,
    }

    impl Net {
        fn new(name: &str) -> Self {
            let net = Self {
                prefix: format!("rgb{}-{name}", std::process::id()),
            };
            for node in ["src", "lb", "sink"] {
                net.run(&format!("ip netns add {}", net.node(node)));
                // Neither the source's nor the sink's kernel says anything.
                let off = if node == "lb" { 0 } else { 1 };
                net.within(
                    node,
                    &format!("sysctl -qw net.ipv6.conf.default.disable_ipv6={off}"),
                );
            }
            let (src, lb, sink) = (net.node("src"), net.node("lb"), net.node("sink"));
            net.run(&format!(
                "ip -n {src} link add c0 address 02:00:00:00:01:02 type veth \
                 peer name front address 02:00:00:00:01:01 netns {lb}"
            ));
            net.run(&format!(
                "ip -n {lb} link add back address 02:00:00:00:02:01 type veth \
                 peer name s0 address 02:00:00:00:02:99 netns {sink}"
            ));
            let ends = [
                (&src, "c0"),
                (&lb, "front"),
                (&lb, "back"),
                (&lb, "lo"),
                (&sink, "s0"),
            ];
            for (node, interface) in ends {
                net.run(&format!("ip -n {node} link set {interface} up"));
            }
            for (node, interface) in [(&src, "c0"), (&lb, "front"), (&lb, "back"), (&sink, "s0")] {
                net.run(&format!(
                    "tc -n {node} qdisc replace dev {interface} root pfifo limit 1000"
                ));
            }
            net
        }

        /// Makes the node in the middle a router that knows clients and backends.
        fn route(&self) {
            let lb = self.node("lb");
            let addresses = [
                ("front", "10.1.0.1/16"),
                ("front", "fd00:1::1/64"),
                ("back", "10.2.0.1/24"),
                ("back", "fd00:2::1/64"),
            ];
            for (interface, address) in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                self.run(&format!(
                    "ip -n {lb} addr add {address} dev {interface} {nodad}"
                ));
            }
            let neighbours = [
                (
                    "front",
                    "02:00:00:00:01:02",
                    ["10.1.0.2", "10.1.0.3", "fd00:1::2", "fd00:1::3"],
                ),
                (
                    "back",
                    "02:00:00:00:02:99",
                    ["10.2.0.11", "10.2.0.12", "fd00:2::11", "fd00:2::12"],
                ),
            ];
            for (interface, hardware, addresses) in neighbours {
                for address in addresses {
                    self.run(&format!(
                        "ip -n {lb} neigh replace {address} lladdr {hardware} dev {interface} nud permanent"
                    ));
                }
            }
            self.within(
                "lb",
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            );
        }

        fn node(&self, node: &str) -> String {
            format!("{}-{node}", self.prefix)
        }

        fn within(&self, node: &str, command: &str) {
            self.run(&format!("ip netns exec {} {command}", self.node(node)));
        }

        /// Runs a command; it must succeed.
        fn run(&self, command: &str) {
            let output = words(command).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command}: {said}");
        }

        /// Starts a command on a node.
        fn start(&self, node: &str, command: &str) -> Running {
            let mut command = words(&format!("ip netns exec {} {command}", self.node(node)));
            Running(Some(command.stdout(Stdio::piped()).spawn().unwrap()))
        }

        /// Runs `ringgate-bench COMMAND` between both ends and reads its JSON.
        fn bench(&self, command: &str) -> Value {
            let (src, sink) = (self.node("src"), self.node("sink"));
            json(self.between(command, &format!("--out c0@{src} --in s0@{sink}")))
        }

        fn between(&self, command: &str, places: &str) -> Output {
            words(&format!(
                "{BENCH} {command} {places} --near 02:00:00:00:01:02 --far 02:00:00:00:01:01 --json"
            ))
            .output()
            .unwrap()
        }
    }

    impl Drop for Net {
        fn drop(&mut self) {
            for node in ["src", "lb", "sink"] {
                let _gone = words(&format!("ip netns del {}", self.node(node))).output();
            }
        }
    }

    /// A program that is ended with the test.
    struct Running(Option<Child>);

    impl Running {
        fn output(mut self) -> Output {
            self.0.take().unwrap().wait_with_output().unwrap()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            if let Some(mut child) = self.0.take() {
                let _gone = child.kill();
                let _status = child.wait();
            }
        }
    }

    fn words(command: &str) -> Command {
        let mut words = command.split_whitespace();
        let mut program = Command::new(words.next().unwrap());
        program.args(words).stdin(Stdio::null());
        program
    }

    fn json(output: Output) -> Value {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | LIMITED)), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn number(value: &Value) -> u64 {
        value
            .as_u64()
            .unwrap_or_else(|| panic!("{value} is no number"))
    }

    /// All that was sent arrived, once, whole and in order; of so many flows.
    fn all_arrived(report: &Value, flows: u64) {
        let frames = number(&report["offered"]["frames"]);
        assert!(frames > 0, "{report}");
        assert_eq!(number(&report["received"]["frames"]), frames, "{report}");
        for nothing in [
            "lost",
            "reordered",
            "duplicated",
            "corrupt",
            "foreign",
            "sink_dropped",
        ] {
            assert_eq!(report[nothing], 0, "{nothing}: {report}");
        }
        assert_eq!(number(&report["flows"]["seen"]), flows, "{report}");
        assert_eq!(report["flows"]["moved"], 0, "{report}");
        assert_eq!(number(&report["latency_ns"]["count"]), frames, "{report}");
        assert!(number(&report["latency_ns"]["min"]) > 0, "{report}");
        assert!(
            number(&report["latency_ns"]["max"]) < 1_000_000_000,
            "{report}"
        );
    }

    const V4: &str = "--from 10.1.0.2 --to 10.100.0.1:53";
    const V6: &str = "--from fd00:1::2 --to [fd00:100::1]:53";

    /// What sources can be asked for, and how many flows are seen.
    const SHAPES: [(&str, Option<u64>); 5] = [
        ("--flows 100", Some(100)),
        ("--flows 100 --size imix --protocol tcp", Some(100)),
        ("--flows 100 --size 1518 --protocol tcp-syn", Some(100)),
        ("--flows 10 --spread zipf:1.1 --size imix", Some(10)),
        ("--flows 100 --new-flows 1000", None),
    ];

    /// A pair with nothing between: `c0` is the source's, its peer the sink's.
    fn back_to_back(name: &str) -> (Net, String) {
        let net = Net::new(name);
        let places = format!("--out c0@{} --in front@{}", net.node("src"), net.node("lb"));
        net.within("lb", "sysctl -qw net.ipv6.conf.front.disable_ipv6=1");
        (net, places)
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and CAP_BPF"]
    fn back_to_back_nothing_is_lost_by_either_source() {
        let (net, places) = back_to_back("b2b");
        for source in ["", "--live-frames"] {
            for addresses in [V4, V6] {
                for (shape, flows) in SHAPES {
                    let command =
                        format!("blast {addresses} {shape} {source} --rate 10000 --seconds 0.5");
                    let report = json(net.between(&command, &places));
                    // 100 at first, and 500 more in half a second.
                    let seen = number(&report["flows"]["seen"]);
                    assert!(flows.is_some() || (500..=620).contains(&seen), "{report}");
                    all_arrived(&report, flows.unwrap_or(seen));
                    let backends = report["backends"].as_object().unwrap();
                    assert_eq!(backends.keys().collect::<Vec<_>>(), ["02:00:00:00:01:01"]);
                }
            }
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and CAP_BPF"]
    fn through_the_bare_forwarder_nothing_is_lost_by_either_source() {
        for (name, service, addresses) in [
            ("bare4", "10.100.0.1:53", V4),
            ("bare6", "[fd00:100::1]:53", V6),
        ] {
            let net = Net::new(name);
            net.within("lb", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
            let bare = net.start(
                "lb",
                &format!(
                    "{BENCH} bare --front front --back back --source 02:00:00:00:02:01 \
                     --destination 02:00:00:00:02:99 --service {service} --seconds 6 --core 0"
                ),
            );
            // Until it is there, what is sent goes to a kernel that has no use for it.
            wait_until("the bare forwarder serves", || {
                let report = net.bench(&format!("blast {addresses} --rate 1000 --seconds 0.05"));
                report["lost"] == 0
            });
            for source in ["", "--live-frames"] {
                let report = net.bench(&format!(
                    "blast {addresses} --flows 50 {source} --rate 5000 --seconds 0.5"
                ));
                all_arrived(&report, 50);
                assert!(
                    report["backends"]["02:00:00:00:02:99"]["flows"] == 50,
                    "{report}"
                );
            }
            let forwarded: Value = serde_json::from_slice(&bare.output().stdout).unwrap();
            assert!(number(&forwarded["frames"]) >= 5_000 / 2, "{forwarded}");
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and CAP_BPF"]
    fn through_a_kernel_that_forwards_backends_and_connections_are_told() {
        let net = Net::new("nft");
        net.route();
        // A veth takes XDP frames if its peer has NAPI, which GRO switches on.
        net.within("lb", "ethtool -K front gro on");
        let directory = std::env::temp_dir().join(&net.prefix);
        std::fs::write(&directory, RULES).unwrap();
        net.within("lb", &format!("nft -f {}", directory.display()));
        std::fs::remove_file(&directory).unwrap();
        check_udp(&net);
        for (addresses, backends) in [
            (
                "--from 10.1.0.2 --to 10.100.0.1:80",
                ["10.2.0.11:8080", "10.2.0.12:8080"],
            ),
            (
                "--from fd00:1::2 --to [fd00:100::1]:80",
                ["[fd00:2::11]:8080", "[fd00:2::12]:8080"],
            ),
        ] {
            check_halves(
                &net,
                &format!("{addresses} --rate 1000 --seconds 1"),
                backends,
            );
            let open = net.bench(&format!(
                "connect {addresses} --clients 2 --linger --concurrent 2000 --seconds 1.5 --size 1400"
            ));
            let counts = ["started", "completed", "concurrent", "failed", "reset"];
            let counts = counts.map(|name| number(&open[name]));
            assert_eq!(counts, [2_000, 2_000, 2_000, 0, 0], "{open}");
        }
    }

    /// Two backends, in turn.
    const RULES: &str = "table inet t {
        chain p {
            type nat hook prerouting priority dstnat;
            ip daddr 10.100.0.1 tcp dport 80 dnat ip to numgen inc mod 2 map { 0 : 10.2.0.11 . 8080, 1 : 10.2.0.12 . 8080 }
            ip6 daddr fd00:100::1 tcp dport 80 dnat ip6 to numgen inc mod 2 map { 0 : fd00:2::11 . 8080, 1 : fd00:2::12 . 8080 }
            ip daddr 10.100.0.1 udp dport 53 dnat ip to numgen inc mod 2 map { 0 : 10.2.0.11 . 5353, 1 : 10.2.0.12 . 5353 }
            ip6 daddr fd00:100::1 udp dport 53 dnat ip6 to numgen inc mod 2 map { 0 : fd00:2::11 . 5353, 1 : fd00:2::12 . 5353 }
        }
    }\n";

    fn check_udp(net: &Net) {
        for source in ["", "--live-frames"] {
            for (addresses, backends) in [
                (V4, ["10.2.0.11:5353", "10.2.0.12:5353"]),
                (V6, ["[fd00:2::11]:5353", "[fd00:2::12]:5353"]),
            ] {
                let report = net.bench(&format!(
                    "blast {addresses} --flows 100 {source} --rate 5000 --seconds 0.5"
                ));
                let frames = number(&report["received"]["frames"]);
                assert_eq!(frames, number(&report["offered"]["frames"]), "{report}");
                assert_eq!(report["flows"]["moved"], 0, "{report}");
                let flows = backends.map(|name| number(&report["backends"][name]["flows"]));
                assert_eq!(flows[0] + flows[1], 100, "{report}");
                assert!(flows[0].abs_diff(flows[1]) <= 2, "{report}");
            }
        }
    }

    /// Every connection completes. Returns how many began, and how many of them with each backend.
    fn check_connections<const N: usize>(
        net: &Net,
        what: &str,
        backends: [&str; N],
    ) -> (u64, [u64; N]) {
        let report = net.bench(&format!("connect {what} --clients 2"));
        let started = number(&report["started"]);
        assert!(started > 0, "{report}");
        for all in ["opened", "completed"] {
            assert_eq!(number(&report[all]), started, "{all}: {report}");
        }
        for none in ["failed", "reset", "unknown", "dropped"] {
            assert_eq!(report[none], 0, "{none}: {report}");
        }
        assert_eq!(number(&report["connect_ns"]["count"]), started, "{report}");
        assert_eq!(number(&report["whole_ns"]["count"]), started, "{report}");
        let flows = backends.map(|name| number(&report["backends"][name]["flows"]));
        // A SYN that is sent again is one more.
        assert!(flows.iter().sum::<u64>() >= started, "{report}");
        (started, flows)
    }

    /// The same, and half of them are with each backend.
    fn check_halves(net: &Net, what: &str, backends: [&str; 2]) {
        let (started, flows) = check_connections(net, what, backends);
        let [one, other] = flows;
        assert!(
            one.abs_diff(other) <= started / 10 + 2,
            "{flows:?} of {started}"
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and CAP_BPF"]
    fn through_a_proxy_connections_complete_at_both_ends() {
        if words("haproxy -v").output().is_err() {
            println!("SKIPPED: haproxy is not installed");
            return;
        }
        let net = Net::new("ha");
        net.route();
        let lb = net.node("lb");
        net.run(&format!("ip -n {lb} addr add 10.100.0.1/32 dev lo"));
        let file = std::env::temp_dir().join(&net.prefix);
        std::fs::write(&file, PROXY).unwrap();
        let proxy = net.start("lb", &format!("haproxy -f {}", file.display()));
        let ask = "--from 10.1.0.2 --to 10.100.0.1:80 --rate 200";
        wait_until("haproxy answers", || {
            let report = net.bench(&format!("connect {ask} --seconds 0.02"));
            number(&report["completed"]) > 0
        });
        check_halves(
            &net,
            &format!("{ask} --seconds 1 --size 1400"),
            ["10.2.0.11:8080", "10.2.0.12:8080"],
        );
        drop(proxy);
        std::fs::remove_file(&file).unwrap();
    }

    const PROXY: &str = "defaults
        mode tcp
        timeout connect 5s
        timeout client 10s
        timeout server 10s
    listen x
        bind 10.100.0.1:80
        server a 10.2.0.11:8080
        server b 10.2.0.12:8080\n";

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and CAP_BPF"]
    fn through_ringgate_flows_stay_and_connections_complete() {
        // Built with the workspace; this crate does not depend on it.
        let ringgate = std::path::Path::new(BENCH).with_file_name("ringgate");
        if !ringgate.exists() {
            println!("SKIPPED: {} is not built: cargo build", ringgate.display());
            return;
        }
        let net = Net::new("rg");
        net.route();
        net.run(&format!(
            "ip -n {} addr add 10.2.0.200/24 dev back",
            net.node("lb")
        ));
        let file = std::env::temp_dir().join(&net.prefix);
        let admin = file.with_extension("sock");
        std::fs::write(
            &file,
            BALANCER.replace("ADMIN", &admin.display().to_string()),
        )
        .unwrap();
        let ringgate = ringgate.display();
        let balancer = net.start("lb", &format!("{ringgate} run --config {}", file.display()));
        wait_until("ringgate answers", || {
            let mut status = words(&format!(
                "{ringgate} status --json --admin {}",
                admin.display()
            ));
            status.output().unwrap().status.success()
        });
        for source in ["", "--live-frames"] {
            let command = format!("blast {V4} --flows 100 {source} --rate 5000 --seconds 0.5");
            wait_until("traffic passes", || net.bench(&command)["lost"] == 0);
            let report = net.bench(&command);
            assert_eq!(
                (&report["lost"], &report["corrupt"]),
                (&0.into(), &0.into()),
                "{report}"
            );
            assert_eq!(report["flows"]["moved"], 0, "{report}");
        }
        let two = ["10.2.0.11:8080", "10.2.0.12:8080"];
        let from = "--from 10.1.0.2 --rate 500 --seconds 1";
        for service in ["10.100.0.1:80", "10.100.0.6:80"] {
            let (_, flows) = check_connections(&net, &format!("{from} --to {service}"), two);
            assert!(flows.iter().all(|flows| *flows > 0), "{flows:?}");
        }
        check_connections(
            &net,
            &format!("{from} --to 10.100.0.2:80"),
            ["02:00:00:00:02:99"],
        );
        check_connections(&net, &format!("{from} --to 10.100.0.3:80"), ["10.2.0.11"]);
        drop(balancer);
        std::fs::remove_file(&file).unwrap();
    }

    /// A service of each kind.
    const BALANCER: &str = r#"
        [balancer]
        admin = "ADMIN"
        drain = "0s"
        nat-sources = ["10.2.0.200"]
        [[interface]]
        name = "front"
        mode = "copy"
        [[interface]]
        name = "back"
        mode = "copy"
        [[service]]
        name = "udp"
        listen = "10.100.0.1:53"
        protocol = "udp"
        forward = "nat"
        backend = [{ address = "10.2.0.11:5353" }, { address = "10.2.0.12:5353" }]
        [[service]]
        name = "nat"
        listen = "10.100.0.1:80"
        protocol = "tcp"
        forward = "nat"
        backend = [{ address = "10.2.0.11:8080" }, { address = "10.2.0.12:8080" }]
        [[service]]
        name = "full-nat"
        listen = "10.100.0.6:80"
        protocol = "tcp"
        forward = "full-nat"
        backend = [{ address = "10.2.0.11:8080" }, { address = "10.2.0.12:8080" }]
        [[service]]
        name = "dsr-l2"
        listen = "10.100.0.2:80"
        protocol = "tcp"
        forward = "dsr-l2"
        backend = [{ address = "10.2.0.11" }]
        [[service]]
        name = "ipip"
        listen = "10.100.0.3:80"
        protocol = "tcp"
        forward = "ipip"
        backend = [{ address = "10.2.0.11" }]
    "#;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and CAP_BPF"]
    fn a_sink_alone_tells_what_is_missing_by_the_numbers() {
        let (net, _) = back_to_back("sink");
        let sink = net.start(
            "lb",
            &format!("{BENCH} sink --in front --flows 10 --seconds 4 --json"),
        );
        wait_until("the sink is attached", || {
            let mut shown = words(&format!("ip -n {} -d link show front", net.node("lb")));
            String::from_utf8_lossy(&shown.output().unwrap().stdout).contains("prog/xdp")
        });
        // The program is there a little before the socket is.
        std::thread::sleep(Duration::from_millis(500));
        let places = format!("--out c0@{}", net.node("src"));
        let sent = json(net.between(
            &format!("blast {V4} --flows 10 --rate 2000 --seconds 0.5"),
            &places,
        ));
        assert_eq!(sent["received"], Value::Null);
        assert_eq!(sent["latency_ns"], Value::Null);
        let report: Value = serde_json::from_slice(&sink.output().stdout).unwrap();
        assert_eq!(report["offered"], Value::Null);
        assert_eq!(
            report["received"]["frames"], sent["offered"]["frames"],
            "{report}"
        );
        assert_eq!(
            (&report["lost"], &report["flows"]["seen"]),
            (&0.into(), &10.into())
        );
        assert_eq!(
            report["latency_ns"],
            Value::Null,
            "no clock in common was promised"
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and CAP_BPF"]
    fn it_is_calibrated_and_leaves_nothing_behind() {
        let calibrate = || {
            words(&format!("{BENCH} calibrate --seconds 0.3 --json"))
                .output()
                .unwrap()
        };
        // It refuses on a machine that is too busy for any rate.
        let found = (0..4).map(|_| calibrate()).find(|output| {
            let said = String::from_utf8_lossy(&output.stderr);
            let is_refused = said.contains("nothing can be measured");
            assert_eq!(
                output.status.code(),
                Some(if is_refused { LIMITED } else { 0 }),
                "{said}"
            );
            !is_refused
        });
        match found.map(json) {
            Some(found) => {
                assert!(number(&found["pps"]) > 1_000, "{found}");
                assert!(number(&found["pps_live_frames"]) > 1_000, "{found}");
                assert!(number(&found["latency_ns"]["count"]) > 0, "{found}");
            }
            None => println!("SKIPPED: this machine is too busy for any rate without loss"),
        }
        let left = String::from_utf8(words("ip netns list").output().unwrap().stdout).unwrap();
        assert!(!left.contains("rgcal-"), "{left}");
    }

    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..100 {
            if is_so() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("never happened: {what}");
    }
}
