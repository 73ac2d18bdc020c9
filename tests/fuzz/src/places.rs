//! Who sends and who is sent to: addresses of clients, services, backends and far ends in the scene.

use std::net::IpAddr;

use crate::choices::Choices;

/// An address as it stands in a packet: all of it for IPv6, the first four bytes for IPv4.
pub type Address = [u8; 16];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Address {
    [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

const fn v6(network: u8, host: u8) -> Address {
    let mut address = [0; 16];
    address[0] = 0xFD;
    address[3] = network;
    address[15] = host;
    address
}

/// Clients, services, backends and strangers over IPv4. `fd00:64::` is the services' network over
/// IPv6.
const V4: [Address; 20] = [
    v4(10, 1, 0, 2),
    v4(10, 1, 0, 3),
    v4(10, 100, 0, 1),
    v4(10, 100, 0, 2),
    v4(10, 100, 0, 3),
    v4(10, 100, 0, 4),
    v4(10, 100, 0, 5),
    v4(10, 100, 0, 6),
    v4(10, 100, 0, 7),
    v4(10, 101, 0, 8),
    v4(10, 2, 0, 11),
    v4(10, 2, 0, 12),
    v4(10, 3, 0, 11),
    v4(10, 2, 0, 1),
    v4(10, 9, 0, 1),
    v4(10, 1, 0, 1),
    v4(192, 0, 2, 9),
    v4(127, 0, 0, 1),
    v4(224, 0, 0, 1),
    v4(0, 0, 0, 0),
];

const V6: [Address; 20] = [
    v6(1, 2),
    v6(1, 3),
    v6(100, 1),
    v6(100, 2),
    v6(100, 3),
    v6(100, 4),
    v6(100, 5),
    v6(100, 6),
    v6(100, 7),
    v6(101, 8),
    v6(2, 0x11),
    v6(2, 0x12),
    v6(3, 0x11),
    v6(2, 1),
    v6(9, 1),
    v6(1, 1),
    [0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xFF, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 100, 0, 1],
];

/// Ports of the services and their backends, and of clients.
const PORTS: [u16; 12] = [
    4242, 80, 53, 8080, 5353, 443, 8000, 8001, 0, 6080, 1024, 65535,
];

/// An address that means something, mostly.
pub fn address(choices: &mut Choices<'_>, is_v4: bool) -> Address {
    match choices.below(24) {
        known @ 0..20 => {
            if is_v4 {
                V4[known]
            } else {
                V6[known]
            }
        }
        _ => choices.octets(),
    }
}

/// A port that means something, mostly.
pub fn port(choices: &mut Choices<'_>) -> u16 {
    match choices.below(14) {
        known @ 0..12 => PORTS[known],
        _ => choices.word(),
    }
}

/// The same address, for others.
#[must_use]
pub fn ip(address: Address, is_v4: bool) -> IpAddr {
    if is_v4 {
        let [a, b, c, d, ..] = address;
        [a, b, c, d].into()
    } else {
        address.into()
    }
}
