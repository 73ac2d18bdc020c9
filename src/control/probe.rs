//! How checks are carried out: one small state machine for each, fed completions, asking for operations.
//!
//! A machine ([`Probe`]) never does I/O itself and never waits: [`Prober::start`] lets it begin, the loop
//! hands each completion to [`Prober::completed`], and the machine says what is to be done next or how the
//! check has ended. What it owns (socket, buffers) travels with its operations, and is dropped with them.
//!
//! # Promises
//! 1. A check that was begun is answered exactly once: ended, or refused by a driver that is full.
//! 2. It ends within its timeout: every operation is limited to what is left of it.
//! 3. It takes bounded memory and a bounded number of operations, whatever the backend sends.
//! 4. Nothing here blocks: no name is looked up and no file is read when a check begins.
//!
//! | file | carries out |
//! |---|---|
//! | [`tcp`] | `tcp`: a handshake |
//! | [`stream`] | conversations over TCP; a [`Dialogue`] is one without the connection |
//! | [`http`], [`tls`], [`grpc`] | the dialogues, and TLS around one |
//! | [`search`] | looking for bytes in a stream |
//! | [`datagram`] | a question and its answer; an [`Inquiry`] is one without the socket |
//! | [`udp`], [`dns`], [`icmp`] | the inquiries |
//! | [`script`] | programs |
//! | [`trust`] | what TLS needs of files, read when a configuration is taken up |
//! | [`complaint`], [`excerpt`] | what was wrong with an answer, in an operator's words |

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate_config::{Check, TlsCheck};
use rustix::io::Errno;
use rustls::pki_types::ServerName;
use siphasher::sip::SipHasher13;

use super::driver::{Driver, Failure, Operation, OperationId, Outcome, Refused};
use super::health::{CheckId, Reason, Start, Verdict};
use super::slab::{Key, Slab};
use super::truepath::{Caller, Door};
use complaint::Complaint;
use datagram::{Datagram, Inquiry};
use dns::Dns;
use excerpt::Excerpt;
use grpc::Grpc;
use http::Http;
use icmp::Echo;
use script::{Script, Yard};
use stream::{Dialogue, Stream};
use tcp::Tcp;
use tls::Tls;
use trust::{Inside, Trust};
use udp::Udp;

pub(crate) mod complaint;
mod datagram;
mod dns;
mod excerpt;
mod grpc;
mod http;
mod icmp;
mod script;
mod search;
mod stream;
mod tcp;
mod tls;
pub(crate) mod trust;
mod udp;

/// Scripts that run at once; each has two operations under way.
pub(crate) const SCRIPTS_MAX: usize = script::MOST;

/// Checks that are begun in one turn of the loop. When thousands are due at once, at a start, each turn first
/// does what the others have come to; else their answers would lie about until their time was up, and the
/// backends would be blamed for it.
const BEGUN_AT_ONCE: usize = 64;

/// How many operations a machine may have under way at once.
const LANES: usize = 2;

/// Whose completion it is: a run of a check, and which of its operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProbeToken {
    run: Key,
    lane: Lane,
}

/// One of the operations that a machine has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    First,
    Second,
}

/// What a machine wants next.
#[derive(Debug)]
enum Step {
    /// This, in the lane of the operation that has just ended (the first one at the beginning).
    Go(Operation),
    /// At the beginning, one in each lane.
    Both(Operation, Operation),
    /// The operation in the other lane.
    Wait,
    /// The check is over.
    Over(Verdict),
}

/// A check that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Which.
    pub(crate) id: CheckId,
    /// How.
    pub(crate) verdict: Verdict,
    /// How long it took.
    pub(crate) latency: Duration,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More completions are to come.
    Running,
    /// It is over.
    Ended(Ended),
    /// There was no room to carry it out: the driver is full. Nothing was learnt.
    Refused(CheckId),
}

/// The machines.
#[derive(Debug)]
enum Probe {
    Tcp(Tcp),
    Stream(Box<Stream>),
    Datagram(Box<Datagram>),
    Script(Box<Script>),
}

impl Probe {
    /// What follows from the end of an operation.
    fn completed(&mut self, lane: Lane, outcome: Outcome) -> Step {
        match self {
            Self::Tcp(tcp) => tcp.completed(&outcome),
            Self::Stream(stream) => stream.completed(outcome),
            Self::Datagram(datagram) => datagram.completed(outcome),
            Self::Script(script) => script.completed(lane, outcome),
        }
    }
}

/// A check under way.
#[derive(Debug)]
struct Run {
    id: CheckId,
    probe: Probe,
    begun: Instant,
    deadline: Instant,
    /// What the driver is doing for it.
    operations: [Option<OperationId>; LANES],
    /// By which its packets' path is known, if they take one of their own.
    caller: Option<Caller>,
}

/// Whom to ask, and by which socket, if it was made elsewhere.
#[derive(Debug)]
struct Dial {
    address: SocketAddr,
    ready: Option<OwnedFd>,
}

impl Run {
    fn set(&mut self, lane: Lane, operation: Option<OperationId>) {
        let [first, second] = &mut self.operations;
        match lane {
            Lane::First => *first = operation,
            Lane::Second => *second = operation,
        }
    }
}

/// All checks under way.
#[derive(Debug)]
pub(crate) struct Prober {
    runs: Slab<Run>,
    /// Due, and not begun yet.
    due: VecDeque<Start>,
    trust: Trust,
    yard: Yard,
    /// Makes questions differ from each other, unforeseeably.
    nonces: Nonces,
    /// Of checks that have ended.
    callers: Vec<Caller>,
}

impl Prober {
    /// Room for so many checks at once. The seed should be secret.
    pub(crate) fn new(capacity: usize, trust: Trust, seed: u64) -> Self {
        Self {
            runs: Slab::new(capacity),
            due: VecDeque::new(),
            trust,
            yard: Yard::default(),
            nonces: Nonces { seed, given: 0 },
            callers: Vec::new(),
        }
    }

    /// Another configuration is in force: its checks speak TLS like this.
    pub(crate) fn renew(&mut self, trust: Trust) {
        self.trust = trust;
    }

    /// Takes in checks that are to be begun as soon as there is time for them.
    pub(crate) fn queue(&mut self, starts: impl IntoIterator<Item = Start>) {
        self.due.extend(starts);
    }

    /// Those to be begun in this turn.
    pub(crate) fn begun_now(&mut self) -> Vec<Start> {
        let count = self.due.len().min(BEGUN_AT_ONCE);
        self.due.drain(..count).collect()
    }

    /// Whether some are left for the next turn, which should come at once.
    pub(crate) fn is_behind(&self) -> bool {
        !self.due.is_empty()
    }

    /// The callers of checks that have ended since the last time.
    pub(crate) fn take_callers(&mut self) -> Vec<Caller> {
        std::mem::take(&mut self.callers)
    }

    /// Begins a check; through this door, if its packets take a path of their own. With [`Progress::Running`], its
    /// operations' completions are to be handed to [`completed`](Self::completed).
    pub(crate) fn start<T: Copy + From<ProbeToken>>(
        &mut self,
        start: &Start,
        door: Option<Door>,
        now: Instant,
        driver: &mut dyn Driver<T>,
    ) -> Progress {
        let (ready, caller) = door.map(|door| (door.socket, door.caller)).unzip();
        let address = start.path.map_or(start.address, |path| path.asked);
        let Some((probe, step)) = self.begin(start, Dial { address, ready }) else {
            self.callers.extend(caller);
            return Progress::Refused(start.id);
        };
        let run = Run {
            id: start.id,
            probe,
            begun: now,
            deadline: now + start.timeout,
            operations: [None; LANES],
            caller,
        };
        match self.runs.insert(run) {
            Ok(key) => self.follow(key, Lane::First, step, now, driver),
            Err(run) => {
                self.callers.extend(run.caller);
                Progress::Refused(run.id)
            }
        }
    }

    /// The machine of this check, and its first step; `None` when there is no room for it.
    fn begin(&mut self, start: &Start, dial: Dial) -> Option<(Probe, Step)> {
        let (address, check) = (dial.address, &start.check);
        let dialogue: Result<Box<dyn Dialogue>, Verdict> = match &**check {
            Check::Tcp => return Some((Probe::Tcp(Tcp), Tcp::begin(dial))),
            Check::Udp(_) => return Some(ask(dial, Box::new(Udp(Arc::clone(check))))),
            Check::Dns(_) => {
                let dns = Dns::new(check, self.nonces.next());
                return Some(ask(dial, Box::new(dns)));
            }
            Check::Icmp => {
                let echo = Echo::new(address, self.nonces.next());
                return Some(ask(dial, Box::new(echo)));
            }
            Check::Script(script) => {
                return match Script::begin(script, address, &self.yard)? {
                    Ok((script, step)) => Some((Probe::Script(Box::new(script)), step)),
                    Err(errno) => Some(unable(Verdict::Inconclusive(errno))),
                };
            }
            Check::Http(_) => Ok(Box::new(Http::new(check, address))),
            Check::Https(_, tls) => {
                let http = Box::new(Http::new(check, address));
                self.within_tls(Inside::Http, tls, address, http)
            }
            Check::Grpc(_, tls) => match (Grpc::new(check, address), tls) {
                (None, _) => Err(Verdict::Inconclusive(Errno::INVAL)),
                (Some(grpc), None) => Ok(Box::new(grpc)),
                (Some(grpc), Some(tls)) => {
                    self.within_tls(Inside::Grpc, tls, address, Box::new(grpc))
                }
            },
        };
        Some(match dialogue {
            Ok(dialogue) => {
                let (stream, step) = Stream::begin(dial, dialogue);
                (Probe::Stream(Box::new(stream)), step)
            }
            Err(verdict) => unable(verdict),
        })
    }

    fn within_tls(
        &self,
        inside: Inside,
        check: &TlsCheck,
        address: SocketAddr,
        inner: Box<dyn Dialogue>,
    ) -> Result<Box<dyn Dialogue>, Verdict> {
        // Only between a file that has vanished and the next good configuration.
        let config = self.trust.of(inside, check);
        let config = config.ok_or(Verdict::Inconclusive(Errno::NOENT))?;
        let name = match &check.server_name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| Verdict::Inconclusive(Errno::INVAL))?,
            None => ServerName::from(address.ip()),
        };
        match Tls::new(config, name, inner) {
            Ok(tls) => Ok(Box::new(tls)),
            Err(error) => Err(Verdict::Failure(Reason::Answer(Complaint::Tls(
                Excerpt::print(&error),
            )))),
        }
    }

    /// An operation of a check has ended.
    pub(crate) fn completed<T: Copy + From<ProbeToken>>(
        &mut self,
        token: ProbeToken,
        outcome: Outcome,
        now: Instant,
        driver: &mut dyn Driver<T>,
    ) -> Progress {
        let ProbeToken { run: key, lane } = token;
        let Some(run) = self.runs.get_mut(key) else {
            // Cancelled when its check ended; what it owned is dropped here.
            return Progress::Running;
        };
        run.set(lane, None);
        let step = run.probe.completed(lane, outcome);
        self.follow(key, lane, step, now, driver)
    }

    /// Does what a machine asks for.
    fn follow<T: Copy + From<ProbeToken>>(
        &mut self,
        key: Key,
        mut lane: Lane,
        mut step: Step,
        now: Instant,
        driver: &mut dyn Driver<T>,
    ) -> Progress {
        let mut second = None;
        loop {
            let Some(run) = self.runs.get_mut(key) else {
                return Progress::Running;
            };
            let operation = match step {
                Step::Go(operation) => operation,
                Step::Both(operation, other) => {
                    second = Some(other);
                    operation
                }
                Step::Wait => return Progress::Running,
                Step::Over(verdict) => {
                    let ended = Ended {
                        id: run.id,
                        verdict,
                        latency: now.saturating_duration_since(run.begun),
                    };
                    self.end(key, driver);
                    return Progress::Ended(ended);
                }
            };
            let left = run.deadline.saturating_duration_since(now);
            if left.is_zero() {
                let outcome = operation.outcome(Err(Failure::TimedOut));
                step = run.probe.completed(lane, outcome);
                continue;
            }
            let token = ProbeToken { run: key, lane };
            match driver.start(operation, Some(left), token.into()) {
                Ok(operation) => run.set(lane, Some(operation)),
                Err(Refused { .. }) => {
                    let id = run.id;
                    self.end(key, driver);
                    return Progress::Refused(id);
                }
            }
            let Some(operation) = second.take() else {
                return Progress::Running;
            };
            (lane, step) = (Lane::Second, Step::Go(operation));
        }
    }

    /// Forgets a check, with what is still under way for it.
    fn end<T: Copy>(&mut self, key: Key, driver: &mut dyn Driver<T>) {
        let mut run = self.runs.take(key);
        self.callers
            .extend(run.as_mut().and_then(|run| run.caller.take()));
        for operation in run.iter().flat_map(|run| run.operations).flatten() {
            driver.cancel(operation);
        }
    }
}

/// A socket for a check of this kind, not connected, and its IANA protocol number.
///
/// # Errors
///
/// Why there is none; [`Errno::INVAL`] for kinds that ask neither by TCP nor by UDP.
pub(crate) fn socket(check: &Check, address: SocketAddr) -> Result<(OwnedFd, u8), Errno> {
    match check {
        Check::Udp(_) | Check::Dns(_) => Ok((udp::socket(address)?, UDP)),
        Check::Tcp | Check::Http(_) | Check::Https(..) | Check::Grpc(..) => {
            Ok((tcp::socket(address)?, TCP))
        }
        Check::Icmp | Check::Script(_) => Err(Errno::INVAL),
    }
}

/// IANA protocol numbers.
const TCP: u8 = ringgate_config::Protocol::Tcp.number();
const UDP: u8 = ringgate_config::Protocol::Udp.number();

fn ask(dial: Dial, inquiry: Box<dyn Inquiry>) -> (Probe, Step) {
    let (datagram, step) = Datagram::begin(dial, inquiry);
    (Probe::Datagram(Box::new(datagram)), step)
}

/// A check that is over before it has begun.
const fn unable(verdict: Verdict) -> (Probe, Step) {
    (Probe::Tcp(Tcp), Step::Over(verdict))
}

/// Numbers that nobody can guess, made from a count by a keyed hash.
#[derive(Debug)]
struct Nonces {
    seed: u64,
    given: u64,
}

impl Nonces {
    fn next(&mut self) -> u64 {
        self.given = self.given.wrapping_add(1);
        SipHasher13::new_with_keys(self.seed, 1).hash(&self.given.to_le_bytes())
    }
}

#[cfg(test)]
mod tests;
