//! The facade over atomics: the standard library's, or loom's under `--cfg lb_loom`, so that the
//! shipping protocol and the one that loom explores are the same code.

#[cfg(lb_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(lb_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

/// One turn of a bounded wait for another thread's few stores.
#[inline]
pub(crate) fn relax() {
    #[cfg(lb_loom)]
    loom::thread::yield_now();
    #[cfg(not(lb_loom))]
    std::hint::spin_loop();
}
