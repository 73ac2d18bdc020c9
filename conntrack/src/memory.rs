//! Cache lines of atomics: the process's own, or mapped of what others map too.
//!
//! It makes a slice of [`Line`]s of a mapping, and gives the
//! processor its hint to fetch one. Mapped, not allocated, because the system is asked for huge
//! pages: with pages of 4 KiB a flow among a million costs a walk through four levels of page
//! tables besides its own cache miss.
//!
//! Nothing here knows what is in the lines (`region`), nor what a descriptor stands for.
#![cfg_attr(
    not(lb_loom),
    expect(
        unsafe_code,
        reason = "neither a slice over a mapping nor a prefetch has a safe form"
    )
)]

use std::io;

use crate::sync::AtomicU64;

/// One cache line.
#[derive(Debug)]
#[cfg_attr(not(lb_loom), repr(C, align(64)))]
pub(crate) struct Line {
    pub(crate) words: [AtomicU64; 8],
}

impl Line {
    /// Asks the processor to fetch the line. Does nothing where there is no such instruction.
    #[inline]
    pub(crate) fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(lb_loom), not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: SSE is part of x86_64, and a prefetch has no effect but on the cache whatever
            // the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(self).cast()) }
        }
    }
}

/// Bytes of a line, the unit in which a table's memory is counted.
pub const LINE_BYTES: usize = 64;

#[cfg(not(lb_loom))]
pub use mapped::Memory;

#[cfg(not(lb_loom))]
mod mapped {
    use std::os::fd::{AsFd, AsRawFd};
    use std::slice;

    use memmap2::{Advice, MmapOptions, MmapRaw};

    use super::{LINE_BYTES, Line, io};

    const _: () = assert!(size_of::<Line>() == LINE_BYTES && align_of::<Line>() == LINE_BYTES);

    /// What a table lies in: lines of [`LINE_BYTES`] bytes.
    #[derive(Debug)]
    pub struct Memory {
        map: MmapRaw,
        lines: usize,
    }

    impl Memory {
        /// So many lines (at least one) of zeroed memory that nobody else sees, all of it
        /// present, in huge pages if there are any.
        ///
        /// # Errors
        ///
        /// The system's, if it refuses the memory.
        pub fn private(lines: usize) -> io::Result<Self> {
            let map = MmapOptions::new().len(bytes(lines)?).map_anon()?;
            Ok(Self::present(map.into(), lines))
        }

        /// The first `lines` lines (at least one) of what `file` stands for: a BPF array map, a
        /// memory file. Other mappings of it, in this process or another, are the same memory.
        ///
        /// It must be at least so long and must not become shorter: the system ends a process that
        /// touches a page which is not there (SIGBUS). A BPF map cannot change its size.
        ///
        /// # Errors
        ///
        /// The system's, if it refuses the mapping.
        pub fn shared(file: impl AsFd, lines: usize) -> io::Result<Self> {
            let file = file.as_fd().as_raw_fd();
            let map = MmapOptions::new().len(bytes(lines)?).map_raw(file)?;
            Ok(Self::present(map, lines))
        }

        fn present(map: MmapRaw, lines: usize) -> Self {
            // A wish: a kernel without huge pages, or with none to give, refuses or ignores it.
            let _refused = map.advise(Advice::HugePage);
            // Since Linux 5.14; before, pages come with their first use. A BPF map's are all there.
            let _unknown = map.advise(Advice::PopulateWrite);
            Self { map, lines }
        }

        /// How many lines there are.
        #[must_use]
        pub const fn len(&self) -> usize {
            self.lines
        }

        /// Whether there is no line, which a table takes for too short.
        #[must_use]
        pub const fn is_empty(&self) -> bool {
            self.lines == 0
        }

        /// The lines.
        #[inline]
        pub(crate) fn lines(&self) -> &[Line] {
            let start = self.map.as_ptr().cast::<Line>();
            // SAFETY: the mapping begins at a page, is `lines` lines long or longer, readable and
            // writable, and stays for as long as `self`. Zeroed or whatever else, its bytes are
            // atomics; in this process nobody reaches them but through such slices, and another
            // process that maps them too is bound to atomic accesses by the layout (`region`).
            unsafe { slice::from_raw_parts(start, self.lines) }
        }
    }

    fn bytes(lines: usize) -> io::Result<usize> {
        let bytes = lines.max(1).checked_mul(LINE_BYTES);
        Ok(bytes.ok_or(io::ErrorKind::OutOfMemory)?)
    }
}

/// A model's lines: loom tracks each atomic from where it was made.
#[cfg(lb_loom)]
#[derive(Debug)]
pub struct Memory(Box<[Line]>);

#[cfg(lb_loom)]
impl Memory {
    /// So many zeroed lines.
    ///
    /// # Errors
    ///
    /// None, but the other has some.
    pub fn private(lines: usize) -> io::Result<Self> {
        let zeroed = || Line {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Ok(Self((0..lines).map(|_| zeroed()).collect()))
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn lines(&self) -> &[Line] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    #[test]
    fn memory_is_zero_and_as_long_as_asked() {
        for lines in [1, 63, 100_000] {
            let memory = Memory::private(lines).unwrap();
            assert_eq!((memory.len(), memory.lines().len()), (lines, lines));
            for line in memory.lines() {
                line.prefetch();
                for word in &line.words {
                    // Relaxed: one thread.
                    assert_eq!(word.fetch_xor(7, Ordering::Relaxed), 0);
                }
            }
        }
    }

    #[test]
    fn shared_memory_is_one_however_often_it_is_mapped() {
        let file = crate::testing::memory_file(63);
        let (here, there) = (
            Memory::shared(&file, 63).unwrap(),
            Memory::shared(&file, 63).unwrap(),
        );
        for (number, line) in (1..).zip(here.lines()) {
            // Relaxed: one thread.
            line.words[7].store(number, Ordering::Relaxed);
        }
        drop(file);
        for (number, line) in (1..).zip(there.lines()) {
            assert_eq!(line.words[7].load(Ordering::Relaxed), number);
        }
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        assert!(Memory::private(usize::MAX).is_err());
        assert!(Memory::private(1 << 52).is_err());
        let file = crate::testing::memory_file(1);
        assert!(Memory::shared(&file, usize::MAX).is_err());
        assert!(Memory::shared(&file, 1 << 52).is_err());
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Memory::shared(&end, 1).is_err());
    }
}
