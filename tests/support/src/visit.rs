//! Visitors: short HTTP connections, one request each, from the client.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use crate::playground::Playground;

/// How long a visitor waits for anything. Above the first two retransmissions of a SYN (1 s
/// and 2 s more, Linux), so that a loss shows as a counter and not as a visitor giving up.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of many visits.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Visits {
    /// How often which backend answered.
    pub answers: BTreeMap<String, usize>,
    /// Why the others were not answered.
    pub failures: Vec<String>,
}

impl Visits {
    /// All answers.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.answers.values().sum()
    }

    /// The answers of one backend.
    #[must_use]
    pub fn of(&self, backend: &str) -> usize {
        self.answers.get(backend).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, result: io::Result<String>) {
        match result {
            Ok(backend) => *self.answers.entry(backend).or_default() += 1,
            Err(error) => self.failures.push(error.to_string()),
        }
    }
}

/// Opens a connection from the calling thread's namespace, asks for `/` and returns the name of
/// the backend that answered.
///
/// # Errors
///
/// What the socket said, or that the answer is not a good one.
pub fn visit(target: SocketAddr) -> io::Result<String> {
    request(TcpStream::connect_timeout(&target, PATIENCE)?)
}

/// The same over a connection that is open already.
///
/// # Errors
///
/// What the socket said, or that the answer is not a good one.
pub fn request(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: service\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200 ") || body.is_empty() {
        return Err(io::Error::other(format!("not a good answer: {answer:?}")));
    }
    Ok(body.to_owned())
}

/// Opens a connection from an address and port of one's own choice, which other connections to
/// elsewhere may have as well (SO_REUSEADDR).
///
/// # Errors
///
/// What the socket said.
pub fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if from.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &from)?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

impl Playground {
    /// Sends `count` visitors to `target`, eight at a time.
    ///
    /// # Panics
    ///
    /// Never of itself: failed visits are in the result.
    #[must_use]
    pub fn visits(&self, target: SocketAddr, count: usize) -> Visits {
        const AT_A_TIME: usize = 8;
        let mut visits = Visits::default();
        let results = self.inside("client", || {
            // Threads inherit the namespace of the one that starts them.
            std::thread::scope(|scope| {
                let share = |n: usize| count / AT_A_TIME + usize::from(n < count % AT_A_TIME);
                let threads: Vec<_> = (0..AT_A_TIME)
                    .map(|n| {
                        scope.spawn(move || Vec::from_iter((0..share(n)).map(|_| visit(target))))
                    })
                    .collect();
                Vec::from_iter(
                    threads
                        .into_iter()
                        .flat_map(|thread| thread.join().unwrap()),
                )
            })
        });
        results.into_iter().for_each(|result| visits.add(result));
        visits
    }
}
