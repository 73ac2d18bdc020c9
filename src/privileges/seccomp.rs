//! The system calls that a running balancer uses, and no others (seccomp(2), by option).
//!
//! The list was found by tracing every end-to-end test over both drivers, after the start. What is not on it fails
//! with EPERM: a call that a later C library makes costs what it was for, and not the traffic of every client. What an
//! intruder would want is not there: executing, memory that can be executed, other kinds of sockets, loading programs,
//! making maps, tracing, mounting, changing identities, starting threads.
//!
//! Operations that are submitted by io_uring pass this filter by: `RINGGATE_DRIVER=epoll` is the closer confinement.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule,
};

use crate::control::driver::DriverKind;
use crate::control::truepath::TUNSETIFF;

/// Calls that are allowed whatever their arguments.
const PLAIN: &[i64] = &[
    // Descriptors, files: the configuration, /proc and /sys, the admin socket's end.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_openat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    // Sockets that are there; making some has conditions.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    // Memory, threads, signals: of the language's and the C library's runtime.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The same where the architecture has older forms, too.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Commands of bpf(2) that work on what is open: look up, update and delete elements, the next key, what an object is, in
/// batches too (linux/bpf.h). Not: making maps, loading and attaching programs.
const BPF_COMMANDS: [u64; 9] = [1, 2, 3, 4, 15, 24, 25, 26, 27];

/// Kinds of sockets: family, type, protocol. Without a protocol: any. Checks, the admin socket, the service manager;
/// ICMP as ping(8) does it.
const SOCKETS: [(i32, i32, Option<i32>); 10] = [
    (libc::AF_UNIX, libc::SOCK_STREAM, None),
    (libc::AF_UNIX, libc::SOCK_DGRAM, None),
    (libc::AF_INET, libc::SOCK_STREAM, None),
    (libc::AF_INET, libc::SOCK_DGRAM, None),
    (libc::AF_INET, libc::SOCK_RAW, Some(libc::IPPROTO_ICMP)),
    (libc::AF_INET6, libc::SOCK_STREAM, None),
    (libc::AF_INET6, libc::SOCK_DGRAM, None),
    (libc::AF_INET6, libc::SOCK_RAW, Some(libc::IPPROTO_ICMPV6)),
    // Both are one to the kernel: the C library opens the first, our own requests go by the second.
    (libc::AF_NETLINK, libc::SOCK_RAW, Some(libc::NETLINK_ROUTE)),
    (
        libc::AF_NETLINK,
        libc::SOCK_DGRAM,
        Some(libc::NETLINK_ROUTE),
    ),
];

/// Type without SOCK_NONBLOCK and SOCK_CLOEXEC (include/linux/net.h, SOCK_TYPE_MASK).
const TYPE_MASK: u64 = 0xf;

/// Confines every thread of this process, and those to come.
///
/// # Errors
///
/// In words: the kernel has no seccomp, or a thread is confined otherwise already.
pub(super) fn confine(driver: DriverKind) -> Result<(), String> {
    let program = filter(driver)?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

fn filter(driver: DriverKind) -> Result<BpfProgram, String> {
    let failed = |error: seccompiler::BackendError| error.to_string();
    let mut rules: BTreeMap<i64, Vec<Rule>> = BTreeMap::new();
    for call in PLAIN.iter().chain(OLDER) {
        rules.insert(*call, Vec::new());
    }
    if driver == DriverKind::IoUring {
        rules.insert(libc::SYS_io_uring_enter, Vec::new());
        rules.insert(libc::SYS_io_uring_register, Vec::new());
    }
    // Its own limits: a reload may need more descriptors, within what it was given.
    let own = rule([is(0, 0)]).map_err(failed)?;
    rules.insert(libc::SYS_prlimit64, vec![own]);
    // A device for checks via services, should a reload ask for one.
    let tun = rule([is(1, TUNSETIFF.into())]).map_err(failed)?;
    rules.insert(libc::SYS_ioctl, vec![tun]);
    let mut commands = Vec::new();
    for command in BPF_COMMANDS {
        commands.push(rule([is(0, command)]).map_err(failed)?);
    }
    rules.insert(libc::SYS_bpf, commands);
    let mut sockets = Vec::new();
    for (family, kind, protocol) in SOCKETS {
        let mut all = vec![is(0, word(family))];
        all.push(Condition::new(
            1,
            Length::Dword,
            Compare::MaskedEq(TYPE_MASK),
            word(kind),
        ));
        all.extend(protocol.map(|protocol| is(2, word(protocol))));
        sockets.push(rule(all).map_err(failed)?);
    }
    rules.insert(libc::SYS_socket, sockets);
    // Memory, but none that can be executed. A mask of one bit: the value is what it is to be.
    let inexecutable = |call| {
        let bit = Condition::new(
            2,
            Length::Dword,
            Compare::MaskedEq(word(libc::PROT_EXEC)),
            0,
        );
        rule([bit]).map(|rule| (call, vec![rule])).map_err(failed)
    };
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.extend([inexecutable(call)?]);
    }
    let architecture = std::env::consts::ARCH.try_into().map_err(failed)?;
    // What is known is allowed, all else refused.
    let (refuse, allow) = (SeccompAction::Errno(EPERM), SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, refuse, allow, architecture).map_err(failed)?;
    filter.try_into().map_err(failed)
}

/// `libc::EPERM`, as the filter wants it.
const EPERM: u32 = libc::EPERM.unsigned_abs();

type Made<T> = Result<T, seccompiler::BackendError>;

fn is(argument: u8, value: u64) -> Made<Condition> {
    Condition::new(argument, Length::Dword, Compare::Eq, value)
}

fn rule(conditions: impl IntoIterator<Item = Made<Condition>>) -> Made<Rule> {
    Rule::new(conditions.into_iter().collect::<Made<Vec<Condition>>>()?)
}

/// Constants of sockets are small and positive.
const fn word(number: i32) -> u64 {
    number.unsigned_abs() as u64
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};

    use super::*;

    /// A filter stays: another process has it, with a second thread that was there before.
    #[test]
    fn what_is_not_needed_is_refused_in_every_thread() {
        for driver in ["io_uring", "epoll"] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let name = "privileges::seccomp::tests::confined";
            command.args(["--exact", name, "--ignored", "--nocapture"]);
            let output = command
                .env("RINGGATE_TEST_DRIVER", driver)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{driver}: {text}{complaint}");
            assert!(text.contains("1 passed"), "{text}");
        }
    }

    #[test]
    #[ignore = "is run by what_is_not_needed_is_refused_in_every_thread, in a process of its own"]
    fn confined() {
        let driver = match std::env::var("RINGGATE_TEST_DRIVER").as_deref() {
            Ok("epoll") => DriverKind::Epoll,
            _ => DriverKind::IoUring,
        };
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let (up, is_up) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            up.send(()).unwrap();
            begun.recv().unwrap();
            refused()
        });
        is_up.recv().unwrap();
        rustix::thread::set_no_new_privs(true).unwrap();
        confine(driver).unwrap();
        begin.send(()).unwrap();
        refused();
        other.join().unwrap();
        // What a running balancer does goes on.
        let file = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(file.contains("Seccomp:\t2"), "{file}");
        for family in [
            AddressFamily::INET,
            AddressFamily::INET6,
            AddressFamily::UNIX,
        ] {
            for kind in [SocketType::STREAM, SocketType::DGRAM] {
                socket(family, kind, None).unwrap();
            }
        }
        let mut bytes = [0; 8];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    }

    /// Each of these is allowed to root without the filter.
    fn refused() {
        let raw = |family, protocol| socket(family, SocketType::RAW, Some(protocol)).err();
        assert_eq!(raw(AddressFamily::INET, ipproto::TCP), Some(Errno::PERM));
        assert_eq!(raw(AddressFamily::INET, ipproto::RAW), Some(Errno::PERM));
        for family in [
            AddressFamily::PACKET,
            AddressFamily::XDP,
            AddressFamily::VSOCK,
        ] {
            assert_eq!(
                socket(family, SocketType::RAW, None).err(),
                Some(Errno::PERM)
            );
        }
        let executed = Command::new("/bin/true").status();
        assert_eq!(executed.unwrap_err().raw_os_error(), Some(libc::EPERM));
        let thread = std::thread::Builder::new().spawn(|| ());
        assert_eq!(thread.unwrap_err().raw_os_error(), Some(libc::EPERM));
        let change = std::os::unix::fs::chroot("/");
        assert_eq!(change.unwrap_err().raw_os_error(), Some(libc::EPERM));
        let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS);
        assert_eq!(unshared, Err(nix::errno::Errno::EPERM));
    }
}
