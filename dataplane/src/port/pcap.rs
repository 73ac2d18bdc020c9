//! A port over capture files: receives what one file holds, writes what is transmitted to another.
//!
//! Files are handed in as readers and writers; nothing is opened here. Read: classic pcap of either
//! byte order, with micro- or nanosecond timestamps, link type Ethernet. Written: little-endian,
//! with the time resolution of the input; a transmitted packet gets the timestamp of the last one
//! received, so that the same input always makes the same output.

use std::borrow::Cow;
use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use pcap_file::pcap::{PcapHeader, PcapReader, PcapWriter, RawPcapPacket};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};
use thiserror::Error;

use crate::port::{BATCH, Batch, Closed, Port, PortCounters};
use crate::xsk::Pool;
use crate::xsk::pool::Queue;

/// Frames taken by `transmit` and not yet home.
const RING: usize = 4 * BATCH;

/// What is wrong with a capture.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// Not a classic pcap file, or damaged.
    #[error(
        "the capture cannot be read: {0}; expected classic pcap (`tcpdump -w`, or `editcap -F \
         pcap` from pcapng)"
    )]
    Read(PcapError),
    /// Packets of another link layer.
    #[error("the capture is of link type {0:?}; expected Ethernet")]
    LinkType(DataLink),
    /// The output did not take it.
    #[error("the capture cannot be written: {0}")]
    Write(PcapError),
}

/// A port whose device is a pair of capture files.
pub struct PcapPort<R: Read, W: Write> {
    input: Option<PcapReader<R>>,
    output: PcapWriter<W>,
    timestamp: (u32, u32),
    tx: Queue,
    completion: Queue,
    error: Option<CaptureError>,
    counters: PortCounters,
}

impl<R: Read, W: Write> PcapPort<R, W> {
    /// A port for frames of `pool` that receives the packets of `input`, if there is one, and
    /// writes to `output`.
    ///
    /// # Errors
    ///
    /// The input's header is not that of an Ethernet capture, or the output's cannot be written.
    pub fn new(pool: &Pool, input: Option<R>, output: W) -> Result<Self, CaptureError> {
        let input = input
            .map(PcapReader::new)
            .transpose()
            .map_err(CaptureError::Read)?;
        let mut ts_resolution = TsResolution::MicroSecond;
        if let Some(input) = &input {
            let header = input.header();
            if header.datalink != DataLink::ETHERNET {
                return Err(CaptureError::LinkType(header.datalink));
            }
            ts_resolution = header.ts_resolution;
        }
        let header = PcapHeader {
            ts_resolution,
            endianness: Endianness::Little,
            datalink: DataLink::ETHERNET,
            ..PcapHeader::default()
        };
        let output = PcapWriter::with_header(output, header).map_err(CaptureError::Write)?;
        Ok(Self {
            input,
            output,
            timestamp: (0, 0),
            tx: Queue::new(Arc::clone(pool.region()), RING),
            completion: Queue::new(Arc::clone(pool.region()), RING),
            error: None,
            counters: PortCounters::default(),
        })
    }

    /// Whether the input has been received to its end, or to its first error.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.input.is_none()
    }

    /// The first error in reading or writing, if there was one. Reading ends with it; frames to
    /// transmit go on being taken.
    #[must_use]
    pub fn error(&self) -> Option<&CaptureError> {
        self.error.as_ref()
    }

    /// Receives one packet into a frame of `pool`. False if there is none, or no frame for it.
    fn receive_one(&mut self, pool: &mut Pool, batch: &mut Batch) -> bool {
        let Some(input) = &mut self.input else {
            return false;
        };
        // Before the packet is read: it must not be lost for want of a frame.
        let Some(mut frame) = pool.take() else {
            self.counters.fill_empty += 1;
            return false;
        };
        match input.next_raw_packet() {
            Some(Ok(packet)) => {
                self.timestamp = (packet.ts_sec, packet.ts_frac);
                if packet.data.len() > frame.room() {
                    self.counters.rx_dropped += 1;
                    pool.give(frame);
                } else {
                    frame.fill_from(&packet.data);
                    self.counters.received += 1;
                    batch.push(frame);
                }
                true
            }
            end => {
                pool.give(frame);
                if let Some(Err(error)) = end {
                    self.error.get_or_insert(CaptureError::Read(error));
                }
                self.input = None;
                false
            }
        }
    }
}

impl<R: Read + Send, W: Write + Send> Port for PcapPort<R, W> {
    fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) -> usize {
        let before = batch.len();
        while !batch.is_full() && self.receive_one(pool, batch) {}
        batch.len() - before
    }

    fn transmit(&mut self, frames: &mut Batch) -> usize {
        let room = self.tx.room().saturating_sub(self.completion.len());
        let taken = frames.len().min(room);
        for frame in frames.drain(..taken) {
            // There is room, so only a frame of another region is refused, and lost to it.
            match self.tx.push(frame) {
                Ok(()) => self.counters.transmitted += 1,
                Err(_foreign) => self.counters.tx_refused += 1,
            }
        }
        taken
    }

    fn recycle(&mut self, pool: &mut Pool) {
        while let Some(frame) = self.completion.pop() {
            self.counters.completed += 1;
            pool.give(frame);
        }
    }

    fn kick(&mut self) {
        if self.tx.len() == 0 {
            return;
        }
        self.counters.kicks += 1;
        let (ts_sec, ts_frac) = self.timestamp;
        while let Some(frame) = self.tx.pop() {
            let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            let packet = RawPcapPacket {
                ts_sec,
                ts_frac,
                incl_len: len,
                orig_len: len,
                data: Cow::Borrowed(frame.bytes()),
            };
            if let Err(error) = self.output.write_raw_packet(&packet) {
                self.counters.kick_other += 1;
                self.error.get_or_insert(CaptureError::Write(error));
            }
            // As large as the transmit ring, which `transmit` counts together with it: never full.
            let _taken = self.completion.push(frame);
        }
    }

    fn transmitting(&self) -> usize {
        self.tx.len() + self.completion.len()
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }

    fn wait(_ports: &mut [Self], _timeout_ms: u32) {}

    fn close(mut self, pool: &mut Pool) -> Closed {
        self.kick();
        let home = self.completion.len();
        self.recycle(pool);
        Closed {
            home,
            ..Closed::default()
        }
    }
}

impl<R: Read, W: Write> fmt::Debug for PcapPort<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapPort")
            .field("finished", &self.finished())
            .field("error", &self.error)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A capture written by hand, from the format's description (draft-ietf-opsawg-pcap).
    fn capture(big: bool, magic: u32, link: u32, packets: &[&[u8]]) -> Vec<u8> {
        let word = |value: u32| {
            if big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        let half = |value: u16| {
            if big {
                value.to_be_bytes()
            } else {
                value.to_le_bytes()
            }
        };
        let mut file = [&word(magic)[..], &half(2), &half(4), &word(0), &word(0)].concat();
        file.extend([word(65535), word(link)].concat());
        for (second, packet) in (100..).zip(packets) {
            let len = word(u32::try_from(packet.len()).unwrap());
            file.extend([word(second), word(7), len, len].concat());
            file.extend_from_slice(packet);
        }
        file
    }

    const MICROS: u32 = 0xa1b2_c3d4;
    const NANOS: u32 = 0xa1b2_3c4d;

    #[test]
    fn what_is_read_is_written() {
        for (big, magic) in [
            (false, MICROS),
            (true, MICROS),
            (false, NANOS),
            (true, NANOS),
        ] {
            let packets = [b"one".as_slice(), b"two two", &[3; 1514]];
            let input = capture(big, magic, 1, &packets);
            let mut output = Vec::new();
            let mut pool = Pool::anonymous(8);
            let mut port = PcapPort::new(&pool, Some(input.as_slice()), &mut output).unwrap();
            let mut batch = Batch::new();
            assert_eq!(port.receive(&mut pool, &mut batch), 3);
            assert!(port.finished() && port.error().is_none());
            assert!(
                packets
                    .iter()
                    .copied()
                    .eq(batch.iter().map(|frame| frame.bytes()))
            );
            assert_eq!(port.transmit(&mut batch), 3);
            port.kick();
            assert_eq!(
                (port.transmitting(), port.close(&mut pool).home, pool.len()),
                (3, 3, 8)
            );
            // Little-endian, and everything sent at the time of the last packet received.
            let mut expected = capture(false, magic, 1, &packets);
            let second = [24, 24 + 16 + 3, 24 + 16 + 3 + 16 + 7];
            second.iter().for_each(|&at| expected[at] = 102);
            assert_eq!(output, expected);
        }
    }

    #[test]
    fn other_files_are_refused_with_what_was_found() {
        let pool = Pool::anonymous(1);
        let refuse = |file: &[u8]| {
            let error = PcapPort::new(&pool, Some(file), Vec::new()).unwrap_err();
            error.to_string()
        };
        assert!(refuse(&capture(false, MICROS, 113, &[])).contains("LINUX_SLL"));
        assert!(refuse(&capture(false, 0x0a0d_0d0a, 1, &[])).contains("editcap -F pcap"));
        assert!(refuse(b"").contains("expected classic pcap"));
    }

    #[test]
    fn a_file_cut_short_gives_what_is_whole_and_then_an_error() {
        let whole = capture(false, MICROS, 1, &[b"whole", b"part"]);
        for cut in 1..20 {
            let mut pool = Pool::anonymous(4);
            let input = &whole[..whole.len() - cut];
            let mut port = PcapPort::new(&pool, Some(input), Vec::new()).unwrap();
            let mut batch = Batch::new();
            assert_eq!(port.receive(&mut pool, &mut batch), 1);
            assert!(port.finished() && matches!(port.error(), Some(CaptureError::Read(_))));
            batch.drain(..).for_each(|frame| pool.give(frame));
            assert_eq!(pool.len(), 4);
        }
    }

    #[test]
    fn packets_wait_for_frames_and_giants_are_dropped() {
        let input = capture(false, MICROS, 1, &[&[1; 2000], b"a", b"b"]);
        let mut pool = Pool::anonymous(1);
        let mut port = PcapPort::new(&pool, Some(input.as_slice()), Vec::new()).unwrap();
        let mut batch = Batch::new();
        assert_eq!(port.receive(&mut pool, &mut batch), 1);
        assert_eq!(
            (port.counters().rx_dropped, port.counters().fill_empty),
            (1, 1)
        );
        pool.give(batch.remove(0));
        assert_eq!(port.receive(&mut pool, &mut batch), 1);
        assert_eq!(batch[0].bytes(), b"b");
        pool.give(batch.remove(0));
    }
}
