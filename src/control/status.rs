//! What `status` tells, as JSON.
//!
//! Totals are the workers' own counters, summed here; nothing is added up on the packet path.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ringgate_config::Via;
use ringgate_dataplane::backend::{Backend, BackendId};
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::counters::{Counter, WorkerCounters};
use ringgate_dataplane::residence::Measured;
use ringgate_dataplane::service::Service;
use ringgate_dataplane::snapshot::{Snapshot, identities_of};
use ringgate_dataplane::verdict::DropReason;
use serde_json::{Map, Value, json};

use super::checks::spec_of;
use super::chronicle::Told;
use super::driver::DriverKind;
use super::health::{self, Checker, Report, Verdict};
use super::latency::{Checks, Latency};
use super::meter::Meter;
use super::netlink::Watcher;
use super::truepath::{self, TruePath};
use crate::plane::Plane;
use crate::reload::in_force::InForce;

/// Everything that the page is made from.
pub(crate) struct Page<'a> {
    /// The configuration file's path.
    pub(crate) config: &'a str,
    /// Where the configuration came from.
    pub(crate) in_force: &'a InForce,
    /// The configuration in force.
    pub(crate) model: &'a ringgate_config::Model,
    /// What holds and is not in the file.
    pub(crate) overlay: &'a ringgate_config::Overlay,
    /// The newest snapshot.
    pub(crate) snapshot: &'a Snapshot,
    /// The data plane.
    pub(crate) plane: &'a Plane,
    /// The checks.
    pub(crate) checker: &'a Checker,
    /// What carries those via services.
    pub(crate) truepath: &'a TruePath,
    /// The kernel's network.
    pub(crate) watcher: &'a Watcher,
    /// The rates.
    pub(crate) meter: &'a Meter,
    /// How long checks take.
    pub(crate) checks: &'a Checks,
    /// How long the control loop works in a turn.
    pub(crate) turns: &'a Latency,
    /// What drives control's I/O.
    pub(crate) driver: DriverKind,
    /// Operations that it is carrying out.
    pub(crate) operations: usize,
    /// Where the admin socket is.
    pub(crate) admin: &'a Path,
    /// Flows that operators flushed since the start.
    pub(crate) flushed: u64,
    /// What was told of flows.
    pub(crate) chronicle: Told,
    /// The time of flows and ports.
    pub(crate) now: Millis,
    /// The time of checks.
    pub(crate) at: Instant,
    /// Since the start.
    pub(crate) uptime_ms: u64,
}

impl std::fmt::Debug for Page<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Page<'_> {
    /// The answer of `GET /v1/status`.
    pub(crate) fn to_json(&self) -> Value {
        let workers = self.plane.counters();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_ms": self.uptime_ms,
            "config": self.config,
            "in_force": self.in_force.to_json(),
            "generation": self.snapshot.generation,
            "draining": self.snapshot.draining,
            "control": {
                "io": self.driver.to_string(),
                "admin": self.admin.display().to_string(),
                "operations": self.operations,
                "turn": latency(self.turns),
                "true_path": self.truepath.to_json(),
            },
            "process": crate::privileges::held(),
            "network": self.network(),
            "flows": self.flows(&workers),
            "icmp": icmp(&workers),
            "sources": self.sources(),
            "fragments": self.fragments(&workers),
            "interfaces": self.interfaces(&workers),
            "workers": self.workers(&workers),
            "unsaved": self.overlay.len(),
            "services": self.services(None),
        })
    }

    /// The answer of `GET /v1/counters`.
    pub(crate) fn counters(&self) -> Value {
        let workers = self.plane.counters();
        json!({
            "uptime_ms": self.uptime_ms,
            "flows": self.flows(&workers),
            "icmp": icmp(&workers),
            "fragments": self.fragments(&workers),
            "interfaces": self.interfaces(&workers),
            "workers": self.workers(&workers),
        })
    }

    fn network(&self) -> Value {
        let [links, addresses, routes, neighbours] = self.watcher.network().sizes();
        let mut page = json!({
            "links": links,
            "addresses": addresses,
            "routes": routes,
            "neighbours": neighbours,
        });
        for (name, count) in self.watcher.counters().named() {
            page[name] = count.into();
        }
        page
    }

    /// The way to a backend as the kernel sees it; `null` where there is none.
    fn next_hop(&self, address: IpAddr, built: Option<&Backend>) -> Value {
        let network = self.watcher.network();
        network.next_hop(address).map_or(Value::Null, |hop| {
            let source = self.snapshot.fib().source_for(address);
            let way = built.and_then(|backend| backend.hop.ok());
            json!({
                "interface": network.link_by_index(hop.ifindex).map(|link| link.name.clone()),
                "neighbour": hop.neighbour.to_string(),
                "source": source.map(|source| source.to_string()),
                "mtu": way.map(|hop| hop.mtu),
                "vlan": way.map(|hop| hop.tags.ids().collect::<Vec<u16>>()),
            })
        })
    }

    /// The addresses that flows come from, and their ports.
    fn sources(&self) -> Value {
        let usage = self.snapshot.sources().into_iter();
        let usage = usage.flat_map(|sources| sources.usage(self.now.seconds()));
        usage
            .map(|(address, usage)| {
                json!({
                    "address": address.to_string(),
                    "held": usage.held,
                    "resting": usage.resting,
                    "ports": usage.ports,
                })
            })
            .collect()
    }

    fn flows(&self, workers: &[&WorkerCounters]) -> Value {
        let sum = |of: fn(&WorkerCounters) -> &Counter| -> u64 {
            workers.iter().map(|worker| of(worker).get()).sum()
        };
        let tables = self.plane.tables();
        json!({
            "capacity": tables.flows.capacity(),
            "stored": tables.flows.stored(),
            "memory_bytes": tables.flows.memory_bytes() + tables.half_open.memory_bytes(),
            "map": self.plane.flow_map_id(),
            "created": sum(|worker| &worker.flows.created),
            "expired": sum(|worker| &worker.flows.expired),
            "flushed": self.flushed,
            "rehashed": sum(|worker| &worker.flows.rehashed),
            "table_full": sum(|worker| &worker.flows.table_full),
            "contended": sum(|worker| &worker.flows.contended),
            "out_of_window": sum(|worker| &worker.flows.out_of_window),
            "too_fast": sum(|worker| &worker.flows.too_fast),
            "half_open_capacity": tables.half_open.capacity(),
            "half_open_stored": tables.half_open.stored(),
            "half_open": sum(|worker| &worker.flows.half_open),
            "half_open_displaced": sum(|worker| &worker.flows.half_open_displaced),
            "half_open_expired": sum(|worker| &worker.flows.half_open_expired),
            "log": {
                "one_in": self.chronicle.every,
                "capacity": self.chronicle.capacity,
                "open": self.chronicle.open,
                "began": self.chronicle.began,
                "ended": self.chronicle.ended,
                "lost": self.chronicle.lost,
            },
        })
    }

    fn fragments(&self, workers: &[&WorkerCounters]) -> Value {
        let sum = |of: fn(&WorkerCounters) -> &Counter| -> u64 {
            workers.iter().map(|worker| of(worker).get()).sum()
        };
        let table = self.plane.fragments();
        json!({
            "capacity": table.capacity(),
            "memory_bytes": table.memory_bytes(),
            "first": sum(|worker| &worker.fragments.first),
            "followed": sum(|worker| &worker.fragments.followed),
            "held": sum(|worker| &worker.fragments.held),
            "displaced": sum(|worker| &worker.fragments.displaced),
            "unplaced": sum(|worker| &worker.fragments.unplaced),
        })
    }

    fn interfaces(&self, workers: &[&WorkerCounters]) -> Value {
        let pages = self
            .plane
            .interfaces()
            .iter()
            .enumerate()
            .map(|(port, interface)| {
                let counters = || {
                    workers
                        .iter()
                        .filter_map(|worker| worker.interfaces.get(port))
                };
                let dropped: Map<String, Value> = DropReason::ALL
                    .iter()
                    .map(|reason| {
                        let count: u64 = counters().map(|c| c.dropped(*reason)).sum();
                        (reason.name().to_owned(), count.into())
                    })
                    .collect();
                let total: u64 = dropped.values().filter_map(Value::as_u64).sum();
                let sum = |of: fn(&ringgate_dataplane::counters::InterfaceCounters) -> &Counter| {
                    counters().map(|counters| of(counters).get()).sum::<u64>()
                };
                json!({
                    "name": interface.name,
                    "mode": interface.mode,
                    "steering": self.plane.steering(port),
                    "received": sum(|c| &c.received),
                    "received_bytes": sum(|c| &c.received_bytes),
                    "forwarded": sum(|c| &c.forwarded),
                    "answered": sum(|c| &c.answered),
                    "dropped_total": total,
                    "dropped": dropped,
                    "port": self.plane.port_counters(port),
                    "kernel": self.plane.kernel_counters(port),
                })
            });
        pages.collect()
    }

    fn workers(&self, workers: &[&WorkerCounters]) -> Value {
        let cores = self.plane.cores();
        let pages = workers
            .iter()
            .zip(cores)
            .enumerate()
            .map(|(index, (worker, core))| {
                json!({
                    "index": index,
                    "core": core,
                    "busy_turns": worker.turns.busy_turns.get(),
                    "idle_turns": worker.turns.idle_turns.get(),
                    "sleeps": worker.turns.sleeps.get(),
                    "requests_lost": worker.turns.requests_lost.get(),
                    "residence": residence(worker),
                })
            });
        pages.collect()
    }

    /// All services, or the one of this name.
    pub(crate) fn services(&self, name: Option<&str>) -> Value {
        let workers = &*self.plane.counters();
        let services = self.model.services().iter().zip(self.snapshot.services());
        let meant = services.filter(|(service, _)| name.is_none_or(|name| name == service.name()));
        let pages = meant.map(|(service, built)| {
            let backends: Vec<Value> = service
                .backends()
                .iter()
                .zip(identities_of(service))
                .zip(&built.members)
                .map(|((backend, _), id)| self.backend((service, built), backend, *id, workers))
                .collect();
            json!({
                "name": service.name(),
                "listen": service.listen().to_string(),
                "protocol": service.protocol().as_str(),
                "forward": service.forward().as_str(),
                "choose": service.choose().as_str(),
                "when_empty": service.when_empty().as_str(),
                "min_healthy": service.min_healthy().map(|least| least.to_string()),
                "when_below": service.min_healthy().map(|_| service.when_below().as_str()),
                "healthy": built.healthy,
                "needs_healthy": built.needs_healthy,
                "fallen_open": built.fallen_open,
                "fallen_closed": built.fallen_closed,
                "trusts_suspects": built.trusts_suspects,
                "slow_start_ms": service.slow_start().as_millis(),
                "check": self.checks.of(service.name()).map(|checked| {
                    json!({ "kind": checked.kind, "took": latency(&checked.latency) })
                }),
                "backends": backends,
            })
        });
        pages.collect()
    }

    fn backend(
        &self,
        (service, as_built): (&ringgate_config::Service, &Service),
        backend: &ringgate_config::Backend,
        id: BackendId,
        workers: &[&WorkerCounters],
    ) -> Value {
        let (built, scale) = (self.snapshot.backend(id), as_built.weight_scale);
        let totals = self.meter.totals(id, workers);
        let (packets, bits) = self.meter.rates(id);
        let check = spec_of(service, backend).and_then(|spec| {
            let report = self.checker.report(&spec)?;
            Some(check_json(&report, spec.path, self.at))
        });
        json!({
            "address": backend.name(),
            "forward": backend.forward().as_str(),
            "weight": backend.weight(),
            "effective_weight": built.map(|built| f64::from(built.weight) / f64::from(scale)),
            "state": built.map(|backend| backend.state.as_str()),
            "next_hop": self.next_hop(backend.address().ip(), built),
            "reachable": built.is_some_and(|backend| backend.hop.is_ok()),
            "unsaved": self
                .overlay
                .of(service.name(), backend.address())
                .map(|unsaved| unsaved.to_string()),
            "check": check,
            "flows": totals.flows,
            "flows_now": self.plane.tables().flows.flows_of(id.0),
            "packets": totals.packets,
            "bytes": totals.bytes,
            "reply_packets": totals.reply_packets,
            "reply_bytes": totals.reply_bytes,
            "syns": totals.openings.syns,
            "syn_acks": totals.openings.syn_acks,
            "refusals": totals.openings.refusals,
            "packets_per_second": packets,
            "bits_per_second": bits,
        })
    }
}

/// What is known of a backend from its check.
fn check_json(report: &Report, path: Option<truepath::Path>, now: Instant) -> Value {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    json!({
        "state": report.state.to_string(),
        "via": path.map_or(Via::Backend, |_| Via::Service).as_str(),
        "asked": path.map(|path| path.asked.to_string()),
        "since_ms": millis(now.saturating_duration_since(report.since)),
        "held_ms": report.held_until.map(|until| millis(until.saturating_duration_since(now))),
        "reported": report.told.map(|(told, _)| match told {
            health::Told::Up => "up",
            health::Told::Down => "down",
        }),
        "reported_ms_ago": report.told.map(|(_, at)| millis(now.saturating_duration_since(at))),
        "last": report.last.map(|last| match last {
            Verdict::Success => "answered".to_owned(),
            Verdict::Failure(reason) => reason.to_string(),
            Verdict::Inconclusive(errno) => format!("this host could not ask: {errno}"),
            Verdict::Unseen => "time was up while the balancer was held up itself".to_owned(),
        }),
        "latency_us": report.latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
        "successes": report.successes,
        "failures": report.failures,
        "inconclusive": report.inconclusive,
    })
}

/// How long things took, in microseconds: within what time half of them were done, and all but one in a
/// hundred. `null` before there was one.
fn latency(latency: &Latency) -> Value {
    let micros = |part| Some(latency.quantile(part)?.as_micros());
    json!({ "count": latency.count(), "p50_us": micros(0.5), "p99_us": micros(0.99) })
}

/// The same of packets with a worker, of those that were measured; in nanoseconds.
fn residence(worker: &WorkerCounters) -> Value {
    let mut measured = Measured::default();
    worker.residence.add_to(&mut measured);
    let nanoseconds = |per_mille| measured.quantile(per_mille);
    json!({
        "packets": measured.packets(),
        "p50_ns": nanoseconds(500),
        "p99_ns": nanoseconds(990),
    })
}

/// What all workers did in ICMP.
fn icmp(workers: &[&WorkerCounters]) -> Value {
    let mut sums = Map::new();
    for worker in workers {
        for (name, counter) in worker.icmp.named() {
            let before = sums.get(name).and_then(Value::as_u64).unwrap_or(0);
            sums.insert(name.to_owned(), (before + counter.get()).into());
        }
    }
    sums.into()
}
