//! A process that is killed at any moment leaves a table that the next one can go on with: no
//! established flow is lost, none is torn, and all places can be used.

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Read as _;
    use std::os::fd::{AsRawFd as _, OwnedFd};
    use std::process::{Command, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use ringgate_conntrack::{
        Direction, Endpoint, FlowKey, FlowTable, Found, Insert, LINE_BYTES, Memory, NewFlow,
        Profile, Reach, Seconds, Secret, State, Tie, Timeouts,
    };
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    const CAPACITY: usize = 1000;
    /// Flows that are established and stay.
    const STEADY: u32 = 400;
    /// Others, far more than there is room for.
    const RESTLESS: u32 = 5000;
    const THREADS: u32 = 2;
    const KILLS: u64 = 40;
    /// And at most: on a busy machine the child seldom runs when it is killed.
    const KILLS_MOST: u64 = 40 * KILLS;
    const NOW: Seconds = Seconds(1000);
    const ACK: u8 = 0x10;

    /// Where a process that is to be killed finds the memory.
    const MEMORY: &str = "RINGGATE_TEST_MEMORY";

    fn key(n: u32) -> FlowKey {
        let endpoint = |port| Endpoint {
            address: [u64::from(n), !u64::from(n)],
            port,
        };
        FlowKey::new(6, endpoint(80), endpoint(443))
    }

    /// The owner says whose flow it is, so a torn one would show.
    fn flow(n: u32, turn: u32, state: State) -> NewFlow {
        NewFlow {
            state,
            owner: n << 16 | turn & 0xFFFF,
            direction: Direction::FromClient,
            tie: Tie::from_bits(n << 16 | turn & 0xFFFF),
            profile: Profile::DEFAULT,
            reach: Reach::at(n),
        }
    }

    fn insert(table: &FlowTable, n: u32, turn: u32, state: State) -> Insert {
        table.insert(&key(n), table.hash(&key(n)), flow(n, turn, state), NOW)
    }

    fn find(table: &FlowTable, n: u32) -> Option<Found> {
        let found = table.lookup(&key(n), table.hash(&key(n)), NOW)?;
        assert_eq!(
            (found.owner >> 16, found.tie.bits()),
            (n, found.owner),
            "torn"
        );
        Some(found)
    }

    fn map(file: &OwnedFd) -> Memory {
        Memory::shared(file, FlowTable::lines(CAPACITY)).unwrap()
    }

    fn adopt(file: &OwnedFd) -> (FlowTable, ringgate_conntrack::Healed) {
        FlowTable::adopt(map(file), Timeouts::default(), NOW).unwrap()
    }

    #[test]
    fn a_killed_process_costs_no_established_flow() {
        if let Some(path) = std::env::var_os(MEMORY) {
            let file = OpenOptions::new().read(true).write(true).open(path);
            churn(&Arc::new(adopt(&file.unwrap().into()).0));
        }
        let file = memfd_create("flows", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, (FlowTable::lines(CAPACITY) * LINE_BYTES) as u64).unwrap();
        let secret = Secret([3, 5]);
        let table = FlowTable::new(map(&file), CAPACITY, secret, Timeouts::default()).unwrap();
        for n in 0..STEADY {
            assert!(matches!(
                insert(&table, n, 0, State::Established),
                Insert::Inserted(_)
            ));
        }
        drop(table);
        let (mut gates, mut slots) = (0, 0);
        for kill in 0..KILLS_MOST {
            // Until both were hit, or nothing would be shown.
            if kill >= KILLS && gates > 0 && slots > 0 {
                break;
            }
            start_and_kill(&file, kill);
            let (table, healed) = adopt(&file);
            gates += healed.gates;
            slots += healed.slots;
            assert!(healed.gates <= THREADS as usize, "{healed:?}");
            assert!(healed.slots <= THREADS as usize, "{healed:?}");
            assert!((0..STEADY).all(|n| find(&table, n).is_some()));
            for n in STEADY..STEADY + RESTLESS {
                assert_ne!(insert(&table, n, 0, State::OneWay), Insert::Contended);
                find(&table, n);
            }
        }
        assert!(gates > 0 && slots > 0, "{gates} gates, {slots} slots");
    }

    /// Runs this test's other half, and kills it while it is busy.
    fn start_and_kill(file: &OwnedFd, turn: u64) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tests::a_killed_process_costs_no_established_flow",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(MEMORY, path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says one thing, when it is at work.
        let mut ready = [0; 1];
        child.stderr.take().unwrap().read_exact(&mut ready).unwrap();
        std::thread::sleep(Duration::from_micros(turn * 7919 % 5000));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    }

    /// Changes flows in every way there is, for ever.
    fn churn(table: &Arc<FlowTable>) -> ! {
        let at_work = Arc::new(AtomicU64::new(0));
        for thread in 1..=THREADS {
            let (table, at_work) = (Arc::clone(table), Arc::clone(&at_work));
            std::thread::spawn(move || {
                let mut random = u64::from(thread);
                loop {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    turn(&table, random);
                    // Relaxed: only a number.
                    at_work.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Relaxed: as above.
        while at_work.load(Ordering::Relaxed) < 1000 {
            std::thread::yield_now();
        }
        eprintln!("at work");
        loop {
            std::thread::park();
        }
    }

    fn turn(table: &FlowTable, random: u64) {
        let number = u32::try_from(random >> 40).unwrap();
        let n = STEADY + number % RESTLESS;
        match find(table, n) {
            None => {
                insert(table, n, number, State::OneWay);
            }
            Some(found) if random.is_multiple_of(3) => {
                table.remove(&found);
            }
            Some(found) => {
                table.replace(&found, flow(n, number, State::OneWay), NOW);
            }
        }
        if let Some(found) = find(table, number % STEADY) {
            table.advance(&found, Direction::FromClient, ACK, NOW);
        }
    }
}
