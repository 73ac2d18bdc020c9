//! What becomes of packets, without a device.
