use proptest::prelude::*;

use super::settings::Setting;
use super::*;
use crate::model::{Api, Balancer, Health, Log, Metrics, Pace, Remote, Timeouts};

const INTERFACE: &str = "[[interface]]\nname = \"eth0\"\n";

fn model(text: &str) -> Model {
    crate::parse("test.toml", text).unwrap().model
}

fn lines(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (model(old), model(new));
    let diff = Diff::between(&old, &new);
    diff.actions().iter().map(ToString::to_string).collect()
}

fn service(name: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nlisten = \"10.100.0.1:80\"\nprotocol = \"tcp\"\n\
         forward = \"nat\"\n{more}\n"
    )
}

fn backend(address: &str, more: &str) -> String {
    format!("[[service.backend]]\naddress = \"{address}\"\n{more}\n")
}

#[test]
fn each_kind_of_action_has_its_line_and_its_place() {
    let old = format!(
        "{INTERFACE}{}{}{}{}{}{}",
        service("web", "health = { kind = \"tcp\", interval = \"1s\" }"),
        backend("10.2.0.1:80", ""),
        backend("10.2.0.2:80", ""),
        backend("10.2.0.3:80", ""),
        backend("10.2.0.4:80", "disabled = true"),
        service("old", "").replace(":80", ":81"),
    );
    let new = format!(
        "[balancer]\nworkers = 2\ndrain = \"1m\"\n{INTERFACE}{}{}{}{}{}{}{}",
        service("new", "").replace(":80", ":82"),
        backend("10.2.0.9:80", ""),
        service(
            "www",
            "health = { kind = \"tcp\", interval = \"2s\", fall = 5 }"
        ),
        backend("10.2.0.5:80", "weight = 7\nforward = \"full-nat\""),
        backend("10.2.0.4:80", ""),
        backend("10.2.0.3:80", "weight = 50"),
        backend("10.2.0.2:80", ""),
    );
    let new = new.replace("drain", "nat-sources = [\"10.2.0.250\"]\ndrain");
    assert_eq!(
        lines(&old, &new),
        [
            "balancer.workers chosen -> 2: only a restart can change this",
            "balancer.drain 5s -> 1m",
            "balancer.nat-sources [] -> [10.2.0.250]",
            "service new added: tcp 10.100.0.1:82, nat, 1 backend",
            "service www: backend 10.2.0.5:80 added, weight 7, full-nat",
            "service www: backend 10.2.0.4:80 disabled true -> false",
            "service www: name web -> www, health.interval 1s -> 2s, \
         health.jitter 100ms -> 200ms, health.fast-interval 1s -> 2s, health.fall 3 -> 5",
            "service www: backend 10.2.0.3:80 weight 100 -> 50",
            "service web: backend 10.2.0.1:80 removed",
            "service old removed: tcp 10.100.0.1:81, nat, 0 backends",
        ]
    );
}

#[test]
fn order_and_spelling_mean_nothing() {
    let backends = |order: [u8; 3]| {
        order
            .map(|host| backend(&format!("10.2.0.{host}:80"), ""))
            .concat()
    };
    let other = service("other", "").replace(":80", ":81");
    let old = format!(
        "{INTERFACE}{}{}{other}",
        service("web", ""),
        backends([1, 2, 3])
    );
    let new = format!(
        "# a word\n{INTERFACE}{other}{}{}",
        service("web", "choose = \"flow-hash\""),
        backends([3, 1, 2])
    );
    assert_eq!(lines(&old, &new), Vec::<String>::new());
    let (old, new) = (model(&old), model(&new));
    assert!(Diff::between(&old, &new).is_empty() && old != new);
}

#[test]
fn a_check_that_comes_or_goes_is_one_change() {
    let without = format!("{INTERFACE}{}", service("web", ""));
    let with = format!(
        "{INTERFACE}{}",
        service("web", "health = { kind = \"tcp\", rise = 7 }")
    );
    let line = "service web: health none -> tcp every 1s";
    assert_eq!(lines(&without, &with), [line]);
    let line = "service web: health tcp every 1s -> none";
    assert_eq!(lines(&with, &without), [line]);
}

/// A file with one service and one backend, and with these keys besides.
fn file(balancer: &str, service_keys: &str, backend_keys: &str) -> String {
    let head = format!("[balancer]\nflows = 4096\nnat-sources = [\"10.2.0.250\"]\n{balancer}");
    let service = service("web", service_keys).replace("protocol = \"tcp\"", "protocol = \"udp\"");
    format!(
        "{head}\n{INTERFACE}{service}{}",
        backend("10.2.0.1:80", backend_keys)
    )
}

/// The names of the keys in which it differs from [`file`] without any.
fn keys_of(text: &str) -> Vec<&'static str> {
    let (old, new) = (model(&file("", "", "")), model(text));
    let diff = Diff::between(&old, &new);
    let settings = diff.actions().iter().flat_map(Action::settings);
    settings.map(|setting| setting.key).collect()
}

#[test]
fn every_key_of_the_process_is_told_under_its_name() {
    for (keys, expected) in [
        ("workers = 2", "balancer.workers"),
        (
            "udp-new-flows-per-second = 7",
            "balancer.udp-new-flows-per-second",
        ),
        (
            "nat-source-ports = \"2000-3000\"",
            "balancer.nat-source-ports",
        ),
        ("icmp-per-second = 5", "balancer.icmp-per-second"),
        ("fragments = 64", "balancer.fragments"),
        ("flow-memory = \"private\"", "balancer.flow-memory"),
        ("busy-poll = true", "balancer.busy-poll"),
        ("admin = \"/run/other.sock\"", "balancer.admin"),
        ("drain = \"9s\"", "balancer.drain"),
        ("ping = \"kernel\"", "balancer.ping"),
    ] {
        assert_eq!(keys_of(&file(keys, "", "")), [expected]);
    }
    for (keys, expected) in [
        ("listen = \"127.0.0.1:9900\"", "metrics.listen"),
        ("residence-sample = 3", "metrics.residence-sample"),
        ("backends = false", "metrics.backends"),
    ] {
        let table = file(&format!("[metrics]\n{keys}"), "", "");
        assert_eq!(keys_of(&table), [expected]);
    }
    for (keys, expected) in [
        (
            "read-group = \"look\"",
            ["api.read-group", "api.socket-mode"].as_slice(),
        ),
        (
            "write-group = \"change\"",
            &["api.write-group", "api.socket-mode"],
        ),
        ("socket-mode = \"0660\"", &["api.socket-mode"]),
    ] {
        let table = file(&format!("[api]\n{keys}"), "", "");
        assert_eq!(keys_of(&table), expected);
    }
    for (table, expected) in [
        ("[log]\nformat = \"json\"", &["log.format"][..]),
        ("[log]\nlevel = \"warn\"", &["log.level"]),
        ("[log]\nflows = 10", &["log.flows"]),
        ("[process]\nuser = \"a\"", &["process.user"]),
        (
            "[process]\nuser = \"a\"\ngroup = \"b\"",
            &["process.user", "process.group"],
        ),
        ("[process]\nseccomp = true", &["process.seccomp"]),
    ] {
        assert_eq!(keys_of(&file(table, "", "")), expected);
    }
    let both = ["balancer.workers", "balancer.cores"];
    assert_eq!(keys_of(&file("cores = [0, 1]", "", "")), both);
    let plain = file("", "", "");
    let flows = plain.replace("flows = 4096", "flows = 8192");
    assert_eq!(keys_of(&flows), ["balancer.flows"]);
    assert_eq!(keys_of(&plain.replace("eth0", "eth1")), ["[[interface]]"]);
}

#[test]
fn every_key_of_a_service_is_told_under_its_name() {
    for (keys, expected) in [
        ("vlan = [200, 100]", "vlan"),
        ("choose = \"source-hash\"", "choose"),
        ("when-empty = \"open\"", "when-empty"),
        ("min-healthy = 2", "min-healthy"),
        ("fragments = \"drop\"", "fragments"),
        ("stateless = true", "stateless"),
        ("slow-start = \"1m\"", "slow-start"),
        ("table-size = 251", "table-size"),
        ("timeouts = { one-way = \"7s\" }", "timeouts.one-way"),
        ("timeouts = { two-way = \"7s\" }", "timeouts.two-way"),
        ("health = { kind = \"tcp\", port = 81 }", "health"),
    ] {
        assert_eq!(keys_of(&file("", keys, "")), [expected]);
    }
    let quic = "quic = { config-id = 1, server-id-bytes = 2 }";
    let quic = file("", quic, "server-id = \"0a0b\"");
    assert_eq!(keys_of(&quic), ["server-id", "stateless", "quic"]);
    for (keys, expected) in [
        ("mss-clamp = true", "mss-clamp"),
        ("mss-clamp = 1400", "mss-clamp"),
        ("timeouts = { opening = \"7s\" }", "timeouts.opening"),
        (
            "timeouts = { established = \"7s\" }",
            "timeouts.established",
        ),
        (
            "timeouts = { half-closed = \"7s\" }",
            "timeouts.half-closed",
        ),
        ("timeouts = { closed = \"7s\" }", "timeouts.closed"),
    ] {
        let tcp = |keys| model(&format!("{INTERFACE}{}", service("web", keys)));
        let (old, new) = (tcp(""), tcp(keys));
        let diff = Diff::between(&old, &new);
        assert_eq!(diff.actions()[0].settings()[0].key, expected);
        assert_eq!(diff.actions().len(), 1);
    }
}

#[test]
fn every_key_of_a_check_is_told_under_its_name() {
    let checked = |keys: &str| {
        let keys = format!(
            "health = {{ kind = \"tcp\", fast-interval = \"500ms\", timeout = \"50ms\"{keys} }}"
        );
        model(&format!("{INTERFACE}{}", service("web", &keys)))
    };
    for (keys, expected) in [
        (
            ", interval = \"999ms\"",
            ["health.interval", "health.jitter"].as_slice(),
        ),
        (", jitter = \"1ms\"", &["health.jitter"]),
        (", rise = 7", &["health.rise"]),
        (", fall = 7", &["health.fall"]),
        (", flap = {}", &["health.flap"]),
        (", passive = \"check\"", &["health.passive"]),
        (", report-ttl = \"5s\"", &["health.report-ttl"]),
        (", via = \"service\"", &["health.via"]),
    ] {
        let (old, new) = (checked(""), checked(keys));
        let diff = Diff::between(&old, &new);
        let told = diff.actions()[0].settings().iter().map(|one| one.key);
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(diff.actions().len(), 1);
    }
}

#[test]
fn every_key_of_a_backend_is_told_under_its_name() {
    for (keys, expected) in [
        ("weight = 0", ["weight"].as_slice()),
        ("disabled = true", &["disabled"]),
        ("forward = \"full-nat\"", &["forward"]),
        (
            "forward = \"gre\"\ntunnel = { key = 7 }",
            &["forward", "tunnel"],
        ),
    ] {
        assert_eq!(keys_of(&file("", "", keys)), expected);
    }
}

/// Takes apart what `settings` compares: a field that is not named here is a key that it does not know.
#[test]
fn no_field_of_the_process_is_unknown() {
    let text = format!("{INTERFACE}{}", service("web", ""));
    let model = model(&text);
    let Balancer {
        workers: _,
        cores: _,
        flows: _,
        flow_memory: _,
        udp_new_flows: _,
        busy_poll: _,
        drain: _,
        timeouts: _,
        nat_sources: _,
        nat_source_ports: _,
        icmp_per_second: _,
        ping: _,
        fragments: _,
        admin: _,
    } = model.balancer();
    let Api {
        socket_mode: _,
        read_group: _,
        write_group: _,
        remote,
    } = model.api();
    let knows = |remote: &Remote| {
        let Remote {
            listen: _,
            certificate: _,
            key: _,
            client_ca: _,
            read_names: _,
            write_names: _,
        } = remote;
    };
    remote.iter().for_each(knows);
    let Log {
        format: _,
        level: _,
        flows: _,
    } = model.log();
    let Metrics {
        listen: _,
        residence_sample: _,
        backends: _,
    } = model.metrics();
}

/// As above.
#[test]
fn no_field_of_a_service_is_unknown() {
    let text = format!("{INTERFACE}{}", service("web", ""));
    let model = model(&text);
    let Timeouts {
        opening: _,
        established: _,
        half_closed: _,
        closed: _,
        one_way: _,
        two_way: _,
    } = model.services()[0].timeouts();
    let Service {
        name: _,
        listen: _,
        protocol: _,
        vlan: _,
        forward: _,
        choose: _,
        when_empty: _,
        min_healthy: _,
        when_below: _,
        mss_clamp: _,
        fragments: _,
        stateless: _,
        quic: _,
        slow_start: _,
        table_size: _,
        timeouts: _,
        health,
        backends,
    } = &model.services()[0];
    health.iter().for_each(take_apart);
    let knows = |backend: &Backend| {
        let Backend {
            address: _,
            forward: _,
            tunnel: _,
            server_id: _,
            weight: _,
            disabled: _,
        } = backend;
    };
    backends.iter().for_each(knows);
}

/// The same of a check.
fn take_apart(health: &Health) {
    let Health {
        check: _,
        port: _,
        via: _,
        pace,
        report_ttl: _,
    } = health;
    let Pace {
        interval: _,
        jitter: _,
        fast_interval: _,
        timeout: _,
        rise: _,
        fall: _,
        flap: _,
        passive: _,
    } = pace;
}

/// One service of a random file: which of the listens, its keys, and for each possible backend what it
/// says, if it is there.
type Plan = (bool, bool, u8, Vec<Option<(u32, bool)>>);

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let weight = prop_oneof![Just(0u32), 1u32..4];
    let backend = prop::option::of((weight, prop::bool::weighted(0.2)));
    let service = (
        any::<bool>(),
        any::<bool>(),
        1u8..4,
        prop::collection::vec(backend, 6),
    );
    prop::collection::vec(service, 4)
}

fn text(plans: &[Plan]) -> String {
    let mut file = INTERFACE.to_owned();
    for (index, (is_there, is_checked, rise, backends)) in plans.iter().enumerate() {
        if !is_there {
            continue;
        }
        let keys = match is_checked {
            true => format!("health = {{ kind = \"tcp\", rise = {rise} }}"),
            false => String::new(),
        };
        file += &service(&format!("s{index}"), &keys).replace(":80", &format!(":{}", 80 + index));
        for (host, keys) in (1..).zip(backends) {
            if let Some((weight, disabled)) = keys {
                let keys = format!("weight = {weight}\ndisabled = {disabled}");
                file += &backend(&format!("10.2.0.{host}:80"), &keys);
            }
        }
    }
    file
}

/// Carries one action out, as an operator would by hand.
fn carry_out(services: &mut Vec<Service>, action: &Action<'_>) {
    let at = |services: &[Service], wanted: &Service| {
        services
            .iter()
            .position(|one| identity(one) == identity(wanted))
            .unwrap()
    };
    let place = |service: &Service, wanted: &Backend| {
        let mut backends = service.backends.iter();
        backends
            .position(|one| one.address == wanted.address)
            .unwrap()
    };
    match action {
        Action::Restart(_) | Action::Balancer(_) => {}
        Action::AddService(service) => services.push((*service).clone()),
        Action::RemoveService(service) => {
            let at = at(services, service);
            services.remove(at);
        }
        Action::ChangeService { old, new, .. } => {
            let at = at(services, old);
            let backends = std::mem::take(&mut services[at].backends);
            services[at] = Service {
                backends,
                ..(*new).clone()
            };
        }
        Action::AddBackend { service, backend } => {
            let at = at(services, service);
            services[at].backends.push((*backend).clone());
        }
        Action::ChangeBackend {
            service, old, new, ..
        } => {
            let service = at(services, service);
            let at = place(&services[service], old);
            services[service].backends[at] = (*new).clone();
        }
        Action::RemoveBackend { service, backend } => {
            let service = at(services, service);
            let at = place(&services[service], backend);
            services[service].backends.remove(at);
        }
    }
}

/// Without order.
fn sorted(services: &[Service]) -> Vec<Service> {
    let mut services = services.to_vec();
    services.sort_by_key(|service| service.name.clone());
    for service in &mut services {
        service.backends.sort_by_key(|backend| backend.address);
    }
    services
}

/// Those that take new flows.
fn takers(services: &[Service], wanted: Identity) -> Vec<SocketAddr> {
    let of = services
        .iter()
        .filter(|service| identity(service) == wanted);
    let backends = of.flat_map(|service| &service.backends);
    backends
        .filter(|one| share(one) > 0)
        .map(|one| one.address)
        .collect()
}

proptest! {
    #[test]
    fn the_actions_in_their_order_lead_from_old_to_new(old in plans(), new in plans()) {
        let (old, new) = (model(&text(&old)), model(&text(&new)));
        let diff = Diff::between(&old, &new);
        prop_assert_eq!(diff.is_empty(), sorted(old.services()) == sorted(new.services()));
        let mut services = old.services().to_vec();
        for action in diff.actions() {
            carry_out(&mut services, action);
            // Nobody is without a server in between who is not before or after.
            for service in old.services().iter().chain(new.services()) {
                let now = takers(&services, identity(service));
                let has_all = |of: &[Service]| {
                    takers(of, identity(service)).iter().all(|one| now.contains(one))
                };
                prop_assert!(has_all(old.services()) || has_all(new.services()), "{action}");
            }
        }
        prop_assert_eq!(sorted(&services), sorted(new.services()));
    }
}

#[test]
fn what_nobody_knows_of_is_told_all_the_same() {
    let setting = Setting::unnamed();
    assert_eq!(setting.to_string(), "another key one value -> another");
    let old = model(&format!(
        "{INTERFACE}{}{}",
        service("web", ""),
        backend("10.2.0.1:80", "")
    ));
    let service = &old.services()[0];
    assert!(!settings::is_other(service, service));
    let renamed = Service {
        name: "www".to_owned(),
        ..service.clone()
    };
    assert!(settings::is_other(service, &renamed));
}

#[test]
fn every_key_of_the_listener_for_tls_is_told_under_its_name() {
    let with = |listen: &str, name: &str| {
        let table = format!(
            "[api]\nlisten = \"{listen}\"\ncertificate = \"/a.crt\"\nkey = \"/a.key\"\n\
             client-ca = \"/{name}.crt\"\nwrite-names = [\"{name}.example\"]"
        );
        file(&table, "", "")
    };
    let told = |old: &str, new: &str| {
        let (old, new) = (model(old), model(new));
        let diff = Diff::between(&old, &new);
        let keys = diff.actions().iter().flat_map(|action| action.settings());
        keys.map(|setting| setting.key).collect::<Vec<_>>()
    };
    let old = with("10.0.0.1:9443", "ops");
    assert_eq!(told(&old, &with("10.0.0.2:9443", "ops")), ["api.listen"]);
    assert_eq!(
        told(&old, &with("10.0.0.1:9443", "others")),
        ["api.client-ca", "api.write-names"]
    );
    assert_eq!(keys_of(&old), ["api.listen"]);
}
