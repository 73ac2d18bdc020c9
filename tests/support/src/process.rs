//! Child processes that do not outlive the test.

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::until;

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// Starts `command`, with nothing to read.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        Self { child, what }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; nothing happens when it has ended already.
    ///
    /// # Panics
    ///
    /// When the system's process id is out of range.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        let pid = i32::try_from(self.child.id()).unwrap();
        // It is not reaped yet, so the id is still its own.
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    ///
    /// When the system cannot tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// When it does not end in `within`.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ended", self.what);
        until(within, &what, || self.ended())
    }

    /// Kills it and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Not through `kill`: a drop must not panic.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a command to its end and returns what it said, whatever its exit status.
///
/// # Panics
///
/// When it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Runs a command that has to succeed and returns its standard output.
///
/// # Panics
///
/// When it fails; with everything it said.
pub(crate) fn run_well(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}{complaint}",
        output.status
    );
    said
}
