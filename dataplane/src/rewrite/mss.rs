//! The maximum segment size that a connection begins with, lowered to what fits.
//!
//! Both ends say in their SYN how much they take at once (RFC 9293 §3.7.1), so lowering it there spares a
//! connection the discovery of its path's MTU. Only what passes can be lowered: with direct return the
//! backend's SYN-ACK does not, and it is that one which says how large the segments through the balancer are.

use crate::parse::{Family, Layers, Packet};
use crate::verdict::DropReason;
use crate::wire::checksum::Delta;
use crate::wire::{ipv4, ipv6, tcp};

/// Options of one byte (RFC 9293 §3.2).
const END: u8 = 0;
const NOTHING: u8 = 1;

/// The maximum segment size option (RFC 9293 §3.2), and its length, bytes.
const MSS: u8 = 2;
const MSS_BYTES: u8 = 4;

/// What a host assumes that was told nothing (RFC 9293 §3.7.1), bytes. Nothing lower is written: segments
/// below serve nobody, and a forged MTU would make them.
const LEAST: u16 = 536;

/// The largest segment whose packet fits `mtu`, bytes, without options (RFC 6691 §2).
#[must_use]
pub fn fitting(mtu: u32, family: Family) -> u16 {
    let headers = match family {
        Family::V4 => ipv4::HEADER + tcp::HEADER,
        Family::V6 => ipv6::HEADER + tcp::HEADER,
    };
    let headers = u32::try_from(headers).unwrap_or(0);
    u16::try_from(mtu.saturating_sub(headers))
        .unwrap_or(u16::MAX)
        .max(LEAST)
}

/// Lowers what a SYN says to `most` bytes, if it says more. One that says nothing stays as it is: then the
/// other end assumes 536 or 1220 bytes.
///
/// # Errors
///
/// [`DropReason::Truncated`] when `frame` is not the one that `packet` describes.
pub fn clamp(frame: &mut [u8], packet: &Packet, most: u16) -> Result<(), DropReason> {
    let segment = Layers::cut(frame, packet)
        .ok_or(DropReason::Truncated)?
        .transport;
    let header = segment.get(..tcp::HEADER).ok_or(DropReason::Truncated)?;
    let len = tcp::Tcp::from_bytes(header).map_or(0, tcp::Tcp::header_len);
    let Some(at) = segment.get(..len).and_then(find) else {
        return Ok(());
    };
    let Some(field) = segment.get_mut(at..at + 2) else {
        return Ok(());
    };
    let old = u16::from_be_bytes([field[0], field[1]]);
    if old <= most {
        return Ok(());
    }
    field.copy_from_slice(&most.to_be_bytes());
    // One that is left to be completed is computed from the bytes as they are then.
    if !packet.partial {
        // At an odd place the two bytes belong to two words of the sum, the other way round in each.
        let swap = |value: u16| {
            if at % 2 == 0 {
                value
            } else {
                value.swap_bytes()
            }
        };
        let delta = Delta::default().replace_u16(swap(old), swap(most));
        if let Some(field) = segment.get_mut(tcp::CHECKSUM..tcp::CHECKSUM + 2) {
            let checksum = u16::from_be_bytes([field[0], field[1]]);
            field.copy_from_slice(&delta.apply(checksum).to_be_bytes());
        }
    }
    Ok(())
}

/// Where in a TCP header the value of the option stands. Bounded by the header, 40 bytes of options.
fn find(header: &[u8]) -> Option<usize> {
    let mut at = tcp::HEADER;
    loop {
        match *header.get(at)? {
            END => return None,
            NOTHING => at += 1,
            MSS if header.get(at + 1) == Some(&MSS_BYTES) => {
                return (at + 4 <= header.len()).then_some(at + 2);
            }
            _ => {
                let len = usize::from(*header.get(at + 1)?);
                if len < 2 {
                    return None;
                }
                at += len;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, SlicedPacket, TcpOptionElement as Option, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::parse::parse;

    fn syn(options: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 1, 0, 2], [10, 100, 0, 1], 64)
            .tcp(4000, 80, 7, 64_000)
            .syn()
            .options_raw(options)
            .unwrap();
        let mut frame = Vec::new();
        builder.write(&mut frame, b"x").unwrap();
        frame
    }

    /// What the header says, and whether its checksum is right.
    fn mss_of(frame: &[u8]) -> (std::option::Option<u16>, bool) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let (Some(TransportSlice::Tcp(tcp)), Some(etherparse::NetSlice::Ipv4(ip))) =
            (&sliced.transport, &sliced.net)
        else {
            panic!("{sliced:?}")
        };
        let mss = tcp.options_iterator().find_map(|option| match option {
            Ok(Option::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        });
        let header = tcp.to_header();
        let right = header
            .calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
            .unwrap();
        (mss, header.checksum == right)
    }

    fn clamped(frame: &mut [u8], most: u16) {
        let packet = parse(frame, false).unwrap();
        clamp(frame, &packet, most).unwrap();
    }

    #[test]
    fn more_becomes_what_fits_and_less_stays() {
        for (said, most, expected) in [(1460, 1400, 1400), (1400, 1460, 1400), (1400, 1400, 1400)] {
            let [high, low] = u16::to_be_bytes(said);
            // At an even place, and after one and three bytes of padding at odd ones.
            for options in [
                vec![2, 4, high, low],
                vec![1, 2, 4, high, low, 1, 1, 1],
                vec![3, 3, 7, 2, 4, high, low, 1],
                vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, high, low],
            ] {
                let mut frame = syn(&options);
                clamped(&mut frame, most);
                assert_eq!(mss_of(&frame), (Some(expected), true), "{options:?}");
            }
        }
    }

    #[test]
    fn headers_without_it_or_with_broken_options_stay_as_they_are() {
        for options in [
            &[][..],
            &[1, 1, 1, 1],
            &[0, 2, 4, 5],
            &[3, 0, 2, 4],
            &[3, 1, 2, 4],
            &[2, 3, 5, 5],
            &[1, 1, 1, 2],
            &[1, 1, 2, 4],
            &[200, 255, 2, 4],
        ] {
            let mut frame = syn(options);
            let before = frame.clone();
            clamped(&mut frame, 536);
            assert_eq!(frame, before, "{options:?}");
        }
    }

    #[test]
    fn what_fits_is_the_mtu_less_the_headers_and_never_too_little() {
        assert_eq!(fitting(1500, Family::V4), 1460);
        assert_eq!(fitting(1500, Family::V6), 1440);
        assert_eq!(fitting(300, Family::V4), LEAST);
        assert_eq!(fitting(1 << 20, Family::V4), u16::MAX);
    }

    proptest! {
        #[test]
        fn any_options_leave_the_checksum_right(
            options in prop::collection::vec(any::<u8>(), 0..10), most in 536u16..,
        ) {
            let mut options = options.repeat(4);
            options.truncate(options.len() / 4 * 4);
            let mut frame = syn(&options);
            clamped(&mut frame, most);
            prop_assert!(mss_of(&frame).1);
        }
    }
}
