//! `ringgate doctor`: everything that `run` would look at, the ways to the backends, and what a running balancer has
//! counted.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ringgate_config::{Model, limits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::cli::Doctor;
use crate::commands::load;
use crate::control::client::{self, ClientError};
use crate::control::netlink::{self, NetlinkError, Watcher};
use crate::preflight::live::{self, Pages};
use crate::preflight::{Facts, Finding, Level, judge, ways};

/// Between two looks at a running balancer's counters.
const MOMENT: Duration = Duration::from_secs(1);

/// How long neighbours have to answer: the kernel asks once a second, and gives up after three times.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Runs the command.
pub(crate) fn run(args: &Doctor) -> ExitCode {
    let model = match args.config.as_deref().map(load).transpose() {
        Ok(parsed) => parsed.map(|parsed| parsed.model),
        Err(code) => return code,
    };
    let findings = match examine(args, model.as_ref()) {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("ringgate doctor: {error}");
            return ExitCode::FAILURE;
        }
    };
    for finding in &findings {
        println!("{finding}");
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let (refusals, warnings) = (count(Level::Refusal), count(Level::Warning));
    println!("\n{refusals} to repair, {warnings} to know about");
    if refusals > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn examine(args: &Doctor, model: Option<&Model>) -> Result<Vec<Finding>, NetlinkError> {
    let mut watcher = netlink::settled()?;
    let facts = Facts::gather(model, watcher.network());
    let socket = socket(args, model);
    let before = client::get(&socket, "/v1/status");
    let ours = before.as_ref().map(live::interfaces).unwrap_or_default();
    let mut findings = judge(model, &facts, &ours);
    if let Some(model) = model {
        ask_neighbours(model, &mut watcher)?;
        findings.extend(ways::judge(model, watcher.network()));
    }
    findings.extend(balancer(&socket, before, args.admin.is_some()));
    Ok(findings)
}

/// Where a balancer would answer.
fn socket(args: &Doctor, model: Option<&Model>) -> PathBuf {
    let configured = model.map(|model| model.balancer().admin().to_owned());
    let named = args.admin.clone().or(configured);
    named.unwrap_or_else(|| limits::ADMIN_DEFAULT.into())
}

/// Has the kernel ask for the next hops to the backends, and gives them a moment to answer.
fn ask_neighbours(model: &Model, watcher: &mut Watcher) -> Result<(), NetlinkError> {
    let services = model.services().iter();
    let backends: Vec<_> = services
        .flat_map(|service| service.backends().iter().map(|b| b.address().ip()))
        .collect();
    let hops = ways::ports(model).standing_hops(backends.into_iter(), watcher.network());
    for (ifindex, address) in &hops {
        watcher.resolve(*ifindex, *address)?;
    }
    let step = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    let is_known = |watcher: &Watcher| {
        let known: Vec<_> = watcher
            .network()
            .neighbours()
            .map(|(link, address, _)| (link, address))
            .collect();
        hops.iter().all(|hop| known.contains(hop))
    };
    while waited < ANSWERS_WITHIN && !is_known(watcher) {
        let descriptor = watcher.descriptor()?;
        if wait(&descriptor, step)? {
            watcher.read()?;
        } else {
            waited += step;
        }
    }
    Ok(())
}

/// Whether something can be read, after so long at most.
fn wait(descriptor: &std::os::fd::OwnedFd, limit: Duration) -> std::io::Result<bool> {
    let limit = Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
    match poll(&mut fds, Some(&limit)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// What a running balancer tells. That there is none is worth a word; that a named one does not answer, more.
fn balancer(socket: &Path, before: Result<Value, ClientError>, is_named: bool) -> Vec<Finding> {
    let before = match before {
        Ok(before) => before,
        Err(ClientError::Missing(_) | ClientError::Dead(_)) if !is_named => {
            let found = format!(
                "none runs at {}: only the host was looked at",
                socket.display()
            );
            return vec![Finding::good("balancer", found)];
        }
        Err(error) => {
            let found = format!("does not answer: {error}");
            let cure = "--admin, or [balancer] admin of its configuration; its log may say why";
            return vec![Finding::warning("balancer", found, "its status", cure)];
        }
    };
    std::thread::sleep(MOMENT);
    match client::get(socket, "/v1/status") {
        Ok(after) => live::judge(Pages {
            before: &before,
            after: &after,
        }),
        Err(error) => {
            let found = format!("has ended meanwhile: {error}");
            vec![Finding::warning(
                "balancer",
                found,
                "one that goes on",
                "its log says why",
            )]
        }
    }
}
