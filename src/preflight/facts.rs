//! What is known of the host: gathered here, judged elsewhere.

use std::path::Path;

use ringgate_config::Model;
use rustix::thread::CapabilitySet;

use crate::control::netlink::state::Network;
use crate::control::truepath;
use crate::descriptors::Limits;
use crate::offload::{Offloads, offloads};
use crate::privileges;
use crate::sources::SourceFacts;

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
    /// What it does to frames before XDP sees them.
    pub(crate) offloads: Offloads,
    /// An XDP program is attached to it.
    pub(crate) has_program: bool,
    /// The kernel's reverse path filter for it: 0 none, 1 strict, 2 loose.
    pub(crate) rp_filter: u8,
}

impl InterfaceFacts {
    /// Whether frames may come from a stack on this machine, which leaves checksums to a device
    /// that is not there.
    pub(crate) fn is_local_stack(&self) -> bool {
        matches!(self.kind.as_str(), "veth" | "tun")
    }

    fn gather(name: &str, network: &Network) -> Option<Self> {
        let link = network.link(name)?;
        let vlans = network
            .links()
            .filter(|other| other.vlan.is_some_and(|vlan| vlan.parent == link.index));
        // The larger of the two counts (net/ipv4/fib_frontend.c, IN_DEV_RPFILTER).
        let filter = |whose: &str| sysctl(&format!("net/ipv4/conf/{whose}/rp_filter"));
        Some(Self {
            name: name.to_owned(),
            kind: link.kind.clone().unwrap_or_default(),
            up: link.up && link.carrier,
            mtu: link.mtu,
            rx_queues: queues(name, "rx-"),
            tx_queues: queues(name, "tx-"),
            vlan_devices: vlans.map(|vlan| vlan.name.clone()).collect(),
            offloads: offloads(name),
            has_program: link.has_program,
            rp_filter: filter("all").max(filter(name)),
        })
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
    /// How many files may be open.
    pub(crate) descriptors: Limits,
    /// The kernel forwards packets itself, in IPv4 or IPv6.
    pub(crate) forwards: bool,
    /// Whether a TUN device can be made, as far as opening its factory tells; else why not.
    pub(crate) tun: Result<(), String>,
    /// Whether the configured user and group can be become; else why not.
    pub(crate) account: Result<(), String>,
}

impl Facts {
    /// Looks at the host and, with a model, at its interfaces.
    pub(crate) fn gather(model: Option<&Model>, network: &Network) -> Self {
        let names = model.into_iter().flat_map(|model| model.interfaces());
        let forwarding = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
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
            interfaces: names
                .map(|interface| InterfaceFacts::gather(interface.name(), network))
                .collect(),
            sources: SourceFacts::gather(network),
            descriptors: Limits::gather(),
            forwards: forwarding.iter().any(|name| sysctl(name) > 0),
            tun: truepath::can_open().map_err(|error| error.to_string()),
            account: model.map_or(Ok(()), |model| {
                let plan = privileges::Plan::new(model.process());
                plan.map(drop).map_err(|error| error.to_string())
            }),
        }
    }
}

/// A small number among the kernel's settings; 0 where there is none.
fn sysctl(name: &str) -> u8 {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(name));
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

fn missing_capabilities() -> Vec<&'static str> {
    let needed = [
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW),
        ("CAP_BPF", CapabilitySet::BPF),
        // For loading the steering program.
        ("CAP_PERFMON", CapabilitySet::PERFMON),
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

/// Queues in use: sysfs has a directory for each, where netlink only tells how many could be.
fn queues(name: &str, prefix: &str) -> u16 {
    let entries = std::fs::read_dir(Path::new("/sys/class/net").join(name).join("queues"));
    let is_queue =
        |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    let count = entries.map_or(0, |entries| entries.flatten().filter(is_queue).count());
    u16::try_from(count).unwrap_or(u16::MAX).max(1)
}
