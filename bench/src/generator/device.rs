//! An interface's queue 0, opened for AF_XDP; and if it is to receive, all that arrives there.
//!
//! Frames that arrive at other queues are dropped while a device receives: give a NIC one queue
//! (`ethtool -L IF combined 1`).

use std::fmt;
use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use ringgate_dataplane::port::XskPort;
use ringgate_dataplane::xsk::{BindMode, Binding, Options, Pool, RingSizes, open};

use super::netns::Place;

/// The compiled program. Aligned, because aya reads ELF headers in place.
static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sink.bpf.o"));

/// What a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To send only: what arrives is the kernel's.
    Send,
    /// To receive everything, and to send.
    Receive,
}

impl Use {
    /// A receiver must bear that its thread sends for a while; 8,192 frames are 8 ms of a million
    /// a second.
    fn rings(self) -> RingSizes {
        match self {
            Self::Send => RingSizes {
                fill: 64,
                rx: 64,
                tx: 2_048,
                completion: 2_048,
            },
            Self::Receive => RingSizes {
                fill: 16_384,
                rx: 8_192,
                tx: 2_048,
                completion: 2_048,
            },
        }
    }
}

/// See the module's documentation. Dropping it detaches the program.
pub struct Device {
    /// What redirects to the socket, while this lives.
    pub steering: Option<Steering>,
    /// The socket.
    pub port: XskPort,
    /// Its frames.
    pub pool: Pool,
}

/// The attached program.
pub struct Steering {
    _ebpf: Ebpf,
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Steering")
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("port", self.port.bound())
            .finish_non_exhaustive()
    }
}

impl Device {
    /// Opens the socket in the interface's namespace; the thread is where it was afterwards.
    ///
    /// # Errors
    ///
    /// In words: no such interface or namespace, no privileges, or somebody else's program is there.
    pub fn open(place: &Place, purpose: Use) -> Result<Self, String> {
        place.within(|index| {
            let attached = match purpose {
                Use::Send => None,
                Use::Receive => Some(attach(place, index)?),
            };
            let is_native = attached
                .as_ref()
                .is_none_or(|(_, mode)| matches!(mode, XdpMode::Driver));
            let options = Options {
                rings: purpose.rings(),
                mode: if is_native {
                    BindMode::Auto
                } else {
                    BindMode::Copy
                },
                huge_pages: true,
                busy_poll: None,
            };
            let binding = Binding {
                name: place.interface.clone(),
                queue: 0,
            };
            let (mut ports, pool) =
                open(&[binding], &options).map_err(|error| format!("{place}: {error}"))?;
            let port = ports.pop().ok_or_else(|| format!("{place}: no socket"))?;
            let steering = match attached {
                Some((ebpf, _)) => Some(register(place, ebpf, &port)?),
                None => None,
            };
            Ok(Self {
                steering,
                port,
                pool,
            })
        })
    }
}

/// Attaches the program: natively if the driver can.
fn attach(place: &Place, index: u32) -> Result<(Ebpf, XdpMode), String> {
    let mut last = String::new();
    for mode in [XdpMode::Driver, XdpMode::Skb] {
        let mut ebpf = Ebpf::load(PROGRAM).map_err(|error| format!("{place}: {error}"))?;
        let program: &mut Xdp = ebpf
            .program_mut("sink")
            .ok_or("the object has no program `sink`")?
            .try_into()
            .map_err(|error| format!("{place}: {error}"))?;
        program
            .load()
            .map_err(|error| format!("{place}: the program does not load: {error}"))?;
        match program.attach_to_if_index(index, mode) {
            Ok(_) => return Ok((ebpf, mode)),
            Err(error) => last = format!("{place}: the program cannot be attached: {error:?}"),
        }
    }
    Err(last)
}

fn register(place: &Place, mut ebpf: Ebpf, port: &XskPort) -> Result<Steering, String> {
    let map = ebpf
        .map_mut("sockets")
        .ok_or("the object has no map `sockets`")?;
    let mut map = XskMap::try_from(map).map_err(|error| format!("{place}: {error}"))?;
    map.set(0, port.as_fd(), 0)
        .map_err(|error| format!("{place}: the socket cannot be registered: {error}"))?;
    Ok(Steering { _ebpf: ebpf })
}
