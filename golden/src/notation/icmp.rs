//! Names of ICMP messages, and what stands in the four bytes behind their checksum.

/// What the four bytes behind the checksum are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Zero.
    Unused,
    /// Identifier and sequence number.
    Echo,
    /// The MTU that a packet did not fit.
    Mtu,
    /// Where the faulty byte is, in the first byte (ICMP).
    ShortPointer,
    /// Where the faulty byte is (ICMPv6).
    Pointer,
    /// A router's address.
    Gateway,
}

/// One message that has a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) name: &'static str,
    pub(super) rest: Rest,
}

const fn message(kind: u8, code: u8, name: &'static str, rest: Rest) -> Message {
    Message {
        kind,
        code,
        name,
        rest,
    }
}

/// ICMP, RFC 792 and RFC 1191.
#[rustfmt::skip]
const V4: &[Message] = &[
    message(0, 0, "echo-reply", Rest::Echo),
    message(3, 0, "net-unreachable", Rest::Unused),
    message(3, 1, "host-unreachable", Rest::Unused),
    message(3, 2, "protocol-unreachable", Rest::Unused),
    message(3, 3, "port-unreachable", Rest::Unused),
    message(3, 4, "frag-needed", Rest::Mtu),
    message(3, 9, "net-prohibited", Rest::Unused),
    message(3, 10, "host-prohibited", Rest::Unused),
    message(3, 13, "admin-prohibited", Rest::Unused),
    message(4, 0, "source-quench", Rest::Unused),
    message(5, 1, "redirect", Rest::Gateway),
    message(8, 0, "echo-request", Rest::Echo),
    message(11, 0, "ttl-exceeded", Rest::Unused),
    message(11, 1, "reassembly-exceeded", Rest::Unused),
    message(12, 0, "parameter-problem", Rest::ShortPointer),
];

/// ICMPv6, RFC 4443 and RFC 4861.
#[rustfmt::skip]
const V6: &[Message] = &[
    message(1, 0, "no-route", Rest::Unused),
    message(1, 1, "admin-prohibited", Rest::Unused),
    message(1, 3, "address-unreachable", Rest::Unused),
    message(1, 4, "port-unreachable", Rest::Unused),
    message(2, 0, "too-big", Rest::Mtu),
    message(3, 0, "hop-limit-exceeded", Rest::Unused),
    message(3, 1, "reassembly-exceeded", Rest::Unused),
    message(4, 0, "parameter-problem", Rest::Pointer),
    message(4, 1, "unknown-next-header", Rest::Pointer),
    message(4, 2, "unknown-option", Rest::Pointer),
    message(128, 0, "echo-request", Rest::Echo),
    message(129, 0, "echo-reply", Rest::Echo),
    message(135, 0, "neighbour-solicitation", Rest::Unused),
    message(136, 0, "neighbour-advertisement", Rest::Unused),
];

/// The named messages of a version.
pub(super) const fn messages(is_v6: bool) -> &'static [Message] {
    if is_v6 { V6 } else { V4 }
}
