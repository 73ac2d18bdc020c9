//! `POST /v1/apply`, `/v1/diff`, `/v1/reload`: another configuration, for now or only to be looked at.
//!
//! The body is the file's text; `name=` in the query is what problems and log call it. The loop does it
//! once the handler has returned, since it takes all that the loop has.

use super::super::admin::Answer;
use super::super::admin::http::{Request, Response};
use super::super::slab::Key;
use super::super::status::Page;
use super::{Doing, Errand};

/// HTTP's word for a body that was understood and is not accepted (RFC 9110, 15.5.21).
pub(crate) const REFUSED: u16 = 422;

/// What a configuration is called that came without a name.
const NAMELESS: &str = "the configuration sent";

/// Longest name, in bytes: that of a file with its path (`PATH_MAX` of Linux).
const NAME_BYTES_MAX: usize = 4096;

/// What somebody behind the admin socket wants of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proposal {
    /// The file is to be read again.
    Reload,
    /// This is to be in force.
    Apply(Text),
    /// What would this do?
    Look(Text),
}

/// A configuration as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// What problems are told under.
    pub(crate) name: String,
    /// What it says.
    pub(crate) text: String,
}

/// Reads the file again.
pub(super) fn reload(_: &Request<'_>, key: Key, _: &Page<'_>, doing: &mut Doing<'_>) -> Answer {
    doing.errands.push(Errand::Propose(key, Proposal::Reload));
    Answer::Later
}

/// Takes the body as the configuration.
pub(super) fn apply(
    request: &Request<'_>,
    key: Key,
    _: &Page<'_>,
    doing: &mut Doing<'_>,
) -> Answer {
    propose(request, key, Proposal::Apply, doing)
}

/// Tells what that would do.
pub(super) fn look(request: &Request<'_>, key: Key, _: &Page<'_>, doing: &mut Doing<'_>) -> Answer {
    propose(request, key, Proposal::Look, doing)
}

fn propose(
    request: &Request<'_>,
    key: Key,
    what: fn(Text) -> Proposal,
    doing: &mut Doing<'_>,
) -> Answer {
    match text(request) {
        Ok(text) => {
            doing.errands.push(Errand::Propose(key, what(text)));
            Answer::Later
        }
        Err(refusal) => Answer::Now(refusal),
    }
}

fn text(request: &Request<'_>) -> Result<Text, Response> {
    let name = request.parameter("name");
    let name = name.as_deref().unwrap_or(NAMELESS);
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Response::error(
            400,
            "name must be a file's name, on one line",
        ));
    }
    if request.body.is_empty() {
        let message =
            "the body must be a configuration: send the file, as in `ringgate apply FILE`";
        return Err(Response::error(400, message));
    }
    match std::str::from_utf8(request.body) {
        Ok(text) => Ok(Text {
            name: name.to_owned(),
            text: text.to_owned(),
        }),
        Err(error) => {
            let at = error.valid_up_to();
            let message = format!("{name}: not UTF-8 from byte {at} on: send a configuration");
            Err(Response::error(REFUSED, &message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::access::Access;

    fn asked(query: &str, body: &[u8]) -> Result<Text, (u16, String)> {
        let request = Request {
            method: "POST",
            path: "/v1/apply",
            query,
            accept: "",
            body,
            access: Access::Write,
        };
        text(&request).map_err(|refusal| (refusal.status, refusal.message().to_owned()))
    }

    #[test]
    fn a_configuration_has_a_text_and_a_name() {
        let Text { name, text } = asked("name=%2Fetc%2Fa+b.toml", b"x = 1").unwrap();
        assert_eq!((name.as_str(), text.as_str()), ("/etc/a b.toml", "x = 1"));
        assert_eq!(asked("", b"x").unwrap().name, NAMELESS);
    }

    #[test]
    fn what_is_no_text_is_refused_with_the_place() {
        assert_eq!(asked("name=x", b"").unwrap_err().0, 400);
        assert_eq!(asked("name=a%0Ab", b"x").unwrap_err().0, 400);
        let (status, message) = asked("name=x", b"abc\xFF").unwrap_err();
        assert_eq!(
            (status, message.contains("byte 3")),
            (422, true),
            "{message}"
        );
    }
}
