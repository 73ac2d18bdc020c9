//! The `script` check: a program is run, and its exit status is the answer.
//!
//! It gets no shell, no terminal, no environment but what is listed here, and a process group of its own,
//! all of which is killed when it ends or its time does. Its end is seen by a pidfd, its output read from a
//! pipe: the beginning of the first line is kept, the rest thrown away. A process that leaves its group
//! (`setsid`) is not found again.
//!
//! At most [`MOST`] run at once; a check that finds no room is repeated shortly. One that does not die when
//! it is killed (it waits for a disk, perhaps) keeps its place until it does.

use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use ringgate_config::ScriptCheck;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};

use super::super::driver::{Failure, Operation, Outcome};
use super::super::health::{Reason, Verdict};
use super::complaint::Complaint;
use super::excerpt::Excerpt;
use super::{Lane, Step};

/// Scripts that run at once.
pub(super) const MOST: usize = 32;

/// Where programs are looked for by the script.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kept of the first line that is not blank, bytes.
const KEPT: usize = 128;

/// Read of it at once, bytes, and so often before the loop goes on.
const PIECE: (usize, u32) = (4_096, 16);

/// The machine.
#[derive(Debug)]
pub(super) struct Script {
    child: Child,
    output: OwnedFd,
    said: Vec<u8>,
    line_is_over: bool,
}

impl Script {
    /// Runs it; `None` when as many are running as may.
    ///
    /// # Errors
    /// When this host cannot.
    pub(super) fn begin(
        check: &ScriptCheck,
        address: SocketAddr,
        yard: &Yard,
    ) -> Option<Result<(Self, Step), Errno>> {
        let place = yard.place()?;
        Some(Self::spawn(check, address, place))
    }

    fn spawn(
        check: &ScriptCheck,
        address: SocketAddr,
        place: Place,
    ) -> Result<(Self, Step), Errno> {
        let (output, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let child = Child::spawn(check, address, &theirs, place)?;
        let waited_for = Operation::Readable {
            fd: rustix::io::fcntl_dupfd_cloexec(&child.pidfd, 0)?,
        };
        let heard = Operation::Readable {
            fd: rustix::io::fcntl_dupfd_cloexec(&output, 0)?,
        };
        let script = Self {
            child,
            output,
            said: Vec::new(),
            line_is_over: false,
        };
        Ok((script, Step::Both(waited_for, heard)))
    }

    /// The first lane waits for the end, the second for output.
    pub(super) fn completed(&mut self, lane: Lane, outcome: Outcome) -> Step {
        let Outcome::Readable { fd, result } = outcome else {
            return Step::Over(Verdict::Inconclusive(Errno::PROTO));
        };
        match (lane, result) {
            (_, Err(Failure::TimedOut)) => {
                self.hear();
                self.late()
            }
            (_, Err(Failure::Os(errno))) => Step::Over(Verdict::Inconclusive(errno)),
            (_, Err(Failure::Cancelled)) => Step::Over(Verdict::Inconclusive(Errno::CANCELED)),
            (Lane::First, Ok(())) => {
                self.hear();
                self.ended()
            }
            (Lane::Second, Ok(())) => {
                if self.hear() {
                    Step::Go(Operation::Readable { fd })
                } else {
                    Step::Wait
                }
            }
        }
    }

    /// Reads what there is. Whether more may come.
    fn hear(&mut self) -> bool {
        let (piece, times) = PIECE;
        let mut buffer = vec![0; piece];
        for _ in 0..times {
            match rustix::io::read(&self.output, &mut buffer[..]) {
                Ok(0) => return false,
                Ok(count) => self.keep(buffer.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.line_is_over {
            return;
        }
        for byte in bytes {
            let is_blank = self.said.iter().all(u8::is_ascii_whitespace);
            match byte {
                b'\n' if is_blank => self.said.clear(),
                b'\n' => self.line_is_over = true,
                _ if self.said.len() == KEPT => self.line_is_over = true,
                byte => self.said.push(*byte),
            }
            if self.line_is_over {
                return;
            }
        }
    }

    fn said(&self) -> Excerpt {
        if self.said.is_empty() {
            Excerpt::of(b"it said nothing")
        } else {
            Excerpt::of(self.said.trim_ascii())
        }
    }

    fn late(&self) -> Step {
        fails(Complaint::SlowScript(self.said()))
    }

    fn ended(&mut self) -> Step {
        match self.child.reap() {
            Some(End::Exited(0)) => Step::Over(Verdict::Success),
            Some(End::Exited(status)) => fails(Complaint::Exit(status, self.said())),
            Some(End::Killed(signal)) => fails(Complaint::Signal(signal, self.said())),
            None => Step::Over(Verdict::Inconclusive(Errno::CHILD)),
        }
    }
}

const fn fails(complaint: Complaint) -> Step {
    Step::Over(Verdict::Failure(Reason::Answer(complaint)))
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Exited(i32),
    Killed(i32),
}

/// A running program. Dropped, it and its group are killed.
#[derive(Debug)]
struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    /// `None` once its end is known.
    place: Option<Place>,
}

impl Child {
    fn spawn(
        check: &ScriptCheck,
        address: SocketAddr,
        output: &OwnedFd,
        place: Place,
    ) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let nothing = rustix::fs::open("/dev/null", flags, Mode::empty())?;
        let command = c_string(check.command.as_os_str().as_bytes())?;
        let mut arguments = vec![command.clone()];
        for argument in &check.arguments {
            arguments.push(c_string(OsStr::new(argument).as_bytes())?);
        }
        let environment = [
            c_string(PATH.as_bytes())?,
            c_string(format!("RINGGATE_ADDRESS={}", address.ip()).as_bytes())?,
            c_string(format!("RINGGATE_PORT={}", address.port()).as_bytes())?,
        ];
        let spawned = || -> nix::Result<nix::unistd::Pid> {
            let mut actions = PosixSpawnFileActions::init()?;
            actions.add_dup2(nothing.as_raw_fd(), 0)?;
            actions.add_dup2(output.as_raw_fd(), 1)?;
            actions.add_dup2(output.as_raw_fd(), 2)?;
            let mut attributes = PosixSpawnAttr::init()?;
            attributes.set_flags(
                PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                    | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                    | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
            )?;
            attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
            // The signals that this process takes by a descriptor are blocked here; not there.
            attributes.set_sigmask(&SigSet::empty())?;
            attributes.set_sigdefault(&SigSet::all())?;
            posix_spawn(
                command.as_c_str(),
                &actions,
                &attributes,
                &arguments,
                &environment,
            )
        };
        let pid = spawned().map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        // Children have numbers above 0.
        let pid = Pid::from_raw(pid.as_raw()).ok_or(Errno::CHILD)?;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self {
                pid,
                pidfd,
                place: Some(place),
            }),
            Err(errno) => {
                // Out of descriptors: nobody could wait for it.
                kill_process_group(pid, Signal::KILL).ok();
                waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).ok();
                Err(errno)
            }
        }
    }

    /// Its end, once it has come. Whatever it has left behind in its group is killed before: until the
    /// process itself is reaped, its group's number is nobody else's.
    fn reap(&mut self) -> Option<End> {
        kill_process_group(self.pid, Signal::KILL).ok();
        let end = reap(&self.pidfd)?;
        self.place = None;
        Some(end)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.place.is_none() || self.reap().is_some() {
            return;
        }
        if let (Some(place), Ok(pidfd)) = (
            self.place.take(),
            rustix::io::fcntl_dupfd_cloexec(&self.pidfd, 0),
        ) {
            let yard = Rc::clone(&place.0);
            yard.borrow_mut().dying.push((pidfd, place));
        }
    }
}

fn reap(pidfd: &OwnedFd) -> Option<End> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), options).ok()??;
    Some(match status.exit_status() {
        Some(code) => End::Exited(code),
        None => End::Killed(status.terminating_signal().unwrap_or_default()),
    })
}

fn c_string(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

/// How many run, and those that were killed and have not died yet.
#[derive(Debug, Default)]
pub(super) struct Yard(Rc<RefCell<Places>>);

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    dying: Vec<(OwnedFd, Place)>,
}

/// The right to run one.
#[derive(Debug)]
struct Place(Rc<RefCell<Places>>);

impl Yard {
    fn place(&self) -> Option<Place> {
        let mut places = self.0.borrow_mut();
        let (dead, dying) = std::mem::take(&mut places.dying)
            .into_iter()
            .partition(|(pidfd, _)| reap(pidfd).is_some());
        places.dying = dying;
        drop(places);
        drop::<Vec<_>>(dead);
        let mut places = self.0.borrow_mut();
        if places.taken >= MOST {
            return None;
        }
        places.taken += 1;
        drop(places);
        Some(Place(Rc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.borrow_mut().taken -= 1;
    }
}
