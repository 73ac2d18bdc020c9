//! Promise: the commands that need no privilege say what they found and what to do, and their
//! exit status says it to scripts.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::{Command, Output, Stdio};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    #[test]
    fn check_accepts_every_example_and_shows_its_services() {
        let examples = fs::read_dir(config().join("examples")).unwrap();
        for file in examples.map(|entry| entry.unwrap().path()) {
            let name = file.display();
            let output = ringgate(&["check", file.to_str().unwrap()]);
            let text = fs::read_to_string(&file).unwrap();
            if file.ends_with("checks.toml") {
                // It names certificates and a program, which this host does not have: nothing else is
                // wrong with it.
                let complaints = complaint(&output);
                assert_eq!(output.status.code(), Some(2), "{complaints}");
                assert_eq!(
                    complaints.matches("cannot be read: No such file").count(),
                    3
                );
                assert_eq!(complaints.trim().lines().count(), 3, "{complaints}");
                continue;
            }
            assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
            // Those of services: other tables have listeners, too.
            let services = text.split("[[service]]").skip(1);
            let listens = services
                .flat_map(str::lines)
                .filter_map(|line| line.strip_prefix("listen = \""));
            let addresses: Vec<&str> = listens
                .map(|rest| rest.split('"').next().unwrap())
                .collect();
            assert!(!addresses.is_empty());
            for address in addresses {
                assert!(said(&output).contains(address), "{name}: {}", said(&output));
            }
        }
    }

    #[test]
    fn check_refuses_with_every_error_and_status_2() {
        let rejects = config().join("tests/rejects");
        let wanted = fs::read_to_string(rejects.join("many-at-once.txt")).unwrap();
        let mut command = Command::new(RINGGATE);
        command
            .current_dir(&rejects)
            .args(["check", "many-at-once.toml"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(complaint(&output), wanted);
        assert_eq!(said(&output), "");
    }

    #[test]
    fn check_warns_and_accepts_what_is_only_doubtful() {
        let warnings = config().join("tests/warnings");
        let mut command = Command::new(RINGGATE);
        command
            .current_dir(&warnings)
            .args(["check", "no-services.toml"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(
            complaint(&output).contains("warning: "),
            "{}",
            complaint(&output)
        );
    }

    #[test]
    fn diff_tells_the_same_from_the_different_and_both_from_the_refused() {
        let example = |name: &str| {
            let file = config().join("examples").join(name);
            file.to_str().unwrap().to_owned()
        };
        let (full, minimal) = (example("full.toml"), example("minimal.toml"));
        let same = ringgate(&["diff", &full, &full]);
        assert_eq!(
            (same.status.code(), said(&same).trim()),
            (Some(0), "nothing changes")
        );
        let other = ringgate(&["diff", &minimal, &full]);
        assert_eq!(other.status.code(), Some(1), "{}", complaint(&other));
        for words in [
            "service syslog added: udp",
            "only a restart can change this",
            "share / weight",
        ] {
            assert!(said(&other).contains(words), "{}", said(&other));
        }
        let json = ringgate(&["diff", &minimal, &full, "--json"]);
        let plan: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(
            (&plan["same"], json.status.code()),
            (&false.into(), Some(1))
        );
        let actions = plan["actions"].as_array().unwrap();
        assert_eq!(plan["actions_total"], actions.len());
        for action in actions {
            assert!(
                said(&other).contains(action["text"].as_str().unwrap()),
                "{action}"
            );
        }
        let wrong = config().join("tests/rejects/unknown-keys.toml");
        let refused = ringgate(&["diff", &full, wrong.to_str().unwrap()]);
        assert_eq!(
            (refused.status.code(), said(&refused)),
            (Some(2), String::new())
        );
        assert!(
            complaint(&refused).contains("unknown"),
            "{}",
            complaint(&refused)
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        for arguments in [
            &["check", "/no/such/file"][..],
            &["run", "--config", "/no/such/file"],
        ] {
            let output = ringgate(arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            assert!(
                complaint(&output).contains("/no/such/file"),
                "{}",
                complaint(&output)
            );
        }
    }

    #[test]
    fn run_refuses_what_check_refuses_before_anything_else() {
        let file = config().join("tests/rejects/unknown-keys.toml");
        let output = ringgate(&["run", "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            complaint(&output).contains("unknown-keys.toml:"),
            "{}",
            complaint(&output)
        );
    }

    #[test]
    fn explain_names_one_backend_for_a_flow_always_the_same() {
        let file = config().join("examples/minimal.toml");
        let explain = |port: u16| {
            let from = format!("192.0.2.7:{port}");
            let arguments = [
                "explain",
                "--protocol",
                "tcp",
                "--from",
                &from,
                "--to",
                "10.100.0.1:80",
            ];
            let config = ["--config", file.to_str().unwrap(), "--json"];
            let output = ringgate(&[&arguments[..], &config[..]].concat());
            assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
            let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                (&answer["service"], &answer["forward"]),
                (&"web".into(), &"nat".into())
            );
            assert!(
                answer["why"].as_str().is_some_and(|why| !why.is_empty()),
                "{answer}"
            );
            answer["backend"].as_str().unwrap().to_owned()
        };
        let chosen: Vec<String> = (40_000..40_032).map(explain).collect();
        let again: Vec<String> = (40_000..40_032).map(explain).collect();
        assert_eq!(chosen, again);
        for backend in ["10.2.0.11:8080", "10.2.0.12:8080"] {
            assert!(chosen.iter().any(|one| one == backend), "{chosen:?}");
        }
    }

    #[test]
    fn explain_says_when_nobody_listens() {
        let file = config().join("examples/minimal.toml");
        let output = ringgate(&[
            "explain",
            "--protocol",
            "udp",
            "--from",
            "192.0.2.7:1",
            "--to",
            "10.100.0.1:80",
            "--config",
            file.to_str().unwrap(),
        ]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("10.100.0.1:80"), "{}", said(&output));
    }

    #[test]
    fn doctor_looks_at_everything_and_its_status_says_whether_something_refuses() {
        let output = ringgate(&["doctor"]);
        let text = said(&output);
        for subject in ["kernel", "privileges", "AF_XDP", "io_uring"] {
            assert!(text.contains(subject), "{text}");
        }
        let refuses = text.lines().any(|line| line.starts_with("FAIL"));
        assert_eq!(output.status.code(), Some(i32::from(refuses)), "{text}");
    }

    #[test]
    fn doctor_refuses_an_interface_that_does_not_exist_and_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ringgate.toml");
        fs::write(&file, "[[interface]]\nname = \"no-such-nic\"\n").unwrap();
        let output = ringgate(&["doctor", "--config", file.to_str().unwrap()]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let place = text.find("no-such-nic").expect(&text);
        assert!(text[place..].contains("->"), "no cure: {text}");
    }

    #[test]
    fn asking_where_nobody_answers_explains_itself() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let socket = socket.to_str().unwrap();
        let explain = [
            "explain",
            "--protocol",
            "tcp",
            "--from",
            "1.2.3.4:5",
            "--to",
            "1.2.3.4:6",
        ];
        for arguments in [&["status"][..], &["status", "--json"], &explain] {
            let output = ringgate(&[arguments, &["--admin", socket]].concat());
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            let text = complaint(&output);
            assert!(
                text.contains(socket) && text.contains("ringgate run"),
                "{text}"
            );
            assert_eq!(said(&output), "");
        }
    }

    #[test]
    fn a_wrong_command_line_has_status_2_and_usage() {
        for arguments in [
            &[][..],
            &["dance"],
            &["check"],
            &["explain", "--protocol", "sctp"],
        ] {
            let output = ringgate(arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            assert!(
                complaint(&output).contains("--help"),
                "{}",
                complaint(&output)
            );
        }
    }

    fn ringgate(arguments: &[&str]) -> Output {
        Command::new(RINGGATE)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn said(output: &Output) -> String {
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn complaint(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn config() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config")
    }
}
