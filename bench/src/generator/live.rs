//! Live frames: the kernel makes and sends them itself, faster than any AF_XDP socket can in copy
//! mode, so that what is measured is the forwarder.
//!
//! It needs a device that takes XDP frames; a veth does while a program is attached to its peer,
//! which is the case when a balancer on AF_XDP runs there.

use std::fmt;

use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use super::netns::Place;
use super::shape::Shape;
use super::source::Plan;

/// The compiled program. Aligned, because aya reads ELF headers in place.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/blast.bpf.o"));

/// Most frames of one system call.
pub const MOST: u32 = 16 * 1_024;

/// Frames that the kernel sends together: as many as a NAPI budget takes.
const BATCH: u32 = 64;

/// `SHAPES`, `PICKS_IN_BLOCK` in the program.
const SHAPES: usize = 3;
const PICKS_IN_BLOCK: usize = 1_024;

/// The program, loaded; and what a run needs.
pub struct Live {
    ebpf: Ebpf,
    template: Vec<u8>,
    context: [u8; 24],
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Live {
    /// Loads the program for `plan` and moves the thread into the namespace of `place` for good: the
    /// kernel looks there for the interface at each run.
    ///
    /// # Errors
    ///
    /// In words: no such interface, no privileges, or a kernel that does not take the program.
    pub fn open(place: &Place, plan: &Plan) -> Result<Self, String> {
        let index = place.within(Ok)?;
        let _left = place.enter()?;
        let mut ebpf = load(plan)?;
        fill_picks(&mut ebpf, plan.spread.picks())?;
        let longest = plan.shapes.iter().max_by_key(|shape| shape.size());
        let template = longest
            .map(|shape| shape.template().to_vec())
            .unwrap_or_default();
        let context = context(u32::try_from(template.len()).unwrap_or(0), index);
        Ok(Self {
            ebpf,
            template,
            context,
        })
    }

    /// Sends `frames` frames.
    ///
    /// # Errors
    ///
    /// In words: a kernel without live frames (before 5.18), or an interface that is gone.
    pub fn send(&mut self, frames: u32) -> Result<u32, String> {
        if frames == 0 {
            return Ok(0);
        }
        let options = TestRunOptions {
            data_in: Some(&self.template),
            ctx_in: Some(&self.context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH.min(frames)),
            ..TestRunOptions::new()
        };
        let run = program(&mut self.ebpf)?.test_run(options);
        run.map_err(|error| format!("the kernel does not send: {error}"))?;
        Ok(frames)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, String> {
    ebpf.program_mut("blast")
        .ok_or("the object has no program `blast`")?
        .try_into()
        .map_err(|error| format!("{error}"))
}

fn load(plan: &Plan) -> Result<Ebpf, String> {
    let Some(first) = plan.shapes.first() else {
        return Err("nothing to send".to_owned());
    };
    let places = first.places();
    let at = [
        places.ip_checksum,
        places.source_low,
        places.port,
        places.flags,
        places.checksum,
        places.stamp,
        places.ip_len,
        places.udp_len,
    ]
    .map(|at| u32::try_from(at).unwrap_or(0));
    let each = |what: fn(&Shape) -> usize| -> [u32; SHAPES] {
        let number = |n| {
            plan.shapes
                .get(n)
                .map_or(0, |s| u32::try_from(what(s)).unwrap_or(0))
        };
        std::array::from_fn(number)
    };
    let lens = each(|shape| shape.template().len());
    let ip_lens = each(Shape::ip_len);
    let ip_sums = each(|shape| shape.sums().ip.into());
    let datagram_sums = each(|shape| shape.sums().datagram.into());
    let spread = &plan.spread;
    let (flows, new_per_second) = (spread.flows(), spread.new_per_second());
    let picks = u32::try_from(spread.picks().len()).unwrap_or(0);
    let blocks = u32::try_from(spread.picks().len() / PICKS_IN_BLOCK)
        .unwrap_or(0)
        .max(1);
    let mut ebpf = EbpfLoader::new()
        .override_global("flows", &flows, true)
        .override_global("first_low", &u32::from(first.first_low()), true)
        .override_global("new_per_second", &new_per_second, true)
        .override_global("started", &plan.started, true)
        .override_global("picks_len", &picks, true)
        .override_global("ip_checksum_at", &at[0], true)
        .override_global("source_low_at", &at[1], true)
        .override_global("port_at", &at[2], true)
        .override_global("flags_at", &at[3], true)
        .override_global("checksum_at", &at[4], true)
        .override_global("stamp_at", &at[5], true)
        .override_global("ip_len_at", &at[6], true)
        .override_global("udp_len_at", &at[7], true)
        .override_global("lens", &lens, true)
        .override_global("ip_lens", &ip_lens, true)
        .override_global("ip_sums", &ip_sums, true)
        .override_global("datagram_sums", &datagram_sums, true)
        .override_global("turns", &plan.turns, true)
        .override_global("flags_of", &first.flags().map(u32::from), true)
        .map_max_entries("sequences", flows)
        .map_max_entries("picks", blocks)
        .load(PROGRAM)
        .map_err(|error| format!("the program does not load: {error}"))?;
    program(&mut ebpf)?
        .load()
        .map_err(|error| format!("the program does not load: {error}"))?;
    Ok(ebpf)
}

fn fill_picks(ebpf: &mut Ebpf, picks: &[u32]) -> Result<(), String> {
    let map = ebpf
        .map_mut("picks")
        .ok_or("the object has no map `picks`")?;
    let mut map: Array<_, [u32; PICKS_IN_BLOCK]> =
        Array::try_from(map).map_err(|error| error.to_string())?;
    for (number, block) in (0..).zip(picks.as_chunks::<PICKS_IN_BLOCK>().0) {
        map.set(number, block, 0)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
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
