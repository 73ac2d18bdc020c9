//! Where it is measured: lanes of three network namespaces and two veth pairs each, built and taken
//! down here. Each contestant has a lane of its own, in which it stays: whose turn it is gets
//! traffic, the others sleep.
//!
//! ```text
//! rgbench-src-0              rgbench-lb-0               rgbench-sink-0
//! c0 02:…:01:02 ─── front 02:…:01:01, 10.1.0.1/16
//!                   back  02:…:02:01, 10.2.0.1/24 ─── s0 02:…:02:98
//! ```
//!
//! Source and sink have no addresses: their kernels answer nothing, what speaks there is the
//! generator. All clients are behind one neighbour, 10.1.0.2. IPv6 is off, so that nothing but
//! what is measured is on the links, until [`Lane::speak_ipv6`]: then there are fd01::/64 and
//! fd02::/64 as well, by hand, and a kernel that has said its two words about multicast.
//!
//! The backends' hardware address is not that of `s0`. The sink's kernel, whose work is paid by
//! who forwards, then takes each frame for somebody else's (`PACKET_OTHERHOST`, net/ipv4/ip_input.c,
//! `ip_rcv_core`) and drops it at once. To its own address it would look for a route first, find
//! none and make an entry for that, for each packet: a third of a bare forwarder's time, and nothing
//! that a backend does. AF_XDP and XDP programs of the generator at `s0` do not care.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::method::child::{Stop, run};

/// Hardware addresses of `c0`, `front`, `back` and of all backends, the same in all lanes.
pub(crate) const NEAR: &str = "02:00:00:00:01:02";
pub(crate) const FRONT: &str = "02:00:00:00:01:01";
pub(crate) const BACK: &str = "02:00:00:00:02:01";
pub(crate) const SINK: &str = "02:00:00:00:02:99";

/// Hardware address of `s0`: not that of the backends, see above.
const DOOR: &str = "02:00:00:00:02:98";

/// What all namespaces' names begin with.
const PREFIX: &str = "rgbench-";

/// First client, by family.
pub(crate) const FIRST_CLIENT: &str = "10.1.0.2";
pub(crate) const FIRST_CLIENT_6: &str = "fd01::2";

/// How many backends there may be: 10.2.0.11 or fd02::11 and up.
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

/// What the kernel says of its groups after it got addresses of IPv6 is said by then.
const SAID: Duration = Duration::from_millis(100);

/// Address of a backend, from 0 on.
pub(crate) fn backend(number: usize, is_ipv6: bool) -> String {
    let network = if is_ipv6 { "fd02::" } else { "10.2.0." };
    format!("{network}{}", 11 + number)
}

/// Where lanes are built: one run's at a time. They are taken down when this is dropped.
#[derive(Debug)]
pub(crate) struct Ground {
    stop: Stop,
    lanes: usize,
    _lock: File,
}

/// Three namespaces in a row, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) source: String,
    pub(crate) node: String,
    pub(crate) sink: String,
    /// The sink's link.
    pub(crate) inlet: &'static str,
    /// A directory for the lane's contestant.
    pub(crate) work: PathBuf,
}

impl Ground {
    /// # Errors
    ///
    /// In words: another run has it, or is not quite over; no privileges.
    pub(crate) fn take(stop: &Stop) -> Result<Self, String> {
        let ground = Self {
            stop: stop.clone(),
            lanes: 0,
            _lock: lock()?,
        };
        refuse_inhabited(stop)?;
        remove();
        Ok(ground)
    }

    /// Builds one more lane, with a directory below `work`.
    ///
    /// # Errors
    ///
    /// In words: no privileges, or a signal.
    pub(crate) fn lane(&mut self, work: &Path) -> Result<Lane, String> {
        let name = |part: &str| format!("{PREFIX}{part}-{}", self.lanes);
        let lane = Lane {
            source: name("src"),
            node: name("lb"),
            sink: name("sink"),
            inlet: "s0",
            work: work.join(format!("lane-{}", self.lanes)),
        };
        self.lanes += 1;
        std::fs::create_dir(&lane.work)
            .map_err(|error| format!("{}: {error}", lane.work.display()))?;
        lane.namespaces(&self.stop)?;
        lane.links(&self.stop)?;
        lane.addresses(&self.stop)?;
        Ok(lane)
    }
}

impl Lane {
    fn namespaces(&self, stop: &Stop) -> Result<(), String> {
        for node in [&self.source, &self.node, &self.sink] {
            ip(stop, &["netns", "add", node])?;
            let settings = [
                "net.ipv6.conf.all.disable_ipv6=1",
                "net.ipv6.conf.default.disable_ipv6=1",
                "net.ipv4.conf.all.rp_filter=0",
                "net.ipv4.conf.default.rp_filter=0",
            ];
            set(stop, node, &settings)?;
        }
        Ok(())
    }

    fn links(&self, stop: &Stop) -> Result<(), String> {
        let (source, node, sink) = (&self.source, &self.node, &self.sink);
        let pairs = [
            (source, "c0", NEAR, "front", FRONT, node),
            (node, "back", BACK, "s0", DOOR, sink),
        ];
        for (node, link, address, peer, its, other) in pairs {
            let line = format!(
                "-n {node} link add {link} address {address} type veth \
                 peer name {peer} address {its} netns {other}"
            );
            ip(stop, &line.split(' ').collect::<Vec<_>>())?;
        }
        let ends = [
            (source, "c0"),
            (node, "front"),
            (node, "back"),
            (sink, "s0"),
        ];
        for (node, link) in ends {
            ip(stop, &["-n", node, "link", "set", link, "up"])?;
            // Without a queue a veth whose peer's ring is full drops and says nothing.
            let line = format!("-n {node} qdisc replace dev {link} root pfifo limit 1000");
            command(stop, "tc", &line.split(' ').collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn addresses(&self, stop: &Stop) -> Result<(), String> {
        let mut lines = vec![
            "addr add 10.1.0.1/16 dev front noprefixroute".to_owned(),
            format!("route add {FIRST_CLIENT}/32 dev front"),
            format!("route add 10.1.0.0/16 via {FIRST_CLIENT} dev front"),
            format!("neigh replace {FIRST_CLIENT} lladdr {NEAR} dev front nud permanent"),
            "addr add 10.2.0.1/24 dev back".to_owned(),
        ];
        let sources = NAT_SOURCES.iter();
        lines.extend(sources.map(|source| format!("addr add {source}/24 dev back")));
        lines.extend(neighbours(false));
        self.lines(stop, &lines)
    }

    /// Gives the balancer's links addresses of IPv6, and returns when the kernel has fallen silent:
    /// no router is asked for or listened to, no address is tried for another's, there are none of
    /// the link's own, and the reports of multicast groups (RFC 3810) that each address costs are
    /// sent within milliseconds. Source and sink stay without.
    ///
    /// # Errors
    ///
    /// In words: a kernel without IPv6, or a signal.
    pub(crate) fn speak_ipv6(&self, stop: &Stop) -> Result<(), String> {
        // Not `all`: that would switch each link on before it has been told to keep still.
        let mut settings = vec!["net.ipv6.conf.lo.disable_ipv6=0".to_owned()];
        for link in ["front", "back"] {
            let of = [
                "addr_gen_mode=1",
                "accept_ra=0",
                "accept_dad=0",
                "dad_transmits=0",
                "router_solicitations=0",
                "mldv1_unsolicited_report_interval=1",
                "mldv2_unsolicited_report_interval=1",
                "disable_ipv6=0",
            ];
            settings.extend(of.map(|setting| format!("net.ipv6.conf.{link}.{setting}")));
        }
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        set(stop, &self.node, &settings)?;
        let mut lines = vec![
            "addr replace fd01::1/64 dev front nodad noprefixroute".to_owned(),
            format!("route replace {FIRST_CLIENT_6}/128 dev front"),
            format!("route replace fd01::/64 via {FIRST_CLIENT_6} dev front"),
            format!("neigh replace {FIRST_CLIENT_6} lladdr {NEAR} dev front nud permanent"),
            "addr replace fd02::1/64 dev back nodad".to_owned(),
        ];
        lines.extend(neighbours(true));
        self.lines(stop, &lines)?;
        stop.pause(SAID)
    }

    /// The lane's first link alone: what the source sends arrives at once.
    pub(crate) fn wire(&self) -> Self {
        Self {
            sink: self.node.clone(),
            inlet: "front",
            ..self.clone()
        }
    }

    fn lines(&self, stop: &Stop, lines: &[String]) -> Result<(), String> {
        for line in lines {
            let mut words = vec!["-n", &self.node];
            words.extend(line.split(' '));
            ip(stop, &words)?;
        }
        Ok(())
    }

    /// A counter of the sink's link.
    pub(crate) fn arrived(&self, stop: &Stop) -> Result<u64, String> {
        let file = format!("/sys/class/net/{}/statistics/rx_packets", self.inlet);
        let mut command = inside(&self.sink, Path::new("cat"));
        let text = run(command.arg(&file), LIMIT, stop)?.good("the sink's counter")?;
        text.trim()
            .parse()
            .map_err(|error| format!("{file}: {error}"))
    }
}

/// Neighbour entries of all backends.
fn neighbours(is_ipv6: bool) -> impl Iterator<Item = String> {
    (0..BACKENDS).map(move |number| {
        let address = backend(number, is_ipv6);
        format!("neigh replace {address} lladdr {SINK} dev back nud permanent")
    })
}

fn set(stop: &Stop, node: &str, settings: &[&str]) -> Result<(), String> {
    let words = ["netns", "exec", node, "sysctl", "-qw"];
    ip(stop, &[&words, settings].concat())
}

fn ip(stop: &Stop, words: &[&str]) -> Result<(), String> {
    command(stop, "ip", words)
}

fn command(stop: &Stop, program: &str, words: &[&str]) -> Result<(), String> {
    let ran = run(Command::new(program).args(words), LIMIT, stop)?;
    let _said = ran.good(&format!("{program} {}", words.join(" ")))?;
    Ok(())
}

impl Drop for Ground {
    fn drop(&mut self) {
        remove();
    }
}

/// A program in a namespace. It keeps the number of the process that is started.
pub(crate) fn inside(node: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", node]).arg(program);
    command
}

/// Ends what a run that was killed has left, and takes its lanes down.
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

/// Namespaces that are a run's.
fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// Processes in the namespaces.
fn inhabitants(stop: &Stop) -> Result<Vec<i32>, String> {
    let mut pids = Vec::new();
    for node in namespaces() {
        let mut command = Command::new("ip");
        let ran = run(command.args(["netns", "pids", &node]), LIMIT, stop)?;
        let lines = ran.out.lines();
        pids.extend(lines.filter_map(|line| line.trim().parse::<i32>().ok()));
    }
    Ok(pids)
}

/// Removes the namespaces that are there, and with them the links.
fn remove() {
    for node in namespaces() {
        // Not stopped by a signal: this is what a signal leads to.
        let mut command = Command::new("ip");
        let _failed = run(
            command.args(["netns", "del", &node]),
            LIMIT,
            &Stop::default(),
        );
    }
}
