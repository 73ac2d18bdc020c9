//! The whole run: what is on the agenda, within its time, and the file at the end.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::method::agenda::{self, How};
use crate::method::bench::Bench;
use crate::method::child::{INTERRUPTED, Stop, run as run_program};
use crate::method::contestant::{self, Tools};
use crate::method::outcome::{self, Outcome, Row};
use crate::method::plan::{Budget, Plan};
use crate::method::{connections, latency, loss, topology};
use crate::{machine, meter};

/// A part that can be run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// Greatest rates: modes, sizes, flows, and the peers
    Rate,
    /// Rates without loss and with 0.5 %
    Loss,
    /// Latency at 50, 90 and 100 % of the rate without loss
    Latency,
    /// TCP connections per second
    Connections,
    /// TCP connections held at once
    Concurrent,
    /// Idle CPU, first packet after idling
    Idle,
    /// kill -9 and a new start
    Reset,
    /// Reloads under load
    Reload,
    /// Backends that go and come
    Churn,
    /// Cost by step, between the interfaces and in memory
    Stages,
    /// IPv6 beside IPv4
    Ipv6,
}

/// `ringgate-bench measure`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// These only
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Method>,
    /// Whether it works, in some three minutes; the figures mean little
    #[arg(long)]
    quick: bool,
    /// All has to be done in so many minutes; what does not fit is left out, and said
    #[arg(long, default_value_t = 9.0)]
    minutes: f64,
    /// Rounds in which contestants take turns, of the comparison that matters most
    #[arg(long, alias = "pairs")]
    rounds: Option<usize>,
    /// Length of a window
    #[arg(long)]
    seconds: Option<f64>,
    /// Forwarding modes
    #[arg(
        long,
        value_delimiter = ' ',
        default_value = "nat full-nat dsr-l2 ipip gue gre"
    )]
    pub(crate) modes: Vec<String>,
    /// Frame sizes, with their check sequence
    #[arg(long, value_delimiter = ' ', default_value = "64 512 1518 imix")]
    pub(crate) sizes: Vec<String>,
    /// Numbers of flows
    #[arg(long, value_delimiter = ' ', default_value = "1 1000 100000 1000000")]
    pub(crate) flows: Vec<u32>,
    /// Peers, as in the directory of their scripts
    #[arg(
        long,
        value_delimiter = ' ',
        default_value = "kernel nftables haproxy nginx"
    )]
    pub(crate) peers: Vec<String>,
    /// Where the peers' scripts are
    #[arg(long, default_value = "scripts/peers")]
    peer_scripts: PathBuf,
    /// Write the result here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What to type to have it measured again, for the report
    #[arg(long, default_value = "ringgate-bench measure", hide = true)]
    command: String,
    /// Take down what a killed run has left, and measure nothing
    #[arg(long)]
    clean: bool,
}

/// How long the microbenchmarks may take.
const STAGES_LIMIT: Duration = Duration::from_secs(180);

/// Measures, prints a table, and writes the file.
///
/// # Errors
///
/// In words: no privileges, another run, one of ours does not start, or a signal.
pub fn run(arguments: &Arguments) -> Result<(), String> {
    let stop = Stop::on_signals()?;
    if arguments.clean {
        return topology::clean(&stop);
    }
    arguments.refuse_nonsense()?;
    let outcome = Run::new(arguments, stop)?.finish()?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&outcome).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    crate::method::text::print(&outcome);
    Ok(())
}

impl Arguments {
    pub(crate) fn plan(&self) -> Plan {
        let plan = if self.quick {
            Plan::quick()
        } else {
            Plan::full()
        };
        Plan {
            rounds: self.rounds.unwrap_or(plan.rounds).max(1),
            window: self.seconds.unwrap_or(plan.window).clamp(0.1, 600.0),
            ..plan
        }
    }

    pub(crate) fn has(&self, method: Method) -> bool {
        self.only.is_empty() || self.only.contains(&method)
    }

    fn refuse_nonsense(&self) -> Result<(), String> {
        let known: Vec<&str> = contestant::modes().collect();
        let unknown: Vec<&String> = self
            .modes
            .iter()
            .filter(|mode| !known.contains(&mode.as_str()))
            .collect();
        if !unknown.is_empty() {
            return Err(format!(
                "--modes: found {unknown:?}, expected some of {known:?}"
            ));
        }
        if !(self.minutes > 0.0 && self.minutes <= 600.0) {
            return Err(format!(
                "--minutes: found {}, expected up to 600",
                self.minutes
            ));
        }
        Ok(())
    }
}

/// What an item has brought.
#[derive(Debug)]
enum Measured {
    Rows(Vec<Row>),
    /// Of the microbenchmarks.
    Stages(Vec<Value>),
}

/// A run under way.
#[derive(Debug)]
struct Run<'a> {
    arguments: &'a Arguments,
    bench: Bench,
    /// Removed with what is in it.
    _work: tempfile::TempDir,
}

impl<'a> Run<'a> {
    fn new(arguments: &'a Arguments, stop: Stop) -> Result<Self, String> {
        let work = tempfile::Builder::new().prefix("rgbench-").tempdir();
        let work = work.map_err(|error| format!("a directory for this run: {error}"))?;
        let bench = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let tools = Tools {
            ringgate: bench.with_file_name("ringgate"),
            bench,
            peers: arguments.peer_scripts.clone(),
        };
        if !tools.ringgate.exists() {
            return Err(format!(
                "{} is not there: cargo build --release -p ringgate -p ringgate-bench",
                tools.ringgate.display()
            ));
        }
        Ok(Self {
            arguments,
            bench: Bench::new(arguments.plan(), tools, work.path().to_owned(), stop)?,
            _work: work,
        })
    }

    fn finish(mut self) -> Result<Outcome, String> {
        let agenda = agenda::of(self.arguments, &self.bench.plan);
        let limit = Duration::from_secs_f64(self.arguments.minutes * 60.0);
        let mut budget = Budget::new(limit, agenda.len());
        let (mut rows, mut stages) = (Vec::new(), Vec::new());
        for item in &agenda {
            if !budget.has_time_for(&item.what, item.seconds) {
                continue;
            }
            let start = meter::now();
            match self.take(&item.how, &rows) {
                Ok(Measured::Rows(more)) => outcome::put(&mut rows, more),
                Ok(Measured::Stages(more)) => stages = more,
                Err(why) if why == INTERRUPTED => return Err(why),
                Err(why) => {
                    eprintln!("  {}: {why}", item.what);
                    budget.skip(&item.what, why);
                }
            }
            budget.took(&item.what, item.seconds, start.elapsed());
        }
        if rows.is_empty() && stages.is_empty() {
            return Err(format!("nothing was measured: {:?}", budget.skipped));
        }
        let mode = if self.arguments.quick {
            "quick"
        } else {
            "full"
        };
        Ok(Outcome {
            machine: machine::describe(),
            commit: machine::commit(),
            date: machine::date(),
            mode: mode.to_owned(),
            command: self.arguments.command.clone(),
            seconds: budget.passed(),
            rows,
            windows: std::mem::take(&mut self.bench.windows),
            missing: std::mem::take(&mut self.bench.missing),
            skipped: budget.skipped,
            steps: budget.taken,
            stages,
        })
    }

    /// Does one item; `rows` is what is known by now.
    fn take(&mut self, how: &How, rows: &[Row]) -> Result<Measured, String> {
        let bench = &mut self.bench;
        let rows = match how {
            How::Rates(rates) => rates.measure(bench),
            How::Loss(who) => loss::measure(bench, who),
            How::Latency(rounds) => latency::measure(bench, full_load(rows)?, *rounds),
            How::Connections(who, rounds) => connections::measure(bench, who, *rounds),
            How::Hold(who) => connections::hold(bench, who),
            How::Bench(measure) => measure(bench),
            How::Stages => return self.stages().map(Measured::Stages),
        };
        rows.map(Measured::Rows)
    }

    /// Rows of the microbenchmarks.
    fn stages(&self) -> Result<Vec<Value>, String> {
        let mut command = Command::new(&self.bench.tools.bench);
        command.args(["micro", "--json", "--quick", "--only", "parts,pipeline"]);
        let ran = run_program(&mut command, STAGES_LIMIT, &self.bench.stop)?;
        let text = ran.good("ringgate-bench micro")?;
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok(value["rows"].as_array().cloned().unwrap_or_default())
    }
}

/// What Ringgate forwards without loss, or the bare forwarder if that is less: at 100 % neither
/// is to be beyond what it can.
fn full_load(rows: &[Row]) -> Result<f64, String> {
    let found = rows.iter().filter(|row| row.method == "ndr");
    let ours = found.filter(|row| ["bare", "ringgate"].contains(&row.who.as_str()));
    ours.filter_map(|row| row.value)
        .reduce(f64::min)
        .ok_or_else(|| "there is no rate without loss to measure at".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: &str, who: &str, value: Option<f64>) -> Row {
        Row {
            method: method.to_owned(),
            who: who.to_owned(),
            value,
            ..Row::default()
        }
    }

    #[test]
    fn latency_is_measured_at_what_both_can() {
        let rows = [
            row("ndr", "ringgate", Some(180.0)),
            row("ndr", "bare", Some(170.0)),
            row("ndr", "nftables", Some(60.0)),
            row("pdr", "bare", Some(10.0)),
        ];
        assert_eq!(full_load(&rows), Ok(170.0));
        assert!(full_load(&rows[2..]).is_err());
        assert!(full_load(&[row("ndr", "ringgate", None)]).is_err());
    }
}
