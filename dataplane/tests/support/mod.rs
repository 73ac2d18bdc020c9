//! A world of veth pairs in a namespace of its own, packets, and the two ends of the wire.

use std::net::{IpAddr, SocketAddr};
use std::panic;
use std::process::Command;
use std::slice;
use std::thread;

use etherparse::PacketBuilder;
use nix::sched::{CloneFlags, unshare};
use ringgate_dataplane::port::{BATCH, Batch, Port, XskPort};
use ringgate_dataplane::steered::{
    Steered, SteeredPorts, SteeredReturn, SteeredService, SteeredWay,
};
use ringgate_dataplane::xsk::{Options, Pool, RingSizes};

/// Given to `a0`, so that the kernel takes what is addressed to it.
const MAC_A0: [u8; 6] = [2, 0, 0, 0, 0, 0xa0];

const MAC_PEER: [u8; 6] = [2, 0, 0, 0, 0, 0xa1];

/// Runs `test` on a thread in a new network namespace, which ends with the thread and what it
/// holds.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let result = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN");
        test();
    })
    .join();
    if let Err(reason) = result {
        panic::resume_unwind(reason);
    }
}

/// `ip` with these arguments, in the thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A veth pair with `queues` queues, up, with room behind it so that a full ring holds frames back
/// instead of losing them.
pub(crate) fn veth(name: &str, peer: &str, queues: u32) {
    let queues = format!("numtxqueues {queues} numrxqueues {queues}");
    ip(&format!(
        "link add {name} {queues} type veth peer name {peer} {queues}"
    ));
    if name == "a0" {
        let mac = MAC_A0.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("link set {name} address {mac}"));
    }
    for end in [name, peer] {
        ip(&format!("link set {end} up"));
        let status = Command::new("tc")
            .args([
                "qdisc", "replace", "dev", end, "root", "pfifo", "limit", "1000",
            ])
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// Whether `ip link` shows an XDP program.
pub(crate) fn attached_program(name: &str) -> bool {
    let output = Command::new("ip")
        .args(["link", "show", "dev", name])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).contains("prog/xdp")
}

/// Options with small rings, so that they fill in a test.
pub(crate) fn small() -> Options {
    let rings = RingSizes {
        fill: 256,
        rx: 128,
        tx: 128,
        completion: 128,
    };
    Options {
        rings,
        ..Options::default()
    }
}

/// Services at these addresses and ports, each with its protocol, and NAT backends at those. Their
/// fragments without ports are not wanted.
pub(crate) fn steered(services: &[(&str, u8)], backends: &[(&str, u8)]) -> Steered {
    let services = services
        .iter()
        .map(|&(at, protocol)| SteeredService::at(at.parse().unwrap(), protocol));
    let returns = backends.iter().map(|&(at, protocol)| {
        let at: SocketAddr = at.parse().unwrap();
        SteeredReturn {
            address: at.ip(),
            ports: SteeredPorts::one(at.port()),
            protocol,
            way: SteeredWay::Nat,
            fragments: false,
        }
    });
    Steered {
        services: services.collect(),
        returns: returns.collect(),
        ..Steered::default()
    }
}

/// From where to where; both of one family.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

fn builder(flow: Flow) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(MAC_PEER, MAC_A0);
    match (flow.from.ip(), flow.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families in one flow"),
    }
}

/// A UDP packet from its Ethernet header on.
pub(crate) fn udp(flow: Flow, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    builder(flow)
        .udp(flow.from.port(), flow.to.port())
        .write(&mut packet, payload)
        .unwrap();
    packet
}

/// A SYN.
pub(crate) fn tcp(flow: Flow) -> Vec<u8> {
    let mut packet = Vec::new();
    let syn = builder(flow)
        .tcp(flow.from.port(), flow.to.port(), 1, 1000)
        .syn();
    syn.write(&mut packet, &[]).unwrap();
    packet
}

/// The IPv4 packet with `words` times four bytes of no-operation options.
pub(crate) fn with_ip_options(packet: &[u8], words: u8) -> Vec<u8> {
    let options = vec![1; 4 * usize::from(words)];
    let mut packet = [&packet[..34], &options, &packet[34..]].concat();
    packet[14] = 0x45 + words;
    packet
}

/// The IPv4 packet as a fragment at `offset` (in 8 bytes).
pub(crate) fn as_fragment(packet: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let field = offset | if more { 0x2000 } else { 0 };
    packet[20..22].copy_from_slice(&field.to_be_bytes());
    packet
}

/// The packet with an 802.1Q tag.
pub(crate) fn tagged(packet: &[u8], vlan: u16) -> Vec<u8> {
    [
        &packet[..12],
        &[0x81, 0],
        &vlan.to_be_bytes(),
        &packet[12..],
    ]
    .concat()
}

/// Sends `packets` and sees to it that the device has taken them, unless it cannot.
pub(crate) fn send(port: &mut XskPort, pool: &mut Pool, packets: &[Vec<u8>]) {
    for packets in packets.chunks(BATCH) {
        port.recycle(pool);
        let mut batch = Batch::new();
        for packet in packets {
            let mut frame = pool.take().unwrap();
            assert_eq!(frame.fill_from(packet), packet.len());
            batch.push(frame);
        }
        assert_eq!(port.transmit(&mut batch), packets.len());
        for _ in 0..100 {
            let before = port.counters();
            port.kick();
            port.recycle(pool);
            let after = port.counters();
            let stuck = after.kick_down > before.kick_down || after.kick_gone > before.kick_gone;
            if port.transmitting() == 0 || stuck {
                break;
            }
        }
    }
}

/// Receives until there are `count` packets, or for some seconds; then a moment more, for what
/// should not be there.
pub(crate) fn receive(port: &mut XskPort, pool: &mut Pool, count: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut batch = Batch::new();
    for patience in [(300, 10), (1, 20)] {
        for _ in 0..patience.0 {
            if patience.0 > 1 && packets.len() >= count {
                break;
            }
            XskPort::wait(slice::from_mut(port), patience.1);
            port.receive(pool, &mut batch);
            for frame in batch.drain(..) {
                packets.push(frame.bytes().to_vec());
                pool.give(frame);
            }
            port.recycle(pool);
        }
    }
    packets
}
