use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::state::{Key, State};
use super::views::View;
use super::*;

/// Two workers, one of which has nothing to do.
fn workers(seconds: u64) -> Value {
    json!([
        {
            "index": 0, "core": 3,
            "busy_turns": 900 * seconds, "idle_turns": 100 * seconds, "sleeps": 5 * seconds,
            "residence": { "packets": 10, "p50_ns": 4_200, "p99_ns": 38_000 },
        },
        {
            "index": 1, "core": 2,
            "busy_turns": 0, "idle_turns": 100 * seconds, "sleeps": 100 * seconds,
            "residence": { "packets": 0, "p50_ns": null, "p99_ns": null },
        },
    ])
}

/// A balancer with two services after so many seconds.
fn status(seconds: u64) -> Value {
    let backend = |address: &str, state: &str, check: Value, per_second: u64| {
        json!({
            "address": address,
            "forward": "nat",
            "state": state,
            "weight": 100,
            "effective_weight": if state == "draining" { 0.0 } else { 100.0 },
            "reachable": state != "down",
            "check": check,
            "flows": per_second * seconds / 10,
            "flows_now": per_second / 2,
            "packets": per_second * seconds,
            "bytes": per_second * seconds * 100,
            "reply_packets": 2 * per_second * seconds,
            "reply_bytes": per_second * seconds * 2_900,
        })
    };
    let answered = || json!({ "state": "up", "last": "answered" });
    let refused = json!({
        "state": "down",
        "last": "connection refused: the host is up, nothing listens on this port",
    });
    let interface = |name: &str, received: u64, dropped: u64| {
        json!({
            "name": name,
            "mode": "copy",
            "received": received * seconds,
            "received_bytes": received * seconds * 80,
            "forwarded": (received - dropped) * seconds,
            "answered": 0,
            "dropped_total": dropped * seconds,
            "dropped": { "no_backend": dropped * seconds, "too_big": 3, "not_ip": 0 },
            "port": { "transmitted": received * seconds },
            "kernel": { "rx_dropped": 0, "rx_ring_full": dropped * seconds / 2 },
        })
    };
    json!({
        "version": "0.1.0",
        "pid": 4711,
        "uptime_ms": seconds * 1000,
        "generation": 12,
        "draining": false,
        "control": { "io": "io_uring" },
        "flows": { "stored": 12_345, "capacity": 1_048_576, "half_open_stored": 7 },
        "interfaces": [interface("front", 40_000, 10), interface("back", 80_000, 0)],
        "workers": workers(seconds),
        "services": [
            {
                "name": "web", "listen": "10.100.0.1:80", "protocol": "tcp", "forward": "nat",
                "fallen_open": false,
                "check": { "kind": "tcp", "took": { "count": 9, "p50_us": 150, "p99_us": 480 } },
                "backends": [
                    backend("10.2.0.11:8080", "up", answered(), 8_000),
                    backend("10.2.0.12:8080", "down", refused, 0),
                    backend("10.2.0.13:8080", "draining", answered(), 400),
                ],
            },
            {
                "name": "dns", "listen": "[fd00:100::1]:53", "protocol": "udp", "forward": "dsr-l2",
                "fallen_open": false, "check": null,
                "backends": [backend("[fd00:2::11]:53", "up", Value::Null, 31_600)],
            },
        ],
    })
}

fn sample(seconds: u64) -> Sample {
    Sample::read(&status(seconds)).unwrap()
}

/// What is shown of the tenth and the eleventh second.
fn watching(view: View) -> State {
    let mut state = State::new(view);
    state.feed(Ok(sample(10)));
    state.feed(Ok(sample(11)));
    state
}

/// Compares a screen of 110 by 16 with the stored one. `BLESS=1 cargo test` writes it anew; read the diff.
fn expect(name: &str, state: &State) {
    let mut terminal = Terminal::new(TestBackend::new(110, 16)).unwrap();
    terminal
        .draw(|frame| screen::draw(state, frame.area(), frame.buffer_mut()))
        .unwrap();
    let backend = terminal.backend();
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands/top/screens");
    let stored = stored.join(format!("{name}.txt"));
    let drawn = screen::text(state, 110, 16);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&stored, &drawn).unwrap();
    }
    let wanted = std::fs::read_to_string(&stored).unwrap_or_default();
    assert_eq!(drawn, wanted, "{name} (BLESS=1 rewrites)");
    // The same on a terminal.
    let lines = wanted.lines().map(|line| format!("{line:<110}"));
    let cells = backend.buffer().content.chunks(110);
    for (line, cells) in lines.zip(cells) {
        let shown: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        assert_eq!(shown, line);
    }
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let key = match key {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            '\t' => Key::Tab,
            key => Key::Char(key),
        };
        assert!(state.press(key), "{key:?} ended it");
    }
}

#[test]
fn every_screen_is_as_stored() {
    expect("services", &watching(View::Services));
    expect("backends", &watching(View::Backends("web".to_owned())));
    expect("workers", &watching(View::Workers));
    expect("interfaces", &watching(View::Interfaces));
    expect("drops", &watching(View::Drops(None)));
}

#[test]
fn one_sample_has_no_rates_and_none_has_nothing() {
    let mut state = State::new(View::Services);
    expect("waiting", &state);
    state.feed(Ok(sample(10)));
    expect("no-rates", &state);
}

#[test]
fn a_balancer_that_stops_is_said_to_and_one_that_returns_begins_anew() {
    let mut state = watching(View::Services);
    state.feed(Err("no ringgate is running here".to_owned()));
    expect("gone", &state);
    let mut other = sample(2);
    other.pid = 4712;
    state.feed(Ok(other));
    assert_eq!(state.trouble, None);
    let sheet = state.sheet().unwrap();
    assert_eq!(
        sheet.rows[0].cells[6].text(),
        "-",
        "rates of another process"
    );
}

#[test]
fn keys_lead_from_service_to_backends_and_back_to_the_same_row() {
    let mut state = watching(View::Services);
    press(&mut state, "j\n");
    assert_eq!(state.view, View::Backends("web".to_owned()), "dns is first");
    press(&mut state, "\u{1b}");
    assert_eq!(state.view, View::Services);
    assert_eq!(state.place(&state.sheet().unwrap()), 1);
    press(&mut state, "3j\n");
    assert_eq!(state.view, View::Drops(Some("front".to_owned())));
    press(&mut state, "\u{1b}\t\t");
    assert_eq!(state.view, View::Services);
    assert!(!state.press(Key::Char('q')));
    assert!(!state.press(Key::Interrupt));
}

#[test]
fn a_filter_takes_keys_as_text_until_it_is_done() {
    let mut state = watching(View::Backends("web".to_owned()));
    press(&mut state, "/REFUSEDq");
    assert!(state.press(Key::Backspace));
    expect("filtering", &state);
    press(&mut state, "\n");
    assert_eq!(state.sheet().unwrap().rows.len(), 1);
    press(&mut state, "\u{1b}");
    assert_eq!(
        state.sheet().unwrap().rows.len(),
        3,
        "first the filter goes"
    );
    press(&mut state, "/x\u{1b}\u{1b}");
    assert_eq!(state.view, View::Services);
}

#[test]
fn the_order_is_each_screens_own_and_the_choice_stays_with_its_row() {
    let mut state = watching(View::Backends("web".to_owned()));
    press(&mut state, "j");
    let chosen = |state: &State| {
        let sheet = state.sheet().unwrap();
        let row = &sheet.rows[state.place(&sheet)];
        (row.id.clone(), state.place(&sheet))
    };
    assert_eq!(chosen(&state), ("10.2.0.12:8080".to_owned(), 1));
    press(&mut state, "sssss"); // packets a second, the most first
    assert_eq!(state.sheet().unwrap().rows[0].id, "10.2.0.11:8080");
    assert_eq!(chosen(&state), ("10.2.0.12:8080".to_owned(), 2));
    press(&mut state, "r");
    assert_eq!(chosen(&state), ("10.2.0.12:8080".to_owned(), 0));
    press(&mut state, "1");
    assert_eq!(state.order().column, 0);
    press(&mut state, "<");
    assert_eq!(state.order().column, 8, "round the other way");
}

#[test]
fn help_lies_over_the_screen_and_small_terminals_are_no_trouble() {
    let mut state = watching(View::Services);
    press(&mut state, "?");
    expect("help", &state);
    for (width, height) in [(0, 0), (1, 1), (7, 3), (20, 5), (300, 80)] {
        assert_eq!(
            screen::text(&state, width, height).lines().count(),
            usize::from(height)
        );
    }
    press(&mut state, "x");
    assert!(!state.is_explaining);
}
