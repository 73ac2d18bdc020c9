//! What an agent outside can say, and for how long.

use super::*;

const TTL: Duration = Duration::from_secs(30);

fn target(service: &str) -> Target {
    Target {
        service: service.into(),
        backend: SocketAddr::from(([10, 0, 0, 1], 80)),
    }
}

/// A backend that is reported, and asked as well if `is_asked`.
fn reported(service: &str, is_asked: bool) -> Spec {
    Spec {
        check: is_asked.then(|| Arc::new(Check::Tcp)),
        reports: Some(Reports {
            target: target(service),
            ttl: TTL,
        }),
        ..spec(1)
    }
}

impl Play {
    fn tell(&mut self, told: Told) -> Option<State> {
        let change = self.checker.reported(&target("web"), told, self.now);
        change.unwrap().map(|change| change.state)
    }

    fn lapsed(&mut self) -> Vec<(State, Option<Reason>)> {
        let mut changes = Vec::new();
        self.checker.lapse(self.now, &mut changes);
        changes
            .into_iter()
            .map(|one| (one.state, one.reason))
            .collect()
    }
}

#[test]
fn who_is_only_reported_is_what_was_said_last_until_it_is_too_long_ago() {
    let spec = reported("web", false);
    let mut play = Play::new([spec.clone()]);
    assert_eq!(
        (play.state(&spec), play.checker.pending()),
        (State::Pending, 1)
    );
    assert!(play.started().is_empty(), "nobody asks it");
    assert_eq!(play.tell(Told::Up), Some(State::Up));
    play.now += TTL - SECOND;
    assert_eq!(play.tell(Told::Up), None);
    assert_eq!(play.checker.next_due(), Some(play.now + TTL));
    play.now += SECOND;
    assert_eq!(play.tell(Told::Down), Some(State::Down));
    assert_eq!(
        play.tell(Told::Up),
        Some(State::Up),
        "at once: rise is for checks"
    );
    play.now += TTL;
    assert_eq!(play.lapsed(), [(State::Down, Some(Reason::Unreported))]);
    assert_eq!(play.checker.report(&spec).unwrap().told, None);
    assert_eq!(
        play.checker.next_due(),
        None,
        "nothing more can come of itself"
    );
    assert_eq!(play.tell(Told::Up), Some(State::Up));
}

#[test]
fn who_is_never_reported_is_down_in_the_end() {
    let spec = reported("web", false);
    let mut play = Play::new([spec.clone()]);
    assert_eq!(play.checker.next_due(), Some(play.now + TTL));
    play.now += TTL;
    assert_eq!(play.lapsed(), [(State::Down, Some(Reason::Unreported))]);
    assert_eq!(play.checker.next_due(), None);
}

#[test]
fn beside_a_check_a_report_can_take_out_and_not_bring_in() {
    let spec = reported("web", true);
    let mut play = Play::new([spec.clone()]);
    assert_eq!(play.tell(Told::Up), None);
    assert_eq!(play.state(&spec), State::Pending, "nobody has asked it yet");
    play.answer(DEAD).unwrap();
    assert_eq!(play.tell(Told::Up), None, "it does not answer");
    play.answer(Verdict::Success);
    play.answer(Verdict::Success).unwrap();
    assert_eq!(play.tell(Told::Down), Some(State::Down));
    let told_at = play.now;
    for _ in 0..5 {
        assert_eq!(play.answer(Verdict::Success), None);
    }
    assert_eq!(play.tell(Told::Up), Some(State::Up));
    assert_eq!(play.tell(Told::Down), Some(State::Down));
    // An agent that is gone changes nothing: the checks are believed.
    let told_at = told_at.max(play.now);
    play.now = told_at + TTL;
    assert_eq!(play.lapsed(), [(State::Up, None)]);
    assert_eq!(play.checker.report(&spec).unwrap().told, None);
}

#[test]
fn a_report_is_about_a_backend_of_one_service() {
    let (web, other) = (reported("web", true), reported("other", true));
    let mut play = Play::new([web.clone(), other.clone()]);
    for start in play.started() {
        play.checker
            .ended(start.id, Verdict::Success, TOOK, play.now);
    }
    assert_eq!(play.tell(Told::Down), Some(State::Down));
    assert_eq!(
        (play.state(&web), play.state(&other)),
        (State::Down, State::Up)
    );
    let nobody = play.checker.reported(&target("mail"), Told::Down, play.now);
    assert_eq!(nobody, Err(NotReported));
    assert_eq!(
        play.checker.reported(&target("web"), Told::Down, play.now),
        Ok(None)
    );
    // A reload keeps what was said of the same, and carries it to nobody else.
    let pace = Pace { rise: 5, ..PACE };
    let [web5, mail] = [paced(web, pace), paced(reported("mail", true), pace)];
    play.checker
        .reconcile([web5.clone(), mail.clone()], play.now);
    assert_eq!(
        (play.state(&web5), play.state(&mail)),
        (State::Down, State::Up)
    );
    let nobody = play.checker.reported(&target("other"), Told::Up, play.now);
    assert_eq!(nobody, Err(NotReported), "it is gone");
}

#[test]
fn an_agent_that_cannot_decide_is_damped_too() {
    let mut spec = reported("web", false);
    spec.pace.flap = Some(Flap {
        changes: 4,
        within: SECOND * 60,
        hold: SECOND * 10,
        most: SECOND * 60,
    });
    let mut play = Play::new([spec.clone()]);
    play.tell(Told::Up);
    for _ in 0..2 {
        play.now += SECOND;
        play.tell(Told::Down);
        play.now += SECOND;
        play.tell(Told::Up);
    }
    assert_eq!(play.tell(Told::Down), Some(State::Held));
    assert_eq!(play.tell(Told::Up), None);
    play.now += SECOND * 10;
    assert_eq!(play.lapsed(), [(State::Up, None)]);
}
