//! What the process holds, as the kernel says it, for `status`.

use std::fs;

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

/// What control holds, and what any other thread does.
pub(crate) fn held() -> Value {
    let own = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let number = |name: &str| field(&own, name).and_then(|text| text.parse::<u64>().ok());
    // Real, effective, saved, file system: all the same here.
    let uid = field(&own, "Uid").and_then(|ids| ids.split_whitespace().nth(1)?.parse::<u32>().ok());
    let gid = field(&own, "Gid").and_then(|ids| ids.split_whitespace().nth(1)?.parse::<u32>().ok());
    json!({
        "uid": uid,
        "gid": gid,
        "capabilities": names(permitted(&own)),
        "workers_capabilities": names(of_workers()),
        "no_new_privs": number("NoNewPrivs") == Some(1),
        // linux/seccomp.h: 0 none, 1 strict, 2 by a filter.
        "seccomp": number("Seccomp") == Some(2),
    })
}

/// All that the workers' threads hold together.
fn of_workers() -> CapabilitySet {
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    statuses
        .filter(|text| field(text, "Name").is_some_and(|name| name.starts_with("worker-")))
        .fold(CapabilitySet::empty(), |all, text| all | permitted(&text))
}

fn permitted(status: &str) -> CapabilitySet {
    let bits = field(status, "CapPrm").and_then(|text| u64::from_str_radix(text, 16).ok());
    CapabilitySet::from_bits_retain(bits.unwrap_or(0))
}

fn field<'t>(status: &'t str, name: &str) -> Option<&'t str> {
    let lines = status.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().map(str::trim)
}

/// As capabilities(7) writes them.
fn names(set: CapabilitySet) -> Vec<String> {
    let known = set.iter_names().map(|(name, _)| format!("CAP_{name}"));
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_page_is_read_by_name() {
        let page = "Name:\tworker-0\nUid:\t5\t6\t7\t8\nCapPrm:\t0000000000003000\nNoNewPrivs:\t1\n";
        assert_eq!(field(page, "Name"), Some("worker-0"));
        assert_eq!(names(permitted(page)), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(names(permitted("")), [""; 0]);
    }

    #[test]
    fn this_process_is_who_it_is() {
        let page = held();
        assert_eq!(page["uid"], rustix::process::geteuid().as_raw());
        assert_eq!(page["gid"], rustix::process::getegid().as_raw());
        assert_eq!(
            page["workers_capabilities"],
            json!([]),
            "there is no worker here"
        );
    }
}
