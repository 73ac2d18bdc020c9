//! The addresses and ports that `full-nat` takes as source: what must be true of the host for that,
//! and who has which.
//!
//! The kernel knows nothing of these ports. Where it could give one of them to a connection of the
//! host's own, an answer of a backend to that (a health check's, say) would be taken for a flow's. So
//! the range must lie beside the ports that it gives out, or be reserved.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ringgate_config::Model;
use ringgate_conntrack::source_ports::{Layout, PortsError, Rests, Seat, SourcePorts};
use ringgate_conntrack::{Seconds, Secret};

use crate::control::netlink::state::Network;
use crate::preflight::Finding;

/// Groups of backends: each has all ports to itself, for 0.5 MiB each source. Sixteen let a service
/// whose backends are many have sixteen times as many flows as an address has ports.
const GROUPS: usize = 16;

const SUBJECT: &str = "nat-sources";

/// What the host does with addresses and ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SourceFacts {
    /// Its addresses.
    pub(crate) own: Vec<IpAddr>,
    /// The ports that it gives to its own connections; `None` if that cannot be read.
    pub(crate) given: Option<RangeInclusive<u16>>,
    /// Those of them that it does not give.
    pub(crate) reserved: Vec<RangeInclusive<u16>>,
}

impl SourceFacts {
    /// Looks at the host.
    pub(crate) fn gather(network: &Network) -> Self {
        // Both are the namespace's, and IPv6 goes by them too.
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        let given = read("ip_local_port_range").ok();
        Self {
            own: network.local_addresses().map(|one| one.address).collect(),
            given: given.and_then(|text| pair(text.split_whitespace())),
            reserved: read("ip_local_reserved_ports")
                .map(|text| reserved(&text))
                .unwrap_or_default(),
        }
    }

    /// A port of `range` that the host may give to a connection of its own.
    fn given_of(&self, range: &RangeInclusive<u16>) -> Option<u16> {
        let given = self.given.as_ref()?;
        let is_reserved = |port: &u16| self.reserved.iter().any(|ports| ports.contains(port));
        let mut ports = range.clone().filter(|port| given.contains(port));
        ports.find(|port| !is_reserved(port))
    }
}

/// Two numbers that are a range.
fn pair<'t>(mut words: impl Iterator<Item = &'t str>) -> Option<RangeInclusive<u16>> {
    let first = words.next()?.parse().ok()?;
    let last = words.next().map_or(Some(first), |word| word.parse().ok())?;
    Some(first..=last)
}

/// "8080,9000-9010", as `ip_local_reserved_ports` has it.
fn reserved(text: &str) -> Vec<RangeInclusive<u16>> {
    let parts = text.trim().split(',');
    parts.filter_map(|part| pair(part.split('-'))).collect()
}

/// Judges the sources of `model`, if it has any.
pub(crate) fn judge(model: &Model, facts: &SourceFacts) -> Vec<Finding> {
    let balancer = model.balancer();
    let (sources, range) = (balancer.nat_sources(), balancer.nat_source_ports());
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !facts.own.contains(source)) {
        findings.push(Finding::warning(
            SUBJECT,
            format!("{source} is no address of this host: nobody answers ARP or ND for it"),
            "an address of this host on a link to the backends, or one that is routed here",
            format!(
                "ip address add {source} to an interface towards the backends, unless they route \
                 to it through an address of this host"
            ),
        ));
    }
    let is_own = sources.iter().any(|source| facts.own.contains(source));
    if is_own && let (Some(port), Some(given)) = (facts.given_of(&range), &facts.given) {
        let (first, last) = (range.start(), range.end());
        findings.push(Finding::refusal(
            SUBJECT,
            format!(
                "nat-source-ports {first}-{last} has ports that this host gives to its own \
                 connections, such as {port} (net.ipv4.ip_local_port_range is {}-{})",
                given.start(),
                given.end(),
            ),
            "ports that the kernel gives to nobody else",
            format!(
                "set nat-source-ports outside that range, or sysctl -w \
                 net.ipv4.ip_local_reserved_ports={first}-{last}"
            ),
        ));
    }
    if findings.is_empty() && !sources.is_empty() {
        let (count, ports) = (sources.len(), range.len());
        findings.push(Finding::good(
            SUBJECT,
            format!("{count} addresses with {ports} ports each"),
        ));
    }
    findings
}

/// The sources of a running balancer. A worker must have taken up one set before the next is made.
#[derive(Debug)]
pub(crate) struct Sources {
    ports: Arc<SourcePorts>,
}

impl Sources {
    /// Those of `model`, and a seat for each worker.
    ///
    /// # Errors
    ///
    /// The range is too small for so many workers.
    pub(crate) fn new(
        model: &Model,
        workers: u16,
        secret: Secret,
    ) -> Result<(Self, Vec<Seat>), PortsError> {
        let balancer = model.balancer();
        let layout = Layout::new(balancer.nat_source_ports(), workers.into(), GROUPS)?;
        let sources = balancer.nat_sources();
        let (ports, seats) = SourcePorts::new(layout, sources, Rests::default(), secret)?;
        let ports = Arc::new(ports);
        Ok((Self { ports }, seats))
    }

    /// For snapshots.
    pub(crate) fn ports(&self) -> Arc<SourcePorts> {
        Arc::clone(&self.ports)
    }

    /// Whether `model` has others, or some that were removed are still remembered.
    pub(crate) fn differ(&self, model: &Model) -> bool {
        let wanted = model.balancer().nat_sources();
        let known: Vec<IpAddr> = self.ports.addresses().collect();
        known.len() != wanted.len() || wanted.iter().any(|source| !known.contains(source))
    }

    /// Takes those of `model`.
    ///
    /// # Errors
    ///
    /// There are too many, those included that still have flows; nothing has changed.
    pub(crate) fn follow(&mut self, model: &Model, now: Seconds) -> Result<(), PortsError> {
        let wanted = model.balancer().nat_sources();
        self.ports = Arc::new(self.ports.changed(wanted, Rests::default(), now)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Level;

    fn model(sources: &str, ports: &str) -> Model {
        let text = format!(
            "[balancer]\nnat-sources = [{sources}]\nnat-source-ports = \"{ports}\"\n\
             [[interface]]\nname = \"eth0\"\n"
        );
        ringgate_config::parse("test.toml", &text).unwrap().model
    }

    fn facts(reserved_ports: &str) -> SourceFacts {
        SourceFacts {
            own: vec!["10.2.0.1".parse().unwrap()],
            given: pair("32768\t60999".split_whitespace()),
            reserved: reserved(reserved_ports),
        }
    }

    fn judged(sources: &str, ports: &str, reserved: &str) -> Vec<(Level, String)> {
        let findings = judge(&model(sources, ports), &facts(reserved));
        let told = findings.iter().map(|one| (one.level, one.to_string()));
        told.collect()
    }

    #[test]
    fn the_kernels_own_ports_are_refused_unless_they_are_reserved() {
        assert!(judged("", "1024-40000", "\n").is_empty());
        for ports in ["1024-32767", "61000-65535"] {
            assert_eq!(judged("\"10.2.0.1\"", ports, "")[0].0, Level::Good);
        }
        for (ports, reserved, example) in [
            ("1024-32768", "", "32768"),
            ("60999-65000", "", "60999"),
            ("32300-32820", "32768-32770,32772", "32771"),
        ] {
            let refused = &judged("\"10.2.0.1\"", ports, reserved)[..];
            let [(Level::Refusal, text)] = refused else {
                panic!("{refused:?}");
            };
            for part in [
                &format!("such as {example} "),
                "32768-60999",
                "ip_local_reserved_ports=",
            ] {
                assert!(text.contains(part), "{text}");
            }
        }
        let reserved = "8080,32768-40000\n";
        assert_eq!(
            judged("\"10.2.0.1\"", "20000-40000", reserved)[0].0,
            Level::Good
        );
    }

    #[test]
    fn an_address_that_the_host_has_not_is_warned_of_and_needs_no_ports_of_it() {
        let warned = judged("\"10.2.0.9\"", "1024-40000", "");
        assert_eq!(warned.len(), 1);
        assert!(warned[0].1.contains("10.2.0.9 is no address of this host"));
        assert_eq!(warned[0].0, Level::Warning);
    }

    #[test]
    fn sources_follow_a_reload_and_forget_what_is_over() {
        let one = model("\"10.2.0.1\"", "1024-2000");
        let two = model("\"10.2.0.1\", \"fd00:2::1\"", "1024-2000");
        let (mut sources, seats) = Sources::new(&one, 2, Secret([1, 2])).unwrap();
        assert_eq!(seats.len(), 2);
        assert!(!sources.differ(&one) && sources.differ(&two));
        sources.follow(&two, Seconds(5)).unwrap();
        assert!(!sources.differ(&two) && sources.differ(&one));
        sources.follow(&one, Seconds(5)).unwrap();
        assert!(sources.differ(&one), "one is remembered");
        sources.follow(&one, Seconds(5)).unwrap();
        assert!(!sources.differ(&one));
        let few = model("\"10.2.0.1\"", "1024-1535");
        assert!(Sources::new(&few, 257, Secret([1, 2])).is_err());
    }
}
