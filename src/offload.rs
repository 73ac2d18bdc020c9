//! What a device does to frames before XDP sees them, as `ethtool -k` tells it.
#![expect(unsafe_code, reason = "SIOCETHTOOL takes a pointer in a union")]

use std::ffi::c_char;
use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketType, socket};

/// `ETHTOOL_GFLAGS` (linux/ethtool.h): asks for the flags below.
const GET_FLAGS: u32 = 0x25;

/// `ETH_FLAG_RXVLAN`: VLAN tags of received frames are taken off.
const TAKES_TAGS: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the interface of this name takes VLAN tags off what it receives, and hands them to the kernel beside the
/// frame (`rx-vlan-offload`). XDP programs then do not see them.
///
/// # Errors
///
/// What the kernel says; it needs no privileges.
pub(crate) fn takes_vlan_tags(interface: &str) -> io::Result<bool> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut name: [c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let mut value = Value {
        command: GET_FLAGS,
        data: 0,
    };
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut value).cast(),
        },
    };
    let request: *mut libc::ifreq = &raw mut request;
    // SAFETY: the name ends with a zero, and for this command the kernel reads and writes one `Value`
    // (`ethtool_get_value`, net/ethtool/ioctl.c): both live in this function.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data & TAKES_TAGS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_takes_no_tags_and_a_missing_one_is_an_error() {
        assert!(!takes_vlan_tags("lo").unwrap());
        let error = takes_vlan_tags("no-such-device-here").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
