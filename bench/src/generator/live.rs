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
use super::pace;
use super::shape::Shape;
use super::source::Plan;

/// The compiled program. Aligned, because aya reads ELF headers in place.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/blast.bpf.o"));

/// Frames that the kernel sends together, at most: as many as a NAPI budget takes.
const BATCH: u32 = 64;

/// Batches are of no more than comes in a second divided by this, so that no frame waits longer for
/// its batch: 10 microseconds.
const BATCHES_PER_SECOND: u64 = 100_000;

/// The lowest rate. Frames that are not due wait in the kernel, a few microseconds each.
const SLOWEST: u64 = 1_000;

/// Frames that were not due cost about so much, nanoseconds.
const PATIENCE: u64 = 5_000;

/// Runs per second that are asked for at most: what is not run for a frame costs time at the end.
const FASTEST: u64 = 8_000_000;

/// How many frames a second to expect of a first run.
const FIRST_GUESS: u64 = 1_000_000;

/// `SHAPES`, `PICKS_IN_BLOCK` in the program.
const SHAPES: usize = 3;
const PICKS_IN_BLOCK: usize = 1_024;

/// The program, loaded; and what a run needs.
pub struct Live {
    ebpf: Ebpf,
    template: Vec<u8>,
    context: [u8; 24],
    plan: Plan,
    /// Frames that the program was run for in a second of the last run without a rate.
    per_second: u64,
}

/// `struct control` in the program.
type Control = [u64; 5];

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
            plan: plan.clone(),
            per_second: FIRST_GUESS,
        })
    }

    /// Sends from now on until `duration` has passed, at `rate` frames per second or as many as can
    /// be. Returns how many frames and bytes.
    ///
    /// It is one system call, or a few: each ends with some milliseconds in which nothing is sent,
    /// while the kernel waits for all its CPUs before it frees the frames' memory. So it asks for
    /// more runs of the program than there will be frames; at the end the rest do nothing.
    ///
    /// # Errors
    ///
    /// In words: a kernel without live frames (before 5.18), or an interface that is gone.
    pub fn run(
        &mut self,
        rate: Option<u64>,
        duration: u64,
        clock: impl Fn() -> u64,
    ) -> Result<(u64, u64), String> {
        if rate.is_some_and(|rate| rate < SLOWEST) {
            return Err(format!(
                "live frames cannot be sent at less than {SLOWEST} a second: leave --live-frames away"
            ));
        }
        let before = self.sent()?;
        let start = clock();
        let end = start + duration;
        self.control([
            start,
            end,
            rate.unwrap_or(0),
            pace::keep(rate.unwrap_or(0)),
            0,
        ])?;
        let mut now = start;
        while now < end {
            let left = end - now;
            let per_second = match rate {
                Some(rate) => (rate + NANOSECONDS / PATIENCE).min(FASTEST),
                None => self.per_second + self.per_second / 4,
            };
            let wanted = u128::from(per_second) * u128::from(left) / u128::from(NANOSECONDS);
            let repeat = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(BATCH, MOST);
            self.call(repeat, rate)?;
            let sent = self.sent()? - before;
            now = clock();
            if rate.is_none() {
                let took = u128::from(now.min(end) - start).max(1);
                let per_second = u128::from(sent) * u128::from(NANOSECONDS) / took;
                self.per_second = u64::try_from(per_second).unwrap_or(u64::MAX).max(1_000);
            }
        }
        let after = self.sent()?;
        Ok((after - before, self.plan.bytes(before..after)))
    }

    /// One system call.
    fn call(&mut self, repeat: u32, rate: Option<u64>) -> Result<(), String> {
        let batch = match rate {
            Some(rate) => u32::try_from(rate / BATCHES_PER_SECOND).unwrap_or(BATCH),
            None => BATCH,
        };
        let batch = batch.clamp(1, BATCH);
        let options = TestRunOptions {
            data_in: Some(&self.template),
            ctx_in: Some(&self.context),
            repeat,
            attrs: TestRunAttrs::new().xdp_live_frames(batch),
            ..TestRunOptions::new()
        };
        let run = program(&mut self.ebpf)?.test_run(options);
        run.map(|_| ())
            .map_err(|error| format!("the kernel does not send: {error}"))
    }

    fn control(&mut self, control: Control) -> Result<(), String> {
        let map = self
            .ebpf
            .map_mut("controls")
            .ok_or("the object has no map `controls`")?;
        let mut map: Array<_, Control> = Array::try_from(map).map_err(|error| error.to_string())?;
        map.set(0, control, 0).map_err(|error| error.to_string())
    }

    /// Frames sent since the program was loaded.
    fn sent(&self) -> Result<u64, String> {
        let map = self
            .ebpf
            .map(".bss")
            .ok_or("the object has no map `.bss`")?;
        let map: Array<_, u64> = Array::try_from(map).map_err(|error| error.to_string())?;
        map.get(&0, 0).map_err(|error| error.to_string())
    }
}

/// Of a second.
const NANOSECONDS: u64 = 1_000_000_000;

/// Most runs of one call; the kernel counts them in 31 bits.
const MOST: u32 = 1 << 30;

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
