//! A packet from its line.

use std::fmt::Display;
use std::str::FromStr;

use super::dissect::DEFAULT_WINDOW;
use super::icmp::{Rest, messages};
use super::layer::{
    Checksum, Ethernet, Extension, Fragment, Gre, Gue, Icmp, Ipv4, Ipv6, Layer, Length, Packet,
    Tcp, TcpOption, Udp, Vlan,
};
use super::payload::{from_hex, pattern};
use super::{EXTENSIONS, Names, PROTOCOLS, TCP_FLAGS};

/// Why a line is no packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in `{part}`: {problem}")]
pub struct NotationError {
    /// The part of the line.
    pub part: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Packet {
    /// The packet of a line.
    ///
    /// # Errors
    ///
    /// The part that cannot be read, and why.
    pub fn parse(line: &str, names: &Names) -> Result<Self, NotationError> {
        let mut layers = Vec::new();
        for mut words in parts(line)? {
            if words.accept("quote") {
                layers.push(Layer::Quote);
                if words.is_empty() {
                    continue;
                }
            }
            let part = words.written();
            let error = |problem| NotationError {
                part: part.clone(),
                problem,
            };
            layers.push(layer(&mut words, names).map_err(error)?);
            if let Some(word) = words.next() {
                return Err(error(format!("`{word}` is nothing that can stand here")));
            }
        }
        Ok(Self { layers })
    }
}

fn layer(words: &mut Words, names: &Names) -> Result<Layer, String> {
    let name = words.word()?;
    Ok(match name.as_str() {
        "eth" => ethernet(words, names)?,
        "vlan" => vlan(words)?,
        "ip" => ipv4(words)?,
        "ip6" => ipv6(words)?,
        "frag" => fragment(words)?,
        "tcp" => tcp(words)?,
        "udp" => udp(words)?,
        "gre" => gre(words)?,
        "gue" => gue(words)?,
        "icmp" => icmp(words, false)?,
        "icmp6" => icmp(words, true)?,
        "hex" => Layer::Payload(words.hex()?),
        "missing" => Layer::Missing(words.number()?),
        "padding" if words.accept("hex") => Layer::Padding(words.hex()?),
        "padding" => Layer::Padding(vec![0; words.number()?]),
        other => match EXTENSIONS.iter().find(|(name, _)| *name == other) {
            Some((_, kind)) => extension(words, *kind)?,
            None => payload(other, words)?,
        },
    })
}

fn payload(first: &str, words: &mut Words) -> Result<Layer, String> {
    if let Some(text) = first.strip_prefix('"') {
        return Ok(Layer::Payload(text.as_bytes().to_vec()));
    }
    if let Ok(len) = first.parse()
        && words.accept("bytes")
    {
        let offset = if words.accept("from") {
            words.number()?
        } else {
            0
        };
        return Ok(Layer::Payload(pattern(offset, len)));
    }
    Err(format!(
        "`{first}` begins no layer; there are eth, vlan, ip, ip6, hop-by-hop, routing, \
         destination-options, frag, tcp, udp, gre, gue, icmp, icmp6, quote, \"text\", N bytes, \
         hex \"…\", missing N and padding N"
    ))
}

fn ethernet(words: &mut Words, names: &Names) -> Result<Layer, String> {
    let (source, destination) = words.arrow::<String>()?;
    let mac = |text: &str| {
        let unknown = || format!("`{text}` is neither a name in the network nor six bytes");
        names.mac(text).ok_or_else(unknown)
    };
    let mut ethernet = Ethernet {
        source: mac(&source)?,
        destination: mac(&destination)?,
        ethertype: None,
    };
    if words.accept("type") {
        ethernet.ethertype = Some(words.number()?);
    }
    Ok(Layer::Ethernet(ethernet))
}

fn vlan(words: &mut Words) -> Result<Layer, String> {
    let mut vlan = Vlan {
        tpid: 0x8100,
        id: words.number()?,
        priority: 0,
        drop_eligible: false,
        ethertype: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "priority" => vlan.priority = words.number()?,
            "drop-eligible" => vlan.drop_eligible = true,
            "tpid" => vlan.tpid = words.number()?,
            "type" => vlan.ethertype = Some(words.number()?),
            _ => return Err(unknown(&word)),
        }
    }
    Ok(Layer::Vlan(vlan))
}

fn ipv4(words: &mut Words) -> Result<Layer, String> {
    let (source, destination) = words.arrow()?;
    let mut ip = Ipv4 {
        source,
        destination,
        ttl: 64,
        dscp: 0,
        ecn: 0,
        id: 0,
        df: false,
        more: false,
        offset: 0,
        options: Vec::new(),
        protocol: None,
        length: None,
        version: None,
        words: None,
        checksum: Checksum::Right,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "version" => ip.version = Some(words.number()?),
            "words" => ip.words = Some(words.number()?),
            "ttl" => ip.ttl = words.number()?,
            "dscp" => ip.dscp = words.number()?,
            "ecn" => ip.ecn = words.number()?,
            "id" => ip.id = words.number()?,
            "df" => ip.df = true,
            "frag" => ip.offset = words.number()?,
            "more" => ip.more = true,
            "options" => ip.options = words.hex()?,
            "protocol" => ip.protocol = Some(words.protocol()?),
            "length" | "bad-length" => ip.length = Some(words.length(&word)?),
            _ => ip.checksum = words.checksum(&word)?,
        }
    }
    Ok(Layer::Ipv4(ip))
}

fn ipv6(words: &mut Words) -> Result<Layer, String> {
    let (source, destination) = words.arrow()?;
    let mut ip = Ipv6 {
        source,
        destination,
        hop_limit: 64,
        dscp: 0,
        ecn: 0,
        flow: 0,
        protocol: None,
        length: None,
        version: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "version" => ip.version = Some(words.number()?),
            "hlim" => ip.hop_limit = words.number()?,
            "dscp" => ip.dscp = words.number()?,
            "ecn" => ip.ecn = words.number()?,
            "flow" => ip.flow = words.number()?,
            "protocol" => ip.protocol = Some(words.protocol()?),
            "length" | "bad-length" => ip.length = Some(words.length(&word)?),
            _ => return Err(unknown(&word)),
        }
    }
    Ok(Layer::Ipv6(ip))
}

fn extension(words: &mut Words, kind: u8) -> Result<Layer, String> {
    let mut header = Extension {
        kind,
        data: Vec::new(),
        protocol: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "data" => header.data = words.hex()?,
            "protocol" => header.protocol = Some(words.protocol()?),
            _ => return Err(unknown(&word)),
        }
    }
    // As it will be on the wire, so that the same header is always the same value.
    while header.data.len() % 8 != 6 {
        header.data.push(0);
    }
    Ok(Layer::Extension(header))
}

fn fragment(words: &mut Words) -> Result<Layer, String> {
    let mut header = Fragment {
        offset: words.number()?,
        more: false,
        id: 0,
        protocol: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "more" => header.more = true,
            "id" => header.id = words.number()?,
            "protocol" => header.protocol = Some(words.protocol()?),
            _ => return Err(unknown(&word)),
        }
    }
    Ok(Layer::Fragment(header))
}

fn tcp(words: &mut Words) -> Result<Layer, String> {
    let (source, destination) = words.arrow()?;
    let mut tcp = Tcp {
        source,
        destination,
        window: DEFAULT_WINDOW,
        ..Tcp::default()
    };
    while let Some(word) = words.next() {
        if let Some(bit) = TCP_FLAGS.iter().position(|name| *name == word) {
            tcp.flags |= 1 << bit;
            continue;
        }
        let option = match word.as_str() {
            "nop" => TcpOption::Nop,
            "mss" => TcpOption::Mss(words.number()?),
            "wscale" => TcpOption::WindowScale(words.number()?),
            "sack-permitted" => TcpOption::SackPermitted,
            "timestamps" => TcpOption::Timestamps(words.number()?, words.number()?),
            "options" => TcpOption::Raw(words.hex()?),
            _ => {
                match word.as_str() {
                    "no-flags" => tcp.flags = 0,
                    "seq" => tcp.sequence = words.number()?,
                    "ack" => tcp.acknowledgment = words.number()?,
                    "win" => tcp.window = words.number()?,
                    "urgent" => tcp.urgent = words.number()?,
                    "words" => tcp.words = Some(words.number()?),
                    "first" => tcp.first = Some(words.number()?),
                    _ => tcp.checksum = words.checksum(&word)?,
                }
                continue;
            }
        };
        tcp.options.push(option);
    }
    Ok(Layer::Tcp(tcp))
}

fn udp(words: &mut Words) -> Result<Layer, String> {
    let (source, destination) = words.arrow()?;
    let mut udp = Udp {
        source,
        destination,
        ..Udp::default()
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "length" | "bad-length" => udp.length = Some(words.length(&word)?),
            _ => udp.checksum = words.checksum(&word)?,
        }
    }
    Ok(Layer::Udp(udp))
}

fn gre(words: &mut Words) -> Result<Layer, String> {
    let mut gre = Gre::default();
    while let Some(word) = words.next() {
        match word.as_str() {
            "key" => gre.key = Some(words.number()?),
            "seq" => gre.sequence = Some(words.number()?),
            "with-checksum" => gre.checksum = Some(Checksum::Right),
            "type" => gre.ethertype = Some(words.number()?),
            _ => gre.checksum = Some(words.checksum(&word)?),
        }
    }
    Ok(Layer::Gre(gre))
}

fn gue(words: &mut Words) -> Result<Layer, String> {
    let mut gue = Gue {
        variant: words.number()?,
        flags: 0,
        protocol: None,
    };
    while let Some(word) = words.next() {
        match word.as_str() {
            "flags" => gue.flags = words.number()?,
            "protocol" => gue.protocol = Some(words.protocol()?),
            _ => return Err(unknown(&word)),
        }
    }
    Ok(Layer::Gue(gue))
}

fn icmp(words: &mut Words, is_v6: bool) -> Result<Layer, String> {
    let name = words.word()?;
    let mut icmp = Icmp {
        is_v6,
        kind: 0,
        code: 0,
        rest: 0,
        checksum: Checksum::Right,
    };
    if name == "type" {
        icmp.kind = words.number()?;
        words.expect("code")?;
        icmp.code = words.number()?;
        words.expect("rest")?;
        icmp.rest = words.number()?;
    } else {
        let known = messages(is_v6);
        let message = known.iter().find(|one| one.name == name).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|one| one.name).collect();
            format!("`{name}` is no message; there are {}", names.join(", "))
        })?;
        (icmp.kind, icmp.code) = (message.kind, message.code);
        icmp.rest = rest(words, message.rest)?;
    }
    if let Some(word) = words.next() {
        icmp.checksum = words.checksum(&word)?;
    }
    Ok(Layer::Icmp(icmp))
}

fn rest(words: &mut Words, rest: Rest) -> Result<u32, String> {
    Ok(match rest {
        Rest::Unused => 0,
        Rest::Echo => {
            words.expect("id")?;
            let id: u16 = words.number()?;
            words.expect("seq")?;
            u32::from(id) << 16 | u32::from(words.number::<u16>()?)
        }
        Rest::Mtu => {
            words.expect("mtu")?;
            words.number()?
        }
        Rest::ShortPointer => {
            words.expect("pointer")?;
            u32::from(words.number::<u8>()?) << 24
        }
        Rest::Pointer => {
            words.expect("pointer")?;
            words.number()?
        }
        Rest::Gateway => {
            words.expect("gateway")?;
            u32::from(words.value::<std::net::Ipv4Addr>()?)
        }
    })
}

fn unknown(word: &str) -> String {
    format!("`{word}` is nothing that this layer has")
}

/// The words of one part, those in quotes with the opening one at their front.
struct Words {
    words: Vec<String>,
    next: usize,
}

/// The parts of a line: words between slashes.
fn parts(line: &str) -> Result<Vec<Words>, NotationError> {
    let mut parts = vec![Vec::new()];
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('"') {
            Some(text) => {
                let end = text.find('"').ok_or_else(|| NotationError {
                    part: rest.to_owned(),
                    problem: "the quotation does not end".to_owned(),
                })?;
                (format!("\"{}", &text[..end]), &text[end + 1..])
            }
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        rest = behind.trim_start();
        match (word.as_str(), parts.last_mut()) {
            ("/", _) => parts.push(Vec::new()),
            (_, Some(part)) => part.push(word),
            (_, None) => {}
        }
    }
    let words = |words| Words { words, next: 0 };
    Ok(parts.into_iter().map(words).collect())
}

impl Words {
    fn written(&self) -> String {
        self.words.join(" ")
    }

    fn is_empty(&self) -> bool {
        self.next == self.words.len()
    }

    fn next(&mut self) -> Option<String> {
        let word = self.words.get(self.next)?.clone();
        self.next += 1;
        Some(word)
    }

    fn word(&mut self) -> Result<String, String> {
        self.next().ok_or_else(|| "a word is missing".to_owned())
    }

    fn accept(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.next).is_some_and(|next| next == word);
        self.next += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        let found = self.words.get(self.next).cloned();
        match self.accept(word) {
            true => Ok(()),
            false => Err(format!(
                "`{word}` is expected where {} stands",
                found.map_or_else(|| "nothing".to_owned(), |found| format!("`{found}`"))
            )),
        }
    }

    fn value<T: FromStr<Err: Display>>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        word.parse().map_err(|error| format!("`{word}`: {error}"))
    }

    fn arrow<T: FromStr<Err: Display>>(&mut self) -> Result<(T, T), String> {
        let from = self.value()?;
        self.expect(">")?;
        Ok((from, self.value()?))
    }

    /// A number, decimal or with `0x`, that fits its field.
    fn number<T: TryFrom<u64>>(&mut self) -> Result<T, String> {
        let word = self.word()?;
        let number = match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => word.parse(),
        };
        let fitting = number.ok().and_then(|number| T::try_from(number).ok());
        fitting.ok_or_else(|| format!("`{word}` is no number that fits"))
    }

    fn hex(&mut self) -> Result<Vec<u8>, String> {
        let word = self.word()?;
        let digits = word.strip_prefix('"').and_then(from_hex);
        digits.ok_or_else(|| format!("`{word}` is not hexadecimal digits in quotes"))
    }

    fn protocol(&mut self) -> Result<u8, String> {
        let next = self.words.get(self.next).map(String::as_str);
        if let Some((_, number)) = PROTOCOLS.iter().find(|(name, _)| Some(*name) == next) {
            self.next += 1;
            return Ok(*number);
        }
        self.number()
    }

    fn length(&mut self, word: &str) -> Result<Length, String> {
        Ok(Length {
            value: self.number()?,
            is_wrong: word == "bad-length",
        })
    }

    fn checksum(&mut self, word: &str) -> Result<Checksum, String> {
        let is_number = |next: &String| next.starts_with(|c: char| c.is_ascii_digit());
        Ok(match word {
            "bad-checksum" if self.words.get(self.next).is_some_and(is_number) => {
                Checksum::Wrong(self.number()?)
            }
            "bad-checksum" => Checksum::OffByOne,
            "partial-checksum" => Checksum::Partial,
            "no-checksum" => Checksum::Absent,
            "checksum" => Checksum::Unknown(self.number()?),
            _ => return Err(unknown(word)),
        })
    }
}
