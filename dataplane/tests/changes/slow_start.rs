//! A backend that comes back gets its share step by step; who counts as coming back.

use std::time::Duration;

use ringgate_dataplane::backend::Health;
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::slow_start::STEPS;

use super::scene::{Entry, HOSTS, Pool, SYN, Scene, VICTIM, WEB, client};

const SLOWLY: Duration = Duration::from_secs(30);

fn pool(hosts: &[u8]) -> Pool {
    Pool {
        slow_start: SLOWLY,
        ..Pool::of(hosts)
    }
}

/// Effective weights of the hosts, in eighths of the configured weight.
fn weights(scene: &Scene) -> Vec<u32> {
    let scale = scene.snapshot.services()[0].weight_scale;
    let entries = scene.pool.entries.iter();
    entries
        .map(|entry| scene.backend(entry.host).unwrap().weight * STEPS / scale)
        .collect()
}

/// Lets the victim fall and come back.
fn flap(scene: &mut Scene) {
    scene.change(|pool| pool.victim().health = Health::Down);
    scene.change(|pool| pool.victim().health = Health::Up);
}

/// Publishes whenever a step is due, as control does, until none is. How many there were.
fn wait(scene: &mut Scene) -> usize {
    let mut steps = 0;
    while let Some(due) = scene.next_step() {
        assert!(due > scene.now);
        scene.now = due;
        scene.publish();
        steps += 1;
    }
    steps
}

fn choices(scene: &Scene) -> Vec<Option<u8>> {
    (0..3000)
        .map(|n| scene.ring_choice(client(n), WEB))
        .collect()
}

#[test]
fn the_share_grows_step_by_step_and_takes_only_what_it_gets() {
    let mut scene = Scene::new(pool(&HOSTS));
    let at_first = choices(&scene);
    flap(&mut scene);
    let begun = scene.now;
    let mut before = choices(&scene);
    for step in 1..STEPS {
        assert_eq!(weights(&scene), [800, 100 * step, 800]);
        let own = before
            .iter()
            .filter(|choice| **choice == Some(VICTIM))
            .count();
        let share = 3000.0 * f64::from(step) / f64::from(2 * STEPS + step);
        assert!(
            (own as f64 - share).abs() < 75.0,
            "step {step}: {own}, not {share}"
        );

        scene.now = scene.next_step().unwrap();
        scene.publish();
        let now = choices(&scene);
        let pairs = before.iter().zip(&now);
        let lost = pairs
            .clone()
            .filter(|(old, new)| old != new && **old == Some(VICTIM));
        let among =
            pairs.filter(|(old, new)| old != new && ![**old, **new].contains(&Some(VICTIM)));
        assert!(lost.count() < 15 && among.count() < 30, "step {step}");
        before = now;
    }
    assert_eq!(scene.now.0 - begun.0, 30_000);
    assert_eq!((weights(&scene), scene.next_step()), (vec![800; 3], None));
    assert_eq!(before, at_first, "the ring is the one from before");
}

#[test]
fn nobody_starts_slowly_with_the_service() {
    let mut pool = pool(&HOSTS);
    pool.host(12).health = Health::Pending;
    pool.host(13).health = Health::Pending;
    let mut scene = Scene::new(pool);
    assert_eq!(weights(&scene), [800, 0, 0]);
    // The first result of one is good, of the other bad: that one has fallen, and comes back.
    scene.now = Millis(6000);
    scene.change(|pool| {
        pool.host(12).health = Health::Up;
        pool.host(13).health = Health::Down;
    });
    assert_eq!(
        (weights(&scene), scene.next_step()),
        (vec![800, 800, 0], None)
    );
    scene.change(|pool| pool.host(13).health = Health::Up);
    assert_eq!(weights(&scene), [800, 800, 100]);
}

#[test]
fn whoever_takes_new_flows_again_does_so_slowly() {
    let ways: [[fn(&mut Pool); 2]; 4] = [
        [
            |pool| pool.victim().health = Health::Down,
            |pool| pool.victim().health = Health::Up,
        ],
        [
            |pool| pool.victim().disabled = true,
            |pool| pool.victim().disabled = false,
        ],
        [
            |pool| pool.victim().weight = 0,
            |pool| pool.victim().weight = 100,
        ],
        [
            |pool| pool.entries.retain(|entry| entry.host != VICTIM),
            |pool| pool.entries.insert(1, Entry::of(VICTIM)),
        ],
    ];
    for [go, come] in ways {
        let mut scene = Scene::new(pool(&HOSTS));
        scene.change(go);
        assert_eq!(scene.next_step(), None);
        scene.change(come);
        assert_eq!(weights(&scene), [800, 100, 800]);
        // Other changes meanwhile neither stop it nor begin it anew.
        scene.now = scene.next_step().unwrap();
        scene.change(|pool| pool.victim().weight = 50);
        assert_eq!(weights(&scene), [800, 100, 800]);
        // A check that is new says nothing yet of a backend that serves.
        scene.change(|pool| pool.victim().health = Health::Pending);
        assert_eq!(weights(&scene), [800, 100, 800]);
        assert_eq!(wait(&mut scene), 6);
        assert_eq!(weights(&scene), [800, 400, 800]);
    }
}

#[test]
fn an_added_backend_waits_for_its_check_and_then_starts_slowly() {
    let mut scene = Scene::new(pool(&[11, 13]));
    scene.change(|pool| {
        pool.entries.push(Entry {
            health: Health::Pending,
            ..Entry::of(VICTIM)
        });
    });
    assert_eq!(
        (weights(&scene), scene.next_step()),
        (vec![800, 800, 0], None)
    );
    scene.change(|pool| pool.victim().health = Health::Up);
    assert_eq!(weights(&scene), [800, 800, 100]);
}

#[test]
fn one_that_falls_again_begins_again() {
    let mut scene = Scene::new(pool(&HOSTS));
    flap(&mut scene);
    for _ in 0..3 {
        scene.now = scene.next_step().unwrap();
        scene.publish();
    }
    assert_eq!(weights(&scene), [800, 400, 800]);
    flap(&mut scene);
    assert_eq!(weights(&scene), [800, 100, 800]);
    assert_eq!(wait(&mut scene), 7);
}

#[test]
fn if_nobody_else_is_up_it_serves_all_the_same() {
    let mut scene = Scene::new(pool(&HOSTS));
    scene.change(|pool| {
        pool.entries
            .iter_mut()
            .for_each(|one| one.health = Health::Down)
    });
    assert!(scene.send(client(1), WEB, SYN).is_err());
    scene.change(|pool| pool.victim().health = Health::Up);
    for n in 0..500 {
        assert_eq!(scene.send(client(n), WEB, SYN).unwrap().0, VICTIM);
    }
    // The others come a little later. Nobody is ahead by more than a step.
    scene.now = scene.next_step().unwrap();
    scene.change(|pool| {
        pool.entries
            .iter_mut()
            .for_each(|one| one.health = Health::Up)
    });
    assert_eq!(weights(&scene), [100, 200, 100]);
    wait(&mut scene);
    assert_eq!(weights(&scene), [800; 3]);
}

#[test]
fn who_served_while_the_service_had_fallen_open_has_nothing_to_warm_up() {
    let mut scene = Scene::new(Pool {
        when_empty: "open",
        ..pool(&[11, 12])
    });
    let down = |pool: &mut Pool| {
        pool.entries
            .iter_mut()
            .for_each(|one| one.health = Health::Down)
    };
    scene.change(down);
    assert!(scene.snapshot.services()[0].fallen_open);
    assert_eq!((weights(&scene), scene.next_step()), (vec![800, 800], None));
    scene.change(|pool| pool.host(11).health = Health::Up);
    assert_eq!((weights(&scene), scene.next_step()), (vec![800, 0], None));
    scene.change(|pool| pool.host(12).health = Health::Up);
    assert_eq!(weights(&scene), [800, 100], "this one was away in the end");
}

#[test]
fn to_ask_for_it_later_takes_nothing_from_those_that_are_up() {
    let mut scene = Scene::new(Pool::of(&HOSTS));
    flap(&mut scene);
    assert_eq!((weights(&scene), scene.next_step()), (vec![800; 3], None));
    scene.change(|pool| pool.slow_start = SLOWLY);
    assert_eq!((weights(&scene), scene.next_step()), (vec![800; 3], None));
    // And who is through stays through when it is made longer.
    flap(&mut scene);
    wait(&mut scene);
    scene.change(|pool| pool.slow_start = SLOWLY * 10);
    assert_eq!((weights(&scene), scene.next_step()), (vec![800; 3], None));
}
