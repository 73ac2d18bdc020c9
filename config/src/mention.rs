//! The files that a configuration names: what they are to it, and where they are named.

use std::path::PathBuf;

use crate::error::Place;

/// A file that the configuration relies on. Nothing has looked whether it is there: who takes the
/// configuration up does, and reports what is wrong as a [`Problem`](crate::Problem) at this place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Where it is named.
    pub place: Place,
    /// Its absolute path; empty for [`FileUse::SystemAuthorities`].
    pub path: PathBuf,
    /// What it is to be.
    pub used_as: FileUse,
}

/// What a named file is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileUse {
    /// Wherever the host keeps the certificates of the authorities that it believes.
    SystemAuthorities,
    /// Certificates of authorities, PEM.
    Authorities,
    /// An own certificate, and those that lead from it to an authority, PEM.
    Certificate,
    /// The private key of one, PEM.
    Key,
    /// A program.
    Program,
}
