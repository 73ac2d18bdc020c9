//! Which tables are to be dumped, and how far the running dump is.
//!
//! The kernel runs one dump per socket at a time, and tells through flags when the table changed under
//! it (NLM_F_DUMP_INTR): that dump is done again. The bookkeeping is here, without any I/O.

use std::collections::VecDeque;

use super::state::Table;

/// How often one table is dumped again because it changed meanwhile, before the dump is taken as it is
/// (nothing is swept then, so that nothing that exists is forgotten). A table that changes under eight
/// dumps in a row changes all the time, and its changes arrive as notifications anyhow.
const REDOS: u32 = 8;

/// The dumps to come and the one that runs.
#[derive(Debug, Default)]
pub(super) struct Dumps {
    queue: VecDeque<Table>,
    running: Option<Running>,
    /// A table to be dumped again at once, and how often that has been so.
    redo: Option<(Table, u32)>,
    sequence: u32,
}

#[derive(Debug)]
struct Running {
    table: Table,
    sequence: u32,
    interrupted: bool,
    redone: u32,
}

/// What the end of a dump means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was consistent: what it did not show is gone.
    Complete(Table),
    /// The table changed meanwhile; it has been queued again.
    Redo(Table),
    /// It changed too often, or the kernel broke it off; what it showed counts.
    Partial(Table),
}

impl Dumps {
    /// Whether nothing runs and nothing waits.
    pub(super) fn idle(&self) -> bool {
        self.running.is_none() && self.redo.is_none() && self.queue.is_empty()
    }

    /// Queues a dump, unless it waits already.
    pub(super) fn want(&mut self, table: Table) {
        if !self.queue.contains(&table) {
            self.queue.push_back(table);
        }
    }

    /// The next dump to ask for, if none is running: the table and the sequence number to use.
    pub(super) fn next(&mut self) -> Option<(Table, u32)> {
        if self.running.is_some() {
            return None;
        }
        let (table, redone) = match self.redo.take() {
            Some(again) => again,
            None => (self.queue.pop_front()?, 0),
        };
        let sequence = self.fresh_sequence();
        self.running = Some(Running {
            table,
            sequence,
            interrupted: false,
            redone,
        });
        Some((table, sequence))
    }

    /// The running dump could not be asked for: it waits again.
    pub(super) fn postpone(&mut self) {
        if let Some(running) = self.running.take() {
            self.queue.push_front(running.table);
        }
    }

    /// A sequence number for a request that is no dump.
    pub(super) fn fresh_sequence(&mut self) -> u32 {
        // 0 is what notifications carry that nobody asked for.
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        self.sequence
    }

    /// A part of the dump with this sequence number has come; `interrupted` if it bears NLM_F_DUMP_INTR.
    pub(super) fn part(&mut self, sequence: u32, interrupted: bool) {
        if let Some(running) = &mut self.running
            && running.sequence == sequence
        {
            running.interrupted |= interrupted;
        }
    }

    /// The dump with this sequence number has ended, by DONE or by an error. `None` when it is not the
    /// one that runs. After [`End::Redo`] it has begun anew and is to be asked for with [`Dumps::next`].
    pub(super) fn end(&mut self, sequence: u32, failed: bool) -> Option<End> {
        let running = self
            .running
            .take_if(|running| running.sequence == sequence)?;
        let table = running.table;
        if failed {
            return Some(End::Partial(table));
        }
        if !running.interrupted {
            return Some(End::Complete(table));
        }
        if running.redone >= REDOS {
            return Some(End::Partial(table));
        }
        self.redo = Some((table, running.redone + 1));
        Some(End::Redo(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dump_runs_at_a_time_and_each_waits_once() {
        let mut dumps = Dumps::default();
        dumps.want(Table::Links);
        dumps.want(Table::Routes4);
        dumps.want(Table::Links);
        let (table, first) = dumps.next().unwrap();
        assert_eq!(table, Table::Links);
        assert_eq!(dumps.next(), None, "one is running");
        assert_eq!(dumps.end(first + 7, false), None, "not this one");
        assert_eq!(dumps.end(first, false), Some(End::Complete(Table::Links)));
        assert_eq!(dumps.end(first, false), None, "only once");
        let (table, second) = dumps.next().unwrap();
        assert_eq!(table, Table::Routes4);
        assert!(!dumps.idle());
        dumps.postpone();
        let (table, third) = dumps.next().unwrap();
        assert_eq!(table, Table::Routes4);
        assert_ne!(second, third);
        assert_eq!(dumps.end(third, true), Some(End::Partial(Table::Routes4)));
        assert!(dumps.idle());
    }

    #[test]
    fn an_interrupted_dump_is_done_again_but_not_for_ever() {
        let mut dumps = Dumps::default();
        dumps.want(Table::Neighbours);
        for _ in 0..REDOS {
            let (_, sequence) = dumps.next().unwrap();
            dumps.part(sequence, true);
            dumps.part(sequence, false);
            assert_eq!(
                dumps.end(sequence, false),
                Some(End::Redo(Table::Neighbours))
            );
            assert!(!dumps.idle());
        }
        let (_, sequence) = dumps.next().unwrap();
        dumps.part(sequence, true);
        assert_eq!(
            dumps.end(sequence, false),
            Some(End::Partial(Table::Neighbours))
        );
        assert!(dumps.idle());
    }

    #[test]
    fn sequence_numbers_are_never_zero() {
        let mut dumps = Dumps {
            sequence: u32::MAX - 1,
            ..Dumps::default()
        };
        assert_eq!(dumps.fresh_sequence(), u32::MAX);
        assert_eq!(dumps.fresh_sequence(), 1);
    }
}
