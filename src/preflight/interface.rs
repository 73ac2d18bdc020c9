//! What an interface must be like, and what hides traffic from the program on it.

use ringgate_config::{Interface, Mode, Model};
use ringgate_dataplane::xsk::MAX_QUEUES;

use super::facts::{Facts, InterfaceFacts};
use super::finding::Finding;
use super::workers;

/// Room in a UMEM chunk for a packet: 2048 bytes less the 256 that XDP keeps in front
/// (`XDP_PACKET_HEADROOM`), less an Ethernet header with two VLAN tags.
const LARGEST_MTU: u32 = 2048 - 256 - 22;

/// Everything about one interface. `by_vlan`: services ask for tags.
pub(super) fn findings(
    interface: &Interface,
    facts: Option<&InterfaceFacts>,
    by_vlan: bool,
) -> Vec<Finding> {
    let subject = format!("interface {}", interface.name());
    let Some(facts) = facts else {
        let expected = "an interface of this host";
        let cure = "correct its name in the configuration; `ip link` lists the interfaces";
        return vec![Finding::refusal(subject, "does not exist", expected, cure)];
    };
    let mut findings = Vec::new();
    if !facts.up {
        let cure = format!(
            "ip link set dev {} up, and check the cable or the far end",
            facts.name
        );
        let expected = "up, with carrier";
        findings.push(Finding::warning(&subject, "is down", expected, cure));
    }
    if facts.mtu > LARGEST_MTU {
        findings.push(Finding::refusal(
            &subject,
            format!("MTU {}", facts.mtu),
            format!("at most {LARGEST_MTU}, which a frame can hold"),
            format!(
                "ip link set dev {} mtu {}",
                facts.name,
                LARGEST_MTU.min(1500)
            ),
        ));
    }
    findings.extend(vlan_finding(&subject, facts, by_vlan));
    findings.extend(merging(&subject, interface.mode(), facts));
    findings.extend(steering(&subject, facts));
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

/// Somebody else's program is in the way. Not a refusal: what an earlier run left is gone in a moment,
/// and attaching says it again.
pub(super) fn program(facts: &InterfaceFacts) -> Option<Finding> {
    let name = &facts.name;
    facts.has_program.then(|| {
        Finding::warning(
            format!("interface {name}"),
            "has an XDP program already",
            "none: the steering program is attached here, and there is one place only",
            format!(
                "`ip link show dev {name}` and `bpftool net` tell whose it is; stop that, or ip link \
                 set dev {name} xdp off"
            ),
        )
    })
}

/// Packets that were merged before the program sees them do not fit a frame, and are lost.
fn merging(subject: &str, mode: Mode, facts: &InterfaceFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = &facts.name;
    if mode == Mode::Generic && facts.kind == "veth" {
        findings.push(Finding::warning(
            subject,
            "generic XDP on a veth gets super-packets, and drops them",
            "a peer that sends no more than its MTU",
            "on the peer: ethtool -K PEER tso off gso off tx-udp-segmentation off",
        ));
    } else if mode == Mode::Generic && facts.offloads.gro {
        findings.push(Finding::warning(
            subject,
            "GRO merges packets before generic XDP sees them, and what is larger than a frame is dropped",
            "generic-receive-offload: off",
            format!("ethtool -K {name} gro off"),
        ));
    }
    if facts.offloads.lro {
        findings.push(Finding::warning(
            subject,
            "LRO merges packets in the device, which XDP cannot take: drivers refuse it, or turn LRO off",
            "large-receive-offload: off",
            format!("ethtool -K {name} lro off"),
        ));
    }
    findings
}

/// Rules in the device decide about packets before anything here does.
fn steering(subject: &str, facts: &InterfaceFacts) -> Option<Finding> {
    let (rules, name) = (facts.offloads.rules, &facts.name);
    (rules > 0).then(|| {
        Finding::warning(
            subject,
            format!("{rules} rules in the device choose queues, or drop"),
            "none that concerns a service or its backends",
            format!("`ethtool -n {name}` lists them; ethtool -N {name} delete NUMBER"),
        )
    })
}

/// Tags that were taken off in front of XDP are seen by nobody here: frames of all VLANs look untagged.
fn vlan_finding(subject: &str, facts: &InterfaceFacts, by_vlan: bool) -> Option<Finding> {
    if facts.vlan_devices.is_empty() && !by_vlan {
        return None;
    }
    let what = if facts.vlan_devices.is_empty() {
        "services ask for VLAN tags".to_owned()
    } else {
        format!("has VLAN devices ({})", facts.vlan_devices.join(", "))
    };
    // A veth hands over what its peer sends; its own offload changes nothing about it.
    if facts.kind == "veth" {
        return Some(Finding::warning(
            subject,
            format!("{what}, and the peer of a veth keeps tags beside the frame"),
            "tags within the frame, where XDP sees them",
            "on the peer: ethtool -K PEER txvlan off tx-vlan-stag-hw-insert off",
        ));
    }
    facts.offloads.takes_vlan_tags.then(|| {
        Finding::warning(
            subject,
            format!("{what}, and the device takes tags off before XDP sees them"),
            "rx-vlan-offload: off",
            format!("ethtool -K {} rxvlan off", facts.name),
        )
    })
}

/// A worker has one queue index on every interface: a queue without a worker would bypass the
/// balancer, and a worker without a queue could not send.
pub(super) fn queues(model: &Model, facts: &Facts) -> Vec<Finding> {
    let workers = workers(model, facts);
    let mut findings = Vec::new();
    if u32::from(workers) > MAX_QUEUES {
        findings.push(Finding::refusal(
            "workers",
            format!("{workers} workers"),
            format!("at most {MAX_QUEUES}, the queues that the steering program knows"),
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
                    "one queue for each worker, on every interface",
                    format!(
                        "ethtool -L {} combined {workers} (on a veth: rx {workers} tx {workers}), \
                         or set [balancer] workers = {queues}",
                        interface.name
                    ),
                ));
            }
        }
    }
    findings
}

/// The reverse path filter drops in the kernel, where packets of services do not come.
pub(super) fn reverse_path(facts: &Facts) -> Option<Finding> {
    let interfaces = facts.interfaces.iter().flatten();
    let strict = interfaces.filter(|interface| interface.rp_filter == 1);
    let names: Vec<&str> = strict.map(|interface| interface.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        Finding::good(
            "rp_filter",
            format!(
                "strict on {}; it does not matter for services. It does for answers to health checks \
                 that come in by another interface than the route to the backend leads out by",
                names.join(", ")
            ),
        )
    })
}
