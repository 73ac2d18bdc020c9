//! Promise: the control thread checks backends by io_uring, without a connect(2) of its own,
//! and by epoll where it has to, with the same result; a loaded worker makes no system call but
//! kicks, wake-ups and the sleep; an idle one sleeps.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::Path;
    use std::process::Stdio;
    use std::time::Duration;

    use ringgate_playground::{
        Balancer, Configuration, Nginx, Payload, Playground, Process, pause, until,
    };
    use rustix::process::Signal;
    use tempfile::TempDir;

    const RINGGATE: &str = env!("CARGO_BIN_EXE_ringgate");

    /// What a worker may call: kicks of its TX rings, wake-ups of its fill rings, the sleep on
    /// its sockets, and that sleep resumed after strace has interrupted it to attach.
    const WORKER_CALLS: [&str; 6] = [
        "sendto",
        "recvfrom",
        "recvmsg",
        "poll",
        "ppoll",
        "restart_syscall",
    ];

    /// The hundredths of a second that the kernel accounts times in (`sysconf(_SC_CLK_TCK)`,
    /// 100 on Linux's architectures of today).
    const TICKS_A_SECOND: u64 = 100;

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn io_uring_does_the_checks_and_loaded_workers_only_kick_and_sleep() {
        let playground = Playground::plan().queues(2).up();
        let payload = Payload::megabytes(1, 8);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        assert_eq!(balancer.status().text("/control/io"), "io_uring");
        let checks_before = playground.kernel_counter("b1", "Tcp", "PassiveOpens");

        let trace = Trace::of(&balancer);
        let load = playground.run_on(
            "client",
            "wrk",
            &["-t1", "-c16", "-d3", "http://10.100.0.1/"],
        );
        assert!(load.contains("Requests/sec"), "{load}");
        let calls = trace.end();

        let threads = threads(&balancer);
        let workers: Vec<&BTreeSet<String>> = threads
            .iter()
            .filter(|(_, name)| name.contains("worker"))
            .map(|(id, _)| &calls[id])
            .collect();
        assert_eq!(workers.len(), 2, "{threads:?}");
        for worker in workers {
            assert!(worker.contains("sendto"), "not loaded: {worker:?}");
            let others: Vec<&String> = worker
                .iter()
                .filter(|call| !WORKER_CALLS.contains(&call.as_str()))
                .collect();
            assert_eq!(
                others,
                Vec::<&String>::new(),
                "a worker called what it must not"
            );
        }
        // The checks went on all the while: every 200 ms from each of four services.
        let checks = playground.kernel_counter("b1", "Tcp", "PassiveOpens") - checks_before;
        assert!(checks >= 10, "only {checks} connections came to b1");
        let all: BTreeSet<&String> = calls.values().flatten().collect();
        assert!(all.contains(&"io_uring_enter".to_owned()), "{all:?}");
        for call in ["connect", "epoll_wait", "epoll_pwait"] {
            assert!(
                !all.contains(&call.to_owned()),
                "{call} was called: {all:?}"
            );
        }
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn epoll_does_all_that_io_uring_does() {
        let playground = Playground::plan().up();
        let payload = Payload::megabytes(1, 8);
        let mut nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native()
            .drain("1s")
            .web(playground.backends());
        let environment = [("RINGGATE_DRIVER", "epoll")];
        let mut balancer =
            Balancer::start_with(RINGGATE, &playground, &configuration, &environment);
        assert_eq!(balancer.status().text("/control/io"), "epoll");

        for address in [
            "10.100.0.1:80",
            "[fd00:100::1]:80",
            "10.100.0.2:80",
            "[fd00:100::2]:80",
        ] {
            let visits = playground.visits(address.parse().unwrap(), 300);
            assert_eq!(
                (visits.answered(), visits.answers.len()),
                (300, 3),
                "{visits:?}"
            );
        }
        for state in ["down", "up"] {
            if state == "down" {
                nginx[0].kill()
            } else {
                nginx[0].restart()
            }
            balancer.wait_for(Duration::from_secs(10), state, |status| {
                status.states(1) == [state]
            });
        }
        let before = balancer.status().number("/generation");
        balancer.reload(&Configuration::native().drain("1s").web(1..=2));
        assert!(balancer.status().number("/generation") > before);
        let visits = playground.visits("10.100.0.1:80".parse().unwrap(), 300);
        assert_eq!(
            visits.answers.keys().collect::<Vec<_>>(),
            ["b1", "b2"],
            "{visits:?}"
        );
        balancer.assert_accounts_balance();

        balancer.signal(Signal::TERM);
        let exit = balancer.wait(Duration::from_secs(6));
        assert_eq!(exit.code(), Some(0), "{}", balancer.log());
    }

    #[test]
    #[ignore = "needs CAP_NET_ADMIN"]
    fn idle_workers_sleep() {
        let playground = Playground::plan().queues(2).up();
        let payload = Payload::megabytes(1, 8);
        let _nginx = Nginx::on_all(&playground, &payload, "4m");
        let configuration = Configuration::native().web(playground.backends());
        let balancer = Balancer::start(RINGGATE, &playground, &configuration);
        // After traffic, too: the sleep has to come back.
        assert_eq!(
            playground
                .visits("10.100.0.1:80".parse().unwrap(), 100)
                .answered(),
            100
        );
        balancer.assert_accounts_balance();

        let sleeps = |balancer: &Balancer| -> Vec<u64> {
            balancer
                .status()
                .list("/workers")
                .iter()
                .map(|one| one.number("/sleeps"))
                .collect()
        };
        let (slept, ran) = (sleeps(&balancer), ticks(&balancer));
        let watched = Duration::from_secs(2);
        pause(watched);
        let (slept_after, ran_after) = (sleeps(&balancer), ticks(&balancer));
        for (before, after) in slept.iter().zip(&slept_after) {
            assert!(
                after > before,
                "a worker did not sleep: {slept:?}, then {slept_after:?}"
            );
        }
        let fifth_of_a_core = watched.as_secs() * TICKS_A_SECOND / 5;
        for (thread, ticks) in ran_after {
            let used = ticks - ran[&thread];
            eprintln!("{thread} used {used} ticks in {watched:?}");
            assert!(
                used < fifth_of_a_core,
                "{thread} used {used} ticks in {watched:?}"
            );
        }
    }

    /// The names of the balancer's threads, by id.
    fn threads(balancer: &Balancer) -> BTreeMap<u32, String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap();
        tasks
            .map(|task| task.unwrap())
            .map(|task| {
                let id = task.file_name().to_str().unwrap().parse().unwrap();
                let name = fs::read_to_string(task.path().join("comm")).unwrap();
                (id, name.trim().to_owned())
            })
            .collect()
    }

    /// Processor time of each thread so far: user and system, fields 14 and 15 of proc_pid_stat(5).
    fn ticks(balancer: &Balancer) -> BTreeMap<String, u64> {
        let of = |(id, name): (u32, String)| {
            let path = format!("/proc/{}/task/{id}/stat", balancer.pid());
            let stat = fs::read_to_string(path).unwrap();
            // The name, field 2, stands in parentheses and may contain anything.
            let (_, rest) = stat.rsplit_once(')').unwrap();
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let time: u64 = fields[11..=12]
                .iter()
                .map(|one| one.parse::<u64>().unwrap())
                .sum();
            (format!("{name} ({id})"), time)
        };
        threads(balancer).into_iter().map(of).collect()
    }

    /// A running strace of every thread of a balancer.
    struct Trace {
        strace: Process,
        directory: TempDir,
    }

    impl Trace {
        /// Attaches to it, and returns once that is done.
        fn of(balancer: &Balancer) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let said = directory.path().join("said");
            let mut command = std::process::Command::new("strace");
            command.args(["-ff", "-p", &balancer.pid().to_string(), "-o"]);
            command
                .arg(directory.path().join("trace"))
                .stdout(Stdio::null());
            command.stderr(Stdio::from(fs::File::create(&said).unwrap()));
            let mut strace = Process::start(&mut command);
            let threads = threads(balancer).len();
            until(
                Duration::from_secs(10),
                "strace has attached to every thread",
                || {
                    let text = fs::read_to_string(&said).unwrap();
                    assert!(strace.ended().is_none(), "{text}");
                    // "Process 1 attached with 3 threads", or "Process 1 attached".
                    let all = text.contains(&format!("attached with {threads} threads"));
                    (all || text.matches(" attached").count() >= threads).then_some(())
                },
            );
            Self { strace, directory }
        }

        /// Detaches, and returns the names of the calls that each thread made.
        fn end(mut self) -> BTreeMap<u32, BTreeSet<String>> {
            self.strace.signal(Signal::INT);
            self.strace.wait(Duration::from_secs(10));
            let files = fs::read_dir(self.directory.path())
                .unwrap()
                .map(|one| one.unwrap().path());
            files
                .filter_map(|path| Some((thread_of(&path)?, calls_in(&path))))
                .collect()
        }
    }

    /// strace's files are called `trace.ID`.
    fn thread_of(path: &Path) -> Option<u32> {
        path.extension()?.to_str()?.parse().ok()
    }

    /// A line is `name(arguments) = result`, `<... name resumed>…`, or about a signal or an end.
    fn calls_in(path: &Path) -> BTreeSet<String> {
        let text = fs::read_to_string(path).unwrap();
        let name = |line: &str| -> Option<String> {
            let line = line.strip_prefix("<... ").unwrap_or(line);
            let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
            (end > 0).then(|| line[..end].to_owned())
        };
        text.lines().filter_map(name).collect()
    }
}
