//! What a running balancer has counted, turned into advice.
//!
//! Two status pages, taken a moment apart, tell what has happened since the start and what happens now. Each drop
//! reason and each other counter that means trouble has its cause, what would be right, and the command to look
//! with. What cannot be counted is told by its absence: a backend that never lets a handshake complete.

use ringgate_dataplane::verdict::DropReason;
use serde_json::Value;

use super::finding::Finding;

/// Counters that are not moving now are told if at least so many were counted…
const FEW: u64 = 10;

/// … and if they are at least this part of what was received: a thousandth.
const PART: u64 = 1000;

/// Packets to a backend after which one should have been answered.
const UNANSWERED: u64 = 5;

/// Two status pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages<'a> {
    /// The first.
    pub(crate) before: &'a Value,
    /// The one a moment later.
    pub(crate) after: &'a Value,
}

/// A counter: since the start, and between the two pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    total: u64,
    lately: u64,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} since the start, {} in the last second",
            self.total, self.lately
        )
    }
}

/// A counter that means trouble: where it is in an interface's page, what it is, what would be right, what to do.
type Sign = (&'static str, &'static str, &'static str, &'static str);

/// Of the interfaces.
const INTERFACE_SIGNS: [Sign; 12] = [
    (
        "/steering/passed_no_worker",
        "packets came on a queue that has no worker, and went to the kernel",
        "a worker for every queue",
        "ethtool -L DEVICE combined WORKERS (`ethtool -l`), then restart: queues are not followed while running",
    ),
    (
        "/steering/passed_vlan",
        "packets for a service came without the VLAN tags that it asks for, and went to the kernel",
        "the service's vlan in the frame, where XDP sees it",
        "compare the service's vlan with the sender's; ethtool -K DEVICE rxvlan off (on a veth: txvlan off on its peer)",
    ),
    (
        "/kernel/rx_dropped",
        "the kernel dropped frames that were longer than a chunk",
        "none",
        "somebody merges packets: ethtool -K DEVICE gro off lro off; on a veth in generic mode ethtool -K PEER tso off gso off",
    ),
    (
        "/kernel/rx_ring_full",
        "workers did not take packets fast enough",
        "none",
        "more queues and workers, a CPU for each of them (`status`: core), or busy-poll",
    ),
    (
        "/kernel/rx_fill_ring_empty_descs",
        "the device found no buffer to receive into",
        "none, but for a burst",
        "more queues and workers; look at egress_full and kick_busy: what cannot leave holds the buffers",
    ),
    (
        "/kernel/rx_invalid_descs",
        "the kernel refused buffers",
        "none",
        "report it",
    ),
    (
        "/port/kick_busy",
        "the device dropped frames that were sent, since its queue was full",
        "none",
        "on a veth: tc qdisc replace dev DEVICE root pfifo limit 1000; on a NIC: longer TX rings (ethtool -G), or a faster link",
    ),
    (
        "/port/kick_down",
        "frames could not be sent, since the interface was down",
        "a link that is up",
        "ip link set dev DEVICE up; the cable, the far end",
    ),
    (
        "/port/kick_gone",
        "the interface has gone, or another one has its name",
        "the interface that was there at the start",
        "restart: an interface that is made again is not taken up while running",
    ),
    (
        "/port/kick_no_buffers",
        "the kernel had no memory to send with",
        "none",
        "look at the host's memory and at the service's cgroup (MemoryMax=)",
    ),
    (
        "/port/rx_refused",
        "the kernel handed over what it did not have",
        "none",
        "report it",
    ),
    (
        "/port/tx_refused",
        "frames were not sent, since they made no sense",
        "none",
        "report it",
    ),
];

/// Of the flow table.
const FLOW_SIGNS: [Sign; 3] = [
    (
        "/flows/table_full",
        "packets were forwarded without their flow being remembered: there was no room",
        "room for every flow",
        "raise [balancer] flows (nat takes two entries a flow) and restart, or lower timeouts",
    ),
    (
        "/flows/too_fast",
        "datagrams were forwarded without their flow being remembered: flows begin too fast",
        "fewer than udp-new-flows-per-second",
        "a flood; or raise it and restart",
    ),
    (
        "/flows/half_open_displaced",
        "half-open flows gave way to newer ones",
        "few",
        "a flood of SYNs; or raise [balancer] flows and restart",
    ),
];

/// What to look at when packets are dropped for a reason.
const fn look_at(reason: DropReason) -> &'static str {
    use DropReason as R;
    match reason {
        R::Truncated
        | R::NotIp
        | R::BadIpv4Header
        | R::BadIpv6Header
        | R::BadLength
        | R::BadTcpHeader
        | R::TinyFragment
        | R::BadFragment => "tcpdump on the sender, or at the router: who sends it",
        R::BadIpv4Checksum | R::BadIcmpChecksum => {
            "ethtool -S DEVICE: errors; ip -s link, also at the sender"
        }
        R::Fragment | R::FragmentTimeout | R::FragmentDisplaced => {
            "status --json: fragments; ip link at the sender: its MTU"
        }
        R::UnsupportedProtocol => "status: steering, passed",
        R::IcmpIgnored | R::IcmpUnknown | R::IcmpLimited => {
            "status: icmp; tcpdump -ni DEVICE icmp or icmp6, on the router"
        }
        R::BadSource => "tcpdump at the router: sources that it should filter (BCP 38)",
        R::TtlExpired => "traceroute to the service: a loop? A dsr-l2 backend behind a router?",
        R::NotForUs => "ringgate explain --protocol … --from … --to …",
        R::NoBackend => "status: the backends' states and what their checks say",
        R::Draining => "status: draining; has the address been withdrawn?",
        R::WrongVlan => "tcpdump -e on the sender: its tags; the service's vlan",
        R::WrongInterface => "ip route get BACKEND here, and ip route get CLIENT on the backend",
        R::UnknownReturn | R::ReturnConflict => {
            "do services share a backend's address and port? status: flows stored"
        }
        R::SourcePortsHeld | R::SourcePortsResting | R::Unstored => {
            "status: source, ports held and resting"
        }
        R::NoRoute => {
            "ip route get ADDRESS: it must lead out by a configured interface, from the main table"
        }
        R::NoSource => "ip address show: an address of the far end's family",
        R::NoNeighbour => "ip neigh get ADDRESS dev DEVICE; is it on, and in this VLAN?",
        R::TooBig => "ip link: MTUs of both sides; status: icmp, withheld",
        R::EgressFull => "status: kick_busy; ip -s link: is the link full?",
    }
}

/// Everything that the pages tell.
pub(crate) fn judge(pages: Pages<'_>) -> Vec<Finding> {
    let mut findings = vec![running(pages.after)];
    if pages.after["draining"] == true {
        findings.push(Finding::warning(
            "balancer",
            "drains: new flows are dropped",
            "a balancer that takes new flows",
            "it was told to stop (SIGTERM); start it again",
        ));
    }
    let received = list(&pages.after["interfaces"]).iter();
    let received = received.filter_map(|interface| interface["received"].as_u64());
    let received: u64 = received.sum();
    for sign in &FLOW_SIGNS {
        findings.extend(told("flows", pages.count(sign.0), received, sign));
    }
    for index in 0..list(&pages.after["interfaces"]).len() {
        findings.extend(interface(pages, index));
    }
    for service in list(&pages.after["services"]) {
        findings.extend(service_findings(service));
    }
    findings
}

/// The interfaces that the balancer runs on.
pub(crate) fn interfaces(page: &Value) -> Vec<String> {
    let names = list(&page["interfaces"]).iter();
    let names = names.filter_map(|interface| interface["name"].as_str());
    names.map(str::to_owned).collect()
}

fn running(page: &Value) -> Finding {
    let uptime = page["uptime_ms"].as_u64().unwrap_or(0) / 1000;
    let found = format!(
        "pid {} answers, up {uptime} s, generation {}",
        page["pid"], page["generation"]
    );
    Finding::good("balancer", found)
}

fn interface(pages: Pages<'_>, index: usize) -> Vec<Finding> {
    let at = |pointer: &str| format!("/interfaces/{index}{pointer}");
    let page = &pages.after["interfaces"][index];
    let name = page["name"].as_str().unwrap_or("?");
    let subject = format!("interface {name}");
    let count = |pointer: &str| pages.count(&at(pointer));
    let received = count("/received").map_or(0, |count| count.total);
    let mut findings = Vec::new();
    if count("/steering/received").is_some_and(|count| count.total == 0) {
        findings.push(Finding::warning(
            &subject,
            "no frame has arrived since the start",
            "frames, if only ARP",
            "`ip neigh` on the router: nobody answers for the service's address, or no route leads here; cable, VLAN",
        ));
    }
    for sign in &INTERFACE_SIGNS {
        let (found, cure) = (sign.1, sign.3.replace("DEVICE", name));
        let sign = (sign.0, found, sign.2, cure.as_str());
        findings.extend(told(&subject, count(sign.0), received, &sign));
    }
    for reason in DropReason::ALL {
        let count = count(&format!("/dropped/{}", reason.name()));
        let expected = reason.meaning();
        let found = format!("dropped {}", reason.name());
        let cure = format!("{}. Look at: {}", reason.cure(), look_at(*reason));
        findings.extend(told(
            &subject,
            count,
            received,
            &("", &found, expected, &cure),
        ));
    }
    findings
}

/// A finding, if the count is worth one.
fn told(
    subject: &str,
    count: Option<Count>,
    of: u64,
    (_, found, expected, cure): &(&str, &str, &str, &str),
) -> Option<Finding> {
    let count = count?;
    let many = count.total >= FEW && count.total >= of / PART;
    (count.lately > 0 || many)
        .then(|| Finding::warning(subject, format!("{found}: {count}"), *expected, *cure))
}

fn service_findings(service: &Value) -> Vec<Finding> {
    let name = service["name"].as_str().unwrap_or("?");
    let subject = format!("service {name}");
    let mut findings = Vec::new();
    findings.extend(quorum(&subject, service));
    for backend in list(&service["backends"]) {
        let address = backend["address"].as_str().unwrap_or("?");
        findings.extend(side(&subject, backend));
        if backend["reachable"] == false {
            findings.push(Finding::warning(
                &subject,
                format!("{address} cannot be reached: {}", way(&backend["next_hop"])),
                "a route out by a configured interface, and a neighbour that answers",
                "ip route get ADDRESS; ip neigh get NEIGHBOUR dev DEVICE",
            ));
        }
        findings.extend(silent(&subject, service, backend));
    }
    if findings.is_empty() {
        let count = list(&service["backends"]).len();
        findings.push(Finding::good(
            subject,
            format!("{count} backends, nothing to say"),
        ));
    }
    findings
}

/// A service of which too few backends are healthy, or too many suspect, for what its operator has asked for.
fn quorum(subject: &str, service: &Value) -> Option<Finding> {
    let is = |name: &str| service[name] == true;
    let healthy = format!(
        "{} healthy, {} needed",
        service["healthy"], service["needs_healthy"]
    );
    let has_least = service["min_healthy"].is_string();
    let (found, expected, cure) = if is("fallen_open") {
        let closed = if has_least {
            "when-below = \"closed\""
        } else {
            "when-empty = \"drop\""
        };
        (
            format!("{healthy}: it has fallen open, and flows go to those that are down as well"),
            "so many backends that answer their checks",
            format!("the checks below say why; {closed} would refuse instead"),
        )
    } else if is("fallen_closed") {
        (
            format!("{healthy}: it has fallen closed, and new flows are dropped (no_backend)"),
            "so many backends that answer their checks",
            "the checks below say why; when-below = \"open\" would use all, a lower min-healthy those that are healthy"
                .to_owned(),
        )
    } else if is("trusts_suspects") {
        (
            "new flows fail at more backends than may be suspect: none is taken for it".to_owned(),
            "trouble that few backends have; what most have is the clients', the network's, or made",
            "status --json: syns, syn_acks, refusals. No answers: tcpdump on a backend, its route back here; forged \
             SYNs: where do they come from? Refusals: what serves there, is it full?"
                .to_owned(),
        )
    } else {
        return None;
    };
    Some(Finding::warning(subject, found, expected, cure))
}

/// A backend that should get no new flows, by who says so: a hold, an agent, its checks, or its traffic.
fn side(subject: &str, backend: &Value) -> Option<Finding> {
    let address = backend["address"].as_str().unwrap_or("?");
    let check = &backend["check"];
    let last = check["last"].as_str();
    // Of a service that has fallen open, or trusts its suspects, all are up, whatever is known of them.
    let state = match backend["state"].as_str() {
        Some("up") => &check["state"],
        _ => &backend["state"],
    };
    if state == "suspect" {
        let (syns, refusals) = (&backend["syns"], &backend["refusals"]);
        return Some(Finding::warning(
            subject,
            format!(
                "{address} is suspect: most new flows to it fail, of {syns} it has refused {refusals} since the start"
            ),
            "answers to SYNs, and no resets of new connections",
            "a check that succeeds clears it. Is what serves there full, or another process than \
             what is checked? On the backend: ss -ltn; nstat -az TcpExtListenOverflows",
        ));
    }
    if state != "down" && state != "held" {
        return None;
    }
    let (found, expected, cure) = match (
        check["held_ms"].as_u64(),
        check["reported"].as_str(),
        last,
    ) {
        (Some(held), ..) => (
            format!(
                "is held down for {} s more: it has flapped",
                held.div_ceil(1000)
            ),
            "few changes of side within flap's window",
            "what its checks said at each (events); a slower fall, or what restarts it on the backend",
        ),
        (None, Some("down"), _) => (
            "is down: so an agent has reported".to_owned(),
            "a report of up, or none",
            "ask whoever runs the agent; POST /v1/report with state=up takes it back",
        ),
        // Whom checks find down has a last one; this one is only reported.
        (None, _, None) => (
            "is down: no report within report-ttl".to_owned(),
            "a report of up within each report-ttl",
            "is the agent that reports it running, and may it write to the admin socket?",
        ),
        (None, _, Some(last)) => (
            format!("is down: {last}"),
            "an answer to its check, from this host",
            match check["via"].as_str() {
                Some("service") => {
                    "docs/FAR-ENDS.md: does the backend take the tunnel, has it the service's address, and does rp_filter \
                     let its answers in here? via = \"backend\" tells whether it serves at all"
                }
                _ => {
                    "what the check says; is the checked port open from this host? nc -zv ADDRESS PORT"
                }
            },
        ),
    };
    let found = format!("{address} {found}");
    Some(Finding::warning(subject, found, expected, cure))
}

fn way(hop: &Value) -> String {
    match (hop["neighbour"].as_str(), hop["interface"].as_str()) {
        (Some(neighbour), Some(interface)) => format!("{neighbour} on {interface} is not known"),
        _ => "no route".to_owned(),
    }
}

/// A backend that is sent packets, and nothing is ever seen to come of it.
fn silent(subject: &str, service: &Value, backend: &Value) -> Option<Finding> {
    let number = |name: &str| backend[name].as_u64().unwrap_or(0);
    let address = backend["address"].as_str().unwrap_or("?");
    let (packets, replies, flows) = (number("packets"), number("reply_packets"), number("flows"));
    let forward = backend["forward"].as_str().unwrap_or("");
    let returns = matches!(forward, "nat" | "full-nat");
    let is_tcp = service["protocol"] == "tcp";
    if packets < UNANSWERED || !(is_tcp && flows == 0 || returns && replies == 0) {
        return None;
    }
    if returns && replies > 0 {
        return None;
    }
    let found = if is_tcp {
        format!("{address}: {packets} packets sent, and no handshake was ever completed")
    } else {
        format!("{address}: {packets} packets sent, and none came back")
    };
    let expected =
        "an answer. Direct ones pass the balancer by, so this is told by what does not follow";
    let cure = match forward {
        "nat" => {
            "on the backend, tcpdump: no request: its switch, its firewall; a request and no answer: nobody listens, \
             rp_filter; an answer: its route to the client does not lead through the balancer"
        }
        "full-nat" => {
            "on the backend, tcpdump: no request: its switch, its firewall; an answer: its route to nat-sources does \
             not lead to the balancer"
        }
        "dsr-l2" => {
            "on the backend: ip address show dev lo (is the service's address there?), ss -ltn (does it listen on it?), \
             rp_filter"
        }
        _ => {
            "on the backend: tcpdump -ni any 'proto 4 or proto 41 or proto 47 or udp port 6080' (do outer packets \
             come?), ip -d link (is there a tunnel device that takes them off, and is it up?), ip address show dev lo \
             (the service's address), rp_filter 0 or 2 on the tunnel device"
        }
    };
    Some(Finding::warning(subject, found, expected, cure))
}

impl Pages<'_> {
    fn count(&self, pointer: &str) -> Option<Count> {
        let at = |page: &Value| page.pointer(pointer).and_then(Value::as_u64);
        let total = at(self.after)?;
        let lately = total.saturating_sub(at(self.before).unwrap_or(total));
        Some(Count { total, lately })
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Level;
    use super::*;

    fn page(dropped: u64, reason: &str) -> Value {
        json!({
            "pid": 7, "uptime_ms": 5000, "generation": 3, "draining": false,
            "flows": { "table_full": 0, "too_fast": 0, "half_open_displaced": 0 },
            "interfaces": [{
                "name": "eth0", "received": 1_000_000, "steering": { "received": 1_000_000 },
                "dropped": { reason: dropped }, "kernel": {}, "port": {},
            }],
            "services": [],
        })
    }

    fn warnings(before: &Value, after: &Value) -> Vec<Finding> {
        let findings = judge(Pages { before, after }).into_iter();
        findings
            .filter(|finding| finding.level != Level::Good)
            .collect()
    }

    #[test]
    fn every_reason_has_a_meaning_a_cure_and_something_to_look_at() {
        for reason in DropReason::ALL {
            let name = reason.name();
            let told = warnings(&page(1, name), &page(3, name));
            let [finding] = &told[..] else {
                panic!("{name}: {told:?}");
            };
            let found = format!("dropped {name}: 3 since the start, 2 in the last second");
            assert_eq!(
                (finding.subject.as_str(), &finding.found),
                ("interface eth0", &found)
            );
            assert_eq!(finding.expected, reason.meaning());
            assert!(finding.cure.starts_with(reason.cure()), "{finding}");
            assert!(finding.cure.len() > reason.cure().len() + 20, "{finding}");
        }
    }

    #[test]
    fn what_is_over_is_told_only_if_it_was_much() {
        let told = |total| warnings(&page(total, "no_route"), &page(total, "no_route")).len();
        assert_eq!((told(9), told(999), told(1000)), (0, 0, 1));
    }

    #[test]
    fn every_other_sign_is_told_with_the_interfaces_name() {
        for (pointer, found, ..) in INTERFACE_SIGNS {
            let (before, mut after) = (page(0, "no_route"), page(0, "no_route"));
            let (group, name) = pointer[1..].split_once('/').unwrap();
            after["interfaces"][0][group][name] = 1000.into();
            let told = warnings(&before, &after);
            let [finding] = &told[..] else {
                panic!("{pointer}: {told:?}");
            };
            assert!(finding.found.starts_with(found), "{finding}");
            assert!(!finding.cure.contains("DEVICE"), "{finding}");
        }
        for (pointer, found, ..) in FLOW_SIGNS {
            let mut after = page(0, "no_route");
            *after.pointer_mut(pointer).unwrap() = 12.into();
            let told = warnings(&page(0, "no_route"), &after);
            assert!(
                told.len() == 1 && told[0].found.starts_with(found),
                "{told:?}"
            );
        }
        let mut after = page(0, "no_route");
        after["interfaces"][0]["steering"]["received"] = 0.into();
        assert_eq!(warnings(&after, &after).len(), 1);
    }

    #[test]
    fn a_backend_that_never_answers_is_told_by_the_way_it_is_reached() {
        let backend = |forward: &str, packets: u64, replies: u64, flows: u64| {
            json!({ "address": "10.2.0.11:80", "forward": forward, "state": "up", "reachable": true,
                    "packets": packets, "reply_packets": replies, "flows": flows })
        };
        let told = |protocol: &str, backend: Value| {
            let service = json!({ "name": "a", "protocol": protocol, "backends": [backend] });
            let findings = service_findings(&service).into_iter();
            let bad = findings.filter(|finding| finding.level != Level::Good);
            bad.map(|finding| finding.cure).collect::<Vec<_>>()
        };
        for (forward, word) in [
            ("nat", "lead through the balancer"),
            ("full-nat", "nat-sources"),
            ("dsr-l2", "dev lo"),
            ("gre", "tunnel device"),
        ] {
            let cures = told("tcp", backend(forward, 5, 0, 0));
            assert!(cures.len() == 1 && cures[0].contains(word), "{cures:?}");
            assert_eq!(told("tcp", backend(forward, 4, 0, 0)), [""; 0], "too early");
            assert_eq!(told("tcp", backend(forward, 50, 9, 1)), [""; 0]);
        }
        assert_eq!(
            told("udp", backend("gre", 50, 0, 0)),
            [""; 0],
            "nobody can know"
        );
        assert_eq!(told("udp", backend("nat", 50, 0, 9)).len(), 1);
        let mut down = backend("nat", 0, 0, 0);
        down["state"] = "down".into();
        down["reachable"] = false.into();
        assert_eq!(told("tcp", down).len(), 2);
    }

    #[test]
    fn what_a_service_does_with_too_few_is_told_with_the_key_that_would_change_it() {
        let told = |which: &str, least: Value| {
            let mut service = json!({ "name": "a", "protocol": "tcp", "healthy": 1, "needs_healthy": 2,
                                      "min_healthy": least, "backends": [] });
            service[which] = true.into();
            let findings = service_findings(&service);
            let [finding] = &findings[..] else {
                panic!("{which}: {findings:?}");
            };
            assert_eq!(finding.level, Level::Warning);
            (finding.found.clone(), finding.cure.clone())
        };
        let (found, cure) = told("fallen_open", "2".into());
        assert!(
            found.starts_with("1 healthy, 2 needed: it has fallen open"),
            "{found}"
        );
        assert!(cure.contains("when-below = \"closed\""), "{cure}");
        let (_, cure) = told("fallen_open", Value::Null);
        assert!(cure.contains("when-empty = \"drop\""), "{cure}");
        let (found, cure) = told("fallen_closed", "2".into());
        assert!(
            found.starts_with("1 healthy, 2 needed: it has fallen closed"),
            "{found}"
        );
        assert!(cure.contains("when-below = \"open\""), "{cure}");
        let (found, _) = told("trusts_suspects", Value::Null);
        assert!(found.ends_with("none is taken for it"), "{found}");
    }

    #[test]
    fn a_backend_without_new_flows_is_told_by_who_says_so() {
        let told = |state: &str, check: Value| {
            let backend = json!({ "address": "10.2.0.11:80", "forward": "nat", "state": state, "reachable": true,
                                  "syns": 9, "refusals": 7, "check": check });
            let service = json!({ "name": "a", "protocol": "tcp", "backends": [backend] });
            let findings = service_findings(&service).into_iter();
            let bad = findings.filter(|finding| finding.level != Level::Good);
            bad.map(|finding| finding.found).collect::<Vec<_>>()
        };
        let refused = "connection refused";
        for (check, found) in [
            (
                json!({ "held_ms": 2_001, "last": "answered" }),
                "is held down for 3 s more: it has flapped",
            ),
            (
                json!({ "reported": "down", "last": "answered" }),
                "is down: so an agent has reported",
            ),
            (
                json!({ "reported": "up", "last": refused }),
                "is down: connection refused",
            ),
            (
                json!({ "reported": null, "last": refused }),
                "is down: connection refused",
            ),
            (
                json!({ "reported": null, "via": "service", "last": "no answer" }),
                "is down: no answer",
            ),
            (
                json!({ "last": null }),
                "is down: no report within report-ttl",
            ),
        ] {
            assert_eq!(
                told("down", check.clone()),
                [format!("10.2.0.11:80 {found}")],
                "{check}"
            );
            assert_eq!(told("up", check), [""; 0], "it serves, for all that");
        }
        let fallen = told("up", json!({ "state": "down", "last": refused }));
        assert_eq!(fallen, ["10.2.0.11:80 is down: connection refused"]);
        let suspect = told("suspect", json!({ "last": "answered" }));
        assert!(
            suspect.len() == 1 && suspect[0].ends_with("of 9 it has refused 7 since the start"),
            "{suspect:?}"
        );
    }
}
