//! The daemon and its commands. No packet is touched here: that is `ringgate-dataplane`'s.

mod cli;
mod clock;
mod commands;
mod control;
mod descriptors;
mod explanation;
mod flows;
mod log;
mod manual;
mod offload;
mod plane;
mod preflight;
mod privileges;
mod reload;
mod sources;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => commands::run::run(&args),
        Command::Check(args) => commands::check::run(&args),
        Command::Apply(args) => commands::apply::run(&args),
        Command::Diff(args) => commands::diff::run(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::Top(args) => commands::top::run(&args),
        Command::Explain(args) => commands::explain::run(&args),
        Command::Events(args) => commands::events::run(&args),
        Command::Trace(args) => commands::trace::run(&args),
        Command::Capture(args) => commands::capture::run(&args),
        Command::Flows(args) => commands::flows::run(&args),
        Command::Drain(args) => commands::drain::run(&args),
        Command::Weight(args) => commands::change::weight(&args),
        Command::Disable(args) => commands::change::disable(&args),
        Command::Enable(args) => commands::change::enable(&args),
        Command::Save(args) => commands::reload::save(&args),
        Command::Reload(args) => commands::reload::run(&args),
        Command::Flush(args) => commands::flush::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Man(args) => commands::man::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
    }
}
