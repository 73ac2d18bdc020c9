//! The promises of the module, over many paces, lives of backends and ways to die, against an oracle
//! that is written without looking: it keeps every result and every change, and counts.

use super::*;

/// xorshift64 (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }

    fn few(&mut self, most: u64) -> u32 {
        u32::try_from(1 + self.below(most)).unwrap()
    }

    fn pace(&mut self) -> Pace {
        let interval = self.millis(20, 2000);
        let whole = u64::try_from(interval.as_millis()).unwrap();
        let timeout = self.millis(1, whole);
        let jitter = self.millis(0, whole).min(interval - timeout);
        let flap = Flap {
            changes: self.few(6),
            within: self.millis(1_000, 60_000),
            hold: self.millis(1_000, 5_000),
            most: self.millis(5_000, 30_000),
        };
        Pace {
            interval,
            jitter,
            fast_interval: self.millis(10, whole),
            timeout,
            rise: self.few(4),
            fall: self.few(4),
            flap: (self.below(2) == 0).then_some(flap),
            passive: Passive::Off,
        }
    }
}

/// When a backend lives: in turn dead and alive, and how it is dead.
struct Life {
    turns: Vec<(Instant, bool)>,
    silent: bool,
}

impl Life {
    fn is_alive(&self, at: Instant) -> bool {
        let turns = self.turns.iter().rev();
        turns.clone().find(|(from, _)| *from <= at).unwrap().1
    }

    /// Since when it has been as it is.
    fn since(&self, at: Instant) -> Instant {
        self.turns
            .iter()
            .rev()
            .find(|(from, _)| *from <= at)
            .unwrap()
            .0
    }
}

/// What should be, from everything that has happened.
struct Oracle {
    pace: Pace,
    results: Vec<bool>,
    /// What the checks alone say, and when the sides changed.
    asked: Option<bool>,
    sides: Vec<(Instant, bool)>,
    held_until: Option<Instant>,
    holds: u32,
}

impl Oracle {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            results: Vec::new(),
            asked: None,
            sides: Vec::new(),
            held_until: None,
            holds: 0,
        }
    }

    fn hear(&mut self, answered: bool, now: Instant) {
        self.results.push(answered);
        let needed = if answered {
            self.pace.rise
        } else {
            self.pace.fall
        };
        let row = self
            .results
            .iter()
            .rev()
            .take_while(|one| **one == answered);
        let row = u32::try_from(row.count()).unwrap();
        if self.asked.is_none() || (self.asked != Some(answered) && row >= needed) {
            self.asked = Some(answered);
        }
        self.settle(now);
    }

    fn settle(&mut self, now: Instant) {
        let Some(asked) = self.asked else { return };
        let is_held = self.held_until.is_some_and(|until| now < until);
        let side = asked && !is_held;
        match self.sides.last() {
            Some((_, before)) if *before == side => return,
            _ => self.sides.push((now, side)),
        }
        let Some(flap) = self.pace.flap.filter(|_| !side && self.sides.len() > 1) else {
            return;
        };
        let up_for = now - self.sides[self.sides.len() - 2].0;
        if up_for >= flap.within {
            self.holds = 0;
        }
        // The first side is no change.
        let changes = self.sides.iter().skip(1);
        let recent = changes.filter(|(at, _)| now - *at < flap.within).count();
        if recent >= usize::try_from(flap.changes).unwrap() || self.holds > 0 {
            let hold = (0..self.holds).fold(flap.hold, |hold, _| (hold * 2).min(flap.most));
            self.held_until = Some(now + hold.min(flap.most));
            self.holds += 1;
        }
    }
}

/// One backend's life under one pace.
fn play_a_life(random: &mut Random) {
    let pace = random.pace();
    let spec = paced(spec(u8::try_from(random.below(250)).unwrap()), pace);
    let mut play = Play::new([spec.clone()]);
    let begin = play.now;
    let mut turns = vec![(begin, true)];
    let mut at = begin;
    for turn in 0..random.below(30) {
        at += random.millis(1, 20_000);
        turns.push((at, turn % 2 == 1));
    }
    let silent = random.below(2) == 0;
    let life = Life { turns, silent };
    let end = at + Duration::from_secs(60);
    let mut oracle = Oracle::new(pace);
    let longest = pace.fast_interval.max(pace.timeout);
    let down_within = pace.interval + longest * (pace.fall - 1) + pace.timeout;
    let up_within = pace.interval + longest * (pace.rise - 1) + pace.timeout;
    let mut last_start = None;
    while play.now < end {
        play.now = play.now.max(play.checker.next_due().unwrap());
        let mut changes = Vec::new();
        play.checker.lapse(play.now, &mut changes);
        oracle.settle(play.now);
        if let [start] = &play.started()[..] {
            if let Some(last) = last_start.replace(play.now) {
                let gap = play.now - last;
                assert!(gap <= pace.interval, "{gap:?} {pace:?}");
                assert!(
                    gap >= pace.fast_interval.min(pace.interval - pace.jitter)
                        || oracle.results.len() == 1
                );
            }
            let alive = life.is_alive(play.now);
            play.now += if alive || !life.silent {
                Duration::from_micros(
                    random.below(u64::try_from(start.timeout.as_micros()).unwrap()),
                )
            } else {
                start.timeout
            };
            // A hold may be over meanwhile.
            while let Some(lapse) = play.checker.next_due().filter(|at| *at <= play.now) {
                play.checker.lapse(lapse, &mut changes);
                oracle.settle(lapse);
            }
            let verdict = if alive { Verdict::Success } else { DEAD };
            play.checker.ended(start.id, verdict, TOOK, play.now);
            oracle.hear(alive, play.now);
        }
        let report = play.checker.report(&spec).unwrap();
        let is_up = report.state == State::Up;
        assert_eq!(
            Some(is_up),
            oracle.sides.last().map(|(_, up)| *up),
            "{pace:?}"
        );
        let is_held = oracle.held_until.is_some_and(|until| play.now < until);
        assert_eq!(report.state == State::Held, is_held, "{pace:?} {report:?}");
        let known_for = play.now - life.since(play.now);
        match life.is_alive(play.now) {
            false if known_for > down_within => assert!(!is_up, "{known_for:?} {pace:?}"),
            true if known_for > up_within && !is_held => assert!(is_up, "{known_for:?} {pace:?}"),
            _ => {}
        }
    }
}

#[test]
fn every_life_is_seen_as_the_oracle_sees_it_and_in_the_promised_time() {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    for _ in 0..500 {
        play_a_life(&mut random);
    }
}

/// The promise at its edge: the moment of death right after a start, the longest jitter, a silent death.
#[test]
fn a_dead_backend_is_down_within_the_promise() {
    let mut random = Random(0xFEED_5678_9ABC_DEF1);
    let mut nearest = Duration::MAX;
    for round in 0..3_000 {
        let pace = Pace {
            flap: None,
            ..random.pace()
        };
        let spec = paced(spec(u8::try_from(round % 250).unwrap()), pace);
        let mut play = Play::new([spec]);
        let death = play.now + Duration::from_micros(1 + random.below(10_000_000));
        let down = loop {
            play.now = play.now.max(play.checker.next_due().unwrap());
            let [start] = <[_; 1]>::try_from(play.started()).unwrap();
            let alive = play.now < death;
            if !alive {
                play.now += start.timeout;
            }
            let verdict = if alive { Verdict::Success } else { DEAD };
            let change = play.checker.ended(start.id, verdict, TOOK, play.now);
            if change.is_some_and(|change| change.state == State::Down) {
                break play.now;
            }
        };
        let longest = pace.fast_interval.max(pace.timeout);
        let promise = pace.interval + longest * (pace.fall - 1) + pace.timeout;
        let took = down - death;
        assert!(took <= promise, "{took:?} > {promise:?}: {pace:?}");
        nearest = nearest.min(promise - took);
    }
    assert!(
        nearest < Duration::from_millis(2),
        "nothing came near: {nearest:?}"
    );
}

#[test]
fn jitter_shortens_the_interval_each_time_by_another_part() {
    let jitter = Duration::from_millis(300);
    let jittered = paced(spec(1), Pace { jitter, ..PACE });
    let gaps = |seed| -> Vec<Duration> {
        let now = clock::now();
        let mut checker = Checker::new(seed);
        checker.reconcile([jittered.clone()], now);
        let mut play = Play { checker, now };
        let mut starts = Vec::new();
        for _ in 0..1_000 {
            play.answer(Verdict::Success);
            starts.push(play.now);
        }
        // The second check comes sooner, to spread.
        starts
            .windows(2)
            .skip(1)
            .map(|pair| pair[1] - pair[0])
            .collect()
    };
    let first = gaps(1);
    let (least, most) = (first.iter().min().unwrap(), first.iter().max().unwrap());
    assert!(
        *least >= SECOND - jitter && *most < SECOND,
        "{least:?} {most:?}"
    );
    assert!(*most - *least > jitter * 9 / 10, "all of it is used");
    assert_eq!(first, gaps(1), "told by the seed");
    assert_ne!(first, gaps(2));
}

#[test]
fn while_it_changes_a_backend_is_asked_faster() {
    let fast = Duration::from_millis(100);
    let pace = Pace {
        fast_interval: fast,
        ..PACE
    };
    let mut play = Play::new([paced(spec(1), pace)]);
    play.answer(Verdict::Success);
    play.answer(Verdict::Success);
    let first = play.now + SECOND;
    let due = |play: &Play| play.checker.next_due().unwrap();
    assert_eq!(due(&play), first);
    play.answer(DEAD);
    assert_eq!(due(&play), first + fast);
    play.answer(DEAD);
    assert_eq!(due(&play), first + fast * 2);
    assert_eq!(play.answer(DEAD).unwrap().state, State::Down);
    assert_eq!(due(&play), first + fast * 2 + SECOND, "decided: as before");
    play.answer(Verdict::Success);
    assert_eq!(due(&play), first + fast * 3 + SECOND, "on the way up too");
    // A check that takes longer than the fast interval is followed by the next at once.
    let [start] = {
        play.now = due(&play);
        <[_; 1]>::try_from(play.started()).unwrap()
    };
    play.now += Duration::from_millis(400);
    play.checker.ended(start.id, DEAD, TOOK, play.now);
    assert_eq!(
        due(&play),
        first + fast * 3 + SECOND * 2,
        "nothing changes: it is down"
    );
}

#[test]
fn a_day_of_a_flapping_backend_ends_as_it_began() {
    let flap = Flap {
        changes: 6,
        within: SECOND * 60,
        hold: SECOND * 30,
        most: SECOND * 600,
    };
    let pace = Pace {
        flap: Some(flap),
        ..PACE
    };
    let spec = paced(spec(1), pace);
    let mut play = Play::new([spec.clone()]);
    let day = play.now + SECOND * 86_400;
    let (mut changes, mut holds, mut up) = (0_u32, Vec::new(), Duration::ZERO);
    while play.now < day {
        let before = play.now;
        play.now = play.checker.next_due().unwrap().max(play.now);
        if play.state(&spec) == State::Up {
            up += play.now - before;
        }
        let mut lapsed = Vec::new();
        play.checker.lapse(play.now, &mut lapsed);
        changes += u32::try_from(lapsed.len()).unwrap();
        for start in play.started() {
            // Four seconds it lives, four it does not.
            let phase = (play.now + SECOND * 86_400 * 2 - day).as_secs() % 8;
            let verdict = if phase < 4 { Verdict::Success } else { DEAD };
            if let Some(change) = play.checker.ended(start.id, verdict, TOOK, play.now) {
                changes += 1;
                holds.extend(change.hold);
            }
        }
    }
    // Undamped, it would have changed twice in each of 10,800 rounds.
    assert!(changes < 400, "{changes} changes");
    assert_eq!(holds[..6], [30, 60, 120, 240, 480, 600].map(|n| SECOND * n));
    assert!(
        holds[5..].iter().all(|hold| *hold == SECOND * 600),
        "bounded"
    );
    assert!(up > SECOND * 10, "it is given a chance after each: {up:?}");
}

#[test]
fn who_stays_up_for_a_window_begins_anew() {
    let flap = Flap {
        changes: 2,
        within: SECOND * 20,
        hold: SECOND * 5,
        most: SECOND * 100,
    };
    let pace = Pace {
        flap: Some(flap),
        rise: 1,
        fall: 1,
        ..PACE
    };
    let spec = paced(spec(1), pace);
    let mut play = Play::new([spec.clone()]);
    play.answer(Verdict::Success).unwrap();
    assert_eq!(
        play.answer(DEAD).unwrap().hold,
        None,
        "one change is not two"
    );
    play.answer(Verdict::Success).unwrap();
    let down = play.answer(DEAD).unwrap();
    assert_eq!((down.state, down.hold), (State::Held, Some(SECOND * 5)));
    assert_eq!(down.reason, Some(Reason::Refused));
    let held_at = play.now;
    for _ in 0..4 {
        assert_eq!(play.answer(Verdict::Success), None);
        assert_eq!(play.state(&spec), State::Held);
    }
    play.now = held_at + SECOND * 5;
    let mut lapsed = Vec::new();
    play.checker.lapse(play.now, &mut lapsed);
    let [up] = &lapsed[..] else {
        panic!("{lapsed:?}")
    };
    assert_eq!(
        (up.state, up.reason),
        (State::Up, None),
        "at once when its time is over"
    );
    assert_eq!(
        play.answer(DEAD).unwrap().hold,
        Some(SECOND * 10),
        "twice as long"
    );
    // Down by itself when the hold ends: then it comes up as any other.
    play.now += SECOND * 10;
    lapsed.clear();
    play.checker.lapse(play.now, &mut lapsed);
    assert_eq!(lapsed, []);
    assert_eq!(play.state(&spec), State::Down);
    assert_eq!(play.answer(Verdict::Success).unwrap().state, State::Up);
    for _ in 0..21 {
        play.answer(Verdict::Success);
    }
    assert_eq!(play.answer(DEAD).unwrap().hold, None);
    play.answer(Verdict::Success).unwrap();
    assert_eq!(
        play.answer(DEAD).unwrap().hold,
        Some(SECOND * 5),
        "as if for the first time"
    );
}
