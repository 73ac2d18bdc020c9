//! The microbenchmarks: what the balancer's own work costs, without a kernel.
//!
//! | room | owns |
//! |---|---|
//! | [`machine_limits`] | what memory costs here: what every figure is compared with |
//! | [`frames`], [`order`] | packets of many flows, and in which order the flows come |
//! | [`world`] | workers over memory ports, and the bare loop |
//! | `pipeline` | workers against bare loops |
//! | `stages` | parsing, hashing, a table's four operations |
//! | `table` | all that is known here of the flow table |
//! | [`report`] | JSON and text |
//! | `sample` | threads, time, medians |
//!
//! `docs/MICRO.md` says how to read the result.

pub mod frames;
pub mod machine_limits;
pub mod order;
mod pipeline;
pub mod report;
mod sample;
mod stages;
mod table;
pub mod world;

use ringgate_dataplane::parse::Family;

use crate::micro::report::{Promise, Report, Row};
use crate::micro::world::Mode;

/// What is measured, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Numbers of flows.
    pub flows: Vec<u32>,
    /// Fewest flows for which a Zipf order says something.
    pub fewest_for_zipf: u32,
    /// Flows that the table of a new-flow storm has room for.
    pub storm_flows: u32,
    /// Packets or operations of one sample.
    pub packets: u64,
    /// Those before the first sample.
    pub warm_up: u64,
    /// Samples of each figure.
    pub samples: usize,
    /// The size of the region of the random accesses, as a power of two, bytes.
    pub log2_region: u32,
    /// Which sections; all where empty.
    pub only: Vec<Section>,
}

/// A part of the whole that can be run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Section {
    /// Parsing and hashing
    Parts,
    /// The flow table's four operations
    Table,
    /// Workers against bare loops, flows in the table
    Pipeline,
    /// Workers against bare loops, every packet a new flow
    Storm,
}

impl Plan {
    /// The figures that the project is judged by. A few minutes.
    #[must_use]
    pub fn full() -> Self {
        Self {
            flows: vec![1, HOT, 64_000, 1_000_000, MANY],
            fewest_for_zipf: 64_000,
            storm_flows: MANY,
            packets: 256 * 1024,
            warm_up: 64 * 1024,
            samples: 9,
            log2_region: 29,
            only: Vec::new(),
        }
    }

    /// Whether everything works, in seconds; the figures mean little.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            flows: vec![1, HOT, 64_000],
            storm_flows: 64_000,
            packets: 16 * 1024,
            warm_up: 4 * 1024,
            samples: 3,
            log2_region: 26,
            ..Self::full()
        }
    }

    /// For tests of the structure.
    #[cfg(test)]
    pub(crate) fn smallest() -> Self {
        Self {
            flows: vec![1, HOT],
            fewest_for_zipf: HOT,
            storm_flows: 10_000,
            packets: 256,
            warm_up: 0,
            samples: 1,
            log2_region: 16,
            only: Vec::new(),
        }
    }

    fn has(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }
}

/// Flows whose entries stay in the cache.
const HOT: u32 = 1_000;

/// Flows whose entries do not, in any cache of today.
const MANY: u32 = 4_000_000;

/// Runs a plan. `progress` is told what comes next.
///
/// # Errors
///
/// In words: something did not do what it was measured for.
pub fn run(plan: &Plan, mut progress: impl FnMut(&str)) -> Result<Report, String> {
    progress("machine limits");
    let limits = machine_limits::measure(plan.log2_region, plan.packets, plan.samples)?;
    let threads = sample::cores().clamp(1, 2);
    let mut missing = Vec::new();
    if threads < 2 {
        missing.push("two threads: this process may run on one CPU only".to_owned());
    }
    let mut rows = Vec::new();
    if plan.has(Section::Parts) {
        progress("parts");
        rows.extend(stages::measure_parts(plan)?);
    }
    for flows in plan.flows.iter().filter(|_| plan.has(Section::Table)) {
        progress(&format!("table {flows}"));
        rows.extend(stages::measure_ours(*flows, plan)?);
    }
    for mode in [Mode::Nat, Mode::DsrL2] {
        for family in [Family::V4, Family::V6] {
            let name = format!("{} {}", mode.name(), world::family_name(family));
            for flows in plan.flows.iter().filter(|_| plan.has(Section::Pipeline)) {
                progress(&format!("pipeline {name} {flows}"));
                rows.extend(pipeline::measure(mode, family, *flows, plan, threads)?);
            }
            if plan.has(Section::Storm) {
                progress(&format!("storm {name}"));
                rows.push(pipeline::storm(mode, family, plan)?);
            }
        }
    }
    let promises = promises(&rows, limits.prefetched_ns);
    Ok(Report {
        limits,
        rows,
        promises,
        missing,
    })
}

/// What was promised, as far as it was measured.
fn promises(rows: &[Row], prefetched_ns: f64) -> Vec<Promise> {
    let pipeline = |family, flows, threads| {
        rows.iter()
            .find(|row| {
                (row.stage, row.mode, row.direction, row.order)
                    == ("pipeline", "nat", "to-backend", "uniform")
                    && (row.family, row.flows, row.threads) == (family, flows, threads)
            })
            .map(|row| row.ns)
    };
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let many = f64::max(35.0, 4.0 * prefetched_ns);
    let at_most = |what, value: Option<f64>, aim, least| {
        value.map(|value| Promise {
            what,
            value,
            aim,
            least,
            more_is_better: false,
        })
    };
    let scaling = ratio(pipeline("ipv4", MANY, 1), pipeline("ipv4", MANY, 2));
    [
        at_most(
            "nat ipv4, 1,000 flows, ns a packet",
            pipeline("ipv4", HOT, 1),
            20.0,
            40.0,
        ),
        at_most(
            "nat ipv4, 4 million flows, ns a packet",
            pipeline("ipv4", MANY, 1),
            many,
            2.0 * many,
        ),
        at_most(
            "ipv6 to ipv4, 1,000 flows",
            ratio(pipeline("ipv6", HOT, 1), pipeline("ipv4", HOT, 1)),
            1.3,
            1.3,
        ),
        at_most(
            "ipv6 to ipv4, 4 million flows",
            ratio(pipeline("ipv6", MANY, 1), pipeline("ipv4", MANY, 1)),
            1.3,
            1.3,
        ),
        at_most(
            "4 million flows to 64,000",
            ratio(pipeline("ipv4", MANY, 1), pipeline("ipv4", 64_000, 1)),
            2.5,
            2.5,
        ),
        scaling.map(|ratio| Promise {
            what: "two threads to one, packets a second, 4 million flows",
            value: 2.0 * ratio,
            aim: 1.8,
            least: 1.8,
            more_is_better: true,
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_every_kind_of_row() {
        let report = run(&Plan::smallest(), |_| ()).unwrap();
        let has = |stage, mode, family, direction, order| {
            report.rows.iter().any(|row| {
                (row.stage, row.mode, row.family, row.direction, row.order)
                    == (stage, mode, family, direction, order)
            })
        };
        for family in ["ipv4", "ipv6"] {
            for order in ["uniform", "zipf", "new"] {
                assert!(has("pipeline", "nat", family, "to-backend", order));
                assert!(has("pipeline", "dsr-l2", family, "to-backend", order));
            }
            assert!(has("pipeline", "nat", family, "to-client", "uniform"));
        }
        for stage in ["lookup-hit", "lookup-miss", "insert", "remove"] {
            for mode in ["batched", "single"] {
                assert!(has(stage, mode, "ipv4", "", "uniform"));
            }
        }
        assert!(has("parse", "", "ipv6", "", "") && has("hash", "", "", "", ""));
        let two = report.rows.iter().any(|row| row.threads == 2);
        assert_eq!(two, report.missing.is_empty());
        let hot = &report.promises[0];
        assert_eq!(hot.what, "nat ipv4, 1,000 flows, ns a packet");
    }
}
