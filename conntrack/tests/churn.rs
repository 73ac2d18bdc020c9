//! Threads at full speed: no flow is ever seen torn, found under another's key, or owned by
//! another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use ringgate_conntrack::{
    Direction, Endpoint, FlowKey, FlowTable, Insert, NewFlow, Profile, Reach, Seconds, Secret,
    State, Tie, Timeouts,
};

const FLOWS: u32 = 300;
const THREADS: u32 = 4;
const ROUNDS: u32 = 200_000;

fn key(n: u32) -> FlowKey {
    let number = u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let endpoint = Endpoint {
        address: [number, !number],
        port: 80,
    };
    FlowKey::new(
        6,
        endpoint,
        Endpoint {
            port: 443,
            ..endpoint
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flow_is_ever_seen_torn() {
        // Far more flows than places, so that they displace each other all the time.
        let table =
            Arc::new(FlowTable::in_memory(64, Secret([3, 5]), Timeouts::default()).unwrap());
        let found_total = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (table, found_total) = (Arc::clone(&table), Arc::clone(&found_total));
                thread::spawn(move || {
                    let mut random = u64::from(thread) + 1;
                    for round in 0..ROUNDS {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let n = u32::try_from(random % u64::from(FLOWS)).unwrap();
                        turn(&table, n, random, Seconds(round / 1000), &found_total);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        // Relaxed: the threads have ended.
        assert!(found_total.load(Ordering::Relaxed) > 1000);
    }

    fn turn(table: &FlowTable, n: u32, random: u64, now: Seconds, found_total: &AtomicU64) {
        let key = key(n);
        let hash = table.hash(&key);
        let new = NewFlow {
            state: State::Opening,
            owner: n,
            direction: Direction::FromBackend,
            tie: Tie::from_bits(n),
            profile: Profile::DEFAULT,
            reach: Reach::UNKNOWN,
        };
        let Some(found) = table.lookup(&key, hash, now) else {
            if let Insert::Exists(found) = table.insert(&key, hash, new, now) {
                assert_eq!(found.whose(), new.whose());
            }
            return;
        };
        assert_eq!(found.whose(), new.whose());
        // Relaxed: a plain total.
        found_total.fetch_add(1, Ordering::Relaxed);
        match random >> 60 {
            0 => drop(table.remove(&found)),
            1 => drop(table.replace(&found, new, now)),
            2 => drop(table.advance(&found, Direction::FromClient, 0x04, now)),
            3 => drop(table.sweep(&mut table.share(0, 1), 4, now, |_| {})),
            _ => drop(table.advance(&found, Direction::FromBackend, 0x10, now)),
        }
    }
}
