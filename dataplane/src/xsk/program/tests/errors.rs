//! ICMP errors, by the packet that they are about.

use super::*;

/// An error of each type there is, of both families, about the same.
fn errors(about: &[u8], to: &str) -> Vec<(bool, Vec<u8>)> {
    let v4 = !to.contains(':');
    let (router, protocol) = if v4 {
        ("10.7.0.7", ICMP)
    } else {
        ("fd00:7::7", ICMPV6)
    };
    let is_error = |kind: u8| match v4 {
        true => matches!(kind, 3 | 11 | 12),
        false => matches!(kind, 1..=4),
    };
    let kinds = [
        0, 1, 2, 3, 4, 5, 11, 12, 13, 100, 127, 129, 133, 135, 137, 255,
    ];
    let message = |kind| {
        let packet = Ip::new(router, to, protocol).packet(&icmp(kind, 1, about));
        (is_error(kind), plain(&packet))
    };
    kinds.map(message).into()
}

/// Every kind of ICMP message about each of these; whatever is no error is not the balancer's.
fn about(world: &mut Loaded, cases: &[(&str, Vec<u8>, &str, Fate)]) {
    for (what, packet, to, fate) in cases {
        for (is_error, frame) in errors(packet, to) {
            let fate = if is_error { *fate } else { Fate::Other };
            world.expect(what, &frame, fate);
        }
    }
}

#[test]
#[ignore = "needs CAP_BPF"]
fn icmp_errors_go_where_an_answer_to_what_they_are_about_would() {
    use Fate::{Icmp, Other, Vlan};
    let tcp = |from, to| datagram(TCP, from, to);
    let sent = |to| tcp("10.1.0.2:5", to);
    let sent_v6 = tcp("[fd00:1::2]:5", "[fd00:2::11]:8080");
    let direct = tcp("10.100.0.1:80", "10.1.0.2:5");
    let direct_v6 = tcp("[fd00:101::5]:7", "[fd00:1::2]:5");
    let direct_tagged = tcp("10.100.2.2:95", "10.1.0.2:5");
    let other_port = tcp("10.100.0.1:81", "10.1.0.2:5");
    let check = tcp("10.2.0.1:40000", "10.2.0.11:8080");
    let full_nat = tcp("10.2.0.2:2000", "10.2.0.13:8080");
    let full_nat_check = tcp("10.2.0.2:40000", "10.2.0.13:8080");
    let (client, client_v6) = ("10.1.0.2", "fd00:1::2");
    let cases = [
        ("what a server sent", direct, "10.100.0.1", Icmp),
        ("the same, IPv6", direct_v6, "fd00:101::5", Icmp),
        ("the same, with tags", direct_tagged, "10.100.2.2", Vlan),
        ("of another port", other_port, "10.100.0.1", Other),
        ("what we sent", sent("10.2.0.11:8080"), client, Icmp),
        ("the same, IPv6", sent_v6, client_v6, Icmp),
        ("to a range", sent("10.2.0.12:8001"), client, Icmp),
        ("to another port", sent("10.2.0.12:7000"), client, Other),
        ("to nobody", sent("10.1.0.3:5"), client, Other),
        ("a health check", check, "10.2.0.1", Other),
        ("full-nat's", full_nat, "10.2.0.2", Icmp),
        ("its checks", full_nat_check, "10.2.0.2", Other),
    ];
    about(&mut world(), &cases);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn what_an_icmp_error_is_about_may_look_unusual() {
    use Fate::{Icmp, Other};
    let mut world = world();
    let client = "10.1.0.2";
    let sent = Ip::new(client, "10.2.0.11", TCP);
    let both = ports(5, 8080);
    let echo = Ip::new(client, "10.2.0.11", ICMP).packet(&icmp(8, 0, &[]));
    let piece = |offset| sent.fragment(offset, true).packet(&both);
    let piece_v6 = |offset| {
        let ip = Ip::new("fd00:1::2", "fd00:2::11", TCP).fragment(offset, true);
        ip.packet(&both)
    };
    let cases = [
        ("options", sent.options(10).packet(&both), client, Icmp),
        ("a first fragment", piece(0), client, Icmp),
        ("a later fragment", piece(9), client, Other),
        ("IPv6, a first fragment", piece_v6(0), "fd00:1::2", Icmp),
        ("IPv6, a later fragment", piece_v6(9), "fd00:1::2", Other),
        ("an echo request", echo, client, Other),
    ];
    about(&mut world, &cases);
    // The other family inside.
    let mixed = Ip::new("10.7.0.7", client, ICMP).packet(&icmp(3, 1, &piece_v6(0)));
    world.expect("IPv6 in ICMP", &plain(&mixed), Other);
    let mixed = Ip::new("fd00:7::7", "fd00:1::2", ICMPV6).packet(&icmp(1, 1, &piece(0)));
    world.expect("IPv4 in ICMPv6", &plain(&mixed), Other);
    // The error itself in fragments, and behind options and tags.
    let message = icmp(3, 4, &sent.packet(&both));
    let outer = Ip::new("10.7.0.7", client, ICMP);
    let fragment = plain(&outer.fragment(0, true).packet(&message));
    world.expect("an error in fragments", &fragment, Other);
    let frame = tagged(&[(STAG, 3), (CTAG, 4)], &outer.options(10).packet(&message));
    world.expect("options and tags", &frame, Icmp);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn icmp_errors_about_tunnels_are_ours() {
    let mut world = world();
    let inner = datagram(TCP, "10.1.0.2:5", "10.100.0.1:80");
    let mut about = |what: &str, from: &str, to: &str, protocol, fate| {
        let outer = Ip::new(from, to, protocol).packet(&inner);
        about(&mut world, &[(what, outer, from, fate)]);
    };
    about(
        "from our address",
        "10.2.0.1",
        "10.2.0.21",
        IPIP,
        Fate::Icmp,
    );
    about("from a prefix", "10.9.0.200", "10.2.0.21", IPIP, Fate::Icmp);
    about("from somebody", "10.9.1.1", "10.2.0.21", IPIP, Fate::Other);
    about("of another kind", "10.2.0.1", "10.2.0.21", GRE, Fate::Other);
    about(
        "of a kind there is not",
        "10.2.0.1",
        "10.2.0.21",
        50,
        Fate::Other,
    );
    about("to another", "10.2.0.1", "10.2.0.22", IPIP, Fate::Other);
    about(
        "to a NAT backend",
        "10.2.0.1",
        "10.2.0.11",
        IPIP,
        Fate::Other,
    );
    about("IPv6", "fd00:2::1", "fd00:2::21", GRE, Fate::Icmp);
    about(
        "IPv6, from somebody",
        "fd00:9::1",
        "fd00:2::21",
        GRE,
        Fate::Other,
    );
    let mut gue = |from: &str, to: &str, fate| {
        let outer = datagram(UDP, from, to);
        let to_us = from.split(':').next().unwrap();
        self::about(&mut world, &[("GUE", outer, to_us, fate)]);
    };
    gue("10.2.0.1:50000", "10.2.0.21:6080", Fate::Icmp);
    gue("10.9.0.3:50000", "10.2.0.21:6080", Fate::Icmp);
    gue("10.2.0.1:50000", "10.2.0.21:6081", Fate::Other);
    gue("10.1.0.1:50000", "10.2.0.21:6080", Fate::Other);
}
