//! The whole run: which methods, in which order, within which time, and the file at the end.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::machine;
use crate::method::bench::Bench;
use crate::method::child::{INTERRUPTED, Stop, run as run_program};
use crate::method::contestant::{self, Scene, Tools};
use crate::method::outcome::{Outcome, Row};
use crate::method::plan::{Budget, Plan};
use crate::method::rate::Rates;
use crate::method::{connections, disturbance, idle, latency, loss, step, topology};

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
}

/// `ringgate-bench measure`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// These only
    #[arg(long, value_delimiter = ',')]
    only: Vec<Method>,
    /// Whether it works, in a minute or two; the figures mean little
    #[arg(long)]
    quick: bool,
    /// All has to be done in so many minutes; what does not fit is left out, and said
    #[arg(long, default_value_t = 9.0)]
    minutes: f64,
    /// Rounds in which contestants take turns
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
    modes: Vec<String>,
    /// Frame sizes, with their check sequence
    #[arg(long, value_delimiter = ' ', default_value = "64 512 1518 imix")]
    sizes: Vec<String>,
    /// Numbers of flows
    #[arg(long, value_delimiter = ' ', default_value = "1 1000 100000 1000000")]
    flows: Vec<u32>,
    /// Peers, as in the directory of their scripts
    #[arg(
        long,
        value_delimiter = ' ',
        default_value = "kernel nftables haproxy nginx"
    )]
    peers: Vec<String>,
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

/// Peers that forward UDP; others take connections.
const PACKET_PEERS: [&str; 3] = ["kernel", "nftables", "nftables-flowtable"];

/// Time that the microbenchmarks take, seconds.
const STAGES: f64 = 45.0;

/// How long they may take.
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
    fn plan(&self) -> Plan {
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

    fn has(&self, method: Method) -> bool {
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

    fn packet_peers(&self) -> Vec<String> {
        let is_one = |peer: &&String| PACKET_PEERS.contains(&peer.as_str());
        self.peers.iter().filter(is_one).cloned().collect()
    }
}

/// One thing to do: its name, its time in seconds, and how.
type Step<'a> = (
    String,
    f64,
    Box<dyn Fn(&mut Bench, &[Row]) -> Result<Vec<Row>, String> + 'a>,
);

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
            work: work.path().to_owned(),
        };
        if !tools.ringgate.exists() {
            return Err(format!(
                "{} is not there: cargo build --release -p ringgate -p ringgate-bench",
                tools.ringgate.display()
            ));
        }
        Ok(Self {
            arguments,
            bench: Bench::new(arguments.plan(), tools, stop)?,
            _work: work,
        })
    }

    fn finish(mut self) -> Result<Outcome, String> {
        let steps = self.steps();
        let limit = Duration::from_secs_f64(self.arguments.minutes * 60.0);
        let mut budget = Budget::new(limit, steps.len() + 1);
        let mut rows = Vec::new();
        for (what, seconds, measure) in &steps {
            if !budget.has_time_for(what, *seconds) {
                continue;
            }
            match measure(&mut self.bench, &rows) {
                Ok(more) => rows.extend(more),
                Err(why) if why == INTERRUPTED => return Err(why),
                Err(why) => {
                    eprintln!("  {what}: {why}");
                    budget.skip(what, why);
                }
            }
        }
        drop(steps);
        let mut stages = Vec::new();
        let wants_stages = self.arguments.has(Method::Stages);
        if wants_stages && budget.has_time_for("cost by step in memory", STAGES) {
            match self.stages() {
                Ok(rows) => stages = rows,
                Err(why) => budget.skip("cost by step in memory", why),
            }
        }
        if rows.is_empty() && stages.is_empty() {
            return Err(format!("nothing was measured: {:?}", budget.skipped));
        }
        Ok(Outcome {
            machine: machine::describe(),
            commit: machine::commit(),
            date: machine::date(),
            mode: if self.arguments.quick {
                "quick"
            } else {
                "full"
            }
            .to_owned(),
            command: self.arguments.command.clone(),
            seconds: budget.passed(),
            rows,
            windows: std::mem::take(&mut self.bench.windows),
            missing: std::mem::take(&mut self.bench.missing),
            skipped: budget.skipped,
            stages,
        })
    }

    /// What is to be done, the weightiest first.
    fn steps(&self) -> Vec<Step<'a>> {
        let (arguments, plan) = (self.arguments, &self.bench.plan);
        let mut steps: Vec<Step<'a>> = Vec::new();
        let pair = || vec!["bare".to_owned(), "ringgate".to_owned()];
        if arguments.has(Method::Rate) {
            let all = [pair(), arguments.packet_peers()].concat();
            steps.extend(self.rates(&all, "nat", "64", plan.flows, plan.rounds));
        }
        if arguments.has(Method::Loss) || arguments.has(Method::Latency) {
            let ours = ["ringgate", "bare"].map(str::to_owned);
            for who in ours.into_iter().chain(arguments.packet_peers()) {
                let what = format!("rates without loss, {who}");
                let step = Box::new(move |bench: &mut Bench, _: &[Row]| loss::measure(bench, &who));
                steps.push((what, loss::estimate(plan), step));
            }
        }
        if arguments.has(Method::Latency) {
            let step = |bench: &mut Bench, rows: &[Row]| latency::measure(bench, full_load(rows)?);
            steps.push((
                "latency".to_owned(),
                latency::estimate(plan),
                Box::new(step),
            ));
        }
        steps.extend(self.of_connections());
        steps.extend(self.of_disturbances());
        if arguments.has(Method::Rate) {
            let few = plan.few_rounds();
            let flows = arguments.flows.iter().filter(|&&flows| flows != plan.flows);
            steps.extend(flows.flat_map(|&flows| self.rates(&pair(), "nat", "64", flows, few)));
            let modes = arguments.modes.iter().filter(|mode| *mode != "nat");
            steps.extend(modes.flat_map(|mode| self.rates(&pair(), mode, "64", plan.flows, few)));
            let sizes = arguments.sizes.iter().filter(|size| *size != "64");
            steps.extend(sizes.flat_map(|size| self.rates(&pair(), "nat", size, plan.flows, few)));
        }
        steps
    }

    /// The step of one comparison, unless it was not asked for.
    fn rates(
        &self,
        who: &[String],
        mode: &str,
        size: &str,
        flows: u32,
        rounds: usize,
    ) -> Option<Step<'a>> {
        let arguments = self.arguments;
        let is_wanted = arguments.modes.iter().any(|one| one == mode)
            && arguments.sizes.iter().any(|one| one == size)
            && arguments.flows.contains(&flows);
        let mode = contestant::modes().find(|known| *known == mode)?;
        let (who, size) = (who.to_vec(), size.to_owned());
        let scene = Scene {
            mode,
            ..Scene::plain(flows)
        };
        let rates = Rates {
            who: &who,
            scene: scene.clone(),
            size: size.clone(),
            rounds,
        };
        let seconds = rates.estimate(&self.bench);
        let what = format!("rate, {mode}, {size} bytes, {flows} flows");
        let step = Box::new(move |bench: &mut Bench, _: &[Row]| {
            let rates = Rates {
                who: &who,
                scene: scene.clone(),
                size: size.clone(),
                rounds,
            };
            rates.measure(bench)
        });
        is_wanted.then_some((what, seconds, step))
    }

    fn of_connections(&self) -> Vec<Step<'a>> {
        let (arguments, plan) = (self.arguments, &self.bench.plan);
        let mut steps: Vec<Step<'a>> = Vec::new();
        let peers = arguments.peers.iter().filter(|peer| *peer != "kernel");
        let who: Vec<String> = std::iter::once("ringgate".to_owned())
            .chain(peers.cloned())
            .collect();
        if arguments.has(Method::Connections) {
            let (count, who) = (who.len(), who.clone());
            let step =
                Box::new(move |bench: &mut Bench, _: &[Row]| connections::measure(bench, &who));
            let seconds = connections::estimate(plan, count);
            steps.push(("connections".to_owned(), seconds, step));
        }
        if arguments.has(Method::Concurrent) {
            for name in who {
                let what = format!("connections held, {name}");
                let step =
                    Box::new(move |bench: &mut Bench, _: &[Row]| connections::hold(bench, &name));
                steps.push((what, connections::estimate_held(), step));
            }
        }
        steps
    }

    fn of_disturbances(&self) -> Vec<Step<'a>> {
        type How = fn(&mut Bench) -> Result<Vec<Row>, String>;
        let plan = &self.bench.plan;
        let all: [(Method, &str, f64, How); 6] = [
            (
                Method::Stages,
                "cost between the interfaces",
                step::estimate(plan),
                step::measure,
            ),
            (Method::Idle, "idle", idle::estimate(plan), idle::measure),
            (
                Method::Idle,
                "first packets after idling",
                idle::estimate_first(),
                idle::first_packets,
            ),
            (
                Method::Reset,
                "resets",
                disturbance::estimate_reset(plan),
                disturbance::resets,
            ),
            (
                Method::Reload,
                "reloads",
                disturbance::estimate_reload(plan),
                disturbance::reloads,
            ),
            (
                Method::Churn,
                "changes of backends",
                disturbance::estimate_churn(plan),
                disturbance::churn,
            ),
        ];
        let wanted = all
            .into_iter()
            .filter(|(method, ..)| self.arguments.has(*method));
        wanted
            .map(|(_, what, seconds, how)| -> Step<'a> {
                let step = Box::new(move |bench: &mut Bench, _: &[Row]| how(bench));
                (what.to_owned(), seconds, step)
            })
            .collect()
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
