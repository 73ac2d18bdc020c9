//! Looking for bytes in a stream of them, up to a bound.

use super::complaint::Complaint;
use super::excerpt::Excerpt;

/// A search under way. It keeps less than the length of what it looks for.
#[derive(Debug)]
pub(super) struct Search {
    needle: Box<[u8]>,
    /// The end of what was searched: a match may begin in it.
    tail: Vec<u8>,
    searched: u64,
    within: u64,
}

impl Search {
    /// For these bytes, in so many.
    pub(super) fn new(needle: &[u8], within: u64) -> Self {
        Self {
            needle: needle.into(),
            tail: Vec::new(),
            searched: 0,
            within,
        }
    }

    /// Whether it is decided by these bytes, which follow the last ones: found, or not within the bound.
    pub(super) fn go_on(&mut self, bytes: &[u8]) -> Option<Result<(), Complaint>> {
        let left = usize::try_from(self.within - self.searched).unwrap_or(usize::MAX);
        let bytes = bytes.get(..left).unwrap_or(bytes);
        self.searched += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        if contains(&self.tail, &self.needle) {
            return Some(Ok(()));
        }
        if self.searched == self.within {
            return Some(Err(self.complaint()));
        }
        let keep = self.tail.len().min(self.needle.len().saturating_sub(1));
        self.tail.drain(..self.tail.len() - keep);
        None
    }

    /// That it was not found.
    pub(super) fn complaint(&self) -> Complaint {
        Complaint::Body {
            expected: Excerpt::of(&self.needle),
            searched: self.searched,
        }
    }
}

/// Whether `needle` is somewhere in `bytes`.
pub(super) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || bytes.windows(needle.len()).any(|window| window == needle)
}
