//! How packets are wrapped on their way to a backend.

use ipnet::IpNet;

/// The outer headers of a backend's packets: the key `tunnel`, its own and its service's taken
/// together, with the defaults. What the mode has not is as [`Forward`](super::Forward) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Version of the GUE header: 1 has none, IP follows UDP at once (draft-ietf-intarea-gue-09, section 4);
    /// 0 has four bytes (section 3). 0 in other modes.
    pub variant: u8,
    /// UDP destination port, GUE only; 0 in other modes.
    pub port: u16,
    /// Key in the GRE header (RFC 2890), GRE only. `None`: the header has no key field.
    pub key: Option<u32>,
    /// Outer source: of the backend's family, host bits 0. A prefix with host bits has them chosen
    /// by the flow. `None`: the host's own address towards the backend.
    pub source: Option<IpNet>,
    /// Outer DSCP.
    pub dscp: Dscp,
    /// Whether the outer UDP checksum is computed, GUE only; false in other modes. Without it the
    /// field is 0, over IPv6 by RFC 6935 and RFC 6936.
    pub checksum: bool,
}

/// The differentiated services code point (RFC 2474) of an outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dscp {
    /// The inner packet's (the uniform model of RFC 2983).
    Copy,
    /// Always this one, 0 to 63.
    Set(u8),
}
