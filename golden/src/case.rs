//! A case as its file has it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringgate_config::Forward;
use serde::Deserialize;

use crate::network::Network;
use crate::notation::{Dissector, Names, Packet};

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CaseError(String);

impl CaseError {
    /// With this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Something about a file.
    #[must_use]
    pub fn at(path: &Path, error: &impl Display) -> Self {
        Self(format!("{}: {error}", path.display()))
    }
}

/// Counters by group and name, those that are not zero.
pub type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its path below `cases/`, without the extension.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub file: File,
    /// The network that it is in.
    pub network: Network,
    /// What stands for hardware addresses.
    pub names: Names,
    /// What takes its packets apart.
    pub dissector: Dissector,
}

/// What stands in a case's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    /// What it shows.
    pub sentence: String,
    /// Which rules of `tests/coverage.rs` it shows.
    #[serde(default)]
    pub rules: Vec<String>,
    /// A file of `networks/`, or a network of its own.
    pub network: NetworkOf,
    /// How many frames a port takes before it is full; none of them leaves.
    pub full_after: Option<usize>,
    /// As operators write it.
    pub configuration: String,
    /// What happens, in order.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// A network, or its name.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum NetworkOf {
    /// A file of `networks/`.
    Named(String),
    /// Here.
    Own(Box<Network>),
}

/// One thing that happens, and what comes of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// What it is.
    #[serde(default)]
    pub says: String,
    /// So long after the last one.
    pub wait: Option<String>,
    /// Another configuration from here on.
    pub configuration: Option<String>,
    /// From here on these backends (`ADDRESS:PORT`, `ADDRESS` where the port is the packet's own) fail their checks, and no others.
    pub down: Option<Vec<String>>,
    /// From here on the balancer drains before it stops.
    pub draining: Option<bool>,
    /// So many times the packets; in them, `{5000}` is a number that rises by one each time.
    pub repeat: Option<usize>,
    /// Packets that arrive: `INTERFACE: PACKET`.
    #[serde(rename = "in", default)]
    pub arrives: Vec<String>,
    /// Packets that leave, by interface in their order, and within one in theirs.
    #[serde(rename = "out", default)]
    pub leaves: Vec<String>,
    /// How many packets leave, where `repeat` makes them too many to be listed.
    pub out_count: Option<usize>,
    /// Next hops that control is asked for: `INTERFACE: ADDRESS`.
    #[serde(default)]
    pub wanted: Vec<String>,
    /// Every counter that moves.
    #[serde(default)]
    pub counters: Counts,
}

/// A frame at an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    /// The interface.
    pub interface: String,
    /// The frame.
    pub bytes: Vec<u8>,
}

impl Case {
    /// The case in a file below `root`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or says what makes no sense.
    pub fn load(root: &Path, path: &Path) -> Result<Self, CaseError> {
        let text = std::fs::read_to_string(path).map_err(|error| CaseError::at(path, &error))?;
        let file: File = toml::from_str(&text).map_err(|error| CaseError::at(path, &error))?;
        let network = match &file.network {
            NetworkOf::Named(name) => Network::named(name)?,
            NetworkOf::Own(network) => (**network).clone(),
        };
        let name = path.strip_prefix(root).unwrap_or(path).with_extension("");
        Ok(Self {
            name: name.display().to_string(),
            path: path.to_owned(),
            names: network.names()?,
            dissector: dissector(&file),
            file,
            network,
        })
    }

    /// Every case below `root`, by name; those whose name begins with one of `wanted`, if any is.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); also when there is none.
    pub fn all(root: &Path, wanted: &[String]) -> Result<Vec<Self>, CaseError> {
        let mut paths = Vec::new();
        walk(root, &mut paths).map_err(|error| CaseError::at(root, &error))?;
        paths.sort();
        let cases: Result<Vec<Self>, CaseError> =
            paths.iter().map(|path| Self::load(root, path)).collect();
        let mut cases = cases?;
        let is_wanted = |case: &Self| {
            let begins = |text: &String| case.name.starts_with(text.trim_end_matches(".toml"));
            wanted.is_empty() || wanted.iter().any(begins)
        };
        cases.retain(is_wanted);
        if cases.is_empty() {
            return Err(CaseError::new(format!(
                "no case of {} begins with {}",
                root.display(),
                wanted.join(" or ")
            )));
        }
        Ok(cases)
    }

    /// What arrives in a step, repetitions included.
    ///
    /// # Errors
    ///
    /// As [`frames`](Self::frames).
    pub fn arriving(&self, step: &Step) -> Result<Vec<Crossing>, CaseError> {
        let mut all = Vec::new();
        for line in &step.arrives {
            for time in 0..step.repeat.unwrap_or(1) {
                all.extend(self.frames(&[risen(line, time)])?);
            }
        }
        Ok(all)
    }

    /// The frames of `INTERFACE: PACKET` lines.
    ///
    /// # Errors
    ///
    /// The line that cannot be read, and why.
    pub fn frames(&self, lines: &[String]) -> Result<Vec<Crossing>, CaseError> {
        let read = |line: &String| {
            let error = |what: String| CaseError::new(format!("{}: `{line}`: {what}", self.name));
            let (interface, packet) = line
                .split_once(": ")
                .ok_or_else(|| error("expected INTERFACE: PACKET".to_owned()))?;
            let packet =
                Packet::parse(packet, &self.names).map_err(|problem| error(problem.to_string()))?;
            Ok(Crossing {
                interface: interface.to_owned(),
                bytes: packet.bytes(),
            })
        };
        lines.iter().map(read).collect()
    }
}

/// Knows the ports of all GUE tunnels that the file has.
fn dissector(file: &File) -> Dissector {
    let later = file
        .steps
        .iter()
        .filter_map(|step| step.configuration.as_ref());
    let mut dissector = Dissector::default();
    for text in std::iter::once(&file.configuration).chain(later) {
        // What is wrong with it is told when it runs.
        let services = ringgate_config::parse("", text).map(|parsed| parsed.model);
        let ports = services.iter().flat_map(|model| model.services());
        let ports = ports.flat_map(|service| service.backends());
        let gue = ports.filter(|backend| backend.forward() == Forward::Gue);
        let ports = gue.filter_map(|backend| Some(backend.tunnel()?.port));
        dissector.gue_ports.extend(ports);
    }
    dissector
}

/// The line with every `{NUMBER}` so much higher.
fn risen(line: &str, by: usize) -> String {
    let mut parts = line.split('{');
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once('}').unwrap_or((part, ""));
        let number = number
            .parse::<usize>()
            .map(|number| (number + by).to_string());
        all += &number.unwrap_or_else(|_| format!("{{{part}"));
        all += rest;
    }
    all
}

/// A time as `5s`, `500ms` or `2m`.
///
/// # Errors
///
/// It is none.
pub fn duration(text: &str) -> Result<Duration, CaseError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    let millis = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(millis));
    millis
        .filter(|millis| *millis > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| {
            CaseError::new(format!(
                "`{text}` is no time; expected a number with ms, s or m"
            ))
        })
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(&path, paths)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_braces_rise() {
        assert_eq!(risen("udp {5000} > 53 id {7}", 2), "udp 5002 > 53 id 9");
        assert_eq!(risen("udp 5000 > 53", 2), "udp 5000 > 53");
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "0s", "5h", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
