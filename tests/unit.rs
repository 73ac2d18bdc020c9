//! Promise: the unit for systemd is one that systemd understands, hardened as far as a balancer can be, and the
//! capabilities in it are enough for a user who is nobody else.

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};

    use ringgate_playground::{Balancer, Configuration, Download, Nginx, Payload, Playground};
    use tempfile::TempDir;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");
    const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/ringgate.service");

    /// The exposure that `systemd-analyze security` may find at most, in tenths; 10 is without any hardening. What is left
    /// is the network and the capabilities over it.
    const EXPOSURE_AT_MOST: u32 = 25;

    #[test]
    fn systemd_understands_the_unit_and_finds_it_hardened() {
        let directory = tempfile::tempdir().unwrap();
        let unit = directory.path().join("ringgate.service");
        // It wants to find the program, and the users' directory is the host's.
        let text = text().replace("/usr/bin/ringgate", "/bin/true");
        fs::write(&unit, text).unwrap();
        let Some(verified) = analyze(&["verify", "--man=no"], &unit) else {
            eprintln!("not shown: there is no systemd-analyze here");
            return;
        };
        let complaints = String::from_utf8_lossy(&verified.stderr).into_owned();
        let complaints: Vec<&str> = complaints
            .lines()
            .filter(|line| line.contains("ringgate.service") && !line.contains("notify-reload"))
            .collect();
        assert_eq!(complaints, [""; 0]);
        let found = analyze(&["security", "--offline=true", "--no-pager"], &unit).unwrap();
        let found = String::from_utf8_lossy(&found.stdout).into_owned();
        let verdict = found
            .lines()
            .rfind(|line| line.contains("exposure level"))
            .expect(&found);
        let (_, number) = verdict.split_once(": ").unwrap();
        let number = number.split(' ').next().unwrap().replace('.', "");
        let exposure: u32 = number.parse().expect(verdict);
        assert!(exposure <= EXPOSURE_AT_MOST, "{verdict}");
    }

    #[test]
    fn the_unit_says_what_the_operators_page_says() {
        let text = text();
        let value = |key: &str| {
            let lines = text
                .lines()
                .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            value("Type"),
            ["notify", "notify-reload"],
            "the last one counts"
        );
        assert_eq!(value("AmbientCapabilities"), value("CapabilityBoundingSet"));
        assert_eq!(value("NoNewPrivileges"), ["yes"]);
        assert_eq!(value("RuntimeDirectory"), ["ringgate"]);
        assert_eq!(value("RestartPreventExitStatus"), ["2"]);
        let admin = Path::new(ringgate_config::limits::ADMIN_DEFAULT);
        assert_eq!(admin.parent(), Some(Path::new("/run/ringgate")));
        let user = value("User");
        let accounts = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/ringgate.sysusers");
        let accounts = fs::read_to_string(accounts).unwrap();
        assert!(
            accounts
                .lines()
                .any(|line| line.starts_with(&format!("u {} ", user[0])))
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn the_units_capabilities_are_enough_for_a_user_who_is_nobody_else() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(2, 3);
        let _nginx = Nginx::on_all(&playground, &payload, "8m");
        let configuration = Configuration::native().web(playground.backends());
        let started = AsNobody::new();
        let mut balancer = Balancer::start(&started.script(), &playground, &configuration);
        let status = balancer.status();
        assert_ne!(status.number("/process/uid"), 0);
        let kept = serde_json::json!(["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(status.0["process"]["capabilities"], kept);
        for address in ["10.100.0.1", "[fd00:100::2]"] {
            let sum = Download::start(&playground, &format!("http://{address}/file")).finish();
            assert_eq!(sum.as_ref(), Ok(&payload.sha256), "{address}");
        }
        balancer.reload(&configuration.drain("1s"));
        balancer.signal(rustix::process::Signal::TERM);
        let ended = balancer.wait(std::time::Duration::from_secs(8)).code();
        assert_eq!(ended, Some(0), "{}", balancer.log());
        assert!(!balancer.admin().exists(), "its own socket it can remove");
    }

    /// Starts the program as the unit does: another user, with the unit's capabilities.
    struct AsNobody(TempDir);

    impl AsNobody {
        fn new() -> Self {
            let started = Self(tempfile::tempdir().unwrap());
            fs::set_permissions(started.0.path(), Permissions::from_mode(0o755)).unwrap();
            let line = text();
            let line = line
                .lines()
                .find_map(|line| line.strip_prefix("AmbientCapabilities="));
            let capabilities: Vec<String> = line
                .unwrap()
                .split(' ')
                .map(|name| format!("+{}", name.trim_start_matches("CAP_").to_lowercase()))
                .collect();
            let set = format!("-all,{}", capabilities.join(","));
            // `run --config DIRECTORY/ringgate.toml`: the directory becomes the user's. Others only ask.
            let script = format!(
                "#!/bin/sh\nset -e\n[ \"$1\" = run ] || exec {RINGGATE} \"$@\"\n\
                 chown -R nobody \"${{3%/*}}\"\n\
                 exec setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps={set} \
                 --ambient-caps={set} --bounding-set={set} {RINGGATE} \"$@\"\n"
            );
            fs::write(started.path(), script).unwrap();
            fs::set_permissions(started.path(), Permissions::from_mode(0o755)).unwrap();
            started
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("ringgate")
        }

        fn script(&self) -> String {
            self.path().to_str().unwrap().to_owned()
        }
    }

    fn text() -> String {
        fs::read_to_string(UNIT).unwrap()
    }

    fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(unit).stdin(Stdio::null());
        command.output().ok()
    }
}
