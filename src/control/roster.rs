//! Which check tells of which backend of the configuration in force.
//!
//! A check is found by what it is, which takes long for ten thousand of them. So it is written down once, by
//! the backend's position in its service, for as long as the service is checked in the same way; most
//! reloads change weights, or a few services.

use std::time::Instant;

use ringgate_config::{Backend, Listen, Model, Service};
use ringgate_dataplane::backend::Health;
use rustc_hash::FxHashMap;

use super::checks::{said, spec_of};
use super::health::{CheckId, Checker, Spec};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    rolls: FxHashMap<(Listen, u8), Roll>,
    round: u64,
}

/// The checks of one service.
#[derive(Debug)]
struct Roll {
    /// As it was when they were looked up; what does not matter for checks may have changed since.
    service: Service,
    /// Of its backends in file order; `None`: not checked.
    checks: Vec<Option<CheckId>>,
    /// The last time that it was wanted.
    round: u64,
}

impl Roster {
    /// Makes the checks of `model` the ones that are run. For the cost of what is checked otherwise than before.
    pub(crate) fn follow(&mut self, model: &Model, checker: &mut Checker, now: Instant) {
        self.round += 1;
        let round = self.round;
        let mut came: Vec<(&Service, Vec<Option<Spec>>)> = Vec::new();
        for service in model.services() {
            match self.rolls.get_mut(&service.identity()) {
                Some(roll) if is_checked_alike(&roll.service, service) => roll.round = round,
                _ => {
                    let backends = service.backends().iter();
                    let specs = backends.map(|backend| spec_of(service, backend));
                    came.push((service, specs.collect()));
                }
            }
        }
        let mut gone = Vec::new();
        self.rolls.retain(|_, roll| {
            let stays = roll.round == round;
            if !stays {
                gone.extend(roll.checks.iter().flatten().copied());
            }
            stays
        });
        gone.sort_unstable();
        let asked: Vec<(&Service, Vec<bool>)> = came
            .iter()
            .map(|(service, specs)| (*service, specs.iter().map(Option::is_some).collect()))
            .collect();
        let specs = came.into_iter().flat_map(|(_, specs)| specs).flatten();
        let mut ids = checker.exchange(specs.collect(), &gone, now).into_iter();
        for (service, asked) in asked {
            let checks = asked.into_iter();
            let checks = checks.map(|is_asked| is_asked.then(|| ids.next()).flatten());
            let checks = checks.collect();
            let service = service.clone();
            let roll = Roll {
                checks,
                round,
                service,
            };
            self.rolls.insert(roll.service.identity(), roll);
        }
    }

    /// What is known of the backend at a position of a service, of the model that was last followed. One that is not
    /// checked is up.
    pub(crate) fn health(&self, checker: &Checker, service: &Service, at: usize) -> Health {
        let roll = self.rolls.get(&service.identity());
        match roll.and_then(|roll| *roll.checks.get(at)?) {
            Some(check) => said(checker.state(check)),
            None => Health::Up,
        }
    }
}

/// Whether the backends of a service are checked as before, each in its place.
fn is_checked_alike(old: &Service, new: &Service) -> bool {
    // A path also depends on where the service listens, by which it is found.
    let asked = |backend: &Backend| (backend.address(), backend.disabled(), backend.forward());
    let (before, now) = (old.backends(), new.backends());
    old.name() == new.name()
        && old.health() == new.health()
        && before.iter().map(asked).eq(now.iter().map(asked))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::checks::{health, specs};
    use super::super::clock;
    use super::super::health::Verdict;
    use super::*;

    const PLAIN: &str = "[[interface]]\nname = \"front\"\n[[service]]\nname = \"web\"\nlisten = \"10.100.0.1:80\"\n\
        protocol = \"tcp\"\nforward = \"nat\"\nhealth = { kind = \"tcp\", interval = \"1s\" }\n\
        [[service.backend]]\naddress = \"10.2.0.11:80\"\nweight = 7\n";

    fn model(text: &str) -> Model {
        ringgate_config::parse("test", text).unwrap().model
    }

    /// Configurations that differ in one thing from the first, or in several.
    fn texts() -> Vec<String> {
        let by_service = PLAIN.replace("\"1s\"", "\"1s\", via = \"service\"");
        let by_service = by_service
            .replace("\"nat\"", "\"dsr-l2\"")
            .replace(".11:80", ".11");
        let more = "[[service.backend]]\naddress = \"10.2.0.12:80\"\n";
        let service = PLAIN.split_once("[[service]]").unwrap().1;
        let second = service
            .replace("\"web\"", "\"shop\"")
            .replace("10.100.0.1", "10.100.0.2");
        let both = format!("{PLAIN}[[service]]{second}{more}");
        vec![
            PLAIN.to_owned(),
            PLAIN.replace("kind = \"tcp\"", "kind = \"http\""),
            PLAIN.replace("\"1s\"", "\"2s\""),
            PLAIN.replace("\"1s\"", "\"1s\", report-ttl = \"9s\""),
            PLAIN.replace("\"1s\"", "\"1s\", port = 81"),
            PLAIN.replace("\"web\"", "\"net\""),
            PLAIN.replace("10.2.0.11:80", "10.2.0.12:80"),
            PLAIN.replace("weight = 7", "disabled = true"),
            PLAIN.replace("weight = 7", "weight = 9"),
            PLAIN.replace(".1:80", ".2:80"),
            format!("{PLAIN}{more}"),
            PLAIN.replace("health", "#"),
            by_service.replace(".1:80", ".2:80"),
            by_service,
            both.replace("\"1s\", report", "\"2s\", report"),
            both.replace("weight = 7", "disabled = true"),
            both,
        ]
    }

    #[test]
    fn from_any_configuration_to_any_other_the_checks_are_those_it_asks_for() {
        let texts = texts();
        let models: Vec<Model> = texts.iter().map(|text| model(text)).collect();
        let now = clock::now();
        let (mut roster, mut checker) = (Roster::default(), Checker::new(1));
        for old in &models {
            for new in &models {
                roster.follow(old, &mut checker, now);
                let mut started = Vec::new();
                checker.tick(now, &mut started);
                let before: HashSet<CheckId> = roster_checks(&roster);
                for (place, id) in before.iter().enumerate() {
                    // States that differ, so that one could be taken for another's.
                    let verdict = [Verdict::Success, Verdict::Unseen][place % 2];
                    checker.ended(*id, verdict, std::time::Duration::ZERO, now);
                }
                roster.follow(new, &mut checker, now);
                for service in new.services() {
                    for (at, backend) in service.backends().iter().enumerate() {
                        let known = roster.health(&checker, service, at);
                        assert_eq!(known, health(&checker, service, backend), "{new:#?}");
                    }
                }
                let wanted: HashSet<String> = specs(new).map(|one| format!("{one:?}")).collect();
                let ids = roster_checks(&roster);
                let run = ids
                    .iter()
                    .map(|id| format!("{:?}", checker.spec(*id).unwrap()));
                assert_eq!(run.collect::<HashSet<_>>(), wanted);
                let gone = before.difference(&ids);
                assert!(gone.into_iter().all(|id| checker.spec(*id).is_none()));
            }
        }
        let nothing = model("[[interface]]\nname = \"front\"\n");
        roster.follow(&nothing, &mut checker, now);
        assert_eq!((checker.next_due(), checker.pending()), (None, 0));
    }

    fn roster_checks(roster: &Roster) -> HashSet<CheckId> {
        let rolls = roster.rolls.values();
        rolls
            .flat_map(|roll| roll.checks.iter().flatten().copied())
            .collect()
    }

    #[test]
    fn what_changes_nothing_for_checks_looks_none_up() {
        let plain = model(PLAIN);
        for (text, is_alike) in texts().iter().zip([true, false]) {
            let other = model(text);
            let services = (&plain.services()[0], &other.services()[0]);
            assert_eq!(is_checked_alike(services.0, services.1), is_alike, "{text}");
        }
        let heavier = model(&PLAIN.replace("weight = 7", "weight = 9"));
        assert!(is_checked_alike(
            &plain.services()[0],
            &heavier.services()[0]
        ));
    }
}
