use std::sync::Arc;
use std::time::UNIX_EPOCH;

use ringgate_conntrack::{Endpoint, FlowKey, NewFlow, Profile, Reach, Tie, Timeouts};
use ringgate_dataplane::backend::{BackendId, Health};
use ringgate_dataplane::flow_log::{Carried, Signs};
use ringgate_dataplane::route::Fib;
use ringgate_dataplane::snapshot::Builder;

use super::*;

const FILE: &str = r#"
    [[interface]]
    name = "eth0"
    [[service]]
    name = "web"
    listen = "10.100.0.1:80"
    protocol = "tcp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:8080"
    [[service]]
    name = "dns"
    listen = "10.100.0.1:53"
    protocol = "udp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:53"
"#;

const FIN: u8 = 1;
const RST: u8 = 4;

/// 18:00 on 2025-11-21, UTC, and a bit: 9,000 seconds on the workers' clock.
const WALL_MS: u64 = 1_763_748_000_123;
const NOW: Millis = Millis(9_000_000);

fn snapshot() -> Snapshot {
    let model = ringgate_config::parse("test.toml", FILE).unwrap().model;
    let fib = Arc::new(Fib::default());
    let built = Builder::default().build(&model, |_, _| Health::Up, &fib, false);
    built.unwrap()
}

fn table() -> FlowTable {
    FlowTable::in_memory(64, Secret([1, 2]), Timeouts::default()).unwrap()
}

fn scene<'a>(snapshot: &'a Snapshot, flows: &'a FlowTable) -> Scene<'a> {
    Scene {
        flows,
        snapshot,
        now: NOW,
        wall: UNIX_EPOCH + Duration::from_millis(WALL_MS),
    }
}

/// A connection to `web` that has both sent and got, and whose last packet came so many seconds ago.
fn account(snapshot: &Snapshot, ago: u64) -> Account {
    let end = |text: &str| Endpoint::from_socket(text.parse().unwrap());
    let owner = snapshot.services()[0].members[0];
    let last = Millis(NOW.0 - ago * 1000);
    let carried = Carried {
        packets: 3,
        bytes: 300,
        last,
    };
    Account {
        key: FlowKey::new(TCP, end("10.1.0.2:9"), end("10.100.0.1:80")),
        owner,
        backend: end("10.2.0.11:8080"),
        has_replies: true,
        began: Millis(NOW.0 - ago * 1000 - 50),
        client: carried,
        replies: carried,
        signs: Signs::default(),
        is_told: true,
    }
}

#[test]
fn each_end_has_its_reason() {
    use Direction::{FromBackend, FromClient};
    let (snapshot, flows) = (snapshot(), table());
    let scene = scene(&snapshot, &flows);
    let fin = |side| Signs::of(side, FIN);
    let (both, none) = (fin(FromClient).and(fin(FromBackend)), Signs::default());
    let resets = [FromClient, FromBackend].map(|side| Signs::of(side, RST));
    let renewed = Over::Succeeded(Succession::Renewed);
    let moved = Over::Succeeded(Succession::Moved);
    let day = 86_400;
    for (signs, over, ago, expected) in [
        (both, Over::Gone, 2, "closed"),
        (both.and(resets[0]), Over::Gone, 2, "closed"),
        (both.and(Signs::FLUSHED), Over::Gone, 2, "closed"),
        (both, Over::LogEnded, 0, "closed"),
        (resets[0], Over::Gone, 2, "reset-by-client"),
        (
            fin(FromClient).and(resets[1]),
            Over::Gone,
            2,
            "reset-by-backend",
        ),
        (Signs::FLUSHED, Over::Gone, 2, "flushed"),
        (Signs::FLUSHED, renewed, 2, "flushed"),
        (none, moved, 0, "moved"),
        (fin(FromBackend), moved, 0, "moved"),
        (none, Over::LogEnded, 0, "log-ended"),
        (none, Over::Stopped, day, "stopped"),
        (none, Over::Gone, 7440, "idle"),
        (none, Over::Gone, 7430, "displaced"),
        (none, renewed, 7440, "idle"),
        (fin(FromClient), Over::Gone, 240, "idle"),
        (fin(FromBackend), Over::Gone, 200, "displaced"),
        (fin(FromClient), renewed, 1, "closed"),
    ] {
        let account = Account {
            signs,
            ..account(&snapshot, ago.min(8000))
        };
        assert_eq!(
            reason(&account, over, &scene),
            expected,
            "{signs:?} {over:?}"
        );
    }
}

#[test]
fn what_cannot_be_seen_is_not_waited_for() {
    let (snapshot, flows) = (snapshot(), table());
    let scene = scene(&snapshot, &flows);
    let direct = Account {
        has_replies: false,
        signs: Signs::of(Direction::FromClient, FIN),
        ..account(&snapshot, 240)
    };
    assert_eq!(reason(&direct, Over::Gone, &scene), "closed");
    // Of a backend that is gone nobody knows how long its flows were kept.
    let strange = Account {
        owner: BackendId(u32::MAX),
        ..account(&snapshot, 2)
    };
    assert_eq!(reason(&strange, Over::Gone, &scene), "idle");
    // Datagrams: two minutes one way, five both ways.
    let end = |text: &str| Endpoint::from_socket(text.parse().unwrap());
    let datagrams = |replies, ago| {
        let account = account(&snapshot, ago);
        Account {
            key: FlowKey::new(17, end("10.1.0.2:9"), end("10.100.0.1:53")),
            replies: Carried {
                packets: replies,
                ..account.replies
            },
            ..account
        }
    };
    for (replies, ago, expected) in [
        (0, 119, "idle"),
        (0, 110, "displaced"),
        (1, 119, "displaced"),
        (1, 300, "idle"),
    ] {
        let account = datagrams(replies, ago);
        assert_eq!(
            reason(&account, Over::Gone, &scene),
            expected,
            "{replies} {ago}"
        );
    }
}

#[test]
fn a_flow_is_over_when_the_table_says_so_and_nothing_is_under_way() {
    let (snapshot, flows) = (snapshot(), table());
    let scene = scene(&snapshot, &flows);
    let (young, old) = (account(&snapshot, 0), account(&snapshot, 2));
    assert!(is_over(&young, &scene), "the table does not know it");
    let store = |state| {
        let new = NewFlow {
            state,
            owner: young.owner.0,
            direction: Direction::FromClient,
            tie: Tie::NONE,
            profile: Profile::DEFAULT,
            reach: Reach::UNKNOWN,
        };
        let hash = flows.hash(&young.key);
        if let Some(found) = flows.lookup(&young.key, hash, NOW.seconds()) {
            assert!(flows.remove(&found));
        }
        assert!(
            flows
                .insert(&young.key, hash, new, NOW.seconds())
                .placed()
                .is_some()
        );
    };
    for state in [State::Opening, State::Established, State::ClientClosed] {
        store(state);
        assert!(
            !is_over(&young, &scene) && !is_over(&old, &scene),
            "{state:?}"
        );
    }
    store(State::Closed);
    assert!(!is_over(&young, &scene), "its last acknowledgment may come");
    assert!(is_over(&old, &scene));
}

#[test]
fn it_is_told_in_words_and_by_everybodys_clock() {
    let (snapshot, flows) = (snapshot(), table());
    let scene = scene(&snapshot, &flows);
    let account = account(&snapshot, 2);
    assert_eq!(scene.at(NOW), "2025-11-21T18:00:00.123Z");
    assert_eq!(scene.at(account.began), "2025-11-21T17:59:58.073Z");
    let named = Named::of(&account, &scene);
    let words = [
        &named.client,
        &named.listen,
        &named.protocol,
        &named.backend,
    ];
    assert_eq!(
        words,
        ["10.1.0.2:9", "10.100.0.1:80", "tcp", "10.2.0.11:8080"]
    );
    assert_eq!(named.service.as_deref(), Some("web"));
}

#[test]
fn a_moment_is_told_alike_until_the_clock_is_set() {
    let (snapshot, flows) = (snapshot(), table());
    let mut chronicle = Chronicle::new(Secret([1, 2]));
    let mut told = |later: u64, strays: u64| {
        let scene = Scene {
            now: Millis(NOW.0 + later),
            wall: UNIX_EPOCH + Duration::from_millis(WALL_MS + later + strays),
            ..scene(&snapshot, &flows)
        };
        chronicle.timed(scene).at(NOW)
    };
    let first = "2025-11-21T18:00:00.123Z";
    assert_eq!(told(0, 0), first);
    assert_eq!([told(5000, 1), told(9000, 99)], [first; 2]);
    assert_eq!(told(9000, 100), "2025-11-21T18:00:00.223Z");
    assert_eq!(told(9000, 0), first);
}

#[test]
fn another_share_is_another_log_and_the_same_one_stays() {
    let mut chronicle = Chronicle::new(Secret([1, 2]));
    assert!(chronicle.adapt(None).is_none());
    let now = crate::control::clock::now();
    assert!(!chronicle.is_due(now), "nothing is looked at");
    let first = chronicle.adapt(Some(10)).unwrap();
    assert!(Arc::ptr_eq(&first, &chronicle.adapt(Some(10)).unwrap()));
    assert!(chronicle.is_due(now) && !chronicle.is_due(now));
    assert!(chronicle.is_due(now + PACE));
    let second = chronicle.adapt(Some(11)).unwrap();
    assert_eq!((first.every(), second.every()), (10, 11));
    assert_eq!(chronicle.account().every, Some(11));
    // The first goes when workers have given it up.
    let (snapshot, flows) = (snapshot(), table());
    let scene = scene(&snapshot, &flows);
    chronicle.go_on(&scene, |_| true);
    assert_eq!(chronicle.given_up.len(), 1, "no snapshot without it yet");
    chronicle.published(7);
    chronicle.go_on(&scene, |generation| generation < 7);
    assert_eq!(chronicle.given_up.len(), 1);
    chronicle.go_on(&scene, |generation| generation <= 7);
    assert!(chronicle.given_up.is_empty());
    assert!(chronicle.adapt(None).is_none());
    assert_eq!(chronicle.account().every, None);
}
