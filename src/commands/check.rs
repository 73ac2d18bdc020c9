//! `ringgate check FILE`: validate, and show what it would mean.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::process::ExitCode;
use std::sync::Arc;

use ringgate_config::Model;
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::route::Fib;
use ringgate_dataplane::snapshot::{Builder, Snapshot};

use crate::cli::Check;
use crate::commands::{REFUSED, load};

/// Runs the command.
pub(crate) fn run(args: &Check) -> ExitCode {
    let parsed = match load(&args.file) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    match proposed(&parsed.model) {
        Ok(snapshot) => {
            print!("{}", describe(&parsed.model, &snapshot));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", args.file.display());
            ExitCode::from(REFUSED)
        }
    }
}

/// The snapshot of a configuration that is not running: every check passes, nothing is routed.
pub(crate) fn proposed(model: &Model) -> Result<Snapshot, ringgate_dataplane::backend::NoSlot> {
    Builder::default().build(model, |_, _| Health::Up, &Arc::new(Fib::default()), false)
}

/// Services, backends and each backend's share of the ring.
fn describe(model: &Model, snapshot: &Snapshot) -> String {
    let mut lines = Vec::new();
    let interfaces: Vec<String> = model
        .interfaces()
        .iter()
        .map(|i| format!("{} ({})", i.name(), i.mode()))
        .collect();
    lines.push(format!("interfaces  {}", interfaces.join(", ")));
    lines.push(format!("flows       {}", model.balancer().flows()));
    for (service, built) in model.services().iter().zip(snapshot.services()) {
        lines.push(String::new());
        lines.push(format!(
            "service {}  {} {}  {}  table {}",
            service.name(),
            service.protocol(),
            service.listen(),
            service.forward(),
            service.table_size(),
        ));
        let backends = service.backends();
        let shares = built.ring.as_ref().map(|ring| ring.shares(backends.len()));
        let weights: u64 = backends
            .iter()
            .filter(|b| !b.disabled())
            .map(|b| u64::from(b.weight()))
            .sum();
        for (index, backend) in backends.iter().enumerate() {
            let share = shares
                .as_ref()
                .and_then(|shares| shares.get(index))
                .copied()
                .unwrap_or(0);
            let of_slots = percent(u64::from(share), u64::from(service.table_size()));
            let weight = if backend.disabled() {
                0
            } else {
                u64::from(backend.weight())
            };
            let of_weights = percent(weight, weights);
            let mut note = String::new();
            if backend.forward() != service.forward() {
                note += &format!("  {}", backend.forward());
            }
            if backend.disabled() {
                note += "  disabled";
            }
            lines.push(format!(
                "  {:<28} weight {:>5} = {of_weights:>7}   slots {share:>6} = {of_slots:>7}{note}",
                backend.name(),
                backend.weight(),
            ));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// `part` of `whole` in percent with three decimals.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = (part * 100_000).checked_div(whole).unwrap_or(0);
    format!("{}.{:03}%", thousandths / 1000, thousandths % 1000)
}
