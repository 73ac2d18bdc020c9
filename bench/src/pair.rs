//! Two interfaces, opened as the balancer opens them: the steering program, queue 0's socket and the frames
//! that the two share.

use std::fmt;
use std::os::fd::AsFd as _;

use ringgate_dataplane::port::{Port as _, XskPort};
use ringgate_dataplane::steered::Steered;
use ringgate_dataplane::xsk::{
    AttachError, BindMode, Binding, OpenError, Options, Pool, SteerError, SteeringProgram, XdpMode,
    open,
};

/// Why they could not be opened.
#[derive(Debug)]
pub enum PairError {
    /// A program could not be attached.
    Attach(AttachError),
    /// A map could not be filled.
    Steer(SteerError),
    /// A socket could not be opened.
    Open(OpenError),
}

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach(error) => error.fmt(f),
            Self::Steer(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
        }
    }
}

/// The programs of both, which steer until they are dropped.
#[derive(Debug)]
pub struct Programs(Vec<SteeringProgram>);

/// Opens `names`, of which the first is in front, and has them steer `steered`.
///
/// # Errors
///
/// [`PairError`].
pub fn pair(
    names: [&str; 2],
    steered: &Steered,
) -> Result<(Programs, Vec<XskPort>, Pool), PairError> {
    let attach = |name| SteeringProgram::attach(name, XdpMode::Native).map_err(PairError::Attach);
    let mut programs = names
        .into_iter()
        .map(attach)
        .collect::<Result<Vec<_>, _>>()?;
    let bindings = names.map(|name| Binding {
        name: name.to_owned(),
        queue: 0,
    });
    let options = Options {
        mode: BindMode::Copy,
        huge_pages: true,
        ..Options::default()
    };
    let (ports, pool) = open(&bindings, &options).map_err(PairError::Open)?;
    for (program, port) in programs.iter_mut().zip(&ports) {
        program.sync(steered).map_err(PairError::Steer)?;
        program
            .register(0, port.as_fd())
            .map_err(PairError::Steer)?;
    }
    Ok((Programs(programs), ports, pool))
}

impl Programs {
    /// Ends steering, then the ports.
    ///
    /// # Errors
    ///
    /// When a map cannot be changed; the ports are closed with the process then.
    pub fn close(mut self, ports: Vec<XskPort>, mut pool: Pool) -> Result<(), PairError> {
        for program in &mut self.0 {
            program.unregister(0).map_err(PairError::Steer)?;
        }
        for port in ports {
            let _home = port.close(&mut pool);
        }
        Ok(())
    }
}
