//! A reload of 10,000 backends, part by part: from the text to the snapshot in a worker's mailbox.
//!
//! What is measured is control's own CPU time; workers adopt between two batches. Not here, since it
//! needs a kernel or belongs to the binary: the steering program's maps, and the checks.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use ringgate_config::Model;
use ringgate_config::diff::Diff;
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::newcomers::Tables;
use ringgate_dataplane::publish::Mailbox;
use ringgate_dataplane::route::{Fib, Link, Target};
use ringgate_dataplane::snapshot::{Builder, Snapshot};
use ringgate_dataplane::wire::ethernet::Mac;

use crate::micro::Plan;
use crate::micro::report::Row;
use crate::micro::sample::{median, nanoseconds, on_cores};
use crate::micro::table;

/// Flows that the table of the last part has room for; it only hears of timeouts.
const FLOWS: usize = 4096;

/// How the backends are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// In the report.
    pub name: &'static str,
    /// How many services.
    pub services: u16,
    /// How many backends each has.
    pub backends: u16,
    /// Slots of each one's ring.
    pub table_size: u32,
}

impl Scene {
    /// Many services of some backends, and one of many: 10,000 each time.
    pub const FULL: [Self; 2] = [
        Self {
            name: "100x100",
            services: 100,
            backends: 100,
            table_size: 65_537,
        },
        Self {
            name: "1x10000",
            services: 1,
            backends: 10_000,
            table_size: 655_373,
        },
    ];

    /// A handful.
    pub const SMALL: [Self; 1] = [Self {
        name: "2x3",
        services: 2,
        backends: 3,
        table_size: 251,
    }];
}

/// What the new file does to the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing at all.
    Nothing,
    /// A backend of the first service has another weight.
    Weight,
    /// The first service has a backend less.
    Member,
    /// Every service has a backend of another weight.
    Weights,
}

impl Change {
    const ALL: [Self; 4] = [Self::Nothing, Self::Weight, Self::Member, Self::Weights];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Weight => "one-weight",
            Self::Member => "one-member",
            Self::Weights => "all-weights",
        }
    }
}

impl Scene {
    fn text(self, change: Change) -> Result<String, std::fmt::Error> {
        let mut file = "[[interface]]\nname = \"eth0\"\n".to_owned();
        let mut number = 0u16;
        for service in 0..self.services {
            writeln!(
                file,
                "[[service]]\nname = \"s{service}\"\nlisten = \"10.100.0.1:{}\"\nprotocol = \"tcp\"\n\
                 forward = \"nat\"\ntable-size = {}\nhealth = {{ kind = \"tcp\" }}",
                1_000 + service,
                self.table_size
            )?;
            for backend in 0..self.backends {
                let [high, low] = number.to_be_bytes();
                number += 1;
                let is_first = backend == self.backends / 2;
                let is_ours = is_first && (service == 0 || change == Change::Weights);
                if is_ours && change == Change::Member {
                    continue;
                }
                let is_heavy = is_ours && change != Change::Nothing;
                let weight = if is_heavy { 150 } else { 100 };
                writeln!(
                    file,
                    "[[service.backend]]\naddress = \"10.200.{high}.{low}:8080\"\nweight = {weight}"
                )?;
            }
        }
        Ok(file)
    }
}

/// A row for each part of each change in each scene; `flows` is the number of backends, nanoseconds are
/// those of a whole reload.
///
/// # Errors
///
/// In words: a file was refused.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for scene in plan.reloads.iter().copied() {
        for change in Change::ALL {
            let sampled = on_cores(&mut [()], |(), _| one(scene, change, plan.samples))?;
            let parts = sampled.into_iter().next().ok_or("no thread")??;
            rows.extend(parts.into_iter().map(|(stage, times)| Row {
                stage,
                mode: change.name(),
                order: scene.name,
                flows: u32::from(scene.services) * u32::from(scene.backends),
                threads: 1,
                ns: median(times),
                ..Row::default()
            }));
        }
    }
    Ok(rows)
}

type Part = (&'static str, Vec<f64>);

/// There and back again: each sample is one reload.
fn one(scene: Scene, change: Change, samples: usize) -> Result<[Part; 5], String> {
    let parsed = |text: &str| ringgate_config::parse("bench.toml", text).map(|parsed| parsed.model);
    let texts = [Change::Nothing, change].map(|change| scene.text(change));
    let mut models = Vec::new();
    for text in &texts {
        let text = text.as_ref().map_err(ToString::to_string)?;
        models.push(parsed(text).map_err(|problems| problems.to_string())?);
    }
    let [old, new] = models.try_into().map_err(|_| "two files")?;
    let (fib, mut builder) = (Arc::new(fib(&old)?), Builder::default());
    let build = |builder: &mut Builder, model: &Model| {
        let snapshot = builder.build(model, |_, _| Health::Up, &fib, false);
        snapshot.map_err(|error| error.to_string())
    };
    let tables: Tables = table::shared(FLOWS)?;
    let mailbox = Mailbox::default();
    let mut current = Arc::new(build(&mut builder, &old)?);
    let mut parts = [
        "reload-parse",
        "reload-diff",
        "reload-foresee",
        "reload-build",
        "reload-publish",
    ]
    .map(|name| (name, Vec::new()));
    for sample in 0..=samples * 2 {
        let (from, to) = if sample % 2 == 0 {
            (&old, &new)
        } else {
            (&new, &old)
        };
        let mut built: Option<Arc<Snapshot>> = None;
        let mut times = [0.0; 5];
        let text = texts
            .get((sample + 1) % 2)
            .and_then(|text| text.as_ref().ok());
        times[0] = nanoseconds(1, || {
            black_box(text.map(|text| parsed(text).is_ok()));
        });
        times[1] = nanoseconds(1, || {
            black_box(Diff::between(from, to).actions().len());
        });
        // Nothing stays of what another builder has foreseen.
        let mut other = Builder::default();
        build(&mut other, from)?;
        times[2] = nanoseconds(1, || {
            black_box(other.foresee(to, |_, _| Health::Up).len());
        });
        times[3] = nanoseconds(1, || built = build(&mut builder, to).ok().map(Arc::new));
        let built = built.ok_or("no snapshot")?;
        times[4] = nanoseconds(1, || {
            built.lifetimes().apply(&tables);
            mailbox.post(Arc::clone(&built));
        });
        mailbox.adopt(&mut current);
        // The first ones warm up.
        if sample > 0 {
            parts
                .iter_mut()
                .zip(times)
                .for_each(|((_, all), time)| all.push(time));
        }
    }
    Ok(parts)
}

/// Every backend is a neighbour.
fn fib(model: &Model) -> Result<Fib, String> {
    let link = Link {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(vec![link]);
    let port = 0;
    let prefix = "10.200.0.0/16".parse().map_err(|_| "no prefix")?;
    fib.insert_route(
        prefix,
        Target::Port {
            port,
            gateway: None,
        },
    );
    let services = model.services().iter();
    for backend in services.flat_map(|service| service.backends()) {
        fib.insert_neighbour(port, backend.address().ip(), Mac([2, 0, 0, 0, 0, 9]));
    }
    Ok(fib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_small_reload_takes_its_time() {
        let [scene] = Scene::SMALL;
        for change in Change::ALL {
            let parts = one(scene, change, 1).unwrap();
            for (part, times) in parts {
                assert_eq!(times.len(), 2, "{part}");
                assert!(times.iter().all(|time| *time > 0.0), "{part}: {times:?}");
            }
        }
        let count = |change| scene.text(change).unwrap().matches("address").count();
        assert_eq!((count(Change::Weights), count(Change::Member)), (6, 5));
        let heavy = |change| scene.text(change).unwrap().matches("150").count();
        assert_eq!(Change::ALL.map(heavy), [0, 1, 0, 2]);
    }
}
