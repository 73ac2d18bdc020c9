use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use ringgate_config::{Pace, Passive};

use super::super::clock::now;
use super::super::driver::{self, Driver, Prefer};
use super::super::health::{Checker, Reason, Spec, State};
use super::*;
use rustix::io::Errno;

mod answers;
mod others;
mod secrets;
mod world;

const INTERVAL: Duration = Duration::from_millis(20);

fn spec(address: SocketAddr) -> Spec {
    Spec {
        address,
        check: Some(Arc::new(Check::Tcp)),
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
        path: None,
        reports: None,
    }
}

/// The loop in small: until `over` says so.
fn run(
    driver: &mut dyn Driver<ProbeToken>,
    checker: &mut Checker,
    over: impl Fn(&Checker) -> bool,
) {
    let end = now() + Duration::from_secs(10);
    let (mut start, mut done) = (Vec::new(), Vec::new());
    let mut prober = Prober::new(16, Trust::default(), 1);
    while !over(checker) {
        assert!(now() < end, "{checker:?}");
        checker.tick(now(), &mut start);
        for start in start.drain(..) {
            let progress = prober.start(&start, None, now(), driver);
            assert_eq!(progress, Progress::Running);
        }
        let pause = checker
            .next_due()
            .map(|due| due.saturating_duration_since(now()));
        driver.wait(pause, &mut done).unwrap();
        for end in done.drain(..) {
            let progress = prober.completed(end.token, end.outcome, now(), driver);
            let Progress::Ended(ended) = progress else {
                panic!("{progress:?}");
            };
            checker.ended(ended.id, ended.verdict, ended.latency, now());
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
fn every_errno_of_a_connect_has_its_meaning() {
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
        assert_eq!(tcp::of_connect(failure), expected, "{failure}");
    }
}

#[test]
fn when_many_are_due_at_once_they_are_begun_a_few_at_a_time() {
    let specs = (1..=150).map(|port| spec(SocketAddr::from(([10, 2, 0, 1], port))));
    let mut checker = Checker::new(1);
    checker.reconcile(specs, now());
    let mut starts = Vec::new();
    checker.tick(now(), &mut starts);
    let mut prober = Prober::new(16, Trust::default(), 1);
    assert!(!prober.is_behind());
    prober.queue(starts.iter().cloned());
    let mut begun = Vec::new();
    for expected in [64, 64, 22, 0] {
        let now = prober.begun_now();
        assert_eq!(now.len(), expected);
        begun.extend(now);
    }
    assert!(!prober.is_behind());
    assert_eq!(begun, starts, "in the order in which they came");
}
