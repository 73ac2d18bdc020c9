//! Promise: there is a case for every mode, family pair and protocol; for every reason to drop a
//! packet; and for every rule of this list.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ringgate_config::{Forward, Protocol};
    use ringgate_dataplane::verdict::DropReason;
    use ringgate_golden::case::{Case, Counts};
    use ringgate_golden::cases_directory;

    /// What a way of forwarding may be between. The first is the client's IP version.
    const SAME_FAMILY: &[Pair] = &[(4, 4), (6, 6)];
    const ANY_FAMILY: &[Pair] = &[(4, 4), (4, 6), (6, 4), (6, 6)];

    /// IP versions of client and backend.
    type Pair = (u8, u8);

    /// Each mode, with the variants of its tunnels.
    const MODES: &[(Forward, &str, &[Pair])] = &[
        (Forward::Nat, "", SAME_FAMILY),
        (Forward::FullNat, "", SAME_FAMILY),
        (Forward::DsrL2, "", SAME_FAMILY),
        (Forward::Ipip, "", ANY_FAMILY),
        (Forward::Gue, "variant 0", ANY_FAMILY),
        (Forward::Gue, "variant 1", ANY_FAMILY),
        (Forward::Gre, "", ANY_FAMILY),
        (Forward::Gre, "key", SAME_FAMILY),
    ];

    /// Drop reasons that no packet can cause here.
    const NOT_BY_A_PACKET: &[DropReason] = &[];

    fn all() -> Vec<Case> {
        Case::all(&cases_directory(), &[]).unwrap()
    }

    /// Which modes, between what, with which protocol, a case has sent packets by.
    fn ways_of(case: &Case) -> Vec<String> {
        let model = ringgate_config::parse(&case.name, &case.file.configuration)
            .unwrap()
            .model;
        let steps = || case.file.steps.iter();
        let mut ways = Vec::new();
        for service in model.services() {
            let client = if service.listen().is_ipv4() { 4 } else { 6 };
            for backend in service.backends() {
                let begins = format!("{} {}", service.name(), written(backend.address()));
                let is_sent_to = |counts: &Counts| {
                    counts
                        .get(&begins)
                        .is_some_and(|group| group.contains_key("packets"))
                };
                if steps().any(|step| is_sent_to(&step.counters)) {
                    let far = if backend.address().is_ipv4() { 4 } else { 6 };
                    let way = (backend.forward(), variant(backend), (client, far));
                    ways.push(way_text(way, service.protocol()));
                }
            }
        }
        ways
    }

    fn variant(backend: &ringgate_config::Backend) -> &'static str {
        let Some(tunnel) = backend.tunnel() else {
            return "";
        };
        match (backend.forward(), tunnel.variant, tunnel.key) {
            (Forward::Gue, 0, _) => "variant 0",
            (Forward::Gue, _, _) => "variant 1",
            (Forward::Gre, _, Some(_)) => "key",
            _ => "",
        }
    }

    fn written(address: std::net::SocketAddr) -> String {
        match address.port() {
            0 => address.ip().to_string(),
            _ => address.to_string(),
        }
    }

    fn way_text(
        (forward, variant, (client, far)): (Forward, &str, Pair),
        protocol: Protocol,
    ) -> String {
        format!("{forward} {variant} {protocol} from IPv{client} to IPv{far}")
    }

    #[test]
    fn every_mode_family_pair_and_protocol_has_a_case() {
        let shown: BTreeSet<String> = all().iter().flat_map(ways_of).collect();
        let mut missing = Vec::new();
        for (forward, variant, pairs) in MODES {
            for pair in *pairs {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let way = way_text((*forward, variant, *pair), protocol);
                    missing.extend(Some(way).filter(|way| !shown.contains(way)));
                }
            }
        }
        assert_eq!(missing, Vec::<String>::new(), "no case shows these");
    }

    #[test]
    fn every_reason_to_drop_a_packet_has_a_case() {
        let cases = all();
        let steps = || cases.iter().flat_map(|case| &case.file.steps);
        let is_shown = |reason: &DropReason| {
            let has = |counts: &Counts| {
                counts
                    .values()
                    .any(|group| group.contains_key(reason.name()))
            };
            steps().any(|step| has(&step.counters))
        };
        for reason in DropReason::ALL {
            let is_listed = NOT_BY_A_PACKET.contains(reason);
            assert_ne!(is_shown(reason), is_listed, "{}", reason.name());
        }
    }

    #[test]
    fn every_rule_has_a_case_and_no_case_shows_an_unknown_one() {
        let cases = all();
        let shown: BTreeSet<&str> = cases
            .iter()
            .flat_map(|case| case.file.rules.iter().map(String::as_str))
            .collect();
        let listed = include_str!("rules.txt")
            .lines()
            .filter(|line| !line.starts_with('#'));
        let listed: BTreeSet<&str> = listed.filter(|line| !line.is_empty()).collect();
        let without_case: Vec<_> = listed.difference(&shown).collect();
        let not_listed: Vec<_> = shown.difference(&listed).collect();
        assert_eq!((without_case, not_listed), (vec![], vec![]));
    }
}
