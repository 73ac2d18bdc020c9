use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SECRET: Secret = Secret([11, 13]);
const FIRST: u16 = 1024;
const WORKERS: usize = 2;
/// Of each worker.
const PORTS: usize = 6;
const RESTS: Rests = Rests {
    tcp: Span(60),
    udp: Span(30),
};

fn layout() -> Layout {
    let last = FIRST + u16::try_from(WORKERS * PORTS).unwrap() - 1;
    Layout::new(FIRST..=last, WORKERS, 3).unwrap()
}

fn addresses(text: &[&str]) -> Vec<IpAddr> {
    text.iter().map(|one| one.parse().unwrap()).collect()
}

fn set(text: &[&str]) -> (SourcePorts, Vec<Seat>) {
    SourcePorts::new(layout(), &addresses(text), RESTS, SECRET).unwrap()
}

fn backend(n: u8) -> Endpoint {
    Endpoint::from_socket(format!("10.2.0.{n}:80").parse().unwrap())
}

/// All that a seat can have for one backend.
fn drain(set: &SourcePorts, seat: &mut Seat, to: &Endpoint, now: Seconds) -> Vec<Lease> {
    std::iter::from_fn(|| set.allocate(seat, TCP, to, 0, now).ok()).collect()
}

fn held(set: &SourcePorts, now: u32) -> usize {
    set.usage(Seconds(now)).map(|(_, usage)| usage.held).sum()
}

/// What the queues are to be, told plainly.
#[derive(Default)]
struct Oracle {
    /// Who is held, and by which seat it was given out: by five-tuple.
    live: HashMap<(u8, Endpoint, Endpoint), (usize, Lease)>,
    /// What each block has.
    blocks: HashMap<(u8, [u64; 2], usize, usize), Block>,
}

#[derive(Default)]
struct Block {
    held: HashSet<u16>,
    /// In the order in which they came back, with the moment until which they rest.
    back: VecDeque<(u16, u32)>,
}

impl Block {
    fn queued(&self) -> usize {
        PORTS - self.held.len()
    }

    /// Whether none has come back of those that are next: they were free from the beginning.
    fn has_fresh(&self) -> bool {
        self.queued() > self.back.len()
    }

    fn why_not(&self, now: u32) -> Option<NoPort> {
        if self.queued() == 1 {
            return Some(NoPort::Held);
        }
        let rests = !self.has_fresh() && self.back[0].1 >= now;
        rests.then_some(NoPort::Resting)
    }

    fn take(&mut self, port: u16, now: u32) {
        assert_eq!(self.why_not(now), None);
        if self.has_fresh() {
            assert!(
                self.back.iter().all(|(other, _)| *other != port),
                "used before fresh ones"
            );
        } else {
            assert_eq!(
                self.back.pop_front().unwrap().0,
                port,
                "not the one that rested longest"
            );
        }
        assert!(self.held.insert(port), "held twice");
    }
}

impl Oracle {
    fn allocate(
        &mut self,
        set: &SourcePorts,
        seat: &mut Seat,
        protocol: u8,
        to: Endpoint,
        affinity: u64,
        now: u32,
    ) {
        let sources: Vec<[u64; 2]> = set.family(&to).iter().map(|one| one.address()).collect();
        let group = set.layout().group(&to);
        let worker = seat.worker;
        let given = set.allocate(seat, protocol, &to, affinity, Seconds(now));
        let why_not = |oracle: &mut Self, source: &[u64; 2]| {
            let block = oracle.blocks.entry((protocol, *source, group, worker));
            block.or_default().why_not(now)
        };
        let first = sources.get(reduce(affinity, sources.len()));
        let Ok(lease) = given else {
            let reasons: Vec<_> = sources.iter().map(|one| why_not(self, one)).collect();
            assert!(
                reasons.iter().all(Option::is_some),
                "refused though one is free"
            );
            let worst = reasons
                .into_iter()
                .flatten()
                .max()
                .unwrap_or(NoPort::NoSource);
            assert_eq!(given, Err(worst));
            return;
        };
        let from = set.source(lease);
        assert!(sources.contains(&from.address));
        if why_not(self, first.unwrap()).is_none() {
            assert_eq!(
                &from.address,
                first.unwrap(),
                "a client's flows come from one source"
            );
        }
        let block = self.blocks.entry((protocol, from.address, group, worker));
        block.or_default().take(from.port, now);
        let twice = self.live.insert((protocol, from, to), (worker, lease));
        assert_eq!(twice, None, "two flows with one five-tuple");
    }

    fn release(&mut self, set: &SourcePorts, nth: usize, now: u32) {
        let mut live: Vec<_> = self.live.iter().map(|(key, held)| (*key, *held)).collect();
        live.sort_unstable_by_key(|(key, _)| *key);
        let Some((key, (worker, lease))) = live.get(nth % live.len().max(1)).copied() else {
            return;
        };
        let (protocol, from, to) = key;
        assert_eq!(set.release(protocol, lease, Seconds(now)), Release::Rests);
        assert_eq!(set.release(protocol, lease, Seconds(now)), Release::NotHeld);
        self.live.remove(&key);
        let group = set.layout().group(&to);
        let block = self
            .blocks
            .get_mut(&(protocol, from.address, group, worker))
            .unwrap();
        assert!(block.held.remove(&from.port));
        let rest = if protocol == TCP {
            RESTS.tcp
        } else {
            RESTS.udp
        };
        block.back.push_back((from.port, now + rest.0));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Allocate {
        seat: usize,
        udp: bool,
        to: u8,
        affinity: u64,
    },
    Release(usize),
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let allocate = (0..WORKERS, prop::bool::weighted(0.2), 0u8..8, any::<u64>()).prop_map(
        |(seat, udp, to, affinity)| Step::Allocate {
            seat,
            udp,
            to,
            affinity,
        },
    );
    let release = any::<usize>().prop_map(Step::Release);
    let wait = (0u32..90).prop_map(Step::Wait);
    prop::collection::vec(prop_oneof![6 => allocate, 3 => release, 1 => wait], 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

    /// Never two holders of one five-tuple, no port before it has rested, none refused while one
    /// is free, and the one that rested longest first.
    #[test]
    fn it_behaves_like_a_plain_list(steps in steps()) {
        let (set, mut seats) = set(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let (mut oracle, mut now) = (Oracle::default(), 100);
        for step in steps {
            match step {
                Step::Allocate { seat, udp, to, affinity } => {
                    // The last two are of the other family.
                    let to = if to < 6 {
                        backend(to)
                    } else {
                        Endpoint::from_socket(format!("[2001:db8:2::{to}]:80").parse().unwrap())
                    };
                    let protocol = if udp { UDP } else { TCP };
                    oracle.allocate(&set, &mut seats[seat], protocol, to, affinity, now);
                }
                Step::Release(nth) => oracle.release(&set, nth, now),
                Step::Wait(seconds) => now += seconds,
            }
        }
        // Everything given back becomes free again, all but one of each block.
        while !oracle.live.is_empty() {
            oracle.release(&set, 0, now);
        }
        now += 61;
        for to in 0..6 {
            for seat in &mut seats {
                let all = drain(&set, seat, &backend(to), Seconds(now));
                prop_assert_eq!(all.len(), 2 * (PORTS - 1));
                for from in all {
                    prop_assert_eq!(set.release(TCP, from, Seconds(now)), Release::Rests);
                }
            }
            now += 61;
        }
    }
}

#[test]
fn a_port_rests_for_its_protocols_time_and_no_longer() {
    for (protocol, rest) in [(TCP, 60), (UDP, 30)] {
        let (set, mut seats) = set(&["192.0.2.1"]);
        let (seat, to) = (&mut seats[0], backend(1));
        let mut take = |now| set.allocate(seat, protocol, &to, 0, Seconds(now));
        let all: Vec<_> = std::iter::from_fn(|| take(10).ok()).collect();
        assert_eq!(all.len(), PORTS - 1);
        assert_eq!(take(10), Err(NoPort::Held));
        let give = |lease| set.release(protocol, lease, Seconds(100));
        assert_eq!(give(all[2]), Release::Rests);
        // The one that was kept back was there first, and never had a flow.
        let kept = take(100).unwrap();
        assert_eq!(take(100), Err(NoPort::Held));
        assert_eq!(give(kept), Release::Rests);
        assert_eq!(take(100), Err(NoPort::Resting));
        assert_eq!(take(100 + rest), Err(NoPort::Resting));
        assert_eq!(take(101 + rest), Ok(all[2]));
        assert_eq!(take(101 + rest), Err(NoPort::Held));
    }
}

#[test]
fn what_was_not_given_out_is_not_taken_back() {
    let (set, mut seats) = set(&["192.0.2.1"]);
    let to = backend(1);
    let lease = set
        .allocate(&mut seats[0], TCP, &to, 0, Seconds(0))
        .unwrap();
    let back = |protocol, lease| set.release(protocol, lease, Seconds(0));
    assert_eq!(back(UDP, lease), Release::NotHeld);
    assert_eq!(back(1, lease), Release::Foreign);
    let group = u16::try_from(lease.group()).unwrap();
    for port in [0, 1023, FIRST + 12, u16::MAX] {
        assert_eq!(back(TCP, Lease::new(0, group, port)), Release::Foreign);
    }
    let other = |number, group| Lease::new(number, group, lease.port());
    assert_eq!(back(TCP, other(1, group)), Release::Foreign);
    assert_eq!(back(TCP, other(0, (group + 1) % 3)), Release::NotHeld);
    assert_eq!(back(TCP, other(0, 511)), Release::NotHeld);
    assert_eq!(back(TCP, lease), Release::Rests);
    let seat = &mut seats[0];
    assert_eq!(
        set.allocate(seat, 1, &to, 0, Seconds(0)),
        Err(NoPort::NoSource)
    );
    let v6 = Endpoint::from_socket("[2001:db8::9]:80".parse().unwrap());
    assert_eq!(
        set.allocate(seat, TCP, &v6, 0, Seconds(0)),
        Err(NoPort::NoSource)
    );
}

#[test]
fn one_port_serves_backends_of_different_groups() {
    let (set, mut seats) = set(&["192.0.2.1"]);
    let groups: HashSet<usize> = (0..20).map(|n| set.layout().group(&backend(n))).collect();
    assert_eq!(groups, HashSet::from([0, 1, 2]));
    let mut given = HashMap::<u16, usize>::new();
    for n in 0..20 {
        for from in drain(&set, &mut seats[0], &backend(n), Seconds(0)) {
            *given.entry(from.port()).or_default() += 1;
        }
    }
    assert_eq!(given.values().sum::<usize>(), 3 * (PORTS - 1));
    assert!(given.values().all(|times| *times <= 3) && given.values().any(|times| *times > 1));
    // No port of the other worker's.
    let other = drain(&set, &mut seats[1], &backend(0), Seconds(0));
    assert!(other.iter().all(|from| !given.contains_key(&from.port())));
}

#[test]
fn a_changed_configuration_keeps_who_holds_what() {
    let (first, mut seats) = set(&["192.0.2.1", "192.0.2.2"]);
    let (seat, to) = (&mut seats[0], backend(1));
    let held = drain(&first, seat, &to, Seconds(0));
    let ip = |set: &SourcePorts, lease| set.source(lease).to_socket().ip();
    let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|ip| addresses(&[ip])[0]);
    let changed = |set: &SourcePorts, addresses: &[IpAddr], now| {
        set.changed(addresses, RESTS, Seconds(now)).unwrap()
    };
    // One goes: nothing new of it, and what is held can be given back through the new set.
    let second = changed(&first, &[one], 0);
    assert_eq!(
        second.allocate(seat, TCP, &to, 0, Seconds(0)),
        Err(NoPort::Held)
    );
    let gone: Vec<_> = held
        .into_iter()
        .filter(|lease| ip(&second, *lease) == two)
        .collect();
    for from in &gone[1..] {
        assert_eq!(second.release(TCP, *from, Seconds(0)), Release::Rests);
    }
    // It comes back while one port of it is held and the others rest.
    let third = changed(&changed(&second, &[one], 0), &[one, two], 30);
    let kept = third.allocate(seat, TCP, &to, 0, Seconds(30)).unwrap();
    assert_eq!(ip(&third, kept), two);
    let refused = third.allocate(seat, TCP, &to, 0, Seconds(60));
    assert_eq!(refused, Err(NoPort::Resting));
    let again = drain(&third, seat, &to, Seconds(61));
    assert_eq!(again, gone[1..gone.len() - 1]);
    for from in again.iter().chain([&kept, &gone[0]]) {
        assert_eq!(third.release(TCP, *from, Seconds(61)), Release::Rests);
    }
    // Removed, it is remembered until nothing of it rests any more.
    let fourth = changed(&third, &[one], 61);
    assert_eq!(changed(&fourth, &[one], 121).retired.len(), 1);
    assert_eq!(changed(&fourth, &[one], 122).retired.len(), 0);
}

#[test]
fn what_does_not_fit_is_refused_with_what_was_found() {
    let empty = RangeInclusive::new(2001, 2000);
    let wrong = [
        (Layout::new(1023..=2000, 1, 1), "found ports 1023 to 2000"),
        (Layout::new(empty, 1, 1), "found ports 2001 to 2000"),
        (Layout::new(1024..=2000, 0, 1), "found 0 workers"),
        (Layout::new(1024..=2000, 1, 5000), "5000 groups"),
        (
            Layout::new(1024..=1026, 2, 1),
            "found 3 ports for 2 workers",
        ),
    ];
    for (layout, text) in wrong {
        let error = layout.unwrap_err().to_string();
        assert!(
            error.contains(text) && error.contains("expected"),
            "{error}"
        );
    }
    let refused = |addresses: &[IpAddr]| {
        SourcePorts::new(layout(), addresses, RESTS, SECRET)
            .map(|_| ())
            .unwrap_err()
    };
    let twice = addresses(&["192.0.2.1", "::ffff:192.0.2.1"]);
    assert_eq!(refused(&twice), PortsError::Repeated(twice[0]));
    let many: Vec<IpAddr> = (0..65u8).map(|n| IpAddr::from([192, 0, 2, n])).collect();
    assert_eq!(refused(&many), PortsError::TooManySources(65));
    assert!(SourcePorts::new(layout(), &many[..64], RESTS, SECRET).is_ok());
}

#[test]
fn memory_is_what_is_said() {
    let layout = Layout::new(DEFAULT_PORTS, 8, 16).unwrap();
    let ports = DEFAULT_PORTS.len();
    assert_eq!(layout.memory_bytes(), 2 * 16 * (ports * 8 + 8 * 64));
    assert_eq!(layout.most_flows(), ports - 8);
}

#[test]
fn the_order_is_a_secret_and_groups_are_even() {
    let order = |secret, group_of: u8| {
        let layout = Layout::new(DEFAULT_PORTS, 1, 16).unwrap();
        let (set, mut seats) =
            SourcePorts::new(layout, &addresses(&["192.0.2.1"]), RESTS, secret).unwrap();
        drain(&set, &mut seats[0], &backend(group_of), Seconds(0))
    };
    let one = order(SECRET, 1);
    assert_eq!(one, order(SECRET, 1));
    // A shuffled order of n has a neighbour's neighbour in n / 2 of cases rising, and one fixed
    // place: two orders agree in one place on average.
    let agree = |other: Vec<Lease>| one.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(agree(order(Secret([11, 14]), 1)) < 10);
    assert!(agree(order(SECRET, 2)) < 10);
    let rising = one
        .windows(2)
        .filter(|pair| pair[0].port() < pair[1].port())
        .count();
    assert!((15_000..16_800).contains(&rising), "{rising}");
    // Neighbouring addresses and ports.
    let layout = Layout::new(DEFAULT_PORTS, 1, 16).unwrap();
    let mut counts = [0; 16];
    for n in 0..=255 {
        for port in 8000..8016 {
            let to = Endpoint { port, ..backend(n) };
            counts[layout.group(&to)] += 1;
        }
    }
    assert!(
        counts.iter().all(|count| (200..320).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn numbers_stay_with_their_addresses() {
    let address = |n: u8| IpAddr::from([192, 0, 2, n]);
    let (mut set, mut seats) = set(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    let held = set.allocate(&mut seats[0], TCP, &backend(1), 0, Seconds(0));
    let held = held.unwrap();
    let source = set.source(held);
    // Others come and go around it, more of them than there are numbers.
    for round in 0..100_u8 {
        let now = Seconds(u32::from(round));
        let others = [address(100 + round), address(3)];
        set = set.changed(&others, RESTS, now).unwrap();
        assert_eq!(set.source(held), source);
        let numbers: HashSet<u8> = set.all().map(|source| source.number()).collect();
        assert_eq!(numbers.len(), set.all().count());
        for source in set.all() {
            let lease = Lease::new(source.number(), 0, 1024);
            assert_eq!(set.source(lease).to_socket().ip(), source.ip());
        }
    }
    assert_eq!(set.release(TCP, held, Seconds(100)), Release::Rests);
}

/// A table of half-open flows, told plainly.
#[derive(Default)]
struct HalfOpen {
    flows: HashMap<u32, Lease>,
    next: u32,
}

impl HalfOpen {
    fn begin(&mut self, set: &SourcePorts, seat: &mut Seat, now: u32) -> Result<Waiting, NoPort> {
        let flows = &mut self.flows;
        let end = |waiting: &Waiting| {
            let waits = flows.get(&waiting.slot) == Some(&waiting.lease);
            waits && flows.remove(&waiting.slot).is_some()
        };
        let lease = set.allocate_waiting(seat, &backend(1), 0, Seconds(now), end)?;
        assert!(
            !self.flows.values().any(|held| *held == lease),
            "two holders"
        );
        let waiting = Waiting {
            lease,
            slot: self.next,
        };
        self.next += 1;
        self.flows.insert(waiting.slot, lease);
        set.wait(seat, waiting);
        Ok(waiting)
    }
}

#[test]
fn the_flow_that_waits_longest_gives_way_and_no_more_than_half_the_ports_wait() {
    let (set, mut seats) = set(&["192.0.2.1"]);
    let (seat, mut half) = (&mut seats[0], HalfOpen::default());
    for n in 0..1000 {
        let begun = half.begin(&set, seat, 0).unwrap();
        let waiting: HashSet<u32> = half.flows.keys().copied().collect();
        let most = u32::try_from(PORTS / 2).unwrap();
        let expected = (begun.slot.saturating_sub(most - 1)..=n).collect();
        assert_eq!(waiting, expected);
    }
    assert_eq!(held(&set, 0), PORTS / 2);
}

#[test]
fn a_flood_leaves_ports_to_who_completes_a_handshake() {
    // Two sources, so that the ports are more than those that may wait.
    let (set, mut seats) = set(&["192.0.2.1", "192.0.2.2"]);
    let (seat, mut half) = (&mut seats[0], HalfOpen::default());
    let mut established = Vec::new();
    for n in 0..1000 {
        let begun = half.begin(&set, seat, n);
        // One in twenty is a client: it completes its handshake after two more of the flood.
        if n % 20 == 0
            && let Ok(client) = begun
        {
            half.begin(&set, seat, n).unwrap();
            half.begin(&set, seat, n).unwrap();
            assert_eq!(half.flows.remove(&client.slot), Some(client.lease));
            established.push(client.lease);
        }
        // And each is served for some time.
        if established.len() == 3 {
            let lease = established.remove(0);
            assert_eq!(set.release(TCP, lease, Seconds(n)), Release::Rests);
        }
    }
    assert_eq!(half.next, 1100, "nobody was refused");
    let unique: HashSet<&Lease> = established.iter().chain(half.flows.values()).collect();
    assert_eq!(held(&set, 2000), unique.len());
}

#[test]
fn where_only_the_established_hold_ports_a_newcomer_is_refused() {
    let (set, mut seats) = set(&["192.0.2.1"]);
    let (seat, mut half) = (&mut seats[0], HalfOpen::default());
    let mut established = Vec::new();
    while let Ok(begun) = half.begin(&set, seat, 0) {
        half.flows.clear();
        established.push(begun.lease);
    }
    assert_eq!(established.len(), PORTS - 1);
    assert_eq!(half.begin(&set, seat, 0), Err(NoPort::Held));
    for lease in &established[3..5] {
        assert_eq!(set.release(TCP, *lease, Seconds(0)), Release::Rests);
    }
    assert!(
        half.begin(&set, seat, 0).is_ok(),
        "the one that was kept back"
    );
    half.flows.clear();
    assert_eq!(half.begin(&set, seat, 60), Err(NoPort::Resting));
    let begun = half.begin(&set, seat, 61).map(|begun| begun.lease);
    assert_eq!(begun, Ok(established[3]));
}

#[test]
fn a_waiting_flow_of_a_removed_source_leaves_nothing_to_a_newcomer() {
    let (first, mut seats) = set(&["192.0.2.1"]);
    let (seat, mut half) = (&mut seats[0], HalfOpen::default());
    let begun = half.begin(&first, seat, 0).unwrap();
    let second = first
        .changed(&addresses(&["192.0.2.2"]), RESTS, Seconds(0))
        .unwrap();
    // All of the new source's are established.
    while second
        .allocate(seat, TCP, &backend(1), 0, Seconds(0))
        .is_ok()
    {}
    assert_eq!(half.begin(&second, seat, 0), Err(NoPort::Held));
    assert!(half.flows.is_empty(), "it gave way, for nothing");
    assert_eq!(
        second.release(TCP, begun.lease, Seconds(0)),
        Release::NotHeld
    );
}

#[test]
fn a_set_apart_has_the_same_sources_and_touches_nothing() {
    let (set, mut seats) = set(&["10.9.0.1", "fd00:9::1"]);
    let lease = set
        .allocate(&mut seats[1], TCP, &backend(1), 0, Seconds(0))
        .unwrap();
    let (apart, mut seat) = set.apart();
    assert_eq!(apart.source(lease), set.source(lease));
    assert_eq!((held(&apart, 0), held(&set, 0)), (0, 1));
    let given = drain(&apart, &mut seat, &backend(1), Seconds(0));
    // All but the one that each queue keeps.
    assert!(given.len() >= PORTS, "{}", given.len());
    assert_eq!(apart.release(TCP, given[0], Seconds(0)), Release::Rests);
    assert_eq!(held(&set, 0), 1);
}
