//! CPU placement of a worker, checked after the fact.

use core_affinity::CoreId;

/// Why a thread is not where it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The CPU is not one that this process may run on.
    #[error(
        "CPU {core} cannot be used: this process may run on {allowed:?}; choose cores from these \
         in [balancer] cores, or widen the process's CPU set (taskset, systemd CPUAffinity=, \
         cpuset cgroup)"
    )]
    NotAllowed {
        /// The CPU asked for.
        core: usize,
        /// The CPUs that the process may run on.
        allowed: Vec<usize>,
    },
    /// The kernel accepted the affinity and the thread still runs elsewhere.
    #[error("asked for CPU {asked}, but the thread runs on CPU {found}")]
    Elsewhere {
        /// The CPU asked for.
        asked: usize,
        /// The CPU it runs on.
        found: usize,
    },
}

/// The CPUs that this process may run on, in order.
#[must_use]
pub fn allowed_cores() -> Vec<usize> {
    core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect()
}

/// Moves the calling thread to `core` and makes sure that it is there.
///
/// # Errors
///
/// [`PinError`].
pub fn pin(core: usize) -> Result<(), PinError> {
    let allowed = allowed_cores();
    // Asked first, since the crate takes a number beyond the kernel's CPU set for a bug.
    if !allowed.contains(&core) || !core_affinity::set_for_current(CoreId { id: core }) {
        return Err(PinError::NotAllowed { core, allowed });
    }
    // A thread whose affinity has changed is moved before the call returns; its CPU is the
    // witness that the mask was really applied.
    match rustix::thread::sched_getcpu() {
        found if found == core => Ok(()),
        found => Err(PinError::Elsewhere { asked: core, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_moves_to_each_allowed_core() {
        let cores = allowed_cores();
        assert!(!cores.is_empty());
        for core in cores {
            std::thread::spawn(move || pin(core))
                .join()
                .unwrap()
                .unwrap();
        }
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused_with_the_choice() {
        let error = std::thread::spawn(|| pin(100_000))
            .join()
            .unwrap()
            .unwrap_err();
        assert_eq!(
            error,
            PinError::NotAllowed {
                core: 100_000,
                allowed: allowed_cores()
            }
        );
    }
}
