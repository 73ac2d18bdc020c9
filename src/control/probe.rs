//! How a check is carried out: what it asks of the driver, and what the answer means.
//!
//! A TCP check is a connect with a limit. The socket has SO_LINGER with zero seconds, so closing it
//! sends RST instead of FIN. That is on purpose: the check is over when the handshake is; nothing was
//! said, so nothing can be lost; and neither side keeps the connection, we no TIME_WAIT (a port a minute
//! for each check), the backend no CLOSE_WAIT when its application is too busy to accept. The price: the
//! application may see ECONNRESET where it would have seen an empty connection.

use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::driver::{Failure, Operation, Outcome};
use super::health::{Kind, Reason, Start, Verdict};

/// The operation that carries out this check; its limit is [`Start::timeout`].
///
/// # Errors
/// When this host cannot; the verdict is for [`Checker::ended`](super::health::Checker::ended).
pub(crate) fn operation(start: &Start) -> Result<Operation, Verdict> {
    let family = if start.address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    match start.kind {
        Kind::Tcp => {
            let flags = SocketFlags::CLOEXEC;
            let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)
                .map_err(Verdict::Inconclusive)?;
            sockopt::set_socket_linger(&socket, Some(Duration::ZERO))
                .map_err(Verdict::Inconclusive)?;
            Ok(Operation::Connect {
                socket,
                address: start.address,
            })
        }
    }
}

/// What the end of that operation says of the backend. Dropping the outcome closes the connection.
pub(crate) fn verdict(outcome: &Outcome) -> Verdict {
    let failure = match outcome {
        Outcome::Connected { result: Ok(()), .. } => return Verdict::Success,
        Outcome::Connected {
            result: Err(failure),
            ..
        } => *failure,
        // Not an answer to what `operation` asked for.
        _ => return Verdict::Inconclusive(Errno::PROTO),
    };
    match failure {
        Failure::TimedOut => Verdict::Failure(Reason::TimedOut),
        Failure::Cancelled => Verdict::Inconclusive(Errno::CANCELED),
        Failure::Os(errno) => match errno {
            Errno::CONNREFUSED => Verdict::Failure(Reason::Refused),
            // The kernel's own timeout: net.ipv4.tcp_syn_retries were used up before ours.
            Errno::TIMEDOUT => Verdict::Failure(Reason::TimedOut),
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN => {
                Verdict::Failure(Reason::Unreachable(errno))
            }
            // No local port, no descriptor, no memory: our trouble, not the backend's.
            Errno::ADDRNOTAVAIL
            | Errno::AGAIN
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOBUFS
            | Errno::NOMEM => Verdict::Inconclusive(errno),
            _ => Verdict::Failure(Reason::Other(errno)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use ringgate_config::{Pace, Passive};

    use super::super::clock::now;
    use super::super::driver::{self, Driver, Prefer};
    use super::super::health::{CheckId, Checker, Spec, State};
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    fn spec(address: SocketAddr) -> Spec {
        Spec {
            address,
            kind: Some(Kind::Tcp),
            pace: Pace {
                interval: INTERVAL,
                jitter: Duration::ZERO,
                fast_interval: INTERVAL,
                timeout: INTERVAL,
                rise: 2,
                fall: 3,
                flap: None,
                passive: Passive::Off,
            },
            reports: None,
        }
    }

    /// The loop in small: until `over` says so.
    fn run(
        driver: &mut dyn Driver<CheckId>,
        checker: &mut Checker,
        over: impl Fn(&Checker) -> bool,
    ) {
        let end = now() + Duration::from_secs(10);
        let (mut start, mut done) = (Vec::new(), Vec::new());
        while !over(checker) {
            assert!(now() < end, "{checker:?}");
            checker.tick(now(), &mut start);
            for start in start.drain(..) {
                let operation = operation(&start).unwrap();
                driver
                    .start(operation, Some(start.timeout), start.id)
                    .unwrap();
            }
            let pause = checker
                .next_due()
                .map(|due| due.saturating_duration_since(now()));
            driver.wait(pause, &mut done).unwrap();
            for end in done.drain(..) {
                checker.ended(end.token, verdict(&end.outcome), Duration::ZERO, now());
            }
        }
    }

    fn a_backend_is_seen_to_live_die_and_rise(prefer: Prefer) {
        let (mut driver, _) = driver::open(prefer, 16).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let spec = spec(address);
        let mut checker = Checker::new(1);
        checker.reconcile([spec.clone()], now());
        let is = |state| {
            let spec = spec.clone();
            move |checker: &Checker| checker.report(&spec).unwrap().state == state
        };
        run(&mut *driver, &mut checker, is(State::Up));
        drop(listener);
        run(&mut *driver, &mut checker, is(State::Down));
        let report = checker.report(&spec).unwrap();
        assert_eq!(report.last, Some(Verdict::Failure(Reason::Refused)));
        assert_eq!(report.failures, 3);
        let listener = TcpListener::bind(address).unwrap();
        let before = checker.report(&spec).unwrap().successes;
        run(&mut *driver, &mut checker, is(State::Up));
        assert_eq!(checker.report(&spec).unwrap().successes, before + 2);
        // A full accept queue is as good as dead.
        rustix::net::listen(&listener, 0).unwrap();
        run(&mut *driver, &mut checker, is(State::Down));
        assert_eq!(
            checker.report(&spec).unwrap().last,
            Some(Verdict::Failure(Reason::TimedOut))
        );
    }

    #[test]
    fn a_backend_is_seen_to_live_die_and_rise_over_io_uring() {
        a_backend_is_seen_to_live_die_and_rise(Prefer::IoUring);
    }

    #[test]
    fn a_backend_is_seen_to_live_die_and_rise_over_epoll() {
        a_backend_is_seen_to_live_die_and_rise(Prefer::Epoll);
    }

    #[test]
    fn a_check_leaves_with_a_reset_and_no_time_wait() {
        let (mut driver, _) = driver::open(Prefer::Auto, 16).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let spec = spec(listener.local_addr().unwrap());
        let mut checker = Checker::new(1);
        checker.reconcile([spec], now());
        run(&mut *driver, &mut checker, |checker| checker.pending() == 0);
        let (mut connection, _): (TcpStream, _) = listener.accept().unwrap();
        let error = connection.read(&mut [0]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }

    #[test]
    fn every_errno_has_its_meaning() {
        let of = |failure| {
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            let family = AddressFamily::INET;
            let socket = rustix::net::socket(family, SocketType::STREAM, None).unwrap();
            verdict(&Operation::Connect { socket, address }.outcome(Err(failure)))
        };
        use Verdict::{Failure as Fails, Inconclusive};
        for (failure, expected) in [
            (Failure::TimedOut, Fails(Reason::TimedOut)),
            (Failure::Os(Errno::TIMEDOUT), Fails(Reason::TimedOut)),
            (Failure::Os(Errno::CONNREFUSED), Fails(Reason::Refused)),
            (
                Failure::Os(Errno::HOSTUNREACH),
                Fails(Reason::Unreachable(Errno::HOSTUNREACH)),
            ),
            (
                Failure::Os(Errno::NETUNREACH),
                Fails(Reason::Unreachable(Errno::NETUNREACH)),
            ),
            (
                Failure::Os(Errno::CONNRESET),
                Fails(Reason::Other(Errno::CONNRESET)),
            ),
            (
                Failure::Os(Errno::ADDRNOTAVAIL),
                Inconclusive(Errno::ADDRNOTAVAIL),
            ),
            (Failure::Os(Errno::MFILE), Inconclusive(Errno::MFILE)),
            (Failure::Cancelled, Inconclusive(Errno::CANCELED)),
        ] {
            assert_eq!(of(failure), expected, "{failure}");
        }
        assert!(matches!(
            verdict(&Outcome::Elapsed { result: Ok(()) }),
            Inconclusive(_)
        ));
    }
}
