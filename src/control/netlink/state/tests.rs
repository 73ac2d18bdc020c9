//! The state machine, fed with messages made by hand.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressScope;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, VlanProtocol,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteType, RouteVia,
};
use ringgate_dataplane::wire::vlan::Tag;

use super::super::link::Vlan;
use super::*;

const UP: LinkFlags = LinkFlags::Up.union(LinkFlags::LowerUp);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = flags;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(vec![2, 0, 0, 0, 1, u8::try_from(index).unwrap()]),
        LinkAttribute::Mtu(1500),
        LinkAttribute::NumRxQueues(2),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
    ];
    message
}

fn local(ifindex: u32, address: &str, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.prefix_len = prefix_len;
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![AddressAttribute::Address(ip(address))];
    message
}

/// A route of the main table; `prefix` as in `ip route`.
fn route(prefix: &str, metric: u32, hops: &[(u32, Option<&str>)]) -> RouteMessage {
    let prefix: IpNet = prefix.parse().unwrap();
    let mut message = RouteMessage::default();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.address_family = match prefix {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(prefix.addr())),
        RouteAttribute::Priority(metric),
    ];
    let gateway = |gateway: &str| match (ip(gateway), prefix) {
        (IpAddr::V6(address), IpNet::V4(_)) => RouteAttribute::Via(RouteVia::Inet6(address)),
        (address, _) => RouteAttribute::Gateway(RouteAddress::from(address)),
    };
    match hops {
        [(ifindex, via)] => {
            message.attributes.push(RouteAttribute::Oif(*ifindex));
            message.attributes.extend(via.map(gateway));
        }
        hops => {
            let hops = hops.iter().map(|(ifindex, via)| {
                let mut hop = RouteNextHop::default();
                hop.interface_index = *ifindex;
                hop.attributes.extend(via.map(gateway));
                hop
            });
            message
                .attributes
                .push(RouteAttribute::MultiPath(hops.collect()));
        }
    }
    message
}

fn neighbour(ifindex: u32, address: &str, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.state = state;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::from(ip(address))),
        NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
    ];
    message
}

impl Network {
    fn has_link(&mut self, message: LinkMessage) -> &mut Self {
        self.apply(0, &RouteNetlinkMessage::NewLink(message));
        self
    }

    fn has_address(&mut self, message: AddressMessage) -> &mut Self {
        self.apply(0, &RouteNetlinkMessage::NewAddress(message));
        self
    }

    fn has_route(&mut self, message: RouteMessage) -> &mut Self {
        self.apply(NLM_F_APPEND, &RouteNetlinkMessage::NewRoute(message));
        self
    }

    fn lost_route(&mut self, message: RouteMessage) -> &mut Self {
        self.apply(0, &RouteNetlinkMessage::DelRoute(message));
        self
    }

    fn has_neighbour(&mut self, message: NeighbourMessage) -> &mut Self {
        self.apply(0, &RouteNetlinkMessage::NewNeighbour(message));
        self
    }

    /// Asserts whether what `change` does moves the generation.
    #[track_caller]
    fn moves(&mut self, expected: bool, change: impl FnOnce(&mut Self)) {
        let before = self.generation();
        change(self);
        assert_eq!(self.generation() != before, expected);
    }

    /// "interface neighbour", or why not.
    fn way(&self, address: &str) -> String {
        match self.next_hop(ip(address)) {
            Ok(hop) => format!("{} {}", hop.ifindex, hop.neighbour),
            Err(why) => format!("{why:?}"),
        }
    }
}

/// Two veths, both up, with an address each.
fn network() -> Network {
    let mut network = Network::default();
    network
        .has_link(link(2, "veth2", UP))
        .has_link(link(3, "veth3", UP))
        .has_address(local(2, "10.0.2.1", 24))
        .has_address(local(3, "10.0.3.1", 24))
        .has_route(route("10.0.2.0/24", 0, &[(2, None)]))
        .has_route(route("10.0.3.0/24", 0, &[(3, None)]));
    network
}

#[test]
fn a_link_is_found_by_name_and_renamed() {
    let mut network = network();
    let found = network.link("veth2").unwrap();
    assert_eq!((found.index, found.mtu, found.rx_queues), (2, 1500, 2));
    assert_eq!(found.kind.as_deref(), Some("veth"));
    assert_eq!(found.mac.unwrap().to_string(), "02:00:00:00:01:02");
    network.has_link(link(2, "wan0", UP));
    assert!(network.link("veth2").is_none());
    assert_eq!(network.link("wan0").unwrap().index, 2);
}

#[test]
fn a_bridge_port_message_is_no_link_message() {
    let mut network = network();
    let mut left_the_bridge = link(2, "veth2", UP);
    left_the_bridge.header.interface_family = AddressFamily::Bridge;
    network.apply(0, &RouteNetlinkMessage::DelLink(left_the_bridge));
    assert!(network.link("veth2").is_some());
    network.apply(0, &RouteNetlinkMessage::DelLink(link(2, "veth2", UP)));
    assert!(network.link("veth2").is_none());
}

#[test]
fn what_is_known_already_moves_nothing() {
    let mut network = network();
    network.has_neighbour(neighbour(2, "10.0.2.9", NeighbourState::Reachable));
    network.moves(false, |n| {
        n.has_link(link(2, "veth2", UP))
            .has_address(local(2, "10.0.2.1", 24))
            .has_route(route("10.0.2.0/24", 0, &[(2, None)]))
            .has_neighbour(neighbour(2, "10.0.2.9", NeighbourState::Stale))
            .has_neighbour(neighbour(2, "10.0.2.9", NeighbourState::Probe))
            .has_neighbour(neighbour(2, "10.0.2.8", NeighbourState::Incomplete));
    });
    network.moves(true, |n| {
        n.has_link(link(2, "veth2", LinkFlags::Up));
    });
    network.moves(true, |n| {
        n.has_address(local(2, "10.0.2.2", 24));
    });
    network.moves(true, |n| {
        n.has_route(route("10.9.0.0/16", 0, &[(2, None)]));
    });
    network.moves(true, |n| {
        n.has_neighbour(neighbour(2, "10.0.2.9", NeighbourState::Failed));
    });
}

#[test]
fn the_longest_prefix_wins_then_the_lowest_metric() {
    let mut network = network();
    network
        .has_route(route("0.0.0.0/0", 100, &[(3, Some("10.0.3.254"))]))
        .has_route(route("0.0.0.0/0", 50, &[(2, Some("10.0.2.254"))]))
        .has_route(route("192.0.2.0/24", 0, &[(3, Some("10.0.3.7"))]))
        .has_route(route("192.0.2.128/25", 900, &[(2, Some("10.0.2.7"))]));
    assert_eq!(network.way("8.8.8.8"), "2 10.0.2.254");
    assert_eq!(network.way("192.0.2.1"), "3 10.0.3.7");
    assert_eq!(network.way("192.0.2.200"), "2 10.0.2.7");
    assert_eq!(
        network.way("10.0.3.77"),
        "3 10.0.3.77",
        "on the link itself"
    );
    assert_eq!(
        network.way("2001:db8::1"),
        "Nothing",
        "the other family has no route"
    );
}

#[test]
fn an_address_of_ours_is_no_next_hop() {
    assert_eq!(network().way("10.0.3.1"), "Local(3)");
}

#[test]
fn refusing_routes_refuse_even_under_a_default() {
    let mut network = network();
    network.has_route(route("0.0.0.0/0", 0, &[(2, Some("10.0.2.254"))]));
    let kinds = [
        RouteType::BlackHole,
        RouteType::Unreachable,
        RouteType::Prohibit,
        RouteType::Throw,
    ];
    for (third, kind) in (0..).zip(kinds) {
        let mut refusing = route(&format!("203.0.{third}.0/24"), 0, &[]);
        refusing.header.kind = kind;
        network.has_route(refusing.clone());
        let address = format!("203.0.{third}.5");
        assert_eq!(
            network.way(&address),
            format!("Refused(203.0.{third}.0/24)")
        );
        network.lost_route(refusing);
        assert_eq!(network.way(&address), "2 10.0.2.254");
    }
}

#[test]
fn a_link_that_is_down_is_passed_over_at_once() {
    let mut network = network();
    network
        .has_route(route("0.0.0.0/0", 10, &[(2, Some("10.0.2.254"))]))
        .has_route(route("0.0.0.0/0", 20, &[(3, Some("10.0.3.254"))]));
    assert!(!network.take_doubt());
    network.has_link(link(2, "veth2", LinkFlags::empty()));
    assert_eq!(network.way("8.8.8.8"), "3 10.0.3.254");
    assert_eq!(
        network.way("10.0.2.9"),
        "3 10.0.3.254",
        "as the kernel, over the shorter prefix"
    );
    assert!(
        network.take_doubt(),
        "the kernel took routes away without a word"
    );
    assert!(!network.take_doubt());
}

#[test]
fn a_link_without_carrier_is_used_only_when_there_is_no_better_member() {
    let mut network = network();
    let both = [(2, Some("10.0.2.254")), (3, Some("10.0.3.254"))];
    network.has_route(route("0.0.0.0/0", 0, &both));
    assert_eq!(network.way("8.8.8.8"), "2 10.0.2.254");
    network.has_link(link(2, "veth2", LinkFlags::Up));
    assert_eq!(network.way("8.8.8.8"), "3 10.0.3.254");
    network.has_link(link(3, "veth3", LinkFlags::Up));
    assert_eq!(network.way("8.8.8.8"), "2 10.0.2.254");
}

#[test]
fn an_ipv4_route_through_an_ipv6_gateway_keeps_it() {
    let mut network = network();
    network.has_route(route("198.51.100.0/24", 0, &[(2, Some("fe80::1"))]));
    assert_eq!(network.way("198.51.100.7"), "2 fe80::1");
}

#[test]
fn other_tables_cloned_tos_and_source_routes_are_not_followed() {
    let mut network = network();
    let mut others = vec![route("0.0.0.0/0", 0, &[(2, None)]); 5];
    others[0].header.table = 255;
    others[1].attributes.push(RouteAttribute::Table(1000));
    others[2].header.tos = 8;
    others[3].header.flags = RouteFlags::Cloned;
    others[4].header.source_prefix_length = 64;
    for other in others {
        network.moves(false, |n| {
            n.has_route(other.clone()).lost_route(other);
        });
    }
    assert!(!network.take_doubt(), "what is not followed is not missed");
    let mut encapsulating = route("0.0.0.0/0", 0, &[(2, None)]);
    encapsulating
        .attributes
        .push(RouteAttribute::Encap(Vec::new()));
    network.has_route(encapsulating);
    assert_eq!(network.way("8.8.8.8"), "Refused(0.0.0.0/0)");
}

#[test]
fn routes_are_replaced_appended_and_prepended() {
    let mut network = network();
    let via = |last: &str| route("192.0.2.0/24", 5, &[(2, Some(&format!("10.0.2.{last}")))]);
    network.has_route(via("1")).has_route(via("2"));
    assert_eq!(network.way("192.0.2.9"), "2 10.0.2.1");
    network.apply(0, &RouteNetlinkMessage::NewRoute(via("3")));
    assert_eq!(network.way("192.0.2.9"), "2 10.0.2.3", "prepended");
    network.apply(NLM_F_REPLACE, &RouteNetlinkMessage::NewRoute(via("4")));
    assert_eq!(network.way("192.0.2.9"), "2 10.0.2.4");
    network.lost_route(via("4"));
    assert_eq!(
        network.way("192.0.2.9"),
        "Nothing",
        "the replaced ones are gone"
    );
    assert!(!network.take_doubt());
    network.lost_route(via("4"));
    assert!(network.take_doubt(), "a deletion of what was not known");
}

#[test]
fn ipv6_multipath_members_come_and_go_one_by_one() {
    let mut network = network();
    let (a, b) = ((2, Some("fe80::a")), (3, Some("fe80::b")));
    network.has_route(route("2001:db8::/32", 1024, &[a]));
    network.has_route(route("2001:db8::/32", 1024, &[a, b]));
    network.moves(false, |n| {
        n.has_route(route("2001:db8::/32", 1024, &[b, a])); // the same in another order
    });
    let routes = network.sizes()[2];
    network.lost_route(route("2001:db8::/32", 1024, &[a]));
    assert_eq!(network.way("2001:db8::1"), "3 fe80::b");
    assert_eq!(network.sizes()[2], routes);
    network.lost_route(route("2001:db8::/32", 1024, &[b]));
    assert_eq!(network.way("2001:db8::1"), "Nothing");
    assert_eq!(network.sizes()[2], routes - 1);
}

#[test]
fn the_same_ipv6_prefix_on_two_links_is_two_routes() {
    let mut network = network();
    network
        .has_route(route("fe80::/64", 256, &[(2, None)]))
        .has_route(route("fe80::/64", 256, &[(3, None)]));
    network.lost_route(route("fe80::/64", 256, &[(2, None)]));
    assert_eq!(network.way("fe80::9"), "3 fe80::9");
}

#[test]
fn a_neighbour_counts_while_the_kernel_would_use_it() {
    use NeighbourState::{
        Delay, Failed, Incomplete, Noarp, None as Unborn, Permanent, Probe, Reachable, Stale,
    };
    let mut network = network();
    let address = ip("10.0.2.9");
    for state in [Reachable, Stale, Delay, Probe, Permanent, Noarp] {
        network.has_neighbour(neighbour(2, "10.0.2.9", state));
        assert_eq!(network.neighbour(2, address), Some(Mac(MAC)), "{state:?}");
        assert_eq!(network.neighbour(3, address), None, "another link");
    }
    for state in [Incomplete, Failed, Unborn] {
        network.has_neighbour(neighbour(2, "10.0.2.9", Reachable));
        network.has_neighbour(neighbour(2, "10.0.2.9", state));
        assert_eq!(network.neighbour(2, address), None, "{state:?}");
    }
    network.has_neighbour(neighbour(2, "10.0.2.9", Reachable));
    network.apply(
        0,
        &RouteNetlinkMessage::DelNeighbour(neighbour(2, "10.0.2.9", Stale)),
    );
    assert_eq!(network.neighbour(2, address), None);
    let mut proxy = neighbour(2, "10.0.2.9", Permanent);
    proxy.header.flags = NeighbourFlags::Proxy;
    network.moves(false, |n| {
        n.has_neighbour(proxy);
    });
}

#[test]
fn a_neighbours_new_mac_moves_the_generation() {
    let mut network = network();
    network.has_neighbour(neighbour(2, "10.0.2.9", NeighbourState::Reachable));
    let mut moved = neighbour(2, "10.0.2.9", NeighbourState::Reachable);
    moved.attributes[1] = NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 8]);
    network.moves(true, |n| {
        n.has_neighbour(moved);
    });
}

#[test]
fn a_deleted_link_takes_its_addresses_and_neighbours_along() {
    let mut network = network();
    network.has_neighbour(neighbour(2, "10.0.2.9", NeighbourState::Reachable));
    network.apply(0, &RouteNetlinkMessage::DelLink(link(2, "veth2", UP)));
    assert_eq!(network.neighbour(2, ip("10.0.2.9")), None);
    assert!(network.local_addresses().all(|local| local.ifindex == 3));
    assert_eq!(network.way("10.0.2.9"), "Nothing");
    assert!(network.take_doubt());
}

#[test]
fn a_dump_forgets_what_it_does_not_show_and_keeps_what_came_meanwhile() {
    let mut network = network();
    network.has_neighbour(neighbour(2, "10.0.2.9", NeighbourState::Reachable));
    let shown = |n: &mut Network| {
        for table in Table::ALL {
            n.begin(table);
        }
        n.has_link(link(2, "veth2", UP))
            .has_link(link(3, "veth3", UP))
            .has_address(local(2, "10.0.2.1", 24))
            .has_address(local(3, "10.0.3.1", 24))
            .has_neighbour(neighbour(2, "10.0.2.9", NeighbourState::Stale));
        for prefix in ["10.0.2.0/24", "10.0.3.0/24"] {
            let oif = if prefix.contains(".2.") { 2 } else { 3 };
            let message = RouteNetlinkMessage::NewRoute(route(prefix, 0, &[(oif, None)]));
            n.apply(NLM_F_MULTIPART, &message);
        }
    };
    network.moves(false, |n| {
        shown(n);
        for table in Table::ALL {
            n.finish(table);
        }
    });
    assert_eq!(network.sizes(), [2, 2, 2, 1]);
    network.has_route(route("192.0.2.0/24", 0, &[(2, None)]));
    network.has_neighbour(neighbour(3, "10.0.3.9", NeighbourState::Reachable));
    network.moves(true, |n| {
        shown(n);
        n.has_route(route("2001:db8::/64", 0, &[(2, None)])); // notified while the dump ran
        for table in Table::ALL {
            n.finish(table);
        }
    });
    assert_eq!(network.sizes(), [2, 2, 3, 1]);
    assert_eq!(network.way("192.0.2.1"), "Nothing");
    assert_eq!(network.way("2001:db8::1"), "2 2001:db8::1");
}

fn with_mtu(mut route: RouteMessage, mtu: u32) -> RouteMessage {
    let metrics = vec![RouteMetric::Mtu(mtu)];
    route.attributes.push(RouteAttribute::Metrics(metrics));
    route
}

/// What the route to exactly this prefix asks for.
fn exit(network: &Network, prefix: &str) -> Exit {
    let prefix: IpNet = prefix.parse().unwrap();
    let mut routes = network.routes();
    routes.find(|route| route.0 == prefix).unwrap().1.unwrap()
}

#[test]
fn a_routes_mtu_and_source_are_followed() {
    let mut network = network();
    for (prefix, via) in [("0.0.0.0/0", "10.0.2.254"), ("2001:db8::/32", "fe80::9")] {
        let plain = route(prefix, 0, &[(2, Some(via))]);
        network.has_route(plain.clone());
        assert_eq!(
            (exit(&network, prefix).mtu, exit(&network, prefix).source),
            (None, None)
        );
        for mtu in [1400, 1300] {
            let changed = with_mtu(plain.clone(), mtu);
            network.moves(true, |n| {
                n.apply(NLM_F_REPLACE, &RouteNetlinkMessage::NewRoute(changed));
            });
            assert_eq!(exit(&network, prefix).mtu, Some(mtu));
        }
        let zero = with_mtu(plain.clone(), 0);
        network.apply(NLM_F_REPLACE, &RouteNetlinkMessage::NewRoute(zero));
        assert_eq!(exit(&network, prefix).mtu, None);
        let own = ip(if prefix == "0.0.0.0/0" {
            "10.0.2.1"
        } else {
            "2001:db8::1"
        });
        let mut asking = plain;
        let source = RouteAttribute::PrefSource(RouteAddress::from(own));
        asking.attributes.push(source);
        network.moves(true, |n| {
            n.apply(NLM_F_REPLACE, &RouteNetlinkMessage::NewRoute(asking));
        });
        assert_eq!(exit(&network, prefix).source, Some(own));
    }
}

#[test]
fn source_addresses_come_in_the_kernels_order_and_fit_ones_only() {
    let mut network = Network::default();
    network.begin(Table::Addresses);
    for shown in ["10.0.2.9", "10.0.2.3", "2001:db8::9", "2001:db8::3"] {
        let flags = NLM_F_MULTIPART;
        network.apply(flags, &RouteNetlinkMessage::NewAddress(local(2, shown, 24)));
    }
    network.finish(Table::Addresses);
    let mut secondary = local(2, "10.0.2.1", 24);
    secondary.header.flags = AddressHeaderFlags::Secondary;
    let mut tentative = local(2, "2001:db8::2", 64);
    let flags = AddressFlags::Tentative;
    tentative.attributes.push(AddressAttribute::Flags(flags));
    network
        .has_address(secondary)
        .has_address(local(2, "2001:db8::1", 64))
        .has_address(tentative)
        .has_address(local(1, "192.0.2.1", 32));
    let order = |network: &Network| -> String {
        let sources = network.sources().into_iter();
        let words: Vec<_> = sources.map(|local| local.address.to_string()).collect();
        words.join(" ")
    };
    // Of each family: what was shown, and what is added where the kernel adds it.
    assert_eq!(
        order(&network),
        "192.0.2.1 2001:db8::1 10.0.2.9 10.0.2.3 2001:db8::9 2001:db8::3 10.0.2.1"
    );
    let secondary: Vec<bool> = network
        .sources()
        .iter()
        .map(|local| local.secondary)
        .collect();
    assert_eq!(secondary, [false, false, false, false, false, false, true]);
    network.apply(
        0,
        &RouteNetlinkMessage::DelAddress(local(2, "10.0.2.9", 24)),
    );
    network.has_address(local(2, "10.0.2.9", 24));
    assert!(
        order(&network).ends_with("10.0.2.1 10.0.2.9"),
        "it came again"
    );
}

#[test]
fn a_vlan_device_tells_its_parent_and_its_tag() {
    let device = |id, protocol| {
        let mut message = link(7, "service", UP);
        let data = vec![InfoVlan::Id(id), InfoVlan::Protocol(protocol)];
        message.attributes.push(LinkAttribute::Link(2));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(data)),
        ]));
        message
    };
    let mut network = network();
    let vlan = |network: &Network| network.link("service").unwrap().vlan;
    let of = |tpid, tci| {
        let tag = Tag { tpid, tci };
        Some(Vlan { parent: 2, tag })
    };
    network.has_link(device(100, VlanProtocol::Ieee8021Q));
    assert_eq!(vlan(&network), of(0x8100, 100));
    network.moves(true, |n| {
        n.has_link(device(200, VlanProtocol::Ieee8021Ad));
    });
    assert_eq!(vlan(&network), of(0x88A8, 200));
    // Moved here from another namespace, where its parent stayed.
    let mut foreign = device(200, VlanProtocol::Ieee8021Ad);
    foreign.attributes.insert(0, LinkAttribute::LinkNetNsId(0));
    network.has_link(foreign);
    assert_eq!(vlan(&network), None);
    assert_eq!(network.link("veth2").unwrap().vlan, None);
}

#[test]
fn a_point_to_point_address_is_ours_and_not_the_peers() {
    let mut network = network();
    let mut message = local(2, "10.8.0.2", 32);
    message
        .attributes
        .push(AddressAttribute::Local(ip("10.8.0.1")));
    network.has_address(message.clone());
    assert_eq!(network.way("10.8.0.1"), "Local(2)");
    assert_eq!(network.way("10.8.0.2"), "Nothing");
    network.apply(0, &RouteNetlinkMessage::DelAddress(message));
    assert_eq!(network.way("10.8.0.1"), "Nothing");
    assert!(
        network.take_doubt(),
        "routes that preferred it are gone without a word"
    );
}

#[test]
fn senseless_messages_change_nothing() {
    let mut network = network();
    let mut wrong_family = route("10.0.0.0/8", 0, &[(2, None)]);
    wrong_family.header.address_family = AddressFamily::Inet6;
    let mut too_long = route("10.0.0.0/8", 0, &[(2, None)]);
    too_long.header.destination_prefix_length = 33;
    let group = neighbour(2, "224.0.0.251", NeighbourState::Noarp);
    let mut nobody = neighbour(2, "10.0.2.9", NeighbourState::Reachable);
    nobody.attributes.remove(0);
    network.moves(false, |n| {
        n.has_route(wrong_family)
            .has_route(too_long)
            .has_neighbour(nobody)
            .has_neighbour(group)
            .has_link(LinkMessage::default())
            .has_address(AddressMessage::default());
    });
    let none = RouteMessage::default();
    network.moves(false, |n| {
        n.has_route(none);
    });
}

/// Our longest-prefix match against the definition of it.
#[test]
fn lookups_agree_with_a_plain_scan() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut network = network();
    let mut plain: Vec<(IpNet, u32)> = Vec::new();
    for number in 0..400_u32 {
        let bits = u32::try_from(next() >> 32).unwrap() & 0x0003_FFFF | 0xC000_0000;
        let length = u8::try_from(next() % 25).unwrap() + 8;
        let prefix = IpNet::new(Ipv4Addr::from(bits).into(), length)
            .unwrap()
            .trunc();
        if plain.iter().any(|(known, _)| *known == prefix) {
            continue;
        }
        let gateway = Ipv4Addr::from(0x0A00_0200 + number % 250).to_string();
        network.has_route(route(&prefix.to_string(), 0, &[(2, Some(&gateway))]));
        plain.push((prefix, number % 250));
    }
    for _ in 0..2000 {
        let bits = u32::try_from(next() >> 32).unwrap() & 0x0003_FFFF | 0xC000_0000;
        let address = IpAddr::from(Ipv4Addr::from(bits));
        let best = plain
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address))
            .max_by_key(|(prefix, _)| prefix.prefix_len());
        let expected = match best {
            Some((_, number)) => format!("2 {}", Ipv4Addr::from(0x0A00_0200 + number)),
            None => "Nothing".to_owned(),
        };
        assert_eq!(network.way(&address.to_string()), expected, "{address}");
    }
    let unspecified = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    assert_eq!(network.next_hop(unspecified), Err(NoRoute::Nothing));
}
