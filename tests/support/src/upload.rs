//! Uploads by curl: what shows whether long segments get to a backend.

use std::path::Path;
use std::time::Duration;

use crate::payload::Payload;
use crate::playground::Playground;
use crate::process::Process;

/// Puts the payload at `url` from the client, and returns the name of the backend that took it.
///
/// # Errors
///
/// What curl complained about.
///
/// # Panics
///
/// When it does not end within a minute, or nobody took it.
pub fn upload(playground: &Playground, url: &str, payload: &Payload) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut command = playground.on("client", "curl");
    command.args([
        "--silent",
        "--show-error",
        "--fail",
        "--connect-timeout",
        "10",
    ]);
    // Nothing hangs: an upload that stands still for 15 s has failed.
    command.args(["--speed-limit", "1", "--speed-time", "15"]);
    command.args(["--output", "/dev/null"]);
    command.arg("--stderr").arg(file("complaint"));
    command.arg("--dump-header").arg(file("head"));
    command.arg("--upload-file").arg(&payload.path).arg(url);
    let status = Process::start(&mut command).wait(Duration::from_mins(1));
    if !status.success() {
        return Err(read(&file("complaint")));
    }
    let head = read(&file("head"));
    let name = head
        .lines()
        .find_map(|line| line.strip_prefix("X-Backend: "));
    Ok(name
        .unwrap_or_else(|| panic!("nobody took it: {head}"))
        .trim()
        .to_owned())
}
