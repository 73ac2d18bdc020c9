//! The cells.

use super::columns;
use super::rows::Row;

/// A test for each cell, and the list of them.
macro_rules! cells {
    ($($row:ident { $($column:ident: $words:literal,)+ })+) => {
        /// Row, column, and what the cell says first.
        const CELLS: &[(&str, &str, &str)] =
            &[$($((stringify!($row), stringify!($column), $words),)+)+];

        $(mod $row {
            $(#[test]
            fn $column() {
                super::columns::$column(super::Row::$row(), $words);
            })+
        })+
    };
}

cells! {
    weight_changed {
        new_flows: "by the weights",
        established: "stay",
        half_open: "by the ring",
        udp: "stay",
        replies: "pass",
        slots_of_others: "few",
        status_and_counters: "up",
    }
    added {
        new_flows: "by the weights",
        established: "stay",
        half_open: "by the ring",
        udp: "stay",
        replies: "pass",
        slots_of_others: "few",
        status_and_counters: "up",
    }
    drained {
        new_flows: "elsewhere",
        established: "stay",
        half_open: "move",
        udp: "stay",
        replies: "pass",
        slots_of_others: "few",
        status_and_counters: "draining",
    }
    disabled {
        new_flows: "elsewhere",
        established: "move",
        half_open: "move",
        udp: "move",
        replies: "pass",
        slots_of_others: "few",
        status_and_counters: "disabled, rehashed",
    }
    down {
        new_flows: "elsewhere",
        established: "move",
        half_open: "move",
        udp: "move",
        replies: "pass",
        slots_of_others: "few",
        status_and_counters: "down, rehashed",
    }
    removed {
        new_flows: "elsewhere",
        established: "move",
        half_open: "move",
        udp: "move",
        replies: "stop",
        slots_of_others: "few",
        status_and_counters: "gone, rehashed",
    }
    flushed {
        new_flows: "by the weights",
        established: "anew",
        half_open: "by the ring",
        udp: "anew",
        replies: "pass",
        slots_of_others: "none",
        status_and_counters: "up, flushed",
    }
    back {
        new_flows: "by the weights",
        established: "stay",
        half_open: "by the ring",
        udp: "stay",
        replies: "pass",
        slots_of_others: "few",
        status_and_counters: "up",
    }
    back_slowly {
        new_flows: "by the weights",
        established: "stay",
        half_open: "by the ring",
        udp: "stay",
        replies: "pass",
        slots_of_others: "few",
        status_and_counters: "up, slow",
    }
    last_gone_drop {
        new_flows: "dropped",
        established: "dropped",
        half_open: "dropped",
        udp: "dropped",
        replies: "pass",
        slots_of_others: "none",
        status_and_counters: "down, no_backend",
    }
    last_gone_open {
        new_flows: "by the weights",
        established: "stay",
        half_open: "by the ring",
        udp: "stay",
        replies: "pass",
        slots_of_others: "none",
        status_and_counters: "up, fallen open",
    }
}

/// `**half-open**` is `half_open`.
fn slug(text: &str) -> String {
    let letters = text.to_lowercase();
    let words = letters.split(|letter: char| !letter.is_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("_")
}

/// The words in bold at the head of a cell.
fn head(cell: &str) -> &str {
    let bold = cell
        .trim()
        .strip_prefix("**")
        .and_then(|rest| rest.split_once("**"));
    bold.map_or("", |(words, _)| words)
}

#[test]
fn the_page_has_the_same_cells() {
    let page = include_str!("../../../docs/CHANGES-OF-BACKENDS.md");
    let mut lines = page.lines().filter(|line| line.starts_with('|'));
    let split = |line: &'static str| -> Vec<&'static str> {
        line.trim_matches('|').split('|').map(str::trim).collect()
    };
    let columns: Vec<String> = split(lines.next().unwrap()).into_iter().map(slug).collect();
    let rows = lines
        .skip(1)
        .map(split)
        .take_while(|row| row.len() == columns.len());
    let mut on_page = Vec::new();
    for row in rows {
        let name = slug(head(row[0]));
        for (column, cell) in columns.iter().zip(&row).skip(1) {
            on_page.push((name.clone(), column.clone(), head(cell).replace('`', "")));
        }
    }
    let own = |(row, column, words): &(&str, &str, &str)| {
        ((*row).to_owned(), (*column).to_owned(), (*words).to_owned())
    };
    assert_eq!(on_page, CELLS.iter().map(own).collect::<Vec<_>>());
}
