//! Rise and fall, played without a network and without waiting.

use ringgate_config::Flap;

use super::super::clock;
use super::*;

mod promises;
mod reports;
mod suspicion;

const SECOND: Duration = Duration::from_secs(1);
/// How long checks take, where it does not matter.
const TOOK: Duration = Duration::from_millis(1);
const DEAD: Verdict = Verdict::Failure(Reason::Refused);

const PACE: Pace = Pace {
    interval: SECOND,
    jitter: Duration::ZERO,
    fast_interval: SECOND,
    timeout: Duration::from_millis(500),
    rise: 2,
    fall: 3,
    flap: None,
    passive: Passive::Off,
};

fn spec(number: u8) -> Spec {
    Spec {
        address: SocketAddr::from(([10, 0, 0, number], 80)),
        check: Some(Arc::new(Check::Tcp)),
        pace: PACE,
        path: None,
        reports: None,
    }
}

/// The same at another pace.
fn paced(spec: Spec, pace: Pace) -> Spec {
    Spec { pace, ..spec }
}

/// A checker and a time that only moves when told.
struct Play {
    checker: Checker,
    now: Instant,
}

impl Play {
    fn new(specs: impl IntoIterator<Item = Spec>) -> Self {
        let now = clock::now();
        let mut checker = Checker::new(7);
        checker.reconcile(specs, now);
        Self { checker, now }
    }

    fn started(&mut self) -> Vec<Start> {
        let mut start = Vec::new();
        self.checker.tick(self.now, &mut start);
        start
    }

    /// Goes to the time of the next check, which must be the only one, and answers it.
    fn answer(&mut self, verdict: Verdict) -> Option<Change> {
        self.now = self.now.max(self.checker.next_due().unwrap());
        let [start] = <[_; 1]>::try_from(self.started()).unwrap();
        self.checker.ended(start.id, verdict, TOOK, self.now)
    }

    fn state(&self, spec: &Spec) -> State {
        self.checker.report(spec).unwrap().state
    }
}

#[test]
fn the_first_result_decides_at_once() {
    for (verdict, state) in [(Verdict::Success, State::Up), (DEAD, State::Down)] {
        let mut play = Play::new([spec(1)]);
        assert_eq!(
            (play.state(&spec(1)), play.checker.pending()),
            (State::Pending, 1)
        );
        assert_eq!(play.checker.next_due(), Some(play.now), "at once");
        let change = play.answer(verdict).unwrap();
        assert_eq!(
            (change.state, change.reason.is_some()),
            (state, state == State::Down)
        );
        assert_eq!((play.state(&spec(1)), play.checker.pending()), (state, 0));
    }
}

#[test]
fn it_takes_fall_failures_in_a_row_and_rise_successes_in_a_row() {
    let mut play = Play::new([spec(1)]);
    play.answer(Verdict::Success).unwrap();
    // The last of each row is where it changes.
    let story = [
        (DEAD, false),
        (DEAD, false),
        (Verdict::Success, false), // starts the count again
        (DEAD, false),
        (DEAD, false),
        (DEAD, true),
        (DEAD, false),
        (Verdict::Success, false),
        (DEAD, false), // starts the count again
        (Verdict::Success, false),
        (Verdict::Success, true),
    ];
    for (step, (verdict, changes)) in story.into_iter().enumerate() {
        assert_eq!(play.answer(verdict).is_some(), changes, "step {step}");
    }
    let report = play.checker.report(&spec(1)).unwrap();
    assert_eq!((report.state, report.against), (State::Up, 0));
    assert_eq!((report.successes, report.failures), (5, 7));
    assert_eq!(report.since, play.now);
}

#[test]
fn what_this_host_could_not_ask_does_not_count() {
    let mut play = Play::new([spec(1)]);
    assert_eq!(play.answer(Verdict::Inconclusive(Errno::MFILE)), None);
    assert_eq!(play.state(&spec(1)), State::Pending);
    play.answer(Verdict::Success).unwrap();
    for _ in 0..3 {
        play.answer(DEAD);
        play.answer(Verdict::Inconclusive(Errno::MFILE));
    }
    assert_eq!(play.state(&spec(1)), State::Down, "nor does it break a row");
    assert_eq!(play.checker.report(&spec(1)).unwrap().inconclusive, 4);
}

#[test]
fn checks_start_at_a_fixed_pace_however_long_they_take() {
    let mut play = Play::new([spec(1)]);
    play.answer(Verdict::Success);
    let second = play.checker.next_due().unwrap();
    for number in 0..5 {
        let planned = second + SECOND * number;
        assert_eq!(play.checker.next_due(), Some(planned));
        play.now = planned + Duration::from_millis(7); // the loop is late
        let [start] = <[_; 1]>::try_from(play.started()).unwrap();
        assert_eq!(start.timeout, SECOND / 2);
        assert!(play.started().is_empty(), "one at a time");
        assert_eq!(play.checker.next_due(), None, "nothing before its result");
        play.now += SECOND / 2;
        play.checker
            .ended(start.id, Verdict::Success, TOOK, play.now);
    }
}

#[test]
fn a_host_that_slept_does_not_make_up_for_it() {
    let mut play = Play::new([spec(1)]);
    play.answer(Verdict::Success);
    play.now += SECOND * 3600;
    let mut checks = 0;
    while let Some(due) = play.checker.next_due()
        && due <= play.now
    {
        play.answer(Verdict::Success);
        checks += 1;
    }
    assert!(checks <= 2, "{checks}");
}

#[test]
fn many_checks_spread_over_the_interval_each_time_alike() {
    let specs: Vec<_> = (0..200).map(spec).collect();
    let seconds = |seed| -> Vec<Duration> { specs.iter().map(|spec| spread(seed, spec)).collect() };
    let first = seconds(1);
    assert!(
        first
            .iter()
            .all(|after| *after > Duration::ZERO && *after <= SECOND)
    );
    for tenth in 0..10 {
        let within = |after: &&Duration| after.as_millis() / 100 == tenth;
        let count = first.iter().filter(within).count();
        assert!((5..=40).contains(&count), "{count} of 200 in tenth {tenth}");
    }
    assert_eq!(first, seconds(1));
    assert_ne!(
        first,
        seconds(2),
        "another balancer checks at other moments"
    );
}

#[test]
fn a_reload_keeps_what_is_unchanged_even_mid_flight() {
    let mut play = Play::new([spec(1), spec(2)]);
    let starts = play.started();
    assert_eq!(starts.len(), 2);
    play.checker
        .reconcile([spec(2), spec(2), spec(3)], play.now);
    // The end of the one that was taken away concerns nobody.
    let (gone, kept) = (starts[0].id, starts[1].id);
    assert_eq!(play.checker.ended(gone, DEAD, TOOK, play.now), None);
    assert!(play.checker.report(&spec(1)).is_none());
    assert!(
        play.checker
            .ended(kept, Verdict::Success, TOOK, play.now)
            .is_some()
    );
    assert_eq!(
        play.checker.ended(kept, DEAD, TOOK, play.now),
        None,
        "answered twice"
    );
    assert_eq!(play.state(&spec(2)), State::Up);
    let [new] = <[_; 1]>::try_from(play.started()).unwrap();
    assert_eq!(new.address, spec(3).address);
    assert_eq!(play.state(&spec(3)), State::Pending);
}

#[test]
fn changed_parameters_keep_the_state() {
    let mut play = Play::new([spec(1)]);
    play.answer(DEAD).unwrap();
    let slower = paced(
        spec(1),
        Pace {
            interval: SECOND * 5,
            ..PACE
        },
    );
    play.checker.reconcile([slower.clone()], play.now);
    assert_eq!(play.state(&slower), State::Down, "no flap to pending or up");
    assert_eq!(
        play.answer(Verdict::Success),
        None,
        "and rise counts from here"
    );
    assert_eq!(play.answer(Verdict::Success).unwrap().state, State::Up);
    // A second service that checks the same backend in its own way knows what is known.
    play.checker.reconcile([slower.clone(), spec(1)], play.now);
    assert_eq!(play.state(&spec(1)), State::Up);
    assert_eq!(play.checker.pending(), 0);
}

#[test]
fn a_refused_start_is_tried_again_soon_and_counts_nothing() {
    let mut play = Play::new([spec(1)]);
    let [start] = <[_; 1]>::try_from(play.started()).unwrap();
    play.checker.refused(start.id, play.now);
    assert_eq!(play.checker.next_due(), Some(play.now + RETRY));
    assert_eq!(
        play.checker.ended(start.id, DEAD, TOOK, play.now),
        None,
        "it was not running"
    );
    assert!(play.answer(Verdict::Success).is_some());
}

#[test]
fn senseless_parameters_do_no_harm() {
    let senseless = Pace {
        interval: Duration::ZERO,
        jitter: SECOND,
        fast_interval: Duration::ZERO,
        timeout: SECOND,
        rise: 0,
        fall: 0,
        ..PACE
    };
    let spec = paced(spec(1), senseless);
    let mut play = Play::new([spec.clone()]);
    let [start] = <[_; 1]>::try_from(play.started()).unwrap();
    assert_eq!(
        start.timeout, SHORTEST_INTERVAL,
        "the timeout is cut to the interval"
    );
    play.checker
        .ended(start.id, Verdict::Success, TOOK, play.now);
    assert_eq!(play.answer(DEAD).unwrap().state, State::Down);
    assert_eq!(play.answer(Verdict::Success).unwrap().state, State::Up);
}

#[test]
fn of_several_that_know_a_backend_the_last_to_learn_is_believed() {
    let patient = paced(spec(1), Pace { fall: 9, ..PACE });
    for order in [[spec(1), patient.clone()], [patient.clone(), spec(1)]] {
        let mut play = Play::new(order);
        for _ in 0..8 {
            play.now += SECOND;
            for start in play.started() {
                let verdict = if play.checker.pending() > 0 {
                    Verdict::Success
                } else {
                    DEAD
                };
                play.checker.ended(start.id, verdict, TOOK, play.now);
            }
        }
        assert_eq!(play.state(&spec(1)), State::Down);
        assert_eq!(play.state(&patient), State::Up);
        let new = paced(spec(1), Pace { rise: 7, ..PACE });
        play.checker.reconcile([new.clone()], play.now);
        assert_eq!(play.state(&new), State::Down);
    }
}

impl Checker {
    /// Makes these checks the ones that are run, whichever were. Naming one twice is naming it once.
    pub(crate) fn reconcile(&mut self, wanted: impl IntoIterator<Item = Spec>, now: Instant) {
        let users = self.checks.iter().map(|(id, check)| (*id, check.users));
        let gone: Vec<CheckId> = users
            .flat_map(|(id, users)| std::iter::repeat_n(id, users))
            .collect();
        self.exchange(wanted.into_iter().collect(), &gone, now);
    }
}
