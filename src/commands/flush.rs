//! `ringgate flush`: have a running balancer forget flows.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::Flush;
use crate::control::client;

/// Runs the command.
pub(crate) fn run(args: &Flush) -> ExitCode {
    let mut parameters = Vec::new();
    if let Some(service) = &args.service {
        parameters.push(("service", service.as_str()));
    }
    if let Some(backend) = &args.backend {
        parameters.push(("backend", backend.as_str()));
    }
    if args.all {
        parameters.push(("all", "true"));
    }
    let target = client::target("/v1/flush", &parameters);
    match client::post(&args.admin.admin, &target, b"") {
        Ok(answer) if args.json => println!("{answer:#}"),
        Ok(answer) => println!("{}", render(&answer)),
        Err(error) => {
            eprintln!("ringgate flush: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn render(answer: &Value) -> String {
    let whose = match (answer["service"].as_str(), answer["backend"].as_str()) {
        (Some(service), Some(backend)) => format!("of {backend} in {service}"),
        (Some(service), None) => format!("of {service}"),
        (None, _) => "of all services".to_owned(),
    };
    format!(
        "flushed {} flows ({} entries) {whose}",
        answer["flows"], answer["entries"]
    )
}
