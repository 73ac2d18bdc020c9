//! How a snapshot reaches the workers, and how the old one goes.
//!
//! One [`Mailbox`] per worker. Control posts a snapshot and moves the generation on; the worker
//! compares one word between batches and takes the lock only when it has moved. The snapshot it
//! gives up goes back through the mailbox, so that freeing it is control's work, never a
//! worker's.
//!
//! | word | writer | ordering | partner |
//! |---|---|---|---|
//! | `generation` | control, after filling `next` | Release | worker's Acquire before it locks |
//! | `adopted` | worker, after it moved on | Release | control's Acquire in `has_adopted` |
//! | `stop` | control, once | Release | worker's Acquire between batches |
//! | `taps` | control, after filling `tap` | Release | worker's Acquire before it locks |
//!
//! A tap goes the same way, there and back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::snapshot::Snapshot;
use crate::tap::Tapping;

/// The letterbox between control and one worker.
#[derive(Debug, Default)]
pub struct Mailbox {
    generation: AtomicU64,
    adopted: AtomicU64,
    stop: AtomicBool,
    exchange: Mutex<Exchange>,
    /// How many times a tap was posted or called back.
    taps: AtomicU64,
    tap: Mutex<TapExchange>,
}

/// A tap on its way.
#[derive(Debug, Default)]
struct TapExchange {
    next: Option<Box<Tapping>>,
    given_up: Option<Box<Tapping>>,
}

#[derive(Debug, Default)]
struct Exchange {
    next: Option<Arc<Snapshot>>,
    /// At most one: nothing more is given up before the next post takes it away.
    given_up: Option<Arc<Snapshot>>,
}

impl Mailbox {
    /// Control: posts `snapshot` and frees those that the worker gave up.
    pub fn post(&self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        exchange.next = Some(snapshot);
        let given_up = exchange.given_up.take();
        drop(exchange);
        // Release: whoever sees the generation sees `next` filled (the mutex alone would do;
        // the pair documents it).
        self.generation.store(generation, Ordering::Release);
        drop(given_up);
    }

    /// Control: whether the worker works with `generation` or a later one.
    #[must_use]
    pub fn has_adopted(&self, generation: u64) -> bool {
        // Acquire: partner of the store in `adopt`.
        self.adopted.load(Ordering::Acquire) >= generation
    }

    /// Control: tells the worker to finish its batch and return.
    pub fn stop(&self) {
        // Release: partner of the load in `must_stop`.
        self.stop.store(true, Ordering::Release);
    }

    /// Control: gives the worker this tap instead of the one that it has; `None`: calls that back.
    pub fn post_tap(&self, tapping: Option<Box<Tapping>>) {
        let mut exchange = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        let unseen = std::mem::replace(&mut exchange.next, tapping);
        let given_up = exchange.given_up.take();
        drop(exchange);
        // Release: partner of the load in `adopt_tap`. The mutex alone would do.
        self.taps.fetch_add(1, Ordering::Release);
        drop((unseen, given_up));
    }

    /// Control: frees the tap that the worker has given up, if it has.
    pub fn free_tap(&self) {
        let mut exchange = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        let given_up = exchange.given_up.take();
        drop(exchange);
        drop(given_up);
    }

    /// Worker, between batches: replaces `current` if control has posted or called back since `seen`.
    #[inline]
    pub fn adopt_tap(&self, seen: &mut u64, current: &mut Option<Box<Tapping>>) {
        // Acquire: partner of the add in `post_tap`.
        let posted = self.taps.load(Ordering::Acquire);
        if posted != *seen {
            *seen = posted;
            self.exchange_tap(current);
        }
    }

    #[cold]
    #[inline(never)]
    fn exchange_tap(&self, current: &mut Option<Box<Tapping>>) {
        let mut exchange = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(current, exchange.next.take());
        // At most one: whoever posts takes the last one away.
        if old.is_some() {
            exchange.given_up = old;
        }
    }

    /// Worker: whether control wants it to return.
    #[inline]
    #[must_use]
    pub fn must_stop(&self) -> bool {
        // Acquire: partner of the store in `stop`.
        self.stop.load(Ordering::Acquire)
    }

    /// Worker, between batches: replaces `current` if a newer snapshot was posted.
    #[inline]
    pub fn adopt(&self, current: &mut Arc<Snapshot>) {
        // Acquire: partner of the store in `post`.
        if self.generation.load(Ordering::Acquire) > current.generation {
            self.exchange(current);
        }
    }

    #[cold]
    fn exchange(&self, current: &mut Arc<Snapshot>) {
        let mut exchange = self.exchange.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = exchange.next.take() {
            let old = std::mem::replace(current, next);
            exchange.given_up = Some(old);
        }
        drop(exchange);
        // Release: partner of the load in `has_adopted`.
        self.adopted.store(current.generation, Ordering::Release);
    }
}
