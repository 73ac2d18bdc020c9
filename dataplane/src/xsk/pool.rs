//! Where frames wait in userspace: the pool of a worker's free frames, and the bounded queue that
//! is a ring of a port without a kernel.
//!
//! Both hold tokens of one region only, and hand their chunks back to it when they are dropped.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::xsk::umem::{Frame, HEADROOM_BYTES, Holder, Region};

/// The free frames of one worker: last in, first out, so that the next frame taken is the one whose
/// lines are still in the cache.
///
/// Never allocates after it was made: it has room for every frame of its region.
pub struct Pool {
    frames: Vec<Frame>,
    region: Arc<Region>,
    foreign: u64,
}

impl Pool {
    /// `chunks` frames of plain memory, all free. For generators, tests and benchmarks without a
    /// device.
    #[must_use]
    pub fn anonymous(chunks: u32) -> Self {
        Self::of(Region::plain(chunks))
    }

    /// All frames of `region` that nobody has.
    pub(crate) fn of(region: Arc<Region>) -> Self {
        let chunks = region.chunks() as usize;
        let mut frames = Vec::with_capacity(chunks);
        // Backwards, so that chunk 0 is the first taken.
        frames.extend(
            (0..chunks)
                .rev()
                .filter_map(|chunk| region.mint(chunk, HEADROOM_BYTES, 0, Holder::NOBODY)),
        );
        Self {
            frames,
            region,
            foreign: 0,
        }
    }

    /// Takes a free frame, empty.
    #[inline]
    #[must_use]
    pub fn take(&mut self) -> Option<Frame> {
        self.frames.pop()
    }

    /// Gives a frame back, whatever is in it.
    ///
    /// A frame of another region is refused: it is lost to its own, and counted in
    /// [`foreign`](Self::foreign).
    #[inline]
    pub fn give(&mut self, mut frame: Frame) {
        if self.region.owns(&frame) {
            self.region.reset(&mut frame);
            self.frames.push(frame);
        } else {
            self.foreign += 1;
        }
    }

    /// Free frames now.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether no frame is free.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// All frames of the region, free or not: what [`len`](Self::len) must come to when everything
    /// is home.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.region.chunks() as usize
    }

    /// Frames of other regions that were given here by mistake.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// The region its frames come from.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for frame in self.frames.drain(..) {
            self.region.surrender(frame, Holder::NOBODY);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("free", &self.frames.len())
            .field("capacity", &self.capacity())
            .field("foreign", &self.foreign)
            .finish()
    }
}

/// A bounded queue of frames, first in, first out: the ring of a port that has no kernel behind it.
pub(crate) struct Queue {
    frames: VecDeque<Frame>,
    limit: usize,
    region: Arc<Region>,
}

impl Queue {
    pub(crate) fn new(region: Arc<Region>, limit: usize) -> Self {
        Self {
            frames: VecDeque::with_capacity(limit),
            limit,
            region,
        }
    }

    /// Appends a frame, or hands it back if the queue is full or the frame is of another region.
    #[inline]
    pub(crate) fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.frames.len() < self.limit && self.region.owns(&frame) {
            self.frames.push_back(frame);
            Ok(())
        } else {
            Err(frame)
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.limit - self.frames.len()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        for frame in self.frames.drain(..) {
            self.region.surrender(frame, Holder::NOBODY);
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("frames", &self.frames.len())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_starts_with_every_chunk_once() {
        let mut pool = Pool::anonymous(8);
        let frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
        let chunks: Vec<u32> = frames.iter().map(Frame::chunk).collect();
        assert_eq!(chunks, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(pool.is_empty());
        for frame in frames {
            pool.give(frame);
        }
        assert_eq!((pool.len(), pool.capacity()), (8, 8));
    }

    #[test]
    fn a_foreign_frame_is_refused_and_counted() {
        let (mut ours, mut theirs) = (Pool::anonymous(2), Pool::anonymous(2));
        let foreign = theirs.take().unwrap();
        ours.give(foreign);
        assert_eq!((ours.len(), ours.foreign()), (2, 1));
        let mut queue = Queue::new(Arc::clone(ours.region()), 2);
        let foreign = theirs.take().unwrap();
        assert!(queue.push(foreign).is_err());
    }

    #[test]
    fn a_queue_is_bounded_and_in_order() {
        let mut pool = Pool::anonymous(3);
        let mut queue = Queue::new(Arc::clone(pool.region()), 2);
        for _ in 0..2 {
            assert!(queue.push(pool.take().unwrap()).is_ok());
        }
        let third = queue.push(pool.take().unwrap()).unwrap_err();
        assert_eq!((queue.len(), queue.room(), third.chunk()), (2, 0, 2));
        assert_eq!(queue.pop().map(|frame| frame.chunk()), Some(0));
        let region = Arc::clone(pool.region());
        drop(queue);
        assert_eq!(
            region.held_by(Holder::TOKEN),
            2,
            "the two that are dropped in this test"
        );
    }
}
