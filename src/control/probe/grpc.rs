//! The `grpc` check: `grpc.health.v1.Health/Check` over HTTP/2 (RFC 9113, the gRPC health checking
//! protocol).
//!
//! HTTP/2 is `h2`'s, which expects a connection that it can poll. It is given two buffers instead: what
//! was received is put into the one and it is polled until nothing in it wants to go on; what it has put into
//! the other is sent. No runtime has a part in that.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use ringgate_config::Check;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::complaint::{Complaint, Cut, Heard};
use super::excerpt::Excerpt;
use super::stream::{Dialogue, Turn};

/// Longest message that is read. An answer takes seven bytes.
const MESSAGE_MAX: usize = 1_024;

/// Most header fields that are taken, bytes.
const FIELDS_MAX: u32 = 16 << 10;

/// How much the server may send unasked, bytes.
const WINDOW: u32 = 16 << 10;

/// How often the call is polled for one piece that was received. It stops by itself when it has nothing more
/// to do; this is for one that never does.
const POLLS_MAX: u32 = 1_000;

/// SERVING in `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

type Call = Pin<Box<dyn Future<Output = Result<(), Complaint>>>>;

/// The dialogue.
pub(super) struct Grpc {
    buffers: Rc<RefCell<Buffers>>,
    call: Call,
    heard: u64,
}

impl Grpc {
    /// A call that has not begun; `None` if this is no such check.
    pub(super) fn new(check: &Arc<Check>, address: SocketAddr) -> Option<Self> {
        let Check::Grpc(grpc, tls) = &**check else {
            return None;
        };
        let host = grpc.authority.clone();
        let authority = host.unwrap_or_else(|| address.to_string());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let request = Request::post(format!(
            "{scheme}://{authority}/grpc.health.v1.Health/Check"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header(
            "user-agent",
            concat!("ringgate/", env!("CARGO_PKG_VERSION")),
        )
        .body(())
        .ok()?;
        let buffers = Rc::new(RefCell::new(Buffers::default()));
        let call = call(Pipe(Rc::clone(&buffers)), request, message(&grpc.service));
        Some(Self {
            buffers,
            call: Box::pin(call),
            heard: 0,
        })
    }

    /// Lets the call go on as far as it can; its result, if it has come to one.
    fn poll(&mut self) -> Option<Result<(), Complaint>> {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        for _ in 0..POLLS_MAX {
            // One thread uses it: relaxed is as good as anything.
            if !woken.0.swap(false, Ordering::Relaxed) {
                return None;
            }
            if let Poll::Ready(result) = self.call.as_mut().poll(&mut context) {
                return Some(result);
            }
        }
        None
    }

    fn turn(&mut self) -> Turn {
        match self.poll() {
            Some(result) => Turn::Over(result),
            None => {
                let out = std::mem::take(&mut self.buffers.borrow_mut().out);
                if out.is_empty() {
                    Turn::Listen
                } else {
                    Turn::Say(out)
                }
            }
        }
    }
}

impl Dialogue for Grpc {
    fn begin(&mut self) -> Turn {
        self.turn()
    }

    fn heard(&mut self, bytes: &[u8]) -> Turn {
        self.heard += bytes.len() as u64;
        self.buffers.borrow_mut().received.extend_from_slice(bytes);
        self.turn()
    }

    fn closed(&mut self) -> Result<(), Complaint> {
        self.buffers.borrow_mut().is_closed = true;
        let cut = Err(Complaint::Cut(Cut::Closed, self.progress()));
        match self.poll() {
            // What went before says more than that the connection ended.
            Some(Err(Complaint::NotGrpc(_))) | None => cut,
            Some(result) => result,
        }
    }

    fn progress(&self) -> Heard {
        match self.heard {
            0 => Heard::Nothing,
            bytes => Heard::Bytes(bytes),
        }
    }
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc")
            .field("heard", &self.heard)
            .finish_non_exhaustive()
    }
}

/// Says that the call wants to be polled again.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        // As in `Grpc::poll`.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What came and what is to go.
#[derive(Default)]
struct Buffers {
    received: Vec<u8>,
    out: Vec<u8>,
    is_closed: bool,
}

/// A connection for `h2`, made of buffers.
struct Pipe(Rc<RefCell<Buffers>>);

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffers = self.0.borrow_mut();
        let count = buffers.received.len().min(into.remaining());
        if count > 0 {
            into.put_slice(buffers.received.get(..count).unwrap_or_default());
            buffers.received.drain(..count);
            return Poll::Ready(Ok(()));
        }
        if buffers.is_closed {
            return Poll::Ready(Ok(()));
        }
        // Whoever puts something into the buffer polls afterwards.
        Poll::Pending
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The whole call, the connection turned beside it.
async fn call(pipe: Pipe, request: Request<()>, message: Bytes) -> Result<(), Complaint> {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(FIELDS_MAX)
        .max_concurrent_reset_streams(1);
    let (client, mut connection) = builder.handshake(pipe).await.map_err(of_h2)?;
    let mut ask = pin!(ask(client, request, message));
    std::future::poll_fn(|context| {
        let over = Pin::new(&mut connection).poll(context);
        let answer = ask.as_mut().poll(context);
        match (answer, over) {
            (Poll::Ready(result), _) => Poll::Ready(result),
            // Nothing can come any more.
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(of_h2(error))),
            (Poll::Pending, Poll::Ready(Ok(()))) => {
                let closed = Excerpt::of(b"the connection was closed");
                Poll::Ready(Err(Complaint::NotGrpc(closed)))
            }
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

async fn ask(
    client: SendRequest<Bytes>,
    request: Request<()>,
    message: Bytes,
) -> Result<(), Complaint> {
    let mut client = client.ready().await.map_err(of_h2)?;
    let (answer, mut body) = client.send_request(request, false).map_err(of_h2)?;
    body.send_data(message, true).map_err(of_h2)?;
    let answer = answer.await.map_err(of_h2)?;
    let (head, mut body) = answer.into_parts();
    if head.status != http::StatusCode::OK {
        let found = format_args!("HTTP status {}", head.status.as_u16());
        return Err(Complaint::NotGrpc(Excerpt::print(&found)));
    }
    // With nothing to say but that it failed, a server puts the status there.
    check_status(&head.headers)?;
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(of_h2)?;
        bytes.extend_from_slice(&piece);
        if bytes.len() > MESSAGE_MAX {
            return Err(Complaint::Endless(bytes.len() as u64));
        }
        // It is all read: the window need not grow for that little.
    }
    let trailers = body.trailers().await.map_err(of_h2)?.unwrap_or_default();
    if !trailers.contains_key("grpc-status") && !head.headers.contains_key("grpc-status") {
        return Err(Complaint::NotGrpc(Excerpt::of(b"no grpc-status")));
    }
    check_status(&trailers)?;
    match serving_status(&bytes) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(Complaint::NotServing(name_of(other))),
        None => Err(Complaint::NotGrpc(Excerpt::of(&bytes))),
    }
}

/// Refuses a call that failed.
fn check_status(fields: &HeaderMap) -> Result<(), Complaint> {
    let Some(status) = fields.get("grpc-status") else {
        return Ok(());
    };
    let code = status.to_str().ok().and_then(|text| text.parse().ok());
    match code {
        Some(0) => Ok(()),
        Some(code) => {
            let message = fields.get("grpc-message").map(|field| field.as_bytes());
            let message = String::from_utf8_lossy(message.unwrap_or_default());
            let hint = match code {
                5 => " (no such service is registered: change service)",
                12 => " (the server has no health service)",
                _ => "",
            };
            let text = format!("{hint}: {message}");
            Err(Complaint::GrpcStatus(code, Excerpt::of(text.as_bytes())))
        }
        None => Err(Complaint::NotGrpc(Excerpt::of(status.as_bytes()))),
    }
}

fn of_h2(error: h2::Error) -> Complaint {
    Complaint::NotGrpc(Excerpt::print(&error))
}

/// `HealthCheckRequest { service }` in protobuf, in gRPC's frame.
fn message(service: &str) -> Bytes {
    let mut inner = Vec::new();
    if !service.is_empty() {
        inner.push(0x0a); // field 1, a string
        varint(service.len(), &mut inner);
        inner.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0]; // not compressed
    let length = u32::try_from(inner.len()).unwrap_or(u32::MAX);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&inner);
    framed.into()
}

fn varint(mut number: usize, into: &mut Vec<u8>) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            into.push(low & 0x7f);
            return;
        }
        into.push(low | 0x80);
    }
}

/// `HealthCheckResponse.status` of a framed message; `None` if it is none.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (&[is_compressed, a, b, c, d], mut message) = framed.split_first_chunk::<5>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if is_compressed != 0 || length != message.len() {
        return None;
    }
    // Left out, a number is 0.
    let mut status = 0;
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = read_varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn name_of(status: u64) -> Excerpt {
    match status {
        0 => Excerpt::of(b"UNKNOWN"),
        2 => Excerpt::of(b"NOT_SERVING"),
        3 => Excerpt::of(b"SERVICE_UNKNOWN"),
        other => Excerpt::print(&format_args!("status {other}")),
    }
}

#[cfg(test)]
mod tests;
