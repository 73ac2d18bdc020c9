//! The flow table of this process, and what it lies in.

use std::io;

use ringgate_config::{Balancer, FlowMemory};
use ringgate_conntrack::{FlowTable, NewError, Secret, Timeouts};
use ringgate_dataplane::flow_map::{FlowMap, FlowMapError};
use ringgate_dataplane::newcomers::{Tables, half_open_of};

/// Why there is no flow table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlowsError {
    /// No BPF map for it.
    #[error(transparent)]
    Map(#[from] FlowMapError),
    /// No private memory for it.
    #[error(
        "no memory for a table of {flows} flows, 72 bytes each: {error}; set a smaller `flows` in \
         [balancer], or give the process more"
    )]
    Memory {
        /// The capacity that was asked for.
        flows: usize,
        /// What the system said.
        error: io::Error,
    },
    /// The map is not as it was asked for.
    #[error(transparent)]
    New(#[from] NewError),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Flows {
    tables: Tables,
    /// Open for as long as the table is used, so that it can be found and handed on.
    map: Option<FlowMap>,
}

impl Flows {
    /// An empty table, as the configuration has it.
    ///
    /// # Errors
    ///
    /// See [`FlowsError`].
    pub(crate) fn new(balancer: &Balancer, secret: Secret) -> Result<Self, FlowsError> {
        let timeouts = Timeouts::default();
        let half_open = half_open_of(balancer.flows());
        let flows = balancer.flows() - half_open;
        let (table, map) = match balancer.flow_memory() {
            FlowMemory::Map => {
                let map = FlowMap::create(FlowTable::lines(flows))?;
                let table = FlowTable::new(map.memory()?, flows, secret, timeouts)?;
                tracing::info!(
                    flows,
                    half_open,
                    map = map.id(),
                    "the flow table is a BPF map"
                );
                (table, Some(map))
            }
            FlowMemory::Private => {
                let table = FlowTable::in_memory(flows, secret, timeouts)
                    .map_err(|error| FlowsError::Memory { flows, error })?;
                tracing::info!(flows, half_open, "the flow table is private memory");
                (table, None)
            }
        };
        let tables = Tables::beside(table, half_open, secret, timeouts)
            .map_err(|error| FlowsError::Memory { flows, error })?;
        Ok(Self { tables, map })
    }

    /// The table, and the half-open flows beside it, which are always private memory.
    pub(crate) const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The kernel's number of the BPF map that the table lies in, if it does.
    pub(crate) fn map_id(&self) -> Option<u32> {
        self.map.as_ref().map(FlowMap::id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_tables_have_the_configured_capacity_and_no_map() {
        let text = "[balancer]\nflows = 50000\nflow-memory = \"private\"\n\
            [[interface]]\nname = \"eth0\"\n";
        let model = ringgate_config::parse("test.toml", text).unwrap().model;
        let flows = Flows::new(model.balancer(), Secret([1, 2])).unwrap();
        assert_eq!(
            (flows.tables().flows.capacity(), flows.map_id()),
            (45_904, None)
        );
        assert_eq!(flows.tables().half_open.capacity(), 4096);
        // All in, but for what does not grow with them: the counts of live flows.
        let bytes = flows.tables().flows.memory_bytes() + flows.tables().half_open.memory_bytes();
        assert!(bytes <= 72 * 50_000, "{bytes}");
    }
}
