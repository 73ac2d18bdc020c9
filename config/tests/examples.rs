//! Every example parses, without a warning, and says what its comments say.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use ringgate_config::{
        FlowMemory, Forward, HealthKind, Mode, Model, PartialChecksums, Protocol, WhenEmpty,
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
        assert!(names.len() >= 4, "{names:?}");
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
        let interface = &model.interfaces()[0];
        assert_eq!(interface.mode(), Mode::Auto);
        assert_eq!(interface.partial_checksums(), PartialChecksums::Auto);
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
        let backend = &service.backends()[1];
        assert_eq!(backend.address(), "10.2.0.12:8080".parse().unwrap());
        assert_eq!(
            (backend.weight(), backend.disabled()),
            (limits::WEIGHT_DEFAULT, false)
        );
    }

    #[test]
    fn the_full_example_repeats_the_defaults_where_it_says_so() {
        let (full, minimal) = (example("full.toml"), example("minimal.toml"));
        assert_eq!(full.balancer().flows(), minimal.balancer().flows());
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
        assert_eq!(full.interfaces()[0].mode(), full.interfaces()[1].mode());
        let (web, plain) = (&full.services()[0], &minimal.services()[0]);
        assert_eq!(web.when_empty(), plain.when_empty());
        assert_eq!(web.slow_start(), Duration::from_secs(30));
        assert_eq!(web.table_size(), plain.table_size());
        assert_eq!(web.backends()[0].weight(), plain.backends()[0].weight());
        // `health = { … }` with every default equals the table that gives only its kind.
        let (inline, table) = (web.health().unwrap(), full.services()[1].health().unwrap());
        assert_eq!(
            (inline.kind(), table.kind()),
            (HealthKind::Tcp, HealthKind::Tcp)
        );
        assert_eq!(
            (inline.interval(), inline.timeout()),
            (table.interval(), table.timeout())
        );
        assert_eq!((inline.rise(), inline.fall()), (table.rise(), table.fall()));
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
        assert_eq!(health.timeout(), Duration::from_millis(100));
    }
}
