//! Every example parses, without a warning, and says what its comments say.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use ringgate_config::{
        Check, Choose, DnsAnswer, DnsCheck, Dscp, FileUse, FlowMemory, Forward, Fragments, Health,
        HttpMethod, LogFormat, LogLevel, Mode, Model, MssClamp, PartialChecksums, Ping, Protocol,
        Quic, RecordType, ResponseCode, Silence, Tunnel, Verify, Vlan, VlanTags, WhenEmpty,
    };
    use ringgate_config::{limits, parse};

    fn example(name: &str) -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples")
            .join(name);
        let parsed = parse(name, &fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(parsed.warnings, []);
        parsed.model
    }

    #[test]
    fn every_example_parses_without_a_warning() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(names.len() >= 8, "{names:?}");
        for name in names {
            example(name.to_str().unwrap());
        }
    }

    #[test]
    fn the_minimal_example_gets_every_default() {
        let model = example("minimal.toml");
        let balancer = model.balancer();
        assert_eq!((balancer.workers(), balancer.cores()), (None, None));
        assert_eq!(balancer.flows(), limits::FLOWS_DEFAULT);
        assert_eq!(balancer.flow_memory(), FlowMemory::Map);
        assert_eq!(balancer.udp_new_flows(), 262_144);
        assert_eq!(
            (balancer.busy_poll(), balancer.drain()),
            (false, limits::DRAIN_DEFAULT)
        );
        assert_eq!(balancer.admin().to_str(), Some(limits::ADMIN_DEFAULT));
        assert!(balancer.nat_sources().is_empty());
        assert_eq!(balancer.nat_source_ports(), 1024..=32_767);
        assert_eq!(balancer.icmp_per_second(), 1_000);
        assert_eq!(balancer.ping(), Ping::Answer);
        assert_eq!(balancer.fragments(), 8_192);
        let (log, process) = (model.log(), model.process());
        assert_eq!(
            (log.format(), log.level(), log.flows()),
            (LogFormat::Text, LogLevel::Info, None)
        );
        assert_eq!((process.user(), process.group()), (None, None));
        assert!(!process.seccomp());
        let metrics = model.metrics();
        assert_eq!((metrics.listen(), metrics.backends()), (None, true));
        assert_eq!(metrics.residence_sample(), limits::RESIDENCE_SAMPLE_DEFAULT);
        let interface = &model.interfaces()[0];
        assert_eq!(interface.mode(), Mode::Auto);
        assert_eq!(interface.partial_checksums(), PartialChecksums::Auto);
        assert_eq!(interface.vlan_tags(), VlanTags::Route);
        let service = &model.services()[0];
        assert_eq!((service.name(), service.protocol()), ("web", Protocol::Tcp));
        assert_eq!(
            (service.forward(), service.when_empty()),
            (Forward::Nat, WhenEmpty::Drop)
        );
        assert_eq!(
            (service.table_size(), service.health()),
            (limits::TABLE_SIZE_DEFAULT, None)
        );
        assert_eq!(service.slow_start(), Duration::ZERO);
        assert_eq!(service.vlan(), None);
        assert_eq!(service.mss_clamp(), MssClamp::Off);
        assert_eq!(service.fragments(), Fragments::Track);
        assert_eq!((service.stateless(), service.quic()), (false, None));
        let backend = &service.backends()[1];
        assert_eq!(backend.address(), "10.2.0.12:8080".parse().unwrap());
        assert_eq!(
            (backend.weight(), backend.disabled()),
            (limits::WEIGHT_DEFAULT, false)
        );
        assert_eq!(backend.forward(), Forward::Nat);
        assert_eq!((backend.tunnel(), backend.server_id()), (None, None));
    }

    #[test]
    fn the_full_example_repeats_the_defaults_where_it_says_so() {
        let (full, minimal) = (example("full.toml"), example("minimal.toml"));
        assert_eq!(full.balancer().flows(), minimal.balancer().flows());
        let metrics = full.metrics();
        assert_eq!(metrics.listen(), "127.0.0.1:9187".parse().ok());
        assert_eq!(
            (metrics.residence_sample(), metrics.backends()),
            (64, minimal.metrics().backends())
        );
        assert_eq!(
            full.balancer().flow_memory(),
            minimal.balancer().flow_memory()
        );
        assert_eq!(
            full.balancer().udp_new_flows(),
            minimal.balancer().udp_new_flows()
        );
        assert_eq!(full.balancer().busy_poll(), minimal.balancer().busy_poll());
        assert_eq!(full.balancer().drain(), minimal.balancer().drain());
        assert_eq!(full.balancer().admin(), minimal.balancer().admin());
        let of_full_nat = |model: &Model| model.balancer().nat_source_ports();
        assert_eq!(of_full_nat(&full), of_full_nat(&minimal));
        let icmp = |model: &Model| (model.balancer().icmp_per_second(), model.balancer().ping());
        assert_eq!(icmp(&full), icmp(&minimal));
        assert_eq!(full.balancer().fragments(), minimal.balancer().fragments());
        assert_eq!(full.log(), minimal.log());
        let (process, plain) = (full.process(), minimal.process());
        assert_eq!(process.seccomp(), plain.seccomp());
        assert_eq!(
            (process.user(), process.group()),
            (Some("ringgate"), Some("ringgate"))
        );
        let tags = |interface: usize| full.interfaces()[interface].vlan_tags();
        assert_eq!(tags(0), tags(1));
        assert_eq!(full.interfaces()[0].mode(), full.interfaces()[1].mode());
        let (web, plain) = (&full.services()[0], &minimal.services()[0]);
        assert_eq!(web.when_empty(), plain.when_empty());
        assert_eq!(web.choose(), plain.choose());
        assert_eq!(web.mss_clamp(), plain.mss_clamp());
        assert_eq!(web.fragments(), plain.fragments());
        assert_eq!(web.slow_start(), Duration::from_secs(30));
        assert_eq!(web.table_size(), plain.table_size());
        assert_eq!(web.backends()[0].weight(), plain.backends()[0].weight());
        // `health = { … }` with every default equals the table that gives only its kind.
        let (inline, table) = (web.health().unwrap(), full.services()[1].health().unwrap());
        assert_eq!(
            (
                inline.check().map(|check| &**check),
                table.check().map(|check| &**check)
            ),
            (Some(&Check::Tcp), Some(&Check::Tcp))
        );
        assert_eq!(
            (inline.pace().interval, inline.pace().timeout),
            (table.pace().interval, table.pace().timeout)
        );
        let rows = |health: &Health| (health.pace().rise, health.pace().fall);
        assert_eq!(rows(inline), rows(table));
        assert_eq!((inline.port(), table.port()), (None, Some(8081)));
    }

    #[test]
    fn a_port_left_out_is_the_services_in_both_families_and_modes() {
        let ipv6 = example("ipv6.toml");
        let addresses = |service: usize| {
            let backends = ipv6.services()[service].backends();
            backends
                .iter()
                .map(|backend| backend.address().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(addresses(0), ["10.2.0.11:443", "10.2.0.12:443"]);
        assert_eq!(
            addresses(1),
            ["[2001:db8:2::11]:8443", "[2001:db8:2::12]:443"]
        );
        let dsr = example("dsr.toml");
        assert_eq!(dsr.services()[0].forward(), Forward::DsrL2);
        assert_eq!(
            dsr.services()[0].backends()[0].address(),
            "10.2.0.11:53".parse().unwrap()
        );
    }

    #[test]
    fn a_backends_tunnel_goes_before_its_services_key_by_key() {
        let full = example("full.toml");
        let quic = &full.services()[3];
        assert!(quic.stateless(), "quic implies it");
        let expected = Quic {
            config_id: 0,
            server_id_bytes: 2,
        };
        assert_eq!(quic.quic(), Some(expected));
        let gue = Tunnel {
            variant: 1,
            port: 6_080,
            key: None,
            source: "10.9.0.0/24".parse().ok(),
            dscp: Dscp::Copy,
            checksum: false,
        };
        let gre = Tunnel {
            variant: 0,
            port: 0,
            key: Some(7),
            ..gue
        };
        let [first, second] = quic.backends() else {
            panic!("{:?}", quic.backends());
        };
        assert_eq!(
            (first.forward(), first.tunnel()),
            (Forward::Gue, Some(&gue))
        );
        assert_eq!(
            (second.forward(), second.tunnel()),
            (Forward::Gre, Some(&gre))
        );
        let ids = [first.server_id(), second.server_id()];
        assert_eq!(ids, [Some([0x0a, 0x1b].as_slice()), Some(&[0x0a, 0x1c])]);
    }

    #[test]
    fn tunnels_get_the_defaults_of_their_mode_and_family() {
        let model = example("tunnels.toml");
        let [ipip, gue, gre] = model.services() else {
            panic!("{:?}", model.services());
        };
        assert_eq!(ipip.mss_clamp(), MssClamp::Path);
        let plain = Tunnel {
            variant: 0,
            port: 0,
            key: None,
            source: None,
            dscp: Dscp::Copy,
            checksum: false,
        };
        for backend in ipip.backends() {
            assert_eq!(backend.tunnel(), Some(&plain), "either family");
            assert_eq!(backend.address().port(), 80);
        }
        assert_eq!(gue.mss_clamp(), MssClamp::To(1_380));
        let over_ipv6 = Tunnel {
            port: 6_080,
            source: "2001:db8:9::/64".parse().ok(),
            checksum: true,
            ..plain
        };
        let [first, second, direct] = gue.backends() else {
            panic!("{:?}", gue.backends());
        };
        assert_eq!(first.tunnel(), Some(&over_ipv6));
        let other = Tunnel {
            port: 6_081,
            dscp: Dscp::Set(46),
            ..over_ipv6
        };
        assert_eq!(second.tunnel(), Some(&other));
        assert_eq!((direct.forward(), direct.tunnel()), (Forward::DsrL2, None));
        let key = gre.backends()[0].tunnel().and_then(|tunnel| tunnel.key);
        assert_eq!(key, Some(7));
    }

    #[test]
    fn where_the_packet_keeps_its_port_a_backend_has_none() {
        let model = example("ranges.toml");
        assert_eq!(model.interfaces()[0].vlan_tags(), VlanTags::Keep);
        let services: Vec<_> = model
            .services()
            .iter()
            .map(|service| {
                let port = service.backends()[0].address().port();
                (service.listen().to_string(), port)
            })
            .collect();
        let expected = [
            ("10.100.0.0/24:0", 0),
            ("10.100.0.21:50000-50999", 0),
            ("10.100.0.80:80", 8080),
            ("[2001:db8:100::/64]:443", 443),
        ];
        assert_eq!(
            services,
            expected.map(|(text, port)| (text.to_owned(), port))
        );
        let vlan = Vlan {
            outer: 200,
            inner: Some(100),
        };
        let vlans: Vec<_> = model.services().iter().map(|s| s.vlan()).collect();
        assert_eq!(vlans, [None, None, None, Some(vlan)]);
    }

    #[test]
    fn sources_and_datagrams_are_as_their_examples_say() {
        let model = example("full-nat.toml");
        let sources = model.balancer().nat_sources();
        let families: Vec<bool> = sources.iter().map(|source| source.is_ipv4()).collect();
        assert_eq!(families, [true, true, false]);
        assert_eq!(
            model.services()[1].backends()[0].forward(),
            Forward::FullNat
        );

        let model = example("datagrams.toml");
        assert_eq!(model.balancer().fragments(), 65_536);
        let [dns, voip, quic] = model.services() else {
            panic!("{:?}", model.services());
        };
        assert!(dns.stateless() && voip.stateless() && quic.stateless());
        assert_eq!(
            (voip.choose(), voip.fragments()),
            (Choose::SourceHash, Fragments::ByAddress)
        );
        assert_eq!((dns.quic(), dns.fragments()), (None, Fragments::Track));
        assert_eq!(
            quic.backends()[1].server_id(),
            Some([0xc0, 0xff, 0xee, 0x02].as_slice())
        );
    }

    #[test]
    fn every_kind_of_check_is_as_its_example_says() {
        let parsed = parse("checks.toml", include_str!("../examples/checks.toml")).unwrap();
        let services = parsed.model.services().iter();
        let checks: Vec<&Check> = services
            .map(|service| &**service.health().unwrap().check().unwrap())
            .collect();
        let kinds: Vec<_> = checks.iter().map(|check| check.kind().as_str()).collect();
        let expected = [
            "http", "https", "dns", "udp", "udp", "icmp", "grpc", "script",
        ];
        assert_eq!(kinds, expected);
        let Check::Http(http) = checks[0] else {
            panic!("{:?}", checks[0]);
        };
        assert_eq!((http.method, &*http.path), (HttpMethod::Get, "/healthz"));
        assert_eq!(http.status.to_string(), "200-299,304");
        assert_eq!(http.body.as_deref(), Some(&b"all is well"[..]));
        assert_eq!(http.body_within, limits::BODY_WITHIN_DEFAULT);
        let Check::Https(http, tls) = checks[1] else {
            panic!("{:?}", checks[1]);
        };
        assert_eq!((http.host.as_deref(), http.body.as_deref()), (None, None));
        assert_eq!(http.status.to_string(), "200-399");
        assert_eq!(tls.verify, Verify::System);
        assert_eq!(
            tls.client.as_ref().unwrap().key,
            Path::new("/etc/ringgate/own.key")
        );
        let address = DnsAnswer::Address("192.0.2.1".parse().unwrap());
        let dns = DnsCheck {
            name: "example.com".to_owned(),
            record: RecordType::A,
            rcode: ResponseCode::NoError,
            expect: Some(address),
        };
        assert_eq!(checks[2], &Check::Dns(dns));
        let Check::Udp(game) = checks[4] else {
            panic!("{:?}", checks[4]);
        };
        assert_eq!(&*game.send, b"\xff\xff\xff\xffTSource Engine Query\0");
        assert_eq!(game.silence, Silence::Fails);
        let Check::Grpc(grpc, Some(tls)) = checks[6] else {
            panic!("{:?}", checks[6]);
        };
        assert_eq!(&*grpc.service, "shop.Orders");
        assert_eq!(
            tls.verify,
            Verify::File("/etc/ringgate/authority.pem".into())
        );
        // Each file is mentioned where it is named, and the system's authorities where they are needed.
        let mentions: Vec<_> = parsed
            .mentions
            .iter()
            .map(|mention| (mention.place.key.as_str(), mention.used_as))
            .collect();
        let expected = [
            (
                "service \"secret-pages\".health.verify",
                FileUse::SystemAuthorities,
            ),
            (
                "service \"secret-pages\".health.certificate",
                FileUse::Certificate,
            ),
            (
                "service \"secret-pages\".health.certificate-key",
                FileUse::Key,
            ),
            ("service \"calls\".health.verify", FileUse::Authorities),
            ("service \"base\".health.command", FileUse::Program),
        ];
        assert_eq!(mentions, expected);
    }

    #[test]
    fn cores_alone_set_the_workers_and_a_short_interval_its_timeout() {
        let text = r#"
            balancer.cores = [4, 5, 6]
            interface = [{ name = "eth0" }]
            [[service]]
            name = "a"
            listen = "10.0.0.1:80"
            protocol = "tcp"
            forward = "nat"
            health = { kind = "tcp", interval = "100ms" }
            backend = [{ address = "10.0.0.2" }]
        "#;
        let model = parse("test.toml", text).unwrap().model;
        assert_eq!(model.balancer().workers().unwrap().get(), 3);
        let health = model.services()[0].health().unwrap();
        assert_eq!(health.pace().timeout, Duration::from_millis(100));
    }
}
