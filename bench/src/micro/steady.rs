//! Packets of one kind through one loop and nothing else, for tools that count instructions.
//!
//! A run costs what setting up costs and then so much a packet. Two runs that differ in the number
//! of packets alone therefore differ by the packets alone: `scripts/instructions` counts that way.

use std::sync::Arc;

use ringgate_dataplane::parse::Family;
use ringgate_dataplane::tap::filter::{End, Filter, Term, Test};
use ringgate_dataplane::tap::{Limits, Tap, Tapping};
use ringgate_dataplane::xsk::CHUNK_BYTES;

use crate::micro::frames::Frames;
use crate::micro::order::{self, Walk};
use crate::micro::world::{Bare, Direction, Driven, Mode, World, drive};

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steady {
    /// How it is forwarded.
    pub mode: Mode,
    /// In which family.
    pub family: Family,
    /// Whose packets.
    pub direction: Direction,
    /// How many flows there are.
    pub flows: u32,
    /// Every packet is the first of a flow; else every flow is in the table.
    pub new: bool,
    /// The bare loop and not the worker.
    pub bare: bool,
    /// How many packets; whole bursts of 64.
    pub packets: u64,
    /// A tap is on.
    pub watched: Option<Watched>,
}

/// A tap that takes nothing, and what it looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Watched {
    /// The protocol, which rules every packet out at once.
    Protocol,
    /// The ports, for which each packet is put down and then not taken.
    Ports,
}

impl Watched {
    fn tap(self) -> Result<Tapping, String> {
        let test = match self {
            Self::Protocol => Test::Protocol(1),
            Self::Ports => Test::Ports(End::Either, 1..=1),
        };
        let filter = Filter::new(vec![Term::Is(test)]).map_err(|error| error.to_string())?;
        let limits = Limits {
            packets: 1,
            waiting: 1,
            snap: CHUNK_BYTES,
        };
        Ok(Tapping::new(&Arc::new(Tap::new(filter, limits)), 0))
    }
}

/// Runs it.
///
/// # Errors
///
/// In words: packets were lost, or there are not as many new flows as packets.
pub fn run(steady: &Steady) -> Result<Driven, String> {
    let frames = Frames::new(steady.mode, steady.family, steady.direction)?;
    let order = order::uniform(0, steady.flows, 1);
    if steady.new && steady.packets > u64::from(steady.flows) {
        return Err(format!(
            "{} packets of new flows need as many flows, not {}",
            steady.packets, steady.flows
        ));
    }
    let walk = &mut Walk::new(&order);
    if steady.bare {
        let driven = drive(
            &mut Bare::new(),
            &frames,
            steady.direction,
            walk,
            steady.packets,
        );
        return whole(driven);
    }
    let room = steady.flows as usize * steady.mode.entries() * 5 / 4;
    let mut world = World::of(steady.mode, 1, room.max(1024))?;
    let Some(lane) = world.lanes.first_mut() else {
        return Err("no worker".to_owned());
    };
    if !steady.new {
        let mut meet = vec![Direction::ToBackend];
        if steady.direction == Direction::ToClient {
            meet.push(Direction::ToClient);
        }
        for direction in meet {
            let first = Frames::new(steady.mode, steady.family, direction)?;
            let all = order.len() as u64;
            whole(drive(
                &mut lane.worker,
                &first,
                direction,
                &mut Walk::new(&order),
                all,
            ))?;
        }
    }
    if let Some(watched) = steady.watched {
        let tapping = Box::new(watched.tap()?);
        lane.worker.parts().mailbox.post_tap(Some(tapping));
    }
    whole(drive(
        &mut lane.worker,
        &frames,
        steady.direction,
        walk,
        steady.packets,
    ))
}

/// Unless packets were lost.
fn whole(driven: Driven) -> Result<Driven, String> {
    if driven.packets == driven.forwarded {
        Ok(driven)
    } else {
        Err(format!("{driven:?}: packets were lost"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: Steady = Steady {
        mode: Mode::Nat,
        family: Family::V4,
        direction: Direction::ToClient,
        flows: 1_000,
        new: false,
        bare: false,
        packets: 640,
        watched: None,
    };

    #[test]
    fn just_as_many_packets_as_asked_for() {
        for bare in [false, true] {
            let driven = run(&Steady { bare, ..STEADY }).unwrap();
            assert_eq!((driven.packets, driven.forwarded), (640, 640));
        }
    }

    #[test]
    fn no_packet_is_lost_while_it_is_watched() {
        for watched in [Watched::Protocol, Watched::Ports] {
            let watched = Some(watched);
            let driven = run(&Steady { watched, ..STEADY }).unwrap();
            assert_eq!((driven.packets, driven.forwarded), (640, 640));
        }
    }

    #[test]
    fn new_flows_are_not_met_twice() {
        let new = Steady {
            direction: Direction::ToBackend,
            new: true,
            ..STEADY
        };
        assert_eq!(run(&new).unwrap().packets, 640);
        let too_many = Steady {
            packets: 1_024,
            ..new
        };
        assert!(run(&too_many).is_err());
    }
}
