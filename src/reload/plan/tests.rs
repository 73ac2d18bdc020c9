use std::sync::Arc;

use ringgate_dataplane::backend::Health;
use ringgate_dataplane::route::Fib;
use ringgate_dataplane::snapshot::Builder;

use super::*;

const INTERFACE: &str = "[[interface]]\nname = \"eth0\"\n";

fn model(text: &str) -> Model {
    ringgate_config::parse("test.toml", text).unwrap().model
}

fn service(port: u16, keys: &str, backends: &[(u8, &str)]) -> String {
    let head = format!(
        "[[service]]\nname = \"s{port}\"\nlisten = \"10.100.0.1:{port}\"\nprotocol = \"tcp\"\n\
         forward = \"nat\"\ntable-size = 1009\n{keys}\n"
    );
    let backends = backends.iter().map(|(host, keys)| {
        format!("[[service.backend]]\naddress = \"10.2.0.{host}:8080\"\n{keys}\n")
    });
    head + &backends.collect::<String>()
}

/// The plan of a change, of a balancer that runs with `flows` of each member of the old one, or of none.
fn plan(old: &str, new: &str, flows: Option<u64>) -> Plan {
    let (old, new) = (
        model(&format!("{INTERFACE}{old}")),
        model(&format!("{INTERFACE}{new}")),
    );
    let mut builder = Builder::default();
    let up = |_: &Service, _: usize| Health::Up;
    let before = builder
        .build(&old, up, &Arc::new(Fib::default()), false)
        .unwrap();
    let after = builder.foresee(&new, up);
    let each = |_| flows.unwrap_or_default();
    let change = Change {
        old: &old,
        new: &new,
        before: &before,
        after: &after,
        flows: flows
            .is_some()
            .then_some(&each as &dyn Fn(BackendId) -> u64),
    };
    Plan::of(&change, Vec::new())
}

fn text(plan: &Plan) -> String {
    plan.warnings().join("\n")
}

const THREE: [(u8, &str); 3] = [(1, ""), (2, ""), (3, "")];

#[test]
fn nothing_changes_nothing() {
    let text = service(80, "", &THREE);
    let plan = plan(&text, &format!("# A word.\n{text}"), Some(9));
    let answer = plan.to_json();
    assert_eq!(answer["same"], true);
    assert_eq!((plan.actions(), &answer["services"]), (0, &json!([])));
    assert!(plan.warnings().is_empty());
}

#[test]
fn a_backend_that_goes_takes_its_slots_and_flows_along() {
    let (old, new) = (service(80, "", &THREE), service(80, "", &THREE[1..]));
    let untouched = service(81, "", &THREE);
    let (old, new) = (old + &untouched, new + &untouched);
    let known = plan(&old, &new, Some(7));
    let answer = known.to_json();
    assert_eq!(answer["actions_total"], 1);
    assert_eq!(answer["actions"][0]["action"], "backend-removed");
    assert_eq!(answer["actions"][0]["backend"], "10.2.0.1:8080");
    let services = answer["services"].as_array().unwrap();
    assert_eq!(services.len(), 1, "the other one does not change");
    assert_eq!(
        (&services[0]["name"], &services[0]["change"]),
        (&json!("s80"), &json!("changed"))
    );
    assert_eq!(
        (&services[0]["flows"], &services[0]["flows_affected"]),
        (&json!(21), &json!(7))
    );
    // A third of 1,009 slots, and few besides.
    let percent = |key: &str| services[0][key].as_f64().unwrap();
    assert!((33.2..33.5).contains(&percent("gone_percent")), "{answer}");
    assert!((33.2..36.0).contains(&percent("moved_percent")), "{answer}");
    assert!(
        text(&known).contains("a backend goes with 7 flows"),
        "{known:?}"
    );
    assert!(text(&known).contains("% of its slots move"), "{known:?}");

    // Nobody runs: parts of the ring stand for flows.
    let guessed = plan(&old, &new, None);
    assert_eq!(guessed.to_json()["services"][0]["flows"], Value::Null);
    assert!(
        text(&guessed).contains("a backend goes with 33.4"),
        "{guessed:?}"
    );
    // Nothing is lost with whom nobody uses.
    assert!(!text(&plan(&old, &new, Some(0))).contains("goes"));
}

#[test]
fn whoever_is_drained_keeps_its_flows_and_who_is_disabled_does_not() {
    let old = service(80, "", &THREE);
    let drained = service(80, "", &[(1, "weight = 0"), (2, ""), (3, "")]);
    let disabled = service(80, "", &[(1, "disabled = true"), (2, ""), (3, "")]);
    let affected = |new: &str| plan(&old, new, Some(7)).to_json()["services"][0].clone();
    assert_eq!(affected(&drained)["flows_affected"], 0);
    assert_eq!(affected(&disabled)["flows_affected"], 7);
    assert_eq!(
        affected(&drained)["moved_percent"],
        affected(&disabled)["moved_percent"]
    );
    let full_nat = service(80, "", &[(1, "forward = \"full-nat\""), (2, ""), (3, "")]);
    let sources = "[balancer]\nnat-sources = [\"10.2.0.250\"]\n";
    let rewired = plan(
        &format!("{sources}{old}"),
        &format!("{sources}{full_nat}"),
        Some(7),
    );
    assert!(
        text(&rewired).contains("flows of 10.2.0.1:8080 go on in another mode"),
        "{rewired:?}"
    );
}

#[test]
fn services_that_come_go_or_end_without_anybody_are_told() {
    let plan = plan(
        &(service(80, "", &THREE) + &service(81, "", &THREE) + &service(82, "", &THREE)),
        &(service(81, "", &[]) + &service(82, "", &[(1, "weight = 0")]) + &service(83, "", &THREE)),
        Some(2),
    );
    let answer = plan.to_json();
    let told = answer["services"].as_array().unwrap().iter();
    let told: Vec<_> = told
        .map(|one| {
            (
                one["name"].as_str().unwrap(),
                one["change"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("s81", "changed"),
        ("s82", "changed"),
        ("s83", "added"),
        ("s80", "removed"),
    ];
    assert_eq!(told, expected);
    assert_eq!(answer["services"][3]["flows_affected"], 6);
    assert_eq!(answer["services"][1]["balance"], Value::Null);
    let balance = &answer["services"][2]["balance"];
    let ratio = |key: &str| balance[key].as_f64().unwrap();
    assert!(
        ratio("least") > 0.99 && ratio("greatest") < 1.01,
        "{balance}"
    );
    let warnings = text(&plan);
    for warning in [
        "service s81: ends without backends",
        "service s82: every backend is disabled or of weight 0",
        "service s80: goes with 6 flows",
    ] {
        assert!(warnings.contains(warning), "{warnings}");
    }
}

#[test]
fn many_actions_are_told_in_part() {
    let backends: Vec<(u8, &str)> = (1..=200).map(|host| (host, "")).collect();
    let changed: Vec<(u8, &str)> = (1..=200).map(|host| (host, "weight = 50")).collect();
    let file = |backends: &[(u8, &str)]| -> String {
        (80..86).map(|port| service(port, "", backends)).collect()
    };
    let plan = plan(&file(&backends), &file(&changed), None);
    let answer = plan.to_json();
    assert_eq!(
        (plan.actions(), &answer["actions_total"]),
        (1_200, &json!(1_200))
    );
    assert_eq!(answer["actions"].as_array().unwrap().len(), ACTIONS_MOST);
    let (lines, more) = plan.logged();
    assert_eq!((lines.count(), more), (LOGGED_MOST, 1_200 - LOGGED_MOST));
    // All weights halved: the rings stay as they are.
    for service in answer["services"].as_array().unwrap() {
        assert_eq!(service["moved_percent"], 0.0, "{service}");
    }
    assert_eq!(answer["services"][0]["gone_percent"], 0.0);
}
