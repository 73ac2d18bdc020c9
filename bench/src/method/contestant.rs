//! Who forwards: the bare forwarder, Ringgate, or a peer by its script. One at a time; it is gone
//! when [`Running`] is dropped.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::method::child::{Background, Stop, run};
use crate::method::topology::{BACK, NAT_SOURCES, NODE, SINK, backend, inside};

/// Modes and their service addresses.
const SERVICES: [(&str, &str); 6] = [
    ("nat", "10.100.0.1"),
    ("dsr-l2", "10.100.0.2"),
    ("ipip", "10.100.0.3"),
    ("gue", "10.100.0.4"),
    ("gre", "10.100.0.5"),
    ("full-nat", "10.100.0.6"),
];

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

/// Longest life of a bare forwarder, seconds: it ends by itself if nobody ends it.
const BARE_LIFE: &str = "600";

/// Names of the modes.
pub(crate) fn modes() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|(mode, _)| *mode)
}

/// Programs and places that contestants need.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) bench: PathBuf,
    pub(crate) ringgate: PathBuf,
    /// The peers' scripts.
    pub(crate) peers: PathBuf,
    /// A directory of this run's own.
    pub(crate) work: PathBuf,
}

/// What is to be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) mode: &'static str,
    /// `udp` or `tcp`.
    pub(crate) protocol: &'static str,
    pub(crate) backends: usize,
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
            backends: 1,
            flows,
            stateless: false,
        }
    }

    /// What clients address.
    pub(crate) fn service(&self) -> SocketAddrV4 {
        let found = SERVICES.iter().find(|(mode, _)| *mode == self.mode);
        let address = found.and_then(|(_, address)| address.parse().ok());
        let port = if self.protocol == "udp" { 53 } else { 80 };
        SocketAddrV4::new(address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED), port)
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
            let mut address = backend(number);
            if self.translates() {
                // Writing to a string does not fail.
                let _infallible = write!(address, ":{}", self.backend_port());
            }
            let weight = if number == 0 { weight } else { 100 };
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
    _peer: Option<Peer>,
    /// What clients address.
    pub(crate) target: SocketAddrV4,
}

impl Running {
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
    }
}

/// Starts `who` for `scene` and returns when it serves.
pub(crate) fn start(
    who: &str,
    scene: &Scene,
    tools: &Tools,
    stop: &Stop,
) -> Result<Running, Refusal> {
    match who {
        "bare" => Ok(bare(scene, tools, stop)?),
        "ringgate" => Ok(ringgate(scene, tools, stop)?),
        peer => Peer::start(peer, scene, tools, stop),
    }
}

fn bare(scene: &Scene, tools: &Tools, stop: &Stop) -> Result<Running, String> {
    let mut command = inside(NODE, &tools.bench);
    command.args(["bare", "--front", "front", "--back", "back"]);
    command.args(["--source", BACK, "--destination", SINK, "--core", CORE]);
    command.args(["--seconds", BARE_LIFE, "--service"]);
    let process = Background::start(command.arg(scene.service().to_string()))?;
    // Its sockets are opened after its programs are attached, within a few milliseconds.
    let process = until_ready(process, "bare", stop, || {
        let mut command = Command::new("ip");
        let ran = run(
            command.args(["-n", NODE, "-d", "link", "show", "back"]),
            READY,
            stop,
        )?;
        Ok(ran.out.contains("xdp"))
    })?;
    stop.pause(Duration::from_millis(300))?;
    Ok(Running {
        process: Some(process),
        _peer: None,
        target: scene.service(),
    })
}

fn ringgate(scene: &Scene, tools: &Tools, stop: &Stop) -> Result<Running, String> {
    let file = configure(scene, tools, 100)?;
    // A socket of the one before, which was killed, would answer nobody.
    let socket = tools.work.join("admin.sock");
    let _absent = fs::remove_file(&socket);
    let mut command = inside(NODE, &tools.ringgate);
    let process = Background::start(command.args(["run", "--config"]).arg(file))?;
    let process = until_ready(process, "ringgate", stop, || {
        let mut command = Command::new(&tools.ringgate);
        command.args(["status", "--json", "--admin"]).arg(&socket);
        Ok(run(&mut command, READY, stop)?.code == Some(0))
    })?;
    stop.pause(Duration::from_millis(200))?;
    Ok(Running {
        process: Some(process),
        _peer: None,
        target: scene.service(),
    })
}

/// Writes the configuration, and says where.
pub(crate) fn configure(scene: &Scene, tools: &Tools, weight: u32) -> Result<PathBuf, String> {
    let file = tools.work.join("bench.toml");
    fs::write(&file, scene.configuration(&tools.work, weight))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file)
}

/// Has Ringgate read its configuration again; returns when it is in force.
pub(crate) fn reload(tools: &Tools, stop: &Stop) -> Result<(), String> {
    let mut command = Command::new(&tools.ringgate);
    command
        .args(["reload", "--admin"])
        .arg(tools.work.join("admin.sock"));
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
    fn start(name: &str, scene: &Scene, tools: &Tools, stop: &Stop) -> Result<Running, Refusal> {
        let addresses: Vec<String> = (0..scene.backends).map(backend).collect();
        let service = scene.service();
        let set = |name, value: &str| (name, value.to_owned());
        let peer = Self {
            script: tools.peers.join(name),
            environment: vec![
                set("RINGGATE_BENCH_NETNS", NODE),
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
                set("RINGGATE_BENCH_WORK", &tools.work.to_string_lossy()),
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
        Ok(Running {
            target: target
                .parse()
                .map_err(|error| format!("{name}: target {target:?}: {error}"))?,
            process: None,
            _peer: Some(peer),
        })
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
