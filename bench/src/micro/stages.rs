//! A flow table's four operations, one after another, whoever's table it is.
//!
//! While some flows are in the table it is asked for those and for others, and a quarter as many
//! newcomers are put in and taken out again, in another order. An operation begins with the
//! number of a flow: making its key and hashing that are part of the figure, for every contestant
//! alike.

use std::sync::Barrier;
use std::time::Duration;

use ringgate_dataplane::parse::{Family, parse};

use crate::meter;
use crate::micro::Plan;
use crate::micro::frames::{Frames, LENGTH};
use crate::micro::order::{self, BURST, Walk};
use crate::micro::report::Row;
use crate::micro::sample::{Clock, median, nanoseconds, nanoseconds_by, on_cores};
use crate::micro::table::{HashOnly, Ours};
use crate::micro::world::{Direction, Mode, family_name};

/// Flows that are in no table.
const STRANGERS: u32 = 16_000_000;

/// Fewest newcomers, so that reading the clock is not in the figure.
const FEWEST_NEWCOMERS: u32 = 512;

/// Most newcomers: more than any cache of today holds.
const MOST_NEWCOMERS: u32 = 1_000_000;

/// In how many flows one may find no room.
const REFUSED_ONE_IN: usize = 100;

/// A table of flows that threads share. Each takes flow numbers, a burst at most, and says with
/// how many it succeeded.
pub(crate) trait Contestant: Sync {
    /// Stores flows that are not there.
    fn insert(&self, flows: &[u32]) -> usize;
    /// Looks for flows.
    fn find(&self, flows: &[u32]) -> usize;
    /// Removes flows that are there.
    fn remove(&self, flows: &[u32]) -> usize;
}

/// A contestant and its name.
pub(crate) type Entrant<'a> = (&'static str, &'a dyn Contestant);

/// How many newcomers there are beside so many flows.
pub(crate) fn newcomers(flows: u32) -> u32 {
    (flows / 4).clamp(FEWEST_NEWCOMERS, MOST_NEWCOMERS)
}

/// A capacity for so many flows and newcomers.
pub(crate) fn capacity(flows: u32) -> usize {
    (flows + newcomers(flows)) as usize
}

/// Rows of the project's own table, with and without loading ahead.
///
/// # Errors
///
/// In words: flows were not found where they should be.
pub(crate) fn measure_ours(flows: u32, plan: &Plan) -> Result<Vec<Row>, String> {
    let capacity = capacity(flows);
    let (batched, single) = (Ours::new(capacity, true)?, Ours::new(capacity, false)?);
    measure(
        &[("batched", &batched), ("single", &single)],
        flows,
        1,
        plan,
    )
}

/// Rows of hashing a key, and of parsing in each family.
///
/// # Errors
///
/// In words: a frame was refused.
pub(crate) fn measure_parts(plan: &Plan) -> Result<Vec<Row>, String> {
    let hasher = HashOnly(Ours::new(1, false)?);
    let flows = order::uniform(0, 1_000, 1);
    let mut rows = vec![Row {
        stage: "hash",
        threads: 1,
        ns: sampled(plan, &mut Walk::new(&flows), |burst| hasher.hash(burst))?,
        ..Row::default()
    }];
    for family in [Family::V4, Family::V6] {
        let frames = Frames::new(Mode::Nat, family, Direction::ToBackend)?;
        let mut buffers = [[0; LENGTH]; BURST];
        for (buffer, flow) in buffers.iter_mut().zip(&flows) {
            frames.write(buffer, *flow);
        }
        let mut refused = 0;
        rows.push(Row {
            stage: "parse",
            family: family_name(family),
            threads: 1,
            ns: sampled(plan, &mut Walk::new(&flows), |_| {
                for buffer in std::hint::black_box(&buffers) {
                    let packet = std::hint::black_box(parse(buffer, false));
                    refused += u32::from(packet.is_err());
                }
            })?,
            ..Row::default()
        });
        if refused > 0 {
            return Err(format!("{refused} frames were refused"));
        }
    }
    Ok(rows)
}

/// Nanoseconds that each of a burst takes in `work`.
fn sampled(
    plan: &Plan,
    walk: &mut Walk<'_>,
    work: impl FnMut(&[u32]) + Send,
) -> Result<f64, String> {
    let figures = on_cores(&mut [(walk, work)], |(walk, work), _| {
        let samples = (0..=plan.samples).map(|_| {
            nanoseconds(plan.packets, || {
                for _ in 0..plan.packets / BURST as u64 {
                    work(walk.burst());
                }
            })
        });
        // The first one warms up.
        median(samples.skip(1).collect())
    })?;
    figures
        .first()
        .copied()
        .ok_or_else(|| "no thread".to_owned())
}

/// Rows of each contestant: `lookup-hit`, `lookup-miss`, `insert`, `remove`. They take turns, so that
/// what disturbs one disturbs all.
///
/// # Errors
///
/// In words: flows were not found where they should be, or the other way round.
pub(crate) fn measure(
    entrants: &[Entrant<'_>],
    flows: u32,
    threads: usize,
    plan: &Plan,
) -> Result<Vec<Row>, String> {
    let stored = order::uniform(0, flows, 1);
    let strangers = order::uniform(STRANGERS, flows, 2);
    let new = order::uniform(flows, newcomers(flows), 3);
    let all = order::uniform(0, flows, 4);
    let first = all.get(..flows as usize).unwrap_or_default();
    for (name, contestant) in entrants {
        let bursts = first.chunks(BURST);
        let held: usize = bursts.map(|burst| contestant.insert(burst)).sum();
        if held + held / REFUSED_ONE_IN < flows as usize {
            return Err(format!("{name}: {held} of {flows} flows were stored"));
        }
    }
    let new = new.get(..newcomers(flows) as usize).unwrap_or_default();
    let mut lanes: Vec<Lane<'_>> = (0..threads)
        .map(|index| {
            let mine = order::share(new, index, threads);
            Lane {
                stored: Walk::new(order::share(&stored, index, threads)),
                strangers: Walk::new(order::share(&strangers, index, threads)),
                coming: mine.to_vec(),
                going: shuffled(mine),
                // A thread that waits for another at a lock uses no CPU time.
                clock: if threads > 1 {
                    meter::elapsed
                } else {
                    meter::thread_cpu
                },
            }
        })
        .collect();
    let taken = on_cores(&mut lanes, |lane, barrier| {
        lane.run(entrants, plan, barrier)
    })?;
    let taken: Vec<Vec<Sample>> = taken.into_iter().collect::<Result<_, _>>()?;
    let rows = entrants
        .iter()
        .enumerate()
        .flat_map(|(entrant, (name, _))| {
            let samples: Vec<&Sample> = taken
                .iter()
                .flatten()
                .filter(|sample| sample.entrant == entrant)
                .collect();
            STAGES.into_iter().enumerate().map(move |(stage, title)| {
                let figures = samples.iter().filter_map(|sample| sample.ns.get(stage));
                Row {
                    stage: title,
                    mode: name,
                    family: "ipv4",
                    flows,
                    order: "uniform",
                    threads,
                    ns: median(figures.copied().collect()),
                    ..Row::default()
                }
            })
        });
    Ok(rows.collect())
}

/// The operations, as they are called in reports, in the order of [`Sample::ns`].
const STAGES: [&str; 4] = ["lookup-hit", "lookup-miss", "insert", "remove"];

/// What one turn of one contestant took.
struct Sample {
    entrant: usize,
    /// Nanoseconds of each operation.
    ns: [f64; 4],
}

/// The same flows in another order.
fn shuffled(flows: &[u32]) -> Vec<u32> {
    let count = u32::try_from(flows.len()).unwrap_or(u32::MAX);
    let order = order::uniform(0, count, 5);
    order
        .iter()
        .take(flows.len())
        .filter_map(|place| flows.get(*place as usize).copied())
        .collect()
}

/// What one thread does.
struct Lane<'a> {
    stored: Walk<'a>,
    strangers: Walk<'a>,
    coming: Vec<u32>,
    going: Vec<u32>,
    clock: Clock,
}

impl Lane<'_> {
    /// All contestants in turn, again and again.
    fn run(
        &mut self,
        entrants: &[Entrant<'_>],
        plan: &Plan,
        barrier: &Barrier,
    ) -> Result<Vec<Sample>, String> {
        let mut seen: Vec<Seen> = entrants.iter().map(|_| Seen::default()).collect();
        let mut samples = Vec::new();
        for _ in 0..plan.samples {
            for (entrant, ((_, contestant), seen)) in entrants.iter().zip(&mut seen).enumerate() {
                let ns = self.turn(*contestant, plan.packets, barrier, seen);
                samples.push(Sample { entrant, ns });
            }
        }
        for ((name, _), seen) in entrants.iter().zip(&seen) {
            seen.judge().map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(samples)
    }

    /// One turn of one contestant.
    fn turn(
        &mut self,
        contestant: &dyn Contestant,
        operations: u64,
        barrier: &Barrier,
        seen: &mut Seen,
    ) -> [f64; 4] {
        let bursts = operations / BURST as u64;
        let clock = self.clock;
        // Another's turn has just filled the caches with what is another's.
        for _ in 0..bursts {
            contestant.find(self.stored.burst());
        }
        barrier.wait();
        let hit = nanoseconds_by(clock, operations, || {
            for _ in 0..bursts {
                let burst = self.stored.burst();
                seen.missing += burst.len() - contestant.find(burst);
                seen.asked += burst.len();
            }
        });
        barrier.wait();
        let miss = nanoseconds_by(clock, operations, || {
            for _ in 0..bursts {
                seen.phantoms += contestant.find(self.strangers.burst());
            }
        });
        barrier.wait();
        let [insert, remove] = self.churn(contestant, operations, seen);
        [hit, miss, insert, remove]
    }

    /// Newcomers come and go, at least `operations` each. Nanoseconds of an insertion and of a
    /// removal.
    fn churn(&self, contestant: &dyn Contestant, operations: u64, seen: &mut Seen) -> [f64; 2] {
        let mut time = [Duration::ZERO; 2];
        let mut count = 0;
        while count < operations {
            let start = (self.clock)();
            for burst in self.coming.chunks(BURST) {
                seen.inserted += contestant.insert(burst);
            }
            let middle = (self.clock)();
            for burst in self.going.chunks(BURST) {
                seen.removed += contestant.remove(burst);
            }
            let end = (self.clock)();
            time = [time[0] + (middle - start), time[1] + (end - middle)];
            count += self.coming.len() as u64;
            seen.came += self.coming.len();
        }
        time.map(|time| time.as_secs_f64() * 1e9 / count as f64)
    }
}

/// What became of the operations.
#[derive(Debug, Default)]
struct Seen {
    asked: usize,
    missing: usize,
    phantoms: usize,
    came: usize,
    inserted: usize,
    removed: usize,
}

impl Seen {
    /// Whether they did what they were measured for.
    fn judge(&self) -> Result<(), String> {
        let few = |count: usize, of: usize| count <= of / REFUSED_ONE_IN;
        if few(self.missing, self.asked)
            && self.phantoms == 0
            && few(self.came - self.inserted, self.came)
            && self.removed == self.inserted
        {
            Ok(())
        } else {
            Err(format!("it did not do what it was measured for: {self:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_stages_each_way() {
        let rows = measure_ours(2_000, &Plan::smallest()).unwrap();
        let stages: Vec<_> = rows.iter().map(|row| (row.stage, row.mode)).collect();
        let each = ["lookup-hit", "lookup-miss", "insert", "remove"];
        let wanted: Vec<_> = ["batched", "single"]
            .into_iter()
            .flat_map(|mode| each.map(|stage| (stage, mode)))
            .collect();
        assert_eq!(stages, wanted);
    }

    #[test]
    fn parts_are_measured() {
        let rows = measure_parts(&Plan::smallest()).unwrap();
        let parts: Vec<_> = rows.iter().map(|row| (row.stage, row.family)).collect();
        assert_eq!(parts, [("hash", ""), ("parse", "ipv4"), ("parse", "ipv6")]);
    }

    /// A table that says yes to everything.
    struct Liar;

    impl Contestant for Liar {
        fn insert(&self, flows: &[u32]) -> usize {
            flows.len()
        }
        fn find(&self, flows: &[u32]) -> usize {
            flows.len()
        }
        fn remove(&self, flows: &[u32]) -> usize {
            flows.len()
        }
    }

    #[test]
    fn a_table_that_finds_what_is_not_there_is_not_measured() {
        let error = measure(&[("liar", &Liar)], 1_000, 1, &Plan::smallest()).unwrap_err();
        assert!(error.contains("did not do"), "{error}");
    }
}
