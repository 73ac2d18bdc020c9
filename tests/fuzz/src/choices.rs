//! The fuzzer's bytes as a row of choices. Each takes as few bytes as it needs, in order, so that a
//! change to one of them changes one thing. Where they end, every choice is the first.

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// From these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Any 16 bits.
    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// Any 32 bits.
    pub fn long(&mut self) -> u32 {
        u32::from(self.word()) << 16 | u32::from(self.word())
    }

    /// One of two.
    pub fn flip(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// A number below `bound`, which is not 0 and at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// At most so many bytes as they are.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many bytes as the next one says, or `most`.
    pub fn some(&mut self, most: usize) -> &'a [u8] {
        let len = usize::from(self.byte());
        self.take(len.min(most))
    }

    /// This many bytes; what is missing is zero.
    pub fn octets<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        let taken = self.take(N);
        octets[..taken.len()].copy_from_slice(taken);
        octets
    }
}
