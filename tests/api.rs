//! Promise: what operators change while it runs is in force at once and costs nobody a request; it
//! is shown as unsaved, stays over a reload while the file says the same, and can be written into
//! the file. Every answer is as `docs/openapi.json` says. Who is in no group gets nothing, and
//! nonsense gets an answer and disturbs nobody.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::net::SocketAddr;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::process::{Command, Output};
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Download, Nginx, Payload, Playground, Process, Service, run, until,
    };
    use serde_json::{Value, json};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const WEB: &str = "10.100.0.1:80";

    /// The second backend, as it is called.
    const B2: [&str; 2] = ["web", "10.2.0.12"];

    const VISITS: usize = 600;

    fn web() -> Configuration {
        let service = Service::tcp("web", WEB).checked().backends(1..=3, 8080);
        Configuration::native().service(service)
    }

    /// A playground with nginx on three backends, and a balancer before them.
    struct Scene {
        playground: Playground,
        payload: Payload,
        _nginx: Vec<Nginx>,
        balancer: Balancer,
    }

    impl Scene {
        fn up(seed: u64) -> Self {
            let playground = Playground::plan().queues(2).up();
            let payload = Payload::megabytes(8, seed);
            let nginx = Nginx::on_all(&playground, &payload, "2m");
            let balancer = Balancer::start(RINGGATE, &playground, &web());
            Self {
                playground,
                payload,
                _nginx: nginx,
                balancer,
            }
        }

        /// How many visits of so many each backend got; none has failed.
        fn shares(&self) -> [usize; 3] {
            let target: SocketAddr = WEB.parse().unwrap();
            let visits = self.playground.visits(target, VISITS);
            assert_eq!(visits.failures, Vec::<String>::new());
            assert_eq!(visits.answered(), VISITS);
            ["b1", "b2", "b3"].map(|name| visits.of(name))
        }

        /// A slow download that the second backend serves.
        fn download_of_b2(&self) -> Download {
            until(Duration::from_secs(20), "the second backend serves", || {
                let download = Download::start(&self.playground, "http://10.100.0.1/slow");
                if download.backend() == "b2" {
                    return Some(download);
                }
                download.abandon();
                None
            })
        }

        fn ok(&self, arguments: &[&str]) -> String {
            let output = self.balancer.ask(arguments);
            assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
            String::from_utf8(output.stdout).unwrap()
        }

        fn b2(&self) -> Value {
            self.balancer.status().backend("web", 2).0
        }

        /// The events so far, with what belongs to each, without number and time.
        fn events(&self) -> Vec<Value> {
            let lines = self.ok(&["events", "--json", "--last", "1024"]);
            let event = |line: &str| {
                let mut event: Value = serde_json::from_str(line).unwrap();
                let fields = event.as_object_mut().unwrap();
                assert!(
                    fields
                        .remove("number")
                        .is_some_and(|number| number.is_u64())
                );
                assert!(fields.remove("time").is_some_and(|time| time.is_string()));
                event
            };
            lines.lines().map(event).collect()
        }
    }

    fn complaint(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Whether `wanted` are among `all`, in this order.
    fn are_in_order(wanted: &[Value], all: &[Value]) -> bool {
        let mut all = all.iter();
        wanted.iter().all(|one| all.any(|event| event == one))
    }

    fn state_of_b2(before: &str, state: &str) -> Value {
        json!({
            "event": "backend",
            "service": "web",
            "backend": "10.2.0.12:8080",
            "before": before,
            "state": state,
        })
    }

    fn changed(change: &str) -> Value {
        json!({
            "event": "changed",
            "service": "web",
            "backend": "10.2.0.12:8080",
            "change": change,
        })
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_drain_ends_when_the_last_connection_does_and_no_request_fails() {
        let scene = Scene::up(21);
        let follower = follow_events(&scene.balancer);
        let mut download = scene.download_of_b2();
        let [_, before, _] = scene.shares();
        assert!(before > VISITS / 5, "{before}");

        // Too short: the download goes on.
        let output = scene
            .balancer
            .ask(&["drain", B2[0], B2[1], "--timeout", "1s"]);
        assert_eq!(output.status.code(), Some(3), "{}", complaint(&output));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("draining, weight 100"), "{said}");
        assert!(said.contains("the time is up: 1 flows left"), "{said}");
        assert!(download.is_running(), "it has to run across the drain");
        let b2 = scene.b2();
        assert_eq!(
            (&b2["state"], &b2["weight"]),
            (&json!("draining"), &json!(0))
        );
        assert_eq!(b2["unsaved"], "draining");

        // New connections go elsewhere while it waits.
        let said = std::thread::scope(|scope| {
            let waits = scope.spawn(|| scene.ok(&["drain", B2[0], B2[1], "--wait"]));
            let [_, during, _] = scene.shares();
            assert_eq!(during, 0);
            waits.join().unwrap()
        });
        assert!(said.contains("1 flows left\n"), "{said}");
        assert!(said.ends_with("drained: no flow is left\n"), "{said}");
        // It was over just then, and not cut off.
        assert_eq!(download.finish(), Ok(scene.payload.sha256.clone()));

        scene.ok(&["enable", B2[0], B2[1]]);
        let [_, after, _] = scene.shares();
        assert!(after > VISITS / 5, "{after}");
        let refused = scene.balancer.ask(&["flows", B2[0], "10.2.0.77"]);
        assert!(complaint(&refused).contains("backends: 10.2.0.11:8080"));

        let events = scene.events();
        let drained = json!({ "event": "drained", "service": "web", "backend": "10.2.0.12:8080" });
        let wanted = [
            json!({ "event": "ready" }),
            changed("draining"),
            state_of_b2("up", "draining"),
            drained,
            changed("draining no more"),
            state_of_b2("draining", "up"),
        ];
        assert!(are_in_order(&wanted, &events), "{events:#?}");
        // Who follows has been told the same, as it happened.
        until(Duration::from_secs(5), "the follower has it all", || {
            let text = fs::read_to_string(&follower.1).unwrap();
            text.contains("draining no more").then_some(())
        });
        scene.balancer.assert_accounts_balance();
    }

    /// `ringgate events --follow`, and what it prints.
    fn follow_events(balancer: &Balancer) -> (Process, std::path::PathBuf) {
        let path = balancer.file().with_file_name("events");
        let mut command = Command::new(RINGGATE);
        command.args(["events", "--follow", "--admin"]);
        command.arg(balancer.admin());
        command.stdout(fs::File::create(&path).unwrap());
        (Process::start(&mut command), path)
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn weights_are_seen_in_shares_and_what_is_disabled_gets_nothing() {
        let mut scene = Scene::up(22);
        scene.ok(&["weight", B2[0], B2[1], "20"]);
        // 20 of 220 of 600: 54.5, give or take five standard deviations of 7.
        let [_, of_b2, _] = scene.shares();
        assert!((20..=90).contains(&of_b2), "{of_b2}");
        scene.ok(&["disable", B2[0], B2[1]]);
        assert_eq!(scene.b2()["state"], "disabled");
        assert_eq!(scene.shares()[1], 0);
        scene.ok(&["enable", B2[0], B2[1]]);
        scene
            .balancer
            .wait_for(Duration::from_secs(5), "it is up", |status| {
                status.states(2) == ["up"]
            });
        let [_, of_b2, _] = scene.shares();
        assert!(
            (20..=90).contains(&of_b2),
            "the weight is remembered: {of_b2}"
        );
        assert_eq!(scene.b2()["unsaved"], "weight 20 for 100");
        assert_eq!(scene.balancer.status().number("/unsaved"), 1);

        the_overlay_stays_while_the_file_says_the_same(&mut scene);
        saving_writes_the_file_and_nothing_else(&mut scene);
        let events = scene.events();
        let wanted = [
            changed("weight 20 for 100"),
            changed("disabled"),
            state_of_b2("up", "disabled"),
            changed("enabled"),
            json!({ "event": "reloaded", "services": 1 }),
            changed("no longer weight 20 for 100"),
            changed("weight 30 for 40"),
            json!({ "event": "saved", "backends": 1 }),
        ];
        assert!(are_in_order(&wanted, &events), "{events:#?}");
        scene.balancer.assert_accounts_balance();
    }

    fn the_overlay_stays_while_the_file_says_the_same(scene: &mut Scene) {
        let text = fs::read_to_string(scene.balancer.file()).unwrap();
        scene
            .balancer
            .rewrite(&text.replace("drain = \"5s\"", "drain = \"6s\""));
        assert_eq!(scene.ok(&["reload"]), "balancer.drain 5s -> 6s\nreloaded\n");
        assert_eq!(
            scene.b2()["weight"],
            20,
            "the file says 100 of it, as before"
        );
        let own = "address = \"10.2.0.12:8080\"\n  weight = 100";
        assert!(text.contains(own), "{text}");
        let other = text.replace(own, "address = \"10.2.0.12:8080\"\n  weight = 40");
        scene.balancer.rewrite(&other);
        scene.ok(&["reload"]);
        let b2 = scene.b2();
        assert_eq!((&b2["weight"], &b2["unsaved"]), (&json!(40), &Value::Null));
        assert!(scene.balancer.log().contains("no longer weight 20 for 100"));
        // One that is refused tells why, and changes nothing.
        scene.balancer.rewrite("[balancer]\nworkers = \"two\"\n");
        let output = scene.balancer.ask(&["reload"]);
        assert_eq!(output.status.code(), Some(2));
        let said = complaint(&output);
        assert!(
            said.contains("ringgate.toml:2:11") && said.contains("interface"),
            "{said}"
        );
        scene.balancer.rewrite(&other);
        assert_eq!(scene.b2()["weight"], 40);
    }

    fn saving_writes_the_file_and_nothing_else(scene: &mut Scene) {
        let said = scene.ok(&["save"]);
        assert!(said.starts_with("nothing to save"), "{said}");
        let text = fs::read_to_string(scene.balancer.file()).unwrap();
        let text = text.replace("weight = 40", "weight = 40 # as measured");
        scene.balancer.rewrite(&text);
        scene.ok(&["weight", B2[0], B2[1], "30"]);
        // The file says something else by now.
        scene
            .balancer
            .rewrite(&text.replace("weight = 40", "weight = 41"));
        let output = scene.balancer.ask(&["save"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            complaint(&output).contains("reload it first"),
            "{}",
            complaint(&output)
        );
        scene.balancer.rewrite(&text);
        let said = scene.ok(&["save"]);
        assert!(said.contains("1 backends changed"), "{said}");
        let saved = fs::read_to_string(scene.balancer.file()).unwrap();
        assert_eq!(saved, text.replace("weight = 40", "weight = 30"));
        let b2 = scene.b2();
        assert_eq!((&b2["weight"], &b2["unsaved"]), (&json!(30), &Value::Null));
        scene.ok(&["reload"]);
        assert_eq!(scene.b2()["weight"], 30);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_answer_is_as_the_document_says() {
        let scene = Scene::up(23);
        let _download = scene.download_of_b2();
        let document = ask(&scene.balancer, "GET", "/v1/openapi").1;
        let document: Value = serde_json::from_str(&document).unwrap();
        let b2 = "service=web&backend=10.2.0.12";
        let explain = "protocol=tcp&from=10.1.0.2:5&to=10.100.0.1:80";
        for (method, path, query) in [
            ("GET", "/v1/status", ""),
            ("GET", "/v1/services", "service=web"),
            ("GET", "/v1/backends", "state=up"),
            ("GET", "/v1/counters", ""),
            ("GET", "/v1/explain", explain),
            ("GET", "/v1/openapi", ""),
            (
                "GET",
                "/v1/flows",
                "client=10.1.0.0/16&state=established&limit=5",
            ),
            ("POST", "/v1/weight", &format!("{b2}&weight=3")),
            ("POST", "/v1/disable", b2),
            ("POST", "/v1/enable", b2),
            ("POST", "/v1/drain", b2),
            ("GET", "/v1/drain", &format!("{b2}&timeout=1")),
            ("GET", "/v1/config", ""),
            ("POST", "/v1/flush", b2),
            ("POST", "/v1/reload", ""),
            ("POST", "/v1/save", ""),
            ("GET", "/v1/events", ""),
            ("GET", "/v1/metrics", ""),
            ("GET", "/v1/trace", "filter=tcp&packets=3&seconds=10"),
        ] {
            let (status, body) = ask(&scene.balancer, method, &format!("{path}?{query}"));
            assert_eq!(status, 200, "{method} {path}: {body}");
            is_as_documented(&document, (method, path, status), &body);
        }
        let file = fs::read_to_string(scene.balancer.file()).unwrap();
        for (path, toml, status) in [
            ("/v1/diff", file.as_str(), 200),
            ("/v1/apply", file.as_str(), 200),
            ("/v1/diff", "[balancer]\nworkers = 0", 422),
            ("/v1/apply", "no TOML", 422),
        ] {
            let (found, body) = post(&scene.balancer, path, toml);
            assert_eq!(found, status, "{path}: {body}");
            is_as_documented(&document, ("POST", path, status), &body);
        }
        for (method, path, query, status) in [
            ("GET", "/v1/explain", "", 400),
            ("GET", "/v1/backends", "state=upp", 400),
            ("GET", "/v1/flows", "service=wep", 404),
            ("GET", "/v1/flows", "cursor=99999999", 400),
            ("GET", "/v1/drain", "service=web&backend=10.2.0.11", 409),
            (
                "POST",
                "/v1/weight",
                "service=web&backend=10.2.0.11&weight=-1",
                400,
            ),
            ("POST", "/v1/disable", "service=web", 400),
            ("POST", "/v1/flush", "", 400),
            ("POST", "/v1/report", &format!("{b2}&state=up"), 409),
            ("POST", "/v1/report", &format!("{b2}&state=well"), 400),
            ("GET", "/v1/trace", "filter=nonsense", 400),
            ("GET", "/v1/capture", "packets=none", 400),
        ] {
            let (found, body) = ask(&scene.balancer, method, &format!("{path}?{query}"));
            assert_eq!(found, status, "{method} {path}?{query}: {body}");
            is_as_documented(&document, (method, path, status), &body);
        }
        pages_have_every_flow_once(&scene);
    }

    fn is_as_documented(document: &Value, (method, path, status): (&str, &str, u16), body: &str) {
        let operation = &document["paths"][path][method.to_lowercase()];
        let mut response = &operation["responses"][status.to_string()];
        if let Some(there) = response["$ref"].as_str() {
            response = document.pointer(there.strip_prefix('#').unwrap()).unwrap();
        }
        let (kind, content) = response["content"]
            .as_object()
            .unwrap()
            .iter()
            .next()
            .unwrap();
        let mut schema = content["schema"].clone();
        schema["components"] = document["components"].clone();
        let schema = jsonschema::draft202012::new(&schema).unwrap();
        let values: Vec<Value> = match kind.as_str() {
            "application/x-ndjson" => {
                let lines = body.lines();
                lines
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect()
            }
            "application/json" => vec![serde_json::from_str(body).unwrap()],
            _ => vec![body.into()],
        };
        assert!(!values.is_empty(), "{method} {path} says nothing");
        for value in values {
            if let Err(error) = schema.validate(&value) {
                panic!(
                    "{method} {path}: {error} at {}\n{value:#}",
                    error.instance_path()
                );
            }
        }
    }

    /// Flows that are there all the time, while others come and go.
    fn pages_have_every_flow_once(scene: &Scene) {
        let list = |limit: usize| {
            let (mut clients, mut cursor) = (Vec::new(), String::new());
            loop {
                let target = format!("/v1/flows?service=web&limit={limit}{cursor}");
                let page: Value =
                    serde_json::from_str(&ask(&scene.balancer, "GET", &target).1).unwrap();
                for flow in page["flows"].as_array().unwrap() {
                    clients.push(flow["client"].as_str().unwrap().to_owned());
                }
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return clients,
                }
            }
        };
        scene.shares();
        let all = list(10_000);
        assert!(all.len() > VISITS / 2, "{}", all.len());
        let mut paged = list(7);
        let count = paged.len();
        paged.sort();
        paged.dedup();
        assert_eq!(paged.len(), count, "one is there twice");
        // Those of the visits are over, and are forgotten ten seconds later.
        let missing = all.iter().filter(|one| !paged.contains(one)).count();
        assert!(missing < all.len() / 10, "{missing} of {}", all.len());
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn others_may_what_their_groups_may() {
        let scene = Scene::up(24);
        let home = tempfile::tempdir().unwrap();
        let directory = scene.balancer.file().parent().unwrap().to_owned();
        for folder in [&directory, home.path()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let binary = home.path().join("ringgate");
        fs::copy(RINGGATE, &binary).unwrap();
        let as_member = |groups: &str, arguments: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65533", "--groups", groups]);
            command.arg(&binary).args(arguments).arg("--admin");
            let output = run(command.arg(scene.balancer.admin()));
            (output.status.code(), complaint(&output))
        };
        let disable = ["disable", B2[0], B2[1]];
        let (code, said) = as_member("65532", &["status"]);
        assert_eq!(code, Some(1));
        assert!(said.contains("no permission"), "{said}");

        let text = fs::read_to_string(scene.balancer.file()).unwrap();
        let api = "[api]\nread-group = \"4000001\"\nwrite-group = \"4000002\"\n";
        scene.balancer.rewrite(&(text + api));
        scene.ok(&["reload"]);
        let (code, said) = as_member("65532", &["status"]);
        assert_eq!(code, Some(1));
        assert!(
            said.contains("member of the group 4000001 or 4000002"),
            "{said}"
        );
        assert_eq!(as_member("65532,4000001", &["status"]).0, Some(0));
        assert_eq!(as_member("4000001", &["events"]).0, Some(0));
        let (code, said) = as_member("4000001", &disable);
        assert_eq!(code, Some(1));
        assert!(said.contains("member of the group 4000002"), "{said}");
        assert_eq!(scene.b2()["state"], "up");
        // More groups than are asked for at once.
        let many: Vec<String> = (5_000_000..5_000_200)
            .map(|group| group.to_string())
            .collect();
        let many = format!("{},4000002", many.join(","));
        assert_eq!(as_member(&many, &disable), (Some(0), String::new()));
        assert_eq!(scene.b2()["state"], "disabled");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn nonsense_gets_an_answer_and_disturbs_nobody() {
        let scene = Scene::up(25);
        let download = scene.download_of_b2();
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000));
        let head = "POST /v1/weight?service=web&backend=10.2.0.12&weight=1 HTTP/1.1\r\n";
        let silent: Vec<UnixStream> = (0..8)
            .map(|_| UnixStream::connect(scene.balancer.admin()).unwrap())
            .collect();
        for (bytes, status) in [
            (long.as_str(), "431"),
            ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "400"),
            ("DELETE /v1/status HTTP/1.1\r\n\r\n", "405"),
            ("GET /v2/status HTTP/1.1\r\n\r\n", "404"),
            (
                "GET /v1/status HTTP/1.1\r\n\r\nGET /v1/status HTTP/1.1\r\n\r\n",
                "400",
            ),
            (
                &format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                "411",
            ),
            (&format!("{head}Content-Length: x\r\n\r\n"), "400"),
            (&format!("{head}Content-Length: 99999999\r\n\r\n"), "413"),
            (&format!("{head}Content-Length: 5\r\n\r\nab"), "400"),
        ] {
            let answer = talk(&scene.balancer.admin(), bytes.as_bytes());
            let shown: String = bytes.chars().take(60).collect();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{shown:?}: {answer}"
            );
            assert!(answer.contains("{\"error\":\""), "{shown:?}: {answer}");
        }
        assert_eq!(scene.b2()["weight"], 100);
        scene.shares();
        drop(silent);
        assert_eq!(download.finish(), Ok(scene.payload.sha256.clone()));
        scene.balancer.assert_accounts_balance();
    }

    /// Asks, and takes the answer apart: its status and its body, whole.
    fn ask(balancer: &Balancer, method: &str, target: &str) -> (u16, String) {
        taken_apart(
            balancer,
            &format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n"),
        )
    }

    fn post(balancer: &Balancer, target: &str, toml: &str) -> (u16, String) {
        let length = toml.len();
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        taken_apart(balancer, &(head + toml))
    }

    fn taken_apart(balancer: &Balancer, request: &str) -> (u16, String) {
        let answer = talk(&balancer.admin(), request.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if !head.contains("chunked") {
            return (status, body.to_owned());
        }
        let (mut rest, mut whole) = (body, String::new());
        while let Some((length, more)) = rest.split_once("\r\n") {
            let length = usize::from_str_radix(length, 16).unwrap();
            whole.push_str(&more[..length]);
            rest = &more[length + 2..];
        }
        (status, whole)
    }

    /// Sends bytes and nothing more, and reads to the end.
    fn talk(admin: &Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(admin).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // It may have answered and closed before all was sent.
        let _partly = stream.write_all(bytes);
        let _ended = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}
