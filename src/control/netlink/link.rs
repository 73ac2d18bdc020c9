//! A network interface as the kernel describes it.

use std::fmt;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use ringgate_dataplane::wire::vlan::{TPID_CUSTOMER, Tag};

/// An Ethernet address, in the order of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// Six bytes that are not all zero; other link layers have other lengths, a tunnel has none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match <[u8; 6]>::try_from(bytes) {
            Ok([0, 0, 0, 0, 0, 0]) | Err(_) => None,
            Ok(bytes) => Some(Self(bytes)),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// The kernel's number for it; never 0.
    pub(crate) index: u32,
    /// Its name; can change.
    pub(crate) name: String,
    /// Its Ethernet address, if it has one.
    pub(crate) mac: Option<Mac>,
    /// Bytes of a packet above the link layer.
    pub(crate) mtu: u32,
    /// Administratively up (IFF_UP).
    pub(crate) up: bool,
    /// The layer below is up too (IFF_LOWER_UP): a cable, a peer.
    pub(crate) carrier: bool,
    /// What kind of virtual device: "veth", "tun", "bridge"…; none for hardware.
    pub(crate) kind: Option<String>,
    /// What a VLAN device puts its packets into, and on which device of this namespace.
    pub(crate) vlan: Option<Vlan>,
    /// Receive queues that the device was created with. A physical NIC can have fewer in use
    /// (`ethtool -l` tells), never more.
    pub(crate) rx_queues: u32,
    /// Transmit queues, likewise.
    pub(crate) tx_queues: u32,
    /// An XDP program is attached, by whatever way.
    pub(crate) has_program: bool,
}

/// A VLAN on another device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vlan {
    /// The kernel's number for that device.
    pub(crate) parent: u32,
    /// What packets bear there.
    pub(crate) tag: Tag,
}

impl Link {
    /// Reads a link message. `None` when it is about something else than the interface itself: bridges
    /// report their ports in link messages of family AF_BRIDGE, where "deleted" means "left the bridge".
    pub(super) fn parse(message: &LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec || message.header.index == 0 {
            return None;
        }
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            kind: None,
            vlan: None,
            rx_queues: 1,
            tx_queues: 1,
            has_program: false,
        };
        let (mut parent, mut tag, mut foreign) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Link(index) => parent = Some(*index),
                // Its parent's number is of another namespace: no device of ours.
                LinkAttribute::LinkNetNsId(_) => foreign = true,
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = Mac::from_bytes(bytes),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
                LinkAttribute::NumTxQueues(queues) => link.tx_queues = *queues,
                LinkAttribute::Xdp(xdp) => {
                    let attached = |part: &LinkXdp| matches!(part, LinkXdp::Attached(how) if *how != XdpAttached::None);
                    link.has_program = xdp.iter().any(attached);
                }
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                    tag = infos.iter().find_map(tag_of);
                }
                _ => {}
            }
        }
        link.vlan = match (parent, tag) {
            (Some(parent), Some(tag)) if !foreign => Some(Vlan { parent, tag }),
            _ => None,
        };
        Some(link)
    }
}

/// The tag of a VLAN device.
fn tag_of(info: &LinkInfo) -> Option<Tag> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else {
        return None;
    };
    let (mut tpid, mut id) = (TPID_CUSTOMER, None);
    for attribute in attributes {
        match attribute {
            InfoVlan::Id(number) => id = Some(*number),
            InfoVlan::Protocol(protocol) => tpid = (*protocol).into(),
            _ => {}
        }
    }
    Some(Tag { tpid, tci: id? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_six_bytes_and_not_nothing() {
        let mac = Mac::from_bytes(&[2, 0, 0, 0xab, 1, 0]).unwrap();
        assert_eq!(mac.to_string(), "02:00:00:ab:01:00");
        for none in [[0; 6].as_slice(), &[], &[1, 2, 3, 4], &[1; 20]] {
            assert_eq!(Mac::from_bytes(none), None);
        }
    }
}
