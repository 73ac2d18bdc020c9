//! The part of `health` that says how a backend is asked.

use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::scope::Scope;
use crate::error::quote;
use crate::file::{self, Field};
use crate::limits::{
    ARGUMENTS_MAX, BODY_WITHIN_DEFAULT, BODY_WITHIN_MAX, CHECK_TEXT_MAX, DNS_LABEL_MAX,
    DNS_NAME_MAX, FILE_PATH_MAX,
};
use crate::mention::FileUse;
use crate::model::{
    Check, ClientCertificate, DnsAnswer, DnsCheck, Exchange, GrpcCheck, HealthKind, HttpCheck,
    HttpMethod, RecordType, ResponseCode, ScriptCheck, Silence, StatusSet, TlsCheck, Verify,
};

/// The check of this kind, as its keys say.
pub(super) fn resolve(
    kind: HealthKind,
    raw: &file::Check<'_>,
    scope: &mut Scope<'_, '_, '_>,
) -> Option<Check> {
    Some(match kind {
        HealthKind::Tcp => Check::Tcp,
        HealthKind::Icmp => Check::Icmp,
        HealthKind::Http => Check::Http(http(raw, scope)?),
        HealthKind::Https => {
            let (http, tls) = (http(raw, scope), tls(raw, scope));
            Check::Https(http?, tls?)
        }
        HealthKind::Udp => Check::Udp(exchange(raw, scope)?),
        HealthKind::Dns => Check::Dns(dns(raw, scope)?),
        HealthKind::Grpc => grpc(raw, scope)?,
        HealthKind::Script => Check::Script(script(raw, scope)?),
    })
}

fn http(raw: &file::Check<'_>, scope: &mut Scope<'_, '_, '_>) -> Option<HttpCheck> {
    let method = scope.word("method", &raw.method, Some(HttpMethod::Get), &[]);
    let path = text(scope, "path", &raw.path, |path| {
        let is_target = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
        (!is_target).then_some((
            "a path that begins with '/', of printable ASCII characters",
            "write the rest percent-encoded",
        ))
    });
    let host = host(scope, "host", &raw.host);
    let status = match &raw.status {
        Field::Given(status) => statuses(status.get_ref()).or_else(|| refuse_status(scope, status)),
        Field::Bad => None,
        Field::Absent => Some(StatusSet::new(vec![(200, 399)])),
    };
    let body = bytes(scope, "body", &raw.body);
    let within = scope.number("body-within", &raw.body_within, 1..=BODY_WITHIN_MAX);
    if let (Some(HttpMethod::Head), Some(Some(_)), Field::Given(at)) = (method, &body, &raw.body) {
        let found = "a text that the answer to HEAD is to contain".to_owned();
        let expected = "no body with method = \"HEAD\", whose answer has none".to_owned();
        scope.misfit("body", &at.span(), found, expected, "use GET, or remove it");
        return None;
    }
    if let (Field::Absent, Field::Given(at)) = (&raw.body, &raw.body_within) {
        let found = "body-within without body: nothing is searched".to_owned();
        let cure = "add body = \"…\", or remove it".to_owned();
        scope.warn("body-within", &at.span(), found, cure);
    }
    Some(HttpCheck {
        method: method?,
        path: path?.unwrap_or_else(|| "/".to_owned()),
        host: host?,
        status: status?,
        body: body?,
        body_within: within?.unwrap_or(BODY_WITHIN_DEFAULT),
    })
}

/// "200-299, 304" as ranges.
fn statuses(text: &str) -> Option<StatusSet> {
    let code = |text: &str| {
        let text = text.trim();
        let code = text.parse::<u16>().ok().filter(|_| text.len() == 3)?;
        (100..=599).contains(&code).then_some(code)
    };
    let ranges = text.split(',').map(|part| match part.split_once('-') {
        Some((first, last)) => Some((code(first)?, code(last)?)).filter(|(a, b)| a <= b),
        None => code(part).map(|code| (code, code)),
    });
    ranges.collect::<Option<Vec<_>>>().map(StatusSet::new)
}

fn refuse_status(scope: &mut Scope<'_, '_, '_>, status: &toml::Spanned<&str>) -> Option<StatusSet> {
    let expected = "status codes of 100 to 599 and ranges of them, by commas".to_owned();
    let found = quote(status.get_ref());
    let cure = "write it like \"200-299, 304\"";
    scope.refuse("status", &status.span(), found, expected, cure);
    None
}

fn tls(raw: &file::Check<'_>, scope: &mut Scope<'_, '_, '_>) -> Option<TlsCheck> {
    let server_name = host(scope, "server-name", &raw.server_name);
    let verify = match &raw.verify {
        Field::Absent => {
            scope.mention("", scope.head, "", FileUse::SystemAuthorities);
            Some(Verify::System)
        }
        Field::Bad => None,
        Field::Given(word) => match *word.get_ref() {
            "system" => {
                scope.mention("verify", &word.span(), "", FileUse::SystemAuthorities);
                Some(Verify::System)
            }
            "nobody" => {
                let found = "the backend's certificate is not looked at: whoever answers at its \
                             address passes";
                let cure = "name the authority's file if that matters".to_owned();
                scope.warn("verify", &word.span(), found.to_owned(), cure);
                Some(Verify::Nobody)
            }
            path if path.starts_with('/') => {
                file(scope, "verify", &raw.verify, FileUse::Authorities)
                    .flatten()
                    .map(Verify::File)
            }
            other => {
                let expected =
                    "\"system\", \"nobody\" or the absolute path of a PEM file".to_owned();
                let cure = "write one of them";
                scope.refuse("verify", &word.span(), quote(other), expected, cure);
                None
            }
        },
    };
    let chain = file(scope, "certificate", &raw.certificate, FileUse::Certificate);
    let key = file(scope, "certificate-key", &raw.certificate_key, FileUse::Key);
    let client = match (chain?, key?) {
        (Some(chain), Some(key)) => Some(ClientCertificate { chain, key }),
        (None, None) => None,
        (chain, _) => {
            let (has, lacks) = if chain.is_some() {
                ("certificate", "certificate-key")
            } else {
                ("certificate-key", "certificate")
            };
            let (found, expected) = (format!("{has} alone"), format!("the key {lacks} too"));
            let cure = "name both files: the certificate's chain and its private key";
            scope.misfit(lacks, scope.head, found, expected, cure);
            return None;
        }
    };
    Some(TlsCheck {
        server_name: server_name?,
        verify: verify?,
        client,
    })
}

fn exchange(raw: &file::Check<'_>, scope: &mut Scope<'_, '_, '_>) -> Option<Exchange> {
    let example = "send = \"\\\\x00ping\"";
    let send = match scope.required("send", &raw.send, example) {
        Some(_) => bytes(scope, "send", &raw.send).flatten(),
        None => None,
    };
    let expect = bytes(scope, "expect", &raw.expect);
    let silence = scope.word("silence", &raw.silence, Some(Silence::Fails), &[]);
    Some(Exchange {
        send: send?,
        expect: expect?,
        silence: silence?,
    })
}

fn dns(raw: &file::Check<'_>, scope: &mut Scope<'_, '_, '_>) -> Option<DnsCheck> {
    let name = match scope.required("name", &raw.name, "name = \"example.com\"") {
        Some(_) => text(scope, "name", &raw.name, wrong_domain).flatten(),
        None => None,
    };
    let record = scope.word("record", &raw.record, Some(RecordType::A), &[]);
    let rcode = scope.word("rcode", &raw.rcode, Some(ResponseCode::NoError), &[]);
    let expect = text(scope, "expect", &raw.expect, |_| None);
    let (name, record, rcode) = (name?, record?, rcode?);
    let expect = match expect? {
        None => None,
        Some(text) => Some(dns_answer(record, text, raw, scope)?),
    };
    Some(DnsCheck {
        name: name.trim_end_matches('.').to_owned(),
        record,
        rcode,
        expect,
    })
}

/// What is wrong with a domain name (RFC 1035 2.3.4; any other characters may be in a label).
fn wrong_domain(name: &str) -> Option<(&'static str, &'static str)> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut labels = name.split('.');
    let is_root = name.is_empty();
    let are_good = labels.all(|label| {
        let is_plain = label.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
        (1..=DNS_LABEL_MAX).contains(&label.len()) && is_plain
    });
    let is_good = is_root || (are_good && name.len() <= DNS_NAME_MAX);
    (!is_good).then_some((
        "a domain name of labels of 1 to 63 ASCII characters, 253 in all",
        "write names outside of ASCII in their xn-- form",
    ))
}

fn dns_answer(
    record: RecordType,
    text: String,
    raw: &file::Check<'_>,
    scope: &mut Scope<'_, '_, '_>,
) -> Option<DnsAnswer> {
    let family = match record {
        RecordType::A => "IPv4",
        RecordType::Aaaa => "IPv6",
        RecordType::Txt => return Some(DnsAnswer::Text(text)),
        _ => return Some(DnsAnswer::Text(text.trim_end_matches('.').to_owned())),
    };
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_ipv4() == (record == RecordType::A) => Some(DnsAnswer::Address(ip)),
        _ => {
            let expected = format!("an {family} address, as records of type {record} have");
            let at = span(&raw.expect);
            let cure = "correct it, or name another record";
            scope.misfit("expect", &at, quote(&text), expected, cure);
            None
        }
    }
}

fn grpc(raw: &file::Check<'_>, scope: &mut Scope<'_, '_, '_>) -> Option<Check> {
    let service = text(scope, "service", &raw.service, |_| None);
    let authority = host(scope, "host", &raw.host);
    let with_tls = Scope::flag(&raw.tls, false);
    let tls = match with_tls {
        Some(true) => tls(raw, scope).map(Some),
        Some(false) => no_tls_keys(raw, scope).then_some(None),
        None => None,
    };
    let check = GrpcCheck {
        service: service?.unwrap_or_default(),
        authority: authority?,
    };
    Some(Check::Grpc(check, tls?))
}

/// Whether none of the keys for TLS is there.
fn no_tls_keys(raw: &file::Check<'_>, scope: &mut Scope<'_, '_, '_>) -> bool {
    let keys = [
        ("server-name", &raw.server_name),
        ("verify", &raw.verify),
        ("certificate", &raw.certificate),
        ("certificate-key", &raw.certificate_key),
    ];
    let mut is_good = true;
    for (key, field) in keys {
        if let Field::Given(value) = field {
            is_good = false;
            let found = quote(value.get_ref());
            let expected = "tls = true beside it".to_owned();
            scope.misfit(
                key,
                &value.span(),
                found,
                expected,
                "add tls = true, or remove it",
            );
        }
    }
    is_good
}

fn script(raw: &file::Check<'_>, scope: &mut Scope<'_, '_, '_>) -> Option<ScriptCheck> {
    let example = "command = \"/usr/local/bin/check\"";
    let command = match scope.required("command", &raw.command, example) {
        Some(_) => file(scope, "command", &raw.command, FileUse::Program).flatten(),
        None => None,
    };
    let arguments = match &raw.arguments {
        Field::Absent => Some(Vec::new()),
        Field::Bad => None,
        Field::Given(list) => {
            let too_many = list.get_ref().len() > ARGUMENTS_MAX;
            let bad = list.get_ref().iter().find(|argument| {
                argument.get_ref().contains('\0') || argument.get_ref().len() > CHECK_TEXT_MAX
            });
            if too_many {
                let (found, most) = (list.get_ref().len(), ARGUMENTS_MAX);
                let found = format!("{found} arguments");
                let expected = format!("at most {most}");
                scope.refuse("arguments", &list.span(), found, expected, "pass fewer");
                None
            } else if let Some(bad) = bad {
                let expected = format!("at most {CHECK_TEXT_MAX} bytes, without NUL");
                let found = quote(bad.get_ref());
                scope.refuse("arguments", &bad.span(), found, expected, "shorten it");
                None
            } else {
                let arguments = list.get_ref().iter();
                Some(arguments.map(|one| (*one.get_ref()).to_owned()).collect())
            }
        }
    };
    Some(ScriptCheck {
        command: command?,
        arguments: arguments?,
    })
}

fn span<T>(field: &Field<T>) -> Range<usize> {
    match field {
        Field::Given(value) => value.span(),
        _ => 0..0,
    }
}

/// A text of 1 to [`CHECK_TEXT_MAX`] bytes against which `wrong` says nothing (what was expected, the
/// cure); the outer `None` is a problem, the inner one absence.
fn text(
    scope: &mut Scope<'_, '_, '_>,
    key: &str,
    field: &Field<&str>,
    wrong: impl Fn(&str) -> Option<(&'static str, &'static str)>,
) -> Option<Option<String>> {
    let value = match field {
        Field::Absent => return Some(None),
        Field::Bad => return None,
        Field::Given(value) => value,
    };
    let text = *value.get_ref();
    let (expected, cure) = if text.len() > CHECK_TEXT_MAX {
        (format!("at most {CHECK_TEXT_MAX} bytes"), "shorten it")
    } else if let Some((expected, cure)) = wrong(text) {
        (expected.to_owned(), cure)
    } else {
        return Some(Some(text.to_owned()));
    };
    scope.refuse(key, &value.span(), quote(text), expected, cure);
    None
}

/// A host name or address that may stand in a header and, without a port, in a certificate.
fn host(scope: &mut Scope<'_, '_, '_>, key: &str, field: &Field<&str>) -> Option<Option<String>> {
    text(scope, key, field, |text| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        let port = if key == "host" { "" } else { ":" };
        let has_port = !port.is_empty() && text.contains(port) && text.parse::<IpAddr>().is_err();
        let is_good = !text.is_empty() && text.bytes().all(plain) && !has_port;
        (!is_good).then_some((
            "a host name or an address",
            "write names outside of ASCII in their xn-- form, a port in host only",
        ))
    })
}

/// Bytes as a text with escapes.
fn bytes(
    scope: &mut Scope<'_, '_, '_>,
    key: &str,
    field: &Field<&str>,
) -> Option<Option<Box<[u8]>>> {
    let wrong = |text: &str| match unescape(text) {
        None => Some((
            "a text whose backslashes begin \\xNN, \\n, \\r, \\t, \\0 or \\\\",
            "write it in single quotes, a backslash itself as \\\\",
        )),
        Some(bytes) if bytes.is_empty() => Some(("at least one byte", "remove it or fill it in")),
        Some(_) => None,
    };
    let text = text(scope, key, field, wrong)?;
    Some(
        text.and_then(|text| unescape(&text))
            .map(Vec::into_boxed_slice),
    )
}

/// Undoes the escapes. TOML's own (in double quotes) have been undone before; they know no bytes.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'x' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high << 4 | low).ok()?
            }
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            _ => return None,
        });
    }
    Some(bytes)
}

/// The absolute path of a file, which the host is asked for when the configuration is taken up.
fn file(
    scope: &mut Scope<'_, '_, '_>,
    key: &str,
    field: &Field<&str>,
    used_as: FileUse,
) -> Option<Option<PathBuf>> {
    let value = match field {
        Field::Absent => return Some(None),
        Field::Bad => return None,
        Field::Given(value) => value,
    };
    let text = *value.get_ref();
    let is_good = text.len() <= FILE_PATH_MAX && !text.contains('\0');
    if !is_good || !Path::new(text).is_absolute() {
        let expected = format!("an absolute path of at most {FILE_PATH_MAX} bytes");
        let cure = "write it from the root, like \"/etc/ringgate/ca.pem\"";
        scope.refuse(key, &value.span(), quote(text), expected, cure);
        return None;
    }
    scope.mention(key, &value.span(), text, used_as);
    Some(Some(PathBuf::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_make_bytes() {
        assert_eq!(
            unescape(r"a\x00\xfF\n\r\t\0\\"),
            Some(b"a\0\xff\n\r\t\0\\".to_vec())
        );
        assert_eq!(unescape("ü"), Some("ü".as_bytes().to_vec()));
        for bad in [r"\", r"\x", r"\x0", r"\xg0", r"\q"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    #[test]
    fn status_ranges_are_put_together_and_nonsense_is_refused() {
        let set = statuses("304, 200-204,205 ,100-100").unwrap();
        assert_eq!(set.to_string(), "100,200-205,304");
        let within: Vec<u16> = (0..=1000).filter(|code| set.contains(*code)).collect();
        assert_eq!(within, [100, 200, 201, 202, 203, 204, 205, 304]);
        for bad in [
            "", "200,", "2xx", "99", "600", "300-200", "0200", "+20", "200-", "-300",
        ] {
            assert!(statuses(bad).is_none(), "{bad}");
        }
    }
}
