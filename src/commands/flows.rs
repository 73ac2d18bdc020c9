//! `ringgate flows`: the flows of a running balancer, as a table.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::Flows;
use crate::control::client;

/// Flows asked for at once.
const PAGE: usize = 1000;

/// Runs the command.
pub(crate) fn run(args: &Flows) -> ExitCode {
    match list(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ringgate flows: {message}");
            ExitCode::FAILURE
        }
    }
}

fn list(args: &Flows) -> Result<(), String> {
    let mut filters = Vec::new();
    for (name, value) in [
        ("service", &args.service),
        ("backend", &args.backend),
        ("client", &args.client),
        ("state", &args.state),
    ] {
        filters.extend(value.as_deref().map(|value| (name, value)));
    }
    filters.extend(args.protocol.map(|one| ("protocol", one.as_str())));
    let mut cursor: Option<String> = None;
    let mut left = args.limit;
    let mut is_first = true;
    while left > 0 {
        let limit = left.min(PAGE).to_string();
        let mut parameters = filters.clone();
        parameters.push(("limit", &limit));
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let target = client::target("/v1/flows", &parameters);
        let mut page = client::get(&args.admin.admin, &target).map_err(|e| e.to_string())?;
        let Value::Array(mut flows) = page["flows"].take() else {
            return Err("the answer has no flows".to_owned());
        };
        flows.truncate(left);
        left -= flows.len();
        match show(&flows, args.json, is_first) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
        is_first = false;
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
    eprintln!("more flows may be there: --limit shows more");
    Ok(())
}

fn show(flows: &[Value], json: bool, is_first: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !json && is_first {
        writeln!(out, "{}", row(HEAD))?;
    }
    for flow in flows {
        if json {
            writeln!(out, "{flow}")?;
            continue;
        }
        let text = |name: &str| flow[name].as_str().unwrap_or("-");
        let idle = flow["idle_seconds"].to_string();
        writeln!(
            out,
            "{}",
            row([
                text("protocol"),
                text("client"),
                text("to"),
                text("service"),
                text("backend"),
                text("state"),
                &idle,
            ])
        )?;
    }
    Ok(())
}

const HEAD: [&str; 7] = [
    "proto", "client", "to", "service", "backend", "state", "idle s",
];

fn row([protocol, client, to, service, backend, state, idle]: [&str; 7]) -> String {
    format!("{protocol:<5} {client:<28} {to:<28} {service:<16} {backend:<28} {state:<14} {idle:>6}")
}
