//! All that this program knows of the flow table.

use std::sync::Arc;

use ringgate_conntrack::{FlowTable, Secret, Timeouts};

/// A table for workers that share it.
#[must_use]
pub fn shared(capacity: usize) -> Arc<FlowTable> {
    Arc::new(FlowTable::new(capacity, SECRET, Timeouts::default()))
}

/// Any secret is as good as another here, and a fixed one makes runs alike.
const SECRET: Secret = Secret([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
