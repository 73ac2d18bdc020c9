//! One suite, two drivers: every test here runs over io_uring and over epoll.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use super::super::clock::now;
use super::*;

type Subject = Box<dyn Driver<u32>>;

/// Long enough for anything that happens on one host; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// A limit that is meant to pass.
const SHORT: Duration = Duration::from_millis(30);

macro_rules! for_both_drivers {
    ($($test:ident,)*) => {
        mod over_io_uring {
            $(#[test] fn $test() { super::$test(super::subject(super::Prefer::IoUring, 64)); })*
        }
        mod over_epoll {
            $(#[test] fn $test() { super::$test(super::subject(super::Prefer::Epoll, 64)); })*
        }
    };
}

for_both_drivers! {
    a_connection_is_made_and_accepted,
    ipv6_connects_too,
    a_closed_port_refuses,
    a_full_backlog_ends_at_the_limit,
    bytes_go_out_and_come_in_after_what_was_there,
    the_end_of_the_stream_is_zero_bytes,
    sending_to_a_closed_peer_is_an_error_and_no_signal,
    a_silent_peer_ends_at_the_limit,
    a_blocked_send_ends_at_the_limit,
    an_operation_that_beats_its_limit_is_untouched_by_it,
    timers_end_in_their_order_and_not_before,
    cancelled_operations_complete_once_and_give_back_what_they_own,
    a_spent_id_cancels_nobody,
    readable_consumes_nothing,
    non_blocking_descriptors_are_fine,
    a_full_driver_gives_the_operation_back,
    a_buffer_without_room_is_refused,
    a_bad_descriptor_is_an_outcome,
    waiting_ends_at_the_timeout,
    many_at_once_all_complete,
    any_mix_of_starts_and_cancels_completes_each_once,
    dropping_closes_what_was_in_flight,
    the_longest_durations_do_not_overflow,
}

fn subject(prefer: Prefer, capacity: usize) -> Subject {
    let (driver, kind) = open(prefer, capacity).expect("this host runs both drivers");
    assert_eq!(driver.kind(), kind);
    driver
}

/// Waits until so many operations have completed; panics when they do not.
fn collect(driver: &mut Subject, count: usize) -> Vec<Completion<u32>> {
    let mut done = Vec::new();
    let end = now() + PATIENCE;
    while done.len() < count {
        assert!(
            now() < end,
            "only {} of {count} completed: {done:?}",
            done.len()
        );
        driver
            .wait(Some(Duration::from_millis(100)), &mut done)
            .unwrap();
    }
    assert_eq!(done.len(), count, "more than were started: {done:?}");
    done
}

fn collect_one(driver: &mut Subject) -> Completion<u32> {
    collect(driver, 1).remove(0)
}

fn stream_socket(address: SocketAddr) -> OwnedFd {
    let family = if address.is_ipv4() {
        rustix::net::AddressFamily::INET
    } else {
        rustix::net::AddressFamily::INET6
    };
    rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap()
}

fn connect_to(address: SocketAddr) -> Operation {
    Operation::Connect {
        socket: stream_socket(address),
        address,
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn pair() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours, theirs.into())
}

fn a_connection_is_made_and_accepted(mut driver: Subject) {
    let (listener, address) = listener();
    driver
        .start(
            Operation::Accept {
                listener: listener.into(),
            },
            None,
            1,
        )
        .unwrap();
    driver
        .start(connect_to(address), Some(PATIENCE), 2)
        .unwrap();
    assert_eq!(driver.in_flight(), 2);
    let mut ends = collect(&mut driver, 2);
    ends.sort_by_key(|end| end.token);
    assert_eq!(driver.in_flight(), 0);
    let [accepted, connected] = <[_; 2]>::try_from(ends).unwrap();
    let Outcome::Accepted {
        result: Ok(server), ..
    } = accepted.outcome
    else {
        panic!("{accepted:?}")
    };
    let Outcome::Connected {
        socket,
        result: Ok(()),
    } = connected.outcome
    else {
        panic!("{connected:?}")
    };
    assert!(
        rustix::io::fcntl_getfd(&server)
            .unwrap()
            .contains(rustix::io::FdFlags::CLOEXEC)
    );
    TcpStream::from(socket).write_all(b"hello").unwrap();
    let mut heard = String::new();
    let mut server = TcpStream::from(server);
    server.set_nonblocking(false).unwrap();
    server.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");
}

fn ipv6_connects_too(mut driver: Subject) {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let address = listener.local_addr().unwrap();
    driver
        .start(connect_to(address), Some(PATIENCE), 0)
        .unwrap();
    let end = collect_one(&mut driver);
    assert!(
        matches!(end.outcome, Outcome::Connected { result: Ok(()), .. }),
        "{end:?}"
    );
    assert_eq!(listener.accept().unwrap().0.local_addr().unwrap(), address);
}

fn a_closed_port_refuses(mut driver: Subject) {
    let (listener, address) = listener();
    drop(listener);
    driver
        .start(connect_to(address), Some(PATIENCE), 7)
        .unwrap();
    let end = collect_one(&mut driver);
    assert_eq!(end.token, 7);
    let Outcome::Connected { result, .. } = end.outcome else {
        panic!()
    };
    assert_eq!(result, Err(Failure::Os(Errno::CONNREFUSED)));
}

fn a_full_backlog_ends_at_the_limit(mut driver: Subject) {
    let (listener, address) = listener();
    rustix::net::listen(&listener, 0).unwrap(); // room for one connection that nobody accepts
    let first = TcpStream::connect(address).unwrap();
    let begun = now();
    driver.start(connect_to(address), Some(SHORT), 0).unwrap();
    let Outcome::Connected { result, .. } = collect_one(&mut driver).outcome else {
        panic!()
    };
    assert_eq!(result, Err(Failure::TimedOut));
    assert!(now() >= begun + SHORT);
    drop(first);
}

fn bytes_go_out_and_come_in_after_what_was_there(mut driver: Subject) {
    let (mut ours, theirs) = pair();
    let send = Operation::Send {
        fd: theirs,
        buffer: b"..ping".to_vec(),
        from: 2,
    };
    driver.start(send, Some(PATIENCE), 0).unwrap();
    let Outcome::Sent { fd, buffer, result } = collect_one(&mut driver).outcome else {
        panic!()
    };
    assert_eq!((result, buffer.as_slice()), (Ok(4), b"..ping".as_slice()));
    let mut heard = [0; 4];
    ours.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");

    let mut buffer = Vec::with_capacity(8);
    buffer.extend(b"ab");
    let room = buffer.capacity() - buffer.len();
    let place = buffer.as_ptr();
    ours.write_all(b"0123456789").unwrap();
    driver
        .start(Operation::Receive { fd, buffer }, None, 0)
        .unwrap();
    let Outcome::Received { buffer, result, .. } = collect_one(&mut driver).outcome else {
        panic!()
    };
    assert_eq!(result, Ok(room), "no more than there was room");
    assert_eq!(buffer, b"ab0123456789"[..2 + room]);
    assert_eq!(buffer.as_ptr(), place, "the very buffer that went in");
}

fn the_end_of_the_stream_is_zero_bytes(mut driver: Subject) {
    let (ours, theirs) = pair();
    driver
        .start(
            Operation::Receive {
                fd: theirs,
                buffer: Vec::with_capacity(4),
            },
            None,
            0,
        )
        .unwrap();
    drop(ours);
    let Outcome::Received { buffer, result, .. } = collect_one(&mut driver).outcome else {
        panic!()
    };
    assert_eq!((result, buffer.len()), (Ok(0), 0));
}

fn sending_to_a_closed_peer_is_an_error_and_no_signal(mut driver: Subject) {
    let (ours, theirs) = pair();
    drop(ours);
    driver
        .start(
            Operation::Send {
                fd: theirs,
                buffer: vec![0],
                from: 0,
            },
            None,
            0,
        )
        .unwrap();
    let Outcome::Sent { result, .. } = collect_one(&mut driver).outcome else {
        panic!()
    };
    assert_eq!(result, Err(Failure::Os(Errno::PIPE)));
}

fn a_silent_peer_ends_at_the_limit(mut driver: Subject) {
    let (_ours, theirs) = pair();
    let (_, address) = listener();
    let begun = now();
    let receive = Operation::Receive {
        fd: theirs,
        buffer: Vec::with_capacity(4),
    };
    driver.start(receive, Some(SHORT), 0).unwrap();
    let listener = TcpListener::bind((address.ip(), 0)).unwrap().into();
    driver
        .start(Operation::Accept { listener }, Some(SHORT), 1)
        .unwrap();
    driver
        .start(Operation::Readable { fd: pair().1 }, Some(PATIENCE), 2)
        .unwrap();
    for end in collect(&mut driver, 3) {
        match (end.token, end.outcome) {
            (0, Outcome::Received { buffer, result, .. }) => {
                assert_eq!((result, buffer.len()), (Err(Failure::TimedOut), 0));
                assert!(now() >= begun + SHORT);
            }
            (1, Outcome::Accepted { result, .. }) => {
                assert_eq!(result.unwrap_err(), Failure::TimedOut);
            }
            // Its peer is gone: readable, long before its limit.
            (2, Outcome::Readable { result, .. }) => assert_eq!(result, Ok(())),
            other => panic!("{other:?}"),
        }
    }
}

fn a_blocked_send_ends_at_the_limit(mut driver: Subject) {
    let (_ours, mut fd) = pair();
    let mut sent = 0;
    // More than any socket buffer holds: some sends go through, then one is stuck.
    for _ in 0..1000 {
        let send = Operation::Send {
            fd,
            buffer: vec![7; 1 << 16],
            from: 0,
        };
        driver.start(send, Some(SHORT), 0).unwrap();
        let Outcome::Sent {
            fd: back, result, ..
        } = collect_one(&mut driver).outcome
        else {
            panic!()
        };
        fd = back;
        match result {
            Ok(count) => sent += count,
            Err(failure) => {
                assert_eq!(failure, Failure::TimedOut);
                assert!(sent > 0);
                return;
            }
        }
    }
    panic!("{sent} bytes went into a socket that nobody reads");
}

fn an_operation_that_beats_its_limit_is_untouched_by_it(mut driver: Subject) {
    let (mut ours, mut fd) = pair();
    for round in 0..50_u8 {
        ours.write_all(&[round]).unwrap();
        let receive = Operation::Receive {
            fd,
            buffer: Vec::with_capacity(1),
        };
        driver.start(receive, Some(PATIENCE), 0).unwrap();
        let Outcome::Received {
            fd: back,
            buffer,
            result,
        } = collect_one(&mut driver).outcome
        else {
            panic!()
        };
        assert_eq!((result, buffer.as_slice()), (Ok(1), [round].as_slice()));
        fd = back;
    }
    assert_eq!(driver.in_flight(), 0, "no limit is left behind");
}

fn timers_end_in_their_order_and_not_before(mut driver: Subject) {
    let begun = now();
    let lengths = [60, 20, 40].map(Duration::from_millis);
    for (token, after) in (0..).zip(lengths) {
        driver
            .start(Operation::Timer { after }, None, token)
            .unwrap();
    }
    let mut order = Vec::new();
    while order.len() < 3 {
        let mut done = Vec::new();
        driver.wait(Some(PATIENCE), &mut done).unwrap();
        for end in done {
            assert!(
                matches!(end.outcome, Outcome::Elapsed { result: Ok(()) }),
                "{end:?}"
            );
            assert!(
                now() >= begun + lengths[end.token as usize],
                "timer {} early",
                end.token
            );
            order.push(end.token);
        }
    }
    assert_eq!(order, [1, 2, 0]);
}

fn cancelled_operations_complete_once_and_give_back_what_they_own(mut driver: Subject) {
    let (mut ours, theirs) = pair();
    let (tcp, address) = listener();
    rustix::net::listen(&tcp, 0).unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let (other, _) = listener();
    let operations = [
        (
            Operation::Receive {
                fd: theirs,
                buffer: Vec::with_capacity(4),
            },
            Some(PATIENCE),
        ),
        (Operation::Timer { after: PATIENCE }, None),
        (
            Operation::Accept {
                listener: other.into(),
            },
            None,
        ),
        (connect_to(address), Some(PATIENCE)),
    ];
    let ids: Vec<_> = (0..)
        .zip(operations)
        .map(|(token, (operation, limit))| driver.start(operation, limit, token).unwrap())
        .collect();
    let mut done = Vec::new();
    driver.wait(Some(SHORT), &mut done).unwrap();
    assert!(done.is_empty(), "{done:?}");
    for id in &ids {
        driver.cancel(*id);
        driver.cancel(*id); // twice is as good as once
    }
    let mut tokens = Vec::new();
    for end in collect(&mut driver, 4) {
        assert_eq!(ids[end.token as usize], end.id);
        tokens.push(end.token);
        match end.outcome {
            Outcome::Received { fd, buffer, result } => {
                assert_eq!((result, buffer.capacity()), (Err(Failure::Cancelled), 4));
                // The descriptor lives, and what comes now is not lost to the cancelled receive.
                ours.write_all(b"late").unwrap();
                let mut heard = [0; 4];
                UnixStream::from(fd).read_exact(&mut heard).unwrap();
                assert_eq!(&heard, b"late");
            }
            Outcome::Accepted { result, .. } => assert_eq!(result.unwrap_err(), Failure::Cancelled),
            Outcome::Connected { result, .. } | Outcome::Elapsed { result } => {
                assert_eq!(result, Err(Failure::Cancelled));
            }
            other => panic!("{other:?}"),
        }
    }
    tokens.sort_unstable();
    assert_eq!(tokens, [0, 1, 2, 3]);
}

fn a_spent_id_cancels_nobody(mut driver: Subject) {
    let old = driver
        .start(
            Operation::Timer {
                after: Duration::ZERO,
            },
            None,
            0,
        )
        .unwrap();
    collect(&mut driver, 1);
    let new = driver
        .start(Operation::Timer { after: SHORT }, None, 1)
        .unwrap();
    assert_ne!(old, new);
    driver.cancel(old);
    let end = collect_one(&mut driver);
    assert!(
        matches!(end.outcome, Outcome::Elapsed { result: Ok(()) }),
        "{end:?}"
    );
}

fn readable_consumes_nothing(mut driver: Subject) {
    let (mut ours, mut fd) = pair();
    ours.write_all(b"x").unwrap();
    for _ in 0..2 {
        driver.start(Operation::Readable { fd }, None, 0).unwrap();
        let Outcome::Readable { fd: back, result } = collect_one(&mut driver).outcome else {
            panic!()
        };
        assert_eq!(result, Ok(()));
        fd = back;
    }
    let mut byte = [0];
    UnixStream::from(fd).read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

fn non_blocking_descriptors_are_fine(mut driver: Subject) {
    let (tcp, address) = listener();
    tcp.set_nonblocking(true).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let fd = theirs.into();
    driver
        .start(
            Operation::Accept {
                listener: tcp.into(),
            },
            None,
            0,
        )
        .unwrap();
    driver
        .start(
            Operation::Receive {
                fd,
                buffer: Vec::with_capacity(1),
            },
            None,
            1,
        )
        .unwrap();
    let mut done = Vec::new();
    driver.wait(Some(SHORT), &mut done).unwrap();
    assert!(
        done.is_empty(),
        "neither is ready, neither is an error: {done:?}"
    );
    let _client = TcpStream::connect(address).unwrap();
    (&ours).write_all(b"x").unwrap();
    for end in collect(&mut driver, 2) {
        match end.outcome {
            Outcome::Accepted { listener, result } => {
                assert!(result.is_ok(), "{result:?}");
                // The listener came back and goes on accepting.
                assert_eq!(TcpListener::from(listener).local_addr().unwrap(), address);
            }
            Outcome::Received { result, .. } => assert_eq!(result, Ok(1)),
            other => panic!("{other:?}"),
        }
    }
}

fn a_full_driver_gives_the_operation_back(mut driver: Subject) {
    for token in 0..64 {
        driver
            .start(
                Operation::Timer {
                    after: Duration::ZERO,
                },
                None,
                token,
            )
            .unwrap();
    }
    let refused = driver
        .start(Operation::Readable { fd: pair().1 }, None, 99)
        .unwrap_err();
    assert_eq!(refused.why, Refusal::Full);
    assert!(matches!(refused.operation, Operation::Readable { .. }));
    collect(&mut driver, 64);
    driver.start(refused.operation, None, 99).unwrap();
    collect(&mut driver, 1);
}

fn a_buffer_without_room_is_refused(mut driver: Subject) {
    let empty = Operation::Receive {
        fd: pair().1,
        buffer: Vec::new(),
    };
    assert_eq!(
        driver.start(empty, None, 0).unwrap_err().why,
        Refusal::BadLength
    );
    for from in [3, 4, usize::MAX] {
        let nothing = Operation::Send {
            fd: pair().1,
            buffer: vec![1, 2, 3],
            from,
        };
        assert_eq!(
            driver.start(nothing, None, 0).unwrap_err().why,
            Refusal::BadLength
        );
    }
    assert_eq!(driver.in_flight(), 0);
}

fn a_bad_descriptor_is_an_outcome(mut driver: Subject) {
    let not_a_socket = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let receive = Operation::Receive {
        fd: not_a_socket(),
        buffer: Vec::with_capacity(4),
    };
    driver.start(receive, Some(PATIENCE), 0).unwrap();
    driver
        .start(
            Operation::Accept {
                listener: not_a_socket(),
            },
            None,
            1,
        )
        .unwrap();
    for end in collect(&mut driver, 2) {
        assert!(
            matches!(
                end.outcome,
                Outcome::Received {
                    result: Err(Failure::Os(_)),
                    ..
                } | Outcome::Accepted {
                    result: Err(Failure::Os(_)),
                    ..
                }
            ),
            "{end:?}"
        );
    }
}

fn waiting_ends_at_the_timeout(mut driver: Subject) {
    let _id = driver
        .start(Operation::Timer { after: PATIENCE }, None, 0)
        .unwrap();
    let mut done = Vec::new();
    driver.wait(Some(Duration::ZERO), &mut done).unwrap();
    driver.wait(Some(SHORT), &mut done).unwrap();
    assert!(done.is_empty());
}

fn many_at_once_all_complete(mut driver: Subject) {
    let (tcp, address) = listener();
    for token in 0..64 {
        driver
            .start(connect_to(address), Some(PATIENCE), token)
            .unwrap();
    }
    let mut tokens: Vec<u32> = collect(&mut driver, 64)
        .into_iter()
        .map(|end| {
            assert!(
                matches!(end.outcome, Outcome::Connected { result: Ok(()), .. }),
                "{end:?}"
            );
            end.token
        })
        .collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..64));
    drop(tcp);
}

fn any_mix_of_starts_and_cancels_completes_each_once(mut driver: Subject) {
    let mut random = 0x2545_F491_4F6C_DD1D_u64; // xorshift, fixed seed
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let (mut started, mut open_ids) = (0_u32, Vec::new());
    let mut seen = Vec::new();
    for _ in 0..2000 {
        let operation = match next(4) {
            0 => Operation::Timer {
                after: Duration::from_micros(next(2000)),
            },
            1 => Operation::Receive {
                fd: pair().1,
                buffer: Vec::with_capacity(8),
            },
            2 => {
                let (ours, theirs) = pair();
                drop(ours);
                Operation::Readable { fd: theirs }
            }
            _ => Operation::Timer { after: PATIENCE },
        };
        let limit = (next(2) == 0).then(|| Duration::from_micros(next(3000)));
        match driver.start(operation, limit, started) {
            Ok(id) => {
                open_ids.push((started, id));
                started += 1;
            }
            Err(refused) => assert_eq!(refused.why, Refusal::Full),
        }
        if next(3) == 0
            && let Some((_, id)) = open_ids.get(usize::try_from(next(64)).unwrap())
        {
            driver.cancel(*id);
        }
        if next(2) == 0 || driver.in_flight() > 60 {
            let mut done = Vec::new();
            driver
                .wait(Some(Duration::from_micros(200)), &mut done)
                .unwrap();
            for end in done {
                open_ids.retain(|(token, _)| *token != end.token);
                seen.push(end.token);
            }
        }
    }
    for (_, id) in &open_ids {
        driver.cancel(*id);
    }
    let rest = driver.in_flight();
    seen.extend(collect(&mut driver, rest).into_iter().map(|end| end.token));
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..started));
}

fn dropping_closes_what_was_in_flight(mut driver: Subject) {
    let (mut ours, theirs) = pair();
    let receive = Operation::Receive {
        fd: theirs,
        buffer: Vec::with_capacity(4),
    };
    driver.start(receive, Some(PATIENCE), 0).unwrap();
    driver
        .start(Operation::Timer { after: PATIENCE }, None, 1)
        .unwrap();
    let mut done = Vec::new();
    driver.wait(Some(Duration::ZERO), &mut done).unwrap();
    // One that the kernel has not even heard of.
    driver
        .start(Operation::Readable { fd: pair().1 }, None, 2)
        .unwrap();
    let begun = now();
    drop(driver);
    assert!(
        now() < begun + PATIENCE,
        "it does not wait for the operations to end by themselves"
    );
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "the other end was closed");
}

fn the_longest_durations_do_not_overflow(mut driver: Subject) {
    let (mut ours, fd) = pair();
    driver
        .start(
            Operation::Timer {
                after: Duration::MAX,
            },
            None,
            0,
        )
        .unwrap();
    let receive = Operation::Receive {
        fd,
        buffer: Vec::with_capacity(1),
    };
    driver.start(receive, Some(Duration::MAX), 1).unwrap();
    ours.write_all(b"x").unwrap();
    let mut done = Vec::new();
    while done.is_empty() {
        driver.wait(Some(Duration::MAX), &mut done).unwrap();
    }
    assert_eq!((done.len(), done[0].token), (1, 1), "{done:?}");
}

#[test]
fn the_variable_has_three_words() {
    for (word, prefer) in [
        (None, Prefer::Auto),
        (Some(""), Prefer::Auto),
        (Some("auto"), Prefer::Auto),
        (Some("io_uring"), Prefer::IoUring),
        (Some("epoll"), Prefer::Epoll),
    ] {
        assert_eq!(Prefer::from_variable(word).unwrap(), prefer);
    }
    let error = Prefer::from_variable(Some("uring")).unwrap_err();
    assert!(error.to_string().contains("\"uring\""), "{error}");
}

#[test]
fn a_refusal_names_its_cure() {
    for (errno, cure) in [
        (Errno::PERM, "io_uring_disabled"),
        (Errno::NOSYS, "built without"),
        (Errno::NOMEM, "locked memory"),
        (Errno::MFILE, "open files"),
    ] {
        let text = Unusable::Setup(errno.into()).to_string();
        assert!(text.contains(cure), "{text}");
    }
}
