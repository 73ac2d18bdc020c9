//! What checks over TLS need, ready for use: authorities, own certificates and keys, read from their files
//! when a configuration is taken up, and never while a check runs.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringgate_config::{Check, FileUse, Mention, Model, Problem, TlsCheck, Verify};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Where distributions keep the certificates of the authorities that they believe: Debian, Alpine and Arch;
/// Fedora and its kin; SUSE; others.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Largest file that is read, bytes. All authorities of a distribution take a quarter of a megabyte.
const FILE_MAX: u64 = 16 << 20;

/// For what TLS is used; each has its own protocol to be agreed on (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Inside {
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Grpc,
}

/// Ready configurations, one for each way in which a configuration's checks speak TLS.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    ready: HashMap<(Inside, TlsCheck), Arc<ClientConfig>>,
}

impl Trust {
    /// Reads what the checks of `model` need.
    ///
    /// # Errors
    /// What cannot be used, each with the file that is to blame where there is one.
    pub(crate) fn load(model: &Model) -> Result<Self, Vec<Wrong>> {
        let checks = model.services().iter().filter_map(|one| one.health());
        let wanted: BTreeSet<(Inside, &TlsCheck)> = checks
            .filter_map(|health| of_check(health.check()))
            .collect();
        let (mut trust, mut wrong) = (Self::default(), Vec::new());
        for (inside, check) in wanted {
            match client(inside, check) {
                Ok(config) => {
                    let key = (inside, check.clone());
                    trust.ready.insert(key, Arc::new(config));
                }
                Err(one) => wrong.push(one),
            }
        }
        if wrong.is_empty() {
            Ok(trust)
        } else {
            Err(wrong)
        }
    }

    /// What this check needs; `None` if it was not in the model that was loaded.
    pub(crate) fn of(&self, inside: Inside, check: &TlsCheck) -> Option<Arc<ClientConfig>> {
        self.ready.get(&(inside, check.clone())).cloned()
    }
}

fn of_check(check: &Check) -> Option<(Inside, &TlsCheck)> {
    let inside = match check {
        Check::Grpc(..) => Inside::Grpc,
        _ => Inside::Http,
    };
    check.tls().map(|tls| (inside, tls))
}

/// Something that stands in the way of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    path: PathBuf,
    found: String,
    expected: &'static str,
    cure: &'static str,
}

impl Wrong {
    fn new(path: &Path, found: String, expected: &'static str, cure: &'static str) -> Self {
        let path = path.to_owned();
        Self {
            path,
            found,
            expected,
            cure,
        }
    }

    fn unreadable(path: &Path, error: &io::Error) -> Self {
        let found = format!("{}, which cannot be read: {error}", path.display());
        let cure = "correct the path, or the file's permissions";
        Self::new(path, found, "a file that can be read", cure)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            found,
            expected,
            cure,
            ..
        } = self;
        write!(f, "found {found}; expected {expected}; {cure}")
    }
}

/// All of them on one line.
pub(crate) fn said(wrong: Vec<Wrong>) -> String {
    let wrong: Vec<String> = wrong.iter().map(Wrong::to_string).collect();
    wrong.join("; ")
}

/// What is wrong with the files that a configuration names: each problem at the place that names it.
pub(crate) fn problems(model: &Model, mentions: &[Mention]) -> Vec<Problem> {
    let wrong = Trust::load(model).err().unwrap_or_default();
    let mut problems: Vec<Problem> = Vec::new();
    for mention in mentions {
        let program = (mention.used_as == FileUse::Program)
            .then(|| program(&mention.path))
            .flatten();
        let of_file = wrong.iter().find(|one| one.path == mention.path);
        if let Some(one) = program.as_ref().or(of_file) {
            problems.push(Problem {
                place: mention.place.clone(),
                found: one.found.clone(),
                expected: one.expected.to_owned(),
                cure: one.cure.to_owned(),
            });
        }
    }
    problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
    problems
}

/// What stands in the way of running it.
fn program(path: &Path) -> Option<Wrong> {
    match std::fs::metadata(path) {
        Err(error) => Some(Wrong::unreadable(path, &error)),
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => None,
        Ok(_) => {
            let found = format!("{}, which is no program", path.display());
            let cure = "name a file that may be executed (chmod +x)";
            Some(Wrong::new(path, found, "an executable file", cure))
        }
    }
}

fn client(inside: Inside, check: &TlsCheck) -> Result<ClientConfig, Wrong> {
    let provider = Arc::new(ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions();
    // Only of a provider without cipher suites.
    let builder = versions.map_err(|error| odd(check, &error))?;
    let builder = match &check.verify {
        Verify::System => builder.with_root_certificates(roots(&system()?)?),
        Verify::File(path) => builder.with_root_certificates(roots(path)?),
        Verify::Nobody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
    };
    let mut config = match &check.client {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let (chain, key) = (certificates(&own.chain)?, private_key(&own.key)?);
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let found = format!(
                    "{}, which does not go with {}: {error}",
                    own.key.display(),
                    own.chain.display()
                );
                let expected = "the private key of the first certificate of the chain";
                Wrong::new(
                    &own.key,
                    found,
                    expected,
                    "name the two that belong together",
                )
            })?
        }
    };
    config.alpn_protocols = vec![match inside {
        Inside::Http => b"http/1.1".to_vec(),
        Inside::Grpc => b"h2".to_vec(),
    }];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn odd(check: &TlsCheck, error: &Error) -> Wrong {
    let path = match &check.verify {
        Verify::File(path) => path.as_path(),
        _ => Path::new(""),
    };
    Wrong::new(
        path,
        error.to_string(),
        "what TLS can use",
        "use another file",
    )
}

fn system() -> Result<PathBuf, Wrong> {
    let there = SYSTEM.iter().map(Path::new).find(|path| path.exists());
    there.map(Path::to_owned).ok_or_else(|| {
        let found = format!("none of {}", SYSTEM.join(", "));
        let expected = "the host's certificate authorities for verify = \"system\"";
        let cure = "install the package ca-certificates, or name a file with verify";
        Wrong::new(Path::new(""), found, expected, cure)
    })
}

fn roots(path: &Path) -> Result<RootCertStore, Wrong> {
    let mut store = RootCertStore::empty();
    // A bundle may have some that nobody can use any more; one good one is enough.
    let (good, bad) = store.add_parsable_certificates(certificates(path)?);
    if good == 0 {
        let found = format!("{}, with {bad} certificates of no use", path.display());
        let cure = "name the authority's certificate";
        return Err(Wrong::new(path, found, "certificates of authorities", cure));
    }
    Ok(store)
}

fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    let unreadable = |error| Wrong::unreadable(path, &error);
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_MAX {
        let found = format!("{}, of {length} bytes", path.display());
        let expected = "a PEM file of at most 16 MiB";
        return Err(Wrong::new(path, found, expected, "name another file"));
    }
    std::fs::read(path).map_err(unreadable)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let bytes = read(path)?;
    let found = match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
        Ok(list) if !list.is_empty() => return Ok(list),
        Ok(_) => format!("{}, without a certificate", path.display()),
        Err(error) => format!("{}, which is damaged: {error}", path.display()),
    };
    let cure = "convert it (openssl x509 -inform der), or name another file";
    Err(Wrong::new(path, found, "certificates in PEM form", cure))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
        let found = format!(
            "{}, without a key that can be used: {error}",
            path.display()
        );
        let expected = "a private key in PEM form, not encrypted";
        let cure = "decrypt it (openssl pkey), or name another file";
        Wrong::new(path, found, expected, cure)
    })
}

/// Believes every certificate; signatures must still be right.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
