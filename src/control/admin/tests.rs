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
        let claimed = Claimed::claim(&path, 0o600).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut driver, _) = driver::open(prefer, capacity).unwrap();
            let mut admin = Admin::new(claimed, &Api::default());
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
    let (mut later, mut streams) = (Vec::new(), Vec::new());
    let mut handler = |request: &Request<'_>, key| match request.path {
        "/later" if request.method == "POST" => {
            later.push(key);
            Answer::Later
        }
        "/stream" => {
            streams.push((key, request.parameter("last").is_some()));
            Answer::Stream { kind: "text/plain" }
        }
        _ => handler(request, key),
    };
    for Completion { token, outcome, .. } in done {
        admin.completed(token, outcome, now, &mut handler, &mut wanted);
    }
    for (key, is_short) in streams {
        admin.push(key, b"one", &mut wanted);
        admin.push(key, b"", &mut wanted);
        admin.push(key, b"two\n", &mut wanted);
        if is_short {
            admin.finish(key, &mut wanted);
            assert_eq!(admin.push(key, b"late", &mut wanted), Push::Gone);
        }
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
        ("POST", "/count") => Response::ok(json!(request.body.len())),
        ("GET", "/access") => Response::ok(json!(format!("{:?}", request.access))),
        ("GET", "/text") => Response::text("text/plain", b"plain".to_vec()),
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
        let done = client::post(&server.path, "/later", b"").unwrap();
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
fn a_body_of_any_length_up_to_the_bound_arrives_whole() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        for length in [0, 1, MAX_HEAD, 3 << 20, http::MAX_BODY] {
            let body = vec![b'x'; length];
            let count = client::post(&server.path, "/count", &body).unwrap();
            assert_eq!(count, json!(length));
        }
        let long = vec![b'x'; http::MAX_BODY + 1];
        let error = client::post(&server.path, "/count", &long).unwrap_err();
        let is_refused = matches!(error, ClientError::Refused { status: 413, .. });
        assert!(is_refused, "{error}");
        // The tests' own user made the socket.
        assert_eq!(client::get(&server.path, "/access").unwrap(), "Write");
    });
}

#[test]
fn a_stream_is_its_pieces_in_order_and_ends_when_it_is_finished() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        let pieces = client::follow(&server.path, "/stream?last").unwrap();
        let pieces: Vec<Vec<u8>> = pieces.map(Result::unwrap).collect();
        assert_eq!(pieces, [&b"one"[..], b"two\n"]);
        let answer = ask(&server.path, b"GET /stream?last HTTP/1.1\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
        assert_eq!(body, "3\r\none\r\n4\r\ntwo\n\r\n0\r\n\r\n");
        let error = client::follow(&server.path, "/nothing").unwrap_err();
        let is_refused = matches!(error, ClientError::Refused { status: 404, .. });
        assert!(is_refused, "{error}");
        let error = client::follow(&server.path, "/status").unwrap_err();
        assert!(matches!(error, ClientError::Garbled(..)), "{error}");
    });
}

/// As many as there may be, and their places are free as soon as their clients have gone.
#[test]
fn streams_are_bounded_and_leave_their_places() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        for _ in 0..2 {
            let mut open: Vec<_> = (0..MAX_STREAMS)
                .map(|_| {
                    loop {
                        match client::follow(&server.path, "/stream") {
                            Ok(pieces) => break pieces,
                            // Those of the last round have not been missed yet.
                            Err(ClientError::Refused { status: 503, .. }) => thread::yield_now(),
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
                .collect();
            let error = client::follow(&server.path, "/stream").unwrap_err();
            let is_refused = matches!(error, ClientError::Refused { status: 503, .. });
            assert!(is_refused, "{error}");
            assert!(client::get(&server.path, "/status").is_ok());
            for pieces in &mut open {
                assert_eq!(pieces.next().unwrap().unwrap(), b"one");
            }
        }
    });
}

#[test]
fn who_has_said_all_still_gets_the_answer() {
    for_both(|prefer| {
        let server = Server::start(prefer, 64, Duration::ZERO);
        for (target, words) in [("/status", "{\"up\":true}\n"), ("/stream?last", "two")] {
            let mut stream = UnixStream::connect(&server.path).unwrap();
            let request = format!("GET {target} HTTP/1.1\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains(words), "{answer}");
        }
        let mut stream = UnixStream::connect(&server.path).unwrap();
        stream.write_all(b"GET /status HTT").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("ends before it is complete"), "{answer}");
    });
}

#[test]
fn a_stream_takes_no_more_than_its_share_of_memory() {
    let home = tempfile::tempdir().unwrap();
    let claimed = Claimed::claim(&home.path().join("socket"), 0o600).unwrap();
    let mut admin = Admin::new(claimed, &Api::default());
    let (mut wanted, now) = (Vec::new(), clock::now());
    let (ours, _theirs) = UnixStream::pair().unwrap();
    admin.pump(&mut wanted);
    let Some(Operation::Accept { listener }) = wanted.pop().map(|wanted| wanted.operation) else {
        panic!("it listens")
    };
    let key = std::cell::Cell::new(None);
    let mut handler = |_: &Request<'_>, its: Key| {
        key.set(Some(its));
        Answer::Stream { kind: "text/plain" }
    };
    let result = Ok(OwnedFd::from(ours));
    let outcome = Outcome::Accepted { listener, result };
    admin.completed(
        AdminToken::Listener,
        outcome,
        now,
        &mut handler,
        &mut wanted,
    );
    let Some(Wanted {
        operation: Operation::Receive { fd, mut buffer },
        token,
        ..
    }) = wanted.pop()
    else {
        panic!("it reads")
    };
    buffer.extend(b"GET / HTTP/1.1\r\n\r\n");
    let result = Ok(buffer.len());
    let outcome = Outcome::Received { fd, buffer, result };
    admin.completed(token, outcome, now, &mut handler, &mut wanted);
    let key = key.get().unwrap();
    // The head is on its way and nothing is read: what is pushed waits.
    let piece = vec![b'x'; 100 << 10];
    let taken = (0..100)
        .take_while(|_| admin.push(key, &piece, &mut wanted) == Push::Queued)
        .count();
    assert_eq!(taken, stream::MOST_QUEUED / piece.len());
    assert_eq!(admin.push(key, &piece, &mut wanted), Push::Lagging);
    // With the head sent, all that waits is on its way, and there is room again.
    let Some(Wanted {
        operation: Operation::Send { fd, buffer, .. },
        token,
        ..
    }) = wanted.pop()
    else {
        panic!("it answers")
    };
    let result = Ok(buffer.len());
    let outcome = Outcome::Sent { fd, buffer, result };
    admin.completed(token, outcome, now, &mut handler, &mut wanted);
    assert_eq!(admin.push(key, &piece, &mut wanted), Push::Queued);
    assert!(admin.is_open(key));
    // Its client has gone.
    let outcome = match wanted.into_iter().next_back() {
        Some(Wanted {
            operation: Operation::Send { fd, buffer, .. },
            ..
        }) => Outcome::Sent {
            fd,
            buffer,
            result: Err(Failure::Os(rustix::io::Errno::PIPE)),
        },
        other => panic!("{other:?}"),
    };
    let mut wanted = Vec::new();
    admin.completed(token, outcome, now, &mut handler, &mut wanted);
    assert!(!admin.is_open(key));
    assert_eq!(admin.push(key, b"late", &mut wanted), Push::Gone);
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
            (
                "POST /count HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST".to_owned(),
                "400",
            ),
            (
                "POST /count HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
                "411",
            ),
            ("nonsense\r\n\r\n".to_owned(), "400"),
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(MAX_HEAD)), "431"),
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
        assert!(sent < MAX_HEAD, "never cut off");
        thread::sleep(Duration::from_millis(2));
    }
    let mut answer = Vec::new();
    let _reset = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
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
    let mut admin = Admin::new(Claimed::claim(&path, 0o600).unwrap(), &Api::default());
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
