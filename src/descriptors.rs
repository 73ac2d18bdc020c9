//! How many files this process may have open, and how many its checks need.
//!
//! Each check under way has a socket. A process gets 1,024 descriptors unless told otherwise
//! (`RLIMIT_NOFILE`), and may raise that itself up to a hard limit. It is raised to what is needed and no
//! further: programs that a `script` check runs inherit it, and some of them try every number below it.

use ringgate_config::Model;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::control::checks::count;
use crate::control::probe::SCRIPTS_MAX;
use crate::preflight::Finding;

/// What everything else has open at most: sockets and maps of the data plane, the admin socket's
/// connections, netlink, logs.
const OTHERS: u64 = 1_024;

/// Of each script: a pidfd, a pipe, and what waits for both.
const EACH_SCRIPT: u64 = 4;

const SUBJECT: &str = "open files";

/// The two limits; `None`: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// What is allowed now.
    pub(crate) soft: Option<u64>,
    /// Up to where this process may raise it.
    pub(crate) hard: Option<u64>,
}

impl Limits {
    /// This process's.
    pub(crate) fn gather() -> Self {
        let Rlimit {
            current, maximum, ..
        } = getrlimit(Resource::Nofile);
        Self {
            soft: current,
            hard: maximum,
        }
    }
}

/// The descriptors that a configuration needs.
pub(crate) fn needed(model: &Model) -> u64 {
    count(model) as u64 + SCRIPTS_MAX as u64 * EACH_SCRIPT + OTHERS
}

/// Judges the limits for `model`.
pub(crate) fn judge(model: &Model, limits: Limits) -> Finding {
    let needed = needed(model);
    match limits.hard {
        Some(hard) if hard < needed => Finding::warning(
            SUBJECT,
            format!("at most {hard}"),
            format!("{needed}, with every check under way"),
            format!("LimitNOFILE={needed} in the systemd unit, or ulimit -Hn {needed}"),
        ),
        _ => Finding::good(SUBJECT, format!("{needed} can be had")),
    }
}

/// Raises the soft limit to what `model` needs, as far as it goes.
pub(crate) fn raise(model: &Model) {
    let Limits { soft, hard } = Limits::gather();
    let Some(wanted) = wanted(needed(model), Limits { soft, hard }) else {
        return;
    };
    let limits = Rlimit {
        current: Some(wanted),
        maximum: hard,
    };
    if let Err(error) = setrlimit(Resource::Nofile, limits) {
        tracing::warn!(%error, wanted, "cannot raise the limit of open files");
    }
}

/// What the soft limit is to become; `None`: it may stay.
fn wanted(needed: u64, limits: Limits) -> Option<u64> {
    let soft = limits.soft?;
    let wanted = needed.min(limits.hard.unwrap_or(u64::MAX));
    (wanted > soft).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Level;

    fn model() -> Model {
        let mut text = "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"a\"\n\
            listen = \"10.0.0.1:80\"\nprotocol = \"tcp\"\nforward = \"nat\"\n\
            health = { kind = \"tcp\" }\n"
            .to_owned();
        for number in 0..100 {
            text += &format!("[[service.backend]]\naddress = \"10.2.0.{number}\"\n");
        }
        ringgate_config::parse("test", &text).unwrap().model
    }

    #[test]
    fn each_check_needs_a_descriptor_and_a_low_hard_limit_is_told() {
        let model = model();
        assert_eq!(needed(&model), 100 + 32 * 4 + 1_024);
        let limits = |hard| Limits {
            soft: Some(1_024),
            hard,
        };
        assert_eq!(judge(&model, limits(None)).level, Level::Good);
        assert_eq!(judge(&model, limits(Some(1_252))).level, Level::Good);
        let low = judge(&model, limits(Some(1_251)));
        assert_eq!(low.level, Level::Warning);
        assert!(low.cure.contains("LimitNOFILE=1252"), "{low}");
    }

    #[test]
    fn the_soft_limit_only_rises_and_not_beyond_the_hard_one() {
        let wanted = |soft, hard| wanted(2_000, Limits { soft, hard });
        assert_eq!(wanted(Some(1_024), Some(4_096)), Some(2_000));
        assert_eq!(wanted(Some(1_024), Some(1_500)), Some(1_500));
        assert_eq!(wanted(Some(1_024), None), Some(2_000));
        assert_eq!(wanted(Some(2_000), Some(4_096)), None);
        assert_eq!(wanted(Some(9_000), Some(9_000)), None);
        assert_eq!(wanted(None, None), None);
    }
}
