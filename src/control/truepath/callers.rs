//! Which backend a packet of this host's is for: known by the port that its socket has.
//!
//! A socket is bound before it connects, so its port is known here before its first packet leaves. A check that has ended may have
//! left packets in the device (the reset that ends a connection): its port is known until the device has been emptied
//! after that.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use super::Path;

/// One end of this host's: IANA protocol number, own address and port. No two sockets of a protocol have the same at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct End {
    pub(crate) protocol: u8,
    pub(crate) own: SocketAddr,
}

/// One use of an end; to be given back once, by [`Callers::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    end: End,
    serial: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Callers {
    /// Asked for each packet. The kernel chooses the ports.
    known: FxHashMap<End, (Path, u64)>,
    /// Given back, and not forgotten yet.
    released: Vec<Caller>,
    most: usize,
    serial: u64,
}

impl Callers {
    /// Room for so many at once.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            known: FxHashMap::default(),
            released: Vec::new(),
            most,
            serial: 0,
        }
    }

    /// What comes from this end is for the backend at the end of `path`. `None`: no room.
    pub(crate) fn insert(&mut self, end: End, path: Path) -> Option<Caller> {
        if self.known.len() >= self.most && !self.known.contains_key(&end) {
            return None;
        }
        self.serial += 1;
        // Whoever had it before has closed its socket: else the kernel had not given its port away.
        self.known.insert(end, (path, self.serial));
        Some(Caller {
            end,
            serial: self.serial,
        })
    }

    /// Where packets from this end go.
    pub(crate) fn path(&self, end: &End) -> Option<&Path> {
        self.known.get(end).map(|(path, _)| path)
    }

    /// Its socket is closed.
    pub(crate) fn release(&mut self, caller: Caller) {
        self.released.push(caller);
    }

    /// The device has been emptied since the last release: what was given back is forgotten.
    pub(crate) fn settle(&mut self) {
        for Caller { end, serial } in self.released.drain(..) {
            if self
                .known
                .get(&end)
                .is_some_and(|(_, last)| *last == serial)
            {
                self.known.remove(&end);
            }
        }
    }

    /// How many are known.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use ringgate_conntrack::Endpoint;
    use ringgate_dataplane::backend::BackendIdentity;

    use super::*;

    fn path(backend: u16) -> Path {
        let asked: SocketAddr = "10.100.0.1:80".parse().unwrap();
        Path {
            asked,
            backend: BackendIdentity {
                listen: asked.into(),
                protocol: 6,
                address: Endpoint::from_socket(([10, 2, 0, 1], backend).into()),
            },
        }
    }

    fn end(port: u16) -> End {
        End {
            protocol: 6,
            own: ([10, 2, 0, 254], port).into(),
        }
    }

    #[test]
    fn an_end_is_known_until_the_device_is_empty_after_its_release() {
        let mut callers = Callers::new(4);
        let caller = callers.insert(end(1), path(1)).unwrap();
        assert_eq!(callers.path(&end(1)), Some(&path(1)));
        let other = End {
            protocol: 17,
            ..end(1)
        };
        assert_eq!((callers.path(&end(2)), callers.path(&other)), (None, None));
        callers.settle();
        assert_eq!(callers.len(), 1, "not released");
        callers.release(caller);
        assert_eq!(
            callers.path(&end(1)),
            Some(&path(1)),
            "its reset is to come"
        );
        callers.settle();
        assert_eq!((callers.path(&end(1)), callers.len()), (None, 0));
    }

    #[test]
    fn a_port_that_is_used_again_at_once_stays_its_new_users() {
        let mut callers = Callers::new(4);
        let first = callers.insert(end(1), path(1)).unwrap();
        callers.release(first);
        let second = callers.insert(end(1), path(2)).unwrap();
        callers.settle();
        assert_eq!(callers.path(&end(1)), Some(&path(2)));
        callers.release(second);
        callers.settle();
        assert_eq!(callers.len(), 0);
    }

    #[test]
    fn there_are_never_more_than_there_is_room_for_and_all_are_given_back() {
        let mut callers = Callers::new(100);
        for round in 0..50_u16 {
            let ends = (0..200).map(|port| callers.insert(end(port), path(round)));
            let given: Vec<Option<Caller>> = ends.collect();
            assert_eq!(given.iter().flatten().count(), 100);
            assert_eq!(callers.len(), 100);
            // One that is known already takes no more room.
            let again = callers.insert(end(0), path(round + 1)).unwrap();
            for caller in given.into_iter().flatten().chain([again]) {
                callers.release(caller);
            }
            callers.settle();
            assert_eq!(callers.len(), 0);
        }
    }
}
