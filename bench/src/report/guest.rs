//! What `scripts/peers-in-guest` has written: peers that the host's kernel does not have, in a virtual
//! machine. Where its processor is emulated only ratios mean anything, and the page says so.

use serde::Deserialize;
use serde_json::Value;

use crate::report::chart::short;
use crate::report::html::{Table, escape};

/// The file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Guest {
    /// Where the guest ran.
    pub machine: Value,
    /// The guest's kernel.
    pub kernel: String,
    /// `kvm`, or `tcg` where the processor is emulated.
    pub accelerated: String,
    /// Of the sources.
    pub commit: String,
    /// How it was forwarded.
    pub mode: String,
    /// Who could not be had.
    #[serde(default)]
    missing: Vec<Missing>,
    rows: Vec<Row>,
    ratios: serde_json::Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Missing {
    who: String,
    missing: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Row {
    who: String,
    pps: Option<f64>,
    offered: Option<f64>,
    limit: Option<String>,
}

/// Reads it.
///
/// # Errors
///
/// In words: not such a file.
pub fn read(text: &str) -> Result<Guest, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{error}: expected what `scripts/peers-in-guest --json` writes"))
}

impl Guest {
    fn is_emulated(&self) -> bool {
        self.accelerated == "tcg"
    }

    /// A chapter of the page.
    #[must_use]
    pub fn html(&self, name: &str) -> String {
        let cpu = self.machine["cpu"].as_str().unwrap_or("an unnamed CPU");
        let how = if self.is_emulated() {
            "emulated"
        } else {
            "a virtual machine"
        };
        let title = format!("IPVS and others, {how}: Linux {} on {cpu}", self.kernel);
        let mut html = format!("<h2>{}</h2>\n", escape(&title));
        if self.is_emulated() {
            html.push_str(
                "<p><strong>The processor was emulated (QEMU without KVM), 10 to 50 times slower, and not \
                 equally so for all that a processor does. Rates mean nothing here; ratios are no \
                 more than a hint.</strong></p>\n",
            );
        }
        let words = format!(
            "{}; commit {}; scripts/peers-in-guest; from {name}",
            self.mode, self.commit
        );
        html.push_str(&format!("<p>{}</p>\n", escape(&words)));
        let mut ratios = Table::new(&["who by whom", "packets/s, ratio"]);
        for (pair, ratio) in &self.ratios {
            let ratio = ratio
                .as_f64()
                .map_or_else(|| "-".to_owned(), |one| format!("{one:.2}"));
            ratios.rows.push(vec![pair.clone(), ratio]);
        }
        let mut rates = Table::new(&["who", "packets/s", "offered", "limit"]);
        for row in &self.rows {
            rates.rows.push(vec![
                row.who.clone(),
                row.pps.map(short).unwrap_or_default(),
                row.offered.map(short).unwrap_or_default(),
                row.limit.clone().unwrap_or_default(),
            ]);
        }
        for one in &self.missing {
            let why = format!("not to be had: {}", one.missing);
            rates
                .rows
                .push(vec![one.who.clone(), why, String::new(), String::new()]);
        }
        html.push_str(&ratios.html());
        html.push_str(&rates.html());
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"machine":{"cpu":"<EPYC>"},"kernel":"6.12.0","accelerated":"tcg","commit":"c",
        "mode":"guest, native XDP on veth","note":"n","missing":[{"who":"ipvs-tun","missing":"no module"}],
        "rows":[{"who":"ipvs-nat","pps":10000,"offered":20000,"limit":null}],
        "ratios":{"ringgate-nat / ipvs-nat":1.234},"windows":[]}"#;

    #[test]
    fn ratios_are_shown_and_emulation_is_said() {
        let html = read(FILE).unwrap().html("guest.json");
        for text in [
            "emulated",
            "<td>1.23</td>",
            "<td>10k</td>",
            "no module",
            "&lt;EPYC&gt;",
        ] {
            assert!(html.contains(text), "{text}");
        }
        let html = read(&FILE.replace("tcg", "kvm"))
            .unwrap()
            .html("guest.json");
        assert!(!html.contains("emulated"), "{html}");
        assert!(read("{}").unwrap_err().contains("peers-in-guest"));
    }
}
