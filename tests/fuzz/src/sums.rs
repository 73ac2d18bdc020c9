//! One's-complement arithmetic, word by word as RFC 1071 describes it, and checksums of whole packets.

/// Adds up `bytes` as 16-bit words on top of `start`.
#[must_use]
pub fn add(bytes: &[u8], start: u32) -> u32 {
    let mut sum = start;
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
    }
    if let [last] = pairs.remainder() {
        sum += u32::from(*last) << 8;
    }
    sum
}

/// A sum in 16 bits.
#[must_use]
pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

/// The checksum of these bytes.
#[must_use]
pub fn checksum(bytes: &[u8], start: u32) -> u16 {
    !fold(add(bytes, start))
}

/// The sum of a pseudo header: addresses as they stand in the packet, protocol, length.
#[must_use]
pub fn pseudo(addresses: &[u8], protocol: u8, len: usize) -> u32 {
    let len = u32::try_from(len).unwrap_or(0);
    add(
        addresses,
        u32::from(protocol) + (len >> 16) + (len & 0xFFFF),
    )
}

/// Where the addresses stand in an IP packet.
#[must_use]
pub fn addresses(packet: &[u8]) -> &[u8] {
    if packet[0] >> 4 == 4 {
        &packet[12..20]
    } else {
        &packet[8..40]
    }
}

/// What the words of a TCP segment or UDP datagram and of its pseudo header add up to: 0xFFFF is right.
/// Zero and 0xFFFF are the same number.
#[must_use]
pub fn transport(packet: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    let sum = fold(add(
        segment,
        pseudo(addresses(packet), protocol, segment.len()),
    ));
    if sum == 0 { 0xFFFF } else { sum }
}

/// Makes the checksum of an IPv4 header right.
pub fn seal(packet: &mut [u8]) {
    let Some(first) = packet.first() else { return };
    let end = usize::from(first & 15) * 4;
    if first >> 4 != 4 || end < 20 || packet.len() < end {
        return;
    }
    packet[10..12].fill(0);
    let sum = checksum(&packet[..end], 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}
