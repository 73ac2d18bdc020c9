//! The last backend that takes new flows goes in another way than by its check.

use ringgate_dataplane::backend::{BackendState, Health};
use ringgate_dataplane::steer::FlowEvent;
use ringgate_dataplane::verdict::DropReason;

use super::scene::{ACK, HOSTS, Pool, SYN, Scene, VICTIM, WEB, client};

fn alone(when_empty: &'static str) -> Scene {
    let scene = Scene::new(Pool {
        when_empty,
        ..Pool::of(&[VICTIM])
    });
    for flags in [SYN, ACK, ACK] {
        scene.send(client(1), WEB, flags).unwrap();
    }
    scene
}

#[test]
fn nothing_falls_open_to_a_backend_that_was_taken_out() {
    for when_empty in ["drop", "open"] {
        let mut scene = alone(when_empty);
        scene.change(|pool| pool.victim().weight = 0);
        assert_eq!(scene.send(client(2), WEB, SYN), Err(DropReason::NoBackend));
        let established = scene.send(client(1), WEB, ACK);
        assert_eq!(established, Ok((VICTIM, FlowEvent::None)));
        scene.change(|pool| pool.victim().disabled = true);
        assert_eq!(scene.send(client(2), WEB, SYN), Err(DropReason::NoBackend));
        assert_eq!(scene.send(client(1), WEB, ACK), Err(DropReason::NoBackend));
        assert!(!scene.snapshot.services()[0].fallen_open);
        // And down as well as drained: there is nobody to be sent to.
        scene.change(|pool| {
            pool.victim().disabled = false;
            pool.victim().health = Health::Down;
        });
        assert_eq!(scene.send(client(1), WEB, ACK), Err(DropReason::NoBackend));
    }
}

#[test]
fn a_service_falls_open_to_those_whose_first_check_has_not_ended_and_closes_again() {
    for (when_empty, is_open) in [("drop", false), ("open", true)] {
        let mut pool = Pool {
            when_empty,
            ..Pool::of(&HOSTS)
        };
        for entry in &mut pool.entries {
            entry.health = Health::Pending;
        }
        let mut scene = Scene::new(pool);
        assert_eq!(scene.send(client(2), WEB, SYN).is_ok(), is_open);
        // With the first that is really up it is no longer empty, and the others wait as ever.
        scene.change(|pool| pool.victim().health = Health::Up);
        assert_eq!(scene.send(client(2), WEB, SYN).unwrap().0, VICTIM);
        assert!(!scene.snapshot.services()[0].fallen_open);
        let states = HOSTS.map(|host| scene.backend(host).unwrap().state);
        let (pending, up) = (BackendState::Pending, BackendState::Up);
        assert_eq!(states, [pending, up, pending]);
    }
}
