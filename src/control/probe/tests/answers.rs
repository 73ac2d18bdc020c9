//! Backends over TCP, good ones and bad ones together: each is seen for what it is, in time, and none of
//! them is in another's way.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;

use super::super::complaint::{Complaint, Cut, Heard};
use super::world::{TIMEOUT, ask, backend, hear_request, page, reset};
use super::*;

const HTTP: &str = "kind = \"http\"";
const BODY: &str = "kind = \"http\", body = \"well\"";
const GRPC: &str = "kind = \"grpc\"";

fn silent() -> SocketAddr {
    backend(|connection| {
        thread::park();
        drop(connection);
    })
}

fn for_ever(bytes: &'static [u8]) -> SocketAddr {
    backend(move |mut connection| while connection.write_all(bytes).is_ok() {})
}

fn slow(pause: u64, bytes: &'static [u8]) -> SocketAddr {
    backend(move |mut connection| {
        for byte in bytes {
            if connection.write_all(&[*byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(pause));
        }
        thread::park();
    })
}

type Expected = Box<dyn Fn(&Complaint) -> bool>;
type Case = (&'static str, SocketAddr, Expected);

fn cut(cut: Cut, heard: Heard) -> Expected {
    Box::new(move |complaint| *complaint == Complaint::Cut(cut, heard))
}

fn http_cases() -> Vec<Case> {
    use Complaint::{LongHead, NotHttp, Status};
    vec![
        (HTTP, silent(), cut(Cut::Late, Heard::Nothing)),
        (
            HTTP,
            slow(
                10,
                b"HTTP/1.1 200 OK\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            ),
            Box::new(|c| matches!(c, Complaint::Cut(Cut::Late, Heard::Bytes(2..)))),
        ),
        (
            HTTP,
            backend(reset),
            Box::new(|c| {
                // The reset may be there before the request is sent, or after.
                matches!(c, Complaint::Cut(Cut::Reset, Heard::Nothing))
            }),
        ),
        (
            HTTP,
            backend(|mut connection| {
                hear_request(&mut connection);
            }),
            cut(Cut::Closed, Heard::Nothing),
        ),
        (
            HTTP,
            page("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
            Box::new(|c| matches!(c, Status { found: 500, .. })),
        ),
        (
            HTTP,
            page("SSH-2.0-OpenSSH_9.2\r\n"),
            Box::new(|c| matches!(c, NotHttp(_))),
        ),
        (
            HTTP,
            for_ever(&[0xff; 4_096]),
            Box::new(|c| matches!(c, NotHttp(_))),
        ),
        (
            HTTP,
            backend(|mut connection| {
                let fields = b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
                connection.write_all(b"HTTP/1.1 200 OK\r\n").ok();
                while connection.write_all(fields).is_ok() {}
            }),
            Box::new(|c| *c == LongHead),
        ),
    ]
}

fn body_cases() -> Vec<Case> {
    vec![
        (
            BODY,
            backend(|mut connection| {
                connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok();
                while connection.write_all(&[b'x'; 4_096]).is_ok() {}
            }),
            Box::new(|c| {
                matches!(
                    c,
                    Complaint::Body {
                        searched: 65_536,
                        ..
                    }
                )
            }),
        ),
        (
            BODY,
            page("HTTP/1.1 200 OK\r\n\r\nall is ill"),
            Box::new(|c| matches!(c, Complaint::Body { searched: 10, .. })),
        ),
    ]
}

fn grpc_cases() -> Vec<Case> {
    use Complaint::{Endless, NotGrpc};
    vec![
        (GRPC, silent(), cut(Cut::Late, Heard::Nothing)),
        (
            GRPC,
            page("HTTP/1.1 400 Bad Request\r\n\r\n"),
            Box::new(|c| matches!(c, NotGrpc(_) | Complaint::Cut(..))),
        ),
        (
            GRPC,
            backend(|mut connection| {
                // Settings, then pings for ever: each is to be answered.
                connection.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).ok();
                let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
                while connection.write_all(&ping.repeat(100)).is_ok() {}
            }),
            Box::new(|c| matches!(c, Endless(_) | Complaint::Cut(..) | NotGrpc(_))),
        ),
    ]
}

fn bad_backends_are_seen_for_what_they_are(prefer: Prefer) {
    let cases: Vec<Case> = [http_cases(), body_cases(), grpc_cases()]
        .into_iter()
        .flatten()
        .collect();
    let good = page("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well");
    let mut all: Vec<(&str, SocketAddr)> = cases.iter().map(|case| (case.0, case.1)).collect();
    all.extend([(HTTP, good), (BODY, good), ("kind = \"tcp\"", good)]);
    let answers = ask(prefer, &all);
    let (bad, good) = answers.split_at(cases.len());
    for ((kind, _, is_expected), answer) in cases.iter().zip(bad) {
        let complaint = answer.complaint();
        assert!(is_expected(&complaint), "{kind}: {complaint:?} {complaint}");
        // Nothing waits longer than that, and the loop of all of them was never kept.
        assert!(answer.latency < TIMEOUT * 2, "{complaint}: {answer:?}");
    }
    for answer in good {
        assert_eq!(answer.verdict, Verdict::Success);
        assert!(answer.latency < TIMEOUT, "{answer:?}");
    }
}

#[test]
fn bad_backends_are_seen_for_what_they_are_over_io_uring() {
    bad_backends_are_seen_for_what_they_are(Prefer::IoUring);
}

#[test]
fn bad_backends_are_seen_for_what_they_are_over_epoll() {
    bad_backends_are_seen_for_what_they_are(Prefer::Epoll);
}

#[test]
fn a_closed_port_is_refused_whatever_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let all = [
        (HTTP, address),
        (GRPC, address),
        ("kind = \"tcp\"", address),
    ];
    for answer in ask(Prefer::Auto, &all) {
        assert_eq!(answer.verdict, Verdict::Failure(Reason::Refused));
    }
}

#[test]
fn an_http_check_leaves_with_a_reset() {
    let (told, hears) = std::sync::mpsc::channel();
    let address = backend(move |mut connection| {
        hear_request(&mut connection);
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let error = connection.read(&mut [0]).unwrap_err();
        told.send(error.raw_os_error()).unwrap();
    });
    let [answer] = ask(Prefer::Auto, &[(HTTP, address)])[..] else {
        panic!();
    };
    assert_eq!(answer.verdict, Verdict::Success);
    assert_eq!(hears.recv().unwrap(), Some(libc::ECONNRESET));
}
