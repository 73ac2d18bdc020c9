//! What the fuzz targets share: choices made by the fuzzer's bytes, packets made of choices, and the
//! arithmetic that what comes out is held against.
//!
//! Nothing here knows the code under test better than its public interface: packets are written and
//! read byte by byte, so that a mistake there is not made twice.

pub mod choices;
pub mod packets;
pub mod places;
pub mod scene;
pub mod sums;
