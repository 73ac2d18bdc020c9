//! `[balancer]`: what concerns the process as a whole.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::scope::Scope;
use super::{Taken, timeouts};
use crate::error::{Findings, quote};
use crate::file::{self, Field};
use crate::limits::{
    ADMIN_BYTES_MAX, ADMIN_DEFAULT, CORE_MAX, DRAIN_DEFAULT, DRAIN_MAX, FLOWS_DEFAULT, FLOWS_MAX,
    FLOWS_MIN, UDP_NEW_FLOWS_MAX, UDP_NEW_FLOWS_SHARE, WORKERS_MAX,
};
use crate::model::{Balancer, FlowMemory, Timeouts};

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
        admin: PathBuf::from(ADMIN_DEFAULT),
    }
}

pub(super) fn resolve(raw: &file::Balancer<'_>, findings: &mut Findings<'_>) -> Option<Balancer> {
    let mut scope = Scope {
        path: "balancer",
        head: &(0..0),
        findings,
    };
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
        admin: admin?,
    })
}

/// The limit for a table of so many flows.
fn udp_new_flows(flows: usize) -> u32 {
    u32::try_from(flows / UDP_NEW_FLOWS_SHARE).map_or(UDP_NEW_FLOWS_MAX, |flows| flows.max(1))
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
