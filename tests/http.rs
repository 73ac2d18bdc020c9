//! Promise: HTTP through Ringgate is HTTP. Real clients, real nginx, and nothing in between that
//! they could notice, over every combination of
//!
//! * forwarding `nat` and `dsr-l2`,
//! * IPv4 and IPv6,
//! * native and generic XDP,
//! * one queue with one worker and two queues with two,
//! * the senders' checksum offload on and off.
//!
//! Each of the 32 cells answers 1,000 short connections and carries a download of 100 MB whose
//! sha256 matches; the mode really bound is the one asked for, no kernel finds a wrong checksum,
//! and the account balances. The four services of a playground are visited in the same run, so
//! there are eight playgrounds, one test each.

#[cfg(test)]
mod tests {
    use ringgate_playground::{Balancer, Configuration, Download, Nginx, Payload, Playground};

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Short connections in each cell.
    const VISITS: usize = 1_000;
    /// The least that each of three equal backends must get of them. Expected are 333 with a
    /// standard deviation of 15 (binomial): five of those below.
    const LEAST: usize = 258;

    /// A service, the address it listens on, and its URL's host.
    const SERVICES: [(&str, &str); 4] = [
        ("web4", "10.100.0.1:80"),
        ("web6", "[fd00:100::1]:80"),
        ("direct4", "10.100.0.2:80"),
        ("direct6", "[fd00:100::2]:80"),
    ];

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn native_one_queue_with_checksum_offload() {
        carries_everything(Configuration::native(), 1, true);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn native_one_queue_without_checksum_offload() {
        carries_everything(Configuration::native(), 1, false);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn native_two_queues_with_checksum_offload() {
        carries_everything(Configuration::native(), 2, true);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn native_two_queues_without_checksum_offload() {
        carries_everything(Configuration::native(), 2, false);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn generic_one_queue_with_checksum_offload() {
        carries_everything(Configuration::generic(), 1, true);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn generic_one_queue_without_checksum_offload() {
        carries_everything(Configuration::generic(), 1, false);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn generic_two_queues_with_checksum_offload() {
        carries_everything(Configuration::generic(), 2, true);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn generic_two_queues_without_checksum_offload() {
        carries_everything(Configuration::generic(), 2, false);
    }

    fn carries_everything(configuration: Configuration, queues: u8, checksum_offload: bool) {
        let plan = Playground::plan()
            .queues(queues)
            .checksum_offload(checksum_offload);
        let playground = plan.generic(configuration.mode() == "generic").up();
        let payload = Payload::megabytes(100, 1);
        let _nginx = Nginx::on_all(&playground, &payload, "1m");
        let configuration = configuration.web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        is_bound_as_asked(&balancer, &configuration, queues);

        for (service, address) in SERVICES {
            answers_short_connections(&balancer, &playground, service, address);
            carries_a_download(&balancer, &playground, &payload, service, address);
        }

        let status = balancer.assert_accounts_balance();
        assert_eq!(
            playground.checksum_errors(),
            0,
            "wrong checksums arrived somewhere"
        );
        // All workers took part; generic XDP on a veth sees every packet on queue 0, since only
        // the native path records the queue (drivers/net/veth.c, veth_xmit).
        let workers = status.list("/workers");
        let taking_part = if configuration.mode() == "generic" {
            1
        } else {
            workers.len()
        };
        for worker in &workers[..taking_part] {
            assert!(worker.number("/busy_turns") > 0, "{status}");
        }
        // Nothing was dropped but what waited for a first neighbour.
        let mut dropped = status.dropped();
        dropped.remove("no_neighbour");
        assert!(dropped.is_empty(), "{dropped:?}");
        // Direct replies never meet the balancer, replies of the others all do.
        for service in ["web4", "web6"] {
            assert!(
                status.sum_of_backends(service, "reply_packets") > 0,
                "{service}: {status}"
            );
        }
        for service in ["direct4", "direct6"] {
            assert_eq!(
                status.sum_of_backends(service, "reply_packets"),
                0,
                "{service}: {status}"
            );
        }
    }

    fn is_bound_as_asked(balancer: &Balancer, configuration: &Configuration, queues: u8) {
        let status = balancer.status();
        for name in ["front", "back"] {
            assert_eq!(status.interface(name).text("/mode"), configuration.mode());
        }
        assert_eq!(
            status.list("/workers").len(),
            usize::from(queues),
            "{status}"
        );
    }

    fn answers_short_connections(
        balancer: &Balancer,
        playground: &Playground,
        service: &str,
        address: &str,
    ) {
        let before = balancer.status().sum_of_backends(service, "flows");
        let visits = playground.visits(address.parse().unwrap(), VISITS);
        assert_eq!(visits.failures, Vec::<String>::new(), "{service}");
        assert_eq!(visits.answered(), VISITS, "{service}");
        for backend in ["b1", "b2", "b3"] {
            assert!(
                visits.of(backend) >= LEAST,
                "{service} is not balanced: {visits:?}"
            );
        }
        let after = balancer.status().sum_of_backends(service, "flows");
        assert_eq!(
            after - before,
            VISITS as u64,
            "{service}: one flow for each connection"
        );
    }

    fn carries_a_download(
        balancer: &Balancer,
        playground: &Playground,
        payload: &Payload,
        service: &str,
        address: &str,
    ) {
        let url = format!("http://{address}/file");
        let received = Download::start(playground, &url).finish();
        assert_eq!(
            received.as_ref(),
            Ok(&payload.sha256),
            "{service}: {}",
            balancer.status()
        );
    }
}
