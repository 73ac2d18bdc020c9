//! Clients in one VLAN, backends in a customer's VLAN within a provider's: frame in to frame out.

use std::sync::Arc;

use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::route::{Exit, Fib, Link, Target};
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::wire::vlan::{TPID_CUSTOMER, TPID_SERVICE, Tag, Tags};

use super::frames::{expect, routed, udp};
use super::world::{CLIENT, OWN, SERVICES, World, backend_mac};

/// Hardware address of the VLAN device on each port.
pub(crate) const DEVICE: [Mac; 2] = [Mac([2, 0, 0, 0, 9, 100]), Mac([2, 0, 0, 0, 9, 20])];

fn tag(tpid: u16, tci: u16) -> Tag {
    Tag { tpid, tci }
}

pub(crate) fn clients() -> Tags {
    Tags::one(tag(TPID_CUSTOMER, 100))
}

pub(crate) fn backends() -> Tags {
    Tags::two(tag(TPID_SERVICE, 200), tag(TPID_CUSTOMER, 20))
}

pub(crate) fn tagged(frame: &[u8], tags: Tags) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, tags.to_wire()[..tags.wire_len()].iter().copied());
    tagged
}

/// The world's routes and neighbours, by VLAN devices on its ports.
pub(crate) fn fib() -> Arc<Fib> {
    let link = |mac| Link {
        mac,
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(OWN.map(link).to_vec());
    let devices = [
        fib.add_vlan(0, clients(), link(DEVICE[0])),
        fib.add_vlan(1, backends(), link(DEVICE[1])),
    ];
    for (device, prefixes) in [
        (devices[0], ["10.1.0.0/24", "fd00:1::/64"]),
        (devices[1], ["10.2.0.0/24", "fd00:2::/64"]),
    ] {
        let target = Target::Link(Exit {
            link: device,
            gateway: None,
            mtu: None,
            source: None,
        });
        prefixes
            .iter()
            .for_each(|prefix| fib.insert_route(prefix.parse().unwrap(), target));
    }
    for client in ["10.1.0.2", "fd00:1::2"] {
        fib.insert_neighbour(devices[0], client.parse().unwrap(), CLIENT);
    }
    for backend in ["10.2.0.11", "fd00:2::11"] {
        fib.insert_neighbour(devices[1], backend.parse().unwrap(), backend_mac(11));
    }
    Arc::new(fib)
}

#[test]
fn flows_cross_from_vlan_to_vlan_and_back() {
    for (client, service, backend) in [
        ("10.1.0.2:999", "10.100.0.1:53", "10.2.0.11:5353"),
        ("[fd00:1::2]:999", "[fd00:100::1]:53", "[fd00:2::11]:5353"),
    ] {
        let mut world = World::new(SERVICES, Rings::default(), false);
        world.publish_over(SERVICES, &[], &fib());
        // The client's priority, 5 and drop eligible, goes along; the backend's, none, goes back.
        let urgent = Tags::one(tag(TPID_CUSTOMER, 0xB064));
        let query = tagged(&udp(client, service, b"query"), urgent);
        let there = routed(
            udp(client, backend, b"query"),
            backend_mac(11).0,
            DEVICE[1].0,
        );
        let urgent = Tags::two(tag(TPID_SERVICE, 0xB0C8), tag(TPID_CUSTOMER, 20));
        let there = tagged(&there, urgent);
        let answer = tagged(&udp(backend, client, b"answer"), backends());
        let back = routed(udp(service, client, b"answer"), CLIENT.0, DEVICE[0].0);
        let back = tagged(&back, clients());
        let forwarded = [("0.forwarded", 1)];
        let created = [forwarded[0], ("created", 1)];
        expect(
            &mut world,
            0,
            &query,
            [vec![], vec![there.clone()]],
            &created,
        );
        // The second time it is a flow that goes on.
        for _ in 0..2 {
            expect(
                &mut world,
                1,
                &answer,
                [vec![back.clone()], vec![]],
                &[("1.forwarded", 1)],
            );
            expect(
                &mut world,
                0,
                &query,
                [vec![], vec![there.clone()]],
                &forwarded,
            );
        }
    }
}

#[test]
fn a_service_of_a_vlan_takes_no_packet_of_another() {
    let bound = "protocol = \"udp\"\n    vlan = 100";
    let file = SERVICES.replace("protocol = \"udp\"", bound);
    let mut world = World::new(&file, Rings::default(), false);
    world.publish_over(&file, &[], &fib());
    let query = udp("10.1.0.2:999", "10.100.0.1:53", b"query");
    let refuses_others = |world: &mut World| {
        for tags in [
            Tags::NONE,
            Tags::one(tag(TPID_CUSTOMER, 101)),
            Tags::two(tag(TPID_SERVICE, 100), tag(TPID_CUSTOMER, 100)),
        ] {
            let query = tagged(&query, tags);
            let moved = [("0.wrong_vlan", 1)];
            expect(world, 0, &query, [vec![], vec![]], &moved);
        }
    };
    refuses_others(&mut world);
    let there = routed(
        udp("10.1.0.2:999", "10.2.0.11:5353", b"query"),
        backend_mac(11).0,
        DEVICE[1].0,
    );
    let sent = [vec![], vec![tagged(&there, backends())]];
    let moved = [("0.forwarded", 1), ("created", 1)];
    expect(
        &mut world,
        0,
        &tagged(&query, clients()),
        sent.clone(),
        &moved,
    );
    // Nor when the flow is known.
    refuses_others(&mut world);
    let moved = [("0.forwarded", 1)];
    expect(&mut world, 0, &tagged(&query, clients()), sent, &moved);
}

#[test]
fn where_routes_name_no_vlan_tags_go_or_stay_as_the_interface_has_it() {
    for keeps in [false, true] {
        let mut fib = Fib::clone(&super::world::fib());
        if keeps {
            fib.keep_tags(1);
            // Those that are known from before are known anew.
            fib.insert_neighbour(1, "10.2.0.11".parse().unwrap(), backend_mac(11));
        }
        let mut world = World::new(SERVICES, Rings::default(), false);
        world.publish_over(SERVICES, &[], &Arc::new(fib));
        let query = tagged(&udp("10.1.0.2:999", "10.100.0.1:53", b"query"), backends());
        let there = routed(
            udp("10.1.0.2:999", "10.2.0.11:5353", b"query"),
            backend_mac(11).0,
            OWN[1].0,
        );
        let there = tagged(&there, if keeps { backends() } else { Tags::NONE });
        let moved = [("0.forwarded", 1), ("created", 1)];
        expect(&mut world, 0, &query, [vec![], vec![there]], &moved);
    }
}
