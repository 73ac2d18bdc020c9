//! A table of `top`: columns, rows, what is sorted by, and what is left out. Nothing here knows a terminal.

use std::cmp::Ordering;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    /// Its title.
    pub(super) title: &'static str,
    /// How wide it is at least, columns of the terminal: what comes and goes shall not move the others.
    pub(super) width: u16,
    /// Numbers stand to the right, words to the left.
    pub(super) is_number: bool,
}

/// A column of words.
pub(super) const fn words(title: &'static str, width: u16) -> Column {
    Column {
        title,
        width,
        is_number: false,
    }
}

/// A column of numbers.
pub(super) const fn numbers(title: &'static str, width: u16) -> Column {
    Column {
        title,
        width,
        is_number: true,
    }
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// With k, M, G behind it.
    Plain,
    /// A share of one, in percent.
    Share,
    /// A time in nanoseconds.
    Nanoseconds,
}

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// A word.
    Word(String),
    /// A number; `None` where there is none (yet).
    Number(Option<f64>, Unit),
    /// Some of several: sorted by what is missing.
    Of(u64, u64),
}

impl Cell {
    /// A word.
    pub(super) fn word(text: impl Into<String>) -> Self {
        Self::Word(text.into())
    }

    /// A number of things.
    #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
    pub(super) const fn count(count: u64) -> Self {
        Self::Number(Some(count as f64), Unit::Plain)
    }

    /// Things in a second.
    pub(super) const fn rate(rate: Option<f64>) -> Self {
        Self::Number(rate, Unit::Plain)
    }

    /// A time.
    pub(super) fn nanoseconds(time: Option<u64>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
        let time = time.map(|time| time as f64);
        Self::Number(time, Unit::Nanoseconds)
    }

    /// As it is shown.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Word(text) => text.clone(),
            Self::Number(None, _) => "-".to_owned(),
            Self::Number(Some(number), Unit::Plain) => scaled(*number),
            Self::Number(Some(share), Unit::Share) => format!("{:.1} %", share * 100.0),
            Self::Number(Some(time), Unit::Nanoseconds) => match *time {
                time if time < 1e6 => format!("{} µs", digits(time / 1e3)),
                time if time < 1e9 => format!("{} ms", digits(time / 1e6)),
                time => format!("{} s", digits(time / 1e9)),
            },
            Self::Of(some, all) => format!("{some}/{all}"),
        }
    }

    /// Its place among those of its column, the smallest first. Nothing is smaller than any number.
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Word(one), Self::Word(other)) => natural(one, other),
            (Self::Number(one, _), Self::Number(other, _)) => match (one, other) {
                (Some(one), Some(other)) => one.total_cmp(other),
                (one, other) => one.is_some().cmp(&other.is_some()),
            },
            (Self::Of(some, all), Self::Of(others, of)) => {
                let missing = |some: &u64, all: &u64| all.saturating_sub(*some);
                missing(some, all)
                    .cmp(&missing(others, of))
                    .then(all.cmp(of))
            }
            // One column has one sort of cells.
            _ => Ordering::Equal,
        }
    }
}

/// Words in the order of people: `b2` before `b10`.
fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (pieces(one), pieces(other));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => {
                let order = match (one.parse::<u64>(), other.parse::<u64>()) {
                    (Ok(one), Ok(other)) => one.cmp(&other),
                    _ => one.cmp(other),
                };
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

/// A text as runs of digits and of other characters.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut left = text;
    std::iter::from_fn(move || {
        let first = left.chars().next()?;
        let is_digit = first.is_ascii_digit();
        let end = left
            .find(|c: char| c.is_ascii_digit() != is_digit)
            .unwrap_or(left.len());
        let (piece, rest) = left.split_at(end);
        left = rest;
        Some(piece)
    })
}

/// Three digits and what they count in.
fn scaled(number: f64) -> String {
    const STEPS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What would be rounded to 1000 belongs to the next step.
    let step = STEPS.iter().find(|(step, _)| number >= step * 0.9995);
    match step {
        Some((step, sign)) => format!("{} {sign}", digits(number / step)),
        None if number.fract() == 0.0 => format!("{number:.0}"),
        None => digits(number),
    }
}

/// Three digits.
fn digits(number: f64) -> String {
    let places = match number {
        number if number >= 99.95 => 0,
        number if number >= 9.995 => 1,
        _ => 2,
    };
    format!("{number:.places$}")
}

/// How bad a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mood {
    /// As it should be.
    #[default]
    Good,
    /// Between.
    Doubtful,
    /// Somebody should look.
    Bad,
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// What it is about; no other row of the sheet is about the same.
    pub(super) id: String,
    /// As many as there are columns.
    pub(super) cells: Vec<Cell>,
    /// How bad it is.
    pub(super) mood: Mood,
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sheet {
    /// What it shows.
    pub(super) title: String,
    /// Its columns.
    pub(super) columns: &'static [Column],
    /// Its rows.
    pub(super) rows: Vec<Row>,
}

/// What is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// The column.
    pub(super) column: usize,
    /// The largest first.
    pub(super) is_reversed: bool,
}

impl Sheet {
    /// Leaves the rows with `filter` in one of their words (in any case), in this order. Equal ones are
    /// in the order of their first column.
    pub(super) fn arrange(&mut self, order: Order, filter: &str) {
        let filter = filter.to_lowercase();
        let has =
            |cell: &Cell| matches!(cell, Cell::Word(word) if word.to_lowercase().contains(&filter));
        self.rows
            .retain(|row| filter.is_empty() || row.cells.iter().any(has));
        let compare = |one: &Row, other: &Row, column: usize| {
            let cells = (one.cells.get(column), other.cells.get(column));
            match cells {
                (Some(one), Some(other)) => one.order(other),
                _ => Ordering::Equal,
            }
        };
        self.rows.sort_by(|one, other| {
            let wanted = compare(one, other, order.column);
            let wanted = if order.is_reversed {
                wanted.reverse()
            } else {
                wanted
            };
            wanted.then_with(|| compare(one, other, 0))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLUMNS: [Column; 2] = [words("name", 10), numbers("count", 8)];

    fn sheet(rows: &[(&str, Option<f64>)]) -> Sheet {
        let row = |(name, number): &(&str, Option<f64>)| Row {
            id: (*name).to_owned(),
            cells: vec![Cell::word(*name), Cell::Number(*number, Unit::Plain)],
            mood: Mood::Good,
        };
        Sheet {
            title: "things".to_owned(),
            columns: &COLUMNS,
            rows: rows.iter().map(row).collect(),
        }
    }

    fn arranged(column: usize, is_reversed: bool, filter: &str) -> Vec<String> {
        let rows = [
            ("b10", Some(1.0)),
            ("b2", Some(30.0)),
            ("Web", None),
            ("b1", Some(30.0)),
        ];
        let mut sheet = sheet(&rows);
        let order = Order {
            column,
            is_reversed,
        };
        sheet.arrange(order, filter);
        sheet.rows.into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn rows_are_sorted_as_people_count() {
        assert_eq!(arranged(0, false, ""), ["Web", "b1", "b2", "b10"]);
        assert_eq!(arranged(0, true, ""), ["b10", "b2", "b1", "Web"]);
        // Nothing is less than one, and equals stand by name whichever way.
        assert_eq!(arranged(1, false, ""), ["Web", "b10", "b1", "b2"]);
        assert_eq!(arranged(1, true, ""), ["b1", "b2", "b10", "Web"]);
        assert_eq!(arranged(9, true, ""), ["Web", "b1", "b2", "b10"]);
    }

    #[test]
    fn a_filter_leaves_what_has_it_in_a_word() {
        assert_eq!(arranged(0, false, "B1"), ["b1", "b10"]);
        assert_eq!(arranged(0, false, "web"), ["Web"]);
        assert_eq!(arranged(0, false, "30"), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_sorts_some_of_several() {
        let order = |one: Cell, other: Cell| one.order(&other);
        assert_eq!(order(Cell::Of(2, 3), Cell::Of(9, 9)), Ordering::Greater);
        assert_eq!(order(Cell::Of(3, 3), Cell::Of(9, 9)), Ordering::Less);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (number, text) in [
            (0.0, "0"),
            (0.4, "0.40"),
            (7.0, "7"),
            (12.34, "12.3"),
            (999.4, "999"),
            (999.9, "1.00 k"),
            (1_234.0, "1.23 k"),
            (999_900.0, "1.00 M"),
            (123_456_789.0, "123 M"),
            (9.9e9, "9.90 G"),
            (4.2e12, "4.20 T"),
        ] {
            assert_eq!(scaled(number), text, "{number}");
        }
        for (time, text) in [
            (850, "0.85 µs"),
            (12_340, "12.3 µs"),
            (2_000_000, "2.00 ms"),
        ] {
            assert_eq!(Cell::nanoseconds(Some(time)).text(), text);
        }
        assert_eq!(Cell::Number(Some(0.256), Unit::Share).text(), "25.6 %");
        assert_eq!(Cell::rate(None).text(), "-");
    }
}
