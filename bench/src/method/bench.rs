//! What every method has at hand: the topology, the tools, the plan, and where results are kept.

use serde_json::Value;

use crate::method::child::{INTERRUPTED, Stop};
use crate::method::contestant::{self, Refusal, Running, Scene, Tools};
use crate::method::outcome::Absence;
use crate::method::plan::Plan;
use crate::method::topology::Topology;

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
    /// Goes last: it is taken down when this is dropped.
    _topology: Topology,
}

impl Bench {
    /// With a topology of its own.
    ///
    /// # Errors
    ///
    /// [`Topology::build`]'s.
    pub(crate) fn new(plan: Plan, tools: Tools, stop: Stop) -> Result<Self, String> {
        Ok(Self {
            _topology: Topology::build(&stop)?,
            plan,
            tools,
            stop,
            windows: Vec::new(),
            missing: Vec::new(),
        })
    }

    /// Starts a contestant. Nothing, noted once, if it cannot be had here or does not start: the
    /// others are measured all the same, unless they cannot be without it.
    pub(crate) fn start(&mut self, who: &str, scene: &Scene) -> Result<Option<Running>, String> {
        if self.missing.iter().any(|absence| absence.what == who) {
            return Ok(None);
        }
        match contestant::start(who, scene, &self.tools, &self.stop) {
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

    /// Starts one of ours.
    pub(crate) fn start_ours(&mut self, who: &str, scene: &Scene) -> Result<Running, String> {
        let running = self.start(who, scene)?;
        running.ok_or_else(|| format!("{who} is not to be had"))
    }

    /// Keeps a window: what it was of, and what came out.
    pub(crate) fn keep(&mut self, mut of: Value, result: Value) {
        if let Some(fields) = of.as_object_mut() {
            let _before = fields.insert("result".to_owned(), result);
        }
        self.windows.push(of);
    }
}

fn is_ours(who: &str) -> bool {
    ["bare", "ringgate"].contains(&who)
}
