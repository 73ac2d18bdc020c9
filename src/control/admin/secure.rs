//! TLS before the same requests: the listener of `[api]`, where clients show a certificate.
//!
//! [`Session`] is one connection's: what comes is fed to it, what is to be sent is sealed by it. It
//! does no I/O, as the rest of the room. Who has no certificate of the client CA gets no further than
//! the handshake; what who has one may do follows from the DNS names in it.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringgate_config::Remote;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use webpki::EndEntityCert;

use super::access::Access;

/// Bytes received at once: the longest record (RFC 8446, 5.2).
pub(super) const RECEIVED_MOST: usize = 17 << 10;

/// Why nobody can be served by TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecureError {
    /// A file of `[api]` is of no use.
    #[error("[api] {key}: {path}: {what}")]
    File {
        /// The key.
        key: &'static str,
        /// What it says.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// They do not fit each other.
    #[error("[api] certificate, key and client-ca: {0}")]
    Misfit(String),
}

/// What all connections have in common.
#[derive(Debug, Clone)]
pub(crate) struct Secure {
    config: Arc<ServerConfig>,
    read: Arc<[String]>,
    write: Arc<[String]>,
}

impl Secure {
    /// Reads the certificates and the key.
    ///
    /// # Errors
    ///
    /// A file cannot be read, has not what it should have, or does not fit the others.
    pub(crate) fn load(remote: &Remote) -> Result<Self, SecureError> {
        let chain = certificates("certificate", remote.certificate())?;
        let key = PrivateKeyDer::from_pem_file(remote.key())
            .map_err(|error| unusable("key", remote.key(), &error))?;
        let mut roots = RootCertStore::empty();
        for root in certificates("client-ca", remote.client_ca())? {
            let added = roots.add(root);
            added.map_err(|error| unusable("client-ca", remote.client_ca(), &error))?;
        }
        let misfit = |error: &dyn ToString| SecureError::Misfit(error.to_string());
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| misfit(&error))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| misfit(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| misfit(&error))?;
        Ok(Self {
            config: Arc::new(config),
            read: remote.read_names().into(),
            write: remote.write_names().into(),
        })
    }

    /// A new connection.
    pub(super) fn session(&self) -> Result<Session, rustls::Error> {
        let mut tls = ServerConnection::new(Arc::clone(&self.config))?;
        // What is sealed is taken at once; an answer may be long.
        tls.set_buffer_limit(None);
        Ok(Session {
            tls,
            secure: self.clone(),
            plain: Vec::new(),
            sent: 0,
        })
    }

    fn access(&self, certificate: &CertificateDer<'_>) -> Access {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else {
            return Access::Nothing;
        };
        let has = |names: &[String]| {
            let mut own = certificate.valid_dns_names();
            own.any(|own| names.iter().any(|name| name.eq_ignore_ascii_case(own)))
        };
        match (has(&self.write), has(&self.read)) {
            (true, _) => Access::Write,
            (false, true) => Access::Read,
            (false, false) => Access::Nothing,
        }
    }
}

fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, SecureError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| unusable(key, path, &error))?
        .collect();
    let all = all.map_err(|error| unusable(key, path, &error))?;
    if all.is_empty() {
        return Err(unusable(key, path, &"there is no certificate in it (PEM)"));
    }
    Ok(all)
}

fn unusable(key: &'static str, path: &Path, what: &dyn ToString) -> SecureError {
    SecureError::File {
        key,
        path: path.to_owned(),
        what: what.to_string(),
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    tls: ServerConnection,
    secure: Secure,
    /// What has come of the request.
    pub(super) plain: Vec<u8>,
    /// Bytes of the handshake's answer that have been sent.
    pub(super) sent: usize,
}

impl Session {
    /// Takes what has come.
    ///
    /// # Errors
    ///
    /// It is no TLS, or the client is none that is let in. [`Self::pending`] has what to tell it.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            let mut piece = [0; 4096];
            loop {
                match self.tls.reader().read(&mut piece) {
                    Ok(0) => return Ok(()), // the client says that it has said all
                    Ok(count) => self.plain.extend(&piece[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// What who is at the other end may do; nothing before that is known.
    pub(super) fn access(&self) -> Access {
        let first = self.tls.peer_certificates().and_then(<[_]>::first);
        match first {
            Some(certificate) if !self.tls.is_handshaking() => self.secure.access(certificate),
            _ => Access::Nothing,
        }
    }

    /// What is to be sent of the protocol itself.
    pub(super) fn pending(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            // Into memory it can only take everything.
            if self.tls.write_tls(&mut bytes).is_err() {
                break;
            }
        }
        bytes
    }

    /// These bytes, as they are sent; the end of everything, if they are the last.
    pub(super) fn seal(&mut self, bytes: &[u8], are_last: bool) -> Vec<u8> {
        // Without a limit all are taken.
        let _all = self.tls.writer().write_all(bytes);
        if are_last {
            self.tls.send_close_notify();
        }
        self.pending()
    }
}

#[cfg(test)]
mod tests;
