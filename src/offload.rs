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

/// `ETH_FLAG_LRO`: received segments are merged in the device.
const MERGES: u32 = 1 << 15;

/// `ETHTOOL_GGRO`: whether the kernel merges received segments.
const GET_GRO: u32 = 0x2b;

/// `ETHTOOL_GRXCLSRLCNT`: how many rules choose the queues of received frames.
const COUNT_RULES: u32 = 0x2e;

/// What a device, or the kernel in front of XDP, does to received frames. What cannot be asked is not done: a
/// device without the means to answer has none to do it with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Offloads {
    /// VLAN tags are taken off, and handed to the kernel beside the frame (`rx-vlan-offload`). XDP programs do not see
    /// them.
    pub(crate) takes_vlan_tags: bool,
    /// The device merges segments (`large-receive-offload`).
    pub(crate) lro: bool,
    /// The kernel merges segments (`generic-receive-offload`): after native XDP, before generic.
    pub(crate) gro: bool,
    /// Rules in the device that choose queues, or drop (`ethtool -n`).
    pub(crate) rules: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
#[derive(Debug)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_rxnfc`, as far as it is of a fixed size.
#[repr(C)]
#[derive(Debug)]
struct Rules {
    command: u32,
    flow_type: u32,
    data: u64,
    /// `struct ethtool_rx_flow_spec`.
    flow: [u64; 21],
    count: u32,
    padding: u32,
}

const _: () = assert!(size_of::<Value>() == 8 && size_of::<Rules>() == 192);

/// What an `ETHTOOL_` command reads and writes: its first word is the command.
trait Question {}

impl Question for Value {}

impl Question for Rules {}

/// What the interface of this name does. It needs no privileges.
pub(crate) fn offloads(interface: &str) -> Offloads {
    let value = |command| {
        let mut value = Value { command, data: 0 };
        ask(interface, &mut value).map_or(0, |()| value.data)
    };
    let flags = value(GET_FLAGS);
    let mut rules = Rules {
        command: COUNT_RULES,
        flow_type: 0,
        data: 0,
        flow: [0; 21],
        count: 0,
        padding: 0,
    };
    let rules = ask(interface, &mut rules).map_or(0, |()| rules.count);
    Offloads {
        takes_vlan_tags: flags & TAKES_TAGS != 0,
        lro: flags & MERGES != 0,
        gro: value(GET_GRO) != 0,
        rules,
    }
}

/// Has the kernel answer an `ETHTOOL_` command.
fn ask<Q: Question>(interface: &str, question: &mut Q) -> io::Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut name: [c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut *question).cast(),
        },
    };
    let request: *mut libc::ifreq = &raw mut request;
    // SAFETY: the name ends with a zero, and for the commands here the kernel reads and writes one `Value`
    // (`ethtool_get_value`) or one `Rules` (`ethtool_get_rxnfc`, net/ethtool/ioctl.c), which a `Question` is: it
    // lives in the caller.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_asked_and_a_missing_one_does_nothing() {
        let mut value = Value {
            command: GET_GRO,
            data: 7,
        };
        ask("lo", &mut value).unwrap();
        assert!(value.data <= 1, "{value:?}");
        let of_loopback = offloads("lo");
        assert!(!of_loopback.takes_vlan_tags && of_loopback.rules == 0);
        assert_eq!(offloads("no-such-device-here"), Offloads::default());
        let error = ask("no-such-device-here", &mut value).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
