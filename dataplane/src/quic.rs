//! QUIC packets by the server that their connection id names.
//!
//! A server that is told its id puts it into every connection id that it gives out, in plain text
//! (draft-ietf-quic-load-balancers-21 §5.3): the balancer finds it there, and a client that changes its
//! address or port keeps its server. Nothing is stored.
//!
//! What names no server is for the ring: the first packets of a connection have an id of the
//! client's own making (RFC 9000 §7.2). By chance it may name one; then all that the client
//! sends until it has the server's id goes to that one, which is all that is needed.

use ringgate_config::{Quic, Service};
use rustc_hash::FxHashMap;

use crate::backend::BackendId;

/// Most bytes of a server id (draft-ietf-quic-load-balancers-21 §3.1).
const SERVER_ID_MOST: usize = 15;

/// The header form: a long header has it set (RFC 8999 §5.1).
const LONG: u8 = 0x80;

/// Where a long header has the length of its destination connection id: after the first byte and the
/// version (RFC 8999 §5.1).
const ID_LENGTH_AT: usize = 5;

/// The configuration that a connection id follows: the first bits of its first byte (§3.1).
const CONFIG_SHIFT: u32 = 5;

/// Which backend has which server id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    config_id: u8,
    /// Of server ids, bytes.
    len: usize,
    /// Ids are filled up with zeroes.
    backends: FxHashMap<[u8; SERVER_ID_MOST], BackendId>,
}

impl Routes {
    /// Those of `service`, whose backends are `members`, in file order.
    #[must_use]
    pub fn new(quic: Quic, service: &Service, members: &[BackendId]) -> Self {
        let named = service.backends().iter().zip(members);
        let backends = named.filter_map(|(backend, id)| Some((padded(backend.server_id()?), *id)));
        Self {
            config_id: quic.config_id,
            len: quic.server_id_bytes.into(),
            backends: backends.collect(),
        }
    }

    /// The backend that a datagram's payload names.
    #[must_use]
    pub fn find(&self, payload: &[u8]) -> Option<BackendId> {
        let first = *payload.first()?;
        let connection_id = if first & LONG == 0 {
            // Its length is the server's secret; what is needed of it is at the front.
            payload.get(1..)?
        } else {
            let len = usize::from(*payload.get(ID_LENGTH_AT)?);
            payload.get(ID_LENGTH_AT + 1..)?.get(..len)?
        };
        let (config, rest) = connection_id.split_first()?;
        if config >> CONFIG_SHIFT != self.config_id {
            return None;
        }
        let server_id = rest.get(..self.len)?;
        self.backends.get(&padded(server_id)).copied()
    }
}

/// A server id as the key that it is stored under.
fn padded(id: &[u8]) -> [u8; SERVER_ID_MOST] {
    let mut key = [0; SERVER_ID_MOST];
    for (to, byte) in key.iter_mut().zip(id) {
        *to = *byte;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: BackendId = BackendId(1);
    const TWO: BackendId = BackendId(2);

    fn routes() -> Routes {
        Routes {
            config_id: 2,
            len: 3,
            backends: [(padded(&[7, 8, 9]), ONE), (padded(&[7, 8, 0]), TWO)]
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn a_short_header_names_its_server_after_the_first_byte() {
        let routes = routes();
        let packet =
            |config: u8, id: [u8; 3]| [&[0x41, config << 5 | 0x1F][..], &id, &[1; 20]].concat();
        assert_eq!(routes.find(&packet(2, [7, 8, 9])), Some(ONE));
        assert_eq!(routes.find(&packet(2, [7, 8, 0])), Some(TWO));
        assert_eq!(routes.find(&packet(2, [7, 8, 1])), None, "of no server");
        assert_eq!(
            routes.find(&packet(3, [7, 8, 9])),
            None,
            "of another configuration"
        );
        assert_eq!(
            routes.find(&packet(7, [7, 8, 9])),
            None,
            "unroutable (§4.2)"
        );
    }

    #[test]
    fn a_long_header_says_how_long_its_id_is() {
        let routes = routes();
        let packet = |id: &[u8]| {
            let len = u8::try_from(id.len()).unwrap();
            [&[0xC3, 0, 0, 0, 1, len][..], id, &[0, 9, 9]].concat()
        };
        assert_eq!(
            routes.find(&packet(&[0x40, 7, 8, 9, 1, 2, 3, 4])),
            Some(ONE)
        );
        // What follows the id is not part of it.
        assert_eq!(routes.find(&packet(&[0x40, 7, 8])), None);
        assert_eq!(routes.find(&packet(&[])), None);
    }

    #[test]
    fn truncated_packets_name_nobody() {
        let routes = routes();
        let long = [0xC3, 0, 0, 0, 1, 4, 0x40, 7, 8, 9];
        let short = [0x41, 0x40, 7, 8, 9];
        assert_eq!(
            (routes.find(&long), routes.find(&short)),
            (Some(ONE), Some(ONE))
        );
        for packet in [&long[..], &short[..]] {
            for len in 0..packet.len() {
                assert_eq!(routes.find(&packet[..len]), None);
            }
        }
    }
}
