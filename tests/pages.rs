//! Promise: every command that `ringgate --help` lists has a manual page and is completed by every shell; the
//! configuration file has a page; `man` finds nothing to complain about.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::process::{Command, Output, Stdio};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Shells that packages carry completions for, and some others.
    const SHELLS: [&str; 5] = ["bash", "zsh", "fish", "elvish", "powershell"];

    #[test]
    fn every_command_has_a_page_and_so_has_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let pages = directory.path().join("man");
        let output = ringgate(&["man", pages.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        let mut expected: BTreeSet<String> = commands()
            .into_iter()
            .map(|command| format!("ringgate-{command}.1"))
            .collect();
        expected.insert("ringgate.1".to_owned());
        expected.insert("ringgate.toml.5".to_owned());
        let entries = fs::read_dir(&pages).unwrap();
        let mut found: BTreeSet<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        // clap's own.
        found.remove("ringgate-help.1");
        assert_eq!(found, expected);
        for name in &found {
            let text = fs::read_to_string(pages.join(name)).unwrap();
            assert!(
                text.contains(".SH NAME") && text.len() > 300,
                "{name}:\n{text}"
            );
        }
        complain_not(&pages.join("ringgate.toml.5"));
        complain_not(&pages.join("ringgate-run.1"));
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in SHELLS {
            let output = ringgate(&["completions", shell]);
            assert!(output.status.success(), "{output:?}");
            let script = String::from_utf8(output.stdout).unwrap();
            for command in commands() {
                assert!(script.contains(&command), "{shell} does not know {command}");
            }
        }
        let refused = ringgate(&["completions", "cmd.exe"]);
        assert_eq!(refused.status.code(), Some(2));
    }

    /// What the list of commands in `--help` has, but for clap's own.
    fn commands() -> Vec<String> {
        let help = String::from_utf8(ringgate(&["--help"]).stdout).unwrap();
        let (_, list) = help.split_once("Commands:\n").unwrap();
        let lines = list.lines().take_while(|line| !line.is_empty());
        let names = lines.filter_map(|line| line.split_whitespace().next());
        let commands: Vec<String> = names
            .filter(|name| *name != "help")
            .map(str::to_owned)
            .collect();
        assert!(commands.contains(&"run".to_owned()), "{help}");
        commands
    }

    /// `man` warns of nothing in this page, where there is a `man`.
    fn complain_not(page: &std::path::Path) {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(page);
        let Ok(output) = man.stdin(Stdio::null()).output() else {
            eprintln!(
                "there is no man(1) here: {} was not looked at",
                page.display()
            );
            return;
        };
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(complaint, "", "{}", page.display());
    }

    fn ringgate(arguments: &[&str]) -> Output {
        let mut command = Command::new(RINGGATE);
        command.args(arguments).stdin(Stdio::null());
        command.output().unwrap()
    }
}
