//! What the service manager is told (`sd_notify(3)`): ready, reloading, stopping, alive.
//!
//! Without a service manager (no `NOTIFY_SOCKET`) every call does nothing. One that cannot be reached is
//! logged once and never stops the balancer: it forwards packets, whether systemd hears of it or not.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// The connection to the service manager.
#[derive(Debug)]
pub(crate) struct Notifier {
    /// Half of the time after which the service manager takes us for dead, if it watches.
    watchdog: Option<Duration>,
    /// The first failure has been logged.
    failed: bool,
}

impl Notifier {
    /// Reads the environment that the service manager has set.
    pub(crate) fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self {
            watchdog,
            failed: false,
        }
    }

    /// How often to call [`Notifier::alive`], if at all: half of `WatchdogSec=`, as sd_watchdog_enabled(3)
    /// recommends.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Everything is up, or the reload is over (also when the new file was refused: the old one serves).
    /// The line is shown by `systemctl status`.
    pub(crate) fn ready(&mut self, line: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(line)]);
    }

    /// A reload begins; [`Notifier::ready`] must follow.
    pub(crate) fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            // `Type=notify-reload` wants the time, to tell our answer from an older one.
            Ok(time) => self.tell(&[NotifyState::Reloading, time]),
            Err(error) => self.note(Err(error)),
        }
    }

    /// The end has begun.
    pub(crate) fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// The loop turns.
    pub(crate) fn alive(&mut self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&mut self, state: &[NotifyState<'_>]) {
        self.note(sd_notify::notify(state));
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result
            && !self.failed
        {
            self.failed = true;
            tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be told; going on");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    /// The environment belongs to the process: another one plays the balancer.
    #[test]
    fn the_service_manager_hears_all_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "control::notify::tests::played_balancer",
                "--ignored",
            ])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "3000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap()
            .status;
        assert!(status.success());
        let hear = || {
            let mut bytes = [0; 512];
            let length = manager.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        assert_eq!(hear(), "READY=1\nSTATUS=2 services\n");
        let reloading = hear();
        assert!(
            reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reloading}"
        );
        assert_eq!(hear(), "WATCHDOG=1\n");
        assert_eq!(hear(), "STOPPING=1\n");
    }

    #[test]
    #[ignore = "is run by the_service_manager_hears_all_of_it, which sets its environment"]
    fn played_balancer() {
        let mut notifier = Notifier::new();
        if std::env::var_os("WATCHDOG_USEC").is_some() {
            assert_eq!(notifier.watchdog(), Some(Duration::from_millis(1500)));
        }
        notifier.ready("2 services");
        notifier.reloading();
        notifier.alive();
        notifier.stopping();
        assert!(!notifier.failed);
    }

    #[test]
    fn a_failure_is_swallowed() {
        let mut notifier = Notifier {
            watchdog: None,
            failed: false,
        };
        notifier.note(Err(io::ErrorKind::NotFound.into()));
        notifier.note(Err(io::ErrorKind::NotFound.into()));
        assert!(notifier.failed);
    }
}
