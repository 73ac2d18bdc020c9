//! Promise: SIGHUP takes the whole new file or nothing of it. A file with mistakes is refused
//! with every one of them in the log, and traffic does not notice; a good one applies, and
//! established flows keep their backend. A file that is applied instead is in force when the command
//! returns, and status tells it from the file on disk.

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Download, Nginx, Payload, Playground, Service, until,
    };
    use rustix::process::Signal;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const VISITS: usize = 300;

    /// Mistakes of several kinds, in several places.
    const MISTAKES: &str = r#"
[[service]]
name = "web4"
listen = "10.100.0.9"
protocol = "tpc"
forward = "nat"
sticky = true

  [[service.backend]]
  address = "10.2.0.11:8080"
  weight = 100000
"#;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_file_with_mistakes_is_refused_and_traffic_undisturbed() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(8, 4);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native().web(playground.backends());
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let mut download = Download::start(&playground, "http://10.100.0.1/slow");
        download.backend();
        let before = balancer.status();

        balancer.rewrite(&(configuration.text(&balancer.admin()) + MISTAKES));
        let problems = problems(&balancer);
        balancer.signal(Signal::HUP);
        until(
            Duration::from_secs(5),
            "every problem is in the log",
            || {
                let log = balancer.log();
                problems
                    .iter()
                    .all(|problem| log.contains(problem))
                    .then_some(())
            },
        );

        assert!(
            download.is_running(),
            "the download has to run across the reload"
        );
        let visits = playground.visits("10.100.0.1:80".parse().unwrap(), VISITS);
        assert_eq!(
            (visits.answered(), visits.answers.len()),
            (VISITS, 3),
            "{visits:?}"
        );
        assert_eq!(download.finish(), Ok(payload.sha256));
        let after = balancer.assert_accounts_balance();
        assert_eq!(after.number("/generation"), before.number("/generation"));
        assert_eq!(
            after.list("/services").len(),
            before.list("/services").len()
        );
        assert_eq!(after.dropped(), before.dropped(), "{after}");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_good_file_applies_and_flows_keep_their_backend() {
        let playground = Playground::plan().backends(4).up();
        let payload = Payload::megabytes(12, 5);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native().web(1..=3);
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let downloads = downloads_on(&playground, &["b1", "b2", "b3"]);
        let before = balancer.status();

        // web4: the first takes nothing new, a fourth is added. The other services are gone.
        let web4 = Service::tcp("web4", "10.100.0.1:80").checked();
        let web4 = web4
            .backend(Backend::at("10.2.0.11:8080").weight(0))
            .backends(2..=4, 8080);
        balancer.reload(&Configuration::native().service(web4));
        let status = balancer.wait_for(Duration::from_secs(5), "the new backend is up", |status| {
            status.states(4) == ["up"]
        });
        assert!(status.number("/generation") > before.number("/generation"));
        assert_eq!(status.list("/services").len(), 1, "{status}");

        let visits = playground.visits("10.100.0.1:80".parse().unwrap(), VISITS);
        assert_eq!(visits.answered(), VISITS, "{visits:?}");
        assert_eq!(
            visits.answers.keys().collect::<Vec<_>>(),
            ["b2", "b3", "b4"]
        );
        assert!(
            connect(&playground, "[fd00:100::1]:80").is_err(),
            "a removed service answers"
        );
        for (backend, download) in downloads {
            assert_eq!(
                download.finish().as_ref(),
                Ok(&payload.sha256),
                "from {backend}"
            );
        }

        // And back: the removed come again, the added one goes, the first takes new flows.
        balancer.reload(&configuration);
        balancer.wait_for(Duration::from_secs(5), "all services are up", |status| {
            (1..=3).all(|number| status.states(number) == ["up"]) && status.states(4).is_empty()
        });
        for address in ["10.100.0.1:80", "[fd00:100::1]:80"] {
            let visits = playground.visits(address.parse().unwrap(), VISITS);
            assert_eq!(visits.answered(), VISITS, "{visits:?}");
            assert_eq!(
                visits.answers.keys().collect::<Vec<_>>(),
                ["b1", "b2", "b3"]
            );
        }
        balancer.assert_accounts_balance();
    }

    /// Of a file with `MISTAKES`: status 2 and a line each.
    fn assert_every_mistake_has_its_place(output: &std::process::Output) {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            (output.status.code(), said.lines().count()),
            (Some(2), 5),
            "{said}"
        );
        assert!(
            said.lines().all(|line| line.contains("next.toml:")),
            "{said}"
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_file_is_previewed_applied_and_told_from_the_one_on_disk() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 6);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let web = |numbers: std::ops::RangeInclusive<u8>| {
            let web = Service::tcp("web4", "10.100.0.1:80").checked();
            Configuration::native().service(web.backends(numbers, 8080))
        };
        let mut balancer = Balancer::start(RINGGATE, &playground, &web(1..=3));
        let on_disk = |wanted: &str| {
            balancer.wait_for(
                Duration::from_secs(5),
                "status has looked at the file",
                |status| status.text("/in_force/on_disk") == wanted,
            )
        };
        on_disk("same");
        let before = balancer.status();
        let next = balancer.directory().join("next.toml");
        let write = |text: &str| std::fs::write(&next, text).unwrap();
        let apply =
            |more: &[&str]| balancer.ask(&[&["apply", next.to_str().unwrap()], more].concat());

        // Refused: every mistake with its place, status 2, and nothing has changed.
        write(&(web(1..=2).text(&balancer.admin()) + MISTAKES));
        for arguments in [[].as_slice(), &["--dry-run"]] {
            assert_every_mistake_has_its_place(&apply(arguments));
        }
        // What only a restart can change is no less refused.
        write(
            &web(1..=2)
                .text(&balancer.admin())
                .replace("[balancer]", "[balancer]\nworkers = 2"),
        );
        let output = apply(&[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("balancer.workers cannot change while running"),
            "{said}"
        );
        assert_eq!(output.status.code(), Some(2));

        write(&web(1..=2).text(&balancer.admin()));
        let output = apply(&["--dry-run"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains("service web4: backend 10.2.0.13:8080 removed"),
            "{said}"
        );
        assert!(said.contains("nothing was changed"), "{said}");
        assert_eq!(
            balancer.status().number("/generation"),
            before.number("/generation")
        );

        // In force when the command returns; the next visits show it.
        let output = apply(&[]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let visits = playground.visits("10.100.0.1:80".parse().unwrap(), VISITS);
        assert_eq!(visits.answers.keys().collect::<Vec<_>>(), ["b1", "b2"]);
        let status = on_disk("differs");
        assert_eq!(status.text("/in_force/applied"), next.to_str().unwrap());
        let output = balancer.ask(&["status"]);
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            page.contains("applied from") && page.contains("NOT what"),
            "{page}"
        );

        // The file on disk is what a SIGHUP goes by.
        balancer.rewrite("[[interface]]\n");
        on_disk("refused");
        balancer.reload(&web(1..=3));
        let status = balancer.wait_for(Duration::from_secs(5), "the file is in force", |status| {
            status.text("/in_force/on_disk") == "same"
        });
        assert!(status.0["in_force"]["applied"].is_null(), "{status}");
        assert_eq!(status.states(3), ["up"]);
    }

    /// What `ringgate check` has to say about the file: a line for each mistake, with file, line
    /// and cure. The log has to say the same.
    fn problems(balancer: &Balancer) -> Vec<String> {
        let file = balancer.file();
        let mut command = std::process::Command::new(RINGGATE);
        let output = ringgate_playground::run(command.arg("check").arg(&file));
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        let problems: Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(problems.len(), 5, "{text}");
        let place = format!("{}:", file.display());
        for problem in &problems {
            assert!(
                problem.starts_with(&place) && problem.contains("; expected "),
                "{problem}"
            );
        }
        problems
    }

    /// A slow download from each of these backends.
    fn downloads_on(playground: &Playground, backends: &[&str]) -> Vec<(String, Download)> {
        let mut kept: Vec<(String, Download)> = Vec::new();
        until(
            Duration::from_secs(20),
            "every backend serves a download",
            || {
                let download = Download::start(playground, "http://10.100.0.1/slow");
                let backend = download.backend();
                let is_new = kept.iter().all(|(other, _)| *other != backend);
                if is_new {
                    kept.push((backend, download));
                } else {
                    download.abandon();
                }
                (kept.len() == backends.len()).then_some(())
            },
        );
        kept
    }

    fn connect(playground: &Playground, address: &str) -> std::io::Result<TcpStream> {
        let address: SocketAddr = address.parse().unwrap();
        playground.inside("client", || {
            TcpStream::connect_timeout(&address, Duration::from_secs(1))
        })
    }
}
