//! Which number each service's timeouts have in the flow table.
//!
//! A flow has the number of its service's set of timeouts, its [`Profile`], not the timeouts
//! themselves. Services whose sets are the same share a number. What happens when a reload gives
//! a service other timeouts:
//!
//! * No other service has the old set: its number stands for the new set from now on, so all of
//!   the service's flows, idle ones too, live by it at once.
//! * Others still have it: the service gets another number. A flow takes that with its next
//!   renewal, so within half a minute of a packet ([`Timeouts::grain`]); an idle one ends by the
//!   old set.
//!
//! The number of a set that no service has is free and keeps its meaning for flows that are left,
//! until it is needed; the one that is free for longest goes first.

use std::collections::HashMap;

use ringgate_config::{Listen, Model};
use ringgate_conntrack::{Profile, Span, Timeouts};

use crate::newcomers::Tables;

const _: () = assert!(ringgate_config::limits::TIMEOUT_SETS_MAX == Profile::COUNT);

/// What each profile that is in use stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lifetimes(Vec<(Profile, Timeouts)>);

impl Lifetimes {
    /// Tells the tables. To be done before workers store flows under these profiles.
    pub fn apply(&self, tables: &Tables) {
        for (profile, timeouts) in &self.0 {
            tables.set_timeouts(*profile, timeouts);
        }
    }
}

/// One number and what it stands for.
#[derive(Debug, Clone, Copy, Default)]
struct Numbered {
    timeouts: Option<Timeouts>,
    /// The last round in which a service had it.
    last_used: u64,
}

/// Numbers sets of timeouts; lives on the control side from start to stop.
#[derive(Debug, Default)]
pub struct Profiles {
    sets: [Numbered; Profile::COUNT],
    of_service: HashMap<(Listen, u8), Profile>,
    round: u64,
}

impl Profiles {
    /// The number of each service's set, in the model's order.
    pub fn number(&mut self, model: &Model) -> Vec<Profile> {
        self.round += 1;
        let wanted: Vec<((Listen, u8), Timeouts)> = model
            .services()
            .iter()
            .map(|service| (service.identity(), spans(service.timeouts())))
            .collect();
        // Sets that have a number keep it; then those that have none get the others.
        for numbered in &mut self.sets {
            let is_wanted = |set: &Timeouts| wanted.iter().any(|(_, wanted)| wanted == set);
            if numbered.timeouts.as_ref().is_some_and(is_wanted) {
                numbered.last_used = self.round;
            }
        }
        let numbers: Vec<Profile> = wanted
            .iter()
            .map(|(listen, set)| self.find(set).unwrap_or_else(|| self.take(listen, *set)))
            .collect();
        let listens = wanted.iter().map(|(listen, _)| *listen);
        self.of_service = listens.zip(numbers.iter().copied()).collect();
        numbers
    }

    /// What the numbers in use stand for.
    #[must_use]
    pub fn lifetimes(&self) -> Lifetimes {
        let in_use = Profile::all()
            .zip(&self.sets)
            .filter(|(_, numbered)| numbered.last_used == self.round)
            .filter_map(|(profile, numbered)| Some((profile, numbered.timeouts?)));
        Lifetimes(in_use.collect())
    }

    fn find(&self, set: &Timeouts) -> Option<Profile> {
        Profile::all()
            .zip(&self.sets)
            .find(|(_, numbered)| numbered.timeouts.as_ref() == Some(set))
            .map(|(profile, _)| profile)
    }

    /// Gives a set a number that no other set needs: the service's last one, so that its flows
    /// follow, or the one that is free for longest.
    fn take(&mut self, listen: &(Listen, u8), set: Timeouts) -> Profile {
        let round = self.round;
        let is_free = |number: &Numbered| number.last_used < round;
        let own = self.of_service.get(listen).copied();
        let own = own.filter(|own| {
            let number = self.sets.get(usize::from(own.number()));
            number.is_some_and(is_free)
        });
        let profile = own.unwrap_or_else(|| {
            let free = Profile::all().zip(&self.sets);
            let free = free.filter(|(_, number)| is_free(number));
            let longest = free.min_by_key(|(_, number)| number.last_used);
            // A model has no more sets than there are numbers.
            longest.map_or(Profile::DEFAULT, |(profile, _)| profile)
        });
        if let Some(number) = self.sets.get_mut(usize::from(profile.number())) {
            *number = Numbered {
                timeouts: Some(set),
                last_used: round,
            };
        }
        profile
    }
}

/// As the flow table counts: whole seconds, which a model's timeouts are.
fn spans(timeouts: &ringgate_config::Timeouts) -> Timeouts {
    let span =
        |time: std::time::Duration| Span(u32::try_from(time.as_secs()).unwrap_or(u32::MAX >> 1));
    Timeouts {
        opening: span(timeouts.opening),
        established: span(timeouts.established),
        half_closed: span(timeouts.half_closed),
        closed: span(timeouts.closed),
        one_way: span(timeouts.one_way),
        two_way: span(timeouts.two_way),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service for each of these hours that established flows are kept, by name.
    fn model(services: &[(u16, u32)]) -> Model {
        let mut file = "[[interface]]\nname = \"eth0\"\n".to_owned();
        for (port, hours) in services {
            file += &format!(
                "[[service]]\nname = \"s{port}\"\nlisten = \"10.100.0.1:{port}\"\n\
                 protocol = \"tcp\"\nforward = \"nat\"\n\
                 timeouts = {{ established = \"{hours}h\" }}\n"
            );
        }
        ringgate_config::parse("test.toml", &file).unwrap().model
    }

    fn number(profiles: &mut Profiles, services: &[(u16, u32)]) -> Vec<u8> {
        let numbers = profiles.number(&model(services));
        numbers.iter().map(|profile| profile.number()).collect()
    }

    /// Number and hours of every set in use.
    fn in_use(profiles: &Profiles) -> Vec<(u8, u32)> {
        let Lifetimes(sets) = profiles.lifetimes();
        sets.iter()
            .map(|(profile, set)| (profile.number(), set.established.0 / 3600))
            .collect()
    }

    #[test]
    fn the_configuration_s_defaults_are_the_flow_table_s() {
        let defaults = ringgate_config::Timeouts::default();
        assert_eq!(spans(&defaults), Timeouts::default());
    }

    #[test]
    fn services_with_the_same_timeouts_share_a_number_and_keep_it() {
        let mut profiles = Profiles::default();
        assert_eq!(number(&mut profiles, &[(1, 5), (2, 6), (3, 5)]), [0, 1, 0]);
        assert_eq!(in_use(&profiles), [(0, 5), (1, 6)]);
        // Order, and what else there is, do not matter.
        assert_eq!(number(&mut profiles, &[(4, 7), (2, 6), (3, 5)]), [2, 1, 0]);
        assert_eq!(number(&mut profiles, &[(2, 6)]), [1]);
        assert_eq!(in_use(&profiles), [(1, 6)]);
    }

    #[test]
    fn a_set_that_nobody_else_has_is_exchanged_in_its_place() {
        let mut profiles = Profiles::default();
        number(&mut profiles, &[(1, 5), (2, 6)]);
        assert_eq!(number(&mut profiles, &[(1, 9), (2, 6)]), [0, 1]);
        assert_eq!(in_use(&profiles), [(0, 9), (1, 6)]);
        // Two services exchange theirs: each set keeps its number, so their flows change it.
        assert_eq!(number(&mut profiles, &[(1, 6), (2, 9)]), [1, 0]);
    }

    #[test]
    fn a_network_s_service_and_one_at_its_first_address_are_two() {
        let file = |hours: [u32; 3]| {
            let listens = ["10.100.0.0/16:80", "10.100.0.0/24:80", "10.100.0.0:80"];
            let mut file = "[[interface]]\nname = \"eth0\"\n".to_owned();
            for (listen, hours) in listens.iter().zip(hours) {
                file += &format!(
                    "[[service]]\nname = \"of{hours}\"\nlisten = \"{listen}\"\n\
                     protocol = \"tcp\"\nforward = \"dsr-l2\"\n\
                     timeouts = {{ established = \"{hours}h\" }}\n"
                );
            }
            ringgate_config::parse("test.toml", &file).unwrap().model
        };
        let mut profiles = Profiles::default();
        profiles.number(&file([1, 2, 3]));
        profiles.number(&file([4, 5, 6]));
        assert_eq!(in_use(&profiles), [(0, 4), (1, 5), (2, 6)]);
    }

    #[test]
    fn a_set_that_others_have_stays_and_the_service_gets_another_number() {
        let mut profiles = Profiles::default();
        number(&mut profiles, &[(1, 5), (2, 5)]);
        assert_eq!(number(&mut profiles, &[(1, 9), (2, 5)]), [1, 0]);
        assert_eq!(in_use(&profiles), [(0, 5), (1, 9)]);
    }

    #[test]
    fn numbers_are_used_again_and_the_longest_free_first() {
        let mut profiles = Profiles::default();
        for hours in 1..100 {
            // A new service each time: nothing to take over.
            let port = u16::try_from(hours).unwrap();
            let expected = u8::try_from((hours - 1) % 16).unwrap();
            assert_eq!(number(&mut profiles, &[(port, hours)]), [expected]);
        }
        let all: Vec<(u16, u32)> = (1..=16).map(|n| (200 + n, 100 + u32::from(n))).collect();
        let mut numbers = number(&mut profiles, &all);
        numbers.sort_unstable();
        assert_eq!(numbers, (0..16).collect::<Vec<u8>>());
    }
}
