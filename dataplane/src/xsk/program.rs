//! Loading and attaching the steering program (`bpf/steer.bpf.c`), and keeping its maps.
//!
//! One instance for each interface, each with its own XSKMAP: the kernel drops what is redirected
//! to a socket of another device or queue. Attached by bpf_link only, so that the kernel detaches
//! it when this process ends, by whatever signal. aya loads the program and drives the maps; the
//! link is made here by one system call, because aya falls back to a netlink attachment, which
//! outlives a crash, when the kernel answers EINVAL.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use aya::Ebpf;
use aya::programs::{ProgramError, Xdp};

use crate::steered::Steered;
use crate::wire::ethernet::Mac;
use crate::xsk::sockopt;

use errors::{explain, permission, refused};
use maps::Maps;

mod errors;
mod layout;
mod maps;
#[cfg(test)]
mod tests;

pub use errors::{AttachError, SteerError};

/// Queues of one interface that can have a socket: `MAX_QUEUES` in steer.bpf.c.
pub const MAX_QUEUES: u32 = 64;

/// The compiled program. Aligned, because aya reads ELF headers in place.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// The program's name in the object.
const NAME: &str = "steer";

/// Where in the kernel the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// In the driver, before the packet is an skb.
    Native,
    /// In the stack, on any device: slower, and without zero-copy.
    Generic,
}

impl XdpMode {
    /// include/uapi/linux/if_link.h.
    fn flags(self) -> u32 {
        match self {
            Self::Native => 1 << 2,  // XDP_FLAGS_DRV_MODE
            Self::Generic => 1 << 1, // XDP_FLAGS_SKB_MODE
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What a synchronisation changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Synced {
    /// Entries that were not there before.
    pub added: usize,
    /// Entries that say something else now.
    pub replaced: usize,
    /// Entries that are gone.
    pub removed: usize,
}

/// Packets as the steering program counted them, over all CPUs, since it was attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SteerCounters {
    /// Seen by the program.
    pub received: u64,
    /// To the kernel: not for the balancer.
    pub passed_other: u64,
    /// To the kernel: for the balancer, but no socket was registered for the queue.
    pub passed_no_socket: u64,
    /// To the kernel: addressed to a service that asks for other VLAN tags.
    pub passed_vlan: u64,
    /// To the queue's socket: addressed to a service.
    pub redirected_service: u64,
    /// To the queue's socket: from a NAT or full-nat backend.
    pub redirected_return: u64,
    /// To the queue's socket: a fragment without ports, to a service's address or from a backend's.
    pub redirected_fragment: u64,
    /// To the queue's socket: an ICMP error about a packet of a service.
    pub redirected_icmp: u64,
    /// To the queue's socket: an echo request to a service's address.
    pub redirected_echo: u64,
}

/// The steering program on one interface. Dropping it detaches it.
pub struct SteeringProgram {
    /// First, so that nothing is redirected any more when the maps go.
    _link: OwnedFd,
    interface: String,
    mode: XdpMode,
    /// Keeps the program loaded.
    _ebpf: Ebpf,
    maps: Maps,
}

impl SteeringProgram {
    /// Loads an instance of the program and attaches it to `interface`. With its maps empty it
    /// passes everything to the kernel.
    ///
    /// # Errors
    ///
    /// See [`AttachError`]; nothing stays attached then.
    pub fn attach(interface: &str, mode: XdpMode) -> Result<Self, AttachError> {
        let index = interface_index(interface).ok_or_else(|| AttachError::NoInterface {
            interface: interface.to_owned(),
        })?;
        let (mut ebpf, maps) = load(interface)?;
        let program = program(&mut ebpf, interface)?.fd();
        let program = program.map_err(|error| AttachError::Load {
            interface: interface.to_owned(),
            found: explain(&error),
        })?;
        let link = link(program.as_fd(), index, mode)
            .map_err(|source| refused(interface.to_owned(), mode, source))?;
        Ok(Self {
            _link: link,
            interface: interface.to_owned(),
            mode,
            _ebpf: ebpf,
            maps,
        })
    }

    /// The interface it is on.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The mode it is attached in.
    #[must_use]
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// From now on, what is for the balancer and arrives on `queue` goes to `socket`, which must be
    /// bound to this interface and queue.
    ///
    /// # Errors
    ///
    /// The queue is not below [`MAX_QUEUES`], or `socket` is not an AF_XDP socket.
    pub fn register(&mut self, queue: u32, socket: impl AsFd) -> Result<(), SteerError> {
        self.maps.register(queue, socket)
    }

    /// From now on, what is for the balancer and arrives on `queue` goes to the kernel. No error if
    /// it did already.
    ///
    /// # Errors
    ///
    /// The queue is not below [`MAX_QUEUES`].
    pub fn unregister(&mut self, queue: u32) -> Result<(), SteerError> {
        self.maps.unregister(queue)
    }

    /// Makes what goes to the socket exactly what `wanted` says. New entries are added, in all maps,
    /// before old ones are removed, so that what stays is never away.
    ///
    /// # Errors
    ///
    /// A map is full (16,384 services of one address and port, 131,072 backends' addresses and
    /// ports, 65,536 prefixes), more port ranges cover one address than the program looks at, or the
    /// kernel refused. Entries stay as far as the change had come.
    pub fn sync(&mut self, wanted: &Steered) -> Result<Synced, SteerError> {
        self.maps.sync(wanted)
    }

    /// Makes the balancer's own addresses exactly `wanted`: what comes from a NAT backend to one of
    /// them is the answer to a health check, and the kernel's. A change is in effect at once.
    ///
    /// # Errors
    ///
    /// The map is full, at 4,096 addresses, or the kernel refused. Entries stay as far as the change
    /// had come.
    pub fn sync_locals(&mut self, wanted: &[IpAddr]) -> Result<Synced, SteerError> {
        self.maps.sync_locals(wanted)
    }

    /// Makes `address` the hardware address that frames must be sent to; others are left to the
    /// kernel. Until this is called, and with an address of zeroes, every frame counts as ours.
    ///
    /// # Errors
    ///
    /// The kernel refused to change the map.
    pub fn set_own_address(&mut self, address: Mac) -> Result<(), SteerError> {
        self.maps.set_own_address(address)
    }

    /// Reads the counters: one system call for each.
    ///
    /// # Errors
    ///
    /// The kernel refused to read the map.
    pub fn counters(&self) -> Result<SteerCounters, SteerError> {
        self.maps.counters()
    }
}

impl fmt::Debug for SteeringProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteeringProgram")
            .field("interface", &self.interface)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// The program in the kernel, attached to nothing, and its maps. `interface` is for error messages.
fn load(interface: &str) -> Result<(Ebpf, Maps), AttachError> {
    let refused = |error: &(dyn std::error::Error + 'static)| match permission(error) {
        Some(source) => AttachError::Permission {
            interface: interface.to_owned(),
            source,
        },
        None => AttachError::Load {
            interface: interface.to_owned(),
            found: explain(error),
        },
    };
    sockopt::raise_memlock();
    let mut ebpf = Ebpf::load(PROGRAM).map_err(|error| refused(&error))?;
    let loaded = program(&mut ebpf, interface)?.load();
    loaded.map_err(|error| refused(&error))?;
    let maps = Maps::take(&mut ebpf, interface)?;
    Ok((ebpf, maps))
}

/// The program in the object.
fn program<'a>(ebpf: &'a mut Ebpf, interface: &str) -> Result<&'a mut Xdp, AttachError> {
    let load = |found: String| AttachError::Load {
        interface: interface.to_owned(),
        found,
    };
    ebpf.program_mut(NAME)
        .ok_or_else(|| load(format!("the object has no program `{NAME}`")))?
        .try_into()
        .map_err(|error: ProgramError| load(explain(&error)))
}

fn interface_index(interface: &str) -> Option<u32> {
    let name = CString::new(interface).ok()?;
    // SAFETY: `name` is a string with its terminating zero, and lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// The part of `union bpf_attr` that BPF_LINK_CREATE reads for an XDP link
/// (include/uapi/linux/bpf.h). The kernel takes what is missing at its end for zero.
#[repr(C)]
struct LinkCreate {
    program: RawFd,
    target_interface: u32,
    attach_type: u32,
    flags: u32,
}

const _: () = assert!(size_of::<LinkCreate>() == 16);

/// Attaches `program` to interface number `index`, for as long as the returned descriptor is open.
fn link(program: BorrowedFd<'_>, index: u32, mode: XdpMode) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_int = 28;
    const BPF_XDP: u32 = 37;
    let attributes = LinkCreate {
        program: program.as_raw_fd(),
        target_interface: index,
        attach_type: BPF_XDP,
        flags: mode.flags(),
    };
    // SAFETY: BPF_LINK_CREATE reads `size` bytes at `attributes`, which lives through the call, and
    // writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const attributes,
            size_of::<LinkCreate>(),
        )
    };
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just opened this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
