//! What is looked at after a change, and the words for what is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ringgate_dataplane::backend::BackendState;
use ringgate_dataplane::steer::FlowEvent;
use ringgate_dataplane::verdict::DropReason;

use super::rows::Row;
use super::scene::{ACK, DNS, SYN, SYN_ACK, Scene, VICTIM, WEB, client};

/// Flows of each kind.
const FLOWS: u16 = 300;

/// Clients that nobody has seen before, so many that shares can be told.
const NEWCOMERS: std::ops::Range<u16> = 10_000..13_000;

/// A flow and the host that it was with just before the change.
type Flow = (SocketAddr, u8);

/// A scene after its change, and flows from before.
struct After {
    scene: Scene,
    established: Vec<Flow>,
    half_open: Vec<Flow>,
    datagrams: Vec<Flow>,
    /// What the ring said to newcomers before.
    ring: Vec<Option<u8>>,
    flushed: u64,
}

impl After {
    fn of(row: Row) -> Self {
        let mut scene = Scene::new(row.pool);
        let clients = |from: u16| (from..from + FLOWS).map(client);
        for client in clients(0) {
            for flags in [SYN, ACK, ACK] {
                scene.send(client, WEB, flags).unwrap();
            }
        }
        for client in clients(1000) {
            let (host, _) = scene.send(client, DNS, 0).unwrap();
            scene.reply(host, DNS, client, 0).unwrap();
        }
        (row.prelude)(&mut scene);
        let send = |to, flags| {
            let scene = &scene;
            move |client| (client, scene.send(client, to, flags).unwrap().0)
        };
        let established = clients(0).map(send(WEB, ACK)).collect();
        let datagrams = clients(1000).map(send(DNS, 0)).collect();
        let half_open = clients(2000).map(send(WEB, SYN)).collect();
        let ring = newcomers(&scene);
        let flushed = (row.change)(&mut scene);
        Self {
            scene,
            established,
            half_open,
            datagrams,
            ring,
            flushed,
        }
    }

    /// Sends a packet of each flow twice: the flows of other backends must stay, and the words
    /// must be true of those of the backend that has changed.
    fn judge(&self, flows: &[Flow], to: &str, flags: u8, words: &str) {
        let (own, others): (Vec<Flow>, Vec<Flow>) =
            flows.iter().partition(|(_, home)| *home == VICTIM);
        for (client, home) in &others {
            assert_eq!(
                self.scene.send(*client, to, flags),
                Ok((*home, FlowEvent::None))
            );
        }
        let own = if own.is_empty() { others } else { own };
        assert!(own.len() > usize::from(FLOWS) / 5, "something to look at");
        let mut went = BTreeSet::new();
        for (client, home) in own {
            let ring = self.scene.ring_choice(client, to);
            let seen = self.scene.send(client, to, flags);
            if let Ok((host, _)) = seen {
                went.insert(host);
            }
            let expected = match words {
                "stay" => Ok((home, FlowEvent::None)),
                "move" => Ok((ring.unwrap(), FlowEvent::Rehashed)),
                "anew" => Ok((ring.unwrap(), FlowEvent::Created)),
                "dropped" => Err(DropReason::NoBackend),
                _ => panic!("no such words: {words}"),
            };
            assert_eq!(seen, expected, "{client} of {home}");
            // And there it stays.
            let again = self.scene.send(client, to, flags);
            assert_eq!(again, expected.map(|(host, _)| (host, FlowEvent::None)));
        }
        match words {
            "move" => assert!(!went.contains(&VICTIM) && went.len() == 2, "{went:?}"),
            "anew" => assert_eq!(went.len(), 3, "some have stayed, some have not"),
            _ => {}
        }
    }
}

/// What the ring says to newcomers.
fn newcomers(scene: &Scene) -> Vec<Option<u8>> {
    NEWCOMERS
        .map(|n| scene.ring_choice(client(n), WEB))
        .collect()
}

pub(crate) fn new_flows(row: Row, words: &str) {
    let after = After::of(row);
    let mut shares: BTreeMap<u8, u32> = BTreeMap::new();
    for n in NEWCOMERS {
        // Nothing is stored of a SYN, and what it goes by is the ring.
        match after.scene.send(client(n), WEB, SYN) {
            Ok((host, FlowEvent::None)) => *shares.entry(host).or_default() += 1,
            Ok((_, event)) => panic!("{event:?}"),
            Err(reason) => assert_eq!((words, reason), ("dropped", DropReason::NoBackend)),
        }
    }
    let weight = |host| {
        after
            .scene
            .backend(host)
            .map_or(0, |backend| backend.weight)
    };
    let hosts: Vec<u8> = after
        .scene
        .pool
        .entries
        .iter()
        .map(|entry| entry.host)
        .collect();
    let total: u32 = hosts.iter().map(|host| weight(*host)).sum();
    match words {
        "by the weights" => {
            assert!(weight(VICTIM) > 0);
            for host in hosts {
                let (seen, all) = (shares[&host], u32::from(NEWCOMERS.end - NEWCOMERS.start));
                let expected = all * weight(host) / total;
                assert!(
                    seen.abs_diff(expected) < all / 40,
                    "{host}: {seen} for {expected}"
                );
            }
        }
        "elsewhere" => assert!(!shares.contains_key(&VICTIM) && shares.len() == 2),
        "dropped" => assert!(shares.is_empty()),
        _ => panic!("no such words: {words}"),
    }
}

pub(crate) fn established(row: Row, words: &str) {
    let after = After::of(row);
    after.judge(&after.established, WEB, ACK, words);
}

pub(crate) fn udp(row: Row, words: &str) {
    let after = After::of(row);
    after.judge(&after.datagrams, DNS, 0, words);
}

/// The client's ACK, which the ring alone can place.
pub(crate) fn half_open(row: Row, words: &str) {
    let after = After::of(row);
    let mut victims = 0;
    for (client, home) in &after.half_open {
        victims += usize::from(*home == VICTIM);
        let seen = after.scene.send(*client, WEB, ACK);
        match (words, after.scene.ring_choice(*client, WEB)) {
            ("dropped", None) => assert_eq!(seen, Err(DropReason::NoBackend)),
            ("by the ring" | "move", Some(host)) => {
                assert_eq!(seen, Ok((host, FlowEvent::Created)));
                assert!(words != "move" || host != VICTIM, "{client} of {home}");
            }
            (_, choice) => panic!("{words}: {choice:?}"),
        }
    }
    let had_none = after.half_open.iter().all(|(_, home)| *home != VICTIM);
    assert!(had_none || victims > usize::from(FLOWS) / 20, "{victims}");
}

/// What a backend sends before the client does: of the established flows, and of the datagrams.
pub(crate) fn replies(row: Row, words: &str) {
    let after = After::of(row);
    let flows = [(WEB, ACK, &after.established), (DNS, 0, &after.datagrams)];
    for (service, flags, flows) in flows {
        for (client, home) in flows {
            let seen = after.scene.reply(*home, service, *client, flags);
            match words {
                "stop" if *home == VICTIM => assert_eq!(seen, Err(DropReason::NotForUs)),
                "pass" | "stop" => assert_eq!(seen.as_deref(), Ok(service)),
                _ => panic!("no such words: {words}"),
            }
        }
    }
    for (client, home) in &after.half_open {
        let seen = after.scene.reply(*home, WEB, *client, SYN_ACK);
        let stops = words == "stop" && *home == VICTIM;
        assert_eq!(seen.is_err(), stops, "{seen:?}");
    }
}

/// How many newcomers go from one of the others to another of the others.
pub(crate) fn slots_of_others(row: Row, words: &str) {
    let after = After::of(row);
    let now = newcomers(&after.scene);
    let moves = after
        .ring
        .iter()
        .zip(&now)
        .filter(|(before, now)| before != now);
    let needless = moves
        .filter(|(before, now)| ![**before, **now].contains(&Some(VICTIM)))
        .count();
    match words {
        "none" => assert_eq!(needless, 0),
        // docs/MAGLEV.md has the figures of all sizes.
        "few" => assert!(needless < after.ring.len() / 50, "{needless}"),
        _ => panic!("no such words: {words}"),
    }
}

pub(crate) fn status_and_counters(row: Row, words: &str) {
    let after = After::of(row);
    let backend = after.scene.backend(VICTIM);
    let service = &after.scene.snapshot.services()[0];
    let mut seen = vec![backend.map_or("gone", |backend| backend.state.as_str())];
    let mut own = after.established.iter().filter(|(_, home)| *home == VICTIM);
    let first = own
        .next()
        .map(|(client, _)| after.scene.send(*client, WEB, ACK));
    match first {
        Some(Ok((_, FlowEvent::Rehashed))) => seen.push("rehashed"),
        Some(Err(reason)) => seen.push(reason.name()),
        _ => {}
    }
    if after.flushed > 0 {
        let flows = after.established.iter().chain(&after.datagrams);
        let of_victim = flows.filter(|(_, home)| *home == VICTIM).count();
        assert_eq!(after.flushed, of_victim as u64);
        seen.push("flushed");
    }
    if service.fallen_open {
        seen.push("fallen open");
    }
    let full =
        |backend: &ringgate_dataplane::backend::Backend| backend.weight / service.weight_scale;
    if backend.is_some_and(|backend| backend.state == BackendState::Up && full(backend) < 30) {
        seen.push("slow");
    }
    assert_eq!(seen.join(", "), words);
}
