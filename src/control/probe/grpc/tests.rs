//! The call against `h2`'s own server, by buffers alone.

use proptest::prelude::*;

use super::*;

fn grpc(keys: &str) -> Grpc {
    let text = format!(
        "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"a\"\nlisten = \"10.0.0.1:80\"\n\
         protocol = \"tcp\"\nforward = \"nat\"\nhealth = {{ kind = \"grpc\"{keys} }}\n"
    );
    let model = ringgate_config::parse("test", &text).unwrap().model;
    let check = Arc::clone(model.services()[0].health().unwrap().check());
    Grpc::new(&check, SocketAddr::from(([10, 2, 0, 1], 8080))).unwrap()
}

/// What a server answers.
#[derive(Debug, Clone, Copy)]
struct Answer {
    http: u16,
    status: Option<&'static str>,
    message: &'static [u8],
}

const SERVES: Answer = Answer {
    http: 200,
    status: Some("0"),
    message: &[0, 0, 0, 0, 2, 0x08, 1],
};

/// What a server asked for, and in which words.
#[derive(Debug, Default, Clone)]
struct Asked {
    path: String,
    authority: String,
    message: Vec<u8>,
}

async fn serve(pipe: Pipe, answer: Answer, asked: Rc<RefCell<Asked>>) {
    let mut server = h2::server::handshake(pipe).await.unwrap();
    let (request, mut respond) = server.accept().await.unwrap().unwrap();
    let turn = std::future::poll_fn(|context| server.poll_closed(context));
    let reply = async {
        let (head, mut body) = request.into_parts();
        let mut message = Vec::new();
        while let Some(piece) = body.data().await {
            message.extend_from_slice(&piece.unwrap());
        }
        *asked.borrow_mut() = Asked {
            path: head.uri.path().to_owned(),
            authority: head.uri.authority().unwrap().to_string(),
            message,
        };
        let response = http::Response::builder()
            .status(answer.http)
            .body(())
            .unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        stream
            .send_data(Bytes::from_static(answer.message), false)
            .unwrap();
        let mut trailers = HeaderMap::new();
        if let Some(status) = answer.status {
            trailers.insert("grpc-status", status.parse().unwrap());
            trailers.insert("grpc-message", "so it is".parse().unwrap());
        }
        stream.send_trailers(trailers).unwrap();
        std::future::pending::<()>().await;
    };
    let (mut turn, mut reply) = (pin!(turn), pin!(reply));
    std::future::poll_fn(|context| {
        let _: Poll<()> = reply.as_mut().poll(context);
        turn.as_mut().poll(context).map(|_| ())
    })
    .await;
}

/// Plays a call; what the server says comes in pieces of these lengths, over and over.
fn play(keys: &str, answer: Answer, lengths: &[usize]) -> (Result<(), Complaint>, Asked) {
    let asked = Rc::new(RefCell::new(Asked::default()));
    let buffers = Rc::new(RefCell::new(Buffers::default()));
    let mut server = Box::pin(serve(Pipe(Rc::clone(&buffers)), answer, Rc::clone(&asked)));
    let mut context = Context::from_waker(Waker::noop());
    let mut lengths = lengths.iter().copied().cycle();
    let mut grpc = grpc(keys);
    let mut turn = grpc.begin();
    for _ in 0..10_000 {
        match turn {
            Turn::Say(bytes) => buffers.borrow_mut().received.extend_from_slice(&bytes),
            Turn::Listen => {}
            Turn::Over(result) => return (result, asked.borrow().clone()),
        }
        for _ in 0..8 {
            let _: Poll<()> = server.as_mut().poll(&mut context);
        }
        let piece: Vec<u8> = {
            let out = &mut buffers.borrow_mut().out;
            let length = lengths.next().unwrap().min(out.len());
            out.drain(..length).collect()
        };
        turn = if piece.is_empty() {
            Turn::Listen
        } else {
            grpc.heard(&piece)
        };
    }
    panic!("no end: {:?}", asked.borrow());
}

#[test]
fn a_server_that_serves_is_asked_as_the_protocol_says() {
    let (result, asked) = play("", SERVES, &[usize::MAX]);
    assert_eq!(result, Ok(()));
    assert_eq!(asked.path, "/grpc.health.v1.Health/Check");
    assert_eq!(asked.authority, "10.2.0.1:8080");
    assert_eq!(asked.message, [0, 0, 0, 0, 0], "an empty request");
    let (_, asked) = play(
        ", service = \"a.B\", host = \"x.example\"",
        SERVES,
        &[usize::MAX],
    );
    assert_eq!(asked.message, b"\0\0\0\0\x05\x0a\x03a.B");
    assert_eq!(asked.authority, "x.example");
}

#[test]
fn whatever_else_it_says_is_told() {
    let of = |answer| play("", answer, &[usize::MAX]).0.unwrap_err().to_string();
    let message = |message| Answer { message, ..SERVES };
    let status = |status| Answer { status, ..SERVES };
    assert_eq!(
        of(message(&[0, 0, 0, 0, 2, 0x08, 2])),
        "the gRPC server says NOT_SERVING, expected SERVING"
    );
    assert_eq!(
        of(message(&[0, 0, 0, 0, 0])),
        "the gRPC server says UNKNOWN, expected SERVING"
    );
    assert!(of(status(Some("12"))).contains("status 12 (the server has no health service)"));
    assert!(of(status(Some("5"))).contains("change service): so it is"));
    assert!(of(status(None)).contains("no grpc-status"));
    assert!(
        of(Answer {
            http: 404,
            ..SERVES
        })
        .contains("HTTP status 404")
    );
    assert!(of(message(b"<html>")).starts_with("not a gRPC answer"));
}

#[test]
fn what_is_not_http2_is_no_grpc() {
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n..............................",
        &[0xff; 100],
    ] {
        let mut grpc = grpc("");
        assert!(matches!(grpc.begin(), Turn::Say(_)));
        let turn = grpc.heard(garbage);
        assert!(
            matches!(turn, Turn::Over(Err(Complaint::NotGrpc(_)))),
            "{turn:?}"
        );
    }
    let mut silent = grpc("");
    silent.begin();
    let cut = Complaint::Cut(Cut::Closed, Heard::Nothing);
    assert_eq!(silent.closed(), Err(cut));
}

#[test]
fn messages_are_read_as_protobuf_says() {
    let of = |inner: &[u8]| {
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(inner.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(inner);
        serving_status(&framed)
    };
    assert_eq!(of(&[]), Some(0));
    assert_eq!(of(&[0x08, 1]), Some(1));
    let unknown_fields = [
        0x12, 2, 9, 9, 0x08, 0x81, 0x01, 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8,
    ];
    assert_eq!(of(&unknown_fields), Some(129));
    for bad in [
        &[0x08][..],
        &[0x0b],
        &[0x12, 9, 1],
        &[
            0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
    ] {
        assert_eq!(of(bad), None, "{bad:?}");
    }
    assert_eq!(serving_status(&[1, 0, 0, 0, 0]), None, "compressed");
    assert_eq!(serving_status(&[0, 0, 0, 0, 9]), None, "cut short");
    let mut number = Vec::new();
    varint(300, &mut number);
    assert_eq!(number, [0xac, 0x02]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_an_answer_is_divided_changes_nothing(lengths in prop::collection::vec(1..40_usize, 1..6)) {
        prop_assert_eq!(play("", SERVES, &lengths).0, Ok(()));
        let down = Answer { message: &[0, 0, 0, 0, 2, 0x08, 3], ..SERVES };
        let expected = Err(Complaint::NotServing(Excerpt::of(b"SERVICE_UNKNOWN")));
        prop_assert_eq!(play("", down, &lengths).0, expected);
    }

    #[test]
    fn any_bytes_come_to_an_end(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..64), 0..32)) {
        let mut grpc = grpc("");
        grpc.begin();
        for piece in pieces {
            if matches!(grpc.heard(&piece), Turn::Over(_)) {
                return Ok(());
            }
        }
        prop_assert!(grpc.closed().is_err());
    }
}
