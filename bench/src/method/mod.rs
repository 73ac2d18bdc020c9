//! Methods: how rates, latencies and disturbances are measured, on a topology of its own, with
//! the generator as a program beside it.
//!
//! | room | owns |
//! |---|---|
//! | `measure` | the whole run, within its time |
//! | `agenda` | what is measured, in which order |
//! | `rate` | greatest rates, contestants in turn |
//! | `loss`, [`search`], [`classify`] | rates without loss: MLRsearch |
//! | `latency` | at shares of those |
//! | `connections` | TCP: per second, and held at once |
//! | `disturbance` | backends that go and come, reloads, kills |
//! | `step` | where a packet's time goes between the interfaces |
//! | `idle` | no traffic, and the first packet after it |
//! | `topology`, `contestant`, `offer` | where, who, and with what traffic |
//! | `plan`, `bench`, `child` | time, results, programs |
//! | [`outcome`], `text` | the file, and the table |
//!
//! Everything has an end: trials are counted, programs have limits of time, and a signal takes
//! down what was built.

mod agenda;
mod bench;
mod child;
pub mod classify;
mod connections;
mod contestant;
mod disturbance;
mod idle;
mod latency;
mod loss;
pub mod measure;
mod offer;
pub mod outcome;
mod plan;
mod rate;
pub mod search;
mod step;
mod text;
mod topology;

pub use measure::{Arguments, run};
