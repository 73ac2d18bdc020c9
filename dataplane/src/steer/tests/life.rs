//! The life of flows as packets make it: what ends one and what does not, and how long each is
//! kept.

use ringgate_conntrack::WINDOW;

use super::*;

const DIRECT: &str = "10.100.0.2:80";
/// Where the numbers of the client and of the backend begin: the client's are about to wrap.
const CLIENT_AT: u32 = 0xFFFF_8000;
const BACKEND_AT: u32 = 0x3000_0000;
const AWAY: [u32; 4] = [
    WINDOW + (1 << 16),
    WINDOW.wrapping_neg() - (1 << 16),
    1 << 31,
    3 << 30,
];
const ENDS: [u8; 3] = [RST, RST | ACK, FIN_ACK];

/// The endpoints of an established connection, and the last sequence number of each.
struct Connection<'a> {
    world: &'a World,
    service: &'static str,
    backend: Option<String>,
}

impl<'a> Connection<'a> {
    fn nat(world: &'a World) -> Self {
        let backend = world.backend_of(CLIENT, WEB, SYN);
        let connection = Self {
            world,
            service: WEB,
            backend: Some(backend),
        };
        connection.establish();
        connection.backend(ACK, BACKEND_AT).unwrap();
        connection
    }

    fn direct(world: &'a World) -> Self {
        let (service, backend) = (DIRECT, None);
        let connection = Self {
            world,
            service,
            backend,
        };
        connection.establish();
        connection
    }

    fn establish(&self) {
        for _ in 0..2 {
            self.client(ACK, CLIENT_AT).unwrap();
        }
        assert!(self.is(State::Established));
    }

    fn client(&self, flags: u8, sequence: u32) -> Result<Decision<'_>, DropReason> {
        let frame = tcp_at(CLIENT, self.service, flags, sequence, b"");
        self.world.send(&frame)
    }

    fn backend(&self, flags: u8, sequence: u32) -> Result<Decision<'_>, DropReason> {
        let backend = self.backend.as_ref().unwrap();
        self.world
            .send(&tcp_at(backend, CLIENT, flags, sequence, b""))
    }

    /// Whether all of its entries are in this state.
    fn is(&self, state: State) -> bool {
        let mut states = Vec::new();
        let table = &self.world.table;
        table.for_each(Seconds(self.world.now), |_, found| states.push(found.state));
        states == vec![state; if self.backend.is_some() { 2 } else { 1 }]
    }
}

#[test]
fn what_ends_a_connection_from_elsewhere_is_forwarded_counted_and_ends_nothing() {
    let world = World::new();
    let connection = Connection::nat(&world);
    let before = connection.client(ACK, CLIENT_AT).unwrap();
    let before_reply = connection.backend(ACK, BACKEND_AT).unwrap();
    for away in AWAY {
        for flags in ENDS {
            let forged = connection.client(flags, CLIENT_AT.wrapping_add(away));
            let expected = Decision {
                event: FlowEvent::OutOfWindow,
                ..before
            };
            assert_eq!(forged, Ok(expected));
            let forged = connection.backend(flags, BACKEND_AT.wrapping_add(away));
            let expected = Decision {
                event: FlowEvent::OutOfWindow,
                ..before_reply
            };
            assert_eq!(forged, Ok(expected));
            assert!(connection.is(State::Established));
        }
    }
    let world = World::new();
    let connection = Connection::direct(&world);
    let before = connection.client(ACK, CLIENT_AT).unwrap();
    for (away, flags) in AWAY
        .into_iter()
        .flat_map(|away| ENDS.map(|flags| (away, flags)))
    {
        let forged = connection.client(flags, CLIENT_AT.wrapping_add(away));
        let expected = Decision {
            event: FlowEvent::OutOfWindow,
            ..before
        };
        assert_eq!(forged, Ok(expected));
        assert!(connection.is(State::Established));
    }
}

#[test]
fn what_ends_a_connection_from_within_the_window_ends_it_in_both_entries() {
    let near = [
        0,
        1,
        1448,
        WINDOW - (1 << 16),
        (WINDOW - (1 << 17)).wrapping_neg(),
    ];
    for by in near {
        for flags in [RST, RST | ACK] {
            let world = World::new();
            let connection = Connection::nat(&world);
            let ended = connection
                .client(flags, CLIENT_AT.wrapping_add(by))
                .unwrap();
            assert!(ended.event == FlowEvent::None && connection.is(State::Closed));
            let world = World::new();
            let connection = Connection::nat(&world);
            let ended = connection
                .backend(flags, BACKEND_AT.wrapping_add(by))
                .unwrap();
            assert!(ended.event == FlowEvent::None && connection.is(State::Closed));
            let world = World::new();
            let connection = Connection::direct(&world);
            connection
                .client(flags, CLIENT_AT.wrapping_add(by))
                .unwrap();
            assert!(connection.is(State::Closed));
        }
        let world = World::new();
        let connection = Connection::nat(&world);
        connection
            .client(FIN_ACK, CLIENT_AT.wrapping_add(by))
            .unwrap();
        assert!(connection.is(State::ClientClosed));
        // Half closed, it is still guarded.
        let forged = connection.backend(FIN_ACK, BACKEND_AT.wrapping_add(1 << 30));
        assert_eq!(forged.unwrap().event, FlowEvent::OutOfWindow);
        assert!(connection.is(State::ClientClosed));
        connection
            .backend(FIN_ACK, BACKEND_AT.wrapping_add(by))
            .unwrap();
        assert!(connection.is(State::Closed));
    }
}

#[test]
fn over_more_than_all_numbers_the_flow_is_followed_and_only_there_can_be_ended() {
    for step in [60_000, 1 << 20] {
        let world = World::new();
        let connection = Connection::nat(&world);
        let (mut at, mut seen) = (CLIENT_AT, 0_u64);
        while seen < 5 << 30 {
            at = at.wrapping_add(step);
            seen += u64::from(step);
            let sent = connection.client(ACK, at).unwrap();
            assert_eq!(sent.event, FlowEvent::None);
            // Now and then one is sent again, or forged.
            if seen % 1024 < 16 {
                connection.client(ACK, at.wrapping_sub(3 << 20)).unwrap();
                connection.client(ACK, at.wrapping_add(1 << 30)).unwrap();
                let forged = connection.client(RST, at.wrapping_sub(1 << 30)).unwrap();
                assert_eq!(forged.event, FlowEvent::OutOfWindow);
            }
        }
        assert!(connection.is(State::Established));
        connection.client(RST, at).unwrap();
        assert!(connection.is(State::Closed));
    }
}

#[test]
fn one_forged_segment_does_not_prepare_the_way_for_a_reset() {
    let world = World::new();
    let connection = Connection::nat(&world);
    for away in AWAY {
        let there = CLIENT_AT.wrapping_add(away);
        for flags in [ACK, SYN, SYN | ACK] {
            connection.client(flags, there).unwrap();
            connection.client(RST, there).unwrap();
            assert!(connection.is(State::Established));
        }
    }
    // Where the client is has not been forgotten over it.
    connection.client(FIN_ACK, CLIENT_AT).unwrap();
    assert!(connection.is(State::ClientClosed));
}

#[test]
fn a_sender_that_was_away_for_long_is_believed_again() {
    let world = World::new();
    let connection = Connection::nat(&world);
    let there = CLIENT_AT.wrapping_add(1 << 30);
    for segment in 0..ringgate_conntrack::STRIKES {
        let forged = connection.client(RST, there).unwrap();
        assert_eq!(forged.event, FlowEvent::OutOfWindow);
        let at = there.wrapping_add(segment * 1448);
        connection.client(ACK, at).unwrap();
    }
    connection.client(FIN_ACK, there).unwrap();
    assert!(connection.is(State::ClientClosed));
}

#[test]
fn a_flow_found_in_mid_stream_is_guarded_from_each_side_s_first_segment_on() {
    let world = World::new();
    let connection = Connection {
        world: &world,
        service: WEB,
        backend: Some(world.backend_of(CLIENT, WEB, ACK)),
    };
    // Its first segment only stored it, so this one establishes it, wherever it is.
    connection.client(ACK, CLIENT_AT).unwrap();
    assert!(connection.is(State::Established));
    connection.client(RST, CLIENT_AT ^ 1 << 30).unwrap();
    assert!(connection.is(State::Established));
    connection.backend(ACK, BACKEND_AT).unwrap();
    connection.backend(RST, BACKEND_AT ^ 1 << 30).unwrap();
    assert!(connection.is(State::Established));
    connection.backend(RST, BACKEND_AT).unwrap();
    assert!(connection.is(State::Closed));
}

#[test]
fn an_open_port_s_refusal_ends_a_half_open_flow_though_its_number_is_zero() {
    let world = World::new();
    let client = tcp_at(CLIENT, "10.100.0.4:80", SYN, CLIENT_AT, b"");
    world.send(&client).unwrap();
    let refusal = tcp_at("10.2.0.11:9090", CLIENT, RST | ACK, 0, b"");
    assert_eq!(world.send(&refusal).unwrap().event, FlowEvent::Refused);
    let mut states = Vec::new();
    world
        .half_open
        .for_each(Seconds(0), |_, found| states.push(found.state));
    assert_eq!(states, [State::Closed; 2]);
    assert_eq!(world.flows(), 0);
}

#[test]
fn a_connection_on_the_ports_of_the_last_has_numbers_of_its_own() {
    let world = World::new();
    let connection = Connection::nat(&world);
    connection.client(FIN_ACK, CLIENT_AT).unwrap();
    connection.backend(FIN_ACK, BACKEND_AT).unwrap();
    assert!(connection.is(State::Closed));
    let next = CLIENT_AT ^ 1 << 31;
    connection.client(SYN, next).unwrap();
    for _ in 0..2 {
        connection.client(ACK, next).unwrap();
    }
    connection.backend(ACK, BACKEND_AT ^ 1 << 31).unwrap();
    connection.client(RST, CLIENT_AT).unwrap();
    connection.backend(RST, BACKEND_AT).unwrap();
    assert!(connection.is(State::Established));
    connection.backend(RST, BACKEND_AT ^ 1 << 31).unwrap();
    assert!(connection.is(State::Closed));
}

/// `SERVICES` with these timeouts for "web" and for "direct".
fn with_timeouts(web: &str, direct: &str) -> String {
    let mut file = SERVICES.to_owned();
    for (name, timeouts) in [("web", web), ("direct", direct)] {
        let head = format!("name = \"{name}\"\n");
        assert!(file.contains(&head));
        file = file.replacen(&head, &format!("{head}timeouts = {{ {timeouts} }}\n"), 1);
    }
    file
}

#[test]
fn flows_of_each_service_are_swept_by_its_own_timeouts() {
    let file = with_timeouts("established = \"20s\"", "established = \"40s\"");
    let mut world = World::of(&file, 1024);
    for service in [WEB, DIRECT, "10.100.0.3:80"] {
        for _ in 0..2 {
            world.tcp(CLIENT, service, ACK).unwrap();
        }
    }
    // Two entries for each of the two NAT flows, one for the direct one.
    let sweep = |world: &World| {
        let mut all = world.table.share(0, 1);
        world
            .table
            .sweep(&mut all, usize::MAX, Seconds(world.now), |_| {})
    };
    for (now, swept) in [(26, 0), (27, 2), (51, 0), (52, 1), (7000, 0)] {
        world.now = now;
        assert_eq!(sweep(&world), swept, "at {now}");
    }
    assert_eq!(world.flows(), 2);
}

#[test]
fn timeouts_that_a_reload_changes_hold_for_flows_that_are_there() {
    let web = |world: &World| {
        let mut count = 0;
        world.table.for_each(Seconds(world.now), |key, _| {
            let ports = [key.source().port, key.destination().port];
            count += usize::from(ports.contains(&8080) || key.destination().port == 80);
        });
        count
    };
    // The only service with its timeouts: its idle flows live by the new ones at once.
    let mut world = World::of(&with_timeouts("established = \"1h\"", ""), 1024);
    for _ in 0..2 {
        world.tcp(CLIENT, WEB, ACK).unwrap();
    }
    world.now = 30;
    world.reload(&with_timeouts("established = \"20s\"", ""));
    assert_eq!(web(&world), 0);

    // One of several: a flow takes the new ones with its next renewal, an idle one keeps the old.
    let idle = "10.1.0.2:77";
    let mut world = World::of(SERVICES, 1024);
    let backend = world.backend_of(CLIENT, WEB, ACK);
    for client in [CLIENT, idle] {
        for _ in 0..2 {
            world.tcp(client, WEB, ACK).unwrap();
        }
    }
    world.reload(&with_timeouts("established = \"20s\"", ""));
    world.now = 32;
    assert_eq!(web(&world), 4);
    // A reply renews both entries.
    world.tcp(&backend, CLIENT, ACK).unwrap();
    world.now = 57;
    assert_eq!(web(&world), 4);
    world.now = 58;
    assert_eq!(web(&world), 2);
    // What is stored from now on has them from the start.
    for _ in 0..2 {
        world.tcp("10.1.0.2:78", WEB, ACK).unwrap();
    }
    world.now = 58 + 26;
    assert_eq!(web(&world), 2);
}
