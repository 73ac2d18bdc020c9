//! What backends and services have been sent: totals and rates, from the workers' counters.
//!
//! Workers count by slot, and slots are used again: a backend's totals count from when it first
//! appeared. A service's totals never fall: what a backend had that a reload took away stays in them.

use std::sync::Arc;
use std::time::Instant;

use ringgate_dataplane::backend::BackendId;
use ringgate_dataplane::counters::WorkerCounters;
use ringgate_dataplane::service::Service;
use ringgate_dataplane::snapshot::Snapshot;
use rustc_hash::FxHashMap;

use super::signs::Openings;

/// What a backend has been sent and has sent: totals of all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Flows given to it.
    pub(crate) flows: u64,
    /// Packets to it.
    pub(crate) packets: u64,
    /// Bytes to it.
    pub(crate) bytes: u64,
    /// Packets from it.
    pub(crate) reply_packets: u64,
    /// Bytes from it.
    pub(crate) reply_bytes: u64,
    /// How connections to it began.
    pub(crate) openings: Openings,
}

impl Totals {
    fn of(id: BackendId, workers: &[&WorkerCounters]) -> Self {
        let mut totals = Self {
            openings: Openings::of(id, workers),
            ..Self::default()
        };
        for counters in workers.iter().filter_map(|worker| worker.backend(id)) {
            totals.flows += counters.flows.get();
            totals.packets += counters.packets.get();
            totals.bytes += counters.bytes.get();
            totals.reply_packets += counters.reply_packets.get();
            totals.reply_bytes += counters.reply_bytes.get();
        }
        totals
    }

    const fn since(&self, before: &Self) -> Self {
        Self {
            flows: self.flows.wrapping_sub(before.flows),
            packets: self.packets.wrapping_sub(before.packets),
            bytes: self.bytes.wrapping_sub(before.bytes),
            reply_packets: self.reply_packets.wrapping_sub(before.reply_packets),
            reply_bytes: self.reply_bytes.wrapping_sub(before.reply_bytes),
            openings: self.openings.since(before.openings),
        }
    }

    const fn and(&self, more: &Self) -> Self {
        Self {
            flows: self.flows.wrapping_add(more.flows),
            packets: self.packets.wrapping_add(more.packets),
            bytes: self.bytes.wrapping_add(more.bytes),
            reply_packets: self.reply_packets.wrapping_add(more.reply_packets),
            reply_bytes: self.reply_bytes.wrapping_add(more.reply_bytes),
            openings: self.openings.and(more.openings),
        }
    }
}

/// A backend's service, and where the counters of its slot stood when it got it.
#[derive(Debug)]
struct Base {
    service: Arc<str>,
    totals: Totals,
}

/// Remembers where counters stood: when a backend got its slot, and at the last sample.
#[derive(Debug)]
pub(crate) struct Meter {
    bases: FxHashMap<BackendId, Base>,
    followed: Option<Arc<Snapshot>>,
    /// What backends had that are gone, by service.
    gone: FxHashMap<Arc<str>, Totals>,
    last: FxHashMap<BackendId, Totals>,
    sampled: Instant,
    rates: FxHashMap<BackendId, (u64, u64)>,
}

impl Meter {
    /// Nothing measured yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            bases: FxHashMap::default(),
            followed: None,
            gone: FxHashMap::default(),
            last: FxHashMap::default(),
            sampled: now,
            rates: FxHashMap::default(),
        }
    }

    /// A new snapshot is about to be published: backends that appear with it start at zero, and what
    /// those had that are gone stays with their service, as long as there is one of that name.
    pub(crate) fn follow(&mut self, snapshot: &Arc<Snapshot>, workers: &[&WorkerCounters]) {
        let last = self.followed.replace(Arc::clone(snapshot));
        let (before, services) = (
            last.as_ref().map_or(&[][..], |last| last.services()),
            snapshot.services(),
        );
        // Most snapshots have the same backends as the last.
        let is_in = |services: &[Service], at: usize, one: &Service| {
            let other = services.get(at);
            other.is_some_and(|other| other.name == one.name && other.members == one.members)
        };
        let others = before.iter().enumerate();
        let others = others.filter(|(at, one)| !is_in(services, *at, one));
        for id in others.flat_map(|(_, service)| &service.members) {
            if snapshot.backend(*id).is_none()
                && let Some(base) = self.bases.remove(id)
            {
                let had = Totals::of(*id, workers).since(&base.totals);
                let sum = self.gone.entry(base.service).or_default();
                *sum = sum.and(&had);
            }
        }
        let mut names = rustc_hash::FxHashSet::default();
        for (at, service) in services.iter().enumerate() {
            names.insert(&service.name);
            if is_in(before, at, service) {
                continue;
            }
            for id in &service.members {
                let base = self.bases.entry(*id).or_insert_with(|| Base {
                    service: Arc::clone(&service.name),
                    totals: Totals::of(*id, workers),
                });
                // The same endpoints may have got another name.
                if base.service != service.name {
                    base.service = Arc::clone(&service.name);
                }
            }
        }
        self.gone.retain(|name, _| names.contains(name));
    }

    /// What this backend has had since it appeared.
    pub(crate) fn totals(&self, id: BackendId, workers: &[&WorkerCounters]) -> Totals {
        let base = self.bases.get(&id);
        Totals::of(id, workers).since(&base.map(|base| base.totals).unwrap_or_default())
    }

    /// What backends of this service had that are gone.
    pub(crate) fn gone(&self, service: &str) -> Totals {
        self.gone.get(service).copied().unwrap_or_default()
    }

    /// What a service has had: its backends' totals, with those of the ones that are gone.
    pub(crate) fn sum(gone: Totals, backends: impl Iterator<Item = Totals>) -> Totals {
        backends.fold(gone, |sum, totals| sum.and(&totals))
    }

    /// Packets and bits a second of this backend, both ways, when last measured.
    pub(crate) fn rates(&self, id: BackendId) -> (u64, u64) {
        self.rates.get(&id).copied().unwrap_or_default()
    }

    /// Measures rates since the last sample. To be called about once a second.
    pub(crate) fn sample(
        &mut self,
        snapshot: &Snapshot,
        workers: &[&WorkerCounters],
        now: Instant,
    ) {
        let millis = u64::try_from((now - self.sampled).as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.sampled = now;
        let mut last = FxHashMap::default();
        self.rates.clear();
        for id in snapshot
            .services()
            .iter()
            .flat_map(|service| service.members.iter().copied())
        {
            let totals = Totals::of(id, workers);
            if let Some(before) = self.last.get(&id) {
                let moved = totals.since(before);
                let packets = moved.packets + moved.reply_packets;
                let bits = (moved.bytes + moved.reply_bytes) * 8;
                self.rates
                    .insert(id, (packets * 1000 / millis, bits * 1000 / millis));
            }
            last.insert(id, totals);
        }
        self.last = last;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ringgate_dataplane::backend::Health;
    use ringgate_dataplane::route::Fib;
    use ringgate_dataplane::snapshot::Builder;

    use super::super::clock::now;
    use super::*;

    /// A snapshot of a service with these backends.
    fn snapshot(builder: &mut Builder, name: &str, backends: &[&str]) -> Arc<Snapshot> {
        let mut text = format!(
            "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"{name}\"\n\
             listen = \"10.100.0.1:80\"\nprotocol = \"tcp\"\nforward = \"nat\"\ntable-size = 251\n"
        );
        for backend in backends {
            text += &format!("[[service.backend]]\naddress = \"{backend}\"\n");
        }
        let model = ringgate_config::parse("test.toml", &text).unwrap().model;
        let fib = Arc::new(Fib::new(Vec::new()));
        let built = builder.build(&model, |_, _| Health::Up, &fib, false);
        Arc::new(built.unwrap())
    }

    fn id_of(snapshot: &Snapshot, address: &str) -> BackendId {
        let address: SocketAddr = address.parse().unwrap();
        let is_it = |id: &&BackendId| {
            let backend = snapshot.backend(**id).unwrap();
            backend.endpoint.to_socket() == address
        };
        let members = &snapshot.services()[0].members;
        *members.iter().find(is_it).unwrap()
    }

    #[test]
    fn a_service_keeps_what_a_backend_had_that_is_gone() {
        let (mut builder, mut meter) = (Builder::default(), Meter::new(now()));
        let worker = WorkerCounters::new(1);
        let workers = [&worker];
        let both = snapshot(&mut builder, "web", &["10.2.0.11:80", "10.2.0.12:80"]);
        meter.follow(&both, &workers);
        let (stays, goes) = (id_of(&both, "10.2.0.11:80"), id_of(&both, "10.2.0.12:80"));
        for (id, bytes) in [(stays, 100), (goes, 60)] {
            worker.backend(id).unwrap().count(false, bytes);
        }
        let sum = |meter: &Meter, snapshot: &Snapshot| {
            let service = &snapshot.services()[0];
            let members = service.members.iter();
            let each = members.map(|id| meter.totals(*id, &workers));
            let sum = Meter::sum(meter.gone(&service.name), each);
            (sum.packets, sum.bytes)
        };
        assert_eq!(sum(&meter, &both), (2, 160));
        let one = snapshot(&mut builder, "web", &["10.2.0.11:80"]);
        meter.follow(&one, &workers);
        assert_eq!(sum(&meter, &one), (2, 160));
        // One that comes into the slot begins at zero, and the sum goes on.
        let other = snapshot(&mut builder, "web", &["10.2.0.11:80", "10.2.0.13:80"]);
        meter.follow(&other, &workers);
        let came = id_of(&other, "10.2.0.13:80");
        assert_eq!(meter.totals(came, &workers), Totals::default());
        worker.backend(came).unwrap().count(true, 40);
        assert_eq!(meter.totals(came, &workers).reply_bytes, 40);
        assert_eq!(sum(&meter, &other), (2, 160));
        // Another service has nothing of it.
        let renamed = snapshot(&mut builder, "shop", &["10.2.0.11:80"]);
        meter.follow(&renamed, &workers);
        assert_eq!(sum(&meter, &renamed), (1, 100));
        assert_eq!(meter.gone("web"), Totals::default());
    }

    #[test]
    fn rates_are_of_the_time_between_samples() {
        let (mut builder, begin) = (Builder::default(), now());
        let mut meter = Meter::new(begin);
        let worker = WorkerCounters::new(1);
        let workers = [&worker];
        let snapshot = snapshot(&mut builder, "web", &["10.2.0.11:80"]);
        meter.follow(&snapshot, &workers);
        let id = id_of(&snapshot, "10.2.0.11:80");
        let after = |millis| begin + std::time::Duration::from_millis(millis);
        meter.sample(&snapshot, &workers, after(1_000));
        assert_eq!(meter.rates(id), (0, 0), "one sample is no rate");
        for _ in 0..10 {
            worker.backend(id).unwrap().count(false, 100);
            worker.backend(id).unwrap().count(true, 400);
        }
        meter.sample(&snapshot, &workers, after(3_000));
        assert_eq!(meter.rates(id), (10, 20_000));
        meter.sample(&snapshot, &workers, after(4_000));
        assert_eq!(meter.rates(id), (0, 0));
    }
}
