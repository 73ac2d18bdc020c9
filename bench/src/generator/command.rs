//! `ringgate-bench blast`, `sink`, `connect` and `calibrate`: what they take and print.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use ringgate_dataplane::pin::pin;
use ringgate_dataplane::wire::ethernet::Mac;

use super::blast::{self, Out, Times, Traffic};
use super::calibrate::calibrate;
use super::connect::{Order, connect};
use super::netns::Place;
use super::report::{LIMITED, Report};
use super::shape::{Ends, Kind, Size};
use super::spread::Division;

/// A hardware address as `ip link` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardwareAddress(pub Mac);

impl FromStr for HardwareAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes: Result<Vec<u8>, _> = text
            .split(':')
            .map(|part| u8::from_str_radix(part, 16))
            .collect();
        let bytes = bytes.ok().and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
        bytes
            .map(|bytes| Self(Mac(bytes)))
            .ok_or_else(|| format!("found {text:?}, expected six bytes such as 02:00:00:00:00:01"))
    }
}

/// A rate: a number per second, or as many as can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(rate) if rate > 0 => Ok(Self(Some(rate))),
            Err(_) if text == "max" => Ok(Self(None)),
            _ => Err(format!("found {text:?}, expected a number above 0, or max")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("max"),
        }
    }
}

/// What those have in common that send.
#[derive(Debug, clap::Args)]
pub struct WayArgs {
    /// Send out of this interface: the clients are there
    #[arg(long, value_name = "IF[@NETNS]")]
    pub out: Place,
    /// Hardware address of the interface that sends
    #[arg(long)]
    pub near: HardwareAddress,
    /// Hardware address of the balancer's interface
    #[arg(long)]
    pub far: HardwareAddress,
    /// First client address; others follow it
    #[arg(long)]
    pub from: IpAddr,
    /// What clients address
    #[arg(long, value_name = "VIP:PORT")]
    pub to: SocketAddr,
    /// The CPU it runs on
    #[arg(long)]
    pub core: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Send traffic, and judge what arrives behind the balancer
#[derive(Debug, clap::Args)]
pub struct BlastArgs {
    /// From where to where
    #[command(flatten)]
    pub way: WayArgs,
    /// Judge what arrives at this interface
    #[arg(long = "in", value_name = "IF[@NETNS]")]
    pub inlet: Option<Place>,
    /// How many flows live at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub flows: u32,
    /// How traffic divides over flows: uniform, zipf or zipf:EXPONENT
    #[arg(long, default_value = "uniform")]
    pub spread: Division,
    /// Flows born each second, each in the place of an old one
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0)]
    pub new_flows: u32,
    /// Bytes of a frame with its check sequence, 64 to 1518, or imix
    #[arg(long, default_value = "64")]
    pub size: Size,
    /// Frames per second, or max
    #[arg(long, default_value_t = Rate(None))]
    pub rate: Rate,
    /// How long it is measured
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// How long it runs before that, in seconds
    #[arg(long, default_value_t = 0.0)]
    pub warmup: f64,
    /// What is sent
    #[arg(long, value_enum, default_value = "udp")]
    pub protocol: Kind,
    /// Let the kernel make and send the frames: faster on veth
    #[arg(long)]
    pub live_frames: bool,
    /// Of what is drawn at random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Judge what arrives from a source on another host
#[derive(Debug, clap::Args)]
pub struct SinkArgs {
    /// Judge what arrives at this interface
    #[arg(long = "in", value_name = "IF[@NETNS]")]
    pub inlet: Place,
    /// What clients address, to tell direct return
    #[arg(long, value_name = "VIP:PORT")]
    pub to: Option<SocketAddr>,
    /// How many flows the source has at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub flows: u32,
    /// For how long
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// The source's CLOCK_MONOTONIC is this host's: latencies mean something
    #[arg(long)]
    pub common_clock: bool,
    /// The CPU it runs on
    #[arg(long)]
    pub core: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Open TCP connections, one request and one response each, and answer them
#[derive(Debug, clap::Args)]
pub struct ConnectArgs {
    /// From where to where
    #[command(flatten)]
    pub way: WayArgs,
    /// The backends are at this interface; left away, they are somebody else's
    #[arg(long = "in", value_name = "IF[@NETNS]")]
    pub inlet: Option<Place>,
    /// How many client addresses; each has 64,512 ports
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub clients: u32,
    /// How many connections at a time; with --linger, how many in all
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrent: u32,
    /// New connections per second, or max
    #[arg(long, default_value_t = Rate(None))]
    pub rate: Rate,
    /// How long new ones begin
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Leave them open when they have their response
    #[arg(long)]
    pub linger: bool,
    /// Bytes of a response, 1 to 1400
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1400))]
    pub size: u16,
    /// Of the backends' secret
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Find what source and sink can do on this host, back to back over a veth pair
#[derive(Debug, clap::Args)]
pub struct CalibrateArgs {
    /// Bytes of a frame with its check sequence, 64 to 1518, or imix
    #[arg(long, default_value = "64")]
    pub size: Size,
    /// How long each of its runs is
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// The CPU it runs on
    #[arg(long)]
    pub core: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs `blast`.
///
/// # Errors
///
/// In words.
pub fn run_blast(args: &BlastArgs) -> Result<ExitCode, String> {
    let ends = args.way.ends()?;
    pin_to(args.way.core)?;
    let traffic = Traffic {
        ends,
        kind: args.protocol,
        size: args.size,
        flows: args.flows,
        division: args.spread,
        new_flows: args.new_flows,
        rate: args.rate.0,
        seed: args.seed,
    };
    let out = Out {
        place: args.way.out.clone(),
        live: args.live_frames,
    };
    let times = Times {
        warmup: duration(args.warmup)?,
        measured: duration(args.seconds)?,
    };
    let report = blast::blast(&traffic, &out, args.inlet.as_ref(), times)?;
    if let Size::Bytes(asked) = args.size
        && report.sizes.iter().any(|size| *size != asked)
    {
        tell(&format!(
            "frames of {asked} bytes have no room for the stamp: they have {:?}",
            report.sizes
        ));
    }
    print(&report, args.way.json)
}

/// Runs `sink`.
///
/// # Errors
///
/// In words.
pub fn run_sink(args: &SinkArgs) -> Result<ExitCode, String> {
    pin_to(args.core)?;
    let measured = duration(args.seconds)?;
    let report = blast::sink(
        &args.inlet,
        args.to,
        args.flows,
        measured,
        args.common_clock,
    )?;
    print(&report, args.json)
}

/// Runs `connect`.
///
/// # Errors
///
/// In words.
pub fn run_connect(args: &ConnectArgs) -> Result<ExitCode, String> {
    let order = Order {
        ends: args.way.ends()?,
        clients: args.clients,
        concurrent: args.concurrent,
        rate: args.rate.0,
        duration: duration(args.seconds)?,
        linger: args.linger,
        size: args.size.into(),
        seed: args.seed,
    };
    pin_to(args.way.core)?;
    let outcome = connect(&order, &args.way.out, args.inlet.as_ref())?;
    let text = if args.way.json {
        outcome.to_json().to_string()
    } else {
        outcome.to_text()
    };
    let warning = outcome
        .limit()
        .map(|limit| format!("the {} was the limit", limit.name()));
    say(&text, warning)
}

/// Runs `calibrate`.
///
/// # Errors
///
/// In words.
pub fn run_calibrate(args: &CalibrateArgs) -> Result<ExitCode, String> {
    pin_to(args.core)?;
    let calibration = match calibrate(args.size, duration(args.seconds)?) {
        Ok(calibration) => calibration,
        Err(error) => {
            tell(&error);
            return Ok(ExitCode::from(LIMITED));
        }
    };
    let text = if args.json {
        calibration.to_json().to_string()
    } else {
        calibration.to_text()
    };
    say(&text, None)
}

impl WayArgs {
    fn ends(&self) -> Result<Ends, String> {
        let Self { from, to, .. } = *self;
        if from.is_ipv4() != to.is_ipv4() {
            return Err(format!(
                "--from {from} and --to {to} are of different versions of IP: give two of the same"
            ));
        }
        Ok(Ends {
            near: self.near.0,
            far: self.far.0,
            from,
            to,
        })
    }
}

/// Pins the thread, if it is to be.
fn pin_to(core: Option<usize>) -> Result<(), String> {
    core.map_or(Ok(()), |core| pin(core).map_err(|error| error.to_string()))
}

fn duration(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| format!("found {seconds} seconds, expected a number from 0: {error}"))
}

fn print(report: &Report, as_json: bool) -> Result<ExitCode, String> {
    let text = if as_json {
        report.to_json().to_string()
    } else {
        report.to_text()
    };
    say(&text, report.warning())
}

/// Prints the result, and why it says less than was asked, if it does.
fn say(text: &str, warning: Option<String>) -> Result<ExitCode, String> {
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())?;
    Ok(match warning {
        Some(warning) => {
            tell(&warning);
            ExitCode::from(LIMITED)
        }
        None => ExitCode::SUCCESS,
    })
}

/// One line on stderr.
fn tell(text: &str) {
    // Nobody is told of a stderr that is gone.
    let _told = writeln!(io::stderr(), "ringgate-bench: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_addresses_are_read_as_they_are_written() {
        assert_eq!("max".parse(), Ok(Rate(None)));
        assert_eq!("1000".parse(), Ok(Rate(Some(1000))));
        for wrong in ["0", "-1", "fast", ""] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
        let address = "02:00:00:00:01:02".parse();
        assert_eq!(address, Ok(HardwareAddress(Mac([2, 0, 0, 0, 1, 2]))));
        for wrong in ["", "02:00", "02:00:00:00:01:0g", "02:00:00:00:01:02:03"] {
            assert!(wrong.parse::<HardwareAddress>().is_err(), "{wrong:?}");
        }
    }
}
