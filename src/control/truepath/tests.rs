//! Which checks take a path of their own, and what becomes of packets, without a device.

use std::sync::Arc;

use ringgate_dataplane::backend::Health as Known;
use ringgate_dataplane::route::{Link, Target};
use ringgate_dataplane::snapshot::{Builder, identities_of};
use ringgate_dataplane::wire::ethernet::Mac;

use super::*;
use crate::control::clock;

/// A service by each mode, with these keys of `health`.
fn model(health: &str) -> Model {
    let mut text = "[[interface]]\nname = \"back\"\n".to_owned();
    for (last, mode) in (1..).zip(["nat", "full-nat", "dsr-l2", "ipip", "gue", "gre"]) {
        let sources = "[balancer]\nnat-sources = [\"10.2.0.254\"]\n";
        if mode == "full-nat" {
            text.insert_str(0, sources);
        }
        text += &format!(
            "[[service]]\nname = \"{mode}\"\nlisten = \"10.100.0.{last}:80-89\"\nprotocol = \"tcp\"\nforward = \"{mode}\"\n\
             health = {{ kind = \"tcp\", {health} }}\n[[service.backend]]\naddress = \"10.2.0.{last}\"\n"
        );
    }
    ringgate_config::parse("test.toml", &text).unwrap().model
}

fn paths(model: &Model) -> Vec<Option<String>> {
    let specs = super::super::checks::specs(model);
    specs
        .map(|spec| spec.path.map(|path| path.asked.to_string()))
        .collect()
}

#[test]
fn only_what_is_sent_otherwise_than_to_the_backend_itself_takes_a_path() {
    let by_service = model("via = \"service\", port = 81");
    let [a, b, c, d] = ["3:81", "4:81", "5:81", "6:81"].map(|end| Some(format!("10.100.0.{end}")));
    assert_eq!(paths(&by_service), [None, None, a, b, c, d]);
    let by_backend = model("port = 81");
    assert_eq!(paths(&by_backend), vec![None; 6]);
    assert!(is_wanted(&by_service) && !is_wanted(&by_backend));
}

/// The path to a backend that is there, and the snapshot that has it.
fn world(model: &Model) -> (Path, Builder, Snapshot) {
    let mut fib = Fib::new(vec![Link {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
    }]);
    let target = Target::Port {
        port: 0,
        gateway: None,
    };
    fib.insert_route("10.2.0.0/24".parse().unwrap(), target);
    fib.insert_neighbour(0, "10.2.0.3".parse().unwrap(), Mac([2, 0, 0, 0, 2, 3]));
    let mut builder = Builder::default();
    let snapshot = builder.build(model, |_, _| Known::Down, &Arc::new(fib), false);
    let service = &model.services()[2];
    let path = Path {
        asked: "10.100.0.3:80".parse().unwrap(),
        backend: identities_of(service).next().unwrap(),
    };
    (path, builder, snapshot.unwrap())
}

/// A UDP packet without a checksum.
fn packet(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend([from, to].concat());
    packet.extend([port.to_be_bytes(), 80_u16.to_be_bytes()].concat());
    packet.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    let words = packet[..20].as_chunks::<2>().0.iter().copied();
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(word))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn what_is_no_checks_is_counted_and_goes_nowhere() {
    let model = model("via = \"service\", port = 80");
    let (path, builder, snapshot) = world(&model);
    let mut truepath = TruePath::new(4);
    let (own, service) = ([10, 2, 0, 254], [10, 100, 0, 3]);
    let end = End {
        protocol: 17,
        own: (own, 1000).into(),
    };
    let caller = truepath.callers.insert(end, path).unwrap();
    let scene = Scene {
        snapshot: &snapshot,
        ids: &|backend| builder.id_of(backend),
        // What is carried is not sent, and counted as that.
        ifindex: &|_| None,
        now: clock::now(),
    };
    let good = packet(own, service, 1000);
    for (packet, counts) in [
        (good.clone(), [1, 0, 0]),
        (packet(own, service, 1001), [1, 1, 0]),
        (packet(own, [10, 100, 0, 4], 1000), [1, 2, 0]),
        (packet([10, 2, 0, 253], service, 1000), [1, 3, 0]),
        (vec![], [1, 3, 1]),
        (vec![0x60; 48], [1, 3, 2]),
        (good[..30].to_vec(), [1, 3, 3]),
        (vec![0xff; LONGEST], [1, 3, 4]),
    ] {
        assert_eq!(truepath.carry(&packet, &scene), Carried::Over);
        let Counters {
            sent,
            strays,
            unsent,
            dropped,
        } = &truepath.counters;
        assert_eq!(
            [*unsent, *strays, dropped.iter().sum()],
            counts,
            "{packet:?}"
        );
        assert_eq!(*sent, 0);
    }
    // Once given back it is nobody's.
    truepath.release([caller]);
    truepath.callers.settle();
    assert_eq!(truepath.carry(&good, &scene), Carried::Over);
    assert_eq!(truepath.counters.strays, 4);
}

#[test]
fn without_a_device_no_check_is_begun() {
    let model = model("via = \"service\", port = 80");
    let (path, ..) = world(&model);
    let mut truepath = TruePath::new(4);
    let refused = truepath.socket(&Check::Tcp, &path, &Fib::default(), false);
    assert_eq!(refused.unwrap_err(), Errno::NODEV);
    assert!(truepath.descriptor().is_none() && !truepath.has(0));
    assert_eq!(truepath.callers.len(), 0);
}
