//! What the host as a whole must have: kernel, privileges, AF_XDP, io_uring, cores, memory.

use ringgate_config::{FlowMemory, Model};
use ringgate_conntrack::{FlowTable, LINE_BYTES};

use super::facts::Facts;
use super::finding::Finding;
use super::workers;

/// Oldest kernel with everything that is relied on: XDP links (5.9) and io_uring's
/// `EXT_ARG` waits (5.11); AF_XDP with need_wakeup is older (5.4).
const OLDEST_KERNEL: (u32, u32) = (5, 11);

pub(super) fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if version < OLDEST_KERNEL {
        let (major, minor) = OLDEST_KERNEL;
        let expected = format!("Linux {major}.{minor} or newer");
        return Finding::refusal("kernel", release, expected, "boot a newer kernel");
    }
    Finding::good("kernel", release)
}

pub(super) fn capabilities(facts: &Facts) -> Finding {
    if facts.missing_capabilities.is_empty() {
        return Finding::good("privileges", "all that start-up needs");
    }
    let missing = facts.missing_capabilities.join(", ");
    Finding::refusal(
        "privileges",
        format!("missing {missing}"),
        "all that start-up needs",
        "run as root, or grant them (systemd AmbientCapabilities=, setcap)",
    )
}

/// Whom the process is to become when all is up.
pub(super) fn account(facts: &Facts) -> Option<Finding> {
    let error = facts.account.as_ref().err()?;
    let expected = "a user and a group that can be become";
    let cure = "correct [process], or start as root";
    Some(Finding::refusal("process", error, expected, cure))
}

pub(super) fn af_xdp(facts: &Facts) -> Finding {
    match &facts.af_xdp {
        Ok(()) => Finding::good("AF_XDP", "sockets can be made"),
        Err(error) => Finding::refusal(
            "AF_XDP",
            error,
            "a socket of this family",
            "needs a kernel with CONFIG_XDP_SOCKETS=y and CAP_NET_RAW",
        ),
    }
}

pub(super) fn io_uring(facts: &Facts) -> Finding {
    match &facts.io_uring {
        Ok(how) => Finding::good("io_uring", how),
        Err(error) => Finding::warning(
            "io_uring",
            error,
            "a ring, for the control thread",
            "nothing has to be done: it uses epoll instead; packets are not affected",
        ),
    }
}

/// What people look at first, and need not.
pub(super) fn forwarding(facts: &Facts) -> Finding {
    let is = if facts.forwards { "on" } else { "off" };
    Finding::good(
        "ip_forward",
        format!("{is}; it does not matter: packets of services never meet the kernel's routing"),
    )
}

pub(super) fn cores(model: &Model, facts: &Facts) -> Finding {
    let workers = usize::from(workers(model, facts));
    let allowed = &facts.cores;
    let wanted = model.balancer().cores().into_iter().flatten();
    let refused: Vec<String> = wanted
        .filter(|core| !allowed.contains(core))
        .map(ToString::to_string)
        .collect();
    if !refused.is_empty() {
        return Finding::refusal(
            "cores",
            format!("CPU {} cannot be used", refused.join(", ")),
            format!("CPUs of {allowed:?}"),
            "choose [balancer] cores from them, or allow the process more (taskset, cpusets)",
        );
    }
    if workers > allowed.len() {
        return Finding::warning(
            "cores",
            format!("{workers} workers share {} CPUs", allowed.len()),
            "a CPU for each worker",
            "use fewer queues, or allow the process more CPUs",
        );
    }
    Finding::good(
        "cores",
        format!("{workers} workers, {} CPUs", allowed.len()),
    )
}

/// Without CAP_PERFMON the kernel rounds an array map up to a power of two, so that a CPU that
/// speculates past its end stays within it (`array_map_alloc`, kernel/bpf/arraymap.c).
pub(super) fn flow_memory(model: &Model, facts: &Facts) -> Finding {
    let mebibytes = |lines: usize| (lines * LINE_BYTES).div_ceil(1 << 20);
    let lines = FlowTable::lines(model.balancer().flows());
    let takes = mebibytes(lines);
    if model.balancer().flow_memory() == FlowMemory::Map && !facts.exact_maps {
        return Finding::warning(
            "flow table",
            format!(
                "its BPF map takes {} MiB, since CAP_PERFMON is missing",
                mebibytes(lines.next_power_of_two())
            ),
            format!("{takes} MiB"),
            "grant CAP_PERFMON, or set flow-memory = \"private\" in [balancer]",
        );
    }
    Finding::good("flow table", format!("{takes} MiB"))
}
