//! Maglev rings: how long they take to build, how even they are, and how much a change moves.
//!
//! Balance and disruption do not depend on the machine: they are the same wherever this runs.

use std::hint::black_box;

use ringgate_conntrack::Endpoint;
use ringgate_dataplane::maglev::{Member, Ring};
use serde_json::{Value, json};

use crate::meter;

/// Builds that a time is the median of.
const BUILDS: usize = 31;

/// Builds before those, while caches and clock settle.
const WARMUP: usize = 9;

/// Member lists, each with other addresses, that a disruption is the mean of.
const LISTS: u16 = 10;

/// How the weights of a list are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// All 100.
    Equal,
    /// 100 to 1,000 without order.
    Mixed,
}

impl Weights {
    /// The name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Mixed => "mixed",
        }
    }

    /// `count` members of list `list`, at consecutive addresses.
    fn members(self, count: u16, list: u16) -> Vec<Member> {
        (0..count)
            .map(|n| Member {
                identity: Endpoint {
                    address: [0, 0xFFFF_0A00_0000 | u64::from(list) << 16 | u64::from(n)],
                    port: 80,
                },
                weight: match self {
                    Self::Equal => 100,
                    // Steps around a circle of 901, which is 17 · 53, so that few come twice.
                    Self::Mixed => 100 + (u32::from(n) + 1) * (u32::from(list) + 613) % 901,
                },
            })
            .collect()
    }
}

/// How long a ring takes to build.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// Slots.
    pub size: u32,
    /// Members.
    pub members: u16,
    /// Of the members.
    pub weights: Weights,
    /// Milliseconds, median.
    pub median: f64,
    /// Milliseconds, least.
    pub least: f64,
}

/// Measures the building of a ring.
///
/// # Errors
///
/// In words; never with a size above 0 and at least one member.
pub fn build(size: u32, members: u16, weights: Weights) -> Result<Build, String> {
    let list = weights.members(members, 0);
    let mut times = Vec::with_capacity(BUILDS);
    for run in 0..WARMUP + BUILDS {
        let start = meter::now();
        let ring = black_box(Ring::build(size, black_box(&list)));
        let elapsed = start.elapsed();
        if run >= WARMUP {
            times.push(elapsed.as_secs_f64() * 1e3);
        }
        ring.ok_or("a ring has a slot and a member")?;
    }
    times.sort_by(f64::total_cmp);
    let at = |index: usize| times.get(index).copied().unwrap_or(f64::NAN);
    Ok(Build {
        size,
        members,
        weights,
        median: at(BUILDS / 2),
        least: at(0),
    })
}

/// How even a ring is, and what changes move beyond what they must.
#[derive(Debug, Clone, PartialEq)]
pub struct Quality {
    /// Slots.
    pub size: u32,
    /// Members.
    pub members: u16,
    /// Of the members.
    pub weights: Weights,
    /// Least share of the slots of a member over its share of the weights.
    pub share_min: f64,
    /// Greatest share of the slots of a member over its share of the weights.
    pub share_max: f64,
    /// One member more.
    pub add: Moved,
    /// One member less.
    pub remove: Moved,
    /// One member of double weight.
    pub double: Moved,
}

/// Percentages of all slots, means over several rings.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moved {
    /// Slots that must move, because quotas change.
    pub must: f64,
    /// Slots that move beyond that.
    pub needless: f64,
    /// The same of the ring where it is most.
    pub needless_worst: f64,
}

/// Measures balance and disruption.
///
/// # Errors
///
/// In words; never with a size above 0 and at least two members.
pub fn quality(size: u32, members: u16, weights: Weights) -> Result<Quality, String> {
    let mut quality = Quality {
        size,
        members,
        weights,
        share_min: f64::INFINITY,
        share_max: 0.0,
        add: Moved::default(),
        remove: Moved::default(),
        double: Moved::default(),
    };
    for list in 0..LISTS {
        // The last one is who is added: a member of weight 0 is not there.
        let mut base = weights.members(members + 1, list);
        let added = base.last_mut().map(|last| std::mem::take(&mut last.weight));
        let ring = built(size, &base)?;
        balance(&mut quality, &ring, &base);
        let changed = usize::from(list) * usize::from(members) / usize::from(LISTS);
        let after = |at: usize, change: &dyn Fn(u32) -> u32| {
            let mut list = base.clone();
            if let Some(member) = list.get_mut(at) {
                member.weight = change(member.weight);
            }
            built(size, &list).map(|after| (after, list.len()))
        };
        quality
            .add
            .count(&ring, after(usize::from(members), &|_| added.unwrap_or(0))?);
        quality.remove.count(&ring, after(changed, &|_| 0)?);
        quality
            .double
            .count(&ring, after(changed, &|weight| weight * 2)?);
    }
    Ok(quality)
}

fn built(size: u32, members: &[Member]) -> Result<Ring, String> {
    Ring::build(size, members).ok_or_else(|| "a ring has a slot and a member".to_owned())
}

/// Counts the shares of `ring` into `quality`.
fn balance(quality: &mut Quality, ring: &Ring, members: &[Member]) {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    for (share, member) in ring.shares(members.len()).into_iter().zip(members) {
        if member.weight > 0 {
            let exact = f64::from(quality.size) * f64::from(member.weight) / total as f64;
            quality.share_min = quality.share_min.min(f64::from(share) / exact);
            quality.share_max = quality.share_max.max(f64::from(share) / exact);
        }
    }
}

impl Moved {
    /// Counts one of [`LISTS`] changes from `before` to a ring of so many members.
    fn count(&mut self, before: &Ring, (after, members): (Ring, usize)) {
        let shares = before.shares(members);
        let size: u32 = shares.iter().sum();
        // What members gain they can only gain by slots that move.
        let must: u32 = shares
            .into_iter()
            .zip(after.shares(members))
            .map(|(before, after)| after.saturating_sub(before))
            .sum();
        let percent = 100.0 / f64::from(size);
        let needless = before.moved(&after) as f64 * percent - f64::from(must) * percent;
        self.must += f64::from(must) * percent / f64::from(LISTS);
        self.needless += needless / f64::from(LISTS);
        self.needless_worst = self.needless_worst.max(needless);
    }

    fn json(self) -> Value {
        json!({
            "must_percent": self.must,
            "needless_percent": self.needless,
            "needless_worst_percent": self.needless_worst,
        })
    }
}

impl Build {
    /// With stable keys.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "slots": self.size,
            "members": self.members,
            "weights": self.weights.name(),
            "median_ms": self.median,
            "least_ms": self.least,
        })
    }
}

impl Quality {
    /// With stable keys.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "slots": self.size,
            "members": self.members,
            "weights": self.weights.name(),
            "share_min": self.share_min,
            "share_max": self.share_max,
            "add": self.add.json(),
            "remove": self.remove.json(),
            "double": self.double.json(),
        })
    }
}

/// Measures everything and writes it as tables, or as JSON beside `machine`.
///
/// # Errors
///
/// Those of [`build`] and [`quality`], and those of writing.
pub fn report(
    mut out: impl std::io::Write,
    machine: Option<&Value>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut builds = Vec::new();
    let mut qualities = Vec::new();
    for (size, members) in [(65_537, 10), (65_537, 1_000), (655_373, 10_000)] {
        for weights in [Weights::Equal, Weights::Mixed] {
            builds.push(build(size, members, weights)?);
        }
    }
    for size in [65_537, 655_373] {
        for members in [10, 100, 1_000] {
            for weights in [Weights::Equal, Weights::Mixed] {
                qualities.push(quality(size, members, weights)?);
            }
        }
    }
    if let Some(machine) = machine {
        let builds: Vec<Value> = builds.iter().map(Build::json).collect();
        let quality: Vec<Value> = qualities.iter().map(Quality::json).collect();
        let all = json!({ "machine": machine, "builds": builds, "quality": quality });
        writeln!(out, "{all}")?;
        return Ok(());
    }
    writeln!(out, "| slots | members | weights | build, median | least |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for Build {
        size,
        members,
        weights,
        median,
        least,
    } in builds
    {
        let weights = weights.name();
        writeln!(
            out,
            "| {size} | {members} | {weights} | {median:.2} ms | {least:.2} ms |"
        )?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "| slots | members | weights | share / weight, least to most | add | remove | double |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for Quality {
        size,
        members,
        weights,
        share_min,
        share_max,
        add,
        remove,
        double,
    } in qualities
    {
        let weights = weights.name();
        write!(
            out,
            "| {size} | {members} | {weights} | {share_min:.4} to {share_max:.4} |"
        )?;
        for Moved {
            must,
            needless,
            needless_worst,
        } in [add, remove, double]
        {
            write!(out, " {must:.2} + {needless:.2} ({needless_worst:.2}) |")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_what_happened() {
        let quality = quality(10_007, 10, Weights::Equal).unwrap();
        // A tenth of the slots, give or take one, for each of ten members.
        assert!(quality.share_min > 0.999 && quality.share_min < 1.0);
        assert!(quality.share_max < 1.001 && quality.share_max > 1.0);
        assert!((quality.remove.must - 10.0).abs() < 0.02);
        assert!((quality.add.must - 100.0 / 11.0).abs() < 0.02);
        // From 1/10 to 2/11.
        assert!((quality.double.must - 100.0 * (2.0 / 11.0 - 0.1)).abs() < 0.02);
        for moved in [quality.add, quality.remove, quality.double] {
            assert!(moved.needless > 0.0 && moved.needless_worst >= moved.needless);
            assert!(moved.needless_worst < 2.0);
        }
    }

    #[test]
    fn lists_differ_and_mixed_weights_are_mixed() {
        let [a, b] = [0, 1].map(|list| Weights::Mixed.members(1_000, list));
        assert!(a.iter().zip(&b).all(|(a, b)| a.identity != b.identity));
        let distinct: std::collections::HashSet<u32> = a.iter().map(|m| m.weight).collect();
        assert!(distinct.len() > 800 && distinct.iter().all(|w| (100..=1_000).contains(w)));
    }

    #[test]
    fn times_are_ordered() {
        let time = build(251, 3, Weights::Mixed).unwrap();
        assert!(time.least > 0.0 && time.least <= time.median);
        assert!(build(251, 0, Weights::Equal).is_err());
    }
}
