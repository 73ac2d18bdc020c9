//! Services, their backends and checks.

use ringgate_config::{Backend as Configured, Service as Listed};
use ringgate_dataplane::backend::{Backend, BackendId, BackendState};
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::service::Service;

use super::exposition::Exposition;
use super::{f, latency};
use crate::control::checks::spec_of;
use crate::control::health::{Report, State};
use crate::control::meter::{Meter, Totals};
use crate::control::status::Page;

/// The states that a backend can be in.
const STATES: [BackendState; 6] = [
    BackendState::Up,
    BackendState::Draining,
    BackendState::Pending,
    BackendState::Suspect,
    BackendState::Down,
    BackendState::Disabled,
];

/// What is known of a backend of a service, gathered once for all families.
#[derive(Debug)]
struct Row<'p> {
    service: &'p str,
    name: String,
    built: Option<&'p Backend>,
    /// As the workers have it, of so many to one of the configured weight.
    scale: u32,
    active: u64,
    totals: Totals,
    check: Option<Report>,
}

impl Row<'_> {
    const fn labels(&self) -> [&str; 2] {
        [self.service, self.name.as_str()]
    }
}

/// Everything of services and backends.
pub(super) fn write(text: &mut Exposition, page: &Page<'_>, workers: &[&WorkerCounters]) {
    let services = || page.model.services().iter().zip(page.snapshot.services());
    let rows: Vec<Row<'_>> = services()
        .flat_map(|(listed, built)| {
            let backends = listed.backends().iter().zip(&built.members);
            backends.map(move |(backend, id)| row(page, workers, (listed, built), backend, *id))
        })
        .collect();
    of_services(text, page, &rows);
    let told = if page.model.metrics().backends() {
        &rows[..]
    } else {
        &[]
    };
    of_backends(text, told);
    of_checks(text, told);
}

fn row<'p>(
    page: &Page<'p>,
    workers: &[&WorkerCounters],
    (listed, built): (&'p Listed, &'p Service),
    backend: &'p Configured,
    id: BackendId,
) -> Row<'p> {
    let spec = spec_of(listed, backend);
    Row {
        service: listed.name(),
        name: backend.name(),
        built: page.snapshot.backend(id),
        scale: built.weight_scale,
        active: page.plane.tables().flows.flows_of(id.0),
        totals: page.meter.totals(id, workers),
        check: spec.and_then(|spec| page.checker.report(&spec)),
    }
}

fn of_services(text: &mut Exposition, page: &Page<'_>, rows: &[Row<'_>]) {
    let services = || page.model.services().iter().zip(page.snapshot.services());
    let mut info = text.family(&f::SERVICE);
    for (service, _) in services() {
        let (listen, protocol) = (service.listen().to_string(), service.protocol());
        let forward = service.forward().as_str();
        info.put([service.name(), &listen, protocol.as_str(), forward], 1);
    }
    let mut open = text.family(&f::FALLEN_OPEN);
    for (service, built) in services() {
        open.put([service.name()], u8::from(built.fallen_open));
    }
    // The rows stand in the order of the services.
    let mut left = rows;
    let each: Vec<(&str, &[Row<'_>], Totals)> = services()
        .map(|(service, built)| {
            let (own, rest) = left.split_at(built.members.len().min(left.len()));
            left = rest;
            let gone = page.meter.gone(service.name());
            let totals = Meter::sum(gone, own.iter().map(|row| row.totals));
            (service.name(), own, totals)
        })
        .collect();
    let mut backends = text.family(&f::SERVICE_BACKENDS);
    for (service, own, _) in &each {
        for state in STATES {
            let states = own.iter().filter_map(|row| row.built);
            let count = states.filter(|built| built.state == state).count();
            backends.put([service, state.as_str()], count);
        }
    }
    let mut flows = text.family(&f::SERVICE_FLOWS);
    for (service, _, totals) in &each {
        flows.put([service], totals.flows);
    }
    let mut packets = text.family(&f::SERVICE_PACKETS);
    for (service, _, totals) in &each {
        packets.put([service, "request"], totals.packets);
        packets.put([service, "reply"], totals.reply_packets);
    }
    let mut bytes = text.family(&f::SERVICE_BYTES);
    for (service, _, totals) in &each {
        bytes.put([service, "request"], totals.bytes);
        bytes.put([service, "reply"], totals.reply_bytes);
    }
    let mut checks = text.family(&f::CHECK_SECONDS);
    for checked in page.checks.each() {
        let labels = [&*checked.service, checked.kind];
        latency(&mut checks, labels, &checked.latency);
    }
}

fn of_backends(text: &mut Exposition, rows: &[Row<'_>]) {
    let built = || rows.iter().filter_map(|row| Some((row, row.built?)));
    let mut up = text.family(&f::BACKEND_UP);
    for (row, built) in built() {
        up.put(row.labels(), u8::from(built.state == BackendState::Up));
    }
    let mut state = text.family(&f::BACKEND_STATE);
    for (row, built) in built() {
        let [service, backend] = row.labels();
        state.put([service, backend, built.state.as_str()], 1);
    }
    let mut reachable = text.family(&f::BACKEND_REACHABLE);
    for (row, built) in built() {
        reachable.put(row.labels(), u8::from(built.hop.is_ok()));
    }
    let mut weight = text.family(&f::BACKEND_WEIGHT);
    for (row, built) in built() {
        let now = f64::from(built.weight) / f64::from(row.scale);
        weight.put(row.labels(), now);
    }
    let mut active = text.family(&f::BACKEND_ACTIVE);
    for row in rows {
        active.put(row.labels(), row.active);
    }
    let mut flows = text.family(&f::BACKEND_FLOWS);
    for row in rows {
        flows.put(row.labels(), row.totals.flows);
    }
    let mut packets = text.family(&f::BACKEND_PACKETS);
    for row in rows {
        let [service, backend] = row.labels();
        packets.put([service, backend, "request"], row.totals.packets);
        packets.put([service, backend, "reply"], row.totals.reply_packets);
    }
    let mut bytes = text.family(&f::BACKEND_BYTES);
    for row in rows {
        let [service, backend] = row.labels();
        bytes.put([service, backend, "request"], row.totals.bytes);
        bytes.put([service, backend, "reply"], row.totals.reply_bytes);
    }
}

fn of_checks(text: &mut Exposition, rows: &[Row<'_>]) {
    let checked = || rows.iter().filter_map(|row| Some((row, row.check?)));
    let mut up = text.family(&f::CHECK_UP);
    for (row, report) in checked() {
        up.put(
            row.labels(),
            u8::from(matches!(report.state, State::Up | State::Suspect)),
        );
    }
    let mut state = text.family(&f::CHECK_STATE);
    for (row, report) in checked() {
        let [service, backend] = row.labels();
        state.put([service, backend, &report.state.to_string()], 1);
    }
    let mut results = text.family(&f::CHECK_RESULTS);
    for (row, report) in checked() {
        let [service, backend] = row.labels();
        results.put([service, backend, "success"], report.successes);
        results.put([service, backend, "failure"], report.failures);
        results.put([service, backend, "inconclusive"], report.inconclusive);
    }
}
