//! What is wrong or doubtful in a file, and where: values that print as one line each.
//!
//! A [`Problem`] refuses the file, a [`Warning`] does not. Both name file, line, column and key
//! path, and say what to do. Text quoted from the file is escaped and shortened, so that no
//! file can write control characters to the operator's terminal.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::Parsed;
use crate::limits::{PROBLEMS_MAX, QUOTE_CHARS_MAX};
use crate::mention::{FileUse, Mention};
use crate::model::Model;

/// Where in the file: prints as `file:line:column: key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's name as it was given to [`parse`](crate::parse()).
    pub file: Arc<str>,
    /// Line, the first is 1.
    pub line: usize,
    /// Column in characters, the first is 1.
    pub column: usize,
    /// Path of the key, like `service "web".forward`; empty where no key could be told.
    pub key: String,
}

impl Place {
    const fn order(&self) -> (usize, usize) {
        (self.line, self.column)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if self.key.is_empty() {
            Ok(())
        } else {
            write!(f, "{}: ", self.key)
        }
    }
}

/// One reason for which a file is refused. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What stands there.
    pub found: String,
    /// What could stand there.
    pub expected: String,
    /// What to do.
    pub cure: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            found,
            expected,
            cure,
        } = self;
        write!(f, "{place}found {found}; expected {expected}; {cure}")
    }
}

/// Something allowed that is probably not meant. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where it is.
    pub place: Place,
    /// What was found and what comes of it.
    pub found: String,
    /// What to do if it is not meant.
    pub cure: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, found, cure } = self;
        write!(f, "{place}warning: {found}; {cure}")
    }
}

/// Every reason for which a file is refused, in the order of the file. Prints one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    omitted: usize,
    damaged: bool,
}

impl Problems {
    /// The problems, at least one, at most [`PROBLEMS_MAX`].
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// How many more there were than are kept.
    pub const fn omitted(&self) -> usize {
        self.omitted
    }

    /// Whether a syntax error hid the structure of the file. Then keys that seem unknown or
    /// missing, and what concerns several keys, are not reported: they are often only
    /// consequences. They are once the syntax is cured.
    pub const fn damaged(&self) -> bool {
        self.damaged
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.list.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        if self.damaged {
            let note = "more is checked once the syntax is cured: unknown and missing keys, and how keys fit together";
            write!(f, "\n{note}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// How far a problem can be believed when the file's syntax is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not TOML: the structure read around it is partly guessed.
    Syntax,
    /// One value is wrong in itself: believed unless its own line is damaged.
    Value,
    /// Something is missing, unknown or does not fit: may be a consequence of the damage.
    Structure,
}

/// What a reader of one value says against it; the collector adds the place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) found: String,
    pub(crate) expected: String,
    pub(crate) cure: String,
}

/// Collects problems and warnings about one text and knows its lines.
#[derive(Debug)]
pub(crate) struct Findings<'t> {
    file: Arc<str>,
    text: &'t str,
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
    mentions: Vec<Mention>,
    omitted: usize,
    broken_lines: BTreeSet<usize>,
}

impl<'t> Findings<'t> {
    pub(crate) fn new(file: &str, text: &'t str) -> Self {
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(newlines.map(|(at, _)| at + 1))
            .collect();
        Self {
            file: file.into(),
            text,
            line_starts,
            problems: Vec::new(),
            warnings: Vec::new(),
            mentions: Vec::new(),
            omitted: 0,
            broken_lines: BTreeSet::new(),
        }
    }

    /// Syntax problems come before all others: what they make doubtful is not taken.
    pub(crate) fn problem(&mut self, kind: Kind, at: &Range<usize>, key: String, refusal: Refusal) {
        let line = self.line_index(at.start);
        let believed = match kind {
            // One break often shows as several errors; the first tells most.
            Kind::Syntax => self.broken_lines.insert(line),
            Kind::Value => !self.broken_lines.contains(&line),
            Kind::Structure => self.broken_lines.is_empty(),
        };
        if !believed {
            return;
        }
        if self.problems.len() >= PROBLEMS_MAX {
            self.omitted += 1;
            return;
        }
        let Refusal {
            found,
            expected,
            cure,
        } = refusal;
        let place = self.place(at, key);
        self.problems.push(Problem {
            place,
            found,
            expected,
            cure,
        });
    }

    pub(crate) fn warning(&mut self, at: &Range<usize>, key: String, found: String, cure: String) {
        if self.warnings.len() < PROBLEMS_MAX {
            let place = self.place(at, key);
            self.warnings.push(Warning { place, found, cure });
        }
    }

    /// A file that the configuration names.
    pub(crate) fn mention(&mut self, at: &Range<usize>, key: String, path: &str, used_as: FileUse) {
        let place = self.place(at, key);
        self.mentions.push(Mention {
            place,
            path: path.into(),
            used_as,
        });
    }

    /// Index of the line that a byte offset falls into, the first is 0.
    pub(crate) fn line_index(&self, offset: usize) -> usize {
        self.line_starts
            .partition_point(|&start| start <= offset)
            .saturating_sub(1)
    }

    /// The text of the line that a byte offset falls into, without its end.
    pub(crate) fn line_text(&self, offset: usize) -> &'t str {
        let line = self.line_index(offset);
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let end = self
            .line_starts
            .get(line + 1)
            .copied()
            .unwrap_or(self.text.len());
        self.text
            .get(start..end)
            .unwrap_or("")
            .trim_end_matches(['\n', '\r'])
    }

    fn place(&self, at: &Range<usize>, key: String) -> Place {
        let line = self.line_index(at.start);
        let before = self
            .line_starts
            .get(line)
            .and_then(|&start| self.text.get(start..at.start));
        let column = before.map_or(0, |before| before.chars().count()) + 1;
        Place {
            file: Arc::clone(&self.file),
            line: line + 1,
            column,
            key,
        }
    }

    /// The value with the warnings in the order of the file, or the problems if there is any.
    pub(crate) fn finish(mut self, model: Option<Model>) -> Result<Parsed, Problems> {
        match model {
            Some(model) if self.problems.is_empty() => {
                self.warnings.sort_by_key(|warning| warning.place.order());
                Ok(Parsed {
                    model,
                    warnings: self.warnings,
                    mentions: self.mentions,
                })
            }
            _ => Err(self.refuse()),
        }
    }

    /// The problems in the order of the file.
    pub(crate) fn refuse(mut self) -> Problems {
        self.problems.sort_by_key(|problem| problem.place.order());
        Problems {
            list: self.problems,
            omitted: self.omitted,
            damaged: !self.broken_lines.is_empty(),
        }
    }
}

/// `text` in quotes, on one line, escaped, cut to [`QUOTE_CHARS_MAX`].
pub(crate) fn quote(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars
        .by_ref()
        .take(QUOTE_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if chars.next().is_some() {
        format!("\"{head}…\"")
    } else {
        format!("\"{head}\"")
    }
}

/// `path.key`, or `key` alone at the top of the file.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(found: &str) -> Refusal {
        Refusal {
            found: found.to_owned(),
            expected: "b".to_owned(),
            cure: "c".to_owned(),
        }
    }

    #[test]
    fn places_count_characters_and_problems_come_in_the_order_of_the_file() {
        let mut findings = Findings::new("f", "é = 1\r\nö = ü");
        findings.problem(Kind::Value, &(13..15), "x".to_owned(), refusal("2"));
        findings.problem(Kind::Value, &(5..6), String::new(), refusal("1"));
        let text = findings.refuse().to_string();
        assert_eq!(
            text,
            "f:1:5: found 1; expected b; c\nf:2:5: x: found 2; expected b; c"
        );
    }

    #[test]
    fn an_offset_beyond_the_text_or_inside_a_character_has_a_place() {
        let findings = Findings::new("f", "é");
        assert_eq!((findings.place(&(1..1), String::new()).column), 1);
        assert_eq!((findings.place(&(9..9), String::new()).line), 1);
        assert_eq!(findings.line_text(9), "é");
    }

    #[test]
    fn damage_keeps_only_what_can_be_believed() {
        let mut findings = Findings::new("f", "a\nb\nc");
        findings.problem(Kind::Syntax, &(0..1), String::new(), refusal("syntax"));
        findings.problem(
            Kind::Syntax,
            &(1..1),
            String::new(),
            refusal("its consequence"),
        );
        findings.problem(Kind::Value, &(0..1), String::new(), refusal("same line"));
        findings.problem(Kind::Value, &(2..3), String::new(), refusal("other line"));
        findings.problem(
            Kind::Structure,
            &(4..5),
            String::new(),
            refusal("consequence"),
        );
        let problems = findings.refuse();
        let found: Vec<&str> = problems.list().iter().map(|p| p.found.as_str()).collect();
        assert_eq!(found, ["syntax", "other line"]);
        assert!(problems.to_string().ends_with("how keys fit together"));
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted() {
        let mut findings = Findings::new("f", "");
        for _ in 0..PROBLEMS_MAX + 2 {
            findings.problem(Kind::Value, &(0..0), String::new(), refusal("a"));
        }
        let problems = findings.refuse();
        assert_eq!(
            (problems.list().len(), problems.omitted()),
            (PROBLEMS_MAX, 2)
        );
        assert!(problems.to_string().ends_with("\nand 2 more"));
    }

    #[test]
    fn quotes_are_escaped_and_cut() {
        assert_eq!(quote("a\u{1b}[31m\n"), r#""a\u{1b}[31m\n""#);
        assert_eq!(
            quote(&"ä".repeat(QUOTE_CHARS_MAX + 1)).chars().count(),
            QUOTE_CHARS_MAX + 3
        );
    }
}
