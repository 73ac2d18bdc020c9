//! Packets that have no ports to go by: later fragments, echo requests.

use super::*;

/// A later and a last fragment.
fn later(world: &mut Loaded, cases: &[(&str, Ip, Fate)]) {
    for (what, ip, fate) in cases {
        let frame = plain(&ip.fragment(1, true).packet(&ports(5, 80)));
        world.expect(&format!("later, {what}"), &frame, *fate);
        let ip = ip.options(10 * u8::from(ip.from.is_ipv4()));
        let frame = plain(&ip.fragment(185, false).packet(&[]));
        world.expect(&format!("last, {what}"), &frame, *fate);
    }
}

#[test]
#[ignore = "needs CAP_BPF"]
fn fragments_go_by_ports_or_by_addresses() {
    use Fate::{Fragment, Other, Service, Vlan};
    let mut world = world();
    let tcp = |from, to| Ip::new(from, to, TCP);
    let service = tcp("10.1.0.2", "10.100.0.1");
    let first = |port| plain(&service.fragment(0, true).packet(&ports(5, port)));
    world.expect("first", &first(80), Service);
    world.expect("first, to another port", &first(81), Other);
    let udp = Ip::new("10.1.0.2", "10.100.0.1", UDP);
    let icmp = Ip::new("10.1.0.2", "10.100.0.1", ICMP);
    let cases = [
        ("to a service", service, Fragment),
        ("to a prefix", tcp("10.1.0.2", "10.100.1.77"), Fragment),
        ("of another protocol", udp, Other),
        ("of ICMP", icmp, Other),
        ("not wanted", tcp("10.1.0.2", "10.100.3.1"), Other),
        ("to nobody", tcp("10.1.0.2", "10.1.0.3"), Other),
        ("reply", tcp("10.2.0.11", "10.1.0.2"), Fragment),
        ("reply of a range", tcp("10.2.0.12", "10.1.0.2"), Fragment),
        ("to ourselves", tcp("10.2.0.11", "10.2.0.1"), Other),
        ("full-nat", tcp("10.2.0.13", "10.2.0.2"), Fragment),
        ("full-nat, to us", tcp("10.2.0.13", "10.2.0.1"), Other),
        ("full-nat, to a client", tcp("10.2.0.13", "10.1.0.2"), Other),
        // Both services at the address ask for tags, and not for the same.
        ("to two tagged", tcp("10.1.0.2", "10.100.2.1"), Fragment),
        // One service at the address, with tags.
        ("to a tagged one", tcp("10.1.0.2", "10.100.2.2"), Vlan),
    ];
    later(&mut world, &cases);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn fragments_of_ipv6_likewise() {
    use Fate::{Fragment, Other, Service};
    let mut world = world();
    let tcp = |from, to| Ip::new(from, to, TCP);
    let service = tcp("fd00:1::2", "fd00:100::1");
    let first = |more, port| plain(&service.fragment(0, more).packet(&ports(5, port)));
    world.expect("first", &first(true, 80), Service);
    world.expect("the only one", &first(false, 80), Service);
    world.expect("first, to another port", &first(true, 81), Other);
    let cases = [
        ("to a service", service, Fragment),
        ("to a prefix", tcp("fd00:1::2", "fd00:101::7"), Fragment),
        ("to nobody", tcp("fd00:1::2", "fd00:1::3"), Other),
        ("reply", tcp("fd00:2::11", "fd00:1::2"), Fragment),
        ("to ourselves", tcp("fd00:2::11", "fd00:2::1"), Other),
        ("full-nat", tcp("fd00:2::13", "fd00:2::2"), Fragment),
        ("full-nat, to us", tcp("fd00:2::13", "fd00:2::1"), Other),
    ];
    later(&mut world, &cases);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn echo_requests_to_services_are_answered_if_so_configured() {
    let mut world = world();
    let request = |to: &str, code| match to.contains(':') {
        false => Ip::new("10.1.0.2", to, ICMP).packet(&icmp(8, code, b"ping")),
        true => Ip::new("fd00:1::2", to, ICMPV6).packet(&icmp(128, code, b"ping")),
    };
    let mut to = |to: &str, fate| world.expect(to, &plain(&request(to, 0)), fate);
    to("10.100.0.1", Fate::Echo);
    to("10.100.1.200", Fate::Echo);
    to("10.100.3.1", Fate::Echo);
    to("fd00:100::1", Fate::Echo);
    to("fd00:101::5", Fate::Echo);
    to("10.2.0.1", Fate::Other);
    to("10.2.0.11", Fate::Other);
    to("fd00:100::2", Fate::Other);
    to("10.100.2.2", Fate::Vlan);
    world.expect("a code", &plain(&request("10.100.0.1", 1)), Fate::Other);
    let piece = Ip::new("10.1.0.2", "10.100.0.1", ICMP).fragment(0, true);
    let piece = plain(&piece.packet(&icmp(8, 0, b"ping")));
    world.expect("in fragments", &piece, Fate::Other);
    // The types of the other family.
    let wrong = Ip::new("10.1.0.2", "10.100.0.1", ICMP).packet(&icmp(128, 0, &[]));
    world.expect("an ICMPv6 type", &plain(&wrong), Fate::Other);
    let wrong = Ip::new("fd00:1::2", "fd00:100::1", ICMPV6).packet(&icmp(8, 0, &[]));
    world.expect("an ICMP type", &plain(&wrong), Fate::Other);
    let wrong = Ip::new("10.1.0.2", "10.100.0.1", ICMPV6).packet(&icmp(128, 0, &[]));
    world.expect("ICMPv6 over IPv4", &plain(&wrong), Fate::Other);
    let kernels = Steered {
        echo: false,
        ..world.steered.clone()
    };
    world.tell(kernels);
    world.expect(
        "the kernel's",
        &plain(&request("10.100.0.1", 0)),
        Fate::Other,
    );
}
