use std::collections::HashMap;

use ringgate_conntrack::{Secret, Timeouts};
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::route::{Exit, Fib, Link, Target};
use ringgate_dataplane::snapshot::{Builder, by_backend};

use super::*;

const FILE: &str = r#"
    [[interface]]
    name = "front"
    [[interface]]
    name = "back"
    [[service]]
    name = "web"
    listen = "10.100.0.1:80"
    protocol = "tcp"
    forward = "nat"
    table-size = 251
      [[service.backend]]
      address = "10.2.0.11:8080"
    [[service]]
    name = "lost"
    listen = "10.100.0.2:80"
    protocol = "tcp"
    forward = "nat"
      [[service.backend]]
      address = "10.77.0.1:80"
    [[service]]
    name = "mute"
    listen = "10.100.0.3:80"
    protocol = "tcp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.99:80"
    [[service]]
    name = "tagged"
    listen = "10.100.0.4:80"
    protocol = "tcp"
    forward = "nat"
    vlan = 100
      [[service.backend]]
      address = "10.2.0.11:8080"
    [[service]]
    name = "narrow"
    listen = "10.100.0.5:80"
    protocol = "tcp"
    forward = "ipip"
    tunnel = { source = "10.2.0.1" }
      [[service.backend]]
      address = "10.2.0.11"
    [[service]]
    name = "down"
    listen = "10.100.0.6:80"
    protocol = "tcp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.12:8080"
"#;

fn fib() -> Fib {
    let link = |last| Link {
        mac: Mac([2, 0, 0, 0, 9, last]),
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(vec![link(0), link(1)]);
    for (prefix, link) in [("10.1.0.0/24", 0), ("10.2.0.0/24", 1)] {
        let exit = Exit {
            link,
            gateway: None,
            mtu: None,
            source: None,
        };
        fib.insert_route(prefix.parse().unwrap(), Target::Link(exit));
    }
    fib.insert_neighbour(0, "10.1.0.2".parse().unwrap(), Mac([2, 0, 0, 0, 1, 2]));
    for host in [11, 12] {
        let address = format!("10.2.0.{host}").parse().unwrap();
        fib.insert_neighbour(1, address, Mac([2, 0, 0, 0, 2, host]));
    }
    fib
}

fn ask(parameters: &[(&str, &str)]) -> Result<Value, String> {
    let model = ringgate_config::parse("test.toml", FILE).unwrap().model;
    let down = "10.2.0.12:8080".parse().unwrap();
    let health = |_: &_, backend: &ringgate_config::Backend| match backend.address() == down {
        true => Health::Down,
        false => Health::Up,
    };
    let snapshot = Builder::default()
        .build(&model, by_backend(health), &Arc::new(fib()), false)
        .unwrap();
    let scene = Scene {
        model: &model,
        snapshot: &snapshot,
        tables: &Tables::new(64, Secret([1, 2]), Timeouts::default()).unwrap(),
        fragments: None,
        interfaces: &["front".to_owned(), "back".to_owned()],
        now: Millis(5000),
    };
    let parameters: HashMap<&str, &str> = parameters.iter().copied().collect();
    let question = Question::read(|name| parameters.get(name).map(|text| Cow::Borrowed(*text)))?;
    explain(&question, &scene)
}

fn syn<'a>(to: &'a str, more: &[(&'a str, &'a str)]) -> Value {
    let flow = [("protocol", "tcp"), ("from", "10.1.0.2:40000"), ("to", to)];
    ask(&[&flow, more].concat()).unwrap()
}

fn stage<'a>(answer: &'a Value, name: &str) -> &'a str {
    let mut steps = answer["steps"].as_array().unwrap().iter();
    let step = steps.find(|step| step["stage"] == name);
    step.unwrap_or_else(|| panic!("no {name} in {answer:#}"))["said"]
        .as_str()
        .unwrap()
}

#[test]
fn a_packet_that_is_served_is_told_stage_by_stage() {
    let answer = syn("10.100.0.1:80", &[]);
    assert_eq!(answer["verdict"], "forwarded");
    assert_eq!(answer["backend"], "10.2.0.11:8080");
    assert_eq!(
        (&answer["in"], &answer["out"]),
        (&"front".into(), &"back".into())
    );
    for (name, part) in [
        (
            "parse",
            "by front: IPv4 TCP SYN, 44 bytes, 64 hops left, no VLAN tag",
        ),
        ("service", "web: listens on tcp 10.100.0.1:80"),
        ("tables", "in neither"),
        ("choice", "of 251 of the ring, of 1 backends"),
        ("backend", "10.2.0.11:8080 is up, weight 100, by nat"),
        (
            "hop",
            "by back from 02:00:00:00:09:01 to 02:00:00:00:02:0b, MTU 1500, no VLAN tag",
        ),
        ("rewrite", "sent to 10.2.0.11:8080 instead, one hop less"),
        ("verdict", "forwarded by back"),
    ] {
        let said = stage(&answer, name);
        assert!(said.contains(part), "{name}: {said}");
    }
    let layers = answer["after"]["layers"].as_array().unwrap();
    let said: Vec<&str> = layers
        .iter()
        .map(|one| one["said"].as_str().unwrap())
        .collect();
    assert_eq!(said.len(), 3);
    assert!(said[1].contains("10.1.0.2 > 10.2.0.11, ttl 63") && said[1].contains("checksum right"));
    assert!(said[2].contains("40000 > 8080, SYN") && said[2].contains("checksum right"));
}

#[test]
fn what_does_not_forward_says_why_and_what_to_do() {
    for (to, more, reason, name, part) in [
        (
            "10.100.0.2:80",
            &[][..],
            "no_route",
            "refused",
            "no route to 10.77.0.1",
        ),
        (
            "10.100.0.3:80",
            &[],
            "no_neighbour",
            "refused",
            "next hop 10.2.0.99 is not known",
        ),
        (
            "10.100.0.4:80",
            &[],
            "wrong_vlan",
            "refused",
            "it came with no VLAN tag, and the service is in VLAN 100",
        ),
        (
            "10.100.0.4:80",
            &[("vlan", "200")],
            "wrong_vlan",
            "refused",
            "it came with VLAN 200",
        ),
        (
            "10.100.0.6:80",
            &[],
            "no_backend",
            "choice",
            "no backend takes new flows: 10.2.0.12:8080 is down",
        ),
        (
            "10.100.0.1:81",
            &[],
            "not_for_us",
            "service",
            "on this address there is tcp 10.100.0.1:80",
        ),
        (
            "10.100.0.9:80",
            &[],
            "not_for_us",
            "service",
            "none listens on 10.100.0.9:80",
        ),
    ] {
        let answer = syn(to, more);
        assert_eq!(answer["verdict"], "dropped", "{to}: {answer:#}");
        assert_eq!(answer["reason"], reason);
        let said = stage(&answer, name);
        assert!(said.contains(part), "{to}: {said}");
        assert!(stage(&answer, "verdict").contains(reason));
        assert!(answer["after"].is_null() && answer["cure"].is_string());
    }
}

#[test]
fn a_packet_that_does_not_fit_is_answered_with_what_would() {
    let answer = syn("10.100.0.5:80", &[("size", "1500"), ("open", "true")]);
    assert_eq!(answer["verdict"], "answered");
    assert!(stage(&answer, "refused").contains("1500 bytes, and 1480 would fit"));
    let layers = answer["after"]["layers"].as_array().unwrap();
    let said = layers
        .iter()
        .any(|one| one["said"].as_str().unwrap().contains("MTU 1480"));
    assert!(said, "{layers:?}");
    // What fits goes in another.
    let fits = syn("10.100.0.5:80", &[("size", "1480"), ("open", "true")]);
    assert_eq!(
        (&fits["verdict"], &fits["after"]["length"]),
        (&"forwarded".into(), &1514.into())
    );
    let names: Vec<&str> = fits["after"]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Ethernet", "IPv4", "IPv4", "TCP", "data"]);
}

#[test]
fn a_packet_in_its_services_vlan_is_served() {
    let answer = syn("10.100.0.4:80", &[("vlan", "100")]);
    assert_eq!(answer["verdict"], "forwarded");
    assert!(stage(&answer, "parse").contains("VLAN 100"));
    assert_eq!(answer["before"]["layers"][1]["name"], "VLAN");
}

#[test]
fn an_operators_own_packet_is_taken_as_it_is() {
    let hex = syn("10.100.0.1:80", &[])["before"]["hex"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = ask(&[("frame", &hex)]).unwrap();
    assert_eq!(
        (&answer["verdict"], &answer["backend"]),
        (&"forwarded".into(), &"10.2.0.11:8080".into())
    );
    assert_eq!(answer["before"]["hex"], *hex);
    let garbage = ask(&[("frame", "02:00 00:00 00:01 02:00 00:00 00:02 12:34")]).unwrap();
    assert_eq!(
        (&garbage["verdict"], &garbage["reason"]),
        (&"dropped".into(), &"not_ip".into())
    );
    let mistakes: [(&[(&str, &str)], &str); 7] = [
        (&[("frame", "0g")], "hexadecimal"),
        (&[("frame", "000")], "whole bytes"),
        (
            &[("frame", "00"), ("interface", "side")],
            "there are front, back",
        ),
        (&[], "protocol must be tcp or udp"),
        (&[("protocol", "tcp"), ("from", "x")], "from must be"),
        (&[("frame", "00"), ("vlan", "1,2,3")], "vlan must be"),
        (
            &[
                ("protocol", "udp"),
                ("from", "[::2]:1"),
                ("to", "10.1.0.1:1"),
            ],
            "one IP version",
        ),
    ];
    for (parameters, part) in mistakes {
        let error = ask(parameters).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_backends_check_is_named_with_its_path() {
    assert_eq!(
        syn("10.100.0.1:80", &[])["check"],
        Value::Null,
        "none is configured"
    );
    let checked = |from: &str, to: &str| {
        let text = "[[interface]]\nname = \"front\"\n[[service]]\nname = \"web\"\nlisten = \"10.100.0.1:80\"\n\
            protocol = \"tcp\"\nforward = \"ipip\"\nhealth = { kind = \"tcp\", interval = \"2s\" }\n\
            [[service.backend]]\naddress = \"10.2.0.11\"\n";
        let model = ringgate_config::parse("test.toml", &text.replace(from, to))
            .unwrap()
            .model;
        check_of(
            &serde_json::json!({ "service": "web", "backend": "10.2.0.11:80" }),
            &model,
        )
    };
    let told = |kind: &str, via: &str, asked: &str| serde_json::json!({ "kind": kind, "interval_ms": 2000, "via": via, "asked": asked });
    let (by_service, by_backend) = ("10.100.0.1:80", "10.2.0.11:80");
    assert_eq!(checked("", ""), told("tcp", "backend", by_backend));
    let (plain, by_path) = ("\"2s\"", "\"2s\", via = \"service\"");
    assert_eq!(checked(plain, by_path), told("tcp", "service", by_service));
    assert_eq!(
        checked("\"10.2.0.11\"\n", "\"10.2.0.11\"\ndisabled = true\n"),
        Value::Null
    );
}
