//! Services and backends as those who ask call them: a service by its name, a backend by its
//! address and port, or by the address alone where that is enough.

use std::net::{IpAddr, SocketAddr};

use ringgate_config::{Backend, Model, Service};

use super::super::admin::http::{Request, Response};

/// Names in a message, at most.
const NAMES_MOST: usize = 20;

/// The service that the request's `service` names; none if it names none.
///
/// # Errors
///
/// The refusal: there is no such service.
pub(super) fn service<'m>(
    request: &Request<'_>,
    model: &'m Model,
) -> Result<Option<&'m Service>, Response> {
    let Some(name) = request.parameter("service") else {
        return Ok(None);
    };
    let mut services = model.services().iter();
    match services.find(|service| service.name() == name) {
        Some(service) => Ok(Some(service)),
        None => {
            let names = model.services().iter().map(|s| s.name().to_owned());
            Err(missing(&format!("service {name:?}"), "services", names))
        }
    }
}

/// The backend that the request's `service` and `backend` name.
///
/// # Errors
///
/// The refusal: one of them is not said, is not there, or is not clear.
pub(super) fn backend<'m>(
    request: &Request<'_>,
    model: &'m Model,
) -> Result<(&'m Service, &'m Backend), Response> {
    let (service, text) = (service(request, model)?, request.parameter("backend"));
    let (Some(service), Some(text)) = (service, text) else {
        let message = "say which backend: service=NAME and backend=ADDRESS";
        return Err(Response::error(400, message));
    };
    Ok((service, backend_of(service, &text)?))
}

/// The backend of `service` that is called `text`.
///
/// # Errors
///
/// The refusal: it is not there or not clear.
pub(super) fn backend_of<'m>(service: &'m Service, text: &str) -> Result<&'m Backend, Response> {
    let is_meant = |backend: &&Backend| match text.parse::<SocketAddr>() {
        Ok(whole) => whole == backend.address(),
        Err(_) => text.parse::<IpAddr>() == Ok(backend.address().ip()),
    };
    let mut meant = service.backends().iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(backend), None) => Ok(backend),
        (Some(_), Some(_)) => {
            let message = format!("several backends have the address {text}: add the port");
            Err(Response::error(400, &message))
        }
        (None, _) => {
            let names = service.backends().iter().map(Backend::name);
            let what = format!("backend {text:?} in service {:?}", service.name());
            Err(missing(&what, "backends", names))
        }
    }
}

/// The refusal of what is not there, with what there is instead.
pub(super) fn missing(
    what: &str,
    nouns: &str,
    there_are: impl Iterator<Item = String>,
) -> Response {
    let mut names: Vec<String> = there_are.take(NAMES_MOST + 1).collect();
    if names.len() > NAMES_MOST {
        names.truncate(NAMES_MOST);
        names.push("…".to_owned());
    }
    let message = format!("there is no {what}; {nouns}: {}", names.join(", "));
    Response::error(404, &message)
}
