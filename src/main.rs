//! The daemon: start, control, stop. No packet is touched here.

fn main() {}
