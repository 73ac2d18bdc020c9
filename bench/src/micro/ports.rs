//! Source ports, taken and given back: what full NAT pays once for each flow.

use std::net::IpAddr;

use ringgate_conntrack::source_ports::{DEFAULT_PORTS, Layout, Release, Rests, SourcePorts};
use ringgate_conntrack::{Endpoint, Seconds, Secret};

use crate::micro::Plan;
use crate::micro::order::BURST;
use crate::micro::report::Row;
use crate::micro::sample::{median, nanoseconds, on_cores};

/// TCP.
const PROTOCOL: u8 = 6;

/// So many seconds later everything has rested.
const REST: u32 = 1_000;

/// Backends that flows go to in turn.
const BACKENDS: u16 = 16;

/// Rows `port-allocate` and `port-release`. Flows come and go in bursts, in one of eight workers'
/// blocks, the ports of a burst being those that came back longest ago: no cache has them.
///
/// # Errors
///
/// In words: there was no port, or one was not taken back.
pub(crate) fn measure(plan: &Plan) -> Result<[Row; 2], String> {
    let samples = on_cores(&mut [()], |(), _| sampled(plan))?;
    let samples = samples
        .into_iter()
        .next()
        .unwrap_or_else(|| Ok(Vec::new()))?;
    let row = |stage, ns| Row {
        stage,
        threads: 1,
        ns: median(ns),
        ..Row::default()
    };
    let (allocate, release) = samples.into_iter().unzip();
    Ok([row("port-allocate", allocate), row("port-release", release)])
}

/// Nanoseconds of an allocation and of a release, for each sample.
fn sampled(plan: &Plan) -> Result<Vec<(f64, f64)>, String> {
    let layout = Layout::new(DEFAULT_PORTS, 8, 16).map_err(|error| error.to_string())?;
    let address = IpAddr::from([192, 0, 2, 1]);
    let (ports, mut seats) = SourcePorts::new(layout, &[address], Rests::default(), Secret([1, 2]))
        .map_err(|error| error.to_string())?;
    let seat = seats.first_mut().ok_or("no seat")?;
    let backends: Vec<Endpoint> = (0..BACKENDS)
        .map(|port| Endpoint::from_socket((IpAddr::from([10, 200, 0, 1]), 8000 + port).into()))
        .collect();
    // As many as a burst's share of blocks has for sure, so that none is refused.
    let flows = BURST * 8;
    let rounds = (plan.packets / flows as u64).max(1);
    let mut held = Vec::with_capacity(flows);
    let mut samples = Vec::new();
    let mut now = Seconds(REST);
    for _ in 0..=plan.samples {
        let mut time = [0.0; 2];
        for _ in 0..rounds {
            let to = |flow: usize| backends.get(flow % backends.len()).copied();
            time[0] += nanoseconds(flows as u64, || {
                let taken = (0..flows).filter_map(|flow| {
                    let to = to(flow)?;
                    ports.allocate(seat, PROTOCOL, &to, flow as u64, now).ok()
                });
                held.extend(taken);
            });
            if held.len() != flows {
                return Err(format!("{} of {flows} flows got a port", held.len()));
            }
            let mut back = 0;
            time[1] += nanoseconds(flows as u64, || {
                for lease in held.drain(..) {
                    let released = ports.release(PROTOCOL, lease, now);
                    back += usize::from(released == Release::Rests);
                }
            });
            if back != flows {
                return Err(format!("{back} of {flows} ports were taken back"));
            }
            now = Seconds(now.0 + REST);
        }
        samples.push((time[0] / rounds as f64, time[1] / rounds as f64));
    }
    // The first one warms up.
    samples.remove(0);
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_and_go() {
        let [allocate, release] = measure(&Plan::smallest()).unwrap();
        assert!(allocate.ns > 0.0 && release.ns > 0.0);
    }
}
