//! What must be true of the host before an interface is touched.
//!
//! `run` and `doctor` share this list: `doctor` prints all of it, `run` stops at what refuses.
//! Each finding says what was looked at, what was found, what was expected and, if that will not do, what to do.
//! The rules are pure functions of [`Facts`]; gathering the facts is apart from judging them.
//!
//! `doctor` alone looks further: at the ways to the backends ([`ways`]), and at what a running balancer
//! has counted ([`live`]).
//!
//! | file | owns |
//! |---|---|
//! | [`finding`] | what a finding is |
//! | [`facts`] | what is known of the host |
//! | [`host`] | kernel, privileges, cores, memory |
//! | [`interface`] | interfaces, queues, offloads |
//! | [`path`] | what checks by the way of the traffic take |
//! | [`ways`] | routes, neighbours, MTU, VLANs, addresses of services |
//! | [`live`] | a running balancer's counters, turned into advice |

mod facts;
mod finding;
mod host;
mod interface;
pub(crate) mod live;
mod path;
#[cfg(test)]
mod tests;
pub(crate) mod ways;

pub(crate) use facts::Facts;
pub(crate) use finding::{Finding, Level};

use ringgate_config::Model;

use crate::descriptors;
use crate::sources;

/// The number of workers that `model` gets on this host: as asked for, else one per queue.
pub(crate) fn workers(model: &Model, facts: &Facts) -> u16 {
    let queues = facts
        .interfaces
        .iter()
        .flatten()
        .map(|facts| facts.rx_queues)
        .max();
    model
        .balancer()
        .workers()
        .map_or_else(|| queues.unwrap_or(1), std::num::NonZero::get)
}

/// Judges the facts. `ours`: interfaces on which a balancer runs already, whose program is meant to be there.
pub(crate) fn judge(model: Option<&Model>, facts: &Facts, ours: &[String]) -> Vec<Finding> {
    let mut findings = vec![
        host::kernel(&facts.kernel),
        host::capabilities(facts),
        host::af_xdp(facts),
        host::io_uring(facts),
        host::forwarding(facts),
    ];
    if let Some(model) = model {
        let by_vlan = model
            .services()
            .iter()
            .any(|service| service.vlan().is_some());
        for (interface, found) in model.interfaces().iter().zip(&facts.interfaces) {
            findings.extend(interface::findings(interface, found.as_ref(), by_vlan));
        }
        let others = facts.interfaces.iter().flatten();
        let others = others.filter(|interface| !ours.contains(&interface.name));
        findings.extend(others.filter_map(interface::program));
        findings.extend(interface::queues(model, facts));
        findings.extend(interface::reverse_path(facts));
        findings.extend(path::findings(model, facts));
        findings.extend(host::account(facts));
        findings.push(host::cores(model, facts));
        findings.push(host::flow_memory(model, facts));
        findings.extend(sources::judge(model, &facts.sources));
        findings.push(descriptors::judge(model, facts.descriptors));
    }
    findings
}
