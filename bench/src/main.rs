//! `ringgate-bench`: traffic source and sink, bare forwarder, microbenchmarks. `scripts/bench` puts them together.
#![expect(
    clippy::print_stdout,
    reason = "printing results is what this program is for"
)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ringgate_bench::generator::command::{
    BlastArgs, CalibrateArgs, ConnectArgs, HardwareAddress, SinkArgs, run_blast, run_calibrate,
    run_connect, run_sink,
};
use ringgate_bench::micro::memories;
use ringgate_bench::micro::steady::{self, Steady, Watched};
use ringgate_bench::micro::world::{Direction, Mode};
use ringgate_bench::{bare, machine, method, micro, report, rings, stages};
use ringgate_dataplane::parse::Family;
use serde_json::json;

/// Traffic and measurements for Ringgate.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Blast(BlastArgs),
    Sink(SinkArgs),
    Connect(ConnectArgs),
    Calibrate(CalibrateArgs),
    /// Forward between two interfaces with AF_XDP and nothing else
    Bare(BareArgs),
    /// Tell where the time of a packet goes between two interfaces, of the balancer's worker or the bare forwarder
    Stages(StagesArgs),
    /// Measure the balancer's own work in memory, beside what memory costs on this machine
    Micro(MicroArgs),
    /// Run packets through the pipeline in memory and nothing else, for tools that count
    Pipeline(PipelineArgs),
    /// Measure Maglev rings: time to build, balance, slots that changes move
    Maglev {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare what a flow table can lie in: lookups and packets, 4 million flows
    Memory {
        /// How many flows
        #[arg(long, default_value_t = 4_000_000)]
        flows: u32,
        /// How many times each is measured, in turn
        #[arg(long, default_value_t = 15)]
        samples: usize,
    },
    /// Measure Ringgate, the bare forwarder and peers on veth pairs, in turn
    Measure(Box<method::Arguments>),
    /// Write one page of HTML from what `measure` has written
    Report(report::Arguments),
    /// Print what a result measured here belongs to
    Machine,
}

#[derive(Debug, clap::Args)]
struct BareArgs {
    /// Destination of the packets to forward
    #[arg(long)]
    service: SocketAddr,
    #[command(flatten)]
    path: PathArgs,
}

#[derive(Debug, clap::Args)]
struct PathArgs {
    #[arg(long)]
    front: String,
    #[arg(long)]
    back: String,
    /// Hardware address of the interface behind
    #[arg(long)]
    source: HardwareAddress,
    /// Hardware address of the far end
    #[arg(long)]
    destination: HardwareAddress,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long)]
    core: usize,
}

#[derive(Debug, clap::Args)]
struct StagesArgs {
    /// The bare forwarder in the place of the balancer's worker
    #[arg(long)]
    bare: bool,
    /// Entries of the flow table
    #[arg(long, default_value_t = 1 << 20)]
    entries: usize,
    #[command(flatten)]
    path: PathArgs,
}

#[derive(Debug, clap::Args)]
struct MicroArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Few packets and few flows: whether it works, not what it costs
    #[arg(long)]
    quick: bool,
    /// These sections only
    #[arg(long, value_delimiter = ',')]
    only: Vec<micro::Section>,
}

#[derive(Debug, clap::Args)]
struct PipelineArgs {
    /// Rounded up to whole bursts of 64
    #[arg(long)]
    packets: u64,
    #[arg(long, default_value_t = 1_000)]
    flows: u32,
    #[arg(long)]
    mode: Mode,
    #[arg(long, default_value = "to-backend")]
    direction: Direction,
    /// IPv6 packets
    #[arg(long)]
    ipv6: bool,
    /// Every packet is the first of a flow
    #[arg(long)]
    new: bool,
    /// The bare loop, without parsing, tables and rewriting
    #[arg(long)]
    bare: bool,
    /// With a tap on that looks at this of each packet and takes none
    #[arg(long)]
    watched: Option<Watched>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Blast(args) => return end(run_blast(&args)),
        Command::Sink(args) => return end(run_sink(&args)),
        Command::Connect(args) => return end(run_connect(&args)),
        Command::Calibrate(args) => return end(run_calibrate(&args)),
        Command::Bare(args) => run_bare(&args),
        Command::Stages(args) => run_stages(&args),
        Command::Micro(args) => run_micro(&args),
        Command::Pipeline(args) => run_pipeline(&args),
        Command::Maglev { json } => run_maglev(json),
        Command::Memory { flows, samples } => memories::measure(flows, samples).map(|report| {
            println!("{report}");
        }),
        Command::Measure(args) => method::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Machine => {
            println!("{}", machine::describe());
            Ok(())
        }
    };
    end(result.map(|()| ExitCode::SUCCESS))
}

fn end(result: Result<ExitCode, String>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringgate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_bare(args: &BareArgs) -> Result<(), String> {
    let (path, duration) = args.path.resolved();
    let forwarded =
        bare::forward(&path, args.service, duration).map_err(|error| error.to_string())?;
    println!(
        "{}",
        json!({ "frames": forwarded.frames, "cpu_seconds": forwarded.cpu.as_secs_f64() })
    );
    Ok(())
}

fn run_stages(args: &StagesArgs) -> Result<(), String> {
    let (path, duration) = args.path.resolved();
    let window = if args.bare {
        stages::forwarder(&path, duration)
    } else {
        stages::balancer(&path, args.entries, duration)
    }?;
    println!("{}", window.to_json());
    Ok(())
}

impl PathArgs {
    fn resolved(&self) -> (bare::Path, Duration) {
        let path = bare::Path {
            front: self.front.clone(),
            back: self.back.clone(),
            source: self.source.0,
            destination: self.destination.0,
            core: self.core,
        };
        (path, Duration::from_secs(self.seconds))
    }
}

fn run_micro(args: &MicroArgs) -> Result<(), String> {
    let plan = micro::Plan {
        only: args.only.clone(),
        ..if args.quick {
            micro::Plan::quick()
        } else {
            micro::Plan::full()
        }
    };
    let report = micro::run(&plan, |what| eprintln!("measuring {what}"))?;
    if args.json {
        println!("{}", report.to_json(machine::describe()));
    } else {
        print!("{}", report.to_text());
    }
    Ok(())
}

fn run_pipeline(args: &PipelineArgs) -> Result<(), String> {
    let driven = steady::run(&Steady {
        mode: args.mode,
        family: if args.ipv6 { Family::V6 } else { Family::V4 },
        direction: args.direction,
        flows: args.flows,
        new: args.new,
        bare: args.bare,
        packets: args.packets.next_multiple_of(64),
        watched: args.watched,
    })?;
    println!("{}", json!({ "packets": driven.packets }));
    Ok(())
}

fn run_maglev(as_json: bool) -> Result<(), String> {
    let machine = as_json.then(machine::describe);
    rings::report(std::io::stdout().lock(), machine.as_ref()).map_err(|error| error.to_string())
}
