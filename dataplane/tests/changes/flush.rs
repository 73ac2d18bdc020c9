//! What a flush takes and leaves, while workers go on.

use ringgate_conntrack::{Endpoint, FlowKey};
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::flush::{Flush, Scope};
use ringgate_dataplane::steer::FlowEvent;
use ringgate_dataplane::verdict::DropReason;

use super::scene::{ACK, DNS, HOSTS, Pool, SHARED, SYN, SYN_ACK, Scene, VICTIM, WEB, client};

const FLOWS: u16 = 200;

/// Flows to each service, all answered; of the same clients.
fn busy() -> Scene {
    let scene = Scene::new(Pool::of(&HOSTS));
    for client in (0..FLOWS).map(client) {
        for service in [WEB, SHARED] {
            for flags in [SYN, ACK, ACK] {
                scene.send(client, service, flags).unwrap();
            }
        }
        let (host, _) = scene.send(client, DNS, 0).unwrap();
        scene.reply(host, DNS, client, 0).unwrap();
    }
    assert_eq!(scene.entries(), usize::from(FLOWS) * 6);
    scene
}

fn service(listen: &str) -> Scope {
    let listen: std::net::SocketAddr = listen.parse().unwrap();
    let protocol = if listen.port() == 53 { 17 } else { 6 };
    Scope::Service(listen.into(), protocol)
}

/// How many flows of each service are still in the table.
fn known(scene: &Scene) -> [usize; 3] {
    [WEB, SHARED, DNS].map(|service| {
        let is_known = |n: &u16| {
            let (_, event) = scene.send(client(*n), service, ACK).unwrap();
            event == FlowEvent::None
        };
        (0..FLOWS).filter(is_known).count()
    })
}

#[test]
fn it_takes_the_flows_that_were_named_and_no_others() {
    let all = usize::from(FLOWS);
    for (scope, left) in [
        (Scope::All, [0, 0, 0]),
        (service(WEB), [0, all, all]),
        (service(SHARED), [all, 0, all]),
        (service(DNS), [all, all, 0]),
    ] {
        let scene = busy();
        let flushed = usize::try_from(scene.flush(scope)).unwrap();
        let stay: usize = left.iter().sum();
        assert_eq!(flushed + stay, all * 3, "{scope:?}");
        assert_eq!(scene.entries(), stay * 2);
        assert_eq!(known(&scene), left, "{scope:?}");
    }
    let scene = busy();
    let id = scene.backend(VICTIM).unwrap().id;
    let flushed = usize::try_from(scene.flush(Scope::Backend(id))).unwrap();
    assert!(flushed > all / 5);
    assert_eq!(scene.entries(), (all * 3 - flushed) * 2);
    assert_eq!(known(&scene), [all - flushed, all, all]);
}

/// What a service's removed backends have left behind as well.
#[test]
fn it_takes_flows_whose_backend_is_gone() {
    let mut scene = busy();
    scene.change(|pool| pool.entries.retain(|entry| entry.host != VICTIM));
    scene.now = Millis(scene.now.0 + 1000);
    assert_eq!(scene.flush(service(WEB)), u64::from(FLOWS));
    scene.flush(Scope::All);
    assert_eq!(scene.entries(), 0);
}

#[test]
fn the_size_of_its_steps_makes_no_difference() {
    for budget in [1, 7, u32::MAX] {
        let scene = busy();
        let mut flush = Flush::new(Scope::All, scene.seconds());
        let mut steps = 1;
        while !flush.go_on(
            &scene.tables.flows,
            &scene.snapshot,
            budget,
            scene.seconds(),
        ) {
            steps += 1;
        }
        assert_eq!(steps, scene.tables.flows.buckets().div_ceil(budget));
        let counted = (flush.flows(), flush.entries());
        assert_eq!(counted, (u64::from(FLOWS) * 3, u64::from(FLOWS) * 6));
        assert_eq!(scene.entries(), 0);
    }
}

/// Where only the table can tell whose a reply is, one half of a flow would be worse than none.
#[test]
fn workers_that_go_on_meanwhile_lose_no_half_of_a_flow() {
    let mut scene = busy();
    scene.now = Millis(scene.now.0 + 1000);
    let mut flush = Flush::new(service(SHARED), scene.seconds());
    let (mut n, mut anew) = (0, 0);
    while !flush.go_on(&scene.tables.flows, &scene.snapshot, 1, scene.seconds()) {
        for _ in 0..3 {
            n = (n + 7) % FLOWS;
            let (host, event) = scene.send(client(n), SHARED, ACK).unwrap();
            anew += usize::from(event == FlowEvent::Created);
            let reply = scene.reply(host, SHARED, client(n), ACK);
            assert_eq!(reply.as_deref(), Ok(SHARED), "after {event:?}");
        }
    }
    assert!(anew > usize::from(FLOWS) / 2, "{anew}");
    for client in (0..FLOWS).map(client) {
        let (host, _) = scene.send(client, SHARED, ACK).unwrap();
        assert_eq!(
            scene.reply(host, SHARED, client, ACK).as_deref(),
            Ok(SHARED)
        );
    }
    assert_eq!(scene.entries(), usize::from(FLOWS) * 6);
}

#[test]
fn an_entry_of_replies_that_stands_alone_goes_when_it_is_old() {
    let mut scene = busy();
    let endpoint = |text: &str| Endpoint::from_socket(text.parse().unwrap());
    let key = FlowKey::new(6, Endpoint::from_socket(client(5)), endpoint(SHARED));
    let found = scene
        .tables
        .flows
        .lookup(&key, scene.tables.flows.hash(&key), scene.seconds());
    assert!(scene.tables.flows.remove(&found.unwrap()));
    let left = usize::from(FLOWS) * 4;
    // Seen in this very second: it may be half of a flow that a worker is just storing.
    scene.flush(service(SHARED));
    assert_eq!(scene.entries(), left + 1);
    scene.now = Millis(scene.now.0 + 1000);
    scene.flush(service(SHARED));
    assert_eq!(scene.entries(), left);
}

/// Half-open flows of shared backends are known, so they follow the column of established ones.
#[test]
fn half_open_flows_of_shared_backends_are_like_established_ones() {
    let half_open = |scene: &Scene| -> Vec<u16> {
        let mut of_victim = Vec::new();
        for n in 1000..1100 {
            let (host, _) = scene.send(client(n), SHARED, SYN).unwrap();
            let reply = scene.reply(host, SHARED, client(n), SYN_ACK);
            assert_eq!(reply.as_deref(), Ok(SHARED));
            if host == VICTIM {
                of_victim.push(n);
            }
        }
        assert!(of_victim.len() > 15);
        of_victim
    };
    let mut scene = Scene::new(Pool::of(&HOSTS));
    let flows = half_open(&scene);
    scene.change(|pool| pool.victim().weight = 0);
    for n in &flows {
        assert_eq!(scene.send(client(*n), SHARED, ACK).unwrap().0, VICTIM);
    }
    let mut scene = Scene::new(Pool::of(&HOSTS));
    let flows = half_open(&scene);
    scene.change(|pool| pool.victim().disabled = true);
    for n in &flows {
        let (host, _) = scene.send(client(*n), SHARED, ACK).unwrap();
        assert_ne!(host, VICTIM);
        assert_eq!(
            scene.reply(host, SHARED, client(*n), ACK).as_deref(),
            Ok(SHARED)
        );
    }
}

#[test]
fn replies_of_a_shared_backend_wait_for_the_clients_next_packet() {
    let scene = busy();
    let (host, _) = scene.send(client(3), SHARED, ACK).unwrap();
    scene.flush(service(SHARED));
    let reply = || scene.reply(host, SHARED, client(3), ACK);
    assert_eq!(reply(), Err(DropReason::UnknownReturn));
    let again = scene.send(client(3), SHARED, ACK);
    assert_eq!(again, Ok((host, FlowEvent::Created)));
    assert_eq!(reply().as_deref(), Ok(SHARED));
}
