//! Who forwards: the bare forwarder, Ringgate, or a peer by its script, each in its lane. It is gone
//! when [`Running`] is dropped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::method::child::{Background, Stop, run};
use crate::method::topology::{BACK, Lane, NAT_SOURCES, SINK, backend, inside};

/// Modes. The services' addresses are 10.100.0.1 or fd64::1 and up, in this order.
const MODES: [&str; 6] = ["nat", "dsr-l2", "ipip", "gue", "gre", "full-nat"];

/// The CPU of whoever forwards; the generator has 0.
const CORE: &str = "1";

/// Exit status of a peer that cannot be had here.
const ABSENT: i32 = 4;

/// Entries of the flow table when there are more flows than its default holds.
const MANY_ENTRIES: u64 = 4_194_304;

/// More flows than this need them: `nat` takes two entries for each, out of a million.
const MANY_FLOWS: u32 = 400_000;

/// How long something may take to serve.
const READY: Duration = Duration::from_secs(10);

/// More than a peer's script takes.
const SCRIPT: Duration = Duration::from_secs(60);

/// Longest life of a bare forwarder, seconds: it ends by itself if nobody ends it, and
/// no run lasts longer.
const BARE_LIFE: &str = "36000";

/// Names of the modes.
pub(crate) fn modes() -> impl Iterator<Item = &'static str> {
    MODES.into_iter()
}

/// Programs and places that contestants need.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) bench: PathBuf,
    pub(crate) ringgate: PathBuf,
    /// The peers' scripts.
    pub(crate) peers: PathBuf,
}

/// What is to be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) mode: &'static str,
    /// `udp` or `tcp`.
    pub(crate) protocol: &'static str,
    pub(crate) is_ipv6: bool,
    pub(crate) backends: usize,
    /// Most flows that there will be.
    pub(crate) flows: u32,
    /// Without flow entries: the ring alone decides.
    pub(crate) stateless: bool,
}

impl Scene {
    /// UDP by `nat` to one backend.
    pub(crate) const fn plain(flows: u32) -> Self {
        Self {
            mode: "nat",
            protocol: "udp",
            is_ipv6: false,
            backends: 1,
            flows,
            stateless: false,
        }
    }

    /// What clients address.
    pub(crate) fn service(&self) -> SocketAddr {
        let place = MODES.iter().zip(1..).find(|(mode, _)| **mode == self.mode);
        let number = place.map_or(0, |(_, number)| number);
        let address = if self.is_ipv6 {
            IpAddr::from(Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, number.into()))
        } else {
            IpAddr::from(Ipv4Addr::new(10, 100, 0, number))
        };
        SocketAddr::new(address, if self.protocol == "udp" { 53 } else { 80 })
    }

    /// The address of a backend, with its port if `at` is given.
    pub(crate) fn backend(&self, number: usize, at: Option<u16>) -> String {
        let address = backend(number, self.is_ipv6);
        match at {
            Some(port) if self.is_ipv6 => format!("[{address}]:{port}"),
            Some(port) => format!("{address}:{port}"),
            None => address,
        }
    }

    /// `ipv4` or `ipv6`.
    pub(crate) const fn family(&self) -> &'static str {
        if self.is_ipv6 { "ipv6" } else { "ipv4" }
    }

    /// The port of the backends.
    pub(crate) fn backend_port(&self) -> u16 {
        match (self.translates(), self.protocol) {
            (false, _) => self.service().port(),
            (true, "udp") => 5353,
            (true, _) => 8080,
        }
    }

    fn translates(&self) -> bool {
        self.mode.ends_with("nat")
    }

    /// Ringgate's configuration, with the first backend's weight given.
    pub(crate) fn configuration(&self, work: &Path, weight: u32) -> String {
        let work = work.display();
        let sources = NAT_SOURCES.map(|source| format!("\"{source}\"")).join(", ");
        let flows = if self.flows > MANY_FLOWS {
            format!("flows = {MANY_ENTRIES}\n")
        } else {
            String::new()
        };
        let stateless = if self.stateless {
            "stateless = true\n"
        } else {
            ""
        };
        let mut text = format!(
            "[balancer]\nadmin = \"{work}/admin.sock\"\ncores = [{CORE}]\ndrain = \"0s\"\n\
             nat-sources = [{sources}]\n{flows}\
             [[interface]]\nname = \"front\"\nmode = \"copy\"\n\
             [[interface]]\nname = \"back\"\nmode = \"copy\"\n\
             [[service]]\nname = \"measured\"\nlisten = \"{}\"\nprotocol = \"{}\"\n\
             forward = \"{}\"\n{stateless}",
            self.service(),
            self.protocol,
            self.mode
        );
        for number in 0..self.backends {
            let address = self.backend(number, self.translates().then(|| self.backend_port()));
            let weight = if number == 0 { weight } else { 100 };
            // Writing to a string does not fail.
            let _infallible = write!(
                text,
                "[[service.backend]]\naddress = \"{address}\"\nweight = {weight}\n"
            );
        }
        text
    }
}

/// Why there is no contestant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not to be had on this host, and why.
    Absent(String),
    /// It did not work.
    Failed(String),
}

impl From<String> for Refusal {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

/// A contestant that serves. It is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    process: Option<Background>,
    peer: Option<Peer>,
    /// Where it is.
    pub(crate) lane: Lane,
    /// What it was started for.
    pub(crate) scene: Scene,
    /// What clients address.
    pub(crate) target: SocketAddr,
    /// When so many flows were brought in last.
    pub(crate) flows: BTreeMap<u32, Instant>,
}

impl Running {
    fn new(lane: &Lane, scene: &Scene, process: Option<Background>) -> Self {
        Self {
            process,
            peer: None,
            lane: lane.clone(),
            scene: scene.clone(),
            target: scene.service(),
            flows: BTreeMap::new(),
        }
    }

    /// The process, where there is one of it alone.
    pub(crate) fn process(&self) -> Option<u32> {
        self.process.as_ref().map(Background::id)
    }

    /// Kills it as an accident would.
    pub(crate) fn kill(mut self) {
        drop(self.process.take());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end();
        }
        drop(self.peer.take());
    }
}

/// Starts `who` for `scene` in `lane` and returns when it serves.
pub(crate) fn start(
    who: &str,
    scene: &Scene,
    lane: &Lane,
    tools: &Tools,
    stop: &Stop,
) -> Result<Running, Refusal> {
    if scene.is_ipv6 {
        lane.speak_ipv6(stop)?;
    }
    match who {
        "bare" => Ok(bare(scene, lane, tools, stop)?),
        "ringgate" => Ok(ringgate(scene, lane, tools, stop)?),
        peer => Peer::start(peer, scene, lane, tools, stop),
    }
}

fn bare(scene: &Scene, lane: &Lane, tools: &Tools, stop: &Stop) -> Result<Running, String> {
    let mut command = inside(&lane.node, &tools.bench);
    command.args(["bare", "--front", "front", "--back", "back"]);
    command.args(["--source", BACK, "--destination", SINK, "--core", CORE]);
    command.args(["--seconds", BARE_LIFE, "--service"]);
    let process = Background::start(command.arg(scene.service().to_string()))?;
    // Its sockets are opened after its programs are attached, within a few milliseconds.
    let process = until_ready(process, "bare", stop, || {
        let mut command = Command::new("ip");
        let ran = run(
            command.args(["-n", &lane.node, "-d", "link", "show", "back"]),
            READY,
            stop,
        )?;
        Ok(ran.out.contains("xdp"))
    })?;
    stop.pause(Duration::from_millis(300))?;
    Ok(Running::new(lane, scene, Some(process)))
}

fn ringgate(scene: &Scene, lane: &Lane, tools: &Tools, stop: &Stop) -> Result<Running, String> {
    let file = configure(scene, lane, 100)?;
    // A socket of the one before, which was killed, would answer nobody.
    let socket = lane.work.join("admin.sock");
    let _absent = fs::remove_file(&socket);
    let mut command = inside(&lane.node, &tools.ringgate);
    let process = Background::start(command.args(["run", "--config"]).arg(file))?;
    let process = until_ready(process, "ringgate", stop, || {
        let mut command = Command::new(&tools.ringgate);
        command.args(["status", "--json", "--admin"]).arg(&socket);
        Ok(run(&mut command, READY, stop)?.code == Some(0))
    })?;
    stop.pause(Duration::from_millis(200))?;
    Ok(Running::new(lane, scene, Some(process)))
}

/// Writes the configuration, and says where.
pub(crate) fn configure(scene: &Scene, lane: &Lane, weight: u32) -> Result<PathBuf, String> {
    let file = lane.work.join("bench.toml");
    fs::write(&file, scene.configuration(&lane.work, weight))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

/// Has Ringgate read its configuration again; returns when it is in force.
pub(crate) fn reload(lane: &Lane, tools: &Tools, stop: &Stop) -> Result<(), String> {
    let mut command = Command::new(&tools.ringgate);
    command
        .args(["reload", "--admin"])
        .arg(lane.work.join("admin.sock"));
    let _said = run(&mut command, READY, stop)?.good("ringgate reload")?;
    Ok(())
}

/// Waits until something serves, which has to live that long.
fn until_ready(
    mut process: Background,
    name: &str,
    stop: &Stop,
    mut is_ready: impl FnMut() -> Result<bool, String>,
) -> Result<Background, String> {
    let start = crate::meter::now();
    while !is_ready()? {
        if process.has_ended() {
            return Err(format!("{name} has ended: {}", process.complaint()));
        }
        if start.elapsed() > READY {
            return Err(format!("{name} does not serve: {}", process.complaint()));
        }
        stop.pause(Duration::from_millis(20))?;
    }
    Ok(process)
}

/// A peer that is up; its script takes it down when this is dropped.
#[derive(Debug)]
struct Peer {
    script: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Peer {
    fn start(
        name: &str,
        scene: &Scene,
        lane: &Lane,
        tools: &Tools,
        stop: &Stop,
    ) -> Result<Running, Refusal> {
        let addresses = (0..scene.backends).map(|number| scene.backend(number, None));
        let addresses: Vec<String> = addresses.collect();
        let service = scene.service();
        let set = |name, value: &str| (name, value.to_owned());
        let peer = Self {
            script: tools.peers.join(name),
            environment: vec![
                set("RINGGATE_BENCH_NETNS", &lane.node),
                set("RINGGATE_BENCH_FRONT", "front"),
                set("RINGGATE_BENCH_BACK", "back"),
                set("RINGGATE_BENCH_CORES", CORE),
                set("RINGGATE_BENCH_VIP", &service.ip().to_string()),
                set("RINGGATE_BENCH_PORT", &service.port().to_string()),
                set("RINGGATE_BENCH_BACKENDS", &addresses.join(" ")),
                set(
                    "RINGGATE_BENCH_BACKEND_PORT",
                    &scene.backend_port().to_string(),
                ),
                set("RINGGATE_BENCH_WORK", &lane.work.to_string_lossy()),
            ],
        };
        if !peer.script.exists() {
            return Err(Refusal::Absent(format!("no {}", peer.script.display())));
        }
        let ran = run(&mut peer.command(&["up", scene.protocol]), SCRIPT, stop)?;
        if ran.code == Some(ABSENT) {
            let why = ran.err.trim().lines().last().unwrap_or("").to_owned();
            return Err(Refusal::Absent(why));
        }
        let _said = ran.good(name)?;
        let target = run(&mut peer.command(&["target"]), SCRIPT, stop)?.good(name)?;
        let target = target.trim();
        let mut running = Running::new(lane, scene, None);
        running.target = target
            .parse()
            .map_err(|error| format!("{name}: target {target:?}: {error}"))?;
        running.peer = Some(peer);
        Ok(running)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command.args(words);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Also after a signal. What it cannot undo goes with the namespace.
        let _failed = run(&mut self.command(&["down"]), SCRIPT, &Stop::default());
    }
}
