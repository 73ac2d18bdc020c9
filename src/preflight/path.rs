//! What checks with `via = "service"` need of the host.

use ringgate_config::Model;

use super::facts::Facts;
use super::finding::Finding;
use crate::control::truepath::is_wanted;

pub(super) fn findings(model: &Model, facts: &Facts) -> Vec<Finding> {
    if !is_wanted(model) {
        return Vec::new();
    }
    let subject = "checks via services";
    let mut findings = vec![match &facts.tun {
        Ok(()) => Finding::good(subject, "a TUN device can be made"),
        Err(error) => Finding::refusal(
            subject,
            format!("/dev/net/tun: {error}"),
            "a TUN device, through which they are carried",
            "modprobe tun, and let the process open /dev/net/tun (systemd DeviceAllow=); or leave via out",
        ),
    }];
    let interfaces = facts.interfaces.iter().flatten();
    let strict = interfaces.filter(|interface| interface.rp_filter == 1);
    let names: Vec<&str> = strict.map(|interface| interface.name.as_str()).collect();
    if !names.is_empty() {
        findings.push(Finding::warning(
            subject,
            format!("rp_filter is strict on {}", names.join(", ")),
            "0, or 2: the answers come from the service's address, whose route may lead elsewhere",
            "sysctl -w net.ipv4.conf.DEVICE.rp_filter=2, unless the service's address is routed out by the backends' interface",
        ));
    }
    findings
}
