//! `ringgate-bench`: traffic source and bare forwarder. `scripts/bench` puts them together.
#![expect(
    clippy::print_stdout,
    reason = "printing results is what this program is for"
)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ringgate_bench::micro::memories;
use ringgate_bench::micro::steady::{self, Steady, Watched};
use ringgate_bench::micro::world::{Direction, Mode};
use ringgate_bench::{bare, blast, machine, method, micro, report, rings, traffic};
use ringgate_dataplane::parse::Family;
use ringgate_dataplane::pin::pin;
use ringgate_dataplane::wire::ethernet::Mac;
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
    /// Send 64-byte UDP out of an interface as fast as the host lets it
    Blast(BlastArgs),
    /// Forward between two interfaces with AF_XDP and nothing else
    Bare(BareArgs),
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
struct BlastArgs {
    #[arg(long)]
    interface: String,
    /// Hardware address of this interface
    #[arg(long)]
    near: HardwareAddress,
    /// Hardware address of the balancer's interface
    #[arg(long)]
    far: HardwareAddress,
    /// First client address
    #[arg(long)]
    from: Ipv4Addr,
    #[arg(long)]
    to: SocketAddrV4,
    #[arg(long, default_value_t = 1)]
    flows: u32,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long)]
    core: usize,
}

#[derive(Debug, clap::Args)]
struct BareArgs {
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
    /// Destination of the packets to forward
    #[arg(long)]
    service: SocketAddrV4,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long)]
    core: usize,
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

/// A hardware address as `ip link` prints it.
#[derive(Debug, Clone, Copy)]
struct HardwareAddress(Mac);

impl FromStr for HardwareAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Result<Vec<u8>, _> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect();
        let bytes = bytes.ok().and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        bytes
            .map(|bytes| Self(Mac(bytes)))
            .ok_or_else(|| format!("found {text:?}, expected six bytes such as 02:00:00:00:00:01"))
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Blast(args) => run_blast(&args),
        Command::Bare(args) => run_bare(&args),
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
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringgate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_blast(args: &BlastArgs) -> Result<(), String> {
    pin(args.core).map_err(|error| error.to_string())?;
    let traffic = traffic::Traffic::new(args.near.0, args.far.0, args.from, args.to, args.flows);
    let duration = Duration::from_secs(args.seconds);
    let offered = blast::blast(&args.interface, &traffic, duration)?;
    println!(
        "{}",
        json!({ "frames": offered.frames, "seconds": offered.elapsed.as_secs_f64() })
    );
    Ok(())
}

fn run_bare(args: &BareArgs) -> Result<(), String> {
    let path = bare::Path {
        front: args.front.clone(),
        back: args.back.clone(),
        source: args.source.0,
        destination: args.destination.0,
        core: args.core,
    };
    let duration = Duration::from_secs(args.seconds);
    let forwarded =
        bare::forward(&path, args.service.into(), duration).map_err(|error| error.to_string())?;
    println!(
        "{}",
        json!({ "frames": forwarded.frames, "cpu_seconds": forwarded.cpu.as_secs_f64() })
    );
    Ok(())
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
