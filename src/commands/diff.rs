//! `ringgate diff OLD NEW`: what one file makes of another, without a balancer.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::process::ExitCode;
use std::sync::Arc;

use ringgate_config::Parsed;
use ringgate_dataplane::backend::{Health, NoSlot};
use ringgate_dataplane::route::Fib;
use ringgate_dataplane::snapshot::Builder;
use serde_json::Value;

use crate::cli::Diff;
use crate::commands::{REFUSED, load};
use crate::reload::plan::{Change, Plan};

/// Exit status when the files differ, as diff(1) has it.
const DIFFERENT: u8 = 1;

/// Runs the command.
pub(crate) fn run(args: &Diff) -> ExitCode {
    let [old, new] = [&args.old, &args.new].map(|file| load(file));
    let (old, new) = match (old, new) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(code), _) | (_, Err(code)) => return code,
    };
    let answer = match plan(&old, &new) {
        Ok(plan) => plan.to_json(),
        Err(error) => {
            eprintln!("ringgate diff: {error}");
            return ExitCode::from(REFUSED);
        }
    };
    if args.json {
        println!("{answer:#}");
    } else {
        print!("{}", render(&answer));
    }
    match answer["same"] == true {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(DIFFERENT),
    }
}

/// As if the old one ran, with every check passing.
fn plan(old: &Parsed, new: &Parsed) -> Result<Plan, NoSlot> {
    let mut builder = Builder::default();
    let fib = Arc::new(Fib::default());
    let before = builder.build(&old.model, |_, _| Health::Up, &fib, false)?;
    let after = builder.foresee(&new.model, |_, _| Health::Up);
    let change = Change {
        old: &old.model,
        new: &new.model,
        before: &before,
        after: &after,
        flows: None,
    };
    // The files' own warnings have been printed.
    Ok(Plan::of(&change, Vec::new()))
}

/// A plan for people.
pub(crate) fn render(plan: &Value) -> String {
    if plan["same"] == true {
        return "nothing changes\n".to_owned();
    }
    let mut lines = Vec::new();
    let list = |key: &str| plan[key].as_array().map_or([].as_slice(), Vec::as_slice);
    let actions = list("actions");
    let told = actions.iter().filter_map(|action| action["text"].as_str());
    lines.extend(told.map(str::to_owned));
    let total = plan["actions_total"].as_u64().unwrap_or(0);
    match total.saturating_sub(actions.len() as u64) {
        0 => {}
        more => lines.push(format!("and {more} more")),
    }
    if !list("services").is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:<20} {:<8} {:>11} {:>20}   share / weight",
            "service", "", "slots moved", "flows affected"
        ));
    }
    lines.extend(list("services").iter().map(outlook));
    if !list("warnings").is_empty() {
        lines.push(String::new());
    }
    let warnings = list("warnings").iter().filter_map(Value::as_str);
    lines.extend(warnings.map(|warning| match warning.contains("warning: ") {
        true => warning.to_owned(),
        false => format!("warning: {warning}"),
    }));
    lines.join("\n") + "\n"
}

fn outlook(service: &Value) -> String {
    let percent = |key: &str| service[key].as_f64().unwrap_or(0.0);
    let change = service["change"].as_str().unwrap_or("-");
    let moved = match change {
        "changed" => format!("{:.2} %", percent("moved_percent")),
        _ => "-".to_owned(),
    };
    let flows = match (
        service["flows"].as_u64(),
        service["flows_affected"].as_u64(),
    ) {
        (Some(all), Some(affected)) => format!("{affected} of {all}"),
        _ if change == "added" => "-".to_owned(),
        _ => format!("{:.2} % of them", percent("gone_percent")),
    };
    let balance = &service["balance"];
    let balance = match (balance["least"].as_f64(), balance["greatest"].as_f64()) {
        (Some(least), Some(greatest)) => format!("{least:.4} to {greatest:.4}"),
        _ => "-".to_owned(),
    };
    let name = service["name"].as_str().unwrap_or("-");
    format!("{name:<20} {change:<8} {moved:>11} {flows:>20}   {balance}")
}
