//! `ringgate capture`: packets as they come and leave, into a file or a pipe.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use super::trace::target;
use crate::cli::Capture;
use crate::control::client;
use crate::control::taps::capture::count;

/// Runs the command.
pub(crate) fn run(args: &Capture) -> ExitCode {
    if args.write.is_none() && io::stdout().is_terminal() {
        eprintln!(
            "ringgate capture: a terminal does not show it; add -w FILE, or | wireshark -k -i -"
        );
        return ExitCode::FAILURE;
    }
    match capture(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ringgate capture: {message}");
            ExitCode::FAILURE
        }
    }
}

fn capture(args: &Capture) -> Result<(), String> {
    let target = target("/v1/capture", &args.tap, args.bytes);
    let pieces =
        client::follow(&args.tap.admin.admin, &target).map_err(|error| error.to_string())?;
    // Only now, so that nothing is written over for a mistake in the filter.
    let (mut out, name): (Box<dyn Write>, _) = match &args.write {
        Some(file) => {
            let name = file.display().to_string();
            let file = File::create(file).map_err(|error| format!("{name}: {error}"))?;
            (Box::new(file), name)
        }
        None => (Box::new(io::stdout()), "standard output".to_owned()),
    };
    let (mut packets, mut lost) = (0, 0);
    for piece in pieces {
        let piece = piece.map_err(|error| error.to_string())?;
        let (more, told) = count(&piece);
        packets += more;
        lost = told.unwrap_or(lost);
        match out.write_all(&piece).and_then(|()| out.flush()) {
            Ok(()) => {}
            // Whoever reads it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    let lost = match lost {
        0 => String::new(),
        lost => format!(", {lost} more matched and were lost to the capture"),
    };
    eprintln!("ringgate capture: {packets} packets to {name}{lost}");
    Ok(())
}
