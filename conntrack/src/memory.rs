//! Cache lines of atomics, mapped from the system.
//!
//! It makes a slice of [`Line`]s of a mapping, and gives the
//! processor its hint to fetch one. Mapped, not allocated, because the system is asked for huge
//! pages: with pages of 4 KiB a flow among a million costs a walk through four levels of page
//! tables besides its own cache miss.
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

#[cfg(not(lb_loom))]
pub(crate) use mapped::Memory;

#[cfg(not(lb_loom))]
mod mapped {
    use std::slice;

    use memmap2::{Advice, MmapOptions, MmapRaw};

    use super::{Line, io};

    const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

    /// Lines in a private mapping of their own.
    #[derive(Debug)]
    pub(crate) struct Memory {
        map: MmapRaw,
        lines: usize,
    }

    impl Memory {
        /// So many lines (at least one) of zeroed memory, all of it present.
        ///
        /// # Errors
        ///
        /// The system's, if it refuses the memory.
        pub(crate) fn zeroed(lines: usize) -> io::Result<Self> {
            let bytes = lines
                .max(1)
                .checked_mul(size_of::<Line>())
                .ok_or(io::ErrorKind::OutOfMemory)?;
            let map = MmapOptions::new().len(bytes).map_anon()?;
            // A wish: a kernel without huge pages, or with none to give, refuses or ignores it.
            let _refused = map.advise(Advice::HugePage);
            // Since Linux 5.14; before, pages come with their first use.
            let _unknown = map.advise(Advice::PopulateWrite);
            Ok(Self {
                map: map.into(),
                lines,
            })
        }

        /// The lines.
        #[inline]
        pub(crate) fn lines(&self) -> &[Line] {
            let start = self.map.as_ptr().cast::<Line>();
            // SAFETY: the mapping begins at a page, is `lines` lines long or longer, readable and
            // writable, and stays for as long as `self`. Zeroed or whatever else, its bytes are
            // atomics, and nobody reaches them but through this slice.
            unsafe { slice::from_raw_parts(start, self.lines) }
        }
    }
}

/// A model's lines: loom tracks each atomic from where it was made.
#[cfg(lb_loom)]
#[derive(Debug)]
pub(crate) struct Memory(Box<[Line]>);

#[cfg(lb_loom)]
impl Memory {
    pub(crate) fn zeroed(lines: usize) -> io::Result<Self> {
        let zeroed = || Line {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Ok(Self((0..lines).map(|_| zeroed()).collect()))
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
            let memory = Memory::zeroed(lines).unwrap();
            assert_eq!(memory.lines().len(), lines);
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
    fn more_than_there_is_is_an_error() {
        assert!(Memory::zeroed(usize::MAX).is_err());
        assert!(Memory::zeroed(1 << 52).is_err());
    }
}
