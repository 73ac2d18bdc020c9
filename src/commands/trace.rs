//! `ringgate trace`: what becomes of the next packets that match, live.

use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use super::told;
use crate::cli::{Tap, Trace};
use crate::control::client;

/// Runs the command.
pub(crate) fn run(args: &Trace) -> ExitCode {
    let pieces = match client::follow(&args.tap.admin.admin, &target("/v1/trace", &args.tap, None))
    {
        Ok(pieces) => pieces,
        Err(error) => {
            eprintln!("ringgate trace: {error}");
            return ExitCode::FAILURE;
        }
    };
    for piece in pieces {
        match piece.and_then(|piece| show(&piece, args)) {
            Ok(()) => {}
            // Whoever read our output has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                eprintln!("ringgate trace: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// What is asked of the balancer.
pub(super) fn target(path: &str, tap: &Tap, bytes: Option<u64>) -> String {
    let filter = tap.filter.join(" ");
    let numbers = [
        ("packets", tap.packets),
        ("seconds", tap.seconds),
        ("snap", tap.snap),
        ("bytes", bytes),
    ];
    let numbers = numbers.map(|(name, number)| number.map(|number| (name, number.to_string())));
    let mut parameters = vec![("filter", filter.as_str())];
    let numbers = numbers.iter().flatten();
    parameters.extend(numbers.map(|(name, number)| (*name, number.as_str())));
    client::target(path, &parameters)
}

fn show(piece: &[u8], args: &Trace) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(piece)?;
        return out.flush();
    }
    for line in piece.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
        let told: Value = serde_json::from_slice(line)?;
        out.write_all(render(&told, args.bytes).as_bytes())?;
    }
    out.flush()
}

/// A packet for people, or the end.
fn render(told: &Value, bytes: bool) -> String {
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    if let Some(why) = told["end"].as_str() {
        let why = match why {
            "packets" => "as many packets as were asked for",
            "bytes" => "as many bytes as were asked for",
            "time" => "the time is up",
            other => other,
        };
        let (packets, lost) = (&told["packets"], told["lost"].as_u64().unwrap_or(0));
        let lost = match lost {
            0 => String::new(),
            lost => format!(", {lost} more matched and were lost to the trace"),
        };
        return format!("{packets} packets{lost}: {why}\n");
    }
    let lost = told["lost"]
        .as_u64()
        .map(|lost| format!("(lost to the trace: {lost})\n"));
    let head = format!(
        "{}  worker {}  {}\n",
        text("time"),
        told["worker"],
        text("summary")
    );
    lost.unwrap_or_default() + &head + &told::render(told, bytes) + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_packet_has_its_time_and_the_end_its_reason() {
        let told = json!({
            "time": "2025-11-21T18:00:00.000000001Z", "worker": 1, "summary": "a > b  UDP, 60 bytes",
            "lost": 3, "steps": [{ "stage": "verdict", "said": "forwarded by eth1" }],
        });
        assert_eq!(
            render(&told, false),
            "(lost to the trace: 3)\n2025-11-21T18:00:00.000000001Z  worker 1  a > b  UDP, 60 bytes\n  \
             verdict  forwarded by eth1\n\n"
        );
        let end = json!({ "end": "time", "packets": 2, "lost": 5 });
        assert_eq!(
            render(&end, false),
            "2 packets, 5 more matched and were lost to the trace: the time is up\n"
        );
    }
}
