//! Whose reply a packet from a NAT backend is, as far as the configuration tells.

use ringgate_config::Listen;
use ringgate_conntrack::Endpoint;
use rustc_hash::FxHashMap;

use crate::backend::BackendIdentity;

/// Which service a reply from a NAT backend's address and port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// To this one: its position in the snapshot.
    Service(u16),
    /// To one of several: only the flow table knows.
    Ambiguous,
}

/// The endpoints that NAT backends answer from, and the services that they may answer for.
#[derive(Debug, Clone, Default)]
pub struct Returns {
    exact: FxHashMap<(Endpoint, u8), Return>,
    /// Backends that answer from the port that the client asked for, where there are several.
    wide: FxHashMap<([u64; 2], u8), Vec<Ports>>,
    /// Some backend [is shared](Self::is_shared).
    has_shared: bool,
}

/// Ports of one backend, and whose they are.
#[derive(Debug, Clone, Copy)]
struct Ports {
    first: u16,
    last: u16,
    whose: Return,
}

impl Ports {
    fn of(listen: &Listen, service: u16) -> Self {
        Self {
            first: listen.first(),
            last: listen.last(),
            whose: Return::Service(service),
        }
    }

    fn have(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    fn overlap(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl Returns {
    /// Of all NAT backends, each with the position of its service.
    #[must_use]
    pub fn new(backends: &[(u16, BackendIdentity)]) -> Self {
        let mut returns = Self::default();
        returns.exact.reserve(backends.len());
        for (service, backend) in backends {
            let BackendIdentity {
                listen,
                protocol,
                address,
            } = backend;
            if address.port == 0 {
                let known = returns
                    .wide
                    .entry((address.address, *protocol))
                    .or_default();
                let mut new = Ports::of(listen, *service);
                for old in known.iter_mut() {
                    if old.overlap(&new) {
                        old.whose = Return::Ambiguous;
                        new.whose = Return::Ambiguous;
                    }
                }
                known.push(new);
            } else {
                let known = returns.exact.entry((*address, *protocol));
                known
                    .and_modify(|whose| *whose = Return::Ambiguous)
                    .or_insert(Return::Service(*service));
            }
        }
        returns.mix();
        let wide = returns.wide.values().flatten().map(|ports| ports.whose);
        let mut all = wide.chain(returns.exact.values().copied());
        returns.has_shared = all.any(|whose| whose == Return::Ambiguous);
        returns
    }

    /// Where one service has a port of a backend, and another many that it is one of.
    fn mix(&mut self) {
        for ((endpoint, protocol), whose) in &mut self.exact {
            let wide = self.wide.get_mut(&(endpoint.address, *protocol));
            for ports in wide.into_iter().flatten() {
                if ports.have(endpoint.port) {
                    ports.whose = Return::Ambiguous;
                    *whose = Return::Ambiguous;
                }
            }
        }
    }

    /// What a packet from `source` is a reply of, if that is a NAT backend.
    #[inline]
    #[must_use]
    pub fn find(&self, source: Endpoint, protocol: u8) -> Option<Return> {
        let exact = self.exact.get(&(source, protocol)).copied();
        exact.or_else(|| {
            let ports = self.wide.get(&(source.address, protocol))?;
            let mut found = ports.iter().filter(|ports| ports.have(source.port));
            found.next().map(|ports| ports.whose)
        })
    }

    /// Whether there is a backend that [is shared](Self::is_shared).
    #[must_use]
    pub const fn has_shared(&self) -> bool {
        self.has_shared
    }

    /// Whether replies of `backend` alone do not tell which service they are of.
    #[must_use]
    pub fn is_shared(&self, backend: &BackendIdentity) -> bool {
        let BackendIdentity {
            listen,
            protocol,
            address,
        } = backend;
        if address.port != 0 {
            return self.exact.get(&(*address, *protocol)) == Some(&Return::Ambiguous);
        }
        let ports = self.wide.get(&(address.address, *protocol));
        let own = Ports::of(listen, 0);
        let mut ports = ports.into_iter().flatten();
        ports.any(|ports| ports.whose == Return::Ambiguous && ports.overlap(&own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(listen: &str, ports: std::ops::RangeInclusive<u16>, to: &str) -> BackendIdentity {
        BackendIdentity {
            listen: Listen::new(listen.parse().unwrap(), ports),
            protocol: 6,
            address: Endpoint::from_socket(to.parse().unwrap()),
        }
    }

    fn find(returns: &Returns, from: &str) -> Option<Return> {
        returns.find(Endpoint::from_socket(from.parse().unwrap()), 6)
    }

    #[test]
    fn a_reply_is_its_only_services_and_else_nobody_knows() {
        let alone = backend("10.100.0.1/32", 80..=80, "10.2.0.1:8080");
        let one = backend("10.100.0.1/32", 81..=81, "10.2.0.2:8080");
        let two = backend("10.100.0.2/32", 81..=81, "10.2.0.2:8080");
        let returns = Returns::new(&[(0, alone), (1, one), (2, two)]);
        assert_eq!(find(&returns, "10.2.0.1:8080"), Some(Return::Service(0)));
        assert_eq!(find(&returns, "10.2.0.2:8080"), Some(Return::Ambiguous));
        assert_eq!(find(&returns, "10.2.0.1:8081"), None);
        assert_eq!(returns.find(alone.address, 17), None);
        let shared = [alone, one, two].map(|backend| returns.is_shared(&backend));
        assert_eq!(shared, [false, true, true]);
    }

    #[test]
    fn ports_that_stay_what_they_are_belong_to_whoever_has_them_alone() {
        let many = backend("10.100.0.1/32", 8000..=8100, "10.2.0.1:0");
        let apart = backend("10.100.0.2/32", 9000..=9100, "10.2.0.1:0");
        let over = backend("10.100.0.3/32", 9100..=9200, "10.2.0.1:0");
        let in_it = backend("10.100.0.4/32", 80..=80, "10.2.0.1:8050");
        let returns = Returns::new(&[(0, many), (1, apart)]);
        assert_eq!(find(&returns, "10.2.0.1:8050"), Some(Return::Service(0)));
        assert_eq!(find(&returns, "10.2.0.1:9100"), Some(Return::Service(1)));
        assert_eq!(find(&returns, "10.2.0.1:9101"), None);
        assert!(!returns.is_shared(&many) && !returns.is_shared(&apart));

        let returns = Returns::new(&[(0, many), (1, apart), (2, over), (3, in_it)]);
        for ambiguous in ["10.2.0.1:8050", "10.2.0.1:8000", "10.2.0.1:9100"] {
            assert_eq!(
                find(&returns, ambiguous),
                Some(Return::Ambiguous),
                "{ambiguous}"
            );
        }
        for shared in [many, apart, over, in_it] {
            assert!(returns.is_shared(&shared));
        }
    }
}
