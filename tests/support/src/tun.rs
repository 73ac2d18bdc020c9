//! A TUN device: what is written to it arrives in its namespace's kernel as from a link.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::ioctl::{Updater, ioctl, opcode};

use crate::playground::Playground;

/// `struct ifreq` of x86-64 and arm64 (`linux/if.h`): a name of 16 bytes, then a union of 24 of
/// which TUNSETIFF reads the first two, the flags.
#[repr(C)]
#[derive(Debug)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Request>() == 40);

/// TUNSETIFF (`linux/if_tun.h`): `_IOW('T', 202, int)`, although it takes an `ifreq`.
const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);

/// IFF_TUN and IFF_NO_PI: IP packets, and nothing in front of them.
const PACKETS_ALONE: u16 = 0x0001 | 0x1000;

/// The name of the device on its node.
const NAME: &str = "far0";

/// A device that lives as long as this.
#[derive(Debug)]
pub(crate) struct Tun {
    file: File,
}

impl Tun {
    /// Makes one on a node; it is up and has no address.
    ///
    /// # Panics
    ///
    /// When it cannot be made: no `/dev/net/tun`, no privilege, or there is one already.
    pub(crate) fn open(playground: &Playground, node: &str) -> Self {
        let file = playground.inside(node, || {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/net/tun");
            let file = file.unwrap_or_else(|error| panic!("/dev/net/tun: {error}"));
            attach(&file).unwrap_or_else(|error| panic!("cannot make a TUN device: {error}"));
            file
        });
        playground.change(node, &format!("link set {NAME} up"));
        Self { file }
    }

    /// Gives the kernel a packet, from its IP header on.
    ///
    /// # Errors
    ///
    /// What the kernel has against it.
    pub(crate) fn deliver(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write_all(packet)
    }
}

/// Makes the descriptor a device of the calling thread's namespace.
#[expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]
fn attach(file: &File) -> rustix::io::Result<()> {
    let mut request = Request {
        name: [0; 16],
        flags: PACKETS_ALONE,
        rest: [0; 22],
    };
    request.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `Request` is, its size asserted above.
    let change = unsafe { Updater::<TUNSETIFF, Request>::new(&mut request) };
    // SAFETY: the same; on a descriptor that is no TUN device the kernel refuses it (ENOTTY).
    unsafe { ioctl(file.as_fd(), change) }
}
