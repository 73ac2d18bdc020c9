//! Doing something in a network namespace, in a thread of its own.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `work` in a thread inside the namespace called `name` and returns its result. Sockets
/// made there stay there, wherever they are used.
///
/// # Panics
///
/// When the namespace does not exist, or with the panic of `work`.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(name);
            work()
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread into a namespace, for the rest of its life.
///
/// # Panics
///
/// When there is no such namespace, or no privilege to enter it.
pub(crate) fn enter(name: &str) {
    let path = Path::new("/run/netns").join(name);
    let space = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))
        .unwrap_or_else(|error| panic!("cannot enter the namespace {name}: {error}"));
}
