use super::*;
use crate::wire::vlan::{TPID_CUSTOMER, Tag};

const NEAR: Mac = Mac([2, 0, 0, 0, 0, 1]);
const FAR: Mac = Mac([2, 0, 0, 0, 0, 2]);
const OWN: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn address(text: &str) -> ([u64; 2], Family) {
    let address: IpAddr = text.parse().unwrap();
    let family = if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    (words(address), family)
}

fn hop(fib: &Fib, to: &str) -> Result<Hop, Miss> {
    let (address, family) = address(to);
    fib.hop(address, family).copied()
}

fn fib() -> Fib {
    let link = Link {
        mac: OWN,
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(vec![link, Link { up: false, ..link }]);
    let port = |port, gateway: Option<&str>| Target::Port {
        port,
        gateway: gateway.map(|text| text.parse().unwrap()),
    };
    for (prefix, target) in [
        ("10.1.0.0/24", port(0, None)),
        ("0.0.0.0/0", port(0, Some("10.1.0.1"))),
        ("10.9.0.0/16", Target::Nowhere),
        ("10.8.0.0/16", port(1, None)),
        ("10.7.0.0/16", port(7, None)),
        ("fd00::/64", port(0, None)),
        ("10.6.0.0/16", port(0, Some("fd00::1"))),
    ] {
        fib.insert_route(prefix.parse().unwrap(), target);
    }
    fib.insert_neighbour(0, "10.1.0.1".parse().unwrap(), FAR);
    fib.insert_neighbour(0, "10.1.0.5".parse().unwrap(), NEAR);
    fib.insert_neighbour(0, "fd00::1".parse().unwrap(), FAR);
    fib
}

#[test]
fn the_longest_prefix_wins_and_gateways_are_followed() {
    let to = |destination| Hop {
        port: 0,
        destination,
        source: OWN,
        mtu: 1500,
        tags: Tags::NONE,
        keeps_tags: false,
    };
    let fib = fib();
    assert_eq!(hop(&fib, "10.1.0.5"), Ok(to(NEAR)));
    assert_eq!(hop(&fib, "192.0.2.1"), Ok(to(FAR)));
    assert_eq!(hop(&fib, "fd00::1"), Ok(to(FAR)));
    assert_eq!(
        hop(&fib, "10.6.0.1"),
        Ok(to(FAR)),
        "an IPv6 gateway for IPv4 (RFC 8950)"
    );
}

/// The fib above with a VLAN device on its first interface, which has an address.
fn with_vlan() -> (Fib, LinkIndex, Tags) {
    let mut fib = fib();
    let tags = Tags::one(Tag {
        tpid: TPID_CUSTOMER,
        tci: 100,
    });
    let device = Link {
        mac: Mac([2, 0, 0, 0, 0, 100]),
        mtu: 1496,
        up: true,
    };
    let link = fib.add_vlan(0, tags, device);
    fib.insert_route("10.100.0.0/24".parse().unwrap(), through(link, None, None));
    fib.insert_neighbour(link, "10.100.0.5".parse().unwrap(), NEAR);
    (fib, link, tags)
}

fn through(link: LinkIndex, gateway: Option<&str>, mtu: Option<u32>) -> Target {
    Target::Link(Exit {
        link,
        gateway: gateway.map(|text| text.parse().unwrap()),
        mtu,
        source: None,
    })
}

#[test]
fn what_goes_through_a_vlan_device_leaves_by_its_interface_with_its_tags() {
    let (mut fib, link, tags) = with_vlan();
    assert_eq!(
        (fib.links().len(), link),
        (2, 2),
        "the device is no interface"
    );
    let expected = Hop {
        port: 0,
        destination: NEAR,
        source: Mac([2, 0, 0, 0, 0, 100]),
        mtu: 1496,
        tags,
        keeps_tags: false,
    };
    assert_eq!(hop(&fib, "10.100.0.5"), Ok(expected));
    let (address, family) = address("10.100.0.9");
    let missing = Miss::NoNeighbour(Neighbour { link, address });
    assert_eq!(
        hop(&fib, "10.100.0.9"),
        Err(missing),
        "to be asked for there"
    );
    // The same neighbour on the interface itself is another one.
    fib.insert_neighbour(0, "10.100.0.9".parse().unwrap(), FAR);
    assert_eq!(hop(&fib, "10.100.0.9"), Err(missing));
    assert_eq!(fib.hop_on_link(address, family).copied(), Err(missing));
    let down = Link {
        mac: OWN,
        mtu: 1500,
        up: false,
    };
    let other = fib.add_vlan(0, tags, down);
    fib.insert_route("10.101.0.0/24".parse().unwrap(), through(other, None, None));
    assert_eq!(hop(&fib, "10.101.0.1"), Err(Miss::NoRoute));
}

#[test]
fn a_routes_mtu_bounds_the_hop_in_any_order_of_routes_and_neighbours() {
    let routes = [
        (
            "10.20.0.0/16",
            through(0, Some("10.1.0.1"), Some(1400)),
            1400,
        ),
        (
            "10.21.0.0/16",
            through(0, Some("10.1.0.1"), Some(1500)),
            1500,
        ),
        (
            "10.22.0.0/16",
            through(0, Some("10.1.0.1"), Some(9000)),
            1500,
        ),
        ("10.23.0.0/16", through(0, Some("10.1.0.1"), Some(20)), 68),
        ("10.24.0.0/24", through(0, None, Some(1300)), 1300),
        ("fd24::/64", through(0, None, Some(1300)), 1300),
        ("fd25::/64", through(0, Some("fd00::1"), Some(576)), 1280),
        ("fd26::/64", through(0, None, None), 1500),
    ];
    let neighbours = ["10.24.0.1", "fd24::1", "fd26::1"];
    for routes_first in [true, false] {
        let mut fib = fib();
        let know = |fib: &mut Fib| {
            for neighbour in neighbours {
                fib.insert_neighbour(0, neighbour.parse().unwrap(), NEAR);
            }
        };
        if !routes_first {
            know(&mut fib);
        }
        for (prefix, target, _) in routes {
            fib.insert_route(prefix.parse().unwrap(), target);
        }
        if routes_first {
            know(&mut fib);
            fib.insert_neighbour(0, "10.1.0.1".parse().unwrap(), FAR);
        }
        for (prefix, _, mtu) in routes {
            let prefix: IpNet = prefix.parse().unwrap();
            let to = prefix
                .hosts()
                .nth(usize::from(prefix.prefix_len() > 32))
                .unwrap();
            let found = hop(&fib, &to.to_string()).unwrap();
            assert_eq!(found.mtu, mtu, "{prefix}, routes first: {routes_first}");
        }
        assert_eq!(
            hop(&fib, "192.0.2.1").unwrap().mtu,
            1500,
            "the same gateway unbounded"
        );
        let (address, _) = address("10.24.0.9");
        let missing = Miss::NoNeighbour(Neighbour { link: 0, address });
        assert_eq!(hop(&fib, "10.24.0.9"), Err(missing));
    }
}

#[test]
fn the_source_is_the_routes_else_the_devices() {
    let (mut fib, link, _) = with_vlan();
    let own = |link, text: &str| {
        let address: IpNet = text.parse().unwrap();
        OwnAddress {
            link,
            address: address.addr(),
            prefix_len: address.prefix_len(),
            scope: 0,
            secondary: false,
        }
    };
    fib.insert_address(own(None, "192.0.2.1/32"));
    fib.insert_address(own(Some(0), "10.1.0.2/24"));
    fib.insert_address(own(Some(link), "10.100.0.1/24"));
    fib.insert_address(own(Some(0), "fd00::2/64"));
    let preferring = Target::Link(Exit {
        link: 0,
        gateway: Some("10.1.0.1".parse().unwrap()),
        mtu: None,
        source: Some("192.0.2.7".parse().unwrap()),
    });
    fib.insert_route("203.0.113.0/24".parse().unwrap(), preferring);
    for (to, source) in [
        ("203.0.113.9", Some("192.0.2.7")),
        ("8.8.8.8", Some("10.1.0.2")),
        ("10.100.0.9", Some("10.100.0.1")),
        ("fd00::9", Some("fd00::2")),
        ("10.9.1.1", None),
        ("2001:db8::1", None),
    ] {
        let (destination, family) = address(to);
        let source = source.map(|source| address(source).0);
        assert_eq!(fib.source(destination, family), source, "{to}");
    }
}

#[test]
fn each_kind_of_miss_is_told_apart() {
    let fib = fib();
    for nowhere in ["10.9.1.1", "10.8.0.1", "10.7.0.1", "2001:db8::1"] {
        assert_eq!(hop(&fib, nowhere), Err(Miss::NoRoute), "{nowhere}");
    }
    let (address, _) = address("10.1.0.77");
    let missing = Miss::NoNeighbour(Neighbour { link: 0, address });
    assert_eq!(hop(&fib, "10.1.0.77"), Err(missing));
}
