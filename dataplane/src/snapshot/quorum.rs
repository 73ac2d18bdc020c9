//! Whether enough backends of a service are up, and what is done about it if not.
//!
//! Two bounds, both for the service as a whole:
//!
//! - **Too few healthy**: fewer than `min-healthy`. Then all that could serve are used (open), or none
//!   gets new flows (closed).
//! - **Too many suspect**: suspicion comes from traffic, which anybody can send. It is heeded while
//!   at least as many backends are beyond suspicion as are under it, and at least `min-healthy` are.
//!   Beyond that none is: trouble that most backends seem to have is the clients', the network's, or
//!   made. A suspect counts as healthy, for its last check has succeeded.

use ringgate_config::Service;

use super::standing::Standing;
use crate::backend::BackendState;

/// What holds for a service as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Quorum {
    /// Backends that are up or suspect.
    pub(super) healthy: usize,
    /// How many must be.
    pub(super) needed: usize,
    /// Fewer are, and those that could be are sent to all the same.
    pub(super) fallen_open: bool,
    /// Fewer are, and none gets new flows.
    pub(super) fallen_closed: bool,
    /// There are suspects, and they are treated as if there were none.
    pub(super) trusts_suspects: bool,
}

impl Quorum {
    /// Sets the states that workers see, of a service's backends in file order.
    pub(super) fn settle(service: &Service, each: &mut [Standing]) -> Self {
        use BackendState::{Down, Pending, Suspect, Up};
        let count = |state| each.iter().filter(|one| one.known == state).count();
        let (up, suspects) = (count(Up), count(Suspect));
        let backends = service.backends().iter();
        let needed = service.needs_healthy(backends.filter(|one| is_usable(one)).count());
        let healthy = up + suspects;
        let is_below = healthy < needed;
        let opens = is_below && service.fails_open();
        let trusts_suspects = suspects > 0 && (up < needed || up < suspects);
        let mut fallen_open = false;
        for (one, backend) in each.iter_mut().zip(service.backends()) {
            let is_fallen = opens && matches!(one.known, Down | Pending) && is_usable(backend);
            // Better a backend that may be down than none, or too few.
            fallen_open |= is_fallen;
            if is_fallen || (trusts_suspects && one.known == Suspect) {
                one.state = Up;
            }
        }
        Self {
            healthy,
            needed,
            fallen_open,
            fallen_closed: is_below && !opens && healthy > 0,
            trusts_suspects,
        }
    }
}

/// Whether a backend could get new flows.
fn is_usable(backend: &ringgate_config::Backend) -> bool {
    !backend.disabled() && backend.weight() > 0
}
