//! Where packets go, and why they go nowhere.

use super::*;
use crate::testing::{TAGGINGS, tagged};
use crate::wire::vlan::Tags;

#[test]
fn a_decision_says_where_and_how() {
    let world = World::new();
    let decision = world.send(&udp(CLIENT, "10.100.0.1:53", b"?")).unwrap();
    let backend = Endpoint::from_socket(at("10.2.0.11:53"));
    assert_eq!(decision.action, Action::ToBackend(backend));
    assert_eq!(decision.event, FlowEvent::Created);
    let hop = Hop {
        port: 1,
        destination: Mac([2, 0, 0, 0, 2, 11]),
        source: Mac([2, 0, 0, 0, 9, 1]),
        mtu: 1500,
        tags: Tags::NONE,
        keeps_tags: false,
    };
    assert_eq!(*decision.hop, hop);
    assert_eq!(
        world
            .snapshot
            .backend(decision.backend.unwrap())
            .unwrap()
            .endpoint,
        backend
    );

    let reply = world.send(&udp("10.2.0.11:53", CLIENT, b"!")).unwrap();
    assert_eq!(
        reply.action,
        Action::ToClient(Endpoint::from_socket(at("10.100.0.1:53")))
    );
    assert_eq!((reply.hop.port, reply.backend), (0, decision.backend));
    assert!(reply.is_reply() && !decision.is_reply());
}

#[test]
fn each_way_out_that_is_missing_has_its_reason_and_stores_nothing() {
    let mut world = World::new();
    let refusal = |world: &World, frame: &[u8]| world.send(frame).unwrap_err();
    assert_eq!(
        refusal(&world, &tcp(CLIENT, "10.100.0.9:80", SYN, b"")),
        DropReason::NotForUs
    );
    let mut last_hop = tcp(CLIENT, WEB, ACK, b"");
    set_ttl(&mut last_hop, 1);
    assert_eq!(refusal(&world, &last_hop), DropReason::TtlExpired);
    let mut bridged = tcp(CLIENT, "10.100.0.2:80", ACK, b"");
    set_ttl(&mut bridged, 1);
    assert!(world.send(&bridged).is_ok(), "bridging costs no hop");
    set_ttl(&mut bridged, 0);
    assert_eq!(refusal(&world, &bridged), DropReason::TtlExpired);
    let big = tcp(CLIENT, WEB, ACK, &[0; 1461]);
    assert_eq!(refusal(&world, &big), DropReason::TooBig);
    assert_eq!(
        refusal(&world, &tcp("10.2.0.11:8080", "192.0.2.7:1", ACK, b"")),
        DropReason::NoRoute
    );

    let mut fib = fib();
    fib.insert_route("10.2.0.0/24".parse().unwrap(), Target::Nowhere);
    world.fib = Arc::new(fib);
    world.publish();
    assert_eq!(
        refusal(&world, &tcp("10.1.0.2:7", WEB, ACK, b"")),
        DropReason::NoRoute
    );
    assert_eq!(world.flows(), 1, "only the bridged one");
}

#[test]
fn an_unknown_neighbour_is_asked_for() {
    let world = World::new();
    let frame = tcp("10.2.0.11:8080", "10.1.0.77:1", ACK, b"");
    let packet = parse(&frame, false).unwrap();
    let steering = Steering {
        snapshot: &world.snapshot,
        table: &world.table,
        newcomers: &world.newcomers,
        now: Seconds(1),
        ingress: 1,
    };
    let refusal = steering
        .steer(&packet, world.table.hash(&packet.key), &frame)
        .unwrap_err();
    let address = Endpoint::from_socket(at("10.1.0.77:0")).address;
    let wanted = Some(Neighbour { link: 0, address });
    assert_eq!(
        refusal,
        Refusal {
            reason: DropReason::NoNeighbour,
            wanted,
            mtu: None,
        }
    );
}

#[test]
fn a_reply_must_come_from_where_its_backend_is() {
    let world = World::new();
    let backend = world.backend_of(CLIENT, WEB, ACK);
    let forged = tcp(&backend, CLIENT, RST, b"");
    assert_eq!(world.send_from(0, &forged), Err(DropReason::WrongInterface));
    assert_eq!(world.flows(), 2);
    world.tcp(CLIENT, WEB, ACK).unwrap();
    let found = world.table.lookup(
        &parse(&tcp(CLIENT, WEB, ACK, b""), false).unwrap().key,
        world
            .table
            .hash(&parse(&tcp(CLIENT, WEB, ACK, b""), false).unwrap().key),
        Seconds(1),
    );
    assert_eq!(
        found.unwrap().state,
        State::Established,
        "the forged reset changed nothing"
    );
}

#[test]
fn a_service_of_a_vlan_begins_no_flow_from_another() {
    let mut world = World::new();
    let bound = "listen = \"10.100.0.1:53\"\n    vlan = [200, 100]";
    world.reload(&SERVICES.replace("listen = \"10.100.0.1:53\"", bound));
    let query = udp(CLIENT, "10.100.0.1:53", b"?");
    for came in TAGGINGS {
        let is_its = came.ids().eq([200, 100]);
        let sent = world.send_from(0, &tagged(&query, came));
        let expected = if is_its {
            Ok(())
        } else {
            Err(DropReason::WrongVlan)
        };
        assert_eq!(sent.map(drop), expected, "{came:?}");
        assert_eq!(world.flows(), 2 * usize::from(is_its));
    }
    // Others take what comes.
    for came in TAGGINGS {
        let sent = world.send_from(0, &tagged(&tcp(CLIENT, WEB, ACK, b""), came));
        assert_eq!(sent.map(drop), Ok(()));
    }
}

#[test]
fn a_service_is_nobodys_client() {
    let world = World::new();
    let frame = udp("10.100.0.1:53", "10.100.0.1:53", b"");
    assert!(parse(&frame, false).is_err(), "itself: refused by parsing");
    assert_eq!(
        world.tcp("10.100.0.3:80", WEB, SYN),
        Err(DropReason::BadSource)
    );
}

#[test]
fn direct_return_needs_the_backend_on_a_link() {
    let mut world = World::new();
    let mut fib = fib();
    let gateway = Target::Port {
        port: 1,
        gateway: Some([10, 2, 0, 13].into()),
    };
    fib.insert_route("10.2.0.0/24".parse().unwrap(), gateway);
    world.fib = Arc::new(fib);
    world.publish();
    assert!(
        world.tcp(CLIENT, WEB, SYN).is_ok(),
        "nat goes through a router"
    );
    assert_eq!(
        world.tcp(CLIENT, "10.100.0.2:80", SYN),
        Err(DropReason::NoRoute)
    );
}

#[test]
fn a_packet_that_is_refused_leaves_its_flow_as_it_was() {
    let world = World::new();
    world.tcp(CLIENT, WEB, ACK).unwrap();
    world.tcp(CLIENT, WEB, ACK).unwrap();
    let mut reset = tcp(CLIENT, WEB, RST, b"");
    set_ttl(&mut reset, 1);
    assert_eq!(world.send(&reset), Err(DropReason::TtlExpired));
    let key = parse(&reset, false).unwrap().key;
    let found = world
        .table
        .lookup(&key, world.table.hash(&key), Seconds(1))
        .unwrap();
    assert_eq!(found.state, State::Established);
}
