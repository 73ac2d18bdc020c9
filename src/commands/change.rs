//! `ringgate weight`, `disable`, `enable`: change a backend of a running balancer.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::{Backend, Weight};
use crate::control::client::{self, ClientError};

/// Runs `weight`.
pub(crate) fn weight(args: &Weight) -> ExitCode {
    let weight = args.weight.to_string();
    run("weight", &args.backend, &[("weight", &weight)])
}

/// Runs `disable`.
pub(crate) fn disable(args: &Backend) -> ExitCode {
    run("disable", args, &[])
}

/// Runs `enable`.
pub(crate) fn enable(args: &Backend) -> ExitCode {
    run("enable", args, &[])
}

fn run(what: &str, args: &Backend, more: &[(&str, &str)]) -> ExitCode {
    match ask(what, args, more) {
        Ok(answer) if args.json => println!("{answer:#}"),
        Ok(answer) => println!("{}", render(&answer)),
        Err(error) => {
            eprintln!("ringgate {what}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Has a backend changed, and waits until it is so.
///
/// # Errors
///
/// What the balancer says against it, or that there is none.
pub(super) fn ask(what: &str, args: &Backend, more: &[(&str, &str)]) -> Result<Value, ClientError> {
    let named = [
        ("service", args.service.as_str()),
        ("backend", args.backend.as_str()),
    ];
    let target = client::target(&format!("/v1/{what}"), &[&named, more].concat());
    client::post(&args.admin.admin, &target, b"")
}

/// What holds now, and whether the file says so.
pub(super) fn render(answer: &Value) -> String {
    let text = |name: &str| answer[name].as_str().unwrap_or("-");
    let now = &answer["now"];
    let state = match (now["disabled"] == true, now["draining"] == true) {
        (true, _) => "disabled",
        (false, true) => "draining",
        (false, false) if now["weight"] == 0 => "takes no new flows: its weight is 0",
        (false, false) => "enabled",
    };
    let unsaved = if answer["unsaved"] == true {
        "; the file says something else: `ringgate save` writes this into it"
    } else {
        ""
    };
    format!(
        "{} in {}: {state}, weight {}{unsaved}",
        text("backend"),
        text("service"),
        now["weight"]
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn people_are_told_what_holds_and_whether_it_is_saved() {
        let answer = |weight: u32, draining: bool, disabled: bool, unsaved: bool| {
            render(&json!({
                "service": "web",
                "backend": "10.2.0.11:80",
                "now": { "weight": weight, "draining": draining, "disabled": disabled },
                "unsaved": unsaved,
            }))
        };
        assert_eq!(
            answer(50, false, false, false),
            "10.2.0.11:80 in web: enabled, weight 50"
        );
        assert!(answer(50, true, false, true).contains(": draining, weight 50; the file says"));
        assert!(answer(50, true, true, true).contains(": disabled, weight 50"));
        assert!(answer(0, false, false, false).contains("takes no new flows: its weight is 0"));
    }
}
