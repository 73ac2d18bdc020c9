//! Promise: where the kernel has VLAN devices, traffic crosses from VLAN to VLAN as it would from link to
//! link: whole files, both families, one tag or two, natively and generically; and a service that is bound to
//! a VLAN is served in that VLAN.

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ringgate_playground::{
        Balancer, Configuration, Download, Nginx, Payload, Playground, Service, visit,
    };

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// Tags, outer first: "proto id".
    type Tags = &'static [&'static str];

    const ONE: [Tags; 2] = [&["802.1q id 100"], &["802.1q id 200"]];
    const TWO: [Tags; 2] = [
        &["802.1ad id 300", "802.1q id 100"],
        &["802.1ad id 200", "802.1q id 20"],
    ];

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and, to show anything, CONFIG_VLAN_8021Q"]
    fn files_cross_from_vlan_to_vlan() {
        files_cross(Configuration::native(), ONE, "100", &["200"]);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and, to show anything, CONFIG_VLAN_8021Q"]
    fn files_cross_from_vlan_to_vlan_by_generic_xdp() {
        files_cross(Configuration::generic(), ONE, "100", &["200"]);
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN and, to show anything, CONFIG_VLAN_8021Q"]
    fn files_cross_between_customers_vlans_within_providers() {
        files_cross(Configuration::native(), TWO, "[300, 100]", &["200", "20"]);
    }

    /// Clients are in the first VLAN, to which services are bound, and backends in the second.
    fn files_cross(
        configuration: Configuration,
        vlans: [Tags; 2],
        bound: &'static str,
        tell: &[&str],
    ) {
        let generic = configuration.mode() == "generic";
        let playground = Playground::plan().generic(generic).up();
        if !knows_vlan_devices(&playground) {
            eprintln!("not shown: this kernel has no VLAN devices");
            return;
        }
        move_into(&playground, vlans);
        let payload = Payload::megabytes(8, 7);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let over = |service: Service| service.checked().backends(playground.backends(), 8080);
        let configuration = configuration
            .service(over(Service::tcp("web4", "10.100.0.1:80").vlan(bound)))
            .service(over(Service::tcp("web6", "[fd00:100::1]:80").vlan(bound)));
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        for address in ["10.100.0.1:80", "[fd00:100::1]:80"] {
            let service: SocketAddr = address.parse().unwrap();
            for _ in 0..20 {
                playground.inside("client", || visit(service)).unwrap();
            }
            let download = Download::start(&playground, &format!("http://{address}/file"));
            assert_eq!(download.finish(), Ok(payload.sha256.clone()));
        }
        assert_eq!(playground.checksum_errors(), 0);
        let status = balancer.assert_accounts_balance();
        let backend = status.backend("web4", 1);
        let vlans = backend.list("/next_hop/vlan");
        let vlans: Vec<String> = vlans.iter().map(ToString::to_string).collect();
        assert_eq!(vlans, tell, "{status}");
    }

    fn knows_vlan_devices(playground: &Playground) -> bool {
        let mut probe = playground.on("client", "ip");
        let words = "link add link c0 name probe type vlan id 1";
        let output = probe.args(words.split(' ')).output().unwrap();
        !String::from_utf8_lossy(&output.stderr).contains("Unknown device type")
    }

    /// Moves client, balancer and backends with their addresses into VLANs on their links.
    fn move_into(playground: &Playground, [clients, backends]: [Tags; 2]) {
        let vip = ["10.100.0.0/24", "fd00:100::/64"];
        place(
            playground,
            "lb",
            "front",
            clients,
            ["10.1.0.1", "fd00:1::1"],
        );
        place(
            playground,
            "lb",
            "back",
            backends,
            ["10.2.0.1", "fd00:2::1"],
        );
        place(
            playground,
            "client",
            "c0",
            clients,
            ["10.1.0.2", "fd00:1::2"],
        );
        for (to, by) in vip.iter().zip(["10.1.0.1", "fd00:1::1"]) {
            playground.change("client", &format!("route replace {to} via {by}"));
        }
        for number in playground.backends() {
            let node = format!("b{number}");
            let own = [
                format!("10.2.0.{}", 10 + number),
                format!("fd00:2::{}", 10 + number),
            ];
            place(playground, &node, "eth0", backends, [&own[0], &own[1]]);
            for gateway in ["10.2.0.1", "fd00:2::1"] {
                playground.change(&node, &format!("route replace default via {gateway}"));
            }
        }
        // A veth hands tags over beside the frame, unless told otherwise: docs/TRAPS.md.
        for (node, peer) in [("client", "c0"), ("fabric", "lb")] {
            let words = ["-K", peer, "txvlan", "off", "tx-vlan-stag-hw-insert", "off"];
            let _said = playground.run_on(node, "ethtool", &words);
        }
    }

    /// Puts a node's addresses on a link into a VLAN on it.
    fn place(playground: &Playground, node: &str, link: &str, tags: Tags, own: [&str; 2]) {
        playground.change(node, &format!("addr flush dev {link}"));
        let (mut below, mut mtu) = (link.to_owned(), 1500);
        for (depth, tag) in tags.iter().enumerate() {
            let device = format!("vlan-{link}{depth}");
            let words =
                format!("link add link {below} name {device} mtu {mtu} type vlan proto {tag}");
            playground.change(node, &words);
            playground.change(node, &format!("link set {device} up"));
            below = device;
            // A device makes room for one tag only.
            mtu -= 4;
        }
        let [v4, v6] = own;
        playground.change(node, &format!("addr add {v4}/24 dev {below}"));
        playground.change(node, &format!("addr add {v6}/64 dev {below} nodad"));
    }
}
