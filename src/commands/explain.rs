//! `ringgate explain`: which backend a flow gets, and why; live, or for a file.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::process::ExitCode;

use ringgate_conntrack::{Secret, Timeouts};
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::newcomers::Tables;
use serde_json::Value;

use crate::cli::Explain;
use crate::commands::{REFUSED, check, load};
use crate::control::client;
use crate::explanation::{Question, explain};

/// Runs the command.
pub(crate) fn run(args: &Explain) -> ExitCode {
    let answer = match &args.config {
        Some(file) => {
            let snapshot = match load(file).map(|parsed| check::proposed(&parsed.model)) {
                Ok(Ok(snapshot)) => snapshot,
                Ok(Err(error)) => {
                    eprintln!("{}: {error}", file.display());
                    return ExitCode::from(REFUSED);
                }
                Err(code) => return code,
            };
            let question = Question {
                protocol: args.protocol.number(),
                from: args.from,
                to: args.to,
            };
            // A file has no flows: the smallest table says so.
            let tables = match Tables::new(1, Secret([0, 0]), Timeouts::default()) {
                Ok(tables) => tables,
                Err(error) => {
                    eprintln!("no memory for a page of flows: {error}");
                    return ExitCode::FAILURE;
                }
            };
            explain(&question, &snapshot, &tables, Millis(0))
        }
        None => {
            let (from, to) = (args.from.to_string(), args.to.to_string());
            let parameters = [
                ("protocol", args.protocol.as_str()),
                ("from", &from),
                ("to", &to),
            ];
            let target = client::target("/v1/explain", &parameters);
            match client::get(&args.admin.admin, &target) {
                Ok(answer) => answer,
                Err(error) => {
                    eprintln!("ringgate explain: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
    };
    if args.json {
        println!("{answer:#}");
    } else {
        print!("{}", render(&answer));
    }
    if answer["backend"].is_string() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn render(answer: &Value) -> String {
    let text = |name: &str| answer[name].as_str().unwrap_or("none").to_owned();
    let source = match answer["source"].as_str() {
        Some(source) => format!("source   {source}\n"),
        None => String::new(),
    };
    format!(
        "service  {}\nbackend  {}\nforward  {}\n{source}flow     {}\nwhy      {}\n",
        text("service"),
        text("backend"),
        text("forward"),
        text("flow"),
        text("why")
    )
}
