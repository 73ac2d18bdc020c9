//! Fragments in any order, of packets to and from services of every mode, and errors that quote them:
//! as `worker`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate_fuzz::packets::Kind;
use ringgate_fuzz::scene;

fuzz_target!(|data: &[u8]| {
    use Kind::{Fragment, Icmp, Transport};
    scene::play(data, &[Fragment, Fragment, Transport, Fragment, Icmp]);
});
