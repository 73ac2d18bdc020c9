//! Where a backend is, and how packets get to it.

use ringgate_config::{Forward, IpNet};
use ringgate_conntrack::{Endpoint, Profile};

use crate::backend::{
    Backend, BackendId, BackendIdentity, BackendState, Translations, Treatment, virtual_endpoint,
};
use crate::parse::Family;
use crate::rewrite::Encapsulation;
use crate::route::{Fib, Hop, Miss};

/// What a snapshot makes of a backend's position in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) id: BackendId,
    pub(super) service: u16,
    pub(super) profile: Profile,
    pub(super) shared: bool,
    /// Its service is bound to a VLAN.
    pub(super) bound: bool,
}

impl Place {
    /// A backend that is reached as before, at this place.
    #[inline]
    pub(super) const fn renewed(
        self,
        last: &Backend,
        (state, weight): (BackendState, u32),
    ) -> Backend {
        Backend {
            service: self.service,
            profile: self.profile,
            state,
            is_open: state.serves() && !self.bound,
            weight,
            ..*last
        }
    }

    // With its only caller, which is generic, and so in the caller's crate: here it would change how
    // the worker's turn is inlined, by 2 % of its instructions.
    #[inline]
    pub(super) fn backend(
        self,
        configured: &ringgate_config::Backend,
        identity: &BackendIdentity,
        (state, weight): (BackendState, u32),
        fib: &Fib,
    ) -> Backend {
        let family = family(&identity.address);
        let forward = configured.forward();
        let (treatment, hop) = way(configured, identity, family, fib);
        Backend {
            id: self.id,
            service: self.service,
            listen: identity.listen,
            endpoint: identity.address,
            family,
            forward,
            state,
            is_open: state.serves() && !self.bound,
            weight,
            profile: self.profile,
            shared: self.shared && forward == Forward::Nat,
            hop,
            cost: treatment.cost(),
            treatment,
        }
    }
}

/// What is done to packets to a backend, and where they leave.
fn way(
    configured: &ringgate_config::Backend,
    identity: &BackendIdentity,
    family: Family,
    fib: &Fib,
) -> (Treatment, Result<Hop, Miss>) {
    let to = identity.address;
    let routed = || fib.hop(to.address, family).copied();
    match configured.forward() {
        Forward::DsrL2 => (
            Treatment::Direct,
            fib.hop_on_link(to.address, family).copied(),
        ),
        Forward::FullNat => (Treatment::Exchange, routed()),
        Forward::Nat if to.port == 0 => (Treatment::Readdress, routed()),
        Forward::Nat => {
            let listen = virtual_endpoint(&identity.listen, 0);
            let translations = Translations::between(listen, to);
            (Treatment::Translate(translations), routed())
        }
        Forward::Ipip | Forward::Gue | Forward::Gre => {
            match encapsulation(configured, to.address, family, fib) {
                Some(encapsulation) => (Treatment::Encapsulate(encapsulation), routed()),
                None => (Treatment::Direct, Err(Miss::NoSource)),
            }
        }
    }
}

/// `None` where the host has no address towards the far end and the operator names none.
fn encapsulation(
    configured: &ringgate_config::Backend,
    to: [u64; 2],
    family: Family,
    fib: &Fib,
) -> Option<Encapsulation> {
    let tunnel = configured.tunnel()?;
    let source = match tunnel.source {
        Some(prefix) => bits(&prefix),
        None => [fib.source(to, family)?, [0, 0]],
    };
    Encapsulation::new(configured.forward(), tunnel, source, (to, family))
}

/// A prefix's address, and the bits that are not its own.
fn bits(prefix: &IpNet) -> [[u64; 2]; 2] {
    let words = |address| Endpoint::from_socket((address, 0).into()).address;
    let hosts = match prefix {
        IpNet::V4(prefix) => [0, prefix.hostmask().to_bits().into()],
        IpNet::V6(prefix) => words(prefix.hostmask().into()),
    };
    [words(prefix.network()), hosts]
}

fn family(endpoint: &Endpoint) -> Family {
    if endpoint.is_v4() {
        Family::V4
    } else {
        Family::V6
    }
}
