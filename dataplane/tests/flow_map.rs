//! The flow table's BPF map as the kernel makes and refuses it.
//!
//! `cargo test -p ringgate-dataplane --test flow_map -- --ignored`, as root.

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use aya::maps::{Array, MapData};
    use ringgate_conntrack::{
        Direction, Endpoint, FlowKey, FlowTable, Insert, NewFlow, Profile, Reach, Seconds, Secret,
        State, Tie, Timeouts,
    };
    use ringgate_dataplane::flow_map::{FlowMap, FlowMapError};

    const CAPACITY: usize = 10_000;
    const BPF_F_MMAPABLE: u32 = 1 << 10;

    fn key(n: u16) -> FlowKey {
        let endpoint = Endpoint {
            address: [0, 0xFFFF_0A00_0001],
            port: n,
        };
        FlowKey::new(17, endpoint, endpoint)
    }

    fn descriptor(map: &impl AsFd) -> std::os::fd::OwnedFd {
        map.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    #[ignore = "needs CAP_BPF"]
    fn a_table_in_a_map_is_found_through_another_descriptor() {
        let map = FlowMap::create(FlowTable::lines(CAPACITY)).unwrap();
        let memory = map.memory().unwrap();
        let table = FlowTable::new(memory, CAPACITY, Secret([1, 2]), Timeouts::default()).unwrap();
        let flow = NewFlow {
            state: State::TwoWay,
            owner: 7,
            direction: Direction::FromClient,
            tie: Tie::NONE,
            profile: Profile::DEFAULT,
            reach: Reach::OF_DATAGRAMS,
        };
        let now = Seconds(5);
        for n in 0..9000 {
            let inserted = table.insert(&key(n), table.hash(&key(n)), flow, now);
            assert!(matches!(inserted, Insert::Inserted(_)));
        }
        let other = FlowMap::from_fd(descriptor(&map)).unwrap();
        assert_eq!(other.id(), map.id());
        // The mapping alone keeps the map.
        drop((map, table));
        let memory = other.memory().unwrap();
        drop(other);
        let (table, healed) = FlowTable::adopt(memory, Timeouts::default(), now).unwrap();
        assert_eq!((healed.flows, healed.gates, healed.slots), (9000, 0, 0));
        for n in 0..9000 {
            let found = table.lookup(&key(n), table.hash(&key(n)), now).unwrap();
            assert!(table.remove(&found));
        }
        assert_eq!(table.stored(), 0);
    }

    #[test]
    #[ignore = "needs CAP_BPF"]
    fn eight_million_flows_fit() {
        let flows = 8_000_000;
        let map = FlowMap::create(FlowTable::lines(flows)).unwrap();
        let memory = map.memory().unwrap();
        let table = FlowTable::new(memory, flows, Secret([1, 2]), Timeouts::default()).unwrap();
        assert!(table.memory_bytes() <= 72 * flows);
        assert_eq!(table.stored(), 0);
    }

    #[test]
    #[ignore = "needs CAP_BPF"]
    fn more_than_there_is_is_refused_with_a_cure() {
        for lines in [u32::MAX as usize, usize::MAX] {
            let error = FlowMap::create(lines).unwrap_err();
            assert!(matches!(error, FlowMapError::Create { .. }), "{error}");
            assert!(
                error.to_string().contains("set a smaller `flows`"),
                "{error}"
            );
        }
    }

    #[test]
    #[ignore = "needs CAP_BPF"]
    fn a_map_for_something_else_is_refused() {
        let refused = |map: &MapData| match FlowMap::from_fd(descriptor(map.fd())).unwrap_err() {
            FlowMapError::Foreign { what, found, .. } => (what, found),
            other => panic!("{other}"),
        };
        let map = |kind, value, flags| {
            let map = aya_obj::Map::new_from_params(kind, 4, value, 8, flags);
            MapData::create(map, "other", None).unwrap()
        };
        assert_eq!(refused(&map(1, 64, 0)), ("type", "1 (Hash)".to_owned()));
        let wide = map(2, 128, BPF_F_MMAPABLE);
        assert_eq!(refused(&wide), ("value size", "128".to_owned()));
        assert_eq!(refused(&map(2, 64, 0)), ("set of flags", "0x0".to_owned()));
        // And one of ours that has no table in it yet.
        let blank = FlowMap::create(FlowTable::lines(CAPACITY)).unwrap();
        let adopted = FlowTable::adopt(blank.memory().unwrap(), Timeouts::default(), Seconds(0));
        assert!(adopted.unwrap_err().to_string().contains("no flow table"));
    }

    #[test]
    #[ignore = "needs CAP_BPF"]
    fn a_value_of_the_map_is_a_line_of_the_table() {
        let map = FlowMap::create(FlowTable::lines(CAPACITY)).unwrap();
        let memory = map.memory().unwrap();
        let lines = memory.len();
        FlowTable::new(memory, CAPACITY, Secret([1, 2]), Timeouts::default()).unwrap();
        let data = aya::maps::Map::from_map_data(MapData::from_id(map.id()).unwrap()).unwrap();
        let values: Array<_, [u8; 64]> = data.try_into().unwrap();
        assert_eq!(values.len() as usize, lines);
        let header = values.get(&0, 0).unwrap();
        let magic = ringgate_conntrack::MAGIC.to_ne_bytes();
        assert_eq!(header[..8], magic);
    }
}
