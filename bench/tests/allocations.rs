//! Promise: a worker does not allocate once it runs, whatever its packets need.

#[cfg(test)]
mod tests {
    use allocation_counter::{AllocationInfo, measure};
    use ringgate_bench::micro::frames::Frames;
    use ringgate_bench::micro::order::Walk;
    use ringgate_bench::micro::world::{Direction, Driven, Mode, World, drive};
    use ringgate_dataplane::parse::Family;

    /// Packets of each kind.
    const PACKETS: u32 = 10_000;

    type Kind = (Mode, Family, Direction);

    /// Every kind of packets.
    fn kinds() -> impl Iterator<Item = Kind> {
        [Family::V4, Family::V6].into_iter().flat_map(|family| {
            [
                (Mode::Nat, family, Direction::ToBackend),
                (Mode::Nat, family, Direction::ToClient),
                (Mode::DsrL2, family, Direction::ToBackend),
            ]
        })
    }

    /// Warms a worker up with some flows, then sends 10,000 packets of `flows`. What was allocated
    /// meanwhile, by the worker or by the ports. The table has `room` for entries.
    fn allocated(kind: Kind, flows: &[u32], room: usize) -> AllocationInfo {
        let (mode, family, direction) = kind;
        let mut world = World::of(kind.0, 1, room).unwrap();
        let worker = &mut world.lanes[0].worker;
        let mut send = |direction, flows: &[u32]| {
            let frames = Frames::new(mode, family, direction).unwrap();
            let mut driven = None;
            let info = measure(|| {
                let walk = &mut Walk::new(flows);
                driven = Some(drive(worker, &frames, direction, walk, PACKETS.into()));
            });
            let Driven { packets, forwarded } = driven.unwrap();
            assert!(packets >= PACKETS.into());
            assert_eq!(packets, forwarded, "every packet comes out");
            info
        };
        send(Direction::ToBackend, &known());
        send(direction, flows)
    }

    /// What a worker is warmed up with.
    fn known() -> Vec<u32> {
        (500_000..501_000).collect()
    }

    #[test]
    fn known_flows_cost_no_allocation() {
        for kind in kinds() {
            let info = allocated(kind, &known(), 100_000);
            assert_eq!(info, AllocationInfo::default(), "{kind:?}");
        }
    }

    #[test]
    fn new_flows_cost_no_allocation() {
        let flows: Vec<u32> = (0..PACKETS).collect();
        for kind in kinds().filter(|(_, _, direction)| *direction == Direction::ToBackend) {
            let info = allocated(kind, &flows, 100_000);
            assert_eq!(info, AllocationInfo::default(), "{kind:?}");
        }
    }

    #[test]
    fn flows_without_room_cost_no_allocation() {
        let flows: Vec<u32> = (0..PACKETS).collect();
        for kind in kinds().filter(|(_, _, direction)| *direction == Direction::ToBackend) {
            let info = allocated(kind, &flows, 100);
            assert_eq!(info, AllocationInfo::default(), "{kind:?}");
        }
    }

    #[test]
    fn an_allocation_would_be_seen() {
        let info = measure(|| drop(std::hint::black_box(Box::new(1u64))));
        assert_eq!((info.count_total, info.bytes_total), (1, 8));
    }
}
