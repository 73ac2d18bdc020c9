//! `ringgate-golden`: prints, runs and updates golden cases.
#![expect(
    clippy::print_stdout,
    reason = "printing cases is what this program is for"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ringgate_golden::case::{Case, CaseError};
use ringgate_golden::{capture, cases_directory, page, page_file, update, verdict};

/// Golden cases: what comes in, what goes out, and every counter that moves.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print cases
    Print(Wanted),
    /// Run cases, and show what differs from their files
    Run(Wanted),
    /// Write what comes out into the files; review it with `git diff`
    Update(Wanted),
    /// Write docs/GOLDEN.md
    Page,
    /// Write the packets as capture files into a directory
    Pcap {
        /// Where to
        directory: PathBuf,
        #[command(flatten)]
        wanted: Wanted,
    },
}

#[derive(Debug, clap::Args)]
struct Wanted {
    /// Names, or their beginnings, as `nat/` or `nat/tcp-ipv4`; all cases if there is none
    cases: Vec<String>,
}

fn main() -> ExitCode {
    match carry_out(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn carry_out(command: Command) -> Result<ExitCode, CaseError> {
    let root = cases_directory();
    let cases = |wanted: Wanted| Case::all(&root, &wanted.cases);
    match command {
        Command::Print(wanted) => {
            let texts: Vec<String> = cases(wanted)?.iter().map(page::print).collect();
            println!("{}", texts.join("\n\n").trim_end());
        }
        Command::Run(wanted) => return run(&cases(wanted)?),
        Command::Update(wanted) => {
            for case in cases(wanted)? {
                let text = update::updated(&case)?;
                write(&case.path, &text)?;
            }
            write(&page_file(), &page::page(&Case::all(&root, &[])?))?;
        }
        Command::Page => write(&page_file(), &page::page(&Case::all(&root, &[])?))?,
        Command::Pcap { directory, wanted } => {
            let failed = |error| CaseError::at(&directory, &error);
            std::fs::create_dir_all(&directory).map_err(failed)?;
            for case in cases(wanted)? {
                for capture in capture::write(&case, &directory)? {
                    println!("{} ({} packets)", capture.path.display(), capture.packets);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run(cases: &[Case]) -> Result<ExitCode, CaseError> {
    let mut failed = 0;
    for case in cases {
        let differences = verdict::differences(case)?;
        if !differences.is_empty() {
            failed += 1;
            println!(
                "{}: {}\n{}\n",
                case.name,
                case.file.sentence,
                differences.join("\n")
            );
        }
    }
    println!(
        "{} cases, {failed} of them not as their files say",
        cases.len()
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes a file, if that changes it.
fn write(path: &std::path::Path, text: &str) -> Result<(), CaseError> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    println!("{}", path.display());
    std::fs::write(path, text).map_err(|error| CaseError::at(path, &error))
}
