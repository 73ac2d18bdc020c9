//! Malformed input without privileges; the real kernel with them.

use std::process::Command;
use std::thread;

use ipnet::IpNet;
use ringgate_config::VlanTags;
use ringgate_conntrack::Endpoint;
use ringgate_dataplane::parse::Family;
use ringgate_dataplane::route::Miss;

use super::super::clock::now;
use super::super::driver::{self, Operation, Prefer};
use super::super::fib::Ports;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(50);

/// A valid datagram: one route notification.
fn route_datagram() -> Vec<u8> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[test]
fn the_hosts_own_network_can_be_watched_without_privileges() {
    let mut watcher = Watcher::open().unwrap();
    watcher.settle(PATIENCE).unwrap();
    let loopback = watcher
        .network()
        .link("lo")
        .expect("every namespace has it");
    assert_eq!(loopback.mac, None);
    let counters = watcher.counters();
    assert_eq!(
        (counters.malformed, counters.foreign),
        (0, 0),
        "{counters:?}"
    );
    assert!(counters.dumps >= 5, "{counters:?}");
    let generation = watcher.network().generation();
    watcher.audit().unwrap();
    watcher.settle(PATIENCE).unwrap();
    assert!(watcher.counters().dumps >= 10);
    // Other tests of this process do not touch this namespace's network; nor does reading it.
    assert_eq!(watcher.network().generation(), generation);
}

#[test]
fn malformed_messages_are_counted_and_the_good_ones_around_them_taken() {
    let mut watcher = Watcher::open().unwrap();
    let good = route_datagram();
    let before = watcher.counters();
    let mut bad = good.clone();
    bad[16] = 250; // the address family: no such
    bad.truncate(20); // and no route header
    bad[0] = 20;
    watcher.datagram(&[good.as_slice(), &bad, &good].concat());
    let after = watcher.counters();
    assert_eq!(after.messages - before.messages, 2);
    assert_eq!(after.malformed - before.malformed, 1);
}

#[test]
fn broken_framing_ends_the_datagram() {
    let mut watcher = Watcher::open().unwrap();
    for length in [0_u32, 1, 15, 17, 1 << 20, u32::MAX] {
        let mut bytes = route_datagram();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let before = watcher.counters();
        watcher.datagram(&bytes);
        // A length of 17 leaves something that is looked at as the next message: also malformed.
        assert!(
            watcher.counters().malformed > before.malformed,
            "length {length}"
        );
    }
    for cut in 1..16 {
        let before = watcher.counters();
        watcher.datagram(&route_datagram()[..cut]);
        assert_eq!(
            watcher.counters().malformed,
            before.malformed + 1,
            "cut at {cut}"
        );
    }
}

/// Real dumps of this host, with every kind of damage: nothing may panic. Seeded; the seed is in the
/// message of a failure.
#[test]
fn damaged_messages_never_panic() {
    let mut source = Watcher::open().unwrap();
    let mut samples = vec![route_datagram()];
    while !source.settled() && samples.len() < 32 {
        let mut bytes = Vec::with_capacity(DATAGRAM);
        if source
            .socket
            .recv_from(&mut bytes, libc::MSG_DONTWAIT)
            .is_err()
        {
            source.pump().unwrap();
            continue;
        }
        source.datagram(&bytes);
        source.pump().unwrap();
        bytes.truncate(4096);
        samples.push(bytes);
    }
    let mut watcher = Watcher::open().unwrap();
    let mut random = 0xD1B5_4A32_D192_ED03_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % u64::try_from(below.max(1)).unwrap()).unwrap()
    };
    for _ in 0..20_000 {
        let mut bytes = samples[next(samples.len())].clone();
        for _ in 0..=next(6) {
            let at = next(bytes.len());
            bytes[at] = u8::try_from(next(256)).unwrap();
        }
        bytes.truncate(next(bytes.len() + 1));
        watcher.datagram(&bytes);
    }
    assert!(watcher.counters().malformed > 0);
}

/// Runs `ip` with these words in the calling thread's network namespace.
#[track_caller]
fn run_ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {stderr}");
}

/// Reads until this holds.
#[track_caller]
fn until(watcher: &mut Watcher, what: &str, holds: impl Fn(&Network) -> bool) {
    let end = now() + PATIENCE;
    while !holds(watcher.network()) {
        assert!(now() < end, "{what}: {:?}", watcher.network());
        // As the loop waits for it.
        let fd = watcher.descriptor().unwrap();
        let (mut driver, _) = driver::open(Prefer::Auto, 1).unwrap();
        let readable = Operation::Readable { fd };
        driver.start(readable, Some(STEP), ()).unwrap();
        driver.wait(Some(STEP), &mut Vec::new()).unwrap();
        watcher.read().unwrap();
    }
}

/// A network namespace that lives as long as this thread's handle on it.
struct Namespace {
    release: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    id: String,
}

impl Namespace {
    /// In another thread: a new namespace, kept until dropped. `ip` reaches it by the thread's number.
    fn new() -> Self {
        let (tell, hear) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            enter_new_namespace();
            tell.send(rustix::thread::gettid().as_raw_nonzero().to_string())
                .unwrap();
            released.recv().unwrap_err();
        });
        Self {
            release: Some(release),
            thread: Some(thread),
            id: hear.recv().unwrap(),
        }
    }

    /// Runs `ip` there; what it printed.
    #[track_caller]
    fn ip(&self, words: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.id))
            .arg("ip")
            .args(words.split_whitespace())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {words}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.release.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn enter_new_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
}

/// Runs a test in a thread of its own, in a network namespace of its own.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let outcome = thread::spawn(move || {
        enter_new_namespace();
        test();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Two namespaces, one veth: "here" with 10.7.0.1 and fd07::1, "there" with .2 and ::2.
fn veth() -> Namespace {
    let there = Namespace::new();
    run_ip(&format!(
        "link add here numrxqueues 2 type veth peer name there netns {}",
        there.id
    ));
    run_ip("addr add 10.7.0.1/24 dev here");
    run_ip("addr add fd07::1/64 dev here nodad");
    there.ip("addr add 10.7.0.2/24 dev there");
    there.ip("addr add fd07::2/64 dev there nodad");
    run_ip("link set here up");
    there.ip("link set there up");
    there
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_peer_in_another_namespace_is_resolved() {
    in_namespace(|| {
        let there = veth();
        let mut watcher = Watcher::open().unwrap();
        watcher.settle(PATIENCE).unwrap();
        until(&mut watcher, "carrier", |n| {
            n.link("here").is_some_and(|link| link.carrier)
        });
        let link = watcher.network().link("here").unwrap().clone();
        assert_eq!(
            (link.kind.as_deref(), link.rx_queues, link.mtu),
            (Some("veth"), 2, 1500)
        );
        assert!(link.mac.is_some() && link.up);
        // The link-local address is on probation first, which is a change of its own.
        until(&mut watcher, "addresses", |n| {
            n.local_addresses().count() == 3 && n.local_addresses().all(|local| local.preferred)
        });
        for peer in ["10.7.0.2", "fd07::2"] {
            let peer: IpAddr = peer.parse().unwrap();
            let hop = watcher.network().next_hop(peer).unwrap();
            assert_eq!((hop.ifindex, hop.neighbour), (link.index, peer));
            assert_eq!(watcher.network().neighbour(link.index, peer), None);
            watcher.resolve(link.index, peer).unwrap();
            until(&mut watcher, "resolved", |n| {
                n.neighbour(link.index, peer).is_some()
            });
            let mac = watcher.network().neighbour(link.index, peer).unwrap();
            assert!(
                there
                    .ip("-o link show dev there")
                    .contains(&mac.to_string()),
                "{mac}"
            );
            // Asking again for what is known changes nothing that anybody reads.
            let generation = watcher.network().generation();
            watcher.resolve(link.index, peer).unwrap();
            watcher.audit().unwrap();
            watcher.settle(PATIENCE).unwrap();
            assert_eq!(watcher.network().generation(), generation);
        }
        assert_eq!(watcher.counters().refused, 0);
        assert_eq!(watcher.counters().malformed, 0);
    });
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A watcher that knows of the veth's carrier, and the veth's index.
fn watch() -> (Watcher, u32) {
    let mut watcher = Watcher::open().unwrap();
    watcher.settle(PATIENCE).unwrap();
    until(&mut watcher, "carrier", |n| {
        n.link("here").is_some_and(|link| link.carrier)
    });
    let index = watcher.network().link("here").unwrap().index;
    (watcher, index)
}

/// Whether a packet to the first address goes to the second one.
fn goes(from: &'static str, to: &'static str) -> impl Fn(&Network) -> bool {
    move |network| {
        network
            .next_hop(ip(from))
            .is_ok_and(|hop| hop.neighbour == ip(to))
    }
}

fn nowhere(text: &'static str) -> impl Fn(&Network) -> bool {
    move |network| network.next_hop(ip(text)).is_err()
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn a_permanent_neighbour_stays_permanent() {
    in_namespace(|| {
        let _there = veth();
        run_ip("neigh replace 10.7.0.9 lladdr 02:00:00:00:00:09 dev here nud permanent");
        let (mut watcher, index) = watch();
        watcher.resolve(index, ip("10.7.0.9")).unwrap();
        watcher.audit().unwrap();
        watcher.settle(PATIENCE).unwrap();
        assert!(watcher.network().is_fixed(index, ip("10.7.0.9")));
        assert!(watcher.network().neighbour(index, ip("10.7.0.9")).is_some());
    });
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn changes_of_routes_arrive() {
    in_namespace(|| {
        let _there = veth();
        let (mut watcher, _) = watch();
        run_ip("route add 192.0.2.0/24 via 10.7.0.2");
        until(&mut watcher, "IPv4 route", goes("192.0.2.1", "10.7.0.2"));
        run_ip("route replace 192.0.2.0/24 via 10.7.0.3");
        until(&mut watcher, "replaced", goes("192.0.2.1", "10.7.0.3"));
        run_ip("route add blackhole 192.0.2.128/25");
        until(&mut watcher, "blackhole", nowhere("192.0.2.129"));
        run_ip("route add 198.51.100.0/24 via inet6 fd07::2");
        until(&mut watcher, "RFC 5549", goes("198.51.100.1", "fd07::2"));
        run_ip("route add 203.0.113.0/24 nexthop via 10.7.0.4 nexthop via 10.7.0.5");
        until(&mut watcher, "multipath", goes("203.0.113.1", "10.7.0.4"));
        run_ip("nexthop add id 7 via 10.7.0.6 dev here");
        run_ip("route add 192.88.99.0/24 nhid 7");
        until(
            &mut watcher,
            "next hop object",
            goes("192.88.99.1", "10.7.0.6"),
        );
        run_ip("-6 route add 2001:db8::/32 via fd07::2 metric 9");
        run_ip("-6 route append 2001:db8::/32 via fd07::3 metric 9");
        until(
            &mut watcher,
            "IPv6 multipath",
            goes("2001:db8::1", "fd07::2"),
        );
        run_ip("-6 route del 2001:db8::/32 via fd07::2 metric 9");
        until(
            &mut watcher,
            "one member less",
            goes("2001:db8::1", "fd07::3"),
        );
        run_ip("-6 route del 2001:db8::/32 via fd07::3 metric 9");
        until(&mut watcher, "no member", nowhere("2001:db8::1"));
        run_ip("route del 192.0.2.0/24");
        until(&mut watcher, "deleted", nowhere("192.0.2.1"));
        assert_eq!(watcher.counters().malformed, 0);
        // The picture from notifications is the one that a dump shows.
        let generation = watcher.network().generation();
        watcher.audit().unwrap();
        watcher.settle(PATIENCE).unwrap();
        assert_eq!(watcher.network().generation(), generation);
    });
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn changes_of_links_and_neighbours_arrive() {
    in_namespace(|| {
        let there = veth();
        let (mut watcher, index) = watch();
        run_ip("link set here mtu 1400");
        until(&mut watcher, "mtu", |n| {
            n.link("here").is_some_and(|link| link.mtu == 1400)
        });
        let nine = ip("10.7.0.9");
        run_ip("neigh replace 10.7.0.9 lladdr 02:00:00:00:00:09 dev here");
        until(&mut watcher, "neighbour", |n| {
            n.neighbour(index, nine).is_some()
        });
        run_ip("neigh del 10.7.0.9 dev here");
        until(&mut watcher, "gone", |n| n.neighbour(index, nine).is_none());

        run_ip("route add 203.0.113.0/24 via 10.7.0.4");
        until(&mut watcher, "route", goes("203.0.113.1", "10.7.0.4"));
        there.ip("link set there down");
        until(&mut watcher, "no carrier", |n| {
            n.link("here").is_some_and(|link| !link.carrier)
        });
        let routes = watcher.network().sizes()[2];
        run_ip("link set here down");
        until(&mut watcher, "down", nowhere("203.0.113.1"));
        // The kernel took that route and the subnet's away without a word.
        until(&mut watcher, "dumped again", |n| n.sizes()[2] + 2 <= routes);
        run_ip("link del here");
        until(&mut watcher, "deleted", |n| n.link("here").is_none());
        let mut addresses = watcher.network().local_addresses();
        assert!(addresses.all(|local| local.ifindex != index));
        assert_eq!(watcher.counters().malformed, 0);
    });
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn an_overrun_is_caught_up_with() {
    in_namespace(|| {
        let _there = veth();
        let mut watcher = Watcher::open().unwrap();
        watcher.settle(PATIENCE).unwrap();
        sockopt::set_socket_recv_buffer_size(&watcher.socket, 4096).unwrap();
        // More than the buffer holds, unread.
        for number in 0..100 {
            run_ip(&format!("route add 192.0.2.{number}/32 via 10.7.0.2"));
        }
        let last: IpAddr = "192.0.2.99".parse().unwrap();
        until(&mut watcher, "the last route", |n| n.next_hop(last).is_ok());
        assert!(watcher.counters().overruns > 0);
        watcher.settle(PATIENCE).unwrap();
        for number in 0..100 {
            let address = IpAddr::from([192, 0, 2, number]);
            assert!(watcher.network().next_hop(address).is_ok(), "{address}");
        }
    });
}

/// What `ip route get` says after this word, in the calling thread's namespace.
#[track_caller]
fn route_get(to: &str, word: &str) -> Option<String> {
    let words = ["-o", "route", "get", to];
    let output = Command::new("ip").args(words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().skip_while(|found| *found != word);
    words.nth(1).map(str::to_owned)
}

/// Three devices: a veth, "tagged" and "inner", the latter two made by these words.
fn devices_and_routes(made_by: &[&str]) -> Namespace {
    let there = veth();
    let configured = [
        "addr add 10.7.0.77/24 dev here",
        "addr add 10.8.0.1/24 dev tagged",
        "addr add 10.8.1.1/24 dev tagged",
        "addr add fd08::1/64 dev tagged nodad",
        "addr add fd08:0:0:1::1/64 dev tagged nodad",
        "addr add 2001:db8:8::1/64 dev tagged nodad",
        "addr add 2001:db8:8::2/64 dev tagged nodad",
        "addr add 10.9.0.1/24 dev inner",
        "addr add 192.0.2.1/32 dev lo",
        "link set lo up",
        "link set tagged up",
        "link set inner up",
        "route add 198.51.100.0/24 via 10.8.1.254 mtu 1400",
        "route add 198.51.101.0/24 via 10.9.0.254 src 192.0.2.1",
        "route add 198.51.102.0/24 via inet6 fd08::99 dev tagged",
        "route add 10.10.0.0/24 dev tagged mtu 1300",
        "-6 route add 2001:db8:ffff::/48 via fd08::99 mtu 1350",
        "-6 route add fd99::/48 via fd08::99",
    ];
    made_by
        .iter()
        .chain(&configured)
        .for_each(|words| run_ip(words));
    there
}

/// Whether ways are those that `ip route get` tells: device, MTU and source, and these VLANs.
#[track_caller]
fn compare(watcher: &mut Watcher, ports: &Ports, tagged: &[u16], inner: &[u16]) {
    until(watcher, "carriers", |n| {
        let up = |name| n.link(name).is_some_and(|link| link.carrier);
        ["here", "tagged", "inner"].into_iter().all(up)
    });
    until(watcher, "addresses", |n| {
        n.local_addresses().all(|local| local.preferred)
    });
    for (to, vlans, gateway) in [
        ("10.7.0.9", &[][..], None),
        ("198.51.100.1", tagged, Some("10.8.1.254")),
        ("198.51.101.1", inner, Some("10.9.0.254")),
        ("198.51.102.1", tagged, Some("fd08::99")),
        ("10.10.0.9", tagged, None),
        ("10.9.0.9", inner, None),
        ("2001:db8:ffff::1", tagged, Some("fd08::99")),
        ("fd99::1", tagged, Some("fd08::99")),
        ("fd08:0:0:1::9", tagged, None),
        ("2001:db8:8::9", tagged, None),
    ] {
        let name = route_get(to, "dev").unwrap();
        let device = watcher.network().link(&name).unwrap().clone();
        let endpoint = Endpoint::from_socket((ip(to), 0).into());
        let family = if ip(to).is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        // It is asked for on the device that the kernel names.
        let fib = ports.fib(watcher.network());
        if let Err(Miss::NoNeighbour(missing)) = fib.hop(endpoint.address, family) {
            let asked = ports.ifindex(missing.link, watcher.network());
            assert_eq!(asked, Some(device.index), "{to}");
        }
        let neighbour = gateway.unwrap_or(to);
        run_ip(&format!(
            "neigh replace {neighbour} lladdr 02:00:00:00:00:09 dev {name}"
        ));
        until(watcher, "neighbour", |n| {
            n.neighbour(device.index, ip(neighbour)).is_some()
        });
        let fib = ports.fib(watcher.network());
        let hop = *fib.hop(endpoint.address, family).unwrap();
        assert_eq!(hop.tags.ids().collect::<Vec<_>>(), vlans, "{to}");
        assert_eq!(hop.source.0, device.mac.unwrap().0);
        let mtu = route_get(to, "mtu").map_or(device.mtu, |mtu| mtu.parse().unwrap());
        assert_eq!(hop.mtu, mtu, "{to}");
        let source = fib.source_for(ip(to)).map(|source| source.to_string());
        assert_eq!(source, route_get(to, "src"), "{to}");
    }
    assert_eq!(watcher.counters().malformed, 0);
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn ways_are_the_kernels() {
    in_namespace(|| {
        let _there = devices_and_routes(&[
            "link add tagged type veth peer name other",
            "link add inner mtu 1496 type veth peer name another",
            "link set other up",
            "link set another up",
        ]);
        let mut watcher = Watcher::open().unwrap();
        watcher.settle(PATIENCE).unwrap();
        let ports = Ports::new(["here", "tagged", "inner"].map(|name| (name, VlanTags::Route)));
        compare(&mut watcher, &ports, &[], &[]);
    });
}

#[test]
#[ignore = "needs CAP_NET_ADMIN and, to show anything, CONFIG_VLAN_8021Q"]
fn ways_through_vlan_devices_are_the_kernels() {
    in_namespace(|| {
        if !knows_vlan_devices() {
            eprintln!("not shown: this kernel has no VLAN devices");
            return;
        }
        let _there = devices_and_routes(&[
            "link add link here name tagged type vlan id 100",
            "link add link here name outer type vlan proto 802.1ad id 200",
            "link add link outer name inner mtu 1496 type vlan id 20",
            "link set outer up",
        ]);
        let mut watcher = Watcher::open().unwrap();
        watcher.settle(PATIENCE).unwrap();
        let ports = Ports::new([("here", VlanTags::Route)]);
        compare(&mut watcher, &ports, &[100], &[200, 20]);
        run_ip("link del tagged");
        until(&mut watcher, "gone", |n| n.link("tagged").is_none());
        let fib = ports.fib(watcher.network());
        assert_eq!(fib.source_for(ip("10.8.0.9")), None, "no way either");
    });
}

fn knows_vlan_devices() -> bool {
    let words = "link add link lo name probe type vlan id 1";
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    !String::from_utf8_lossy(&output.stderr).contains("Unknown device type")
}

#[test]
#[ignore = "needs CAP_NET_ADMIN"]
fn changes_of_metrics_and_addresses_arrive() {
    in_namespace(|| {
        let _there = veth();
        let (mut watcher, _) = watch();
        let mtu = |wanted: Option<u32>| {
            move |n: &Network| {
                let is_it = |prefix: IpNet| prefix.to_string() == "198.51.100.0/24";
                n.routes()
                    .any(|(p, exit)| is_it(p) && exit.is_some_and(|exit| exit.mtu == wanted))
            }
        };
        run_ip("route add 198.51.100.0/24 via 10.7.0.2 mtu 1400");
        until(&mut watcher, "bounded", mtu(Some(1400)));
        run_ip("route change 198.51.100.0/24 via 10.7.0.2 mtu lock 1300");
        until(&mut watcher, "changed", mtu(Some(1300)));
        run_ip("route change 198.51.100.0/24 via 10.7.0.2");
        until(&mut watcher, "unbounded", mtu(None));
        // IPv6 sources that are added while we watch: the kernel has the newest first.
        let ports = Ports::new([("here", VlanTags::Route)]);
        run_ip("-6 route add 2001:db8:9::/48 via fd07::2");
        for last in 1..=3 {
            run_ip(&format!("addr add 2001:db8:7::{last}/64 dev here nodad"));
            let source = route_get("2001:db8:9::1", "src");
            until(&mut watcher, "source", |n| {
                let source_now = ports.fib(n).source_for(ip("2001:db8:9::1"));
                source_now.map(|source| source.to_string()) == source
            });
        }
        assert_eq!(watcher.counters().malformed, 0);
    });
}
