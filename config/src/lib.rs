//! What the operator said, made impossible to misread.
#![forbid(unsafe_code)]

pub mod limits;
mod model;

pub use model::{
    Backend, Balancer, Forward, Health, HealthKind, Interface, Mode, Model, PartialChecksums,
    Protocol, Service, WhenEmpty,
};
