use super::facts::InterfaceFacts;
use super::*;
use crate::offload::Offloads;
use crate::sources::SourceFacts;

const FILE: &str = "[[interface]]\nname = \"front\"\n[[interface]]\nname = \"back\"\n";

fn model(text: &str) -> Model {
    ringgate_config::parse("test.toml", text).unwrap().model
}

fn interface(name: &str, queues: u16) -> Option<InterfaceFacts> {
    Some(InterfaceFacts {
        name: name.to_owned(),
        kind: "veth".to_owned(),
        up: true,
        mtu: 1500,
        rx_queues: queues,
        tx_queues: queues,
        vlan_devices: Vec::new(),
        offloads: Offloads {
            takes_vlan_tags: true,
            ..Offloads::default()
        },
        has_program: false,
        rp_filter: 0,
    })
}

fn facts() -> Facts {
    Facts {
        kernel: "6.18.44".to_owned(),
        missing_capabilities: Vec::new(),
        exact_maps: true,
        af_xdp: Ok(()),
        io_uring: Ok("works".to_owned()),
        cores: vec![0, 1],
        interfaces: vec![interface("front", 2), interface("back", 2)],
        sources: SourceFacts::default(),
        descriptors: descriptors::Limits {
            soft: Some(1_024),
            hard: Some(524_288),
        },
        forwards: false,
        tun: Ok(()),
        account: Ok(()),
    }
}

/// The findings that are not good, each with its cure.
fn troubles(text: &str, facts: &Facts) -> Vec<(Level, String)> {
    let findings = judge(Some(&model(text)), facts, &[]);
    for finding in &findings {
        assert_eq!(
            finding.level == Level::Good,
            finding.cure.is_empty() && finding.expected.is_empty(),
            "{finding}"
        );
    }
    let bad = findings
        .into_iter()
        .filter(|finding| finding.level != Level::Good);
    bad.map(|finding| (finding.level, finding.subject))
        .collect()
}

#[test]
fn a_fit_host_has_no_troubles_and_a_worker_for_each_queue() {
    assert_eq!(troubles(FILE, &facts()), []);
    assert_eq!(workers(&model(FILE), &facts()), 2);
}

#[test]
fn each_trouble_is_found_by_its_name() {
    type Change = fn(&mut Facts);
    let cases: [(&str, Level, Change); 18] = [
        ("kernel", Level::Refusal, |f| {
            f.kernel = "5.10.0-33-amd64".to_owned()
        }),
        ("kernel", Level::Refusal, |f| {
            f.kernel = "mystery".to_owned()
        }),
        ("privileges", Level::Refusal, |f| {
            f.missing_capabilities = vec!["CAP_BPF"]
        }),
        ("flow table", Level::Warning, |f| f.exact_maps = false),
        ("process", Level::Refusal, |f| {
            f.account = Err("nobody".to_owned())
        }),
        ("AF_XDP", Level::Refusal, |f| {
            f.af_xdp = Err("no".to_owned())
        }),
        ("io_uring", Level::Warning, |f| {
            f.io_uring = Err("EPERM".to_owned())
        }),
        ("interface back", Level::Refusal, |f| f.interfaces[1] = None),
        ("interface back", Level::Warning, |f| {
            f.interfaces[1].iter_mut().for_each(|i| i.up = false);
        }),
        ("interface front", Level::Refusal, |f| {
            f.interfaces[0].iter_mut().for_each(|i| i.mtu = 9000);
        }),
        ("queues of back", Level::Refusal, |f| {
            f.interfaces[1] = interface("back", 1)
        }),
        ("queues of front", Level::Refusal, |f| {
            f.interfaces[1] = interface("back", 4)
        }),
        ("queues of back", Level::Refusal, |f| {
            f.interfaces[1].iter_mut().for_each(|i| i.tx_queues = 1);
        }),
        ("cores", Level::Warning, |f| f.cores = vec![0]),
        ("interface back", Level::Warning, |f| {
            f.interfaces[1]
                .iter_mut()
                .for_each(|i| i.has_program = true);
        }),
        ("interface back", Level::Warning, |f| {
            f.interfaces[1]
                .iter_mut()
                .for_each(|i| i.offloads.lro = true);
        }),
        ("interface back", Level::Warning, |f| {
            f.interfaces[1]
                .iter_mut()
                .for_each(|i| i.offloads.rules = 2);
        }),
        ("interface front", Level::Warning, |f| {
            f.interfaces[0].iter_mut().for_each(|i| i.up = false);
        }),
    ];
    for (subject, level, change) in cases {
        let mut facts = facts();
        change(&mut facts);
        let found = troubles(FILE, &facts);
        assert!(
            found.contains(&(level, subject.to_owned())),
            "{subject}: {found:?}"
        );
    }
}

#[test]
fn what_the_file_asks_for_is_judged_too() {
    let with = |line: &str| format!("[balancer]\n{line}\n{FILE}");
    let refusal = |subject: &str| (Level::Refusal, subject.to_owned());
    assert!(troubles(&with("cores = [0, 5]"), &facts()).contains(&refusal("cores")));
    assert!(troubles(&with("workers = 1"), &facts()).contains(&refusal("queues of front")));
    assert!(troubles(&with("workers = 65"), &facts()).contains(&refusal("workers")));
    let generic = FILE.replacen(
        "name = \"front\"",
        "name = \"front\"\nmode = \"generic\"",
        1,
    );
    let warning = (Level::Warning, "interface front".to_owned());
    assert!(troubles(&generic, &facts()).contains(&warning));
}

#[test]
fn tags_that_xdp_does_not_see_are_warned_of_where_there_are_vlans() {
    let warning = (Level::Warning, "interface front".to_owned());
    let with = |kind: &str, takes_vlan_tags, vlan: &str| {
        let mut facts = facts();
        facts.interfaces[0].iter_mut().for_each(|interface| {
            kind.clone_into(&mut interface.kind);
            interface.offloads.takes_vlan_tags = takes_vlan_tags;
            interface.vlan_devices = vlan.split_whitespace().map(str::to_owned).collect();
        });
        troubles(FILE, &facts)
    };
    assert_eq!(with("", true, "front.100"), std::slice::from_ref(&warning));
    assert_eq!(with("", false, "front.100"), []);
    assert_eq!(with("", true, ""), []);
    assert_eq!(
        with("veth", false, "front.100"),
        [warning],
        "the peer's doing"
    );
}

#[test]
fn services_that_ask_for_tags_need_them_even_without_vlan_devices() {
    let service = "[[service]]\nname = \"a\"\nlisten = \"10.100.0.1:80\"\nprotocol = \"tcp\"\n\
                   forward = \"nat\"\nvlan = 100\n";
    let mut facts = facts();
    for interface in facts.interfaces.iter_mut().flatten() {
        interface.kind.clear();
    }
    let warned = troubles(&format!("{FILE}{service}"), &facts);
    let warning = |name: &str| (Level::Warning, format!("interface {name}"));
    assert_eq!(warned, [warning("front"), warning("back")]);
    assert_eq!(troubles(FILE, &facts), []);
}

#[test]
fn merged_packets_are_warned_of_where_the_program_would_see_them() {
    let mut facts = facts();
    for interface in facts.interfaces.iter_mut().flatten() {
        interface.kind.clear();
        interface.offloads.gro = true;
    }
    assert_eq!(troubles(FILE, &facts), [], "native XDP comes before GRO");
    let generic = FILE.replacen(
        "name = \"front\"",
        "name = \"front\"\nmode = \"generic\"",
        1,
    );
    let warning = (Level::Warning, "interface front".to_owned());
    assert_eq!(troubles(&generic, &facts), [warning]);
}

#[test]
fn a_running_balancers_own_program_is_no_trouble_and_settings_that_do_not_matter_are_said_not_to() {
    let mut facts = facts();
    facts.forwards = true;
    for interface in facts.interfaces.iter_mut().flatten() {
        interface.has_program = true;
        interface.rp_filter = 1;
    }
    let ours = ["front".to_owned(), "back".to_owned()];
    let findings = judge(Some(&model(FILE)), &facts, &ours);
    assert!(findings.iter().all(|finding| finding.level == Level::Good));
    for (subject, word) in [("ip_forward", "on;"), ("rp_filter", "front, back")] {
        let said = |finding: &Finding| finding.subject == subject && finding.found.contains(word);
        assert!(findings.iter().any(said), "{findings:?}");
    }
}

#[test]
fn checks_by_the_way_of_the_traffic_need_a_device_and_answers_that_are_let_in() {
    let mut facts = facts();
    facts.tun = Err("Permission denied".to_owned());
    for interface in facts.interfaces.iter_mut().flatten() {
        interface.rp_filter = 1;
    }
    let with = |forward: &str| {
        format!(
            "{FILE}[[service]]\nname = \"a\"\nlisten = \"10.100.0.1:80\"\nprotocol = \"tcp\"\nforward = \"{forward}\"\n\
             health = {{ kind = \"tcp\", via = \"service\" }}\n[[service.backend]]\naddress = \"10.2.0.1\"\n"
        )
    };
    assert_eq!(
        troubles(&with("nat"), &facts),
        [],
        "it asks the backend itself"
    );
    let subject = || "checks via services".to_owned();
    let both = [(Level::Refusal, subject()), (Level::Warning, subject())];
    assert_eq!(troubles(&with("ipip"), &facts), both);
}
