//! `ringgate explain`: what would become of a packet, and why; live, or for a file.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use ringgate_config::Model;
use ringgate_conntrack::{Secret, Timeouts};
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::newcomers::Tables;
use ringgate_dataplane::snapshot::{Builder, Snapshot, by_backend};
use serde_json::Value;

use super::told;
use crate::cli::Explain;
use crate::commands::load;
use crate::control::{client, fib::Ports, netlink};
use crate::explanation::{Question, Scene, explain};
use crate::sources::Sources;

/// What a packet of a pcapng file begins with (the block type of a section's header).
const PCAPNG: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];

/// Runs the command.
pub(crate) fn run(args: &Explain) -> ExitCode {
    let answer = match parameters(args).map_err(Failure::Other) {
        Ok(parameters) => match &args.config {
            Some(file) => of_file(file, args, &parameters),
            None => {
                let target = client::target("/v1/explain", &parameters.pairs());
                client::get(&args.admin.admin, &target)
                    .map_err(|error| Failure::Other(error.to_string()))
            }
        },
        Err(failure) => Err(failure),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(Failure::Told(code)) => return code,
        Err(Failure::Other(message)) => {
            eprintln!("ringgate explain: {message}");
            return ExitCode::FAILURE;
        }
    };
    if args.json {
        println!("{answer:#}");
    } else {
        print!("{}", render(&answer, args.bytes));
    }
    let leaves = answer["verdict"] == "forwarded" || answer["verdict"] == "answered";
    if leaves || answer["backend"].is_string() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

enum Failure {
    /// It was printed.
    Told(ExitCode),
    Other(String),
}

/// What is asked, by name.
struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    fn pairs(&self) -> Vec<(&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (*name, value.as_str())).collect()
    }

    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| Cow::Borrowed(value.as_str()))
    }
}

/// What the command line asks.
fn parameters(args: &Explain) -> Result<Parameters, String> {
    let mut parameters = Vec::new();
    let mut add = |name, value: Option<String>| parameters.extend(value.map(|value| (name, value)));
    add("protocol", args.protocol.map(|one| one.as_str().to_owned()));
    add("from", args.from.map(|one| one.to_string()));
    add("to", args.to.map(|one| one.to_string()));
    add("size", args.size.map(|one| one.to_string()));
    add("open", args.open.then(|| "true".to_owned()));
    add("vlan", args.vlan.clone());
    add("interface", args.interface.clone());
    add("frame", args.hex.clone());
    if let Some(file) = &args.pcap {
        let frame = packet(file, args.number)?;
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        add("frame", Some(hex));
    }
    Ok(Parameters(parameters))
}

/// The packet of this number in a capture file, from 1.
fn packet(file: &Path, number: usize) -> Result<Vec<u8>, String> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|error| format!("{name}: cannot be read: {error}"))?;
    let packets = match bytes.starts_with(&PCAPNG) {
        true => of_pcapng(bytes),
        false => of_pcap(bytes),
    };
    let packets = packets.map_err(|error| format!("{name}: no capture of Ethernet: {error}"))?;
    let count = packets.len();
    let packet = number
        .checked_sub(1)
        .and_then(|at| packets.into_iter().nth(at));
    packet.ok_or_else(|| format!("{name}: there is no packet {number}; it has {count}"))
}

fn of_pcap(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    let told = |error: pcap_file::PcapError| error.to_string();
    let mut reader = PcapReader::new(Cursor::new(bytes)).map_err(told)?;
    is_ethernet(reader.header().datalink)?;
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.map_err(told)?.data.into_owned());
    }
    Ok(packets)
}

fn of_pcapng(bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
    let told = |error: pcap_file::PcapError| error.to_string();
    let mut reader = PcapNgReader::new(Cursor::new(bytes)).map_err(told)?;
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.map_err(told)? {
            Block::InterfaceDescription(interface) => is_ethernet(interface.linktype)?,
            Block::EnhancedPacket(packet) => packets.push(packet.data.into_owned()),
            Block::SimplePacket(packet) => packets.push(packet.data.into_owned()),
            _ => {}
        }
    }
    Ok(packets)
}

fn is_ethernet(link: DataLink) -> Result<(), String> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => Err(format!("its link type is {other:?}")),
    }
}

/// The answer for a configuration that is not running, on this host as it is.
fn of_file(file: &Path, args: &Explain, parameters: &Parameters) -> Result<Value, Failure> {
    let other = |message: String| Failure::Other(message);
    let model = load(file).map_err(Failure::Told)?.model;
    let health = match args.running {
        true => running(args).map_err(other)?,
        false => HashMap::new(),
    };
    let snapshot = proposed(&model, &health).map_err(other)?;
    let question = Question::read(|name| parameters.get(name)).map_err(other)?;
    // A file has no flows: the smallest table says so.
    let tables = Tables::new(1, Secret([0, 0]), Timeouts::default());
    let tables =
        tables.map_err(|error| other(format!("no memory for a page of flows: {error}")))?;
    let interfaces: Vec<String> = model
        .interfaces()
        .iter()
        .map(|one| one.name().into())
        .collect();
    let scene = Scene {
        model: &model,
        snapshot: &snapshot,
        tables: &tables,
        fragments: None,
        interfaces: &interfaces,
        now: Millis(0),
    };
    explain(&question, &scene).map_err(other)
}

/// The snapshot that this configuration would have on this host now, its backends as `health` says; those
/// that it does not know are up.
fn proposed(model: &Model, health: &HashMap<(String, String), Health>) -> Result<Snapshot, String> {
    let watcher = netlink::settled().map_err(|error| error.to_string())?;
    let ports = Ports::new(model.interfaces().iter().map(|i| (i.name(), i.vlan_tags())));
    let fib = ports.fib(watcher.network());
    let sources = Sources::new(model, 1, Secret([0, 0])).map_err(|error| error.to_string())?;
    let mut builder = Builder::default();
    builder.with_sources(sources.0.ports());
    let of = |service: &ringgate_config::Service, backend: &ringgate_config::Backend| {
        let name = (service.name().to_owned(), backend.name());
        health.get(&name).copied().unwrap_or(Health::Up)
    };
    let snapshot = builder.build(model, by_backend(of), &Arc::clone(&fib), false);
    snapshot.map_err(|error| error.to_string())
}

/// What the running balancer knows of its backends, by the names of service and backend.
fn running(args: &Explain) -> Result<HashMap<(String, String), Health>, String> {
    let status = client::get(&args.admin.admin, "/v1/status").map_err(|error| error.to_string())?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut health = HashMap::new();
    for service in list(&status["services"]) {
        for backend in list(&service["backends"]) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let state = match backend["state"].as_str() {
                Some("down") => Health::Down,
                _ => Health::Up,
            };
            health.insert((text(&service["name"]), text(&backend["address"])), state);
        }
    }
    Ok(health)
}

/// The page for people.
fn render(answer: &Value, bytes: bool) -> String {
    let mut page = String::new();
    let summary = answer["summary"].as_str().unwrap_or_default();
    page += &format!("packet   {summary}\n");
    for (name, field) in [
        ("service", "service"),
        ("backend", "backend"),
        ("forward", "forward"),
        ("source", "source"),
        ("flow", "flow"),
        ("why", "why"),
        ("verdict", "verdict"),
        ("reason", "reason"),
    ] {
        let is_always = matches!(field, "service" | "backend" | "flow");
        match answer[field].as_str() {
            Some(text) => page += &format!("{name:<9}{text}\n"),
            None if is_always => page += &format!("{name:<9}none\n"),
            None => {}
        }
    }
    let check = &answer["check"];
    if let (Some(kind), Some(every)) = (check["kind"].as_str(), check["interval_ms"].as_u64()) {
        let (via, asked) = (&check["via"], check["asked"].as_str().unwrap_or_default());
        let via = via.as_str().unwrap_or_default();
        let every = Duration::from_millis(every);
        page += &match kind {
            "reported" => "check    reported by an agent\n".to_owned(),
            _ => format!("check    {kind} every {every:?}, via {via}: asks {asked}\n"),
        };
    }
    page + "stages:\n" + &told::render(answer, bytes)
}

#[cfg(test)]
mod tests;
