//! Going over the table as a whole: removing what has ended, a share at a time, and showing what is
//! there.

use std::ops::Range;

use crate::expiry::Seconds;
use crate::key::FlowKey;
use crate::lanes::lanes_in;
use crate::region::SLOTS;
use crate::table::{FlowTable, Found, found};
use crate::whose::Ended;

/// Where a sweep goes on: a range of buckets and the next one to look at.
#[derive(Debug, Clone)]
pub struct Cursor {
    pub(crate) from: u32,
    pub(crate) to: u32,
    next: u32,
}

impl FlowTable {
    /// The share of the table's upkeep of one of `shares` equals, from 0.
    #[must_use]
    pub fn share(&self, index: usize, shares: usize) -> Cursor {
        let (all, shares) = (u64::from(self.buckets()), shares.max(1) as u64);
        let border = |index: u64| {
            let at = all * index.min(shares) / shares;
            u32::try_from(at).unwrap_or(u32::MAX) // it is at most `all`
        };
        let from = border(index as u64);
        Cursor {
            from,
            to: border((index as u64).saturating_add(1)),
            next: from,
        }
    }

    /// Removes ended flows from the next `budget` buckets of a share, and tells `ended` of each.
    /// Returns how many.
    pub fn sweep(
        &self,
        cursor: &mut Cursor,
        budget: usize,
        now: Seconds,
        mut ended: impl FnMut(Ended),
    ) -> usize {
        let size = cursor.to - cursor.from;
        let budget = u32::try_from(budget).map_or(size, |budget| budget.min(size));
        let mut removed = 0;
        for _ in 0..budget {
            let bucket = cursor.next;
            cursor.next += 1;
            if cursor.next == cursor.to {
                cursor.next = cursor.from;
            }
            // The flows of the bucket after this one are on their way meanwhile.
            for lane in lanes_in(u32::from(self.index(cursor.next).lanes().held())) {
                self.region.prefetch_slot(Self::place(cursor.next, lane));
            }
            for lane in lanes_in(u32::from(self.index(bucket).lanes().held())) {
                let slot = self.slot(Self::place(bucket, lane));
                let word = slot.observe();
                if word.state().is_none() || !self.has_ended(word, now) {
                    continue;
                }
                let ending = slot.ending();
                if slot.clear(word) {
                    removed += 1;
                    self.count(Some((word.state(), ending.whose)), None);
                    ended(ending);
                }
            }
        }
        removed
    }

    /// Shows every flow whose time is not up to `visit`. Flows that come, go or move meanwhile
    /// may be shown or not.
    pub fn for_each(&self, now: Seconds, visit: impl FnMut(&FlowKey, &Found)) {
        self.for_each_in(0..self.buckets(), now, visit);
    }

    /// The same for some of the table's [buckets](Self::buckets), for who cannot stay for all of
    /// them at once.
    pub fn for_each_in(
        &self,
        buckets: Range<u32>,
        now: Seconds,
        mut visit: impl FnMut(&FlowKey, &Found),
    ) {
        let end = buckets.end.min(self.buckets());
        for place in buckets.start.min(end) * SLOTS..end * SLOTS {
            if let Some((key, seen)) = self.slot(place).read_any()
                && !self.has_ended(seen.word, now)
            {
                visit(&key, &found(place, seen));
            }
        }
    }

    /// How many slots hold a flow, ended ones that were not swept yet included. Reads the whole
    /// index: about 2 bytes a slot.
    #[must_use]
    pub fn stored(&self) -> usize {
        (0..self.buckets())
            .map(|bucket| self.index(bucket).lanes().held().count_ones() as usize)
            .sum()
    }
}
