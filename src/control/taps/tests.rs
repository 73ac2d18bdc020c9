use std::process::{Command, Stdio};

use ringgate_conntrack::{Secret, Timeouts};
use ringgate_dataplane::backend::Health;
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::newcomers::Tables;
use ringgate_dataplane::rehearsal::{Scene, rehearse};
use ringgate_dataplane::route::{Fib, Link, Target};
use ringgate_dataplane::snapshot::Builder;
use ringgate_dataplane::wire::ethernet::Mac;

use super::capture::count;
use super::*;

const FILE: &str = r#"
    [[interface]]
    name = "front"
    [[interface]]
    name = "back"
    [[service]]
    name = "dns"
    listen = "10.100.0.1:53"
    protocol = "udp"
    forward = "nat"
      [[service.backend]]
      address = "10.2.0.11:5353"
"#;

/// 18:00 on 2025-11-21, UTC, and a bit.
const AT: u64 = 1_763_748_000_123_456_789;

fn snapshot() -> Snapshot {
    let model = ringgate_config::parse("test.toml", FILE).unwrap().model;
    let link = |last| Link {
        mac: Mac([2, 0, 0, 0, 9, last]),
        mtu: 1500,
        up: true,
    };
    let mut fib = Fib::new(vec![link(0), link(1)]);
    for (prefix, port) in [("10.1.0.0/24", 0), ("10.2.0.0/24", 1)] {
        let gateway = None;
        fib.insert_route(prefix.parse().unwrap(), Target::Port { port, gateway });
    }
    fib.insert_neighbour(1, "10.2.0.11".parse().unwrap(), Mac([2, 0, 0, 0, 2, 11]));
    let mut builder = Builder::default();
    let built = builder.build(&model, |_, _| Health::Up, &Arc::new(fib), false);
    built.unwrap()
}

/// A datagram of `last` to this port, from its Ethernet header on, with no UDP checksum.
fn datagram(port: u8, last: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 9, 0, 2, 0, 0, 0, 1, 2, 8, 0];
    let mut ip = vec![
        0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 100, 0, 1,
    ];
    let sum = ringgate_dataplane::wire::checksum::sum(&ip);
    let sum = !ringgate_dataplane::wire::checksum::fold(sum);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend([0, 9, 0, port, 0, 12, 0, 0, b'a', b'b', b'c', last]);
    frame
}

fn tool(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}: apt-get install tshark tcpdump"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// A capture of a packet that is forwarded and of one that is dropped, as a file.
fn captured(file: &std::path::Path) {
    let (snapshot, names) = (snapshot(), ["front".to_owned(), "back".to_owned()]);
    let scene = Scene {
        snapshot: &snapshot,
        tables: &Tables::new(64, Secret([1, 2]), Timeouts::default()).unwrap(),
        fragments: None,
        interfaces: 2,
        now: Millis(5000),
    };
    let telling = Telling {
        snapshot: &snapshot,
        interfaces: &names,
        now: Seconds(5),
    };
    let mut capture = Capture::begin(&names, 2048).unwrap();
    let mut pieces = vec![capture.take()];
    for (later, port) in [(0, 53), (1, 54)] {
        let record = rehearse(&datagram(port, b'd'), 0, &scene).unwrap();
        let comment = telling.comment(&record);
        capture.put(&record, AT + later, &comment).unwrap();
        pieces.push(capture.take());
    }
    capture.end(2, 7, AT).unwrap();
    pieces.push(capture.take());
    let counted: Vec<_> = pieces.iter().map(|piece| count(piece)).collect();
    assert_eq!(counted, [(0, None), (2, None), (1, None), (0, Some(7))]);
    std::fs::write(file, pieces.concat()).unwrap();
}

#[test]
fn a_capture_is_read_by_those_who_read_captures() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcapng");
    captured(&path);
    let file = path.to_str().unwrap();
    let fields = "frame.interface_name frame.time_epoch ip.dst udp.dstport frame.comment";
    let mut arguments = vec!["-r", file, "-T", "fields", "-E", "separator=|"];
    fields
        .split(' ')
        .for_each(|field| arguments.extend(["-e", field]));
    let told = tool("tshark", &arguments);
    let lines: Vec<&str> = told.lines().collect();
    let forwarded = "forwarded by back; service dns; backend 10.2.0.11:5353; worker 0";
    assert_eq!(lines.len(), 3, "{told}");
    assert!(
        lines[0].starts_with("front in|1763748000.123456789|"),
        "{told}"
    );
    assert!(
        lines[2].starts_with("front in|1763748000.123456790|"),
        "{told}"
    );
    assert!(
        lines[0].ends_with(&format!("|10.100.0.1|53|{forwarded}")),
        "{told}"
    );
    assert!(lines[1].starts_with("back out|"), "{told}");
    assert!(
        lines[1].ends_with(&format!("|10.2.0.11|5353|{forwarded}")),
        "{told}"
    );
    assert!(
        lines[2].contains("|10.100.0.1|54|dropped: not_for_us: "),
        "{told}"
    );
    let filter = "frame.comment contains \"not_for_us\"";
    let dropped = tool("tshark", &["-r", file, "-Y", filter]);
    assert_eq!(dropped.lines().count(), 1, "{dropped}");
    assert_eq!(tool("tcpdump", &["-nr", file]).lines().count(), 3);
    let summary = tool("capinfos", &[file]);
    for part in [
        "pcapng",
        "Number of packets:   3",
        "Number of interfaces in file: 4",
        "Name = front in",
        "Name = back out",
        "nanoseconds",
    ] {
        assert!(summary.contains(part), "{part}: {summary}");
    }
}

#[test]
fn times_are_told_to_the_nanosecond() {
    assert_eq!(nanos_utc(AT), "2025-11-21T18:00:00.123456789Z");
    assert_eq!(nanos_utc(1), "1970-01-01T00:00:00.000000001Z");
}
