//! A frame's headers, one after the other, in words: for people who look at bytes.
//!
//! Nothing is judged here; what is cut off or odd is said to be. Where a checksum covers all that is there,
//! it is said whether it is right.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use ringgate_conntrack::Endpoint;
use ringgate_dataplane::wire::ipv4::{self, Ipv4};
use ringgate_dataplane::wire::ipv6::{self, FragmentHeader, Ipv6};
use ringgate_dataplane::wire::tcp::{self, Tcp};
use ringgate_dataplane::wire::udp::{self, Udp};
use ringgate_dataplane::wire::vlan::{Framing, TAG};
use ringgate_dataplane::wire::{checksum, ethernet, icmpv4, icmpv6};

/// Most layers of one frame: a tunnelled ICMP error with VLAN tags about a tunnelled packet has fewer.
const MOST: usize = 16;

/// IANA protocol numbers.
const IPIP: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;

/// Where GUE listens unless it is told otherwise (draft-ietf-intarea-gue §7).
const GUE_PORT: u16 = 6080;

/// One header, or what follows the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Its protocol.
    pub(crate) name: &'static str,
    /// Its bytes in the frame.
    pub(crate) at: Range<usize>,
    /// What it says.
    pub(crate) said: String,
}

/// Whose checksum covers a pseudo header: source, destination, as the words of an [`Endpoint`].
type Ends = ([u64; 2], [u64; 2]);

struct Reader<'a> {
    frame: &'a [u8],
    layers: Vec<Layer>,
    /// Where the next header begins.
    at: usize,
    /// Where what is read ends: before padding.
    end: usize,
    /// Inside a quote, which is cut, nothing is said of checksums.
    is_quoted: bool,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Next {
    Ip,
    Transport(u8, Ends),
    Data,
}

/// The headers of `frame`.
pub(crate) fn layers(frame: &[u8]) -> Vec<Layer> {
    let mut reader = Reader {
        frame,
        layers: Vec::new(),
        at: 0,
        end: frame.len(),
        is_quoted: false,
    };
    let mut next = reader.ethernet();
    while reader.at < reader.end && reader.layers.len() < MOST {
        next = match next {
            Next::Ip => reader.ip(),
            Next::Transport(protocol, ends) => reader.transport(protocol, ends),
            Next::Data => {
                let len = reader.end - reader.at;
                reader.take("data", len, format!("{len} bytes"));
                Next::Data
            }
        };
    }
    let padding = frame.len() - reader.end;
    if padding > 0 {
        reader.at = reader.end;
        reader.end = frame.len();
        reader.take("padding", padding, format!("{padding} bytes"));
    }
    reader.layers
}

impl Reader<'_> {
    fn rest(&self) -> &[u8] {
        self.frame.get(self.at..self.end).unwrap_or_default()
    }

    /// Notes a header of so many bytes, or as many as there are.
    fn take(&mut self, name: &'static str, len: usize, said: String) {
        let end = (self.at + len).min(self.end);
        let at = self.at..end;
        self.layers.push(Layer { name, at, said });
        self.at = end;
    }

    /// Notes that what is left is no whole header.
    fn cut(&mut self, name: &'static str) -> Next {
        let len = self.end - self.at;
        self.take(name, len, format!("cut off after {len} bytes"));
        Next::Data
    }

    fn ethernet(&mut self) -> Next {
        let Some(framing) = Framing::of(self.frame) else {
            return self.cut("Ethernet");
        };
        let mac = |at: usize| {
            let bytes = self.frame.get(at..at + 6).unwrap_or_default();
            let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            words.join(":")
        };
        let ethertype = framing.ethertype;
        let said = format!("{} > {}", mac(6), mac(0));
        let kind = match ethertype {
            ethernet::TYPE_IPV4 => "IPv4".to_owned(),
            ethernet::TYPE_IPV6 => "IPv6".to_owned(),
            other => format!("type 0x{other:04x}"),
        };
        if framing.tags.is_none() {
            self.take("Ethernet", ethernet::HEADER, format!("{said}, {kind}"));
        } else {
            self.take("Ethernet", ethernet::HEADER, said);
            for tag in [framing.tags.outer(), framing.tags.inner()]
                .into_iter()
                .flatten()
            {
                let (id, priority) = (tag.id(), tag.tci >> 13);
                let said = format!("VLAN {id}, priority {priority}, tag 0x{:04x}", tag.tpid);
                self.take("VLAN", TAG, said);
            }
        }
        match ethertype {
            ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6 => Next::Ip,
            _ => Next::Data,
        }
    }

    fn ip(&mut self) -> Next {
        match self.rest().first().map(|first| first >> 4) {
            Some(4) => self.ipv4(),
            Some(6) => self.ipv6(),
            _ => self.cut("IP"),
        }
    }

    fn ipv4(&mut self) -> Next {
        let bytes = self.rest();
        let Some(view) = Ipv4::from_bytes(bytes) else {
            return self.cut("IPv4");
        };
        let len = view.header_len().max(ipv4::HEADER);
        let (source, destination) = (view.source(), view.destination());
        let mut said = format!(
            "{} > {}, ttl {}, {} bytes",
            Ipv4Addr::from(source),
            Ipv4Addr::from(destination),
            view.ttl(),
            view.total_len()
        );
        let flags = bytes.get(6).copied().unwrap_or(0);
        if flags & 0x40 != 0 {
            said += ", don't fragment";
        }
        let service = bytes.get(1).copied().unwrap_or(0);
        if service != 0 {
            let _ = write!(said, ", dscp {} ecn {}", service >> 2, service & 3);
        }
        if view.is_fragment() {
            let more = if view.more_fragments() {
                ", more follow"
            } else {
                ""
            };
            let (id, offset) = (view.identification(), view.fragment_offset());
            let _ = write!(said, ", fragment of {id} at {offset}{more}");
        }
        if !self.is_quoted {
            let header = bytes.get(..len);
            let is_right = header.is_some_and(ipv4::checksum_is_right);
            said += if is_right {
                ", checksum right"
            } else {
                ", CHECKSUM WRONG"
            };
        }
        let (whole, offset, protocol) = (view.total_len(), view.fragment_offset(), view.protocol());
        let is_part = view.is_fragment();
        let ends = (of_v4(source), of_v4(destination));
        self.end_at(whole);
        self.take("IPv4", len, said);
        self.after_ip(protocol, ends, (offset, is_part))
    }

    fn ipv6(&mut self) -> Next {
        let bytes = self.rest();
        let Some(view) = Ipv6::from_bytes(bytes) else {
            return self.cut("IPv6");
        };
        let (source, destination) = (view.source(), view.destination());
        let said = format!(
            "{} > {}, hop limit {}, payload {} bytes",
            Ipv6Addr::from(source),
            Ipv6Addr::from(destination),
            view.hop_limit(),
            view.payload_len()
        );
        let (whole, protocol) = (ipv6::HEADER + view.payload_len(), view.next_header());
        let ends = (of_v6(source), of_v6(destination));
        self.end_at(whole);
        self.take("IPv6", ipv6::HEADER, said);
        if protocol != ipv6::FRAGMENT {
            return self.after_ip(protocol, ends, (0, false));
        }
        let Some((header, _)) = FragmentHeader::split(self.rest()) else {
            return self.cut("fragment");
        };
        let (offset, protocol) = (header.offset(), header.next_header());
        let more = if header.more_fragments() {
            ", more follow"
        } else {
            ""
        };
        let said = format!("of {} at {offset}{more}", header.identification());
        self.take("fragment", ipv6::FRAGMENT_HEADER, said);
        self.after_ip(protocol, ends, (offset, true))
    }

    /// What is beyond the packet's length is padding.
    fn end_at(&mut self, whole: usize) {
        self.end = self.end.min(self.at.saturating_add(whole));
    }

    fn after_ip(&mut self, protocol: u8, ends: Ends, (offset, is_part): (usize, bool)) -> Next {
        // The checksum of a fragment covers what is not here.
        self.is_quoted |= is_part;
        match (offset, protocol) {
            (0, IPIP | IPV6) => Next::Ip,
            (0, _) => Next::Transport(protocol, ends),
            _ => Next::Data,
        }
    }

    fn transport(&mut self, protocol: u8, ends: Ends) -> Next {
        match protocol {
            tcp::PROTOCOL => self.tcp(ends),
            udp::PROTOCOL => self.udp(ends),
            GRE => self.gre(),
            icmpv4::PROTOCOL => self.icmp("ICMP", None),
            icmpv6::PROTOCOL => self.icmp("ICMPv6", Some(ends)),
            _ => Next::Data,
        }
    }

    /// Says of a checksum whether it is right, if it can be told.
    fn judge(&self, said: &mut String, covered: u64) {
        if !self.is_quoted {
            let is_right = checksum::is_zero(covered);
            *said += if is_right {
                ", checksum right"
            } else {
                ", CHECKSUM WRONG"
            };
        }
    }

    fn covered(&self, protocol: u8, (source, destination): Ends) -> u64 {
        let bytes = self.rest();
        let pseudo = checksum::pseudo_header(source, destination, protocol, bytes.len());
        checksum::add(pseudo, checksum::sum(bytes))
    }

    fn tcp(&mut self, ends: Ends) -> Next {
        let bytes = self.rest();
        let Some(view) = Tcp::from_bytes(bytes) else {
            return self.cut("TCP");
        };
        let len = view.header_len().max(tcp::HEADER);
        let mut said = format!(
            "{} > {}, {}, sequence {}",
            view.source_port(),
            view.destination_port(),
            flags(view.flags()),
            view.sequence()
        );
        let options = bytes.get(tcp::HEADER..len).unwrap_or_default();
        // Stacks put it first.
        if let Some([2, 4, high, low]) = options.first_chunk() {
            let _ = write!(said, ", segment size {}", u16::from_be_bytes([*high, *low]));
        }
        self.judge(&mut said, self.covered(tcp::PROTOCOL, ends));
        self.take("TCP", len, said);
        Next::Data
    }

    fn udp(&mut self, ends: Ends) -> Next {
        let bytes = self.rest();
        let Some(view) = Udp::from_bytes(bytes) else {
            return self.cut("UDP");
        };
        let (to, sum) = (view.destination_port(), view.checksum());
        let mut said = format!("{} > {to}, {} bytes", view.source_port(), view.len());
        if sum == 0 {
            said += ", no checksum";
        } else {
            self.judge(&mut said, self.covered(udp::PROTOCOL, ends));
        }
        self.take("UDP", udp::HEADER, said);
        match (to, self.rest().first().map(|first| first >> 6)) {
            (GUE_PORT, Some(0)) => self.gue(),
            (GUE_PORT, Some(1)) => Next::Ip,
            _ => Next::Data,
        }
    }

    fn gue(&mut self) -> Next {
        let Some([first, protocol, ..]) = self.rest().first_chunk::<4>().copied() else {
            return self.cut("GUE");
        };
        let len = 4 + 4 * usize::from(first & 0x1F);
        self.take("GUE", len, format!("variant 0, protocol {protocol}"));
        match protocol {
            IPIP | IPV6 => Next::Ip,
            _ => Next::Data,
        }
    }

    fn gre(&mut self) -> Next {
        let bytes = self.rest();
        let Some([flags, _, kind @ ..]) = bytes.first_chunk::<4>().copied() else {
            return self.cut("GRE");
        };
        let kind = u16::from_be_bytes(kind);
        let set = |flag: u8| usize::from(flags & flag != 0);
        let len = 4 + 4 * (set(0x80) + set(0x20) + set(0x10));
        let mut said = format!("type 0x{kind:04x}");
        let key = bytes.get(4 + 4 * set(0x80)..).and_then(<[u8]>::first_chunk);
        if let (1, Some(key)) = (set(0x20), key) {
            let _ = write!(said, ", key {}", u32::from_be_bytes(*key));
        }
        self.take("GRE", len, said);
        match kind {
            ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6 => Next::Ip,
            _ => Next::Data,
        }
    }

    fn icmp(&mut self, name: &'static str, ends: Option<Ends>) -> Next {
        let bytes = self.rest();
        let Some([kind, code, _, _, _, _, high, low]) = bytes.first_chunk::<8>().copied() else {
            return self.cut(name);
        };
        let is_v4 = ends.is_none();
        let (word, is_error) = icmp_name(is_v4, kind, code);
        let mut said = format!("{word} (type {kind}, code {code})");
        let is_too_big = (is_v4 && (kind, code) == (3, 4)) || (!is_v4 && kind == 2);
        if is_too_big {
            let _ = write!(said, ", MTU {}", u16::from_be_bytes([high, low]));
        }
        let covered = match ends {
            Some(ends) => self.covered(icmpv6::PROTOCOL, ends),
            None => checksum::sum(bytes),
        };
        self.judge(&mut said, covered);
        self.take(name, icmpv4::HEADER, said);
        if is_error {
            self.is_quoted = true;
            return Next::Ip;
        }
        Next::Data
    }
}

/// What a message is called, and whether it quotes a packet.
fn icmp_name(is_v4: bool, kind: u8, code: u8) -> (&'static str, bool) {
    match (is_v4, kind, code) {
        (true, 0, _) | (false, 129, _) => ("echo reply", false),
        (true, 8, _) | (false, 128, _) => ("echo request", false),
        (true, 3, 4) => ("fragmentation needed", true),
        (false, 2, _) => ("packet too big", true),
        (true, 3, 3) | (false, 1, 4) => ("port unreachable", true),
        (true, 3, _) | (false, 1, _) => ("unreachable", true),
        (true, 11, _) | (false, 3, _) => ("time exceeded", true),
        (true, 12, _) | (false, 4, _) => ("parameter problem", true),
        _ => ("message", false),
    }
}

/// The names of TCP flags.
pub(crate) fn flags(flags: u8) -> String {
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set = names
        .iter()
        .enumerate()
        .filter(|(bit, _)| flags & (1 << bit) != 0);
    let set: Vec<&str> = set.map(|(_, name)| *name).collect();
    if set.is_empty() {
        "no flags".to_owned()
    } else {
        set.join(" ")
    }
}

fn of_v4(octets: [u8; 4]) -> [u64; 2] {
    Endpoint::from_socket((Ipv4Addr::from(octets), 0).into()).address
}

fn of_v6(octets: [u8; 16]) -> [u64; 2] {
    Endpoint::from_socket((Ipv6Addr::from(octets), 0).into()).address
}
