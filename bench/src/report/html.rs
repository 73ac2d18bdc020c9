//! HTML as text: what comes from a file is escaped, nothing is fetched from elsewhere, and no
//! script is needed to read it.

use std::fmt::Write as _;

/// How the page looks; also when it is printed.
const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1a1a1a;background:#fff}h1,h2,h3{line-height:1.2}h2{margin-top:3rem;border-top:1px solid #ccc;\
padding-top:1rem}figure{margin:1.5rem 0}figcaption{color:#444}svg{width:100%;height:auto}\
table{border-collapse:collapse;margin:.5rem 0}th,td{padding:.15rem .8rem .15rem 0;text-align:left;\
border-bottom:1px solid #ddd;font-variant-numeric:tabular-nums}pre{white-space:pre-wrap;\
word-break:break-all;font-size:12px}code{background:#f3f3f3;padding:0 .2rem}.absent{color:#666}";

/// Text as it may stand between tags and in attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A table; its cells are escaped here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// Heads of the columns.
    pub heads: Vec<String>,
    /// Rows of as many cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(heads: &[&str]) -> Self {
        Self {
            heads: heads.iter().map(|&head| head.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// As HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let line = |cells: &[String], tag: &str| {
            let cells = cells
                .iter()
                .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        let rows: String = self.rows.iter().map(|row| line(row, "td")).collect();
        format!("<table>\n{}{rows}</table>\n", line(&self.heads, "th"))
    }
}

/// A part of the page: a drawing or why there is none, and the numbers in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// In the heading and as the link's name.
    pub title: String,
    /// What is shown, how it was measured, what it does not say.
    pub caption: String,
    /// SVG text.
    pub drawing: Option<String>,
    /// The same numbers.
    pub table: Table,
}

impl Figure {
    /// As HTML.
    #[must_use]
    pub fn html(&self) -> String {
        let (title, caption) = (escape(&self.title), escape(&self.caption));
        let mut html = format!("<h3>{title}</h3>\n<figure role=\"group\">\n");
        if let Some(drawing) = &self.drawing {
            let role = format!("<svg role=\"img\" aria-label=\"{title}\" ");
            html.push_str(&drawing.replacen("<svg ", &role, 1));
        }
        // Writing to a string does not fail.
        let _infallible = writeln!(html, "\n<figcaption>{caption}</figcaption>");
        if self.table.rows.is_empty() {
            html.push_str("<p class=\"absent\">Not measured in this run.</p>\n");
        } else if self.drawing.is_some() {
            let table = self.table.html();
            let _infallible = writeln!(
                html,
                "<details><summary>the numbers</summary>\n{table}</details>"
            );
        } else {
            html.push_str(&self.table.html());
        }
        html.push_str("</figure>\n");
        html
    }
}

/// A whole page around `body`.
#[must_use]
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_stays_text() {
        assert_eq!(
            escape("<a href='x'>&\""),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;"
        );
        let mut table = Table::new(&["who"]);
        table.rows.push(vec!["<script>".to_owned()]);
        assert!(!table.html().contains("<script>"));
        assert!(table.html().contains("<th>who</th>"));
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let mut figure = Figure {
            title: "Idle".to_owned(),
            caption: "c".to_owned(),
            drawing: None,
            table: Table::new(&["a"]),
        };
        assert!(figure.html().contains("Not measured"));
        figure.table.rows.push(vec!["1".to_owned()]);
        assert!(!figure.html().contains("Not measured"));
        figure.drawing = Some("<svg width=\"1\"></svg>".to_owned());
        assert!(figure.html().contains("aria-label=\"Idle\""));
    }
}
