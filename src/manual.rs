//! The manual page of the configuration file, `ringgate.toml(5)`.
//!
//! It is made from the chapter on it in docs/OPERATING.md and from the constants that the chapter names, so that a
//! key, a default and a bound are each written down once. It understands the little Markdown that stands there:
//! headings, paragraphs, lists, tables, fenced code, code spans, strong words and links.

use clap_mangen::roff::{Inline, Roff, bold, roman};

const OPERATING: &str = include_str!("../docs/OPERATING.md");
const LIMITS: &str = include_str!("../config/src/limits.rs");

/// The chapter's heading.
const CHAPTER: &str = "\n## Configuration\n";

/// The page, as troff(1) reads it.
pub(crate) fn page() -> String {
    let version = concat!("ringgate ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["ringgate.toml", "5", "", version]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "ringgate.toml - configuration of the load balancer ringgate",
    )]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("The file that "),
        bold("ringgate run --config"),
        roman(" reads, in TOML. "),
        bold("ringgate check"),
        roman(
            " says everything that is wrong with one. Names in capitals are explained at the end.",
        ),
    ]);
    let chapter = chapter();
    let mut table = Table::default();
    let mut in_code = false;
    for line in chapter.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            page.control(if in_code { "EX" } else { "EE" }, []);
        } else if in_code {
            page.text([roman(line)]);
        } else if let Some(cells) = cells(line) {
            table.row(&mut page, &cells);
            continue;
        } else if line.is_empty() {
            page.control("PP", []);
        } else if let Some(title) = line.strip_prefix("### ") {
            page.control("SH", [title.to_uppercase().as_str()]);
        } else if let Some(item) = line.strip_prefix("- ") {
            page.control("IP", ["-", "2"]);
            page.text(inlines(item));
        } else {
            page.text(inlines(line));
        }
        table = Table::default();
    }
    limits(&mut page, chapter);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("ringgate"), roman("(1)")]);
    page.render()
}

/// The chapter on the configuration, without its heading.
fn chapter() -> &'static str {
    let (_, rest) = OPERATING.split_once(CHAPTER).unwrap_or_default();
    rest.split("\n## ").next().unwrap_or_default()
}

/// A table that is being read: the words of its head.
#[derive(Debug, Default)]
struct Table(Vec<String>);

impl Table {
    /// A row becomes a tagged paragraph: its first cell, then the others, each behind its column's head.
    fn row(&mut self, page: &mut Roff, cells: &[String]) {
        if cells.iter().all(|cell| cell.chars().all(|c| c == '-')) {
            return;
        }
        if self.0.is_empty() {
            self.0 = cells.to_vec();
            return;
        }
        let mut columns = self.0.iter().zip(cells);
        let Some((_, key)) = columns.next() else {
            return;
        };
        page.control("TP", []);
        page.text([bold(plain(key))]);
        for (number, (head, cell)) in columns.filter(|(_, cell)| !cell.is_empty()).enumerate() {
            if number > 0 {
                page.control("br", []);
                let mut text = vec![roman(format!("{}: ", plain(head)))];
                text.extend(inlines(cell));
                page.text(text);
            } else {
                page.text(inlines(cell));
            }
        }
    }
}

/// The cells of a table's row.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    let cells = inner.split('|');
    Some(cells.map(|cell| cell.trim().to_owned()).collect())
}

/// What the constants are that the text names, in the order of their file.
fn limits(page: &mut Roff, text: &str) {
    page.control("SH", ["BOUNDS AND DEFAULTS"]);
    let names: Vec<&str> = text.split(|c: char| !is_of_a_name(c)).collect();
    for (name, value, meaning) in constants() {
        if names.contains(&name) {
            page.control("TP", []);
            page.text([bold(name), roman(format!(" = {value}"))]);
            page.text(inlines(&meaning));
        }
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}

/// The public constants: name, value as it is written, meaning.
fn constants() -> impl Iterator<Item = (&'static str, String, String)> {
    let mut meaning = String::new();
    let mut lines = LIMITS.lines();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            if let Some(words) = line.strip_prefix("/// ") {
                meaning = format!("{meaning} {words}");
                continue;
            }
            let words = std::mem::take(&mut meaning);
            let Some(constant) = line.strip_prefix("pub const ") else {
                continue;
            };
            let Some((name, rest)) = constant.split_once(':') else {
                continue;
            };
            let (_, value) = rest.split_once('=').unwrap_or_default();
            let value = value.trim().trim_end_matches(';').to_owned();
            // Links to other items are of no use here.
            let words = words.replace("[`", "`").replace("`]", "`");
            return Some((name, value, words.trim().to_owned()));
        }
    })
}

/// A text without its marks.
fn plain(text: &str) -> String {
    let parts = inlines(text).into_iter().map(|part| match part {
        Inline::Roman(text) | Inline::Bold(text) | Inline::Italic(text) => text,
        Inline::LineBreak => " ".to_owned(),
    });
    parts.collect()
}

/// A line with its code spans and strong words in bold, and of links the words.
fn inlines(text: &str) -> Vec<Inline> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find(['`', '*', '[']) {
        let (before, mark) = rest.split_at(place);
        let taken = code(mark).or_else(|| strong(mark)).or_else(|| link(mark));
        let (mut made, after) = taken.unwrap_or_else(|| {
            let (one, after) = mark.split_at(1);
            (vec![roman(one)], after)
        });
        parts.push(roman(before));
        parts.append(&mut made);
        rest = after;
    }
    parts.push(roman(rest));
    parts
}

type Taken<'t> = (Vec<Inline>, &'t str);

fn code(text: &str) -> Option<Taken<'_>> {
    let (span, after) = text.strip_prefix('`')?.split_once('`')?;
    Some((vec![bold(span)], after))
}

fn strong(text: &str) -> Option<Taken<'_>> {
    let (span, after) = text.strip_prefix("**")?.split_once("**")?;
    Some((vec![bold(plain(span))], after))
}

fn link(text: &str) -> Option<Taken<'_>> {
    let (words, rest) = text.strip_prefix('[')?.split_once("](")?;
    let (_, after) = rest.split_once(')')?;
    // A bracket that is no link's would reach to the next one.
    (!words.contains('[')).then(|| (inlines(words), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_annotated_example_is_on_the_page() {
        let example = include_str!("../config/examples/full.toml");
        let page = page().replace("\\-", "-").replace("\\f", " ");
        let keys = example.lines().filter_map(|line| {
            let (key, _) = line.trim().split_once(" = ")?;
            let is_key = key.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            is_key.then_some(key)
        });
        let keys: Vec<&str> = keys.collect();
        assert!(keys.len() > 30, "{keys:?}");
        for key in keys {
            assert!(page.contains(key), "`{key}` is not explained");
        }
    }

    #[test]
    fn a_constant_that_is_named_is_explained_with_its_value() {
        let constants: Vec<_> = constants().collect();
        assert!(
            constants.contains(&(
                "CORE_MAX",
                "8_192 - 1".to_owned(),
                "Highest CPU number that `cores` may name: Linux is built for at most 8,192 CPUs \
             (`NR_CPUS_RANGE_END` in arch/x86/Kconfig), counted from 0."
                    .to_owned()
            ))
        );
        let page = page();
        assert!(page.contains("CORE_MAX\\fR = 8_192 \\- 1"), "{page}");
        assert!(!page.contains("PROBLEMS_MAX"), "nothing names it");
    }

    #[test]
    fn marks_become_fonts_and_links_their_words() {
        assert_eq!(
            plain("a `b*` **c** [d `e`](f#g), [h] * i"),
            "a b* c d e, [h] * i"
        );
        let bolds = |text: &str| {
            let bold = |part: &Inline| matches!(part, Inline::Bold(_));
            inlines(text).into_iter().filter(bold).count()
        };
        assert_eq!(bolds("`a` [`b`](c) **d**"), 3);
        assert_eq!(cells("| a | `b` | |").unwrap(), ["a", "`b`", ""]);
        assert_eq!(cells("no table"), None);
    }
}
