//! What the project has set itself, judged by a run's rows.

use crate::micro::machine_limits::MachineLimits;
use crate::micro::report::{Promise, Row};
use crate::micro::{HOT, MANY};

/// Those that the rows say something about.
pub(crate) fn judge(
    rows: &[Row],
    limits: &MachineLimits,
    bytes_per_flow: Option<f64>,
) -> Vec<Promise> {
    let row = |family, flows, threads| {
        let mut nat = rows.iter().filter(|row| {
            (row.stage, row.mode, row.direction, row.order)
                == ("pipeline", "nat", "to-backend", "uniform")
        });
        nat.find(|row| (row.family, row.flows, row.threads) == (family, flows, threads))
    };
    let pipeline = |family, flows| row(family, flows, 1).map(|row| row.ns);
    let table = |stage| rows.iter().find(|row| row.stage == stage).map(|row| row.ns);
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    let (hot, cold) = (pipeline("ipv4", HOT), pipeline("ipv4", MANY));
    // A prefetched access for each of the lines that a packet of an unknown flow has to touch.
    let budget = f64::max(35.0, 4.0 * limits.prefetched_ns);
    let two_to_one = row("ipv4", MANY, 2).and_then(|row| row.scaling);
    let hot_ipv6 = ratio(pipeline("ipv6", HOT), hot);
    let cold_ipv6 = ratio(pipeline("ipv6", MANY), cold);
    let growth = ratio(cold, pipeline("ipv4", 64_000));
    let new_flows = table("fill-to-90").map(|ns| 1_000.0 / ns);
    let fuller = ratio(table("lookup-at-90"), table("lookup-at-50"));
    [
        at_most(20.0, 40.0, "nat ipv4, 1,000 flows, ns a packet", hot),
        at_most(
            budget,
            2.0 * budget,
            "nat ipv4, 4 million flows, ns a packet",
            cold,
        ),
        at_most(1.3, 1.3, "ipv6 to ipv4, 1,000 flows", hot_ipv6),
        at_most(1.3, 1.3, "ipv6 to ipv4, 4 million flows", cold_ipv6),
        at_most(2.5, 2.5, "4 million flows to 64,000", growth),
        at_least(
            1.8,
            "two threads to one, packets a second, 4 million flows",
            two_to_one,
        ),
        at_least(
            5.0,
            "new flows into the table, 0 to 90 % full, million a second",
            new_flows,
        ),
        at_most(
            1.5,
            1.5,
            "lookups at 90 % of capacity to those at 50 %",
            fuller,
        ),
        at_most(
            72.0,
            72.0,
            "memory of the table, bytes a flow of capacity",
            bytes_per_flow,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn at_most(aim: f64, least: f64, what: &'static str, value: Option<f64>) -> Option<Promise> {
    value.map(|value| Promise {
        what,
        value,
        aim,
        least,
        more_is_better: false,
    })
}

fn at_least(aim: f64, what: &'static str, value: Option<f64>) -> Option<Promise> {
    value.map(|value| Promise {
        what,
        value,
        aim,
        least: aim,
        more_is_better: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MachineLimits = MachineLimits {
        dependent_ns: 100.0,
        prefetched_ns: 10.0,
        copy_ns: 1.0,
        region_bytes: 1,
    };

    fn nat(family: &'static str, flows: u32, threads: usize, ns: f64) -> Row {
        Row {
            stage: "pipeline",
            mode: "nat",
            family,
            direction: "to-backend",
            flows,
            order: "uniform",
            threads,
            ns,
            loops: None,
            scaling: (threads > 1).then_some(1.7),
        }
    }

    fn value(rows: &[Row], what: &str) -> Option<f64> {
        let judged = judge(rows, &LIMITS, None);
        judged.iter().find(|p| p.what == what).map(|p| p.value)
    }

    #[test]
    fn ratios_are_of_the_right_rows() {
        let rows = [
            nat("ipv4", HOT, 1, 20.0),
            nat("ipv6", HOT, 1, 30.0),
            nat("ipv4", 64_000, 1, 25.0),
            nat("ipv4", MANY, 1, 50.0),
            nat("ipv4", MANY, 2, 40.0),
        ];
        assert_eq!(value(&rows, "ipv6 to ipv4, 1,000 flows"), Some(1.5));
        assert_eq!(value(&rows, "4 million flows to 64,000"), Some(2.0));
        let scaling = "two threads to one, packets a second, 4 million flows";
        assert_eq!(value(&rows, scaling), Some(1.7));
        assert_eq!(value(&rows, "ipv6 to ipv4, 4 million flows"), None);
        assert_eq!(
            judge(&rows, &LIMITS, None)[1].aim.to_bits(),
            40f64.to_bits()
        );
        assert!(judge(&[], &LIMITS, None).is_empty());
    }
}
