//! What was wrong with an answer: what was found, what was expected, what to do.

use std::fmt;

use super::excerpt::Excerpt;

/// Why an answer does not make a backend healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Complaint {
    /// The connection ended, or time did, before the answer.
    #[error("{0}{1}")]
    Cut(Cut, Heard),
    /// More came than any answer needs.
    #[error("the answer did not end: {0} bytes came and said nothing; is this the right port?")]
    Endless(u64),
    /// No datagram came back.
    #[error("no answer in time: the host is down, or drops, or its application does not answer")]
    NoAnswer,
    /// Not HTTP/1.
    #[error(
        "not an HTTP/1 answer: it begins \"{0}\"; is this the right port, or one that speaks TLS?"
    )]
    NotHttp(Excerpt),
    /// More of a head than is read.
    #[error("the head of the HTTP answer is longer than 16 KiB or has more than 100 fields")]
    LongHead,
    /// The wrong status.
    #[error(
        "HTTP status {found}, expected {expected}: see the backend's log, or change path, host or status"
    )]
    Status {
        /// What it said.
        found: u16,
        /// What would have been good.
        expected: Excerpt,
    },
    /// The wrong body.
    #[error(
        "\"{expected}\" is not in the {searched} bytes of the body that were searched: see what the page says, or raise body-within"
    )]
    Body {
        /// What was looked for.
        expected: Excerpt,
        /// How far.
        searched: u64,
    },
    /// The backend's chunks are no chunks.
    #[error("the body of the HTTP answer is not chunked as its head says")]
    BadChunks,
    /// Nobody known vouches for the backend.
    #[error("the certificate's issuer is not known: name the authority's file with verify")]
    UnknownIssuer,
    /// A certificate of somebody else.
    #[error("the certificate is not for {0}: set server-name to a name that it is for")]
    WrongName(Excerpt),
    /// An old certificate.
    #[error("the certificate has expired: renew it at the backend")]
    Expired,
    /// The backend broke off the handshake.
    #[error(
        "the backend refused TLS by the alert {0}: it may want a client certificate, another server-name or version"
    )]
    TlsAlert(Excerpt),
    /// Not TLS.
    #[error("not TLS: the answer begins \"{0}\"; is this the right port?")]
    NotTls(Excerpt),
    /// Anything else that TLS does not like.
    #[error("TLS: {0}")]
    Tls(Excerpt),
    /// A datagram without what was expected.
    #[error("the answer \"{0}\" does not contain what expect asks for")]
    Unexpected(Excerpt),
    /// The wrong response code.
    #[error(
        "the name server answers {found}, expected {expected}: see its log, or change name or rcode"
    )]
    Rcode {
        /// What it said.
        found: Excerpt,
        /// What would have been good.
        expected: &'static str,
    },
    /// No record says what was expected.
    #[error("none of the {records} answers says \"{expected}\"")]
    Records {
        /// How many there are.
        records: u16,
        /// What was looked for.
        expected: Excerpt,
    },
    /// Not a DNS message, or none that answers.
    #[error("not an answer to the question: \"{0}\"; is this a name server?")]
    NotDns(Excerpt),
    /// HTTP/2 or gRPC went wrong.
    #[error("not a gRPC answer: {0}; is this the right port, and is tls as the server has it?")]
    NotGrpc(Excerpt),
    /// The call failed.
    #[error("the gRPC health call failed with status {0}{1}")]
    GrpcStatus(u16, Excerpt),
    /// It does not serve.
    #[error("the gRPC server says {0}, expected SERVING")]
    NotServing(Excerpt),
    /// The program says no.
    #[error("the script ended with status {0}, expected 0: {1}")]
    Exit(i32, Excerpt),
    /// The program was killed by somebody else.
    #[error("the script was ended by signal {0}: {1}")]
    Signal(i32, Excerpt),
    /// The program took too long.
    #[error("the script did not end in time and was killed: {0}")]
    SlowScript(Excerpt),
}

/// What came before the answer could be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The end of the time.
    Late,
    /// A reset.
    Reset,
    /// The end of the stream.
    Closed,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Late => "connected, then time was up",
            Self::Reset => "connected, then the connection was reset",
            Self::Closed => "connected, then the connection was closed",
        })
    }
}

/// How much of an answer there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing.
    Nothing,
    /// TLS has not come to an end with its handshake.
    Handshake,
    /// So many bytes.
    Bytes(u64),
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str(
                " before anything was answered: the port is open, but the application does not serve",
            ),
            Self::Handshake => f.write_str(
                " before the TLS handshake was complete: does the application speak TLS on this port?",
            ),
            Self::Bytes(bytes) => write!(f, " before the answer was complete: {bytes} bytes had come"),
        }
    }
}
