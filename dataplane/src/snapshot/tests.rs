use std::net::SocketAddr;

use super::*;
use crate::backend::{BackendState, Health};
use crate::testing::at;

mod quorum;
mod reuse;

const FILE: &str = r#"
    [[interface]]
    name = "eth0"
    [[service]]
    name = "web"
    listen = "10.100.0.1:80"
    protocol = "tcp"
    forward = "nat"
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11:8080"
      [[service.backend]]
      address = "10.2.0.12:8080"
    [[service]]
    name = "direct"
    listen = "10.100.0.2:80"
    protocol = "tcp"
    forward = "dsr-l2"
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11"
"#;

fn model(text: &str) -> Model {
    ringgate_config::parse("test.toml", text).unwrap().model
}

fn build(builder: &mut Builder, text: &str, down: &[&str]) -> Snapshot {
    let down: Vec<SocketAddr> = down.iter().map(|text| at(text)).collect();
    let health = |_: &_, backend: &ringgate_config::Backend| match down.contains(&backend.address())
    {
        true => Health::Down,
        false => Health::Up,
    };
    builder
        .build(
            &model(text),
            by_backend(health),
            &Arc::new(Fib::default()),
            false,
        )
        .unwrap()
}

fn ids(snapshot: &Snapshot) -> Vec<BackendId> {
    snapshot
        .services()
        .iter()
        .flat_map(|service| service.members.clone())
        .collect()
}

#[test]
fn generations_count_up_and_ids_stay() {
    let mut builder = Builder::default();
    let first = build(&mut builder, FILE, &[]);
    let second = build(&mut builder, FILE, &["10.2.0.12:8080"]);
    assert_eq!((first.generation, second.generation), (1, 2));
    assert_eq!(ids(&first), ids(&second));
    // The order in the file is not part of an identity.
    let swapped = FILE
        .replace(".11:8080", ".99:8080")
        .replace(".12:8080", ".11:8080");
    let third = build(&mut builder, &swapped.replace(".99:8080", ".12:8080"), &[]);
    let mut expected = ids(&first);
    expected.swap(0, 1);
    assert_eq!(ids(&third), expected);
}

#[test]
fn the_ring_is_built_anew_only_for_a_service_that_changed() {
    let mut builder = Builder::default();
    let rings = |snapshot: &Snapshot| -> Vec<Arc<Ring>> {
        snapshot
            .services()
            .iter()
            .map(|service| service.ring.clone().unwrap())
            .collect()
    };
    let first = rings(&build(&mut builder, FILE, &[]));
    let second = rings(&build(&mut builder, FILE, &["10.2.0.12:8080"]));
    assert!(!Arc::ptr_eq(&first[0], &second[0]));
    assert!(Arc::ptr_eq(&first[1], &second[1]));
    assert_eq!(second[0].shares(2), [251, 0]);
}

#[test]
fn states_follow_the_operator_first_and_the_check_second() {
    let text = FILE
        .replace(
            "address = \"10.2.0.11:8080\"",
            "address = \"10.2.0.11:8080\"\nweight = 0",
        )
        .replace(
            "address = \"10.2.0.12:8080\"",
            "address = \"10.2.0.12:8080\"\ndisabled = true",
        );
    let state = |down: &[&str]| -> Vec<BackendState> {
        let snapshot = build(&mut Builder::default(), &text, down);
        ids(&snapshot)
            .into_iter()
            .map(|id| snapshot.backend(id).unwrap().state)
            .collect()
    };
    use BackendState::{Disabled, Down, Draining, Up};
    assert_eq!(state(&[]), [Draining, Disabled, Up]);
    assert_eq!(
        state(&["10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.11:80"]),
        [Down, Disabled, Down]
    );
}

#[test]
fn falling_open_takes_neither_the_disabled_nor_the_weightless() {
    let text = FILE
        .replacen(
            "forward = \"nat\"",
            "forward = \"nat\"\nwhen-empty = \"open\"",
            1,
        )
        .replace(
            "address = \"10.2.0.11:8080\"",
            "address = \"10.2.0.11:8080\"\ndisabled = true",
        );
    let snapshot = build(
        &mut Builder::default(),
        &text,
        &["10.2.0.12:8080", "10.2.0.11:80"],
    );
    let service = &snapshot.services()[0];
    assert_eq!(service.ring.as_ref().unwrap().shares(2), [0, 251]);
    assert!(snapshot.services()[1].ring.is_none(), "this one drops");
}

#[test]
fn an_id_of_a_backend_that_is_gone_names_nothing() {
    let mut builder = Builder::default();
    let first = build(&mut builder, FILE, &[]);
    let without = FILE.replace(
        "[[service.backend]]\n      address = \"10.2.0.12:8080\"",
        "",
    );
    let second = build(&mut builder, &without, &[]);
    let gone = ids(&first)[1];
    assert!(first.backend(gone).is_some());
    assert!(second.backend(gone).is_none());
    // Its slot may serve another one day; the id still names nothing.
    let third = build(&mut builder, &without.replace(".11:8080", ".77:8080"), &[]);
    assert!(third.backend(gone).is_none());
}

#[test]
fn a_check_that_has_not_ended_yet_changes_nothing_for_who_serves() {
    let fib = Arc::new(Fib::default());
    let mut builder = Builder::default();
    let mut states = |health: Health| -> Vec<BackendState> {
        let snapshot = builder
            .build(&model(FILE), |_, _| health, &fib, false)
            .unwrap();
        ids(&snapshot)
            .into_iter()
            .map(|id| snapshot.backend(id).unwrap().state)
            .collect()
    };
    assert_eq!(
        states(Health::Pending),
        [BackendState::Pending; 3],
        "new: old flows only"
    );
    assert_eq!(states(Health::Up), [BackendState::Up; 3]);
    assert_eq!(states(Health::Pending), [BackendState::Up; 3]);
    assert_eq!(states(Health::Down), [BackendState::Down; 3]);
    assert_eq!(states(Health::Pending), [BackendState::Down; 3]);
}

#[test]
fn what_is_foreseen_is_what_comes_and_is_not_built_twice() {
    let fib = Arc::new(Fib::default());
    let mut builder = Builder::default();
    let first = build(&mut builder, FILE, &[]);
    let text = FILE.replace(
        "address = \"10.2.0.12:8080\"",
        "address = \"10.2.0.12:8080\"\nweight = 7",
    );
    let next = model(&text);
    let foreseen = builder.foresee(&next, |_, _| Health::Up);
    let again = builder.foresee(&next, |_, _| Health::Up);
    // Nothing has changed by looking.
    let same = build(&mut builder, FILE, &[]);
    let rings = |snapshot: &Snapshot| -> Vec<Arc<Ring>> {
        let services = snapshot.services().iter();
        services
            .map(|service| service.ring.clone().unwrap())
            .collect()
    };
    let (before, still) = (rings(&first), rings(&same));
    assert!(Arc::ptr_eq(&before[0], &still[0]) && same.generation == first.generation + 1);
    let of = |foreseen: &[Foreseen], at: usize| foreseen[at].ring.clone().unwrap();
    assert!(Arc::ptr_eq(&of(&foreseen, 0), &of(&again, 0)));
    assert!(Arc::ptr_eq(&of(&foreseen, 1), &before[1]), "unchanged");
    let weights = |foreseen: &Foreseen| -> Vec<u32> {
        foreseen
            .members
            .iter()
            .map(|member| member.weight)
            .collect()
    };
    assert_eq!(weights(&foreseen[0]), [100, 7]);
    let again = builder.foresee(&next, |_, _| Health::Up);
    let built = builder
        .build(&next, |_, _| Health::Up, &fib, false)
        .unwrap();
    assert!(Arc::ptr_eq(&of(&again, 0), &rings(&built)[0]));
    assert_eq!(*of(&again, 0), *of(&foreseen, 0));
    // Who is foreseen otherwise than he turns out to be is no harm.
    let nobody = builder.foresee(&next, |_, _| Health::Down);
    assert!(nobody.iter().all(|service| service.ring.is_none()));
    assert_eq!(weights(&nobody[0]), [0, 0]);
    let built = builder
        .build(&model(FILE), |_, _| Health::Up, &fib, false)
        .unwrap();
    assert_eq!(rings(&built), before);
}
