//! The listener for collectors of metrics: `GET /metrics` over TCP, and nothing else.
//!
//! It is off unless `[metrics] listen` names an address. What reads requests and sends answers is the
//! admin socket's [`Admin`], with bounds of its own: [`CONNECTIONS_MOST`] at once, no bodies, and the same
//! patience. Nothing that is asked here can change anything.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::admin::http::{Request, Response};
use super::admin::{Admin, Answer};
use super::api;
use super::status::Page;

/// Connections served at once. A collector makes one every few seconds; so many silent ones delay it by
/// no more than the patience for a request.
const CONNECTIONS_MOST: usize = 16;

/// Operations that it has under way at most: the accept, and one for each connection.
pub(crate) const OPERATIONS_MOST: usize = 1 + CONNECTIONS_MOST;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}, where {table} listen wants to: {source}; is the address this host's, \
     and does nobody else have the port (ss -ltnp)?"
)]
pub(crate) struct ListenError {
    table: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Serves where the configuration says, if it does.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn open(listen: Option<SocketAddr>) -> Result<Admin, ListenError> {
    let listener = listen.map(|address| listen_for("[metrics]", address));
    Ok(Admin::open_to_all(listener.transpose()?, CONNECTIONS_MOST))
}

/// A listener on an address of this host, that a table of the configuration asks for.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn listen_for(table: &'static str, address: SocketAddr) -> Result<OwnedFd, ListenError> {
    listen(address).map_err(|source| ListenError {
        table,
        address,
        source,
    })
}

fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart shall not wait for connections of the last run.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // `[::]` means what it says, whatever net.ipv6.bindv6only is.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Answers what is asked here.
pub(crate) fn answer(request: &Request<'_>, page: &Page<'_>) -> Answer {
    Answer::Now(match (request.method, request.path) {
        ("GET", "/metrics") => api::look::metrics(request, page),
        (_, "/metrics") => Response::error(405, "/metrics is asked by GET"),
        _ => Response::error(404, "there is /metrics here, and nothing else"),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_that_is_taken_is_refused_by_name() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = open(Some(address)).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("[metrics] listen"), "{error}");
    }

    #[test]
    fn an_ipv6_listener_leaves_ipv4_alone() {
        let free = TcpListener::bind("[::]:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let _six = open(Some(SocketAddr::new([0_u16; 8].into(), port))).unwrap();
        TcpListener::bind(("0.0.0.0", port)).unwrap();
    }
}
