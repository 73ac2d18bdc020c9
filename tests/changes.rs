//! Promise: real connections keep their backend while weights change and it drains; `ringgate
//! flush` ends what is left of them, and harms nobody whose place is where it was. A backend that
//! comes back takes its share step by step.

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Conversation, Nginx, Payload, Playground, Service,
        Status, TcpEcho,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const ECHO_PORT: u16 = 7_000;
    const ECHO: &str = "10.100.0.1:7000";
    const CONVERSATIONS: usize = 24;

    const VICTIM: u8 = 2;
    const VISITS: usize = 300;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn connections_stay_until_they_are_flushed() {
        let playground = Playground::plan().queues(2).up();
        let _echo = TcpEcho::on_all(&playground, ECHO_PORT);
        let mut balancer = Balancer::start(RINGGATE, &playground, &echo(100));
        let mut conversations: Vec<(Conversation, String)> =
            (0..CONVERSATIONS).map(|_| converse(&playground)).collect();
        let of_victim = conversations
            .iter()
            .filter(|(_, name)| name == "b2")
            .count();
        assert!(of_victim > 0, "one in 17,000 times there is none");

        // Nothing has changed: all find their way back to where they were.
        assert_eq!(flush(&balancer, &["--all"]), CONVERSATIONS as u64);
        everybody_goes_on(&mut conversations);
        for weight in [10, 0] {
            balancer.reload(&echo(weight));
            everybody_goes_on(&mut conversations);
        }
        for _ in 0..CONVERSATIONS {
            assert_ne!(converse(&playground).1, "b2", "it takes nothing new");
        }

        let flushed = flush(&balancer, &["echo", "10.2.0.12"]);
        assert_eq!(flushed, of_victim as u64);
        let (mut gone, mut others): (Vec<_>, Vec<_>) = conversations
            .into_iter()
            .partition(|(_, name)| name == "b2");
        for (conversation, _) in &mut gone {
            let error = conversation.say().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        everybody_goes_on(&mut others);

        let status = balancer.assert_accounts_balance();
        let all = (CONVERSATIONS + of_victim) as u64;
        assert_eq!(status.number("/flows/flushed"), all);
        assert_eq!(status.number("/flows/rehashed"), 0, "{status}");
        let log = balancer.log();
        assert!(log.contains("backend=10.2.0.12:7000"), "{log}");
        for (arguments, complaint) in [
            (
                ["flush", "ecco"].as_slice(),
                "there is no service \"ecco\"; services: echo",
            ),
            (
                &["flush", "echo", "10.2.0.77"],
                "backends: 10.2.0.11:7000, 10.2.0.12:7000",
            ),
        ] {
            let output = balancer.ask(arguments);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1));
            assert!(said.contains(complaint), "{said}");
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_backend_that_comes_back_takes_its_share_step_by_step() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 6);
        let mut nginx = Nginx::on_all(&playground, &payload, "4m");
        // Seven steps, two seconds each.
        let web = |slow_start| {
            let web = Service::tcp("web", "10.100.0.1:80").checked();
            let web = web.slow_start(slow_start).backends(1..=3, 8080);
            Configuration::native().service(web)
        };
        let mut balancer = Balancer::start(RINGGATE, &playground, &web("14s"));
        assert_eq!(weights(&balancer.status()), [100.0; 3], "not at the start");

        nginx[usize::from(VICTIM) - 1].kill();
        balancer.wait_for(Duration::from_secs(10), "it is down", |status| {
            weights(status) == [100.0, 0.0, 100.0]
        });
        nginx[usize::from(VICTIM) - 1].restart();
        let status = balancer.wait_for(Duration::from_secs(10), "it is back", |status| {
            weights(status)[1] > 0.0
        });
        let mut seen = vec![weights(&status)[1]];
        while *seen.last().unwrap() < 50.0 {
            let visits = playground.visits("10.100.0.1:80".parse().unwrap(), VISITS);
            // A step may move a handshake that is under way, which is then reset.
            assert!(visits.failures.len() < VISITS / 50, "{visits:?}");
            let is_reset = |failure: &String| failure.contains("reset by peer");
            assert!(visits.failures.iter().all(is_reset), "{visits:?}");
            let now = weights(&balancer.status())[1];
            // Between the shares of before and after the visits, give or take 5 standard deviations.
            let share = |weight: f64| VISITS as f64 * weight / (200.0 + weight);
            let (least, most) = (share(*seen.last().unwrap()), share(now));
            let own = visits.of("b2") as f64;
            assert!(
                own > least - 5.0 * least.sqrt(),
                "{own} of {least} to {most}"
            );
            assert!(own < most + 5.0 * most.sqrt(), "{own} of {least} to {most}");
            seen.push(now);
        }
        seen.dedup();
        assert!(seen.is_sorted() && seen.len() > 2, "{seen:?}");
        assert!(seen.iter().all(|weight| weight % 12.5 == 0.0), "{seen:?}");
        let table = balancer.ask(&["status"]);
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        assert!(table.contains("/100 "), "{table}");

        // It ends by itself, or when it is no longer asked for.
        balancer.wait_for(Duration::from_secs(30), "it has its share", |status| {
            weights(status) == [100.0; 3]
        });
        balancer.reload(&web("0s"));
        assert_eq!(weights(&balancer.status()), [100.0; 3]);
        let visits = playground.visits("10.100.0.1:80".parse().unwrap(), VISITS);
        assert!(visits.of("b2") > VISITS / 5, "{visits:?}");
        balancer.assert_accounts_balance();
    }

    /// An echo service whose second backend has this weight.
    fn echo(weight: u32) -> Configuration {
        let backend = |host: u8, weight| Backend::at(format!("10.2.0.{host}:7000")).weight(weight);
        let service = Service::tcp("echo", ECHO)
            .checked()
            .backend(backend(11, 100))
            .backend(backend(12, weight))
            .backend(backend(13, 100));
        Configuration::native().service(service)
    }

    fn converse(playground: &Playground) -> (Conversation, String) {
        let target: SocketAddr = ECHO.parse().unwrap();
        let mut conversation = Conversation::open(playground, target).unwrap();
        let name = conversation.say().unwrap();
        (conversation, name)
    }

    fn everybody_goes_on(conversations: &mut [(Conversation, String)]) {
        for (conversation, name) in conversations {
            assert_eq!(conversation.say().unwrap(), *name);
        }
    }

    /// How many flows were flushed.
    fn flush(balancer: &Balancer, arguments: &[&str]) -> u64 {
        let output = balancer.ask(&[&["flush", "--json"], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        Status(serde_json::from_slice(&output.stdout).unwrap()).number("/flows")
    }

    /// The effective weights of the first service's backends.
    fn weights(status: &Status) -> Vec<f64> {
        let backends = status.list("/services/0/backends");
        let weight = |one: &Status| one.0["effective_weight"].as_f64().unwrap();
        backends.iter().map(weight).collect()
    }
}
