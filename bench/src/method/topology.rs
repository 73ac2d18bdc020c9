//! Where it is measured: three network namespaces and two veth pairs, built and taken down here.
//!
//! ```text
//! rgbench-src                rgbench-lb                 rgbench-sink
//! c0 02:…:01:02 ─── front 02:…:01:01, 10.1.0.1/16
//!                   back  02:…:02:01, 10.2.0.1/24 ─── s0 02:…:02:98
//! ```
//!
//! Source and sink have no addresses: their kernels answer nothing, what speaks there is the
//! generator. All clients are behind one neighbour, 10.1.0.2. IPv6 is off, so that nothing but
//! what is measured is on the links.
//!
//! The backends' hardware address is not that of `s0`. The sink's kernel, whose work is paid by
//! who forwards, then takes each frame for somebody else's (`PACKET_OTHERHOST`, net/ipv4/ip_input.c,
//! `ip_rcv_core`) and drops it at once. To its own address it would look for a route first, find
//! none and make an entry for that, for each packet: a third of a bare forwarder's time, and nothing
//! that a backend does. AF_XDP and XDP programs of the generator at `s0` do not care.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::method::child::{Stop, run};

/// Hardware addresses of `c0`, `front`, `back` and of all backends.
pub(crate) const NEAR: &str = "02:00:00:00:01:02";
pub(crate) const FRONT: &str = "02:00:00:00:01:01";
pub(crate) const BACK: &str = "02:00:00:00:02:01";
pub(crate) const SINK: &str = "02:00:00:00:02:99";

/// Hardware address of `s0`: not that of the backends, see above.
const DOOR: &str = "02:00:00:00:02:98";

/// The namespaces.
pub(crate) const SOURCE_NODE: &str = "rgbench-src";
pub(crate) const NODE: &str = "rgbench-lb";
pub(crate) const SINK_NODE: &str = "rgbench-sink";

/// First client.
pub(crate) const FIRST_CLIENT: &str = "10.1.0.2";

/// How many backends there may be: 10.2.0.11 and up.
pub(crate) const BACKENDS: usize = 8;

/// Addresses that full NAT takes as source: 31,744 ports each, of which 100,000 flows to one
/// backend take their own.
pub(crate) const NAT_SOURCES: [&str; 8] = [
    "10.2.0.200",
    "10.2.0.201",
    "10.2.0.202",
    "10.2.0.203",
    "10.2.0.204",
    "10.2.0.205",
    "10.2.0.206",
    "10.2.0.207",
];

/// Held by a run while it lasts; the kernel lets go of it with the process.
const LOCK: &str = "/run/rgbench.lock";

/// More than any of these commands takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Address of a backend, from 0 on.
pub(crate) fn backend(number: usize) -> String {
    format!("10.2.0.{}", 11 + number)
}

/// The topology. It is taken down when this is dropped.
#[derive(Debug)]
pub(crate) struct Topology {
    stop: Stop,
    _lock: File,
}

impl Topology {
    /// Builds it.
    ///
    /// # Errors
    ///
    /// In words: another run has it, or is not quite over; no privileges.
    pub(crate) fn build(stop: &Stop) -> Result<Self, String> {
        let topology = Self {
            stop: stop.clone(),
            _lock: lock()?,
        };
        refuse_inhabited(stop)?;
        remove();
        topology.namespaces()?;
        topology.links()?;
        topology.addresses()?;
        Ok(topology)
    }

    fn namespaces(&self) -> Result<(), String> {
        for node in [SOURCE_NODE, NODE, SINK_NODE] {
            self.ip(&["netns", "add", node])?;
            self.sysctl(node, "net.ipv6.conf.all.disable_ipv6=1")?;
            self.sysctl(node, "net.ipv6.conf.default.disable_ipv6=1")?;
            self.sysctl(node, "net.ipv4.conf.all.rp_filter=0")?;
            self.sysctl(node, "net.ipv4.conf.default.rp_filter=0")?;
        }
        Ok(())
    }

    fn links(&self) -> Result<(), String> {
        let pairs = [
            (SOURCE_NODE, "c0", NEAR, "front", FRONT, NODE),
            (NODE, "back", BACK, "s0", DOOR, SINK_NODE),
        ];
        for (node, link, address, peer, its, other) in pairs {
            let line = format!(
                "-n {node} link add {link} address {address} type veth \
                 peer name {peer} address {its} netns {other}"
            );
            self.ip(&line.split(' ').collect::<Vec<_>>())?;
        }
        let ends = [
            (SOURCE_NODE, "c0"),
            (NODE, "front"),
            (NODE, "back"),
            (SINK_NODE, "s0"),
        ];
        for (node, link) in ends {
            self.ip(&["-n", node, "link", "set", link, "up"])?;
            // Without a queue a veth whose peer's ring is full drops and says nothing.
            let line = format!("-n {node} qdisc replace dev {link} root pfifo limit 1000");
            self.command("tc", &line.split(' ').collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn addresses(&self) -> Result<(), String> {
        let mut lines = vec![
            "addr add 10.1.0.1/16 dev front noprefixroute".to_owned(),
            format!("route add {FIRST_CLIENT}/32 dev front"),
            format!("route add 10.1.0.0/16 via {FIRST_CLIENT} dev front"),
            format!("neigh replace {FIRST_CLIENT} lladdr {NEAR} dev front nud permanent"),
            "addr add 10.2.0.1/24 dev back".to_owned(),
        ];
        let sources = NAT_SOURCES.iter();
        lines.extend(sources.map(|source| format!("addr add {source}/24 dev back")));
        lines.extend((0..BACKENDS).map(|number| {
            let address = backend(number);
            format!("neigh replace {address} lladdr {SINK} dev back nud permanent")
        }));
        for line in lines {
            let mut words = vec!["-n", NODE];
            words.extend(line.split(' '));
            self.ip(&words)?;
        }
        Ok(())
    }

    fn sysctl(&self, node: &str, setting: &str) -> Result<(), String> {
        self.ip(&["netns", "exec", node, "sysctl", "-qw", setting])
    }

    fn ip(&self, words: &[&str]) -> Result<(), String> {
        self.command("ip", words)
    }

    fn command(&self, program: &str, words: &[&str]) -> Result<(), String> {
        let ran = run(Command::new(program).args(words), LIMIT, &self.stop)?;
        let _said = ran.good(&format!("{program} {}", words.join(" ")))?;
        Ok(())
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        remove();
    }
}

/// A counter of the sink's link.
pub(crate) fn arrived(stop: &Stop) -> Result<u64, String> {
    let file = "/sys/class/net/s0/statistics/rx_packets";
    let mut command = inside(SINK_NODE, Path::new("cat"));
    let text = run(command.arg(file), LIMIT, stop)?.good("the sink's counter")?;
    text.trim()
        .parse()
        .map_err(|error| format!("{file}: {error}"))
}

/// A program in a namespace. It keeps the number of the process that is started.
pub(crate) fn inside(node: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", node]).arg(program);
    command
}

/// Ends what a run that was killed has left, and takes its topology down.
///
/// # Errors
///
/// In words: a run is on.
pub(crate) fn clean(stop: &Stop) -> Result<(), String> {
    let _lock = lock()?;
    for pid in inhabitants(stop)? {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // It may have ended by itself.
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    remove();
    Ok(())
}

fn lock() -> Result<File, String> {
    let file = File::create(LOCK)
        .map_err(|error| format!("{LOCK}: {error}: network namespaces need root"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        format!("another run is on: it holds {LOCK}, and two would measure each other")
    })?;
    Ok(file)
}

fn refuse_inhabited(stop: &Stop) -> Result<(), String> {
    let pids = inhabitants(stop)?;
    if pids.is_empty() {
        return Ok(());
    }
    Err(format!(
        "processes {pids:?} are in the namespaces rgbench-*: another benchmark, or what a killed \
         one has left; `ringgate-bench measure --clean` ends them"
    ))
}

/// Processes in the namespaces.
fn inhabitants(stop: &Stop) -> Result<Vec<i32>, String> {
    let mut pids = Vec::new();
    for node in [SOURCE_NODE, NODE, SINK_NODE] {
        if Path::new("/run/netns").join(node).exists() {
            let mut command = Command::new("ip");
            let ran = run(command.args(["netns", "pids", node]), LIMIT, stop)?;
            pids.extend(
                ran.out
                    .lines()
                    .filter_map(|line| line.trim().parse::<i32>().ok()),
            );
        }
    }
    Ok(pids)
}

/// Removes the namespaces that are there, and with them the links.
fn remove() {
    for node in [SOURCE_NODE, NODE, SINK_NODE] {
        if Path::new("/run/netns").join(node).exists() {
            // Not stopped by a signal: this is what a signal leads to.
            let mut command = Command::new("ip");
            let _failed = run(
                command.args(["netns", "del", node]),
                LIMIT,
                &Stop::default(),
            );
        }
    }
}
