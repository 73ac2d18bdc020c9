//! The command line, and nothing else: what each command does is in `commands/`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A layer-4 load balancer for Linux in userspace, on AF_XDP.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the balancer in the foreground. SIGHUP reloads, SIGTERM drains and stops
    Run(Run),
    /// Validate a configuration file; print services, ring balance and warnings
    Check(Check),
    /// Tell what would change from one configuration file to another, and for whose traffic
    Diff(Diff),
    /// Send a configuration file to a running balancer, which takes all of it or nothing
    Apply(Apply),
    /// Show services, backends, rates, workers and drops of a running balancer
    Status(Status),
    /// Watch a running balancer: services, backends, workers, interfaces, drops
    Top(Top),
    /// Tell what would become of a packet, and why: each stage, the verdict, the bytes as they would leave
    Explain(Explain),
    /// Show what becomes of the next packets that match, live: each stage with its reason
    Trace(Trace),
    /// Capture packets before and after the rewrite, with what became of them as comments (pcapng)
    Capture(Capture),
    /// Forget the flows of a backend, a service or all: their next packets are given a backend anew
    Flush(Flush),
    /// Show the flows of the table, all or those that are meant
    Flows(Flows),
    /// Give a backend no new flows; with --wait, wait until those it has are over
    Drain(Drain),
    /// Give a backend another share of new flows
    Weight(Weight),
    /// Use a backend no longer: its flows go elsewhere
    Disable(Backend),
    /// Use a backend again: undoes disable and drain
    Enable(Backend),
    /// Write what was changed while running into the configuration file
    Save(Ask),
    /// Read the configuration file again, as SIGHUP does, and tell what came of it
    Reload(Ask),
    /// Show what has happened: backends that came and went, reloads, flushes
    Events(Events),
    /// Look at the host and at a running balancer: what was found, and what to change
    Doctor(Doctor),
    /// Write the manual pages into a directory, as packages do
    #[command(hide = true)]
    Man(Man),
    /// Print what a shell needs to complete this command line, as packages do
    #[command(hide = true)]
    Completions(Completions),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The configuration as it is
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// The configuration as it is to be
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The configuration file; it need not be the one that the balancer was started with
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only tell what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Where a running balancer answers.
#[derive(Debug, Args)]
pub(crate) struct Admin {
    /// The admin socket, as in `[balancer] admin` of its configuration
    #[arg(long, value_name = "SOCKET", default_value = ringgate_config::limits::ADMIN_DEFAULT)]
    pub(crate) admin: PathBuf,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Transport protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Protocol {
    /// The spelling of the configuration file and the admin socket.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The flow's protocol
    #[arg(long, value_name = "PROTOCOL", required_unless_present_any = ["hex", "pcap"])]
    pub(crate) protocol: Option<Protocol>,
    /// The client's address and port
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present_any = ["hex", "pcap"])]
    pub(crate) from: Option<SocketAddr>,
    /// The service's address and port
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present_any = ["hex", "pcap"])]
    pub(crate) to: Option<SocketAddr>,
    /// How long the IP packet is, bytes; as short as can be unless given
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<usize>,
    /// Of TCP: a segment of a connection that is open, not the SYN of a new one
    #[arg(long)]
    pub(crate) open: bool,
    /// The VLAN that it comes in, or two as OUTER,INNER, or 0 for none; that of the way back unless given
    #[arg(long, value_name = "VLAN")]
    pub(crate) vlan: Option<String>,
    /// The interface that it comes in by; that of the way back unless given
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// A packet of your own instead: hexadecimal digits, from the Ethernet header on
    #[arg(long, value_name = "DIGITS", conflicts_with_all = ["protocol", "from", "to", "size", "open", "vlan", "pcap"])]
    pub(crate) hex: Option<String>,
    /// The same, from a capture file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["protocol", "from", "to", "size", "open", "vlan"])]
    pub(crate) pcap: Option<PathBuf>,
    /// Which packet of the capture file, from 1
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "pcap")]
    pub(crate) number: usize,
    /// Ask this file, all backends taken to be up, instead of a running balancer
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// With --config: take the states of backends from the running balancer
    #[arg(long, requires = "config")]
    pub(crate) running: bool,
    /// Print the packet's bytes under each of its headers
    #[arg(long)]
    pub(crate) bytes: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// What a tap takes, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Tap {
    /// Which packets, as for tcpdump: host 10.1.0.2 and tcp port 80; besides: service NAME,
    /// backend ADDRESS or ADDRESS:PORT, dropped, drop REASON, forwarded, answered, held, in INTERFACE, out
    /// INTERFACE, worker N. All unless given
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// End after so many packets (trace: 10, capture: 10,000 unless given)
    #[arg(long, short = 'n', value_name = "PACKETS")]
    pub(crate) packets: Option<u64>,
    /// End after so many seconds (60 unless given)
    #[arg(long, short = 't', value_name = "SECONDS")]
    pub(crate) seconds: Option<u64>,
    /// Keep so many bytes of each packet, from its first on (trace: 128, capture: all unless given)
    #[arg(long, short, value_name = "BYTES")]
    pub(crate) snap: Option<u64>,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Arguments of `trace`.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// Print JSON, one packet a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the packets' bytes under each of their headers
    #[arg(long)]
    pub(crate) bytes: bool,
    /// What is taken.
    #[command(flatten)]
    pub(crate) tap: Tap,
}

/// Arguments of `capture`.
#[derive(Debug, Args)]
pub(crate) struct Capture {
    /// The file to write; standard output unless given, as for `| wireshark -k -i -`
    #[arg(long, short, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// End when the capture has so many bytes (100 MiB unless given)
    #[arg(long, value_name = "BYTES")]
    pub(crate) bytes: Option<u64>,
    /// What is taken.
    #[command(flatten)]
    pub(crate) tap: Tap,
}

/// Arguments of `flush`.
#[derive(Debug, Args)]
pub(crate) struct Flush {
    /// The service, by its name
    #[arg(value_name = "SERVICE", required_unless_present = "all")]
    pub(crate) service: Option<String>,
    /// Only the flows of this backend: its address and port, or the address where that is enough
    #[arg(value_name = "BACKEND")]
    pub(crate) backend: Option<String>,
    /// All flows of all services
    #[arg(long, conflicts_with = "service")]
    pub(crate) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// A backend of a running balancer.
#[derive(Debug, Args)]
pub(crate) struct Backend {
    /// The service, by its name
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// The backend: its address and port, or the address where that is enough
    #[arg(value_name = "BACKEND")]
    pub(crate) backend: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Arguments of `weight`.
#[derive(Debug, Args)]
pub(crate) struct Weight {
    /// Whose.
    #[command(flatten)]
    pub(crate) backend: Backend,
    /// Its share, in proportion to the other backends' weights; 0: no new flows
    #[arg(value_name = "WEIGHT")]
    pub(crate) weight: u32,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Which.
    #[command(flatten)]
    pub(crate) backend: Backend,
    /// Wait until its flows are over, and show how many are left
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait no longer than this, such as 90s, 5m or 1h; exit status 3 if flows are left then
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// Whole seconds, minutes or hours.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) => (digits, text.chars().next_back()),
        None => (text, None),
    };
    let wrong = "write a whole number and s, m or h, such as 90s";
    let number: u64 = digits.parse().map_err(|_| wrong)?;
    let seconds = number.checked_mul(match unit {
        Some('h') => 3600,
        Some('m') => 60,
        _ => 1,
    });
    seconds.map(Duration::from_secs).ok_or(wrong)
}

/// Arguments of `flows`.
#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Only those of this service
    #[arg(value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Only those of this backend of the service
    #[arg(value_name = "BACKEND")]
    pub(crate) backend: Option<String>,
    /// Only those from this address, ADDRESS:PORT or prefix
    #[arg(long, value_name = "CLIENT")]
    pub(crate) client: Option<String>,
    /// Only those of this protocol
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) protocol: Option<Protocol>,
    /// Only those in this state: opening, established, client-closed, backend-closed, closed,
    /// one-way or two-way
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// How many at most
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 1000)]
    pub(crate) limit: usize,
    /// Print JSON, one flow a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Arguments of a command that only asks a running balancer for something.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// How many of those that have happened
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 20)]
    pub(crate) last: usize,
    /// Stay, and show what happens
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Print JSON, one event a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also look at the interfaces and cores of this configuration
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where a running balancer answers, which is asked too: the configuration's socket unless named
    #[arg(long, value_name = "SOCKET")]
    pub(crate) admin: Option<PathBuf>,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where the pages are written; made if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Screens that `top` may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Screen {
    /// All services
    Services,
    /// All workers
    Workers,
    /// All interfaces
    Interfaces,
    /// What was dropped, by reason
    Drops,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Print one screen as text and end; so it is too where the output is no terminal
    #[arg(long)]
    pub(crate) once: bool,
    /// The screen to begin with
    #[arg(long, value_enum, default_value = "services")]
    pub(crate) screen: Screen,
    /// Begin with the backends of this service
    #[arg(long, value_name = "NAME", conflicts_with = "screen")]
    pub(crate) service: Option<String>,
    /// Only rows with this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Option<String>,
    /// From one look at the balancer to the next, milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub(crate) interval: u64,
    /// How wide the text of --once is, columns; left out: as wide as it needs
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=500))]
    pub(crate) width: Option<u16>,
    /// Where the balancer answers.
    #[command(flatten)]
    pub(crate) admin: Admin,
}

impl Top {
    /// From one look to the next.
    pub(crate) const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval)
    }
}
