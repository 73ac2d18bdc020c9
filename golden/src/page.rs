//! Cases for reading: on the terminal, and all of them as one page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ringgate_dataplane::verdict::DropReason;

use crate::case::{Case, NetworkOf, Step};

/// The head of the page.
const HEAD: &str = "# Golden cases

Every way that a packet can go: the configuration, what comes in, what goes out, and every counter that
moves. Each case is a file below `golden/cases/` and a test (`cargo test -p ringgate-golden`); the packets that go out are
also judged by tshark. This page is made of the files, by `cargo run -p ringgate-golden -- page`; `golden/README.md` tells
how to read a packet and how to add a case.

A packet is a line, outermost layer first. What is not named is as usual: TTL 64, right lengths, right checksums. Names
in `eth` are those of the [networks](../golden/networks); `front` and `back` are the balancer's own, and
every configuration has them as its interfaces.
";

/// What nearly every configuration begins with, left out of the page.
const INTERFACES: &str = "[[interface]]\nname = \"front\"\n[[interface]]\nname = \"back\"\n";

/// The whole page.
#[must_use]
pub fn page(cases: &[Case]) -> String {
    let mut page = HEAD.to_owned();
    let mut subject = "";
    for case in cases {
        let (of_case, _) = case
            .name
            .split_once('/')
            .unwrap_or((case.name.as_str(), ""));
        if of_case != subject {
            subject = of_case;
            page += &format!("\n## {subject}\n");
        }
        page += &format!(
            "\n### {}\n\n{}\n\n```text\n",
            case.name,
            case.file.sentence.trim()
        );
        page += story(case).trim_end();
        page += "\n```\n\n";
        page += "<details><summary>configuration</summary>\n\n```toml\n";
        page += case
            .file
            .configuration
            .trim_start_matches(INTERFACES)
            .trim();
        page += "\n```\n\n</details>\n";
    }
    page
}

/// A case for the terminal.
#[must_use]
pub fn print(case: &Case) -> String {
    let mut text = format!("{}\n{}\n\n", case.name, case.file.sentence.trim());
    let network = match &case.file.network {
        NetworkOf::Named(name) => format!("network {name}"),
        NetworkOf::Own(_) => "a network of its own".to_owned(),
    };
    text += &format!("{network}, configuration:\n\n");
    for line in case.file.configuration.trim().lines() {
        text += &format!("    {line}\n");
    }
    text += "\n";
    text += &story(case);
    text
}

/// What happens in a case.
fn story(case: &Case) -> String {
    let mut text = String::new();
    for (step, number) in case.file.steps.iter().zip(1..) {
        let indent = match case.file.steps.len() {
            1 => String::new(),
            _ => format!("{number}. "),
        };
        text += &one(step, &indent);
    }
    text
}

fn one(step: &Step, number: &str) -> String {
    let headline = format!("{number}{}", headline(step));
    let mut text = match headline.trim_end() {
        "" => String::new(),
        headline => format!("{headline}\n"),
    };
    let mut line = |what: &str, rest: &str| {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "   {what:<5}{rest}");
    };
    let times = step
        .repeat
        .map_or_else(String::new, |n| format!("   ({n} times)"));
    step.arrives
        .iter()
        .for_each(|one| line("in", &format!("{one}{times}")));
    step.leaves.iter().for_each(|one| line("out", one));
    if let Some(count) = step.out_count {
        line("out", &format!("{count} packets"));
    }
    for (interface, reason) in dropped(step) {
        line("drop", &format!("{interface}: {reason}"));
    }
    step.wanted.iter().for_each(|one| line("ask", one));
    for (group, counters) in &step.counters {
        line("", &format!("{group}: {}", sum_of(counters)));
    }
    text
}

fn headline(step: &Step) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(step.wait.as_ref().map(|wait| format!("{wait} later.")));
    words.extend(
        step.configuration
            .as_ref()
            .map(|_| "Another configuration.".to_owned()),
    );
    words.extend(step.down.as_ref().map(|down| match down.is_empty() {
        true => "All backends are up.".to_owned(),
        false => format!("Down: {}.", down.join(", ")),
    }));
    words.extend(
        step.draining
            .filter(|is| *is)
            .map(|_| "The balancer drains.".to_owned()),
    );
    words.extend(Some(step.says.clone()).filter(|says| !says.is_empty()));
    words.join(" ")
}

fn dropped(step: &Step) -> Vec<(&str, &str)> {
    let reasons = |counters: &BTreeMap<String, u64>| {
        let all = DropReason::ALL.iter().map(|reason| reason.name());
        all.filter(|name| counters.contains_key(*name))
            .collect::<Vec<_>>()
    };
    let of_group = |(group, counters)| {
        let group: &String = group;
        reasons(counters)
            .into_iter()
            .map(|reason| (group.as_str(), reason))
            .collect::<Vec<_>>()
    };
    // Other groups than interfaces have counters of the same names.
    let is_interface = |group: &(&String, &BTreeMap<String, u64>)| {
        let name = group.0.as_str();
        !["flows", "fragments", "icmp", "turns"].contains(&name) && !name.contains(' ')
    };
    let interfaces = step.counters.iter().filter(is_interface);
    interfaces.flat_map(of_group).collect()
}

fn sum_of(counters: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = counters
        .iter()
        .map(|(name, count)| format!("{name} +{count}"))
        .collect();
    each.join(", ")
}
