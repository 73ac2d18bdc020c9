//! The source: frames that the kernel makes and sends itself, faster than any AF_XDP socket can
//! in copy mode, so that what is measured is the forwarder.
//!
//! It needs a device that takes XDP frames; a veth does while a program is attached to its peer,
//! which is the case when the balancer runs there.

use std::fs;
use std::time::Duration;

use aya::EbpfLoader;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};

use crate::meter;
use crate::traffic::Traffic;

/// The compiled program. Aligned, because aya reads ELF headers in place.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/blast.bpf.o"));

/// Frames of one system call: some 20 ms, so that the duration is kept closely.
const REPEAT: u32 = 16 * 1024;

/// Frames that the kernel sends together: as many as a NAPI budget takes.
const BATCH: u32 = 64;

/// What was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered {
    /// Frames sent; the far device may have dropped some.
    pub frames: u64,
    /// For how long.
    pub elapsed: Duration,
}

/// Sends for `duration` out of `interface`.
///
/// # Errors
///
/// In words: no such interface, no privileges, or a kernel without live frames (before 5.18).
pub fn blast(interface: &str, traffic: &Traffic, duration: Duration) -> Result<Offered, String> {
    let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))
        .map_err(|error| format!("{interface}: {error}"))?;
    let index: u32 = index
        .trim()
        .parse()
        .map_err(|error| format!("{interface}: {error}"))?;
    let sums = traffic.sums();
    let mut ebpf = EbpfLoader::new()
        .override_global("flows", &traffic.flows(), true)
        .override_global("first_low", &sums.low, true)
        .override_global("ip_sum", &sums.ip, true)
        .override_global("udp_sum", &sums.udp, true)
        .load(PROGRAM)
        .map_err(|error| format!("the program does not load: {error}"))?;
    let program: &mut Xdp = ebpf
        .program_mut("blast")
        .ok_or("the object has no program `blast`")?
        .try_into()
        .map_err(|error| format!("{error}"))?;
    program
        .load()
        .map_err(|error| format!("the program does not load: {error}"))?;
    let context = context(u32::try_from(traffic.template().len()).unwrap_or(0), index);
    let (start, mut frames) = (meter::now(), 0);
    while start.elapsed() < duration {
        let options = TestRunOptions {
            data_in: Some(traffic.template()),
            ctx_in: Some(&context),
            repeat: REPEAT,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        program
            .test_run(options)
            .map_err(|error| format!("the kernel does not send: {error}"))?;
        frames += u64::from(REPEAT);
    }
    Ok(Offered {
        frames,
        elapsed: start.elapsed(),
    })
}

/// `struct xdp_md` of `linux/bpf.h` in native order: data, data_end, data_meta, ingress_ifindex,
/// rx_queue_index, egress_ifindex.
fn context(len: u32, ifindex: u32) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (field, value) in bytes.chunks_exact_mut(4).zip([0, len, 0, ifindex, 0, 0]) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}
