//! What a run measures, in which order: first what the project has set itself, each with few windows;
//! then the rest; then what is left of the time makes the first figures better.

use crate::method::bench::Bench;
use crate::method::contestant::{self, Scene};
use crate::method::measure::{Arguments, Method};
use crate::method::outcome::Row;
use crate::method::plan::Plan;
use crate::method::rate::Rates;
use crate::method::{connections, disturbance, idle, latency, loss, step};

/// Peers that forward UDP; others take connections.
const PACKET_PEERS: [&str; 3] = ["kernel", "nftables", "nftables-flowtable"];

/// Who is asked to hold connections: one that keeps a line of a table for each, and those that keep
/// two sockets.
const HOLDERS: [&str; 3] = ["ringgate", "haproxy", "nginx"];

/// Time that the microbenchmarks take, seconds.
const STAGES: f64 = 6.0;

/// The flows of the aim, and those that they are compared with.
const MANY_AND_FEW: [u32; 2] = [1_000, 1_000_000];

/// One thing to do.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) what: String,
    /// That it takes.
    pub(crate) seconds: f64,
    pub(crate) how: How,
}

/// How it is done.
#[derive(Debug)]
pub(crate) enum How {
    Rates(Rates),
    /// The search, by these.
    Loss(Vec<String>),
    /// So many rounds, at what the search found.
    Latency(usize),
    /// By these, so many rounds.
    Connections(Vec<String>, usize),
    Hold(String),
    Bench(fn(&mut Bench) -> Result<Vec<Row>, String>),
    /// The microbenchmarks.
    Stages,
}

/// What has no conditions: what it belongs to, its name, what it takes, and how.
type Simple = (
    Method,
    &'static str,
    fn(&Plan) -> f64,
    fn(&mut Bench) -> Result<Vec<Row>, String>,
);

/// The agenda of a run.
pub(crate) fn of(arguments: &Arguments, plan: &Plan) -> Vec<Item> {
    let agenda = Agenda { arguments, plan };
    let all = [agenda.promises(), agenda.rest(), agenda.refinements()];
    all.into_iter().flatten().collect()
}

#[derive(Debug)]
struct Agenda<'a> {
    arguments: &'a Arguments,
    plan: &'a Plan,
}

impl Agenda<'_> {
    /// What the project has set itself, shortly.
    fn promises(&self) -> Vec<Item> {
        let (first, few) = (self.plan.first_rounds(), self.plan.few_rounds());
        let half = self.plan.rounds.div_ceil(2);
        let mut items = Vec::new();
        let everybody = [pair(), self.packet_peers()].concat();
        items.extend(self.rates(everybody, Scene::plain(self.plan.flows), &["64"], half));
        if self.has(Method::Loss) || self.has(Method::Latency) {
            let what = "rates without loss, bare and ringgate".to_owned();
            let seconds = loss::estimate(self.plan, 2);
            items.push(item(what, seconds, How::Loss(pair())));
        }
        items.extend(self.latency(few));
        items.extend(self.connections(first));
        items.extend(self.flows(&MANY_AND_FEW, first));
        items.extend(self.simple(&[
            (Method::Idle, "idle", idle::estimate, idle::measure),
            (
                Method::Idle,
                "first packets after idling",
                idle::estimate_first,
                idle::first_packets,
            ),
        ]));
        items
    }

    /// What else is on the page.
    fn rest(&self) -> Vec<Item> {
        let few = self.plan.few_rounds();
        let plain = Scene::plain(self.plan.flows);
        let mut items = Vec::new();
        // Later than the first half: the host may be busy with something else by now.
        let half = self.plan.rounds / 2;
        items.extend(self.rates(pair(), plain.clone(), &["64"], half));
        items.extend(self.simple(&[
            (
                Method::Stages,
                "cost between the interfaces",
                step::estimate,
                step::measure,
            ),
            (
                Method::Reset,
                "resets",
                disturbance::estimate_reset,
                disturbance::resets,
            ),
        ]));
        let sizes: Vec<&str> = self.arguments.sizes.iter().map(String::as_str).collect();
        let others: Vec<&str> = sizes.into_iter().filter(|size| *size != "64").collect();
        items.extend(self.rates(pair(), plain, &others, few));
        for mode in contestant::modes().filter(|mode| *mode != "nat") {
            let scene = Scene {
                mode,
                ..Scene::plain(self.plan.flows)
            };
            items.extend(self.rates(pair(), scene, &["64"], few));
        }
        items.extend(self.ipv6(few));
        items.extend(self.simple(&[
            (
                Method::Reload,
                "reloads",
                disturbance::estimate_reload,
                disturbance::reloads,
            ),
            (
                Method::Churn,
                "changes of backends",
                disturbance::estimate_churn,
                disturbance::churn,
            ),
        ]));
        items.extend(self.held());
        items.extend(self.flows(&[1], few));
        if self.has(Method::Stages) {
            items.push(item(
                "cost by step in memory".to_owned(),
                STAGES,
                How::Stages,
            ));
        }
        items
    }

    /// More of what comes first, for better medians; and the searches of peers, which nothing
    /// depends on.
    fn refinements(&self) -> Vec<Item> {
        let more = self.plan.few_rounds() - self.plan.first_rounds();
        let mut items = Vec::new();
        if more > 0 {
            items.extend(self.flows(&MANY_AND_FEW, more));
            items.extend(self.connections(more));
        }
        let packets = self.packet_peers().into_iter();
        for who in packets.filter(|who| who != "kernel") {
            if self.has(Method::Loss) {
                let what = format!("rates without loss, {who}");
                let seconds = loss::estimate(self.plan, 1);
                items.push(item(what, seconds, How::Loss(vec![who])));
            }
        }
        if self.plan.rounds > 1 {
            items.extend(self.latency(self.plan.few_rounds()));
            let scene = Scene::plain(self.plan.flows);
            items.extend(self.rates(pair(), scene, &["64"], self.plan.rounds / 2));
        }
        items
    }

    fn has(&self, method: Method) -> bool {
        self.arguments.has(method)
    }

    fn packet_peers(&self) -> Vec<String> {
        let is_one = |peer: &&String| PACKET_PEERS.contains(&peer.as_str());
        self.arguments
            .peers
            .iter()
            .filter(is_one)
            .cloned()
            .collect()
    }

    /// A comparison, unless it was not asked for.
    fn rates(&self, who: Vec<String>, scene: Scene, sizes: &[&str], rounds: usize) -> Option<Item> {
        let arguments = self.arguments;
        let is_wanted = self.has(Method::Rate)
            && arguments.modes.iter().any(|mode| mode == scene.mode)
            && arguments.flows.contains(&self.plan.flows);
        let sizes = sizes
            .iter()
            .filter(|size| arguments.sizes.iter().any(|one| one == *size));
        let cases: Vec<_> = sizes
            .map(|size| ((*size).to_owned(), self.plan.flows))
            .collect();
        let what = format!(
            "rate, {}, {} bytes, {} flows",
            scene.mode,
            cases
                .iter()
                .map(|(size, _)| size.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            self.plan.flows
        );
        let is_empty = cases.is_empty() || rounds == 0;
        let rates = Rates {
            who,
            scene,
            cases,
            rounds,
        };
        (is_wanted && !is_empty).then(|| self.of_rates(what, rates))
    }

    /// Numbers of flows, in turn, with the table that the most of them need.
    fn flows(&self, numbers: &[u32], rounds: usize) -> Option<Item> {
        let arguments = self.arguments;
        let is_wanted = self.has(Method::Rate)
            && arguments.modes.iter().any(|mode| mode == "nat")
            && arguments.sizes.iter().any(|size| size == "64");
        let wanted: Vec<u32> = numbers
            .iter()
            .copied()
            .filter(|flows| arguments.flows.contains(flows) && *flows != self.plan.flows)
            .collect();
        let most = wanted.iter().copied().max()?;
        let words: Vec<String> = wanted.iter().map(u32::to_string).collect();
        let what = format!("rate, nat, 64 bytes, {} flows", words.join(" and "));
        let rates = Rates {
            who: pair(),
            scene: Scene::plain(most),
            cases: wanted
                .into_iter()
                .map(|flows| ("64".to_owned(), flows))
                .collect(),
            rounds,
        };
        is_wanted.then(|| self.of_rates(what, rates))
    }

    /// `nat` over IPv6, beside nftables if it is to be had.
    fn ipv6(&self, rounds: usize) -> Option<Item> {
        let peers = self
            .packet_peers()
            .into_iter()
            .filter(|peer| peer == "nftables");
        let rates = Rates {
            who: pair().into_iter().chain(peers).collect(),
            scene: Scene {
                is_ipv6: true,
                ..Scene::plain(self.plan.flows)
            },
            // The least that has headers and a stamp in it.
            cases: vec![("84".to_owned(), self.plan.flows)],
            rounds,
        };
        let what = "rate, nat over IPv6".to_owned();
        self.has(Method::Ipv6).then(|| self.of_rates(what, rates))
    }

    fn of_rates(&self, what: String, rates: Rates) -> Item {
        item(what, rates.estimate(self.plan), How::Rates(rates))
    }

    fn latency(&self, rounds: usize) -> Option<Item> {
        let seconds = latency::estimate(self.plan, rounds);
        let what = "latency".to_owned();
        self.has(Method::Latency)
            .then(|| item(what, seconds, How::Latency(rounds)))
    }

    /// Everybody who can take connections.
    fn of_connections(&self) -> Vec<String> {
        let peers = self.arguments.peers.iter().filter(|peer| *peer != "kernel");
        std::iter::once("ringgate".to_owned())
            .chain(peers.cloned())
            .collect()
    }

    fn connections(&self, rounds: usize) -> Option<Item> {
        let who = self.of_connections();
        let seconds = connections::estimate(self.plan, who.len(), rounds);
        let what = "connections".to_owned();
        self.has(Method::Connections)
            .then(|| item(what, seconds, How::Connections(who, rounds)))
    }

    fn held(&self) -> Vec<Item> {
        let who = self.of_connections().into_iter();
        let who =
            who.filter(|name| self.has(Method::Concurrent) && HOLDERS.contains(&name.as_str()));
        who.map(|name| {
            let what = format!("connections held, {name}");
            item(what, connections::estimate_held(), How::Hold(name))
        })
        .collect()
    }

    fn simple(&self, all: &[Simple]) -> Vec<Item> {
        let wanted = all.iter().filter(|(method, ..)| self.has(*method));
        wanted
            .map(|(_, what, estimate, how)| {
                item((*what).to_owned(), estimate(self.plan), How::Bench(*how))
            })
            .collect()
    }
}

fn pair() -> Vec<String> {
    ["bare", "ringgate"].map(str::to_owned).to_vec()
}

fn item(what: String, seconds: f64, how: How) -> Item {
    Item { what, seconds, how }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn agenda(words: &[&str]) -> Vec<Item> {
        let line = [&["measure"], words].concat();
        let arguments = Line::try_parse_from(line).unwrap().arguments;
        of(&arguments, &arguments.plan())
    }

    fn seconds(items: &[Item]) -> f64 {
        items.iter().map(|item| item.seconds).sum()
    }

    #[test]
    fn everything_fits_and_what_was_promised_comes_first() {
        let all = agenda(&[]);
        assert!(seconds(&all) < 9.0 * 60.0, "{:.0} s", seconds(&all));
        let at = |what: &str| {
            all.iter()
                .position(|item| item.what.contains(what))
                .unwrap()
        };
        let promised = [
            "rate, nat, 64 bytes, 100000",
            "rates without loss, bare",
            "latency",
            "connections",
            "1000 and 1000000 flows",
            "idle",
            "first packets",
        ];
        assert_eq!(promised.map(at), [0, 1, 2, 3, 4, 5, 6]);
        assert!(
            seconds(&all[..7]) < 4.0 * 60.0,
            "{:.0} s",
            seconds(&all[..7])
        );
        // Ten pairs before anything is measured a second time.
        let pairs = |item: &Item| match &item.how {
            How::Rates(rates) if rates.scene == Scene::plain(100_000) && rates.cases.len() == 1 => {
                rates.rounds
            }
            _ => 0,
        };
        let before = all.len() - 1;
        assert!(all[..before].iter().map(pairs).sum::<usize>() >= 10);
    }

    #[test]
    fn a_quick_run_does_everything_once() {
        let quick = agenda(&["--quick"]);
        let names: Vec<&String> = quick.iter().map(|item| &item.what).collect();
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{names:?}");
        for item in agenda(&[]) {
            assert!(names.contains(&&item.what), "{}", item.what);
        }
        assert!(seconds(&quick) < 215.0, "{:.0} s", seconds(&quick));
    }

    #[test]
    fn what_was_not_asked_for_is_not_done() {
        let rates = agenda(&[
            "--only", "rate", "--sizes", "64", "--flows", "1 100000", "--peers", "",
        ]);
        let names: Vec<&str> = rates.iter().map(|item| item.what.as_str()).collect();
        assert!(
            names.iter().all(|name| name.starts_with("rate, ")),
            "{names:?}"
        );
        assert!(
            names
                .iter()
                .all(|name| !name.contains("1518") && !name.contains("1000000"))
        );
        let idle = agenda(&["--only", "idle"]);
        assert_eq!(idle.len(), 2);
    }
}
