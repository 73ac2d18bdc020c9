//! The one door to atomics: the standard library's, or loom's when a model is explored.
//!
//! Everything in this crate takes its atomics from here, so that the stage `loom` of
//! `scripts/test` judges the shipping code and not a copy of it. Only Acquire, Release and
//! Relaxed are used, on accesses and fences: loom does not model sequentially consistent accesses
//! fully, so a design that needed them could not be judged.

#[cfg(not(lb_loom))]
pub(crate) use std::hint::spin_loop;
#[cfg(not(lb_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A word that is changed now and then and on which nothing else depends: each of its values is
/// as good as the next. Models do not schedule around it.
pub(crate) use std::sync::atomic::AtomicU32 as Setting;

#[cfg(lb_loom)]
pub(crate) use loom::hint::spin_loop;
#[cfg(lb_loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};
#[cfg(lb_loom)]
pub(crate) use model::AtomicU64;

/// Loom's atomic, with every access made visible to loom's scheduler.
#[cfg(lb_loom)]
mod model {
    use super::Ordering;
    use loom::sync::atomic::AtomicU64 as Word;

    /// A word whose accesses are all tried in every order.
    ///
    /// Loom 0.7.2 remembers only the last access to an atomic when it looks for schedules to try.
    /// A thread that loads a word and then changes it, as every compare-and-swap from an observed
    /// word does, hides by its own load that another thread has loaded the word before: the
    /// schedule in which that thread loads it afterwards is never run. So each access first makes
    /// an exchange on a companion word, which loom takes to depend on every other. It is Relaxed
    /// and nobody reads it: it orders schedules, not memory.
    #[derive(Debug)]
    pub(crate) struct AtomicU64 {
        word: Word,
        visit: Word,
    }

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self {
                word: Word::new(value),
                visit: Word::new(0),
            }
        }

        fn visit(&self) {
            // Relaxed: must not synchronise threads that the code does not.
            self.visit.swap(0, Ordering::Relaxed);
        }

        pub(crate) fn load(&self, ordering: Ordering) -> u64 {
            self.visit();
            self.word.load(ordering)
        }

        pub(crate) fn store(&self, value: u64, ordering: Ordering) {
            self.visit();
            self.word.store(value, ordering);
        }

        pub(crate) fn swap(&self, value: u64, ordering: Ordering) -> u64 {
            self.visit();
            self.word.swap(value, ordering)
        }

        pub(crate) fn fetch_or(&self, value: u64, ordering: Ordering) -> u64 {
            self.visit();
            self.word.fetch_or(value, ordering)
        }

        pub(crate) fn fetch_xor(&self, value: u64, ordering: Ordering) -> u64 {
            self.visit();
            self.word.fetch_xor(value, ordering)
        }

        pub(crate) fn fetch_add(&self, value: u64, ordering: Ordering) -> u64 {
            self.visit();
            self.word.fetch_add(value, ordering)
        }

        pub(crate) fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            self.visit();
            self.word.compare_exchange(current, new, success, failure)
        }
    }
}
