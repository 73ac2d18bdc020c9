//! `[balancer]`: what concerns the process as a whole.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::scope::Scope;
use super::{Taken, timeouts};
use crate::address;
use crate::error::{Findings, Kind, quote};
use crate::file::{self, Field};
use crate::limits::{
    ADMIN_BYTES_MAX, ADMIN_DEFAULT, CORE_MAX, DRAIN_DEFAULT, DRAIN_MAX, FLOWS_DEFAULT, FLOWS_MAX,
    FLOWS_MIN, FRAGMENTS_DEFAULT, FRAGMENTS_MAX, FRAGMENTS_MIN, ICMP_PER_SECOND_DEFAULT,
    ICMP_PER_SECOND_MAX, NAT_SOURCE_PORT_MIN, NAT_SOURCE_PORTS_DEFAULT, NAT_SOURCE_PORTS_FEWEST,
    NAT_SOURCES_MAX, UDP_NEW_FLOWS_MAX, UDP_NEW_FLOWS_SHARE, WORKERS_MAX,
};
use crate::model::{Balancer, FlowMemory, Ping, Timeouts};

/// What holds when the file has no `[balancer]`.
pub(super) fn default() -> Balancer {
    Balancer {
        workers: None,
        cores: None,
        flows: FLOWS_DEFAULT,
        flow_memory: FlowMemory::Map,
        udp_new_flows: udp_new_flows(FLOWS_DEFAULT),
        busy_poll: false,
        drain: DRAIN_DEFAULT,
        timeouts: Timeouts::default(),
        nat_sources: Vec::new(),
        nat_source_ports: NAT_SOURCE_PORTS_DEFAULT,
        icmp_per_second: ICMP_PER_SECOND_DEFAULT,
        ping: Ping::Answer,
        fragments: FRAGMENTS_DEFAULT,
        admin: PathBuf::from(ADMIN_DEFAULT),
    }
}

const fn scope<'f, 't>(findings: &'f mut Findings<'t>) -> Scope<'static, 'f, 't> {
    Scope {
        path: "balancer",
        head: &(0..0),
        findings,
    }
}

/// `nat_sources` are those that could be resolved.
pub(super) fn resolve(
    raw: &file::Balancer<'_>,
    nat_sources: Option<&[IpAddr]>,
    findings: &mut Findings<'_>,
) -> Option<Balancer> {
    let mut scope = scope(findings);
    let workers = scope.number("workers", &raw.workers, 1..=WORKERS_MAX);
    let cores = cores(&mut scope, raw, workers.flatten());
    let flows = scope.number("flows", &raw.flows, FLOWS_MIN..=FLOWS_MAX);
    let flow_memory = scope.word("flow-memory", &raw.flow_memory, Some(FlowMemory::Map), &[]);
    let udp = scope.number(
        "udp-new-flows-per-second",
        &raw.udp_new_flows,
        1..=UDP_NEW_FLOWS_MAX,
    );
    let busy_poll = Scope::flag(&raw.busy_poll, false);
    let drain = scope.duration("drain", &raw.drain, Duration::ZERO..=DRAIN_MAX);
    let nat_source_ports = nat_source_ports(&mut scope, &raw.nat_source_ports);
    let icmp = 1..=ICMP_PER_SECOND_MAX;
    let icmp = scope.number("icmp-per-second", &raw.icmp_per_second, icmp);
    let ping = scope.word("ping", &raw.ping, Some(Ping::Answer), &[]);
    let fragments = FRAGMENTS_MIN..=FRAGMENTS_MAX;
    let fragments = scope.number("fragments", &raw.fragments, fragments);
    let admin = admin(&mut scope, &raw.admin);
    let inherited = Timeouts::default();
    let timeouts = timeouts::resolve(raw.timeouts.as_ref(), inherited, None, scope.findings);
    let cores = cores?;
    // Cores alone say how many workers there are to be.
    let named = cores
        .as_ref()
        .and_then(|cores| u16::try_from(cores.len()).ok());
    let flows = flows?.unwrap_or(FLOWS_DEFAULT);
    Some(Balancer {
        workers: workers?.or(named).and_then(NonZeroU16::new),
        cores,
        flows,
        flow_memory: flow_memory?,
        udp_new_flows: udp?.unwrap_or_else(|| udp_new_flows(flows)),
        busy_poll: busy_poll?,
        drain: drain?.map_or(DRAIN_DEFAULT, |(drain, _)| drain),
        timeouts: timeouts?,
        nat_sources: nat_sources?.to_vec(),
        nat_source_ports: nat_source_ports?,
        icmp_per_second: icmp?.unwrap_or(ICMP_PER_SECOND_DEFAULT),
        ping: ping?,
        fragments: fragments?.unwrap_or(FRAGMENTS_DEFAULT),
        admin: admin?,
    })
}

/// The limit for a table of so many flows.
fn udp_new_flows(flows: usize) -> u32 {
    u32::try_from(flows / UDP_NEW_FLOWS_SHARE).map_or(UDP_NEW_FLOWS_MAX, |flows| flows.max(1))
}

/// The addresses of `nat-sources`, each with its place.
pub(super) fn nat_sources(
    field: &Field<Vec<Spanned<&str>>>,
    findings: &mut Findings<'_>,
) -> Option<Vec<(IpAddr, Range<usize>)>> {
    let mut scope = scope(findings);
    let list = match field {
        Field::Given(list) => list,
        Field::Bad => return None,
        Field::Absent => return Some(Vec::new()),
    };
    let written = list.get_ref();
    if written.len() > NAT_SOURCES_MAX {
        let (found, expected) = (
            format!("{} addresses", written.len()),
            format!("at most {NAT_SOURCES_MAX}"),
        );
        let cure = "leave some out: each has thousands of ports towards every backend";
        scope.refuse("nat-sources", &list.span(), found, expected, cure);
        return None;
    }
    let mut taken = Taken::default();
    let mut read = |text: &Spanned<&str>| {
        let at = text.span();
        match address::nat_source(text.get_ref()) {
            Err(refusal) => {
                scope.object(Kind::Value, "nat-sources", &at, refusal);
                None
            }
            Ok(ip) => {
                let expected = "every address once";
                let cure = "remove it";
                scope.unique("nat-sources", at.clone(), ip, &mut taken, expected, cure)?;
                Some((ip, at))
            }
        }
    };
    // Collected first: every address is to be looked at, not only up to the first wrong one.
    let read: Vec<_> = written.iter().map(&mut read).collect();
    read.into_iter().collect()
}

fn nat_source_ports(
    scope: &mut Scope<'_, '_, '_>,
    field: &Field<&str>,
) -> Option<RangeInclusive<u16>> {
    let text = match field {
        Field::Given(text) => text,
        Field::Bad => return None,
        Field::Absent => return Some(NAT_SOURCE_PORTS_DEFAULT),
    };
    let cure = match address::port_range(text.get_ref()) {
        Ok(ports) if *ports.start() < NAT_SOURCE_PORT_MIN => {
            format!("the smallest port is {NAT_SOURCE_PORT_MIN}")
        }
        Ok(ports) if ports.len() < usize::from(NAT_SOURCE_PORTS_FEWEST) => {
            "write a longer range: every worker has a part of it".to_owned()
        }
        Ok(ports) => return Some(ports),
        Err(cure) => cure.to_owned(),
    };
    let expected = format!(
        "a range of {NAT_SOURCE_PORTS_FEWEST} ports or more, from {NAT_SOURCE_PORT_MIN} to 65535"
    );
    let found = quote(text.get_ref());
    scope.refuse("nat-source-ports", &text.span(), found, expected, cure);
    None
}

fn cores(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Balancer<'_>,
    workers: Option<u16>,
) -> Option<Option<Vec<usize>>> {
    let list = match &raw.cores {
        Field::Given(list) => list,
        Field::Bad => return None,
        Field::Absent => return Some(None),
    };
    let (at, written) = (list.span(), list.get_ref());
    let found = format!("{} cores", written.len());
    if written.is_empty() || written.len() > usize::from(WORKERS_MAX) {
        let expected = format!("1 to {WORKERS_MAX} cores, one for each worker");
        scope.refuse(
            "cores",
            &at,
            found,
            expected,
            "leave the key out to have them chosen at start",
        );
        return None;
    }
    let mut taken = Taken::default();
    let mut read = |number: &Spanned<i64>| {
        let core = scope.bounded("cores", number, 0..=CORE_MAX)?;
        let cure = "two workers on one core slow each other down: give each its own";
        scope.unique(
            "cores",
            number.span(),
            core,
            &mut taken,
            "every core once",
            cure,
        )?;
        Some(core)
    };
    let cores: Vec<Option<usize>> = written.iter().map(&mut read).collect();
    if let Some(workers) = workers
        && usize::from(workers) != written.len()
    {
        let expected = format!("as many as workers, {workers}");
        scope.misfit(
            "cores",
            &at,
            found,
            expected,
            "make them equal, or leave workers out",
        );
        return None;
    }
    cores.into_iter().collect::<Option<Vec<usize>>>().map(Some)
}

fn admin(scope: &mut Scope<'_, '_, '_>, field: &Field<&str>) -> Option<PathBuf> {
    let (path, at) = match field {
        Field::Given(path) => (*path.get_ref(), path.span()),
        Field::Bad => return None,
        Field::Absent => return Some(PathBuf::from(ADMIN_DEFAULT)),
    };
    let cure = if !path.starts_with('/') {
        "begin it with a slash: the working directory is not the operator's"
    } else if path.ends_with('/') {
        "add the socket's name to the directory"
    } else if path.contains(char::is_control) {
        "leave out control characters"
    } else if path.len() > ADMIN_BYTES_MAX {
        "choose a shorter path: the kernel takes no longer one for a socket"
    } else {
        return Some(PathBuf::from(path));
    };
    let expected = format!("the absolute path of a socket, at most {ADMIN_BYTES_MAX} bytes");
    scope.refuse("admin", &at, quote(path), expected, cure);
    None
}
