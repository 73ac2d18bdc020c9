//! The playground: `scripts/netns` under a name of our own. `docs/PLAYGROUND.md` is its map.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::namespace::inside;
use crate::process::{run, run_well};

/// What a playground shall be like.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Plan {
    backends: u8,
    queues: u8,
    generic: bool,
    checksum_offload: bool,
}

impl Plan {
    /// With this many backends instead of three.
    pub fn backends(self, backends: u8) -> Self {
        Self { backends, ..self }
    }

    /// With this many queues on the balancer's links instead of one.
    pub fn queues(self, queues: u8) -> Self {
        Self { queues, ..self }
    }

    /// Fit for generic XDP: nobody sends super-packets.
    pub fn generic(self, generic: bool) -> Self {
        Self { generic, ..self }
    }

    /// Whether client and backends leave checksums to the device (they do unless told).
    pub fn checksum_offload(self, checksum_offload: bool) -> Self {
        Self {
            checksum_offload,
            ..self
        }
    }

    /// Builds it.
    ///
    /// # Panics
    ///
    /// When `scripts/netns` fails.
    #[must_use]
    pub fn up(self) -> Playground {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the number has to be unique.
        let number = BUILT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rgt{}x{number}", std::process::id());
        let playground = Playground { prefix, plan: self };
        let mut command = Command::new(script());
        command.args(["up", "--name", &playground.prefix]);
        command.args(["--backends", &self.backends.to_string()]);
        command.args(["--queues", &self.queues.to_string()]);
        command.args([
            "--csum-offload",
            if self.checksum_offload { "on" } else { "off" },
        ]);
        if self.generic {
            command.arg("--generic");
        }
        run_well(&mut command);
        playground
    }
}

/// A playground that is up; taken down when dropped, with every process in it.
#[derive(Debug)]
pub struct Playground {
    prefix: String,
    plan: Plan,
}

impl Playground {
    /// Three backends, one queue, native XDP, checksum offload on: what `scripts/netns up` makes.
    pub fn plan() -> Plan {
        Plan {
            backends: 3,
            queues: 1,
            generic: false,
            checksum_offload: true,
        }
    }

    /// The name of a node's namespace: of `client`, `lb`, `fabric`, `b1`, `b2`, …
    #[must_use]
    pub fn namespace(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// The numbers of its backends, from 1.
    pub fn backends(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.plan.backends
    }

    /// How many queues the balancer's links have.
    #[must_use]
    pub fn queues(&self) -> u8 {
        self.plan.queues
    }

    /// A command that will run on a node.
    #[must_use]
    pub fn on(&self, node: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(node), program]);
        command
    }

    /// Runs a command on a node, which has to succeed, and returns what it printed.
    ///
    /// # Panics
    ///
    /// When it fails; with everything it said.
    #[must_use]
    pub fn run_on(&self, node: &str, program: &str, arguments: &[&str]) -> String {
        run_well(self.on(node, program).args(arguments))
    }

    /// Changes a node's network: `words` are the arguments of `ip`.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn change(&self, node: &str, words: &str) {
        run_well(
            Command::new("ip")
                .args(["-n", &self.namespace(node)])
                .args(words.split(' ')),
        );
    }

    /// Runs `work` in a thread on a node.
    ///
    /// # Panics
    ///
    /// With the panic of `work`.
    pub fn inside<T: Send>(&self, node: &str, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace(node), work)
    }

    /// A counter of a node's kernel, as in `/proc/net/snmp` ("Tcp", "InCsumErrors"), or, when
    /// `group` is empty, `/proc/net/snmp6` ("", "Udp6InCsumErrors").
    ///
    /// # Panics
    ///
    /// When there is no such counter.
    #[must_use]
    pub fn kernel_counter(&self, node: &str, group: &str, name: &str) -> u64 {
        let file = if group.is_empty() { "snmp6" } else { "snmp" };
        let path = format!("/proc/thread-self/net/{file}");
        let text = self.inside(node, || fs::read_to_string(path).unwrap());
        let found = if group.is_empty() {
            flat(&text, name)
        } else {
            grouped(&text, group, name)
        };
        found.unwrap_or_else(|| panic!("{node} has no counter {group} {name}"))
    }

    /// Segments and datagrams that any of its kernels found wrongly checksummed.
    #[must_use]
    pub fn checksum_errors(&self) -> u64 {
        let mut nodes = vec!["client".to_owned()];
        nodes.extend(self.backends().map(|number| format!("b{number}")));
        let counters = [
            ("Tcp", "InCsumErrors"),
            ("Udp", "InCsumErrors"),
            ("", "Udp6InCsumErrors"),
        ];
        let of_node = |node: &String| -> u64 {
            counters
                .iter()
                .map(|(group, name)| self.kernel_counter(node, group, name))
                .sum()
        };
        nodes.iter().map(of_node).sum()
    }

    /// The hardware address of a node's interface.
    ///
    /// # Panics
    ///
    /// When there is no such interface.
    #[must_use]
    pub fn hardware_address(&self, node: &str, interface: &str) -> [u8; 6] {
        let text = self.run_on(node, "ip", &["-j", "link", "show", "dev", interface]);
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        let address = links[0]["address"].as_str().unwrap();
        let octets: Vec<u8> = address
            .split(':')
            .map(|octet| u8::from_str_radix(octet, 16).unwrap())
            .collect();
        octets.try_into().unwrap()
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let output = run(Command::new(script()).args(["down", "--name", &self.prefix]));
        if !output.status.success() {
            eprintln!("netns down: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A line for each counter: its name and its value.
fn flat(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Two lines for each group: names, and below them values.
fn grouped(text: &str, group: &str, name: &str) -> Option<u64> {
    let prefix = format!("{group}:");
    let mut lines = text.lines().filter(|line| line.starts_with(&prefix));
    let place = lines
        .next()?
        .split_whitespace()
        .position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/netns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_counters_are_found_by_name() {
        let text = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: A InCsumErrors\nTcp: 7 9\n";
        assert_eq!(grouped(text, "Tcp", "InCsumErrors"), Some(9));
        assert_eq!(grouped(text, "Tcp", "DefaultTTL"), None);
        assert_eq!(
            flat(
                "Ip6InReceives \t 3\nUdp6InCsumErrors 4\n",
                "Udp6InCsumErrors"
            ),
            Some(4)
        );
    }
}
