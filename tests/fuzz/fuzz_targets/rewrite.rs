//! Packets of every kind through every rewriting: what comes out is what went in, changed only where
//! the mode says so. A right checksum is right and a wrong one as wrong as before, lengths agree, and
//! what a tunnel holds is the packet one hop older.
#![no_main]

use std::cell::RefCell;
use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use libfuzzer_sys::fuzz_target;
use ringgate_config::{Dscp, Forward, Tunnel};
use ringgate_conntrack::{Direction, Endpoint};
use ringgate_dataplane::parse::{Family, Packet, parse};
use ringgate_dataplane::rewrite::{Encapsulation, Exchange, clamp, rewrite};
use ringgate_dataplane::route::Hop;
use ringgate_dataplane::steer::Action;
use ringgate_dataplane::wire::ethernet::Mac;
use ringgate_dataplane::wire::vlan::{Tag, Tags};
use ringgate_dataplane::xsk::Pool;
use ringgate_fuzz::choices::Choices;
use ringgate_fuzz::packets::{self, Kind};
use ringgate_fuzz::places::{address, ip, port};
use ringgate_fuzz::sums;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::anonymous(1));
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let partial_possible = choices.flip();
    let hop = any_hop(&mut choices);
    let treatment = any_treatment(&mut choices);
    let clamped = choices.flip().then(|| choices.word().max(536));
    let before = packets::frame(&mut choices, Kind::Transport);
    let Ok(packet) = parse(&before, partial_possible) else {
        return;
    };
    // Steering sees to that.
    let fits = |endpoint: Endpoint| endpoint.is_v4() == (packet.family == Family::V4);
    if packet.ttl == 0 || !treatment.replaced().iter().all(|(_, end)| fits(*end)) {
        return;
    }
    let after = POOL.with_borrow_mut(|pool| {
        let mut frame = pool.take().unwrap();
        assert_eq!(frame.fill_from(&before), before.len());
        if let Some(most) = clamped
            && packet.tcp_flags & 2 != 0
        {
            clamp(frame.bytes_mut(), &packet, most).unwrap();
        }
        rewrite(&mut frame, &packet, &treatment.action(), &hop).unwrap();
        let after = frame.bytes().to_vec();
        pool.give(frame);
        after
    });
    let network = assert_link(&after, packet.tags, &hop, &treatment);
    let came = Whole::of(&before, &packet);
    match &treatment {
        Treatment::Direct => assert_same(&came, &after[network..], 0, &[]),
        Treatment::ToBackend(_) | Treatment::ToClient(_) | Treatment::Exchange(_) => {
            assert_same(&came, &after[network..], 1, &treatment.replaced());
        }
        Treatment::Tunnel(tunnel) => tunnel.assert_holds(&came, &after[network..]),
    }
});

/// What is done to the packet.
enum Treatment {
    Direct,
    ToBackend(Endpoint),
    ToClient(Endpoint),
    Exchange(Exchange),
    Tunnel(Box<Outer>),
}

impl Treatment {
    /// What becomes of which end; true: of the source.
    fn replaced(&self) -> Vec<(bool, Endpoint)> {
        match *self {
            Self::ToBackend(to) => vec![(false, to)],
            Self::ToClient(from) => vec![(true, from)],
            Self::Exchange(Exchange {
                source,
                destination,
            }) => vec![(true, source), (false, destination)],
            Self::Direct | Self::Tunnel(_) => Vec::new(),
        }
    }

    fn action(&self) -> Action<'_> {
        match *self {
            Self::Direct => Action::Direct,
            Self::ToBackend(to) => Action::ToBackend(to),
            Self::ToClient(from) => Action::ToClient(from),
            Self::Exchange(ends) => Action::Exchange(ends, Direction::FromClient),
            Self::Tunnel(ref tunnel) => Action::Encapsulate(&tunnel.encapsulation),
        }
    }
}

/// A tunnel, and what its outer headers must say.
struct Outer {
    encapsulation: Encapsulation,
    forward: Forward,
    tunnel: Tunnel,
    source: IpAddr,
    destination: IpAddr,
}

fn any_treatment(choices: &mut Choices<'_>) -> Treatment {
    let is_v4 = choices.flip();
    let mut place = || {
        let address = address(choices, is_v4);
        (ip(address, is_v4), port(choices))
    };
    let ((near, from), (far, to)) = (place(), place());
    let end = |ip, port| Endpoint::from_socket((ip, port).into());
    match choices.below(7) {
        0 => Treatment::Direct,
        1 => Treatment::ToBackend(end(near, from)),
        2 => Treatment::ToClient(end(near, from)),
        3 => Treatment::Exchange(Exchange {
            source: end(near, from),
            destination: end(far, to),
        }),
        mode => {
            let forward = [Forward::Ipip, Forward::Gue, Forward::Gre][mode - 4];
            let tunnel = Tunnel {
                variant: choices.byte() & 1,
                port: choices.word(),
                key: choices.flip().then(|| choices.long()),
                source: None,
                dscp: if choices.flip() {
                    Dscp::Set(choices.byte() & 63)
                } else {
                    Dscp::Copy
                },
                checksum: choices.flip(),
            };
            let words = |ip: IpAddr| Endpoint::from_socket((ip, 0).into()).address;
            let family = if is_v4 { Family::V4 } else { Family::V6 };
            let to = (words(far), family);
            let source = [words(near), [0, 0]];
            Treatment::Tunnel(Box::new(Outer {
                encapsulation: Encapsulation::new(forward, &tunnel, source, to).unwrap(),
                forward,
                tunnel,
                source: near,
                destination: far,
            }))
        }
    }
}

fn any_hop(choices: &mut Choices<'_>) -> Hop {
    let shape = choices.byte();
    let mut tag = || Tag {
        tpid: choices.of(&[0x8100, 0x88A8, 0x9100]),
        tci: choices.word(),
    };
    Hop {
        port: 1,
        destination: Mac([2; 6]),
        source: Mac([4; 6]),
        mtu: 1500,
        tags: match shape & 7 {
            6 => Tags::one(tag()),
            7 => Tags::two(tag(), tag()),
            _ => Tags::NONE,
        },
        keeps_tags: shape & 8 != 0,
    }
}

/// Hardware addresses, tags and type are those of the way. Returns where the IP header begins.
fn assert_link(after: &[u8], came: Tags, hop: &Hop, treatment: &Treatment) -> usize {
    assert_eq!(
        (&after[..6], &after[6..12]),
        (&hop.destination.0[..], &hop.source.0[..])
    );
    let list = |tags: Tags| {
        [tags.outer(), tags.inner()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let (came, mut leaves) = (list(came), list(hop.tags));
    if leaves.is_empty() && hop.keeps_tags {
        leaves.clone_from(&came);
    } else if let ([outer, ..], [theirs, ..]) = (&mut leaves[..], &came[..]) {
        outer.tci = outer.tci & 0x0FFF | theirs.tci & 0xF000;
    }
    let mut at = 12;
    for tag in leaves {
        let wire = [tag.tpid.to_be_bytes(), tag.tci.to_be_bytes()].concat();
        assert_eq!(after[at..at + 4], wire);
        at += 4;
    }
    let ethertype = if after[at + 2] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xDD]
    };
    assert_eq!(after[at..at + 2], ethertype);
    if let Treatment::Tunnel(outer) = treatment {
        assert_eq!(outer.destination.is_ipv4(), ethertype == [8, 0]);
    }
    at + 2
}

/// An IP packet with what is known of it.
struct Whole<'a> {
    /// From its IP header on, with the padding.
    bytes: &'a [u8],
    len: usize,
    is_v4: bool,
    protocol: u8,
    partial: bool,
    /// Of its TCP segment or UDP datagram.
    transport: std::ops::Range<usize>,
}

impl<'a> Whole<'a> {
    fn of(frame: &'a [u8], packet: &Packet) -> Self {
        let [network, start, end] = [packet.network, packet.transport, packet.end].map(usize::from);
        Self {
            bytes: &frame[network..],
            len: packet.ip_len.into(),
            is_v4: packet.family == Family::V4,
            protocol: packet.key.protocol(),
            partial: packet.partial,
            transport: start - network..end - network,
        }
    }

    /// Where the TCP or UDP checksum stands.
    fn checksum(&self) -> std::ops::Range<usize> {
        let at = self.transport.start + if self.protocol == 6 { 16 } else { 6 };
        at..at + 2
    }
}

/// `after` is `came`, so many hops older, with these endpoints replaced (true: the source's). With any
/// or without, a segment size may have been lowered.
fn assert_same(came: &Whole<'_>, after: &[u8], hops: u8, replaced: &[(bool, Endpoint)]) {
    let before = came.bytes;
    assert_eq!(before.len(), after.len());
    let (ttl, ends, len) = if came.is_v4 { (8, 12, 4) } else { (7, 8, 16) };
    assert_eq!(after[ttl], before[ttl] - hops);
    let mut expected = before.to_vec();
    expected[ttl] = after[ttl];
    let start = came.transport.start;
    for (is_source, endpoint) in replaced {
        let side = usize::from(!*is_source);
        let address = endpoint.to_socket().ip();
        let address = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        expected[ends + side * len..][..len].copy_from_slice(&address);
        expected[start + side * 2..][..2].copy_from_slice(&endpoint.port.to_be_bytes());
    }
    if came.is_v4 {
        assert_eq!(
            sums::fold(sums::add(&after[..start], 0)),
            0xFFFF,
            "the header checksum"
        );
        expected[10..12].copy_from_slice(&after[10..12]);
    }
    expected[came.checksum()].copy_from_slice(&after[came.checksum()]);
    if came.protocol == 6 && before[start + 13] & 2 != 0 {
        assert_options(came, &mut expected, after);
    }
    assert!(expected == after, "more than the mode says has changed");
    assert_transport(came, after);
}

/// Of the options only a segment size may differ, and only be lower. Takes what is there now.
fn assert_options(came: &Whole<'_>, expected: &mut [u8], after: &[u8]) {
    let start = came.transport.start;
    let end = start + usize::from(came.bytes[start + 12] >> 4) * 4;
    let changed: Vec<usize> = (start + 20..end)
        .filter(|&at| expected[at] != after[at])
        .collect();
    let (Some(&first), Some(&last)) = (changed.first(), changed.last()) else {
        return;
    };
    assert!(last - first <= 1);
    let is_field = |at: usize| expected[at - 2..at] == [2, 4] && at + 2 <= end;
    let at = [first, first - 1]
        .into_iter()
        .find(|&at| is_field(at))
        .unwrap();
    assert!(
        after[at..at + 2] < expected[at..at + 2],
        "a segment size was raised"
    );
    expected[at..at + 2].copy_from_slice(&after[at..at + 2]);
}

/// The transport checksum is complete, and as right or as wrong as it was.
fn assert_transport(came: &Whole<'_>, after: &[u8]) {
    let of = |packet| sums::transport(packet, came.protocol, &packet[came.transport.clone()]);
    if came.partial {
        assert_eq!(of(after), 0xFFFF, "the checksum was completed");
    } else if came.protocol == 17 && came.bytes[came.checksum()] == [0, 0] {
        assert_eq!(after[came.checksum()], [0, 0], "none stays none");
    } else {
        let before = of(came.bytes);
        assert_eq!(before, of(after), "the transport checksum's error changed");
    }
}

impl Outer {
    /// `after` is this tunnel's packet around `came`.
    fn assert_holds(&self, came: &Whole<'_>, after: &[u8]) {
        let class = if came.is_v4 {
            came.bytes[1]
        } else {
            came.bytes[0] << 4 | came.bytes[1] >> 4
        };
        let class = match self.tunnel.dscp {
            Dscp::Copy => class,
            Dscp::Set(dscp) => dscp << 2 | class & 3,
        };
        let (protocol, payload) = self.opened(after, class);
        let number = if came.is_v4 { 4 } else { 41 };
        let inner = match self.forward {
            Forward::Gre => {
                assert_eq!(protocol, 47);
                let ethertype: &[u8] = if came.is_v4 { &[8, 0] } else { &[0x86, 0xDD] };
                let key = self.tunnel.key.map(|key| key.to_be_bytes().to_vec());
                let flags = if key.is_some() { 0x20 } else { 0 };
                let head = [&[flags, 0], ethertype, &key.unwrap_or_default()].concat();
                payload.strip_prefix(&head[..]).unwrap()
            }
            Forward::Gue => {
                assert_eq!(protocol, 17);
                let inner = self.opened_datagram(came, after, payload);
                let head: &[u8] = if self.tunnel.variant == 0 {
                    &[0, number, 0, 0]
                } else {
                    &[]
                };
                inner.strip_prefix(head).unwrap()
            }
            _ => {
                assert_eq!(protocol, number);
                payload
            }
        };
        let stripped = Whole {
            bytes: &came.bytes[..came.len],
            transport: came.transport.clone(),
            ..*came
        };
        assert_same(&stripped, inner, 1, &[]);
    }

    /// The protocol and the payload behind the outer IP header.
    fn opened<'a>(&self, after: &'a [u8], class: u8) -> (u8, &'a [u8]) {
        let (source, destination, protocol, len, head): (IpAddr, IpAddr, _, _, _) =
            if self.source.is_ipv4() {
                let header = Ipv4HeaderSlice::from_slice(after).unwrap();
                assert_eq!(sums::fold(sums::add(header.slice(), 0)), 0xFFFF);
                assert!(header.dont_fragment() && !header.is_fragmenting_payload());
                assert_eq!((header.ttl(), after[1]), (64, class));
                let ends = (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                );
                (
                    ends.0,
                    ends.1,
                    header.protocol(),
                    usize::from(header.total_len()),
                    20,
                )
            } else {
                let header = Ipv6HeaderSlice::from_slice(after).unwrap();
                assert_eq!((header.hop_limit(), header.traffic_class()), (64, class));
                let ends = (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                );
                (
                    ends.0,
                    ends.1,
                    header.next_header(),
                    usize::from(header.payload_length()) + 40,
                    40,
                )
            };
        assert_eq!(
            (source, destination, len),
            (self.source, self.destination, after.len())
        );
        (protocol.0, &after[head..])
    }

    /// What the outer UDP datagram holds.
    fn opened_datagram<'a>(&self, came: &Whole<'_>, after: &[u8], datagram: &'a [u8]) -> &'a [u8] {
        assert!(datagram[0] >= 0xC0, "an ephemeral port");
        assert_eq!(datagram[2..4], self.tunnel.port.to_be_bytes());
        assert_eq!(
            usize::from(u16::from_be_bytes([datagram[4], datagram[5]])),
            datagram.len()
        );
        if !self.tunnel.checksum {
            assert_eq!(datagram[6..8], [0, 0]);
        } else {
            assert_ne!(datagram[6..8], [0, 0]);
            let segment = &came.bytes[came.transport.clone()];
            let inner = sums::transport(came.bytes, came.protocol, segment);
            let none = came.protocol == 17 && came.bytes[came.checksum()] == [0, 0];
            if inner == 0xFFFF || none || came.partial {
                assert_eq!(
                    sums::transport(after, 17, datagram),
                    0xFFFF,
                    "the outer checksum"
                );
            }
        }
        &datagram[8..]
    }
}
