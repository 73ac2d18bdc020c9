//! The four rings of one socket, spoken to in tokens.
//!
//! Three counts bound everything, so that no ring is ever asked for room it does not have:
//!
//! - `stocked`: chunks in the fill ring, with the kernel, or in the RX ring: at most the size of
//!   the fill ring.
//! - `in_flight`: chunks in the TX ring, with the kernel, or in the completion ring: at most the
//!   smaller of these two rings. So the completion ring is never full, and the kernel never waits
//!   for it.
//! - a chunk that the kernel named wrongly stays counted where it was until the socket is closed.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use crate::port::{BATCH, Batch, Closed};
use crate::xsk::kick::{self, Kick};
use crate::xsk::pool::Pool;
use crate::xsk::tx_ring::TxRing;
use crate::xsk::umem::{Frame, Holder, Region, Sent};

/// How long a driver may go on using a closed zero-copy socket's chunks: the kernel tells it to
/// stop from a work queue (net/xdp/xsk_buff_pool.c, `xp_release_deferred`). Binding again was seen
/// to succeed after 40 ms; doubled and rounded up.
const RELEASE: Duration = Duration::from_millis(100);

/// Turns that closing gives the device to send what is queued, a millisecond apart.
const DRAIN_TURNS: u32 = 200;

/// One bound socket. Dropping it without [`close`](Self::close) loses its chunks to the pool until
/// the region ends.
pub(crate) struct Rings {
    // Field order is drop order: the queues before the region that they point into (each also holds
    // the UMEM itself).
    ring: TxRing,
    rx: RxQueue,
    /// Never spoken to: `ring` is the same one.
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    region: Arc<Region>,
    /// Which of the region's ports this is: names its entries in the holder table.
    port: u8,
    sizes: Sizes,
    zero_copy: bool,
    stocked: u32,
    in_flight: u32,
    descs: Box<[FrameDesc; BATCH]>,
    /// What takes the place of the UMEM's own socket in the end. Made at the start: a process that has given up its
    /// privileges since could not make it any more.
    spare: Option<OwnedFd>,
}

/// Entries of the rings, as they were made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) fill: u32,
    pub(super) rx: u32,
    pub(super) tx: u32,
    pub(super) completion: u32,
}

/// What xsk-rs returns for one socket.
pub(super) struct Queues {
    pub(super) tx: TxQueue,
    pub(super) rx: RxQueue,
    pub(super) fill: FillQueue,
    pub(super) completion: CompQueue,
}

/// Frames moved, and descriptors that were refused.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Moved {
    pub(crate) frames: usize,
    pub(crate) refused: usize,
}

impl Rings {
    /// Takes the queues of one socket over `region`, as its port number `port`. The queues are of
    /// the region's UMEM.
    ///
    /// # Errors
    ///
    /// The TX ring cannot be mapped, or there is no descriptor left.
    pub(super) fn new(
        queues: Queues,
        region: Arc<Region>,
        port: u8,
        sizes: Sizes,
        zero_copy: bool,
    ) -> io::Result<Self> {
        let Queues {
            tx,
            rx,
            fill,
            completion,
        } = queues;
        // SAFETY: the queues keep the socket open, and they are dropped after this borrow.
        let socket = unsafe { BorrowedFd::borrow_raw(rx.fd().as_raw_fd()) };
        Ok(Self {
            ring: TxRing::map(socket, sizes.tx)?,
            rx,
            tx,
            fill,
            completion,
            region,
            port,
            sizes,
            zero_copy,
            stocked: 0,
            in_flight: 0,
            descs: Box::new([FrameDesc::default(); BATCH]),
            spare: (port == FIRST).then(unbound).transpose()?,
        })
    }

    /// Moves received frames to `batch`.
    #[inline]
    pub(crate) fn receive(&mut self, batch: &mut Batch) -> Moved {
        let room = batch.remaining_capacity();
        // SAFETY: the descriptors are only written to. Those returned are of this socket's UMEM,
        // and nothing is believed of them before `Region::received` has checked it.
        let found = unsafe { self.rx.consume(&mut self.descs[..room]) };
        let mut moved = Moved::default();
        for desc in &self.descs[..found] {
            match self.region.received(desc, self.port) {
                Some(frame) => {
                    batch.push(frame);
                    moved.frames += 1;
                }
                None => moved.refused += 1,
            }
        }
        self.stocked -= count(moved.frames);
        moved
    }

    /// Moves frames from the front of `frames` to the TX ring, as many as may be in flight. Frames
    /// that cannot be described are returned by `refuse`.
    #[inline]
    pub(crate) fn transmit(&mut self, frames: &mut Batch, mut refuse: impl FnMut(Frame)) -> Moved {
        let limit = self.sizes.tx.min(self.sizes.completion);
        let taken = frames.len().min((limit - self.in_flight) as usize);
        let mut moved = Moved::default();
        let holder = Holder::transmit(self.port);
        for frame in frames.drain(..taken) {
            if frame.is_empty() || !self.region.owns(&frame) {
                moved.refused += 1;
                refuse(frame);
                continue;
            }
            if let Some(Sent { address, len }) = self.region.send(frame, holder) {
                // SAFETY: `in_flight` bounds the ring, and counts what is written here. The descriptor
                // was made in exchange for the token of its chunk, of this UMEM; no token of it is
                // minted again before the completion ring returned it.
                unsafe { self.ring.write(address, len) }
                moved.frames += 1;
            }
        }
        self.ring.publish();
        self.in_flight += count(moved.frames);
        moved
    }

    /// Moves completed frames to `pool`.
    #[inline]
    pub(crate) fn complete(&mut self, pool: &mut Pool) -> Moved {
        let mut moved = Moved::default();
        // Every turn but the last empties a batch's worth, so this is bounded by the ring.
        while self.in_flight > 0 {
            // SAFETY: as in `receive`: written to, and checked by `Region::completed`.
            let found = unsafe { self.completion.consume(&mut self.descs[..]) };
            let mut home = 0;
            for desc in &self.descs[..found] {
                match self.region.completed(desc, self.port) {
                    Some(frame) => {
                        pool.give(frame);
                        home += 1;
                    }
                    None => moved.refused += 1,
                }
            }
            self.in_flight -= count(home);
            moved.frames += home;
            if found < BATCH {
                break;
            }
        }
        moved
    }

    /// Moves up to `spare` frames of `pool` to the fill ring. Returns how many.
    #[inline]
    pub(crate) fn stock(&mut self, pool: &mut Pool, spare: usize) -> usize {
        let mut missing = spare.min((self.sizes.fill - self.stocked) as usize);
        let mut moved = 0;
        let holder = Holder::fill(self.port);
        while missing > 0 {
            let mut found = 0;
            while found < missing.min(BATCH) {
                let Some(frame) = pool.take() else { break };
                if let Some(desc) = self.region.submit(frame, holder) {
                    self.descs[found] = desc;
                    found += 1;
                }
            }
            if found == 0 {
                break;
            }
            // SAFETY: as in `transmit`: one descriptor for each token surrendered, of this UMEM.
            let queued = unsafe { self.fill.produce(&self.descs[..found]) };
            if queued == 0 {
                // All or nothing, and `stocked` bounds the ring; but the kernel hands a packet over
                // before it says that the packet's place in the fill ring is free (`xsk_flush`,
                // net/xdp/xsk.c), and this thread may come between. The next turn has the room.
                let withdrawn = self.descs[..found]
                    .iter()
                    .filter_map(|desc| self.region.withdraw(desc, holder));
                withdrawn.for_each(|frame| pool.give(frame));
                break;
            }
            self.stocked += count(found);
            moved += found;
            missing -= found;
        }
        moved
    }

    /// Kicks the transmit side if there are frames in the TX ring and the device wants to be told.
    #[inline]
    pub(crate) fn kick_transmit(&mut self) -> Option<Kick> {
        if self.in_flight == 0 || !self.ring.needs_wakeup() || self.ring.queued() == 0 {
            return None;
        }
        Some(kick::transmit(self.as_fd()))
    }

    /// Kicks the fill side if the device wants to be told, or if `always`.
    #[inline]
    pub(crate) fn kick_fill(&self, always: bool) -> Option<Kick> {
        if always || self.fill.needs_wakeup() {
            return Some(kick::fill(self.as_fd()));
        }
        None
    }

    /// Frames taken by `transmit` and not yet home.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Frames in the fill ring, with the kernel, or in the RX ring.
    #[inline]
    pub(crate) fn stocked(&self) -> u32 {
        self.stocked
    }

    /// Sends what is queued, closes the socket and takes every chunk home to `pool`.
    ///
    /// Take the socket out of its XSKMAP first, or packets go on arriving until the socket is
    /// closed.
    pub(crate) fn close(mut self, pool: &mut Pool) -> Closed {
        let known = self.in_flight as usize + self.stocked as usize;
        let sent = self.drain(pool);
        let unread = self.unread(pool);
        let fd = self.as_fd().as_raw_fd();
        let first = self.port == FIRST;
        let Self {
            ring,
            rx,
            tx,
            fill,
            completion,
            region,
            port,
            zero_copy,
            spare,
            ..
        } = self;
        // libxdp unmaps the rings and closes the socket with the last of these. But not the first
        // socket of a UMEM: that descriptor is the UMEM's own.
        drop((ring, rx, tx, fill, completion));
        let closed = !first || spare.is_some_and(|spare| replace_socket(fd, &spare));
        if !closed {
            // The kernel still has the chunks, and will until the region ends.
            return Closed {
                home: sent + unread,
                unsent: 0,
                unread,
                lost: known - sent - unread,
            };
        }
        if zero_copy {
            thread::sleep(RELEASE);
        }
        let unsent = region.reclaim(Holder::transmit(port), |frame| pool.give(frame));
        let stocked = region.reclaim(Holder::fill(port), |frame| pool.give(frame));
        let home = sent + unread + unsent + stocked;
        Closed {
            home,
            unsent,
            unread,
            lost: known.saturating_sub(home),
        }
    }

    /// Kicks until everything has come home, the device is down or gone, or it has had its turns.
    fn drain(&mut self, pool: &mut Pool) -> usize {
        let mut home = self.complete(pool).frames;
        for _ in 0..DRAIN_TURNS {
            if self.in_flight == 0 {
                break;
            }
            let kicked = self.kick_transmit();
            home += self.complete(pool).frames;
            if matches!(kicked, Some(Kick::Down | Kick::Gone)) {
                break;
            }
            if self.in_flight > 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        home
    }

    /// Takes home what was received and never looked at. Bounded, should packets go on arriving.
    fn unread(&mut self, pool: &mut Pool) -> usize {
        let mut batch = Batch::new();
        let mut unread = 0;
        for _ in 0..=(self.sizes.rx as usize / BATCH) {
            let moved = self.receive(&mut batch);
            unread += moved.frames;
            batch.drain(..).for_each(|frame| pool.give(frame));
            if moved == Moved::default() {
                break;
            }
        }
        unread
    }
}

impl AsFd for Rings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is closed only after all four queues were dropped (xsk-rs,
        // `SocketInner`), and `self` owns them for as long as this borrow lasts.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rings")
            .field("port", &self.port)
            .field("zero_copy", &self.zero_copy)
            .field("stocked", &self.stocked)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// The port whose socket is the UMEM's own.
const FIRST: u8 = 0;

/// An AF_XDP socket that is bound to nothing.
fn unbound() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::XDP, SocketType::RAW);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Puts an unbound AF_XDP socket in the place of descriptor `fd`, which is a UMEM's: the kernel
/// then closes the socket that was there. It must be one of AF_XDP, for libxdp asks it for the
/// rings' layout when it unmaps those of the UMEM's other sockets.
fn replace_socket(fd: i32, unbound: &OwnedFd) -> bool {
    // SAFETY: `fd` is the UMEM's descriptor, which stays open (libxdp closes it in
    // xsk_umem__delete, and the region holds the UMEM), so the number names nothing else. It is not
    // closed through this value: see `into_raw_fd` below.
    let mut place = unsafe { OwnedFd::from_raw_fd(fd) };
    let replaced = rustix::io::dup3(unbound, &mut place, rustix::io::DupFlags::CLOEXEC).is_ok();
    let _still_the_umems = place.into_raw_fd();
    replaced
}

/// A count of frames within a batch or a ring, both far below 2^32.
fn count(frames: usize) -> u32 {
    u32::try_from(frames).unwrap_or(u32::MAX)
}
