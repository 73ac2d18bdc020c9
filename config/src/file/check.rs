//! The keys of `health` that belong to one kind of check or another.

use toml::Spanned;

use super::Field;
use super::keys::Keys;

/// What `health` may say of how to ask. All are read whatever the kind is: those that are not its own
/// have been refused by then.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    pub(crate) method: Field<&'a str>,
    pub(crate) path: Field<&'a str>,
    pub(crate) host: Field<&'a str>,
    pub(crate) status: Field<&'a str>,
    pub(crate) body: Field<&'a str>,
    pub(crate) body_within: Field<i64>,
    pub(crate) tls: Field<bool>,
    pub(crate) server_name: Field<&'a str>,
    pub(crate) verify: Field<&'a str>,
    pub(crate) certificate: Field<&'a str>,
    pub(crate) certificate_key: Field<&'a str>,
    pub(crate) send: Field<&'a str>,
    pub(crate) expect: Field<&'a str>,
    pub(crate) silence: Field<&'a str>,
    pub(crate) name: Field<&'a str>,
    pub(crate) record: Field<&'a str>,
    pub(crate) rcode: Field<&'a str>,
    pub(crate) service: Field<&'a str>,
    pub(crate) command: Field<&'a str>,
    pub(crate) arguments: Field<Vec<Spanned<&'a str>>>,
}

const HTTP: &[&str] = &["method", "path", "host", "status", "body", "body-within"];
const TLS: &[&str] = &["server-name", "verify", "certificate", "certificate-key"];
const UDP: &[&str] = &["send", "expect", "silence"];
const DNS: &[&str] = &["name", "record", "rcode", "expect"];
const GRPC: &[&str] = &["service", "host", "tls"];
const SCRIPT: &[&str] = &["command", "arguments"];

/// The keys of each kind besides those of all.
const OF_KINDS: [(&str, &[&[&str]]); 8] = [
    ("tcp", &[]),
    ("http", &[HTTP]),
    ("https", &[HTTP, TLS]),
    ("udp", &[UDP]),
    ("dns", &[DNS]),
    ("icmp", &[]),
    ("grpc", &[GRPC, TLS]),
    ("script", &[SCRIPT]),
];

impl<'a> Check<'a> {
    /// The keys that go with this kind; with an unknown one, those of every kind.
    pub(super) fn keys_of(kind: &Field<&str>) -> Vec<&'static str> {
        let all = || OF_KINDS.iter();
        let own = match kind {
            Field::Given(kind) => all().find(|(name, _)| name == kind.get_ref()),
            _ => None,
        };
        let groups: Vec<_> = own.map_or_else(|| all().collect(), |own| vec![own]);
        let keys = groups.iter().flat_map(|(_, groups)| groups.iter().copied());
        keys.flatten().copied().collect()
    }

    pub(super) fn read(keys: &mut Keys<'a, '_, '_>) -> Self {
        Self {
            method: keys.text("method", "a word in quotes, like \"GET\""),
            path: keys.text("path", "a path in quotes, like \"/healthz\""),
            host: keys.text("host", "a host name in quotes"),
            status: keys.text("status", "status codes in quotes, like \"200-299, 304\""),
            body: keys.text("body", "a text in quotes"),
            body_within: keys.whole("body-within"),
            tls: keys.flag("tls"),
            server_name: keys.text("server-name", "a host name in quotes"),
            verify: keys.text(
                "verify",
                "\"system\", \"nobody\" or a file's path, in quotes",
            ),
            certificate: keys.text("certificate", "a file's path in quotes"),
            certificate_key: keys.text("certificate-key", "a file's path in quotes"),
            send: keys.text("send", "a text in quotes"),
            expect: keys.text("expect", "a text in quotes"),
            silence: keys.text("silence", "a word in quotes"),
            name: keys.text("name", "a domain name in quotes, like \"example.com\""),
            record: keys.text("record", "a word in quotes, like \"A\""),
            rcode: keys.text("rcode", "a word in quotes, like \"NOERROR\""),
            service: keys.text("service", "a text in quotes"),
            command: keys.text("command", "a program's path in quotes"),
            arguments: keys.texts("arguments", "[\"--quick\", \"5\"]"),
        }
    }
}
