//! The admin socket over both drivers, against real clients.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use super::super::client::{self, ClientError};
use super::super::clock;
use super::super::driver::{self, Completion, Driver, Prefer};
use super::*;

/// A loop with nothing but an admin socket, in a thread of its own.
struct Server {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
    _home: tempfile::TempDir,
}

impl Server {
    /// `hurry`: the clock of this loop runs so far ahead after each turn, which ends patience early.
    fn start(prefer: Prefer, capacity: usize, hurry: Duration) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let claimed = Claimed::claim(&path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut driver, _) = driver::open(prefer, capacity).unwrap();
            let mut admin = Admin::new(claimed);
            let mut now = clock::now();
            // Relaxed: a flag alone, nothing is published by it.
            while !stopped.load(Ordering::Relaxed) {
                turn(&mut *driver, &mut admin, now);
                now += hurry;
            }
        });
        Self {
            path,
            stop,
            thread: Some(thread),
            _home: home,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Relaxed: see the load.
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(joined, Some(Ok(()))), "the loop has panicked");
            assert!(!self.path.exists());
        }
    }
}

/// One turn of the loop.
fn turn(driver: &mut dyn Driver<AdminToken>, admin: &mut Admin, now: Instant) {
    let mut wanted = Vec::new();
    let mut done: Vec<Completion<AdminToken>> = Vec::new();
    driver
        .wait(Some(Duration::from_millis(20)), &mut done)
        .unwrap();
    let mut later = Vec::new();
    let mut handler = |request: &Request<'_>, key| match request.path {
        "/later" if request.method == "POST" => {
            later.push(key);
            Answer::Later
        }
        _ => handler(request, key),
    };
    for Completion { token, outcome, .. } in done {
        admin.completed(token, outcome, now, &mut handler, &mut wanted);
    }
    for key in later {
        admin.answer(key, Response::ok(json!("at last")), &mut wanted);
        // Only once.
        admin.answer(key, Response::ok(json!("again")), &mut wanted);
    }
    admin.pump(&mut wanted);
    for Wanted {
        operation,
        limit,
        token,
    } in wanted
    {
        // Patience is short here, so that the tests are too.
        let limit = limit.map(|limit| limit / 20);
        if let Err(refused) = driver.start(operation, limit, token) {
            admin.refused(token, refused.operation);
        }
    }
}

fn handler(request: &Request<'_>, _: Key) -> Answer {
    Answer::Now(match (request.method, request.path) {
        ("GET", "/status") => Response::ok(json!({ "up": true })),
        ("GET", "/echo") => Response::ok(json!(request.parameter("what"))),
        // More than a socket buffer holds.
        ("GET", "/long") => Response::ok(json!("x".repeat(3 << 20))),
        ("GET", _) => Response::error(404, "there is no such target"),
        _ => Response::error(405, "only GET"),
    })
}

fn ask(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let _partly = stream.write_all(bytes);
    // Closing with some of the request unread resets the connection, after the answer.
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn for_both(test: impl Fn(Prefer)) {
    test(Prefer::IoUring);
    test(Prefer::Epoll);
}

#[test]
fn the_client_gets_its_answer() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        let get = |target| client::get(&server.path, target);
        assert_eq!(get("/status").unwrap(), json!({ "up": true }));
        let target = client::target("/echo", &[("what", "[fd00::1]:80 & more")]);
        assert_eq!(get(&target).unwrap(), json!("[fd00::1]:80 & more"));
        assert_eq!(get("/long").unwrap().as_str().unwrap().len(), 3 << 20);
        let done = client::post(&server.path, "/later").unwrap();
        assert_eq!(done, json!("at last"));
        assert!(get("/status").is_ok(), "its place is free again");
        let error = get("/nothing").unwrap_err();
        assert!(
            matches!(error, ClientError::Refused { status: 404, .. }),
            "{error}"
        );
    });
}

#[test]
fn strange_requests_get_an_answer_too() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        for (bytes, status) in [
            (
                "POST /status HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
                "405",
            ),
            ("nonsense\r\n\r\n".to_owned(), "400"),
            (
                format!("GET /{} HTTP/1.1\r\n", "x".repeat(MAX_REQUEST)),
                "431",
            ),
            (
                format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(40)),
                "431",
            ),
        ] {
            let answer = ask(&server.path, bytes.as_bytes());
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(status == "405" || answer.contains("\"error\":"), "{answer}");
        }
        assert!(client::get(&server.path, "/status").is_ok());
    });
}

#[test]
fn a_request_may_come_in_pieces() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        let mut stream = UnixStream::connect(&server.path).unwrap();
        for piece in b"GET /status HTTP/1.1\r\n\r\n".chunks(5) {
            stream.write_all(piece).unwrap();
            thread::yield_now();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("{\"up\":true}\n"), "{answer}");
    });
}

/// More silent clients than slots: each loses its patience's worth, and everybody else is served.
#[test]
fn silent_clients_hold_no_slot_for_ever() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        let silent: Vec<_> = (0..MAX_CONNECTIONS * 2)
            .map(|_| UnixStream::connect(&server.path).unwrap())
            .collect();
        assert_eq!(
            client::get(&server.path, "/status").unwrap(),
            json!({ "up": true })
        );
        for mut stream in silent {
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed without a word");
        }
    });
}

#[test]
fn a_client_that_trickles_is_cut_off_by_the_whole_time() {
    // This loop's time is past the deadline by the second turn after the accept.
    let server = Server::start(Prefer::Auto, 64, REQUEST_PATIENCE * 2);
    let mut stream = UnixStream::connect(&server.path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut sent = 0;
    while stream.write_all(b"G").is_ok() {
        sent += 1;
        assert!(sent < MAX_REQUEST, "never cut off");
        thread::sleep(Duration::from_millis(2));
    }
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        let mut stream = UnixStream::connect(&server.path).unwrap();
        stream.write_all(b"GET /long HTTP/1.1\r\n\r\n").unwrap();
        // Wait until the other side has given up, without reading.
        let mut fds = [rustix::event::PollFd::new(
            &stream,
            rustix::event::PollFlags::RDHUP,
        )];
        let patience = rustix::event::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        assert_eq!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1));
        let mut answer = Vec::new();
        let _error = stream.read_to_end(&mut answer);
        assert!(answer.len() < 3 << 20);
        assert!(client::get(&server.path, "/status").is_ok());
    });
}

#[test]
fn clients_that_vanish_at_any_moment_do_no_harm() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        for length in [0, 1, 10, 24] {
            for _ in 0..10 {
                let mut stream = UnixStream::connect(&server.path).unwrap();
                stream
                    .write_all(&b"GET /long HTTP/1.1\r\n\r\n\r\n"[..length])
                    .unwrap();
            }
        }
        assert!(client::get(&server.path, "/status").is_ok());
    });
}

#[test]
fn a_full_driver_costs_connections_and_nothing_else() {
    for_both(|prefer| {
        // The accept and one connection.
        let server = Server::start(prefer, 2, Duration::ZERO);
        let silent: Vec<_> = (0..4)
            .map(|_| UnixStream::connect(&server.path).unwrap())
            .collect();
        for mut stream in silent {
            stream
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        }
        assert!(client::get(&server.path, "/status").is_ok());
    });
}

#[test]
fn a_failed_accept_is_tried_again_after_a_pause() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("socket");
    let mut admin = Admin::new(Claimed::claim(&path).unwrap());
    assert_eq!(admin.path(), path);
    let mut wanted = Vec::new();
    admin.pump(&mut wanted);
    let Some(Wanted {
        operation: Operation::Accept { listener },
        token,
        ..
    }) = wanted.pop()
    else {
        panic!("it listens")
    };
    let result = Err(Failure::Os(rustix::io::Errno::MFILE));
    let outcome = Outcome::Accepted { listener, result };
    admin.completed(token, outcome, clock::now(), &mut handler, &mut wanted);
    admin.pump(&mut wanted);
    let [
        Wanted {
            operation: Operation::Timer { .. },
            token: AdminToken::Pause,
            ..
        },
    ] = &*wanted
    else {
        panic!("{wanted:?}")
    };
    wanted.clear();
    let outcome = Outcome::Elapsed { result: Ok(()) };
    admin.completed(
        AdminToken::Pause,
        outcome,
        clock::now(),
        &mut handler,
        &mut wanted,
    );
    admin.pump(&mut wanted);
    assert!(
        matches!(wanted[0].operation, Operation::Accept { .. }),
        "{wanted:?}"
    );
}
