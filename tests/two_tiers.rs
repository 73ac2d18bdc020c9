//! Promise: the second tier can be restarted, proxy by proxy, without one failed request: what is drained
//! gets nothing new, and a preview tells when nobody is left.
//!
//! Clients, Ringgate, two proxies each of HAProxy (TCP and HTTP mode) and nginx (stream), nginx as web
//! servers behind them.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use ringgate_playground::{
        Backend, Balancer, Configuration, Crowd, Nginx, Payload, Playground, Proxy, ProxyKind,
        Service, until,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// The proxies are on the first two backends, the web servers on the others.
    const PROXIES: [u8; 2] = [1, 2];
    const WEB: [u8; 2] = [3, 4];

    const TIERS: [(&str, u16); 3] = [
        ("tcp", Proxy::TCP),
        ("http", Proxy::HTTP),
        ("stream", Proxy::STREAM),
    ];

    /// How a proxy is to be used.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Use {
        Full,
        Drained,
        Out,
    }

    /// Half-open connections are remembered, so that no change of weights moves one.
    fn configuration(uses: [Use; 2]) -> Configuration {
        let mut configuration = Configuration::native();
        for (name, port) in TIERS {
            let listen = format!("10.100.0.1:{port}");
            let mut service = Service::tcp(name, &listen)
                .checked()
                .choosing("least-connections");
            for (number, how) in PROXIES.into_iter().zip(uses) {
                let backend = Backend::at(format!("10.2.0.{}:{port}", 10 + number));
                service = service.backend(match how {
                    Use::Full => backend,
                    Use::Drained => backend.weight(0),
                    Use::Out => backend.with("disabled = true"),
                });
            }
            configuration = configuration.service(service);
        }
        configuration
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn the_second_tier_restarts_without_one_failed_request() {
        let playground = Playground::plan().backends(4).up();
        let payload = Payload::megabytes(1, 22);
        let web = |number| Nginx::start(&playground, number, &payload, "4m");
        let _web = WEB.map(web);
        let proxy = |kind| PROXIES.map(|number| Proxy::start(&playground, kind, number, &WEB));
        let [mut haproxies, mut streams] = [ProxyKind::HaProxy, ProxyKind::Stream].map(proxy);
        let balancer = Balancer::start(RINGGATE, &playground, &configuration([Use::Full; 2]));
        let crowds = TIERS.map(|(_, port)| {
            Crowd::start(&playground, format!("10.100.0.1:{port}").parse().unwrap())
        });
        let everybody_comes_through = || crowds.iter().for_each(|crowd| crowd.wait_for(50));
        everybody_comes_through();

        for (at, number) in PROXIES.into_iter().enumerate() {
            let with = |how| {
                let mut uses = [Use::Full; 2];
                uses[at] = how;
                configuration(uses)
            };
            apply(&balancer, &with(Use::Drained));
            until(Duration::from_secs(20), "the proxy is empty", || {
                (affected(&balancer, &with(Use::Out)) == 0).then_some(())
            });
            apply(&balancer, &with(Use::Out));
            haproxies[at].restart();
            streams[at].restart();
            everybody_comes_through();
            apply(&balancer, &with(Use::Full));
            balancer.wait_for(Duration::from_secs(10), "it is up again", |status| {
                status.states(number) == ["up"]
            });
            everybody_comes_through();
        }

        for (crowd, (name, _)) in crowds.into_iter().zip(TIERS) {
            let visits = crowd.stop();
            assert_eq!(visits.failures, Vec::<String>::new(), "{name}");
            assert!(
                visits.of("b3") > 0 && visits.of("b4") > 0,
                "{name}: {visits:?}"
            );
        }
        let status = balancer.assert_accounts_balance();
        assert_eq!(status.number("/flows/rehashed"), 0, "{status}");
        for (name, _) in TIERS {
            for number in PROXIES {
                let flows = status.backend(name, number).number("/flows");
                assert!(flows >= 50, "{name}: b{number} had {flows} flows");
            }
        }
    }

    fn file(balancer: &Balancer, configuration: &Configuration) -> String {
        let file = balancer.directory().join("next.toml");
        fs::write(&file, configuration.text(&balancer.admin())).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn apply(balancer: &Balancer, configuration: &Configuration) {
        let output = balancer.ask(&["apply", &file(balancer, configuration)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// How many flows a configuration would take from their backend.
    fn affected(balancer: &Balancer, configuration: &Configuration) -> u64 {
        let file = file(balancer, configuration);
        let output = balancer.ask(&["apply", "--dry-run", "--json", &file]);
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let services = plan["services"].as_array().unwrap().iter();
        services
            .map(|service| service["flows_affected"].as_u64().unwrap())
            .sum()
    }
}
