//! The control thread: one loop, one driver, bounded work per turn.
#![cfg_attr(not(test), expect(dead_code, reason = "wired by the control loop"))]

pub(crate) mod clock;
pub(crate) mod driver;
pub(crate) mod epoll;
pub(crate) mod health;
pub(crate) mod netlink;
pub(crate) mod probe;
pub(crate) mod ring;
pub(crate) mod slab;
