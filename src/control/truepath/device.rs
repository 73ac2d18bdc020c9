//! The TUN device into which this host's kernel puts the packets of checks that go the way of the traffic, and the
//! routing that leads them there.
//!
//! A rule says that what bears our mark is routed by our table, and that has one route: into the device. All three have
//! numbers of their own, and are made for both families. The device goes with the process, and its routes with it, however the process
//! ends. The rules stay after a crash: they lead to an empty table then, and the next start takes them for its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use crate::control::netlink::ask::ask;

/// Its name. One balancer of a network namespace can have it.
pub(crate) const NAME: &str = "ringgate-check";

/// Where the kernel makes such devices.
const CLONE_DEVICE: &str = "/dev/net/tun";

/// What marks packets that are to go into it (SO_MARK): "RG", and a number.
pub(crate) const MARK: u32 = 0x5247_0001;

/// The routing table with the one route: "RG" as a number.
const TABLE: u32 = 0x5247;

/// Where the rule stands among others: before those by which hosts with several uplinks choose by source address.
const PRIORITY: u32 = 10;

/// Largest packet that goes into it, bytes: what every path carries, with room for a tunnel's headers on most (RFC 8200 §5).
const MTU: u32 = 1280;

/// How long the device of a process that has just died may take to go: one that was polled by io_uring is held
/// until the kernel has taken that down.
const LINGERS: Duration = Duration::from_secs(2);
const GLANCE: Duration = Duration::from_millis(20);

/// `struct ifreq` of x86-64 and arm64 (`linux/if.h`): a name of 16 bytes, then a union of 24 of which TUNSETIFF reads
/// the first two, the flags.
#[repr(C)]
#[derive(Debug)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == 40);

/// TUNSETIFF (`linux/if_tun.h`): `_IOW('T', 202, int)`, although it takes an `ifreq`.
pub(crate) const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);

/// IFF_TUN, IFF_NO_PI and IFF_TUN_EXCL: IP packets with nothing in front of them, and a device that is new.
const FLAGS: u16 = 0x0001 | 0x1000 | 0x8000;

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
#[error("health.via = \"service\" needs a TUN device: {step}: {source}; {cure}", cure = cure(source))]
pub(crate) struct NoDevice {
    step: &'static str,
    source: io::Error,
}

fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "load the module (modprobe tun), or let the service have /dev/net/tun"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "let the process open /dev/net/tun and keep CAP_NET_ADMIN and CAP_NET_RAW"
        }
        Some(libc::EBUSY) => {
            "another balancer in this network namespace has it; only one can ask via the service"
        }
        _ => "leave via out to ask the backends themselves",
    }
}

impl NoDevice {
    /// Frames cannot be sent.
    pub(super) fn without_sender(errno: rustix::io::Errno) -> Self {
        Self {
            step: "open a packet socket",
            source: errno.into(),
        }
    }
}

/// Where devices come from: opened before privileges are given up, for whom the process becomes may not be let open it.
#[derive(Debug)]
pub(crate) struct Factory(Result<File, i32>);

impl Factory {
    /// Opens it, if that can be. Nothing is made by that.
    pub(crate) fn open() -> Self {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        Self(open_clone_device().map_err(errno))
    }

    /// What a device can be made of: a descriptor of its own, or the one that was opened first, whose last device is gone.
    fn file(&self) -> io::Result<File> {
        open_clone_device().or_else(|error| match &self.0 {
            Ok(file) => file.try_clone(),
            Err(_) => Err(error),
        })
    }
}

/// Whether the place where devices come from can be opened now.
///
/// # Errors
///
/// Why not.
pub(crate) fn can_open() -> io::Result<()> {
    open_clone_device().map(drop)
}

fn open_clone_device() -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.custom_flags(libc::O_NONBLOCK).open(CLONE_DEVICE)
}

/// See the module's documentation. Takes all of it back when dropped.
#[derive(Debug)]
pub(crate) struct Device {
    file: File,
    index: u32,
}

impl Device {
    /// Makes it. At a start one that lingers from a process that was killed is waited for; else nothing blocks.
    ///
    /// # Errors
    ///
    /// [`NoDevice`]; nothing is left behind then.
    pub(crate) fn open(factory: &Factory, is_start: bool) -> Result<Self, NoDevice> {
        let failed = |step| move |source: io::Error| NoDevice { step, source };
        let file = factory.file().map_err(failed("open /dev/net/tun"))?;
        let patience = if is_start { LINGERS } else { Duration::ZERO };
        attach_in(&file, patience).map_err(failed("make the device ringgate-check"))?;
        let index = index().map_err(failed("find the device"))?;
        let device = Self { file, index };
        device.set_up().map_err(failed("set the device up"))?;
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            match device.lead(family) {
                // A host without IPv6 has no services of it either.
                Err(error) if family == AddressFamily::Inet6 => {
                    tracing::info!(%error, "no checks via services over IPv6");
                }
                led => led.map_err(failed("route marked packets into the device"))?,
            }
        }
        Ok(device)
    }

    /// A duplicate of its descriptor, to wait on until there is a packet.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Takes a packet out, from its IP header on: how many bytes, or `None` when there is none.
    ///
    /// # Errors
    ///
    /// When somebody has removed the device.
    pub(crate) fn take(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set_up(&self) -> io::Result<()> {
        let set = |attributes, flags: LinkFlags| {
            let mut message = LinkMessage::default();
            message.header.index = self.index;
            (message.header.flags, message.header.change_mask) = (flags, flags);
            message.attributes = attributes;
            ask(RouteNetlinkMessage::SetLink(message), 0)
        };
        // No address, so nobody is solicited. Where there is no IPv6 there is nothing to be set.
        let silent = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let silent = AfSpecUnspec::Inet6(vec![silent]);
        let _unless_no_ipv6 = set(
            vec![LinkAttribute::AfSpecUnspec(vec![silent])],
            LinkFlags::empty(),
        );
        set(vec![LinkAttribute::Mtu(MTU)], LinkFlags::empty())?;
        set(Vec::new(), LinkFlags::Up)?;
        Ok(())
    }

    fn lead(&self, family: AddressFamily) -> io::Result<()> {
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        route.header.protocol = RouteProtocol::Static;
        route.header.kind = RouteType::Unicast;
        route.header.scope = match family {
            AddressFamily::Inet => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        route.attributes = vec![
            RouteAttribute::Table(TABLE),
            RouteAttribute::Oif(self.index),
        ];
        ask(
            RouteNetlinkMessage::NewRoute(route),
            NLM_F_CREATE | NLM_F_REPLACE,
        )?;
        let rule = RouteNetlinkMessage::NewRule(rule(family));
        match ask(rule, NLM_F_CREATE | NLM_F_EXCL) {
            // A process that was killed has left it.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            made => made.map(drop),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut link = LinkMessage::default();
        link.header.index = self.index;
        let rules = [AddressFamily::Inet, AddressFamily::Inet6]
            .map(|family| RouteNetlinkMessage::DelRule(rule(family)));
        // By name: a descriptor may still be with the driver, and would keep the device. Its routes go with it.
        let all = rules
            .into_iter()
            .chain([RouteNetlinkMessage::DelLink(link)]);
        for message in all {
            if let Err(error) = ask(message, 0) {
                tracing::debug!(%error, "already gone");
            }
        }
    }
}

/// What bears our mark, and no other bit, is routed by our table.
fn rule(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(MARK),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(TABLE),
    ];
    rule
}

/// The kernel's number of the device.
fn index() -> io::Result<u32> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(NAME.to_owned())];
    match ask(RouteNetlinkMessage::GetLink(message), 0)? {
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn attach_in(file: &File, patience: Duration) -> io::Result<()> {
    let mut waited = Duration::ZERO;
    loop {
        match attach(file) {
            Err(rustix::io::Errno::BUSY) if waited < patience => {
                thread::sleep(GLANCE);
                waited += GLANCE;
            }
            attached => return Ok(attached?),
        }
    }
}

/// Makes the descriptor a new device of the calling thread's namespace.
#[expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]
fn attach(file: &File) -> rustix::io::Result<()> {
    let mut request = Request {
        name: [0; 16],
        flags: FLAGS,
        rest: [0; 22],
    };
    for (to, from) in request.name.iter_mut().zip(NAME.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `Request` is, its size asserted above.
    let change = unsafe { Updater::<TUNSETIFF, Request>::new(&mut request) };
    // SAFETY: the same; on a descriptor that is no TUN device the kernel refuses it (ENOTTY).
    unsafe { ioctl(file.as_fd(), change) }
}
