//! Promise: `scripts/pktgen` tells the kernel's generator what makes as many flows as were asked for,
//! no flow from two threads. What it would write is looked at here; it sends in the virtual machine of
//! `scripts/peers-in-guest`, where Ringgate's count of flows is held against it.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::process::{Command, Output, Stdio};

    /// What one device is told, but for flags.
    type Told = BTreeMap<String, String>;

    fn pktgen(words: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/pktgen");
        let far = "--interface lo --far 02:00:00:00:00:01 --dry-run";
        let mut command = Command::new(script);
        command
            .args(far.split(' '))
            .args(words.split(' '))
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// What each thread's device is told: lines like `/proc/net/pktgen/lo@0: count 0`.
    fn threads(words: &str) -> Vec<Told> {
        let output = pktgen(words);
        assert!(output.status.success(), "{output:?}");
        let mut threads: Vec<Told> = Vec::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let (file, words) = line.split_once(": ").unwrap();
            let (name, value) = words.split_once(' ').unwrap();
            if file.contains("kpktgend_") {
                threads.push(Told::from([("thread".to_owned(), file.to_owned())]));
            } else {
                let told = threads.last_mut().unwrap();
                told.insert(name.to_owned(), value.to_owned());
            }
        }
        threads
    }

    fn number(told: &Told, name: &str) -> u32 {
        told[name].parse().unwrap()
    }

    fn address(told: &Told, name: &str) -> u32 {
        told[name].parse::<Ipv4Addr>().unwrap().into()
    }

    /// Every client that a thread sends from, as pktgen counts: both at once, the last address included and the
    /// last port not, unless it is the only one.
    fn clients(told: &Told) -> HashSet<(u32, u32)> {
        let (first, last) = (address(told, "src_min"), address(told, "src_max"));
        let (low, high) = (number(told, "udp_src_min"), number(told, "udp_src_max"));
        let ports = (high - low).max(1);
        assert!(high <= 65_535, "{told:?}");
        let count = last - first + 1;
        (0..count * ports)
            .map(|n| (first + n % count, low + n % ports))
            .collect()
    }

    #[test]
    fn as_many_flows_as_asked_for_and_none_twice() {
        for (flows, queues) in [(1, 1), (1_000, 1), (100_000, 1), (100_000, 2), (250_001, 3)] {
            let listed = Vec::from_iter((0..queues).map(|queue: u32| queue.to_string()));
            let list = listed.join(",");
            let output = threads(&format!(
                "--to 10.100.0.1:53 --from 10.1.0.250 --flows {flows} --queues {list} --cpus {list}"
            ));
            assert_eq!(output.len(), listed.len());
            let each = Vec::from_iter(output.iter().map(clients));
            let all: HashSet<_> = each.iter().flatten().copied().collect();
            let sum: usize = each.iter().map(HashSet::len).sum();
            assert_eq!(all.len(), sum, "{flows} flows: threads share some");
            // Rounded up for each thread, and for numbers without a common divisor.
            let most = flows + 10 * queues as usize;
            assert!((flows..=most).contains(&sum), "{flows} became {sum}");
        }
    }

    #[test]
    fn each_thread_has_its_queue_its_cpu_and_its_share() {
        let told = threads(
            "--to 10.100.0.1:53 --from 10.1.0.2 --queues 4,6 --cpus 1,3 --rate 1001 --size 128 --count 7",
        );
        for (thread, (queue, cpu)) in told.iter().zip([("4", "1"), ("6", "3")]) {
            assert_eq!(thread["thread"], format!("/proc/net/pktgen/kpktgend_{cpu}"));
            let words = [
                "queue_map_min",
                "queue_map_max",
                "ratep",
                "pkt_size",
                "count",
            ];
            let found = words.map(|name| thread[name].as_str());
            assert_eq!(found, [queue, queue, "501", "124", "4"]);
            assert_eq!(
                (address(thread, "dst_min"), number(thread, "udp_dst_min")),
                (address(thread, "dst_max"), 53)
            );
        }
    }

    #[test]
    fn over_ipv6_threads_divide_the_ports() {
        let told =
            threads("--to [fd00:100::1]:53 --from fd00:1::2 --flows 60000 --queues 0,1 --cpus 0,1");
        let spans = Vec::from_iter(
            told.iter()
                .map(|one| (number(one, "udp_src_min"), number(one, "udp_src_max"))),
        );
        assert_eq!(spans, [(1_024, 31_024), (31_024, 61_024)]);
        assert!(
            told.iter()
                .all(|one| one["dst6"] == "fd00:100::1" && one["src6"] == "fd00:1::2")
        );
        let many =
            pktgen("--to [fd00:100::1]:53 --from fd00:1::2 --flows 70000 --queues 0,1 --cpus 0,1");
        assert_eq!(many.status.code(), Some(2), "{many:?}");
    }

    #[test]
    fn mistakes_are_refused() {
        for (words, why) in [
            ("--to 10.100.0.1", "an address and a port"),
            ("--to fd00::1:53", "in brackets"),
            ("--to 10.100.0.1:70000", "65535"),
            ("--to 10.100.0.1:53 --size 63", "from 64"),
            ("--to 10.100.0.1:53 --flows 0", "at least one"),
            (
                "--to 10.100.0.1:53 --seconds 1 --count 1",
                "exclude each other",
            ),
            ("--to 10.100.0.1:53 --rate fast", "a number"),
            (
                "--to 10.100.0.1:53 --from 10.0.0.1 --queues 0 --cpus 0,1",
                "as many",
            ),
        ] {
            let output = pktgen(words);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{words}: {said}");
            assert!(said.contains(why), "{words}: {said}");
        }
    }
}
