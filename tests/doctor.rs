//! Promise: whoever asks why it does not forward is told by `ringgate doctor`, before the start and while it runs:
//! no route, no neighbour, another link, the wrong VLAN, an MTU that is too small, a queue without a worker, an
//! offload that hides traffic, the service's address on the kernel, too, a program that is in the way, a backend that takes no tunnel off. Each
//! finding says what was found, what was expected and what to do.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{SocketAddr, TcpStream};
    use std::path::Path;
    use std::time::Duration;

    use ringgate_playground::{Backend, Balancer, Configuration, Playground, Service};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn what_is_wrong_with_the_network_is_told_before_the_start() {
        let playground = Playground::plan().up();
        playground.change("lb", "link add x0 type veth peer name x1");
        playground.change("lb", "link set x0 up");
        playground.change("lb", "link set x1 up");
        playground.change("lb", "route add 10.98.0.0/24 dev x0");
        playground.change("lb", "route add blackhole 10.97.0.0/24");
        playground.change("lb", "address add 10.100.0.9/32 dev lo");
        let to = |name: &str, listen: &str, backend: &str| {
            Service::tcp(name, listen).backend(Backend::at(backend))
        };
        let configuration = Configuration::native()
            .service(to("good", "10.100.0.1:80", "10.2.0.11:8080"))
            .service(to("lost", "10.100.0.2:80", "10.97.0.1:80"))
            .service(to("aside", "10.100.0.3:80", "10.98.0.1:80"))
            .service(to("mute", "10.100.0.4:80", "10.2.0.99:80"))
            .service(to("wrapped", "10.100.0.5:80", "10.2.0.12").tunnel("ipip", ""))
            .service(to("kernels", "10.100.0.9:80", "10.2.0.11:8081"))
            .service(to("tagged", "10.100.0.6:80", "10.2.0.11:8082").vlan("100"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ringgate.toml");
        let admin = directory.path().join("admin.sock");
        fs::write(&file, configuration.text(&admin)).unwrap();
        let (text, status) = doctor(&playground, &file, &[]);
        assert_eq!(status, Some(0), "only refusals fail: {text}");
        for (found, expected, cure) in [
            (
                "10.97.0.1:80 of lost: no way there: the route to 10.97.0.0/24 refuses it",
                "a route through",
                "ip route get",
            ),
            (
                "10.98.0.1:80 of aside: the route leads out by x0",
                "an interface of the configuration",
                "[[interface]] name = \"x0\"",
            ),
            (
                "10.2.0.99:80 of mute: nobody answers for the next hop on back",
                "an answer to ARP",
                "ip neigh get",
            ),
            (
                "10.2.0.12:80 of wrapped: MTU 1500 on the way, and its outer headers take 20",
                "1520",
                "mss-clamp",
            ),
            (
                "10.100.0.9 is an address of this host, too (on lo)",
                "routed to this host",
                "firewall",
            ),
            (
                "serves VLAN 100, and no interface of the configuration has a VLAN device",
                "its tags",
                "type vlan id 100",
            ),
            (
                "services ask for VLAN tags, and the peer of a veth keeps tags",
                "within the frame",
                "txvlan off",
            ),
        ] {
            assert_told(&text, found, expected, cure);
        }
        assert!(text.contains("3 can be reached"), "{text}");
        assert!(text.contains("ip_forward"), "{text}");
        assert!(text.contains("none runs at"), "{text}");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_queue_without_a_worker_is_refused() {
        let playground = Playground::plan().queues(2).up();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ringgate.toml");
        let service = Service::tcp("web", "10.100.0.1:80").backends(1..=1, 8080);
        let configuration = Configuration::native().service(service);
        let text = configuration.text(&directory.path().join("admin.sock"));
        fs::write(
            &file,
            text.replacen("[balancer]\n", "[balancer]\nworkers = 1\n", 1),
        )
        .unwrap();
        let (text, status) = doctor(&playground, &file, &[]);
        assert_eq!(status, Some(1), "{text}");
        assert_told(
            &text,
            "2 receive queues for 1 workers",
            "one queue for each worker",
            "ethtool -L front",
        );
    }

    /// Packets that somebody has merged before the program sees them are larger than a frame.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn an_offload_that_hides_traffic_is_told_before_the_start() {
        let playground = Playground::plan().generic(true).up();
        // A device of another kind than a veth, which can do no more than the one below it.
        playground.change("lb", "link add x0 type veth peer name x1");
        let _said = playground.run_on("lb", "ethtool", &["-K", "x0", "gro", "on"]);
        playground.change("lb", "link add m0 link x0 type macvlan mode bridge");
        for link in ["x0", "x1", "m0"] {
            playground.change("lb", &format!("link set {link} up"));
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ringgate.toml");
        let service = Service::tcp("web", "10.100.0.1:80").backends(1..=1, 8080);
        let configuration = Configuration::generic().service(service);
        let text = configuration.text(&directory.path().join("admin.sock"));
        let merging = "[[interface]]\nname = \"m0\"\nmode = \"generic\"\n";
        fs::write(&file, format!("{text}\n{merging}")).unwrap();
        let gro = "GRO merges packets before generic XDP sees them";
        let (text, _) = doctor(&playground, &file, &[]);
        assert_told(
            &text,
            "generic XDP on a veth gets super-packets, and drops them",
            "no more than its MTU",
            "on the peer: ethtool -K PEER tso off",
        );
        assert_told(
            &text,
            gro,
            "generic-receive-offload: off",
            "ethtool -K m0 gro off",
        );
        let _said = playground.run_on("lb", "ethtool", &["-K", "x0", "gro", "off"]);
        let (text, _) = doctor(&playground, &file, &[]);
        assert!(!text.contains(gro), "{text}");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_running_balancers_counters_become_advice() {
        let playground = Playground::plan().up();
        playground.change("lb", "route add blackhole 10.97.0.0/24");
        let wrapped = Service::tcp("wrapped", "10.100.0.1:80").tunnel("ipip", "");
        let lost = Service::tcp("lost", "10.100.0.3:80");
        let tagged = Service::tcp("tagged", "10.100.0.1:81").vlan("100");
        let configuration = Configuration::native()
            .service(wrapped.backend(Backend::at("10.2.0.11")))
            .service(lost.backend(Backend::at("10.97.0.1:80")))
            .service(tagged.backend(Backend::at("10.2.0.12:8080")));
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        for port in [80, 81] {
            playground.inside("client", || {
                knock(&format!("10.100.0.1:{port}"));
                knock("10.100.0.3:80");
            });
        }
        let admin = balancer.admin();
        let (text, status) = doctor(&playground, &balancer.file(), &[]);
        assert_eq!(status, Some(0), "{text}");
        assert_told(
            &text,
            "10.2.0.11:80: ",
            "Direct ones pass the balancer by",
            "is there a tunnel device",
        );
        assert!(text.contains("no handshake was ever completed"), "{text}");
        assert_told(
            &text,
            "dropped no_route: ",
            "No route to the next hop",
            "ip route get",
        );
        assert_told(
            &text,
            "without the VLAN tags that it asks for",
            "the service's vlan",
            "rxvlan",
        );
        assert_told(
            &text,
            "10.97.0.1:80 cannot be reached: no route",
            "a route out by",
            "ip route get",
        );
        assert!(
            !text.contains("has an XDP program"),
            "its own program: {text}"
        );
        let other = admin.with_file_name("other.sock");
        let (text, _) = doctor(
            &playground,
            &balancer.file(),
            &["--admin", other.to_str().unwrap()],
        );
        assert_told(
            &text,
            "has an XDP program already",
            "none: ",
            "ip link show dev front",
        );
        assert_told(&text, "does not answer", "its status", "--admin");
    }

    /// Tries to connect, more often than the packets after which an answer should have come.
    fn knock(target: &str) {
        let target: SocketAddr = target.parse().unwrap();
        for _ in 0..12 {
            // Nobody answers: that is what the test is about.
            assert!(TcpStream::connect_timeout(&target, Duration::from_millis(30)).is_err());
        }
    }

    /// What it says on the balancer's host, and its exit status.
    fn doctor(playground: &Playground, file: &Path, more: &[&str]) -> (String, Option<i32>) {
        let mut command = playground.on("lb", RINGGATE);
        command.args(["doctor", "--config"]).arg(file).args(more);
        let output = command.output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(complaint, "", "doctor complains");
        (
            String::from_utf8(output.stdout).unwrap(),
            output.status.code(),
        )
    }

    /// One finding has all three: what was found, what was expected, and below it what to do.
    fn assert_told(text: &str, found: &str, expected: &str, cure: &str) {
        let place = text
            .find(found)
            .unwrap_or_else(|| panic!("no finding {found:?} in\n{text}"));
        let mut lines = text[place..].lines().skip(1);
        let (second, third) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        assert!(
            second.contains("expected: ") && second.contains(expected),
            "{found}: {second}"
        );
        assert!(
            third.contains("-> ") && third.contains(cure),
            "{found}: {third}"
        );
    }
}
