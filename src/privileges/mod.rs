//! What the process may do, and when it gives up what it no longer needs.
//!
//! Steps, in the order of a start:
//! 1. [`begin`], before any thread: no program that is executed gains anything (`no_new_privs`), in every thread
//!    to come.
//! 2. [`Plan::new`], before an interface is touched: whom the configuration names is there, and can be become.
//! 3. [`give_up_all`], in each worker, where no user is to be become: a worker only calls `send`, `recv` and `poll` on
//!    sockets that it has, for which the kernel asks nothing.
//! 4. [`Plan::carry_out`], in the control thread, when all is up: the user and group of all threads (by which the
//!    workers lose every capability), then control's own capabilities down to [`KEPT`], then the filter of
//!    system calls on all threads.
//!
//! What is needed after that, and why: CAP_NET_ADMIN to have the kernel resolve neighbours, CAP_NET_RAW for checks by
//! ICMP; CAP_BPF where the kernel asks for it to change a map that is open (before 5.19). Sockets, programs and maps
//! are open by then, and nothing is bound anew while running.

mod held;
mod seccomp;

pub(crate) use held::held;

use std::io;

use nix::unistd::{Gid, Group, Uid, User};
use ringgate_config::Process;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::control::driver::DriverKind;

/// The capabilities that control keeps.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// From this kernel on an open BPF map can be changed by whoever has it open, whatever
/// `kernel.unprivileged_bpf_disabled` says (commit c8644cd0efe7).
const MAPS_BY_DESCRIPTOR: (u32, u32) = (5, 19);

/// Why privileges cannot be what the configuration wants.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    /// The name means nobody.
    #[error(
        "[process] {key} = \"{name}\": there is no such {key}; `useradd --system {name}`, or name another one"
    )]
    Unknown {
        /// `user` or `group`.
        key: &'static str,
        /// As in the file.
        name: String,
    },
    /// Only root becomes somebody else.
    #[error(
        "[process] user = \"{0}\": only root can become another user; start as root, or as that user with the \
         capabilities that `ringgate doctor` names, or leave it out"
    )]
    NotRoot(String),
    /// A step failed.
    #[error("cannot give up privileges: {step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The filter cannot be made.
    #[error("cannot confine system calls: {0}; leave [process] seccomp out")]
    Filter(String),
}

/// What is done when all is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    account: Option<(Uid, Gid)>,
    seccomp: bool,
}

/// Nothing that this process executes gains privileges. Call it before any thread is started.
///
/// # Errors
///
/// What the kernel says; none that is known of.
pub(crate) fn begin() -> Result<(), PrivilegeError> {
    rustix::thread::set_no_new_privs(true).map_err(at("no_new_privs"))
}

/// The calling thread gives up every capability.
///
/// # Errors
///
/// What the kernel says; giving up is always allowed.
pub(crate) fn give_up_all() -> io::Result<()> {
    Ok(keep(CapabilitySet::empty())?)
}

impl Plan {
    /// What `process` asks for, as far as the host has it.
    ///
    /// # Errors
    ///
    /// [`PrivilegeError`]: who is not there, or cannot be become.
    pub(crate) fn new(process: &Process) -> Result<Self, PrivilegeError> {
        let seccomp = process.seccomp();
        let Some(name) = process.user() else {
            return Ok(Self {
                account: None,
                seccomp,
            });
        };
        let unknown = |key, name: &str| PrivilegeError::Unknown {
            key,
            name: name.to_owned(),
        };
        let step = at("look up the user");
        let user = User::from_name(name).map_err(|errno| step(errno_of(errno)))?;
        let user = user.ok_or_else(|| unknown("user", name))?;
        let gid = match process.group() {
            None => user.gid,
            Some(name) => {
                let step = at("look up the group");
                let group = Group::from_name(name).map_err(|errno| step(errno_of(errno)))?;
                group.ok_or_else(|| unknown("group", name))?.gid
            }
        };
        let (own, own_group) = (Uid::effective(), Gid::effective());
        let account = Some((user.uid, gid));
        if (own, own_group) == (user.uid, gid) {
            return Ok(Self {
                account: None,
                seccomp,
            });
        }
        if !own.is_root() {
            return Err(PrivilegeError::NotRoot(name.to_owned()));
        }
        Ok(Self { account, seccomp })
    }

    /// Whether workers give up their capabilities themselves. Where the user changes they must not: all threads
    /// have to be allowed that, and lose theirs by it.
    pub(crate) const fn workers_give_up(&self) -> bool {
        self.account.is_none()
    }

    /// Gives up what is no longer needed. In the control thread, when everything is open and all threads run.
    ///
    /// # Errors
    ///
    /// [`PrivilegeError`]; the process should end then, since nobody knows what it holds.
    pub(crate) fn carry_out(self, driver: DriverKind, kernel: &str) -> Result<(), PrivilegeError> {
        let kept = kept(kernel);
        narrow_the_bounds(kept);
        if let Some((uid, gid)) = self.account {
            rustix::thread::set_keep_capabilities(true).map_err(at("keep capabilities"))?;
            // By the C library, which has every thread follow.
            let become_ = nix::unistd::setgroups(&[gid])
                .and_then(|()| nix::unistd::setresgid(gid, gid, gid))
                .and_then(|()| nix::unistd::setresuid(uid, uid, uid));
            become_.map_err(|errno| at("change user and group")(errno_of(errno)))?;
        }
        keep(kept).map_err(at("lower capabilities"))?;
        if self.account.is_some() {
            rustix::thread::set_keep_capabilities(false).map_err(at("keep capabilities"))?;
        }
        if self.seccomp {
            seccomp::confine(driver).map_err(PrivilegeError::Filter)?;
        }
        Ok(())
    }
}

/// The capabilities that control keeps on this kernel.
fn kept(kernel: &str) -> CapabilitySet {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= MAPS_BY_DESCRIPTOR => KEPT,
        _ => KEPT | CapabilitySet::BPF,
    }
}

/// The calling thread keeps those of its capabilities that are among `kept`, and hands none on to what it executes.
fn keep(kept: CapabilitySet) -> rustix::io::Result<()> {
    let held = rustix::thread::capabilities(None)?.permitted;
    let kept = held & kept;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// What is executed cannot get others either, not even root. Takes CAP_SETPCAP: without it `no_new_privs` alone must do.
fn narrow_the_bounds(kept: CapabilitySet) {
    let others = CapabilitySet::all().iter_names().map(|(_, one)| one);
    for capability in others.filter(|one| !kept.contains(*one)) {
        let result = rustix::thread::remove_capability_from_bounding_set(capability);
        if let Err(error) = result
            && error != rustix::io::Errno::INVAL
        {
            tracing::debug!(%error, "the bounding set stays as it is");
            return;
        }
    }
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> PrivilegeError {
    move |error| PrivilegeError::Step {
        step,
        source: error.into(),
    }
}

fn errno_of(errno: nix::errno::Errno) -> io::Error {
    errno.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(lines: &str) -> Process {
        let text = format!("[process]\n{lines}\n[[interface]]\nname = \"eth0\"\n");
        let model = ringgate_config::parse("test.toml", &text).unwrap().model;
        model.process().clone()
    }

    #[test]
    fn who_is_not_there_is_refused_by_name() {
        let nobody = Plan::new(&process("user = \"no-such-user\"")).unwrap_err();
        assert!(nobody.to_string().contains("no such user"), "{nobody}");
        let lines = "user = \"root\"\ngroup = \"no-such-group\"";
        let no_group = Plan::new(&process(lines)).unwrap_err();
        assert!(no_group.to_string().contains("no such group"), "{no_group}");
    }

    #[test]
    fn who_one_is_already_needs_no_change_and_workers_help_themselves() {
        let plain = Plan::new(&process("")).unwrap();
        assert!(plain.workers_give_up() && !plain.seccomp);
        let own = User::from_uid(Uid::effective()).unwrap().unwrap().name;
        let same = Plan::new(&process(&format!("user = \"{own}\"\nseccomp = true"))).unwrap();
        assert!(same.workers_give_up() && same.seccomp);
    }

    #[test]
    fn an_old_kernel_wants_one_more_capability_for_its_maps() {
        assert_eq!(kept("6.18.44"), KEPT);
        assert_eq!(kept("5.19.0"), KEPT);
        for old in ["5.18.3", "5.15.0-91-generic", "mystery"] {
            assert_eq!(kept(old), KEPT | CapabilitySet::BPF, "{old}");
        }
    }

    #[test]
    fn a_thread_gives_up_its_own_and_no_other_threads() {
        let before = rustix::thread::capabilities(None).unwrap();
        let after = std::thread::spawn(|| {
            give_up_all().unwrap();
            rustix::thread::capabilities(None).unwrap()
        });
        let none = CapabilitySet::empty();
        let after = after.join().unwrap();
        assert_eq!((after.effective, after.permitted), (none, none));
        assert_eq!(rustix::thread::capabilities(None).unwrap(), before);
    }
}
