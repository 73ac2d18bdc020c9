//! The balancer under test: the real binary, on the playground's node `lb`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::account::Account;
use crate::clock::{now, pause, until};
use crate::configuration::Configuration;
use crate::playground::Playground;
use crate::process::{Process, run};
use crate::status::Status;

/// How long a start may take. A bind may have to wait 2 s for the previous owner's queues.
const START_WITHIN: Duration = Duration::from_secs(15);

/// How long after a new generation every worker works with it, and the steering programs know
/// of it: an idle worker sleeps 10 ms at a time, control looks every 20 ms. No status tells, so
/// this is several times that.
const ADOPTED_WITHIN: Duration = Duration::from_millis(200);

/// A running balancer. Killed when dropped; if the test has failed, its log is printed.
#[derive(Debug)]
pub struct Balancer {
    process: Process,
    binary: PathBuf,
    namespace: String,
    environment: Vec<(String, String)>,
    directory: TempDir,
    /// How often it was started; its log is one for all.
    starts: usize,
}

impl Balancer {
    /// Starts `binary` with `configuration` and waits until it answers and every checked
    /// backend is up.
    ///
    /// # Panics
    ///
    /// When it does not get there; the log says why.
    #[must_use]
    pub fn start(binary: &str, playground: &Playground, configuration: &Configuration) -> Self {
        Self::start_with(binary, playground, configuration, &[])
    }

    /// The same, with variables added to its environment.
    ///
    /// # Panics
    ///
    /// When it does not get there; the log says why.
    #[must_use]
    pub fn start_with(
        binary: &str,
        playground: &Playground,
        configuration: &Configuration,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut balancer = Self::start_unready(binary, playground, configuration, environment);
        balancer.wait_until_ready();
        balancer
    }

    /// The same, without waiting for anything.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start_unready(
        binary: &str,
        playground: &Playground,
        configuration: &Configuration,
        environment: &[(&str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(
            path.join("ringgate.toml"),
            configuration.text(&path.join("admin.sock")),
        )
        .unwrap();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().map(owned).collect();
        let namespace = playground.namespace("lb");
        let binary = PathBuf::from(binary);
        let process = spawn(&binary, &namespace, &environment, path);
        Self {
            process,
            binary,
            namespace,
            environment,
            directory,
            starts: 1,
        }
    }

    /// Starts it again, with the file as it is now, after it has ended.
    ///
    /// # Panics
    ///
    /// When it does not get ready.
    pub fn restart(&mut self) {
        assert!(self.process.ended().is_some(), "the balancer still runs");
        self.starts += 1;
        self.process = spawn(
            &self.binary,
            &self.namespace,
            &self.environment,
            self.directory.path(),
        );
        self.wait_until_ready();
    }

    /// Waits until it is ready, which it is when its log says so: a status is answered before packets are let in.
    ///
    /// # Panics
    ///
    /// When it does not get there.
    pub fn wait_until_ready(&mut self) {
        until(START_WITHIN, "the balancer is ready", || {
            if let Some(status) = self.process.ended() {
                panic!("the balancer ended with {status}:\n{}", self.log());
            }
            let is_ready = self.log().matches(" ready admin=").count() == self.starts;
            let status = self.try_status().filter(|_| is_ready)?;
            let services = status.list("/services");
            let mut backends = services
                .iter()
                .flat_map(|service| service.list("/backends"));
            backends
                .all(|backend| ["up", "draining"].contains(&backend.text("/state")))
                .then_some(())
        });
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its directory: configuration, log, admin socket.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its configuration file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ringgate.toml")
    }

    /// Its admin socket.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Runs a command of the binary against it, like `["explain", "--to", …]`.
    ///
    /// # Panics
    ///
    /// When the binary cannot be run.
    #[must_use]
    pub fn ask(&self, arguments: &[&str]) -> Output {
        run(Command::new(&self.binary)
            .args(arguments)
            .arg("--admin")
            .arg(self.admin()))
    }

    /// What it says of a TCP flow.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    #[must_use]
    pub fn explain(&self, from: SocketAddr, to: SocketAddr) -> Value {
        let (from, to) = (from.to_string(), to.to_string());
        let flow = ["--protocol", "tcp", "--from", &from, "--to", &to];
        let output = self.ask(&[&["explain", "--json"], flow.as_slice()].concat());
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no explanation: {complaint}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Its status.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    #[must_use]
    pub fn status(&self) -> Status {
        let output = self.ask(&["status", "--json"]);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no status: {complaint}");
        Status(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Its status, if it answers.
    #[must_use]
    pub fn try_status(&self) -> Option<Status> {
        let output = self.ask(&["status", "--json"]);
        let text = output.status.success().then_some(output.stdout)?;
        serde_json::from_slice(&text).ok().map(Status)
    }

    /// Waits until its status is as described, and returns it.
    ///
    /// # Panics
    ///
    /// When it does not become so in `within`.
    pub fn wait_for(
        &self,
        within: Duration,
        what: &str,
        is_so: impl Fn(&Status) -> bool,
    ) -> Status {
        until(within, what, || self.try_status().filter(&is_so))
    }

    /// Writes a new configuration file, without telling it.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn rewrite(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    /// Gives it a new configuration by SIGHUP and waits until it runs with it.
    ///
    /// # Panics
    ///
    /// When it does not take it.
    pub fn reload(&mut self, configuration: &Configuration) {
        let before = self.status().number("/generation");
        let reloads = self.log().matches("reloaded").count();
        self.rewrite(&configuration.text(&self.admin()));
        self.process.signal(Signal::HUP);
        until(Duration::from_secs(5), "the balancer has reloaded", || {
            (self.log().matches("reloaded").count() > reloads).then_some(())
        });
        self.wait_for(Duration::from_secs(5), "a new generation", |status| {
            status.number("/generation") > before
        });
        pause(ADOPTED_WITHIN);
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end in `within`.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Waits until no packet of a service is on its way and the account adds up, and returns the
    /// status of that moment.
    ///
    /// # Panics
    ///
    /// When that does not come to pass within ten seconds; with the account.
    pub fn assert_accounts_balance(&self) -> Status {
        let mut before = Account::of(&self.status());
        let mut verdict = String::new();
        let deadline = now() + Duration::from_secs(10);
        loop {
            pause(Duration::from_millis(100));
            let status = self.status();
            let account = Account::of(&status);
            let faults = account.faults();
            if account.is_as_quiet_as(&before) && faults.is_empty() {
                return status;
            }
            assert!(now() < deadline, "{verdict}");
            verdict = format!("{}\nbefore\n{before}now\n{account}", faults.join("\n"));
            before = account;
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(status) = self.try_status() {
                eprintln!("---- the balancer's status\n{status}");
            }
            eprintln!("---- the balancer's log\n{}", self.log());
        }
        // The process is killed by its own drop.
    }
}

/// The log is appended to: a restart adds to it.
fn spawn(
    binary: &Path,
    namespace: &str,
    environment: &[(String, String)],
    directory: &Path,
) -> Process {
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(binary);
    command
        .arg("run")
        .arg("--config")
        .arg(directory.join("ringgate.toml"));
    command
        .envs(environment.iter().cloned())
        .env_remove("RUST_LOG");
    command
        .stdout(Stdio::from(log.try_clone().unwrap()))
        .stderr(Stdio::from(log));
    Process::start(&mut command)
}
