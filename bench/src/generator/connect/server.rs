//! The answering end: TCP without memory.
//!
//! A SYN is answered with a sequence number that is a keyed hash of who speaks to whom, as SYN
//! cookies are (RFC 4987 §3.6); a request with the response; a FIN with a FIN. What an answer needs
//! is in the segment that it answers, so a segment sent again gets the same answer again.
//!
//! A request whose acknowledgment does not follow from the hash is of a connection that was opened
//! with another backend: it is reset, as that backend's kernel would (RFC 9293 §3.10.7.1).

use std::collections::HashMap;
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;

use super::segment::{ACK, FIN, MOST_PAYLOAD, PSH, RST, SYN, Segment};
use crate::generator::arrival::Whom;
use crate::generator::judge::Backend;

/// Backends that are told apart.
const MOST_BACKENDS: usize = 4_096;

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Back where the segment came from.
    Back(Segment),
    /// Straight to the client: the balancer does not see answers (direct return, tunnels).
    Direct(Segment),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Server {
    service: SocketAddr,
    /// Bytes of a response.
    size: usize,
    key: SipHasher13,
    backends: HashMap<Whom, Backend>,
    resets: u64,
}

impl Server {
    /// Answers for `service` with responses of `size` bytes, [`MOST_PAYLOAD`] at most.
    #[must_use]
    pub fn new(service: SocketAddr, size: usize, seed: u64) -> Self {
        Self {
            service,
            size: size.min(MOST_PAYLOAD),
            key: SipHasher13::new_with_keys(seed, !seed),
            backends: HashMap::new(),
            resets: 0,
        }
    }

    /// Segments and connections (SYNs) of each backend, in the order of their names.
    #[must_use]
    pub fn backends(&self) -> Vec<Backend> {
        let mut backends: Vec<Backend> = self.backends.values().copied().collect();
        backends.sort_by_key(|backend| backend.whom);
        backends
    }

    /// Connections that it did not know.
    #[must_use]
    pub const fn resets(&self) -> u64 {
        self.resets
    }

    /// The answer to `segment`, if it wants one.
    pub fn answer(&mut self, segment: &Segment) -> Option<Way> {
        let is_direct = segment.outer.is_some() || segment.destination == self.service;
        self.count(segment, is_direct);
        if segment.has(RST) {
            return None;
        }
        let mut answer = segment.back();
        if segment.has(SYN) {
            if segment.has(ACK) {
                return None;
            }
            answer.sequence = self.cookie(segment);
            answer.acknowledgment = segment.sequence.wrapping_add(1);
            answer.flags = SYN | ACK;
        } else if segment.payload > 0 || segment.has(FIN) {
            self.answer_known(segment, &mut answer);
        } else {
            return None;
        }
        Some(if is_direct {
            Way::Direct(answer)
        } else {
            Way::Back(answer)
        })
    }

    /// The answer to a segment of a connection that should be there.
    fn answer_known(&mut self, segment: &Segment, answer: &mut Segment) {
        let ours = segment
            .acknowledgment
            .wrapping_sub(self.cookie(segment).wrapping_add(1));
        let response = u32::try_from(self.size).unwrap_or(0);
        // Nothing, the response, or the response and our FIN have been acknowledged.
        answer.sequence = segment.acknowledgment;
        if !segment.has(ACK) || ours > response + 1 {
            answer.flags = RST;
            self.resets += 1;
            return;
        }
        answer.acknowledgment = segment.sequence.wrapping_add(segment.len());
        answer.flags = ACK;
        if segment.payload > 0 && ours == 0 {
            answer.payload = self.size;
            answer.flags |= PSH;
        }
        if segment.has(FIN) && ours <= response {
            answer.flags |= FIN;
        }
    }

    fn cookie(&self, segment: &Segment) -> u32 {
        let mut hasher = self.key;
        segment.hardware[0].hash(&mut hasher);
        (segment.source, segment.destination, segment.outer).hash(&mut hasher);
        let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn count(&mut self, segment: &Segment, is_direct: bool) {
        let whom = match segment.outer {
            Some(outer) => Whom::Address(outer),
            None if is_direct => Whom::Hardware(segment.hardware[0]),
            None => Whom::Address(segment.destination),
        };
        if self.backends.len() >= MOST_BACKENDS && !self.backends.contains_key(&whom) {
            return;
        }
        let backend = self.backends.entry(whom).or_insert(Backend {
            whom,
            frames: 0,
            flows: 0,
        });
        backend.frames += 1;
        backend.flows += u64::from(segment.has(SYN));
    }
}
