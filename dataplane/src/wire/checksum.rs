//! The Internet checksum: RFC 1071 sums, RFC 1624 updates.
//!
//! Sums are kept unfolded in 64 bits. A one's-complement sum of 16-bit words equals, modulo
//! 0xFFFF, the sum of the same bytes taken as 32-bit or 64-bit words, so addresses are added
//! whole. A sum may be any 64-bit number: sums are put together by [`add`].

/// One's-complement sum of `bytes` taken as big-endian words, unfolded; an odd last byte is
/// padded with zero (RFC 1071 §4.1). Exact for up to 2^32 words.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<4>();
    let mut total = 0u64;
    for word in words {
        total = total.wrapping_add(u64::from(u32::from_be_bytes(*word)));
    }
    let mut last = [0; 4];
    for (byte, to) in tail.iter().zip(&mut last) {
        *to = *byte;
    }
    total.wrapping_add(u64::from(u32::from_be_bytes(last)))
}

/// Folds a sum into 16 bits with end-around carry. Zero only for an all-zero input.
#[inline]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    // Both halves of a + swapped a are the sum of a's halves, and the carry of the lower goes
    // into the upper, where it belongs.
    let [a, b, c, d, ..] = sum.wrapping_add(sum.rotate_left(32)).to_be_bytes();
    let half = u32::from_be_bytes([a, b, c, d]);
    let [a, b, ..] = half.wrapping_add(half.rotate_left(16)).to_be_bytes();
    u16::from_be_bytes([a, b])
}

/// The sum of two unfolded sums, with end-around carry.
#[inline]
#[must_use]
pub const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u64)
}

/// Whether an unfolded sum is zero in one's complement: whether it [`fold`]s into 0 or 0xFFFF.
///
/// 2^16 is 1 modulo 0xFFFF, so folding is taking the remainder (RFC 1071 §2), and whether a
/// number is divisible by a constant is one multiplication and one comparison (Granlund and
/// Montgomery, "Division by Invariant Integers using Multiplication", PLDI 1994, §9).
#[inline]
#[must_use]
pub const fn is_zero(sum: u64) -> bool {
    // Written out: `%` becomes the longer division as soon as its result meets others.
    const INVERSE: u64 = 0xFFFE_FFFE_FFFE_FFFF;
    const { assert!(INVERSE.wrapping_mul(0xFFFF) == 1) }
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xFFFF
}

/// Unfolded sum of the pseudo header of TCP and UDP (RFC 9293 §3.1, RFC 8200 §8.1).
///
/// Addresses are pairs of words in host order as [`Endpoint`](ringgate_conntrack::Endpoint)
/// keeps them. IPv4 addresses are IPv4-mapped: the two `::ffff` prefixes add 2 × 0xFFFF, which
/// is zero in one's complement, so one function serves both families.
#[inline]
#[must_use]
pub fn pseudo_header(source: [u64; 2], destination: [u64; 2], protocol: u8, len: usize) -> u64 {
    let addresses = add(
        add(source[0], source[1]),
        add(destination[0], destination[1]),
    );
    add(addresses, u64::from(protocol).wrapping_add(len as u64))
}

/// What a change of header fields adds to a checksum: Σ(~m + m') of RFC 1624 equation 3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// A 16-bit word changes from `old` to `new`.
    #[inline]
    #[must_use]
    pub const fn replace_u16(self, old: u16, new: u16) -> Self {
        Self(add(self.0, (!old) as u64 + new as u64))
    }

    /// A 128-bit address, in two host-order words, changes from `old` to `new`. IPv4-mapped
    /// addresses count as the IPv4 addresses that they are: their prefixes add nothing.
    #[inline]
    #[must_use]
    pub const fn replace_address(self, old: [u64; 2], new: [u64; 2]) -> Self {
        let (high, low) = (add(!old[0], new[0]), add(!old[1], new[1]));
        Self(add(self.0, add(high, low)))
    }

    /// One is taken from the high byte of a 16-bit word that has it, as from a TTL of IPv4:
    /// ~m + (m - 0x0100), whatever m is.
    #[inline]
    #[must_use]
    pub const fn decrement_high_byte(self) -> Self {
        Self(add(self.0, !0x0100_u16 as u64))
    }

    /// The checksum field, in host order, after the change. See [`Adjustment::apply`].
    #[inline]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        u16::from_be_bytes(self.folded().apply(checksum.to_be_bytes()))
    }

    /// The same change, to be made to many checksums.
    #[inline]
    #[must_use]
    pub const fn folded(self) -> Adjustment {
        Adjustment(fold(self.0).to_be())
    }
}

/// A [`Delta`] in 16 bits, in the byte order of the checksum field: a one's-complement sum is
/// the same in any byte order (RFC 1071 §2 B).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adjustment(u16);

impl Adjustment {
    /// The checksum field after the change: HC' = HC - ~m - m' (RFC 1624 §4, equation 4).
    ///
    /// Subtracting with end-around borrow gives bit for bit what ~(~HC + ~m + m') gives, adding
    /// with end-around carry (equation 3): a right +0 never becomes -0, and a wrong checksum
    /// stays exactly as wrong.
    #[inline]
    #[must_use]
    pub const fn apply(self, field: [u8; 2]) -> [u8; 2] {
        let (difference, borrow) = u16::from_ne_bytes(field).overflowing_sub(self.0);
        difference.wrapping_sub(borrow as u16).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, the RFC's own C, transcribed.
    fn rfc1071(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        let mut rest = bytes;
        while let [high, low, tail @ ..] = rest {
            sum += u32::from(u16::from_be_bytes([*high, *low]));
            if sum >> 16 != 0 {
                sum = (sum & 0xFFFF) + (sum >> 16);
            }
            rest = tail;
        }
        if let [last] = rest {
            sum += u32::from(*last) << 8;
        }
        while sum >> 16 != 0 {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(fold(sum(&bytes)), 0xDDF2);
    }

    #[test]
    fn zero_has_two_forms() {
        for sum in [0, 0xFFFF, 0xFFFF_0000, u64::MAX] {
            assert!(is_zero(sum), "{sum:#x}");
        }
        for sum in [1, 0xFFFE, 0x1_0000, u64::MAX - 1] {
            assert!(!is_zero(sum), "{sum:#x}");
        }
        for sum in [0xFFFF, 0xFFFF_0000, u64::MAX] {
            assert_eq!(fold(sum), 0xFFFF);
        }
        assert_eq!((fold(0), fold(1), fold(u64::MAX - 1)), (0, 1, 0xFFFE));
        assert_eq!(add(u64::MAX, 1), 1);
        assert_eq!(add(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn the_corner_case_of_rfc_1624() {
        // §4: HC = 0xDD2F, m = 0x5555, m' = 0x3285 gives 0x0000 by equation 3, not 0xFFFF.
        assert_eq!(
            Delta::default().replace_u16(0x5555, 0x3285).apply(0xDD2F),
            0x0000
        );
    }

    proptest! {
        #[test]
        fn an_update_is_equation_3_of_rfc_1624(checksum: u16, old: u16, new: u16) {
            for (checksum, old, new) in [(checksum, old, new), (0, old, new), (0xFFFF, old, new)] {
                let expected = !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new));
                let delta = Delta::default().replace_u16(old, new);
                prop_assert_eq!(delta.apply(checksum), expected);
            }
        }

        #[test]
        fn sums_agree_with_the_rfc(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(!fold(sum(&bytes)), rfc1071(&bytes));
        }

        #[test]
        fn sums_of_any_size_are_put_together_and_judged_as_their_folds(a: u64, b: u64) {
            let folded = |sum: u128| if sum == 0 { 0 } else { (sum - 1) % 0xFFFF + 1 };
            prop_assert_eq!(u128::from(fold(a)), folded(a.into()));
            prop_assert_eq!(u128::from(fold(add(a, b))), folded(u128::from(a) + u128::from(b)));
            prop_assert_eq!(is_zero(a), a % 0xFFFF == 0);
            let multiple = a - a % 0xFFFF;
            prop_assert!(is_zero(multiple));
        }

        #[test]
        fn the_pseudo_header_is_the_sum_of_its_bytes(
            source: [u8; 16], destination: [u8; 16], protocol: u8, len: u16,
        ) {
            let words = |bytes: [u8; 16]| {
                let number = u128::from_be_bytes(bytes);
                [u64::try_from(number >> 64).unwrap(), u64::try_from(number & u128::from(u64::MAX)).unwrap()]
            };
            let mut bytes = [source, destination].concat();
            bytes.extend([0, protocol]);
            bytes.extend(len.to_be_bytes());
            let sum = pseudo_header(words(source), words(destination), protocol, len.into());
            prop_assert_eq!(!fold(sum), rfc1071(&bytes));
        }

        #[test]
        fn an_update_equals_a_full_computation(
            mut bytes in prop::collection::vec(any::<u8>(), 40..80),
            old: [u64; 2], new: [u64; 2], old_port: u16, new_port: u16,
        ) {
            let put = |bytes: &mut [u8], address: [u64; 2], port: u16| {
                bytes[..8].copy_from_slice(&address[0].to_be_bytes());
                bytes[8..16].copy_from_slice(&address[1].to_be_bytes());
                bytes[16..18].copy_from_slice(&port.to_be_bytes());
            };
            bytes[20] |= 1; // a datagram is never all zero
            put(&mut bytes, old, old_port);
            let before = rfc1071(&bytes);
            put(&mut bytes, new, new_port);
            let delta = Delta::default().replace_address(old, new).replace_u16(old_port, new_port);
            prop_assert_eq!(delta.apply(before), rfc1071(&bytes));
        }
    }
}
