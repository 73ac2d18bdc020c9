//! Reading the configuration again: all of it or nothing.

use std::path::Path;

use ringgate_config::Model;

use crate::preflight::Level;
use crate::sources::{self, SourceFacts};

/// What is wrong with the new file, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) Vec<String>);

/// Reads the file for a running balancer.
///
/// # Errors
///
/// Everything that is wrong with it, and everything in it that only a restart can change.
pub(crate) fn read(path: &Path, running: &Model, host: &SourceFacts) -> Result<Model, Refused> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Refused(vec![format!("{name}: cannot be read: {error}")]))?;
    let parsed = ringgate_config::parse(&name, &text)
        .map_err(|problems| Refused(problems.to_string().lines().map(str::to_owned).collect()))?;
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    let line = |what| format!("{name}: {what} cannot change while running; restart for that");
    let fixed = needs_restart(running, &parsed.model);
    let mut refused: Vec<String> = fixed.into_iter().map(line).collect();
    for finding in sources::judge(&parsed.model, host) {
        let text = finding.line();
        match finding.level {
            Level::Good => {}
            Level::Warning => tracing::warn!("{text}"),
            Level::Refusal => refused.push(format!("{name}: {text}")),
        }
    }
    if refused.is_empty() {
        return Ok(parsed.model);
    }
    Err(Refused(refused))
}

/// What differs of that which is taken at start: memory, sockets, threads.
fn needs_restart(running: &Model, new: &Model) -> Vec<&'static str> {
    let (old_balancer, new_balancer) = (running.balancer(), new.balancer());
    // Its default follows the flows, which are named themselves then.
    let same_flows = old_balancer.flows() == new_balancer.flows();
    [
        ("[[interface]]", running.interfaces() != new.interfaces()),
        (
            "balancer.workers",
            old_balancer.workers() != new_balancer.workers(),
        ),
        (
            "balancer.cores",
            old_balancer.cores() != new_balancer.cores(),
        ),
        ("balancer.flows", !same_flows),
        (
            "balancer.udp-new-flows-per-second",
            same_flows && old_balancer.udp_new_flows() != new_balancer.udp_new_flows(),
        ),
        (
            "balancer.nat-source-ports",
            old_balancer.nat_source_ports() != new_balancer.nat_source_ports(),
        ),
        (
            "balancer.icmp-per-second",
            old_balancer.icmp_per_second() != new_balancer.icmp_per_second(),
        ),
        (
            "balancer.fragments",
            old_balancer.fragments() != new_balancer.fragments(),
        ),
        (
            "balancer.flow-memory",
            old_balancer.flow_memory() != new_balancer.flow_memory(),
        ),
        (
            "balancer.busy-poll",
            old_balancer.busy_poll() != new_balancer.busy_poll(),
        ),
        (
            "balancer.admin",
            old_balancer.admin() != new_balancer.admin(),
        ),
    ]
    .into_iter()
    .filter_map(|(what, differs)| differs.then_some(what))
    .collect()
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.toml");
        std::fs::write(&path, text).unwrap();
        read(&path, &model(FILE), &host())
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
            icmp-per-second = 5\nfragments = 64\n[[interface]]\nname = \"eth1\"\n";
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
        ] {
            assert_eq!(named(what), 1, "{what}: {problems:?}");
        }
        assert_eq!(named("udp-new-flows"), 0, "it follows flows: {problems:?}");
        let text = format!("[balancer]\nudp-new-flows-per-second = 7\n{FILE}");
        let Refused(problems) = reload(&text).unwrap_err();
        let line = "balancer.udp-new-flows-per-second cannot change while running";
        assert!(problems[0].contains(line), "{problems:?}");
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn a_file_that_is_gone_is_a_problem_too() {
        let Refused(problems) =
            read(Path::new("/nonexistent/x.toml"), &model(FILE), &host()).unwrap_err();
        assert!(problems[0].contains("cannot be read"));
    }
}
