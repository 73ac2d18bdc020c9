//! Promise: SIGHUP takes the whole new file or nothing of it. A file with mistakes is refused
//! with every one of them in the log, and traffic does not notice; a good one applies, and
//! established flows keep their backend.

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
