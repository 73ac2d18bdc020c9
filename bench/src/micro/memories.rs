//! What a flow table may lie in, compared in one run: private memory, a memory file, a BPF map.
//!
//! What differs is the pages: the system gives huge ones for private memory, for files if it is
//! set so, and never for a BPF map. Tables of the same flows are asked in turn, each sample in
//! another order, on one CPU.

use std::fmt::Write as _;
use std::fs;
use std::io;

use ringgate_conntrack::{FlowTable, LINE_BYTES, Memory};
use ringgate_dataplane::flow_map::FlowMap;
use ringgate_dataplane::parse::Family;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::micro::frames::Frames;
use crate::micro::order::{self, BURST, Walk};
use crate::micro::sample::{median, nanoseconds, on_cores};
use crate::micro::stages::Contestant as _;
use crate::micro::table::{self, Ours};
use crate::micro::world::{Direction, Mode, World, drive};

/// Operations of a sample.
const OPERATIONS: u64 = 512 * 1024;

/// What is compared.
const KINDS: [(&str, Make); 3] = [("private", Memory::private), ("file", file), ("map", map)];

type Make = fn(usize) -> io::Result<Memory>;

/// Measures tables with so many flows, and says so in words.
///
/// # Errors
///
/// In words: memory was refused, or flows were lost.
pub fn measure(flows: u32, samples: usize) -> Result<String, String> {
    let order = order::uniform(0, flows, 1);
    let mut report = format!("{flows} flows, median of {samples} samples in turn\n");
    let mut lookups = Vec::new();
    for (name, make) in KINDS {
        let (memory, huge) = make_one(name, make, flows as usize * 5 / 4)?;
        let ours = Ours::around(table::over(memory, flows as usize * 5 / 4)?);
        for flows in order.chunks(BURST) {
            ours.insert(flows);
        }
        lookups.push((name, huge, (ours, Walk::new(&order))));
    }
    let taken = in_turn(&mut lookups, samples, |(_, _, (ours, walk))| {
        Ok(nanoseconds(OPERATIONS, || {
            for _ in 0..OPERATIONS / BURST as u64 {
                ours.find(walk.burst());
            }
        }))
    })?;
    for ((name, huge, _), figures) in lookups.iter().zip(taken) {
        line(&mut report, "lookup", name, *huge, figures);
    }
    drop(lookups);
    let mut packets = Vec::new();
    let room = flows as usize * Mode::Nat.entries() * 5 / 4;
    let frames = Frames::new(Mode::Nat, Family::V4, Direction::ToBackend)?;
    for (name, make) in KINDS {
        let (memory, huge) = make_one(name, make, room)?;
        let mut world = World::around(table::shared_over(memory, room)?, 1, 1)?;
        let mut walk = Walk::new(&order);
        send(&mut world, &frames, &mut walk, flows.into())?;
        packets.push((name, huge, (world, walk)));
    }
    let taken = in_turn(&mut packets, samples, |(_, _, (world, walk))| {
        send(world, &frames, walk, OPERATIONS)
    })?;
    for ((name, huge, _), figures) in packets.iter().zip(taken) {
        line(&mut report, "pipeline nat ipv4", name, *huge, figures);
    }
    Ok(report)
}

/// Nanoseconds a packet.
fn send(
    world: &mut World,
    frames: &Frames,
    walk: &mut Walk<'_>,
    packets: u64,
) -> Result<f64, String> {
    let Some(lane) = world.lanes.first_mut() else {
        return Err("no worker".to_owned());
    };
    let mut driven = None;
    let figure = nanoseconds(packets, || {
        let worker = &mut lane.worker;
        driven = Some(drive(worker, frames, Direction::ToBackend, walk, packets));
    });
    match driven {
        Some(driven) if driven.packets == driven.forwarded => Ok(figure),
        driven => Err(format!("{driven:?}: packets were lost")),
    }
}

/// Samples of each subject, in turn; what the first round of all took is not in them.
fn in_turn<S: Send>(
    subjects: &mut [S],
    samples: usize,
    sample: impl Fn(&mut S) -> Result<f64, String> + Sync,
) -> Result<Vec<Vec<f64>>, String> {
    let count = subjects.len();
    let mut taken = on_cores(&mut [subjects], |subjects, _| {
        let mut taken = vec![Vec::new(); count];
        for round in 0..=samples {
            for turn in 0..count {
                let which = (round + turn) % count;
                if let (Some(subject), Some(taken)) =
                    (subjects.get_mut(which), taken.get_mut(which))
                {
                    let figure = sample(subject)?;
                    if round > 0 {
                        taken.push(figure);
                    }
                }
            }
        }
        Ok(taken)
    })?;
    taken
        .pop()
        .unwrap_or_else(|| Err("nothing was measured".to_owned()))
}

fn line(report: &mut String, what: &str, name: &str, huge: u64, mut figures: Vec<f64>) {
    figures.sort_by(f64::total_cmp);
    let least = figures.first().copied().unwrap_or(0.0);
    let middle = median(figures);
    // Writing to a string does not fail.
    let _ = writeln!(
        report,
        "{what:<18} {name:<8} {middle:>6.1} ns, least {least:>6.1} ns, {huge:>5} MiB of huge pages"
    );
}

/// Memory of one kind for so many flows, and how much of it is huge pages, in MiB.
fn make_one(name: &str, make: Make, capacity: usize) -> Result<(Memory, u64), String> {
    let before = huge_pages();
    let memory = make(FlowTable::lines(capacity));
    let memory = memory.map_err(|error| format!("{name}: no memory: {error}"))?;
    Ok((memory, huge_pages().saturating_sub(before)))
}

/// Of this process, in MiB.
fn huge_pages() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let lines = rollup.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let number = rest.trim().strip_suffix(" kB")?;
        matches!(name, "AnonHugePages" | "ShmemPmdMapped")
            .then(|| number.parse::<u64>().ok())
            .flatten()
    });
    lines.sum::<u64>() / 1024
}

fn file(lines: usize) -> io::Result<Memory> {
    let file = memfd_create("flows", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, (lines * LINE_BYTES) as u64)?;
    Memory::shared(&file, lines)
}

fn map(lines: usize) -> io::Result<Memory> {
    let map = FlowMap::create(lines).map_err(io::Error::other)?;
    map.memory().map_err(io::Error::other)
}
