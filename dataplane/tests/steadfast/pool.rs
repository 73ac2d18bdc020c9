//! The backends of two services as a configuration would have them: the oracle's side of
//! [`changes`](super::changes). It knows what may be sent to whom, and nothing of rings or ids.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::random::Random;
use super::segment::Arrival;
use super::world::{INTERFACES, backend_address, backend_mac};

/// The nat service and the dsr-l2 service.
pub(crate) const SERVICES: [SocketAddrV4; 2] = [
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80),
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 80),
];
/// Names of their modes.
const MODES: [&str; 2] = ["nat", "dsr-l2"];
/// Ports of their backends.
const PORTS: [u16; 2] = [8080, 80];

/// Backends of each service in the beginning, at least and at most.
const BEGIN: u8 = 20;
const LEAST: usize = 14;
const MOST: u8 = 30;
/// Hosts below this never go away: only their weights change, 0 included.
pub(crate) const STEADY: u8 = 10;

/// One backend of a service.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// Which it is, from when it is added until it is removed. One that is added again is another.
    pub(crate) name: Name,
    pub(crate) weight: u32,
    pub(crate) disabled: bool,
    pub(crate) down: bool,
    /// How often it has gone down or been disabled.
    pub(crate) absences: u32,
}

/// Where a backend is, and its how manieth life it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) host: u8,
    pub(crate) life: u32,
}

impl Member {
    /// Whether flows that it has go on with it.
    pub(crate) fn serves(&self) -> bool {
        !self.disabled && !self.down
    }

    /// Whether new flows, and those of others that are away, may come to it.
    pub(crate) fn takes(&self) -> bool {
        self.serves() && self.weight > 0
    }
}

/// What happens to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Weigh,
    Drain,
    Undrain,
    Add,
    Remove,
    Disable,
    Enable,
    Down,
    Up,
}

impl Change {
    /// All, those that cure twice: so most backends are well most of the time.
    const DRAWN: [Self; 12] = [
        Self::Weigh,
        Self::Drain,
        Self::Undrain,
        Self::Undrain,
        Self::Add,
        Self::Remove,
        Self::Disable,
        Self::Enable,
        Self::Enable,
        Self::Down,
        Self::Up,
        Self::Up,
    ];
    /// How many there are.
    pub(crate) const COUNT: usize = 9;
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Of each service, in file order.
    pub(crate) members: [Vec<Member>; 2],
    lives: u32,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let mut pool = Self {
            members: [const { Vec::new() }; 2],
            lives: 0,
        };
        for service in 0..2 {
            for host in 0..BEGIN {
                pool.add(service, host, 0);
            }
        }
        pool
    }

    fn add(&mut self, service: usize, host: u8, at: usize) {
        let life = self.lives;
        self.lives += 1;
        let member = Member {
            name: Name { host, life },
            weight: 100,
            disabled: false,
            down: false,
            absences: 0,
        };
        self.members[service].insert(at, member);
    }

    /// Makes one change to one backend, and says which: another than was drawn where that has
    /// nobody to happen to.
    pub(crate) fn change(&mut self, random: &mut Random) -> Change {
        loop {
            let change = Change::DRAWN[random.below(Change::DRAWN.len())];
            if self.make(change, random.below(2), random) {
                return change;
            }
        }
    }

    fn make(&mut self, change: Change, service: usize, random: &mut Random) -> bool {
        let count = self.members[service].len();
        match change {
            Change::Add => {
                let host = u8::try_from(random.below(MOST.into())).unwrap();
                let is_free = self.members[service].iter().all(|m| m.name.host != host);
                if is_free {
                    self.add(service, host, random.below(count + 1));
                }
                return is_free;
            }
            Change::Remove => {
                let at = random.below(count);
                let may_go = self.members[service][at].name.host >= STEADY;
                if may_go && count > LEAST {
                    self.members[service].remove(at);
                }
                return may_go && count > LEAST;
            }
            _ => {}
        }
        let may_happen = |member: &Member| match change {
            Change::Weigh | Change::Drain => member.weight > 0,
            Change::Undrain => member.weight == 0,
            Change::Disable => !member.disabled && member.name.host >= STEADY,
            Change::Enable => member.disabled,
            Change::Down => !member.down && member.name.host >= STEADY,
            Change::Up => member.down,
            Change::Add | Change::Remove => false,
        };
        let mut candidates: Vec<&mut Member> = self.members[service]
            .iter_mut()
            .filter(|member| may_happen(member))
            .collect();
        if candidates.is_empty() {
            return false;
        }
        let nth = random.below(candidates.len());
        let member = &mut candidates[nth];
        match change {
            Change::Weigh | Change::Undrain => {
                member.weight = u32::try_from(1 + random.below(200)).unwrap();
            }
            Change::Drain => member.weight = 0,
            Change::Disable => member.disabled = true,
            Change::Enable => member.disabled = false,
            Change::Down => member.down = true,
            Change::Up => member.down = false,
            Change::Add | Change::Remove => {}
        }
        member.absences += u32::from(matches!(change, Change::Disable | Change::Down));
        true
    }

    /// The member of that name.
    pub(crate) fn find(&self, service: usize, name: Name) -> Option<&Member> {
        self.members[service].iter().find(|m| m.name == name)
    }

    /// The member at this host.
    pub(crate) fn at(&self, service: usize, host: u8) -> Option<&Member> {
        self.members[service].iter().find(|m| m.name.host == host)
    }

    /// Whose a frame is by its addresses.
    pub(crate) fn host_of(service: usize, arrival: &Arrival) -> u8 {
        let group = u8::try_from(service).unwrap();
        let host = arrival.mac.0[5];
        assert_eq!(arrival.mac, backend_mac(group, host));
        let expected = match service {
            0 => Self::endpoint(service, host),
            _ => SERVICES[service],
        };
        assert_eq!(arrival.segment.to, expected);
        host
    }

    /// The endpoint of a backend.
    pub(crate) fn endpoint(service: usize, host: u8) -> SocketAddrV4 {
        let group = u8::try_from(service).unwrap();
        SocketAddrV4::new(backend_address(group, host), PORTS[service])
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> String {
        let mut file = INTERFACES.to_owned();
        for (service, members) in self.members.iter().enumerate() {
            let (listen, mode) = (SERVICES[service], MODES[service]);
            writeln!(
                file,
                "[[service]]\nname = \"{mode}\"\nlisten = \"{listen}\"\nprotocol = \"tcp\"\n\
                 forward = \"{mode}\"\ntable-size = 4093"
            )
            .unwrap();
            for member in members {
                let endpoint = Self::endpoint(service, member.name.host);
                let (weight, disabled) = (member.weight, member.disabled);
                writeln!(
                    file,
                    "[[service.backend]]\naddress = \"{endpoint}\"\nweight = {weight}\n\
                     disabled = {disabled}"
                )
                .unwrap();
            }
        }
        file
    }
}
