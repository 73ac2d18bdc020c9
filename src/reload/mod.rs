//! Taking a configuration up: all of it or nothing.
//!
//! Whoever brings the text, SIGHUP from the file, an operator through the admin socket, a command that
//! only looks: [`check`] is what it has to pass, and [`plan`] what is said about it.
//!
//! | file | owns |
//! |---|---|
//! | [`plan`] | what the change will do to traffic |
//! | [`in_force`] | where the running configuration came from, and whether the file on disk is it |

pub(crate) mod in_force;
pub(crate) mod plan;

use std::path::Path;

use ringgate_config::Model;
use ringgate_config::diff::Diff;

use crate::control::probe::trust;
use crate::preflight::Level;
use crate::sources::{self, SourceFacts};

/// What is wrong with the new configuration, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) Vec<String>);

/// A configuration that a running balancer may take up.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// What it says.
    pub(crate) model: Model,
    /// What it says but probably does not mean, a line each.
    pub(crate) warnings: Vec<String>,
}

/// Reads a file as text.
///
/// # Errors
///
/// That it cannot be read.
pub(crate) fn read(path: &Path) -> Result<String, Refused> {
    std::fs::read_to_string(path)
        .map_err(|error| Refused(vec![format!("{}: cannot be read: {error}", path.display())]))
}

/// Judges a text for a running balancer. `name` is what its problems are told under.
///
/// # Errors
///
/// Everything that is wrong with it, and everything in it that only a restart can change.
pub(crate) fn check(
    text: &str,
    name: &str,
    running: &Model,
    host: &SourceFacts,
) -> Result<Accepted, Refused> {
    let parsed = ringgate_config::parse(name, text)
        .map_err(|problems| Refused(problems.to_string().lines().map(str::to_owned).collect()))?;
    let mut warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
    let mut refused: Vec<String> = Diff::between(running, &parsed.model)
        .restarts()
        .map(|setting| {
            let (key, old, new) = (setting.key, &setting.old, &setting.new);
            format!("{name}: {key} cannot change while running ({old} -> {new}); restart for that")
        })
        .collect();
    let problems = trust::problems(&parsed.model, &parsed.mentions);
    refused.extend(problems.iter().map(ToString::to_string));
    for finding in sources::judge(&parsed.model, host) {
        let text = finding.line();
        match finding.level {
            Level::Good => {}
            Level::Warning => warnings.push(text),
            Level::Refusal => refused.push(format!("{name}: {text}")),
        }
    }
    if !refused.is_empty() {
        return Err(Refused(refused));
    }
    Ok(Accepted {
        model: parsed.model,
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[[interface]]\nname = \"eth0\"\n";

    fn model(text: &str) -> Model {
        ringgate_config::parse("test.toml", text).unwrap().model
    }

    fn host() -> SourceFacts {
        SourceFacts {
            own: vec!["10.2.0.1".parse().unwrap()],
            given: Some(30_000..=60_999),
            reserved: Vec::new(),
        }
    }

    #[test]
    fn sources_with_the_hosts_own_ports_are_refused() {
        let reload_with =
            |source: &str| reload(&format!("[balancer]\nnat-sources = [\"{source}\"]\n{FILE}"));
        let Refused(problems) = reload_with("10.2.0.1").unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("such as 30000"), "{problems:?}");
        assert!(reload_with("10.2.0.2").is_ok());
    }

    fn reload(text: &str) -> Result<Model, Refused> {
        check(text, "new.toml", &model(FILE), &host()).map(|accepted| accepted.model)
    }

    #[test]
    fn what_is_probably_not_meant_is_told_and_taken() {
        let accepted = check(FILE, "new.toml", &model(FILE), &host()).unwrap();
        assert_eq!(accepted.warnings.len(), 1, "no services");
        assert!(accepted.warnings[0].contains("new.toml"), "{accepted:?}");
    }

    #[test]
    fn services_and_the_drain_may_change() {
        let service = "[balancer]\ndrain = \"9s\"\n[[service]]\nname = \"a\"\nlisten = \
            \"10.0.0.1:80\"\nprotocol = \"tcp\"\nforward = \"nat\"\n";
        assert_eq!(
            reload(&format!("{FILE}{service}"))
                .unwrap()
                .services()
                .len(),
            1
        );
    }

    #[test]
    fn every_mistake_is_told() {
        let Refused(problems) = reload("[[interface]]\nname = 3\nmode = \"fast\"\n").unwrap_err();
        assert!(problems.len() >= 2, "{problems:?}");
        assert!(
            problems.iter().any(|line| line.contains(":2:")),
            "{problems:?}"
        );
        assert!(
            problems.iter().any(|line| line.contains(":3:")),
            "{problems:?}"
        );
    }

    #[test]
    fn what_was_taken_at_start_needs_a_restart() {
        let text = "[balancer]\nworkers = 2\nflows = 4096\nflow-memory = \"private\"\nbusy-poll = true\n\
            admin = \"/run/other.sock\"\ncores = [0, 1]\nnat-source-ports = \"2000-3000\"\n\
            icmp-per-second = 5\nfragments = 64\n[metrics]\nlisten = \"127.0.0.1:9187\"\n\
            residence-sample = 1\nbackends = false\n[[interface]]\nname = \"eth1\"\n";
        let Refused(problems) = reload(text).unwrap_err();
        let named = |what: &str| problems.iter().filter(|line| line.contains(what)).count();
        for what in [
            "[[interface]]",
            "workers",
            "cores",
            "balancer.flows",
            "flow-memory",
            "busy-poll",
            "admin",
            "nat-source-ports",
            "icmp-per-second",
            "balancer.fragments",
            "metrics.listen",
            "metrics.residence-sample",
        ] {
            assert_eq!(named(what), 1, "{what}: {problems:?}");
        }
        assert_eq!(
            named("metrics.backends"),
            0,
            "each export asks: {problems:?}"
        );
        assert_eq!(named("udp-new-flows"), 0, "it follows flows: {problems:?}");
        let text = format!("[balancer]\nudp-new-flows-per-second = 7\n{FILE}");
        let Refused(problems) = reload(&text).unwrap_err();
        let line = "balancer.udp-new-flows-per-second cannot change while running";
        assert!(problems[0].contains(line), "{problems:?}");
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn a_file_that_is_gone_is_a_problem_too() {
        let Refused(problems) = read(Path::new("/nonexistent/x.toml")).unwrap_err();
        assert!(problems[0].contains("cannot be read"));
    }
}
