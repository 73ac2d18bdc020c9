//! Promise: tshark dissects every packet that leaves without a complaint about checksums, lengths
//! or anything malformed. Where a case forwards a packet that came in broken, it must complain:
//! else it would see nothing.
//!
//! Without tshark this is skipped, loudly; with CI=true in the environment it fails.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use ringgate_golden::capture;
    use ringgate_golden::case::Case;
    use ringgate_golden::cases_directory;
    use ringgate_golden::world::run;

    /// What is switched on, and off because each packet is looked at alone.
    const PREFERENCES: [&str; 10] = [
        "ip.check_checksum:TRUE",
        "tcp.check_checksum:TRUE",
        "udp.check_checksum:TRUE",
        "udp.ignore_ipv6_zero_checksum:TRUE",
        "ip.defragment:FALSE",
        "ipv6.defragment:FALSE",
        "tcp.analyze_sequence_numbers:FALSE",
        "tcp.desegment_tcp_streams:FALSE",
        "tcp.try_heuristic_first:FALSE",
        "ip.use_geoip:FALSE",
    ];

    /// Ports of the cases: what is in their segments is no protocol.
    const PORTS: [&str; 8] = ["53", "80", "443", "5353", "8080", "5000", "6000", "40000"];

    /// Groups of its remarks that are complaints (`epan/proto.h`): checksum, malformed, and for
    /// protocol those that are warnings or errors.
    const CHECKSUM: u32 = 0x0100_0000;
    const PROTOCOL: u32 = 0x0900_0000;
    const MALFORMED: u32 = 0x0700_0000;
    const WARNING: u32 = 0x0060_0000;

    /// What it says of packets that senders made so, and that pass as they are.
    const OF_SENDERS: [&str; 1] = ["The non-SYN packet does contain a MSS option"];

    fn is_there() -> bool {
        let found = Command::new("tshark").arg("--version").output().is_ok();
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            found || !is_ci,
            "tshark is missing, and CI=true: scripts/setup installs it"
        );
        if !found {
            println!("SKIPPED: tshark is missing, so nobody else has looked at the packets");
        }
        found
    }

    /// What tshark complains about in each packet of a capture.
    fn complaints(capture: &Path) -> Vec<Vec<String>> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("gue.lua");
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(capture);
        command
            .arg("-X")
            .arg(format!("lua_script:{}", script.display()));
        for preference in PREFERENCES {
            command.args(["-o", preference]);
        }
        for (port, layer) in PORTS.iter().flat_map(|port| [(port, "udp"), (port, "tcp")]) {
            command.args(["-d", &format!("{layer}.port=={port},data")]);
        }
        command.args(["-T", "fields", "-E", "separator=/t", "-E", "aggregator=;"]);
        for field in ["message", "group", "severity"] {
            command.args(["-e", &format!("_ws.expert.{field}")]);
        }
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(of_packet).collect()
    }

    fn of_packet(line: &str) -> Vec<String> {
        let mut columns = line.split('\t').map(|column| column.split(';'));
        let mut next = || columns.next().into_iter().flatten();
        let messages: Vec<&str> = next().collect();
        let numbers = |column: Vec<&str>| -> Vec<u32> {
            column
                .iter()
                .filter_map(|number| number.parse().ok())
                .collect()
        };
        let groups = numbers(next().collect());
        let severities = numbers(next().collect());
        assert_eq!(groups.len(), severities.len(), "{line}");
        let each = messages.iter().zip(groups.iter().zip(&severities));
        let is_complaint = |group: u32, severity: u32| match group {
            CHECKSUM | MALFORMED => true,
            PROTOCOL => severity >= WARNING,
            _ => false,
        };
        let each = each.filter(|(message, _)| !OF_SENDERS.contains(message));
        each.filter(|(_, (group, severity))| is_complaint(**group, **severity))
            .map(|(message, _)| (*message).to_owned())
            .collect()
    }

    #[test]
    fn every_packet_that_leaves_is_right_to_tshark() {
        if !is_there() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (mut packets, mut lines) = (Vec::new(), Vec::new());
        for case in Case::all(&cases_directory(), &[]).unwrap() {
            for crossing in run(&case)
                .unwrap()
                .into_iter()
                .flat_map(|outcome| outcome.leaves)
            {
                let line = case.dissector.frame(&crossing.bytes).text(&case.names);
                lines.push(format!("{}: {line}", case.name));
                packets.push(crossing.bytes);
            }
        }
        let file = directory.path().join("all.pcap");
        capture::packets(&file, &packets).unwrap();
        let complaints = complaints(&file);
        assert_eq!(complaints.len(), packets.len());
        let mut disagreements = Vec::new();
        let mut broken = 0;
        for (line, complaints) in lines.iter().zip(&complaints) {
            // What came in broken, and that has to stay so.
            // What is not all in one packet cannot be judged by one.
            let is_broken = line.contains(" bad-") && !line.contains(" missing ");
            broken += usize::from(is_broken);
            if is_broken == complaints.is_empty() {
                disagreements.push(format!("{line}\n    {complaints:?}"));
            }
        }
        assert_eq!(disagreements, Vec::<String>::new());
        assert!(
            broken > 0,
            "no packet was wrong, so a tshark that sees nothing would pass"
        );
    }
}
