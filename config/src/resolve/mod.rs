//! File → model: gives every value its meaning, checks how they fit together, and collects all
//! problems on the way. Entries that are wrong in one key are still compared in the others, so
//! that one pass over the file is enough.

mod across;
mod api;
mod backend;
mod balancer;
mod check;
mod health;
mod metrics;
mod scope;
mod service;
mod timeouts;
mod tunnel;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::ops::Range;

use crate::error::{Findings, Kind, Refusal, quote};
use crate::file::{self, File};
use crate::limits::{BACKENDS_TOTAL_MAX, INTERFACE_NAME_BYTES_MAX, INTERFACES_MAX, SERVICES_MAX};
use crate::model::{Interface, Mode, Model, PartialChecksums, Timeouts, VlanTags};
use across::Seen;
use scope::Scope;

/// Makes the model. `None` when a problem was reported.
pub(crate) fn model(file: &File<'_>, findings: &mut Findings<'_>) -> Option<Model> {
    let nat_sources = match &file.balancer {
        Some(balancer) => balancer::nat_sources(&balancer.nat_sources, findings),
        None => Some(Vec::new()),
    };
    let nat_addresses: Option<Vec<IpAddr>> = nat_sources
        .as_ref()
        .map(|sources| sources.iter().map(|(ip, _)| *ip).collect());
    let balancer = match &file.balancer {
        Some(balancer) => balancer::resolve(balancer, nat_addresses.as_deref(), findings),
        None => Some(balancer::default()),
    };
    let metrics = metrics::resolve(file.metrics.as_ref(), findings);
    let api = api::resolve(file.api.as_ref(), findings);
    let interfaces = interfaces(&file.interfaces, findings);
    let mut seen = Seen::default();
    let inherited = Inherited {
        timeouts: balancer
            .as_ref()
            .map(|balancer| balancer.timeouts)
            .unwrap_or_default(),
        nat_sources: nat_addresses.as_deref(),
    };
    let services: Vec<_> = file
        .services
        .iter()
        .map(|raw| service::resolve(raw, &inherited, &mut seen, findings))
        .collect();
    timeouts::check_sets(&file.services, &services, findings);
    seen.check(nat_sources.unwrap_or_default(), findings);
    check_counts(file, findings);
    Some(Model {
        balancer: balancer?,
        metrics: metrics?,
        api: api?,
        interfaces: interfaces?,
        services: services.into_iter().collect::<Option<_>>()?,
    })
}

/// What services take from `[balancer]`.
struct Inherited<'m> {
    timeouts: Timeouts,
    /// `None`: they could not be resolved.
    nat_sources: Option<&'m [IpAddr]>,
}

fn interfaces(raw: &[file::Interface<'_>], findings: &mut Findings<'_>) -> Option<Vec<Interface>> {
    let mut names = Taken::default();
    let interfaces = raw.iter().map(|raw| {
        let mut scope = Scope {
            path: &raw.path,
            head: &raw.head,
            findings,
        };
        let name = scope
            .required("name", &raw.name, "name = \"eth0\"")
            .and_then(|(name, at)| {
                if let Some(cure) = interface_name_cure(name) {
                    let expected =
                        format!("an interface's name of 1 to {INTERFACE_NAME_BYTES_MAX} bytes");
                    scope.refuse("name", &at, quote(name), expected, cure);
                    return None;
                }
                let cure = "list every interface once";
                scope.unique("name", at, name, &mut names, "another name", cure)?;
                Some(name.to_owned())
            });
        let mode = scope.word("mode", &raw.mode, Some(Mode::Auto), &[]);
        let checksums = Some(PartialChecksums::Auto);
        let partial_checksums =
            scope.word("partial-checksums", &raw.partial_checksums, checksums, &[]);
        let vlan_tags = scope.word("vlan-tags", &raw.vlan_tags, Some(VlanTags::Route), &[]);
        Some(Interface {
            name: name?,
            mode: mode?,
            partial_checksums: partial_checksums?,
            vlan_tags: vlan_tags?,
        })
    });
    // Collected first: every interface is to be looked at, not only up to the first wrong one.
    let interfaces: Vec<Option<Interface>> = interfaces.collect();
    interfaces.into_iter().collect()
}

/// What is wrong with an interface's name by the kernel's rule (`dev_valid_name` in
/// net/core/dev.c), as what to do about it.
fn interface_name_cure(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > INTERFACE_NAME_BYTES_MAX || name == "." || name == ".." {
        return Some("write a name that `ip link` shows");
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':');
    name.contains(bad)
        .then_some("leave out '/', ':', spaces and control characters")
}

/// The family of an address in words.
const fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Bounds on how many there are, and what must be there.
fn check_counts(file: &File<'_>, findings: &mut Findings<'_>) {
    let nothing = || "nothing".to_owned();
    if file.interfaces.is_empty() {
        let refusal = Refusal {
            found: nothing(),
            expected: "at least one interface".to_owned(),
            cure: "add [[interface]] with name = \"eth0\"".to_owned(),
        };
        findings.problem(Kind::Structure, &(0..0), "interface".to_owned(), refusal);
    }
    if file.services.is_empty() {
        let found = "there is no service, nothing will be balanced".to_owned();
        let cure = "add a [[service]] if that is not meant".to_owned();
        findings.warning(&(0..0), "service".to_owned(), found, cure);
    }
    let mut over = |what: &str, found: usize, max: usize, first: Option<(&Range<usize>, &str)>| {
        let Some((head, path)) = first else { return };
        let refusal = Refusal {
            found: format!("{found} {what}"),
            expected: format!("at most {max}"),
            cure: "divide them among several balancers".to_owned(),
        };
        findings.problem(Kind::Structure, head, path.to_owned(), refusal);
    };
    let first = file
        .interfaces
        .get(INTERFACES_MAX)
        .map(|raw| (&raw.head, raw.path.as_str()));
    over("interfaces", file.interfaces.len(), INTERFACES_MAX, first);
    let first = file
        .services
        .get(SERVICES_MAX)
        .map(|raw| (&raw.head, raw.path.as_str()));
    over("services", file.services.len(), SERVICES_MAX, first);
    let backends = || file.services.iter().flat_map(|raw| &raw.backends);
    let first = backends()
        .nth(BACKENDS_TOTAL_MAX)
        .map(|raw| (&raw.head, raw.path.as_str()));
    over("backends", backends().count(), BACKENDS_TOTAL_MAX, first);
}

/// Values that may be used once, each with where it was first.
#[derive(Debug)]
struct Taken<T>(HashMap<T, Range<usize>>);

impl<T> Default for Taken<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Taken<T> {
    /// Takes the value; if it is already taken, where it was.
    fn take(&mut self, value: T, at: Range<usize>) -> Result<(), Range<usize>> {
        match self.0.entry(value) {
            Entry::Vacant(entry) => {
                entry.insert(at);
                Ok(())
            }
            Entry::Occupied(entry) => Err(entry.get().clone()),
        }
    }
}
