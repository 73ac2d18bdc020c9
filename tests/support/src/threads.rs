//! Threads of a fixture, which end when the fixture is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often a thread looks whether it shall stop.
pub(crate) const GLANCE: Duration = Duration::from_millis(50);

/// Threads that end when dropped.
#[derive(Debug)]
pub(crate) struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn new() -> Self {
        Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        }
    }

    /// Starts one more; its work shall end soon after [`goes_on`] says no.
    pub(crate) fn add(&mut self, work: impl FnOnce(&AtomicBool) + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(std::thread::spawn(move || work(&stop)));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Relaxed: nothing but the flag is handed over.
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic, if any, is on standard error already.
            drop(thread.join());
        }
    }
}

pub(crate) fn goes_on(stop: &AtomicBool) -> bool {
    // Relaxed: nothing but the flag is handed over.
    !stop.load(Ordering::Relaxed)
}
