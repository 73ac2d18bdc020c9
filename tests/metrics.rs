//! Promise: collectors of metrics are told what `status` tells, in a text that Prometheus takes; what
//! counts only grows; every family is documented; nobody is told anything over TCP unless that was asked
//! for, and nobody who asks there can disturb anything.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::Path;
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Export, Nginx, Payload, Playground, Service, Status, now, run,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Where the listener of these tests is.
    const LISTEN: &str = "127.0.0.1:9187";

    /// Asks over TCP from the balancer's own host.
    fn scrape(playground: &Playground) -> Export {
        let url = format!("http://{LISTEN}/metrics");
        let text = playground.run_on("lb", "curl", &["-sSf", "-m", "10", &url]);
        Export::read(&text)
    }

    /// Who asks for OpenMetrics has the same series, and the end.
    fn as_openmetrics(playground: &Playground, export: &Export) {
        let url = format!("http://{LISTEN}/metrics");
        let accept = "accept: application/openmetrics-text; version=1.0.0, text/plain; q=0.5";
        let ask = ["-sSf", "-i", "-m", "10", "-H", accept, &url];
        let answer = playground.run_on("lb", "curl", &ask);
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.to_lowercase()
                .contains("content-type: application/openmetrics-text"),
            "{head}"
        );
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        let name = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
        let open: BTreeSet<String> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(name)
            .collect();
        let plain: BTreeSet<String> = export.series.keys().map(|series| name(series)).collect();
        assert_eq!(open, plain);
    }

    /// Asks the admin socket.
    fn scrape_admin(balancer: &Balancer) -> Export {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sSf", "-m", "10", "--unix-socket"]);
        curl.arg(balancer.admin()).arg("http://ringgate/v1/metrics");
        let output = run(&mut curl);
        assert!(output.status.success(), "{output:?}");
        Export::read(&String::from_utf8(output.stdout).unwrap())
    }

    /// Every service of the playground, one of `full-nat`, and one that is not checked.
    fn everything(playground: &Playground) -> Configuration {
        all_but_metrics(playground).metrics("listen = \"127.0.0.1:9187\"\nresidence-sample = 1")
    }

    fn all_but_metrics(playground: &Playground) -> Configuration {
        let backends: Vec<u8> = playground.backends().collect();
        let full = Service::tcp("full4", "10.100.0.1:81").full_nat();
        let bare = Service::udp("bare", "10.100.0.1:53");
        Configuration::native()
            .sources(&["10.2.0.1"])
            .web(backends.iter().copied())
            .service(full.checked().backends(backends.iter().copied(), 8080))
            .service(bare.backends([1], 5353))
    }

    fn visits(playground: &Playground, count: usize) {
        for target in ["10.100.0.1:80", "[fd00:100::1]:80", "10.100.0.1:81"] {
            let visits = playground.visits(target.parse().unwrap(), count);
            assert_eq!(visits.answered(), count, "{target}: {:?}", visits.failures);
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn an_export_says_what_status_says_and_only_grows() {
        let playground = Playground::plan().queues(2).up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 4), "4m");
        let balancer = Balancer::start(RINGGATE, &playground, &everything(&playground));

        visits(&playground, 50);
        let during = scrape(&playground);
        visits(&playground, 50);
        let status = balancer.assert_accounts_balance();
        let after = scrape(&playground);

        assert_agree(&status, &after);
        let mut grown = 0;
        for (series, before) in during.growing() {
            let now = after.number(series);
            assert!(now >= before, "{series} fell from {before} to {now}");
            grown += usize::from(now > before);
        }
        assert!(grown > 50, "only {grown} series grew:\n{}", after.text);
        assert_histograms(&after);
        assert!(after.sum("ringgate_worker_residence_seconds_count", "") > 300.0);
        assert!(after.sum("ringgate_check_duration_seconds_count", "service=\"web4\"") > 0.0);
        assert_eq!(after.complaints(), "");
        let names = |export: Export| export.types.into_keys().collect::<Vec<_>>();
        assert_eq!(names(scrape_admin(&balancer)), names(after));
    }

    /// Everything that both tell, at a quiet moment.
    fn assert_agree(status: &Status, export: &Export) {
        let mut compared = 0;
        let mut same = |what: String, told: u64, family: &str, with: &str| {
            let exported = export.sum(family, with);
            assert!(
                (exported - told as f64).abs() < 0.5,
                "{what}: {told}, but {exported}"
            );
            compared += 1;
        };
        for interface in status.list("/interfaces") {
            let name = interface.text("/name").to_owned();
            let with = format!("interface=\"{name}\"");
            for counter in ["received", "forwarded", "answered"] {
                let family = format!("ringgate_interface_{counter}_packets_total");
                let told = interface.number(&format!("/{counter}"));
                same(format!("{name} {counter}"), told, &family, &with);
            }
            let bytes = interface.number("/received_bytes");
            let family = "ringgate_interface_received_bytes_total";
            same(format!("{name} bytes"), bytes, family, &with);
            for (reason, told) in interface.numbers("/dropped") {
                let with = format!("{with},reason=\"{reason}\"");
                let family = "ringgate_interface_dropped_packets_total";
                same(format!("{name} {reason}"), told, family, &with);
            }
        }
        for service in status.list("/services") {
            let name = service.text("/name").to_owned();
            let mut sum = 0;
            for backend in service.list("/backends") {
                let address = backend.text("/address").to_owned();
                let with = format!("service=\"{name}\",backend=\"{address}\"");
                let packets = backend.number("/packets");
                sum += packets;
                for (told, direction) in [
                    (packets, "request"),
                    (backend.number("/reply_packets"), "reply"),
                ] {
                    let with = format!("{with},direction=\"{direction}\"");
                    same(with.clone(), told, "ringgate_backend_packets_total", &with);
                }
                same(
                    with.clone(),
                    backend.number("/flows"),
                    "ringgate_backend_flows_total",
                    &with,
                );
                let up = u64::from(backend.text("/state") == "up");
                same(with.clone(), up, "ringgate_backend_up", &with);
            }
            let with = format!("service=\"{name}\",direction=\"request\"");
            same(name, sum, "ringgate_service_packets_total", &with);
        }
        for event in ["created", "expired", "rehashed", "half_open"] {
            let told = status.number(&format!("/flows/{event}"));
            let with = format!("event=\"{event}\"");
            same(event.to_owned(), told, "ringgate_flow_events_total", &with);
        }
        assert!(compared > 100, "only {compared} numbers were compared");
    }

    /// Classes rise to the number of all.
    fn assert_histograms(export: &Export) {
        let is_histogram = |kind: &&String| *kind == "histogram";
        let families = export.types.iter().filter(|(_, kind)| is_histogram(kind));
        let mut checked = 0;
        for (family, _) in families {
            let mut rows: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for (series, count) in export.of(&format!("{family}_bucket")) {
                let (labels, bound) = series.split_once("le=\"").unwrap();
                let bound = bound.trim_end_matches("\"}").replace("+Inf", "inf");
                let row = rows.entry(labels.to_owned()).or_default();
                row.push((bound.parse().unwrap(), count));
            }
            for (labels, mut row) in rows {
                row.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(
                    row.is_sorted_by(|one, other| one.1 <= other.1),
                    "{labels} {row:?}"
                );
                let labels = labels.replace("_bucket", "_count");
                let count = labels.trim_end_matches(['{', ',']).to_owned();
                let count = if count.contains('{') {
                    format!("{count}}}")
                } else {
                    count
                };
                let all = row.last().unwrap();
                assert!(all.0.is_infinite() && (all.1 - export.number(&count)).abs() < 0.5);
                checked += 1;
            }
        }
        assert!(
            checked >= 7,
            "two workers, the loop, the services: {checked}"
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_family_is_documented_and_there_are_as_many_series_as_the_page_says() {
        let playground = Playground::plan().queues(2).up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 4), "4m");
        let mut balancer = Balancer::start(RINGGATE, &playground, &everything(&playground));
        let export = scrape(&playground);

        let page = read("docs/METRICS.md");
        let cells = |line: &str| -> Vec<String> {
            line.split('|')
                .map(|cell| cell.trim().replace('`', ""))
                .collect()
        };
        let rows: Vec<Vec<String>> = page.lines().map(cells).collect();
        let documented: BTreeMap<String, String> = rows
            .iter()
            .filter(|row| row.get(1).is_some_and(|name| name.starts_with("ringgate_")))
            .map(|row| (row[1].clone(), row[2].clone()))
            .collect();
        assert_eq!(export.types, documented);
        as_openmetrics(&playground, &export);

        let each = |what: &str| -> usize {
            let row = rows
                .iter()
                .find(|row| row.get(1).is_some_and(|cell| cell == what));
            row.unwrap_or_else(|| panic!("the page has no row {what:?}"))[2]
                .parse()
                .unwrap()
        };
        // 2 workers, 2 interfaces; 6 services, 5 of them checked, with 3 backends, and one with 1.
        let services = each("service") * 6 + each("service that is checked") * 5;
        let all_but_backends = each("balancer")
            + each("worker") * 2
            + each("interface") * 2
            + each("worker on an interface") * 4
            + services
            + each("source address");
        let backends =
            each("backend of a service") * 16 + each("of those, one that is checked") * 15;
        assert_eq!(
            export.series.len(),
            all_but_backends + backends,
            "{}",
            export.text
        );

        let fewer = all_but_metrics(&playground);
        let fewer =
            fewer.metrics("listen = \"127.0.0.1:9187\"\nresidence-sample = 1\nbackends = false");
        balancer.reload(&fewer);
        let export = scrape(&playground);
        assert_eq!(export.series.len(), all_but_backends, "{}", export.text);
        assert_eq!(export.complaints(), "");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn dashboard_and_alerts_ask_for_series_that_there_are() {
        let playground = Playground::plan().queues(2).up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 4), "4m");
        let _balancer = Balancer::start(RINGGATE, &playground, &everything(&playground));
        let export = scrape(&playground);
        let names: BTreeSet<&str> = export
            .series
            .keys()
            .map(|series| series.split('{').next().unwrap())
            .collect();
        for path in ["docs/grafana/ringgate.json", "docs/prometheus/alerts.yml"] {
            let text = read(path);
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let named: BTreeSet<&str> = text
                .split(|c| !is_word(c))
                .filter(|word| word.starts_with("ringgate_"))
                .collect();
            let missing: Vec<_> = named.difference(&names).collect();
            assert!(missing.is_empty(), "{path}: {missing:?}");
        }
        for arguments in [
            ["check", "rules", "docs/prometheus/alerts.yml"],
            ["test", "rules", "docs/prometheus/alerts_test.yml"],
        ] {
            let mut promtool = std::process::Command::new("promtool");
            let promtool = promtool
                .args(arguments)
                .current_dir(env!("CARGO_MANIFEST_DIR"));
            let output = run(promtool);
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn what_a_backend_had_that_is_gone_stays_with_its_service() {
        let playground = Playground::plan().up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 4), "4m");
        let listening = || Configuration::native().metrics("listen = \"127.0.0.1:9187\"");
        let mut balancer = Balancer::start(RINGGATE, &playground, &listening().web([1, 2, 3]));
        let target = "10.100.0.1:80".parse().unwrap();
        assert_eq!(playground.visits(target, 60).answered(), 60);
        balancer.assert_accounts_balance();
        let before = scrape(&playground);
        balancer.reload(&listening().web([1]));
        let after = scrape(&playground);
        let gone = "service=\"web4\",backend=\"10.2.0.12:8080\"";
        assert!(before.sum("ringgate_backend_packets_total", gone) > 0.0);
        assert_eq!(
            after.of("ringgate_backend_up").count(),
            4,
            "one in each service"
        );
        for family in ["flows", "packets", "bytes"] {
            let family = format!("ringgate_service_{family}_total");
            for (series, had) in before.of(&family) {
                assert!(after.number(series) >= had, "{series} fell from {had}");
            }
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn nobody_listens_unless_told_to_and_then_for_one_page_only() {
        let playground = Playground::plan().backends(1).up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 4), "4m");
        let plain = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &plain);
        let sockets = playground.run_on("lb", "ss", &["-Hltn"]);
        assert_eq!(sockets, "", "nobody listens on {LISTEN} or elsewhere");
        assert!(scrape_admin(&balancer).complaints().is_empty());
        drop(balancer);

        let listening = plain.metrics("listen = \"127.0.0.1:9187\"");
        let _balancer = Balancer::start(RINGGATE, &playground, &listening);
        let ask = |request: &str| playground.inside("lb", || say(request.as_bytes()));
        for (request, status) in [
            ("GET /metrics HTTP/1.1\r\n\r\n", "200 OK"),
            ("GET /metrics?x=1 HTTP/1.1\r\n\r\n", "200 OK"),
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET /v1/status HTTP/1.1\r\n\r\n", "404 Not Found"),
            (
                "POST /v1/flush?all=true HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                "404 Not Found",
            ),
            (
                "POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                "405 Method Not Allowed",
            ),
            (
                "POST /metrics HTTP/1.1\r\nContent-Length: 16000000\r\n\r\n",
                "413 Content Too Large",
            ),
            ("\x16\x03\x01\x02\r\n\r\n", "400 Bad Request"),
        ] {
            let answer = ask(request);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{request:?}: {answer}"
            );
        }
    }

    /// Sends bytes to the listener and returns what it answers until it closes.
    fn say(bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(LISTEN).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // Closing with some of the request unread resets the connection, after the answer.
        let _partly = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn silent_slow_and_garbling_clients_disturb_nobody() {
        let playground = Playground::plan().up();
        let _nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 4), "4m");
        let balancer = Balancer::start(RINGGATE, &playground, &everything(&playground));
        let before = balancer.status();
        let crowd: Vec<TcpStream> = playground.inside("lb", || {
            let begin = |number: usize| {
                let mut stream = TcpStream::connect(LISTEN).unwrap();
                let bytes: &[u8] = match number % 4 {
                    0 => b"",
                    1 => b"GET /metrics HTTP/1.1\r\nX: ",
                    2 => b"\0\xff\x16garbage",
                    // Asks, and reads nothing of the answer.
                    _ => b"GET /metrics HTTP/1.1\r\n\r\n",
                };
                // One whose garbage was answered already may be closed.
                let _partly = stream.write_all(bytes);
                stream
            };
            (0..40).map(begin).collect()
        });
        // More than are served at once: the listener is busy, and nothing else is.
        visits(&playground, 50);
        assert!(scrape_admin(&balancer).series.len() > 500);
        let status = balancer.status();
        for service in status.list("/services") {
            for backend in service.list("/backends") {
                assert_eq!(backend.text("/state"), "up", "{status}");
            }
        }
        let failures = |status: &Status| status.number("/services/0/backends/0/check/failures");
        assert_eq!(failures(&status), failures(&before), "no check was late");
        // They are shut out one after the other, and then collectors are served again.
        let begin = now();
        let url = format!("http://{LISTEN}/metrics");
        let text = playground.run_on("lb", "curl", &["-sSf", "-m", "60", &url]);
        assert!(
            now() - begin < Duration::from_secs(40),
            "{:?}",
            now() - begin
        );
        assert_eq!(Export::read(&text).complaints(), "");
        drop(crowd);
        balancer.assert_accounts_balance();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn an_address_that_cannot_be_had_stops_the_start_with_a_cure() {
        let playground = Playground::plan().backends(1).up();
        let configuration = Configuration::native().metrics("listen = \"192.0.2.1:9187\"");
        let configuration = configuration.web(playground.backends());
        let mut balancer = Balancer::start_unready(RINGGATE, &playground, &configuration, &[]);
        let ended = balancer.wait(Duration::from_secs(15));
        assert_eq!(ended.code(), Some(1), "{}", balancer.log());
        let log = balancer.log();
        assert!(log.contains("cannot listen on 192.0.2.1:9187"), "{log}");
    }

    fn read(path: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }
}
