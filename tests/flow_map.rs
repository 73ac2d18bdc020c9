//! Promise: the flows of a running balancer lie in a BPF map that anybody with the right to it can
//! read by what docs/FLOW-TABLE.md says; and what a killed balancer leaves in it can be taken over.

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr, UdpSocket};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use aya::maps::{Array, Map, MapData, MapInfo};
    use ringgate_conntrack::{
        Direction, Endpoint, FlowKey, FlowTable, Found, Seconds, State, Timeouts,
    };
    use ringgate_dataplane::flow_map::{FlowMap, NAME};
    use ringgate_playground::{
        Balancer, Configuration, Playground, Service, UdpEcho, ask, wait_for_the_way,
    };
    use rustix::process::Signal;
    use rustix::time::{ClockId, clock_gettime};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    const ECHO_PORT: u16 = 7_000;

    /// The services, and the client's addresses.
    const SERVICES: [(&str, &str, &str); 2] = [
        ("echo4", "10.100.0.1:7000", "10.1.0.2"),
        ("echo6", "[fd00:100::1]:7000", "fd00:1::2"),
    ];

    const SOURCE_PORTS: std::ops::Range<u16> = 20_000..20_050;

    const UDP: u8 = 17;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_reader_of_the_map_finds_the_flows_of_a_running_balancer() {
        let (playground, _echo) = playground();
        let balancer = Balancer::start(RINGGATE, &playground, &configuration(&playground));
        let asked = talk(&playground);

        let id = u32::try_from(balancer.status().number("/flows/map")).unwrap();
        let info = MapInfo::from_id(id).unwrap();
        assert_eq!(info.name_as_str(), Some(NAME));
        let reader = Reader::of(id);
        for key in &asked {
            let (state, owner, seen) = reader.look_up(key).unwrap_or_else(|| panic!("{key:?}"));
            // Both ways were seen; the owner is one of the backends.
            assert_eq!((state, owner >> 32), (State::TwoWay as u64, 0), "{key:?}");
            assert!(now().0 - u32::try_from(seen).unwrap() < 60, "{key:?}");
            assert_eq!(reader.look_up(&key.reversed()), None, "{key:?}");
        }
        let status = balancer.assert_accounts_balance();
        assert_eq!(status.number("/flows/map"), u64::from(id));
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn what_a_killed_balancer_leaves_can_be_taken_over() {
        let (playground, _echo) = playground();
        let mut balancer = Balancer::start(RINGGATE, &playground, &configuration(&playground));
        let asked = talk(&playground);
        let status = balancer.status();
        let id = u32::try_from(status.number("/flows/map")).unwrap();
        // As a process that is handed the descriptor.
        let handed = MapData::from_id(id).unwrap();
        let handed = handed.fd().as_fd().try_clone_to_owned().unwrap();

        balancer.signal(Signal::KILL);
        balancer.wait(Duration::from_secs(5));
        let map = FlowMap::from_fd(handed).unwrap();
        assert_eq!(map.id(), id);
        let memory = map.memory().unwrap();
        let (table, healed) = FlowTable::adopt(memory, Timeouts::default(), now()).unwrap();
        assert_eq!(healed.ahead, 0, "{healed:?}");
        assert_eq!(table.capacity() as u64, status.number("/flows/capacity"));
        assert_eq!(table.stored(), healed.flows);
        let find = |key: &FlowKey| table.lookup(key, table.hash(key), now());
        let owners: std::collections::BTreeSet<u32> = asked
            .iter()
            .map(|key| find(key).unwrap_or_else(|| panic!("{key:?}")))
            .inspect(|found| assert_eq!(found.state, State::TwoWay))
            .map(|found| found.owner)
            .collect();
        // A backend of one service is not one of another.
        assert_eq!(owners.len(), SERVICES.len() * playground.backends().count());
        let mut replies = 0;
        table.for_each(now(), |_, found: &Found| {
            assert!(owners.contains(&found.owner), "{found:?}");
            replies += usize::from(found.direction == Direction::FromBackend);
        });
        assert_eq!(replies * 2, healed.flows);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_private_table_serves_as_well_and_is_nobodys_map() {
        let (playground, _echo) = playground();
        let configuration = configuration(&playground).private_flows();
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        let asked = talk(&playground);

        let status = balancer.assert_accounts_balance();
        assert!(status.0.pointer("/flows/map").unwrap().is_null());
        assert!(status.number("/flows/stored") >= 2 * asked.len() as u64);
    }

    fn playground() -> (Playground, Vec<UdpEcho>) {
        let playground = Playground::plan().queues(2).up();
        let echo = UdpEcho::on_all(&playground, ECHO_PORT);
        (playground, echo)
    }

    fn configuration(playground: &Playground) -> Configuration {
        let over = |service: Service| service.backends(playground.backends(), ECHO_PORT);
        SERVICES
            .iter()
            .fold(Configuration::native(), |all, (name, listen, _)| {
                all.service(over(Service::udp(name, listen)))
            })
    }

    /// Has flows of each service, and returns the keys of the client's packets.
    fn talk(playground: &Playground) -> Vec<FlowKey> {
        let mut keys = Vec::new();
        for (_, service, client) in SERVICES {
            let service: SocketAddr = service.parse().unwrap();
            let client: IpAddr = client.parse().unwrap();
            playground.inside("client", || {
                wait_for_the_way(service);
                for port in SOURCE_PORTS {
                    let socket = UdpSocket::bind((client, port)).unwrap();
                    assert_eq!(ask(&socket, service, "hello").unwrap(), "hello");
                }
            });
            keys.extend(SOURCE_PORTS.map(|port| {
                let client = SocketAddr::new(client, port);
                let [from, to] = [client, service].map(Endpoint::from_socket);
                FlowKey::new(UDP, from, to)
            }));
        }
        keys
    }

    fn now() -> Seconds {
        let now = clock_gettime(ClockId::Monotonic);
        Seconds(u32::try_from(now.tv_sec).unwrap())
    }

    /// Someone who has read docs/FLOW-TABLE.md and nothing else of ours, and does what a BPF
    /// program would: look up lines by number.
    struct Reader {
        lines: Array<MapData, [u8; 64]>,
        buckets: u64,
        slots_at: u64,
        secret: [u64; 6],
    }

    impl Reader {
        fn of(id: u32) -> Self {
            let map = Map::from_map_data(MapData::from_id(id).unwrap()).unwrap();
            let lines = Array::try_from(map).unwrap();
            let line = |number| words(lines.get(&number, 0).unwrap());
            let [magic, version, _, buckets, _, slots_at, ..] = line(0);
            let [a, b, c, d, e, f, ..] = line(1);
            assert_eq!((magic.to_be_bytes(), version), (*b"ringflow", 3));
            Self {
                lines,
                buckets,
                slots_at,
                secret: [a, b, c, d, e, f],
            }
        }

        fn line(&self, number: u64) -> [u64; 8] {
            let number = u32::try_from(number).unwrap();
            words(self.lines.get(&number, 0).unwrap())
        }

        fn hash(&self, key: &[u64; 5]) -> u64 {
            let half = |number: u64| number & 0xFFFF_FFFF;
            let mut sum = self.secret[5];
            for (word, secret) in key.iter().zip(self.secret) {
                let low = half(half(*word) + half(secret));
                let high = half((word >> 32) + (secret >> 32));
                sum = sum.wrapping_add(low * high);
            }
            sum = (sum ^ sum >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            sum = (sum ^ sum >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            sum ^ sum >> 31
        }

        /// The state of a flow, the word of its owner, and when it was last seen.
        fn look_up(&self, key: &FlowKey) -> Option<(u64, u64, u64)> {
            let key = key.words();
            let hash = self.hash(&key);
            let tag = (hash & 0xFFFF).max(1);
            let first = ((hash >> 32) * self.buckets) >> 32;
            let second = ((hash & 0xFFFF_FFFF) * self.buckets) >> 32;
            let second = if second == first { first ^ 1 } else { second };
            for bucket in [first, second] {
                let index = self.line(2 + bucket / 2);
                let (halves, _) = index.as_chunks::<4>();
                for lane in 1..16 {
                    let word = halves[usize::try_from(bucket % 2).unwrap()][lane / 4];
                    if word >> (lane % 4 * 16) & 0xFFFF != tag {
                        continue;
                    }
                    let place = bucket * 15 + lane as u64 - 1;
                    if let Some(found) = self.slot(self.slots_at + place, &key) {
                        return Some(found);
                    }
                }
            }
            None
        }

        fn slot(&self, line: u64, key: &[u64; 5]) -> Option<(u64, u64, u64)> {
            for _ in 0..16 {
                let [control, a, b, c, d, e, owner, _] = self.line(line);
                let state = control >> 1 & 0xF;
                if state == 0 || state > 7 {
                    return None;
                }
                let [again, ..] = self.line(line);
                // Busy and version, bits 0 and 9 to 31.
                let record = |control: u64| control & 0xFFFF_FE01;
                if control & 1 == 0 && record(control) == record(again) {
                    return ([a, b, c, d, e] == *key).then_some((state, owner, control >> 32));
                }
            }
            None
        }
    }

    fn words(line: [u8; 64]) -> [u64; 8] {
        let (words, _) = line.as_chunks::<8>();
        std::array::from_fn(|word| u64::from_ne_bytes(words[word]))
    }
}
