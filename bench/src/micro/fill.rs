//! A table filled from empty to nine tenths of its capacity: what newcomers cost on the way, what
//! lookups cost half-way and at the end, and how much memory it takes.

use std::sync::Barrier;

use crate::micro::Plan;
use crate::micro::order::{self, BURST, Walk};
use crate::micro::report::Row;
use crate::micro::sample::{median, nanoseconds, on_cores};
use crate::micro::stages::Contestant as _;
use crate::micro::table::Ours;

/// In how many newcomers one may find no room: none at all would be too much to ask of buckets.
const REFUSED_ONE_IN: usize = 100;

/// Tables that are filled, one after another.
const TABLES: usize = 3;

/// What filling comes to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filled {
    /// `fill-to-90`, `lookup-at-50`, `lookup-at-90`.
    pub(crate) rows: Vec<Row>,
    /// Memory of a flow of configured capacity, bytes.
    pub(crate) bytes_per_flow: f64,
}

/// Fills tables of `plan.fill_capacity` flows.
///
/// # Errors
///
/// In words: flows did not find room, or were not found.
pub(crate) fn measure(plan: &Plan) -> Result<Filled, String> {
    let capacity = plan.fill_capacity;
    let flows = order::uniform(0, capacity, 1);
    let mut taken = Vec::new();
    for _ in 0..TABLES {
        let results = on_cores(&mut [()], |(), _: &Barrier| fill(plan, &flows))?;
        for result in results {
            taken.push(result?);
        }
    }
    let figure = |of: fn(&Sample) -> f64| median(taken.iter().map(of).collect());
    let rows = [
        ("fill-to-90", "new", figure(|sample| sample.insert)),
        ("lookup-at-50", "uniform", figure(|sample| sample.half)),
        ("lookup-at-90", "uniform", figure(|sample| sample.full)),
    ];
    Ok(Filled {
        rows: rows
            .into_iter()
            .map(|(stage, order, ns)| Row {
                stage,
                mode: "batched",
                family: "ipv4",
                flows: capacity,
                order,
                threads: 1,
                ns,
                ..Row::default()
            })
            .collect(),
        bytes_per_flow: figure(|sample| sample.bytes),
    })
}

/// Nanoseconds, but for the memory: bytes a flow.
#[derive(Debug, Clone, Copy)]
struct Sample {
    insert: f64,
    half: f64,
    full: f64,
    bytes: f64,
}

fn fill(plan: &Plan, flows: &[u32]) -> Result<Sample, String> {
    let capacity = plan.fill_capacity as usize;
    let table = Ours::new(capacity, true)?;
    let (half, full) = (capacity / 2, capacity * 9 / 10);
    let first = flows.get(..half).unwrap_or_default();
    let second = flows.get(half..full).unwrap_or_default();
    let mut stored = 0;
    let mut insert = |flows: &[u32]| {
        nanoseconds(flows.len() as u64, || {
            stored += flows.chunks(BURST).map(|b| table.insert(b)).sum::<usize>();
        })
    };
    // Lookups of as many different flows half-way as at the end, in no order that they were inserted in:
    // the same caches and page tables are to do the same work.
    let mut asked = 0;
    let mut find = |flows: &[u32]| {
        let order = order::uniform(0, u32::try_from(flows.len()).unwrap_or(u32::MAX), 6);
        let sample: Vec<u32> = order
            .iter()
            .filter_map(|place| flows.get(*place as usize).copied())
            .take(half)
            .collect();
        let mut walk = Walk::new(&sample);
        let figures = (0..plan.samples).map(|_| {
            nanoseconds(plan.packets, || {
                for _ in 0..plan.packets / BURST as u64 {
                    let burst = walk.burst();
                    asked += burst.len() - table.find(burst);
                }
            })
        });
        median(figures.collect())
    };
    let to_half = insert(first);
    let half_ns = find(first);
    let to_full = insert(second);
    let full_ns = find(flows.get(..full).unwrap_or_default());
    if stored + stored / REFUSED_ONE_IN < full {
        return Err(format!("{stored} of {full} flows found room"));
    }
    let looked = plan.packets.saturating_mul(2 * plan.samples as u64);
    if asked as u64 > looked / REFUSED_ONE_IN as u64 {
        return Err(format!("{asked} of {looked} flows were not found"));
    }
    Ok(Sample {
        insert: (to_half * half as f64 + to_full * (full - half) as f64) / full as f64,
        half: half_ns,
        full: full_ns,
        bytes: table.memory_bytes() as f64 / capacity as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_filled() {
        let plan = Plan {
            fill_capacity: 100_000,
            ..Plan::smallest()
        };
        let filled = measure(&plan).unwrap();
        let stages: Vec<_> = filled.rows.iter().map(|row| row.stage).collect();
        assert_eq!(stages, ["fill-to-90", "lookup-at-50", "lookup-at-90"]);
        assert!(filled.rows.iter().all(|row| row.ns > 0.0));
    }
}
