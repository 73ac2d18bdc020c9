//! The flow log: of one in N flows, when it began, when and why it ended, and what each side sent.
//!
//! Workers keep [accounts](FlowLog) and tell nobody. Here they are looked at, a tenth of them each [`PACE`], and
//! the flow table asked whether their flows are still there. So a beginning is told within a second, an end within two,
//! with the workers' own times. No more is told in a turn than control has time for: what waits, waits in its account,
//! and when accounts run out, flows that begin are not followed, which is counted and told.
//!
//! Another N, or none, is another log: with the next snapshot workers write there, and flows of the last one are told as
//! ended with what they carried until then.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringgate_config::limits::FOLLOWED_FLOWS;
use ringgate_conntrack::{Direction, FlowTable, Secret, State};
use ringgate_dataplane::clock::Millis;
use ringgate_dataplane::flow_log::{Account, FlowLog, Succession, Wish};
use ringgate_dataplane::snapshot::Snapshot;

use super::events::utc;
use crate::log::limited;

/// How often accounts are looked at.
const PACE: Duration = Duration::from_millis(100);

/// Looks for all of them.
const LOOKS: u32 = 10;

/// Lines that are told in a look: some milliseconds' work, and ten thousand a second.
const LINES: u32 = 1024;

/// How long a connection that is closed must be silent: its last acknowledgments are its own still.
const SETTLED_MS: u64 = 1000;

/// How much the clock of people may go another way than the workers' before times are told by it anew. Until then
/// a moment is told alike in every line.
const ASTRAY: Duration = Duration::from_millis(100);

/// The number of TCP (IANA).
const TCP: u8 = 6;

/// What is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// The flows.
    pub(crate) flows: &'a FlowTable,
    /// The newest snapshot.
    pub(crate) snapshot: &'a Snapshot,
    /// The workers' time.
    pub(crate) now: Millis,
    /// The same moment for everybody.
    pub(crate) wall: SystemTime,
}

/// What was told until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    /// Of how many flows one is told; `None`: of none.
    pub(crate) every: Option<u32>,
    /// Flows that can be followed at once.
    pub(crate) capacity: usize,
    /// Flows that are.
    pub(crate) open: usize,
    /// Beginnings that were told.
    pub(crate) began: u64,
    /// Ends.
    pub(crate) ended: u64,
    /// Flows that were chosen, and of which something could not be told.
    pub(crate) lost: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Chronicle {
    secret: Secret,
    current: Option<Arc<FlowLog>>,
    /// Logs that workers give up, with the snapshot by which they do, once it is published.
    given_up: Vec<(Arc<FlowLog>, Option<u64>)>,
    next_bucket: u32,
    next_look: Option<Instant>,
    /// When the workers' clock was at zero.
    epoch: Option<SystemTime>,
    told: Told,
    lost_told: u64,
}

/// How a flow was found to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The flow table has it as closed, or not any more.
    Gone,
    /// Another one has its key.
    Succeeded(Succession),
    /// It goes on, but is not followed any more.
    LogEnded,
    /// It may go on, but the balancer does not.
    Stopped,
}

impl Chronicle {
    /// Of nothing yet. Flows are chosen by a secret, so that nobody can have his left out, or all of them told.
    pub(crate) fn new(secret: Secret) -> Self {
        Self {
            secret,
            current: None,
            given_up: Vec::new(),
            next_bucket: 0,
            next_look: None,
            epoch: None,
            told: Told::default(),
            lost_told: 0,
        }
    }

    /// Tells of one in `every` flows, or of none, from the next snapshot on, which is to have what is given back.
    pub(crate) fn adapt(&mut self, every: Option<u32>) -> Option<Arc<FlowLog>> {
        if self.current.as_ref().map(|log| log.every()) != every {
            let old = self.current.take();
            self.given_up.extend(old.map(|old| (old, None)));
            self.next_bucket = 0;
            let log = every.map(|every| FlowLog::new(every, FOLLOWED_FLOWS, self.secret));
            match log.transpose() {
                Ok(log) => self.current = log.map(Arc::new),
                Err(error) => {
                    limited!(error, %error, "no memory for the flow log: flows are not logged");
                }
            }
        }
        self.current.clone()
    }

    /// A snapshot with what was given back last is the workers'.
    pub(crate) fn published(&mut self, generation: u64) {
        for (_, since) in &mut self.given_up {
            since.get_or_insert(generation);
        }
    }

    /// Whether there is something to look at now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let has_some = self.current.is_some() || !self.given_up.is_empty();
        let is_due = has_some && self.next_look.is_none_or(|due| now >= due);
        if is_due {
            self.next_look = Some(now + PACE);
        }
        is_due
    }

    /// Looks at some accounts, and tells. `has_adopted`: whether workers work with a snapshot.
    pub(crate) fn go_on(&mut self, scene: &Scene<'_>, has_adopted: impl Fn(u64) -> bool) {
        let left = Cell::new(LINES);
        let scene = &self.timed(*scene);
        if let Some(log) = self.current.clone() {
            let next = self.next_bucket;
            let end = next.saturating_add(log.buckets().div_ceil(LOOKS));
            self.next_bucket = if end < log.buckets() { end } else { 0 };
            self.look(&log, next..end, (scene, &left), None);
        }
        let mut given_up = std::mem::take(&mut self.given_up);
        given_up.retain(|(log, since)| {
            if !since.is_some_and(&has_adopted) {
                return true;
            }
            self.look(log, 0..log.buckets(), (scene, &left), Some(Over::LogEnded));
            if log.open() > 0 {
                return true;
            }
            self.told.lost += log.lost();
            false
        });
        self.given_up = given_up;
        let lost = self.account().lost;
        if lost > self.lost_told {
            let (now, capacity) = (lost - self.lost_told, FOLLOWED_FLOWS);
            self.lost_told = lost;
            limited!(
                warn,
                lost = now,
                capacity,
                "flows are missing in the flow log: more are to be followed than there is room for; a greater \
                 `flows` in [log] chooses fewer"
            );
        }
    }

    /// Tells all that there is: the balancer stops.
    pub(crate) fn stop(&mut self, scene: &Scene<'_>) {
        let left = Cell::new(u32::MAX);
        let scene = &self.timed(*scene);
        let given_up = std::mem::take(&mut self.given_up);
        let all = given_up.into_iter().map(|(log, _)| log);
        for log in all.chain(self.current.take()) {
            self.look(&log, 0..log.buckets(), (scene, &left), Some(Over::Stopped));
            self.told.lost += log.lost();
        }
    }

    /// The same, with the time of day by which all is told.
    fn timed<'a>(&mut self, scene: Scene<'a>) -> Scene<'a> {
        let now = Duration::from_millis(scene.now.0);
        let epoch = scene.wall.checked_sub(now).unwrap_or(UNIX_EPOCH);
        let is_right = |known: &SystemTime| {
            let ahead = known.duration_since(epoch);
            let behind = epoch.duration_since(*known);
            ahead.or(behind).is_ok_and(|by| by < ASTRAY)
        };
        let epoch = *self
            .epoch
            .insert(self.epoch.filter(is_right).unwrap_or(epoch));
        Scene {
            wall: epoch + now,
            ..scene
        }
    }

    /// What was told until now.
    pub(crate) fn account(&self) -> Told {
        let logs = || {
            let given_up = self.given_up.iter().map(|(log, _)| log);
            given_up.chain(&self.current)
        };
        let current = self.current.as_ref();
        Told {
            every: current.map(|log| log.every()),
            capacity: current.map_or(0, |log| log.capacity()),
            open: logs().map(|log| log.open()).sum(),
            lost: self.told.lost + logs().map(|log| log.lost()).sum::<u64>(),
            ..self.told
        }
    }

    /// Looks at some accounts of a log, and tells as long as lines are `left`. `ends`: flows are over for the log,
    /// wherever they go on.
    fn look(
        &mut self,
        log: &FlowLog,
        buckets: Range<u32>,
        (scene, left): (&Scene<'_>, &Cell<u32>),
        ends: Option<Over>,
    ) {
        while left.get() > 0
            && let Some((account, how)) = log.take_succeeded()
        {
            left.set(left.get() - 1);
            self.tell_end(&account, Over::Succeeded(how), scene);
        }
        let wish = |account: &Account| {
            if left.get() == 0 {
                return Wish::Keep;
            }
            let wish = match (ends.is_some() || is_over(account, scene), account.is_told) {
                (true, _) => Wish::Close,
                (false, false) => Wish::Tell,
                (false, true) => return Wish::Keep,
            };
            left.set(left.get() - 1);
            wish
        };
        let done = |account: &Account, wish: Wish| match wish {
            Wish::Close => {
                let over = ends.filter(|_| !is_over(account, scene));
                self.tell_end(account, over.unwrap_or(Over::Gone), scene);
            }
            Wish::Tell | Wish::Keep => self.tell_beginning(account, scene),
        };
        log.look(buckets, wish, done);
    }

    fn tell_beginning(&mut self, account: &Account, scene: &Scene<'_>) {
        self.told.began += 1;
        let Named {
            client,
            listen,
            protocol,
            service,
            backend,
        } = Named::of(account, scene);
        let began = scene.at(account.began);
        tracing::info!(
            target: crate::log::FLOWS,
            protocol, client, listen, service, backend, began,
            "flow began"
        );
    }

    /// Tells the beginning, too, if that was not told.
    fn tell_end(&mut self, account: &Account, over: Over, scene: &Scene<'_>) {
        if !account.is_told {
            self.tell_beginning(account, scene);
        }
        self.told.ended += 1;
        let Named {
            client,
            listen,
            protocol,
            service,
            backend,
        } = Named::of(account, scene);
        let (began, ended) = (scene.at(account.began), scene.at(account.last()));
        let (sent, replies) = (account.client, account.replies);
        tracing::info!(
            target: crate::log::FLOWS,
            protocol, client, listen, service, backend, began, ended,
            duration_ms = account.last().0.saturating_sub(account.began.0),
            reason = reason(account, over, scene),
            packets = sent.packets,
            bytes = sent.bytes,
            // Nothing where they do not come by.
            reply_packets = account.has_replies.then_some(replies.packets),
            reply_bytes = account.has_replies.then_some(replies.bytes),
            "flow ended"
        );
    }
}

impl Scene<'_> {
    /// A moment of the workers' clock as everybody writes it.
    fn at(&self, moment: Millis) -> String {
        let ago = Duration::from_millis(self.now.0.saturating_sub(moment.0));
        utc(self.wall.checked_sub(ago).unwrap_or(self.wall))
    }

    /// How long ago a flow's last packet came, whole seconds.
    fn silence(&self, account: &Account) -> u64 {
        self.now.0.saturating_sub(account.last().0) / 1000
    }
}

/// Whose a flow is, in words. No service: it is gone from the configuration.
struct Named {
    client: String,
    listen: String,
    protocol: String,
    service: Option<String>,
    backend: String,
}

impl Named {
    fn of(account: &Account, scene: &Scene<'_>) -> Self {
        let key = &account.key;
        let service = scene.snapshot.service(key.destination(), key.protocol());
        Self {
            client: key.source().to_string(),
            listen: key.destination().to_string(),
            protocol: match key.protocol() {
                TCP => "tcp".to_owned(),
                17 => "udp".to_owned(),
                other => other.to_string(),
            },
            service: service.map(|service| service.name.to_string()),
            backend: account.backend.to_string(),
        }
    }
}

/// Whether the flow is over, and nothing of it is under way any more.
fn is_over(account: &Account, scene: &Scene<'_>) -> bool {
    let (key, flows) = (&account.key, scene.flows);
    match flows.lookup(key, flows.hash(key), scene.now.seconds()) {
        Some(found) if found.state.is_closed() => {
            scene.now.0.saturating_sub(account.last().0) >= SETTLED_MS
        }
        Some(_) => false,
        None => true,
    }
}

/// Why a flow ended, one word.
fn reason(account: &Account, over: Over, scene: &Scene<'_>) -> &'static str {
    use Direction::{FromBackend, FromClient};
    let signs = account.signs;
    let fins = [FromClient, FromBackend].map(|side| signs.has_fin(side));
    let is_closed = match (fins, over) {
        ([true, true], _) => true,
        // That the other side has nothing more to say either was not seen, or is told by what came after.
        ([true, false], _) if !account.has_replies => true,
        ([false, false], _) => false,
        (_, over) => over == Over::Succeeded(Succession::Renewed),
    };
    if is_closed {
        return "closed";
    }
    if signs.has_reset(FromClient) {
        return "reset-by-client";
    }
    if signs.has_reset(FromBackend) {
        return "reset-by-backend";
    }
    if signs.is_flushed() {
        return "flushed";
    }
    match over {
        Over::Succeeded(Succession::Moved) => "moved",
        Over::LogEnded => "log-ended",
        Over::Stopped => "stopped",
        Over::Gone | Over::Succeeded(Succession::Renewed) => {
            // A second's doubt on either side: the table counts whole ones.
            let lifetime = lifetime(account, fins, scene);
            match lifetime.is_some_and(|lifetime| scene.silence(account) + 1 < lifetime) {
                true => "displaced",
                false => "idle",
            }
        }
    }
}

/// How long such a flow is kept after its last packet, seconds; `None`: its backend is gone, and nobody knows.
fn lifetime(account: &Account, fins: [bool; 2], scene: &Scene<'_>) -> Option<u64> {
    let backend = scene.snapshot.backend(account.owner)?;
    let state = match (account.key.protocol(), fins) {
        (TCP, [true, _]) => State::ClientClosed,
        (TCP, [_, true]) => State::BackendClosed,
        (TCP, _) if account.client.packets > 1 => State::Established,
        (TCP, _) => State::Opening,
        _ if account.replies.packets > 0 => State::TwoWay,
        _ => State::OneWay,
    };
    Some(scene.flows.lifetime(backend.profile, state).0.into())
}

#[cfg(test)]
mod tests;
