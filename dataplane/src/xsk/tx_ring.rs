//! The TX ring of one socket, written by hand.
//!
//! xsk-rs keeps the address in a descriptor to itself, so with its queue a packet could leave only from
//! where it was received. But what an encapsulation writes, it writes in front of the packet: in the
//! [headroom](super::umem::HEADROOM_BYTES) that the kernel leaves in every chunk. So the socket's ring is
//! mapped once more and written here, as the kernel documents it
//! (`Documentation/networking/af_xdp.rst`, include/uapi/linux/if_xdp.h), and xsk-rs' own queue of this socket is
//! never used.
//!
//! Promise: what is in the ring between consumer and producer is never written to. There is one
//! writer, and it has at most as many descriptors in flight as the ring has places.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use rustix::net::sockopt;
use rustix::net::xdp::{XDP_PGOFF_TX_RING, XdpDesc, XdpDescOptions, XdpRingFlags};

/// See the module's documentation.
pub(super) struct TxRing {
    /// What the pointers below point into.
    _map: MmapRaw,
    /// How many descriptors were ever written, and where the kernel looks for that.
    written: u32,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    descs: NonNull<XdpDesc>,
    /// Places less one: their number is a power of two.
    mask: u32,
}

// SAFETY: the pointers point into `_map`, which belongs to this value and moves no memory.
unsafe impl Send for TxRing {}

impl TxRing {
    /// Maps the ring of `entries` places of `socket`, whose own queue nobody uses.
    pub(super) fn map(socket: impl AsFd, entries: u32) -> io::Result<Self> {
        let unexpected = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if !entries.is_power_of_two() {
            return unexpected("the TX ring's size is not a power of two");
        }
        let layout = sockopt::xdp_mmap_offsets(&socket)?.tx;
        let place = |at: u64| usize::try_from(at).ok();
        let (Some(producer), Some(consumer), Some(descs), Some(flags)) = (
            place(layout.producer),
            place(layout.consumer),
            place(layout.desc),
            layout.flags.and_then(place),
        ) else {
            return unexpected("the kernel tells no place of the TX ring's flags; Linux 5.4 does");
        };
        let bytes = descs + entries as usize * size_of::<XdpDesc>();
        let map = MmapOptions::new()
            .offset(XDP_PGOFF_TX_RING)
            .len(bytes)
            .populate()
            .map_raw(socket.as_fd().as_raw_fd())?;
        let words = [producer, consumer, flags];
        let fits = |at: &usize| at.is_multiple_of(align_of::<AtomicU32>()) && at + 4 <= bytes;
        if !words.iter().all(fits) || !descs.is_multiple_of(align_of::<XdpDesc>()) {
            return unexpected("the kernel's layout of the TX ring is none");
        }
        let Some(base) = NonNull::new(map.as_mut_ptr()) else {
            return unexpected("the TX ring is mapped at 0");
        };
        // SAFETY: each place lies inside the mapping (`bytes` ends with the descriptors, and the words were
        // checked), which begins at a page: aligned as checked.
        let at = |place| unsafe { base.add(place) };
        let (producer, consumer, flags) =
            (at(producer).cast(), at(consumer).cast(), at(flags).cast());
        let descs = at(descs).cast();
        // SAFETY: a word of the mapping, which the kernel only reads and writes as such.
        // Relaxed: nobody else writes the producer.
        let producer_word: &AtomicU32 = unsafe { producer.as_ref() };
        let written = producer_word.load(Ordering::Relaxed);
        Ok(Self {
            _map: map,
            written,
            producer,
            consumer,
            flags,
            descs,
            mask: entries - 1,
        })
    }

    /// Writes the descriptor of `len` bytes at `address` in the UMEM. The kernel sees it with the next
    /// [`publish`](Self::publish).
    ///
    /// # Safety
    ///
    /// Fewer descriptors than places are in flight: written, and their chunks not back by the
    /// completion ring. The chunk is the kernel's until then.
    #[inline]
    pub(super) unsafe fn write(&mut self, address: u64, len: u32) {
        let place = (self.written & self.mask) as usize;
        let desc = XdpDesc {
            addr: address,
            len,
            options: XdpDescOptions::empty(),
        };
        // SAFETY: the place is inside the ring by the mask.
        let place = unsafe { self.descs.add(place) };
        // SAFETY: the kernel does not read it: there are fewer descriptors in flight than places (the
        // caller's promise), and this one is not published.
        unsafe { place.write(desc) }
        self.written = self.written.wrapping_add(1);
    }

    /// Shows the kernel all that was written.
    #[inline]
    pub(super) fn publish(&mut self) {
        // Release: the kernel reads the producer with acquire, and then the descriptors (net/xdp/xsk_queue.h).
        // SAFETY: a word of the mapping.
        unsafe { self.producer.as_ref() }.store(self.written, Ordering::Release);
    }

    /// Descriptors that the kernel has not taken.
    #[inline]
    pub(super) fn queued(&self) -> u32 {
        // Relaxed: a count; places are given free by the completion ring.
        // SAFETY: a word of the mapping.
        let taken = unsafe { self.consumer.as_ref() }.load(Ordering::Relaxed);
        self.written.wrapping_sub(taken)
    }

    /// Whether the device wants to be told (`XDP_RING_NEED_WAKEUP`).
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        // Relaxed: a hint; who reads it too early asks again with the next turn.
        // SAFETY: a word of the mapping.
        let flags = unsafe { self.flags.as_ref() }.load(Ordering::Relaxed);
        flags & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
    }
}

impl fmt::Debug for TxRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxRing")
            .field("places", &(self.mask + 1))
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

    use super::*;

    #[test]
    fn another_socket_has_no_such_ring() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(TxRing::map(&socket, 64).is_err());
    }

    #[test]
    #[ignore = "needs CAP_NET_RAW"]
    fn what_is_written_is_queued_and_the_ring_wraps() {
        let kind = (AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = socket_with(kind.0, kind.1, kind.2, None).unwrap();
        assert!(TxRing::map(&socket, 64).is_err(), "it has no ring yet");
        sockopt::set_xdp_tx_ring_size(&socket, 4).unwrap();
        let mut ring = TxRing::map(&socket, 4).unwrap();
        assert!(TxRing::map(&socket, 3).is_err());
        for n in 0..4 {
            // SAFETY: there are four places, and the socket is bound to no device.
            unsafe { ring.write(n * 2048 + 200, 60) };
            assert_eq!(ring.queued(), u32::try_from(n).unwrap() + 1);
        }
        ring.publish();
        // What the kernel would read: another mapping of the same ring.
        let seen = TxRing::map(&socket, 4).unwrap();
        assert_eq!((seen.written, seen.queued()), (4, 4));
        for n in 0..4 {
            // SAFETY: a place of the ring.
            let place = unsafe { seen.descs.add(n) };
            // SAFETY: as above, and nobody writes any more.
            let desc = unsafe { place.read() };
            assert_eq!((desc.addr, desc.len), (n as u64 * 2048 + 200, 60));
        }
    }
}
