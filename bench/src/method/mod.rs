//! Methods: how rates, latencies and disturbances are measured.

pub mod classify;
pub mod outcome;
pub mod search;
