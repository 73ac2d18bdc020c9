//! A case's packets as capture files, for tools that know packets.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapWriter};

use crate::case::{Case, CaseError};
use crate::world::run;

/// A written file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Where.
    pub path: PathBuf,
    /// How many packets are in it.
    pub packets: usize,
}

/// Writes what a case's balancer really sends into `directory`, `CASE.out.pcap`, and what arrives,
/// `CASE.in.pcap`. Files that would be empty are not written; the one of what is sent is the last.
///
/// # Errors
///
/// The case makes no sense, or a file cannot be written.
pub fn write(case: &Case, directory: &Path) -> Result<Vec<Capture>, CaseError> {
    let (mut arrived, mut sent) = (Vec::new(), Vec::new());
    for (step, outcome) in case.file.steps.iter().zip(run(case)?) {
        let frames = case.arriving(step)?;
        arrived.extend(frames.into_iter().map(|crossing| crossing.bytes));
        sent.extend(outcome.leaves.into_iter().map(|crossing| crossing.bytes));
    }
    let mut captures = Vec::new();
    for (direction, packets) in [("in", arrived), ("out", sent)] {
        if packets.is_empty() {
            continue;
        }
        let name = format!("{}.{direction}.pcap", case.name.replace('/', "."));
        let path = directory.join(name);
        self::packets(&path, &packets)?;
        captures.push(Capture {
            path,
            packets: packets.len(),
        });
    }
    Ok(captures)
}

/// Writes these packets, a millisecond apart.
///
/// # Errors
///
/// The file cannot be written.
pub fn packets(path: &Path, packets: &[Vec<u8>]) -> Result<(), CaseError> {
    write_all(path, packets).map_err(|error| CaseError::at(path, &error))
}

fn write_all(path: &Path, packets: &[Vec<u8>]) -> Result<(), pcap_file::PcapError> {
    let file = BufWriter::new(File::create(path).map_err(pcap_file::PcapError::IoError)?);
    let mut writer = PcapWriter::new(file)?;
    for (packet, at) in packets.iter().zip(0..) {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let packet = PcapPacket::new(Duration::from_millis(at), length, packet);
        writer.write_packet(&packet)?;
    }
    Ok(())
}
