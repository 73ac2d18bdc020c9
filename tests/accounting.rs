//! Promise: whatever arrives is accounted for. Malformed and hostile frames, straight onto the
//! wire, move exactly the one counter that names them, or pass to the kernel when they are not a
//! service's; nothing crashes, nothing wrong is made right, and the next visitor is served.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Frame, Nginx, Payload, Playground, RawLink, Service,
        Status, now, pause,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Copies of each hostile frame.
    const COPIES: usize = 20;

    /// Where nobody listens on the backends, so that nothing answers what the tests forge but
    /// resets, which the client's kernel takes without a word.
    const SILENT_PORT: u16 = 8_081;

    /// The offsets of fields, bytes from the start of their header (RFC 791, 8200, 9293, 768).
    const V4_LENGTH: usize = 2;
    const V4_FRAGMENT: usize = 6;
    const V4_TTL: usize = 8;
    const V4_PROTOCOL: usize = 9;
    const V4_CHECKSUM: usize = 10;
    const V6_LENGTH: usize = 4;
    const V6_NEXT: usize = 6;
    const V6_HOPS: usize = 7;
    const TCP_OFFSET: usize = 12;
    const TCP_FLAGS: usize = 13;
    const TCP_CHECKSUM: usize = 16;
    const UDP_LENGTH: usize = 4;
    const UDP_CHECKSUM: usize = 6;

    /// The lengths of the headers, bytes, and what the steering program needs of a packet: the
    /// ports.
    const V4: usize = 20;
    const V6: usize = 40;
    const PORTS: usize = 4;

    /// The client, as it sends to `nat` and to direct-return services, and services of both
    /// kinds, in both families.
    const CLIENT4: &str = "10.1.0.2:30000";
    const CLIENT6: &str = "[fd00:1::2]:30000";
    const DIRECT_CLIENT4: &str = "10.1.1.2:30000";
    const DIRECT_CLIENT6: &str = "[fd00:1:1::2]:30000";
    const SERVICE4: &str = "10.100.0.1:80";
    const SERVICE6: &str = "[fd00:100::1]:80";
    const DIRECT4: &str = "10.100.0.2:90";
    const DIRECT6: &str = "[fd00:100::2]:90";

    /// What becomes of a frame.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Fate {
        /// To the host's kernel.
        Passed,
        /// Dropped, for this reason.
        Dropped(&'static str),
        /// On to a backend or a client.
        Forwarded,
    }
    use Fate::{Dropped, Forwarded, Passed};

    const BAD_LENGTH: Fate = Dropped("bad_length");
    const BAD_SOURCE: Fate = Dropped("bad_source");
    const BAD_TCP: Fate = Dropped("bad_tcp_header");
    /// What senders are told, within limits.
    const ANSWERABLE: [&str; 2] = ["too_big", "ttl_expired"];
    const TTL_EXPIRED: Fate = Dropped("ttl_expired");

    struct Case {
        name: String,
        frames: Vec<Frame>,
        fate: Fate,
    }

    fn case(name: &str, fate: Fate, frame: Frame) -> Case {
        Case {
            name: name.to_owned(),
            frames: vec![frame; COPIES],
            fate,
        }
    }

    /// The interface's counters that a case may move, at one moment.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Seen {
        redirected: u64,
        received: u64,
        forwarded: u64,
        dropped: BTreeMap<String, u64>,
    }

    impl Seen {
        fn of(interface: &Status) -> Self {
            let mut dropped = interface.numbers("/dropped");
            // Some of these are answered, as many as the limits allow at that moment. Only they are.
            let refused = ANSWERABLE.map(|reason| dropped.remove(reason).unwrap());
            let all = refused.iter().sum::<u64>() + interface.number("/answered");
            dropped.insert(ANSWERABLE.join(" or "), all);
            Self {
                redirected: interface.redirected(),
                received: interface.number("/received"),
                forwarded: interface.number("/forwarded"),
                dropped,
            }
        }

        fn after(mut self, case: &Case) -> Self {
            let count = case.frames.len() as u64;
            if case.fate != Passed {
                self.redirected += count;
                self.received += count;
            }
            match case.fate {
                Passed => {}
                Forwarded => self.forwarded += count,
                Dropped(reason) => {
                    let is_answerable = ANSWERABLE.contains(&reason);
                    let joined = ANSWERABLE.join(" or ");
                    let reason = if is_answerable { &joined } else { reason };
                    *self.dropped.get_mut(reason).unwrap() += count;
                }
            }
            self
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_hostile_frame_moves_the_counter_that_names_it() {
        let scene = Scene::new();
        let mut to_services = malformed_v4(&scene);
        to_services.extend(malformed_v6(&scene));
        to_services.extend(malformed_transport(&scene));
        to_services.extend(forged(&scene));
        to_services.extend(of_no_service(&scene));
        scene.play("client", "c0", "front", &to_services);
        scene.play("b1", "eth0", "back", &replies(&scene));
        scene.still_serves();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn well_formed_frames_of_every_shape_go_on_with_right_checksums() {
        let scene = Scene::new();
        let before = scene.playground.checksum_errors();
        scene.play("client", "c0", "front", &well_formed(&scene));
        assert_eq!(scene.playground.checksum_errors(), before);
        scene.still_serves();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_wrong_checksum_stays_wrong() {
        let scene = Scene::new();
        let before = scene.playground.checksum_errors();
        let bad = [0xDE, 0xAD];
        let syn = |from, to| scene.syn(from, to).with_transport(TCP_CHECKSUM, &bad);
        let datagram = |from, to| scene.datagram(from, to).with_transport(UDP_CHECKSUM, &bad);
        let wrong: Vec<Case> = [
            syn(CLIENT4, SERVICE4),
            syn(CLIENT6, SERVICE6),
            syn(DIRECT_CLIENT4, DIRECT4),
            datagram(CLIENT4, SERVICE4),
            datagram(CLIENT6, SERVICE6),
        ]
        .map(|frame| case("wrongly checksummed", Forwarded, frame))
        .into();
        scene.play("client", "c0", "front", &wrong);
        let found_wrong = scene.playground.checksum_errors() - before;
        assert_eq!(
            found_wrong,
            (wrong.len() * COPIES) as u64,
            "as the backends' kernels count"
        );
        scene.still_serves();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_counter_of_the_status_is_explained() {
        let scene = Scene::new();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let documentation = fs::read_to_string(root.join("docs/COUNTERS.md")).unwrap();
        let status = scene.balancer.status();
        let mut names = Vec::new();
        for interface in status.list("/interfaces") {
            for group in ["/steering", "/dropped", "/port", "/kernel"] {
                names.extend(interface.numbers(group).into_keys());
            }
        }
        let flows = status.0["flows"].as_object().unwrap();
        names.extend(flows.keys().filter(|name| *name != "log").cloned());
        let log = flows["log"].as_object().unwrap();
        // Of how many flows one is told is the configuration's own word.
        let counted = log.keys().filter(|name| *name != "one_in");
        names.extend(counted.map(|name| format!("log.{name}")));
        names.extend(status.numbers("/fragments").into_keys());
        let worker = &status.list("/workers")[0].0;
        names.extend(worker.as_object().unwrap().keys().cloned());
        // What says which, or how much there is, does not count.
        names.retain(|name| !["index", "core", "capacity", "map"].contains(&name.as_str()));
        names.sort();
        names.dedup();
        let unexplained: Vec<&String> = names
            .iter()
            .filter(|name| !documentation.contains(&format!("`{name}`")))
            .collect();
        assert!(names.len() > 30, "{names:?}");
        assert_eq!(
            unexplained,
            Vec::<&String>::new(),
            "not in docs/COUNTERS.md"
        );
    }

    /// A playground with services whose backends do not answer, and one that serves.
    struct Scene {
        balancer: Balancer,
        _nginx: Vec<Nginx>,
        playground: Playground,
        macs: [[u8; 6]; 2],
    }

    impl Scene {
        fn new() -> Self {
            let playground = Playground::plan().up();
            // Larger packets than `back` can take must be able to arrive on `front`.
            playground.change("client", "link set c0 mtu 1600");
            playground.change("lb", "link set front mtu 1600");
            let nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 9), "1m");
            let numbers = || playground.backends();
            let configuration = Configuration::native()
                .service(Service::tcp("tcp4", SERVICE4).backends(numbers(), SILENT_PORT))
                .service(Service::udp("udp4", SERVICE4).backends(numbers(), SILENT_PORT))
                .service(Service::tcp("tcp6", SERVICE6).backends(numbers(), SILENT_PORT))
                .service(Service::udp("udp6", SERVICE6).backends(numbers(), SILENT_PORT))
                .service(Service::tcp("one", "10.100.0.3:81").backends(numbers(), 9_000))
                .service(Service::tcp("other", "10.100.0.3:82").backends(numbers(), 9_000))
                .service(
                    Service::tcp("direct4", DIRECT4)
                        .direct()
                        .backends(numbers(), 0),
                )
                .service(
                    Service::tcp("direct6", DIRECT6)
                        .direct()
                        .backends(numbers(), 0),
                )
                .service(
                    Service::tcp("nobody", "10.100.0.3:80")
                        .backend(Backend::at("10.2.0.11:9001").weight(0)),
                )
                .service(
                    Service::tcp("web", "10.100.0.1:8000")
                        .checked()
                        .backends(numbers(), 8080),
                );
            let balancer = Balancer::start(RINGGATE, &playground, &configuration);
            let macs = [
                playground.hardware_address("client", "c0"),
                playground.hardware_address("lb", "front"),
            ];
            let scene = Self {
                balancer,
                _nginx: nginx,
                playground,
                macs,
            };
            scene.still_serves();
            scene
        }

        fn syn(&self, from: &str, to: &str) -> Frame {
            Frame::syn(self.macs, from.parse().unwrap(), to.parse().unwrap())
        }

        fn datagram(&self, from: &str, to: &str) -> Frame {
            Frame::datagram(self.macs, from.parse().unwrap(), to.parse().unwrap())
        }

        /// Sends every case's frames, and sees after each that the interface's counters have
        /// moved by just that. Afterwards the account balances.
        fn play(&self, node: &str, from: &str, interface: &str, cases: &[Case]) {
            let link = RawLink::open(&self.playground, node, from);
            let status = self.balancer.assert_accounts_balance().interface(interface);
            let mut expected = Seen::of(&status);
            let mut passed = status.number("/steering/passed");
            for case in cases {
                case.frames
                    .iter()
                    .for_each(|frame| link.send(frame.bytes()));
                expected = expected.after(case);
                // Others pass, too: neighbour solicitations, checks.
                passed += if case.fate == Passed {
                    case.frames.len() as u64
                } else {
                    0
                };
                let deadline = now() + Duration::from_secs(3);
                loop {
                    let status = self.balancer.status().interface(interface);
                    let (seen, now_passed) = (Seen::of(&status), status.number("/steering/passed"));
                    if seen == expected && now_passed >= passed {
                        passed = now_passed;
                        break;
                    }
                    assert!(
                        now() < deadline,
                        "{}: {:?}\nexpected {expected:?}, passed {passed}\nseen {seen:?}, passed \
                         {now_passed}",
                        case.name,
                        case.fate,
                    );
                    pause(Duration::from_millis(10));
                }
            }
            let status = self.balancer.assert_accounts_balance().interface(interface);
            assert_eq!(Seen::of(&status), expected, "more was counted after all");
        }

        fn still_serves(&self) {
            let target: SocketAddr = "10.100.0.1:8000".parse().unwrap();
            let visits = self.playground.visits(target, 60);
            assert_eq!(
                (visits.answered(), visits.answers.len()),
                (60, 3),
                "{visits:?}"
            );
        }
    }

    /// What a sender may rightly send.
    fn well_formed(scene: &Scene) -> Vec<Case> {
        let syn4 = || scene.syn(CLIENT4, SERVICE4);
        let datagram4 = || scene.datagram(CLIENT4, SERVICE4);
        let frames = [
            ("a SYN", syn4()),
            ("a SYN", scene.syn(CLIENT6, SERVICE6)),
            ("a datagram", datagram4()),
            ("a datagram", scene.datagram(CLIENT6, SERVICE6)),
            ("options", syn4().ipv4_options(&[1; 4])),
            ("all options", datagram4().ipv4_options(&[1; 40])),
            ("padding", datagram4().padded(60)),
            ("padding", scene.syn(CLIENT6, SERVICE6).padded(7)),
            // RFC 768: all zeros mean that there is no checksum.
            (
                "no checksum",
                datagram4().with_transport(UDP_CHECKSUM, &[0; 2]),
            ),
            // Offset 0, and no more to come: whole all the same (RFC 6946).
            (
                "an atomic fragment",
                scene.datagram(CLIENT6, SERVICE6).ipv6_extension(44, [0; 6]),
            ),
            ("a direct SYN", scene.syn(DIRECT_CLIENT4, DIRECT4)),
            ("a direct SYN", scene.syn(DIRECT_CLIENT6, DIRECT6)),
            (
                "a last hop",
                scene.syn(DIRECT_CLIENT4, DIRECT4).with(V4_TTL, &[1]),
            ),
        ];
        frames
            .map(|(name, frame)| case(name, Forwarded, frame))
            .into()
    }

    fn malformed_v4(scene: &Scene) -> Vec<Case> {
        let syn = || scene.syn(CLIENT4, SERVICE4);
        let datagram = || scene.datagram(CLIENT4, SERVICE4);
        let long = |bytes: u16| syn().with(V4_LENGTH, &bytes.to_be_bytes());
        let big = datagram()
            .padded(1_500)
            .with(V4_LENGTH, &1_501_u16.to_be_bytes());
        let mut cases = vec![
            cut("IPv4, before the ports", Passed, &syn(), 0..V4 + PORTS),
            cut(
                "IPv4, behind the ports",
                BAD_LENGTH,
                &syn(),
                V4 + PORTS..V4 + 20,
            ),
            cut(
                "a datagram",
                BAD_LENGTH,
                &datagram(),
                V4 + PORTS..V4 + 8 + 32,
            ),
        ];
        let bad_checksum = syn().with_exactly(V4_CHECKSUM, &[0xDE, 0xAD]);
        let others = [
            ("version 5", Passed, syn().with(0, &[0x55])),
            ("a header of 16 bytes", Passed, syn().with(0, &[0x44])),
            ("half a TCP header", Dropped("truncated"), long(30)),
            ("longer than it is", BAD_LENGTH, long(41)),
            ("64 KiB long", BAD_LENGTH, long(u16::MAX)),
            ("shorter than its header", BAD_LENGTH, long(19)),
            (
                "a wrong header checksum",
                Dropped("bad_ipv4_checksum"),
                bad_checksum,
            ),
            (
                "a first fragment that ends within eight bytes",
                Dropped("bad_fragment"),
                syn().with(V4_FRAGMENT, &[0x20, 0]),
            ),
            (
                "a fragment that reaches into the header",
                Dropped("tiny_fragment"),
                syn().with(V4_FRAGMENT, &[0, 1]),
            ),
            (
                "a last fragment",
                Dropped("fragment_timeout"),
                syn().with(V4_FRAGMENT, &[0, 100]),
            ),
            ("TTL 1", TTL_EXPIRED, syn().with(V4_TTL, &[1])),
            ("TTL 0", TTL_EXPIRED, datagram().with(V4_TTL, &[0])),
            ("too big", Dropped("too_big"), big),
        ];
        cases.extend(others.map(|(name, fate, frame)| case(name, fate, frame)));
        cases
    }

    fn malformed_v6(scene: &Scene) -> Vec<Case> {
        let syn = || scene.syn(CLIENT6, SERVICE6);
        let datagram = || scene.datagram(CLIENT6, SERVICE6);
        let long = |bytes: u16| syn().with(V6_LENGTH, &bytes.to_be_bytes());
        let big = datagram()
            .padded(1_500)
            .with(V6_LENGTH, &1_461_u16.to_be_bytes());
        let mut cases = vec![
            cut("IPv6, before the ports", Passed, &syn(), 0..V6 + PORTS),
            cut(
                "IPv6, behind the ports",
                BAD_LENGTH,
                &syn(),
                V6 + PORTS..V6 + 20,
            ),
        ];
        let others = [
            ("version 4", Passed, syn().with_exactly(0, &[0x40])),
            ("half a TCP header", Dropped("truncated"), long(10)),
            ("longer than it is", BAD_LENGTH, long(21)),
            ("64 KiB long", BAD_LENGTH, long(u16::MAX)),
            ("hop limit 1", TTL_EXPIRED, syn().with(V6_HOPS, &[1])),
            ("hop limit 0", TTL_EXPIRED, datagram().with(V6_HOPS, &[0])),
            ("no next header", Passed, syn().with(V6_NEXT, &[59])),
            ("too big", Dropped("too_big"), big),
        ];
        cases.extend(others.map(|(name, fate, frame)| case(name, fate, frame)));
        // Hop-by-hop, routing, destination options (RFC 8200).
        for kind in [0, 43, 60] {
            let frame = syn().ipv6_extension(kind, [0; 6]);
            cases.push(case(&format!("extension header {kind}"), Passed, frame));
        }
        // Reserved, offset and flags, identification (RFC 8200 §4.5).
        let fragment = |offset: [u8; 2]| {
            let [high, low] = offset;
            datagram().ipv6_extension(44, [high, low, 0, 0, 0, 1])
        };
        let fragments = [
            (
                "a fragment beyond all",
                Dropped("bad_fragment"),
                [0xFF, 0xF8],
            ),
            ("a last fragment", Dropped("fragment_timeout"), [0, 80]),
        ];
        cases.extend(fragments.map(|(name, fate, offset)| case(name, fate, fragment(offset))));
        cases
    }

    /// What is wrong with TCP and UDP headers is wrong in both families.
    fn malformed_transport(scene: &Scene) -> Vec<Case> {
        let mut cases = Vec::new();
        for (from, to) in [(CLIENT4, SERVICE4), (CLIENT6, SERVICE6)] {
            let offset = |byte: u8| scene.syn(from, to).with_transport(TCP_OFFSET, &[byte]);
            let flags = |byte: u8| scene.syn(from, to).with_transport(TCP_FLAGS, &[byte]);
            let datagram = |bytes: u16| {
                scene
                    .datagram(from, to)
                    .with_transport(UDP_LENGTH, &bytes.to_be_bytes())
            };
            let in_this_family = [
                ("a data offset of 4", BAD_TCP, offset(0x40)),
                ("a data offset of 0", BAD_TCP, offset(0)),
                ("a data offset beyond the end", BAD_LENGTH, offset(0xF0)),
                ("no flags", BAD_TCP, flags(0x00)),
                ("SYN and FIN", BAD_TCP, flags(0x03)),
                ("SYN and RST", BAD_TCP, flags(0x06)),
                ("FIN alone", BAD_TCP, flags(0x01)),
                ("Christmas tree", BAD_TCP, flags(0x29)),
                ("all flags", BAD_TCP, flags(0xFF)),
                ("a datagram of 7 bytes", BAD_LENGTH, datagram(7)),
                ("a datagram longer than it is", BAD_LENGTH, datagram(41)),
            ];
            cases.extend(in_this_family.map(|(name, fate, frame)| case(name, fate, frame)));
        }
        cases
    }

    /// From where nothing comes, or to where nothing goes.
    fn forged(scene: &Scene) -> Vec<Case> {
        let from = |source: &str| {
            scene.syn(
                source,
                if source.starts_with('[') {
                    SERVICE6
                } else {
                    SERVICE4
                },
            )
        };
        let no_hops = scene.syn(DIRECT_CLIENT4, DIRECT4).with(V4_TTL, &[0]);
        [
            ("LAND", BAD_SOURCE, from(SERVICE4)),
            ("from loopback", BAD_SOURCE, from("127.0.0.1:9")),
            ("from nowhere", BAD_SOURCE, from("0.0.0.0:9")),
            ("from a group", BAD_SOURCE, from("224.0.0.1:9")),
            ("from everybody", BAD_SOURCE, from("255.255.255.255:9")),
            ("LAND", BAD_SOURCE, from(SERVICE6)),
            ("from loopback", BAD_SOURCE, from("[::1]:9")),
            ("from nowhere", BAD_SOURCE, from("[::]:9")),
            ("from a group", BAD_SOURCE, from("[ff02::1]:9")),
            ("direct, without hops left", TTL_EXPIRED, no_hops),
            (
                "nobody takes it",
                Dropped("no_backend"),
                scene.syn(CLIENT4, "10.100.0.3:80"),
            ),
        ]
        .map(|(name, fate, frame)| case(name, fate, frame))
        .into()
    }

    /// What the balancer is not meant by goes to the kernel.
    fn of_no_service(scene: &Scene) -> Vec<Case> {
        let syn = || scene.syn(CLIENT4, SERVICE4);
        [
            ("another protocol", syn().with(V4_PROTOCOL, &[47])),
            ("ICMP", syn().with(V4_PROTOCOL, &[1])),
            ("ARP", syn().ethertype(0x0806)),
            ("a VLAN tag", syn().ethertype(0x8100)),
            ("IPv4 called IPv6", syn().ethertype(0x86DD)),
            ("a port of no service", scene.syn(CLIENT4, "10.100.0.1:83")),
            (
                "an address of no service",
                scene.syn(CLIENT4, "10.100.0.4:80"),
            ),
            (
                "a protocol of no service",
                scene.datagram(CLIENT4, "10.100.0.3:81"),
            ),
        ]
        .map(|(name, frame)| case(name, Passed, frame))
        .into()
    }

    /// What a backend may send by mistake or malice: the way back is no more trusting.
    fn replies(scene: &Scene) -> Vec<Case> {
        let macs = [
            scene.playground.hardware_address("b1", "eth0"),
            scene.playground.hardware_address("lb", "back"),
        ];
        let reply =
            |from: &str, to: &str| Frame::syn(macs, from.parse().unwrap(), to.parse().unwrap());
        let good4 = || reply("10.2.0.11:8081", "10.1.0.2:9");
        let good6 = || reply("[fd00:2::11]:8081", "[fd00:1::2]:9");
        let from_shared = reply("10.2.0.11:9000", "10.1.0.2:9");
        let tree = good4().with_transport(TCP_FLAGS, &[0x29]);
        [
            ("a reply of no known flow", Forwarded, good4()),
            ("a reply of no known flow", Forwarded, good6()),
            (
                "a reply at its last hop",
                TTL_EXPIRED,
                good4().with(V4_TTL, &[1]),
            ),
            (
                "a reply at its last hop",
                TTL_EXPIRED,
                good6().with(V6_HOPS, &[1]),
            ),
            (
                "a reply's fragment without its first",
                Dropped("fragment_timeout"),
                good4().with(V4_FRAGMENT, &[0, 100]),
            ),
            ("a Christmas tree", BAD_TCP, tree),
            (
                "to nowhere",
                Dropped("no_route"),
                reply("10.2.0.11:8081", "192.0.2.1:9"),
            ),
            (
                "to nobody",
                Dropped("no_neighbour"),
                reply("10.2.0.11:8081", "10.1.0.77:9"),
            ),
            (
                "of no service",
                Passed,
                reply("10.2.0.11:8083", "10.1.0.2:9"),
            ),
            (
                "to the balancer itself",
                Passed,
                reply("10.2.0.11:8081", "10.2.0.1:9"),
            ),
            (
                "of a backend of two services",
                Dropped("unknown_return"),
                from_shared,
            ),
        ]
        .map(|(name, fate, frame)| case(name, fate, frame))
        .into()
    }

    /// Cut off at every one of these lengths, counted from the IP header.
    fn cut(name: &str, fate: Fate, whole: &Frame, lengths: std::ops::Range<usize>) -> Case {
        let frames = lengths.map(|length| whole.clone().cut_at(length)).collect();
        Case {
            name: format!("cut: {name}"),
            frames,
            fate,
        }
    }
}
