//! The microbenchmarks: what the balancer's own work costs, without a kernel.
//!
//! | room | owns |
//! |---|---|
//! | [`machine_limits`] | what memory costs here: what every figure is compared with |
//! | [`frames`], [`order`] | packets of many flows, and in which order the flows come |
//! | [`world`] | workers over memory ports, and the bare loop |
//! | `pipeline` | workers against bare loops |
//! | `peers` | other tables under the same operations |
//! | `fill` | a table from empty to nine tenths full |
//! | [`steady`] | one kind of packets alone, for counting instructions |
//! | `stages` | parsing, hashing, a table's four operations |
//! | `steps` | steering and rewriting by themselves |
//! | `table` | all that is known here of the flow table |
//! | `ports` | source ports taken and given back |
//! | [`reload`] | another configuration of 10,000 backends |
//! | `promises` | what the project has set itself |
//! | [`report`] | JSON and text |
//! | `sample` | threads, time, medians |
//!
//! `docs/MICRO.md` says how to read the result.

mod fill;
pub mod frames;
pub mod machine_limits;
pub mod memories;
pub mod order;
mod peers;
mod pipeline;
mod ports;
mod promises;
pub mod reload;
pub mod report;
mod sample;
mod stages;
pub mod steady;
mod steps;
pub(crate) mod table;
pub mod world;

use crate::micro::report::Report;
use crate::micro::world::Mode;

/// What is measured, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Numbers of flows.
    pub flows: Vec<u32>,
    /// Fewest flows for which a Zipf order says something.
    pub fewest_for_zipf: u32,
    /// Numbers of flows for the comparison with other tables.
    pub peer_flows: Vec<u32>,
    /// Flows that the table of a new-flow storm has room for.
    pub storm_flows: u32,
    /// Capacity of the table that is filled.
    pub fill_capacity: u32,
    /// Whose configurations are reloaded.
    pub reloads: Vec<reload::Scene>,
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
    /// Other tables beside it
    Peers,
    /// The table from empty to nine tenths full
    Fill,
    /// Workers against bare loops, flows in the table
    Pipeline,
    /// Workers against bare loops, every packet a new flow
    Storm,
    /// Another configuration of 10,000 backends
    Reload,
}

impl Plan {
    /// The figures that the project is judged by. A few minutes.
    #[must_use]
    pub fn full() -> Self {
        Self {
            flows: vec![1, HOT, 64_000, 1_000_000, MANY],
            fewest_for_zipf: 64_000,
            peer_flows: vec![64_000, 1_000_000],
            storm_flows: MANY,
            fill_capacity: MANY,
            reloads: reload::Scene::FULL.to_vec(),
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
            peer_flows: vec![64_000],
            storm_flows: 64_000,
            fill_capacity: 64_000,
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
            peer_flows: vec![1_000],
            storm_flows: 10_000,
            fill_capacity: 10_000,
            reloads: reload::Scene::SMALL.to_vec(),
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

/// Rows with more than one backend.
const MANY_BACKENDS: [(&str, u16); 2] = [
    ("pipeline-10-backends", 10),
    ("pipeline-1000-backends", 1_000),
];

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
        rows.extend(ports::measure(plan)?);
        for mode in Mode::ALL {
            rows.extend(steps::measure(mode, plan)?);
        }
    }
    if plan.has(Section::Reload) {
        progress("reload");
        rows.extend(reload::measure(plan)?);
    }
    for flows in plan.flows.iter().filter(|_| plan.has(Section::Table)) {
        progress(&format!("table {flows}"));
        rows.extend(stages::measure_ours(*flows, plan)?);
    }
    for flows in plan.peer_flows.iter().filter(|_| plan.has(Section::Peers)) {
        for threads in 1..=threads {
            progress(&format!("peers {flows}, {threads} thread(s)"));
            rows.extend(peers::compare(*flows, threads, plan)?);
        }
    }
    let mut table_bytes_per_flow = None;
    if plan.has(Section::Fill) {
        progress("fill");
        let filled = fill::measure(plan)?;
        rows.extend(filled.rows);
        table_bytes_per_flow = Some(filled.bytes_per_flow);
    }
    for mode in Mode::ALL {
        for &family in mode.families() {
            let name = format!("{} {}", mode.name(), world::family_name(family));
            let flows = plan.flows.iter().filter(|flows| mode.has_room_for(**flows));
            for flows in flows.filter(|_| plan.has(Section::Pipeline)) {
                progress(&format!("pipeline {name} {flows}"));
                rows.extend(pipeline::measure(mode, family, *flows, plan, threads)?);
            }
            let is_stormed = !mode.is_tcp() && mode.has_room_for(plan.storm_flows);
            if plan.has(Section::Storm) && is_stormed {
                progress(&format!("storm {name}"));
                rows.push(pipeline::storm(mode, family, plan)?);
            }
        }
    }
    for flows in plan.flows.iter().filter(|_| plan.has(Section::Pipeline)) {
        for backends in MANY_BACKENDS {
            progress(&format!("{} {flows}", backends.0));
            rows.push(pipeline::with_backends(backends, *flows, plan)?);
        }
    }
    let promises = promises::judge(&rows, &limits, table_bytes_per_flow);
    Ok(Report {
        limits,
        rows,
        table_bytes_per_flow,
        promises,
        missing,
    })
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
        for direction in ["to-backend", "to-client"] {
            assert!(has("pipeline", "nat-tcp", "ipv4", direction, "uniform"));
        }
        for (stage, _) in MANY_BACKENDS {
            assert!(has(stage, "nat", "ipv4", "to-backend", "uniform"));
        }
        for stage in ["steer", "rewrite"] {
            for mode in ["nat", "dsr-l2", "nat-tcp"] {
                assert!(has(stage, mode, "ipv4", "to-backend", "uniform"));
            }
        }
        for stage in ["port-allocate", "port-release"] {
            assert!(has(stage, "", "", "", ""));
        }
        for stage in ["lookup-hit", "lookup-miss", "insert", "remove"] {
            for mode in ["batched", "single"] {
                assert!(has(stage, mode, "ipv4", "", "uniform"));
            }
        }
        for name in ["ringgate", "papaya", "dashmap", "hashbrown-mutex"] {
            assert!(has("peer-hit", name, "ipv4", "", "uniform"));
        }
        assert!(has("parse", "", "ipv6", "", "") && has("hash", "", "", "", ""));
        let two = report.rows.iter().any(|row| row.threads == 2);
        assert_eq!(two, report.missing.is_empty());
        for part in [
            "reload-parse",
            "reload-diff",
            "reload-foresee",
            "reload-build",
            "reload-publish",
        ] {
            assert!(has(part, "one-weight", "", "", "2x3"));
        }
        let promised: Vec<&str> = report.promises.iter().map(|p| p.what).collect();
        // Those about millions of flows need as many.
        assert_eq!(
            promised,
            [
                "nat ipv4, 1,000 flows, ns a packet",
                "ipv6 to ipv4, 1,000 flows",
                "new flows into the table, 0 to 90 % full, million a second",
                "lookups at 90 % of capacity to those at 50 %",
                "memory of the table, bytes a flow of capacity",
            ]
        );
    }
}
