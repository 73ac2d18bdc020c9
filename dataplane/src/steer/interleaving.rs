//! Where another worker may act between two looks at a table: nothing but in tests, which decide there
//! who goes on ([`tests`](super::tests)).

/// Says that the worker is about to look at a table that others change, or to change it.
#[cfg(not(test))]
#[inline(always)]
pub(super) const fn between() {}

#[cfg(test)]
pub(super) use super::tests::interleaved::between;
