//! TLS around a dialogue: the handshake first, then what the dialogue says, in records.
//!
//! `rustls` does no I/O of its own: it is handed what was received and asked what is to be sent. A session
//! is never resumed: a check is to see what a new client would.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, Error};

use super::complaint::{Complaint, Cut, Heard};
use super::excerpt::Excerpt;
use super::stream::{Dialogue, Turn};

/// Taken out of TLS at once, bytes.
const PIECE: usize = 4_096;

/// A dialogue within TLS.
#[derive(Debug)]
pub(super) struct Tls {
    connection: ClientConnection,
    inner: Box<dyn Dialogue>,
    /// The inner dialogue has begun.
    is_open: bool,
}

impl Tls {
    /// With a backend of this name.
    ///
    /// # Errors
    /// What `rustls` has against the configuration.
    pub(super) fn new(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        inner: Box<dyn Dialogue>,
    ) -> Result<Self, Error> {
        Ok(Self {
            connection: ClientConnection::new(config, name)?,
            inner,
            is_open: false,
        })
    }

    /// What is to be sent, if anything.
    fn flush(&mut self) -> Turn {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut out) {
                Ok(1..) => {}
                // Writing to memory does not fail.
                Ok(0) | Err(_) => break,
            }
        }
        if out.is_empty() {
            Turn::Listen
        } else {
            Turn::Say(out)
        }
    }

    /// Does what the inner dialogue wants; its decision, if it has made one.
    fn take(&mut self, turn: Turn) -> Option<Result<(), Complaint>> {
        match turn {
            Turn::Say(bytes) => self
                .connection
                .writer()
                .write_all(&bytes)
                .err()
                .map(|error| Err(Complaint::Tls(Excerpt::print(&error)))),
            Turn::Listen => None,
            Turn::Over(result) => Some(result),
        }
    }

    /// Hands what has come out of the records to the inner dialogue.
    fn read(&mut self) -> Option<Result<(), Complaint>> {
        let mut buffer = [0; PIECE];
        loop {
            let turn = match self.connection.reader().read(&mut buffer) {
                Ok(0) => return Some(self.inner.closed()),
                Ok(count) => self.inner.heard(buffer.get(..count)?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(Complaint::Tls(Excerpt::print(&error)))),
            };
            if let Some(result) = self.take(turn) {
                return Some(result);
            }
        }
    }

    /// Takes in what was received.
    fn feed(&mut self, mut bytes: &[u8]) -> Option<Result<(), Complaint>> {
        let begins = Excerpt::of(bytes);
        while !bytes.is_empty() {
            if let Err(error) = self.connection.read_tls(&mut bytes) {
                return Some(Err(Complaint::Tls(Excerpt::print(&error))));
            }
            if let Err(error) = self.connection.process_new_packets() {
                return Some(Err(complaint(&error, begins)));
            }
            if !self.is_open && !self.connection.is_handshaking() {
                self.is_open = true;
                let turn = self.inner.begin();
                if let Some(result) = self.take(turn) {
                    return Some(result);
                }
            }
            if let Some(result) = self.read() {
                return Some(result);
            }
        }
        None
    }
}

impl Dialogue for Tls {
    fn begin(&mut self) -> Turn {
        self.flush()
    }

    fn heard(&mut self, bytes: &[u8]) -> Turn {
        match self.feed(bytes) {
            Some(result) => Turn::Over(result),
            None => self.flush(),
        }
    }

    /// Without `close_notify` an answer that ends with the connection may have been cut short; for a
    /// check, what was looked for was there or was not.
    fn closed(&mut self) -> Result<(), Complaint> {
        if self.is_open {
            self.inner.closed()
        } else {
            Err(Complaint::Cut(Cut::Closed, Heard::Handshake))
        }
    }

    fn progress(&self) -> Heard {
        if self.is_open {
            self.inner.progress()
        } else {
            Heard::Handshake
        }
    }
}

/// What `rustls` has against the backend, in an operator's words.
fn complaint(error: &Error, begins: Excerpt) -> Complaint {
    match error {
        // Of an authority of a known name with another key the signature is bad.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Complaint::UnknownIssuer,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => Complaint::Expired,
        Error::InvalidCertificate(CertificateError::NotValidForName) => {
            Complaint::WrongName(Excerpt::of(b"the name asked for"))
        }
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected, ..
        }) => Complaint::WrongName(Excerpt::of(expected.to_str().as_bytes())),
        Error::AlertReceived(alert) => {
            Complaint::TlsAlert(Excerpt::print(&format_args!("{alert:?}")))
        }
        Error::InvalidMessage(_) => Complaint::NotTls(begins),
        other => Complaint::Tls(Excerpt::print(other)),
    }
}
