//! Real clients over TLS, with certificates of a CA that is made here.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::json;

use super::super::super::clock;
use super::super::super::driver::{self, Prefer};
use super::super::socket::Claimed;
use super::super::{Admin, Answer, Wanted};
use super::*;
use crate::control::admin::http::Response;

/// A CA, and the files of a server.
struct Pki {
    home: tempfile::TempDir,
    authority: Issuer<'static, KeyPair>,
    remote: Remote,
}

impl Pki {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let authority = Issuer::new(params, key);
        let path = |name: &str| home.path().join(name);
        fs::write(path("ca.pem"), root.pem()).unwrap();
        let (certificate, key) = signed(&authority, "balancer.example");
        fs::write(path("server.pem"), certificate).unwrap();
        fs::write(path("server.key"), key).unwrap();
        let text = format!(
            "[[interface]]\nname = \"eth0\"\n[api]\nlisten = \"127.0.0.1:9443\"\n\
             certificate = {:?}\nkey = {:?}\nclient-ca = {:?}\n\
             read-names = [\"watch.example\"]\nwrite-names = [\"ops.example\"]\n",
            path("server.pem"),
            path("server.key"),
            path("ca.pem"),
        );
        let parsed = ringgate_config::parse("test.toml", &text).unwrap();
        let remote = parsed.model.api().remote().unwrap().clone();
        Self {
            home,
            authority,
            remote,
        }
    }

    /// A client's configuration, with a certificate of this name.
    fn client(&self, name: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        for root in certificates("client-ca", self.remote.client_ca()).unwrap() {
            roots.add(root).unwrap();
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (certificate, key) = signed(&self.authority, name);
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        }
    }
}

/// A certificate for a name and its key, as PEM.
fn signed(authority: &Issuer<'static, KeyPair>, name: &str) -> (String, String) {
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Answers over TLS for as long as `clients` runs with the address.
fn served(prefer: Prefer, pki: &Pki, clients: impl FnOnce(SocketAddr)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let claimed = Claimed::claim(&pki.home.path().join("socket"), 0o600).unwrap();
    let secure = Secure::load(&pki.remote).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopped = &stop;
        scope.spawn(move || {
            let (mut driver, _) = driver::open(prefer, 64).unwrap();
            let mut admin = Admin::new(claimed, &ringgate_config::Api::default());
            admin.serve_remote(OwnedFd::from(listener), secure);
            let mut done = Vec::new();
            // Relaxed: a flag alone, nothing is published by it.
            while !stopped.load(Ordering::Relaxed) {
                let mut wanted = Vec::new();
                driver
                    .wait(Some(Duration::from_millis(20)), &mut done)
                    .unwrap();
                let mut streams = Vec::new();
                let mut handler = |request: &super::super::Request<'_>, key| match request.path {
                    "/stream" => {
                        streams.push(key);
                        Answer::Stream { kind: "text/plain" }
                    }
                    "/long" => Answer::Now(Response::ok(json!("x".repeat(1 << 20)))),
                    _ => {
                        let access = format!("{:?} {}", request.access, request.body.len());
                        Answer::Now(Response::ok(json!(access)))
                    }
                };
                for completion in done.drain(..) {
                    let (token, outcome) = (completion.token, completion.outcome);
                    admin.completed(token, outcome, clock::now(), &mut handler, &mut wanted);
                }
                for key in streams {
                    admin.push(key, b"one", &mut wanted);
                    admin.push(key, b"two", &mut wanted);
                    admin.finish(key, &mut wanted);
                }
                admin.pump(&mut wanted);
                for Wanted {
                    operation,
                    limit,
                    token,
                } in wanted
                {
                    if let Err(refused) = driver.start(operation, limit, token) {
                        admin.refused(token, refused.operation);
                    }
                }
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clients(address)));
        // Relaxed: see the load.
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
}

/// What is answered to these bytes.
fn ask(address: SocketAddr, config: ClientConfig, bytes: &[u8]) -> io::Result<String> {
    let name = ServerName::try_from("balancer.example").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    String::from_utf8(answer).map_err(io::Error::other)
}

#[test]
fn names_in_certificates_say_who_may_what() {
    let pki = Pki::new();
    for prefer in [Prefer::IoUring, Prefer::Epoll] {
        served(prefer, &pki, |address| {
            for (name, access) in [
                ("watch.example", "Read"),
                ("OPS.example", "Write"),
                ("other.example", "Nothing"),
            ] {
                let answer = ask(address, pki.client(Some(name)), b"GET / HTTP/1.1\r\n\r\n");
                let answer = answer.unwrap();
                assert!(answer.ends_with(&format!("\"{access} 0\"\n")), "{answer}");
            }
            let body = vec![b'x'; 200_000];
            let head = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
            let request = [head.as_bytes(), &body].concat();
            let answer = ask(address, pki.client(Some("ops.example")), &request).unwrap();
            assert!(answer.ends_with("\"Write 200000\"\n"), "{answer}");
            let request = b"GET /long HTTP/1.1\r\n\r\n";
            let answer = ask(address, pki.client(Some("ops.example")), request).unwrap();
            assert!(answer.len() > 1 << 20);
            let request = b"GET /stream HTTP/1.1\r\n\r\n";
            let answer = ask(address, pki.client(Some("ops.example")), request).unwrap();
            assert!(
                answer.ends_with("3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
                "{answer}"
            );
        });
    }
}

#[test]
fn nobody_gets_further_than_the_handshake_without_a_certificate_of_the_ca() {
    let (pki, other) = (Pki::new(), Pki::new());
    served(Prefer::Auto, &pki, |address| {
        let request = b"GET / HTTP/1.1\r\n\r\n";
        assert!(ask(address, pki.client(None), request).is_err());
        // Of another CA, to whom this server is known all the same.
        let mut stranger = pki.client(None);
        stranger.client_auth_cert_resolver =
            other.client(Some("ops.example")).client_auth_cert_resolver;
        assert!(ask(address, stranger, request).is_err());
        // No TLS at all.
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        // And who is silent holds no one up.
        let _silent = TcpStream::connect(address).unwrap();
        let answer = ask(address, pki.client(Some("ops.example")), request).unwrap();
        assert!(answer.ends_with("\"Write 0\"\n"), "{answer}");
    });
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let pki = Pki::new();
    fs::write(pki.remote.client_ca(), "no certificate").unwrap();
    let error = Secure::load(&pki.remote).unwrap_err().to_string();
    assert!(
        error.contains("client-ca") && error.contains("ca.pem"),
        "{error}"
    );
    fs::remove_file(pki.remote.key()).unwrap();
    let error = Secure::load(&pki.remote).unwrap_err().to_string();
    assert!(
        error.contains("[api] key") && error.contains("server.key"),
        "{error}"
    );
}
