//! The `dns` check: one question to a name server over UDP (RFC 1035).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringgate_config::{Check, DnsAnswer, DnsCheck, RecordType, ResponseCode};
use rustix::io::Errno;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

use super::complaint::Complaint;
use super::datagram::Inquiry;
use super::excerpt::Excerpt;
use super::udp;

/// Bytes of a message's head.
const HEAD: usize = 12;

/// The question.
#[derive(Debug)]
pub(super) struct Dns {
    check: Arc<Check>,
    id: u16,
}

impl Dns {
    /// With an id that nobody can guess who does not see the question.
    pub(super) fn new(check: &Arc<Check>, nonce: u64) -> Self {
        let [high, low, ..] = nonce.to_be_bytes();
        Self {
            check: Arc::clone(check),
            id: u16::from_be_bytes([high, low]),
        }
    }

    fn asked(&self) -> Option<&DnsCheck> {
        match &*self.check {
            Check::Dns(dns) => Some(dns),
            _ => None,
        }
    }

    /// The question as a message; `None` only for names that no configuration has.
    fn message(&self) -> Option<Vec<u8>> {
        let dns = self.asked()?;
        let mut packet = Packet::new_query(self.id);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(&dns.name).ok()?;
        let kind = QTYPE::TYPE(record_type(dns.record));
        let class = QCLASS::CLASS(CLASS::IN);
        packet
            .questions
            .push(Question::new(name, kind, class, false));
        packet.build_bytes_vec().ok()
    }
}

impl Inquiry for Dns {
    fn socket(&mut self, address: SocketAddr) -> Result<OwnedFd, Errno> {
        if self.message().is_none() {
            return Err(Errno::INVAL);
        }
        udp::socket(address)
    }

    fn question(&self) -> Vec<u8> {
        self.message().unwrap_or_default()
    }

    fn judge(&self, answer: &[u8]) -> Option<Result<(), Complaint>> {
        let dns = self.asked()?;
        let not_dns = || Some(Err(Complaint::NotDns(Excerpt::of(answer))));
        let Some((head, _)) = answer.split_first_chunk::<HEAD>() else {
            return not_dns();
        };
        let [id_high, id_low, flags, codes, ..] = *head;
        let is_response = flags & 0x80 != 0;
        if !is_response {
            return not_dns();
        }
        if u16::from_be_bytes([id_high, id_low]) != self.id {
            // Late, or forged: not ours.
            return None;
        }
        let rcode = codes & 0x0f;
        if rcode != dns.rcode.number() {
            return Some(Err(Complaint::Rcode {
                found: name_of(rcode),
                expected: dns.rcode.as_str(),
            }));
        }
        let Some(expected) = &dns.expect else {
            return Some(Ok(()));
        };
        let Ok(packet) = Packet::parse(answer) else {
            return not_dns();
        };
        let mut records = packet.answers.iter().map(|record| &record.rdata);
        if records.any(|record| says(record, expected)) {
            return Some(Ok(()));
        }
        Some(Err(Complaint::Records {
            records: u16::try_from(packet.answers.len()).unwrap_or(u16::MAX),
            expected: match expected {
                DnsAnswer::Address(ip) => Excerpt::print(ip),
                DnsAnswer::Text(text) => Excerpt::of(text.as_bytes()),
            },
        }))
    }
}

/// Whether a record says what is expected.
fn says(record: &RData<'_>, expected: &DnsAnswer) -> bool {
    let is_name = |name: &Name<'_>| match expected {
        DnsAnswer::Text(text) => name.to_string().eq_ignore_ascii_case(text),
        DnsAnswer::Address(_) => false,
    };
    match (record, expected) {
        (RData::A(a), DnsAnswer::Address(ip)) => IpAddr::V4(Ipv4Addr::from_bits(a.address)) == *ip,
        (RData::AAAA(aaaa), DnsAnswer::Address(ip)) => {
            IpAddr::V6(Ipv6Addr::from_bits(aaaa.address)) == *ip
        }
        (RData::TXT(txt), DnsAnswer::Text(text)) => {
            String::try_from(txt.clone()).is_ok_and(|said| said == *text)
        }
        (RData::NS(ns), _) => is_name(&ns.0),
        (RData::CNAME(cname), _) => is_name(&cname.0),
        (RData::PTR(ptr), _) => is_name(&ptr.0),
        (RData::SOA(soa), _) => is_name(&soa.mname),
        (RData::MX(mx), _) => is_name(&mx.exchange),
        (RData::SRV(srv), _) => is_name(&srv.target),
        _ => false,
    }
}

const fn record_type(record: RecordType) -> TYPE {
    match record {
        RecordType::A => TYPE::A,
        RecordType::Aaaa => TYPE::AAAA,
        RecordType::Ns => TYPE::NS,
        RecordType::Cname => TYPE::CNAME,
        RecordType::Soa => TYPE::SOA,
        RecordType::Ptr => TYPE::PTR,
        RecordType::Mx => TYPE::MX,
        RecordType::Txt => TYPE::TXT,
        RecordType::Srv => TYPE::SRV,
    }
}

fn name_of(rcode: u8) -> Excerpt {
    let known = ResponseCode::ALL.iter().find(|one| one.number() == rcode);
    match known {
        Some(code) => Excerpt::print(code),
        None => Excerpt::print(&format_args!("response code {rcode}")),
    }
}
