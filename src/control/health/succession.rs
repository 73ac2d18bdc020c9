//! Which checks there are, from one configuration to the next: who is wanted no more, who comes, and what the
//! one inherits from the other.
//!
//! Checks are shared: one has as many users as there are backends, of whatever services, that are checked
//! so. A reload names those that it changes and no other, so that it costs what it changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ringgate_config::Check;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{CheckId, Checker, Course, Spec, Tally, Target, Watched, hash};
use crate::control::truepath::Path;

/// What checks leave behind for those that come after them.
#[derive(Debug)]
struct Heirs {
    /// Nobody else comes.
    wanted: FxHashSet<SocketAddr>,
    left: FxHashMap<Heritage, (Course, Tally, Option<Target>)>,
}

/// Of which backend, asked in which way and by which path, and of which target, or of any. What one path has shown says
/// nothing of another.
type Heritage = (SocketAddr, Option<Arc<Check>>, Option<Path>, Option<Target>);

impl Heirs {
    /// Of checks that come.
    fn to<'a>(specs: impl Iterator<Item = &'a Spec>) -> Self {
        Self {
            wanted: specs.map(|spec| spec.address).collect(),
            left: FxHashMap::default(),
        }
    }

    fn leave(&mut self, check: &Watched) {
        let Spec {
            address,
            check: way,
            path,
            ..
        } = &check.spec;
        if !self.wanted.contains(address) {
            return;
        }
        let target = check.spec.target();
        let leaves = || (check.course.clone(), check.tally, target.cloned());
        // Once for all, and once for those of the same target.
        let whose = [None, target.cloned()];
        for whose in whose.into_iter().take(1 + usize::from(target.is_some())) {
            let heir = self
                .left
                .entry((*address, way.clone(), *path, whose))
                .or_insert_with(leaves);
            if heir.0.since < check.course.since {
                *heir = leaves();
            }
        }
    }

    fn of(&self, spec: &Spec) -> Option<(Course, Tally)> {
        let whose = |target| {
            let heritage = (spec.address, spec.check.clone(), spec.path, target);
            self.left.get(&heritage)
        };
        let target = spec.target().cloned();
        let (course, tally, from) = whose(target).or_else(|| whose(None))?;
        let is_same = spec.target() == from.as_ref();
        Some((course.inherited(is_same), *tally))
    }
}

impl Checker {
    /// Takes up checks for users that come, and gives up those of users that have gone, whose names are
    /// given as often as there were users. A check without users is run no more; its state goes to its
    /// successor of the same address and kind, and target if there is one. Where several know the backend, the one that
    /// learnt something last is believed. Gives back what each of the wanted is called.
    pub(crate) fn exchange(
        &mut self,
        wanted: Vec<Spec>,
        gone: &[CheckId],
        now: Instant,
    ) -> Vec<CheckId> {
        let known: Vec<Option<CheckId>> = wanted.iter().map(|spec| self.join(spec)).collect();
        let named = || wanted.iter().zip(&known);
        let new = named().filter(|(_, known)| known.is_none());
        let mut heirs = Heirs::to(new.map(|(spec, _)| spec));
        for id in gone {
            if let Some(check) = self.leave(*id) {
                heirs.leave(&check);
            }
        }
        if !heirs.wanted.is_empty() {
            self.checks.values().for_each(|check| heirs.leave(check));
        }
        let each = wanted.into_iter().zip(known);
        let ids = each.map(|(spec, known)| {
            // Two that are new may want the same.
            known.or_else(|| self.join(&spec)).unwrap_or_else(|| {
                let inherited = heirs.of(&spec);
                self.add(
                    spec,
                    inherited.unwrap_or_else(|| (Course::new(now), Tally::default())),
                    now,
                )
            })
        });
        ids.collect()
    }

    /// One more uses the check that is run so; none is.
    fn join(&mut self, spec: &Spec) -> Option<CheckId> {
        let id = *self.by_spec.get(spec)?;
        self.checks.get_mut(&id)?.users += 1;
        Some(id)
    }

    /// One less uses a check. It, if that was the last.
    fn leave(&mut self, id: CheckId) -> Option<Watched> {
        let check = self.checks.get_mut(&id)?;
        check.users = check.users.saturating_sub(1);
        if check.users > 0 {
            return None;
        }
        let check = self.checks.remove(&id)?;
        self.due.remove(&(check.due, id));
        if let Some(lapse) = check.lapse {
            self.lapses.remove(&(lapse, id));
        }
        self.by_spec.remove(&check.spec);
        if let Some(target) = check.spec.target() {
            self.by_target.remove(target);
        }
        Some(check)
    }

    fn add(&mut self, spec: Spec, (course, tally): (Course, Tally), now: Instant) -> CheckId {
        let id = CheckId(self.next_id);
        self.next_id += 1;
        if spec.check.is_some() {
            self.due.insert((now, id));
        }
        self.by_spec.insert(spec.clone(), id);
        let target = spec.target().cloned();
        self.by_target.extend(target.map(|target| (target, id)));
        let check = Watched {
            users: 1,
            draw: hash(self.seed, &spec),
            spec,
            course,
            tally,
            running: false,
            begun: false,
            started: now,
            due: now,
            is_urgent: false,
            lapse: None,
        };
        self.checks.insert(id, check);
        self.time(id);
        id
    }
}
