//! Network namespaces: where sockets are opened, and nothing else.
//!
//! A thread enters a namespace to open a socket, which stays there; then it goes back. What
//! `/sys` shows is another namespace's, so interfaces are asked for by sockets.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// An interface, and the namespace that it is in: `IF` or `IF@NETNS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The interface's name.
    pub interface: String,
    /// A name in `/run/netns`; `None` for where we are.
    pub namespace: Option<String>,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (interface, namespace) = match text.split_once('@') {
            Some((interface, namespace)) => (interface, Some(namespace)),
            None => (text, None),
        };
        let is_name = |name: &str| !name.is_empty() && !name.contains('/');
        if !is_name(interface) || !namespace.is_none_or(is_name) {
            return Err(format!(
                "found {text:?}, expected INTERFACE or INTERFACE@NAMESPACE"
            ));
        }
        Ok(Self {
            interface: interface.to_owned(),
            namespace: namespace.map(str::to_owned),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interface)?;
        match &self.namespace {
            Some(namespace) => write!(f, "@{namespace}"),
            None => Ok(()),
        }
    }
}

impl Place {
    /// Does `work` in this place's namespace and returns to where the thread was. `work` gets the
    /// interface's index.
    ///
    /// # Errors
    ///
    /// In words: no such namespace or interface, no privileges; or what `work` says.
    pub fn within<T>(&self, work: impl FnOnce(u32) -> Result<T, String>) -> Result<T, String> {
        let home = self.enter()?;
        let result = self.index().and_then(work);
        match home {
            Some(home) => go_to(&home, Path::new("where it was")).and(result),
            None => result,
        }
    }

    /// Enters the namespace. Returns the one where the thread was, if it is another.
    ///
    /// # Errors
    ///
    /// As [`within`](Self::within).
    pub fn enter(&self) -> Result<Option<File>, String> {
        let Some(name) = &self.namespace else {
            return Ok(None);
        };
        let open = |path: &Path| {
            File::open(path).map_err(|error| format!("{self}: {}: {error}", path.display()))
        };
        let home = open(Path::new("/proc/thread-self/ns/net"))?;
        let path = PathBuf::from("/run/netns").join(name);
        go_to(&open(&path)?, &path)?;
        Ok(Some(home))
    }

    /// The interface's index, in the thread's namespace.
    fn index(&self) -> Result<u32, String> {
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)
            .map_err(|error| format!("{self}: no socket: {error}"))?;
        name_to_index(any.as_fd(), &self.interface).map_err(|error| format!("{self}: {error}"))
    }
}

fn go_to(namespace: &File, path: &Path) -> Result<(), String> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("cannot enter {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["c0", "c0@rgbench-src"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for wrong in ["", "@ns", "c0@", "c0@../x", "a/b"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let place: Place = "c0@no-such-namespace".parse().unwrap();
        let error = place.within(|_| Ok(())).unwrap_err();
        assert!(error.contains("/run/netns/no-such-namespace"), "{error}");
        let place: Place = "no-such-if".parse().unwrap();
        let error = place.within(|_| Ok(())).unwrap_err();
        assert!(error.starts_with("no-such-if: "), "{error}");
    }
}
