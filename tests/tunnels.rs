//! Promise: a tunnel carries every pair of address families, byte for byte, to a far end that is
//! strict with its headers (`tests/support/src/wrapping.rs`), and from there to a real kernel,
//! which answers the client directly. Real clients and real nginx, as in `http.rs`.
//!
//! Through each tunnel go short connections, a download of 100 MB and an upload of 20 MB, whose
//! segments are as long as the client's link allows: the balancer's other side is wider here.
//! What becomes of them where it is not is the business of `path_mtu.rs`.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::UdpSocket;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Decapsulator, Download, Emerged, Nginx, Payload,
        Playground, Service, UdpEcho, Wrapping, check_datagram, upload, wait_for_the_way,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Short connections through each tunnel.
    const VISITS: usize = 100;
    /// How many different outer sources that many connections have at least, where each has its
    /// own by a hash: 64 are remembered.
    const SOURCES: usize = 32;

    /// The client's MTU, and that of the balancer's other side, where the longest headers fit.
    const CLIENT_MTU: usize = 1_500;
    const WIDE: &str = "1600";

    /// The services: name, address, versions of IP (outer, inner), their backends' addresses but
    /// for the last number.
    const SERVICES: [(&str, &str, [u8; 2], &str); 4] = [
        ("4in4", "10.100.0.2:8001", [4, 4], "10.2.0."),
        ("6in4", "[fd00:100::2]:8002", [4, 6], "10.2.0."),
        ("4in6", "10.100.0.2:8003", [6, 4], "fd00:2::"),
        ("6in6", "[fd00:100::2]:8004", [6, 6], "fd00:2::"),
    ];

    /// What the balancer shall do, what the far ends expect, and where.
    struct Tunnel {
        forward: &'static str,
        keys: &'static str,
        wrapping: Wrapping,
        generic: bool,
    }

    impl Tunnel {
        const fn new(forward: &'static str, keys: &'static str, wrapping: Wrapping) -> Self {
            Self {
                forward,
                keys,
                wrapping,
                generic: false,
            }
        }

        const fn generic(self) -> Self {
            Self {
                generic: true,
                ..self
            }
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn ipip() {
        carries_everything(&Tunnel::new("ipip", "", Wrapping::Ipip));
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn ipip_in_generic_mode() {
        carries_everything(&Tunnel::new("ipip", "", Wrapping::Ipip).generic());
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gre() {
        let wrapping = Wrapping::Gre { key: None };
        carries_everything(&Tunnel::new("gre", "", wrapping));
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gre_with_a_key() {
        let wrapping = Wrapping::Gre { key: Some(7) };
        carries_everything(&Tunnel::new("gre", "key = 7", wrapping));
    }

    /// Unless told, there is a UDP checksum over IPv6 and none over IPv4.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gue_of_variant_0() {
        let wrapping = gue(0, [false, true]);
        carries_everything(&Tunnel::new("gue", "variant = 0", wrapping));
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gue_of_variant_1() {
        carries_everything(&Tunnel::new("gue", "", gue(1, [false, true])));
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gue_with_checksums() {
        let keys = "variant = 0, checksum = true";
        carries_everything(&Tunnel::new("gue", keys, gue(0, [true, true])));
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gue_without_checksums_in_generic_mode() {
        let wrapping = gue(1, [false, false]);
        carries_everything(&Tunnel::new("gue", "checksum = false", wrapping).generic());
    }

    const fn gue(variant: u8, checksums: [bool; 2]) -> Wrapping {
        Wrapping::Gue { variant, checksums }
    }

    fn carries_everything(tunnel: &Tunnel) {
        let plan = Playground::plan().backends(2).generic(tunnel.generic);
        let playground = plan.up();
        widen(&playground);
        let file = Payload::megabytes(100, 1);
        let nginx = Nginx::on_all(&playground, &file, "1m");
        let far_ends = Decapsulator::on_all(&playground, tunnel.wrapping);
        let balancer = Balancer::start(RINGGATE, &playground, &configuration(tunnel));

        let mut seen = BTreeSet::new();
        for (name, address, versions, _) in SERVICES {
            let visits = playground.visits(address.parse().unwrap(), VISITS);
            assert_eq!(visits.failures, Vec::<String>::new(), "{name}");
            assert!(visits.answers.len() == 2, "{name}: {visits:?}");
            let received = Download::start(&playground, &format!("http://{address}/file")).finish();
            assert_eq!(received.as_ref(), Ok(&file.sha256), "{name}");
            carries_an_upload(&playground, &nginx, name, address);

            let emerged = Decapsulator::all(&far_ends);
            assert_eq!(emerged.complaints, Vec::<String>::new(), "{name}");
            seen.insert(versions);
            let came: BTreeSet<_> = emerged.packets.keys().copied().collect();
            assert_eq!(came, seen, "{name} came by something else");
        }
        is_as_long_as_it_may_be(tunnel.wrapping, &Decapsulator::all(&far_ends));
        comes_from_the_balancer(tunnel.wrapping, &Decapsulator::all(&far_ends));
        all_is_accounted_for(&balancer, &playground);
    }

    fn configuration(tunnel: &Tunnel) -> Configuration {
        let configuration = if tunnel.generic {
            Configuration::generic()
        } else {
            Configuration::native()
        };
        let services = SERVICES.map(|(name, listen, _, backends)| {
            let service = Service::tcp(name, listen).checked_at(8080);
            let service = service.tunnel(tunnel.forward, tunnel.keys);
            (11..=12).fold(service, |service, last| {
                service.backend(Backend::at(format!("{backends}{last}")))
            })
        });
        services
            .into_iter()
            .fold(configuration, Configuration::service)
    }

    /// Makes room for outer headers around whole segments of the client.
    fn widen(playground: &Playground) {
        let change = |node: &str, link: &str| {
            playground.change(node, &format!("link set {link} mtu {WIDE}"));
        };
        change("lb", "back");
        change("fabric", "lb");
        for number in playground.backends() {
            change("fabric", &format!("b{number}"));
            change(&format!("b{number}"), "eth0");
        }
    }

    /// Returns the number of the backend that took it.
    fn carries_an_upload(
        playground: &Playground,
        nginx: &[Nginx],
        name: &str,
        address: &str,
    ) -> usize {
        let file = Payload::megabytes(20, 2);
        let url = format!("http://{address}/upload/{name}");
        let backend = upload(playground, &url, &file).unwrap_or_else(|why| panic!("{name}: {why}"));
        let number: usize = backend[1..].parse().unwrap();
        assert_eq!(nginx[number - 1].uploaded(name), file.sha256, "{name}");
        number
    }

    /// No segment was made smaller than the client's link asks for, and none left out.
    fn is_as_long_as_it_may_be(wrapping: Wrapping, emerged: &Emerged) {
        let longest = SERVICES.map(|(_, _, versions, _)| {
            let outer = if versions[0] == 4 { 20 } else { 40 };
            (versions, outer + wrapping.header_length() + CLIENT_MTU)
        });
        assert_eq!(emerged.longest, BTreeMap::from(longest));
    }

    /// From its own addresses, and with ports that tell flows apart.
    fn comes_from_the_balancer(wrapping: Wrapping, emerged: &Emerged) {
        for (versions, sources) in &emerged.sources {
            let own = if versions[0] == 4 {
                "10.2.0.1"
            } else {
                "fd00:2::1"
            };
            let addresses: BTreeSet<_> = sources.iter().map(|one| one.ip().to_string()).collect();
            assert_eq!(addresses, BTreeSet::from([own.to_owned()]), "{versions:?}");
            let ports: BTreeSet<_> = sources.iter().map(|one| one.port()).collect();
            if wrapping.has_ports() {
                assert!(ports.len() >= SOURCES, "{versions:?}: {ports:?}");
            } else {
                assert_eq!(ports, BTreeSet::from([0]), "{versions:?}");
            }
        }
    }

    /// The outer ones the far ends have looked at; their kernels, which have no tunnels, count UDP
    /// without a checksum over IPv6 as wrong.
    fn inner_checksums_are_right(playground: &Playground) {
        let backends = playground.backends().map(|number| format!("b{number}"));
        for node in backends.chain(["client".to_owned()]) {
            assert_eq!(
                playground.kernel_counter(&node, "Tcp", "InCsumErrors"),
                0,
                "{node}"
            );
        }
    }

    fn all_is_accounted_for(balancer: &Balancer, playground: &Playground) {
        let status = balancer.assert_accounts_balance();
        inner_checksums_are_right(playground);
        // Nothing was dropped but what waited for a first neighbour.
        let mut dropped = status.dropped();
        dropped.remove("no_neighbour");
        assert!(dropped.is_empty(), "{dropped:?}");
        for (name, ..) in SERVICES {
            // Answers never meet the balancer.
            assert_eq!(status.sum_of_backends(name, "reply_packets"), 0, "{name}");
        }
    }

    /// The client's kernel leaves the checksum of a datagram to the device, as it does TCP's.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn datagrams_of_every_length_are_echoed() {
        let tunnel = Tunnel::new("gue", "", gue(1, [false, true]));
        let playground = Playground::plan().backends(1).up();
        widen(&playground);
        // Answers go by a link that is no wider than the client's, and so leave as fragments, too.
        let answers = [
            "10.1.1.2/32 via 10.2.0.200",
            "fd00:1:1::2/128 via fd00:2::200",
        ];
        for way in answers {
            playground.change("b1", &format!("route replace {way} mtu {CLIENT_MTU}"));
        }
        let addresses = SERVICES.map(|(_, address, ..)| address.parse().unwrap());
        let _udp = UdpEcho::start(&playground, "b1", &addresses);
        let far_end = Decapsulator::start(&playground, 1, tunnel.wrapping);
        let services = SERVICES.map(|(name, listen, _, backends)| {
            let service = Service::udp(name, listen).tunnel(tunnel.forward, tunnel.keys);
            service.backend(Backend::at(format!("{backends}11")))
        });
        let configuration = Configuration::native();
        let configuration = services
            .into_iter()
            .fold(configuration, Configuration::service);
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        for address in addresses {
            let (unspecified, headers) = if address.is_ipv4() {
                ("0.0.0.0:0", 28)
            } else {
                ("[::]:0", 48)
            };
            playground.inside("client", || {
                wait_for_the_way(address);
                let socket = UdpSocket::bind(unspecified).unwrap();
                socket.connect(address).unwrap();
                // The last two leave as fragments, which come out of the tunnel as they went in.
                let full = CLIENT_MTU - headers;
                for length in [1, 2, 17, 548, full - 1, full, full + 1, 4_000] {
                    check_datagram(&socket, length).unwrap();
                }
            });
        }
        assert_eq!(far_end.emerged().complaints, Vec::<String>::new());
        is_as_long_as_it_may_be(tunnel.wrapping, &far_end.emerged());
        let mut dropped = balancer.assert_accounts_balance().dropped();
        dropped.remove("no_neighbour");
        assert!(dropped.is_empty(), "{dropped:?}");
    }

    /// A backend may be reached otherwise than its service's others, and over the other family.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn backends_of_one_service_are_reached_in_different_ways() {
        let playground = Playground::plan().up();
        widen(&playground);
        let file = Payload::megabytes(20, 2);
        let nginx = Nginx::on_all(&playground, &file, "1m");
        let far_ends = [
            Decapsulator::start(&playground, 1, Wrapping::Ipip),
            Decapsulator::start(&playground, 2, gue(0, [false, false])),
        ];
        let service = Service::tcp("mixed", "10.100.0.2:8001")
            .checked_at(8080)
            .tunnel("ipip", "")
            .backend(Backend::at("10.2.0.11"))
            .backend(
                Backend::at("fd00:2::12")
                    .with("forward = \"gue\"")
                    .with("tunnel = { variant = 0, checksum = false }"),
            )
            .backend(Backend::at("10.2.0.13").with("forward = \"dsr-l2\""));
        let configuration = Configuration::native().service(service);
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        let address = "10.100.0.2:8001";
        let visits = playground.visits(address.parse().unwrap(), VISITS);
        assert_eq!(visits.failures, Vec::<String>::new());
        assert_eq!(visits.answers.len(), 3, "{visits:?}");
        let mut took = BTreeSet::new();
        // One of three never comes in so many with a probability of 3 × (2/3)^40: 3 in 10 million.
        for number in 0..40 {
            let name = format!("mixed-{number}");
            took.insert(carries_an_upload(&playground, &nginx, &name, address));
            if took.len() == 3 {
                break;
            }
        }
        assert_eq!(took, BTreeSet::from([1, 2, 3]));
        let came = far_ends.each_ref().map(Decapsulator::emerged);
        for (came, versions) in came.iter().zip([[4, 4], [6, 4]]) {
            assert_eq!(came.complaints, Vec::<String>::new());
            assert_eq!(Vec::from_iter(came.packets.keys()), [&versions]);
        }
        let status = balancer.assert_accounts_balance();
        for (address, backend) in status.backends("mixed") {
            assert!(backend.number("/packets") > 0, "{address}: {status}");
        }
        inner_checksums_are_right(&playground);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn an_outer_source_of_a_prefix_varies_by_flow() {
        let playground = Playground::plan().backends(1).up();
        let file = Payload::megabytes(1, 10);
        let _nginx = Nginx::on_all(&playground, &file, "1m");
        let far_end = Decapsulator::start(&playground, 1, Wrapping::Ipip);
        let service = Service::tcp("4in4", "10.100.0.2:8001")
            .checked_at(8080)
            .tunnel("ipip", "source = \"10.9.0.0/24\"")
            .backend(Backend::at("10.2.0.11"));
        let configuration = Configuration::native().service(service);
        let _balancer = Balancer::start(RINGGATE, &playground, &configuration);

        let visits = playground.visits("10.100.0.2:8001".parse().unwrap(), VISITS);
        assert_eq!(visits.failures, Vec::<String>::new());
        let emerged = far_end.emerged();
        assert_eq!(emerged.complaints, Vec::<String>::new());
        let sources = &emerged.sources[&[4, 4]];
        assert!(sources.len() >= SOURCES, "{sources:?}");
        for source in sources {
            assert!(source.to_string().starts_with("10.9.0."), "{source}");
        }
    }
}
