//! What must be true of the host before an interface is touched.
//!
//! `run` and `doctor` share this list: `doctor` prints all of it, `run` stops at what refuses.
//! Each finding says what was looked at, what was found and, if that will not do, what to do.
//! The rules are pure functions of [`Facts`]; gathering the facts is apart from judging them.

use std::fmt;
use std::path::Path;

use ringgate_config::{FlowMemory, Mode, Model};
use ringgate_conntrack::{FlowTable, LINE_BYTES};
use ringgate_dataplane::xsk::MAX_QUEUES;
use rustix::thread::CapabilitySet;

use crate::control::netlink::state::Network;
use crate::offload::takes_vlan_tags;
use crate::sources::{self, SourceFacts};

/// Oldest kernel with everything that is relied on: XDP links (5.9) and io_uring's
/// `EXT_ARG` waits (5.11); AF_XDP with need_wakeup is older (5.4).
const OLDEST_KERNEL: (u32, u32) = (5, 11);

/// Room in a UMEM chunk for a packet: 2048 bytes less the 256 that XDP keeps in front
/// (`XDP_PACKET_HEADROOM`), less an Ethernet header with two VLAN tags.
const LARGEST_MTU: u32 = 2048 - 256 - 22;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// Works, but the operator should know.
    Warning,
    /// Ringgate cannot run like this.
    Refusal,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) level: Level,
    /// What was looked at.
    pub(crate) subject: String,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it; empty when it is good.
    pub(crate) cure: String,
}

impl Finding {
    pub(crate) fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        let (subject, found) = (subject.into(), found.into());
        Self {
            level: Level::Good,
            subject,
            found,
            cure: String::new(),
        }
    }

    pub(crate) fn warning(
        subject: impl Into<String>,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        let (subject, found, cure) = (subject.into(), found.into(), cure.into());
        Self {
            level: Level::Warning,
            subject,
            found,
            cure,
        }
    }

    pub(crate) fn refusal(
        subject: impl Into<String>,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Refusal,
            ..Self::warning(subject, found, cure)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.level {
            Level::Good => "ok  ",
            Level::Warning => "warn",
            Level::Refusal => "FAIL",
        };
        write!(f, "{mark}  {:<22} {}", self.subject, self.found)?;
        if !self.cure.is_empty() {
            write!(f, "\n      {:<22} -> {}", "", self.cure)?;
        }
        Ok(())
    }
}

/// What is known of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InterfaceFacts {
    /// Its name.
    pub(crate) name: String,
    /// Its kind as rtnetlink names it ("veth", "tun"); empty for a plain device.
    pub(crate) kind: String,
    /// Up with carrier.
    pub(crate) up: bool,
    /// MTU, bytes.
    pub(crate) mtu: u32,
    /// Receive queues in use.
    pub(crate) rx_queues: u16,
    /// Transmit queues in use.
    pub(crate) tx_queues: u16,
    /// VLAN devices on it, by name.
    pub(crate) vlan_devices: Vec<String>,
    /// It takes VLAN tags off the frames that it receives.
    pub(crate) takes_vlan_tags: bool,
}

impl InterfaceFacts {
    /// Whether frames may come from a stack on this machine, which leaves checksums to a device
    /// that is not there.
    pub(crate) fn is_local_stack(&self) -> bool {
        matches!(self.kind.as_str(), "veth" | "tun")
    }
}

/// What is known of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Kernel release, as `uname -r` prints it.
    pub(crate) kernel: String,
    /// Names of the capabilities that are missing.
    pub(crate) missing_capabilities: Vec<&'static str>,
    /// Whether BPF maps are made as large as was asked for: CAP_PERFMON is there.
    pub(crate) exact_maps: bool,
    /// Whether an AF_XDP socket could be made; else why not.
    pub(crate) af_xdp: Result<(), String>,
    /// Whether io_uring works; else why not.
    pub(crate) io_uring: Result<String, String>,
    /// CPUs that this process may run on.
    pub(crate) cores: Vec<usize>,
    /// The configured interfaces, in order; `None` where there is no such interface.
    pub(crate) interfaces: Vec<Option<InterfaceFacts>>,
    /// What concerns the sources of `full-nat`.
    pub(crate) sources: SourceFacts,
}

impl Facts {
    /// Looks at the host and, with a model, at its interfaces.
    pub(crate) fn gather(model: Option<&Model>, network: &Network) -> Self {
        let names = model.into_iter().flat_map(|model| model.interfaces());
        Self {
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            missing_capabilities: missing_capabilities(),
            exact_maps: capabilities_held().contains(CapabilitySet::PERFMON),
            af_xdp: probe_af_xdp(),
            io_uring: probe_io_uring(),
            cores: ringgate_dataplane::pin::allowed_cores(),
            interfaces: names.map(|i| interface_facts(i.name(), network)).collect(),
            sources: SourceFacts::gather(network),
        }
    }
}

/// The number of workers that `model` gets on this host: as asked for, else one per queue.
pub(crate) fn workers(model: &Model, facts: &Facts) -> u16 {
    let queues = facts
        .interfaces
        .iter()
        .flatten()
        .map(|facts| facts.rx_queues)
        .max();
    model
        .balancer()
        .workers()
        .map_or_else(|| queues.unwrap_or(1), std::num::NonZero::get)
}

/// Judges the facts.
pub(crate) fn judge(model: Option<&Model>, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        kernel(&facts.kernel),
        capabilities(facts),
        af_xdp(facts),
        io_uring(facts),
    ];
    if let Some(model) = model {
        for (interface, found) in model.interfaces().iter().zip(&facts.interfaces) {
            findings.extend(interface_findings(interface, found.as_ref()));
        }
        findings.extend(queue_findings(model, facts));
        findings.push(cores(model, facts));
        findings.push(flow_memory(model, facts));
        findings.extend(sources::judge(model, &facts.sources));
    }
    findings
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if version < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        return Finding::refusal(
            "kernel",
            release,
            format!("run Linux {major}.{minor} or newer"),
        );
    }
    Finding::good("kernel", release)
}

fn capabilities(facts: &Facts) -> Finding {
    if facts.missing_capabilities.is_empty() {
        return Finding::good("privileges", "all that start-up needs");
    }
    let missing = facts.missing_capabilities.join(", ");
    Finding::refusal(
        "privileges",
        format!("missing {missing}"),
        "run as root, or grant them (systemd AmbientCapabilities=, setcap)",
    )
}

fn af_xdp(facts: &Facts) -> Finding {
    match &facts.af_xdp {
        Ok(()) => Finding::good("AF_XDP", "sockets can be made"),
        Err(error) => Finding::refusal(
            "AF_XDP",
            error,
            "needs a kernel with CONFIG_XDP_SOCKETS=y and CAP_NET_RAW",
        ),
    }
}

fn io_uring(facts: &Facts) -> Finding {
    match &facts.io_uring {
        Ok(how) => Finding::good("io_uring", how),
        Err(error) => Finding::warning(
            "io_uring",
            error,
            "the control thread uses epoll instead; packets are not affected",
        ),
    }
}

fn interface_findings(
    interface: &ringgate_config::Interface,
    facts: Option<&InterfaceFacts>,
) -> Vec<Finding> {
    let subject = format!("interface {}", interface.name());
    let Some(facts) = facts else {
        let cure = "correct its name in the configuration; `ip link` lists the interfaces";
        return vec![Finding::refusal(subject, "does not exist", cure)];
    };
    let mut findings = Vec::new();
    if !facts.up {
        let cure = format!(
            "ip link set dev {} up, and check the cable or the far end",
            facts.name
        );
        findings.push(Finding::warning(&subject, "is down", cure));
    }
    if facts.mtu > LARGEST_MTU {
        findings.push(Finding::refusal(
            &subject,
            format!(
                "MTU {} is larger than a frame can hold, {LARGEST_MTU}",
                facts.mtu
            ),
            format!(
                "ip link set dev {} mtu {}",
                facts.name,
                LARGEST_MTU.min(1500)
            ),
        ));
    }
    if interface.mode() == Mode::Generic && facts.kind == "veth" {
        findings.push(Finding::warning(
            &subject,
            "generic XDP on a veth drops super-packets",
            "on the peer: ethtool -K PEER tso off gso off tx-udp-segmentation off",
        ));
    }
    findings.extend(vlan_finding(&subject, facts));
    if findings.is_empty() {
        let kind = if facts.kind.is_empty() {
            "device"
        } else {
            &facts.kind
        };
        let found = format!("{kind}, up, MTU {}, {} queues", facts.mtu, facts.rx_queues);
        findings.push(Finding::good(subject, found));
    }
    findings
}

/// Tags that were taken off in front of XDP are seen by nobody here: frames of all VLANs look untagged.
fn vlan_finding(subject: &str, facts: &InterfaceFacts) -> Option<Finding> {
    if facts.vlan_devices.is_empty() {
        return None;
    }
    let devices = facts.vlan_devices.join(", ");
    // A veth hands over what its peer sends; its own offload changes nothing about it.
    if facts.kind == "veth" {
        return Some(Finding::warning(
            subject,
            format!(
                "has VLAN devices ({devices}), and the peer of a veth keeps tags beside the frame"
            ),
            "on the peer: ethtool -K PEER txvlan off tx-vlan-stag-hw-insert off",
        ));
    }
    facts.takes_vlan_tags.then(|| {
        Finding::warning(
            subject,
            format!("has VLAN devices ({devices}), and takes tags off before XDP sees them"),
            format!("ethtool -K {} rxvlan off", facts.name),
        )
    })
}

/// A worker has one queue index on every interface: a queue without a worker would bypass the
/// balancer, and a worker without a queue could not send.
fn queue_findings(model: &Model, facts: &Facts) -> Vec<Finding> {
    let workers = workers(model, facts);
    let mut findings = Vec::new();
    if u32::from(workers) > MAX_QUEUES {
        findings.push(Finding::refusal(
            "workers",
            format!("{workers} workers, and the steering program knows {MAX_QUEUES} queues"),
            format!("set [balancer] workers = {MAX_QUEUES} and ethtool -L to match"),
        ));
    }
    for interface in facts.interfaces.iter().flatten() {
        for (what, queues) in [
            ("receive", interface.rx_queues),
            ("transmit", interface.tx_queues),
        ] {
            // More transmit queues than workers are harmless: they stay unused.
            if queues < workers || (what == "receive" && queues > workers) {
                findings.push(Finding::refusal(
                    format!("queues of {}", interface.name),
                    format!("{queues} {what} queues for {workers} workers"),
                    format!(
                        "every interface needs one queue for each worker: ethtool -L {} combined \
                         {workers} (on a veth: rx {workers} tx {workers}), or set [balancer] \
                         workers = {queues}",
                        interface.name
                    ),
                ));
            }
        }
    }
    findings
}

fn cores(model: &Model, facts: &Facts) -> Finding {
    let workers = usize::from(workers(model, facts));
    let allowed = &facts.cores;
    let wanted = model.balancer().cores().into_iter().flatten();
    let refused: Vec<String> = wanted
        .filter(|core| !allowed.contains(core))
        .map(ToString::to_string)
        .collect();
    if !refused.is_empty() {
        return Finding::refusal(
            "cores",
            format!("CPU {} cannot be used", refused.join(", ")),
            format!("choose [balancer] cores from {allowed:?}"),
        );
    }
    if workers > allowed.len() {
        return Finding::warning(
            "cores",
            format!("{workers} workers share {} CPUs", allowed.len()),
            "use fewer queues, or allow the process more CPUs",
        );
    }
    Finding::good(
        "cores",
        format!("{workers} workers, {} CPUs", allowed.len()),
    )
}

/// Without CAP_PERFMON the kernel rounds an array map up to a power of two, so that a CPU that
/// speculates past its end stays within it (`array_map_alloc`, kernel/bpf/arraymap.c).
fn flow_memory(model: &Model, facts: &Facts) -> Finding {
    let mebibytes = |lines: usize| (lines * LINE_BYTES).div_ceil(1 << 20);
    let lines = FlowTable::lines(model.balancer().flows());
    let takes = mebibytes(lines);
    if model.balancer().flow_memory() == FlowMemory::Map && !facts.exact_maps {
        return Finding::warning(
            "flow table",
            format!(
                "its BPF map takes {} MiB in place of {takes}, since CAP_PERFMON is missing",
                mebibytes(lines.next_power_of_two())
            ),
            "grant CAP_PERFMON, or set flow-memory = \"private\" in [balancer]",
        );
    }
    Finding::good("flow table", format!("{takes} MiB"))
}

fn missing_capabilities() -> Vec<&'static str> {
    let needed = [
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW),
        ("CAP_BPF", CapabilitySet::BPF),
        ("CAP_IPC_LOCK", CapabilitySet::IPC_LOCK),
    ];
    let held = capabilities_held();
    needed
        .into_iter()
        .filter(|(_, bit)| !held.contains(*bit))
        .map(|(name, _)| name)
        .collect()
}

fn capabilities_held() -> CapabilitySet {
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    held.unwrap_or(CapabilitySet::empty())
}

fn probe_af_xdp() -> Result<(), String> {
    use rustix::net::{AddressFamily, SocketType, socket};
    socket(AddressFamily::XDP, SocketType::RAW, None)
        .map(drop)
        .map_err(|error| format!("socket(AF_XDP): {error}"))
}

fn probe_io_uring() -> Result<String, String> {
    crate::control::ring::Ring::<()>::open(8)
        .map(|ring| ring.setup().to_string())
        .map_err(|error| error.to_string())
}

fn interface_facts(name: &str, network: &Network) -> Option<InterfaceFacts> {
    let link = network.link(name)?;
    let vlans = network
        .links()
        .filter(|other| other.vlan.is_some_and(|vlan| vlan.parent == link.index));
    Some(InterfaceFacts {
        name: name.to_owned(),
        kind: link.kind.clone().unwrap_or_default(),
        up: link.up && link.carrier,
        mtu: link.mtu,
        rx_queues: queues(name, "rx-"),
        tx_queues: queues(name, "tx-"),
        vlan_devices: vlans.map(|vlan| vlan.name.clone()).collect(),
        // A device that cannot be asked has nothing to take tags off with.
        takes_vlan_tags: takes_vlan_tags(name).unwrap_or(false),
    })
}

/// Queues in use: sysfs has a directory for each, where netlink only tells how many could be.
fn queues(name: &str, prefix: &str) -> u16 {
    let entries = std::fs::read_dir(Path::new("/sys/class/net").join(name).join("queues"));
    let is_queue =
        |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    let count = entries.map_or(0, |entries| entries.flatten().filter(is_queue).count());
    u16::try_from(count).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[[interface]]\nname = \"front\"\n[[interface]]\nname = \"back\"\n";

    fn model(text: &str) -> Model {
        ringgate_config::parse("test.toml", text).unwrap().model
    }

    fn interface(name: &str, queues: u16) -> Option<InterfaceFacts> {
        Some(InterfaceFacts {
            name: name.to_owned(),
            kind: "veth".to_owned(),
            up: true,
            mtu: 1500,
            rx_queues: queues,
            tx_queues: queues,
            vlan_devices: Vec::new(),
            takes_vlan_tags: true,
        })
    }

    fn facts() -> Facts {
        Facts {
            kernel: "6.18.44".to_owned(),
            missing_capabilities: Vec::new(),
            exact_maps: true,
            af_xdp: Ok(()),
            io_uring: Ok("works".to_owned()),
            cores: vec![0, 1],
            interfaces: vec![interface("front", 2), interface("back", 2)],
            sources: SourceFacts::default(),
        }
    }

    /// The findings that are not good, each with its cure.
    fn troubles(text: &str, facts: &Facts) -> Vec<(Level, String)> {
        let findings = judge(Some(&model(text)), facts);
        for finding in &findings {
            assert_eq!(
                finding.level == Level::Good,
                finding.cure.is_empty(),
                "{finding}"
            );
        }
        let bad = findings
            .into_iter()
            .filter(|finding| finding.level != Level::Good);
        bad.map(|finding| (finding.level, finding.subject))
            .collect()
    }

    #[test]
    fn a_fit_host_has_no_troubles_and_a_worker_for_each_queue() {
        assert_eq!(troubles(FILE, &facts()), []);
        assert_eq!(workers(&model(FILE), &facts()), 2);
    }

    #[test]
    fn each_trouble_is_found_by_its_name() {
        type Change = fn(&mut Facts);
        let cases: [(&str, Level, Change); 13] = [
            ("kernel", Level::Refusal, |f| {
                f.kernel = "5.10.0-33-amd64".to_owned()
            }),
            ("kernel", Level::Refusal, |f| {
                f.kernel = "mystery".to_owned()
            }),
            ("privileges", Level::Refusal, |f| {
                f.missing_capabilities = vec!["CAP_BPF"]
            }),
            ("flow table", Level::Warning, |f| f.exact_maps = false),
            ("AF_XDP", Level::Refusal, |f| {
                f.af_xdp = Err("no".to_owned())
            }),
            ("io_uring", Level::Warning, |f| {
                f.io_uring = Err("EPERM".to_owned())
            }),
            ("interface back", Level::Refusal, |f| f.interfaces[1] = None),
            ("interface back", Level::Warning, |f| {
                f.interfaces[1].iter_mut().for_each(|i| i.up = false);
            }),
            ("interface front", Level::Refusal, |f| {
                f.interfaces[0].iter_mut().for_each(|i| i.mtu = 9000);
            }),
            ("queues of back", Level::Refusal, |f| {
                f.interfaces[1] = interface("back", 1)
            }),
            ("queues of front", Level::Refusal, |f| {
                f.interfaces[1] = interface("back", 4)
            }),
            ("queues of back", Level::Refusal, |f| {
                f.interfaces[1].iter_mut().for_each(|i| i.tx_queues = 1);
            }),
            ("cores", Level::Warning, |f| f.cores = vec![0]),
        ];
        for (subject, level, change) in cases {
            let mut facts = facts();
            change(&mut facts);
            let found = troubles(FILE, &facts);
            assert!(
                found.contains(&(level, subject.to_owned())),
                "{subject}: {found:?}"
            );
        }
    }

    #[test]
    fn what_the_file_asks_for_is_judged_too() {
        let with = |line: &str| format!("[balancer]\n{line}\n{FILE}");
        let refusal = |subject: &str| (Level::Refusal, subject.to_owned());
        assert!(troubles(&with("cores = [0, 5]"), &facts()).contains(&refusal("cores")));
        assert!(troubles(&with("workers = 1"), &facts()).contains(&refusal("queues of front")));
        assert!(troubles(&with("workers = 65"), &facts()).contains(&refusal("workers")));
        let generic = FILE.replacen(
            "name = \"front\"",
            "name = \"front\"\nmode = \"generic\"",
            1,
        );
        let warning = (Level::Warning, "interface front".to_owned());
        assert!(troubles(&generic, &facts()).contains(&warning));
    }

    #[test]
    fn tags_that_xdp_does_not_see_are_warned_of_where_there_are_vlans() {
        let warning = (Level::Warning, "interface front".to_owned());
        let with = |kind: &str, takes_vlan_tags, vlan: &str| {
            let mut facts = facts();
            facts.interfaces[0].iter_mut().for_each(|interface| {
                kind.clone_into(&mut interface.kind);
                interface.takes_vlan_tags = takes_vlan_tags;
                interface.vlan_devices = vlan.split_whitespace().map(str::to_owned).collect();
            });
            troubles(FILE, &facts)
        };
        assert_eq!(with("", true, "front.100"), std::slice::from_ref(&warning));
        assert_eq!(with("", false, "front.100"), []);
        assert_eq!(with("", true, ""), []);
        assert_eq!(
            with("veth", false, "front.100"),
            [warning],
            "the peer's doing"
        );
    }
}
