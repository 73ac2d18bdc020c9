//! The memory of all frames and the `Frame` token.
//!
//! Promises, and where each is kept:
//!
//! 1. **One token per chunk.** A token is made only by `Region::mint`, which asks the holder table
//!    first and refuses a chunk that somebody else has. A token is neither `Copy` nor `Clone`, and
//!    it ends only by being given to `Region::surrender`, which writes the new holder down.
//! 2. **No dangling token.** A region is unmapped only when the holder table shows no token
//!    outside; with one astray, the mapping stays for the rest of the process.
//! 3. **No foreign token.** Every place that takes tokens in checks that they are of its own
//!    region.
//!
//! | holder | who may touch the bytes | becomes |
//! |---|---|---|
//! | `NOBODY` | nobody | token (first minting, or a region's end) |
//! | `TOKEN` | who owns the `Frame` | fill, transmit, nobody (its pool was dropped) |
//! | `fill(port)` | kernel | token (received, or port closed) |
//! | `transmit(port)` | kernel | token (completed, or port closed) |
//!
//! The table is atomic only so that a region can be shared by objects that move between threads.
//! Each entry has one writer at a time, the owner of the token or the port named in it, so every
//! access is relaxed: whatever moved the token or the port to another thread has ordered them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use xsk_rs::{FrameDesc, Umem};

#[cfg(doc)]
use crate::xsk::Pool;

/// Bytes of one chunk, so of one frame with its headroom. The smallest that AF_XDP accepts
/// (`XDP_UMEM_MIN_CHUNK_SIZE`), and two to a page.
pub const CHUNK_BYTES: usize = 2048;

/// Bytes the kernel leaves free in front of a received packet (`XDP_PACKET_HEADROOM`,
/// include/uapi/linux/bpf.h).
pub const HEADROOM_BYTES: usize = 256;

/// log2 of [`CHUNK_BYTES`].
const CHUNK_SHIFT: u32 = CHUNK_BYTES.trailing_zeros();

/// Alignment of plain memory: a page, as a UMEM has.
const PAGE_BYTES: usize = 4096;

/// Most ports that may share one region: each needs two holder codes in a byte.
pub(crate) const MAX_PORTS: u8 = 64;

/// [`HEADROOM_BYTES`] as a frame stores it.
const HEADROOM: u16 = 256;

const _: () = assert!(CHUNK_BYTES.is_power_of_two() && CHUNK_BYTES <= u16::MAX as usize);
const _: () = assert!(HEADROOM as usize == HEADROOM_BYTES && HEADROOM_BYTES < CHUNK_BYTES);
const _: () = assert!(size_of::<Frame>() == 16, "a batch of 64 frames is 1 KiB");

/// Who has a chunk; see the table in the module's documentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holder(u8);

impl Holder {
    pub(super) const NOBODY: Self = Self(0);
    pub(super) const TOKEN: Self = Self(1);

    /// The fill side of port `port`: fill ring, kernel, RX ring.
    pub(super) const fn fill(port: u8) -> Self {
        assert!(port < MAX_PORTS);
        Self(2 + port * 2)
    }

    /// The transmit side of port `port`: TX ring, kernel, completion ring.
    pub(super) const fn transmit(port: u8) -> Self {
        assert!(port < MAX_PORTS);
        Self(3 + port * 2)
    }
}

/// One chunk of frame memory and the packet in it.
///
/// Owning the value is owning the chunk: nobody else, the kernel included, reads or writes its
/// bytes. It cannot be copied, so a frame is in exactly one place. A frame that is dropped instead
/// of given to a [`Pool`] or a port is lost to its region for good (its memory stays mapped), which
/// the count at the end shows.
///
/// The contents were written by whoever sent the packet: trust nothing but the length.
#[must_use = "a dropped frame is lost to its pool: give it back"]
pub struct Frame {
    /// First byte of the packet.
    start: NonNull<u8>,
    chunk: u32,
    /// Of `start`, from the beginning of the chunk.
    offset: u16,
    /// Of the packet; `offset + len <= CHUNK_BYTES` always.
    len: u16,
}

/// A packet on its way to the device, in the terms of the TX ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent {
    /// From the start of the UMEM, bytes.
    pub(super) address: u64,
    /// Bytes.
    pub(super) len: u32,
}

// SAFETY: a frame is the only access to its chunk (promise 1), so moving it to another thread moves
// that access along; the region it points into outlives it wherever it goes (promise 2).
unsafe impl Send for Frame {}

// SAFETY: through `&Frame` the bytes can only be read, and writing needs `&mut Frame`.
unsafe impl Sync for Frame {}

impl Frame {
    /// The packet, from its link-layer header on.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start..start + len` is inside this frame's chunk (established in `Region::mint`,
        // kept by `set_len`), the chunk is mapped and initialised (promise 2), and nobody writes to
        // it while this token lives (promise 1).
        unsafe { slice::from_raw_parts(self.start.as_ptr(), usize::from(self.len)) }
    }

    /// The packet, to be rewritten in place.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` makes this the only reference into the chunk.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), usize::from(self.len)) }
    }

    /// Length of the packet in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the packet has no bytes, as in a frame fresh from the pool.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The longest packet this frame can hold from where it starts.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        CHUNK_BYTES - usize::from(self.offset)
    }

    /// Makes the packet `len` bytes long, or [`room`](Self::room) bytes if that is less. Bytes
    /// gained are whatever the chunk held before.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        // Both operands are below 2^16: `room` is at most CHUNK_BYTES, and `min` takes the lesser.
        self.len = u16::try_from(len.min(self.room())).unwrap_or(0);
    }

    /// Lets the packet begin `bytes` earlier. Bytes gained are whatever the chunk held before. `false`,
    /// and nothing changes, if there is not so much in front: the kernel leaves
    /// [`HEADROOM_BYTES`] there.
    #[inline]
    pub fn grow_head(&mut self, bytes: u16) -> bool {
        let (Some(offset), Some(len)) =
            (self.offset.checked_sub(bytes), self.len.checked_add(bytes))
        else {
            return false;
        };
        // SAFETY: `start` is `offset` bytes into this frame's chunk (established in `Region::mint`, kept
        // here, in `shrink_head` and `Region::reset`), so `bytes` less is still inside it.
        self.start = unsafe { self.start.sub(usize::from(bytes)) };
        self.offset = offset;
        self.len = len;
        true
    }

    /// Lets the packet begin `bytes` later: those in front are gone. `false`, and nothing changes, if it
    /// is not longer than that.
    #[inline]
    pub fn shrink_head(&mut self, bytes: u16) -> bool {
        let Some(len) = self.len.checked_sub(bytes).filter(|len| *len > 0) else {
            return false;
        };
        // SAFETY: the packet lies inside its chunk and is longer than `bytes`.
        self.start = unsafe { self.start.add(usize::from(bytes)) };
        // The offset stays below the packet's end, and that inside the chunk.
        self.offset = self.offset.wrapping_add(bytes);
        self.len = len;
        true
    }

    /// Replaces the packet by a copy of `bytes`, cut at [`room`](Self::room). Returns the bytes
    /// taken.
    #[inline]
    pub fn fill_from(&mut self, bytes: &[u8]) -> usize {
        self.set_len(bytes.len());
        let taken = self.len();
        self.bytes_mut().copy_from_slice(&bytes[..taken]);
        taken
    }

    /// Asks the processor to fetch the first cache line of the packet. Never faults, and does
    /// nothing where there is no such instruction.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: SSE is part of x86_64, and a prefetch has no effect but on the cache whatever
            // the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.start.as_ptr().cast()) }
        }
    }

    /// The same for the cache line in front of it, to be written: where outer headers go.
    #[inline]
    pub fn prefetch_head(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            let before = self.start.as_ptr().wrapping_sub(1);
            // SAFETY: as in `prefetch`.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(before.cast()) }
        }
    }

    /// Which chunk of its region this is, from 0. For checks of conservation.
    #[inline]
    #[must_use]
    pub fn chunk(&self) -> u32 {
        self.chunk
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("chunk", &self.chunk)
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish()
    }
}

/// What lies under a region.
enum Memory {
    /// Zeroed pages of this process, for ports without a kernel behind them.
    Plain(Layout),
    /// Memory registered with AF_XDP.
    Kernel(KernelMemory),
}

/// A UMEM and the descriptors by which its fill ring names chunks.
///
/// xsk-rs describes a frame by a copyable descriptor whose address cannot be set from outside, so the
/// one that each chunk was handed out with is kept. The TX ring is not spoken to through it
/// ([`tx_ring`](super::tx_ring)): a packet that leaves may begin anywhere in its chunk.
struct KernelMemory {
    /// Keeps the memory mapped and registered.
    _umem: Umem,
    descs: Box<[FrameDesc]>,
}

/// All chunks of one worker, and who has which.
///
/// What makes and ends tokens is for this room only: to mint a chunk that the kernel still has
/// would be undefined behaviour, and who calls in here knows the state of the rings.
pub(crate) struct Region {
    /// First byte of chunk 0; valid for `chunks * CHUNK_BYTES` bytes for as long as `memory` lives.
    base: NonNull<u8>,
    holders: Box<[AtomicU8]>,
    memory: ManuallyDrop<Memory>,
}

// SAFETY: `base` is only dereferenced through tokens, each of which is an exclusive right to one
// chunk; the holder table is atomic.
unsafe impl Send for Region {}

// SAFETY: as for Send: sharing a region gives no access to bytes, and two threads cannot mint the
// same chunk, since each holder entry has one writer at a time (see the module's documentation).
unsafe impl Sync for Region {}

impl Region {
    /// A region of zeroed plain memory. Aborts as any allocation does if the memory is not there.
    pub(crate) fn plain(chunks: u32) -> Arc<Self> {
        let bytes = (chunks as usize).max(1) << CHUNK_SHIFT;
        let Ok(layout) = Layout::from_size_align(bytes, PAGE_BYTES) else {
            unreachable!("2^32 chunks of 2 KiB fit an address space of 64 bits");
        };
        // SAFETY: the layout's size is not zero: at least one chunk, by `max` above.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(start) else {
            handle_alloc_error(layout);
        };
        Arc::new(Self::new(base, chunks, Memory::Plain(layout)))
    }

    /// A region over a UMEM of chunks of [`CHUNK_BYTES`] without headroom of its own, of which
    /// `descs` are the descriptors that came with it. `None` if they are not what they should be.
    pub(super) fn kernel(umem: Umem, descs: Vec<FrameDesc>) -> Option<Arc<Self>> {
        let chunks = u32::try_from(descs.len()).ok()?;
        let expected = |(chunk, desc): (usize, &FrameDesc)| {
            desc.addr() == (chunk << CHUNK_SHIFT) + HEADROOM_BYTES
        };
        if descs.is_empty() || !descs.iter().enumerate().all(expected) {
            return None;
        }
        // SAFETY: the descriptor came with this UMEM, and nothing else knows of the memory yet.
        let data = unsafe { umem.data(&descs[0]) };
        let start = data.contents().as_ptr().addr() - HEADROOM_BYTES;
        // The whole mapping's provenance was exposed when its address went to mmap's caller in C
        // (xsk_umem__create).
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut(start))?;
        let memory = KernelMemory {
            _umem: umem,
            descs: descs.into_boxed_slice(),
        };
        Some(Arc::new(Self::new(base, chunks, Memory::Kernel(memory))))
    }

    fn new(base: NonNull<u8>, chunks: u32, memory: Memory) -> Self {
        Self {
            base,
            holders: (0..chunks)
                .map(|_| AtomicU8::new(Holder::NOBODY.0))
                .collect(),
            memory: ManuallyDrop::new(memory),
        }
    }

    /// Number of chunks.
    pub(crate) fn chunks(&self) -> u32 {
        u32::try_from(self.holders.len()).unwrap_or(u32::MAX)
    }

    /// Mints the token of `chunk`, with a packet of `len` bytes at `offset`, if `holder` is who has
    /// the chunk and the packet lies inside it. Otherwise nothing changes: this is where nonsense
    /// from the kernel ends.
    #[inline]
    pub(super) fn mint(
        &self,
        chunk: usize,
        offset: usize,
        len: usize,
        holder: Holder,
    ) -> Option<Frame> {
        let entry = self.holders.get(chunk)?;
        let end = offset.checked_add(len)?;
        if offset >= CHUNK_BYTES || end > CHUNK_BYTES || holder == Holder::TOKEN {
            return None;
        }
        // Relaxed here and below: one writer at a time, see the module's documentation.
        if entry.load(Ordering::Relaxed) != holder.0 {
            return None;
        }
        // SAFETY: `chunk` is below the number of chunks (the lookup above succeeded) and `offset`
        // inside a chunk, so the sum is inside the mapping that `base` is valid for.
        let start = unsafe { self.base.add((chunk << CHUNK_SHIFT) + offset) };
        let frame = Frame {
            start,
            chunk: u32::try_from(chunk).ok()?,
            offset: u16::try_from(offset).ok()?,
            len: u16::try_from(len).ok()?,
        };
        entry.store(Holder::TOKEN.0, Ordering::Relaxed);
        Some(frame)
    }

    /// Ends a token: from now on `holder` has its chunk. Returns the chunk.
    ///
    /// The caller has checked [`owns`](Self::owns).
    #[inline]
    pub(super) fn surrender(&self, frame: Frame, holder: Holder) -> usize {
        let chunk = frame.chunk as usize;
        if let Some(entry) = self.holders.get(chunk) {
            // Relaxed: the owner of the token is the entry's only writer.
            entry.store(holder.0, Ordering::Relaxed);
        }
        chunk
    }

    /// The frame that the kernel says it received on `port`, or `None` if what it says is nonsense.
    #[inline]
    pub(super) fn received(&self, desc: &FrameDesc, port: u8) -> Option<Frame> {
        // SG is off, so a packet in several chunks is not a packet.
        if desc.has_more_frames() {
            return None;
        }
        let (chunk, offset) = (desc.addr() >> CHUNK_SHIFT, desc.addr() & (CHUNK_BYTES - 1));
        self.mint(chunk, offset, desc.lengths().data(), Holder::fill(port))
    }

    /// The frame that the kernel says `port` has transmitted, or `None` if what it says is
    /// nonsense.
    #[inline]
    pub(super) fn completed(&self, desc: &FrameDesc, port: u8) -> Option<Frame> {
        // The completion ring returns the submitted address, which may lie anywhere in the chunk.
        self.mint(
            desc.addr() >> CHUNK_SHIFT,
            HEADROOM_BYTES,
            0,
            Holder::transmit(port),
        )
    }

    /// Ends a token and returns the descriptor for the fill ring of `holder`. `None`, and the frame is
    /// lost, if the frame is not of this region or the region not a UMEM; callers check both.
    #[inline]
    pub(super) fn submit(&self, frame: Frame, holder: Holder) -> Option<FrameDesc> {
        let Memory::Kernel(memory) = &*self.memory else {
            return None;
        };
        if !self.owns(&frame) {
            return None;
        }
        let desc = *memory.descs.get(frame.chunk as usize)?;
        self.surrender(frame, holder);
        Some(desc)
    }

    /// Ends a token and returns where its packet is, for the TX ring of `holder`. `None`, and the frame
    /// is lost, if the frame is not of this region; callers check that.
    #[inline]
    pub(super) fn send(&self, frame: Frame, holder: Holder) -> Option<Sent> {
        if !self.owns(&frame) {
            return None;
        }
        let sent = Sent {
            address: (u64::from(frame.chunk) << CHUNK_SHIFT) + u64::from(frame.offset),
            len: frame.len.into(),
        };
        self.surrender(frame, holder);
        Some(sent)
    }

    /// Takes back what was [submitted](Self::submit) to `holder` and was not queued: an empty frame.
    pub(super) fn withdraw(&self, desc: &FrameDesc, holder: Holder) -> Option<Frame> {
        self.mint(desc.addr() >> CHUNK_SHIFT, HEADROOM_BYTES, 0, holder)
    }

    /// Mints every chunk that `holder` still has, empty, and passes it on. Returns how many.
    ///
    /// For a kernel holder: only after the kernel has let go of the chunks, with the socket closed.
    pub(super) fn reclaim(&self, holder: Holder, mut take: impl FnMut(Frame)) -> usize {
        (0..self.holders.len())
            .filter_map(|chunk| self.mint(chunk, HEADROOM_BYTES, 0, holder))
            .map(&mut take)
            .count()
    }

    /// Whether this frame's chunk is one of ours.
    #[inline]
    pub(crate) fn owns(&self, frame: &Frame) -> bool {
        let distance = frame
            .start
            .addr()
            .get()
            .wrapping_sub(self.base.addr().get());
        distance >> CHUNK_SHIFT == frame.chunk as usize
            && (frame.chunk as usize) < self.holders.len()
    }

    /// How many chunks `holder` has.
    pub(super) fn held_by(&self, holder: Holder) -> usize {
        self.holders
            .iter()
            // Relaxed: a count for the quiet moments of start, end and tests.
            .filter(|entry| entry.load(Ordering::Relaxed) == holder.0)
            .count()
    }

    /// Moves a packet to where the kernel would have put it: an empty packet behind the full
    /// headroom.
    #[inline]
    pub(super) fn reset(&self, frame: &mut Frame) {
        frame.len = 0;
        if frame.offset != HEADROOM {
            let start = (frame.chunk as usize) << CHUNK_SHIFT;
            // SAFETY: `frame` is of this region (the callers check `owns`), so its chunk lies in
            // the mapping, and the headroom is less than a chunk.
            frame.start = unsafe { self.base.add(start + HEADROOM_BYTES) };
            frame.offset = HEADROOM;
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.held_by(Holder::TOKEN) != 0 {
            // A frame is still somewhere: its bytes must stay mapped (promise 2). `ManuallyDrop`
            // leaves them so.
            return;
        }
        if let Memory::Plain(layout) = *self.memory {
            // SAFETY: `base` came from `alloc_zeroed` with this layout (in `plain`), and no token
            // points into it any more.
            unsafe { dealloc(self.base.as_ptr(), layout) }
        }
        // SAFETY: this is `drop`, which runs once, and `memory` is not touched after it.
        unsafe { ManuallyDrop::drop(&mut self.memory) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("chunks", &self.holders.len())
            .field("tokens", &self.held_by(Holder::TOKEN))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
