//! A capture as it is written: pcapng (draft-ietf-opsawg-pcapng), one section.
//!
//! Each interface of the balancer is two in the section, "NAME in" and "NAME out": packets as they came,
//! and as they left. What became of a packet is its comment. So one that was forwarded is there twice,
//! one that was dropped once. Times are those of the batch, in nanoseconds. At the end, the statistics of the
//! first interface say how many packets were lost to the capture.

use std::borrow::Cow;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use ringgate_dataplane::route::PortIndex;
use ringgate_dataplane::tap::{Bytes, Record};

/// The media type of a capture.
pub(crate) const KIND: &str = "application/x-pcapng";

/// Nanoseconds: ten to the power of minus this.
const RESOLUTION: u8 = 9;

/// Flags of a packet: it came in, it went out.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// What has been written and not yet taken.
pub(crate) struct Capture {
    writer: PcapNgWriter<Vec<u8>>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

impl Capture {
    /// Begins a section with these interfaces, in port order.
    ///
    /// # Errors
    ///
    /// None that is known: it is written to memory.
    pub(crate) fn begin(interfaces: &[String], snap: usize) -> Result<Self, PcapError> {
        let application = format!("ringgate {}", env!("CARGO_PKG_VERSION"));
        let header = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(Cow::Owned(
                application,
            ))],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(Vec::new(), header)?;
        let snap = u32::try_from(snap).unwrap_or(u32::MAX);
        for name in interfaces {
            for (side, said) in [
                ("in", "packets as they came"),
                ("out", "packets as they left"),
            ] {
                let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, snap);
                interface.options = vec![
                    InterfaceDescriptionOption::IfName(Cow::Owned(format!("{name} {side}"))),
                    InterfaceDescriptionOption::IfDescription(Cow::Borrowed(said)),
                    InterfaceDescriptionOption::IfTsResol(RESOLUTION),
                ];
                writer.write_pcapng_block(interface)?;
            }
        }
        Ok(Self { writer })
    }

    /// Writes a packet down, `at` nanoseconds after 1970.
    ///
    /// # Errors
    ///
    /// See [`begin`](Self::begin).
    pub(crate) fn put(&mut self, record: &Record, at: u64, comment: &str) -> Result<(), PcapError> {
        if record.before.whole() > 0 {
            let block = packet(record.ingress, false, &record.before, at, comment);
            self.writer.write_pcapng_block(block)?;
        }
        if let Some(port) = record.fate.egress().filter(|_| record.after.whole() > 0) {
            let block = packet(port, true, &record.after, at, comment);
            self.writer.write_pcapng_block(block)?;
        }
        Ok(())
    }

    /// Writes the end down: how many packets are in it, and how many were lost to it.
    ///
    /// # Errors
    ///
    /// See [`begin`](Self::begin).
    pub(crate) fn end(&mut self, told: u64, lost: u64, at: u64) -> Result<(), PcapError> {
        let statistics = InterfaceStatisticsBlock {
            interface_id: 0,
            // The library writes one word; the format has the upper half first.
            timestamp: at.rotate_left(32),
            options: vec![
                InterfaceStatisticsOption::IsbUsrDeliv(told),
                InterfaceStatisticsOption::IsbOsDrop(lost),
            ],
        };
        self.writer.write_pcapng_block(statistics).map(drop)
    }

    /// What was written since the last time: whole blocks.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }
}

fn packet<'a>(
    port: PortIndex,
    is_out: bool,
    bytes: &'a Bytes,
    at: u64,
    comment: &'a str,
) -> EnhancedPacketBlock<'a> {
    EnhancedPacketBlock {
        interface_id: 2 * u32::from(port) + u32::from(is_out),
        timestamp: std::time::Duration::from_nanos(at),
        original_len: u32::try_from(bytes.whole()).unwrap_or(u32::MAX),
        data: Cow::Borrowed(bytes.bytes()),
        options: vec![
            EnhancedPacketOption::Comment(Cow::Borrowed(comment)),
            EnhancedPacketOption::Flags(if is_out { OUTBOUND } else { INBOUND }),
        ],
    }
}

/// How many packets a piece of such a capture has, and what its statistics say was lost, if they are in it.
pub(crate) fn count(piece: &[u8]) -> (u64, Option<u64>) {
    const PACKET: u32 = 6;
    const STATISTICS: u32 = 5;
    /// Where the second option's value is in the statistics that [`Capture::end`] writes.
    const LOST: usize = 36;
    let (mut packets, mut lost, mut rest) = (0, None, piece);
    while let Some([kind, len]) = rest.as_chunks::<4>().0.first_chunk() {
        let (kind, len) = (u32::from_le_bytes(*kind), u32::from_le_bytes(*len));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let Some((block, after)) = rest.split_at_checked(len).filter(|_| len > 0) else {
            break;
        };
        packets += u64::from(kind == PACKET);
        if kind == STATISTICS {
            let value = block.get(LOST..).and_then(<[u8]>::first_chunk);
            lost = value.map(|value| u64::from_le_bytes(*value)).or(lost);
        }
        rest = after;
    }
    (packets, lost)
}
