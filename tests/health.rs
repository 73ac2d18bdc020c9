//! Promise: connections that fail bring a check forward and keep new ones away until it has
//! succeeded; a backend that flaps is held down; with too few healthy ones a service falls closed or
//! open, as its operator says; an agent can take a backend out.

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::process::Command;
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Conversation, Nginx, Payload, Playground, Service, Status,
        TcpEcho, run,
    };
    use serde_json::{Value, json};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const WEB: &str = "10.100.0.1:80";
    const CHAT: &str = "10.100.0.1:7000";
    const VICTIM: u8 = 2;
    const SOON: Duration = Duration::from_secs(10);

    fn web(playground: &Playground, lines: &[&str]) -> Configuration {
        let web = Service::tcp("web", WEB).backends(playground.backends(), 8080);
        let web = lines.iter().fold(web, |web, line| web.with(*line));
        Configuration::native().service(web)
    }

    fn check(status: &Status, service: &str, number: u8) -> String {
        let backend = status.backend(service, number);
        backend.text("/check/state").to_owned()
    }

    /// What `doctor` finds on the balancer's host.
    fn advice(playground: &Playground, balancer: &Balancer) -> String {
        let mut doctor = playground.on("lb", RINGGATE);
        let output = run(doctor.args(["doctor", "--config"]).arg(balancer.file()));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn connections_that_fail_ask_a_check_to_come() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 3);
        // The checks go to nginx; what is served is another process, which can fail alone.
        let mut nginx = Nginx::on_all(&playground, &payload, "4m");
        let mut echo = TcpEcho::on_all(&playground, 7_000);
        let chat = Service::tcp("chat", CHAT)
            .backends(playground.backends(), 7_000)
            .with(
                "health = { kind = \"tcp\", port = 8080, interval = \"10m\", timeout = \"500ms\", \
                 fast-interval = \"200ms\", rise = 1, fall = 2, passive = \"suspect\" }",
            );
        let configuration = Configuration::native().service(chat);
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let target: SocketAddr = CHAT.parse().unwrap();
        let talk = || (0..60).for_each(|_| drop(Conversation::open(&playground, target)));
        let asked = |status: &Status, number| {
            let backend = status.backend("chat", number);
            backend.number("/check/successes") + backend.number("/check/failures")
        };
        talk();
        let before = balancer.status();
        assert_eq!(
            before.backend("chat", VICTIM).number("/refusals"),
            0,
            "{before}"
        );

        drop(echo.remove(usize::from(VICTIM) - 1));
        talk();
        // Ten minutes early, and what it says is believed.
        let after = balancer.wait_for(SOON, "the check came", |status| {
            asked(status, VICTIM) > asked(&before, VICTIM)
        });
        assert!(
            after.backend("chat", VICTIM).number("/refusals") >= 3,
            "{after}"
        );
        // What began before it died may be half of all at the first look; it is not at a later one.
        balancer.wait_for(SOON, "it is suspect, and cleared", |status| {
            let was_suspect = balancer.log().contains("suspect: most new flows fail");
            was_suspect && check(status, "chat", VICTIM) == "up"
        });

        nginx[usize::from(VICTIM) - 1].kill();
        balancer.wait_for(SOON, "its checks fail as well", |status| {
            talk();
            check(status, "chat", VICTIM) == "down"
        });
        let status = balancer.assert_accounts_balance();
        for number in [1, 3] {
            assert_eq!(check(&status, "chat", number), "up");
            assert!(asked(&status, number) <= 2, "nobody had asked: {status}");
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_backend_that_flaps_is_held_down() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 3);
        let mut nginx = Nginx::on_all(&playground, &payload, "4m");
        let health = "health = { kind = \"tcp\", interval = \"100ms\", timeout = \"100ms\", rise = 1, \
                      fall = 1, flap = { changes = 3, within = \"5m\", hold = \"3s\", most = \"1m\" } }";
        let balancer = Balancer::start(RINGGATE, &playground, &web(&playground, &[health]));
        let victim = &mut nginx[usize::from(VICTIM) - 1];
        let wait = |state: &str| {
            balancer.wait_for(SOON, state, |status| check(status, "web", VICTIM) == state)
        };
        wait("up");
        victim.kill();
        wait("down");
        victim.restart();
        wait("up");
        victim.kill();
        let held = wait("held");
        assert!(held.backend("web", VICTIM).number("/check/held_ms") <= 3_000);
        assert_eq!(held.states(VICTIM), ["down"]);
        victim.restart();
        // It answers, and is not believed.
        let answers = |status: &Status| status.backend("web", VICTIM).number("/check/successes");
        let answering = balancer.wait_for(SOON, "it answers", |status| {
            answers(status) > answers(&held)
        });
        assert_eq!(check(&answering, "web", VICTIM), "held");
        wait("up");
        let log = balancer.log();
        assert!(log.contains("held so for 3s"), "{log}");
        balancer.assert_accounts_balance();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn with_too_few_a_service_falls_closed_or_open() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 3);
        let mut nginx = Nginx::on_all(&playground, &payload, "4m");
        let health = "health = { kind = \"tcp\", interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 2 }";
        let closed = web(&playground, &[health, "min-healthy = 2"]);
        let mut balancer = Balancer::start(RINGGATE, &playground, &closed);
        let visits = |count| playground.visits(WEB.parse().unwrap(), count);
        let is = |status: &Status, field: &str| status.service("web").0[field] == true;
        assert_eq!(visits(30).failures, Vec::<String>::new());

        nginx[1].kill();
        nginx[2].kill();
        let fallen = balancer.wait_for(SOON, "fallen closed", |status| is(status, "fallen_closed"));
        assert_eq!(fallen.service("web").number("/healthy"), 1);
        assert_eq!(fallen.states(1), ["up"]);
        let target: SocketAddr = WEB.parse().unwrap();
        assert!(
            Conversation::open(&playground, target).is_err(),
            "dropped, though one is up"
        );
        assert!(balancer.status().dropped()["no_backend"] > 0);
        let told = advice(&playground, &balancer);
        assert!(
            told.contains("1 healthy, 2 needed: it has fallen closed"),
            "{told}"
        );

        // Open, the one that is up serves its share, and the others refuse theirs.
        balancer.reload(&web(
            &playground,
            &[health, "min-healthy = 2", "when-below = \"open\""],
        ));
        balancer.wait_for(SOON, "fallen open", |status| is(status, "fallen_open"));
        let opened = (0..60).filter(|_| Conversation::open(&playground, target).is_ok());
        let opened = opened.count();
        assert!((1..60).contains(&opened), "{opened} of 60");
        let told = advice(&playground, &balancer);
        assert!(told.contains("when-below = \"closed\" would"), "{told}");
        // All are used, and which of them do not answer is told all the same.
        assert!(told.contains("10.2.0.13:8080 is down: "), "{told}");

        nginx[1].restart();
        balancer.wait_for(SOON, "enough again", |status| !is(status, "fallen_open"));
        assert_eq!(visits(30).failures, Vec::<String>::new());
        let log = balancer.log();
        for line in [
            "new flows are dropped, as when-below says",
            "new flows are served",
        ] {
            assert!(log.contains(line), "{log}");
        }
    }

    /// What an agent says of the victim, in the words of the manual, and what it is answered.
    fn report(balancer: &Balancer, state: &str) -> Value {
        let url = format!(
            "http://ringgate/v1/report?service=web&backend=10.2.0.1{VICTIM}:8080&state={state}"
        );
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m", "10", "--unix-socket"]);
        curl.arg(balancer.admin()).args(["-X", "POST", &url]);
        let output = run(&mut curl);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// How many of 60 visits the victim gets; none has failed.
    fn share_of_victim(playground: &Playground) -> usize {
        let visits = playground.visits(WEB.parse().unwrap(), 60);
        assert_eq!(visits.failures, Vec::<String>::new());
        assert_eq!(visits.answered(), 60);
        visits.of(&format!("b{VICTIM}"))
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn an_agent_takes_a_backend_out_and_brings_it_back() {
        let playground = Playground::plan().up();
        let mut nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 3), "4m");
        let checks = "health = { kind = \"tcp\", interval = \"200ms\", timeout = \"200ms\", rise = 1, fall = 2";
        let with_ttl = |ttl: &str| web(&playground, &[&format!("{checks}, {ttl} }}")]);
        let long = with_ttl("report-ttl = \"5m\"");
        let mut balancer = Balancer::start(RINGGATE, &playground, &long);
        let taken = json!({ "taken": true });
        assert!(share_of_victim(&playground) > 0);

        assert_eq!(report(&balancer, "down"), taken);
        let out = balancer.wait_for(SOON, "it is out", |status| {
            status.states(VICTIM) == ["down"]
        });
        assert_eq!(share_of_victim(&playground), 0);
        // It answers its checks all the while, and that is not enough.
        let answers = |status: &Status| status.backend("web", VICTIM).number("/check/successes");
        let answering = balancer.wait_for(SOON, "it answers", |status| {
            answers(status) > answers(&out) + 2
        });
        assert_eq!(answering.states(VICTIM), ["down"]);
        assert_eq!(
            answering.backend("web", VICTIM).0["check"]["reported"],
            "down"
        );
        let told = advice(&playground, &balancer);
        assert!(told.contains("is down: so an agent has reported"), "{told}");
        assert!(
            balancer.log().contains("reported as down"),
            "{}",
            balancer.log()
        );

        assert_eq!(report(&balancer, "up"), taken);
        balancer.wait_for(SOON, "it is back", |status| status.states(VICTIM) == ["up"]);
        assert!(share_of_victim(&playground) > 0);
        // Nobody is brought in who does not answer.
        nginx[usize::from(VICTIM) - 1].kill();
        balancer.wait_for(SOON, "it fails", |status| status.states(VICTIM) == ["down"]);
        assert_eq!(report(&balancer, "up"), taken);
        assert_eq!(check(&balancer.status(), "web", VICTIM), "down");
        nginx[usize::from(VICTIM) - 1].restart();
        balancer.wait_for(SOON, "it answers", |status| status.states(VICTIM) == ["up"]);

        // An agent that has died changes nothing; whose reports are not asked for is told so.
        balancer.reload(&with_ttl("report-ttl = \"1s\""));
        assert_eq!(report(&balancer, "down"), taken);
        balancer.wait_for(SOON, "it is out of date", |status| {
            status.states(VICTIM) == ["up"]
                && balancer.log().matches("reported as down").count() == 2
        });
        balancer.reload(&with_ttl("port = 8080"));
        let refusal = report(&balancer, "down")["error"].to_string();
        assert!(
            refusal.contains("its health has no report-ttl"),
            "{refusal}"
        );
        assert!(share_of_victim(&playground) > 0);
        balancer.assert_accounts_balance();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn who_is_only_reported_serves_while_the_agent_says_so() {
        let playground = Playground::plan().up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 3), "4m");
        let health = "health = { kind = \"reported\", report-ttl = \"3s\" }";
        let configuration = web(&playground, &[health]);
        let balancer = Balancer::start_unready(RINGGATE, &playground, &configuration, &[]);
        let wait = |state: &str| {
            balancer.wait_for(SOON, state, |status| check(status, "web", VICTIM) == state)
        };
        // Nobody says anything of anybody, and that is told as what it is.
        wait("down");
        let silent = "no report within report-ttl";
        assert!(balancer.log().contains(silent), "{}", balancer.log());
        let is_ready = || balancer.log().contains(" ready admin=");
        balancer.wait_for(SOON, "packets are let in", |_| is_ready());
        let target: SocketAddr = WEB.parse().unwrap();
        assert!(Conversation::open(&playground, target).is_err());

        report(&balancer, "up");
        let up = wait("up");
        assert_eq!(
            (up.states(1), up.states(VICTIM)),
            (vec!["down".to_owned()], vec!["up".to_owned()])
        );
        report(&balancer, "up");
        let visits = playground.visits(target, 8);
        assert_eq!(visits.of(&format!("b{VICTIM}")), 8, "{visits:?}");
        let before = balancer.log().matches(silent).count();
        wait("down");
        assert_eq!(balancer.log().matches(silent).count(), before + 1);
    }
}
