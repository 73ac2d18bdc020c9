//! Checks that go the way of the traffic: the device that they need, and what is carried for them.

use std::time::Instant;

use ringgate_config::Model;
use rustix::io::Errno;

use super::{Steward, Token};
use crate::control::health::Start;
use crate::control::truepath::{Door, NoDevice, Scene, is_local, is_wanted};
use crate::log::limited;

impl Steward {
    /// Has the device made if a configuration asks for it.
    pub(super) fn want_path(&mut self, model: &Model) -> Result<(), NoDevice> {
        if is_wanted(model) && self.truepath.want(true, false)? {
            self.listen_to_path();
        }
        Ok(())
    }

    /// Has the device taken back if the configuration in force does not ask for it, and made again if somebody has
    /// removed it.
    pub(super) fn keep_path(&mut self) {
        match self.truepath.want(is_wanted(&self.model), false) {
            Ok(true) => self.listen_to_path(),
            Ok(false) => {}
            Err(error) => limited!(error, %error, "checks via services cannot be made"),
        }
    }

    /// Waits for packets in the device.
    pub(super) fn listen_to_path(&mut self) {
        match self.truepath.descriptor() {
            None => {}
            Some(Ok((serial, fd))) => self.listen(Token::Path(serial), fd),
            Some(Err(error)) => limited!(error, %error, "cannot wait for checks' packets"),
        }
    }

    /// There are packets in the device with this number, or it is gone.
    pub(super) fn hear_of_path(&mut self, serial: u32, fd: std::os::fd::OwnedFd, now: Instant) {
        self.carry_checks(now);
        if self.truepath.has(serial) {
            self.listen(Token::Path(serial), fd);
        }
    }

    /// Carries what checks have sent.
    pub(super) fn carry_checks(&mut self, now: Instant) {
        self.truepath.release(self.prober.take_callers());
        let (ports, network) = (&self.ports, self.watcher.network());
        let scene = Scene {
            snapshot: &self.snapshot,
            ids: &|backend| self.builder.id_of(backend),
            ifindex: &|port| ports.ifindex(port, network),
            now,
        };
        match self.truepath.carry_on(&scene) {
            Ok(wanted) => self.ask_for(wanted),
            Err(error) => {
                limited!(warn, %error, "somebody has removed the device of checks via services; it is made again");
            }
        }
    }

    /// The socket of a check whose packets take a path of their own; `None` where they do not.
    pub(super) fn door(&mut self, start: &Start) -> Result<Option<Door>, Errno> {
        let Some(path) = &start.path else {
            return Ok(None);
        };
        let is_local = is_local(self.watcher.network(), path.asked.ip());
        let door = self
            .truepath
            .socket(&start.check, path, &self.fib, is_local)?;
        Ok(Some(door))
    }
}
