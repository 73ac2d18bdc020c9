//! Checks that are no conversation over TCP: datagrams, name servers, pings, scripts.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, RCODE, ResourceRecord};

use super::super::complaint::Complaint;
use super::super::script;
use super::world::{Answer, TIMEOUT, ask, datagrams};
use super::*;

const UDP: &str = "kind = \"udp\", send = 'are you there\\x00', expect = \"yes\"";
const PATIENT: &str = "kind = \"udp\", send = \"x\", silence = \"passes\"";

fn closed_port() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

fn datagrams_are_judged(prefer: Prefer) {
    let good = datagrams("127.0.0.1:0", |asked| {
        vec![if asked == b"are you there\0" {
            b"oh yes".to_vec()
        } else {
            vec![]
        }]
    });
    let six = datagrams("[::1]:0", |_| vec![b"yes".to_vec()]);
    let wrong = datagrams("127.0.0.1:0", |_| vec![b"no\n".to_vec(), b"yes".to_vec()]);
    let empty = datagrams("127.0.0.1:0", |_| vec![Vec::new()]);
    let silent = datagrams("127.0.0.1:0", |_| Vec::new());
    let closed = closed_port();
    let answers = ask(
        prefer,
        &[
            (UDP, good),
            (UDP, six),
            (PATIENT, good),
            (PATIENT, silent),
            (UDP, wrong),
            (UDP, empty),
            (UDP, silent),
            (UDP, closed),
            (PATIENT, closed),
        ],
    );
    let (good, bad) = answers.split_at(4);
    for answer in good {
        assert_eq!(answer.verdict, Verdict::Success, "{good:?}");
    }
    assert!(good[3].latency >= TIMEOUT, "silence takes its time");
    let said = Complaint::Unexpected(Excerpt::of(b"no\n"));
    assert_eq!(bad[0].complaint(), said);
    let nothing = Complaint::Unexpected(Excerpt::of(b""));
    assert_eq!(
        bad[1].complaint(),
        nothing,
        "an empty datagram is an answer"
    );
    assert_eq!(bad[2].complaint(), Complaint::NoAnswer);
    let refused = Verdict::Failure(Reason::Refused);
    assert_eq!(bad[3].verdict, refused, "the port is closed");
    assert_eq!(bad[4].verdict, refused, "and that is not silence");
    assert!(bad[4].latency < TIMEOUT);
}

#[test]
fn datagrams_are_judged_over_io_uring() {
    datagrams_are_judged(Prefer::IoUring);
}

#[test]
fn datagrams_are_judged_over_epoll() {
    datagrams_are_judged(Prefer::Epoll);
}

/// A name server: `a.example` has an address, `no.example` is none, all else fails.
fn name_server(asked: &[u8]) -> Vec<Vec<u8>> {
    let question = Packet::parse(asked).unwrap();
    let name = question.questions[0].qname.to_string();
    let mut answer = question.clone().into_reply();
    match name.as_str() {
        "a.example" => {
            let address = u32::from_be_bytes([192, 0, 2, 1]);
            answer.answers.push(ResourceRecord::new(
                question.questions[0].qname.clone(),
                CLASS::IN,
                60,
                RData::A(A { address }),
            ));
        }
        "no.example" => *answer.rcode_mut() = RCODE::NameError,
        "forged.example" => {
            let mut forged = answer.clone();
            forged.set_id(answer.id().wrapping_add(1));
            *forged.rcode_mut() = RCODE::Refused;
            return vec![
                forged.build_bytes_vec().unwrap(),
                answer.build_bytes_vec().unwrap(),
            ];
        }
        "echo.example" => return vec![asked.to_vec()],
        "flood.example" => {
            answer.set_id(answer.id().wrapping_add(1));
            return vec![answer.build_bytes_vec().unwrap(); 100];
        }
        "short.example" => return vec![asked[..5].to_vec()],
        _ => *answer.rcode_mut() = RCODE::ServerFailure,
    }
    vec![answer.build_bytes_vec().unwrap()]
}

#[test]
fn a_name_servers_answer_is_judged_by_its_code_and_its_records() {
    let server = datagrams("127.0.0.1:0", name_server);
    let of = |keys: &str| -> Answer {
        let health = format!("kind = \"dns\", {keys}");
        ask(Prefer::Auto, &[(&health, server)])[0]
    };
    let good = [
        "name = \"a.example\"",
        "name = \"a.example.\", expect = \"192.0.2.1\"",
        "name = \"no.example\", rcode = \"NXDOMAIN\"",
        "name = \"other.example\", rcode = \"SERVFAIL\"",
        "name = \"forged.example\"",
    ];
    for keys in good {
        assert_eq!(of(keys).verdict, Verdict::Success, "{keys}");
    }
    let failed = of("name = \"other.example\"").complaint().to_string();
    assert!(
        failed.starts_with("the name server answers SERVFAIL, expected NOERROR"),
        "{failed}"
    );
    let other = of("name = \"a.example\", expect = \"192.0.2.2\"").complaint();
    assert_eq!(
        other.to_string(),
        "none of the 1 answers says \"192.0.2.2\""
    );
    for name in ["echo.example", "short.example"] {
        let complaint = of(&format!("name = \"{name}\"")).complaint();
        assert!(
            matches!(complaint, Complaint::NotDns(_)),
            "{name}: {complaint:?}"
        );
    }
    let flood = of("name = \"flood.example\"").complaint();
    assert_eq!(flood, Complaint::Endless(64));
}

#[test]
#[ignore = "needs CAP_NET_RAW, or net.ipv4.ping_group_range"]
fn this_host_answers_pings_in_both_families() {
    let four = SocketAddr::from(([127, 0, 0, 1], 0));
    let six = "[::1]:0".parse().unwrap();
    for prefer in [Prefer::IoUring, Prefer::Epoll] {
        for answer in ask(
            prefer,
            &[("kind = \"icmp\"", four), ("kind = \"icmp\"", six)],
        ) {
            assert_eq!(answer.verdict, Verdict::Success);
        }
    }
}

/// A shell script in a folder that is gone with its guard.
fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Runs these programs at once.
fn run_scripts(prefer: Prefer, scripts: &[(&Path, &str)]) -> Vec<Answer> {
    let keys: Vec<String> = scripts
        .iter()
        .map(|(path, more)| format!("kind = \"script\", command = \"{}\"{more}", path.display()))
        .collect();
    let address = SocketAddr::from(([10, 2, 0, 1], 5432));
    let all: Vec<_> = keys.iter().map(|keys| (keys.as_str(), address)).collect();
    ask(prefer, &all)
}

fn a_script_decides_by_its_status(prefer: Prefer) {
    let folder = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| program(folder.path(), name, text);
    let environment = folder.path().join("environment");
    let good = program(
        "good",
        &format!(
            "{{ env; echo \"$1,$2\"; grep SigBlk /proc/self/status; }} >{}",
            environment.display()
        ),
    );
    let bad = program(
        "bad",
        "echo; echo the base is 'closed' >&2; echo more; exit 3",
    );
    let killed = program("killed", "kill -TERM $$");
    let chatty = program("chatty", "head -c 1000000 /dev/zero | tr '\\0' x; exit 1");
    let daemon = program("daemon", "sleep 60 & echo left one behind; exit 1");
    let scripts: [(&Path, &str); 5] = [
        (&good, ", arguments = [\"a b\", \"$HOME\"]"),
        (&bad, ""),
        (&killed, ""),
        (&chatty, ""),
        (&daemon, ""),
    ];
    let answers = run_scripts(prefer, &scripts);
    assert_eq!(answers[0].verdict, Verdict::Success);
    let told = std::fs::read_to_string(&environment).unwrap();
    for line in [
        "RINGGATE_ADDRESS=10.2.0.1",
        "RINGGATE_PORT=5432",
        "a b,$HOME",
    ] {
        assert!(told.lines().any(|one| one == line), "{line}: {told}");
    }
    assert!(told.contains("SigBlk:\t0000000000000000"), "{told}");
    assert!(!told.contains("CARGO"), "nothing of our own: {told}");
    let said = |text: &str| Excerpt::of(text.as_bytes());
    assert_eq!(
        answers[1].complaint(),
        Complaint::Exit(3, said("the base is closed"))
    );
    assert_eq!(
        answers[2].complaint(),
        Complaint::Signal(15, said("it said nothing"))
    );
    assert_eq!(
        answers[3].complaint(),
        Complaint::Exit(1, said(&"x".repeat(200)))
    );
    assert_eq!(
        answers[4].complaint(),
        Complaint::Exit(1, said("left one behind"))
    );
    assert!(
        answers[4].latency < TIMEOUT,
        "nobody waits for what it left behind"
    );
}

#[test]
fn a_script_decides_by_its_status_over_io_uring() {
    a_script_decides_by_its_status(Prefer::IoUring);
}

#[test]
fn a_script_decides_by_its_status_over_epoll() {
    a_script_decides_by_its_status(Prefer::Epoll);
}

#[test]
fn a_script_that_takes_too_long_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let text = format!(
        "sleep 60 & echo $! >{0}; echo $$ >>{0}; echo working; wait",
        pids.display()
    );
    let slow = program(folder.path(), "slow", &text);
    let [answer] = run_scripts(Prefer::Auto, &[(&slow, "")])[..] else {
        panic!();
    };
    assert_eq!(
        answer.complaint(),
        Complaint::SlowScript(Excerpt::of(b"working"))
    );
    let pids = std::fs::read_to_string(pids).unwrap();
    let end = now() + Duration::from_secs(10);
    for pid in pids.lines() {
        // A zombie of nobody's that waits for init is dead, too.
        let is_alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while is_alive() {
            assert!(now() < end, "{pid} lives");
            std::thread::yield_now();
        }
    }
}

#[test]
fn what_cannot_be_run_says_nothing_of_the_backend() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let [answer] = run_scripts(Prefer::Auto, &[(&gone, "")])[..] else {
        panic!();
    };
    assert_eq!(answer.verdict, Verdict::Inconclusive(Errno::NOENT));
}

#[test]
fn no_more_scripts_run_at_once_than_there_is_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let slow = program(folder.path(), "slow", "sleep 60");
    let check = Arc::new(Check::Script(ringgate_config::ScriptCheck {
        command: slow,
        arguments: Vec::new(),
    }));
    let specs = (0..40).map(|port| Spec {
        check: Some(Arc::clone(&check)),
        ..spec(SocketAddr::from(([10, 2, 0, 1], port)))
    });
    let mut checker = Checker::new(1);
    checker.reconcile(specs, now());
    let mut starts = Vec::new();
    checker.tick(now(), &mut starts);
    let (mut driver, _) = driver::open::<ProbeToken>(Prefer::Auto, 256).unwrap();
    let mut prober = Prober::new(256, Trust::default(), 1);
    let progresses: Vec<Progress> = starts
        .iter()
        .map(|start| prober.start(start, None, now(), &mut *driver))
        .collect();
    let running = progresses.iter().filter(|one| **one == Progress::Running);
    assert_eq!(running.count(), script::MOST);
    let refused = Progress::Refused(starts[39].id);
    assert_eq!(progresses[39], refused);
    // When those are over there is room again.
    let (mut ended, mut done) = (0, Vec::new());
    while ended < script::MOST {
        driver.wait(Some(TIMEOUT), &mut done).unwrap();
        for end in done.drain(..) {
            let progress = prober.completed(end.token, end.outcome, now(), &mut *driver);
            ended += usize::from(matches!(progress, Progress::Ended(_)));
        }
    }
    let end = now() + Duration::from_secs(10);
    while prober.start(&starts[39], None, now(), &mut *driver) != Progress::Running {
        assert!(now() < end, "{prober:?}");
        std::thread::yield_now();
    }
}
