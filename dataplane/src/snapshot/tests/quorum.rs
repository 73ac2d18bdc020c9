//! Too few healthy, too many suspect.

use ringgate_config::limits::WEIGHT_DEFAULT;

use super::*;

/// A service of so many backends, with these lines.
fn service(backends: u8, lines: &str) -> String {
    let mut text = format!(
        "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"web\"\nlisten = \"10.100.0.1:80\"\n\
         protocol = \"tcp\"\nforward = \"nat\"\ntable-size = 1009\n{lines}\n"
    );
    for host in 0..backends {
        text += &format!("[[service.backend]]\naddress = \"10.2.0.{host}:80\"\n");
    }
    text
}

/// Built with these results of checks, in file order.
fn built(text: &str, health: &[Health]) -> Snapshot {
    let of = |_: &_, backend: &ringgate_config::Backend| match backend.address() {
        SocketAddr::V4(address) => health[usize::from(address.ip().octets()[3])],
        SocketAddr::V6(_) => unreachable!(),
    };
    let fib = Arc::new(Fib::default());
    Builder::default()
        .build(&model(text), by_backend(of), &fib, false)
        .unwrap()
}

/// Who gets new flows, in file order, and the states.
fn takers(snapshot: &Snapshot) -> (Vec<bool>, Vec<BackendState>) {
    let backends = || {
        ids(snapshot)
            .into_iter()
            .map(|id| snapshot.backend(id).unwrap())
    };
    let weighs: Vec<bool> = backends().map(|backend| backend.weight > 0).collect();
    let ring = snapshot.services()[0].ring.as_ref();
    let shares = ring.map_or_else(|| vec![0; weighs.len()], |ring| ring.shares(weighs.len()));
    assert_eq!(
        shares.iter().map(|share| *share > 0).collect::<Vec<_>>(),
        weighs
    );
    (weighs, backends().map(|backend| backend.state).collect())
}

const U: Health = Health::Up;
const D: Health = Health::Down;
const S: Health = Health::Suspect;
const P: Health = Health::Pending;

#[test]
fn below_min_healthy_a_closed_service_takes_nothing_new_and_drops_nobody() {
    let text = service(4, "min-healthy = 2");
    for (health, takes) in [
        ([U, U, U, D], [true, true, true, false]),
        ([U, U, D, D], [true, true, false, false]),
        ([U, P, D, D], [false; 4]),
        ([D, D, D, D], [false; 4]),
    ] {
        let snapshot = built(&text, &health);
        let (takers, states) = takers(&snapshot);
        assert_eq!(takers, takes, "{health:?}");
        let service = &snapshot.services()[0];
        assert_eq!(service.fallen_closed, health == [U, P, D, D]);
        assert!(!service.fallen_open);
        assert_eq!(service.needs_healthy, 2);
        // Whoever has flows keeps them.
        let serves = states.iter().map(|state| state.serves());
        assert!(
            serves.eq(health.iter().map(|health| *health != D)),
            "{states:?}"
        );
    }
}

#[test]
fn below_min_healthy_an_open_service_uses_all_that_could_serve() {
    let text = service(4, "min-healthy = \"75%\"\nwhen-below = \"open\"").replacen(
        "\"10.2.0.3:80\"\n",
        "\"10.2.0.3:80\"\nweight = 0\n",
        1,
    );
    // Of three that have a weight, three quarters are three.
    let enough = built(&text, &[U, U, U, D]);
    assert_eq!(takers(&enough).0, [true, true, true, false]);
    assert!(!enough.services()[0].fallen_open);
    let few = built(&text, &[U, D, P, D]);
    let service = &few.services()[0];
    assert_eq!((service.healthy, service.needs_healthy), (1, 3));
    assert!(service.fallen_open && !service.fallen_closed);
    let up = BackendState::Up;
    assert_eq!(
        takers(&few),
        (
            vec![true, true, true, false],
            vec![up, up, up, BackendState::Down]
        ),
        "but not one of weight 0"
    );
    assert_eq!(WEIGHT_DEFAULT, few.backend(ids(&few)[1]).unwrap().weight);
}

#[test]
fn suspects_get_nothing_new_while_at_least_as_many_are_beyond_suspicion() {
    let text = service(4, "");
    for (health, takes) in [
        ([S, U, U, U], [false, true, true, true]),
        ([S, S, U, U], [false, false, true, true]),
        // More than half: then nobody is one.
        ([S, S, S, U], [true; 4]),
        ([S, S, S, S], [true; 4]),
        // Those that are down are not among those to lean on.
        ([S, U, D, D], [false, true, false, false]),
        ([S, D, D, D], [true, false, false, false]),
    ] {
        let snapshot = built(&text, &health);
        let (takers, states) = takers(&snapshot);
        assert_eq!(takers, takes, "{health:?}");
        let service = &snapshot.services()[0];
        assert_eq!(service.trusts_suspects, takers[0], "{health:?}");
        assert!(states[0].serves() && !service.fallen_open && !service.fallen_closed);
        assert_eq!(states[0] == BackendState::Suspect, !takers[0]);
    }
}

#[test]
fn suspicion_never_makes_too_few() {
    let text = service(4, "min-healthy = 3");
    let snapshot = built(&text, &[S, U, U, U]);
    assert_eq!(takers(&snapshot).0, [false, true, true, true]);
    let snapshot = built(&text, &[S, U, U, D]);
    assert_eq!(
        takers(&snapshot).0,
        [true, true, true, false],
        "it is healthy, and needed"
    );
    let service = &snapshot.services()[0];
    assert!(service.trusts_suspects && !service.fallen_closed);
    assert_eq!(service.healthy, 3);
}

#[test]
fn a_suspicion_does_not_begin_a_slow_start() {
    let text = service(2, "slow-start = \"30s\"");
    let (mut builder, fib) = (Builder::default(), Arc::new(Fib::default()));
    let mut weights = |health: Health| -> Vec<u32> {
        let of = |_: &_, backend: &ringgate_config::Backend| match backend.address().ip().is_ipv4()
            && backend.address().to_string().starts_with("10.2.0.0:")
        {
            true => health,
            false => U,
        };
        let snapshot = builder
            .build(&model(&text), by_backend(of), &fib, false)
            .unwrap();
        let scale = snapshot.services()[0].weight_scale;
        let ids = ids(&snapshot).into_iter();
        ids.map(|id| snapshot.backend(id).unwrap().weight / scale)
            .collect()
    };
    assert_eq!(weights(U), [100, 100]);
    assert_eq!(weights(S), [0, 100]);
    assert_eq!(weights(U), [100, 100]);
    assert_eq!(weights(D), [0, 100]);
    assert_eq!(weights(U), [12, 100], "this one does");
    assert_eq!(weights(S), [0, 100]);
    assert_eq!(weights(U), [12, 100], "which goes on");
}
