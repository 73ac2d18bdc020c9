//! Promise: a packet that is too long for the way on stalls nobody. Real TCP, whose segments are
//! as long as its links allow and must not be fragmented (DF), gets its bytes through
//!
//! * a tunnel over links of the same MTU as the client's, by ICMP alone: the client learns what
//!   fits from the balancer's messages;
//! * the same tunnel without any message, where the far end asks for shorter segments;
//! * `nat` over routes of different MTUs, both ways, by ICMP alone, and without any message where
//!   the balancer lowers the MSS in passing SYNs (`mss-clamp`);
//! * `full-nat` over the same routes, where each end knows the other by an address of the balancer's.
//!
//! Whether a message was needed is seen where it was heard: a kernel remembers the path MTU that
//! it was told.

#[cfg(test)]
mod tests {
    use ringgate_playground::{
        Backend, Balancer, Configuration, Decapsulator, Download, Nginx, Payload, Playground,
        Service, Wrapping, upload,
    };
    use serde_json::Value;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// The MTU of every link that no test changes.
    const MTU: u64 = 1_500;

    /// The services: name, address, its host alone, version of outer IP, backend.
    const SERVICES: [(&str, &str, &str, u8, &str); 4] = [
        ("4in4", "10.100.0.2:8001", "10.100.0.2", 4, "10.2.0.11"),
        ("6in4", "[fd00:100::2]:8002", "fd00:100::2", 4, "10.2.0.11"),
        ("4in6", "10.100.0.2:8003", "10.100.0.2", 6, "fd00:2::11"),
        ("6in6", "[fd00:100::2]:8004", "fd00:100::2", 6, "fd00:2::11"),
    ];

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn ipip_works_by_icmp_alone() {
        works_by_icmp_alone("ipip", "", Wrapping::Ipip);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gre_works_by_icmp_alone() {
        works_by_icmp_alone("gre", "key = 7", Wrapping::Gre { key: Some(7) });
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn gue_works_by_icmp_alone() {
        works_by_icmp_alone("gue", "variant = 0", gue());
    }

    const fn gue() -> Wrapping {
        Wrapping::Gue {
            variant: 0,
            checksums: [false, true],
        }
    }

    fn works_by_icmp_alone(forward: &'static str, keys: &str, wrapping: Wrapping) {
        let playground = Playground::plan().backends(1).up();
        let file = Payload::megabytes(20, 2);
        let nginx = Nginx::start(&playground, 1, &file, "1m");
        let far_end = Decapsulator::start(&playground, 1, wrapping);
        let configuration = tunnels(forward, keys);
        let _balancer = Balancer::start(RINGGATE, &playground, &configuration);

        for (name, address, host, outer, _) in SERVICES {
            let outer_header = if outer == 4 { 20 } else { 40 };
            let added = outer_header + u64::try_from(wrapping.header_length()).unwrap();
            assert_eq!(learned(&playground, "client", host), None, "{name}, before");
            carries_an_upload(&playground, &nginx, name, address, &file);
            assert_eq!(
                learned(&playground, "client", host),
                Some(MTU - added),
                "{name}"
            );
            forget(&playground, "client");
        }
        let emerged = far_end.emerged();
        assert_eq!(emerged.complaints, Vec::<String>::new());
        // What fits was told to the byte: TCP made its segments that long.
        let full = usize::try_from(MTU).unwrap();
        assert!(
            emerged.longest.values().all(|&length| length == full),
            "{emerged:?}"
        );
        assert_eq!(playground.checksum_errors(), 0);
    }

    /// With direct return the balancer does not see the SYN-ACK, by which a client is told what
    /// it may send. The far end can say it, on the route that its answers take.
    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_far_end_that_asks_for_short_segments_needs_no_icmp() {
        let playground = Playground::plan().backends(1).up();
        playground.change("b1", "route replace 10.1.1.2/32 via 10.2.0.200 advmss 1380");
        playground.change(
            "b1",
            "route replace fd00:1:1::2/128 via fd00:2::200 advmss 1360",
        );
        let file = Payload::megabytes(20, 2);
        let nginx = Nginx::start(&playground, 1, &file, "1m");
        let far_end = Decapsulator::start(&playground, 1, gue());
        let configuration = tunnels("gue", "variant = 0");
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);

        for (name, address, host, _, _) in SERVICES {
            carries_an_upload(&playground, &nginx, name, address, &file);
            assert_eq!(learned(&playground, "client", host), None, "{name}");
        }
        assert_eq!(far_end.emerged().complaints, Vec::<String>::new());
        assert_eq!(
            balancer.assert_accounts_balance().dropped().get("too_big"),
            None
        );
    }

    fn tunnels(forward: &'static str, keys: &str) -> Configuration {
        let services = SERVICES.map(|(name, listen, _, _, backend)| {
            let service = Service::tcp(name, listen).checked_at(8080);
            service.tunnel(forward, keys).backend(Backend::at(backend))
        });
        let configuration = Configuration::native();
        services
            .into_iter()
            .fold(configuration, Configuration::service)
    }

    /// Where the balancer's two sides differ and neither end knows: the balancer's routes to the
    /// backend, and to the client, have an MTU of their own, as if a router with a narrow link
    /// stood there.
    const NARROW: [(&str, u64); 4] = [
        ("10.2.0.11/32 dev back", 1_400),
        ("fd00:2::11/128 dev back", 1_400),
        ("10.1.0.2/32 dev front", 1_450),
        ("fd00:1::2/128 dev front", 1_450),
    ];

    /// The services' addresses and hosts.
    const TRANSLATED: [(&str, &str, &str); 2] = [
        ("web4", "10.100.0.1:80", "10.100.0.1"),
        ("web6", "[fd00:100::1]:80", "fd00:100::1"),
    ];

    /// What the client is called at the backend, over IPv4 and IPv6.
    const CLIENT: [&str; 2] = ["10.1.0.2", "fd00:1::2"];

    /// And where its source is replaced: the balancer's own addresses there.
    const SOURCES: [&str; 2] = ["10.2.0.1", "fd00:2::1"];

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn nat_between_unlike_routes_works_by_icmp_alone() {
        let playground = unlike_routes();
        let told = [Some(NARROW[0].1), Some(NARROW[2].1)];
        carries_both_ways(&playground, &nat("mss-clamp = false"), CLIENT, told);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn full_nat_between_unlike_routes_works_by_icmp_alone() {
        let playground = unlike_routes();
        let told = [Some(NARROW[0].1), Some(NARROW[2].1)];
        carries_both_ways(&playground, &full_nat("mss-clamp = false"), SOURCES, told);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn full_nat_between_unlike_routes_with_a_clamp_needs_no_icmp() {
        let playground = unlike_routes();
        carries_both_ways(
            &playground,
            &full_nat("mss-clamp = true"),
            SOURCES,
            [None, None],
        );
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn nat_between_unlike_routes_with_a_clamp_needs_no_icmp() {
        let playground = unlike_routes();
        carries_both_ways(&playground, &nat("mss-clamp = true"), CLIENT, [None, None]);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_clamp_to_a_number_holds_both_ways() {
        let playground = unlike_routes();
        carries_both_ways(&playground, &nat("mss-clamp = 1300"), CLIENT, [None, None]);
    }

    fn unlike_routes() -> Playground {
        let playground = Playground::plan().backends(1).up();
        for (route, mtu) in NARROW {
            playground.change("lb", &format!("route add {route} mtu {mtu}"));
        }
        playground
    }

    fn nat(clamp: &str) -> Configuration {
        services(clamp)
            .into_iter()
            .fold(Configuration::native(), Configuration::service)
    }

    fn full_nat(clamp: &str) -> Configuration {
        let configuration = Configuration::native().sources(&SOURCES);
        services(clamp)
            .map(Service::full_nat)
            .into_iter()
            .fold(configuration, Configuration::service)
    }

    fn services(clamp: &str) -> [Service; 2] {
        TRANSLATED.map(|(name, listen, _)| {
            Service::tcp(name, listen)
                .checked()
                .with(clamp)
                .backends([1], 8080)
        })
    }

    /// `clients`: what the client is called at the backend. `told`: the path MTU that the client, and the
    /// backend, learns.
    fn carries_both_ways(
        playground: &Playground,
        configuration: &Configuration,
        clients: [&str; 2],
        told: [Option<u64>; 2],
    ) {
        let file = Payload::megabytes(20, 2);
        let nginx = Nginx::start(playground, 1, &file, "1m");
        let balancer = Balancer::start(RINGGATE, playground, configuration);
        for ((name, address, host), client) in TRANSLATED.into_iter().zip(clients) {
            // First what goes by the wider way: a client that has learned of the narrower one asks for
            // segments that fit it.
            let received = Download::start(playground, &format!("http://{address}/file")).finish();
            assert_eq!(
                received.as_ref(),
                Ok(&file.sha256),
                "{name}: {}",
                balancer.status()
            );
            carries_an_upload(playground, &nginx, name, address, &file);
            let heard = [
                learned(playground, "client", host),
                learned(playground, "b1", client),
            ];
            assert_eq!(heard, told, "{name}");
        }
        assert_eq!(playground.checksum_errors(), 0);
    }

    fn carries_an_upload(
        playground: &Playground,
        nginx: &Nginx,
        name: &str,
        address: &str,
        file: &Payload,
    ) {
        let url = format!("http://{address}/upload/{name}");
        assert_eq!(
            upload(playground, &url, file),
            Ok("b1".to_owned()),
            "{name}"
        );
        assert_eq!(nginx.uploaded(name), file.sha256, "{name}");
    }

    /// The path MTU that a node was told for the way to an address, if it was.
    fn learned(playground: &Playground, node: &str, address: &str) -> Option<u64> {
        let text = playground.run_on(node, "ip", &["-j", "route", "get", address]);
        let routes: Value = serde_json::from_str(&text).unwrap();
        routes[0]["metrics"][0]["mtu"].as_u64()
    }

    fn forget(playground: &Playground, node: &str) {
        playground.change(node, "-4 route flush cache");
        playground.change(node, "-6 route flush cache");
    }
}
