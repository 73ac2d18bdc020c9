//! Data: how it is written, and a pattern in which every part tells its place.

/// The byte at `offset` of the pattern: the numbers 0, 2, 4… in two bytes each, big-endian. So a
/// part of it, as in a fragment, tells where it was.
#[must_use]
pub fn pattern_byte(offset: usize) -> u8 {
    let [.., high, low] = (offset & !1).to_be_bytes();
    if offset.is_multiple_of(2) { high } else { low }
}

/// `len` bytes of the pattern from `offset` on.
#[must_use]
pub fn pattern(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(pattern_byte).collect()
}

/// Where in the pattern these bytes are, if they are of it and begin at an even offset.
#[must_use]
pub fn offset_in_pattern(bytes: &[u8]) -> Option<usize> {
    let offset = match bytes {
        [] => return None,
        [0] => 0,
        [_] => return None,
        [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
    };
    // Two bytes could be any number.
    let is_long = offset == 0 || bytes.len() >= 4;
    let is_pattern = is_long && offset.is_multiple_of(2) && pattern(offset, bytes.len()) == bytes;
    is_pattern.then_some(offset)
}

/// What follows `payload` where more of it was cut off: the pattern goes on.
#[must_use]
pub fn continued(payload: &[u8], len: usize) -> Vec<u8> {
    let start = offset_in_pattern(payload).unwrap_or(0);
    pattern(start + payload.len(), len)
}

/// Bytes as the notation writes them.
#[must_use]
pub fn written(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| (b' '..=b'~').contains(byte) && !b"\"\\".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return format!("\"{}\"", String::from_utf8_lossy(bytes));
    }
    match offset_in_pattern(bytes) {
        Some(0) => return format!("{} bytes", bytes.len()),
        Some(offset) => return format!("{} bytes from {offset}", bytes.len()),
        None => {}
    }
    format!("hex \"{}\"", hex(bytes))
}

/// Hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal digits, blanks allowed.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok())
        .map(|byte| byte.filter(|_| digits.len().is_multiple_of(2)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_pattern_tells_its_place() {
        assert_eq!(pattern(0, 5), [0, 0, 0, 2, 0]);
        for offset in [0, 2, 254, 256, 1480, 65_000] {
            for len in [4, 5, 500] {
                assert_eq!(offset_in_pattern(&pattern(offset, len)), Some(offset));
            }
        }
        assert_eq!(offset_in_pattern(b"text"), None);
    }

    #[test]
    fn every_form_is_read_as_it_was_written() {
        assert_eq!(written(b"a / b"), "\"a / b\"");
        assert_eq!(written(&pattern(0, 100)), "100 bytes");
        assert_eq!(written(&pattern(1480, 20)), "20 bytes from 1480");
        assert_eq!(written(&[0xFF, 0x22]), "hex \"ff22\"");
        assert_eq!(from_hex("ff 22"), Some(vec![0xFF, 0x22]));
        assert_eq!((from_hex("f"), from_hex("zz")), (None, None));
    }
}
