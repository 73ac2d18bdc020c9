//! Programs that are started here: each has a limit of time, is asked to stop when the run is, and
//! does not outlive its owner.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::meter;

/// How often it is looked whether something has ended.
const LOOK: Duration = Duration::from_millis(4);

/// How long a program has to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Whether the run is to stop: Ctrl-C and its like. What was built is taken down on the way out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// One that SIGINT, SIGTERM and SIGHUP set.
    pub(crate) fn on_signals() -> Result<Self, String> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let _id = signal_hook::flag::register(signal, Arc::clone(&stop.0))
                .map_err(|error| format!("signal {signal}: {error}"))?;
        }
        Ok(stop)
    }

    /// # Errors
    ///
    /// When it is to stop.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.is_set() {
            return Err(INTERRUPTED.to_owned());
        }
        Ok(())
    }

    pub(crate) fn is_set(&self) -> bool {
        // Relaxed: the flag stands for nothing but itself.
        self.0.load(Ordering::Relaxed)
    }

    /// Waits, unless it is to stop.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), String> {
        let start = meter::now();
        while start.elapsed() < time {
            self.check()?;
            sleep(LOOK.min(time));
        }
        self.check()
    }
}

/// What is said when a signal ended it.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// What a program has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Exit status; none if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its output if it went well.
    pub(crate) fn good(self, what: &str) -> Result<String, String> {
        match self.code {
            Some(0) => Ok(self.out),
            code => {
                let code =
                    code.map_or_else(|| "a signal".to_owned(), |code| format!("status {code}"));
                let line = self.err.trim().lines().last().unwrap_or("").to_owned();
                Err(format!("{what}: ended by {code}: {line}"))
            }
        }
    }
}

/// A program that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    name: String,
    child: Child,
    out: File,
    err: File,
}

impl Background {
    /// Starts it, its output kept.
    pub(crate) fn start(command: &mut Command) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = || tempfile::tempfile().map_err(|error| format!("{name}: {error}"));
        let (out, err) = (file()?, file()?);
        let stdio = |file: &File| {
            let copy = file.try_clone().map(Stdio::from);
            copy.map_err(|error| format!("{name}: {error}"))
        };
        let _command = command
            .stdin(Stdio::null())
            .stdout(stdio(&out)?)
            .stderr(stdio(&err)?);
        let child = command
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        Ok(Self {
            name,
            child,
            out,
            err,
        })
    }

    /// Its process, by number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended: then there is nobody to tell.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _gone = kill_process(pid, signal);
        }
    }

    /// Waits for its end, for so long at most.
    pub(crate) fn wait(mut self, limit: Duration, stop: &Stop) -> Result<Ran, String> {
        let start = meter::now();
        while !self.has_ended() {
            stop.check()?;
            if start.elapsed() > limit {
                return Err(format!("{}: not ended after {limit:?}", self.name));
            }
            sleep(LOOK);
        }
        self.ran()
    }

    /// Asks it to end, makes it if it does not.
    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        let start = meter::now();
        while !self.has_ended() && start.elapsed() < GRACE {
            sleep(LOOK);
        }
    }

    /// What it has said so far on standard error, its last line.
    pub(crate) fn complaint(&mut self) -> String {
        let text = read(&mut self.err);
        text.trim().lines().last().unwrap_or("").to_owned()
    }

    fn ran(&mut self) -> Result<Ran, String> {
        let status = self
            .child
            .wait()
            .map_err(|error| format!("{}: {error}", self.name))?;
        Ok(Ran {
            code: status.code(),
            out: read(&mut self.out),
            err: read(&mut self.err),
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.has_ended() {
            // What cannot be killed has ended meanwhile.
            let _ended = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

/// The whole of a file that somebody else wrote to by the same description.
fn read(file: &mut File) -> String {
    let mut text = Vec::new();
    let _failed = file.rewind().and_then(|()| file.read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command, limit: Duration, stop: &Stop) -> Result<Ran, String> {
    Background::start(command)?.wait(limit, stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_program_says_is_kept() {
        let ran = run(
            &mut shell("echo out; echo err >&2; exit 3"),
            LIMIT,
            &Stop::default(),
        );
        let ran = ran.unwrap();
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.as_str()),
            (Some(3), "out\n", "err\n")
        );
        let error = ran.good("it").unwrap_err();
        assert_eq!(error, "it: ended by status 3: err");
    }

    #[test]
    fn a_program_ends_with_its_limit_and_with_the_run() {
        let error = run(
            &mut shell("exec sleep 60"),
            Duration::from_millis(50),
            &Stop::default(),
        );
        assert!(error.unwrap_err().contains("not ended"));
        let stop = Stop::default();
        // Relaxed: as it is read.
        stop.0.store(true, Ordering::Relaxed);
        let error = run(&mut shell("exec sleep 60"), LIMIT, &stop).unwrap_err();
        assert_eq!(error, INTERRUPTED);
        assert!(stop.pause(LIMIT).is_err());
    }

    #[test]
    fn a_program_does_not_outlive_its_owner() {
        let background = Background::start(&mut shell("trap '' TERM; while :; do :; done"));
        let background = background.unwrap();
        let process = format!("/proc/{}", background.id());
        assert!(std::path::Path::new(&process).exists());
        drop(background);
        assert!(!std::path::Path::new(&process).exists());
    }

    #[test]
    fn what_is_not_there_is_said() {
        let mut command = Command::new("/nonexistent/program");
        let error = run(&mut command, LIMIT, &Stop::default()).unwrap_err();
        assert!(error.contains("/nonexistent/program"), "{error}");
    }
}
