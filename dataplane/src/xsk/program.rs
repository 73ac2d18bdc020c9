//! Loading and attaching the steering program (`bpf/steer.bpf.c`), and keeping its maps.
//!
//! One instance for each interface, each with its own XSKMAP: the kernel drops what is redirected
//! to a socket of another device or queue. Attached by bpf_link only, so that the kernel detaches
//! it when this process ends, by whatever signal. aya loads the program and drives the maps; the
//! link is made here by one system call, because aya falls back to a netlink attachment, which
//! outlives a crash, when the kernel answers EINVAL.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, Xdp};
use thiserror::Error;

use crate::wire::ethernet::Mac;
use crate::xsk::sockopt;

/// Queues of one interface that can have a socket: `MAX_QUEUES` in steer.bpf.c.
pub const MAX_QUEUES: u32 = 64;

/// The compiled program. Aligned, because aya reads ELF headers in place.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// Bytes of `struct endpoint` in steer.bpf.c.
const ENDPOINT_BYTES: usize = 20;

/// Bytes of `struct own` in steer.bpf.c: an Ethernet address and padding.
const OWN_BYTES: usize = 8;

/// Bytes of `struct address` in steer.bpf.c.
const ADDRESS_BYTES: usize = 16;

/// One end of a transport connection as the steering program looks it up.
///
/// Laid out as `struct endpoint` in steer.bpf.c: address of 16 bytes (IPv4 as ::ffff:a.b.c.d), port
/// in network order, IP protocol number, one byte of zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint([u8; ENDPOINT_BYTES]);

const _: () = assert!(ENDPOINT_BYTES == ADDRESS_BYTES + size_of::<u16>() + 2);

impl Endpoint {
    /// `port` in host order; `protocol` is the IP protocol number, 6 for TCP, 17 for UDP.
    #[must_use]
    pub fn new(address: IpAddr, port: u16, protocol: u8) -> Self {
        let mut bytes = [0; ENDPOINT_BYTES];
        bytes[..ADDRESS_BYTES].copy_from_slice(&mapped(address));
        bytes[16..18].copy_from_slice(&port.to_be_bytes());
        bytes[18] = protocol;
        Self(bytes)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut address = [0; ADDRESS_BYTES];
        address.copy_from_slice(&self.0[..ADDRESS_BYTES]);
        let address = std::net::Ipv6Addr::from(address).to_canonical();
        let port = u16::from_be_bytes([self.0[16], self.0[17]]);
        write!(f, "{address} port {port} protocol {}", self.0[18])
    }
}

/// An address as the program compares it.
fn mapped(address: IpAddr) -> [u8; ADDRESS_BYTES] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

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

/// Why the steering program could not be put on an interface.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// There is no such interface here.
    #[error(
        "{interface}: no such interface in this network namespace; `ip link` shows those there \
         are"
    )]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// Another program is there.
    #[error(
        "{interface}: another XDP program is attached ({source}); `bpftool net` shows which. If \
         it was left behind by a crash, `ip link set dev {interface} xdp off` removes it (and \
         `xdpgeneric off` one in generic mode); if it belongs to another ringgate, stop that \
         one"
    )]
    Taken {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The device or its driver cannot, in this mode.
    #[error("{interface}: no {mode} XDP here ({source}): {cure}")]
    Unsupported {
        /// Interface name.
        interface: String,
        /// Mode tried.
        mode: XdpMode,
        /// What the operator can change.
        cure: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process may not do this.
    #[error(
        "{interface}: loading XDP programs is not permitted ({source}). Run as root, or with \
         CAP_BPF and CAP_NET_ADMIN (systemd: AmbientCapabilities=)"
    )]
    Permission {
        /// Interface name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused the program or its maps.
    #[error(
        "{interface}: the kernel did not load the steering program: {found}. It needs Linux 5.9 \
         or later with CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS; report it with `uname -r` if \
         that is what it is"
    )]
    Load {
        /// Interface name.
        interface: String,
        /// What was found, with the verifier's words.
        found: String,
    },
    /// The kernel refused the link in another way.
    #[error("{interface}: attaching in {mode} mode failed: {source}; `dmesg` may say why")]
    Attach {
        /// Interface name.
        interface: String,
        /// Mode tried.
        mode: XdpMode,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why a map of the steering program could not be changed or read.
#[derive(Debug, Error)]
#[error("steering program of {interface}: map `{map}`: {found}")]
pub struct SteerError {
    interface: String,
    map: &'static str,
    found: String,
}

/// What a synchronisation changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Synced {
    /// Entries that were not there before.
    pub added: usize,
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
    /// To the queue's socket: addressed to a service.
    pub redirected_service: u64,
    /// To the queue's socket: from a NAT backend.
    pub redirected_return: u64,
}

type Table<const N: usize> = HashMap<MapData, [u8; N], u32>;

/// The steering program on one interface. Dropping it detaches it.
pub struct SteeringProgram {
    /// First, so that nothing is redirected any more when the maps go.
    _link: OwnedFd,
    interface: String,
    mode: XdpMode,
    /// Keeps the program loaded.
    _ebpf: Ebpf,
    xsks: XskMap<MapData>,
    services: Table<ENDPOINT_BYTES>,
    returns: Table<ENDPOINT_BYTES>,
    locals: Table<ADDRESS_BYTES>,
    own: Array<MapData, [u8; OWN_BYTES]>,
    stats: PerCpuArray<MapData, u64>,
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
        sockopt::raise_memlock();
        let load = |found: String| AttachError::Load {
            interface: interface.to_owned(),
            found,
        };
        let mut ebpf = Ebpf::load(PROGRAM).map_err(|error| match permission(&error) {
            Some(source) => AttachError::Permission {
                interface: interface.to_owned(),
                source,
            },
            None => load(explain(&error)),
        })?;
        let program: &mut Xdp = ebpf
            .program_mut("steer")
            .ok_or_else(|| load("the object has no program `steer`".to_owned()))?
            .try_into()
            .map_err(|error: ProgramError| load(explain(&error)))?;
        program.load().map_err(|error| match permission(&error) {
            Some(source) => AttachError::Permission {
                interface: interface.to_owned(),
                source,
            },
            None => load(explain(&error)),
        })?;
        let program = program.fd().map_err(|error| load(explain(&error)))?;
        let link = link(program.as_fd(), index, mode)
            .map_err(|source| refused(interface.to_owned(), mode, source))?;
        let mut maps = Maps {
            ebpf: &mut ebpf,
            interface,
        };
        Ok(Self {
            xsks: maps.take("xsks", XskMap::try_from)?,
            services: maps.take("services", HashMap::try_from)?,
            returns: maps.take("returns", HashMap::try_from)?,
            locals: maps.take("locals", HashMap::try_from)?,
            own: maps.take("own", Array::try_from)?,
            stats: maps.take("steer_stats", PerCpuArray::try_from)?,
            _link: link,
            interface: interface.to_owned(),
            mode,
            _ebpf: ebpf,
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
        let socket = socket.as_fd().as_raw_fd();
        let result = self.xsks.set(queue, socket, 0);
        result.map_err(|error| self.error("xsks", &error))
    }

    /// From now on, what is for the balancer and arrives on `queue` goes to the kernel. No error if
    /// it did already.
    ///
    /// # Errors
    ///
    /// The queue is not below [`MAX_QUEUES`].
    pub fn unregister(&mut self, queue: u32) -> Result<(), SteerError> {
        match self.xsks.unset(queue) {
            Err(error) if !is_missing(&error) => Err(self.error("xsks", &error)),
            _ => Ok(()),
        }
    }

    /// Makes the redirected services exactly `wanted`: what is addressed to one of them goes to the
    /// socket. New ones are added before old ones are removed, so that what stays is never away.
    ///
    /// # Errors
    ///
    /// The map is full (16,384 endpoints), or the kernel refused. Entries stay as far as the change
    /// had come.
    pub fn sync_services(&mut self, wanted: &[Endpoint]) -> Result<Synced, SteerError> {
        let result = sync(&mut self.services, wanted.iter().map(|endpoint| endpoint.0));
        result.map_err(|error| self.error("services", &error))
    }

    /// Makes the redirected backends exactly `wanted`: what comes from one of them and is not for a
    /// local address goes to the socket.
    ///
    /// # Errors
    ///
    /// As [`sync_services`](Self::sync_services), at 65,536 endpoints.
    pub fn sync_returns(&mut self, wanted: &[Endpoint]) -> Result<Synced, SteerError> {
        let result = sync(&mut self.returns, wanted.iter().map(|endpoint| endpoint.0));
        result.map_err(|error| self.error("returns", &error))
    }

    /// Makes the balancer's own addresses exactly `wanted`: what comes from a backend to one of
    /// them is the answer to a health check, and the kernel's.
    ///
    /// # Errors
    ///
    /// As [`sync_services`](Self::sync_services), at 4,096 addresses.
    pub fn sync_locals(&mut self, wanted: &[IpAddr]) -> Result<Synced, SteerError> {
        let result = sync(
            &mut self.locals,
            wanted.iter().map(|&address| mapped(address)),
        );
        result.map_err(|error| self.error("locals", &error))
    }

    /// Makes `address` the hardware address that frames must be sent to; others are left to the
    /// kernel. Until this is called, and with an address of zeroes, every frame counts as ours.
    ///
    /// # Errors
    ///
    /// The kernel refused to change the map.
    pub fn set_own_address(&mut self, address: Mac) -> Result<(), SteerError> {
        let [a, b, c, d, e, f] = address.0;
        let result = self.own.set(0, [a, b, c, d, e, f, 0, 0], 0);
        result.map_err(|error| self.error("own", &error))
    }

    /// Reads the counters: one system call for each.
    ///
    /// # Errors
    ///
    /// The kernel refused to read the map.
    pub fn counters(&self) -> Result<SteerCounters, SteerError> {
        let read = |index| {
            let values = self.stats.get(&index, 0);
            let values = values.map_err(|error| self.error("steer_stats", &error))?;
            // They count packets from one attach on: 2^64 is out of reach.
            Ok(values.iter().sum())
        };
        // In the order of `enum counter` in steer.bpf.c.
        Ok(SteerCounters {
            received: read(0)?,
            passed_other: read(1)?,
            passed_no_socket: read(2)?,
            redirected_service: read(3)?,
            redirected_return: read(4)?,
        })
    }

    fn error(&self, map: &'static str, error: &MapError) -> SteerError {
        SteerError {
            interface: self.interface.clone(),
            map,
            found: explain(error),
        }
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

/// Takes maps out of a loaded object. aya compares the sizes of key and value with those that the
/// object's BTF gives, so a layout that differs from ours is refused here.
struct Maps<'a> {
    ebpf: &'a mut Ebpf,
    interface: &'a str,
}

impl Maps<'_> {
    fn take<T>(
        &mut self,
        name: &str,
        convert: impl FnOnce(Map) -> Result<T, MapError>,
    ) -> Result<T, AttachError> {
        let load = |found| AttachError::Load {
            interface: self.interface.to_owned(),
            found,
        };
        let map = self.ebpf.take_map(name);
        let map = map.ok_or_else(|| load(format!("the object has no map `{name}`")))?;
        convert(map).map_err(|error| load(format!("map `{name}`: {}", explain(&error))))
    }
}

/// Makes the keys of `table` exactly `wanted`.
fn sync<const N: usize>(
    table: &mut Table<N>,
    wanted: impl Iterator<Item = [u8; N]>,
) -> Result<Synced, MapError> {
    let present: BTreeSet<[u8; N]> = table.keys().collect::<Result<_, _>>()?;
    let wanted: BTreeSet<[u8; N]> = wanted.collect();
    let mut synced = Synced::default();
    for key in wanted.difference(&present) {
        table.insert(key, 0, 0)?;
        synced.added += 1;
    }
    for key in present.difference(&wanted) {
        table.remove(key)?;
        synced.removed += 1;
    }
    Ok(synced)
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

/// What the kernel's refusal to attach means.
fn refused(interface: String, mode: XdpMode, source: io::Error) -> AttachError {
    let cure = match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => return AttachError::Taken { interface, source },
        Some(libc::EPERM | libc::EACCES) => return AttachError::Permission { interface, source },
        Some(libc::ENODEV) => return AttachError::NoInterface { interface },
        Some(libc::EOPNOTSUPP) => {
            "its driver has no native XDP; mode \"generic\" works on every device"
        }
        Some(libc::ENOSPC) => {
            "on a veth it has fewer receive queues than its peer has transmit queues; make them \
            equal with `ethtool -L`"
        }
        Some(libc::ERANGE) => {
            "the MTU is too large for a packet in one page (on a veth, of the peer); lower it to \
            1500, or use mode \"generic\""
        }
        Some(libc::EINVAL) => {
            "a feature of the device is in the way, such as large receive offload (`ethtool -K \
            lro off`), or the kernel is older than 5.9"
        }
        _ => {
            return AttachError::Attach {
                interface,
                mode,
                source,
            };
        }
    };
    AttachError::Unsupported {
        interface,
        mode,
        cure,
        source,
    }
}

fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// The refusal, if somewhere under `error` is one of permission.
fn permission(error: &(dyn std::error::Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let errno = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if let Some(errno @ (libc::EPERM | libc::EACCES)) = errno {
            return Some(io::Error::from_raw_os_error(errno));
        }
        next = error.source();
    }
    None
}

/// An error with all that lies under it.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let below = error.to_string();
        if !text.contains(&below) {
            text = format!("{text}: {below}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_laid_out_as_the_program_reads_them() {
        let v4 = Endpoint::new("192.0.2.1".parse().unwrap(), 0x1234, 6);
        assert_eq!(
            v4.0,
            [
                0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0x12, 0x34, 6, 0
            ]
        );
        let v6 = Endpoint::new("2001:db8::7".parse().unwrap(), 53, 17);
        assert_eq!(
            v6.0,
            [
                0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 53, 17, 0
            ]
        );
        assert_eq!(format!("{v4:?}"), "192.0.2.1 port 4660 protocol 6");
    }

    #[test]
    fn the_embedded_object_is_aligned_and_for_bpf() {
        assert!(PROGRAM.as_ptr().addr().is_multiple_of(8));
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
        // e_machine: EM_BPF.
        assert_eq!(PROGRAM[18], 247);
    }

    #[test]
    fn refusals_name_their_cure() {
        let refuse = |errno| {
            refused(
                "eth9".into(),
                XdpMode::Native,
                io::Error::from_raw_os_error(errno),
            )
            .to_string()
        };
        assert!(refuse(libc::EBUSY).contains("ip link set dev eth9 xdp off"));
        assert!(refuse(libc::EEXIST).contains("bpftool net"));
        assert!(refuse(libc::EOPNOTSUPP).contains("generic"));
        assert!(refuse(libc::ENOSPC).contains("queues"));
        assert!(refuse(libc::ERANGE).contains("MTU"));
        assert!(refuse(libc::EPERM).contains("CAP_BPF"));
        assert!(refuse(libc::EIO).contains("native mode failed"));
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let error = SteeringProgram::attach("no\0such", XdpMode::Generic).unwrap_err();
        assert!(matches!(error, AttachError::NoInterface { .. }));
    }
}
