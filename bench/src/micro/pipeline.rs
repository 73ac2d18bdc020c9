//! The whole pipeline in memory: what a packet costs without a kernel.
//!
//! A real worker over memory ports against the bare loop over the same, in turn; the figure is
//! the median of their differences. The frames are made within the measured time, by both alike.

use std::sync::Barrier;

use ringgate_dataplane::parse::Family;

use crate::micro::Plan;
use crate::micro::frames::Frames;
use crate::micro::order::{self, Walk};
use crate::micro::report::{Loops, Row};
use crate::micro::sample::{median, nanoseconds, on_cores};
use crate::micro::world::{Direction, Driven, Forwarder, Lane, Mode, World, drive, family_name};

/// Every so many flows one may be refused by a full bucket, and no more.
const REFUSED_ONE_IN: u64 = 100;

/// Where the flows of the orders come from.
const SEED: u64 = 1;

/// All rows of one mode and family with so many flows.
///
/// # Errors
///
/// In words: packets were lost, or flows were not stored.
pub(crate) fn measure(
    mode: Mode,
    family: Family,
    flows: u32,
    plan: &Plan,
    threads: usize,
) -> Result<Vec<Row>, String> {
    let room = flows as usize * mode.entries();
    let mut world = World::of(mode, threads, (room + room / 4).max(1024))?;
    let uniform = order::uniform(0, flows, SEED);
    let mut directions = vec![Direction::ToBackend];
    if mode.has_replies() {
        directions.push(Direction::ToClient);
    }
    let mut rows = Vec::new();
    for direction in directions {
        let kind = Kind {
            mode,
            family,
            direction,
            frames: Frames::new(mode, family, direction)?,
        };
        let Some((first, _)) = world.lanes.split_first_mut() else {
            return Err("no thread to measure with".to_owned());
        };
        meet_all(first, &kind, &uniform, flows)?;
        for threads in 1..=world.lanes.len() {
            let lanes = world.lanes.get_mut(..threads).unwrap_or_default();
            let loops = compare(lanes, &kind, &uniform, plan)?;
            rows.push(kind.row(flows, "uniform", threads, loops));
        }
        if flows >= plan.fewest_for_zipf && direction == Direction::ToBackend {
            let zipf = order::zipf(flows, SEED)?;
            let lanes = world.lanes.get_mut(..1).unwrap_or_default();
            let loops = compare(lanes, &kind, &zipf, plan)?;
            rows.push(kind.row(flows, "zipf", 1, loops));
        }
    }
    Ok(rows)
}

/// The `nat` service with many backends: rows `pipeline-N-backends`.
///
/// # Errors
///
/// In words: packets were lost, or flows were not stored.
pub(crate) fn with_backends(
    (stage, backends): (&'static str, u16),
    flows: u32,
    plan: &Plan,
) -> Result<Row, String> {
    let room = flows as usize * Mode::Nat.entries();
    let mut world = World::with_backends(1, (room + room / 4).max(1024), backends)?;
    let kind = Kind {
        mode: Mode::Nat,
        family: Family::V4,
        direction: Direction::ToBackend,
        frames: Frames::new(Mode::Nat, Family::V4, Direction::ToBackend)?,
    };
    let order = order::uniform(0, flows, SEED);
    if let Some(first) = world.lanes.first_mut() {
        meet_all(first, &kind, &order, flows)?;
    }
    let loops = compare(&mut world.lanes, &kind, &order, plan)?;
    Ok(Row {
        stage,
        ..kind.row(flows, "uniform", 1, loops)
    })
}

/// Every packet is the first of a flow, from an empty table to nine tenths of its capacity.
///
/// # Errors
///
/// In words: packets were lost, or flows were not stored.
pub(crate) fn storm(mode: Mode, family: Family, plan: &Plan) -> Result<Row, String> {
    let flows = plan.storm_flows;
    let mut world = World::of(mode, 1, flows as usize * mode.entries())?;
    let kind = Kind {
        mode,
        family,
        direction: Direction::ToBackend,
        frames: Frames::new(mode, family, Direction::ToBackend)?,
    };
    let order = order::uniform(0, flows, SEED);
    let most = u64::from(flows) * 9 / 10;
    let plan = Plan {
        packets: most / plan.samples as u64 / order::BURST as u64 * order::BURST as u64,
        warm_up: 0,
        ..plan.clone()
    };
    let loops = compare(&mut world.lanes, &kind, &order, &plan)?;
    let wanted = plan.packets * plan.samples as u64;
    let created: u64 = world.lanes.iter_mut().map(Lane::created).sum();
    if created + created / REFUSED_ONE_IN < wanted {
        return Err(format!("{created} of {wanted} new flows were stored"));
    }
    Ok(kind.row(flows, "new", 1, loops))
}

/// Which packets.
struct Kind {
    mode: Mode,
    family: Family,
    direction: Direction,
    frames: Frames,
}

impl Kind {
    fn row(&self, flows: u32, order: &'static str, threads: usize, compared: Compared) -> Row {
        Row {
            stage: "pipeline",
            mode: self.mode.name(),
            family: family_name(self.family),
            direction: self.direction.name(),
            flows,
            order,
            threads,
            ns: compared.own_ns,
            loops: Some(compared.loops),
            scaling: (threads > 1).then_some(compared.scaling),
        }
    }

    /// Sends, and says whether everything came out.
    fn drive(&self, forwarder: &mut impl Forwarder, walk: &mut Walk<'_>, packets: u64) -> Driven {
        drive(forwarder, &self.frames, self.direction, walk, packets)
    }
}

/// Every flow's first packet in this direction.
fn meet_all(lane: &mut Lane, kind: &Kind, order: &[u32], flows: u32) -> Result<(), String> {
    let before = lane.created();
    let driven = kind.drive(&mut lane.worker, &mut Walk::new(order), flows.into());
    if driven.packets != driven.forwarded {
        return Err(format!("{driven:?}: packets were lost"));
    }
    if kind.mode.is_tcp() {
        // A connection that nobody saw begin is established by its second segment.
        kind.drive(&mut lane.worker, &mut Walk::new(order), flows.into());
    }
    let created = lane.created() - before;
    let wanted = u64::from(flows);
    if kind.direction == Direction::ToBackend && created + wanted / REFUSED_ONE_IN < wanted {
        return Err(format!("{created} of {wanted} flows were stored"));
    }
    Ok(())
}

/// Nanoseconds a packet.
struct Compared {
    own_ns: f64,
    loops: Loops,
    /// See [`Row::scaling`].
    scaling: f64,
}

/// What one thread's turns took, nanoseconds a packet.
struct Sample {
    /// The bare loops, all threads at once.
    bare: f64,
    /// The workers, all threads at once.
    total: f64,
    /// The first thread's worker, alone, with all flows.
    alone: Option<f64>,
}

/// Worker and bare loop in turn, on as many threads as there are lanes.
fn compare(
    lanes: &mut [Lane],
    kind: &Kind,
    order: &[u32],
    plan: &Plan,
) -> Result<Compared, String> {
    let threads = lanes.len();
    let mut shares: Vec<Share<'_>> = lanes
        .iter_mut()
        .enumerate()
        .map(|(index, lane)| Share {
            lane,
            order: order::share(order, index, threads),
            alone: (index == 0 && threads > 1).then_some(order),
        })
        .collect();
    let taken = on_cores(&mut shares, |share, barrier| {
        share.alternate(kind, plan, barrier)
    })?;
    let taken: Vec<Vec<Sample>> = taken.into_iter().collect::<Result<_, _>>()?;
    let all = |of: fn(&Sample) -> Option<f64>| {
        let samples = taken.iter().flatten();
        median(samples.filter_map(of).collect())
    };
    Ok(Compared {
        own_ns: all(|s| Some(s.total - s.bare)),
        loops: Loops {
            total_ns: all(|s| Some(s.total)),
            bare_ns: all(|s| Some(s.bare)),
        },
        scaling: threads as f64 * all(|s| Some((s.alone? - s.bare) / (s.total - s.bare))),
    })
}

/// What one thread is to do.
struct Share<'a> {
    lane: &'a mut Lane,
    /// Its flows.
    order: &'a [u32],
    /// All flows, where it is compared with itself alone.
    alone: Option<&'a [u32]>,
}

impl Share<'_> {
    /// Bare loop and worker in turn, each at the same time as those of the other threads.
    fn alternate(
        &mut self,
        kind: &Kind,
        plan: &Plan,
        barrier: &Barrier,
    ) -> Result<Vec<Sample>, String> {
        let mut walks = [Walk::new(self.order), Walk::new(self.order)];
        let [bare_walk, walk] = &mut walks;
        let mut alone_walk = self.alone.map(Walk::new);
        let Lane { worker, bare } = &mut *self.lane;
        let mut lost = None;
        let mut check = |driven: Driven| {
            if driven.packets != driven.forwarded {
                lost = Some(driven);
            }
        };
        if plan.warm_up > 0 {
            check(kind.drive(bare, bare_walk, plan.warm_up));
            check(kind.drive(worker, walk, plan.warm_up));
        }
        let mut samples = Vec::with_capacity(plan.samples);
        for _ in 0..plan.samples {
            barrier.wait();
            let bare = nanoseconds(plan.packets, || {
                check(kind.drive(bare, bare_walk, plan.packets));
            });
            barrier.wait();
            let total = nanoseconds(plan.packets, || {
                check(kind.drive(worker, walk, plan.packets));
            });
            barrier.wait();
            let alone = alone_walk.as_mut().map(|walk| {
                nanoseconds(plan.packets, || {
                    check(kind.drive(worker, walk, plan.packets));
                })
            });
            samples.push(Sample { bare, total, alone });
        }
        match lost {
            Some(driven) => Err(format!("{driven:?}: packets were lost")),
            None => Ok(samples),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_and_orders_are_measured() {
        let plan = Plan {
            fewest_for_zipf: 1_000,
            ..Plan::smallest()
        };
        let rows = measure(Mode::Nat, Family::V6, 1_000, &plan, 1).unwrap();
        let kinds: Vec<_> = rows.iter().map(|row| (row.direction, row.order)).collect();
        assert_eq!(
            kinds,
            [
                ("to-backend", "uniform"),
                ("to-backend", "zipf"),
                ("to-client", "uniform")
            ]
        );
        assert!(rows.iter().all(|row| row.loops.unwrap().bare_ns > 0.0));
    }

    #[test]
    fn a_storm_fills_the_table() {
        let row = storm(Mode::DsrL2, Family::V4, &Plan::smallest()).unwrap();
        assert_eq!((row.order, row.flows), ("new", 10_000));
    }
}
