//! Random services, backends and frames: the program and the oracle agree on every one.

use super::*;

/// A generator with a seed, so that a failure can be seen again (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn is(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }

    /// From a few, so that packets meet services.
    fn address(&mut self, v4: bool) -> String {
        let host = self.below(3);
        let net = self.below(2);
        if v4 {
            format!("10.{net}.0.{host}")
        } else {
            format!("fd00:{net}::{host}")
        }
    }

    fn port(&mut self) -> u16 {
        let near = self.of(&[0, 80, 80, 81, 1023, 1024, 6080, 8080, 32_767, 65_535]);
        if self.is(8) {
            u16::try_from(self.below(65_536)).unwrap()
        } else {
            near
        }
    }

    fn ports(&mut self) -> SteeredPorts {
        let (a, b) = (self.port(), self.port());
        if self.is(2) {
            SteeredPorts::one(a)
        } else {
            range(a.min(b), a.max(b))
        }
    }

    fn protocol(&mut self) -> u8 {
        self.of(&[TCP, UDP])
    }

    fn vlan(&mut self) -> Option<Vlan> {
        if !self.is(3) {
            return None;
        }
        Some(Vlan {
            outer: self.of(&[1, 2]),
            inner: self.is(2).then(|| self.of(&[1, 2])),
        })
    }

    fn net(&mut self, v4: bool) -> String {
        let bits = if v4 {
            self.of(&[0, 8, 16, 24, 30, 31, 32, 32, 32])
        } else {
            self.of(&[0, 16, 32, 64, 126, 127, 128, 128, 128])
        };
        format!("{}/{bits}", self.address(v4))
    }

    fn service(&mut self) -> SteeredService {
        let v4 = self.is(2);
        let net: ipnet::IpNet = self.net(v4).parse().unwrap();
        SteeredService {
            prefix: net.trunc(),
            ports: self.ports(),
            protocol: self.protocol(),
            vlan: self.vlan(),
            fragments: !self.is(3),
        }
    }

    fn steered(&mut self) -> Steered {
        let mut steered = Steered {
            pool_ports: range(1024, 32_767),
            echo: self.is(2),
            ..Steered::default()
        };
        for _ in 0..self.below(12) {
            let service = self.service();
            // What the configuration refuses: overlapping ports of one prefix.
            let overlaps = |other: &SteeredService| {
                (other.prefix, other.protocol) == (service.prefix, service.protocol)
                    && other.ports.first <= service.ports.last
                    && service.ports.first <= other.ports.last
            };
            if !steered.services.iter().any(overlaps) {
                steered.services.push(service);
            }
        }
        for _ in 0..self.below(8) {
            let v4 = self.is(2);
            steered.returns.push(SteeredReturn {
                address: self.address(v4).parse().unwrap(),
                ports: self.ports(),
                protocol: self.protocol(),
                way: self.of(&[SteeredWay::Nat, SteeredWay::FullNat]),
                fragments: !self.is(3),
            });
        }
        for _ in 0..self.below(4) {
            let v4 = self.is(2);
            let (address, protocol) = (self.address(v4), self.of(&[IPIP, 41, GRE, UDP]));
            let port = if protocol == UDP { 6080 } else { 0 };
            steered.tunnels.push(tunnel(&address, protocol, port));
        }
        for _ in 0..self.below(3) {
            let v4 = self.is(2);
            let net: ipnet::IpNet = self.net(v4).parse().unwrap();
            steered.tunnel_sources.push(net.trunc());
            steered.pool.push(self.address(v4).parse().unwrap());
        }
        steered
    }

    /// An IP packet, most of them of interest; `depth` is how many more it may be about.
    fn packet(&mut self, v4: bool, depth: u8) -> Vec<u8> {
        let errors = if v4 { [3, 11, 12, 4] } else { [1, 2, 3, 4] };
        let (own, other) = if v4 { (ICMP, ICMPV6) } else { (ICMPV6, ICMP) };
        let (protocol, payload) = match self.below(10) {
            0 | 1 if depth > 0 => {
                let same = !self.is(10);
                let about = self.packet(v4 == same, depth - 1);
                (own, icmp(self.of(&errors), 0, &about))
            }
            2 => (own, icmp(if v4 { 8 } else { 128 }, 0, b"echo")),
            3 => {
                let kind = u8::try_from(self.below(256)).unwrap();
                (self.of(&[own, other]), icmp(kind, 0, &[]))
            }
            4 => (self.of(&[IPIP, 41, GRE, 0, 43, 44, 50, 60]), vec![0x45; 30]),
            _ => (self.protocol(), ports(self.port(), self.port())),
        };
        let mut ip = Ip::new(&self.address(v4), &self.address(v4), protocol);
        if v4 && self.is(4) {
            ip = ip.options(u8::try_from(self.below(11)).unwrap());
        }
        if self.is(5) {
            ip = ip.fragment(self.of(&[0, 0, 1, 185]), self.is(2));
        }
        ip.packet(&payload)
    }

    fn frame(&mut self) -> Vec<u8> {
        let v4 = self.is(2);
        let packet = self.packet(v4, 2);
        let count = self.of(&[0, 0, 0, 1, 1, 2, 2, 3]);
        let tags: Vec<(u16, u16)> = (0..count)
            .map(|_| (self.of(&[CTAG, STAG]), self.of(&[1, 2, 0x2001, 3])))
            .collect();
        let mut frame = tagged(&tags, &packet);
        if self.is(4) {
            let length = self.below(frame.len() as u64);
            frame.truncate(usize::try_from(length).unwrap().max(SHORTEST));
        }
        // A wrong byte, anywhere behind the addresses.
        if self.is(4) && frame.len() > SHORTEST {
            let at = 12 + usize::try_from(self.below(frame.len() as u64 - 12)).unwrap();
            frame[at] = u8::try_from(self.below(256)).unwrap();
        }
        frame
    }
}

#[test]
#[ignore = "needs CAP_BPF"]
fn the_program_and_the_oracle_agree_on_random_frames() {
    let mut fates = std::collections::BTreeMap::<Fate, usize>::new();
    let mut random = Random(0x5EED_0015);
    let mut world = Loaded::new(Steered::default(), &["10.0.0.1", "10.1.0.2", "fd00::1"]);
    for _ in 0..60 {
        let steered = random.steered();
        // Random prefixes may nest deeper than the configuration lets them.
        if world.maps.sync(&steered).is_err() {
            continue;
        }
        world.steered = steered;
        for _ in 0..700 {
            let fate = world.agrees_with_the_oracle(&random.frame());
            *fates.entry(fate).or_default() += 1;
        }
    }
    // Enough of every fate, or this says little.
    assert_eq!(fates.len(), 7, "{fates:?}");
    assert!(fates.values().all(|count| *count > 100), "{fates:?}");
}
