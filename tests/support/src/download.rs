//! Downloads by curl, which go on while the test does other things.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::clock::{now, pause};
use crate::playground::Playground;
use crate::process::Process;

/// A download that is running, or has run.
#[derive(Debug)]
pub struct Download {
    process: Process,
    directory: TempDir,
}

impl Download {
    /// Starts one from the client, of `url`.
    ///
    /// # Panics
    ///
    /// When curl cannot be started.
    #[must_use]
    pub fn start(playground: &Playground, url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = playground.on("client", "curl");
        command.args(["--silent", "--show-error", "--fail", "--dump-header"]);
        command.arg(directory.path().join("head"));
        // Nothing hangs: a download that stands still for 15 s has failed.
        command.args([
            "--speed-limit",
            "1",
            "--speed-time",
            "15",
            "--connect-timeout",
            "10",
            url,
        ]);
        let body = File::create(directory.path().join("body")).unwrap();
        let complaint = File::create(directory.path().join("complaint")).unwrap();
        let process = Process::start(
            command
                .stdout(Stdio::from(body))
                .stderr(Stdio::from(complaint)),
        );
        Self { process, directory }
    }

    /// Which backend serves it; waits for the head of the answer.
    ///
    /// # Panics
    ///
    /// When no answer came.
    pub fn backend(&self) -> String {
        let read =
            |name: &str| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        let deadline = now() + Duration::from_secs(10);
        loop {
            let head = read("head");
            let value = head
                .lines()
                .find_map(|line| line.strip_prefix("X-Backend: "));
            if let (Some(backend), true) = (value, head.ends_with("\r\n\r\n")) {
                return backend.trim().to_owned();
            }
            assert!(
                now() < deadline,
                "no answer: {head:?} {:?}",
                read("complaint")
            );
            pause(Duration::from_millis(10));
        }
    }

    /// Bytes received so far.
    ///
    /// # Panics
    ///
    /// When its file is gone.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        fs::metadata(self.directory.path().join("body"))
            .unwrap()
            .len()
    }

    /// Whether it is still going on.
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Gives it up, as a client that goes away.
    pub fn abandon(mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait(Duration::from_secs(5));
    }

    /// Waits for its end and returns the sha256 of what was received.
    ///
    /// # Errors
    ///
    /// What curl complained about.
    ///
    /// # Panics
    ///
    /// When it does not end within a minute.
    pub fn finish(mut self) -> Result<String, String> {
        let status = self.process.wait(Duration::from_mins(1));
        if status.success() {
            return Ok(crate::sha256_of(&self.directory.path().join("body")));
        }
        Err(fs::read_to_string(self.directory.path().join("complaint")).unwrap())
    }
}
