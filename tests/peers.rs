//! Promise: the contestants of `scripts/peers` carry what they are said to carry, in the namespace
//! where the balancer would run, and leave nothing behind: real clients reach every real backend
//! through them, answers come from the address that was asked, and after `down` the kernel is as
//! it was. How fast they are is not looked at here.

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{SocketAddr, UdpSocket};
    use std::path::Path;
    use std::process::{Command, Output};

    use ringgate_playground::{
        Nginx, Payload, Playground, UdpEcho, ask, run, visit, wait_for_the_way,
    };
    use tempfile::TempDir;

    const ECHO_PORT: u16 = 7_000;
    const WEB_PORT: u16 = 8_080;

    /// Enough that each of three backends is chosen: one is left out by chance once in 10^10.
    const VISITS: usize = 60;

    /// What is exit status 4 here: this machine lacks something.
    const CANNOT_BE_HAD: i32 = 4;

    /// The balancer's side of a playground, ready for one contestant.
    struct Contest {
        playground: Playground,
        directory: TempDir,
        _nginx: Vec<Nginx>,
        _echo: Vec<UdpEcho>,
    }

    impl Contest {
        fn prepare() -> Self {
            let playground = Playground::plan().up();
            // The way to the backends themselves, which clients do not have in a playground.
            for (route, source) in [
                ("10.2.0.11/32 via 10.1.0.1", "10.1.0.2"),
                ("fd00:2::11/128 via fd00:1::1", "fd00:1::2"),
            ] {
                playground.change("client", &format!("route add {route} src {source}"));
            }
            Self {
                _nginx: Nginx::on_all(&playground, &Payload::megabytes(1, 1), "1m"),
                _echo: UdpEcho::on_all(&playground, ECHO_PORT),
                directory: tempfile::tempdir().unwrap(),
                playground,
            }
        }

        /// Runs a contestant's command for a service of the family of `vip`.
        fn ask(&self, contestant: &str, vip: &str, backend_port: u16, words: &[&str]) -> Output {
            let script = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("scripts/peers")
                .join(contestant);
            let prefix = if vip.contains(':') {
                "fd00:2::"
            } else {
                "10.2.0."
            };
            let backends = self
                .playground
                .backends()
                .map(|number| format!("{prefix}{}", 10 + number));
            let environment = [
                ("NETNS", self.playground.namespace("lb")),
                ("FRONT", "front".to_owned()),
                ("BACK", "back".to_owned()),
                ("VIP", vip.to_owned()),
                ("PORT", "80".to_owned()),
                ("BACKENDS", Vec::from_iter(backends).join(" ")),
                ("BACKEND_PORT", backend_port.to_string()),
                ("WORK", self.directory.path().display().to_string()),
                ("CORES", "0".to_owned()),
            ];
            let named = environment.map(|(name, value)| (format!("RINGGATE_BENCH_{name}"), value));
            run(Command::new(script).args(words).envs(named))
        }

        /// Everything that a contestant may change in the balancer's namespace, and on the host.
        fn picture(&self) -> String {
            let script = r"
                sysctl -a 2>/dev/null | grep '^net\.' | grep -v 'conntrack_count'
                ip -o address; ip -o -6 address; ip route; ip -6 route; nft list ruleset
                tc qdisc | sed 's/qdisc \(.*\) [0-9a-f]*: /\1 /'
                for link in front back; do ethtool -k $link; cat /sys/class/net/$link/threaded; done";
            self.playground.run_on("lb", "sh", &["-c", script])
                + &text(
                    &run(Command::new("sysctl").args([
                        "net.netfilter.nf_conntrack_max",
                        "net.netfilter.nf_conntrack_buckets",
                    ]))
                    .stdout,
                )
        }

        /// Starts a contestant, has `judge` look at what clients address, and ends it.
        fn holds(
            &self,
            contestant: &str,
            protocol: &str,
            vip: &str,
            judge: impl FnOnce(SocketAddr),
        ) {
            let port = if protocol == "udp" {
                ECHO_PORT
            } else {
                WEB_PORT
            };
            let before = self.picture();
            let began = self.ask(contestant, vip, port, &["up", protocol]);
            if began.status.code() == Some(CANNOT_BE_HAD) {
                skip(
                    &format!("{contestant} {protocol} {vip}"),
                    &text(&began.stderr),
                );
                let after = self.picture();
                assert_eq!(after, before, "{contestant} refused, and yet did something");
                return;
            }
            assert!(began.status.success(), "{contestant}: {began:?}");
            let target = text(&self.ask(contestant, vip, port, &["target"]).stdout);
            judge(
                target
                    .trim()
                    .parse()
                    .unwrap_or_else(|error| panic!("{contestant}: {target:?}: {error}")),
            );
            let ended = self.ask(contestant, vip, port, &["down"]);
            assert!(ended.status.success(), "{contestant}: {ended:?}");
            assert_eq!(self.picture(), before, "{contestant} left something behind");
            assert!(
                self.ask(contestant, vip, port, &["down"]).status.success(),
                "a second 'down' is fine"
            );
        }
    }

    const VIPS: [&str; 2] = ["10.100.0.1", "fd00:100::1"];

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn translators_carry_udp_and_its_answers() {
        let contest = Contest::prepare();
        for (contestant, vip) in ["kernel", "nftables", "nftables-flowtable"]
            .into_iter()
            .flat_map(|name| VIPS.map(|vip| (name, vip)))
        {
            contest.holds(contestant, "udp", vip, |target| {
                contest.playground.inside("client", || {
                    wait_for_the_way(target);
                    let unspecified = if target.is_ipv4() {
                        "0.0.0.0:0"
                    } else {
                        "[::]:0"
                    };
                    for n in 0..VISITS {
                        let socket = UdpSocket::bind(unspecified).unwrap();
                        let word = n.to_string();
                        assert_eq!(
                            ask(&socket, target, &word).ok(),
                            Some(word),
                            "{contestant} {vip}"
                        );
                    }
                });
            });
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_contestant_carries_tcp_to_every_backend() {
        let contest = Contest::prepare();
        for (contestant, vip) in [
            "kernel",
            "nftables",
            "nftables-flowtable",
            "haproxy",
            "nginx",
        ]
        .into_iter()
        .flat_map(|name| VIPS.map(|vip| (name, vip)))
        {
            contest.holds(contestant, "tcp", vip, |target| {
                // Neighbours are not known yet, and a SYN that waits for one may be lost.
                contest
                    .playground
                    .inside("client", || visit(target))
                    .unwrap();
                let visits = contest.playground.visits(target, VISITS);
                assert_eq!(visits.failures, Vec::<String>::new(), "{contestant} {vip}");
                let expected = if contestant == "kernel" { 1 } else { 3 };
                assert_eq!(
                    visits.answers.len(),
                    expected,
                    "{contestant} {vip}: {visits:?}"
                );
                assert_eq!(visits.answered(), VISITS, "{contestant} {vip}: {visits:?}");
            });
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn what_cannot_be_had_is_refused_in_one_line() {
        let contest = Contest::prepare();
        for (contestant, why) in [("haproxy", "TCP alone"), ("nginx", "TCP alone")] {
            let refused = contest.ask(contestant, VIPS[0], WEB_PORT, &["up", "udp"]);
            assert_eq!(refused.status.code(), Some(CANNOT_BE_HAD), "{refused:?}");
            let said = text(&refused.stderr);
            assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        }
        // A mistake is another thing: the environment, and the command line.
        let mixed = contest.ask("nftables", "fd00:100::1", WEB_PORT, &["up", "sctp"]);
        assert_eq!(mixed.status.code(), Some(2), "{mixed:?}");
        for contestant in ["kernel", "nftables", "haproxy", "nginx"] {
            let needs = contest.ask(contestant, VIPS[0], WEB_PORT, &["needs"]);
            assert!(text(&needs.stdout).contains("iproute2"), "{needs:?}");
        }
    }

    /// Says so past libtest, which shows the prints of failed tests only. What can be installed is there in CI.
    fn skip(what: &str, why: &str) {
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(!(is_ci && why.contains("not installed")), "{what}: {why}");
        assert_eq!(why.lines().count(), 1, "one line says why: {why:?}");
        writeln!(std::io::stderr(), "SKIPPED {what}: {}", why.trim_end()).unwrap();
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}
