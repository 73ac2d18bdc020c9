//! Every family that is exported: its name, which stays, what it tells, and its labels. docs/METRICS.md
//! says the same, and a test holds the two together.

use super::exposition::Family;
use super::exposition::Kind::{self, Counter, Gauge, Histogram};

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind,
        labels,
        help,
    }
}

/// Declares families, and `ALL` of them in the order in which they are written.
macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal $labels:tt $help:literal;)*) => {
        $(
            #[doc = $help]
            pub(super) static $constant: Family = family($name, $kind, &$labels, $help);
        )*

        /// Every family, in the order in which they are written.
        #[cfg(test)]
        pub(crate) static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    // --- the process ---
    BUILD: Gauge "ringgate_build_info" ["version"]
        "Always 1; the label is the version.";
    UPTIME: Gauge "ringgate_uptime_seconds" []
        "Since the start.";
    GENERATION: Gauge "ringgate_snapshot_generation" []
        "Changes that were published to the workers; one that never rests is a flapping check or neighbour.";
    DRAINING: Gauge "ringgate_draining" []
        "1 while the balancer drains before it stops.";
    CONTROL: Gauge "ringgate_control_info" ["io"]
        "Always 1; the label is what drives the control thread, io_uring or epoll.";
    OPERATIONS: Gauge "ringgate_control_operations" []
        "Operations that the control thread has under way.";
    TURNS: Histogram "ringgate_control_turn_seconds" []
        "How long the control loop worked in a turn, without its waiting.";
    NETWORK: Gauge "ringgate_network_entries" ["table"]
        "What is known of the kernel's network: links, addresses, routes, neighbours.";
    NETLINK: Counter "ringgate_netlink_events_total" ["event"]
        "Messages of the kernel about its network, and what went wrong with them.";
    PATH_CHECKS: Gauge "ringgate_true_path_checks" []
        "Checks under way that go the way of the traffic.";
    PATH_WAITING: Gauge "ringgate_true_path_waiting_packets" []
        "Their packets that wait for a neighbour's hardware address.";
    PATH_PACKETS: Counter "ringgate_true_path_packets_total" ["fate"]
        "Their packets: sent, unsent because the interface did not take them, and strays of nobody's check.";
    PATH_DROPPED: Counter "ringgate_true_path_dropped_packets_total" ["reason"]
        "Their packets that were dropped as a client's would be, by reason.";
    // --- flows ---
    FLOW_ENTRIES: Gauge "ringgate_flow_table_entries" ["table"]
        "Entries stored now, ended ones that were not swept yet included; a NAT flow takes two.";
    FLOW_CAPACITY: Gauge "ringgate_flow_table_capacity_entries" ["table"]
        "Entries that the table is for.";
    FLOW_MEMORY: Gauge "ringgate_flow_table_memory_bytes" []
        "Memory of both tables.";
    FLOWS: Counter "ringgate_flow_events_total" ["worker", "event"]
        "What happened to flows.";
    FLUSHED: Counter "ringgate_flows_flushed_total" []
        "Flows that operators had the table forget.";
    LOGGED: Counter "ringgate_flow_log_events_total" ["event"]
        "Flows of which the flow log has told that they began or ended, and times that it has lost one.";
    LOGGED_OPEN: Gauge "ringgate_flow_log_open_flows" []
        "Flows that the flow log follows now.";
    SOURCE_PORTS: Gauge "ringgate_source_ports" ["address", "state"]
        "Source ports of full-nat, by state: held by flows, resting, or free.";
    FRAGMENTS: Counter "ringgate_fragment_events_total" ["event"]
        "What happened to fragments.";
    FRAGMENT_CAPACITY: Gauge "ringgate_fragment_table_capacity_datagrams" []
        "Datagrams whose fragments can be followed at once.";
    ICMP: Counter "ringgate_icmp_events_total" ["event"]
        "What was done in ICMP.";
    // --- workers ---
    WORKER: Gauge "ringgate_worker_info" ["worker", "cpu"]
        "Always 1; the labels are the worker and its CPU.";
    WORKER_TURNS: Counter "ringgate_worker_turns_total" ["worker", "found"]
        "Turns of the worker's loop that found packets, and that found none.";
    WORKER_SLEEPS: Counter "ringgate_worker_sleeps_total" ["worker"]
        "Times the worker slept on its sockets.";
    WORKER_REQUESTS: Counter "ringgate_worker_requests_lost_total" ["worker"]
        "Next hops that the worker could not ask control for.";
    RESIDENCE: Histogram "ringgate_worker_residence_seconds" ["worker"]
        "How long packets stayed with the worker, from before the RX ring to after the TX kick; of sampled turns.";
    // --- interfaces ---
    INTERFACE: Gauge "ringgate_interface_info" ["interface", "mode"]
        "Always 1; the label is the mode really bound: zerocopy, copy or generic.";
    ARRIVED: Counter "ringgate_interface_arrived_packets_total" ["interface"]
        "Frames that the steering program saw.";
    STEERING: Counter "ringgate_interface_steered_packets_total" ["interface", "verdict"]
        "The same, by what it did with them: passed to the kernel, or redirected to a worker.";
    RECEIVED: Counter "ringgate_interface_received_packets_total" ["interface", "worker"]
        "Packets taken from the RX ring.";
    RECEIVED_BYTES: Counter "ringgate_interface_received_bytes_total" ["interface", "worker"]
        "Their bytes, Ethernet header included.";
    FORWARDED: Counter "ringgate_interface_forwarded_packets_total" ["interface", "worker"]
        "Packets that came in here and were handed to a TX ring.";
    ANSWERED: Counter "ringgate_interface_answered_packets_total" ["interface", "worker"]
        "Packets that came in here and were answered by the balancer itself.";
    DROPPED: Counter "ringgate_interface_dropped_packets_total" ["interface", "reason"]
        "Packets that came in here and were dropped, by reason.";
    PORT: Counter "ringgate_interface_port_events_total" ["interface", "event"]
        "What the AF_XDP sockets' own code has counted: frames transmitted and completed, kicks and how they ended.";
    KERNEL: Counter "ringgate_interface_kernel_events_total" ["interface", "event"]
        "XDP_STATISTICS of the kernel, of all sockets.";
    // --- services ---
    SERVICE: Gauge "ringgate_service_info" ["service", "listen", "protocol", "forward"]
        "Always 1; the labels say where the service listens and how it forwards.";
    FALLEN_OPEN: Gauge "ringgate_service_fallen_open" ["service"]
        "1 while no backend is up and those that are down get everything.";
    SERVICE_BACKENDS: Gauge "ringgate_service_backends" ["service", "state"]
        "Backends by state.";
    SERVICE_FLOWS: Counter "ringgate_service_flows_total" ["service"]
        "Flows given to the service's backends, those that are gone included.";
    SERVICE_PACKETS: Counter "ringgate_service_packets_total" ["service", "direction"]
        "Packets to its backends and their replies, those that are gone included.";
    SERVICE_BYTES: Counter "ringgate_service_bytes_total" ["service", "direction"]
        "Their bytes, Ethernet header included.";
    CHECK_SECONDS: Histogram "ringgate_check_duration_seconds" ["service", "kind"]
        "How long health checks took, failed ones included.";
    // --- backends ---
    BACKEND_UP: Gauge "ringgate_backend_up" ["service", "backend"]
        "1 if it may be given new flows.";
    BACKEND_STATE: Gauge "ringgate_backend_state" ["service", "backend", "state"]
        "Always 1; the label is the state: up, draining, pending, down or disabled.";
    BACKEND_REACHABLE: Gauge "ringgate_backend_reachable" ["service", "backend"]
        "1 if there is a route and a neighbour.";
    BACKEND_WEIGHT: Gauge "ringgate_backend_weight" ["service", "backend"]
        "Its weight at this moment, lower than the configured one in its slow start.";
    BACKEND_ACTIVE: Gauge "ringgate_backend_active_flows" ["service", "backend"]
        "Flows that it has now.";
    BACKEND_FLOWS: Counter "ringgate_backend_flows_total" ["service", "backend"]
        "Flows given to it.";
    BACKEND_PACKETS: Counter "ringgate_backend_packets_total" ["service", "backend", "direction"]
        "Packets to it and its replies, where they return through the balancer.";
    BACKEND_BYTES: Counter "ringgate_backend_bytes_total" ["service", "backend", "direction"]
        "Their bytes, Ethernet header included.";
    CHECK_UP: Gauge "ringgate_check_up" ["service", "backend"]
        "1 if its check says up; absent where it is not checked.";
    CHECK_STATE: Gauge "ringgate_check_state" ["service", "backend", "state"]
        "Always 1; the label is what its check says: pending, up, suspect, down, or held because it was up and down too often.";
    CHECK_RESULTS: Counter "ringgate_check_results_total" ["service", "backend", "result"]
        "Checks by how they ended: success, failure, inconclusive.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn read(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn names_are_made_as_prometheus_asks() {
        let names: BTreeSet<&str> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is there twice");
        for family in ALL {
            let name = family.name;
            assert!(name.starts_with("ringgate_"), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == Counter, "{name}");
            assert!(
                family.kind != Histogram || name.ends_with("_seconds"),
                "{name}"
            );
            // Units are base units.
            for word in [
                "milli", "micro", "nano", "kilo", "percent", "_ms", "_us", "_ns",
            ] {
                assert!(!name.contains(word), "{name}");
            }
            let labels: BTreeSet<&str> = family.labels.iter().copied().collect();
            assert_eq!(labels.len(), family.labels.len(), "{name}");
            assert!(!labels.contains("le"), "{name}");
            let help = family.help;
            assert!(
                help.ends_with('.') && !help.contains(['\n', '\\', '|']),
                "{name}"
            );
        }
    }

    #[test]
    fn the_page_lists_every_family_and_no_other() {
        let page = read("docs/METRICS.md");
        let listed: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `ringgate_"))
            .collect();
        let row = |family: &&Family| {
            let labels: Vec<String> = family.labels.iter().map(|one| format!("`{one}`")).collect();
            let labels = match labels.is_empty() {
                true => "–".to_owned(),
                false => labels.join(", "),
            };
            let (name, kind, help) = (family.name, family.kind.as_str(), family.help);
            format!("| `{name}` | {kind} | {labels} | {help} |")
        };
        let wanted: Vec<String> = ALL.iter().map(row).collect();
        assert_eq!(listed, wanted, "docs/METRICS.md, in this order");
    }

    #[test]
    fn dashboard_and_alerts_name_families_that_there_are() {
        for path in ["docs/grafana/ringgate.json", "docs/prometheus/alerts.yml"] {
            let text = read(path);
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let named: BTreeSet<&str> =
                words.filter(|word| word.starts_with("ringgate_")).collect();
            assert!(named.len() >= 10, "{path}: {named:?}");
            for name in named {
                let is_one = |family: &&&Family| {
                    let suffix = name.strip_prefix(family.name);
                    match family.kind {
                        Histogram => {
                            suffix.is_some_and(|s| ["_bucket", "_sum", "_count"].contains(&s))
                        }
                        Counter | Gauge => suffix == Some(""),
                    }
                };
                assert!(
                    ALL.iter().find(is_one).is_some(),
                    "{path}: there is no {name}"
                );
            }
        }
    }
}
