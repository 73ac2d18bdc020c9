//! Checks over TLS, against `rustls`'s own server: over sockets, and in memory in every cut.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::super::complaint::{Complaint, Cut, Heard};
use super::super::stream::Turn;
use super::super::trust;
use super::world::{ask, backend, hear_request, page};
use super::*;

/// An authority, what it has signed, and where that lies.
struct Papers {
    folder: tempfile::TempDir,
    authority: CertificateDer<'static>,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

impl Papers {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text);
        write("authority.pem", authority.pem()).unwrap();
        let signed = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(names).unwrap();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let (own, own_key) = signed(&["balancer.example"]);
        write("own.pem", own.pem()).unwrap();
        write("own.key", own_key.serialize_pem()).unwrap();
        let (_, other_key) = signed(&["other.example"]);
        write("other.key", other_key.serialize_pem()).unwrap();
        write("empty.pem", String::new()).unwrap();
        let (server, server_key) = signed(&["www.example.com"]);
        let pem = server_key.serialize_pem();
        let server_key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        Self {
            authority: authority.der().clone(),
            server: (server.der().clone(), server_key),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, asks_for_certificate: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if asks_for_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = &self.server;
        let mut config = builder
            .with_single_cert(vec![certificate.clone()], key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// A backend that serves a page over TLS.
    fn backend(&self, asks_for_certificate: bool) -> SocketAddr {
        let config = self.server(asks_for_certificate);
        backend(move |mut connection| {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut connection);
            let mut request = [0; 4_096];
            if stream.read(&mut request).is_ok() {
                let page = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell";
                std::io::Write::write_all(&mut stream, page).ok();
            }
        })
    }

    fn health(&self, more: &str) -> String {
        let authority = self.path("authority.pem");
        format!(
            "kind = \"https\", body = \"well\", verify = \"{}\"{more}",
            authority.display()
        )
    }

    fn client(&self) -> String {
        let (own, key) = (self.path("own.pem"), self.path("own.key"));
        format!(
            ", certificate = \"{}\", certificate-key = \"{}\"",
            own.display(),
            key.display()
        )
    }
}

const NAME: &str = ", server-name = \"www.example.com\"";

fn who_speaks_tls_is_known_by_a_certificate(prefer: Prefer) {
    let papers = Papers::new();
    let (plain, strict) = (papers.backend(false), papers.backend(true));
    let named = papers.health(NAME);
    let with_own = papers.health(&format!("{NAME}{}", papers.client()));
    let nobody = "kind = \"https\", verify = \"nobody\"";
    let unnamed = papers.health("");
    let misnamed = papers.health(", server-name = \"other.example\"");
    let stranger = Papers::new();
    let strange = stranger.health(NAME);
    let not_tls = page("HTTP/1.1 200 OK\r\n\r\n");
    let hangs = backend(|connection| {
        thread::park();
        drop(connection);
    });
    let shy = backend(drop);
    let answers = ask(
        prefer,
        &[
            (&named, plain),
            (&with_own, plain),
            (&with_own, strict),
            (nobody, plain),
            (&unnamed, plain),
            (&misnamed, plain),
            (&strange, plain),
            (&named, strict),
            (&named, not_tls),
            (&named, hangs),
            (&named, shy),
        ],
    );
    let (good, bad) = answers.split_at(4);
    for (number, answer) in good.iter().enumerate() {
        assert_eq!(answer.verdict, Verdict::Success, "{number}");
    }
    let said: Vec<Complaint> = bad.iter().map(|answer| answer.complaint()).collect();
    assert_eq!(said[0], Complaint::WrongName(Excerpt::of(b"127.0.0.1")));
    assert_eq!(said[1], Complaint::WrongName(Excerpt::of(b"other.example")));
    assert_eq!(said[2], Complaint::UnknownIssuer);
    let alert = Complaint::TlsAlert(Excerpt::of(b"CertificateRequired"));
    assert_eq!(said[3], alert, "no certificate of our own");
    // It waits for the end of a request that is none, until we close.
    let (Complaint::NotTls(_) | Complaint::Cut(_, Heard::Handshake)) = said[4] else {
        panic!("{:?}", said[4]);
    };
    assert_eq!(said[5], Complaint::Cut(Cut::Late, Heard::Handshake));
    let Complaint::Cut(Cut::Closed | Cut::Reset, Heard::Handshake) = said[6] else {
        panic!("{:?}", said[6]);
    };
}

#[test]
fn who_speaks_tls_is_known_by_a_certificate_over_io_uring() {
    who_speaks_tls_is_known_by_a_certificate(Prefer::IoUring);
}

#[test]
fn who_speaks_tls_is_known_by_a_certificate_over_epoll() {
    who_speaks_tls_is_known_by_a_certificate(Prefer::Epoll);
}

#[test]
fn a_server_without_tls_is_told_by_its_first_words() {
    let papers = Papers::new();
    let greets = backend(|mut connection| {
        std::io::Write::write_all(&mut connection, b"220 mail.example ESMTP\r\n").ok();
        hear_request(&mut connection);
    });
    let [answer] = ask(Prefer::Auto, &[(&papers.health(NAME), greets)])[..] else {
        panic!();
    };
    let begins = Excerpt::of(b"220 mail.example ESMTP\r\n");
    assert_eq!(answer.complaint(), Complaint::NotTls(begins));
}

#[test]
fn files_that_cannot_be_used_are_told_at_the_place_that_names_them() {
    let papers = Papers::new();
    let text = |verify: &str, own: &str, key: &str| {
        format!(
            "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"a\"\nlisten = \"10.0.0.1:80\"\n\
             protocol = \"tcp\"\nforward = \"nat\"\n[service.health]\nkind = \"https\"\n\
             verify = \"{}\"\ncertificate = \"{}\"\ncertificate-key = \"{}\"\n",
            papers.path(verify).display(),
            papers.path(own).display(),
            papers.path(key).display()
        )
    };
    let problems = |verify, own, key| -> Vec<String> {
        let parsed = ringgate_config::parse("f.toml", &text(verify, own, key)).unwrap();
        let problems = trust::problems(&parsed.model, &parsed.mentions);
        problems.iter().map(ToString::to_string).collect()
    };
    let none: [String; 0] = [];
    assert_eq!(problems("authority.pem", "own.pem", "own.key"), none);
    let cases = [
        (
            "gone.pem",
            "own.pem",
            "own.key",
            10,
            "cannot be read: No such file",
        ),
        (
            "empty.pem",
            "own.pem",
            "own.key",
            10,
            "without a certificate",
        ),
        ("own.key", "own.pem", "own.key", 10, "without a certificate"),
        (
            "authority.pem",
            "own.key",
            "own.key",
            11,
            "without a certificate",
        ),
        ("authority.pem", "own.pem", "own.pem", 12, "without a key"),
        (
            "authority.pem",
            "own.pem",
            "other.key",
            12,
            "does not go with",
        ),
    ];
    for (verify, own, key, line, expected) in cases {
        let told = problems(verify, own, key);
        let place = format!("f.toml:{line}:");
        let is_told = |one: &String| one.starts_with(&place) && one.contains(expected);
        assert!(told.iter().any(is_told), "{verify} {own} {key}: {told:?}");
    }
}

#[test]
fn a_program_must_be_one() {
    let papers = Papers::new();
    let text = |command: &str| {
        format!(
            "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"a\"\nlisten = \"10.0.0.1:80\"\n\
             protocol = \"tcp\"\nforward = \"nat\"\nhealth = {{ kind = \"script\", command = \"{command}\" }}\n"
        )
    };
    let problems = |command: &str| {
        let parsed = ringgate_config::parse("f.toml", &text(command)).unwrap();
        trust::problems(&parsed.model, &parsed.mentions)
    };
    assert_eq!(problems("/bin/sh"), []);
    let no_program = papers.path("own.pem").display().to_string();
    for command in ["/nonexistent/x", "/tmp", &no_program] {
        assert_eq!(problems(command).len(), 1, "{command}");
    }
}

/// A check and a server in memory; the server's bytes come in pieces of these lengths, over and over.
fn play(papers: &Papers, health: &str, lengths: &[usize]) -> Result<(), Complaint> {
    let text = format!(
        "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"a\"\nlisten = \"10.0.0.1:80\"\n\
         protocol = \"tcp\"\nforward = \"nat\"\nhealth = {{ {health} }}\n"
    );
    let model = ringgate_config::parse("test", &text).unwrap().model;
    let prober = Prober::new(1, Trust::load(&model).unwrap(), 1);
    let check = model.services()[0].health().unwrap().check();
    let address = SocketAddr::from(([10, 2, 0, 1], 443));
    let inner = Box::new(Http::new(check, address));
    let tls = check.tls().unwrap();
    let mut dialogue = prober
        .within_tls(Inside::Http, tls, address, inner)
        .unwrap();

    let mut server = ServerConnection::new(papers.server(false)).unwrap();
    let mut lengths = lengths.iter().copied().cycle();
    let (mut out, mut has_answered) = (Vec::new(), false);
    let mut turn = dialogue.begin();
    for _ in 0..100_000 {
        match turn {
            Turn::Say(bytes) => {
                server.read_tls(&mut bytes.as_slice()).unwrap();
                // It may not like what it is told: then it says so.
                server.process_new_packets().ok();
            }
            Turn::Listen => {}
            Turn::Over(result) => return result,
        }
        let mut request = [0; 4_096];
        if !has_answered && server.reader().read(&mut request).is_ok() {
            has_answered = true;
            let page = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well";
            std::io::Write::write_all(&mut server.writer(), page).unwrap();
        }
        server.write_tls(&mut out).unwrap();
        let length = lengths.next().unwrap().min(out.len());
        let piece: Vec<u8> = out.drain(..length).collect();
        turn = if piece.is_empty() {
            Turn::Listen
        } else {
            dialogue.heard(&piece)
        };
    }
    panic!("no end: {dialogue:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_records_are_divided_changes_nothing(lengths in prop::collection::vec(1..400_usize, 1..6)) {
        let papers = Papers::new();
        prop_assert_eq!(play(&papers, &papers.health(NAME), &lengths), Ok(()));
        let other = papers.health(", server-name = \"other.example\"");
        let wrong = Complaint::WrongName(Excerpt::of(b"other.example"));
        prop_assert_eq!(play(&papers, &other, &lengths), Err(wrong));
    }
}
