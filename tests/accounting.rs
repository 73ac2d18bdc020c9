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

    struct Case {
        name: String,
        frames: Vec<Frame>,
        fate: Fate,
    }

    fn case(name: &str, fate: Fate, frame: Frame) -> Case {
        Case { name: name.to_owned(), frames: vec![frame; COPIES], fate }
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
            Self {
                redirected: interface.number("/steering/redirected_service")
                    + interface.number("/steering/redirected_return"),
                received: interface.number("/received"),
                forwarded: interface.number("/forwarded"),
                dropped: interface.numbers("/dropped"),
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
                Dropped(reason) => *self.dropped.get_mut(reason).unwrap() += count,
            }
            self
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn every_hostile_frame_moves_the_counter_that_names_it() {
        let scene = Scene::new();
        let to_services = [hostile_v4(&scene), hostile_v6(&scene), common(&scene)].concat_cases();
        scene.play("client", "c0", "front", &to_services);
        scene.play("b1", "eth0", "back", &replies(&scene));
        scene.still_serves();
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_wrong_checksum_stays_wrong_and_a_right_one_right() {
        let scene = Scene::new();
        let before = scene.playground.checksum_errors();
        let right = [
            ("a SYN", scene.syn("10.1.0.2:30000", "10.100.0.1:80")),
            ("a SYN", scene.syn("[fd00:1::2]:30000", "[fd00:100::1]:80")),
            ("a datagram", scene.datagram("10.1.0.2:30000", "10.100.0.1:80")),
            ("a datagram", scene.datagram("[fd00:1::2]:30000", "[fd00:100::1]:80")),
            ("options", scene.syn("10.1.0.2:30000", "10.100.0.1:80").ipv4_options(&[1; 4])),
            ("most options", scene.datagram("10.1.0.2:30000", "10.100.0.1:80").ipv4_options(&[1; 40])),
            ("padding", scene.datagram("10.1.0.2:30000", "10.100.0.1:80").padded(60)),
            ("padding", scene.syn("[fd00:1::2]:30000", "[fd00:100::1]:80").padded(7)),
            // RFC 768: all zeros mean that there is no checksum.
            (
                "no checksum",
                scene.datagram("10.1.0.2:30000", "10.100.0.1:80").with_transport(UDP_CHECKSUM, &[0; 2]),
            ),
            ("a direct SYN", scene.syn("10.1.1.2:30000", "10.100.0.2:90")),
            ("a direct SYN", scene.syn("[fd00:1:1::2]:30000", "[fd00:100::2]:90")),
            ("a last hop", scene.syn("10.1.1.2:30000", "10.100.0.2:90").with(V4_TTL, &[1])),
        ];
        let right: Vec<Case> =
            right.map(|(name, frame)| case(&format!("well-formed: {name}"), Forwarded, frame)).into();
        scene.play("client", "c0", "front", &right);
        assert_eq!(scene.playground.checksum_errors(), before);

        let bad = [0xDE, 0xAD];
        let syn = |from, to| scene.syn(from, to).with_transport(TCP_CHECKSUM, &bad);
        let datagram = |from, to| scene.datagram(from, to).with_transport(UDP_CHECKSUM, &bad);
        let wrong: Vec<Case> = [
            syn("10.1.0.2:30001", "10.100.0.1:80"),
            syn("[fd00:1::2]:30001", "[fd00:100::1]:80"),
            syn("10.1.1.2:30001", "10.100.0.2:90"),
            datagram("10.1.0.2:30001", "10.100.0.1:80"),
            datagram("[fd00:1::2]:30001", "[fd00:100::1]:80"),
        ]
        .map(|frame| case("wrongly checksummed", Forwarded, frame))
        .into();
        scene.play("client", "c0", "front", &wrong);
        let found_wrong = scene.playground.checksum_errors() - before;
        assert_eq!(found_wrong, (wrong.len() * COPIES) as u64, "as the backends' kernels count");
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
        names.extend(status.numbers("/flows").into_keys());
        names.extend(status.list("/workers")[0].numbers("").into_keys());
        names.sort();
        names.dedup();
        let unexplained: Vec<&String> =
            names.iter().filter(|name| !documentation.contains(&format!("`{name}`"))).collect();
        assert!(names.len() > 30, "{names:?}");
        assert_eq!(unexplained, Vec::<&String>::new(), "not in docs/COUNTERS.md");
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
            for (node, interface) in [("client", "c0"), ("lb", "front")] {
                let arguments = ["link", "set", interface, "mtu", "1600"];
                let _ = playground.run_on(node, "ip", &arguments);
            }
            let nginx = Nginx::on_all(&playground, &Payload::megabytes(1, 9), "1m");
            let numbers = || playground.backends();
            let configuration = Configuration::native()
                .service(Service::tcp("tcp4", "10.100.0.1:80").backends(numbers(), SILENT_PORT))
                .service(Service::udp("udp4", "10.100.0.1:80").backends(numbers(), SILENT_PORT))
                .service(Service::tcp("tcp6", "[fd00:100::1]:80").backends(numbers(), SILENT_PORT))
                .service(Service::udp("udp6", "[fd00:100::1]:80").backends(numbers(), SILENT_PORT))
                .service(Service::tcp("one", "10.100.0.3:81").backends(numbers(), 9_000))
                .service(Service::tcp("other", "10.100.0.3:82").backends(numbers(), 9_000))
                .service(Service::tcp("direct4", "10.100.0.2:90").direct().backends(numbers(), 0))
                .service(Service::tcp("direct6", "[fd00:100::2]:90").direct().backends(numbers(), 0))
                .service(
                    Service::tcp("nobody", "10.100.0.3:80")
                        .backend(Backend::at("10.2.0.11:9001").weight(0)),
                )
                .service(Service::tcp("web", "10.100.0.1:8000").checked().backends(numbers(), 8080));
            let balancer = Balancer::start(RINGGATE, &playground, &configuration);
            let macs = [
                playground.hardware_address("client", "c0"),
                playground.hardware_address("lb", "front"),
            ];
            let scene = Self { balancer, _nginx: nginx, playground, macs };
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
                case.frames.iter().for_each(|frame| link.send(frame.bytes()));
                expected = expected.after(case);
                // Others pass, too: neighbour solicitations, checks.
                passed += if case.fate == Passed { case.frames.len() as u64 } else { 0 };
                let deadline = now() + Duration::from_secs(3);
                loop {
                    let status = self.balancer.status().interface(interface);
                    let (seen, now_passed) =
                        (Seen::of(&status), status.number("/steering/passed"));
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
            assert_eq!((visits.answered(), visits.answers.len()), (60, 3), "{visits:?}");
        }
    }

    trait Concatenate {
        fn concat_cases(self) -> Vec<Case>;
    }

    impl<const N: usize> Concatenate for [Vec<Case>; N] {
        fn concat_cases(self) -> Vec<Case> {
            self.into_iter().flatten().collect()
        }
    }

    fn hostile_v4(scene: &Scene) -> Vec<Case> {
        let syn = || scene.syn("10.1.0.2:30000", "10.100.0.1:80");
        let datagram = || scene.datagram("10.1.0.2:30000", "10.100.0.1:80");
        let from = |source: &str| scene.syn(source, "10.100.0.1:80");
        let length = |bytes: u16| bytes.to_be_bytes();
        vec![
            cut("IPv4, before the ports", Passed, &syn(), 0..V4 + PORTS),
            cut("IPv4, behind the ports", Dropped("bad_length"), &syn(), V4 + PORTS..V4 + 20),
            cut("a datagram", Dropped("bad_length"), &datagram(), V4 + PORTS..V4 + 8 + 32),
            case("version 5", Passed, syn().with(0, &[0x55])),
            case("a header of 16 bytes", Passed, syn().with(0, &[0x44])),
            case("half a TCP header", Dropped("truncated"), syn().with(V4_LENGTH, &length(30))),
            case("longer than it is", Dropped("bad_length"), syn().with(V4_LENGTH, &length(41))),
            case("64 KiB long", Dropped("bad_length"), syn().with(V4_LENGTH, &length(65_535))),
            case("shorter than its header", Dropped("bad_length"), syn().with(V4_LENGTH, &length(19))),
            case(
                "header checksum",
                Dropped("bad_ipv4_checksum"),
                syn().with_exactly(V4_CHECKSUM, &[0xDE, 0xAD]),
            ),
            case("a first fragment", Dropped("fragment"), syn().with(V4_FRAGMENT, &[0x20, 0])),
            case("a later fragment", Passed, syn().with(V4_FRAGMENT, &[0x20, 1])),
            case("a last fragment", Passed, syn().with(V4_FRAGMENT, &[0, 100])),
            case("TTL 1", Dropped("ttl_expired"), syn().with(V4_TTL, &[1])),
            case("TTL 0", Dropped("ttl_expired"), datagram().with(V4_TTL, &[0])),
            case("direct, TTL 0", Dropped("ttl_expired"), scene.syn("10.1.1.2:9", "10.100.0.2:90").with(V4_TTL, &[0])),
            case("LAND", Dropped("bad_source"), from("10.100.0.1:80")),
            case("from loopback", Dropped("bad_source"), from("127.0.0.1:9")),
            case("from nowhere", Dropped("bad_source"), from("0.0.0.0:9")),
            case("from a group", Dropped("bad_source"), from("224.0.0.1:9")),
            case("from everybody", Dropped("bad_source"), from("255.255.255.255:9")),
            case("another protocol", Passed, syn().with(V4_PROTOCOL, &[47])),
            case("ICMP", Passed, syn().with(V4_PROTOCOL, &[1])),
            case("a datagram of 7 bytes", Dropped("bad_length"), datagram().with_transport(UDP_LENGTH, &length(7))),
            case("a longer datagram", Dropped("bad_length"), datagram().with_transport(UDP_LENGTH, &length(41))),
            case("ARP", Passed, syn().ethertype(0x0806)),
            case("a VLAN tag", Passed, syn().ethertype(0x8100)),
            case("IPv6 within", Passed, syn().ethertype(0x86DD)),
            case("a port of no service", Passed, scene.syn("10.1.0.2:9", "10.100.0.1:83")),
            case("an address of no service", Passed, scene.syn("10.1.0.2:9", "10.100.0.4:80")),
            case("nobody takes it", Dropped("no_backend"), scene.syn("10.1.0.2:9", "10.100.0.3:80")),
            case("too big", Dropped("too_big"), datagram().padded(1_500).with(V4_LENGTH, &length(1_501))),
        ]
    }

    fn hostile_v6(scene: &Scene) -> Vec<Case> {
        let syn = || scene.syn("[fd00:1::2]:30000", "[fd00:100::1]:80");
        let datagram = || scene.datagram("[fd00:1::2]:30000", "[fd00:100::1]:80");
        let from = |source: &str| scene.syn(source, "[fd00:100::1]:80");
        let length = |bytes: u16| bytes.to_be_bytes();
        let mut cases = vec![
            cut("IPv6, before the ports", Passed, &syn(), 0..V6 + PORTS),
            cut("IPv6, behind the ports", Dropped("bad_length"), &syn(), V6 + PORTS..V6 + 20),
            case("version 4", Passed, syn().with_exactly(0, &[0x40])),
            case("half a TCP header", Dropped("truncated"), syn().with(V6_LENGTH, &length(10))),
            case("longer than it is", Dropped("bad_length"), syn().with(V6_LENGTH, &length(21))),
            case("64 KiB long", Dropped("bad_length"), syn().with(V6_LENGTH, &length(65_535))),
            case("hop limit 1", Dropped("ttl_expired"), syn().with(V6_HOPS, &[1])),
            case("hop limit 0", Dropped("ttl_expired"), datagram().with(V6_HOPS, &[0])),
            case("LAND", Dropped("bad_source"), from("[fd00:100::1]:80")),
            case("from loopback", Dropped("bad_source"), from("[::1]:9")),
            case("from nowhere", Dropped("bad_source"), from("[::]:9")),
            case("from a group", Dropped("bad_source"), from("[ff02::1]:9")),
            case("no next header", Passed, syn().with(V6_NEXT, &[59])),
            case("a datagram of 7 bytes", Dropped("bad_length"), datagram().with_transport(UDP_LENGTH, &length(7))),
            case("too big", Dropped("too_big"), datagram().padded(1_500).with(V6_LENGTH, &length(1_461))),
        ];
        // Hop-by-hop, routing, fragment, destination options (RFC 8200).
        for kind in [0, 43, 44, 60] {
            let frame = syn().ipv6_extension(kind, [0; 6]);
            cases.push(case(&format!("extension header {kind}"), Passed, frame));
        }
        cases
    }

    /// What is wrong with TCP headers is wrong in both families.
    fn common(scene: &Scene) -> Vec<Case> {
        let mut cases = Vec::new();
        for (from, to) in
            [("10.1.0.2:30000", "10.100.0.1:80"), ("[fd00:1::2]:30000", "[fd00:100::1]:80")]
        {
            let syn = || scene.syn(from, to);
            let bad = Dropped("bad_tcp_header");
            cases.push(case("a data offset of 4", bad, syn().with_transport(TCP_OFFSET, &[0x40])));
            cases.push(case("a data offset of 0", bad, syn().with_transport(TCP_OFFSET, &[0])));
            let beyond = syn().with_transport(TCP_OFFSET, &[0xF0]);
            cases.push(case("a data offset beyond the end", Dropped("bad_length"), beyond));
            for (name, flags) in [
                ("no flags", 0x00),
                ("SYN and FIN", 0x03),
                ("SYN and RST", 0x06),
                ("FIN alone", 0x01),
                ("Christmas tree", 0x29),
                ("all flags", 0xFF),
            ] {
                cases.push(case(name, bad, syn().with_transport(TCP_FLAGS, &[flags])));
            }
        }
        cases
    }

    /// What a backend may send by mistake or malice; the way back is no more trusting.
    fn replies(scene: &Scene) -> Vec<Case> {
        let macs = [
            scene.playground.hardware_address("b1", "eth0"),
            scene.playground.hardware_address("lb", "back"),
        ];
        let reply = |from: &str, to: &str| Frame::syn(macs, from.parse().unwrap(), to.parse().unwrap());
        let good = || reply("10.2.0.11:8081", "10.1.0.2:9");
        let good6 = || reply("[fd00:2::11]:8081", "[fd00:1::2]:9");
        vec![
            case("a reply of no known flow", Forwarded, good()),
            case("a reply of no known flow", Forwarded, good6()),
            case("a reply at its last hop", Dropped("ttl_expired"), good().with(V4_TTL, &[1])),
            case("a reply at its last hop", Dropped("ttl_expired"), good6().with(V6_HOPS, &[1])),
            case("a reply's first fragment", Dropped("fragment"), good().with(V4_FRAGMENT, &[0x20, 0])),
            case("a Christmas tree", Dropped("bad_tcp_header"), good().with_transport(TCP_FLAGS, &[0x29])),
            case("a reply to nowhere", Dropped("no_route"), reply("10.2.0.11:8081", "192.0.2.1:9")),
            case("a reply to nobody", Dropped("no_neighbour"), reply("10.2.0.11:8081", "10.1.0.77:9")),
            case("a reply of no service", Passed, reply("10.2.0.11:8083", "10.1.0.2:9")),
            case("to the balancer itself", Passed, reply("10.2.0.11:8081", "10.2.0.1:9")),
            case("of two services' backend", Dropped("unknown_return"), reply("10.2.0.11:9000", "10.1.0.2:9")),
        ]
    }

    /// Cut off at every one of these lengths, counted from the IP header.
    fn cut(name: &str, fate: Fate, whole: &Frame, lengths: std::ops::Range<usize>) -> Case {
        let frames = lengths.map(|length| whole.clone().cut_at(length)).collect();
        Case { name: format!("cut: {name}"), frames, fate }
    }
}
