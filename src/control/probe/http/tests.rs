//! Answers of every sort, in every cut: what a backend sends decides, not how it is divided.

use proptest::prelude::*;
use ringgate_config::Model;

use super::*;

fn check(keys: &str) -> Arc<Check> {
    let text = format!(
        "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"a\"\nlisten = \"10.0.0.1:80\"\n\
         protocol = \"tcp\"\nforward = \"nat\"\nhealth = {{ kind = \"http\"{keys} }}\n"
    );
    let model: Model = ringgate_config::parse("test", &text).unwrap().model;
    Arc::clone(model.services()[0].health().unwrap().check())
}

fn http(keys: &str) -> Http {
    Http::new(&check(keys), SocketAddr::from(([10, 2, 0, 1], 8080)))
}

/// Plays an answer in these pieces, then the end of the stream.
fn play<'p>(keys: &str, pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<(), Complaint> {
    let mut http = http(keys);
    assert!(matches!(http.begin(), Turn::Say(_)));
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        match http.heard(piece) {
            Turn::Over(result) => return result,
            Turn::Listen => {}
            Turn::Say(more) => panic!("{more:?}"),
        }
    }
    http.closed()
}

fn whole(keys: &str, answer: &str) -> Result<(), Complaint> {
    play(keys, [answer.as_bytes()])
}

#[test]
fn the_request_is_what_was_configured() {
    let said = |keys| match http(keys).begin() {
        Turn::Say(bytes) => String::from_utf8(bytes).unwrap(),
        turn => panic!("{turn:?}"),
    };
    let plain = said("");
    assert!(
        plain.starts_with("GET / HTTP/1.1\r\nHost: 10.2.0.1:8080\r\n"),
        "{plain}"
    );
    assert!(plain.ends_with("\r\nConnection: close\r\n\r\n"), "{plain}");
    let full = said(", method = \"HEAD\", path = \"/up?deep=1\", host = \"a.example:81\"");
    assert!(
        full.starts_with("HEAD /up?deep=1 HTTP/1.1\r\nHost: a.example:81\r\n"),
        "{full}"
    );
}

#[test]
fn the_status_decides_when_no_body_is_wanted() {
    assert_eq!(whole("", "HTTP/1.1 200 OK\r\n\r\n"), Ok(()));
    assert_eq!(
        whole("", "HTTP/1.0 302 Found\nLocation: /\n\n"),
        Ok(()),
        "bare line ends"
    );
    assert_eq!(
        whole(
            "",
            "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n"
        ),
        Ok(())
    );
    for (status, keys) in [(500, ""), (404, ""), (200, ", status = \"204\""), (101, "")] {
        let found = whole(keys, &format!("HTTP/1.1 {status} Hm\r\n\r\nrest"));
        let Err(complaint @ Complaint::Status { .. }) = found else {
            panic!("{status}: {found:?}");
        };
        let text = complaint.to_string();
        let expected = if keys.is_empty() { "200-399" } else { "204" };
        let begin = format!("HTTP status {status}, expected {expected}");
        assert!(text.starts_with(&begin), "{text}");
    }
}

#[test]
fn a_body_is_searched_however_it_is_framed_and_only_so_far() {
    let wanted = ", body = \"well\", body-within = 20";
    let head = "HTTP/1.1 200 OK\r\n";
    let good = [
        format!("{head}\r\nall is well"),
        format!("{head}Content-Length: 11\r\n\r\nall is well"),
        format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n5\r\nall i\r\n6;x=y\r\ns well\r\n0\r\n\r\n"
        ),
        format!("{head}transfer-encoding: gzip, CHUNKED\r\nContent-Length: 1\r\n\r\n4\r\nwell\r\n"),
        format!("{head}\r\n0123456789012345well and more"),
    ];
    for answer in good {
        assert_eq!(whole(wanted, &answer), Ok(()), "{answer}");
    }
    let bad = [
        (format!("{head}\r\nall is we"), 9),
        (format!("{head}Content-Length: 9\r\n\r\nall is well"), 9),
        (
            format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nwe\r\n0\r\n\r\n"),
            2,
        ),
        (format!("{head}\r\n01234567890123456well"), 20),
        ("HTTP/1.1 204 No\r\n\r\nwell".to_owned(), 0),
    ];
    for (answer, searched) in bad {
        let expected = Excerpt::of(b"well");
        let expected = Err(Complaint::Body { expected, searched });
        assert_eq!(whole(wanted, &answer), expected, "{answer}");
    }
    for chunks in ["zz\r\n", "2\r\nabc\r\n", "fffffffffffffffff\r\n"] {
        let answer = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(
            whole(wanted, &answer),
            Err(Complaint::BadChunks),
            "{chunks:?}"
        );
    }
    let line = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n1;{}",
        "x".repeat(300)
    );
    assert_eq!(whole(wanted, &line), Err(Complaint::BadChunks));
}

#[test]
fn an_answer_that_ends_too_early_says_how_much_there_was() {
    let cut = |heard| Err(Complaint::Cut(Cut::Closed, heard));
    assert_eq!(whole("", ""), cut(Heard::Nothing));
    assert_eq!(whole("", "HTTP/1.1 200"), cut(Heard::Bytes(12)));
    let wanted = ", body = \"well\"";
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall";
    assert_eq!(whole(wanted, short), cut(Heard::Bytes(41)));
}

#[test]
fn garbage_is_seen_at_its_first_byte_and_an_endless_head_at_its_bound() {
    let ssh = whole("", "SSH-2.0-OpenSSH_9.2\r\n");
    let Err(Complaint::NotHttp(begins)) = ssh else {
        panic!("{ssh:?}");
    };
    assert_eq!(begins.to_string(), r"SSH-2.0-OpenSSH_9.2\r\n");
    assert!(matches!(
        whole("", "\x15\x03\x01"),
        Err(Complaint::NotHttp(_))
    ));
    assert!(matches!(
        whole("", "HTTP/1.1 abc\r\n\r\n"),
        Err(Complaint::NotHttp(_))
    ));
    let fields = "HTTP/1.1 200 OK\r\n".to_owned() + &"X-Filler: aaaaaaaa\r\n".repeat(2_000);
    assert_eq!(whole("", &fields), Err(Complaint::LongHead));
    let many = "HTTP/1.1 200 OK\r\n".to_owned() + &"A: b\r\n".repeat(101) + "\r\n";
    assert_eq!(whole("", &many), Err(Complaint::LongHead));
    let informed = "HTTP/1.1 100 Go\r\n\r\n".repeat(2_000);
    assert_eq!(
        whole("", &informed),
        Err(Complaint::LongHead),
        "informational for ever"
    );
}

fn answers() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well",
        "HTTP/1.1 200 OK\r\n\r\nall is wewell",
        "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n8\r\n is well\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nallX",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nall is well",
        "HTTP/1.1 500 No\r\n\r\nwell",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\n\nwell",
        "220 mail.example ESMTP\r\n",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_an_answer_is_divided_changes_nothing(
        answer in answers(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let keys = ", body = \"well\", body-within = 1000";
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(answer.len() + 1)).collect();
        cuts.extend([0, answer.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &answer.as_bytes()[cut[0]..cut[1]]).collect();
        let bytes: Vec<&[u8]> = answer.as_bytes().chunks(1).collect();
        let plain = |result: Result<(), Complaint>| match result {
            // What was seen of it depends on when it was refused.
            Err(Complaint::NotHttp(_)) => Err(Complaint::NotHttp(Excerpt::default())),
            other => other,
        };
        let at_once = plain(whole(keys, &answer));
        prop_assert_eq!(plain(play(keys, pieces)), at_once);
        prop_assert_eq!(plain(play(keys, bytes)), at_once);
    }

    #[test]
    fn any_bytes_come_to_an_end(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..64), 0..32)) {
        prop_assert!(play("", pieces.iter().map(Vec::as_slice)).is_err());
        let head = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
        let after = [head].into_iter().chain(pieces.iter().map(Vec::as_slice));
        // Random chunks hardly ever say it.
        prop_assert!(play(", body = \"all is well\"", after).is_err());
    }
}
