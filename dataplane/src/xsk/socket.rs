//! Bring-up: one UMEM and one socket for each interface of a worker.
//!
//! The order is: lift the memlock limit, make the memory, then for each interface bind, read back
//! the mode, set options, stock the fill ring. Teardown is the reverse, in `Rings::close`. A UMEM
//! is bound to one mode for all its sockets, so the ladder of modes is climbed by all interfaces
//! together, each rung with fresh memory.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use thiserror::Error;
use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig,
};
use xsk_rs::{Socket, Umem};

use crate::port::XskPort;
use crate::xsk::options::{BindMode, Binding, Bound, BoundMode, Options, RingSizes};
use crate::xsk::pool::Pool;
use crate::xsk::rings::{Queues, Rings, Sizes};
use crate::xsk::sockopt;
use crate::xsk::umem::{CHUNK_BYTES, MAX_PORTS, Region};

/// How long a queue may still be held by its previous owner: closing is finished by the kernel
/// later, measured at 40 ms; two seconds cover a driver that resets its queues.
const BUSY_LIMIT_MS: u64 = 2000;

/// Between two attempts to bind a busy queue.
const BUSY_PAUSE_MS: u64 = 50;

/// Send buffer per TX descriptor, in bytes: what a copied frame of a 2 KiB chunk is charged (its
/// skb's truesize), rounded up to a power of two.
const SEND_BUFFER_PER_FRAME: usize = 8192;

/// Why a worker's sockets could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Nothing to bind, or more than a worker can have.
    #[error("{found} interfaces for one worker; expected 1 to {MAX_PORTS}")]
    Interfaces {
        /// Bindings given.
        found: usize,
    },
    /// A ring size that the kernel cannot make.
    #[error("{ring} ring of {found} entries; expected a power of two")]
    RingSize {
        /// Which ring.
        ring: &'static str,
        /// Its size.
        found: u32,
    },
    /// The frames' memory could not be had or registered.
    #[error(
        "no memory for {chunks} frames of {CHUNK_BYTES} bytes: {source}; locked memory is \
         limited to {limit}. Give the process CAP_IPC_LOCK, raise the limit (systemd: \
         LimitMEMLOCK=infinity), or use smaller rings or fewer interfaces"
    )]
    Memory {
        /// Frames wanted.
        chunks: u64,
        /// RLIMIT_MEMLOCK after raising it as far as allowed.
        limit: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process may not do this.
    #[error(
        "{name} queue {queue}: AF_XDP is not permitted: {source}. Run as root, or with \
         CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF (systemd: AmbientCapabilities=)"
    )]
    Permission {
        /// Interface.
        name: String,
        /// Queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such interface here.
    #[error("{name}: no such interface in this network namespace; `ip link` shows those there are")]
    NoInterface {
        /// Interface.
        name: String,
    },
    /// The queue stayed in other hands.
    #[error(
        "{name} queue {queue} is in use: another AF_XDP socket is bound to it, and was still \
         after {waited_ms} ms. Likely another ringgate, or a process that `ss --xdp -a -p` \
         shows; stop it, or choose another queue. It can also be a memory provider (devmem, \
         io_uring zero-copy receive) on this interface"
    )]
    Busy {
        /// Interface.
        name: String,
        /// Queue.
        queue: u32,
        /// How long it was tried.
        waited_ms: u64,
    },
    /// The named mode is not to be had.
    #[error(
        "{name} queue {queue} cannot be bound in {wanted} mode: {source}. Its driver may not \
         have it, the MTU may be too large for a chunk of {CHUNK_BYTES} bytes, or the queue may \
         not exist (`ethtool -l {name}`); mode \"auto\" or \"copy\" may do"
    )]
    Bind {
        /// Interface.
        name: String,
        /// Queue.
        queue: u32,
        /// Mode tried.
        wanted: BoundMode,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel bound something else than was asked for.
    #[error(
        "{name} queue {queue} was asked to be bound in {wanted} mode and is in {found} mode; \
         report the driver (`ethtool -i {name}`)"
    )]
    Mode {
        /// Interface.
        name: String,
        /// Queue.
        queue: u32,
        /// Mode asked for.
        wanted: BoundMode,
        /// Mode found.
        found: BoundMode,
    },
    /// Something that a working kernel and library do not do.
    #[error(
        "{name} queue {queue}: {what}: {source}; this is a bug or a kernel without AF_XDP, \
         please report it with `uname -r`"
    )]
    Unexpected {
        /// Interface.
        name: String,
        /// Queue.
        queue: u32,
        /// What was being done.
        what: &'static str,
        /// What was found.
        source: io::Error,
    },
}

/// Opens one socket for each binding, all over one memory, and stocks their fill rings. The pool
/// has the rest of the frames.
///
/// The sockets receive nothing until they are registered with their interface's steering program.
/// May sleep, up to two seconds, while a queue is still held by its previous owner.
///
/// # Errors
///
/// See [`OpenError`]; nothing stays bound then.
pub fn open(bindings: &[Binding], options: &Options) -> Result<(Vec<XskPort>, Pool), OpenError> {
    if bindings.is_empty() || bindings.len() > usize::from(MAX_PORTS) {
        return Err(OpenError::Interfaces {
            found: bindings.len(),
        });
    }
    check_sizes(options.rings)?;
    let limit = sockopt::raise_memlock();
    let attempt = |mode| patiently(|| attempt(bindings, options, mode, limit));
    match options.mode {
        BindMode::ZeroCopy => attempt(BoundMode::ZeroCopy),
        BindMode::Copy => attempt(BoundMode::Copy),
        BindMode::Auto => match attempt(BoundMode::ZeroCopy) {
            Err(refused @ (OpenError::Bind { .. } | OpenError::Mode { .. })) => {
                let (mut ports, pool) = attempt(BoundMode::Copy)?;
                let why = refused.to_string();
                ports
                    .iter_mut()
                    .for_each(|port| port.explain_fallback(&why));
                Ok((ports, pool))
            }
            settled => settled,
        },
    }
}

/// Repeats `attempt` while it finds a queue busy, for up to [`BUSY_LIMIT_MS`].
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let mut waited = 0;
    loop {
        match attempt() {
            Err(OpenError::Busy { .. }) if waited < BUSY_LIMIT_MS => {
                thread::sleep(Duration::from_millis(BUSY_PAUSE_MS));
                waited += BUSY_PAUSE_MS;
            }
            Err(OpenError::Busy { name, queue, .. }) => {
                return Err(OpenError::Busy {
                    name,
                    queue,
                    waited_ms: waited,
                });
            }
            settled => return settled,
        }
    }
}

fn check_sizes(rings: RingSizes) -> Result<(), OpenError> {
    let named = [
        ("fill", rings.fill),
        ("RX", rings.rx),
        ("TX", rings.tx),
        ("completion", rings.completion),
    ];
    match named.into_iter().find(|(_, size)| !size.is_power_of_two()) {
        Some((ring, found)) => Err(OpenError::RingSize { ring, found }),
        None => Ok(()),
    }
}

/// All of it once, in one mode.
fn attempt(
    bindings: &[Binding],
    options: &Options,
    mode: BoundMode,
    limit: Option<u64>,
) -> Result<(Vec<XskPort>, Pool), OpenError> {
    let chunks = options.chunks(bindings.len());
    let (umem, region, huge_pages) =
        memory(chunks, options).map_err(|source| no_memory(&bindings[0], chunks, limit, source))?;
    let mut pool = Pool::of(Arc::clone(&region));
    let mut ports = Vec::with_capacity(bindings.len());
    for (number, binding) in (0..).zip(bindings) {
        let queues = bind(&umem, binding, options.rings, mode)?;
        let rings = Rings::new(
            queues,
            Arc::clone(&region),
            number,
            sizes(options.rings),
            mode == BoundMode::ZeroCopy,
        );
        let rings = rings.map_err(|source| OpenError::Unexpected {
            name: binding.name.clone(),
            queue: binding.queue,
            what: "mapping the TX ring",
            source,
        })?;
        let bound = configure(&rings, binding, options, mode, huge_pages)?;
        let mut port = XskPort::new(rings, bound);
        // As early as can be: some drivers stop for good when they find the ring empty.
        port.stock(&mut pool);
        ports.push(port);
    }
    Ok((ports, pool))
}

fn sizes(rings: RingSizes) -> Sizes {
    Sizes {
        fill: rings.fill,
        tx: rings.tx,
        rx: rings.rx,
        completion: rings.completion,
    }
}

/// The UMEM and the region over it, and whether it is in huge pages.
fn memory(chunks: u64, options: &Options) -> io::Result<(Umem, Arc<Region>, bool)> {
    let count = u32::try_from(chunks).ok().and_then(NonZeroU32::new);
    let count = count.ok_or_else(|| io::Error::other("more than 2^32 frames"))?;
    let config = UmemConfig::builder()
        .frame_size(size_of_frame()?)
        .fill_queue_size(queue_size(options.rings.fill)?)
        .comp_queue_size(queue_size(options.rings.completion)?)
        .build()
        .map_err(io::Error::other)?;
    let make = |huge| Umem::new(config, count, huge).map(|made| (made, huge));
    let made = if options.huge_pages {
        make(true).or_else(|_| make(false))
    } else {
        make(false)
    };
    let ((umem, descs), huge) = made.map_err(|error| os_error(&error))?;
    let region = Region::kernel(umem.clone(), descs)
        .ok_or_else(|| io::Error::other("xsk-rs laid out the frames in an unknown way"))?;
    Ok((umem, region, huge))
}

fn size_of_frame() -> io::Result<FrameSize> {
    let bytes = u32::try_from(CHUNK_BYTES).map_err(io::Error::other)?;
    FrameSize::new(bytes).map_err(io::Error::other)
}

fn queue_size(entries: u32) -> io::Result<QueueSize> {
    QueueSize::new(entries).map_err(io::Error::other)
}

/// Makes and binds one socket.
fn bind(
    umem: &Umem,
    binding: &Binding,
    rings: RingSizes,
    mode: BoundMode,
) -> Result<Queues, OpenError> {
    let Binding { name, queue } = binding;
    let (name, queue) = (name.clone(), *queue);
    let Ok(interface) = name.parse::<Interface>() else {
        return Err(OpenError::NoInterface { name });
    };
    let unexpected = |what, source| OpenError::Unexpected {
        name: name.clone(),
        queue,
        what,
        source,
    };
    let size = |entries| queue_size(entries).map_err(|e| unexpected("ring size", e));
    let copy = match mode {
        BoundMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        BoundMode::Copy => BindFlags::XDP_COPY,
    };
    let config = SocketConfig::builder()
        .rx_queue_size(size(rings.rx)?)
        .tx_queue_size(size(rings.tx)?)
        // Ours is the program: libxdp's would take every packet of the interface.
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(copy | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    // SAFETY: program loading is inhibited, which is what the function asks for where a pair is
    // bound twice.
    let made = unsafe { Socket::new(config, umem, &interface, queue) };
    let (tx, rx, shared) = made.map_err(|error| refused(binding, mode, os_error(&error)))?;
    match shared {
        Some((fill, completion)) => Ok(Queues {
            tx,
            rx,
            fill,
            completion,
        }),
        // Only if the same interface queue is named twice.
        None => Err(OpenError::Busy {
            name,
            queue,
            waited_ms: BUSY_LIMIT_MS,
        }),
    }
}

/// What the kernel's refusal to make the memory means. It is registered with a socket made for it,
/// so the refusal may be of that.
fn no_memory(first: &Binding, chunks: u64, limit: Option<u64>, source: io::Error) -> OpenError {
    let Binding { name, queue } = first.clone();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission {
            name,
            queue,
            source,
        },
        Some(libc::EAFNOSUPPORT) => OpenError::Unexpected {
            name,
            queue,
            what: "making an AF_XDP socket",
            source,
        },
        _ => {
            let limit =
                limit.map_or_else(|| "nothing".to_owned(), |bytes| format!("{bytes} bytes"));
            OpenError::Memory {
                chunks,
                limit,
                source,
            }
        }
    }
}

/// What the kernel's refusal to make or bind a socket means.
fn refused(binding: &Binding, wanted: BoundMode, source: io::Error) -> OpenError {
    let Binding { name, queue } = binding.clone();
    match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO) => OpenError::NoInterface { name },
        Some(libc::EBUSY) => OpenError::Busy {
            name,
            queue,
            waited_ms: 0,
        },
        Some(libc::EPERM | libc::EACCES) => OpenError::Permission {
            name,
            queue,
            source,
        },
        Some(libc::EAFNOSUPPORT) => OpenError::Unexpected {
            name,
            queue,
            what: "making an AF_XDP socket",
            source,
        },
        _ => OpenError::Bind {
            name,
            queue,
            wanted,
            source,
        },
    }
}

/// Reads back the mode and sets what can be set; tells what came of it.
fn configure(
    rings: &Rings,
    binding: &Binding,
    options: &Options,
    wanted: BoundMode,
    huge_pages: bool,
) -> Result<Bound, OpenError> {
    let Binding { name, queue } = binding.clone();
    let socket = rings.as_fd();
    let found = match sockopt::is_zero_copy(socket) {
        Ok(true) => BoundMode::ZeroCopy,
        Ok(false) => BoundMode::Copy,
        Err(source) => {
            return Err(OpenError::Unexpected {
                name,
                queue,
                what: "reading XDP_OPTIONS",
                source,
            });
        }
    };
    if found != wanted {
        return Err(OpenError::Mode {
            name,
            queue,
            wanted,
            found,
        });
    }
    let budget = options.rings.tx;
    let bytes = options.rings.tx as usize * SEND_BUFFER_PER_FRAME;
    let busy_poll = options.busy_poll.filter(|busy| {
        sockopt::prefer_busy_poll(socket).is_ok()
            && sockopt::set_busy_poll(socket, busy.micros).is_ok()
            && sockopt::set_busy_poll_budget(socket, busy.budget).is_ok()
    });
    Ok(Bound {
        binding: binding.clone(),
        mode: found,
        fell_back: None,
        huge_pages,
        tx_budget: sockopt::set_tx_budget(socket, budget).ok().map(|()| budget),
        send_buffer: sockopt::force_send_buffer(socket, bytes)
            .ok()
            .map(|()| bytes),
        busy_poll,
    })
}

/// The operating system's error under one of xsk-rs.
fn os_error(error: &dyn std::error::Error) -> io::Error {
    let source = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    match source.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(name: &str) -> Binding {
        Binding {
            name: name.to_owned(),
            queue: 0,
        }
    }

    #[test]
    fn impossible_requests_are_refused_before_anything_is_touched() {
        assert!(matches!(
            open(&[], &Options::default()),
            Err(OpenError::Interfaces { found: 0 })
        ));
        let many = vec![binding("lo"); 65];
        assert!(matches!(
            open(&many, &Options::default()),
            Err(OpenError::Interfaces { found: 65 })
        ));
        let rings = RingSizes {
            tx: 511,
            ..RingSizes::default()
        };
        assert!(matches!(
            open(
                &[binding("lo")],
                &Options {
                    rings,
                    ..Options::default()
                }
            ),
            Err(OpenError::RingSize {
                ring: "TX",
                found: 511
            })
        ));
    }

    #[test]
    fn refusals_name_their_cure() {
        let refuse = |errno| {
            refused(
                &binding("eth9"),
                BoundMode::Copy,
                io::Error::from_raw_os_error(errno),
            )
            .to_string()
        };
        assert!(refuse(libc::EPERM).contains("CAP_NET_RAW"));
        assert!(refuse(libc::ENODEV).contains("no such interface"));
        assert!(refuse(libc::EBUSY).contains("ss --xdp"));
        assert!(refuse(libc::EOPNOTSUPP).contains("eth9 queue 0 cannot be bound in copy mode"));
        assert!(refuse(libc::EINVAL).contains("ethtool -l eth9"));
    }

    #[test]
    fn refused_memory_is_told_from_refused_sockets() {
        let refuse = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            no_memory(&binding("eth9"), 4096, Some(65536), source).to_string()
        };
        assert!(refuse(libc::ENOBUFS).contains("limited to 65536 bytes"));
        assert!(refuse(libc::ENOBUFS).contains("LimitMEMLOCK"));
        assert!(refuse(libc::EPERM).contains("CAP_NET_RAW"));
        assert!(refuse(libc::EAFNOSUPPORT).contains("kernel without AF_XDP"));
    }

    #[test]
    fn only_a_busy_queue_is_tried_again() {
        let mut tries = 0;
        let result: Result<(), _> = patiently(|| {
            tries += 1;
            if tries < 3 {
                return Err(OpenError::Busy {
                    name: "eth9".into(),
                    queue: 1,
                    waited_ms: 0,
                });
            }
            Err(OpenError::NoInterface {
                name: "eth9".into(),
            })
        });
        assert!(matches!(result, Err(OpenError::NoInterface { .. })));
        assert_eq!(tries, 3);
    }
}
