//! Promise: `scripts/tune-host` sets what its help says, says each change with what was there before, leaves
//! what a device lacks, and `undo` gives everything back in the opposite order. On a host that is
//! made up: a tree of sysfs and an `ethtool` that answers from files and notes what it is told; and
//! on a veth, for what that has. No physical NIC was at hand.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    use ringgate_playground::{Playground, run};
    use tempfile::TempDir;

    /// Answers questions (`-l eth0`) from a file, and writes everything else down.
    const ETHTOOL: &str = r#"#!/bin/sh
case $1 in
-l | -x | -c | -k) file=$1 ;;
-n) file=$1$4 ;;
*) echo "ethtool $*" >>"$FAKE/calls"; exit 0 ;;
esac
cat "$FAKE/$file" 2>/dev/null || { echo "netlink error: Operation not supported" >&2; exit 76; }
"#;

    /// irqbalance runs.
    const SYSTEMCTL: &str =
        "#!/bin/sh\n[ \"$1\" = is-active ] || echo \"systemctl $*\" >>\"$FAKE/calls\"\n";

    const CHANNELS: &str = "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t8\n\
        Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\tNOW\n";
    const ADDRESSES: &str =
        "UDP over IPV4 flows use these fields for computing Hash flow key:\nIP SA\nIP DA\n\n";
    const PORTS: &str = "TCP over IPV4 flows use these fields for computing Hash flow key:\nIP SA\nIP DA\n\
        L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n\n";
    const COALESCING: &str =
        "Coalesce parameters for eth0:\nAdaptive RX: on  TX: off\nrx-usecs:\t50\nrx-frames:\tn/a\n";
    const FEATURES: &str = "Features for eth0:\nlarge-receive-offload: on\nrx-gro-hw: off [fixed]\nrx-vlan-offload: on [fixed]\n";
    const INTERRUPTS: &str = "            CPU0       CPU1       CPU2       CPU3\n  9:  1 0 0 0   IO-APIC   9-fasteoi   acpi\n\
        40:  5 0 0 0  IR-PCI-MSI 1-edge      eth0-async\n 41:  5 0 0 0  IR-PCI-MSI 2-edge      eth0-TxRx-0\n\
        42:  5 0 0 0  IR-PCI-MSI 3-edge      eth0-TxRx-1\n 43:  5 0 0 0  IR-PCI-MSI 4-edge      eth0-TxRx-2\n\
        51:  5 0 0 0  IR-PCI-MSI 5-edge      eth1-TxRx-0\n";
    const CONFIGURATION: &str = "# cores = [7]\n[balancer]\nadmin = \"/run/x\" # cores = [6]\ncores = [\n  2, # the first\n  3,\n]\n\
        [[interface]]\nname = \"eth0\"\n[[service]]\nname = \"web\"\ncores = [5]\n";

    struct Host(TempDir);

    impl Host {
        /// A NIC with everything, `queues` of 8 queues in use, on a machine of four CPUs.
        fn with_a_good_nic(queues: u32) -> Self {
            let host = Self::with_a_poor_nic();
            host.write("-l", &CHANNELS.replace("NOW", &queues.to_string()));
            let entries: Vec<String> = (0..8)
                .map(|entry| format!("{:5}", entry % queues))
                .collect();
            host.write("-x", &format!("RX flow hash indirection table for eth0 with {queues} RX ring(s):\n    0: {}\nRSS hash key:\n6d:5a\n\
                RSS hash function:\n    toeplitz: on\nRSS input transformation:\n    symmetric-xor: off\n", entries.concat()));
            host.write("-ntcp4", PORTS);
            host.write("-nudp4", ADDRESSES);
            host.write("-ntcp6", PORTS);
            host.write("-c", COALESCING);
            host.write("-k", FEATURES);
            host.write("root/proc/interrupts", INTERRUPTS);
            for number in [9, 40, 41, 42, 43, 51] {
                host.write(
                    &format!("root/proc/irq/{number}/smp_affinity_list"),
                    "0-3\n",
                );
            }
            for number in [40, 41, 42, 43] {
                host.write(
                    &format!("root/sys/class/net/eth0/device/msi_irqs/{number}"),
                    "msix\n",
                );
            }
            for (file, value) in [
                ("napi_defer_hard_irqs", "0\n"),
                ("gro_flush_timeout", "0\n"),
            ] {
                host.write(&format!("root/sys/class/net/eth0/{file}"), value);
            }
            for cpu in 0..4 {
                host.write(
                    &format!("root/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"),
                    "powersave\n",
                );
                host.write(
                    &format!("root/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"),
                    if cpu % 2 == 0 { "0,2\n" } else { "1,3\n" },
                );
            }
            host.write(
                "root/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
                "0\n",
            );
            host
        }

        /// A NIC that answers no question.
        fn with_a_poor_nic() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            for (name, text) in [("ethtool", ETHTOOL), ("systemctl", SYSTEMCTL)] {
                host.write(&format!("bin/{name}"), text);
                fs::set_permissions(
                    host.path(&format!("bin/{name}")),
                    fs::Permissions::from_mode(0o755),
                )
                .unwrap();
            }
            host.write("ringgate.toml", CONFIGURATION);
            for directory in [
                "root/sys/class/net/eth0",
                "root/sys/devices/system/cpu/cpu2",
                "root/sys/devices/system/cpu/cpu3",
            ] {
                fs::create_dir_all(host.path(directory)).unwrap();
            }
            host
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap_or_default()
        }

        /// Runs the script, and returns what ethtool and systemctl were told meanwhile.
        fn tune(&self, words: &[&str]) -> (Output, Vec<String>) {
            drop(fs::remove_file(self.path("calls")));
            let path = format!(
                "{}:{}",
                self.path("bin").display(),
                std::env::var("PATH").unwrap()
            );
            let output = run(Command::new(script())
                .args(words)
                .env("PATH", path)
                .env("FAKE", self.0.path())
                .env("RINGGATE_SYSFS", self.path("root")));
            (
                output,
                self.read("calls").lines().map(str::to_owned).collect(),
            )
        }

        /// With the configuration, and what else is said.
        fn tune_well(&self, words: &[&str]) -> (String, Vec<String>) {
            let configuration = self.path("ringgate.toml");
            let all = [&["--config", configuration.to_str().unwrap()], words].concat();
            let (output, calls) = self.tune(&all);
            assert!(output.status.success(), "{output:?}");
            (text(&output.stdout), calls)
        }

        /// Every file of the made-up kernel.
        fn tree(&self) -> BTreeMap<PathBuf, String> {
            let mut found = BTreeMap::new();
            collect(&self.path("root"), &mut found);
            found
        }
    }

    fn collect(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, found);
            } else {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }

    /// What is asked of ethtool and systemd for it.
    const FORTH: [&str; 9] = [
        // From four queues to two: first nothing may point to those that go.
        "ethtool -X eth0 equal 2",
        "ethtool -L eth0 combined 2",
        "ethtool -N eth0 rx-flow-hash udp4 sdfn",
        "ethtool -X eth0 xfrm symmetric-xor",
        "ethtool -C eth0 adaptive-rx off",
        "ethtool -C eth0 rx-usecs 8",
        "ethtool -K eth0 large-receive-offload off",
        "systemctl daemon-reload",
        "systemctl restart irqbalance",
    ];

    #[test]
    fn a_nic_is_fitted_to_the_workers_and_given_back() {
        let host = Host::with_a_good_nic(4);
        let before = host.tree();
        let (said, calls) = host.tune_well(&["--hugepages", "64", "--busy-poll", "--symmetric"]);
        assert_eq!(calls, FORTH, "{said}");
        let lines: Vec<&str> = said.lines().collect();
        for line in [
            "eth0 queues: 4 -> 2",
            "eth0 receive table: over 4 queues -> over 2 queues",
            "eth0 hash of tcp4: sdfn",
            "eth0 hash of udp4: sd -> sdfn",
            "eth0 hash of udp6: left as it is: the device does not tell it (ethtool -n)",
            "eth0 symmetric hash: off -> on",
            "eth0 interrupt 41, of queue 0, on CPU: 0-3 -> 2",
            "eth0 interrupt 42, of queue 1, on CPU: 0-3 -> 3",
            "eth0 adaptive coalescing: on -> off",
            "eth0 rx-usecs: 50 -> 8",
            "eth0 large-receive-offload: on -> off",
            "eth0 rx-vlan-offload: left as it is: the device has it always on",
            "eth0 gro_flush_timeout: 0 -> 200000",
            "irqbalance: moves every interrupt -> leaves 41 42",
            "CPU 3 governor: powersave -> performance",
            "huge pages: 0 -> 64",
        ] {
            assert!(lines.contains(&line), "{line:?} is not in\n{said}");
        }
        assert_eq!(host.read("root/proc/irq/41/smp_affinity_list"), "2\n");
        assert_eq!(
            host.read("root/proc/irq/43/smp_affinity_list"),
            "0-3\n",
            "of a queue without a worker"
        );
        assert_eq!(
            host.read("root/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"),
            "powersave\n",
            "of another CPU"
        );
        let drop_in = host.read("root/run/systemd/system/irqbalance.service.d/ringgate.conf");
        assert!(
            drop_in.ends_with(" --foreground --banirq=41 --banirq=42\n"),
            "{drop_in}"
        );

        let (again, _) = host.tune(&["--interface", "eth0", "--cores", "2"]);
        assert_eq!(
            again.status.code(),
            Some(1),
            "tuned twice, the first picture would be lost"
        );
        is_given_back(&host);
        assert_eq!(host.tree(), before);
    }

    /// In the opposite order.
    fn is_given_back(host: &Host) {
        let (undone, calls) = host.tune(&["undo"]);
        assert!(undone.status.success(), "{undone:?}");
        let back = [
            "systemctl daemon-reload",
            "systemctl restart irqbalance",
            "ethtool -K eth0 large-receive-offload on",
            "ethtool -C eth0 rx-usecs 50",
            "ethtool -C eth0 adaptive-rx on",
            "ethtool -X eth0 xfrm none",
            "ethtool -N eth0 rx-flow-hash udp4 sd",
            "ethtool -L eth0 combined 4",
            "ethtool -X eth0 equal 4",
        ];
        assert_eq!(calls, back);
    }

    #[test]
    fn queues_grow_before_the_table_does() {
        let host = Host::with_a_good_nic(1);
        let (said, calls) = host.tune_well(&[]);
        assert_eq!(
            calls[..2],
            ["ethtool -L eth0 combined 2", "ethtool -X eth0 equal 2"],
            "{said}"
        );
        assert!(
            !said.contains("gro_flush_timeout") && !said.contains("symmetric"),
            "nobody asked: {said}"
        );
    }

    #[test]
    fn a_dry_run_says_the_same_and_changes_nothing() {
        let host = Host::with_a_good_nic(4);
        let before = host.tree();
        let (said, calls) = host.tune_well(&["--dry-run"]);
        assert_eq!((calls, host.tree()), (Vec::new(), before));
        let (done, _) = host.tune_well(&[]);
        let all_but_the_last = |text: &str| {
            text.lines()
                .rev()
                .skip(1)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(all_but_the_last(&said), all_but_the_last(&done));
    }

    #[test]
    fn what_a_device_lacks_is_told_and_left() {
        let host = Host::with_a_poor_nic();
        let before = host.tree();
        let (said, calls) = host.tune_well(&["--busy-poll", "--hugepages", "8", "--symmetric"]);
        assert_eq!(calls, Vec::<String>::new(), "{said}");
        assert!(
            said.lines()
                .filter(|line| line.contains("left as it is"))
                .count()
                >= 10,
            "{said}"
        );
        assert!(said.ends_with("0 changes\n"), "{said}");
        assert_eq!(host.tree(), before);
        let (undone, _) = host.tune(&["undo"]);
        assert!(
            text(&undone.stdout).starts_with("nothing to undo"),
            "{undone:?}"
        );
    }

    #[test]
    fn more_workers_than_queues_are_told() {
        let host = Host::with_a_good_nic(4);
        host.write(
            "-l",
            &CHANNELS
                .replace("Combined:\t8", "Combined:\t1")
                .replace("NOW", "1"),
        );
        let (said, calls) = host.tune_well(&[]);
        assert!(
            said.contains(
                "eth0 queues: left as it is: the device has 1 at most, and there are 2 workers"
            ),
            "{said}"
        );
        assert!(!calls.iter().any(|call| call.contains("-L")), "{calls:?}");
        assert_eq!(calls[0], "ethtool -X eth0 equal 1");
    }

    #[test]
    fn interrupts_go_beside_the_worker_if_told() {
        let host = Host::with_a_good_nic(4);
        // Of CPUs 0 and 2 one core, of 1 and 3 the other.
        let (said, _) = host.tune_well(&["--irq", "sibling"]);
        assert!(
            said.contains("eth0 interrupt 41, of queue 0, on CPU: 0-3 -> 0"),
            "{said}"
        );
        assert!(
            said.contains("eth0 interrupt 42, of queue 1, on CPU: 0-3 -> 1"),
            "{said}"
        );
    }

    #[test]
    fn mistakes_are_refused_before_anything_is_done() {
        let host = Host::with_a_good_nic(4);
        let before = host.tree();
        for (words, why) in [
            (&["--interface", "eth0"][..], "no cores"),
            (&["--cores", "2"], "no interface"),
            (
                &["--interface", "eth7", "--cores", "2"],
                "no interface 'eth7'",
            ),
            (&["--interface", "eth0", "--cores", "99"], "no CPU '99'"),
            (
                &["--interface", "eth0", "--cores", "2", "--irq", "there"],
                "same or sibling",
            ),
            (&["--hugepages", "many"], "a number"),
            (&["--interface"], "needs a value"),
            (&["tune"], "unknown argument"),
        ] {
            let (output, calls) = host.tune(words);
            assert_eq!(output.status.code(), Some(2), "{words:?}: {output:?}");
            assert!(text(&output.stderr).contains(why), "{words:?}: {output:?}");
            assert_eq!(
                (calls, host.tree()),
                (Vec::new(), before.clone()),
                "{words:?}"
            );
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn a_veth_is_tuned_as_far_as_it_goes() {
        let playground = Playground::plan().queues(2).up();
        let undo_file = tempfile::tempdir().unwrap().path().join("undo");
        let undo_file = undo_file.to_str().unwrap();
        let picture = || {
            let words = "cat /sys/class/net/front/napi_defer_hard_irqs /sys/class/net/front/gro_flush_timeout; ethtool -l front; ethtool -k front";
            playground.run_on("lb", "sh", &["-c", words])
        };
        let before = picture();
        let tune = |words: &[&str]| {
            playground.run_on(
                "lb",
                script().to_str().unwrap(),
                &[words, &["--undo-file", undo_file]].concat(),
            )
        };
        let said = tune(&["--interface", "front", "--cores", "0", "--busy-poll"]);
        assert!(
            said.contains("front napi_defer_hard_irqs: 0 -> 2"),
            "{said}"
        );
        assert!(
            said.contains("front receive table: left as it is"),
            "{said}"
        );
        assert_ne!(picture(), before);
        let _said = tune(&["undo"]);
        assert_eq!(picture(), before);
    }

    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tune-host")
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}
