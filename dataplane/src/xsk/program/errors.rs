//! Why the steering program could not be put on an interface, or told something, with what to do.

use std::io;

use aya::maps::MapError;
use thiserror::Error;

use super::XdpMode;

/// Why the steering program could not be put on an interface.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such interface here.
    #[error(
        "{interface}: no such interface in this network namespace; `ip link` shows those there \
         are"
    )]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// Another program is there.
    #[error(
        "{interface}: another XDP program is attached ({source}); `bpftool net` shows which. If \
         it was left behind by a crash, `ip link set dev {interface} xdp off` removes it (and \
         `xdpgeneric off` one in generic mode); if it belongs to another ringgate, stop that \
         one"
    )]
    Taken {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device or its driver cannot, in this mode.
    #[error("{interface}: no {mode} XDP here ({source}): {cure}")]
    Unsupported {
        /// Interface name.
        interface: String,
        /// Mode tried.
        mode: XdpMode,
        /// What the operator can change.
        cure: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process may not do this.
    #[error(
        "{interface}: loading XDP programs is not permitted ({source}). Run as root, or with \
         CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (systemd: AmbientCapabilities=)"
    )]
    Permission {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused the program or its maps.
    #[error(
        "{interface}: the kernel did not load the steering program: {found}. It needs Linux 5.9 \
         or later with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS; report it with `uname -r` if \
         that is what it is"
    )]
    Load {
        /// Interface name.
        interface: String,
        /// What was found, with the verifier's words.
        found: String,
    },
    /// The kernel refused the link in another way.
    #[error("{interface}: attaching in {mode} mode failed: {source}; `dmesg` may say why")]
    Attach {
        /// Interface name.
        interface: String,
        /// Mode tried.
        mode: XdpMode,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a map of the steering program could not be changed or read.
#[derive(Debug, Error)]
#[error("steering program of {interface}: map `{map}`: {found}")]
pub struct SteerError {
    pub(super) interface: String,
    pub(super) map: &'static str,
    pub(super) found: String,
}

/// What the kernel's refusal to attach means.
pub(super) fn refused(interface: String, mode: XdpMode, source: io::Error) -> AttachError {
    let cure = match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => return AttachError::Taken { interface, source },
        Some(libc::EPERM | libc::EACCES) => return AttachError::Permission { interface, source },
        Some(libc::ENODEV) => return AttachError::NoInterface { interface },
        Some(libc::EOPNOTSUPP) => {
            "its driver has no native XDP; mode \"generic\" works on every device"
        }
        Some(libc::ENOSPC) => {
            "on a veth it has fewer receive queues than its peer has transmit queues; make them \
            equal with `ethtool -L`"
        }
        Some(libc::ERANGE) => {
            "the MTU is too large for a packet in one page (on a veth, of the peer); lower it to \
            1500, or use mode \"generic\""
        }
        Some(libc::EINVAL) => {
            "a feature of the device is in the way, such as large receive offload (`ethtool -K \
            lro off`), or the kernel is older than 5.9"
        }
        _ => {
            return AttachError::Attach {
                interface,
                mode,
                source,
            };
        }
    };
    AttachError::Unsupported {
        interface,
        mode,
        cure,
        source,
    }
}

pub(super) fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// The refusal, if somewhere under `error` is one of permission.
pub(super) fn permission(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let errno = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if let Some(errno @ (libc::EPERM | libc::EACCES)) = errno {
            return Some(io::Error::from_raw_os_error(errno));
        }
        next = error.source();
    }
    None
}

/// An error with all that lies under it.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let below = error.to_string();
        if !text.contains(&below) {
            text = format!("{text}: {below}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_their_cure() {
        let refuse = |errno| {
            refused(
                "eth9".into(),
                XdpMode::Native,
                io::Error::from_raw_os_error(errno),
            )
            .to_string()
        };
        assert!(refuse(libc::EBUSY).contains("ip link set dev eth9 xdp off"));
        assert!(refuse(libc::EEXIST).contains("bpftool net"));
        assert!(refuse(libc::EOPNOTSUPP).contains("generic"));
        assert!(refuse(libc::ENOSPC).contains("queues"));
        assert!(refuse(libc::ERANGE).contains("MTU"));
        assert!(refuse(libc::EPERM).contains("CAP_BPF"));
        assert!(refuse(libc::EIO).contains("native mode failed"));
    }
}
