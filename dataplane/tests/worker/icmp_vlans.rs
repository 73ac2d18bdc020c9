//! ICMP where clients and backends are in VLANs: errors and answers leave with the tags of their way.

use std::net::IpAddr;
use std::sync::Arc;

use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::route::{Fib, OwnAddress};
use ringgate_dataplane::wire::ethernet::Mac;

use super::frames::{expect, udp};
use super::messages::{ETHERNET, Ip, Macs, is_v4, message, packet};
use super::vlans::{DEVICE, backends, clients, fib, tagged};
use super::world::{CLIENT, SERVICES, TUNNELS, World, backend_mac};

/// Client, service, backend, a router, and the host's own address towards backends.
const ENDS: [[&str; 5]; 2] = [
    [
        "10.1.0.2",
        "10.100.0.1",
        "10.2.0.11",
        "198.51.100.7",
        "10.2.0.1",
    ],
    [
        "fd00:1::2",
        "fd00:100::1",
        "fd00:2::11",
        "2001:db8:7::7",
        "fd00:2::1",
    ],
];

fn at(address: &str, port: u16) -> String {
    if is_v4(address) {
        format!("{address}:{port}")
    } else {
        format!("[{address}]:{port}")
    }
}

fn front() -> Macs {
    [DEVICE[0].0, CLIENT.0]
}

fn to(host: Mac, device: usize) -> Macs {
    [host.0, DEVICE[device].0]
}

/// A world whose host has addresses of its own on the backends' side.
fn world() -> World {
    let file = [SERVICES, TUNNELS].concat();
    let mut world = World::new(&file, Rings::default(), false);
    let mut fib: Fib = Arc::unwrap_or_clone(fib());
    for [.., own] in ENDS {
        let address: IpAddr = own.parse().unwrap();
        fib.insert_address(OwnAddress {
            // The VLAN devices come after the two ports.
            link: Some(3),
            address,
            prefix_len: if is_v4(own) { 24 } else { 64 },
            scope: 0,
            secondary: false,
        });
    }
    world.publish_over(&file, &[], &Arc::new(fib));
    world
}

#[test]
fn an_error_goes_from_the_clients_vlan_to_the_backends() {
    for [client, service, backend, router, _] in ENDS {
        let mut world = world();
        let query = udp(&at(client, 999), &at(service, 53), b"query");
        assert!(world.port(0).inject(&tagged(&query, clients())));
        world.worker.turn();
        world.sent();
        let build = |macs, from: (&str, u16), destination, ttl| {
            let ends = (&*at(from.0, from.1), &*at(client, 999));
            let reply = packet(to(CLIENT, 0), 17, ends, (1, &[]), b"answer");
            let (kind, code) = if is_v4(client) { (3, 4) } else { (2, 0) };
            let ip = Ip::new(router, destination, ttl);
            message(macs, ip, (kind, code, [0, 0, 5, 0]), &reply[ETHERNET..])
        };
        let came = tagged(&build(front(), (service, 53), service, 9), clients());
        let goes = build(to(backend_mac(11), 1), (backend, 5353), backend, 8);
        expect(
            &mut world,
            0,
            &came,
            [vec![], vec![tagged(&goes, backends())]],
            &[("0.forwarded", 1), ("icmp.to_backends", 1)],
        );
    }
}

#[test]
fn answers_go_back_into_the_vlan_and_to_backends_from_the_hosts_own_address() {
    for [client, service, backend, _, own] in ENDS {
        let mut world = world();
        let (request, reply, expired) = if is_v4(client) {
            (8, 0, 11)
        } else {
            (128, 129, 3)
        };
        let asked = message(
            front(),
            Ip::new(client, service, 9),
            (request, 0, [7; 4]),
            b"ping",
        );
        let said = Ip::new(service, client, 64);
        let said = message(to(CLIENT, 0), said, (reply, 0, [7; 4]), b"ping");
        expect(
            &mut world,
            0,
            &tagged(&asked, clients()),
            [vec![tagged(&said, clients())], vec![]],
            &[("0.answered", 1), ("icmp.echo_replies", 1)],
        );
        let from = [DEVICE[1].0, backend_mac(11).0];
        let ends = (&*at(backend, 5353), &*at(client, 999));
        let answer = packet(from, 17, ends, (1, &[]), b"answer");
        let service = if is_v4(client) { 0xC0 } else { 0 };
        let ip = Ip {
            service,
            ..Ip::new(own, backend, 64)
        };
        let told = message(
            to(backend_mac(11), 1),
            ip,
            (expired, 0, [0; 4]),
            &answer[ETHERNET..],
        );
        expect(
            &mut world,
            1,
            &tagged(&answer, backends()),
            [vec![], vec![tagged(&told, backends())]],
            &[("1.answered", 1), ("icmp.time_exceeded", 1)],
        );
    }
}

#[test]
fn out_of_a_tunnel_and_into_one_tags_are_those_of_the_way() {
    let mut world = world();
    // gre46: the outer packets are IPv6, in the backends' VLAN.
    let (client, service) = ("10.1.0.2:999", "10.100.0.4:80");
    let query = packet(front(), 17, (client, service), (64, &[]), b"query");
    assert!(world.port(0).inject(&tagged(&query, clients())));
    world.worker.turn();
    let [_, back] = world.sent();
    let outer = &back[0];
    let start = ETHERNET + backends().wire_len();
    let types = [&[0; 12][..], &[0x86, 0xDD]].concat();
    assert_eq!(outer[12..start], tagged(&types, backends())[12..]);
    let macs = [DEVICE[1].0, backend_mac(11).0];
    let unreachable = Ip::new("fd00:2::1", "fd00:9::1", 64);
    let came = message(macs, unreachable, (1, 0, [0; 4]), &outer[start..]);
    let inner = packet(front(), 17, (client, service), (63, &[]), b"query");
    let ip = Ip {
        service: 0xC0,
        ..Ip::new("10.100.0.4", "10.1.0.2", 64)
    };
    let goes = message(to(CLIENT, 0), ip, (3, 1, [0; 4]), &inner[ETHERNET..]);
    expect(
        &mut world,
        1,
        &tagged(&came, backends()),
        [vec![tagged(&goes, clients())], vec![]],
        &[("1.forwarded", 1), ("icmp.from_tunnels", 1)],
    );
    let reply = packet(to(CLIENT, 0), 17, (service, client), (1, &[]), b"answer");
    let build = |ttl| {
        let ip = Ip::new("198.51.100.7", "10.100.0.4", ttl);
        message(front(), ip, (3, 4, [0, 0, 5, 0]), &reply[ETHERNET..])
    };
    assert!(world.port(0).inject(&tagged(&build(9), clients())));
    world.worker.turn();
    let [_, back] = world.sent();
    assert_eq!(back[0][..start], outer[..start]);
    assert_eq!(back[0][start + 48..], build(8)[ETHERNET..]);
    world.assert_identity();
}
