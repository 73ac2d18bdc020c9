//! Text → TOML tables, and what is not TOML in the operator's words.

use toml::Spanned;
use toml::de::DeTable;

use crate::error::{Findings, Kind, Refusal, quote};

/// Parses the text and reports what is not TOML.
pub(crate) fn parse<'t>(text: &'t str, findings: &mut Findings<'t>) -> Spanned<DeTable<'t>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let swallowed = swallowed_from(&errors);
    for error in errors {
        let at = error.span().unwrap_or(0..0);
        if at.start > swallowed {
            continue;
        }
        let line = findings.line_text(at.start).trim();
        if error.message() == "duplicate key" {
            // The first of two keys stands, so the rest of the file can be believed; of two
            // tables it cannot be told to which the keys belong.
            let kind = if line.starts_with('[') {
                Kind::Syntax
            } else {
                Kind::Value
            };
            let key = text.get(at.clone()).unwrap_or("");
            let refusal = Refusal {
                found: format!("{} a second time", quote(key)),
                expected: "each key and each table once".to_owned(),
                cure: "delete or rename one of them (interfaces, services and backends are listed \
                       with [[double brackets]])"
                    .to_owned(),
            };
            findings.problem(kind, &at, String::new(), refusal);
            continue;
        }
        let found = if line.is_empty() {
            "an end too early".to_owned()
        } else {
            quote(line)
        };
        let refusal = Refusal {
            found,
            expected: format!("TOML ({})", error.message()),
            cure: syntax_cure(error.message()).to_owned(),
        };
        findings.problem(Kind::Syntax, &at, String::new(), refusal);
    }
    root
}

/// How the TOML parser's message for an unclosed list or inline table begins.
const MISSING_COMMA: &str = "missing comma between";

/// Where a list or inline table that is never closed begins to swallow the lines below it: what
/// is said against those is a consequence. Beyond every text if all are closed.
fn swallowed_from(errors: &[toml::de::Error]) -> usize {
    let unclosed = |message: &str| {
        matches!(message.split_once(','), Some((what, _)) if
        matches!(what, "unclosed array" | "unclosed inline table"))
    };
    if !errors.iter().any(|error| unclosed(error.message())) {
        return usize::MAX;
    }
    let commas = errors
        .iter()
        .filter(|error| error.message().starts_with(MISSING_COMMA));
    commas
        .filter_map(|error| Some(error.span()?.start))
        .min()
        .unwrap_or(usize::MAX)
}

/// What to do about a message of the TOML parser. The messages are not its contract: one that
/// is not recognised gets the general cure.
fn syntax_cure(message: &str) -> &'static str {
    const CURES: [(&str, &str); 11] = [
        (
            MISSING_COMMA,
            "add the comma, or close the bracket or brace opened above",
        ),
        (
            "string values must be quoted",
            "write the text after = in double quotes",
        ),
        (
            "invalid boolean",
            "write text in double quotes; alone only true or false",
        ),
        ("invalid float", "write text and addresses in double quotes"),
        (
            "invalid basic string",
            "close the double quote in the same line",
        ),
        ("key with no value", "write key = value"),
        ("unclosed array table", "close the header with ]]"),
        ("unclosed array", "close the list with ]"),
        ("unclosed inline table", "close the table with }"),
        ("unclosed table", "close the header with ]"),
        (
            "unexpected leading zero",
            "write the number without leading zeros",
        ),
    ];
    let cure = CURES.iter().find(|(start, _)| message.starts_with(start));
    cure.map_or(
        "write key = value, text in double quotes, tables in [brackets]",
        |(_, cure)| cure,
    )
}
