//! A crowd: visitors who keep coming, until they are told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{pause, until};
use crate::playground::Playground;
use crate::visit::{Visits, visit};

/// How many visit at once.
const AT_A_TIME: usize = 4;

/// Between two visits of one of them: with four that is fewer connections in a minute than a client has
/// ports, so that none is used again while a server still remembers it.
const BREATH: Duration = Duration::from_millis(15);

/// Visitors under way. They end when it is dropped.
#[derive(Debug)]
pub struct Crowd {
    is_over: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    visitors: Vec<JoinHandle<Visits>>,
}

impl Crowd {
    /// Sends visitors from the client to `target`, one after the other, four at a time.
    #[must_use]
    pub fn start(playground: &Playground, target: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let spawn = || {
            let (is_over, count) = (Arc::clone(&is_over), Arc::clone(&count));
            std::thread::spawn(move || {
                let mut visits = Visits::default();
                // Relaxed, here and below: a flag and a number, nothing is handed over by them.
                while !is_over.load(Ordering::Relaxed) {
                    visits.add(visit(target));
                    count.fetch_add(1, Ordering::Relaxed);
                    pause(BREATH);
                }
                visits
            })
        };
        // Threads inherit the namespace of the one that starts them.
        let visitors = playground.inside("client", || (0..AT_A_TIME).map(|_| spawn()).collect());
        Self {
            is_over,
            count,
            visitors,
        }
    }

    /// How many visits have ended so far.
    #[must_use]
    pub fn count(&self) -> usize {
        // Relaxed: see above.
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until so many more visits have ended.
    ///
    /// # Panics
    ///
    /// When that takes more than half a minute.
    pub fn wait_for(&self, more: usize) {
        let goal = self.count() + more;
        until(Duration::from_secs(30), "visitors come through", || {
            (self.count() >= goal).then_some(())
        });
    }

    /// Lets those under way end, and tells what came of all.
    ///
    /// # Panics
    ///
    /// With the panic of a visitor.
    #[must_use]
    pub fn stop(mut self) -> Visits {
        // Relaxed: see above.
        self.is_over.store(true, Ordering::Relaxed);
        let mut all = Visits::default();
        for visitor in std::mem::take(&mut self.visitors) {
            let visits = visitor.join().unwrap();
            for (backend, count) in visits.answers {
                *all.answers.entry(backend).or_default() += count;
            }
            all.failures.extend(visits.failures);
        }
        all
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Relaxed: see above.
        self.is_over.store(true, Ordering::Relaxed);
        // Not joined: a drop must not wait for the slowest, who ends within his patience.
    }
}
