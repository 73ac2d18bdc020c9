//! How a figure is taken: threads on CPUs of their own, CPU time, medians of interleaved runs.
//!
//! CPU time and not wall time, so that another process that takes a turn on the CPU is not in
//! the figure. What it does to the caches is: hence what is compared runs alternately, so that
//! a noisy neighbour hits both, and the median is what counts. Only where one may have to wait for
//! another, at a lock, it is the time that passed.

use std::sync::Barrier;
use std::time::Duration;

use ringgate_dataplane::pin::{allowed_cores, pin};

use crate::meter;

/// The median; 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    values.get(middle).copied().unwrap_or(0.0)
}

/// Something that tells the time.
pub(crate) type Clock = fn() -> Duration;

/// Nanoseconds of CPU time that each of `count` operations took in `work`.
pub(crate) fn nanoseconds(count: u64, work: impl FnOnce()) -> f64 {
    nanoseconds_by(meter::thread_cpu, count, work)
}

/// The same by another clock.
pub(crate) fn nanoseconds_by(clock: Clock, count: u64, work: impl FnOnce()) -> f64 {
    let start = clock();
    work();
    (clock() - start).as_secs_f64() * 1e9 / count.max(1) as f64
}

/// How many CPUs there are to measure on.
pub(crate) fn cores() -> usize {
    allowed_cores().len()
}

/// Runs `work` on each of `states` at once, each in a thread that has a CPU to itself. The
/// barrier is for all of them: `work` has to meet it equally often everywhere.
///
/// # Errors
///
/// In words: fewer CPUs than states.
pub(crate) fn on_cores<S: Send, T: Send>(
    states: &mut [S],
    work: impl Fn(&mut S, &Barrier) -> T + Sync,
) -> Result<Vec<T>, String> {
    let cores = allowed_cores();
    if states.len() > cores.len() {
        return Err(format!(
            "{} threads asked for, and this process may run on {} CPU(s)",
            states.len(),
            cores.len()
        ));
    }
    let (barrier, work) = (Barrier::new(states.len()), &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = states
            .iter_mut()
            .zip(cores)
            .map(|(state, core)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let pinned = pin(core).map_err(|error| error.to_string());
                    let result = work(state, barrier);
                    pinned.map(|()| result)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("a measuring thread panicked".to_owned()))
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one() {
        assert_eq!(median(vec![]).to_bits(), 0.0f64.to_bits());
        assert_eq!(median(vec![9.0, 1.0, 5.0]).to_bits(), 5.0f64.to_bits());
    }

    #[test]
    fn more_threads_than_cpus_are_refused() {
        let mut states = vec![0u8; cores() + 1];
        assert!(on_cores(&mut states, |_, _| ()).is_err());
    }

    #[test]
    fn every_state_gets_its_turn() {
        let mut states = vec![1, 2];
        states.truncate(cores());
        let results = on_cores(&mut states, |state, barrier| {
            barrier.wait();
            *state * 10
        });
        let wanted: Vec<i32> = states.iter().map(|state| state * 10).collect();
        assert_eq!(results.unwrap(), wanted);
    }
}
