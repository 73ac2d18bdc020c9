//! Backends that behave as they are told, and checks of them, all at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use ringgate_config::Pace;
use rustix::net::sockopt::set_socket_linger;

use super::super::super::clock::now;
use super::super::super::driver::{self, Prefer};
use super::super::super::health::{Checker, Reason, Spec, Verdict};
use super::super::complaint::Complaint;
use super::super::trust::Trust;
use super::super::{Prober, Progress};

/// Longer than anything that is right takes; only what is to be late waits for it.
pub(super) const TIMEOUT: Duration = Duration::from_millis(400);

/// What became of a check, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    pub(super) latency: Duration,
}

impl Answer {
    pub(super) fn complaint(self) -> Complaint {
        match self.verdict {
            Verdict::Failure(Reason::Answer(complaint)) => complaint,
            other => panic!("{other:?}"),
        }
    }
}

/// What is asked of these backends, and what TLS needs for that.
fn specs_of(backends: &[(&str, SocketAddr)]) -> (Vec<Spec>, Trust) {
    let mut text = "[[interface]]\nname = \"eth0\"\n".to_owned();
    for (number, (health, _)) in backends.iter().enumerate() {
        text += &format!(
            "[[service]]\nname = \"s{number}\"\nlisten = \"10.0.0.1:{}\"\nprotocol = \"tcp\"\n\
             forward = \"nat\"\nhealth = {{ {health} }}\n",
            number + 1
        );
    }
    let model = ringgate_config::parse("test", &text).unwrap().model;
    let trust = Trust::load(&model).unwrap();
    let specs = model
        .services()
        .iter()
        .zip(backends)
        .map(|(service, (_, address))| Spec {
            address: *address,
            check: service.health().unwrap().check().cloned(),
            pace: Pace {
                interval: Duration::from_secs(60),
                timeout: TIMEOUT,
                ..*service.health().unwrap().pace()
            },
            path: None,
            reports: None,
        })
        .collect();
    (specs, trust)
}

/// Checks all of these backends at once, each in its way, over one driver.
pub(super) fn ask(prefer: Prefer, backends: &[(&str, SocketAddr)]) -> Vec<Answer> {
    let (specs, trust) = specs_of(backends);
    let mut checker = Checker::new(1);
    let begun = now();
    checker.reconcile(specs.iter().cloned(), begun);
    let mut starts = Vec::new();
    checker.tick(begun, &mut starts);
    assert_eq!(starts.len(), backends.len(), "no two are alike");

    let (mut driver, _) = driver::open(prefer, 256).unwrap();
    let mut prober = Prober::new(256, trust, 1);
    let mut answers: Vec<Option<Answer>> = vec![None; specs.len()];
    let mut progresses: Vec<Progress> = starts
        .iter()
        .map(|start| prober.start(start, None, now(), &mut *driver))
        .collect();
    let mut done = Vec::new();
    while answers.iter().any(Option::is_none) {
        assert!(now() < begun + Duration::from_secs(10), "{answers:?}");
        for progress in progresses.drain(..) {
            match progress {
                Progress::Running => {}
                Progress::Ended(ended) => {
                    let start = starts.iter().find(|start| start.id == ended.id).unwrap();
                    let is_it = |spec: &Spec| {
                        (spec.address, spec.check.as_ref()) == (start.address, Some(&start.check))
                    };
                    let place = &mut answers[specs.iter().position(is_it).unwrap()];
                    let answer = Answer {
                        verdict: ended.verdict,
                        latency: ended.latency,
                    };
                    assert!(place.replace(answer).is_none(), "answered once");
                }
                Progress::Refused(id) => panic!("{id:?}"),
            }
        }
        driver
            .wait(Some(Duration::from_millis(10)), &mut done)
            .unwrap();
        for end in done.drain(..) {
            let progress = prober.completed(end.token, end.outcome, now(), &mut *driver);
            progresses.push(progress);
        }
    }
    // What was cancelled comes back, and then nothing is left.
    while driver.in_flight() > 0 {
        assert!(now() < begun + Duration::from_secs(10), "{driver:?}");
        driver
            .wait(Some(Duration::from_millis(10)), &mut done)
            .unwrap();
    }
    answers.into_iter().map(Option::unwrap).collect()
}

/// A TCP backend that does this with each connection, in a thread of its own.
pub(super) fn backend(behave: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let behave = behave.clone();
            thread::spawn(move || behave(connection.unwrap()));
        }
    });
    address
}

/// One that reads a request and answers with these bytes.
pub(super) fn page(answer: &'static str) -> SocketAddr {
    backend(move |mut connection| {
        hear_request(&mut connection);
        connection.write_all(answer.as_bytes()).ok();
    })
}

/// Reads up to the empty line.
pub(super) fn hear_request(connection: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    String::from_utf8_lossy(&request).into_owned()
}

/// Closes the connection with a reset.
pub(super) fn reset(connection: TcpStream) {
    set_socket_linger(&connection, Some(Duration::ZERO)).unwrap();
    drop(connection);
}

/// A UDP backend that answers each datagram with these.
pub(super) fn datagrams(
    address: &str,
    answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            for datagram in answer(&buffer[..length]) {
                socket.send_to(&datagram, from).ok();
            }
        }
    });
    address
}
