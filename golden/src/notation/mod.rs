//! Packets as one line of text, one part for each layer.
//!
//! ```text
//! eth client > front / ip 10.1.0.2 > 10.100.0.1 df / tcp 40000 > 80 SYN seq 1 mss 1460
//! eth front > client / ip 10.1.0.1 > 10.1.0.2 / icmp frag-needed mtu 1480 / quote ip … / tcp …
//! ```
//!
//! A part names what is unusual; all else is as usual: TTL 64, no options, and lengths, protocol
//! numbers and checksums that are right. [`Packet::parse`] reads a line, [`Packet::bytes`] makes
//! the frame, [`Dissector`] makes layers of any bytes and [`Packet::text`] the line. The
//! dissector has nothing in common with the data plane's parser: it is what that is judged by. It
//! checks every length and every checksum, and what is wrong has a word in the line
//! (`bad-checksum`, `bad-length`), so a line without these words proves them right.
//! `golden/README.md` lists all words.

mod build;
mod dissect;
mod icmp;
pub mod layer;
mod parse;
pub mod payload;
mod print;

pub use dissect::Dissector;
pub use layer::Packet;
pub use parse::NotationError;

use ringgate_dataplane::wire::ethernet::Mac;

/// Names that stand for hardware addresses.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<(String, Mac)>);

impl Names {
    /// These, the first name of an address being the one that is written.
    #[must_use]
    pub const fn new(names: Vec<(String, Mac)>) -> Self {
        Self(names)
    }

    /// The address that a name or six hexadecimal bytes stand for.
    #[must_use]
    pub fn mac(&self, text: &str) -> Option<Mac> {
        let named = self.0.iter().find(|(name, _)| name == text);
        named.map(|(_, mac)| *mac).or_else(|| mac_of(text))
    }

    /// How an address is written.
    #[must_use]
    pub fn of(&self, mac: Mac) -> String {
        let named = self.0.iter().find(|(_, one)| *one == mac);
        named.map_or_else(|| mac.to_string(), |(name, _)| name.clone())
    }
}

/// A hardware address from its six bytes.
#[must_use]
pub fn mac_of(text: &str) -> Option<Mac> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| {
            u8::from_str_radix(byte, 16)
                .ok()
                .filter(|_| byte.len() == 2)
        })
        .collect();
    Some(Mac(bytes?.try_into().ok()?))
}

/// Names of the TCP flags, from the lowest bit.
const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// Extension headers that have a name.
const EXTENSIONS: [(&str, u8); 3] = [
    ("hop-by-hop", 0),
    ("routing", 43),
    ("destination-options", 60),
];

/// Protocol numbers that have a name.
const PROTOCOLS: [(&str, u8); 9] = [
    ("icmp", 1),
    ("ip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ip6", 41),
    ("gre", 47),
    ("icmp6", 58),
    ("none", 59),
    ("sctp", 132),
];

#[cfg(test)]
mod tests;
