use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use ringgate_config::Model;

use super::*;
use crate::backend::Health;
use crate::route::Fib;
use crate::snapshot::{Builder, Snapshot};
use crate::testing::at;

const FILE: &str = r#"
    [[interface]]
    name = "eth0"
    [[service]]
    name = "dns"
    listen = "10.100.0.1:53"
    protocol = "udp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:5353"
      [[service.backend]]
      address = "10.2.0.12:5353"
    [[service]]
    name = "direct"
    listen = "10.100.0.2:53"
    protocol = "udp"
    forward = "dsr-l2"
      [[service.backend]]
      address = "10.2.0.13"
"#;

fn snapshot() -> Snapshot {
    let model: Model = ringgate_config::parse("test.toml", FILE).unwrap().model;
    let fib = Arc::new(Fib::default());
    let built = Builder::default().build(&model, |_, _| Health::Up, &fib, false);
    built.unwrap()
}

/// The backends of both services, in file order.
fn backends(snapshot: &Snapshot) -> Vec<&Backend> {
    let members = snapshot.services().iter().flat_map(|one| &one.members);
    members.map(|id| snapshot.backend(*id).unwrap()).collect()
}

fn log(every: u32, capacity: usize) -> FlowLog {
    FlowLog::new(every, capacity, Secret([5, 6])).unwrap()
}

fn key(port: u16) -> FlowKey {
    let (from, to) = (at("10.1.0.2:0"), at("10.100.0.1:53"));
    let mut from = Endpoint::from_socket(from);
    from.port = port;
    FlowKey::new(17, from, Endpoint::from_socket(to))
}

/// All accounts, none changed.
fn all(log: &FlowLog) -> BTreeMap<u16, Account> {
    let mut all = BTreeMap::new();
    let keep = |account: &Account| {
        assert!(all.insert(account.key.source().port, *account).is_none());
        Wish::Keep
    };
    log.look(0..log.buckets(), keep, |_, _| panic!("nothing was wished"));
    all
}

#[test]
fn an_account_tells_what_was_put_in_and_whose_it_is() {
    let (snapshot, log) = (snapshot(), log(1, 64));
    let owners = backends(&snapshot);
    log.begin(&key(1), owners[1], Succession::Renewed, Millis(70));
    log.begin(&key(2), owners[2], Succession::Renewed, Millis(71));
    for (direction, bytes, now) in [
        (Direction::FromClient, 100, 70),
        (Direction::FromBackend, 1500, 75),
        (Direction::FromClient, 40, 73),
    ] {
        log.page(&key(1))
            .unwrap()
            .side(direction)
            .add(bytes, Millis(now));
    }
    let all = all(&log);
    assert_eq!((all.len(), log.open()), (2, 2));
    let expected = Account {
        key: key(1),
        owner: owners[1].id,
        backend: Endpoint::from_socket(at("10.2.0.12:5353")),
        has_replies: true,
        began: Millis(70),
        client: Carried {
            packets: 2,
            bytes: 140,
            last: Millis(73),
        },
        replies: Carried {
            packets: 1,
            bytes: 1500,
            last: Millis(75),
        },
        signs: Signs::default(),
        is_told: false,
    };
    assert_eq!((all[&1], all[&1].last()), (expected, Millis(75)));
    let direct = all[&2];
    assert_eq!(direct.backend.to_socket(), at("10.2.0.13:53"));
    assert_eq!((direct.has_replies, direct.last()), (false, Millis(71)));
}

#[test]
fn each_is_told_once_and_closed_once_and_its_place_is_free_again() {
    let (snapshot, log) = (snapshot(), log(1, 64));
    let owners = backends(&snapshot);
    for round in 0..200_u16 {
        let (port, now) = (round + 1, Millis(u64::from(round)));
        log.begin(&key(port), owners[0], Succession::Renewed, now);
        for (wish, is_told) in [(Wish::Tell, false), (Wish::Close, true)] {
            let mut done = Vec::new();
            log.look(
                0..log.buckets(),
                |account| {
                    assert_eq!(account.is_told, is_told);
                    wish
                },
                |account, what| done.push((account.key, account.began, what)),
            );
            assert_eq!(done, [(key(port), now, wish)]);
        }
        assert_eq!((all(&log).len(), log.open(), log.lost()), (0, 0, 0));
    }
}

#[test]
fn a_side_that_ends_is_known_from_the_other() {
    use Direction::{FromBackend, FromClient};
    for (direction, other) in [(FromClient, FromBackend), (FromBackend, FromClient)] {
        let fin = Signs::of(direction, tcp::FIN | tcp::ACK);
        assert!(fin.has_fin(direction) && !fin.has_fin(other) && !fin.has_reset(direction));
        let reset = Signs::of(direction, tcp::RST);
        assert!(reset.has_reset(direction) && !reset.has_reset(other) && !reset.has_fin(direction));
        assert_eq!(Signs::of(direction, tcp::ACK), Signs::default());
    }
    let (snapshot, log) = (snapshot(), log(1, 64));
    log.begin(
        &key(1),
        backends(&snapshot)[0],
        Succession::Renewed,
        Millis(0),
    );
    log.page(&key(1))
        .unwrap()
        .sign(Signs::of(FromClient, tcp::FIN));
    log.flushed(&key(1));
    log.flushed(&key(2));
    let signs = all(&log)[&1].signs;
    assert!(signs.is_flushed() && signs.has_fin(FromClient) && !signs.has_fin(FromBackend));
}

#[test]
fn a_flow_under_the_same_key_has_an_account_of_its_own() {
    let (snapshot, log) = (snapshot(), log(1, 64));
    let owners = backends(&snapshot);
    for (owner, why) in [
        (owners[0], Succession::Renewed),
        (owners[1], Succession::Moved),
        (owners[0], Succession::Renewed),
    ] {
        log.begin(&key(1), owner, why, Millis(9));
        let page = log.page(&key(1)).unwrap();
        page.side(Direction::FromClient).add(10, Millis(9));
        page.sign(Signs::of(Direction::FromClient, tcp::FIN));
    }
    let closed: Vec<_> = std::iter::from_fn(|| log.take_succeeded()).collect();
    let told = closed
        .iter()
        .map(|(a, why)| (a.owner, a.client.bytes, *why));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (owners[0].id, 10, Succession::Moved),
            (owners[1].id, 10, Succession::Renewed),
        ]
    );
    let all = all(&log);
    assert_eq!((all.len(), log.lost()), (1, 0));
    assert_eq!((all[&1].owner, all[&1].client.bytes), (owners[0].id, 10));
}

#[test]
fn what_finds_no_room_is_counted_and_what_was_there_stays() {
    let (snapshot, log) = (snapshot(), log(1, 16));
    let owner = backends(&snapshot)[0];
    for port in 0..1000 {
        log.begin(&key(port), owner, Succession::Renewed, Millis(1));
    }
    let there = all(&log);
    assert!((16..=32).contains(&there.len()), "{}", there.len());
    assert_eq!(there.len() as u64 + log.lost(), 1000);
    // Those that wait for control are as many as the queue takes.
    let (port, lost) = (*there.keys().next().unwrap(), log.lost());
    for _ in 0..SUCCEEDED_MOST + 5 {
        log.begin(&key(port), owner, Succession::Renewed, Millis(1));
    }
    assert_eq!(log.lost(), lost + 5);
    assert_eq!(
        std::iter::from_fn(|| log.take_succeeded()).count(),
        SUCCEEDED_MOST
    );
}

#[test]
fn a_share_of_flows_is_chosen_and_always_the_same() {
    let (snapshot, few, other) = (snapshot(), log(10, 8192), log(10, 8192));
    let owner = backends(&snapshot)[0];
    for port in 0..20_000 {
        few.begin(&key(port), owner, Succession::Renewed, Millis(1));
    }
    for port in (0..20_000).rev() {
        other.begin(&key(port), owner, Succession::Renewed, Millis(1));
    }
    let (one, two) = (all(&few), all(&other));
    assert!((1800..2200).contains(&one.len()), "{}", one.len());
    assert!(one.keys().eq(two.keys()));
    assert_eq!(few.lost() + other.lost(), 0);
}

/// Workers open, fill and open anew while control tells and closes: each beginning is told before its end, no
/// account is told or closed twice, and no packet is counted twice.
#[test]
fn threads_lose_nothing_that_is_not_counted() {
    const ROUNDS: u64 = 20_000;
    const PORTS: u16 = 8;
    let (snapshot, log) = (snapshot(), log(1, 64));
    let owners = backends(&snapshot);
    let mut ends: Vec<Account> = Vec::new();
    let mut told = 0_u64;
    let mut look = |is_last: bool| {
        log.look(
            0..log.buckets(),
            |account| match account.is_told {
                false => Wish::Tell,
                true => Wish::Close,
            },
            |account, what| match what {
                Wish::Tell => told += 1,
                _ => ends.push(*account),
            },
        );
        while let Some((account, _)) = log.take_succeeded() {
            told += u64::from(!account.is_told);
            ends.push(account);
        }
        is_last
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2_u64)
            .map(|worker| {
                let (log, owners) = (&log, &owners);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let key = key(u16::try_from(round % u64::from(PORTS)).unwrap());
                        let now = Millis(1 + round);
                        let owner = owners[usize::try_from(worker).unwrap()];
                        log.begin(&key, owner, Succession::Renewed, now);
                        if let Some(page) = log.page(&key) {
                            page.side(Direction::FromClient).add(1, now);
                        }
                    }
                })
            })
            .collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            look(false);
        }
    });
    look(false);
    assert!(look(true));
    let begun = 2 * ROUNDS;
    assert_eq!(
        ends.len() as u64 + log.lost(),
        begun,
        "each begins once and ends once"
    );
    // The end of one that was told can be lost: when control is held up, the queue of those that were closed is full.
    let unended = told.checked_sub(ends.len() as u64).unwrap();
    assert!(unended <= log.lost(), "{unended} of {}", log.lost());
    let counted: u64 = ends.iter().map(|account| account.client.packets).sum();
    assert!(counted <= begun && counted > 0);
    assert!(all(&log).is_empty());
}
