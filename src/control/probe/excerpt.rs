//! A short piece of what a stranger sent, to be shown to an operator.

use std::fmt;

/// Longest excerpt, in bytes.
const LONGEST: usize = 90;

/// Up to 90 bytes of printable ASCII, whatever it was made from. It holds its bytes itself: what is kept of
/// a check's failure stays small, however much a backend says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Excerpt {
    bytes: [u8; LONGEST],
    length: u8,
}

impl Excerpt {
    /// The beginning of these bytes; what is not printable ASCII is escaped.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut excerpt = Self::default();
        for byte in bytes.iter().take(LONGEST + 1) {
            let escaped: Vec<u8> = match byte {
                b' ' => vec![b' '],
                byte => byte.escape_ascii().collect(),
            };
            if !excerpt.push(&escaped) {
                break;
            }
        }
        excerpt
    }

    /// The beginning of how this prints.
    pub(crate) fn print(value: &dyn fmt::Display) -> Self {
        Self::of(value.to_string().as_bytes())
    }

    /// Appends it whole, or ends with an ellipsis.
    fn push(&mut self, piece: &[u8]) -> bool {
        const ELLIPSIS: &[u8] = b"...";
        let at = usize::from(self.length);
        let fits = at + piece.len() <= LONGEST - ELLIPSIS.len();
        let piece = if fits { piece } else { ELLIPSIS };
        for (place, byte) in self.bytes.iter_mut().skip(at).zip(piece) {
            *place = *byte;
            self.length += 1;
        }
        fits
    }
}

impl Default for Excerpt {
    fn default() -> Self {
        Self {
            bytes: [0; LONGEST],
            length: 0,
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.get(..usize::from(self.length));
        f.write_str(std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default())
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_stranger_sends_is_short_and_printable() {
        assert_eq!(
            Excerpt::of(b"a b\r\n\x1b[0m").to_string(),
            r"a b\r\n\x1b[0m"
        );
        assert_eq!(Excerpt::of(b"").to_string(), "");
        let long = Excerpt::of(&[b'x'; 500]).to_string();
        assert_eq!(long.len(), LONGEST);
        assert!(long.ends_with("xxx..."), "{long}");
        assert!(Excerpt::of(&[0xff; 500]).to_string().len() <= LONGEST);
    }
}
