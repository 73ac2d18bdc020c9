//! `ringgate run`: the whole life of the balancer on one screen.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use ringgate_config::Model;
use ringgate_conntrack::Secret;
use ringgate_dataplane::snapshot::Builder;

use crate::cli::Run;
use crate::clock::Monotonic;
use crate::commands::{REFUSED, read};
use crate::control;
use crate::control::admin::{Admin, secure::Secure, socket::Claimed};
use crate::control::checks::count;
use crate::control::driver::{self, DRIVER_VARIABLE, Prefer};
use crate::control::exporter;
use crate::control::fib::Ports;
use crate::control::health::Checker;
use crate::control::netlink;
use crate::control::probe::Prober;
use crate::control::probe::trust::{self, Trust};
use crate::control::roster::Roster;
use crate::control::signals::Signals;
use crate::control::steward::{End, Start, Steward, driver_capacity};
use crate::control::truepath::{TruePath, is_wanted};
use crate::descriptors;
use crate::log;
use crate::plane::{Plan, Plane, Stopped};
use crate::preflight::{Facts, Level, judge, workers};
use crate::privileges;
use crate::sources::Sources;

/// Runs the command.
pub(crate) fn run(args: &Run) -> ExitCode {
    let parsed = match read(&args.config) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    log::start(parsed.model.log());
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    match live(&args.config, parsed.model) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The checks that the configuration asks for, all of them due at once.
fn checks(model: &Model) -> Result<(Checker, Roster), Box<dyn std::error::Error>> {
    let (mut checker, mut roster) = (Checker::new(random()?), Roster::default());
    roster.follow(model, &mut checker, control::clock::now());
    Ok((checker, roster))
}

/// Start, control, stop.
fn live(config: &Path, model: Model) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let signals = Signals::block()?; // before any thread starts, and so is this:
    privileges::begin()?;
    let watcher = netlink::settled()?;
    let facts = Facts::gather(Some(&model), watcher.network());
    if !is_fit(&model, &facts) {
        return Ok(ExitCode::from(REFUSED));
    }
    let privileges = privileges::Plan::new(model.process())?;
    let admin = admin(&model)?;
    let exporter = exporter::open(model.metrics().listen())?;
    let clock = Monotonic;
    let (checker, roster) = checks(&model)?;
    let ports = Ports::new(model.interfaces().iter().map(|i| (i.name(), i.vlan_tags())));
    let fib = ports.fib(watcher.network());
    let secret = Secret([random()?, random()?]);
    let order = Secret([random()?, random()?]);
    let (sources, seats) = Sources::new(&model, workers(&model, &facts), order)?;
    let mut builder = Builder::default();
    builder.with_sources(sources.ports());
    let health = |service: &_, at| roster.health(&checker, service, at);
    let snapshot = Arc::new(builder.build(&model, health, &fib, false)?);
    let plan = Plan {
        model: &model,
        local_stack: facts
            .interfaces
            .iter()
            .flatten()
            .map(|i| i.is_local_stack())
            .collect(),
        workers: workers(&model, &facts),
        cores: cores(&model, &facts),
        secret,
        clock,
        snapshot: Arc::clone(&snapshot),
        give_up: privileges.workers_give_up(),
    };
    let plane = Plane::start(&plan, seats)?;
    let prefer = Prefer::from_variable(std::env::var(DRIVER_VARIABLE).ok().as_deref())?;
    let trust = Trust::load(&model).map_err(trust::said)?;
    descriptors::raise(&model);
    let capacity = driver_capacity(count(&model));
    let mut truepath = TruePath::new(capacity);
    truepath.want(is_wanted(&model), true)?;
    let (driver, kind) = driver::open(prefer, capacity)?;
    let (config, reloadable) = (config.to_owned(), config.to_owned());
    let steward = Steward::new(Start {
        driver,
        signals,
        watcher,
        admin,
        exporter,
        checker,
        roster,
        prober: Prober::new(capacity, trust, random()?),
        truepath,
        builder,
        sources,
        plane,
        ports,
        fib,
        model,
        snapshot,
        config,
        clock,
        choice: Secret([random()?, random()?]),
    });
    privileges.carry_out(kind, &facts.kernel)?;
    tell_privileges(&reloadable);
    let (end, plane) = steward.run()?;
    Ok(farewell(end, &plane.stop()))
}

/// Where operators ask: the admin socket and, where the configuration has one, a listener over TLS.
fn admin(model: &Model) -> Result<Admin, Box<dyn std::error::Error>> {
    let api = model.api();
    let claimed = Claimed::claim(model.balancer().admin(), api.socket_mode())?;
    let mut admin = Admin::new(claimed, api);
    if let Some(remote) = api.remote() {
        let secure = Secure::load(remote)?;
        admin.serve_remote(exporter::listen_for("[api]", remote.listen())?, secure);
    }
    Ok(admin)
}

/// Logs what preflight found. Whether it lets us run.
fn is_fit(model: &Model, facts: &Facts) -> bool {
    let mut is_fit = true;
    for finding in judge(Some(model), facts, &[]) {
        let line = finding.line();
        match finding.level {
            Level::Good => tracing::debug!("{line}"),
            Level::Warning => tracing::warn!("{line}"),
            Level::Refusal => {
                is_fit = false;
                tracing::error!("{line}");
            }
        }
    }
    is_fit
}

/// Logs what is held from now on, and whether that is enough to read the configuration again.
fn tell_privileges(config: &Path) {
    tracing::info!(held = %privileges::held(), "privileges");
    if let Err(error) = std::fs::File::open(config) {
        tracing::warn!(
            config = %config.display(),
            %error,
            "cannot be read any more: reloads will be refused; let the user that this process has become read it"
        );
    }
}

/// The CPU of each worker: as configured, else from the last allowed one down, since interrupts
/// and everything else tend to the first.
fn cores(model: &Model, facts: &Facts) -> Vec<usize> {
    match model.balancer().cores() {
        Some(cores) => cores.to_vec(),
        None => {
            let workers = usize::from(workers(model, facts));
            facts
                .cores
                .iter()
                .rev()
                .copied()
                .cycle()
                .take(workers)
                .collect()
        }
    }
}

fn farewell(end: End, stopped: &Stopped) -> ExitCode {
    for failure in &stopped.failures {
        tracing::error!("{failure}");
    }
    let all_home = stopped.home == stopped.all && stopped.failures.is_empty();
    tracing::info!(
        home = stopped.home,
        of = stopped.all,
        ?end,
        "stopped: frames counted home"
    );
    if all_home && end != End::LostWorker {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// 64 bits that nobody can guess.
fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    // The kernel never gives fewer than asked for below 256 bytes (getrandom(2)).
    if got < bytes.len() {
        return Err(std::io::Error::other(
            "the kernel gave too little randomness",
        ));
    }
    Ok(u64::from_ne_bytes(bytes))
}
