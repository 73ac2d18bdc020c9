//! What `top` can show, and each of it as a sheet made from two samples.

use super::sample::{Backend, Interface, Sample, Service, Span, Worker};
use super::sheet::{Cell, Column, Mood, Order, Row, Sheet, Unit, numbers, words};

/// One screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    /// All services.
    Services,
    /// The backends of one service.
    Backends(String),
    /// All workers.
    Workers,
    /// All interfaces.
    Interfaces,
    /// What was dropped, by reason; of one interface, or of all.
    Drops(Option<String>),
}

static SERVICES: [Column; 9] = [
    words("service", 8),
    words("listen", 8),
    words("mode", 9),
    numbers("up", 9),
    numbers("flows", 9),
    numbers("new/s", 9),
    numbers("packets/s", 10),
    numbers("bits/s", 9),
    numbers("check p99", 10),
];

static BACKENDS: [Column; 9] = [
    words("backend", 8),
    words("state", 9),
    numbers("weight", 9),
    numbers("flows", 9),
    numbers("new/s", 9),
    numbers("packets/s", 10),
    numbers("replies/s", 10),
    numbers("bits/s", 9),
    words("check", 8),
];

static WORKERS: [Column; 7] = [
    words("worker", 8),
    numbers("cpu", 5),
    numbers("busy turns", 11),
    numbers("turns/s", 10),
    numbers("sleeps/s", 10),
    numbers("stay p50", 10),
    numbers("stay p99", 10),
];

static INTERFACES: [Column; 9] = [
    words("interface", 10),
    words("mode", 9),
    numbers("received/s", 11),
    numbers("bits/s", 9),
    numbers("forwarded/s", 12),
    numbers("answered/s", 11),
    numbers("dropped/s", 10),
    numbers("lost/s", 9),
    numbers("sent/s", 9),
];

static DROPS: [Column; 4] = [
    words("reason", 20),
    words("interface", 10),
    numbers("per second", 12),
    numbers("in total", 10),
];

/// The four that a digit leads to, in that order.
pub(super) const MAIN: [(View, &str); 4] = [
    (View::Services, "services"),
    (View::Workers, "workers"),
    (View::Interfaces, "interfaces"),
    (View::Drops(None), "drops"),
];

impl View {
    /// Which of [`MAIN`] it belongs to.
    pub(super) const fn main(&self) -> usize {
        match self {
            Self::Services | Self::Backends(_) => 0,
            Self::Workers => 1,
            Self::Interfaces => 2,
            Self::Drops(_) => 3,
        }
    }

    /// Its place among kinds of screens: what the order is remembered for.
    pub(super) const fn kind(&self) -> usize {
        match self {
            Self::Services => 0,
            Self::Backends(_) => 1,
            Self::Workers => 2,
            Self::Interfaces => 3,
            Self::Drops(_) => 4,
        }
    }

    /// How each kind is sorted at first: by name, but the drops, where what happens is above.
    pub(super) const fn first_orders() -> [Order; 5] {
        let by_name = Order {
            column: 0,
            is_reversed: false,
        };
        let by_rate = Order {
            column: 2,
            is_reversed: true,
        };
        [by_name, by_name, by_name, by_name, by_rate]
    }

    /// The screen that a row leads to.
    pub(super) fn behind(&self, row: &str) -> Option<Self> {
        match self {
            Self::Services => Some(Self::Backends(row.to_owned())),
            Self::Interfaces => Some(Self::Drops(Some(row.to_owned()))),
            Self::Backends(_) | Self::Workers | Self::Drops(_) => None,
        }
    }

    /// The screen that this one was reached from.
    pub(super) const fn out(&self) -> Option<Self> {
        match self {
            Self::Backends(_) => Some(Self::Services),
            Self::Drops(Some(_)) => Some(Self::Interfaces),
            _ => None,
        }
    }

    /// What it shows.
    pub(super) fn sheet(&self, span: Span<'_>) -> Sheet {
        let (title, columns, rows) = match self {
            Self::Services => (
                "services".to_owned(),
                &SERVICES[..],
                each(&span.now.services, |service| of_service(service, span)),
            ),
            Self::Backends(name) => {
                let service = span.now.service(name);
                let backends = service.map_or(&[][..], |service| &service.backends);
                let rows = each(backends, |backend| of_backend(name, backend, span));
                (title_of(name, service), &BACKENDS[..], rows)
            }
            Self::Workers => (
                "workers".to_owned(),
                &WORKERS[..],
                each(&span.now.workers, |worker| of_worker(worker, span)),
            ),
            Self::Interfaces => (
                "interfaces".to_owned(),
                &INTERFACES[..],
                each(&span.now.interfaces, |one| of_interface(one, span)),
            ),
            Self::Drops(only) => {
                let title = match only {
                    Some(name) => format!("drops of {name}"),
                    None => "drops".to_owned(),
                };
                (title, &DROPS[..], drops(only.as_deref(), span))
            }
        };
        Sheet {
            title,
            columns,
            rows,
        }
    }
}

fn each<T>(things: &[T], row: impl Fn(&T) -> Row) -> Vec<Row> {
    things.iter().map(row).collect()
}

/// A service in a title.
fn title_of(name: &str, service: Option<&Service>) -> String {
    let Some(service) = service else {
        return format!("{name}: there is no such service any more");
    };
    let check = match &service.check {
        Some(check) => format!(", checked by {}", check.kind),
        None => ", not checked".to_owned(),
    };
    let open = if service.fallen_open {
        ", fallen open: no backend is up"
    } else {
        ""
    };
    let Service {
        protocol,
        listen,
        forward,
        ..
    } = service;
    format!("{name}: {protocol} {listen}, {forward}{check}{open}")
}

fn of_service(service: &Service, span: Span<'_>) -> Row {
    let rate = |of: fn(&Backend) -> u64| {
        Cell::rate(span.rate(|sample| Some(sample.service(&service.name)?.sum(of))))
    };
    let state = |backend: &&Backend| backend.state.as_deref() == Some("up");
    let up = service.backends.iter().filter(state).count() as u64;
    let all = service.backends.len() as u64;
    let check = service.check.as_ref().and_then(|check| check.took.p99_us);
    Row {
        id: service.name.clone(),
        cells: vec![
            Cell::word(&service.name),
            Cell::word(format!("{} {}", service.protocol, service.listen)),
            Cell::word(&service.forward),
            Cell::Of(up, all),
            Cell::count(service.sum(|backend| backend.flows_now)),
            rate(|backend| backend.flows),
            rate(Backend::all_packets),
            rate(Backend::all_bits),
            Cell::nanoseconds(check.map(|micros| micros * 1000)),
        ],
        mood: match up {
            0 => Mood::Bad,
            up if up < all => Mood::Doubtful,
            _ => Mood::Good,
        },
    }
}

fn of_backend(service: &str, backend: &Backend, span: Span<'_>) -> Row {
    let rate = |of: fn(&Backend) -> u64| {
        let find = |sample: &Sample| {
            let backend = sample.service(service)?.backend(&backend.address)?;
            Some(of(backend))
        };
        Cell::rate(span.rate(find))
    };
    let state = backend.state.clone().unwrap_or_else(|| "-".to_owned());
    let check = match &backend.check {
        Some(check) => check.last.clone().unwrap_or_else(|| "not yet".to_owned()),
        None => "not checked".to_owned(),
    };
    let way = if backend.reachable {
        ""
    } else {
        "no way there (route, neighbour); "
    };
    Row {
        id: backend.address.clone(),
        mood: match (state.as_str(), backend.reachable) {
            ("up", true) => Mood::Good,
            ("down", _) => Mood::Bad,
            _ => Mood::Doubtful,
        },
        cells: vec![
            Cell::word(&backend.address),
            Cell::word(state),
            Cell::rate(backend.effective_weight),
            Cell::count(backend.flows_now),
            rate(|backend| backend.flows),
            rate(|backend| backend.packets),
            rate(|backend| backend.reply_packets),
            rate(Backend::all_bits),
            Cell::word(format!("{way}{check}")),
        ],
    }
}

fn of_worker(worker: &Worker, span: Span<'_>) -> Row {
    let rate = |of: fn(&Worker) -> u64| {
        let is_it = |one: &&Worker| one.index == worker.index;
        span.rate(move |sample| sample.workers.iter().find(is_it).map(of))
    };
    let (busy, idle) = (rate(|w| w.busy_turns), rate(|w| w.idle_turns));
    let turns = busy.zip(idle).map(|(busy, idle)| busy + idle);
    let share = busy
        .zip(turns)
        .filter(|(_, turns)| *turns > 0.0)
        .map(|(busy, turns)| busy / turns);
    Row {
        id: worker.index.to_string(),
        cells: vec![
            Cell::word(worker.index.to_string()),
            Cell::count(worker.core),
            Cell::Number(share, Unit::Share),
            Cell::rate(turns),
            Cell::rate(rate(|worker| worker.sleeps)),
            Cell::nanoseconds(worker.residence.p50_ns),
            Cell::nanoseconds(worker.residence.p99_ns),
        ],
        // No idle turn in a second: it is at its limit.
        mood: match share {
            Some(share) if share > 0.95 => Mood::Bad,
            Some(share) if share > 0.8 => Mood::Doubtful,
            _ => Mood::Good,
        },
    }
}

/// An interface's number in a sample.
fn at(sample: &Sample, name: &str, of: impl Fn(&Interface) -> u64) -> Option<u64> {
    let interface = sample.interfaces.iter().find(|one| one.name == name);
    interface.map(of)
}

fn of_interface(interface: &Interface, span: Span<'_>) -> Row {
    let rate = |of: fn(&Interface) -> u64| span.rate(|sample| at(sample, &interface.name, of));
    let sent = |interface: &Interface| interface.port.get("transmitted").copied().unwrap_or(0);
    let (dropped, lost) = (
        rate(|one| one.dropped_total),
        rate(Interface::lost_by_kernel),
    );
    Row {
        id: interface.name.clone(),
        mood: match (lost, dropped) {
            (Some(lost), _) if lost > 0.0 => Mood::Bad,
            (_, Some(dropped)) if dropped > 0.0 => Mood::Doubtful,
            _ => Mood::Good,
        },
        cells: vec![
            Cell::word(&interface.name),
            Cell::word(&interface.mode),
            Cell::rate(rate(|one| one.received)),
            Cell::rate(rate(|one| one.received_bytes * 8)),
            Cell::rate(rate(|one| one.forwarded)),
            Cell::rate(rate(|one| one.answered)),
            Cell::rate(dropped),
            Cell::rate(lost),
            Cell::rate(rate(sent)),
        ],
    }
}

/// A row for each reason that something was dropped for, and each way in which the kernel lost something.
fn drops(only: Option<&str>, span: Span<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    let interfaces = span.now.interfaces.iter();
    for interface in interfaces.filter(|one| only.is_none_or(|only| one.name == only)) {
        let workers = interface.dropped.iter().map(|(reason, count)| {
            let now = |one: &Interface| one.dropped.get(reason).copied().unwrap_or(0);
            let rate = span.rate(|sample| at(sample, &interface.name, now));
            (reason.clone(), *count, rate, Mood::Doubtful)
        });
        let lost = span.rate(|sample| at(sample, &interface.name, Interface::lost_by_kernel));
        let kernel = (
            "(lost by the kernel)".to_owned(),
            interface.lost_by_kernel(),
            lost,
            Mood::Bad,
        );
        for (reason, count, rate, mood) in workers.chain([kernel]) {
            if count == 0 {
                continue;
            }
            let goes_on = rate.is_some_and(|rate| rate > 0.0);
            rows.push(Row {
                id: format!("{reason} {}", interface.name),
                cells: vec![
                    Cell::word(reason),
                    Cell::word(&interface.name),
                    Cell::rate(rate),
                    Cell::count(count),
                ],
                mood: if goes_on { mood } else { Mood::Good },
            });
        }
    }
    rows
}
