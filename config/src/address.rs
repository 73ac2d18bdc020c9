//! Addresses as the file writes them, and which of them can be served or sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::error::{Refusal, quote};
use crate::model::Listen;

/// An address as written: with a port or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) ip: IpAddr,
    pub(crate) port: Option<u16>,
}

/// What an address is for: the texts and some rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Where a service listens.
    Listen,
    /// A server.
    Backend,
    /// A source of `full-nat`.
    NatSource,
    /// The outer source of a tunnel.
    TunnelSource,
    /// Where the balancer itself listens.
    Own,
}

impl Role {
    const fn expected(self) -> &'static str {
        match self {
            Self::Listen => "an address and port, like \"10.100.0.1:80\" or \"[2001:db8::1]:80\"",
            Self::Backend => {
                "an address with or without port, like \"10.2.0.11:8080\" or \"[2001:db8::11]:8080\""
            }
            Self::NatSource => "an address, like \"10.2.0.1\" or \"fd00:2::1\"",
            Self::TunnelSource => "an address or prefix, like \"10.9.0.1\" or \"10.9.0.0/24\"",
            Self::Own => {
                "an address of this host and a port, like \"127.0.0.1:9187\" or \"[::1]:9187\""
            }
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Listen => "a service",
            Self::Backend => "a backend",
            Self::NatSource | Self::TunnelSource | Self::Own => "the balancer",
        }
    }

    fn refusal(self, text: &str, cure: String) -> Refusal {
        Refusal {
            found: quote(text),
            expected: self.expected().to_owned(),
            cure,
        }
    }

    /// Refuses what cannot be served or sent to.
    fn check(self, text: &str, prefix: IpNet) -> Result<(), Refusal> {
        let Some((special, what, cure)) = unusable(prefix, self) else {
            return Ok(());
        };
        let noun = self.noun();
        let (expected, cure) = if prefix.prefix_len() == prefix.max_prefix_len() {
            (format!("a unicast address of {noun}, not {what}"), cure)
        } else if special.contains(&prefix) {
            (format!("unicast addresses of {noun}, not {what}"), cure)
        } else {
            let expected = format!("unicast addresses of {noun}, without {what}");
            (expected, "write longer prefixes that leave it out")
        };
        Err(Refusal {
            found: quote(text),
            expected,
            cure: cure.to_owned(),
        })
    }
}

/// Reads a backend's address and checks that it can be sent to.
pub(crate) fn backend(text: &str) -> Result<Written, Refusal> {
    let role = Role::Backend;
    if text.contains('/') {
        let cure = "a backend is one server: write its address";
        return Err(role.refusal(text, cure.to_owned()));
    }
    let written = split(text).map_err(|cure| role.refusal(text, cure))?;
    role.check(text, written.ip.into())?;
    if written.port == Some(0) {
        return Err(Refusal {
            found: quote(text),
            expected: "a port of 1 to 65535".to_owned(),
            cure: "write the server's port, or leave the port out for the service's".to_owned(),
        });
    }
    Ok(written)
}

/// Reads an address without a port.
pub(crate) fn nat_source(text: &str) -> Result<IpAddr, Refusal> {
    let role = Role::NatSource;
    if text.contains('/') {
        let cure = "list the addresses one by one, without a prefix length";
        return Err(role.refusal(text, cure.to_owned()));
    }
    let written = split(text).map_err(|cure| role.refusal(text, cure))?;
    if written.port.is_some() {
        let cure = format!("write \"{}\": nat-source-ports has the ports", written.ip);
        return Err(role.refusal(text, cure));
    }
    role.check(text, written.ip.into())?;
    Ok(written.ip)
}

/// Reads an address or a prefix.
pub(crate) fn tunnel_source(text: &str) -> Result<IpNet, Refusal> {
    let role = Role::TunnelSource;
    let refuse = |cure| role.refusal(text, cure);
    let prefix = if text.contains('/') {
        prefix(text).map_err(refuse)?
    } else {
        let written = split(text).map_err(refuse)?;
        if written.port.is_some() {
            return Err(refuse(format!("write \"{}\", without a port", written.ip)));
        }
        written.ip.into()
    };
    role.check(text, prefix)?;
    Ok(prefix)
}

/// Reads where the balancer itself listens: any address that a host can have, loopback and unspecified
/// included, and a port.
pub(crate) fn own_listener(text: &str) -> Result<SocketAddr, Refusal> {
    let refuse = |cure: &str| Role::Own.refusal(text, cure.to_owned());
    let written = split(text).map_err(|cure| refuse(&cure))?;
    match written {
        Written { port: None, .. } => Err(refuse("add the port")),
        Written { port: Some(0), .. } => Err(refuse("write a port of 1 to 65535")),
        Written { ip, .. } if ip.is_multicast() => Err(refuse("nobody listens on a multicast one")),
        Written {
            ip: IpAddr::V6(ip), ..
        } if ip.to_ipv4_mapped().is_some() => Err(refuse("write the IPv4 address itself")),
        Written {
            ip,
            port: Some(port),
        } => Ok(SocketAddr::new(ip, port)),
    }
}

/// Reads where a service listens.
pub(crate) fn listen(text: &str) -> Result<Listen, Refusal> {
    let role = Role::Listen;
    let refuse = |cure| role.refusal(text, cure);
    let Some((host, after)) = split_host(text) else {
        return Err(refuse(portless(text)));
    };
    let prefix = if host.contains('/') && host.contains(':') == text.starts_with('[') {
        prefix(host).map_err(refuse)?
    } else if let Ok(ip) = host.parse::<IpAddr>()
        && ip.is_ipv6() == text.starts_with('[')
    {
        ip.into()
    } else {
        return Err(refuse(portless(text)));
    };
    let ports = ports(after).map_err(|cure| refuse(cure.to_owned()))?;
    role.check(text, prefix)?;
    Ok(Listen::new(prefix, ports))
}

/// Parts the ports from the rest, which loses its brackets.
fn split_host(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':')),
    }
}

/// The ports of a service: one, a range, or 0 for any. The error is the cure.
fn ports(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    if let Some((first, last)) = text.split_once('-') {
        return match (port(first), port(last)) {
            (Some(0), Some(_)) => {
                Err("port 0 is in no packet: begin with 1, or write 0 for any port")
            }
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            (Some(_), Some(_)) => Err("a range of ports begins with the lower one"),
            _ => Err("the ports of a range are numbers of 1 to 65535, like 8000-8100"),
        };
    }
    match port(text) {
        Some(0) => Ok(0..=u16::MAX),
        Some(port) => Ok(port..=port),
        None => Err("the port is a number of 1 to 65535, a range like 8000-8100, or 0 for any"),
    }
}

/// A range of ports, for what needs no more than one.
pub(crate) fn port_range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    match ports(text) {
        Ok(ports) if *ports.start() > 0 => Ok(ports),
        Ok(_) => Err("write a range like 1024-32767"),
        Err(cure) => Err(cure),
    }
}

/// A prefix whose host bits are 0; the error is the cure.
fn prefix(text: &str) -> Result<IpNet, String> {
    if text.contains('%') {
        return Err(ZONE.to_owned());
    }
    match text.parse::<IpNet>() {
        Ok(prefix) if prefix.addr() == prefix.network() => Ok(prefix),
        Ok(prefix) => {
            let (whole, ip) = (prefix.trunc(), prefix.addr());
            Err(format!(
                "the prefix is {whole}, the one address {ip}: write what is meant"
            ))
        }
        Err(_) => Err("write an address and its prefix length, like 10.9.0.0/24".to_owned()),
    }
}

/// What to do about a text that has no host and ports.
fn portless(text: &str) -> String {
    if let Some((prefix, _)) = text.split_once('/')
        && let Ok(ip) = prefix.trim_matches(['[', ']']).parse::<IpAddr>()
    {
        return if ip.is_ipv6() {
            "write a prefix like \"[2001:db8::/64]:80\"".to_owned()
        } else {
            "write a prefix like \"10.100.0.0/24:80\"".to_owned()
        };
    }
    if let Some((ip, after)) = text.rsplit_once(':')
        && ip.parse::<Ipv6Addr>().is_ok()
        && after.contains('-')
        && ports(after).is_ok()
    {
        return format!("write brackets around the IPv6 address: \"[{ip}]:{after}\"");
    }
    match split(text) {
        Ok(Written { ip, .. }) if ip.is_ipv6() => format!("add the port: \"[{ip}]:80\""),
        Ok(Written { ip, .. }) => format!("add the port: \"{ip}:80\""),
        Err(cure) => cure,
    }
}

const ZONE: &str = "zone ids (after %) mean something on one host only: write a global address";

/// Takes the text apart; the error is the cure.
fn split(text: &str) -> Result<Written, String> {
    if text.contains('%') {
        return Err(ZONE.to_owned());
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

/// Addresses that cannot be served or sent to: what they are, and what to do.
const UNUSABLE: [(&str, &str, &str); 9] = [
    (
        "0.0.0.0/32",
        "the unspecified one",
        "write the address itself",
    ),
    ("::/128", "the unspecified one", "write the address itself"),
    ("127.0.0.0/8", "a loopback one", LOOPBACK),
    ("::1/128", "a loopback one", LOOPBACK),
    ("224.0.0.0/4", "a multicast one", MULTICAST),
    ("ff00::/8", "a multicast one", MULTICAST),
    (
        "255.255.255.255/32",
        "the broadcast one",
        "write a unicast address",
    ),
    (
        "::ffff:0:0/96",
        "an IPv4-mapped one",
        "no such address is ever on the wire: write the IPv4 address",
    ),
    // A backend as well: without a zone its link is unknown.
    (
        "fe80::/10",
        "a link-local one",
        "routers do not forward to it (RFC 4291): write a routable address",
    ),
];

const LOOPBACK: &str = "loopback packets never reach an interface: use an address of the network";
const MULTICAST: &str = "one connection has one server: write a unicast address";

/// IPv4's link-local addresses: a backend may have one, all others may not.
const LINK_LOCAL: (&str, &str, &str) = (
    "169.254.0.0/16",
    "a link-local one",
    "routers do not forward to it (RFC 3927): write a routable address",
);

/// What of `prefix` cannot be served or sent to, what that is, and what to do.
fn unusable(prefix: IpNet, role: Role) -> Option<(IpNet, &'static str, &'static str)> {
    let link_local = (role != Role::Backend).then_some(LINK_LOCAL);
    let special = UNUSABLE.into_iter().chain(link_local);
    special
        .filter_map(|(special, what, cure)| Some((special.parse::<IpNet>().ok()?, what, cure)))
        .find(|(special, ..)| special.contains(&prefix) || prefix.contains(special))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cure(text: &str) -> String {
        listen(text).expect_err(text).cure
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
            let written = backend(text).unwrap();
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
    fn where_a_service_listens_is_read_as_it_is_written() {
        for text in [
            "10.100.0.1:80",
            "10.100.0.0/24:80",
            "10.100.0.1:8000-8100",
            "10.100.0.1:0",
            "[2001:db8::1]:443",
            "[2001:db8::/64]:1-65535",
        ] {
            assert_eq!(listen(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_mistake_has_its_own_cure() {
        for (text, part) in [
            (
                "10.0.0.1/24:80",
                "the prefix is 10.0.0.0/24, the one address 10.0.0.1",
            ),
            ("10.0.0.0/24", "a prefix like \"10.100.0.0/24:80\""),
            ("10.0.0.0/33:80", "prefix length"),
            ("2001:db8::/64:80", "a prefix like \"[2001:db8::/64]:80\""),
            ("[10.0.0.0/24]:80", "a prefix like"),
            ("0.0.0.0/0:80", "write longer prefixes"),
            ("127.0.0.0/16:80", "loopback packets"),
            ("[fe80::1%2]:80", "zone ids"),
            ("10.0.0.1", "add the port"),
            ("2001:db8::1", "add the port"),
            ("10.0.0.1:0-80", "0 for any port"),
            ("10.0.0.1:90-80", "begins with the lower one"),
            ("10.0.0.1:80-", "like 8000-8100"),
            ("10.0.0.1:+80", "1 to 65535"),
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
            let cure = cure(text);
            assert!(cure.contains(part), "{text}: {cure}");
        }
        let refusal = backend("10.0.0.1:0").unwrap_err();
        assert!(refusal.cure.contains("leave the port out"), "{refusal:?}");
    }
}
