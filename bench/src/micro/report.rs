//! What was measured, as JSON with stable keys and as a table for people.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::micro::machine_limits::MachineLimits;

/// One figure. What does not apply is empty or `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// What was done: `parse`, `lookup-hit`, `pipeline` and so on.
    pub stage: &'static str,
    /// How: a forwarding mode, `batched` or `single`, or whose table.
    pub mode: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// `to-backend` or `to-client`.
    pub direction: &'static str,
    /// How many flows there are.
    pub flows: u32,
    /// In which order they are met: `uniform`, `zipf` or `new`.
    pub order: &'static str,
    /// Threads at once.
    pub threads: usize,
    /// CPU time of one operation on one of the threads, nanoseconds; of a table's operations on
    /// two threads the time that passed, since locks make threads wait.
    pub ns: f64,
    /// Of a pipeline: the whole loop with ports and frames, and the bare loop alone. `ns` is
    /// the median of their differences.
    pub loops: Option<Loops>,
    /// Of a pipeline on several threads: packets a second of all together to those of one alone
    /// with all flows, taken in turn.
    pub scaling: Option<f64>,
}

/// See [`Row::loops`]. Nanoseconds a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loops {
    /// Frames made, received, parsed, steered, rewritten, transmitted.
    pub total_ns: f64,
    /// The same frames made, received, transmitted.
    pub bare_ns: f64,
}

/// A bound that the project has set itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// What is bounded.
    pub what: &'static str,
    /// What was measured.
    pub value: f64,
    /// What it is to be.
    pub aim: f64,
    /// What it has to be at least; equal to `aim` where there is only one bound.
    pub least: f64,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl Promise {
    /// `met`, `least` or `missed`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        let holds = |bound: f64| {
            if self.more_is_better {
                self.value >= bound
            } else {
                self.value <= bound
            }
        };
        match (holds(self.aim), holds(self.least)) {
            (true, _) => "met",
            (false, true) => "least",
            (false, false) => "missed",
        }
    }
}

/// A whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The machine's own limits.
    pub limits: MachineLimits,
    /// All figures, in the order in which they were taken.
    pub rows: Vec<Row>,
    /// Memory of the flow table for each flow of its capacity, bytes, if it was measured.
    pub table_bytes_per_flow: Option<f64>,
    /// What was promised.
    pub promises: Vec<Promise>,
    /// What could not be measured here, and why.
    pub missing: Vec<String>,
}

impl Report {
    /// As JSON; `machine` is [`crate::machine::describe`]'s, the limits are added to it.
    #[must_use]
    pub fn to_json(&self, mut machine: Value) -> Value {
        if let Some(fields) = machine.as_object_mut() {
            fields.insert("dram_dependent_ns".into(), figure(self.limits.dependent_ns));
            fields.insert(
                "dram_prefetched_ns".into(),
                figure(self.limits.prefetched_ns),
            );
            fields.insert("copy_64_ns".into(), figure(self.limits.copy_ns));
            fields.insert("dram_region_bytes".into(), self.limits.region_bytes.into());
        }
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row(row)).collect();
        let promises: Vec<Value> = self
            .promises
            .iter()
            .map(|promise| {
                json!({
                    "what": promise.what,
                    "value": figure(promise.value),
                    "aim": figure(promise.aim),
                    "least": figure(promise.least),
                    "verdict": promise.verdict(),
                })
            })
            .collect();
        json!({
            "machine": machine,
            "rows": rows,
            "table_bytes_per_flow": self.table_bytes_per_flow.map(figure),
            "promises": promises,
            "missing": self.missing,
        })
    }

    fn row(&self, row: &Row) -> Value {
        let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (total, bare) = match row.loops {
            Some(loops) => (figure(loops.total_ns), figure(loops.bare_ns)),
            None => (Value::Null, Value::Null),
        };
        json!({
            "stage": row.stage,
            "mode": word(row.mode),
            "family": word(row.family),
            "direction": word(row.direction),
            "flows": row.flows,
            "order": word(row.order),
            "threads": row.threads,
            "ns": figure(row.ns),
            "ratio_dram": figure(row.ns / self.limits.dependent_ns),
            "ratio_prefetched": figure(row.ns / self.limits.prefetched_ns),
            "ratio_copy": figure(row.ns / self.limits.copy_ns),
            "total_ns": total,
            "bare_ns": bare,
            "scaling": row.scaling.map(figure),
        })
    }

    /// As a table.
    #[must_use]
    pub fn to_text(&self) -> String {
        let limits = &self.limits;
        let mut text = format!(
            "this machine: DRAM access {:.1} ns alone, {:.2} ns among others (over {} MiB); \
             64 bytes copied in {:.2} ns\n\n\
             {:<22} {:<17} {:<6} {:<10} {:>7} {:<8} {:>7} {:>8} {:>7} {:>7} {:>7} {:>9} {:>8} {:>8}\n",
            limits.dependent_ns,
            limits.prefetched_ns,
            limits.region_bytes >> 20,
            limits.copy_ns,
            "stage",
            "mode",
            "family",
            "direction",
            "flows",
            "order",
            "threads",
            "ns",
            "x dram",
            "x pref",
            "x copy",
            "with loop",
            "bare",
            "scaling"
        );
        // Writing to a string does not fail.
        for row in &self.rows {
            let _infallible = write!(
                text,
                "{:<22} {:<17} {:<6} {:<10} {:>7} {:<8} {:>7} {:>8.1} {:>7.2} {:>7.2} {:>7.1}",
                row.stage,
                row.mode,
                row.family,
                row.direction,
                row.flows,
                row.order,
                row.threads,
                row.ns,
                row.ns / limits.dependent_ns,
                row.ns / limits.prefetched_ns,
                row.ns / limits.copy_ns
            );
            if let Some(Loops { total_ns, bare_ns }) = row.loops {
                let _infallible = write!(text, " {total_ns:>9.1} {bare_ns:>8.1}");
            }
            if let Some(scaling) = row.scaling {
                let _infallible = write!(text, " {scaling:>8.2}");
            }
            text.push('\n');
        }
        text.push('\n');
        if let Some(bytes) = self.table_bytes_per_flow {
            let _infallible = writeln!(text, "the table takes {bytes:.1} bytes a flow\n");
        }
        for promise in &self.promises {
            let _infallible = writeln!(
                text,
                "{:<7} {:<62} {:>8.2}, aim {:.2}, least {:.2}",
                promise.verdict(),
                promise.what,
                promise.value,
                promise.aim,
                promise.least
            );
        }
        for missing in &self.missing {
            let _infallible = writeln!(text, "not measured: {missing}");
        }
        text
    }
}

/// Three decimals: more would be noise in every comparison of two files.
fn figure(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            limits: MachineLimits {
                dependent_ns: 100.0,
                prefetched_ns: 5.0,
                copy_ns: 0.5,
                region_bytes: 1 << 29,
            },
            rows: vec![Row {
                stage: "pipeline",
                mode: "nat",
                family: "ipv4",
                direction: "to-backend",
                flows: 1000,
                order: "uniform",
                threads: 1,
                ns: 20.0,
                loops: Some(Loops {
                    total_ns: 50.0,
                    bare_ns: 30.0,
                }),
                scaling: None,
            }],
            table_bytes_per_flow: Some(72.0),
            promises: vec![Promise {
                what: "hot",
                value: 30.0,
                aim: 20.0,
                least: 40.0,
                more_is_better: false,
            }],
            missing: vec!["two threads".to_owned()],
        }
    }

    #[test]
    fn json_has_the_keys_that_scripts_read() {
        let value = report().to_json(json!({ "cpu": "some" }));
        assert_eq!(
            value["rows"][0],
            json!({
                "stage": "pipeline", "mode": "nat", "family": "ipv4", "direction": "to-backend",
                "flows": 1000, "order": "uniform", "threads": 1, "ns": 20.0, "ratio_dram": 0.2,
                "ratio_prefetched": 4.0, "ratio_copy": 40.0, "total_ns": 50.0, "bare_ns": 30.0,
                "scaling": null,
            })
        );
        assert_eq!(
            value["machine"],
            json!({
                "cpu": "some", "dram_dependent_ns": 100.0, "dram_prefetched_ns": 5.0,
                "copy_64_ns": 0.5, "dram_region_bytes": 1 << 29,
            })
        );
        assert_eq!(value["promises"][0]["verdict"], "least");
        assert_eq!(value["missing"][0], "two threads");
        assert_eq!(value["table_bytes_per_flow"], 72.0);
    }

    #[test]
    fn a_promise_has_three_ends() {
        let mut promise = report().promises.remove(0);
        assert_eq!(promise.verdict(), "least");
        promise.value = 20.0;
        assert_eq!(promise.verdict(), "met");
        promise.value = 41.0;
        assert_eq!(promise.verdict(), "missed");
        promise.more_is_better = true;
        assert_eq!(promise.verdict(), "met");
    }

    #[test]
    fn the_table_has_a_line_for_each_figure() {
        let text = report().to_text();
        let row = text.lines().find(|line| line.starts_with("pipeline"));
        let fields: Vec<&str> = row.unwrap().split_whitespace().collect();
        assert_eq!(
            fields,
            [
                "pipeline",
                "nat",
                "ipv4",
                "to-backend",
                "1000",
                "uniform",
                "1",
                "20.0",
                "0.20",
                "4.00",
                "40.0",
                "50.0",
                "30.0"
            ]
        );
        assert!(text.contains("not measured: two threads"));
    }
}
