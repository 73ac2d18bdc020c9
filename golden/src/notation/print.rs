//! A packet's line.

use super::icmp::{Rest, messages};
use super::layer::{
    Checksum, Extension, Fragment, Gre, Gue, Icmp, Ipv4, Ipv6, Layer, Length, Packet, Tcp,
    TcpOption, Udp, Vlan,
};
use super::payload::{hex, written};
use super::{EXTENSIONS, Names, PROTOCOLS, TCP_FLAGS};
use crate::notation::dissect::DEFAULT_WINDOW;

impl Packet {
    /// The line, with names for hardware addresses.
    #[must_use]
    pub fn text(&self, names: &Names) -> String {
        let mut text = String::new();
        for (place, layer) in self.layers.iter().enumerate() {
            let after_quote = place > 0 && self.layers[place - 1] == Layer::Quote;
            text += match (place, after_quote) {
                (0, _) => "",
                (_, true) => " ",
                _ => " / ",
            };
            text += &layer_text(layer, names);
        }
        text
    }
}

fn layer_text(layer: &Layer, names: &Names) -> String {
    let mut words = Words::default();
    match layer {
        Layer::Ethernet(ethernet) => {
            words.arrow(
                "eth",
                names.of(ethernet.source),
                names.of(ethernet.destination),
            );
            words.hex16("type", ethernet.ethertype);
        }
        Layer::Vlan(vlan) => tag(vlan, &mut words),
        Layer::Ipv4(ip) => ipv4(ip, &mut words),
        Layer::Ipv6(ip) => ipv6(ip, &mut words),
        Layer::Extension(header) => extension(header, &mut words),
        Layer::Fragment(header) => fragment(header, &mut words),
        Layer::Tcp(header) => tcp(header, &mut words),
        Layer::Udp(header) => udp(header, &mut words),
        Layer::Gre(header) => gre(header, &mut words),
        Layer::Gue(header) => gue(header, &mut words),
        Layer::Icmp(header) => icmp(header, &mut words),
        Layer::Quote => words.add("quote"),
        Layer::Payload(bytes) => words.add(written(bytes)),
        Layer::Missing(len) => words.add(format!("missing {len}")),
        Layer::Padding(bytes) if bytes.iter().all(|byte| *byte == 0) => {
            words.add(format!("padding {}", bytes.len()));
        }
        Layer::Padding(bytes) => words.add(format!("padding hex \"{}\"", hex(bytes))),
    }
    words.0.join(" ")
}

fn tag(vlan: &Vlan, words: &mut Words) {
    words.add(format!("vlan {}", vlan.id));
    words.unusual("priority", vlan.priority, 0);
    words.flag("drop-eligible", vlan.drop_eligible);
    words.hex16("tpid", Some(vlan.tpid).filter(|tpid| *tpid != 0x8100));
    words.hex16("type", vlan.ethertype);
}

fn ipv4(ip: &Ipv4, words: &mut Words) {
    words.arrow("ip", ip.source, ip.destination);
    words.optional("version", ip.version);
    words.optional("words", ip.words);
    words.unusual("ttl", ip.ttl, 64);
    words.unusual("dscp", ip.dscp, 0);
    words.unusual("ecn", ip.ecn, 0);
    words.unusual("id", ip.id, 0);
    words.flag("df", ip.df);
    if ip.more || ip.offset > 0 {
        words.add(format!("frag {}", ip.offset));
    }
    words.flag("more", ip.more);
    words.bytes("options", &ip.options);
    words.protocol(ip.protocol);
    words.length(ip.length);
    words.checksum(ip.checksum);
}

fn ipv6(ip: &Ipv6, words: &mut Words) {
    words.arrow("ip6", ip.source, ip.destination);
    words.optional("version", ip.version);
    words.unusual("hlim", ip.hop_limit, 64);
    words.unusual("dscp", ip.dscp, 0);
    words.unusual("ecn", ip.ecn, 0);
    if ip.flow != 0 {
        words.add(format!("flow {:#07x}", ip.flow));
    }
    words.protocol(ip.protocol);
    words.length(ip.length);
}

fn extension(header: &Extension, words: &mut Words) {
    let named = EXTENSIONS.iter().find(|(_, kind)| *kind == header.kind);
    words.add(named.map_or("extension", |(name, _)| name));
    words.bytes("data", &header.data);
    words.protocol(header.protocol);
}

fn fragment(header: &Fragment, words: &mut Words) {
    words.add(format!("frag {}", header.offset));
    words.flag("more", header.more);
    words.unusual("id", header.id, 0);
    words.protocol(header.protocol);
}

fn tcp(tcp: &Tcp, words: &mut Words) {
    words.arrow("tcp", tcp.source, tcp.destination);
    let flags = TCP_FLAGS.iter().enumerate();
    let set = flags.filter(|(bit, _)| tcp.flags >> bit & 1 != 0);
    set.for_each(|(_, name)| words.add(*name));
    words.flag("no-flags", tcp.flags == 0 && tcp.first.is_none());
    words.unusual("seq", tcp.sequence, 0);
    words.unusual("ack", tcp.acknowledgment, 0);
    words.unusual("win", tcp.window, DEFAULT_WINDOW);
    words.unusual("urgent", tcp.urgent, 0);
    for option in &tcp.options {
        match option {
            TcpOption::Nop => words.add("nop"),
            TcpOption::Mss(size) => words.add(format!("mss {size}")),
            TcpOption::WindowScale(shift) => words.add(format!("wscale {shift}")),
            TcpOption::SackPermitted => words.add("sack-permitted"),
            TcpOption::Timestamps(value, echo) => words.add(format!("timestamps {value} {echo}")),
            TcpOption::Raw(bytes) => words.bytes("options", bytes),
        }
    }
    words.optional("words", tcp.words);
    words.checksum(tcp.checksum);
    words.optional("first", tcp.first);
}

fn udp(udp: &Udp, words: &mut Words) {
    words.arrow("udp", udp.source, udp.destination);
    words.length(udp.length);
    words.checksum(udp.checksum);
}

fn gre(gre: &Gre, words: &mut Words) {
    words.add("gre");
    words.optional("key", gre.key);
    words.optional("seq", gre.sequence);
    words.flag("with-checksum", gre.checksum == Some(Checksum::Right));
    gre.checksum
        .into_iter()
        .for_each(|checksum| words.checksum(checksum));
    words.hex16("type", gre.ethertype);
}

fn gue(gue: &Gue, words: &mut Words) {
    words.add(format!("gue {}", gue.variant));
    words.hex16("flags", Some(gue.flags).filter(|flags| *flags != 0));
    words.protocol(gue.protocol);
}

fn icmp(icmp: &Icmp, words: &mut Words) {
    words.add(if icmp.is_v6 { "icmp6" } else { "icmp" });
    let message = messages(icmp.is_v6).iter();
    let mut named = message.filter(|one| (one.kind, one.code) == (icmp.kind, icmp.code));
    let rest = icmp.rest;
    let described = named.next().and_then(|message| {
        let rest = match message.rest {
            Rest::Unused if rest == 0 => String::new(),
            Rest::Echo => format!(" id {} seq {}", rest >> 16, rest & 0xFFFF),
            Rest::Mtu if icmp.is_v6 || rest <= 0xFFFF => format!(" mtu {rest}"),
            Rest::ShortPointer if rest & 0xFF_FFFF == 0 => format!(" pointer {}", rest >> 24),
            Rest::Pointer => format!(" pointer {rest}"),
            Rest::Gateway => format!(" gateway {}", std::net::Ipv4Addr::from(rest)),
            Rest::Unused | Rest::Mtu | Rest::ShortPointer => return None,
        };
        Some(format!("{}{rest}", message.name))
    });
    words.add(
        described
            .unwrap_or_else(|| format!("type {} code {} rest {rest:#010x}", icmp.kind, icmp.code)),
    );
    words.checksum(icmp.checksum);
}

/// The words of a part.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add(&mut self, word: impl Into<String>) {
        self.0.push(word.into());
    }

    fn arrow(&mut self, name: &str, from: impl ToString, to: impl ToString) {
        let (from, to) = (from.to_string(), to.to_string());
        self.add(format!("{name} {from} > {to}"));
    }

    fn flag(&mut self, name: &str, is_set: bool) {
        if is_set {
            self.add(name);
        }
    }

    fn optional(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(format!("{name} {}", value.to_string()));
        }
    }

    fn unusual<T: ToString + PartialEq>(&mut self, name: &str, value: T, usual: T) {
        self.optional(name, Some(value).filter(|value| *value != usual));
    }

    fn hex16(&mut self, name: &str, value: Option<u16>) {
        self.optional(name, value.map(|value| format!("{value:#06x}")));
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.add(format!("{name} \"{}\"", hex(bytes)));
        }
    }

    fn protocol(&mut self, protocol: Option<u8>) {
        let name = |value| {
            let named = PROTOCOLS.iter().find(|(_, number)| *number == value);
            named.map_or_else(|| value.to_string(), |(name, _)| (*name).to_owned())
        };
        self.optional("protocol", protocol.map(name));
    }

    fn length(&mut self, length: Option<Length>) {
        if let Some(Length { value, is_wrong }) = length {
            let name = if is_wrong { "bad-length" } else { "length" };
            self.add(format!("{name} {value}"));
        }
    }

    fn checksum(&mut self, checksum: Checksum) {
        match checksum {
            Checksum::Right => {}
            Checksum::OffByOne => self.add("bad-checksum"),
            Checksum::Partial => self.add("partial-checksum"),
            Checksum::Absent => self.add("no-checksum"),
            Checksum::Wrong(value) => self.add(format!("bad-checksum {value:#06x}")),
            Checksum::Unknown(value) => self.add(format!("checksum {value:#06x}")),
        }
    }
}
