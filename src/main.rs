//! The daemon: start, control, stop. No packet is touched here.

mod control;

fn main() {}
