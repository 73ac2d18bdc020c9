//! Errors of every kind about what a worker has sent and about anything else, echo requests, and messages
//! of any bytes, to a worker that has flows: as `worker`, and the checksum of every message that leaves is right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate_fuzz::packets::Kind;
use ringgate_fuzz::scene;

fuzz_target!(|data: &[u8]| {
    use Kind::{Icmp, Transport};
    scene::play(data, &[Icmp, Transport, Icmp, Icmp]);
});
