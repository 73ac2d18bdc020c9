//! Where a service listens: addresses and ports.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// The addresses and ports of a service: the key `listen`. Prints as the file writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    prefix: IpNet,
    first: u16,
    last: u16,
}

impl Listen {
    /// `prefix` without its host bits, and the ports; `0..=65535` is any port.
    pub fn new(prefix: IpNet, ports: RangeInclusive<u16>) -> Self {
        let (first, last) = ports.into_inner();
        Self {
            prefix: prefix.trunc(),
            first,
            last,
        }
    }

    /// The addresses; host bits are 0.
    pub const fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// The lowest port; 0 only where any port is served.
    pub const fn first(&self) -> u16 {
        self.first
    }

    /// The highest port, not below [`first`](Self::first).
    pub const fn last(&self) -> u16 {
        self.last
    }

    /// The ports.
    pub const fn ports(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// Whether the addresses are IPv4 ones.
    pub const fn is_ipv4(&self) -> bool {
        matches!(self.prefix, IpNet::V4(_))
    }

    /// Whether every port is served, 0 included.
    pub const fn any_port(&self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// The port, if there is but one.
    pub const fn port(&self) -> Option<u16> {
        if self.first == self.last {
            Some(self.first)
        } else {
            None
        }
    }

    /// The address, if there is but one.
    pub fn address(&self) -> Option<IpAddr> {
        (self.prefix.prefix_len() == self.prefix.max_prefix_len()).then(|| self.prefix.addr())
    }

    /// Address and port, if there is but one of each.
    pub fn exact(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address()?, self.port()?))
    }

    /// Whether packets to `endpoint` are among its own, other services left aside.
    pub fn covers(&self, endpoint: SocketAddr) -> bool {
        self.prefix.contains(&endpoint.ip()) && self.ports().contains(&endpoint.port())
    }
}

impl From<SocketAddr> for Listen {
    fn from(endpoint: SocketAddr) -> Self {
        Self::new(endpoint.ip().into(), endpoint.port()..=endpoint.port())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match self.address() {
            Some(address) => address.to_string(),
            None => self.prefix.to_string(),
        };
        let host = if self.is_ipv4() {
            host
        } else {
            format!("[{host}]")
        };
        let ports = match self.port() {
            _ if self.any_port() => "0".to_owned(),
            Some(port) => port.to_string(),
            None => format!("{}-{}", self.first, self.last),
        };
        f.pad(&format!("{host}:{ports}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(prefix: &str, ports: RangeInclusive<u16>) -> Listen {
        Listen::new(prefix.parse().unwrap(), ports)
    }

    #[test]
    fn it_prints_as_the_file_writes_it() {
        for (listen, text) in [
            (listen("10.0.0.1/32", 80..=80), "10.0.0.1:80"),
            (listen("10.0.0.9/24", 80..=80), "10.0.0.0/24:80"),
            (listen("10.0.0.1/32", 8000..=8100), "10.0.0.1:8000-8100"),
            (listen("2001:db8::/64", 0..=65_535), "[2001:db8::/64]:0"),
            (listen("2001:db8::1/128", 443..=443), "[2001:db8::1]:443"),
        ] {
            assert_eq!(listen.to_string(), text);
        }
        let padded = format!("[{:<12}]", listen("10.0.0.1/32", 80..=80));
        assert_eq!(padded, "[10.0.0.1:80 ]");
    }

    #[test]
    fn only_one_address_with_one_port_is_exact() {
        let endpoint: SocketAddr = "10.0.0.1:80".parse().unwrap();
        assert_eq!(Listen::from(endpoint).exact(), Some(endpoint));
        assert_eq!(listen("10.0.0.0/24", 80..=80).exact(), None);
        assert_eq!(listen("10.0.0.1/32", 80..=81).exact(), None);
        assert!(listen("10.0.0.1/32", 0..=65_535).any_port());
        assert!(!listen("10.0.0.1/32", 1..=65_535).any_port());
    }

    #[test]
    fn it_covers_its_addresses_and_ports() {
        let listen = listen("10.0.0.0/24", 80..=90);
        for (endpoint, covered) in [
            ("10.0.0.0:80", true),
            ("10.0.0.255:90", true),
            ("10.0.1.0:80", false),
            ("10.0.0.1:79", false),
            ("10.0.0.1:91", false),
            ("[2001:db8::1]:80", false),
        ] {
            let endpoint = endpoint.parse().unwrap();
            assert_eq!(listen.covers(endpoint), covered, "{endpoint}");
        }
    }
}
