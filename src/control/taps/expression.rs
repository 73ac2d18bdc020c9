//! The language of filters: what people type at tcpdump (pcap-filter(7)), as far as it is of use here,
//! and words for what only a balancer knows.
//!
//! ```text
//! any     = each { "or" each }
//! each    = one { "and" one }
//! one     = "not" one | "(" any ")" | test
//! test    = [ "tcp" | "udp" | "ip" | "ip6" ] [ "src" | "dst" ] ( "host" ADDRESS | "net" PREFIX | "port" N | "portrange" N-N )
//!         | "tcp" | "udp" | "icmp" | "icmp6" | "ip" | "ip6" | "vlan" [ N ] | "fragment" | "syn" | "fin" | "rst"
//!         | "service" NAME | "backend" ADDRESS[:PORT] | "in" INTERFACE | "out" INTERFACE | "worker" N
//!         | "forwarded" | "answered" | "held" | "dropped" | "drop" REASON
//! ```
//! `&&`, `||` and `!` are the same as the words.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use ringgate_dataplane::parse::Family;
use ringgate_dataplane::route::PortIndex;
use ringgate_dataplane::snapshot::Snapshot;
use ringgate_dataplane::tap::filter::{End, Filter, MOST, Term, Test};
use ringgate_dataplane::verdict::DropReason;
use ringgate_dataplane::wire::{icmpv4, icmpv6, tcp, udp};

/// What names stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    /// The services.
    pub(crate) snapshot: &'a Snapshot,
    /// The interfaces, in port order.
    pub(crate) interfaces: &'a [String],
}

/// The filter that `text` says; every packet if it says nothing.
///
/// # Errors
///
/// What was found, and what is expected.
pub(crate) fn compile(text: &str, names: &Names<'_>) -> Result<Filter, String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let spaced = spaced.replace('!', " ! ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader {
        words: &words,
        names,
        terms: Vec::new(),
        depth: 0,
    };
    if !words.is_empty() {
        reader.any()?;
    }
    if let Some(word) = reader.peek() {
        return Err(format!(
            "filter: found {word:?} where an \"and\" or an \"or\" is expected"
        ));
    }
    Filter::new(reader.terms).map_err(|error| error.to_string())
}

struct Reader<'a> {
    words: &'a [&'a str],
    names: &'a Names<'a>,
    terms: Vec<Term>,
    /// Of parentheses and negations.
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.first().copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(*first)
    }

    fn takes(&mut self, words: &[&str]) -> bool {
        let is_it = self.peek().is_some_and(|word| words.contains(&word));
        if is_it {
            self.next();
        }
        is_it
    }

    fn is(&mut self, test: Test) {
        self.terms.push(Term::Is(test));
    }

    fn any(&mut self) -> Result<(), String> {
        self.each()?;
        while self.takes(&["or", "||"]) {
            self.each()?;
            self.terms.push(Term::Or);
        }
        Ok(())
    }

    fn each(&mut self) -> Result<(), String> {
        self.one()?;
        while self.takes(&["and", "&&"]) {
            self.one()?;
            self.terms.push(Term::And);
        }
        Ok(())
    }

    fn one(&mut self) -> Result<(), String> {
        // What is nested deeper than it may be long is too long anyhow.
        self.depth += 1;
        if self.depth > MOST {
            return Err(format!("filter: nested more than {MOST} deep"));
        }
        if self.takes(&["not", "!"]) {
            self.one()?;
            self.terms.push(Term::Not);
        } else if self.takes(&["("]) {
            self.any()?;
            if !self.takes(&[")"]) {
                return Err("filter: a parenthesis is not closed".to_owned());
            }
        } else {
            self.test()?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn test(&mut self) -> Result<(), String> {
        let word = self
            .next()
            .ok_or("filter: it ends where a test is expected")?;
        let protocol = match word {
            "tcp" => Some(Test::Protocol(tcp::PROTOCOL)),
            "udp" => Some(Test::Protocol(udp::PROTOCOL)),
            "icmp" => Some(Test::Protocol(icmpv4::PROTOCOL)),
            "icmp6" => Some(Test::Protocol(icmpv6::PROTOCOL)),
            "ip" => Some(Test::Family(Family::V4)),
            "ip6" => Some(Test::Family(Family::V6)),
            _ => None,
        };
        if let Some(test) = protocol {
            self.is(test);
            let ends = ["src", "dst", "host", "net", "port", "portrange"];
            // As in "tcp port 80".
            if let Some(next) = self.peek().filter(|next| ends.contains(next)) {
                self.next();
                self.end_test(next)?;
                self.terms.push(Term::And);
            }
            return Ok(());
        }
        match word {
            "src" | "dst" | "host" | "net" | "port" | "portrange" => self.end_test(word),
            _ => {
                let test = self.own_test(word)?;
                self.is(test);
                Ok(())
            }
        }
    }

    /// A test about an end of the packet.
    fn end_test(&mut self, word: &str) -> Result<(), String> {
        let (end, word) = match word {
            "src" => (End::Source, self.next()),
            "dst" => (End::Destination, self.next()),
            word => (End::Either, Some(word)),
        };
        let test = match word {
            Some("host") => Test::Net(end, self.value("an address", host)?),
            Some("net") => Test::Net(end, self.value("a prefix such as 10.1.0.0/24", net)?),
            Some("port") => Test::Ports(end, self.value("a port", port)?),
            Some("portrange") => {
                Test::Ports(end, self.value("a range of ports such as 80-90", ports)?)
            }
            found => {
                let found = found.unwrap_or("the end");
                return Err(format!(
                    "filter: found {found:?} where host, net, port or portrange is expected"
                ));
            }
        };
        self.is(test);
        Ok(())
    }

    /// A test about what a balancer knows.
    fn own_test(&mut self, word: &str) -> Result<Test, String> {
        Ok(match word {
            "vlan" => {
                let id = self.peek().and_then(|next| next.parse().ok());
                if id.is_some() {
                    self.next();
                }
                Test::Vlan(id)
            }
            "fragment" => Test::Fragment,
            "syn" => Test::TcpFlags(tcp::SYN),
            "fin" => Test::TcpFlags(tcp::FIN),
            "rst" => Test::TcpFlags(tcp::RST),
            "forwarded" => Test::Forwarded,
            "answered" => Test::Answered,
            "held" => Test::Held,
            "dropped" => Test::Dropped,
            "drop" => Test::DroppedFor(self.reason()?),
            "service" => self.service()?,
            "backend" => {
                let (address, port) = self.value("a backend's address, or address and port", at)?;
                Test::Backend(address, port)
            }
            "in" => Test::Ingress(self.interface()?),
            "out" => Test::Egress(self.interface()?),
            "worker" => Test::Worker(self.value("a worker's number", |text| text.parse().ok())?),
            other => {
                return Err(format!(
                    "filter: {other:?} is no test; there are host, net, port, portrange (with src or \
                     dst), tcp, udp, icmp, icmp6, ip, ip6, vlan, fragment, syn, fin, rst, service, \
                     backend, in, out, worker, forwarded, answered, held, dropped and drop"
                ));
            }
        })
    }

    /// The next word, read.
    fn value<T>(&mut self, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let found = self.next().unwrap_or("the end");
        read(found).ok_or_else(|| format!("filter: found {found:?} where {expected} is expected"))
    }

    fn reason(&mut self) -> Result<DropReason, String> {
        let found = self.next().unwrap_or("the end");
        let mut all = DropReason::ALL.iter();
        let reason = all.find(|reason| reason.name() == found).copied();
        reason.ok_or_else(|| {
            let all: Vec<&str> = DropReason::ALL.iter().map(|one| one.name()).collect();
            format!(
                "filter: {found:?} is no reason to drop a packet; there are {}",
                all.join(", ")
            )
        })
    }

    fn service(&mut self) -> Result<Test, String> {
        let found = self.next().unwrap_or("the end");
        let mut all = self.names.snapshot.services().iter();
        match all.find(|service| *service.name == *found) {
            Some(service) => Ok(Test::Service(service.listen, service.protocol)),
            None => {
                let all = self.names.snapshot.services().iter().take(20);
                let all: Vec<&str> = all.map(|service| &*service.name).collect();
                let all = all.join(", ");
                Err(format!(
                    "filter: there is no service {found:?}; there are {all}"
                ))
            }
        }
    }

    fn interface(&mut self) -> Result<PortIndex, String> {
        let found = self.next().unwrap_or("the end");
        let mut all = (0..).zip(self.names.interfaces);
        let port = all.find(|(_, name)| *name == found).map(|(port, _)| port);
        port.ok_or_else(|| {
            let all = self.names.interfaces.join(", ");
            format!("filter: {found:?} is no interface of the balancer; there are {all}")
        })
    }
}

fn host(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>().ok().map(IpNet::from)
}

fn net(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>()
        .ok()
        .map(|net| net.trunc())
        .or_else(|| host(text))
}

fn port(text: &str) -> Option<RangeInclusive<u16>> {
    let port = text.parse().ok()?;
    Some(port..=port)
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(first..=last)
}

fn at(text: &str) -> Option<(IpAddr, Option<u16>)> {
    match text.parse::<SocketAddr>() {
        Ok(socket) => Some((socket.ip(), Some(socket.port()))),
        Err(_) => Some((text.parse().ok()?, None)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringgate_dataplane::backend::Health;
    use ringgate_dataplane::route::Fib;
    use ringgate_dataplane::snapshot::Builder;

    use super::*;

    const FILE: &str = r#"
        [[interface]]
        name = "eth0"
        [[service]]
        name = "web"
        listen = "10.100.0.1:80"
        protocol = "tcp"
        forward = "nat"
          [[service.backend]]
          address = "10.2.0.11:8080"
    "#;

    fn compiled(text: &str) -> Result<Filter, String> {
        let model = ringgate_config::parse("test.toml", FILE).unwrap().model;
        let fib = Arc::new(Fib::default());
        let snapshot = Builder::default().build(&model, |_, _| Health::Up, &fib, false);
        let names = Names {
            snapshot: &snapshot.unwrap(),
            interfaces: &["eth0".to_owned()],
        };
        compile(text, &names)
    }

    #[test]
    fn what_people_type_is_what_they_mean() {
        use Term::{And, Is, Not, Or};
        let host = |end, text: &str| Is(Test::Net(end, text.parse().unwrap()));
        let port = |end, first, last| Is(Test::Ports(end, first..=last));
        let (tcp, either) = (Is(Test::Protocol(6)), End::Either);
        for (text, terms) in [
            ("", vec![]),
            ("tcp", vec![tcp.clone()]),
            (
                "host 10.1.0.2 and tcp port 80",
                vec![
                    host(either, "10.1.0.2/32"),
                    tcp.clone(),
                    port(either, 80, 80),
                    And,
                    And,
                ],
            ),
            (
                "src net 10.1.0.7/24 or dst portrange 80-90",
                vec![
                    host(End::Source, "10.1.0.0/24"),
                    port(End::Destination, 80, 90),
                    Or,
                ],
            ),
            (
                "tcp or tcp and tcp",
                vec![tcp.clone(), tcp.clone(), tcp.clone(), And, Or],
            ),
            (
                "(tcp || tcp) && !tcp",
                vec![tcp.clone(), tcp.clone(), Or, tcp.clone(), Not, And],
            ),
            (
                "not (ip6 host fd00::1)",
                vec![
                    Is(Test::Family(Family::V6)),
                    host(either, "fd00::1/128"),
                    And,
                    Not,
                ],
            ),
        ] {
            assert_eq!(compiled(text), Ok(Filter::new(terms).unwrap()), "{text}");
        }
    }

    #[test]
    fn a_balancer_has_words_of_its_own() {
        use Term::{And, Is, Or};
        let listen: SocketAddr = "10.100.0.1:80".parse().unwrap();
        let web = Is(Test::Service(listen.into(), 6));
        let backend: IpAddr = "10.2.0.11".parse().unwrap();
        for (text, terms) in [
            (
                "service web and backend 10.2.0.11",
                vec![web, Is(Test::Backend(backend, None)), And],
            ),
            (
                "backend 10.2.0.11:8080",
                vec![Is(Test::Backend(backend, Some(8080)))],
            ),
            (
                "drop no_route or dropped",
                vec![
                    Is(Test::DroppedFor(DropReason::NoRoute)),
                    Is(Test::Dropped),
                    Or,
                ],
            ),
            (
                "vlan and vlan 100",
                vec![Is(Test::Vlan(None)), Is(Test::Vlan(Some(100))), And],
            ),
            (
                "in eth0 and worker 1 and syn",
                vec![
                    Is(Test::Ingress(0)),
                    Is(Test::Worker(1)),
                    And,
                    Is(Test::TcpFlags(2)),
                    And,
                ],
            ),
        ] {
            assert_eq!(compiled(text), Ok(Filter::new(terms).unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_would_be() {
        for (text, part) in [
            ("tcp port", "found \"the end\" where a port"),
            ("port http", "found \"http\" where a port"),
            ("tcp udp", "found \"udp\" where an \"and\""),
            ("and tcp", "\"and\" is no test; there are host"),
            ("tcp and", "it ends where a test"),
            ("(tcp", "is not closed"),
            ("tcp)", "found \")\""),
            ("host 10.1.0.0/24", "where an address"),
            ("src 10.1.0.1", "where host, net, port"),
            ("portrange 9-1", "a range of ports"),
            ("service wep", "there are web"),
            ("in eth1", "there are eth0"),
            ("drop rout", "there are truncated"),
            ("greater 100", "is no test"),
        ] {
            let error = compiled(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(compiled(&"(".repeat(100_000)).unwrap_err().contains("deep"));
        assert!(compiled(&"tcp or ".repeat(100)).is_err());
        let long = format!("{}tcp", "tcp or ".repeat(100));
        assert!(compiled(&long).unwrap_err().contains("too long"));
    }
}
