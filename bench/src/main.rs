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
use ringgate_bench::{bare, blast, machine, micro, rings, traffic};
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
    /// Measure the pipeline in memory: nanoseconds a packet by mode and number of flows
    Micro {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Packets of each measurement
        #[arg(long, default_value_t = 4_000_000)]
        packets: u64,
    },
    /// Measure Maglev rings: time to build, balance, slots that changes move
    Maglev {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
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
        Command::Micro { json, packets } => run_micro(json, packets),
        Command::Maglev { json } => run_maglev(json),
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

fn run_micro(as_json: bool, packets: u64) -> Result<(), String> {
    let mut rows = Vec::new();
    for mode in ["nat", "dsr-l2"] {
        for flows in [1, 1_000, 64_000, 1_000_000] {
            let cost = micro::pipeline(mode, flows, packets)?;
            if !as_json {
                let own = cost.total - cost.ports;
                println!(
                    "{mode:<8} {flows:>9} flows  {:>6.1} ns a packet, {own:>6.1} beyond ports and loop",
                    cost.total
                );
            }
            rows.push(json!({ "mode": mode, "flows": flows, "total_ns": cost.total, "ports_ns": cost.ports }));
        }
    }
    if as_json {
        println!(
            "{}",
            json!({ "machine": machine::describe(), "rows": rows })
        );
    }
    Ok(())
}

fn run_maglev(as_json: bool) -> Result<(), String> {
    let machine = as_json.then(machine::describe);
    rings::report(std::io::stdout().lock(), machine.as_ref()).map_err(|error| error.to_string())
}
