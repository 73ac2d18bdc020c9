//! Packets with ports: services, tags, replies.

use super::*;

#[test]
#[ignore = "needs CAP_BPF"]
fn services_are_addresses_prefixes_and_ports() {
    let mut world = world();
    let mut to = |to: &str, fate| {
        let from = if to.starts_with('[') {
            "[fd00:1::2]:5"
        } else {
            "10.1.0.2:5"
        };
        world.expect(to, &plain(&datagram(TCP, from, to)), fate);
        world.expect(to, &plain(&datagram(UDP, from, to)), Fate::Other);
    };
    to("10.100.0.1:80", Fate::Service);
    to("10.100.0.1:81", Fate::Other);
    to("10.100.0.2:80", Fate::Other);
    to("[fd00:100::1]:80", Fate::Service);
    to("[fd00:100::1]:0", Fate::Other);
    to("10.100.1.0:443", Fate::Service);
    to("10.100.1.1:442", Fate::Other);
    to("10.100.1.127:8000", Fate::Other);
    to("10.100.0.255:443", Fate::Other);
    to("10.100.2.0:443", Fate::Other);
    // Within the longer prefix: its own ports, and those of the shorter.
    to("10.100.1.128:8000", Fate::Service);
    to("10.100.1.255:8100", Fate::Service);
    to("10.100.1.255:8101", Fate::Other);
    to("10.100.1.255:7999", Fate::Other);
    to("10.100.1.255:443", Fate::Service);
    to("[fd00:101::9]:0", Fate::Service);
    to("[fd00:101:0:0:ffff:ffff:ffff:ffff]:65535", Fate::Service);
    to("[fd00:101:0:1::]:80", Fate::Other);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn a_prefix_of_everything_keeps_to_its_family() {
    let mut world = world();
    world.tell(Steered {
        services: vec![service("::/0", range(0, 65_535))],
        ..Steered::default()
    });
    let v4 = plain(&datagram(TCP, "10.1.0.2:5", "10.100.0.1:80"));
    world.expect("IPv4", &v4, Fate::Other);
    let v6 = plain(&datagram(TCP, "[fd00:1::2]:5", "[fd00:77::1]:80"));
    world.expect("IPv6", &v6, Fate::Service);
    world.tell(Steered {
        services: vec![service("0.0.0.0/0", range(0, 65_535))],
        ..Steered::default()
    });
    world.expect("IPv4", &v4, Fate::Service);
    world.expect("IPv6", &v6, Fate::Other);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn tags_are_skipped_and_may_be_asked_for() {
    let mut world = world();
    let mut to = |to: &str, tags: &[(u16, u16)], fate| {
        let frame = tagged(tags, &datagram(TCP, "10.1.0.2:5", to));
        world.expect(&format!("{to} with {tags:?}"), &frame, fate);
    };
    let any = "10.100.0.1:80";
    to(any, &[(CTAG, 5)], Fate::Service);
    to(any, &[(STAG, 0xFFFF)], Fate::Service);
    to(any, &[(OLD, 5), (CTAG, 1)], Fate::Service);
    to(any, &[(0x9200, 5)], Fate::Other);
    to(any, &[(STAG, 7), (CTAG, 5)], Fate::Service);
    to(any, &[(CTAG, 7), (CTAG, 6), (CTAG, 5)], Fate::Other);
    let one = "10.100.2.1:80";
    // Priority and drop eligibility are no part of the number.
    to(one, &[(CTAG, 0xF000 | 100)], Fate::Service);
    to(one, &[(STAG, 100)], Fate::Service);
    to(one, &[], Fate::Vlan);
    to(one, &[(CTAG, 101)], Fate::Vlan);
    to(one, &[(CTAG, 100), (CTAG, 100)], Fate::Vlan);
    let two = "10.100.2.1:95";
    to(two, &[(STAG, 200), (CTAG, 100)], Fate::Service);
    to(two, &[(CTAG, 100), (STAG, 200)], Fate::Vlan);
    to(two, &[(CTAG, 100)], Fate::Vlan);
    to(two, &[], Fate::Vlan);
    to("10.100.2.1:96", &[(CTAG, 200), (CTAG, 100)], Fate::Service);
    to("10.100.2.1:81", &[], Fate::Other);
}

#[test]
#[ignore = "needs CAP_BPF"]
fn replies_return_and_answers_to_checks_do_not() {
    let mut world = world();
    let mut try_one = |from: &str, to: &str, fate| {
        let frame = plain(&datagram(TCP, from, to));
        world.expect(&format!("{from} to {to}"), &frame, fate);
    };
    try_one("10.2.0.11:8080", "10.1.0.2:5", Fate::Return);
    try_one("10.2.0.11:8081", "10.1.0.2:5", Fate::Other);
    try_one("[fd00:2::11]:8080", "[fd00:1::2]:5", Fate::Return);
    // To ourselves, even where full-nat has its ports: it is no full-nat backend.
    try_one("10.2.0.11:8080", "10.2.0.1:40000", Fate::Other);
    try_one("10.2.0.11:8080", "10.2.0.2:2000", Fate::Other);
    try_one("[fd00:2::11]:8080", "[fd00:2::1]:40000", Fate::Other);
    try_one("10.2.0.12:8000", "10.1.0.2:5", Fate::Return);
    try_one("10.2.0.12:8063", "10.1.0.2:5", Fate::Return);
    try_one("10.2.0.12:8100", "10.1.0.2:5", Fate::Return);
    try_one("10.2.0.12:7999", "10.1.0.2:5", Fate::Other);
    try_one("10.2.0.12:8101", "10.1.0.2:5", Fate::Other);
    try_one("10.2.0.12:8000", "10.2.0.1:40000", Fate::Other);
    // Full-nat: to what it takes as source, and to nothing else.
    try_one("10.2.0.13:8080", "10.2.0.2:1024", Fate::Return);
    try_one("10.2.0.13:8080", "10.2.0.2:32767", Fate::Return);
    try_one("10.2.0.13:8080", "10.2.0.2:1023", Fate::Other);
    try_one("10.2.0.13:8080", "10.2.0.2:32768", Fate::Other);
    try_one("10.2.0.13:8080", "10.2.0.1:2000", Fate::Other);
    try_one("10.2.0.13:8080", "10.1.0.2:2000", Fate::Other);
    try_one("[fd00:2::13]:1", "[fd00:2::2]:2000", Fate::Return);
    try_one("[fd00:2::13]:0", "[fd00:2::2]:2000", Fate::Other);
    // The end of a tunnel sends nothing through the balancer.
    let gue = plain(&datagram(UDP, "10.2.0.21:6080", "10.1.0.2:2000"));
    world.expect("from a tunnel's end", &gue, Fate::Other);
    let to_us = plain(&datagram(UDP, "10.2.0.21:6080", "10.2.0.1:2000"));
    world.expect("from a tunnel's end", &to_us, Fate::Other);
}
