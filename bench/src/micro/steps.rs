//! Two steps of the pipeline by themselves, on flows that are in the cache: finding out where a
//! packet goes, and rewriting it.

use std::hint::black_box;
use std::sync::Arc;

use ringgate_conntrack::FlowHash;
use ringgate_dataplane::clock::Clock as _;
use ringgate_dataplane::newcomers::Newcomers;
use ringgate_dataplane::parse::{Family, Packet, parse};
use ringgate_dataplane::steer::{Steering, Way};
use ringgate_dataplane::xsk::{Frame, Pool};

use crate::micro::frames::{Frames, LENGTH};
use crate::micro::order::{self, Walk};
use crate::micro::report::Row;
use crate::micro::sample::{median, nanoseconds, on_cores};
use crate::micro::world::{Direction, Lane, Mode, Still, World, drive, family_name};
use crate::micro::{HOT, Plan};

/// Rows `steer` and `rewrite` of `mode` in both families and, with replies, both directions.
///
/// # Errors
///
/// In words: a packet was lost, or its flow was not known.
pub(crate) fn measure(mode: Mode, plan: &Plan) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for family in mode.families() {
        let mut world = World::of(mode, 1, HOT as usize * 4)?;
        let Some(lane) = world.lanes.first_mut() else {
            return Err("no worker".to_owned());
        };
        for direction in [Direction::ToBackend, Direction::ToClient] {
            if direction == Direction::ToBackend || mode.has_replies() {
                rows.extend(one(lane, mode, *family, direction, plan)?);
            }
        }
    }
    Ok(rows)
}

fn one(
    lane: &mut Lane,
    mode: Mode,
    family: Family,
    direction: Direction,
    plan: &Plan,
) -> Result<[Row; 2], String> {
    let frames = Frames::new(mode, family, direction)?;
    let flows = order::uniform(0, HOT, 1);
    let all = flows.len() as u64;
    // The first packets store the flow and change its state; all others go on.
    let driven = drive(
        &mut lane.worker,
        &frames,
        direction,
        &mut Walk::new(&flows),
        all,
    );
    if driven.packets != driven.forwarded {
        return Err(format!("{driven:?}: packets were lost"));
    }
    let parts = lane.worker.parts();
    let (snapshot, tables) = (&parts.snapshot, &parts.tables);
    let samples = on_cores(&mut [()], |(), _| {
        let half_open = Arc::clone(&tables.half_open);
        let steering = Steering {
            snapshot,
            table: &tables.flows,
            newcomers: &Newcomers::new(half_open, u32::MAX, 1, Still.now()),
            now: Still.now().seconds(),
            ingress: direction.port_index(),
        };
        let samples = (0..=plan.samples).map(|_| sample(&steering, &frames, &flows, plan.packets));
        // The first one warms up.
        samples.skip(1).collect::<Result<Vec<_>, _>>()
    })?;
    let (steer, rewrite) = samples
        .into_iter()
        .next()
        .ok_or("no thread")??
        .into_iter()
        .unzip();
    let row = |stage, ns| Row {
        stage,
        mode: mode.name(),
        family: family_name(family),
        direction: direction.name(),
        flows: HOT,
        order: "uniform",
        threads: 1,
        ns: median(ns),
        ..Row::default()
    };
    Ok([row("steer", steer), row("rewrite", rewrite)])
}

/// A frame, and what is known of it before it is steered.
type Parsed = (Frame, Packet, FlowHash);

/// Nanoseconds a packet of each step.
fn sample(
    steering: &Steering<'_>,
    frames: &Frames,
    flows: &[u32],
    packets: u64,
) -> Result<(f64, f64), String> {
    let rounds = (packets / flows.len() as u64).max(1);
    let mut time = [0.0; 2];
    let mut pool = Pool::anonymous(u32::try_from(flows.len()).map_err(|e| e.to_string())?);
    for _ in 0..rounds {
        // Anew each time: a packet that is rewritten again and again has no TTL left.
        let parsed: Result<Vec<Parsed>, String> = flows
            .iter()
            .map(|flow| {
                let mut bytes = [0; LENGTH];
                frames.write(&mut bytes, *flow);
                let mut frame = pool.take().ok_or("the pool is empty")?;
                frame.fill_from(&bytes);
                let packet = parse(frame.bytes(), false).map_err(|reason| format!("{reason:?}"))?;
                let table = steering.table;
                let hash = table.locate(table.hash(&packet.key));
                Ok((frame, packet, table.prefetch_slot(hash)))
            })
            .collect();
        let mut parsed = parsed?;
        let mut ways: Vec<Way<'_>> = Vec::with_capacity(parsed.len());
        time[0] += nanoseconds(parsed.len() as u64, || {
            let found = parsed
                .iter()
                .filter_map(|(_, packet, hash)| steering.go_on(black_box(packet), *hash));
            ways.extend(found);
        });
        if ways.len() != parsed.len() {
            return Err(format!("{} of {} flows go on", ways.len(), parsed.len()));
        }
        let mut refused = 0;
        time[1] += nanoseconds(parsed.len() as u64, || {
            for (way, (frame, packet, _)) in ways.iter().zip(&mut parsed) {
                refused += u32::from(way.rewrite(steering, black_box(frame), packet).is_err());
            }
        });
        if refused > 0 {
            return Err(format!("{refused} packets were not rewritten"));
        }
        parsed.into_iter().for_each(|(frame, ..)| pool.give(frame));
    }
    Ok((time[0] / rounds as f64, time[1] / rounds as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_steps_are_measured_in_both_directions() {
        let rows = measure(Mode::NatTcp, &Plan::smallest()).unwrap();
        let kinds: Vec<_> = rows.iter().map(|row| (row.stage, row.direction)).collect();
        let [to, from] = ["to-backend", "to-client"];
        let expected = [
            ("steer", to),
            ("rewrite", to),
            ("steer", from),
            ("rewrite", from),
        ];
        assert_eq!(kinds, expected);
        assert!(rows.iter().all(|row| row.ns > 0.0));
    }
}
