//! Promise: whoever asks for it is told of one in N flows when it began, when and why it ended, and what each side
//! sent, as the ends themselves know it; each once, whatever worker had its packets; and what could not be told is
//! counted.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Frame, Nginx, Payload, Playground, RawLink, Service, pause, until,
    };
    use rustix::process::Signal;
    use serde_json::Value;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");
    const WEB: &str = "10.100.0.1:80";
    const PATIENCE: Duration = Duration::from_secs(20);

    /// IPv4's header, and TCP's with time stamps, as Linux sends them.
    const HEADERS: u64 = 20 + 32;

    /// What the log has told of flows in a certain way: the fields of each line, by name.
    fn told(balancer: &Balancer, message: &str) -> Vec<BTreeMap<String, String>> {
        let log = balancer.log();
        let of_json = |line: &str| {
            let fields: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
            let text = |value: Value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            };
            let fields = fields.into_iter().map(|(key, value)| (key, text(value)));
            let fields: BTreeMap<String, String> = fields.collect();
            (fields.get("message")? == message).then_some(fields)
        };
        let of_text = |line: &str| {
            let (_, fields) = line.split_once(&format!(" {message} "))?;
            let fields = fields.split(' ').filter_map(|field| field.split_once('='));
            let plain =
                |(key, value): (&str, &str)| (key.to_owned(), value.trim_matches('"').to_owned());
            Some(fields.map(plain).collect())
        };
        log.lines()
            .filter_map(|line| of_json(line).or_else(|| of_text(line)))
            .collect()
    }

    /// Waits until so many ends were told of, and gives them by client; each has a beginning before it.
    fn ended(balancer: &Balancer, count: usize) -> BTreeMap<String, BTreeMap<String, String>> {
        until(PATIENCE, "every end is told", || {
            (told(balancer, "flow ended").len() >= count).then_some(())
        });
        let began = told(balancer, "flow began");
        let mut all = BTreeMap::new();
        for end in told(balancer, "flow ended") {
            let its = |one: &&BTreeMap<String, String>| {
                [
                    "client", "began", "backend", "listen", "service", "protocol",
                ]
                .iter()
                .all(|key| one.get(*key) == end.get(*key))
            };
            assert_eq!(began.iter().filter(its).count(), 1, "{end:?}");
            assert!(end["ended"] >= end["began"], "{end:?}");
            let twice = all.insert(end["client"].clone(), end);
            assert!(twice.is_none(), "{twice:?}");
        }
        all
    }

    fn number(fields: &BTreeMap<String, String>, key: &str) -> u64 {
        fields[key].parse().unwrap()
    }

    /// What one end of a connection knows of it: who it was, and the bytes that it has sent and got.
    fn fetch(path: &str) -> (String, u64, u64) {
        let mut stream = TcpStream::connect(WEB).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let who = stream.local_addr().unwrap().to_string();
        (who, request.len() as u64, answer.len() as u64)
    }

    fn world(flows: &str, queues: u8) -> (Playground, Vec<Nginx>, Balancer) {
        let playground = Playground::plan().queues(queues).up();
        let nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 11), "1m");
        let balancer = Balancer::start(RINGGATE, &playground, &web(&playground, flows));
        (playground, nginx, balancer)
    }

    fn web(playground: &Playground, flows: &str) -> Configuration {
        let table = format!("[log]\nflows = {flows}");
        Configuration::native()
            .web(playground.backends())
            .table(&table)
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_connection_is_told_with_the_bytes_that_its_ends_know() {
        let (playground, _nginx, balancer) = world("1", 2);
        let fetched = playground.inside("client", || {
            let path = |number| if number % 10 == 0 { "/file" } else { "/" };
            Vec::from_iter((0..100).map(|number| fetch(path(number))))
        });
        let ends = ended(&balancer, 100);
        assert_eq!(ends.len(), 100);
        let mut exact = 0;
        for (client, sent, got) in fetched {
            let end = &ends[&client];
            assert_eq!(
                ["service", "listen", "protocol", "reason"].map(|key| &*end[key]),
                ["web4", WEB, "tcp", "closed"]
            );
            assert!(end["backend"].ends_with(":8080"), "{end:?}");
            assert!(number(end, "duration_ms") < 20_000, "{end:?}");
            let sides = [
                ("packets", "bytes", sent),
                ("reply_packets", "reply_bytes", got),
            ];
            let sides = sides.map(|(packets, bytes, data)| {
                let headers = number(end, packets) * HEADERS;
                (number(end, bytes), headers + data)
            });
            // Every byte came by at least once; more headers where something was said of what is missing.
            for (bytes, known) in sides {
                assert!(bytes >= known, "{end:?}: {sent} sent, {got} got");
            }
            exact += usize::from(sides.iter().all(|(bytes, known)| bytes == known));
        }
        assert!(exact >= 90, "{exact} of 100 without anything sent twice");
        let status = balancer.assert_accounts_balance();
        for (key, expected) in [
            ("one_in", 1),
            ("began", 100),
            ("ended", 100),
            ("open", 0),
            ("lost", 0),
        ] {
            assert_eq!(
                status.number(&format!("/flows/log/{key}")),
                expected,
                "{key}"
            );
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_tenth_is_told_and_a_reload_changes_it_and_ends_it() {
        let (playground, _nginx, mut balancer) = world("10", 2);
        let service: SocketAddr = WEB.parse().unwrap();
        assert_eq!(playground.visits(service, 1000).answered(), 1000);
        let created = balancer.status().number("/flows/created");
        assert!(created >= 1000, "{created}");
        until(PATIENCE, "nothing is left to be told", || {
            let status = balancer.status();
            let [began, ended] =
                ["began", "ended"].map(|key| status.number(&format!("/flows/log/{key}")));
            (began > 50 && began == ended && status.number("/flows/log/open") == 0).then_some(())
        });
        let status = balancer.status();
        assert_eq!(status.number("/flows/log/lost"), 0);
        let tenth = told(&balancer, "flow ended").len();
        assert!((50..200).contains(&tenth), "{tenth} of 1000");
        // Both directions of each, whoever had them.
        for end in ended(&balancer, tenth).values() {
            assert_eq!(end["reason"], "closed", "{end:?}");
            assert!(
                number(end, "packets") >= 3 && number(end, "reply_packets") >= 2,
                "{end:?}"
            );
        }
        // None from now on.
        balancer.reload(&web(&playground, "\"off\""));
        assert_eq!(playground.visits(service, 100).answered(), 100);
        assert_eq!(told(&balancer, "flow began").len(), tenth);
        assert!(balancer.status().0["flows"]["log"]["one_in"].is_null());
        // All; and one that is open when it is over goes on.
        balancer.reload(&web(&playground, "1"));
        let open = playground.inside("client", || TcpStream::connect(service).unwrap());
        until(PATIENCE, "it is told", || {
            (told(&balancer, "flow began").len() == tenth + 1).then_some(())
        });
        balancer.reload(&web(&playground, "\"off\""));
        let client = open.local_addr().unwrap().to_string();
        assert_eq!(ended(&balancer, tenth + 1)[&client]["reason"], "log-ended");
        assert!(ringgate_playground::request(open).is_ok());
    }

    /// A log that is an object a line.
    fn objects(log: &str) -> Vec<Value> {
        let lines = log.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn what_has_no_room_is_counted_and_a_stop_tells_the_rest_as_json() {
        // Datagrams that nobody answers, of more flows than can be followed.
        const FLOWS: u64 = 90_000;
        let playground = Playground::plan().up();
        let service = Service::udp("deaf", "10.100.0.1:7000").backends(playground.backends(), 7000);
        let table = "[log]\nflows = 1\nformat = \"json\"\nlevel = \"error\"";
        let configuration = Configuration::native().drain("0s").flows(1 << 20);
        let configuration = configuration.service(service).table(table);
        let mut balancer = Balancer::start_unready(RINGGATE, &playground, &configuration, &[]);
        let to: SocketAddr = "10.100.0.1:7000".parse().unwrap();
        let macs = [
            playground.hardware_address("client", "c0"),
            playground.hardware_address("lb", "front"),
        ];
        let link = RawLink::open(&playground, "client", "c0");
        let send = |number: u64| {
            let host = u8::try_from(10 + number / 50_000).unwrap();
            let port = u16::try_from(1024 + number % 50_000).unwrap();
            let from = SocketAddr::from(([10, 1, 0, host], port));
            link.send(Frame::datagram(macs, from, to).bytes());
        };
        until(PATIENCE, "a datagram is forwarded", || {
            send(FLOWS);
            let status = balancer.try_status()?;
            (status.number("/flows/created") > 0).then_some(())
        });
        // Again, until the ring of the one worker had room for nearly all.
        until(
            PATIENCE * 3,
            "more flows are stored than can be followed",
            || {
                for number in 0..FLOWS {
                    send(number);
                    if number % 256 == 0 {
                        pause(Duration::from_millis(1));
                    }
                }
                (balancer.status().number("/flows/created") > FLOWS * 85 / 100).then_some(())
            },
        );
        let status = balancer.assert_accounts_balance();
        let of = |key: &str| status.number(&format!("/flows/log/{key}"));
        let created = status.number("/flows/created");
        let capacity = of("capacity");
        assert!(of("open") >= capacity, "{status}");
        assert!(of("lost") > 0, "{status}");
        assert_eq!(of("open") + of("lost"), created, "{status}");
        let open = of("open");
        balancer.signal(Signal::TERM);
        assert!(balancer.wait(PATIENCE).success());
        let lines = objects(&balancer.log());
        let of_message = |message: &str| {
            lines
                .iter()
                .filter(|line| line["message"] == message)
                .count() as u64
        };
        assert_eq!(
            (of_message("flow began"), of_message("flow ended")),
            (open, open)
        );
        let stopped =
            |line: &&Value| line["message"] == "flow ended" && line["reason"] == "stopped";
        let one = lines.iter().find(stopped).expect("one that has not ended");
        let bytes = one["packets"].as_u64().map(|packets| packets * 60);
        assert!(bytes > Some(0) && one["bytes"].as_u64() == bytes, "{one}");
        assert_eq!(
            (&one["reply_packets"], &one["service"]),
            (&0.into(), &"deaf".into())
        );
    }
}
