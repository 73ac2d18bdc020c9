//! Promise: however it ends, nothing stays behind. `kill -9` leaves no XDP program, and a new
//! start serves again; SIGTERM lets established flows finish within the drain time, takes no new
//! ones, and counts every frame home.

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Conversation, Download, Nginx, Payload, Playground, Service,
        TcpEcho, now,
    };
    use rustix::process::Signal;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Beyond the drain time: the teardown itself, on a busy machine.
    const TEARDOWN: Duration = Duration::from_secs(5);

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn kill_leaves_no_program_and_a_restart_serves_again() {
        let playground = Playground::plan().queues(2).up();
        let payload = Payload::megabytes(1, 6);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native().web(playground.backends());
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration);
        for _ in 0..3 {
            assert_eq!(programs(&playground), ["back", "front"]);
            // In the middle of traffic, which is when it happens.
            let load = playground.on("client", "wrk");
            let mut load = started(load, &["-t1", "-c8", "-d30", "http://10.100.0.1/"]);
            balancer.wait_for(Duration::from_secs(10), "traffic flows", |status| {
                status.interface("front").number("/forwarded") > 100
            });
            balancer.signal(Signal::KILL);
            balancer.wait(TEARDOWN);
            assert_eq!(programs(&playground), Vec::<String>::new());
            load.kill();

            balancer.restart();
            let visits = playground.visits("10.100.0.1:80".parse().unwrap(), 300);
            assert_eq!(
                (visits.answered(), visits.answers.len()),
                (300, 3),
                "{visits:?}"
            );
        }
        balancer.assert_accounts_balance();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_drain_lets_established_flows_finish_and_takes_no_new_ones() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(8, 7);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native()
            .drain("10s")
            .web(playground.backends());
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let nat = Download::start(&playground, "http://10.100.0.1/slow");
        let direct = Download::start(&playground, "http://[fd00:100::2]/slow");
        nat.backend();
        direct.backend();

        let told = now();
        balancer.signal(Signal::TERM);
        balancer.wait_for(Duration::from_secs(2), "it drains", |status| {
            status.0["draining"] == true
        });
        assert!(
            connect(&playground, "10.100.0.1:80").is_err(),
            "a new flow was taken"
        );
        assert!(
            connect(&playground, "[fd00:100::1]:80").is_err(),
            "a new flow was taken"
        );
        let status = balancer.status();
        assert!(
            status.interface("front").number("/dropped/draining") >= 2,
            "{status}"
        );
        for download in [nat, direct] {
            assert_eq!(download.finish().as_ref(), Ok(&payload.sha256));
        }

        let exit = balancer.wait(Duration::from_secs(10) + TEARDOWN);
        eprintln!("drained and gone after {:?}", told.elapsed());
        assert_eq!(exit.code(), Some(0), "{}", balancer.log());
        left_nothing(&playground, &balancer);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_drain_ends_when_its_time_is_up() {
        let playground = Playground::plan().up();
        let _echo = TcpEcho::on_all(&playground, 7_000);
        let chat = Service::tcp("chat", "10.100.0.1:7000").backends(playground.backends(), 7_000);
        let configuration = Configuration::native().drain("2s").service(chat);
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let target: SocketAddr = "10.100.0.1:7000".parse().unwrap();
        let mut conversation = Conversation::open(&playground, target).unwrap();
        conversation.say().unwrap();

        balancer.signal(Signal::TERM);
        balancer.wait_for(Duration::from_secs(2), "it drains", |status| {
            status.0["draining"] == true
        });
        conversation.say().unwrap();
        let exit = balancer.wait(Duration::from_secs(2) + TEARDOWN);
        assert_eq!(exit.code(), Some(0), "{}", balancer.log());
        left_nothing(&playground, &balancer);
        // It may start at once: nothing holds the queues.
        balancer.restart();
        conversation.say().unwrap();
    }

    fn left_nothing(playground: &Playground, balancer: &Balancer) {
        let log = balancer.log();
        assert!(log.contains("every frame came home"), "{log}");
        assert_eq!(programs(playground), Vec::<String>::new());
        assert!(
            !balancer.admin().exists(),
            "the admin socket is left behind"
        );
        let sockets = playground.run_on("lb", "ss", &["--no-header", "--tcp", "--listening"]);
        assert_eq!(sockets, "");
    }

    /// The interfaces of `lb` that have an XDP program, sorted; as `ip` and `bpftool` see it.
    fn programs(playground: &Playground) -> Vec<String> {
        let text = playground.run_on("lb", "ip", &["-j", "link", "show"]);
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        let with_program = links
            .as_array()
            .unwrap()
            .iter()
            .filter(|link| !link["xdp"].is_null());
        let mut names: Vec<String> = with_program
            .map(|link| link["ifname"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        let text = playground.run_on("lb", "bpftool", &["-j", "net", "show"]);
        let net: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            net[0]["xdp"].as_array().map_or(0, Vec::len),
            names.len(),
            "{net}"
        );
        names
    }

    fn started(
        mut command: std::process::Command,
        arguments: &[&str],
    ) -> ringgate_playground::Process {
        let quiet = std::process::Stdio::null;
        ringgate_playground::Process::start(command.args(arguments).stdout(quiet()).stderr(quiet()))
    }

    fn connect(playground: &Playground, address: &str) -> std::io::Result<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        playground.inside("client", || {
            TcpStream::connect_timeout(&address, Duration::from_secs(1))
        })
    }
}
