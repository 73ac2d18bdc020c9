//! Promise: a backend that dies is found out within fall × interval + timeout; from then on no
//! connection goes to it, and connections to the others lose nothing. When it comes back it
//! takes new flows, and no flow that another has.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use ringgate_playground::{
        Balancer, Configuration, Conversation, Download, Nginx, Payload, Playground, Service,
        Status, TcpEcho, now,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// What the operator was promised.
    const PROMISE: Duration = Duration::from_millis(Service::DOWN_WITHIN_MS);
    /// What looking costs: a status is another process, on a machine that is busy with the
    /// downloads.
    const SLACK: Duration = Duration::from_millis(300);

    const SERVICES: [&str; 4] = ["web4", "web6", "direct4", "direct6"];
    const VISITS: usize = 300;

    const VICTIM: u8 = 2;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_killed_backend_is_found_out_and_nobody_else_notices() {
        let playground = Playground::plan().queues(2).up();
        // 16 MB at 4 MB/s: four seconds, longer than what happens meanwhile.
        let payload = Payload::megabytes(16, 2);
        let mut nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let mut downloads = downloads_on_every_backend(&playground);

        let killed = now();
        nginx[usize::from(VICTIM) - 1].kill();
        wait_until_down(&balancer, killed);
        gets_nothing_new(&balancer, &playground);

        // Nothing of what ran on the victim can have survived; everything else has.
        for download in downloads.remove("b2").unwrap() {
            assert!(download.finish().is_err());
        }
        for (backend, downloads) in downloads {
            for download in downloads {
                assert_eq!(
                    download.finish().as_ref(),
                    Ok(&payload.sha256),
                    "from {backend}"
                );
            }
        }
        balancer.assert_accounts_balance();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_vanished_backend_is_found_out_as_well() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 3);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        assert_eq!(visits(&playground, "10.100.0.1:80").len(), 3);

        // The cable is pulled at the switch: from now on there is only silence.
        playground.change("fabric", "link set b2 down");
        // Whoever comes before that is known has to try twice, and gets through.
        assert!(!visits(&playground, "10.100.0.1:80").contains_key("b2"));
        wait_for_state(&balancer, "down");
        gets_nothing_new(&balancer, &playground);

        playground.change("fabric", "link set b2 up");
        wait_for_state(&balancer, "up");
        for address in [
            "10.100.0.1:80",
            "[fd00:100::1]:80",
            "10.100.0.2:80",
            "[fd00:100::2]:80",
        ] {
            assert_eq!(visits(&playground, address).len(), 3, "{address}");
        }
        balancer.assert_accounts_balance();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_silent_backend_is_down_in_time() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 3);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        let pulled = now();
        playground.change("fabric", "link set b2 down");
        wait_until_down(&balancer, pulled);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_backend_that_comes_back_takes_new_flows_only() {
        let playground = Playground::plan().queues(2).up();
        let payload = Payload::megabytes(1, 3);
        let mut nginx = Nginx::on_all(&playground, &payload, "4m");
        let _echo = TcpEcho::on_all(&playground, 7_000);
        let checked_by_nginx = Configuration::native().web(playground.backends());
        let chat = Service::tcp("chat", "10.100.0.1:7000").checked_at(8080);
        let configuration = checked_by_nginx.service(chat.backends(playground.backends(), 7_000));
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let target: SocketAddr = "10.100.0.1:7000".parse().unwrap();

        nginx[usize::from(VICTIM) - 1].kill();
        wait_for_state(&balancer, "down");
        let mut conversations: Vec<(Conversation, String)> = Vec::new();
        for _ in 0..30 {
            let mut conversation = Conversation::open(&playground, target).unwrap();
            let backend = conversation.say().unwrap();
            assert_ne!(backend, "b2");
            conversations.push((conversation, backend));
        }

        nginx[usize::from(VICTIM) - 1].restart();
        wait_for_state(&balancer, "up");
        // By its ring alone, a third of them would be the victim's now.
        for (conversation, backend) in &mut conversations {
            assert_eq!(&conversation.say().unwrap(), backend, "a flow has moved");
        }
        assert!(visits(&playground, "10.100.0.1:80").contains_key("b2"));
        for (conversation, backend) in &mut conversations {
            assert_eq!(&conversation.say().unwrap(), backend, "a flow has moved");
        }
        let status = balancer.assert_accounts_balance();
        assert_eq!(
            status.backend("chat", VICTIM).number("/flows"),
            0,
            "{status}"
        );
    }

    /// Starts downloads over both families and modes until every backend serves some.
    fn downloads_on_every_backend(playground: &Playground) -> BTreeMap<String, Vec<Download>> {
        let urls = [
            "http://10.100.0.1/slow",
            "http://[fd00:100::1]/slow",
            "http://10.100.0.2/slow",
        ];
        let mut downloads: BTreeMap<String, Vec<Download>> = BTreeMap::new();
        for _ in 0..5 {
            let started = urls.map(|url| Download::start(playground, url));
            for download in started {
                downloads
                    .entry(download.backend())
                    .or_default()
                    .push(download);
            }
            if downloads.len() == 3 {
                return downloads;
            }
        }
        panic!(
            "15 downloads did not meet every backend: {:?}",
            downloads.keys()
        );
    }

    fn wait_for_state(balancer: &Balancer, state: &str) {
        let what = format!("backend {VICTIM} is {state}");
        balancer.wait_for(Duration::from_secs(10), &what, |status| {
            status.states(VICTIM) == [state]
        });
    }

    fn wait_until_down(balancer: &Balancer, since: Instant) {
        wait_for_state(balancer, "down");
        let took = since.elapsed();
        eprintln!("found out after {took:?}; promised are {PROMISE:?}");
        assert!(took <= PROMISE + SLACK, "found out after {took:?} only");
    }

    /// Sends visitors to every service: all are answered, none by the victim, which is sent no
    /// packet and given no flow.
    fn gets_nothing_new(balancer: &Balancer, playground: &Playground) {
        let given = |status: &Status| -> u64 {
            let of = |name| status.backend(name, VICTIM).number("/flows");
            SERVICES.iter().map(|name| of(name)).sum()
        };
        let sent = |status: &Status| -> u64 {
            let of = |name| status.backend(name, VICTIM).number("/packets");
            SERVICES.iter().map(|name| of(name)).sum()
        };
        let before = balancer.status();
        for address in [
            "10.100.0.1:80",
            "[fd00:100::1]:80",
            "10.100.0.2:80",
            "[fd00:100::2]:80",
        ] {
            let answers = visits(playground, address);
            assert_eq!(
                answers.keys().collect::<Vec<_>>(),
                ["b1", "b3"],
                "{address}"
            );
        }
        let after = balancer.status();
        assert_eq!(
            given(&after),
            given(&before),
            "new flows went to a backend that is down"
        );
        assert_eq!(
            sent(&after),
            sent(&before),
            "packets went to a backend that is down"
        );
    }

    /// Who answered; everybody is answered.
    fn visits(playground: &Playground, address: &str) -> BTreeMap<String, usize> {
        let visits = playground.visits(address.parse().unwrap(), VISITS);
        assert_eq!(visits.failures, Vec::<String>::new(), "{address}");
        assert_eq!(visits.answered(), VISITS, "{address}");
        visits.answers
    }
}
