//! Promise: an operator sees what becomes of packets. `trace` tells each packet's way while it goes, `capture`
//! writes a file that everybody's tools read, and `explain` says beforehand what would happen and why it does
//! not forward; none of them changes anything.

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::process::{Child, Command, Output, Stdio};
    use std::time::Duration;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Nginx, Payload, Playground, Service, run, until, visit,
    };
    use serde_json::Value;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");
    const WEB: &str = "10.100.0.1:80";

    /// A command that stays, with its admin socket.
    fn begin(balancer: &Balancer, arguments: &[&str]) -> Child {
        let mut command = Command::new(RINGGATE);
        command.args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // One tap at a time: that it is open is told to whoever asks for another, before his mistakes.
        until(Duration::from_secs(5), "the tap is open", || {
            let other = balancer.ask(&["trace", "nonsense"]);
            let complaint = String::from_utf8_lossy(&other.stderr);
            assert!(!other.status.success());
            complaint
                .contains("another trace or capture is open")
                .then_some(())
        });
        child
    }

    fn finished(child: Child) -> Output {
        let output = child.wait_with_output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        output
    }

    fn lines(output: &Output) -> Vec<Value> {
        let lines = output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn world() -> (Playground, Vec<Nginx>, Balancer) {
        let playground = Playground::plan().up();
        let nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 11), "1m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        (playground, nginx, balancer)
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_trace_tells_both_directions_of_a_visit_and_ends_by_itself() {
        let (playground, _nginx, balancer) = world();
        let admin = balancer.admin();
        let admin = admin.to_str().unwrap();
        let arguments = [
            "trace", "--json", "--admin", admin, "-n", "4", "host", "10.1.0.2", "and", "tcp",
        ];
        let tracing = begin(&balancer, &arguments);
        let service: SocketAddr = WEB.parse().unwrap();
        let answered = playground.inside("client", || visit(service)).unwrap();
        let told = lines(&finished(tracing));
        let (end, packets) = told.split_last().unwrap();
        assert_eq!((&end["end"], &end["lost"]), (&"packets".into(), &0.into()));
        assert_eq!(packets.len(), 4, "{told:?}");
        let number = answered.trim_start_matches('b');
        let backend = format!("10.2.0.1{number}:8080");
        for (packet, interface) in packets.iter().zip(["back", "front", "back", "back"]) {
            assert_eq!(packet["verdict"], "forwarded", "{packet:#}");
            assert_eq!(packet["service"], "web4");
            assert_eq!(packet["backend"], *backend);
            // A handshake: there, back, there; and the request.
            assert_eq!(packet["out"], interface, "{packet:#}");
        }
        let said = packets[0].to_string();
        assert!(said.contains("in neither: the flow is not known"), "{said}");
        assert!(
            packets[1]
                .to_string()
                .contains("one of its backends answers"),
            "{told:?}"
        );
        // For people.
        let arguments = ["trace", "--seconds", "1", "--admin", admin, "dropped"];
        let quiet = run(Command::new(RINGGATE).args(arguments));
        let text = String::from_utf8(quiet.stdout).unwrap();
        assert_eq!(text, "0 packets: the time is up\n");
        let status = balancer.assert_accounts_balance();
        assert_eq!(playground.checksum_errors(), 0, "{status}");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_capture_of_a_visit_is_a_file_that_tshark_reads() {
        let (playground, _nginx, balancer) = world();
        let (admin, file) = (balancer.admin(), balancer.directory().join("a.pcapng"));
        let (admin, name) = (admin.to_str().unwrap(), file.to_str().unwrap());
        let arguments = [
            "capture", "-w", name, "--admin", admin, "-t", "3", "tcp", "port", "80",
        ];
        let capturing = begin(&balancer, &arguments);
        let service: SocketAddr = WEB.parse().unwrap();
        playground.inside("client", || visit(service)).unwrap();
        let output = finished(capturing);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            complaint.contains(" packets to ") && !complaint.contains("lost"),
            "{complaint}"
        );
        let tshark = |filter: &str| {
            let output = run(Command::new("tshark").args(["-r", name, "-Y", filter]));
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            text.lines().count()
        };
        let (came, left) = (
            tshark("frame.interface_name == \"front in\""),
            tshark("frame.interface_name == \"back out\""),
        );
        assert!(came >= 5 && came == left, "{came} came, {left} left");
        assert_eq!(tshark("http.request && ip.dst == 10.100.0.1"), 1);
        assert_eq!(tshark("http.request && tcp.dstport == 8080"), 1);
        assert_eq!(
            tshark("frame.comment contains \"service web4\""),
            tshark("tcp")
        );
        // To a pipe, and the reader goes away: the tap is free again.
        let arguments = ["capture", "--admin", admin, "-t", "3600", "tcp"];
        let mut gone = begin(&balancer, &arguments);
        gone.kill().unwrap();
        gone.wait().unwrap();
        until(Duration::from_secs(5), "the tap is free", || {
            let next = balancer.ask(&["trace", "--seconds", "1", "--packets", "1"]);
            next.status.success().then_some(())
        });
    }

    /// One service for each reason not to forward.
    fn troubles() -> Configuration {
        let service = |name: &str, listen: &str, backend: &str| {
            Service::tcp(name, listen).backend(Backend::at(backend))
        };
        Configuration::native()
            .service(service("far", "10.100.0.1:80", "192.0.2.9:80"))
            .service(service("mute", "10.100.0.1:81", "10.2.0.99:80"))
            .service(service("tagged", "10.100.0.1:82", "10.2.0.11:8080").vlan("100"))
            .service(
                Service::tcp("narrow", "10.100.0.1:83")
                    .tunnel("ipip", "")
                    .backend(Backend::at("10.2.0.11")),
            )
            .service(service("gone", "10.100.0.1:84", "10.2.0.12:9").checked())
    }

    /// A packet comes that has no way to the backend, and its trace says so.
    fn a_trace_tells_of_the_drop(playground: &Playground, balancer: &Balancer) {
        let admin = balancer.admin();
        let arguments = [
            "trace",
            "--json",
            "--admin",
            admin.to_str().unwrap(),
            "-t",
            "10",
            "-n",
            "1",
            "drop",
            "no_route",
        ];
        let tracing = begin(balancer, &arguments);
        let refused = playground.inside("client", || visit(WEB.parse().unwrap()));
        assert!(refused.is_err());
        let told = lines(&finished(tracing));
        assert_eq!(told[0]["reason"], "no_route", "{told:?}");
        assert!(
            told[0]["steps"]
                .to_string()
                .contains("no route to 192.0.2.9"),
            "{told:?}"
        );
    }

    /// What is explained of a flow to this port.
    fn explained(balancer: &Balancer, port: u16, more: &[&str]) -> Value {
        let to = format!("10.100.0.1:{port}");
        let flow = ["explain", "--json", "--protocol", "tcp"];
        let ends = ["--from", "10.1.0.2:40000", "--to", &to];
        let output = balancer.ask(&[&flow, &ends, more].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn why_it_does_not_forward_is_answered_live_and_beforehand() {
        let playground = Playground::plan().up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 11), "1m");
        let balancer = Balancer::start_unready(RINGGATE, &playground, &troubles(), &[]);
        balancer.wait_for(
            Duration::from_secs(15),
            "the check of gone has failed, and packets are let in",
            |status| {
                status.text("/services/4/backends/0/state") == "down"
                    && balancer.log().contains(" ready admin=")
            },
        );
        // First of packets that come, by which the client is known from then on.
        a_trace_tells_of_the_drop(&playground, &balancer);
        for (port, reason, said) in [
            (80, "no_route", "no route to 192.0.2.9"),
            (81, "no_neighbour", "next hop 10.2.0.99 is not known"),
            (
                82,
                "wrong_vlan",
                "it came with no VLAN tag, and the service is in VLAN 100",
            ),
            (84, "no_backend", "10.2.0.12:9 is down"),
            (
                85,
                "not_for_us",
                "on this address there is tcp 10.100.0.1:80",
            ),
        ] {
            let answer = explained(&balancer, port, &[]);
            assert_eq!(
                (&answer["verdict"], &answer["reason"]),
                (&"dropped".into(), &reason.into())
            );
            assert!(answer["steps"].to_string().contains(said), "{answer:#}");
        }
        let wide = explained(&balancer, 83, &["--size", "1500", "--open"]);
        assert_eq!(wide["verdict"], "answered", "{wide:#}");
        assert!(
            wide["steps"].to_string().contains("1480 would fit"),
            "{wide:#}"
        );
    }
}
