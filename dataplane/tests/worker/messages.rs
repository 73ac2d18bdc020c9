//! ICMP messages for the tests of a worker, built by `etherparse`: the oracle, not our own code.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, PacketBuilder,
    TcpHeader,
};

/// The Ethernet header's length, bytes.
pub(crate) const ETHERNET: usize = 14;

/// Hardware addresses, destination and source.
pub(crate) type Macs = [[u8; 6]; 2];

/// The IP header of a message: from whom to whom, TTL, type of service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ip<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) ttl: u8,
    pub(crate) service: u8,
}

impl<'a> Ip<'a> {
    pub(crate) fn new(from: &'a str, to: &'a str, ttl: u8) -> Self {
        let service = 0;
        Self {
            from,
            to,
            ttl,
            service,
        }
    }

    fn headers(&self, options: &[u8]) -> IpHeaders {
        match (self.from.parse().unwrap(), self.to.parse().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header =
                    Ipv4Header::new(0, self.ttl, IpNumber::ICMP, from.octets(), to.octets())
                        .unwrap();
                header.dscp = (self.service >> 2).try_into().unwrap();
                header.options = Ipv4Options::try_from(options).unwrap();
                IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = Ipv6Header {
                    traffic_class: self.service,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: IpNumber::IPV6_ICMP,
                    hop_limit: self.ttl,
                    source: from.octets(),
                    destination: to.octets(),
                };
                IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
            }
            _ => panic!("mixed families"),
        }
    }
}

/// A message of this type and code, with these four bytes after the checksum, and this body.
pub(crate) fn message(
    [to, from]: Macs,
    ip: Ip<'_>,
    (kind, code, rest): (u8, u8, [u8; 4]),
    body: &[u8],
) -> Vec<u8> {
    let headers = ip.headers(&[]);
    let is_v4 = matches!(headers, IpHeaders::Ipv4(..));
    let builder = PacketBuilder::ethernet2(from, to).ip(headers);
    let mut frame = Vec::new();
    if is_v4 {
        let builder = builder.icmpv4_raw(kind, code, rest);
        builder.write(&mut frame, body).unwrap();
    } else {
        let builder = builder.icmpv6_raw(kind, code, rest);
        builder.write(&mut frame, body).unwrap();
    }
    frame
}

/// A packet of either transport, from its Ethernet header on, with right checksums, this TTL, and
/// IPv4 options if there are any.
pub(crate) fn packet(
    [to, from]: Macs,
    protocol: u8,
    (source, destination): (&str, &str),
    (ttl, options): (u8, &[u8]),
    payload: &[u8],
) -> Vec<u8> {
    let (source, destination): (SocketAddr, SocketAddr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let (s, d) = (source.ip().to_string(), destination.ip().to_string());
    let headers = Ip::new(&s, &d, ttl).headers(options);
    let builder = PacketBuilder::ethernet2(from, to).ip(headers);
    let mut frame = Vec::new();
    if protocol == 6 {
        let mut header = TcpHeader::new(source.port(), destination.port(), 1000, 64_000);
        header.ack = true;
        let builder = builder.tcp_header(header);
        builder.write(&mut frame, payload).unwrap();
    } else {
        let builder = builder.udp(source.port(), destination.port());
        builder.write(&mut frame, payload).unwrap();
    }
    frame
}

/// Whether text names an IPv4 endpoint or address.
pub(crate) fn is_v4(text: &str) -> bool {
    !text.contains("::")
}
