//! What a change of the configuration will do, and to whose traffic.
//!
//! New flows go by the rings, so what moves there is what changes for them, and for flows that nothing
//! remembers: datagrams of stateless services, and flows that come from another balancer. Flows in
//! the table keep their server unless it goes; `docs/CHANGES-OF-BACKENDS.md` has the whole table.

use std::collections::HashMap;
use std::net::SocketAddr;

use ringgate_config::diff::{Action, Diff, Setting};
use ringgate_config::{Backend, Listen, Model, Service};
use ringgate_conntrack::Endpoint;
use ringgate_dataplane::backend::BackendId;
use ringgate_dataplane::maglev::{Part, Ring};
use ringgate_dataplane::service::Service as Built;
use ringgate_dataplane::snapshot::{Foreseen, Snapshot};
use serde_json::{Value, json};

/// Actions that are told one by one; the rest is a number.
const ACTIONS_MOST: usize = 1_000;

/// Actions that are logged.
const LOGGED_MOST: usize = 20;

/// From this part of its slots on there is a warning that a service moves, percent.
const MUCH_PERCENT: f64 = 25.0;

/// What two configurations are, and what is known of the first.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    /// The configuration as it is.
    pub(crate) old: &'a Model,
    /// As it is to be.
    pub(crate) new: &'a Model,
    /// The snapshot of the old one.
    pub(crate) before: &'a Snapshot,
    /// What the new one comes to, in its order of services.
    pub(crate) after: &'a [Foreseen],
    /// How many flows a backend of a running balancer has. `None`: none runs, and parts of the ring
    /// stand for numbers.
    pub(crate) flows: Option<&'a dyn Fn(BackendId) -> u64>,
}

/// See the module's documentation. It owns what it says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    /// How many there are, those that are left out as well.
    total: usize,
    services: Vec<Outlook>,
    warnings: Vec<String>,
}

/// An [`Action`], told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    kind: &'static str,
    service: Option<String>,
    backend: Option<String>,
    settings: Vec<Setting>,
    line: String,
}

/// What becomes of a service that changes.
#[derive(Debug, Clone, PartialEq)]
struct Outlook {
    name: String,
    /// `added`, `removed` or `changed`.
    what: &'static str,
    /// The part of its slots that get another backend.
    moved: Part,
    /// The part of its slots whose backends take no packets any more.
    gone: Part,
    /// Flows that it has, and those of them whose backend goes.
    flows: Option<[u64; 2]>,
    /// The least and the greatest share of slots of a backend over its share of the weights.
    balance: Option<[f64; 2]>,
}

/// What the actions say of one service.
#[derive(Default)]
struct Touched {
    /// Backends that will take no packets any more.
    gone: Vec<SocketAddr>,
    /// Backends that packets will reach in another way.
    rewired: Vec<String>,
}

type Identity = (Listen, u8);

impl Plan {
    /// Of a change. `warnings` are those of the new file itself.
    pub(crate) fn of(change: &Change<'_>, warnings: Vec<String>) -> Self {
        let diff = Diff::between(change.old, change.new);
        let mut touched: HashMap<Identity, Touched> = HashMap::new();
        for action in diff.actions() {
            if let Some(service) = action.service() {
                touched.entry(service.identity()).or_default().note(action);
            }
        }
        let mut plan = Self {
            steps: diff
                .actions()
                .iter()
                .take(ACTIONS_MOST)
                .map(Step::of)
                .collect(),
            total: diff.actions().len(),
            services: Vec::new(),
            warnings,
        };
        let built = change.before.services().iter();
        let built: HashMap<Identity, &Built> = built
            .map(|service| ((service.listen, service.protocol), service))
            .collect();
        for (service, foreseen) in change.new.services().iter().zip(change.after) {
            if let Some(touched) = touched.remove(&service.identity()) {
                let before = built.get(&service.identity()).copied();
                plan.keep_or_add(change, service, foreseen, before, &touched);
            }
        }
        for service in change.old.services() {
            if touched.contains_key(&service.identity()) {
                plan.remove(change, service, built.get(&service.identity()).copied());
            }
        }
        plan
    }

    fn keep_or_add(
        &mut self,
        change: &Change<'_>,
        service: &Service,
        foreseen: &Foreseen,
        before: Option<&Built>,
        touched: &Touched,
    ) {
        let old = before.map(|built| Standing::of(built, change));
        let outlook = Outlook {
            name: service.name().to_owned(),
            what: if old.is_some() { "changed" } else { "added" },
            moved: old
                .as_ref()
                .map_or(Part::NONE, |old| old.moved_to(foreseen)),
            gone: old
                .as_ref()
                .map_or(Part::NONE, |old| old.part_of(&touched.gone)),
            flows: old
                .as_ref()
                .and_then(|old| old.flows_and_those_of(&touched.gone)),
            balance: foreseen
                .ring
                .as_deref()
                .and_then(|ring| balance(ring, foreseen)),
        };
        self.warn_of_service(service, foreseen, &outlook, touched);
        self.services.push(outlook);
    }

    fn remove(&mut self, change: &Change<'_>, service: &Service, before: Option<&Built>) {
        let flows = before.and_then(|built| Standing::of(built, change).all_flows());
        let name = service.name();
        if let Some(flows @ 1..) = flows {
            self.warnings.push(format!(
                "service {name}: goes with {flows} flows; its packets go to this host's kernel then"
            ));
        }
        self.services.push(Outlook {
            name: name.to_owned(),
            what: "removed",
            moved: Part::ALL,
            gone: Part::ALL,
            flows: flows.map(|flows| [flows, flows]),
            balance: None,
        });
    }

    fn warn_of_service(
        &mut self,
        service: &Service,
        foreseen: &Foreseen,
        outlook: &Outlook,
        touched: &Touched,
    ) {
        let mut warn = |text: String| {
            self.warnings
                .push(format!("service {}: {text}", service.name()));
        };
        let gone = match (touched.gone.len(), outlook.flows) {
            (0, _) | (_, Some([_, 0])) => None,
            (count, Some([_, flows])) => Some((count, format!("{flows} flows"))),
            (_, None) if outlook.gone.part == 0 => None,
            (count, None) => Some((
                count,
                format!("{:.2} % of its flows", outlook.gone.percent()),
            )),
        };
        if let Some((count, flows)) = gone {
            let backends = if count == 1 {
                "a backend goes"
            } else {
                "backends go"
            };
            warn(format!(
                "{backends} with {flows}: the next packets go to other servers, which reset TCP \
                 connections; with weight = 0 first they can end"
            ));
        }
        if !touched.rewired.is_empty() {
            let names = touched.rewired.join(", ");
            warn(format!(
                "flows of {names} go on in another mode, which their servers may not understand"
            ));
        }
        let takers = service.backends().iter().filter(|one| takes(one)).count();
        match (service.backends().len(), takers, &foreseen.ring) {
            (0, ..) => warn("ends without backends: it drops new flows".to_owned()),
            (_, 0, _) => {
                warn("every backend is disabled or of weight 0: it drops new flows".to_owned())
            }
            (_, _, None) => {
                warn("none of its backends is up at this moment: it drops new flows".to_owned())
            }
            _ => {}
        }
        if outlook.what == "changed" && outlook.moved.percent() > MUCH_PERCENT {
            let percent = outlook.moved.percent();
            warn(format!(
                "{percent:.2} % of its slots move: flows that are not in the table (stateless, \
                 half open, another balancer's) find another server"
            ));
        }
    }

    /// The actions that the log is told, and how many more there are.
    fn logged(&self) -> (impl Iterator<Item = &str>, usize) {
        let lines = self
            .steps
            .iter()
            .take(LOGGED_MOST)
            .map(|step| step.line.as_str());
        (lines, self.total.saturating_sub(LOGGED_MOST))
    }

    /// Logs what happens, in part where it is much, and what is to be worried about.
    pub(crate) fn tell_log(&self) {
        let (lines, more) = self.logged();
        lines.for_each(|line| tracing::info!("{line}"));
        if more > 0 {
            tracing::info!("and {more} changes more");
        }
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
    }

    /// What is to be worried about.
    #[cfg(test)]
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many actions there are.
    pub(crate) const fn actions(&self) -> usize {
        self.total
    }

    /// The body of answers about it.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "same": self.total == 0,
            "actions": self.steps.iter().map(Step::to_json).collect::<Value>(),
            "actions_total": self.total,
            "services": self.services.iter().map(Outlook::to_json).collect::<Value>(),
            "warnings": self.warnings,
        })
    }
}

const fn takes(backend: &Backend) -> bool {
    backend.weight() > 0 && !backend.disabled()
}

impl Touched {
    fn note(&mut self, action: &Action<'_>) {
        match action {
            Action::RemoveBackend { backend, .. } => self.gone.push(backend.address()),
            Action::ChangeBackend { old, new, .. } => {
                if new.disabled() && !old.disabled() {
                    self.gone.push(new.address());
                } else if new.forward() != old.forward() {
                    self.rewired.push(new.name());
                }
            }
            _ => {}
        }
    }
}

impl Step {
    fn of(action: &Action<'_>) -> Self {
        Self {
            kind: action.kind(),
            service: action.service().map(|service| service.name().to_owned()),
            backend: action.backend().map(Backend::name),
            settings: action.settings().to_vec(),
            line: action.to_string(),
        }
    }

    fn to_json(&self) -> Value {
        let settings = self
            .settings
            .iter()
            .map(|setting| json!({ "key": setting.key, "old": setting.old, "new": setting.new }));
        json!({
            "action": self.kind,
            "service": self.service,
            "backend": self.backend,
            "settings": settings.collect::<Value>(),
            "text": self.line,
        })
    }
}

/// Three decimals: a slot of the largest table is less than that, and nobody reads more.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Outlook {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "change": self.what,
            "moved_percent": rounded(self.moved.percent()),
            "gone_percent": rounded(self.gone.percent()),
            "flows": self.flows.map(|[all, _]| all),
            "flows_affected": self.flows.map(|[_, affected]| affected),
            "balance": self.balance.map(|[least, greatest]| json!({
                "least": (least * 1e4).round() / 1e4,
                "greatest": (greatest * 1e4).round() / 1e4,
            })),
        })
    }
}

/// A service in the snapshot that there is.
struct Standing<'a> {
    ring: Option<&'a Ring>,
    /// Each member's address and flows.
    members: Vec<(Endpoint, Option<u64>)>,
}

impl<'a> Standing<'a> {
    fn of(built: &'a Built, change: &Change<'a>) -> Self {
        let members = built.members.iter().filter_map(|id| {
            let endpoint = change.before.backend(*id)?.endpoint;
            Some((endpoint, change.flows.map(|flows_of| flows_of(*id))))
        });
        Self {
            ring: built.ring.as_deref(),
            members: members.collect(),
        }
    }

    fn moved_to(&self, new: &Foreseen) -> Part {
        let (old, new_ring) = match (self.ring, new.ring.as_deref()) {
            (None, None) => return Part::NONE,
            (None, Some(_)) | (Some(_), None) => return Part::ALL,
            (Some(old), Some(ring)) if std::ptr::eq(old, ring) => return Part::NONE,
            (Some(old), Some(ring)) => (old, ring),
        };
        let places: HashMap<Endpoint, u16> = (0..)
            .zip(&self.members)
            .map(|(at, (endpoint, _))| (*endpoint, at))
            .collect();
        let here = new
            .members
            .iter()
            .map(|member| places.get(&member.identity).copied());
        old.moved_to(new_ring, &here.collect::<Vec<_>>())
    }

    /// The part of the slots that these backends have.
    fn part_of(&self, backends: &[SocketAddr]) -> Part {
        let Some(ring) = self.ring.filter(|_| !backends.is_empty()) else {
            return Part::NONE;
        };
        let shares = ring.shares(self.members.len());
        let is_meant = self.are_among(backends);
        let slots = |share: &u32| u64::from(*share);
        let theirs = shares
            .iter()
            .zip(is_meant)
            .filter(|(_, is_meant)| *is_meant);
        Part {
            part: theirs.map(|(share, _)| slots(share)).sum(),
            whole: shares.iter().map(slots).sum::<u64>().max(1),
        }
    }

    fn are_among(&self, backends: &[SocketAddr]) -> impl Iterator<Item = bool> {
        let meant: std::collections::HashSet<Endpoint> = backends
            .iter()
            .map(|address| Endpoint::from_socket(*address))
            .collect();
        self.members
            .iter()
            .map(move |(endpoint, _)| meant.contains(endpoint))
    }

    fn all_flows(&self) -> Option<u64> {
        self.members.iter().map(|(_, flows)| *flows).sum()
    }

    fn flows_and_those_of(&self, backends: &[SocketAddr]) -> Option<[u64; 2]> {
        let counts = self.members.iter().zip(self.are_among(backends));
        let theirs = counts
            .filter(|(_, is_meant)| *is_meant)
            .map(|((_, flows), _)| *flows);
        Some([self.all_flows()?, theirs.sum::<Option<u64>>()?])
    }
}

/// How even a ring is: see [`Outlook::balance`].
fn balance(ring: &Ring, foreseen: &Foreseen) -> Option<[f64; 2]> {
    let shares = ring.shares(foreseen.members.len());
    let slots: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    let weights: u64 = foreseen
        .members
        .iter()
        .map(|member| u64::from(member.weight))
        .sum();
    let ratios = foreseen
        .members
        .iter()
        .zip(shares)
        .filter(|(member, _)| member.weight > 0);
    let ratios = ratios.map(|(member, share)| {
        let of_slots = f64::from(share) / slots as f64;
        of_slots / (f64::from(member.weight) / weights as f64)
    });
    ratios.fold(None, |range, ratio| {
        let [least, greatest] = range.unwrap_or([ratio; 2]);
        Some([f64::min(least, ratio), f64::max(greatest, ratio)])
    })
}

#[cfg(test)]
mod tests;
