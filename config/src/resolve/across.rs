//! What must be compared over all services: names, where they listen, and who their backends are.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};

use ipnet::IpNet;

use super::Taken;
use super::scope::Scope;
use crate::error::{Findings, Kind, Refusal, join};
use crate::limits::PORT_RANGES_MAX;
use crate::model::{Listen, Protocol};

/// Everything met so far.
#[derive(Debug, Default)]
pub(super) struct Seen<'a> {
    pub(super) names: Taken<&'a str>,
    /// By protocol and prefix.
    listens: HashMap<(Protocol, IpNet), Vec<Listening<'a>>>,
    /// Service by prefix, for the check against loops; and the lengths that occur, longest last.
    owners: HashMap<IpNet, &'a str>,
    lengths: BTreeSet<u8>,
    backends: Vec<Server<'a>>,
    /// Who may be what a reply is from, by protocol and address.
    repliers: HashMap<(Protocol, IpAddr), Vec<Replier<'a>>>,
}

/// Where one service listens.
#[derive(Debug)]
struct Listening<'a> {
    listen: Listen,
    at: Range<usize>,
    path: &'a str,
}

/// One backend: its address, where that stands, the path of its table.
#[derive(Debug)]
struct Server<'a> {
    ip: IpAddr,
    at: Range<usize>,
    path: &'a str,
}

/// One backend of mode `nat`.
#[derive(Debug)]
struct Replier<'a> {
    ports: RangeInclusive<u16>,
    stateless: bool,
    at: Range<usize>,
    path: &'a str,
    service: &'a str,
}

impl<'a> Seen<'a> {
    /// Takes where a service listens.
    pub(super) fn listen(
        &mut self,
        scope: &mut Scope<'a, '_, '_>,
        listen: Listen,
        protocol: Option<Protocol>,
        at: &Range<usize>,
    ) -> Option<()> {
        let prefix = listen.prefix();
        self.owners.entry(prefix).or_insert(scope.path);
        self.lengths.insert(prefix.prefix_len());
        let Some(protocol) = protocol else {
            return Some(());
        };
        let same = self.listens.entry((protocol, prefix)).or_default();
        let first = same
            .iter()
            .find(|first| overlap(&first.listen.ports(), &listen.ports()));
        if let Some(first) = first {
            let line = scope.findings.line_index(first.at.start) + 1;
            let found = if first.listen == listen {
                format!("{listen} {protocol} again, first in line {line}")
            } else {
                let other = first.listen;
                format!("{listen} {protocol}, which has ports of {other} in line {line}")
            };
            let expected = "an address, port and protocol of its own".to_owned();
            let cure = "join the two services, or change one";
            scope.misfit("listen", at, found, expected, cure);
            return None;
        }
        same.push(Listening {
            listen,
            at: at.clone(),
            path: scope.path,
        });
        Some(())
    }

    /// Takes the address of a backend.
    pub(super) fn backend(&mut self, ip: IpAddr, at: Range<usize>, path: &'a str) {
        self.backends.push(Server { ip, at, path });
    }

    /// Takes a backend whose replies are told by where they come from. `port` 0: the service's.
    pub(super) fn replier(
        &mut self,
        endpoint: SocketAddr,
        listen: Listen,
        protocol: Protocol,
        stateless: bool,
        (at, path, service): (Range<usize>, &'a str, &'a str),
    ) {
        let ports = match endpoint.port() {
            0 => listen.ports(),
            port => port..=port,
        };
        let replier = Replier {
            ports,
            stateless,
            at,
            path,
            service,
        };
        let key = (protocol, endpoint.ip());
        self.repliers.entry(key).or_default().push(replier);
    }

    /// Checks what can be told only when everything is known.
    pub(super) fn check(
        &self,
        nat_sources: Vec<(IpAddr, Range<usize>)>,
        findings: &mut Findings<'_>,
    ) {
        self.check_loops(findings);
        self.check_nat_sources(nat_sources, findings);
        self.check_ranges(findings);
        self.check_repliers(findings);
    }

    /// The service of the longest prefix that holds `ip`.
    fn owner(&self, ip: IpAddr) -> Option<&'a str> {
        let prefixes = self.lengths.iter().rev();
        prefixes
            .filter_map(|&length| IpNet::new(ip, length).ok())
            .find_map(|prefix| self.owners.get(&prefix.trunc()).copied())
    }

    /// A backend at a service's address would send packets back to the balancer.
    fn check_loops(&self, findings: &mut Findings<'_>) {
        for Server { ip, at, path } in &self.backends {
            let Some(owner) = self.owner(*ip) else {
                continue;
            };
            let refusal = Refusal {
                found: ip.to_string(),
                expected: "an address that no service listens on".to_owned(),
                cure: format!(
                    "{owner} listens on it, packets would loop: write the server's own address"
                ),
            };
            findings.problem(Kind::Structure, at, join(path, "address"), refusal);
        }
    }

    /// What comes to a source of `full-nat` is a reply: it can be neither a service's nor a server's.
    fn check_nat_sources(
        &self,
        nat_sources: Vec<(IpAddr, Range<usize>)>,
        findings: &mut Findings<'_>,
    ) {
        for (ip, at) in nat_sources {
            let mut servers = self.backends.iter();
            let who = match self.owner(ip) {
                Some(owner) => format!("{owner} listens on it"),
                None => match servers.find(|server| server.ip == ip) {
                    Some(server) => format!("it is {}", server.path),
                    None => continue,
                },
            };
            let refusal = Refusal {
                found: ip.to_string(),
                expected: "an address of the balancer's own".to_owned(),
                cure: format!("{who}: give the balancer another address for this"),
            };
            let key = "balancer.nat-sources".to_owned();
            findings.problem(Kind::Structure, &at, key, refusal);
        }
    }

    /// The steering program looks through the port ranges that apply to an address one by one.
    fn check_ranges(&self, findings: &mut Findings<'_>) {
        let ranges = |protocol, prefix: IpNet| {
            let own = self.listens.get(&(protocol, prefix)).into_iter().flatten();
            own.filter(|own| own.listen.exact().is_none())
        };
        for &(protocol, prefix) in self.listens.keys() {
            let shorter = self.lengths.range(..prefix.prefix_len());
            let above: usize = shorter
                .filter_map(|&length| IpNet::new(prefix.addr(), length).ok())
                .map(|shorter| ranges(protocol, shorter.trunc()).count())
                .sum();
            for (own, listening) in ranges(protocol, prefix).enumerate() {
                let count = above + own + 1;
                if count <= PORT_RANGES_MAX {
                    continue;
                }
                let refusal = Refusal {
                    found: format!("{}, the {count}th over its addresses", listening.listen),
                    expected: format!(
                        "at most {PORT_RANGES_MAX} services with a prefix or several ports over one address, for each protocol"
                    ),
                    cure: "join some of them; services of one address and one port do not count"
                        .to_owned(),
                };
                let key = join(listening.path, "listen");
                findings.problem(Kind::Structure, &listening.at, key, refusal);
            }
        }
    }

    /// Without flow entries, only where a reply comes from tells of which service it is.
    fn check_repliers(&self, findings: &mut Findings<'_>) {
        let all = self.repliers.values();
        for repliers in all.filter(|all| all.iter().any(|replier| replier.stateless)) {
            for (index, replier) in repliers.iter().enumerate() {
                let clash = repliers[..index].iter().find(|first| {
                    first.service != replier.service
                        && (first.stateless || replier.stateless)
                        && overlap(&first.ports, &replier.ports)
                });
                let Some(clash) = clash else { continue };
                let line = findings.line_index(clash.at.start) + 1;
                let which = if replier.stateless {
                    "this"
                } else {
                    clash.service
                };
                let refusal = Refusal {
                    found: format!("a server that {} has too, in line {line}", clash.service),
                    expected: format!(
                        "a server of one nat service only, since {which} is stateless and its replies are told by where they come from"
                    ),
                    cure: "give it another port for one of them, or forward by something other than nat"
                        .to_owned(),
                };
                let key = join(replier.path, "address");
                findings.problem(Kind::Structure, &replier.at, key, refusal);
            }
        }
    }
}

/// Whether two ranges of ports have one in common.
fn overlap(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}
