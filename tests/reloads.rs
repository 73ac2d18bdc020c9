//! Promise: reloading costs nobody a request and the balancer no memory. A thousand configurations one
//! after the other, weights, members and whole services, under HTTP traffic.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Output;
    use std::time::Duration;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Crowd, Nginx, Payload, Playground, Service, until,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const RELOADS: usize = 1_000;

    /// When what is taken once has been taken: from then on memory has to stay as it is.
    const SETTLED: usize = 100;

    /// One of so many is a SIGHUP; the others are applied.
    const SIGHUP_EVERY: usize = 25;

    /// What may be added to the memory between the two looks, KiB. A ring of these services is 128 KiB and
    /// every reload builds one at least: one in 50 that stays would be 2 MiB, as would 2 KiB of each reload.
    const GROWTH_KIB: u64 = 2 << 10;

    /// What the services are in turn. The fourth backend comes, drains, and goes when it is empty.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Phase {
        Three,
        Fourth,
        Uneven,
        Draining,
        DrainingStill,
    }

    const PHASES: [Phase; 5] = [
        Phase::Three,
        Phase::Fourth,
        Phase::Uneven,
        Phase::Draining,
        Phase::DrainingStill,
    ];

    /// `kept` remembers half-open connections, `ring` goes by the ring alone, `guest` comes and goes.
    fn configuration(phase: Phase) -> Configuration {
        let weights = match phase {
            Phase::Three => [Some(100), Some(100), Some(100), None],
            Phase::Fourth => [Some(100), Some(50), Some(100), Some(100)],
            Phase::Uneven => [Some(30), Some(100), Some(70), Some(100)],
            Phase::Draining => [Some(100), Some(100), Some(100), Some(0)],
            Phase::DrainingStill => [Some(90), Some(100), Some(110), Some(0)],
        };
        let fill = |service: Service| {
            let members = (11..).zip(weights);
            members.fold(service.checked(), |service, (host, weight)| match weight {
                Some(weight) => {
                    let backend = Backend::at(format!("10.2.0.{host}:8080"));
                    service.backend(backend.weight(weight))
                }
                None => service,
            })
        };
        let kept = Service::tcp("kept", "10.100.0.1:80").choosing("least-connections");
        let configuration = Configuration::native()
            .service(fill(kept))
            .service(fill(Service::tcp("ring", "10.100.0.1:81")));
        match phase {
            Phase::Uneven | Phase::Draining => {
                configuration.service(fill(Service::tcp("guest", "10.100.0.1:82")))
            }
            _ => configuration,
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_thousand_reloads_cost_no_request_and_no_memory() {
        let playground = Playground::plan().backends(4).queues(2).up();
        let payload = Payload::megabytes(1, 21);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration(Phase::Three));
        let kept = Crowd::start(&playground, "10.100.0.1:80".parse().unwrap());
        let ring = Crowd::start(&playground, "10.100.0.1:81".parse().unwrap());
        kept.wait_for(100);
        let guest = "10.100.0.1:82".parse().unwrap();
        let mut settled = None;
        for (reload, phase) in (1..=RELOADS).zip(PHASES.iter().cycle().skip(1)) {
            if *phase == Phase::Three {
                wait_until_nobody_is_affected(&balancer, *phase);
            }
            if reload % SIGHUP_EVERY == 0 {
                balancer.reload(&configuration(*phase));
            } else {
                apply(&balancer, *phase);
            }
            if *phase == Phase::Uneven && reload % 50 < PHASES.len() {
                balancer.wait_for(Duration::from_secs(5), "the guest is served", |status| {
                    status.backend("guest", 1).text("/state") == "up"
                });
                let visits = playground.visits(guest, 8);
                assert_eq!(visits.answered(), 8, "reload {reload}: {visits:?}");
            }
            if reload == SETTLED {
                settled = Some(footprint(&balancer));
            }
        }
        let (settled, last) = (settled.unwrap(), footprint(&balancer));
        println!("KiB and descriptors after {SETTLED}: {settled:?}, after {RELOADS}: {last:?}");
        assert!(
            last.0 <= settled.0 + GROWTH_KIB,
            "{settled:?} KiB became {last:?}"
        );
        assert_eq!(last.1, settled.1, "open descriptors");

        let visits = kept.stop();
        assert_eq!(visits.failures, Vec::<String>::new());
        assert!(visits.answered() > RELOADS, "{visits:?}");
        assert_eq!(
            visits.answers.keys().collect::<Vec<_>>(),
            ["b1", "b2", "b3", "b4"]
        );
        // Where half-open connections are not remembered, a change of the ring moves those whose slot
        // moves, and their server resets them: a few of all.
        let visits = ring.stop();
        println!(
            "by the ring: {} answered, {} reset",
            visits.answered(),
            visits.failures.len()
        );
        let is_reset = |failure: &String| failure.contains("reset by peer");
        assert!(visits.failures.iter().all(is_reset), "{visits:?}");
        assert!(
            visits.failures.len() * 100 < visits.answered(),
            "{visits:?}"
        );
        balancer.assert_accounts_balance();
    }

    /// Sends the configuration of a phase; it is in force when the command ends.
    fn apply(balancer: &Balancer, phase: Phase) {
        let output = propose(balancer, phase, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    fn propose(balancer: &Balancer, phase: Phase, arguments: &[&str]) -> Output {
        let file = balancer.directory().join("next.toml");
        fs::write(&file, configuration(phase).text(&balancer.admin())).unwrap();
        balancer.ask(&[&["apply", file.to_str().unwrap()], arguments].concat())
    }

    /// A preview says whose flows would go.
    fn wait_until_nobody_is_affected(balancer: &Balancer, phase: Phase) {
        until(Duration::from_secs(10), "the fourth is empty", || {
            let output = propose(balancer, phase, &["--dry-run", "--json"]);
            let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let services = plan["services"].as_array().unwrap();
            let affected =
                |service: &serde_json::Value| service["flows_affected"].as_u64().unwrap();
            (services.iter().map(affected).sum::<u64>() == 0).then_some(())
        });
    }

    /// Anonymous memory that is resident, KiB, and how many descriptors are open. The flow table's pages
    /// are a map's, and come as flows do.
    fn footprint(balancer: &Balancer) -> (u64, usize) {
        let process = format!("/proc/{}", balancer.pid());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let memory = line
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        (
            memory,
            fs::read_dir(format!("{process}/fd")).unwrap().count(),
        )
    }
}
