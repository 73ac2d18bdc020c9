//! How long things take that the control thread does: checks, and the turns of its own loop.
//!
//! [`Latency`] is a histogram with two significant digits over the whole range (hdrhistogram), so that
//! its quantiles are within 1 %. What is exported are the counts up to fixed bounds, read from it.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringgate_config::Model;
use rustc_hash::FxHashMap;

use super::checks::{kind_of, spec_of};
use super::health::Spec;

/// The shortest time that is told from none, and the unit of the histograms.
const UNIT: Duration = Duration::from_micros(1);

/// What takes longer counts as this: more than any check may (`INTERVAL_MAX`, an hour, is a limit that
/// nobody waits for).
const LONGEST: Duration = Duration::from_secs(60);

/// Significant digits: 9 KiB for each histogram.
const DIGITS: u8 = 2;

/// How long many things of one sort took.
#[derive(Debug)]
pub(crate) struct Latency {
    /// `None` never: the bounds above are good.
    histogram: Option<Histogram<u32>>,
    sum: Duration,
    count: u64,
}

impl Default for Latency {
    fn default() -> Self {
        let most = units(LONGEST);
        Self {
            histogram: Histogram::new_with_bounds(1, most, DIGITS).ok(),
            sum: Duration::ZERO,
            count: 0,
        }
    }
}

fn units(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(UNIT.as_nanos())).unwrap_or(u64::MAX)
}

impl Latency {
    /// Counts one more.
    pub(crate) fn record(&mut self, took: Duration) {
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(units(took).max(1));
        }
        self.sum = self.sum.saturating_add(took);
        self.count += 1;
    }

    /// How many there were.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// How long all of them took together.
    pub(crate) const fn sum(&self) -> Duration {
        self.sum
    }

    /// Within what time this part of them was done, to 1 %; `None` if there was none.
    pub(crate) fn quantile(&self, part: f64) -> Option<Duration> {
        let histogram = self.histogram.as_ref().filter(|one| !one.is_empty())?;
        Some(Duration::from_micros(histogram.value_at_quantile(part)))
    }

    /// How many took no longer than each of these bounds, which rise; to 1 % of the bound.
    pub(crate) fn up_to<const N: usize>(&self, bounds: &[Duration; N]) -> [u64; N] {
        let mut counts = [0; N];
        for step in self.histogram.iter().flat_map(Histogram::iter_recorded) {
            // The lowest time that the histogram does not tell from this one.
            let took = self
                .histogram
                .as_ref()
                .map_or(0, |one| one.lowest_equivalent(step.value_iterated_to()));
            let class = bounds.partition_point(|bound| units(*bound) < took);
            if let Some(count) = counts.get_mut(class) {
                *count += step.count_since_last_iteration();
            }
        }
        let mut sum = 0;
        counts.map(|count| {
            sum += count;
            sum
        })
    }
}

/// How long checks took, by service. A check that several services share counts for each of them.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    each: Vec<Checked>,
    /// Whose a check is, as places in `each`.
    whose: FxHashMap<Spec, Vec<usize>>,
    /// Where in `each` a service is.
    by_name: FxHashMap<String, usize>,
}

/// The checks of one service.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Its name.
    pub(crate) service: String,
    /// How it is checked, as the file calls it.
    pub(crate) kind: &'static str,
    /// How long that took.
    pub(crate) latency: Latency,
}

impl Checks {
    /// There is another configuration: services that stay, and are checked in the same way, go on.
    pub(crate) fn follow(&mut self, model: &Model) {
        let mut before: FxHashMap<(String, &str), Latency> = self
            .each
            .drain(..)
            .map(|checked| ((checked.service, checked.kind), checked.latency))
            .collect();
        self.whose.clear();
        self.by_name.clear();
        for service in model.services() {
            let Some(kind) = kind_of(service) else {
                continue;
            };
            let name = service.name().to_owned();
            for spec in service
                .backends()
                .iter()
                .filter_map(|b| spec_of(service, b))
            {
                let whose = self.whose.entry(spec).or_default();
                if whose.last() != Some(&self.each.len()) {
                    whose.push(self.each.len());
                }
            }
            let latency = before.remove(&(name.clone(), kind)).unwrap_or_default();
            self.by_name.insert(name.clone(), self.each.len());
            self.each.push(Checked {
                service: name,
                kind,
                latency,
            });
        }
    }

    /// A check has ended, one way or the other.
    pub(crate) fn record(&mut self, spec: &Spec, took: Duration) {
        for place in self.whose.get(spec).into_iter().flatten() {
            if let Some(checked) = self.each.get_mut(*place) {
                checked.latency.record(took);
            }
        }
    }

    /// All of them, in the configuration's order.
    pub(crate) fn each(&self) -> &[Checked] {
        &self.each
    }

    /// Those of one service; `None` if it is not checked.
    pub(crate) fn of(&self, service: &str) -> Option<&Checked> {
        self.each.get(*self.by_name.get(service)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn counts_rise_with_the_bounds_and_quantiles_stand_close() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        for millis in 1..=100 {
            latency.record(ms(millis));
        }
        let bounds = [ms(1), ms(10), ms(50), ms(100), ms(1000)];
        assert_eq!(latency.up_to(&bounds), [1, 10, 50, 100, 100]);
        assert_eq!((latency.count(), latency.sum()), (100, ms(5050)));
        let median = latency.quantile(0.5).unwrap();
        assert!(ms(49) <= median && median <= ms(51), "{median:?}");
    }

    #[test]
    fn extremes_are_counted_at_the_ends() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(3600));
        assert_eq!(latency.up_to(&[UNIT, LONGEST / 2]), [1, 1]);
        assert_eq!(latency.count(), 2);
        assert_eq!(latency.sum(), Duration::from_secs(3600));
    }

    fn model(services: &[(&str, &str)]) -> Model {
        let mut text = "[[interface]]\nname = \"eth0\"\n".to_owned();
        for (number, (name, health)) in services.iter().enumerate() {
            text += &format!(
                "[[service]]\nname = \"{name}\"\nlisten = \"10.100.0.{}:80\"\nprotocol = \"tcp\"\n\
                 forward = \"nat\"\n{health}\n[[service.backend]]\naddress = \"10.2.0.11:80\"\n\
                 [[service.backend]]\naddress = \"10.2.0.12:80\"\n",
                number + 1
            );
        }
        ringgate_config::parse("test.toml", &text).unwrap().model
    }

    fn spec(model: &Model, service: usize, backend: usize) -> Spec {
        let service = &model.services()[service];
        spec_of(service, &service.backends()[backend]).unwrap()
    }

    #[test]
    fn a_shared_check_counts_for_each_service_and_stays_over_a_reload() {
        let every = "health = { kind = \"tcp\" }";
        let old = model(&[("web", every), ("shop", every), ("open", "")]);
        let mut checks = Checks::default();
        checks.follow(&old);
        checks.record(&spec(&old, 0, 0), ms(3));
        checks.record(&spec(&old, 1, 1), ms(4));
        let count = |checks: &Checks, service| checks.of(service).map(|one| one.latency.count());
        assert_eq!(count(&checks, "web"), Some(2));
        assert_eq!(count(&checks, "shop"), Some(2));
        assert_eq!(count(&checks, "open"), None);
        let slower = "health = { kind = \"tcp\", interval = \"2s\" }";
        let new = model(&[("shop", slower), ("other", every)]);
        checks.follow(&new);
        assert_eq!(count(&checks, "shop"), Some(2));
        assert_eq!(count(&checks, "other"), Some(0));
        checks.record(&spec(&new, 0, 0), ms(5));
        assert_eq!(count(&checks, "shop"), Some(3));
        assert_eq!(count(&checks, "other"), Some(0), "it asks at another pace");
        // What was asked for `web` is what `other` asks now.
        checks.record(&spec(&old, 0, 0), ms(5));
        assert_eq!(count(&checks, "other"), Some(1));
        assert_eq!(checks.each().len(), 2);
    }
}
