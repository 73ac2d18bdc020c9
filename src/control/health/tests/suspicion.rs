//! What signs in the traffic do, and what they cannot.

use super::*;

const FAST: Duration = Duration::from_millis(100);

fn watched(passive: Passive) -> Spec {
    let pace = Pace {
        fast_interval: FAST,
        passive,
        ..PACE
    };
    paced(spec(1), pace)
}

/// Up, and half an interval after its last check.
fn play(passive: Passive) -> Play {
    let mut play = Play::new([watched(passive)]);
    play.answer(Verdict::Success);
    play.answer(Verdict::Success);
    play.now += SECOND / 2;
    play
}

impl Play {
    fn sign(&mut self, sign: Sign, passive: Passive) -> Option<Change> {
        self.checker.sign(&watched(passive), sign, self.now)
    }
}

#[test]
fn a_sign_brings_the_check_forward_to_now() {
    for passive in [Passive::Check, Passive::Suspect] {
        let mut play = play(passive);
        assert_eq!(play.sign(Sign::Trouble, passive), None);
        assert_eq!(play.checker.next_due(), Some(play.now));
        let now = play.now;
        play.answer(Verdict::Success);
        assert_eq!(play.now, now);
        assert_eq!(
            play.checker.next_due(),
            Some(now + SECOND),
            "and the pace goes on from there"
        );
    }
    let mut play = play(Passive::Off);
    play.sign(Sign::Failing, Passive::Off);
    assert_eq!(play.checker.next_due(), Some(play.now + SECOND / 2));
}

#[test]
fn signs_make_no_more_checks_than_one_in_a_fast_interval() {
    let mut play = play(Passive::Suspect);
    let (mut checks, begin) = (0, play.now);
    while play.now < begin + SECOND * 10 {
        play.sign(Sign::Failing, Passive::Suspect);
        for start in play.started() {
            checks += 1;
            play.sign(Sign::Failing, Passive::Suspect); // while it runs
            play.checker
                .ended(start.id, Verdict::Success, TOOK, play.now);
        }
        play.now += Duration::from_millis(1);
    }
    assert_eq!(checks, 100);
    assert!(
        play.state(&watched(Passive::Suspect)) != State::Down,
        "and signs alone take nobody down"
    );
}

#[test]
fn a_sign_during_a_check_asks_again() {
    let mut play = play(Passive::Check);
    play.now = play.checker.next_due().unwrap();
    let [start] = <[_; 1]>::try_from(play.started()).unwrap();
    play.now += FAST / 2;
    play.sign(Sign::Trouble, Passive::Check);
    assert_eq!(play.checker.next_due(), None, "one at a time");
    play.checker
        .ended(start.id, Verdict::Success, TOOK, play.now);
    assert_eq!(play.checker.next_due(), Some(play.now + FAST / 2));
}

#[test]
fn only_a_check_that_began_after_the_sign_ends_a_suspicion() {
    let mut play = play(Passive::Suspect);
    let spec = watched(Passive::Suspect);
    play.now = play.checker.next_due().unwrap();
    let [before] = <[_; 1]>::try_from(play.started()).unwrap();
    play.now += FAST;
    assert_eq!(
        play.sign(Sign::Trouble, Passive::Suspect),
        None,
        "some is not most"
    );
    let change = play.sign(Sign::Failing, Passive::Suspect).unwrap();
    assert_eq!((change.state, change.reason), (State::Suspect, None));
    assert_eq!(
        play.sign(Sign::Failing, Passive::Suspect),
        None,
        "told once"
    );
    assert_eq!(
        play.checker
            .ended(before.id, Verdict::Success, TOOK, play.now),
        None
    );
    assert_eq!(play.state(&spec), State::Suspect);
    play.now += FAST;
    assert_eq!(play.answer(Verdict::Success).unwrap().state, State::Up);
}

#[test]
fn a_suspect_that_does_not_answer_goes_down_as_any_other_and_faster() {
    let mut play = play(Passive::Suspect);
    let spec = watched(Passive::Suspect);
    play.sign(Sign::Failing, Passive::Suspect).unwrap();
    let begin = play.now;
    assert_eq!(play.answer(DEAD), None);
    assert_eq!(play.answer(DEAD), None);
    assert_eq!(play.state(&spec), State::Suspect);
    let change = play.answer(DEAD).unwrap();
    assert_eq!(
        (change.state, change.reason),
        (State::Down, Some(Reason::Refused))
    );
    assert_eq!(play.now, begin + FAST * 2);
    assert_eq!(
        play.sign(Sign::Failing, Passive::Suspect),
        None,
        "down is down"
    );
    assert_eq!(play.answer(Verdict::Success), None);
    assert_eq!(play.answer(Verdict::Success).unwrap().state, State::Up);
}

#[test]
fn who_was_cleared_is_not_suspect_again_for_an_interval() {
    let mut play = play(Passive::Suspect);
    play.sign(Sign::Failing, Passive::Suspect).unwrap();
    play.answer(Verdict::Success).unwrap();
    let cleared = play.now;
    play.now = cleared + SECOND - Duration::from_nanos(1);
    assert_eq!(play.sign(Sign::Failing, Passive::Suspect), None);
    play.now = cleared + SECOND;
    assert!(play.sign(Sign::Failing, Passive::Suspect).is_some());
}

#[test]
fn a_suspicion_is_no_flap() {
    let flap = Flap {
        changes: 1,
        within: SECOND * 60,
        hold: SECOND * 30,
        most: SECOND * 60,
    };
    let mut spec = watched(Passive::Suspect);
    spec.pace.flap = Some(flap);
    let mut play = Play::new([spec.clone()]);
    play.answer(Verdict::Success);
    for _ in 0..5 {
        play.now += SECOND * 2;
        play.checker.sign(&spec, Sign::Failing, play.now).unwrap();
        assert_eq!(play.answer(Verdict::Success).unwrap().hold, None);
    }
    play.answer(DEAD);
    play.answer(DEAD);
    assert_eq!(play.answer(DEAD).unwrap().hold, Some(SECOND * 30));
}
