//! Promise: the conformance ledger, docs/RFC.md, claims nothing that nothing shows. What it says is
//! done names the file that does it and a test or golden case that exists; what it says is not done
//! says why. (That its links lead somewhere is [`tidy`](../tidy.rs)'s.)

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Documents that the ledger must have a section of, each by the number or name in its title.
    const DOCUMENTS: [&str; 31] = [
        "791", "792", "1071", "1122", "1191", "1624", "1812", "2003", "2473", "2784", "2890",
        "4213", "4443", "4459", "4787", "5382", "5508", "6040", "6438", "6864", "6935", "6936",
        "6946", "7676", "8200", "8201", "9293", "768", "GUE", "QUIC-LB", "5961",
    ];

    const LEVELS: [&str; 5] = ["MUST", "SHOULD", "MAY", "MUST NOT", "–"];

    const DONE: &str = "done";
    const PARTLY: &str = "partly";
    const STATES: [&str; 4] = [DONE, PARTLY, "not done", "not ours"];

    /// Columns of a requirement: section, requirement, level, state, where, and what shows it or why not.
    const COLUMNS: usize = 6;

    /// Fewer words are no reason.
    const REASON_WORDS: usize = 3;

    #[test]
    fn every_document_has_its_section_and_every_section_its_requirements() {
        let ledger = ledger();
        let titles: Vec<&str> = ledger
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        let is_there = |document: &&str| {
            let is_it = |word: &str| word == *document;
            titles.iter().any(|title| words(title).any(is_it))
        };
        let missing: Vec<&str> = DOCUMENTS
            .into_iter()
            .filter(|document| !is_there(document))
            .collect();
        assert_eq!(missing, Vec::<&str>::new(), "they have no section");
        for section in ledger.split("\n## ").skip(1) {
            let title = section.lines().next().unwrap_or_default();
            assert!(
                !rows(section).is_empty(),
                "{title} has no table of requirements"
            );
        }
    }

    #[test]
    fn what_is_done_is_shown_and_what_is_not_has_a_reason() {
        let (tests, cases) = (tests(), cases());
        let mut wrong = Vec::new();
        let ledger = ledger();
        // In front of the first section stands what the states mean.
        let (_, sections) = ledger.split_once("\n## ").unwrap();
        for row in rows(sections) {
            wrong.extend(mistakes(&row, &tests, &cases));
        }
        assert_eq!(wrong, Vec::<String>::new());
    }

    /// What is wrong about a row.
    fn mistakes(row: &[String], tests: &BTreeSet<String>, cases: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let [section, what, level, state, place, shown] = row else {
            return vec![format!("{row:?} has not {COLUMNS} columns")];
        };
        let mut say = |mistake: String| wrong.push(format!("{section}, {what}: {mistake}"));
        if !LEVELS.contains(&level.as_str()) {
            say(format!("`{level}` is no level"));
        }
        if !STATES.contains(&state.as_str()) {
            say(format!("`{state}` is no state"));
        }
        for name in spans(shown).filter(|name| is_claim(name)) {
            let is_case = name.contains('/');
            let known = if is_case { cases } else { tests };
            if !known.contains(name) {
                let kind = if is_case { "golden case" } else { "test" };
                say(format!("there is no {kind} `{name}`"));
            }
        }
        let is_claimed = [DONE, PARTLY].contains(&state.as_str());
        if is_claimed && !place.contains("](../") {
            say("it is done, but where?".to_owned());
        }
        let is_shown = spans(shown).any(is_claim) || shown.contains("/tests/");
        if is_claimed && !is_shown {
            say("nothing shows it".to_owned());
        }
        if state != DONE && words(&without_spans(shown)).count() < REASON_WORDS {
            say("no reason is given".to_owned());
        }
        wrong
    }

    /// Whether what stands between backquotes is the name of a test or of a golden case, and not a counter, a
    /// key of the configuration or a mode: those have fewer parts.
    fn is_claim(name: &str) -> bool {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-/".contains(c);
        name.chars().all(is_name) && (name.contains('/') || name.split('_').count() > 3)
    }

    /// The cells of the lines of all tables in `text`, but for those that name the columns.
    fn rows(text: &str) -> Vec<Vec<String>> {
        let is_requirement = |line: &&str| line.starts_with("| ") && !line.starts_with("| § |");
        let lines = text.lines().filter(is_requirement);
        let cells = |line: &str| {
            let line = line.trim();
            let inner = line
                .strip_prefix('|')
                .and_then(|rest| rest.strip_suffix('|'));
            let cells = inner.unwrap_or(line).split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        };
        lines.map(cells).collect()
    }

    fn spans(text: &str) -> impl Iterator<Item = &str> {
        text.split('`').skip(1).step_by(2)
    }

    fn without_spans(text: &str) -> String {
        text.split('`').step_by(2).collect()
    }

    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| !c.is_alphanumeric() && c != '-')
            .filter(|word| !word.is_empty())
    }

    /// The names of all tests of the workspace.
    fn tests() -> BTreeSet<String> {
        let mut paths = Vec::new();
        walk(&root(), "rs", &mut paths);
        let mut names = BTreeSet::new();
        for path in paths {
            let text = fs::read_to_string(path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line == "#[test]";
                let name = line
                    .strip_prefix("fn ")
                    .and_then(|rest| rest.split('(').next());
                if let Some(name) = name.filter(|_| is_test) {
                    names.insert(name.to_owned());
                    is_test = false;
                }
            }
        }
        assert!(names.len() > 300, "only {} tests were found", names.len());
        names
    }

    /// The names of all golden cases: their paths below `cases`, without the ending.
    fn cases() -> BTreeSet<String> {
        let directory = root().join("golden/cases");
        let mut paths = Vec::new();
        walk(&directory, "toml", &mut paths);
        let name = |path: &PathBuf| {
            let name = path.strip_prefix(&directory).unwrap().with_extension("");
            name.to_str().unwrap().to_owned()
        };
        paths.iter().map(name).collect()
    }

    fn walk(directory: &Path, extension: &str, paths: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let is_ours = !["target", ".git"].iter().any(|other| path.ends_with(other));
            if path.is_dir() && is_ours && !path.is_symlink() {
                walk(&path, extension, paths);
            } else if path.extension().is_some_and(|one| one == extension) {
                paths.push(path);
            }
        }
    }

    fn ledger() -> String {
        fs::read_to_string(root().join("docs/RFC.md")).unwrap()
    }

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn a_claim_without_proof_is_found_out() {
        let known = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (tests, cases) = (known(&["what_a_test_shows"]), known(&["nat/tcp"]));
        let about = |state: &str, place: &str, shown: &str| {
            let line = format!("| 3.1 | a thing | MUST | {state} | {place} | {shown} |");
            let [row] = &rows(&line)[..] else {
                panic!("{line} is not one row");
            };
            mistakes(row, &tests, &cases).len()
        };
        let place = "[a.rs](../a.rs)";
        assert_eq!(about("done", place, "`what_a_test_shows`, `nat/tcp`"), 0);
        assert_eq!(about("done", place, "`what_no_test_shows`"), 1);
        assert_eq!(about("done", place, "`nat/udp`"), 1);
        assert_eq!(
            about("done", place, "`too_big`"),
            1,
            "a counter shows nothing"
        );
        assert_eq!(about("done", "", "`nat/tcp`"), 1);
        assert_eq!(about("partly", place, "`nat/tcp`"), 1, "what is missing?");
        assert_eq!(about("partly", place, "`nat/tcp`; not over IPv6 yet"), 0);
        assert_eq!(about("not done", "", "no"), 1);
        assert_eq!(about("not ours", "", "the far end's, not here"), 0);
        assert_eq!(about("nearly", "", "because of the time"), 1);
        let header = "| § | requirement | level | state | where | shown by |";
        assert_eq!(rows(header), Vec::<Vec<String>>::new());
        assert_eq!(rows("|---|---|"), Vec::<Vec<String>>::new());
    }
}
