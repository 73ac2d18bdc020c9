//! Golden cases: for every way that a packet can go, a file that says what comes in, what goes
//! out, and every counter that moves.
//!
//! A case ([`case`]) is a sentence, a configuration as operators write it, a [`network`], and
//! steps with packets in the [`notation`]. A [`world`] is a real worker over ports in memory with
//! a clock that is moved by hand, so nothing is simulated but wires and time. What came is
//! compared with what the file says ([`verdict`]), or written into it ([`update`]) for a person to
//! review; [`page`] prints cases for reading and [`capture`] writes their packets for other tools.
//!
//! `golden/README.md` tells how to add one.

pub mod capture;
pub mod case;
pub mod checksum;
pub mod counters;
pub mod network;
pub mod notation;
pub mod page;
pub mod update;
pub mod verdict;
pub mod world;

use std::path::PathBuf;

/// Where the cases are.
#[must_use]
pub fn cases_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// Where the page for people is.
#[must_use]
pub fn page_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/GOLDEN.md")
}
