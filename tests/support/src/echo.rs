//! Echo servers on the backends, and who talks to them.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::clock::{pause, until};
use crate::playground::Playground;
use crate::threads::{GLANCE, Threads, goes_on};

/// How long an answer may take: it comes in microseconds or not at all.
const PATIENCE: Duration = Duration::from_secs(3);

/// A server that sends every datagram back where it came from, unchanged.
#[derive(Debug)]
pub struct UdpEcho(#[expect(dead_code, reason = "held for its drop")] Threads);

impl UdpEcho {
    /// Starts one on a node, at each of `addresses`.
    ///
    /// # Panics
    ///
    /// When an address cannot be had there.
    #[must_use]
    pub fn start(playground: &Playground, node: &str, addresses: &[SocketAddr]) -> Self {
        let mut threads = Threads::new();
        for &address in addresses {
            let socket = playground
                .inside(node, || UdpSocket::bind(address))
                .unwrap();
            socket.set_read_timeout(Some(GLANCE)).unwrap();
            threads.add(move |stop| echo_datagrams(&socket, stop));
        }
        Self(threads)
    }
}

impl UdpEcho {
    /// One on every backend, at `port` of its own addresses and of the direct-return addresses.
    ///
    /// # Panics
    ///
    /// When an address cannot be had there.
    #[must_use]
    pub fn on_all(playground: &Playground, port: u16) -> Vec<Self> {
        let start = |number: u8| {
            let [four, six] = own_addresses(number, port);
            let direct = ["10.100.0.2", "fd00:100::2"].map(|text| text.parse::<IpAddr>().unwrap());
            let [direct4, direct6] = direct.map(|address| SocketAddr::new(address, port));
            Self::start(
                playground,
                &format!("b{number}"),
                &[four, six, direct4, direct6],
            )
        };
        playground.backends().map(start).collect()
    }
}

/// A backend's addresses, in both families.
fn own_addresses(number: u8, port: u16) -> [SocketAddr; 2] {
    let last = 10 + number;
    let texts = [format!("10.2.0.{last}"), format!("fd00:2::{last}")];
    texts.map(|text| SocketAddr::new(text.parse().unwrap(), port))
}

/// Sends a word from an unconnected socket and returns what comes back from the address that
/// was asked.
///
/// # Errors
///
/// Nothing came, or it came from elsewhere.
pub fn ask(socket: &UdpSocket, service: SocketAddr, word: &str) -> io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(word.as_bytes(), service)?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    if from != service {
        return Err(io::Error::other(format!(
            "{service} was asked and {from} answered"
        )));
    }
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Waits until `service` answers the calling thread's namespace on as many new sockets in a row
/// as make it improbable that a backend was not among them. The first packets of all ask for
/// neighbours and are lost, which UDP may lose; after this, nothing may be.
///
/// # Panics
///
/// When that does not come to pass.
pub fn wait_for_the_way(service: SocketAddr) {
    const IN_A_ROW: usize = 20;
    let unspecified = if service.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let mut answered = 0;
    until(Duration::from_secs(20), "every backend answers", || {
        let socket = UdpSocket::bind(unspecified).unwrap();
        answered = if ask(&socket, service, "?").is_ok() {
            answered + 1
        } else {
            0
        };
        (answered >= IN_A_ROW).then_some(())
    });
}

fn echo_datagrams(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    while goes_on(stop) {
        // An error is the timeout, or an ICMP message about an earlier answer.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(&buffer[..length], from));
        }
    }
}

/// `length` bytes that are different for every length and place, so that neither a datagram
/// nor a part of one can be taken for another.
#[must_use]
pub fn pattern(length: usize) -> Vec<u8> {
    let word = |n: usize| {
        u32::try_from(length * 65_599 + n)
            .unwrap()
            .wrapping_mul(0x9E37_79B1)
    };
    (0..length).map(|n| word(n).to_be_bytes()[0]).collect()
}

/// Sends [`pattern`] from a connected socket and compares what comes back.
///
/// # Errors
///
/// Nothing came, or something else.
pub fn check_datagram(socket: &UdpSocket, length: usize) -> io::Result<()> {
    let sent = pattern(length);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&sent)?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let received = socket.recv(&mut buffer).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{length} bytes did not come back: {error}"),
        )
    })?;
    if buffer[..received] != sent {
        return Err(io::Error::other(format!(
            "{length} bytes came back as {received} others"
        )));
    }
    Ok(())
}

/// A server that answers every line with its node's name and the line.
#[derive(Debug)]
pub struct TcpEcho(#[expect(dead_code, reason = "held for its drop")] Threads);

impl TcpEcho {
    /// Starts one on a node, at each of `addresses`.
    ///
    /// # Panics
    ///
    /// When an address cannot be had there.
    #[must_use]
    pub fn start(playground: &Playground, node: &str, addresses: &[SocketAddr]) -> Self {
        let mut threads = Threads::new();
        for &address in addresses {
            let listener = playground
                .inside(node, || TcpListener::bind(address))
                .unwrap();
            listener.set_nonblocking(true).unwrap();
            let name = node.to_owned();
            threads.add(move |stop| accept(&listener, &name, stop));
        }
        Self(threads)
    }

    /// One on every backend, at port `port` of its own addresses.
    ///
    /// # Panics
    ///
    /// When an address cannot be had there.
    #[must_use]
    pub fn on_all(playground: &Playground, port: u16) -> Vec<Self> {
        let start = |number: u8| {
            Self::start(
                playground,
                &format!("b{number}"),
                &own_addresses(number, port),
            )
        };
        playground.backends().map(start).collect()
    }
}

fn accept(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    std::thread::scope(|scope| {
        while goes_on(stop) {
            match listener.accept() {
                Ok((stream, _)) => drop(scope.spawn(move || answer(stream, name, stop))),
                Err(_) => pause(GLANCE / 10),
            }
        }
    });
}

fn answer(stream: TcpStream, name: &str, stop: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(GLANCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while goes_on(stop) {
        match reader.read_line(&mut line) {
            Ok(0) => return,
            Ok(_)
                if writer
                    .write_all(format!("{name} {line}").as_bytes())
                    .is_err() =>
            {
                return;
            }
            Ok(_) => line.clear(),
            // A timeout keeps what was read of a line; anything else ends the connection.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// A connection to an echo server that stays open.
#[derive(Debug)]
pub struct Conversation {
    reader: BufReader<TcpStream>,
    said: usize,
}

impl Conversation {
    /// Opens one from the client.
    ///
    /// # Errors
    ///
    /// What the socket said.
    pub fn open(playground: &Playground, target: SocketAddr) -> io::Result<Self> {
        let stream =
            playground.inside("client", || TcpStream::connect_timeout(&target, PATIENCE))?;
        Self::over(stream)
    }

    /// Over a connection that is open already.
    ///
    /// # Errors
    ///
    /// What the socket said.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            reader: BufReader::new(stream),
            said: 0,
        })
    }

    /// Says something and returns the name of the backend that answered it.
    ///
    /// # Errors
    ///
    /// No answer came, or not to what was said.
    pub fn say(&mut self) -> io::Result<String> {
        self.said += 1;
        let line = format!("line {}\n", self.said);
        self.reader.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer)?;
        match answer.split_once(' ') {
            Some((backend, rest)) if rest == line => Ok(backend.to_owned()),
            _ => Err(io::Error::other(format!(
                "{line:?} was answered with {answer:?}"
            ))),
        }
    }
}
