//! Every counter of a worker by name.
//!
//! Left out are those that count not packets and flows but rings and turns, which depend on how
//! often a worker looks: what a port publishes about its rings, and busy and idle turns.

use ringgate_dataplane::backend::BackendId;
use ringgate_dataplane::counters::{Counter, WorkerCounters};
use ringgate_dataplane::verdict::DropReason;

use crate::case::Counts;

/// Fields of a struct of counters, with their names.
macro_rules! named {
    ($counters:expr; $($name:ident)+) => {
        [$((stringify!($name), &$counters.$name)),+]
    };
}

/// The counters as they are, without those that are zero.
#[must_use]
pub fn counts(
    counters: &WorkerCounters,
    interfaces: &[String],
    backends: &[(String, BackendId)],
) -> Counts {
    let mut counts = Counts::new();
    for (name, of_interface) in interfaces.iter().zip(&counters.interfaces) {
        let fields = named!(of_interface; received received_bytes forwarded answered);
        put(&mut counts, name, &fields);
        let group = counts.entry(name.clone()).or_default();
        for reason in DropReason::ALL {
            group.insert(reason.name().to_owned(), of_interface.dropped(*reason));
        }
    }
    let flows = &counters.flows;
    let fields = named!(flows;
        created rehashed table_full contended out_of_window expired too_fast
        half_open half_open_displaced half_open_expired);
    put(&mut counts, "flows", &fields);
    let fragments = &counters.fragments;
    let fields = named!(fragments; first followed held displaced unplaced);
    put(&mut counts, "fragments", &fields);
    let icmp = &counters.icmp;
    let fields = named!(icmp;
        to_backends to_clients from_tunnels too_big time_exceeded echo_replies withheld
        copies copies_withheld copies_lost);
    put(&mut counts, "icmp", &fields);
    let turns = &counters.turns;
    put(&mut counts, "turns", &named!(turns; requests_lost));
    for (name, id) in backends {
        if let Some(backend) = counters.backend(*id) {
            let fields = named!(backend;
                flows packets bytes reply_packets reply_bytes syns syn_acks refusals);
            put(&mut counts, name, &fields);
        }
    }
    without_zeros(counts)
}

/// What moved between two looks.
#[must_use]
pub fn delta(before: &Counts, after: &Counts) -> Counts {
    let mut delta = after.clone();
    for (group, counters) in &mut delta {
        for (name, count) in counters {
            let was = before.get(group).and_then(|group| group.get(name));
            *count = count.wrapping_sub(was.copied().unwrap_or(0));
        }
    }
    without_zeros(delta)
}

fn put(counts: &mut Counts, group: &str, fields: &[(&str, &Counter)]) {
    let group = counts.entry(group.to_owned()).or_default();
    let named = fields
        .iter()
        .map(|(name, counter)| ((*name).to_owned(), counter.get()));
    group.extend(named);
}

fn without_zeros(mut counts: Counts) -> Counts {
    for group in counts.values_mut() {
        group.retain(|_, count| *count != 0);
    }
    counts.retain(|_, group| !group.is_empty());
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counters of rings and turns.
    const LEFT_OUT: [&str; 3] = ["busy_turns", "idle_turns", "sleeps"];

    #[test]
    fn no_counter_is_forgotten() {
        let here = include_str!("counters.rs");
        let there = include_str!("../../dataplane/src/counters.rs");
        let fields = there
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub ")?.strip_suffix(": Counter,"));
        let words = || here.split(|c: char| !c.is_alphanumeric() && c != '_');
        let forgotten: Vec<&str> = fields
            .filter(|name| !LEFT_OUT.contains(name) && !words().any(|word| word == *name))
            .collect();
        assert_eq!(forgotten, Vec::<&str>::new(), "name them in `counts`");
    }

    #[test]
    fn only_what_moved_is_a_delta() {
        let of = |counts: &[(&str, u64)]| {
            let group = counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count));
            Counts::from([("front".to_owned(), group.collect())])
        };
        let moved = delta(
            &of(&[("a", 1), ("b", 2)]),
            &of(&[("a", 1), ("b", 5), ("c", 1)]),
        );
        assert_eq!(moved, of(&[("b", 3), ("c", 1)]));
        assert!(delta(&of(&[("a", 1)]), &of(&[("a", 1)])).is_empty());
    }
}
