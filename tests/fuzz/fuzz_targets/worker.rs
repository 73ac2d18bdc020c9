//! Any row of frames through a whole worker with services of every mode: every packet is accounted
//! for once, every frame comes home, and what leaves is whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate_fuzz::packets::Kind;
use ringgate_fuzz::scene;

fuzz_target!(|data: &[u8]| {
    use Kind::{Fragment, Icmp, Raw, Transport};
    scene::play(
        data,
        &[
            Transport, Transport, Transport, Transport, Fragment, Icmp, Raw,
        ],
    );
});
