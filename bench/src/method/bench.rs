//! What every method has at hand: who runs where, the tools, the plan, and where results are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::meter;
use crate::method::child::{INTERRUPTED, Stop};
use crate::method::contestant::{self, Refusal, Running, Scene, Tools};
use crate::method::offer::Traffic;
use crate::method::outcome::Absence;
use crate::method::plan::Plan;
use crate::method::topology::{Ground, Lane};

/// Flows that come in during an ordinary warm-up.
const QUICK_FLOWS: u32 = 150_000;

/// Frames per second at which more are brought in: slowly enough for none to be lost.
const GENTLE: f64 = 150_000.0;

/// After so long flows are brought in again: none has ended by then, whoever keeps them (connection
/// tracking forgets UDP after 30 s).
const STALE: Duration = Duration::from_secs(18);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) tools: Tools,
    pub(crate) stop: Stop,
    /// Every window, as it was measured.
    pub(crate) windows: Vec<Value>,
    /// Who could not be had.
    pub(crate) missing: Vec<Absence>,
    /// Blocks of clients that were used.
    blocks: u32,
    /// Who stays in its lane between turns.
    residents: BTreeMap<String, Running>,
    lanes: BTreeMap<String, Lane>,
    work: PathBuf,
    /// Goes last: it is taken down when this is dropped.
    ground: Ground,
}

impl Bench {
    /// With a directory of this run's own.
    ///
    /// # Errors
    ///
    /// [`Ground::take`]'s.
    pub(crate) fn new(plan: Plan, tools: Tools, work: PathBuf, stop: Stop) -> Result<Self, String> {
        Ok(Self {
            ground: Ground::take(&stop)?,
            plan,
            tools,
            work,
            stop,
            windows: Vec::new(),
            missing: Vec::new(),
            blocks: 0,
            residents: BTreeMap::new(),
            lanes: BTreeMap::new(),
        })
    }

    /// Starts a contestant in its lane, in place of the one that is there. Nothing, noted once, if
    /// it cannot be had here or does not start: the others are measured all the same, unless they
    /// cannot be without it.
    pub(crate) fn start(&mut self, who: &str, scene: &Scene) -> Result<Option<Running>, String> {
        drop(self.residents.remove(who));
        if self.missing.iter().any(|absence| absence.what == who) {
            return Ok(None);
        }
        let lane = self.lane(who)?;
        match contestant::start(who, scene, &lane, &self.tools, &self.stop) {
            Ok(running) => Ok(Some(running)),
            Err(Refusal::Failed(why)) if why == INTERRUPTED || is_ours(who) => Err(why),
            Err(refusal) => {
                self.missing.push(Absence {
                    what: who.to_owned(),
                    why: refusal.to_string(),
                });
                eprintln!("  {who}: {refusal}");
                Ok(None)
            }
        }
    }

    /// Has a contestant in its lane for `scene`, and leaves it there: it sleeps until its next turn.
    /// Whether it is to be had.
    pub(crate) fn seat(&mut self, who: &str, scene: &Scene) -> Result<bool, String> {
        if self.resident(who).is_some_and(|one| one.scene == *scene) {
            return Ok(true);
        }
        let Some(running) = self.start(who, scene)? else {
            return Ok(false);
        };
        let _nobody = self.residents.insert(who.to_owned(), running);
        Ok(true)
    }

    /// Who was seated.
    pub(crate) fn resident(&self, who: &str) -> Option<&Running> {
        self.residents.get(who)
    }

    /// Those of `who` that can be had for `scene`, seated.
    pub(crate) fn seat_all(
        &mut self,
        who: &[String],
        scene: &Scene,
    ) -> Result<Vec<String>, String> {
        let mut seated = Vec::new();
        for one in who {
            if self.seat(one, scene)? {
                seated.push(one.clone());
            }
        }
        Ok(seated)
    }

    /// Ends the peers that are seated: the kernel works for some of them even when they have nothing
    /// to do, such as on connections that it tracks.
    pub(crate) fn send_peers_home(&mut self) {
        self.residents.retain(|who, _| is_ours(who));
    }

    /// Traffic for who is seated, as fast as it can be made, nobody looking at it. The flows are
    /// there: they are brought in, unless they were lately.
    pub(crate) fn warm(&mut self, who: &str, size: &str, flows: u32) -> Result<Traffic, String> {
        let running = self
            .residents
            .get_mut(who)
            .ok_or_else(|| format!("{who} is not seated"))?;
        let traffic = Traffic::flood(running, size, flows, self.plan.warmup);
        let is_known = running
            .flows
            .get(&flows)
            .is_some_and(|last| last.elapsed() < STALE);
        if !is_known {
            // Who keeps no flows needs none.
            let (seconds, rate) = if who == "bare" {
                (self.plan.warmup, None)
            } else {
                warm_up(&self.plan, flows)
            };
            let warming = Traffic {
                seconds,
                rate,
                ..traffic.clone()
            };
            warming.send(&self.tools, &self.stop)?;
        }
        // A window has all of few flows in it, and not all of many.
        if !is_known || flows <= QUICK_FLOWS {
            let _before = running.flows.insert(flows, meter::now());
        }
        Ok(traffic)
    }

    /// First of 254 clients whom nobody was lately: 10.1.1.1, 10.1.2.1 and so on.
    pub(crate) fn newcomers(&mut self) -> String {
        self.blocks = self.blocks % 250 + 1;
        format!("10.1.{}.1", self.blocks)
    }

    /// Starts one of ours.
    pub(crate) fn start_ours(&mut self, who: &str, scene: &Scene) -> Result<Running, String> {
        let running = self.start(who, scene)?;
        running.ok_or_else(|| format!("{who} is not to be had"))
    }

    /// The lane of `who`, built if there is none.
    pub(crate) fn lane(&mut self, who: &str) -> Result<Lane, String> {
        if let Some(lane) = self.lanes.get(who) {
            return Ok(lane.clone());
        }
        let lane = self.ground.lane(&self.work)?;
        let _nobody = self.lanes.insert(who.to_owned(), lane.clone());
        Ok(lane)
    }

    /// Keeps a window: what it was of, and what came out.
    pub(crate) fn keep(&mut self, mut of: Value, result: Value) {
        if let Some(fields) = of.as_object_mut() {
            let _before = fields.insert("result".to_owned(), result);
        }
        self.windows.push(of);
    }

    /// Windows that have all fields of `of`.
    pub(crate) fn kept<'a>(&'a self, of: &'a Value) -> impl Iterator<Item = &'a Value> {
        let wanted = of.as_object();
        self.windows.iter().filter(move |window| {
            wanted.is_some_and(|fields| fields.iter().all(|(name, value)| window[name] == *value))
        })
    }

    /// The number of the next round of what is described by `of`.
    pub(crate) fn next_round(&self, of: &Value) -> usize {
        let rounds = self.kept(of).filter_map(|window| window["round"].as_u64());
        rounds
            .max()
            .map_or(0, |last| usize::try_from(last).map_or(0, |last| last + 1))
    }
}

/// Seconds and rate at which so many flows are brought in.
pub(crate) fn warm_up(plan: &Plan, flows: u32) -> (f64, Option<f64>) {
    if flows <= QUICK_FLOWS {
        return (plan.warmup, None);
    }
    (f64::from(flows) / GENTLE + 0.5, Some(GENTLE))
}

/// Whether it is one of ours, without whom nothing is measured.
pub(crate) fn is_ours(who: &str) -> bool {
    ["bare", "ringgate"].contains(&who)
}
