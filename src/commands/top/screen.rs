//! `top` on a terminal's cells: a head, a sheet, and a line that says which keys there are.

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span as Piece};
use ratatui::widgets::{
    Block, Borders, Cell as TableCell, Clear, Paragraph, Row as TableRow, StatefulWidget, Table,
    TableState, Widget as _,
};

use super::sample::Span;
use super::sheet::{Cell, Mood, Sheet};
use super::state::State;
use super::views::{MAIN, View};

/// Lines above the sheet's frame.
const HEAD: u16 = 3;

/// Lines around the rows: head, frame, titles of the columns, keys.
pub(super) const AROUND: u16 = HEAD + 4;

/// Words are not cut to fewer columns than this.
const FEWEST: u16 = 8;

/// What `?` shows.
const KEYS: [(&str, &str); 11] = [
    ("1 2 3 4, tab", "services, workers, interfaces, drops"),
    (
        "up down, j k",
        "choose a row; page up, page down, home, end",
    ),
    ("enter", "a service's backends, an interface's drops"),
    ("esc", "back; takes a filter away first"),
    ("s or >, <", "sort by the next column, the one before"),
    ("r", "reverse the order"),
    ("/", "only rows with a text; enter keeps it, esc does not"),
    ("?", "this"),
    ("q, ctrl-c", "end"),
    ("", ""),
    (
        "busy turns",
        "turns of a worker that found packets, of all its turns",
    ),
];

/// Draws everything.
pub(super) fn draw(state: &State, area: Rect, buffer: &mut Buffer) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(HEAD),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_head(state, head, buffer);
    match state.sheet() {
        Some(sheet) => draw_sheet(state, &sheet, body, buffer),
        None => Paragraph::new("waiting for the balancer to answer").render(body, buffer),
    }
    draw_foot(state, foot, buffer);
    if state.is_explaining {
        draw_keys(area, buffer);
    }
}

fn draw_head(state: &State, area: Rect, buffer: &mut Buffer) {
    let mut lines = Vec::new();
    if let Some(span) = state.span() {
        lines.push(Line::from(about(span)));
        lines.push(Line::from(traffic(span)));
    }
    if let Some(why) = &state.trouble {
        let bad = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        lines.push(Line::styled(format!("no answer: {why}"), bad));
    }
    if state.trouble.is_none()
        && let Some(line) = sentence(state)
    {
        lines.push(Line::from(line));
    }
    Paragraph::new(lines).render(area, buffer);
}

/// What the chosen backend's check says, in full.
fn sentence(state: &State) -> Option<String> {
    let sheet = matches!(state.view, View::Backends(_)).then(|| state.sheet())??;
    let row = sheet.rows.get(state.place(&sheet))?;
    let last = row.cells.last().map(Cell::text)?;
    Some(format!("{}: {last}", row.id))
}

/// Which balancer it is.
fn about(span: Span<'_>) -> String {
    let now = span.now;
    let seconds = now.uptime_ms / 1000;
    let up = match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    };
    let modes = now
        .interfaces
        .iter()
        .map(|one| format!("{} {}", one.name, one.mode));
    let modes = modes.collect::<Vec<_>>().join(", ");
    format!(
        "ringgate {}  pid {}  up {up}  generation {}  control {}  modes: {modes}{}",
        now.version,
        now.pid,
        now.generation,
        now.control.io,
        if now.draining { "  DRAINING" } else { "" },
    )
}

/// What it is doing.
fn traffic(span: Span<'_>) -> String {
    let flows = &span.now.flows;
    let sum = |of: fn(&super::sample::Interface) -> u64| {
        let rate = span.rate(|sample| Some(sample.interfaces.iter().map(of).sum()));
        Cell::rate(rate).text()
    };
    format!(
        "flow entries {} of {}  half open {}  packets/s: {} received, {} forwarded, {} dropped, {} lost in kernel",
        Cell::count(flows.stored).text(),
        Cell::count(flows.capacity).text(),
        Cell::count(flows.half_open_stored).text(),
        sum(|one| one.received),
        sum(|one| one.forwarded),
        sum(|one| one.dropped_total),
        sum(super::sample::Interface::lost_by_kernel),
    )
}

fn draw_sheet(state: &State, sheet: &Sheet, area: Rect, buffer: &mut Buffer) {
    let order = state.order();
    let titles = sheet.columns.iter().enumerate().map(|(place, column)| {
        let sign = match (place == order.column, order.is_reversed) {
            (true, false) => "▲",
            (true, true) => "▼",
            (false, _) => "",
        };
        aligned(format!("{}{sign}", column.title), column.is_number)
    });
    let titles = TableRow::new(titles).style(Style::new().add_modifier(Modifier::BOLD));
    let rows = sheet.rows.iter().map(|row| {
        let cells = row.cells.iter().zip(sheet.columns);
        let cells = cells.map(|(cell, column)| aligned(cell.text(), column.is_number));
        TableRow::new(cells).style(match row.mood {
            Mood::Good => Style::new(),
            Mood::Doubtful => Style::new().fg(Color::Yellow),
            Mood::Bad => Style::new().fg(Color::Red),
        })
    });
    let widths = widths(sheet, area.width.saturating_sub(2));
    let widths = widths.into_iter().map(Constraint::Length);
    let mut title = format!(" {} ", sheet.title);
    if !state.filter.is_empty() {
        title += &format!("with \"{}\" ", state.filter);
    }
    let table = Table::new(rows, widths)
        .header(titles)
        .block(Block::new().borders(Borders::ALL).title(title))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let chosen = (!sheet.rows.is_empty()).then(|| state.place(sheet));
    let mut at = TableState::new().with_selected(chosen);
    StatefulWidget::render(table, area, buffer, &mut at);
}

/// How wide the columns are of a sheet that has so much room. Numbers are never cut as long as words can
/// be: the longest words are cut first.
fn widths(sheet: &Sheet, room: u16) -> Vec<u16> {
    let length = |text: &str| u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
    let columns = || sheet.columns.iter().enumerate();
    let mut widths: Vec<u16> = columns()
        .map(|(place, column)| {
            let cells = sheet.rows.iter().filter_map(|row| row.cells.get(place));
            let longest = cells.map(|cell| length(&cell.text())).max().unwrap_or(0);
            // With the sign of the order behind the title.
            longest.max(length(column.title) + 1).max(column.width)
        })
        .collect();
    let words: Vec<usize> = columns()
        .filter_map(|(place, column)| (!column.is_number).then_some(place))
        .collect();
    let spaces = u16::try_from(widths.len().saturating_sub(1)).unwrap_or(0);
    loop {
        let all = widths.iter().copied().fold(spaces, u16::saturating_add);
        let longest = words.iter().copied().max_by_key(|place| widths.get(*place));
        match longest.and_then(|place| widths.get_mut(place)) {
            Some(width) if all > room && *width > FEWEST => *width -= 1,
            _ => return widths,
        }
    }
}

fn aligned(text: String, is_number: bool) -> TableCell<'static> {
    let alignment = if is_number {
        Alignment::Right
    } else {
        Alignment::Left
    };
    TableCell::from(Line::from(text).alignment(alignment))
}

fn draw_foot(state: &State, area: Rect, buffer: &mut Buffer) {
    if state.is_filtering {
        let line = format!("only rows with: {}_", state.filter);
        return Paragraph::new(line).render(area, buffer);
    }
    let mut pieces = Vec::new();
    for (number, (place, (_, name))) in (1..).zip(MAIN.iter().enumerate()) {
        let style = if place == state.view.main() {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        pieces.push(Piece::styled(format!("{number} {name}"), style));
        pieces.push(Piece::raw("  "));
    }
    let keys = "? help  q quit  enter open  esc back  s sort  r reverse  / filter";
    pieces.push(Piece::raw(keys));
    Paragraph::new(Line::from(pieces)).render(area, buffer);
}

fn draw_keys(area: Rect, buffer: &mut Buffer) {
    let lines = KEYS.map(|(key, what)| Line::from(format!("{key:<14}{what}")));
    let (width, height) = (74, u16::try_from(KEYS.len()).unwrap_or(0) + 2);
    let [_, middle, _] = Layout::vertical([
        Constraint::Fill(1),
        Constraint::Max(height),
        Constraint::Fill(1),
    ])
    .areas(area);
    let [_, middle, _] = Layout::horizontal([
        Constraint::Fill(1),
        Constraint::Max(width),
        Constraint::Fill(1),
    ])
    .areas(middle);
    Clear.render(middle, buffer);
    Paragraph::new(lines.to_vec())
        .block(Block::new().borders(Borders::ALL).title(" keys "))
        .render(middle, buffer);
}

/// How wide a screen is on which nothing is cut.
pub(super) fn natural_width(state: &State) -> u16 {
    let sheet = state.sheet();
    let columns = sheet.map_or(0, |sheet| {
        let widths = widths(&sheet, u16::MAX);
        let spaces = u16::try_from(widths.len()).unwrap_or(0) + 1;
        widths.into_iter().fold(spaces, u16::saturating_add)
    });
    let lines = state.span().map(|span| [about(span), traffic(span)]);
    let lines = lines.into_iter().flatten().chain(sentence(state));
    let longest = lines.map(|line| line.chars().count()).max().unwrap_or(0);
    columns
        .max(u16::try_from(longest).unwrap_or(u16::MAX))
        .clamp(80, 500)
}

/// A screen as text, without what only colours tell.
pub(super) fn text(state: &State, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(state, area, &mut buffer);
    let mut page = String::new();
    for y in area.rows().map(|row| row.y) {
        let line: String = (0..width)
            .filter_map(|x| buffer.cell((x, y)))
            .map(|cell| cell.symbol())
            .collect();
        page += line.trim_end();
        page.push('\n');
    }
    page
}
