//! Promise: a backend is asked in the way that its service names, and seen for what it is: by real servers
//! (nginx, dnsmasq, gRPC's own) and by such as misbehave in every way, all at once. What is wrong with one is
//! told in words that say what to do, and disturbs no other.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use ringgate_playground::{
        Backend, Balancer, Configuration, Playground, Process, Service, Status, until, visit,
    };
    use tempfile::TempDir;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");
    const HEALTH_SERVER: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/support/servers/health_server.py"
    );

    /// Where those who come by TLS are answered.
    const REMOTE: &str = "127.0.0.1:9443";
    const REMOTE_PORT: u16 = 9443;

    /// How long servers may take to start, and all checks to have had a result.
    const PATIENCE: Duration = Duration::from_secs(40);

    /// So many checks of each good backend in a row succeed beside the bad ones.
    const UNDISTURBED: u64 = 6;

    /// One backend: its name, address, what is checked, and what is wrong with it, if anything.
    type Case = (&'static str, &'static str, String, Option<&'static str>);

    /// Certificates of one authority, as files.
    struct Papers(TempDir);

    impl Papers {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let write = |name: &str, text: String| fs::write(folder.path().join(name), text);
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(DnType::CommonName, "The Authority");
            write("authority.pem", params.self_signed(&key).unwrap().pem()).unwrap();
            let issuer = Issuer::new(params, key);
            for name in ["www.example.com", "balancer.example"] {
                let key = KeyPair::generate().unwrap();
                let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
                let certificate = params.signed_by(&key, &issuer).unwrap();
                write(&format!("{name}.pem"), certificate.pem()).unwrap();
                write(&format!("{name}.key"), key.serialize_pem()).unwrap();
            }
            Self(folder)
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).display().to_string()
        }

        /// The keys of a check that believes the authority.
        fn tls(&self) -> String {
            let authority = self.path("authority.pem");
            format!("server-name = \"www.example.com\", verify = \"{authority}\"")
        }

        fn own(&self) -> String {
            format!(
                "certificate = \"{}\", certificate-key = \"{}\"",
                self.path("balancer.example.pem"),
                self.path("balancer.example.key")
            )
        }
    }

    fn nginx(playground: &Playground, papers: &Papers) -> Process {
        let folder = papers.0.path();
        let path = folder.display();
        let certificate = format!(
            "ssl_certificate {}; ssl_certificate_key {};",
            papers.path("www.example.com.pem"),
            papers.path("www.example.com.key")
        );
        let authority = papers.path("authority.pem");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {path}/{what};\n"))
            .concat();
        let text = format!(
            "user root; daemon off; master_process off; pid {path}/nginx.pid;
            error_log {path}/error.log; events {{ }}
            http {{ access_log off; {temporary}
              server {{ listen 10.2.0.11:8080; listen [fd00:2::11]:8080; server_name known;
                location / {{ return 200 \"all is well\"; }}
                location /moved {{ return 302 /; }}
                location /broken {{ return 500 \"no\"; }} }}
              server {{ listen 10.2.0.11:8443 ssl; {certificate}
                location / {{ return 200 \"all is well\"; }} }}
              server {{ listen 10.2.0.11:8444 ssl; {certificate}
                ssl_client_certificate {authority}; ssl_verify_client on;
                location / {{ return 200 \"$ssl_client_s_dn\"; }} }}
            }}"
        );
        fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut command = playground.on("b1", "nginx");
        command.arg("-e").arg(folder.join("error.log"));
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"));
        Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Real servers, all on b1.
    fn servers(playground: &Playground, papers: &Papers) -> Vec<Process> {
        let mut dnsmasq = playground.on("b1", "dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ]);
        dnsmasq.args(["--user=root", "--pid-file=", "--bind-interfaces"]);
        dnsmasq.args([
            "--listen-address=10.2.0.11",
            "--address=/a.example/192.0.2.1",
        ]);
        dnsmasq.args(["--txt-record=t.example,hello there"]);
        let mut grpc = playground.on("b1", HEALTH_SERVER);
        grpc.arg("10.2.0.11:50051");
        let mut secret = playground.on("b1", HEALTH_SERVER);
        let chain = papers.path("www.example.com.pem");
        let key = papers.path("www.example.com.key");
        secret.args(["10.2.0.11:50052", &chain, &key]);
        let quiet = |command: &mut Command| {
            Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
        };
        let servers = vec![
            nginx(playground, papers),
            quiet(&mut dnsmasq),
            quiet(&mut grpc),
            quiet(&mut secret),
        ];
        until(PATIENCE, "the servers listen", || {
            playground.inside("b1", || {
                let ports = [8080, 8443, 8444, 53, 50051, 50052];
                ports
                    .iter()
                    .all(|port| TcpStream::connect(("10.2.0.11", *port)).is_ok())
                    .then_some(())
            })
        });
        servers
    }

    /// A server on b2 that does this with each connection. It ends with the test's process.
    fn misbehaving(
        playground: &Playground,
        address: &'static str,
        behave: impl Fn(TcpStream) + Clone + Send + 'static,
    ) {
        let listener = playground.inside("b2", || TcpListener::bind(address).unwrap());
        thread::spawn(move || {
            for connection in listener.incoming() {
                let behave = behave.clone();
                thread::spawn(move || behave(connection.unwrap()));
            }
        });
    }

    fn misbehave(playground: &Playground) {
        let head: &[u8] = b"HTTP/1.1 200 OK\r\n";
        misbehaving(playground, "10.2.0.12:1001", |connection| {
            thread::park();
            drop(connection);
        });
        misbehaving(playground, "10.2.0.12:1002", |mut connection| {
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: very very slow\r\n\r\n" {
                if connection.write_all(&[*byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        misbehaving(playground, "10.2.0.12:1003", |mut connection| {
            // What has not been read when a connection is closed makes it end with a reset.
            connection.read_exact(&mut [0]).ok();
        });
        misbehaving(playground, "10.2.0.12:1004", |mut connection| {
            let _some = connection.read(&mut [0; 4_096]);
        });
        misbehaving(playground, "10.2.0.12:1005", |mut connection| {
            connection.write_all(b"SSH-2.0-Dropbear\r\n").ok();
            let _some = connection.read(&mut [0; 4_096]);
        });
        misbehaving(playground, "10.2.0.12:1006", move |mut connection| {
            connection.write_all(head).ok();
            while connection
                .write_all(b"X-Filler: aaaaaaaaaaaaaaaaaa\r\n")
                .is_ok()
            {}
        });
        misbehaving(playground, "10.2.0.12:1007", move |mut connection| {
            connection.write_all(head).ok();
            connection.write_all(b"\r\n").ok();
            while connection.write_all(&[b'x'; 16_384]).is_ok() {}
        });
    }

    /// One case a line: its name, the backend, what is checked. All of these are up.
    const GOOD: &str = r#"
tcp         | 10.2.0.11:8080     | kind = "tcp"
http        | 10.2.0.11:8080     | kind = "http", body = "is well"
http6       | [fd00:2::11]:8080  | kind = "http", host = "known"
http-head   | 10.2.0.11:8080     | kind = "http", method = "HEAD", path = "/moved", status = "302"
https       | 10.2.0.11:8443     | kind = "https", TLS, body = "well"
https-any   | 10.2.0.11:8443     | kind = "https", verify = "nobody"
https-own   | 10.2.0.11:8444     | kind = "https", TLS, OWN
dns         | 10.2.0.11:53       | kind = "dns", name = "a.example", expect = "192.0.2.1"
dns-txt     | 10.2.0.11:53       | kind = "dns", name = "t.example", record = "TXT", expect = "hello there"
dns-refused | 10.2.0.11:53       | kind = "dns", name = "b.example", rcode = "REFUSED"
udp         | 10.2.0.11:53       | kind = "udp", send = 'QUESTION', expect = '\x07version\x04bind'
icmp        | 10.2.0.12:1        | kind = "icmp"
icmp6       | [fd00:2::12]:1     | kind = "icmp"
grpc        | 10.2.0.11:50051    | kind = "grpc"
grpc-named  | 10.2.0.11:50051    | kind = "grpc", service = "well"
grpc-tls    | 10.2.0.11:50052    | kind = "grpc", tls = true, TLS
script      | 10.2.0.11:8080     | SCRIPT test $RINGGATE_PORT = 8080"]
"#;

    /// The same, and what is said of each. All of these are down.
    const BAD: &str = r#"
x-500         | 10.2.0.11:8080  | kind = "http", path = "/broken" | HTTP status 500, expected 200-399
x-body        | 10.2.0.11:8080  | kind = "http", body = "is ill" | "is ill" is not in the 11 bytes
x-own         | 10.2.0.11:8444  | kind = "https", TLS | HTTP status 400
x-name        | 10.2.0.11:8443  | kind = "https", verify = "AUTHORITY" | the certificate is not for 10.2.0.11
x-system      | 10.2.0.11:8443  | kind = "https", server-name = "www.example.com" | the certificate's issuer is not known
x-plain       | 10.2.0.11:8080  | kind = "https", TLS | not TLS
x-tls         | 10.2.0.11:8443  | kind = "http" | HTTP status 400
x-dns         | 10.2.0.11:53    | kind = "dns", name = "b.example" | answers REFUSED, expected NOERROR
x-grpc        | 10.2.0.11:50051 | kind = "grpc", service = "sick" | says NOT_SERVING
x-grpc-what   | 10.2.0.11:50051 | kind = "grpc", service = "what" | status 5 (no such service is registered
x-grpc-http   | 10.2.0.11:8080  | kind = "grpc" | not a gRPC answer
x-script      | 10.2.0.11:8080  | SCRIPT test $RINGGATE_PORT = 1"] | ended with status 1, expected 0: port 8080
x-script-slow | 10.2.0.11:8080  | kind = "script", command = "/bin/sleep", arguments = ["60"] | did not end in time and was killed
x-udp         | 10.2.0.12:1999  | kind = "udp", send = "x", silence = "passes" | connection refused
x-silent      | 10.2.0.12:1001  | kind = "http" | before anything was answered: the port is open
x-slow        | 10.2.0.12:1002  | kind = "http" | bytes had come
x-reset       | 10.2.0.12:1003  | kind = "http" | connection was reset
x-closed      | 10.2.0.12:1004  | kind = "http" | connection was closed
x-ssh         | 10.2.0.12:1005  | kind = "http" | begins "SSH-2.0-Dropbear
x-head        | 10.2.0.12:1006  | kind = "http" | longer than 16 KiB
x-endless     | 10.2.0.12:1007  | kind = "http", body = "well" | is not in the 65536 bytes
x-tls-silent  | 10.2.0.12:1001  | kind = "https", TLS | before the TLS handshake was complete
x-grpc-silent | 10.2.0.12:1001  | kind = "grpc" | connected, then time was up
"#;

    /// version.bind, of class chaos: what every name server on Debian answers.
    const DNS_QUESTION: &str =
        r"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03";

    const SCRIPT: &str = "kind = \"script\", command = \"/bin/sh\", \
        arguments = [\"-c\", \"echo port $RINGGATE_PORT;";

    fn cases(text: &'static str, papers: &Papers) -> Vec<Case> {
        let lines = text.lines().filter(|line| !line.is_empty());
        let cases = lines.map(|line| {
            let mut parts = line.splitn(4, '|').map(str::trim);
            let mut part = || parts.next();
            let (name, address, health) = (part().unwrap(), part().unwrap(), part().unwrap());
            let health = health
                .replace("TLS", &papers.tls())
                .replace("OWN", &papers.own())
                .replace("AUTHORITY", &papers.path("authority.pem"))
                .replace("QUESTION", DNS_QUESTION)
                .replace("SCRIPT", SCRIPT);
            (name, address, health, part())
        });
        cases.collect()
    }

    fn configuration(cases: &[Case]) -> Configuration {
        let mut configuration = Configuration::native();
        for (number, (name, address, health, _)) in cases.iter().enumerate() {
            let family = if address.starts_with('[') {
                "[fd00:100::1]"
            } else {
                "10.100.0.1"
            };
            let listen = format!("{family}:{}", 2_000 + number);
            let pace = "interval = \"1s\", timeout = \"900ms\", rise = 1, fall = 1";
            let service = Service::tcp(name, &listen)
                .with(format!("health = {{ {health}, {pace} }}"))
                .backend(Backend::at(*address));
            configuration = configuration.service(service);
        }
        configuration
    }

    fn check_of(status: &Status, case: &Case) -> Status {
        let backends = status.backends(case.0);
        let backend = backends.get(case.1).or_else(|| backends.values().next());
        Status(backend.unwrap().0["check"].clone())
    }

    fn every_backend_is_seen_for_what_it_is(driver: &str) {
        let playground = Playground::plan().backends(2).up();
        let papers = Papers::new();
        let _servers = servers(&playground, &papers);
        misbehave(&playground);
        let (good, bad) = (cases(GOOD, &papers), cases(BAD, &papers));
        let all: Vec<Case> = good.iter().chain(&bad).cloned().collect();
        let configuration = configuration(&all);
        let environment = [("RINGGATE_DRIVER", driver)];
        let balancer = Balancer::start_unready(RINGGATE, &playground, &configuration, &environment);
        let status = until(PATIENCE, "every check has had its results", || {
            let status = balancer.try_status()?;
            let is_done = |case: &&Case| {
                let check = check_of(&status, case);
                let (good, bad) = (check.number("/successes"), check.number("/failures"));
                let wanted = if case.3.is_none() { UNDISTURBED } else { 2 };
                good + bad >= wanted
            };
            (all.iter().filter(is_done).count() == all.len()).then_some(status)
        });
        let mut wrong = Vec::new();
        for case in &all {
            let check = check_of(&status, case);
            let (state, last) = (check.text("/state"), check.text("/last"));
            let is_right = match case.3 {
                None => state == "up" && last == "answered" && check.number("/failures") == 0,
                Some(text) => {
                    state == "down" && last.contains(text) && check.number("/successes") == 0
                }
            };
            if !is_right {
                wrong.push(format!("{}: {}", case.0, check.0));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(status.text("/control/io"), driver);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_backend_is_seen_for_what_it_is_over_io_uring() {
        every_backend_is_seen_for_what_it_is("io_uring");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_backend_is_seen_for_what_it_is_over_epoll() {
        every_backend_is_seen_for_what_it_is("epoll");
    }

    /// Confined before any of it was there, a reload asks for every kind of check that executes nothing, and for
    /// flows in the log; and somebody comes by TLS.
    fn a_confined_process_has_all_calls_that_it_needs(driver: &str) {
        let playground = Playground::plan().backends(2).up();
        let papers = Papers::new();
        let _servers = servers(&playground, &papers);
        let mut all = cases(GOOD, &papers);
        all.retain(|case| case.0 != "script");
        let api = format!(
            "[api]\nlisten = \"{REMOTE}\"\ncertificate = \"{}\"\nkey = \"{}\"\nclient-ca = \"{}\"\n\
             read-names = [\"www.example.com\"]",
            papers.path("balancer.example.pem"),
            papers.path("balancer.example.key"),
            papers.path("authority.pem"),
        );
        let with = |cases: &[Case], log: &str| {
            let process = "[process]\nuser = \"root\"\nseccomp = true";
            configuration(cases).table(process).table(&api).table(log)
        };
        let environment = [("RINGGATE_DRIVER", driver)];
        let little = with(&all[..1], "[log]\nflows = \"off\"");
        let mut balancer = Balancer::start_unready(RINGGATE, &playground, &little, &environment);
        balancer.wait_until_ready();
        assert_eq!(balancer.status().0["process"]["seccomp"], true);
        balancer.reload(&with(&all, "[log]\nflows = 1"));
        let status = until(PATIENCE, "every check has had its results", || {
            let status = balancer.try_status()?;
            let is_done = |case: &Case| check_of(&status, case).number("/successes") >= 3;
            all.iter().all(is_done).then_some(status)
        });
        for case in &all {
            let check = check_of(&status, case);
            let wrong = ["/failures", "/inconclusive"].map(|count| check.number(count));
            assert_eq!((check.text("/state"), wrong), ("up", [0, 0]), "{}", check.0);
        }
        // The first service's backend is a web server.
        let target = "10.100.0.1:2000".parse().unwrap();
        let page = playground.inside("client", || visit(target));
        assert_eq!(page.unwrap(), "all is well");
        until(PATIENCE, "the flow is told of", || {
            let log = balancer.log();
            (log.contains("flow began") && log.contains("flow ended")).then_some(())
        });
        let files = [
            ("--cacert", "authority.pem"),
            ("--cert", "www.example.com.pem"),
            ("--key", "www.example.com.key"),
        ];
        let files = files
            .map(|(option, name)| [option.to_owned(), papers.path(name)])
            .concat();
        let resolve = format!("balancer.example:{REMOTE_PORT}:127.0.0.1");
        let url = format!("https://balancer.example:{REMOTE_PORT}/v1/status");
        let mut arguments: Vec<&str> = files.iter().map(String::as_str).collect();
        arguments.extend(["-sSf", "-m", "10", "--resolve", &resolve, &url]);
        let told = playground.run_on("lb", "curl", &arguments);
        assert!(told.contains("\"seccomp\":true"), "{told}");
        assert!(
            !balancer.log().contains("Operation not permitted"),
            "{}",
            balancer.log()
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_confined_process_has_all_calls_that_it_needs_over_io_uring() {
        a_confined_process_has_all_calls_that_it_needs("io_uring");
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_confined_process_has_all_calls_that_it_needs_over_epoll() {
        a_confined_process_has_all_calls_that_it_needs("epoll");
    }

    /// What `ringgate check` says of this file, and its exit status.
    fn checked(path: &Path) -> (Option<i32>, String) {
        let output = Command::new(RINGGATE)
            .arg("check")
            .arg(path)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    }

    #[test]
    fn a_file_that_a_check_needs_and_is_not_there_refuses_the_configuration() {
        let papers = Papers::new();
        let folder: PathBuf = papers.0.path().to_owned();
        let file = folder.join("ringgate.toml");
        let text = |verify: &str| {
            format!(
                "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"web\"\n\
                 listen = \"10.100.0.1:443\"\nprotocol = \"tcp\"\nforward = \"nat\"\n\
                 health = {{ kind = \"https\", verify = \"{verify}\" }}\n\
                 [[service.backend]]\naddress = \"10.2.0.11\"\n"
            )
        };
        fs::write(&file, text(&papers.path("authority.pem"))).unwrap();
        assert_eq!(checked(&file), (Some(0), String::new()));
        fs::write(&file, text("/nonexistent/authority.pem")).unwrap();
        let (code, said) = checked(&file);
        assert_eq!(code, Some(2));
        let place = format!(
            "{}:8:37: service \"web\".health.verify: found ",
            file.display()
        );
        assert!(said.starts_with(&place), "{said}");
        assert!(said.contains("No such file or directory"), "{said}");
    }
}
