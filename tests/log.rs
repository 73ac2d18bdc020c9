//! Promise: the log is for whom the configuration says: an object a line for programs, weights in front and no time
//! for the journal, and nothing that is less weighty than asked for.

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::MetadataExt as _;
    use std::process::{Command, Stdio};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    #[test]
    fn json_is_an_object_a_line_with_time_level_and_message() {
        let log = log("[log]\nformat = \"json\"", &[], false);
        let lines: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        assert!(lines.len() >= 2, "a warning and an error at least: {log}");
        for line in &lines {
            for key in ["timestamp", "level", "message"] {
                assert!(line[key].is_string(), "no {key}: {line}");
            }
        }
        let levels: Vec<&str> = lines
            .iter()
            .filter_map(|line| line["level"].as_str())
            .collect();
        assert!(
            levels.contains(&"WARN") && levels.contains(&"ERROR"),
            "{log}"
        );
    }

    #[test]
    fn what_is_less_weighty_than_asked_for_is_left_out() {
        let all = log("", &[], false);
        assert!(all.contains(" WARN ") && all.contains("ERROR "), "{all}");
        let weighty = log("[log]\nlevel = \"error\"", &[], false);
        assert!(
            !weighty.contains(" WARN ") && weighty.contains("ERROR "),
            "{weighty}"
        );
        let debug = log("[log]\nlevel = \"debug\"", &[], false);
        assert!(debug.contains("DEBUG "), "{debug}");
        let preferred = log("[log]\nlevel = \"debug\"", &[("RUST_LOG", "error")], false);
        assert!(!preferred.contains("DEBUG "), "{preferred}");
    }

    #[test]
    fn the_journal_gets_weights_and_no_time() {
        let log = log("", &[], true);
        assert!(
            log.lines()
                .any(|line| line.starts_with("<3>interface no-such-nic: does not exist")),
            "{log}"
        );
        assert!(log.lines().any(|line| line.starts_with("<4>")), "{log}");
        for line in log.lines() {
            assert!(
                line.starts_with('<') && !line.contains('\u{1b}'),
                "{line:?}"
            );
            assert!(
                !line.contains("ERROR") && !line.contains("WARN"),
                "{line:?}"
            );
        }
    }

    /// What a balancer logs that cannot start, since its interface does not exist; and warns of, for it has no service.
    fn log(table: &str, environment: &[(&str, &str)], to_journal: bool) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ringgate.toml");
        let text = format!("{table}\n[[interface]]\nname = \"no-such-nic\"\n");
        fs::write(&file, text).unwrap();
        let log = directory.path().join("log");
        let stderr = File::create(&log).unwrap();
        let mut command = Command::new(RINGGATE);
        command.args(["run", "--config"]).arg(&file);
        command.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM");
        command.envs(environment.iter().copied());
        if to_journal {
            let is = stderr.metadata().unwrap();
            command.env("JOURNAL_STREAM", format!("{}:{}", is.dev(), is.ino()));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        assert_eq!(command.status().unwrap().code(), Some(2));
        fs::read_to_string(&log).unwrap()
    }
}
