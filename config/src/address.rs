//! Addresses as the file writes them, and which of them can be served or sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::{Refusal, quote};

/// An address as written: with a port or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) ip: IpAddr,
    pub(crate) port: Option<u16>,
}

/// What an address is for: the texts and some rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The virtual address of a service.
    Listen,
    /// A server.
    Backend,
}

impl Role {
    const fn expected(self) -> &'static str {
        match self {
            Self::Listen => "an address and port, like \"10.100.0.1:80\" or \"[2001:db8::1]:80\"",
            Self::Backend => {
                "an address with or without port, like \"10.2.0.11:8080\" or \"[2001:db8::11]:8080\""
            }
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Listen => "a service",
            Self::Backend => "a backend",
        }
    }
}

/// Reads an address and checks that it can be what its role asks for.
pub(crate) fn read(text: &str, role: Role) -> Result<Written, Refusal> {
    let written = split(text).map_err(|cure| Refusal {
        found: quote(text),
        expected: role.expected().to_owned(),
        cure,
    })?;
    let refuse = |expected: String, cure: &str| {
        Err(Refusal {
            found: quote(text),
            expected,
            cure: cure.to_owned(),
        })
    };
    if let Some((what, cure)) = unusable(written.ip, role) {
        return refuse(
            format!("a unicast address of {}, not {what}", role.noun()),
            cure,
        );
    }
    match (role, written.port) {
        (Role::Listen, None) => {
            let ip = written.ip;
            let with = if ip.is_ipv6() {
                format!("[{ip}]")
            } else {
                ip.to_string()
            };
            refuse(
                role.expected().to_owned(),
                &format!("add the port: \"{with}:80\""),
            )
        }
        (Role::Listen, Some(0)) => refuse(
            "a port of 1 to 65535".to_owned(),
            "port 0 (any port) belongs to a later release: write one service for each port",
        ),
        (Role::Backend, Some(0)) => refuse(
            "a port of 1 to 65535".to_owned(),
            "write the server's port, or leave the port out for the service's",
        ),
        _ => Ok(written),
    }
}

/// Takes the text apart; the error is the cure.
fn split(text: &str) -> Result<Written, String> {
    if text.contains('%') {
        return Err(
            "zone ids (after %) mean something on one host only: write a global address".to_owned(),
        );
    }
    if text.contains('/') {
        return Err("prefixes belong to a later release: write one address".to_owned());
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok(Written {
            ip: socket.ip(),
            port: Some(socket.port()),
        });
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>()
        && (bare.is_none() || ip.is_ipv6())
    {
        return Ok(Written { ip, port: None });
    }
    Err(match text.rsplit_once(':') {
        Some((ip, port)) if ip.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok() => {
            format!("write brackets around the IPv6 address: \"[{ip}]:{port}\"")
        }
        Some((ip, _)) if is_address(ip) => "the port is a number of 1 to 65535".to_owned(),
        _ if text.bytes().any(|byte| byte.is_ascii_alphabetic()) && !text.contains("::") => {
            "names are not looked up: write the address itself".to_owned()
        }
        _ => "write a full IPv4 or IPv6 address".to_owned(),
    })
}

/// Whether the part before a port is an address as it should be.
fn is_address(ip: &str) -> bool {
    let bare = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    bare.map_or_else(
        || ip.parse::<Ipv4Addr>().is_ok(),
        |ip| ip.parse::<Ipv6Addr>().is_ok(),
    )
}

/// Why an address cannot be served or sent to: what it is, and what to do.
fn unusable(ip: IpAddr, role: Role) -> Option<(&'static str, &'static str)> {
    if ip.is_unspecified() {
        return Some(("the unspecified one", "write the address itself"));
    }
    if ip.is_loopback() {
        return Some((
            "a loopback one",
            "loopback packets never reach an interface: use an address of the network",
        ));
    }
    if ip.is_multicast() {
        return Some((
            "a multicast one",
            "one connection has one server: write a unicast address",
        ));
    }
    match (ip, role) {
        (IpAddr::V4(ip), _) if ip.is_broadcast() => {
            Some(("the broadcast one", "write a unicast address"))
        }
        (IpAddr::V6(ip), _) if ip.to_ipv4_mapped().is_some() => Some((
            "an IPv4-mapped one",
            "no such address is ever on the wire: write the IPv4 address",
        )),
        (IpAddr::V4(ip), Role::Listen) if ip.is_link_local() => Some((
            "a link-local one",
            "routers do not forward to it (RFC 3927): write a routable address",
        )),
        // A backend as well: without a zone its link is unknown.
        (IpAddr::V6(ip), _) if ip.is_unicast_link_local() => Some((
            "a link-local one",
            "routers do not forward to it (RFC 4291): write a routable address",
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cure(text: &str, role: Role) -> String {
        read(text, role).expect_err(text).cure
    }

    #[test]
    fn addresses_are_read_with_and_without_port() {
        for (text, ip, port) in [
            ("10.2.0.11:8080", "10.2.0.11", Some(8080)),
            ("10.2.0.11", "10.2.0.11", None),
            ("[2001:db8::1]:80", "2001:db8::1", Some(80)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("2001:db8::1", "2001:db8::1", None),
            ("169.254.1.1", "169.254.1.1", None),
        ] {
            let written = read(text, Role::Backend).unwrap();
            assert_eq!(
                written,
                Written {
                    ip: ip.parse().unwrap(),
                    port
                },
                "{text}"
            );
        }
    }

    #[test]
    fn each_mistake_has_its_own_cure() {
        for (text, part) in [
            ("10.0.0.0/24:80", "prefixes belong to a later release"),
            ("[fe80::1%2]:80", "zone ids"),
            ("10.0.0.1", "add the port"),
            ("2001:db8::1", "add the port"),
            ("10.0.0.1:0", "port 0 (any port) belongs to a later release"),
            ("10.0.0.1:65536", "1 to 65535"),
            ("10.0.0.1:http", "1 to 65535"),
            ("2001:db8:1:2:3:4:5:6:80", "\"[2001:db8:1:2:3:4:5:6]:80\""),
            ("example.org:80", "not looked up"),
            ("10.0.0:80", "full IPv4"),
            ("[10.0.0.1]:80", "full IPv4"),
            ("", "full IPv4"),
            ("0.0.0.0:80", "address itself"),
            ("[::]:80", "address itself"),
            ("127.1.2.3:80", "loopback"),
            ("224.0.0.1:80", "unicast"),
            ("[ff02::1]:80", "unicast"),
            ("255.255.255.255:80", "unicast"),
            ("[::ffff:10.0.0.1]:80", "write the IPv4 address"),
            ("169.254.1.1:80", "RFC 3927"),
            ("[fe80::1]:80", "RFC 4291"),
        ] {
            let cure = cure(text, Role::Listen);
            assert!(cure.contains(part), "{text}: {cure}");
        }
        assert!(cure("10.0.0.1:0", Role::Backend).contains("leave the port out"));
    }
}
