//! What the tests of several files need: memory that can be mapped twice, and a region.

use std::os::fd::OwnedFd;

use crate::hash::{HashKey, Secret};
use crate::memory::{LINE_BYTES, Memory};
use crate::region::{Region, Shape};

/// A memory file of so many lines, all zero.
pub(crate) fn memory_file(lines: usize) -> OwnedFd {
    let file = rustix::fs::memfd_create("lines", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, (lines * LINE_BYTES) as u64).unwrap();
    file
}

/// A region for so many flows in private memory.
pub(crate) fn region(capacity: usize) -> Region {
    let memory = Memory::private(Shape::of(capacity).lines).unwrap();
    Region::take(memory, capacity, &HashKey::new(Secret([1, 2]))).unwrap()
}
