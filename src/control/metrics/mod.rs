//! What collectors of metrics are told: everything that `status` counts, as Prometheus text or OpenMetrics.
//!
//! [`render`] goes once over what a [`Page`] shows and writes as it goes: nothing is kept from one time to
//! the next, nothing is added up on the packet path. So counters agree with `status` and only grow.
//!
//! Labels have bounded sets of values: names and numbers of the configuration, and words of the code.
//! docs/METRICS.md says how many series that makes.
//!
//! | file | owns |
//! |---|---|
//! | [`families`] | names, types, labels |
//! | [`exposition`] | the text format |
//! | [`services`] | services and backends |

pub(crate) mod exposition;
mod families;
mod services;

use std::time::Duration;

use ringgate_dataplane::counters::{Counter, InterfaceCounters, WorkerCounters};
use ringgate_dataplane::residence::{BOUNDS_NS, Measured};
use ringgate_dataplane::verdict::DropReason;
use serde_json::Value;

use super::latency::Latency;
use super::status::Page;
use exposition::{Exposition, Family, Format, Series};
use families as f;

/// Bounds of the exported histograms of the control thread: turns of its loop and checks. Ascending.
const BOUNDS: [Duration; 14] = [
    Duration::from_micros(20),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(200),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// The whole text.
pub(crate) fn render(page: &Page<'_>, format: Format) -> Vec<u8> {
    let workers = page.plane.counters();
    let mut text = Exposition::new(format);
    process(&mut text, page);
    flows(&mut text, page, &workers);
    of_workers(&mut text, page, &workers);
    interfaces(&mut text, page, &workers);
    services::write(&mut text, page, &workers);
    text.into_bytes()
}

fn process(text: &mut Exposition, page: &Page<'_>) {
    text.family(&f::BUILD).put([env!("CARGO_PKG_VERSION")], 1);
    let uptime = Duration::from_millis(page.uptime_ms).as_secs_f64();
    text.family(&f::UPTIME).put([], uptime);
    let generation = page.snapshot.generation;
    text.family(&f::GENERATION).put([], generation);
    let draining = u8::from(page.snapshot.draining);
    text.family(&f::DRAINING).put([], draining);
    text.family(&f::CONTROL).put([&page.driver.to_string()], 1);
    text.family(&f::OPERATIONS).put([], page.operations);
    latency(&mut text.family(&f::TURNS), [], page.turns);
    let mut network = text.family(&f::NETWORK);
    let sizes = page.watcher.network().sizes();
    for (table, size) in ["links", "addresses", "routes", "neighbours"]
        .into_iter()
        .zip(sizes)
    {
        network.put([table], size);
    }
    let mut netlink = text.family(&f::NETLINK);
    for (event, count) in page.watcher.counters().named() {
        netlink.put([event], count);
    }
    true_path(text, page);
}

/// What is carried for checks that go the way of the traffic.
fn true_path(text: &mut Exposition, page: &Page<'_>) {
    let carried = page.truepath.carried();
    text.family(&f::PATH_CHECKS).put([], carried.checks);
    text.family(&f::PATH_WAITING).put([], carried.waiting);
    let mut packets = text.family(&f::PATH_PACKETS);
    for (fate, count) in [
        ("sent", carried.sent),
        ("unsent", carried.unsent),
        ("strays", carried.strays),
    ] {
        packets.put([fate], count);
    }
    let mut dropped = text.family(&f::PATH_DROPPED);
    for (reason, count) in carried.dropped {
        dropped.put([reason.name()], count);
    }
}

fn flows(text: &mut Exposition, page: &Page<'_>, workers: &[&WorkerCounters]) {
    let tables = page.plane.tables();
    let both = || [("flows", &tables.flows), ("half_open", &tables.half_open)];
    let mut entries = text.family(&f::FLOW_ENTRIES);
    for (name, table) in both() {
        entries.put([name], table.stored());
    }
    let mut capacity = text.family(&f::FLOW_CAPACITY);
    for (name, table) in both() {
        capacity.put([name], table.capacity());
    }
    let memory = tables.flows.memory_bytes() + tables.half_open.memory_bytes();
    text.family(&f::FLOW_MEMORY).put([], memory);
    let mut events = text.family(&f::FLOWS);
    for (index, worker) in workers.iter().enumerate() {
        for (event, counter) in worker.flows.named() {
            events.put([&index.to_string(), event], counter.get());
        }
    }
    text.family(&f::FLUSHED).put([], page.flushed);
    let told = &page.chronicle;
    let mut logged = text.family(&f::LOGGED);
    for (event, count) in [
        ("began", told.began),
        ("ended", told.ended),
        ("lost", told.lost),
    ] {
        logged.put([event], count);
    }
    text.family(&f::LOGGED_OPEN).put([], told.open);
    let mut ports = text.family(&f::SOURCE_PORTS);
    let sources = page.snapshot.sources().into_iter();
    for (address, usage) in sources.flat_map(|sources| sources.usage(page.now.seconds())) {
        let address = address.to_string();
        let free = usage.ports.saturating_sub(usage.held + usage.resting);
        ports.put([&address, "held"], usage.held);
        ports.put([&address, "resting"], usage.resting);
        ports.put([&address, "free"], free);
    }
    let named = workers.iter().map(|worker| worker.fragments.named());
    sums(&mut text.family(&f::FRAGMENTS), named);
    let capacity = page.plane.fragments().capacity();
    text.family(&f::FRAGMENT_CAPACITY).put([], capacity);
    let named = workers.iter().map(|worker| worker.icmp.named());
    sums(&mut text.family(&f::ICMP), named);
}

/// A series for each name, all workers together.
fn sums<'w, const N: usize>(
    series: &mut Series<'_>,
    workers: impl Iterator<Item = [(&'static str, &'w Counter); N]>,
) {
    let mut sums: Option<[(&str, u64); N]> = None;
    for counters in workers {
        let counts = counters.map(|(name, counter)| (name, counter.get()));
        let sums = sums.get_or_insert_with(|| counts.map(|(name, _)| (name, 0)));
        for (sum, (_, count)) in sums.iter_mut().zip(counts) {
            sum.1 += count;
        }
    }
    for (name, sum) in sums.into_iter().flatten() {
        series.put([name], sum);
    }
}

fn of_workers(text: &mut Exposition, page: &Page<'_>, workers: &[&WorkerCounters]) {
    let numbered = || {
        let names = (0..).map(|index: usize| index.to_string());
        names.zip(workers)
    };
    let mut info = text.family(&f::WORKER);
    for ((name, _), core) in numbered().zip(page.plane.cores()) {
        info.put([&name, &core.to_string()], 1);
    }
    let mut turns = text.family(&f::WORKER_TURNS);
    for (name, worker) in numbered() {
        turns.put([&name, "packets"], worker.turns.busy_turns.get());
        turns.put([&name, "nothing"], worker.turns.idle_turns.get());
    }
    let mut sleeps = text.family(&f::WORKER_SLEEPS);
    for (name, worker) in numbered() {
        sleeps.put([&name], worker.turns.sleeps.get());
    }
    let mut requests = text.family(&f::WORKER_REQUESTS);
    for (name, worker) in numbered() {
        requests.put([&name], worker.turns.requests_lost.get());
    }
    let mut residence = text.family(&f::RESIDENCE);
    for (name, worker) in numbered() {
        let mut measured = Measured::default();
        worker.residence.add_to(&mut measured);
        let mut up_to = 0;
        let classes = measured.classes.iter().zip(BOUNDS_NS);
        let classes = classes.map(|(count, bound)| {
            up_to += count;
            (Duration::from_nanos(bound).as_secs_f64(), up_to)
        });
        let sum = Duration::from_nanos(measured.nanoseconds).as_secs_f64();
        residence.histogram([&name], classes, measured.packets(), sum);
    }
}

fn interfaces(text: &mut Exposition, page: &Page<'_>, workers: &[&WorkerCounters]) {
    let ports = || page.plane.interfaces().iter().enumerate();
    let mut info = text.family(&f::INTERFACE);
    for (_, interface) in ports() {
        info.put([&interface.name, interface.mode], 1);
    }
    // What could not be read has no series.
    let steering = || ports().map(|(port, interface)| (interface, page.plane.steering(port)));
    let mut arrived = text.family(&f::ARRIVED);
    for (interface, counts) in steering() {
        if let Some(count) = counts["received"].as_u64() {
            arrived.put([&interface.name], count);
        }
    }
    let mut steered = text.family(&f::STEERING);
    for (interface, mut counts) in steering() {
        if let Some(counts) = counts.as_object_mut() {
            counts.remove("received");
        }
        objects(&mut steered, &interface.name, &counts);
    }
    for (family, of) in [
        (&f::RECEIVED, received as fn(&InterfaceCounters) -> &Counter),
        (&f::RECEIVED_BYTES, received_bytes),
        (&f::FORWARDED, forwarded),
        (&f::ANSWERED, answered),
    ] {
        each_worker(text, family, page, workers, of);
    }
    let mut dropped = text.family(&f::DROPPED);
    for (port, interface) in ports() {
        for reason in DropReason::ALL {
            let counters = workers.iter().filter_map(|w| w.interfaces.get(port));
            let sum: u64 = counters.map(|c| c.dropped(*reason)).sum();
            dropped.put([&interface.name, reason.name()], sum);
        }
    }
    let mut events = text.family(&f::PORT);
    for (port, interface) in ports() {
        let counts = page.plane.port_counters(port);
        objects(&mut events, &interface.name, &counts);
    }
    let mut events = text.family(&f::KERNEL);
    for (port, interface) in ports() {
        let counts = page.plane.kernel_counters(port);
        objects(&mut events, &interface.name, &counts);
    }
}

const fn received(counters: &InterfaceCounters) -> &Counter {
    &counters.received
}

const fn received_bytes(counters: &InterfaceCounters) -> &Counter {
    &counters.received_bytes
}

const fn forwarded(counters: &InterfaceCounters) -> &Counter {
    &counters.forwarded
}

const fn answered(counters: &InterfaceCounters) -> &Counter {
    &counters.answered
}

/// A series for each interface and worker.
fn each_worker(
    text: &mut Exposition,
    family: &'static Family,
    page: &Page<'_>,
    workers: &[&WorkerCounters],
    of: fn(&InterfaceCounters) -> &Counter,
) {
    let mut series = text.family(family);
    for (port, interface) in page.plane.interfaces().iter().enumerate() {
        for (index, worker) in workers.iter().enumerate() {
            if let Some(counters) = worker.interfaces.get(port) {
                let labels = [&*interface.name, &index.to_string()];
                series.put(labels, of(counters).get());
            }
        }
    }
}

/// A series for each number of an object that `status` has too.
fn objects(series: &mut Series<'_>, interface: &str, object: &Value) {
    for (name, count) in object.as_object().into_iter().flatten() {
        if let Some(count) = count.as_u64() {
            series.put([interface, name], count);
        }
    }
}

/// One histogram of the control thread.
fn latency<const N: usize>(series: &mut Series<'_>, labels: [&str; N], latency: &Latency) {
    let up_to = latency.up_to(&BOUNDS);
    let up_to = BOUNDS
        .iter()
        .zip(up_to)
        .map(|(bound, count)| (bound.as_secs_f64(), count));
    let (count, sum) = (latency.count(), latency.sum());
    series.histogram(labels, up_to, count, sum.as_secs_f64());
}
