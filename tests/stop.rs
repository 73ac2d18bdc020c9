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

    /// Of the web services: two by `nat`, two by direct return.
    const ADDRESSES: [&str; 4] = [
        "10.100.0.1:80",
        "[fd00:100::1]:80",
        "10.100.0.2:80",
        "[fd00:100::2]:80",
    ];

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
    fn a_drain_lets_established_flows_finish_and_ends_with_the_last() {
        let drain = Duration::from_secs(60);
        let (mut balancer, playground) = drains_while_downloading("60s", &ADDRESSES[..2]);
        let finished = now();
        let exit = balancer.wait(drain);
        eprintln!("gone {:?} after the last download", finished.elapsed());
        assert_eq!(exit.code(), Some(0), "{}", balancer.log());
        left_nothing(&playground, &balancer);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_drain_lets_direct_flows_finish_as_well() {
        let drain = Duration::from_secs(6);
        let (mut balancer, playground) = drains_while_downloading("6s", &ADDRESSES[2..]);
        let exit = balancer.wait(drain + TEARDOWN);
        assert_eq!(exit.code(), Some(0), "{}", balancer.log());
        left_nothing(&playground, &balancer);
    }

    /// Sends SIGTERM in the middle of a download from each of `addresses`, and returns when the
    /// downloads are complete.
    fn drains_while_downloading(drain: &'static str, addresses: &[&str]) -> (Balancer, Playground) {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(16, 7);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native()
            .drain(drain)
            .web(playground.backends());
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let start =
            |address: &&str| Download::start(&playground, &format!("http://{address}/slow"));
        let downloads: Vec<Download> = addresses.iter().map(start).collect();
        for download in &downloads {
            download.backend();
        }

        balancer.signal(Signal::TERM);
        balancer.wait_for(Duration::from_secs(2), "it drains", |status| {
            status.0["draining"] == true
        });
        for address in addresses {
            assert!(
                connect(&playground, address).is_err(),
                "{address} took a new flow"
            );
        }
        let status = balancer.status();
        let refused = status.interface("front").number("/dropped/draining");
        assert!(refused >= addresses.len() as u64, "{status}");
        for download in downloads {
            assert_eq!(download.finish().as_ref(), Ok(&payload.sha256));
        }
        (balancer, playground)
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
        let line = log
            .lines()
            .rfind(|line| line.contains("frames counted home"))
            .expect(&log);
        let number = |key: &str| {
            let rest = line.split(key).nth(1).expect(line);
            rest.split(' ').next().unwrap().parse::<u64>().expect(line)
        };
        assert_eq!(number(" home="), number(" of="), "{line}");
        assert!(number(" of=") > 0, "{line}");
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
            TcpStream::connect_timeout(&address, Duration::from_millis(500))
        })
    }
}
