//! Key by key: how two balancers, services or backends differ, in the file's own spelling.
//!
//! A key that is added to the file is added here, too: a test takes every structure apart and does not
//! compile otherwise. Until then it is told of as `another key`, never passed over.

use std::fmt;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use super::Action;
use crate::duration::Spelt;
use crate::model::{
    Api, Backend, Balancer, Dscp, Flap, Health, Interface, Metrics, Model, MssClamp, Pace, Quic,
    Service, Timeouts, Tunnel, Vlan,
};

/// A key with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, with the tables that it is in: `balancer.drain`, `health.interval`, `weight`.
    pub key: &'static str,
    /// What it said.
    pub old: String,
    /// What it says.
    pub new: String,
}

impl Setting {
    /// A key that this file does not know.
    pub(super) fn unnamed() -> Self {
        Self {
            key: "another key",
            old: "one value".to_owned(),
            new: "another".to_owned(),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.key, self.old, self.new)
    }
}

/// Gathers what differs.
#[derive(Default)]
struct Settings(Vec<Setting>);

impl Settings {
    fn note<T: PartialEq + ?Sized>(
        &mut self,
        key: &'static str,
        [old, new]: [&T; 2],
        spell: impl Fn(&T) -> String,
    ) {
        if old != new {
            self.0.push(Setting {
                key,
                old: spell(old),
                new: spell(new),
            });
        }
    }

    fn shown<T: PartialEq + fmt::Display + ?Sized>(&mut self, key: &'static str, both: [&T; 2]) {
        self.note(key, both, T::to_string);
    }

    fn duration(&mut self, key: &'static str, [old, new]: [Duration; 2]) {
        self.note(key, [&old, &new], |span| Spelt(*span).to_string());
    }
}

/// What concerns the process: first what only a restart can change.
pub(super) fn of_process<'a>(old: &Model, new: &Model) -> Vec<Action<'a>> {
    let mut fixed = Settings::default();
    fixed.note(
        "[[interface]]",
        [old.interfaces(), new.interfaces()],
        interfaces,
    );
    of_start(&mut fixed, [old.balancer(), new.balancer()]);
    of_metrics(&mut fixed, [old.metrics(), new.metrics()]);
    of_remote(&mut fixed, [old.api(), new.api()]);
    of_host(&mut fixed, [old, new]);
    let mut free = Settings::default();
    of_run(&mut free, [old.balancer(), new.balancer()]);
    of_api(&mut free, [old.api(), new.api()]);
    of_secure(&mut free, [old.api(), new.api()]);
    free.shown(
        "metrics.backends",
        [&old.metrics().backends, &new.metrics().backends],
    );
    let every = |every: &Option<u32>| every.map_or("off".to_owned(), |every| every.to_string());
    free.note("log.flows", [&old.log().flows, &new.log().flows], every);
    if fixed.0.is_empty() && free.0.is_empty() && is_other_balancer(old.balancer(), new.balancer())
    {
        free.0.push(Setting::unnamed());
    }
    let fixed = fixed.0.into_iter().map(Action::Restart);
    fixed
        .chain(free.0.into_iter().map(Action::Balancer))
        .collect()
}

/// Memory, sockets, threads.
fn of_start(settings: &mut Settings, both @ [old, new]: [&Balancer; 2]) {
    let chosen = |count: &Option<_>| {
        count.map_or("chosen".to_owned(), |count: std::num::NonZeroU16| {
            count.to_string()
        })
    };
    settings.note("balancer.workers", [&old.workers, &new.workers], chosen);
    settings.note(
        "balancer.cores",
        both.map(|one| &one.cores),
        |cores| match cores {
            Some(cores) => format!("{cores:?}"),
            None => "chosen".to_owned(),
        },
    );
    settings.shown("balancer.flows", both.map(|one| &one.flows));
    // Its default follows the flows, which are named themselves then.
    if old.flows == new.flows {
        let key = "balancer.udp-new-flows-per-second";
        settings.shown(key, both.map(|one| &one.udp_new_flows));
    }
    settings.note(
        "balancer.nat-source-ports",
        both.map(|one| &one.nat_source_ports),
        |ports| format!("{}-{}", ports.start(), ports.end()),
    );
    settings.shown(
        "balancer.icmp-per-second",
        both.map(|one| &one.icmp_per_second),
    );
    settings.shown("balancer.fragments", both.map(|one| &one.fragments));
    settings.shown("balancer.flow-memory", both.map(|one| &one.flow_memory));
    settings.shown("balancer.busy-poll", both.map(|one| &one.busy_poll));
    settings.note("balancer.admin", both.map(|one| &one.admin), |path| {
        path.display().to_string()
    });
}

/// A listener, and what workers are built with.
fn of_metrics(settings: &mut Settings, both: [&Metrics; 2]) {
    settings.note("metrics.listen", both.map(|one| &one.listen), |listen| {
        listen.map_or("none".to_owned(), |address| address.to_string())
    });
    settings.shown(
        "metrics.residence-sample",
        both.map(|one| &one.residence_sample),
    );
}

/// Who may ask a running balancer.
fn of_api(settings: &mut Settings, both: [&Api; 2]) {
    let group = |name: &Option<String>| name.as_deref().unwrap_or("none").to_owned();
    settings.note("api.read-group", both.map(|one| &one.read_group), group);
    settings.note("api.write-group", both.map(|one| &one.write_group), group);
    settings.note(
        "api.socket-mode",
        both.map(|one| &one.socket_mode),
        |mode| format!("{mode:04o}"),
    );
}

/// A listener. Its certificates are read with every reload.
fn of_remote(settings: &mut Settings, both: [&Api; 2]) {
    let listens = both.map(|one| one.remote.as_ref().map(|remote| remote.listen));
    let [old, new] = &listens;
    settings.note("api.listen", [old, new], |listen| {
        listen.map_or("none".to_owned(), |address| address.to_string())
    });
}

/// The rest of it, where it listens at the same place.
fn of_secure(settings: &mut Settings, both: [&Api; 2]) {
    let [Some(old), Some(new)] = both.map(|one| one.remote.as_ref()) else {
        return;
    };
    let path = |path: &PathBuf| path.display().to_string();
    let names = |names: &Vec<String>| format!("[{}]", names.join(", "));
    settings.note(
        "api.certificate",
        [&old.certificate, &new.certificate],
        path,
    );
    settings.note("api.key", [&old.key, &new.key], path);
    settings.note("api.client-ca", [&old.client_ca, &new.client_ca], path);
    settings.note("api.read-names", [&old.read_names, &new.read_names], names);
    settings.note(
        "api.write-names",
        [&old.write_names, &new.write_names],
        names,
    );
}

/// What is said once, and given up once.
fn of_host(settings: &mut Settings, both: [&Model; 2]) {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
    settings.shown("log.format", both.map(|one| &one.log.format));
    settings.shown("log.level", both.map(|one| &one.log.level));
    settings.note("process.user", both.map(|one| &one.process.user), name);
    settings.note("process.group", both.map(|one| &one.process.group), name);
    settings.shown("process.seccomp", both.map(|one| &one.process.seccomp));
}

/// What a reload takes up.
fn of_run(settings: &mut Settings, both: [&Balancer; 2]) {
    settings.duration("balancer.drain", both.map(|one| one.drain));
    settings.note(
        "balancer.nat-sources",
        both.map(|one| &one.nat_sources),
        |sources| {
            let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
            format!("[{}]", sources.join(", "))
        },
    );
    settings.shown("balancer.ping", both.map(|one| &one.ping));
}

/// Whether they differ at all. The `timeouts` are the services', which tell of them.
fn is_other_balancer(old: &Balancer, new: &Balancer) -> bool {
    let like_new = Balancer {
        timeouts: new.timeouts,
        udp_new_flows: new.udp_new_flows,
        ..old.clone()
    };
    like_new != *new
}

fn interfaces(list: &[Interface]) -> String {
    let each = list.iter().map(|interface| {
        let Interface {
            name,
            mode,
            partial_checksums,
            vlan_tags,
        } = interface;
        format!(
            "{name} (mode {mode}, partial-checksums {partial_checksums}, vlan-tags {vlan_tags})"
        )
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Of one service, its backends aside. What makes it the same one cannot differ.
pub(super) fn of_service(old: &Service, new: &Service) -> Vec<Setting> {
    let both = [old, new];
    let mut settings = Settings::default();
    settings.shown("name", both.map(|one| &one.name));
    settings.note("vlan", both.map(|one| &one.vlan), vlan);
    settings.shown("forward", both.map(|one| &one.forward));
    settings.shown("choose", both.map(|one| &one.choose));
    settings.shown("when-empty", both.map(|one| &one.when_empty));
    settings.note("min-healthy", both.map(|one| &one.min_healthy), |least| {
        least.map_or("1".to_owned(), |least| least.to_string())
    });
    settings.shown("when-below", both.map(|one| &one.when_below));
    settings.note(
        "mss-clamp",
        both.map(|one| &one.mss_clamp),
        |clamp| match clamp {
            MssClamp::Off => "false".to_owned(),
            MssClamp::Path => "true".to_owned(),
            MssClamp::To(bytes) => bytes.to_string(),
        },
    );
    settings.shown("fragments", both.map(|one| &one.fragments));
    settings.shown("stateless", both.map(|one| &one.stateless));
    settings.note("quic", both.map(|one| &one.quic), quic);
    settings.duration("slow-start", both.map(|one| one.slow_start));
    settings.shown("table-size", both.map(|one| &one.table_size));
    timeouts(&mut settings, both.map(|one| &one.timeouts));
    match (&old.health, &new.health) {
        (Some(old), Some(new)) => health(&mut settings, [old, new]),
        _ => settings.note(
            "health",
            both.map(|one| &one.health),
            |health| match health {
                Some(health) => {
                    let interval = Spelt(health.pace.interval);
                    match &health.check {
                        Some(one) => format!("{one} every {interval}"),
                        None => "reported".to_owned(),
                    }
                }
                None => "none".to_owned(),
            },
        ),
    }
    settings.0
}

/// Whether they differ in more than their backends and their order.
pub(super) fn is_other(old: &Service, new: &Service) -> bool {
    let like_new = Service {
        backends: new.backends.clone(),
        ..old.clone()
    };
    like_new != *new
}

fn vlan(vlan: &Option<Vlan>) -> String {
    match vlan {
        None => "any".to_owned(),
        Some(Vlan { outer, inner: None }) => outer.to_string(),
        Some(Vlan {
            outer,
            inner: Some(inner),
        }) => format!("[{outer}, {inner}]"),
    }
}

fn quic(quic: &Option<Quic>) -> String {
    match quic {
        None => "none".to_owned(),
        Some(Quic {
            config_id,
            server_id_bytes,
        }) => format!("{{ config-id = {config_id}, server-id-bytes = {server_id_bytes} }}"),
    }
}

fn timeouts(settings: &mut Settings, both: [&Timeouts; 2]) {
    settings.duration("timeouts.opening", both.map(|one| one.opening));
    settings.duration("timeouts.established", both.map(|one| one.established));
    settings.duration("timeouts.half-closed", both.map(|one| one.half_closed));
    settings.duration("timeouts.closed", both.map(|one| one.closed));
    settings.duration("timeouts.one-way", both.map(|one| one.one_way));
    settings.duration("timeouts.two-way", both.map(|one| one.two_way));
}

fn health(settings: &mut Settings, both: [&Health; 2]) {
    settings.note("health.kind", both.map(|one| &one.check), |check| {
        check
            .as_ref()
            .map_or_else(|| "reported".to_owned(), |check| check.to_string())
    });
    pace(settings, both.map(Health::pace));
    settings.note(
        "health.report-ttl",
        both.map(|one| &one.report_ttl),
        |ttl| ttl.map_or("none".to_owned(), |ttl| Spelt(ttl).to_string()),
    );
    settings.note("health.port", both.map(|one| &one.port), |port| {
        port.map_or("the backend's".to_owned(), |port| port.to_string())
    });
    settings.shown("health.via", both.map(|one| &one.via));
    if settings.0.is_empty() && both[0] != both[1] {
        settings.0.push(Setting::unnamed());
    }
}

fn pace(settings: &mut Settings, both: [&Pace; 2]) {
    settings.duration("health.interval", both.map(|one| one.interval));
    settings.duration("health.jitter", both.map(|one| one.jitter));
    settings.duration("health.fast-interval", both.map(|one| one.fast_interval));
    settings.duration("health.timeout", both.map(|one| one.timeout));
    settings.shown("health.rise", both.map(|one| &one.rise));
    settings.shown("health.fall", both.map(|one| &one.fall));
    settings.note(
        "health.flap",
        both.map(|one| &one.flap),
        |flap| match flap {
            None => "none".to_owned(),
            Some(Flap {
                changes,
                within,
                hold,
                most,
            }) => format!(
                "{{ changes = {changes}, within = \"{}\", hold = \"{}\", most = \"{}\" }}",
                Spelt(*within),
                Spelt(*hold),
                Spelt(*most)
            ),
        },
    );
    settings.shown("health.passive", both.map(|one| &one.passive));
}

/// Of one backend. Its address cannot differ.
pub(super) fn of_backend(old: &Backend, new: &Backend) -> Vec<Setting> {
    let both = [old, new];
    let mut settings = Settings::default();
    settings.shown("weight", both.map(|one| &one.weight));
    settings.shown("disabled", both.map(|one| &one.disabled));
    settings.shown("forward", both.map(|one| &one.forward));
    settings.note("tunnel", both.map(|one| &one.tunnel), |tunnel| {
        tunnel.as_ref().map_or_else(|| "none".to_owned(), spelt)
    });
    settings.note("server-id", both.map(|one| &one.server_id), |id| match id {
        None => "none".to_owned(),
        Some(bytes) => bytes.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string does not fail.
            write!(hex, "{byte:02x}").unwrap_or_default();
            hex
        }),
    });
    settings.0
}

fn spelt(tunnel: &Tunnel) -> String {
    let Tunnel {
        variant,
        port,
        key,
        source,
        dscp,
        checksum,
    } = tunnel;
    let mut keys = vec![format!("variant = {variant}"), format!("port = {port}")];
    keys.extend(key.map(|key| format!("key = {key}")));
    keys.extend(source.map(|source| format!("source = \"{source}\"")));
    keys.push(match dscp {
        Dscp::Copy => "dscp = \"copy\"".to_owned(),
        Dscp::Set(dscp) => format!("dscp = {dscp}"),
    });
    keys.push(format!("checksum = {checksum}"));
    format!("{{ {} }}", keys.join(", "))
}
