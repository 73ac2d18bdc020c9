//! What a packet is made of, outermost first. Every field has the value that most packets have, so
//! that the notation names only what is unusual.

use std::net::{Ipv4Addr, Ipv6Addr};

use ringgate_dataplane::wire::ethernet::Mac;

/// A frame, layer by layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packet {
    /// Outermost first; each contains what follows.
    pub layers: Vec<Layer>,
}

/// One header, or what is no header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layer {
    /// `eth`
    Ethernet(Ethernet),
    /// `vlan`
    Vlan(Vlan),
    /// `ip`
    Ipv4(Ipv4),
    /// `ip6`
    Ipv6(Ipv6),
    /// `hop-by-hop`, `routing`, `destination-options`
    Extension(Extension),
    /// `fragment`: the IPv6 header
    Fragment(Fragment),
    /// `tcp`
    Tcp(Tcp),
    /// `udp`
    Udp(Udp),
    /// `gre`
    Gre(Gre),
    /// `gue`
    Gue(Gue),
    /// `icmp`, `icmp6`
    Icmp(Icmp),
    /// `quote`: what follows is (the beginning of) another packet, that an ICMP error is about.
    Quote,
    /// Data: text, `N bytes` of [`pattern`](super::payload::pattern), or hexadecimal.
    Payload(Vec<u8>),
    /// So many bytes that lengths announce and that are not here: cut off by who quoted the
    /// packet, or in other fragments. They go on with the pattern, as far as checksums cover them.
    Missing(usize),
    /// What follows the IP packet in its frame.
    Padding(Vec<u8>),
}

/// What stands in a checksum field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// What belongs there.
    #[default]
    Right,
    /// One more than what belongs there, in one's complement.
    OffByOne,
    /// The sum of the pseudo header alone: what a stack leaves to a device to complete.
    Partial,
    /// Zero: UDP's "none computed".
    Absent,
    /// A wrong one.
    Wrong(u16),
    /// One that cannot be judged, since not all that it covers is here.
    Unknown(u16),
}

/// What stands in a length field, where it is not the length of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// The field.
    pub value: u16,
    /// Nothing explains it.
    pub is_wrong: bool,
}

impl Length {
    /// Of a field that holds `value` where `counted` bytes belong to it.
    #[must_use]
    pub fn unless(value: u16, counted: usize, is_legal: bool) -> Option<Self> {
        let length = Self {
            value,
            is_wrong: !is_legal,
        };
        (usize::from(value) != counted).then_some(length)
    }
}

/// Ethernet II.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ethernet {
    /// From.
    pub source: Mac,
    /// To.
    pub destination: Mac,
    /// Where it does not follow from the next layer.
    pub ethertype: Option<u16>,
}

/// An IEEE 802.1Q tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vlan {
    /// The tag's own EtherType.
    pub tpid: u16,
    /// Identifier, 12 bits.
    pub id: u16,
    /// Priority, 3 bits.
    pub priority: u8,
    /// Drop eligible.
    pub drop_eligible: bool,
    /// Where it does not follow from the next layer.
    pub ethertype: Option<u16>,
}

/// RFC 791.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv4 {
    /// From.
    pub source: Ipv4Addr,
    /// To.
    pub destination: Ipv4Addr,
    /// Hops to live.
    pub ttl: u8,
    /// Six bits, RFC 2474.
    pub dscp: u8,
    /// Two bits, RFC 3168.
    pub ecn: u8,
    /// Identification.
    pub id: u16,
    /// Don't fragment.
    pub df: bool,
    /// Whether a fragment follows this one.
    pub more: bool,
    /// Where the fragment belongs, bytes.
    pub offset: u16,
    /// Options, padded with zeros to words.
    pub options: Vec<u8>,
    /// Where it does not follow from the next layer.
    pub protocol: Option<u8>,
    /// A total length other than the bytes'.
    pub length: Option<Length>,
    /// A version other than 4.
    pub version: Option<u8>,
    /// A header length (words) other than the header's.
    pub words: Option<u8>,
    /// Of the header.
    pub checksum: Checksum,
}

/// RFC 8200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6 {
    /// From.
    pub source: Ipv6Addr,
    /// To.
    pub destination: Ipv6Addr,
    /// Hops to live.
    pub hop_limit: u8,
    /// Six bits, RFC 2474.
    pub dscp: u8,
    /// Two bits, RFC 3168.
    pub ecn: u8,
    /// 20 bits.
    pub flow: u32,
    /// Where it does not follow from the next layer.
    pub protocol: Option<u8>,
    /// A payload length other than the bytes'.
    pub length: Option<Length>,
    /// A version other than 6.
    pub version: Option<u8>,
}

/// An IPv6 extension header of type, length and data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its own protocol number.
    pub kind: u8,
    /// All but its first two bytes; padded with zeros to 8n + 6.
    pub data: Vec<u8>,
    /// Where it does not follow from the next layer.
    pub protocol: Option<u8>,
}

/// IPv6's fragment header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// Where the fragment belongs, bytes.
    pub offset: u16,
    /// Whether a fragment follows this one.
    pub more: bool,
    /// Identification.
    pub id: u32,
    /// Where it does not follow from the next layer.
    pub protocol: Option<u8>,
}

/// RFC 9293.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tcp {
    /// From.
    pub source: u16,
    /// To.
    pub destination: u16,
    /// As on the wire: FIN is 1.
    pub flags: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// In order; padded with zeros to words.
    pub options: Vec<TcpOption>,
    /// A data offset (words) other than the header's.
    pub words: Option<u8>,
    /// Of all.
    pub checksum: Checksum,
    /// Only so many bytes of the header are here.
    pub first: Option<usize>,
}

/// One option of a TCP header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpOption {
    /// Kind 1.
    Nop,
    /// Kind 2: maximum segment size.
    Mss(u16),
    /// Kind 3: window scale.
    WindowScale(u8),
    /// Kind 4: selective acknowledgments permitted.
    SackPermitted,
    /// Kind 8: timestamps.
    Timestamps(u32, u32),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

/// RFC 768.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Udp {
    /// From.
    pub source: u16,
    /// To.
    pub destination: u16,
    /// A length other than the bytes'.
    pub length: Option<Length>,
    /// Of all.
    pub checksum: Checksum,
}

/// RFC 2784, RFC 2890.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Gre {
    /// The key, if there is one.
    pub key: Option<u32>,
    /// The sequence number, if there is one.
    pub sequence: Option<u32>,
    /// The checksum, if there is one.
    pub checksum: Option<Checksum>,
    /// Where it does not follow from the next layer.
    pub ethertype: Option<u16>,
}

/// Generic UDP encapsulation, draft-ietf-intarea-gue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gue {
    /// 0, or 1: IP directly in UDP, a header of no bytes.
    pub variant: u8,
    /// Flags of variant 0.
    pub flags: u16,
    /// Where it does not follow from the next layer.
    pub protocol: Option<u8>,
}

/// RFC 792, RFC 4443.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icmp {
    /// ICMPv6.
    pub is_v6: bool,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes that follow the checksum.
    pub rest: u32,
    /// Of all.
    pub checksum: Checksum,
}

impl Icmp {
    /// Whether it is about another packet, which it quotes.
    #[must_use]
    pub const fn is_error(&self) -> bool {
        if self.is_v6 {
            self.kind < 128
        } else {
            matches!(self.kind, 3 | 4 | 5 | 11 | 12)
        }
    }
}

impl Layer {
    /// The IANA protocol number that an IP header in front of it has.
    #[must_use]
    pub const fn protocol(&self) -> Option<u8> {
        match self {
            Self::Ipv4(_) => Some(4),
            Self::Ipv6(_) => Some(41),
            Self::Extension(extension) => Some(extension.kind),
            Self::Fragment(_) => Some(44),
            Self::Tcp(_) => Some(6),
            Self::Udp(_) => Some(17),
            Self::Gre(_) => Some(47),
            Self::Icmp(icmp) => Some(if icmp.is_v6 { 58 } else { 1 }),
            _ => None,
        }
    }

    /// The EtherType that a header in front of it has.
    #[must_use]
    pub const fn ethertype(&self) -> Option<u16> {
        match self {
            Self::Vlan(vlan) => Some(vlan.tpid),
            Self::Ipv4(_) => Some(0x0800),
            Self::Ipv6(_) => Some(0x86DD),
            _ => None,
        }
    }
}
