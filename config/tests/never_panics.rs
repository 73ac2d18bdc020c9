//! Nothing a file can hold panics, and what is accepted holds what the model promises:
//! arbitrary text, TOML-like text, and mutations of every example and reject.

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::net::IpAddr;
    use std::path::Path;

    use proptest::prelude::*;
    use ringgate_config::{
        Backend, Check, Choose, Dscp, Forward, Fragments, Health, Listen, Model, MssClamp,
        Protocol, Service, Vlan,
    };
    use ringgate_config::{limits, parse};

    /// Every `.toml` beside the sources.
    fn corpus() -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folders = ["examples", "tests/rejects", "tests/warnings"];
        let entries = folders
            .iter()
            .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "toml"));
        paths.sort();
        paths
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect()
    }

    /// Parses, prints whatever comes, and checks the promises of an accepted model.
    fn exercise(text: &str) -> bool {
        match parse("test.toml", text) {
            Ok(parsed) => {
                check(&parsed.model);
                parsed
                    .warnings
                    .iter()
                    .for_each(|warning| assert!(!warning.to_string().is_empty()));
                true
            }
            Err(problems) => {
                assert!(!problems.list().is_empty());
                assert!(problems.list().len() <= limits::PROBLEMS_MAX);
                for problem in problems.list() {
                    assert!(
                        !problem.to_string().contains(char::is_control),
                        "{problem:?}"
                    );
                }
                false
            }
        }
    }

    /// The promises at the head of `model.rs`.
    fn check(model: &Model) {
        if let (Some(workers), Some(cores)) = (model.balancer().workers(), model.balancer().cores())
        {
            assert_eq!(usize::from(workers.get()), cores.len());
        }
        let interfaces: HashSet<_> = model.interfaces().iter().map(|i| i.name()).collect();
        assert!(!interfaces.is_empty() && interfaces.len() == model.interfaces().len());
        let names: HashSet<_> = model.services().iter().map(|s| s.name()).collect();
        assert_eq!(names.len(), model.services().len());
        check_listens(model);
        for service in model.services() {
            assert!(limits::is_prime(service.table_size()));
            assert!(service.table_size() as usize >= service.backends().len());
            assert!(
                service
                    .health()
                    .is_none_or(|health| health.timeout() <= health.interval())
            );
            check_words(service);
            let backends = service.backends();
            let needs_none = |check: &Check| matches!(check, Check::Icmp | Check::Script(_));
            let named = |h: &Health| h.port().is_some() || needs_none(h.check());
            let named = service.health().is_none_or(named);
            assert!(named || backends.iter().all(|b| b.address().port() != 0));
            let addresses: HashSet<_> = backends.iter().map(|b| b.address()).collect();
            assert_eq!(addresses.len(), backends.len());
            let ids: HashSet<_> = backends.iter().map(|b| b.server_id()).collect();
            assert!(ids.len() == backends.len() || service.quic().is_none());
            for backend in backends {
                check_backend(model, service, backend);
            }
        }
        check_repliers(model);
    }

    fn meet(one: &Listen, other: &Listen) -> bool {
        one.first() <= other.last() && other.first() <= one.last()
    }

    fn check_listens(model: &Model) {
        let services = model.services();
        for (n, service) in services.iter().enumerate() {
            let listen = service.listen();
            assert_eq!(listen.prefix(), listen.prefix().trunc());
            assert!(listen.first() <= listen.last());
            assert!(listen.first() > 0 || listen.any_port());
            let protocol = service.protocol();
            let alike = |other: &&Service| other.protocol() == protocol;
            for other in services[..n].iter().filter(alike) {
                let other = other.listen();
                assert!(other.prefix() != listen.prefix() || !meet(other, listen));
            }
            let covering = |other: &&Service| other.listen().prefix().contains(&listen.prefix());
            let ranges = services.iter().filter(alike).filter(covering);
            let ranges = ranges.filter(|other| other.listen().exact().is_none());
            assert!(ranges.count() <= limits::PORT_RANGES_MAX);
            let address = listen.prefix().addr();
            assert!(!address.is_loopback() && !address.is_multicast());
            assert!(!address.is_unspecified());
        }
    }

    fn check_words(service: &Service) {
        let ids = |vlan: Vlan| [Some(vlan.outer), vlan.inner].into_iter().flatten();
        let vlans = service.vlan().into_iter().flat_map(ids);
        vlans.for_each(|id| assert!(limits::VLAN_IDS.contains(&id)));
        let udp = service.protocol() == Protocol::Udp;
        assert!(udp || !service.stateless());
        assert!(service.stateless() || service.quic().is_none());
        assert!(!(service.stateless() && service.choose().has_state()));
        if let MssClamp::To(bytes) = service.mss_clamp() {
            assert!(limits::MSS_CLAMP.contains(&bytes));
        }
        assert!(!udp || service.mss_clamp() == MssClamp::Off);
        let by_address = service.fragments() == Fragments::ByAddress;
        assert!(!by_address || service.choose() == Choose::SourceHash);
        if let Some(quic) = service.quic() {
            assert!(quic.config_id <= 6 && (1..=15).contains(&quic.server_id_bytes));
        }
    }

    fn check_backend(model: &Model, service: &Service, backend: &Backend) {
        let (address, listen) = (backend.address(), service.listen());
        let held = |service: &Service| service.listen().prefix().contains(&address.ip());
        assert!(!model.services().iter().any(held));
        let sources = model.balancer().nat_sources();
        assert!(!sources.contains(&address.ip()));
        let mode = backend.forward();
        assert!(!mode.keeps_family() || address.is_ipv4() == listen.is_ipv4());
        assert!(mode.rewrites_port() || address.port() == listen.port().unwrap_or(0));
        let keeps = listen.port().is_none();
        assert!(keeps == (address.port() == 0) || keeps && mode == Forward::FullNat);
        let of_family = |source: &IpAddr| source.is_ipv4() == address.is_ipv4();
        match mode {
            Forward::Nat => assert!(listen.address().is_some()),
            Forward::FullNat => {
                assert!(sources.iter().any(of_family) && !service.stateless());
            }
            _ => {}
        }
        assert_eq!(backend.tunnel().is_some(), mode.is_tunnel());
        if let Some(tunnel) = backend.tunnel() {
            let gue = mode == Forward::Gue;
            assert_eq!(tunnel.port != 0, gue);
            assert!(gue || !tunnel.checksum && tunnel.variant == 0);
            assert!(tunnel.variant <= 1);
            assert!(mode == Forward::Gre || tunnel.key.is_none());
            assert!(!matches!(tunnel.dscp, Dscp::Set(64..)));
            if let Some(source) = tunnel.source {
                assert_eq!(source, source.trunc());
                assert!(of_family(&source.addr()) && !source.contains(&address.ip()));
            }
        }
        let bytes = service.quic().map(|quic| usize::from(quic.server_id_bytes));
        assert_eq!(backend.server_id().map(<[u8]>::len), bytes);
    }

    /// No other service has a backend that a stateless one's replies could come from.
    fn check_repliers(model: &Model) {
        let nat = |service: &'_ Service, backend: &Backend| {
            let (address, range) = (backend.address(), *service.listen());
            let range = match address.port() {
                0 => Listen::new(address.ip().into(), range.ports()),
                _ => Listen::from(address),
            };
            (backend.forward() == Forward::Nat).then_some(range)
        };
        for (n, one) in model.services().iter().enumerate() {
            for other in &model.services()[..n] {
                let alike = one.protocol() == other.protocol();
                if !alike || !(one.stateless() || other.stateless()) {
                    continue;
                }
                for one in one.backends().iter().filter_map(|b| nat(one, b)) {
                    for other in other.backends().iter().filter_map(|b| nat(other, b)) {
                        assert!(one.prefix() != other.prefix() || !meet(&one, &other));
                    }
                }
            }
        }
    }

    /// Pieces that make text look like a configuration.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "=",
            ",",
            ".",
            "\"",
            "'",
            "\"\"\"",
            "\n",
            "\r\n",
            " ",
            "#",
            "\\",
            "0",
            "1",
            "-1",
            "0x",
            "1e9",
            "true",
            "inf",
            "nan",
            "1979-05-27",
            "\u{feff}",
            "é",
            "\u{0}",
            "balancer",
            "interface",
            "service",
            "backend",
            "health",
            "name",
            "listen",
            "address",
            "weight",
            "\"10.0.0.1:80\"",
            "\"[::1%1]:80\"",
            "\"5s\"",
            "table-size",
            "tunnel",
            "source",
            "server-id",
            "quic",
            "stateless",
            "mss-clamp",
            "vlan",
            "fragments",
            "nat-sources",
            "\"10.0.0.0/8:0\"",
            "\"10.0.0.1:1-9\"",
            "\"[2001:db8::/32]:80\"",
            "\"10.9.0.0/24\"",
            "\"0a1b\"",
            "\"full-nat\"",
            "\"gue\"",
            "\"gre\"",
            "\"udp\"",
            "\"by-address\"",
            "\"source-hash\"",
            "65535",
        ])
    }

    /// A line, with the given probability.
    fn line(
        probability: f64,
        key: &'static str,
        values: &[&'static str],
    ) -> impl Strategy<Value = String> + use<> {
        let values = prop::sample::select(values.to_vec());
        prop::option::weighted(probability, values).prop_map(move |value| match value {
            Some(value) => format!("{key} = {value}\n"),
            None => String::new(),
        })
    }

    /// A line with one of the modes, twice as often the first three.
    fn forward() -> impl Strategy<Value = &'static str> {
        let modes = ["nat", "dsr-l2", "full-nat"];
        prop::sample::select([&modes[..], &modes, &["ipip", "gue", "gre"]].concat())
    }

    fn tunnel(probability: f64) -> impl Strategy<Value = String> {
        let sources = [
            r#"{ source = "10.9.0.0/24" }"#,
            r#"{ source = "fd00::9" }"#,
            r#"{ source = "10.2.0.0/30" }"#,
            "{ key = 7 }",
            "{ variant = 0, port = 7, checksum = false }",
            "{ dscp = 46 }",
        ];
        line(probability, "tunnel", &sources)
    }

    fn a_backend() -> impl Strategy<Value = String> {
        let addresses = [
            "10.2.0.1",
            "10.2.0.2",
            "10.2.0.3:53",
            "10.2.0.4:60",
            "fd00::1",
            "[fd00::2]:53",
        ];
        let address = prop::sample::select(addresses.to_vec());
        let forward = prop::option::weighted(0.2, forward());
        let ids = [r#""0a1b""#, r#""0a1c""#];
        (
            address,
            forward,
            tunnel(0.15),
            line(0.15, "server-id", &ids),
        )
            .prop_map(|(address, forward, tunnel, id)| {
                let forward = forward.map(|mode| format!("forward = \"{mode}\"\n"));
                let forward = forward.unwrap_or_default();
                format!("[[service.backend]]\naddress = \"{address}\"\n{forward}{tunnel}{id}")
            })
    }

    /// A service of values that are right by themselves, but may not fit each other.
    fn a_service() -> impl Strategy<Value = String> {
        let listens = [
            "10.100.0.1:53",
            "10.100.0.1:50-60",
            "10.100.0.2:0",
            "10.100.0.0/24:53",
            "10.100.0.0/16:61-65535",
            "[2001:db8::1]:53",
            "[2001:db8::/64]:0",
        ];
        let head = (
            prop::sample::select(listens.to_vec()),
            prop::sample::select(vec!["tcp", "udp", "udp"]),
            forward(),
        );
        let lines = (
            line(
                0.15,
                "health",
                &[r#"{ kind = "tcp" }"#, r#"{ kind = "tcp", port = 1 }"#],
            ),
            line(0.15, "choose", &[r#""source-hash""#, r#""round-robin""#]),
            line(0.15, "vlan", &["100", "[200, 100]"]),
            line(0.15, "mss-clamp", &["true", "1400"]),
            line(0.15, "fragments", &[r#""by-address""#, r#""drop""#]),
            line(0.15, "stateless", &["true", "false"]),
            line(0.15, "quic", &["{ config-id = 0, server-id-bytes = 2 }"]),
        );
        // Most are left out, or next to nothing would fit.
        let lines = (lines, tunnel(0.15));
        let lines = lines.prop_map(|((h, a, b, c, d, e, f), g)| [h, a, b, c, d, e, f, g].concat());
        let backends = prop::collection::vec(a_backend(), 0..3);
        (head, lines, backends).prop_map(|(head, lines, backends)| {
            let (listen, protocol, forward) = head;
            let backends = backends.concat();
            format!(
                "listen = \"{listen}\"\nprotocol = \"{protocol}\"\nforward = \"{forward}\"\n{lines}{backends}"
            )
        })
    }

    #[test]
    fn every_prefix_of_the_corpus_is_survived() {
        let examples = corpus();
        for text in examples.iter().filter(|text| text.len() < 8_192) {
            // Of long ones every other, every third and so on: the work is quadratic.
            let ends = (0..=text.len()).step_by(text.len() / 256 + 1);
            for end in ends.filter(|&end| text.is_char_boundary(end)) {
                exercise(&text[..end]);
            }
        }
    }

    #[test]
    fn deep_nesting_is_survived() {
        for (open, count) in [("[", 100_000), ("{a=", 100_000), ("a.", 10_000)] {
            assert!(!exercise(&open.repeat(count)));
            assert!(!exercise(&format!("x = {}", open.repeat(count))));
        }
    }

    #[test]
    fn a_text_beyond_the_bound_is_refused_unread() {
        let text = "#".repeat(limits::FILE_BYTES_MAX + 1);
        let problems = parse("big", &text).unwrap_err();
        assert_eq!(problems.list().len(), 1);
        assert!(problems.list()[0].found.ends_with("bytes"));
    }

    #[test]
    fn more_problems_than_anyone_reads_are_counted() {
        let text = "[[interface]]\nmode = 5\n".repeat(limits::PROBLEMS_MAX);
        let problems = parse("many", &text).unwrap_err();
        assert_eq!(problems.list().len(), limits::PROBLEMS_MAX);
        // A wrong type and a missing name each, and one for the number of interfaces.
        assert_eq!(problems.omitted(), limits::PROBLEMS_MAX + 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            exercise(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn toml_like_text_is_survived(pieces in prop::collection::vec(piece(), 0..64)) {
            exercise(&pieces.concat());
        }

        #[test]
        fn mutations_of_the_corpus_are_survived(
            file in any::<prop::sample::Index>(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0..24_usize, piece()), 1..6),
        ) {
            let corpus = corpus();
            let mut chars: Vec<char> = file.get(&corpus).chars().collect();
            for (at, cut, piece) in edits {
                let start = at.index(chars.len() + 1);
                let end = (start + cut).min(chars.len());
                chars.splice(start..end, piece.chars());
            }
            exercise(&chars.into_iter().collect::<String>());
        }

        #[test]
        fn lines_of_the_corpus_put_together_are_survived(
            picks in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 1..40),
        ) {
            let corpus = corpus();
            let lines = picks.iter().filter_map(|(file, line)| {
                let lines: Vec<&str> = file.get(&corpus).lines().collect();
                (!lines.is_empty()).then(|| *line.get(&lines))
            });
            exercise(&lines.collect::<Vec<_>>().join("\n"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn services_of_every_mode_are_refused_or_hold_what_is_promised(
            services in prop::collection::vec(a_service(), 1..4),
            sources in prop::sample::select(vec!["", r#""10.2.0.9""#, r#""10.2.0.9", "fd00::9""#]),
        ) {
            let mut text = format!("balancer.nat-sources = [{sources}]\n");
            text.push_str("[[interface]]\nname = \"eth0\"\n");
            for (n, service) in services.iter().enumerate() {
                text.push_str(&format!("[[service]]\nname = \"s{n}\"\n{service}"));
            }
            exercise(&text);
        }
    }
}
