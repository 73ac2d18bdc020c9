use std::borrow::Cow as BytesCow;
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapWriter};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;

use super::*;

#[test]
fn a_packet_is_taken_from_a_capture_of_either_kind() {
    let directory = tempfile::tempdir().unwrap();
    let frames: [&[u8]; 2] = [&[1; 60], &[2; 61]];
    let classic = directory.path().join("a.pcap");
    let mut writer = PcapWriter::new(std::fs::File::create(&classic).unwrap()).unwrap();
    for frame in frames {
        let len = u32::try_from(frame.len()).unwrap();
        let packet = PcapPacket::new(Duration::ZERO, len, frame);
        writer.write_packet(&packet).unwrap();
    }
    let modern = directory.path().join("a.pcapng");
    let mut writer = PcapNgWriter::new(std::fs::File::create(&modern).unwrap()).unwrap();
    let interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
    writer.write_pcapng_block(interface).unwrap();
    for frame in frames {
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::ZERO,
            original_len: u32::try_from(frame.len()).unwrap(),
            data: BytesCow::Borrowed(frame),
            options: Vec::new(),
        };
        writer.write_pcapng_block(block).unwrap();
    }
    for file in [&classic, &modern] {
        assert_eq!(packet(file, 1).unwrap(), frames[0]);
        assert_eq!(packet(file, 2).unwrap(), frames[1]);
        for number in [0, 3] {
            let error = packet(file, number).unwrap_err();
            assert!(
                error.ends_with(&format!("there is no packet {number}; it has 2")),
                "{error}"
            );
        }
    }
    let other = directory.path().join("c");
    std::fs::write(&other, "not a capture").unwrap();
    let error = packet(&other, 1).unwrap_err();
    assert!(error.contains("no capture of Ethernet"), "{error}");
}
