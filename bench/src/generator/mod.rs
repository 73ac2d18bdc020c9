//! The traffic generator: source and judge, its own limits known.
//!
//! | room | owns |
//! |---|---|
//! | [`command`] | what the commands take and print |
//! | [`blast`] | one run: source and sink in turn, in one thread |
//! | [`shape`], [`stamp`] | what frames look like, and by what they are known again |
//! | [`spread`], [`pace`] | which flow is next, and when |
//! | [`source`], [`live`] | frames from here by a port, and from the kernel itself |
//! | [`sink`], [`arrival`], [`judge`] | what arrived, what it is, and what became of the rest |
//! | [`report`], [`progress`] | the result, and a line meanwhile |
//! | [`calibrate`] | what the generator itself can do on this host |
//! | [`connect`] | TCP connections through whatever is between, both ends without a kernel's |
//! | [`device`], [`netns`] | sockets, and the namespaces that they are opened in |
//!
//! `docs/GENERATOR.md` says how to use it and what its numbers mean.

pub mod arrival;
pub mod blast;
pub mod calibrate;
pub mod command;
pub mod connect;
pub mod device;
pub mod judge;
pub mod live;
pub mod netns;
pub mod pace;
pub mod progress;
pub mod report;
pub mod shape;
pub mod sink;
pub mod source;
pub mod spread;
pub mod stamp;

#[cfg(test)]
mod tests;
