use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

const LIMITS: Limits = Limits {
    least: 1_000.0,
    most: 1_000_000.0,
    trials: 120,
    seconds: 120.0,
};

fn goals() -> [Goal; 2] {
    [("ndr", 0.0), ("pdr", 0.005)].map(|(name, loss_ratio)| Goal {
        name,
        loss_ratio,
        exceed_ratio: 0.5,
        final_trial: 1.0,
        initial_trial: 0.5,
        duration_sum: 3.0,
        width: 0.02,
    })
}

/// Searches, and counts what that took.
fn find(limits: Limits, mut device: impl FnMut(Ask) -> Answer) -> (Vec<Found>, usize, f64) {
    let (mut trials, mut seconds) = (0, 0.0);
    let mut search = Search::new(&goals(), limits);
    let found = run(&mut search, |ask| {
        assert!(ask.load.is_finite() && ask.load > 0.0 && ask.load <= limits.most);
        trials += 1;
        seconds += ask.seconds;
        Ok::<_, ()>(device(ask))
    });
    (found.unwrap(), trials, seconds)
}

/// A device that forwards so much and loses the rest.
fn sharp(limit: f64, ask: Ask) -> Answer {
    Answer::Lost((1.0 - limit / ask.load).max(0.0))
}

/// Bounds are where the truth is between them, and near.
fn assert_around(found: &Found, truth: f64) {
    let (lower, upper) = (found.lower.unwrap(), found.upper.unwrap());
    assert!(lower <= truth && truth <= upper, "{found:?}");
    assert!(upper - lower <= found.goal.width * upper, "{found:?}");
    assert_eq!(found.end, End::Width);
}

#[test]
fn a_sharp_limit_is_found_within_the_width() {
    for limit in [1_500.0, 33_333.0, 271_828.0, 700_000.0, 985_000.0] {
        let (found, trials, _) = find(LIMITS, |ask| sharp(limit, ask));
        assert_around(&found[0], limit);
        assert_around(&found[1], limit / 0.995);
        assert!(trials <= 50, "{limit}: {trials} trials");
        let throughput = found[0].throughput.unwrap();
        assert!(throughput <= limit && throughput >= limit * 0.98);
        // What is tolerated is lost: not more comes out than the device forwards.
        assert!(found[1].throughput.unwrap() <= limit * 1.000_001);
    }
}

#[test]
fn a_noisy_limit_is_found_within_its_noise() {
    for seed in 0..30 {
        let mut random = StdRng::seed_from_u64(seed);
        let limit = 250_000.0;
        let (found, trials, seconds) = find(LIMITS, |ask| {
            sharp(limit * random.random_range(0.96..1.04), ask)
        });
        assert!(trials <= LIMITS.trials && seconds <= LIMITS.seconds);
        for found in found {
            let lower = found.lower.unwrap();
            assert!((lower / limit - 1.0).abs() < 0.08, "seed {seed}: {found:?}");
        }
    }
}

#[test]
fn one_bad_trial_in_three_does_not_lower_what_is_found() {
    let mut count = 0;
    let (found, ..) = find(LIMITS, |ask| {
        count += 1;
        // Every third trial a stall of the machine loses a little, at any load.
        match sharp(400_000.0, ask) {
            Answer::Lost(0.0) if count % 3 == 0 => Answer::Lost(0.001),
            answer => answer,
        }
    });
    let lower = found[0].lower.unwrap();
    assert!((300_000.0..=400_000.0).contains(&lower), "{lower}");
    assert_around(&found[1], 400_000.0 / 0.995);
}

#[test]
fn a_device_that_lies_ends_the_search_all_the_same() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let (found, trials, seconds) = find(LIMITS, |_| match random.random_range(0..6) {
            0 => Answer::Lost(f64::NAN),
            1 => Answer::Lost(f64::INFINITY),
            2 => Answer::Lost(-3.0),
            3 => Answer::Lost(random.random_range(0.0..1.0)),
            _ => Answer::Lost(0.0),
        });
        assert!(trials <= LIMITS.trials && seconds <= LIMITS.seconds);
        for found in found {
            if let (Some(lower), Some(upper)) = (found.lower, found.upper) {
                assert!(lower < upper, "seed {seed}: {found:?}");
            }
            assert!(found.throughput.is_none_or(f64::is_finite));
        }
    }
}

#[test]
fn less_loss_at_higher_loads_does_not_raise_the_lower_bound() {
    // Loses at 100,000 to 200,000 only: what is above has no relevant lower bound.
    let device = |ask: Ask| {
        let hole = (100_000.0..200_000.0).contains(&ask.load);
        Answer::Lost(if hole || ask.load > 600_000.0 {
            0.5
        } else {
            0.0
        })
    };
    let (found, trials, _) = find(LIMITS, device);
    assert!(trials <= LIMITS.trials);
    for found in found {
        let (lower, upper) = (found.lower.unwrap(), found.upper.unwrap());
        assert!(lower < upper && upper - lower <= 0.02 * upper, "{found:?}");
    }
}

#[test]
fn a_limit_of_the_source_is_not_taken_for_the_devices() {
    let managed = 300_000.0;
    let (found, trials, _) = find(LIMITS, |ask| {
        if ask.load > managed {
            Answer::SourceLimited(managed)
        } else {
            sharp(400_000.0, ask)
        }
    });
    assert!(trials <= 20, "{trials}");
    for found in found {
        assert_eq!((found.end, found.upper), (End::Source, None));
        let lower = found.lower.unwrap();
        assert!((0.97 * managed..=managed).contains(&lower), "{lower}");
    }
}

#[test]
fn a_source_that_stumbles_once_is_asked_again() {
    let mut count = 0;
    let (found, ..) = find(LIMITS, |ask| {
        count += 1;
        // A stall of the machine, every fifth trial, at any load.
        if count % 5 == 0 {
            Answer::SourceLimited(ask.load * 0.1)
        } else {
            sharp(271_828.0, ask)
        }
    });
    assert_around(&found[0], 271_828.0);
    assert_around(&found[1], 271_828.0 / 0.995);
}

#[test]
fn a_source_is_not_thought_less_of_than_it_has_shown() {
    let (mut count, mut refused) = (0, 0);
    let (found, trials, _) = find(LIMITS, |ask| {
        count += 1;
        // First it manages 300,000; from the tenth trial on next to nothing at what it did before.
        let most = if count < 10 { 300_000.0 } else { 240_000.0 };
        if ask.load > most {
            refused += 1;
            return Answer::SourceLimited(if count < 10 { most } else { 10.0 });
        }
        sharp(250_000.0, ask)
    });
    assert!(refused > 2 && trials <= LIMITS.trials);
    for found in found {
        assert!(found.lower.unwrap() > 150_000.0, "{found:?}");
    }
}

#[test]
fn a_source_that_manages_ever_less_ends_it() {
    let (found, trials, _) = find(LIMITS, |ask| Answer::SourceLimited(ask.load * 0.9));
    assert!(trials <= LIMITS.trials);
    let (_, trials_of_nothing, _) = find(LIMITS, |_| Answer::SourceLimited(f64::NAN));
    assert_eq!(trials_of_nothing, 2);
    for found in found {
        assert_eq!((found.lower, found.throughput), (None, None));
    }
}

#[test]
fn a_device_that_forwards_everything_is_met_at_the_highest_load() {
    let (found, trials, _) = find(LIMITS, |_| Answer::Lost(0.0));
    assert!(trials <= 8, "{trials}");
    for found in found {
        assert_eq!(found.end, End::MostOffered);
        assert_eq!(
            (found.lower, found.upper, found.throughput),
            (Some(LIMITS.most), None, Some(LIMITS.most))
        );
    }
}

#[test]
fn a_dead_device_meets_nothing() {
    let (found, trials, _) = find(LIMITS, |_| Answer::Lost(1.0));
    assert!(trials <= 40, "{trials}");
    for found in found {
        assert_eq!(found.end, End::NothingMeets);
        assert_eq!((found.lower, found.throughput), (None, None));
    }
}

#[test]
fn no_more_is_used_than_there_is() {
    for (trials, seconds) in [(0, 9.0), (1, 9.0), (7, 100.0), (100, 2.2), (100, 0.0)] {
        let limits = Limits {
            trials,
            seconds,
            ..LIMITS
        };
        let (found, made, spent) = find(limits, |ask| sharp(123_456.0, ask));
        assert!(made <= trials && spent <= seconds);
        assert_eq!(found[0].end, End::UsedUp);
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_not_heard() {
    let mut search = Search::new(&goals(), LIMITS);
    search.tell(Answer::Lost(0.0));
    assert!(search.trials().is_empty());
}
