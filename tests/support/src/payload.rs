//! Files to download: made from a seed, so that every run sends the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run_well;

/// A file of pseudo-random bytes and its sha256.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Where it is.
    pub path: PathBuf,
    /// Its sha256, in hexadecimal.
    pub sha256: String,
}

impl Payload {
    /// A file of this many megabytes (10^6 bytes) made from `seed`. It is kept in the target
    /// directory: a later test finds it there.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    #[must_use]
    pub fn megabytes(megabytes: usize, seed: u64) -> Self {
        let directory = target_directory().join("tmp");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("payload-{seed}-{megabytes}MB"));
        let bytes = megabytes * 1_000_000;
        if fs::metadata(&path).map_or(0, |data| data.len()) != u64::try_from(bytes).unwrap() {
            // Under its own name only once it is whole.
            let unfinished = directory.join(format!("payload-{}", std::process::id()));
            fs::write(&unfinished, random_bytes(bytes, seed)).unwrap();
            fs::rename(&unfinished, &path).unwrap();
        }
        let sha256 = sha256_of(&path);
        Self { path, sha256 }
    }
}

/// The sha256 of a file, in hexadecimal.
///
/// # Panics
///
/// When it cannot be read.
#[must_use]
pub fn sha256_of(path: &Path) -> String {
    let printed = run_well(Command::new("sha256sum").arg(path));
    printed.split_whitespace().next().unwrap().to_owned()
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn random_bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

/// The test program is `target/debug/deps/NAME-HASH`.
fn target_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_makes_the_same_bytes() {
        // First output of SplitMix64 for seed 0, from its reference implementation.
        assert_eq!(random_bytes(8, 0), 0xE220_A839_7B1D_CDAF_u64.to_le_bytes());
        assert_eq!(random_bytes(13, 5).len(), 13);
        assert_ne!(random_bytes(13, 5), random_bytes(13, 6));
    }
}
