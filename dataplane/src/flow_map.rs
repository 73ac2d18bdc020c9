//! The BPF map that a flow table lies in, so that BPF programs and other processes see it too.
//!
//! An array map that can be mapped into memory: value n is line n of the table
//! (`docs/FLOW-TABLE.md`), [`LINE_BYTES`] bytes. So a BPF program reaches any line by one lookup
//! with a number that the map itself bounds, and needs no pointer arithmetic. The map lives as long
//! as somebody has it mapped, open or pinned, and no longer than the kernel.
//!
//! The kernel keeps such a map in pages of 4 KiB, whatever is asked for, all of them from the
//! beginning, charged to the memory cgroup of the process that makes it; to a process without
//! CAP_PERFMON it gives the next power of two of lines. It cannot be made read-only for BPF programs:
//! the kernel refuses to map such a map for writing.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{MapData, MapError, MapType};
use ringgate_conntrack::{LINE_BYTES, Memory};
use thiserror::Error;

/// The name that `bpftool map` shows.
pub const NAME: &str = "ringgate_flows";

/// `BPF_MAP_TYPE_ARRAY` and `BPF_F_MMAPABLE`: include/uapi/linux/bpf.h, since Linux 5.5.
const ARRAY: u32 = 2;
const MMAPABLE: u32 = 1 << 10;

/// Bytes of an array map's key: the number of the value.
const KEY_BYTES: u32 = 4;

/// Bytes of a value.
const VALUE_BYTES: u32 = {
    assert!(LINE_BYTES == 64);
    64
};

/// Why there is no map for a flow table.
#[derive(Debug, Error)]
pub enum FlowMapError {
    /// The kernel did not make it.
    #[error("a BPF map of {lines} × {LINE_BYTES} bytes for the flow table: {source}; {cure}")]
    Create {
        /// How many lines it was to have.
        lines: usize,
        /// What the kernel said.
        source: io::Error,
        /// What the operator can change.
        cure: &'static str,
    },
    /// It was made, or handed over, and cannot be used.
    #[error("the flow table's BPF map: {what}: {found}")]
    Unusable {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        found: String,
    },
    /// It is a map for something else.
    #[error("BPF map {id} holds no flow table: its {what} is {found}, expected {expected}")]
    Foreign {
        /// The map's id.
        id: u32,
        /// Which property.
        what: &'static str,
        /// The map's.
        found: String,
        /// A flow table's.
        expected: u32,
    },
}

/// See the module's documentation.
pub struct FlowMap {
    map: MapData,
    id: u32,
    lines: usize,
}

impl FlowMap {
    /// Makes a map of so many lines, all zero.
    ///
    /// # Errors
    ///
    /// [`FlowMapError::Create`], with a cure.
    pub fn create(lines: usize) -> Result<Self, FlowMapError> {
        let refused = |source: io::Error| FlowMapError::Create {
            lines,
            cure: cure(&source),
            source,
        };
        let entries = u32::try_from(lines);
        let entries = entries.map_err(|_| refused(io::Error::from_raw_os_error(libc::E2BIG)))?;
        let map = aya_obj::Map::new_from_params(ARRAY, KEY_BYTES, VALUE_BYTES, entries, MMAPABLE);
        match MapData::create(map, NAME, None) {
            Ok(map) => Self::check(map),
            Err(MapError::CreateError { io_error, .. }) => Err(refused(io_error)),
            Err(error) => Err(unusable("making it", &error)),
        }
    }

    /// Takes a map that was handed over: by a descriptor that was passed, or opened from a pin.
    ///
    /// # Errors
    ///
    /// It is not such a map.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, FlowMapError> {
        let map = MapData::from_fd(fd);
        Self::check(map.map_err(|error| unusable("opening it", &error))?)
    }

    fn check(map: MapData) -> Result<Self, FlowMapError> {
        let info = map.info();
        let info = info.map_err(|error| unusable("asking about it", &error))?;
        let foreign = |what, found: String, expected| FlowMapError::Foreign {
            id: info.id(),
            what,
            found,
            expected,
        };
        match info.map_type() {
            Ok(MapType::Array) => {}
            Ok(other) => {
                return Err(foreign(
                    "type",
                    format!("{} ({other:?})", other as u32),
                    ARRAY,
                ));
            }
            Err(error) => return Err(foreign("type", error.to_string(), ARRAY)),
        }
        if info.value_size() != VALUE_BYTES {
            let found = info.value_size().to_string();
            return Err(foreign("value size", found, VALUE_BYTES));
        }
        if info.map_flags() & MMAPABLE == 0 {
            let found = format!("{:#x}", info.map_flags());
            return Err(foreign("set of flags", found, MMAPABLE));
        }
        Ok(Self {
            id: info.id(),
            lines: info.max_entries() as usize,
            map,
        })
    }

    /// The kernel's number for it, by which `bpftool map show id` finds it.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Its lines, mapped. They stay when this is dropped.
    ///
    /// # Errors
    ///
    /// The kernel refused the mapping.
    pub fn memory(&self) -> Result<Memory, FlowMapError> {
        let memory = Memory::shared(self, self.lines);
        memory.map_err(|error| FlowMapError::Unusable {
            what: "mapping it",
            found: error.to_string(),
        })
    }
}

impl AsFd for FlowMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

impl fmt::Debug for FlowMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowMap")
            .field("id", &self.id)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

fn unusable(what: &'static str, error: &MapError) -> FlowMapError {
    FlowMapError::Unusable {
        what,
        found: error.to_string(),
    }
}

/// What an operator can do about a map that was not made.
fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "it takes CAP_BPF; grant it, or set flow-memory = \"private\" in [balancer]"
        }
        Some(libc::ENOMEM | libc::E2BIG) => {
            "the host has less memory, or the process's memory cgroup allows less (systemd: \
             MemoryMax=); set a smaller `flows` in [balancer], or allow more"
        }
        _ => "set flow-memory = \"private\" in [balancer] to do without",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_their_cure() {
        let refuse = |errno| cure(&io::Error::from_raw_os_error(errno));
        assert!(refuse(libc::EPERM).contains("CAP_BPF"));
        assert!(refuse(libc::ENOMEM).contains("MemoryMax"));
        assert!(refuse(libc::E2BIG).contains("`flows`"));
        assert!(refuse(libc::EIO).contains("private"));
    }

    #[test]
    fn a_descriptor_of_something_else_is_refused() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = FlowMap::from_fd(socket.into()).unwrap_err();
        assert!(matches!(error, FlowMapError::Unusable { .. }), "{error}");
    }
}
