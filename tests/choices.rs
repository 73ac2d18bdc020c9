//! Promise: with `round-robin` every backend has its turn, with `least-connections` the one with
//! the fewest open connections gets the next; for real connections, through two workers.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Conversation, Playground, Service, TcpEcho,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const ECHO_PORT: u16 = 7_000;

    /// Services of each family and choice.
    const TURNS: [(&str, &str); 2] = [
        ("turns4", "10.100.0.1:7000"),
        ("turns6", "[fd00:100::1]:7000"),
    ];
    const FEWEST: [(&str, &str); 2] = [
        ("fewest4", "10.100.0.3:7001"),
        ("fewest6", "[fd00:100::3]:7001"),
    ];

    /// Connections that each backend is to get.
    const EACH: usize = 10;

    fn configuration(playground: &Playground) -> Configuration {
        let with = |choice, services: [(&str, &str); 2], all: Configuration| {
            services.iter().fold(all, |all, (name, listen)| {
                let service = Service::tcp(name, listen).choosing(choice);
                all.service(service.backends(playground.backends(), ECHO_PORT))
            })
        };
        let all = with("round-robin", TURNS, Configuration::native());
        with("least-connections", FEWEST, all)
    }

    /// How many of these conversations each backend has.
    fn of_each(open: &[(String, Conversation)]) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (backend, _) in open {
            *counts.entry(backend.as_str()).or_default() += 1;
        }
        counts
    }

    fn open(playground: &Playground, to: SocketAddr) -> (String, Conversation) {
        let mut conversation = Conversation::open(playground, to).unwrap();
        (conversation.say().unwrap(), conversation)
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn real_connections_go_to_whose_turn_it_is_or_who_has_the_fewest() {
        let playground = Playground::plan().queues(2).up();
        let _echo = TcpEcho::on_all(&playground, ECHO_PORT);
        let balancer = Balancer::start(RINGGATE, &playground, &configuration(&playground));
        let backends = playground.backends().count();

        for (name, listen) in TURNS.into_iter().chain(FEWEST) {
            let to = listen.parse().unwrap();
            // The first packet of all may wait for a neighbour to be found.
            drop(open(&playground, to));
            balancer.wait_for(Duration::from_secs(5), "no connection", |status| {
                let backends = status.backends(name);
                backends.values().all(|b| b.number("/flows_now") == 0)
            });
            let mut held: Vec<_> = (0..EACH * backends)
                .map(|_| open(&playground, to))
                .collect();
            let counts = of_each(&held);
            assert_eq!(counts.len(), backends, "{name}: {counts:?}");
            assert!(counts.values().all(|n| *n == EACH), "{name}: {counts:?}");
            let known = |now: usize| {
                let status = balancer.status();
                let backends = status.backends(name);
                let mut flows = backends.values().map(|b| b.number("/flows_now"));
                flows.all(|flows| flows == now as u64)
            };
            assert!(known(EACH), "{name}: {}", balancer.status());
            // A flow keeps its backend.
            for (backend, conversation) in &mut held {
                assert_eq!(conversation.say().unwrap(), *backend, "{name}");
            }
            if FEWEST.contains(&(name, listen)) {
                let lucky = held.first().unwrap().0.clone();
                held.retain(|(backend, _)| *backend != lucky);
                balancer.wait_for(Duration::from_secs(5), "closed connections", |status| {
                    let backends = status.backends(name);
                    backends.values().any(|b| b.number("/flows_now") == 0)
                });
                for _ in 0..EACH {
                    held.push(open(&playground, to));
                    assert_eq!(held.last().unwrap().0, lucky, "it has the fewest");
                }
                assert!(known(EACH), "{name}: {}", balancer.status());
            }
        }

        let status = balancer.assert_accounts_balance();
        assert_eq!(status.number("/flows/half_open_stored"), 0, "{status}");
        assert!(status.number("/flows/half_open") >= status.number("/flows/created"));
        assert_eq!(status.dropped().get("unknown_return"), None, "{status}");
    }
}
