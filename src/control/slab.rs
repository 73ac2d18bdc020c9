//! A fixed slab with generations: what both drivers keep their operations in.
//!
//! Promises:
//! - The capacity is taken at construction and never changes. An entry does not move in memory from
//!   [`Slab::insert`] until [`Slab::take`]: the ring driver shows addresses inside entries to the kernel.
//! - A [`Key`] names one insertion, for ever: after `take` the slot's generation moves on, so that an
//!   old key finds nothing, even when the slot holds somebody else. (A slot's generation wraps after
//!   2^32 reuses of that slot.)

/// Most entries that a slab may have: an index must fit the 24 bits that [`Key::pack`] gives it.
pub(crate) const MAX_CAPACITY: usize = 1 << 24;

/// The name of one insertion into a slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The slot; always below [`MAX_CAPACITY`].
    index: u32,
    /// How many entries the slot had held before this one, modulo 2^32.
    generation: u32,
}

impl Key {
    /// The key and a role as one 64-bit word: bits 0..24 index, 24..32 role, 32..64 generation.
    pub(crate) fn pack(self, role: u8) -> u64 {
        u64::from(self.index) | u64::from(role) << 24 | u64::from(self.generation) << 32
    }

    /// Undoes [`Key::pack`].
    pub(crate) fn unpack(word: u64) -> (Self, u8) {
        let [i0, i1, i2, role, g0, g1, g2, g3] = word.to_le_bytes();
        let key = Self {
            index: u32::from_le_bytes([i0, i1, i2, 0]),
            generation: u32::from_le_bytes([g0, g1, g2, g3]),
        };
        (key, role)
    }
}

/// A slab of at most its capacity of `E`s.
#[derive(Debug)]
pub(crate) struct Slab<E> {
    slots: Box<[Slot<E>]>,
    /// Indices of the empty slots; the last one is used next.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<E> {
    generation: u32,
    entry: Option<E>,
}

impl<E> Slab<E> {
    /// An empty slab. A capacity above [`MAX_CAPACITY`] is cut down to it.
    pub(crate) fn new(capacity: usize) -> Self {
        let slots: Box<[Slot<E>]> = (0..capacity.min(MAX_CAPACITY))
            .map(|_| Slot {
                generation: 0,
                entry: None,
            })
            .collect();
        let free = (0u32..).take(slots.len()).collect();
        Self { slots, free }
    }

    /// How many entries it holds.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts an entry in; gives it back when there is no slot left.
    pub(crate) fn insert(&mut self, entry: E) -> Result<Key, E> {
        let Some(index) = self.free.pop() else {
            return Err(entry);
        };
        let slot = &mut self.slots[index as usize];
        slot.entry = Some(entry);
        Ok(Key {
            index,
            generation: slot.generation,
        })
    }

    /// The entry of this key, if it is still there.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut E> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.entry.as_mut()
    }

    /// Takes the entry of this key out; the key is spent.
    pub(crate) fn take(&mut self, key: Key) -> Option<E> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.index);
        Some(entry)
    }

    /// The keys of everything in it.
    pub(crate) fn keys(&self) -> Vec<Key> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.entry.is_some())
            .map(|(index, slot)| Key {
                index,
                generation: slot.generation,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_key_never_finds_the_slots_next_entry() {
        let mut slab = Slab::new(1);
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.insert('b'), Err('b'), "full");
        assert_eq!(slab.take(first), Some('a'));
        let second = slab.insert('b').unwrap();
        assert_eq!(slab.take(first), None);
        assert!(slab.get_mut(first).is_none());
        assert_eq!(slab.keys(), [second]);
        assert_eq!(slab.take(second), Some('b'));
        assert_eq!(slab.len(), 0);
    }

    #[test]
    fn a_key_survives_packing_at_the_extremes() {
        for index in [0, 1, (1 << 24) - 1] {
            for generation in [0, 1, u32::MAX] {
                for role in [0, 7, 255] {
                    let key = Key { index, generation };
                    assert_eq!(Key::unpack(key.pack(role)), (key, role));
                }
            }
        }
    }

    #[test]
    fn a_key_from_a_larger_slab_finds_nothing() {
        let mut slab: Slab<u8> = Slab::new(2);
        assert!(
            slab.take(Key {
                index: 9,
                generation: 0
            })
            .is_none()
        );
        assert!(
            slab.get_mut(Key {
                index: 9,
                generation: 0
            })
            .is_none()
        );
    }
}
