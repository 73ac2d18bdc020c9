//! Traffic, microbenchmarks and end-to-end measurements for Ringgate.
