//! What a courier makes of a packet is what a worker makes of it, and it carries to whom no worker would.

use std::sync::Arc;

use ringgate_conntrack::FlowKey;
use ringgate_dataplane::backend::{BackendId, BackendState};
use ringgate_dataplane::courier::Courier;
use ringgate_dataplane::port::memory::Rings;
use ringgate_dataplane::snapshot::Snapshot;
use ringgate_dataplane::verdict::DropReason;

use super::frames::udp;
use super::full_nat;
use super::messages::ETHERNET;
use super::world::{SERVICES, TUNNELS, World, fib};

/// A segment size asked for, and one clamped.
const CLAMPED: &str = r#"
    [[service]]
    name = "clamped"
    listen = "10.100.0.5:80"
    protocol = "tcp"
    forward = "ipip"
    tunnel = { source = "10.9.0.1" }
    mss-clamp = 1000
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11"
"#;

fn snapshot(world: &mut World) -> Arc<Snapshot> {
    Arc::clone(&world.worker.parts().snapshot)
}

/// The first backend of the service that a packet is for.
fn first(snapshot: &Snapshot) -> impl Fn(&FlowKey) -> Option<BackendId> {
    |key| {
        let service = snapshot.service(key.destination(), key.protocol())?;
        service.members.first().copied()
    }
}

#[test]
fn what_it_makes_of_a_packet_is_what_a_worker_makes_of_it() {
    let file = [SERVICES, TUNNELS, CLAMPED].concat();
    let mut world = World::new(&file, Rings::default(), false);
    let mut courier = Courier::default();
    let (syn, ack) = (Some(2), Some(16));
    let frames = [
        full_nat::frame("10.1.0.2:7", "10.100.0.2:80", syn),
        full_nat::frame("10.1.0.2:7", "10.100.0.2:80", ack),
        udp("[fd00:1::2]:9", "[fd00:100::2]:53", b"query"),
        udp("10.1.0.2:9", "10.100.0.3:80", b"query"),
        udp("10.1.0.2:9", "10.100.0.4:80", b"query"),
        udp("[fd00:1::2]:9", "[fd00:100::3]:80", b"query"),
        udp("[fd00:1::2]:9", "[fd00:100::4]:80", b"query"),
        full_nat::frame("10.1.0.2:7", "10.100.0.5:80", syn),
        udp("10.1.0.2:9", "10.100.0.1:53", b"query"),
    ];
    for frame in frames {
        assert!(world.port(0).inject(&frame));
        assert_eq!(world.worker.turn(), 1);
        let sent = world.sent();
        let snapshot = snapshot(&mut world);
        // Either backend may be the flow's.
        let members = |key: &FlowKey| {
            let service = snapshot.service(key.destination(), key.protocol());
            service.unwrap().members.clone()
        };
        let mut carried = Vec::new();
        for nth in 0..2 {
            let whom = |key: &FlowKey| members(key).get(nth).copied();
            let result = courier.carry(&frame[ETHERNET..], &snapshot, whom, |port, bytes| {
                assert_eq!(port, 1, "where the backends are");
                carried.push(bytes.to_vec());
            });
            assert!(result.is_ok() || nth == 1, "{result:?}");
        }
        let [front, back] = sent;
        assert_eq!((front.len(), back.len()), (0, 1));
        assert!(carried.contains(&back[0]), "{back:?} {carried:?}");
    }
}

#[test]
fn it_carries_to_who_is_down_and_to_nobody_who_is_gone() {
    let file = [SERVICES, TUNNELS].concat();
    let mut world = World::new(&file, Rings::default(), false);
    let mut courier = Courier::default();
    let down = ["10.2.0.11:80".parse().unwrap()];
    world.publish(&file, &down);
    world.worker.turn();
    let down = snapshot(&mut world);
    let packet = &udp("10.1.0.2:9", "10.100.0.3:80", b"query")[ETHERNET..];
    let mut whom = None;
    let mut sent = 0;
    let known = first(&down);
    let known = |key: &FlowKey| {
        whom = known(key);
        whom
    };
    assert_eq!(
        courier.carry(packet, &down, known, |_, _| sent += 1),
        Ok(())
    );
    let state = down.backend(whom.unwrap()).unwrap().state;
    assert_eq!((sent, state), (1, BackendState::Down));

    // Another configuration no longer has it.
    world.publish(SERVICES, &[]);
    world.worker.turn();
    let gone = snapshot(&mut world);
    let refused = courier.carry(packet, &gone, |_| whom, |_, _| sent += 1);
    assert_eq!(refused.unwrap_err().reason, DropReason::NotForUs);
    let refused = courier.carry(packet, &gone, |_| None, |_, _| sent += 1);
    assert_eq!(refused.unwrap_err().reason, DropReason::NotForUs);
    assert_eq!(sent, 1);
}

#[test]
fn what_cannot_be_carried_is_refused_for_a_reason_and_nothing_is_lost_by_it() {
    let file = [SERVICES, TUNNELS].concat();
    let mut world = World::new(&file, Rings::default(), false);
    let snapshot = snapshot(&mut world);
    let mut courier = Courier::default();
    let good = udp("10.1.0.2:9", "10.100.0.3:80", b"query")[ETHERNET..].to_vec();
    let long = udp("10.1.0.2:9", "10.100.0.3:80", &[0; 1_470])[ETHERNET..].to_vec();
    for (packet, reason) in [
        (vec![], DropReason::NotIp),
        (vec![0x55; 40], DropReason::NotIp),
        (good[..19].to_vec(), DropReason::Truncated),
        (good[..27].to_vec(), DropReason::BadLength),
        (vec![0x60; 39], DropReason::Truncated),
        (long, DropReason::TooBig),
        (vec![0x45; 9_000], DropReason::TooBig),
    ] {
        let refused = courier.carry(&packet, &snapshot, first(&snapshot), |_, _| unreachable!());
        assert_eq!(refused.unwrap_err().reason, reason, "{packet:?}");
    }
    // Cut off anywhere, and with any bit wrong, it is refused or carried, and the next one is carried.
    let mut carried = 0;
    for at in 0..good.len() * 8 {
        let mut wrong = good.clone();
        wrong[at / 8] ^= 1 << (at % 8);
        let _either = courier.carry(&wrong, &snapshot, first(&snapshot), |_, _| {});
        let _either = courier.carry(&good[..at / 8], &snapshot, first(&snapshot), |_, _| {});
        let sent = courier.carry(&good, &snapshot, first(&snapshot), |_, _| carried += 1);
        assert_eq!(sent, Ok(()));
    }
    assert_eq!(carried, good.len() * 8);
    // A neighbour that is not known is to be asked for.
    let mut nobody = (*fib()).clone();
    nobody.insert_route(
        "10.2.0.0/24".parse().unwrap(),
        ringgate_dataplane::route::Target::Port {
            port: 1,
            gateway: Some("10.2.0.254".parse().unwrap()),
        },
    );
    world.publish_over(&file, &[], &Arc::new(nobody));
    world.worker.turn();
    let snapshot = Arc::clone(&world.worker.parts().snapshot);
    let refused = courier.carry(&good, &snapshot, first(&snapshot), |_, _| unreachable!());
    let refused = refused.unwrap_err();
    assert_eq!(refused.reason, DropReason::NoNeighbour);
    assert!(refused.wanted.is_some());
}
