//! The log: for people, for programs, for the journal.
//!
//! Every change of state is logged, whatever its number: a backend that goes down, a reload, a drain. No packet ever
//! is. What can repeat as fast as the loop turns goes through [`limited!`], which tells how many it has withheld.
//!
//! Standard error is where it goes. Where that is the journal's (`JOURNAL_STREAM`, systemd.exec(5)) a line has its
//! weight in front, as sd-daemon(3) says it, and no time, which the journal has itself.

mod limit;

pub(crate) use limit::{Limit, limited};

use std::fmt;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;

use ringgate_config::{Log, LogFormat};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// What flows are told under, see [`chronicle`](crate::control::chronicle).
pub(crate) const FLOWS: &str = "flow";

/// Begins. `RUST_LOG`, where it is set and makes sense, goes before the configured level.
pub(crate) fn start(log: &Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        // Flows are told where somebody has asked for them, whatever else is left out.
        EnvFilter::new(format!("{},{FLOWS}=info", log.level().as_str()))
    });
    let log_to = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    let variable = std::env::var("JOURNAL_STREAM").ok();
    match log.format() {
        LogFormat::Json => log_to.json().flatten_event(true).init(),
        LogFormat::Text if is_journal(variable.as_deref(), std::io::stderr()) => {
            log_to.event_format(ForJournal::default()).init();
        }
        LogFormat::Text => {
            log_to.with_ansi(std::io::stderr().is_terminal()).init();
        }
    }
}

/// Whether this file is the one that the variable names, by device and inode.
fn is_journal(variable: Option<&str>, file: impl AsFd) -> bool {
    let Some((device, inode)) = variable.and_then(|text| text.split_once(':')) else {
        return false;
    };
    rustix::fs::fstat(file)
        .is_ok_and(|is| device.parse() == Ok(is.st_dev) && inode.parse() == Ok(is.st_ino))
}

/// The weight, then the event without time and level.
#[derive(Debug)]
struct ForJournal(Format<Full, ()>);

impl Default for ForJournal {
    fn default() -> Self {
        let plain = Format::default().without_time();
        Self(plain.with_target(false).with_level(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// As syslog(3) counts.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let is = rustix::fs::fstat(&file).unwrap();
        let name = format!("{}:{}", is.st_dev, is.st_ino);
        assert!(is_journal(Some(&name), &file));
        let other = tempfile::tempfile().unwrap();
        assert!(
            !is_journal(Some(&name), &other),
            "somebody has redirected it"
        );
        for nonsense in [None, Some(""), Some("8"), Some("a:b"), Some(":")] {
            assert!(!is_journal(nonsense, &file), "{nonsense:?}");
        }
    }

    #[test]
    fn weights_are_syslogs() {
        let levels = [
            Level::ERROR,
            Level::WARN,
            Level::INFO,
            Level::DEBUG,
            Level::TRACE,
        ];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }
}
