//! What `top` is showing, and what keys and samples make of it. No terminal, no clock, no socket.

use super::sample::{Sample, Span};
use super::sheet::{Order, Sheet};
use super::views::{MAIN, View};

/// A key, as far as it means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// A character.
    Char(char),
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// A screenful up.
    PageUp,
    /// A screenful down.
    PageDown,
    /// The first row.
    Home,
    /// The last row.
    End,
    /// Into the row.
    Enter,
    /// Out again.
    Escape,
    /// Takes the last character of the filter away.
    Backspace,
    /// The next screen.
    Tab,
    /// To the end of the program, always.
    Interrupt,
}

/// Rows that a screenful is.
const PAGE: usize = 10;

/// Most characters of a filter.
const FILTER_MOST: usize = 60;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct State {
    /// The screen.
    pub(super) view: View,
    /// The row that is chosen, by what it is about; none: the first.
    chosen: Option<String>,
    /// What the kinds of screens are sorted by.
    orders: [Order; 5],
    /// Only rows with this.
    pub(super) filter: String,
    /// The filter is being written.
    pub(super) is_filtering: bool,
    /// The keys are being explained.
    pub(super) is_explaining: bool,
    before: Option<Sample>,
    now: Option<Sample>,
    /// Why there is nothing new.
    pub(super) trouble: Option<String>,
}

impl State {
    /// Nothing is known yet.
    pub(super) const fn new(view: View) -> Self {
        Self {
            view,
            chosen: None,
            orders: View::first_orders(),
            filter: String::new(),
            is_filtering: false,
            is_explaining: false,
            before: None,
            now: None,
            trouble: None,
        }
    }

    /// The balancer has answered, or not.
    pub(super) fn feed(&mut self, told: Result<Sample, String>) {
        match told {
            Ok(sample) => {
                self.trouble = None;
                self.before = self.now.replace(sample);
            }
            // What was last known stays to be looked at.
            Err(why) => self.trouble = Some(why),
        }
    }

    /// The two latest samples; none before the first.
    pub(super) fn span(&self) -> Option<Span<'_>> {
        let now = self.now.as_ref()?;
        Some(Span::new(self.before.as_ref(), now))
    }

    /// What the screen is sorted by.
    pub(super) fn order(&self) -> Order {
        self.orders[self.view.kind()]
    }

    /// What is to be shown.
    pub(super) fn sheet(&self) -> Option<Sheet> {
        let mut sheet = self.view.sheet(self.span()?);
        sheet.arrange(self.order(), &self.filter);
        Some(sheet)
    }

    /// The place of the chosen row; the first where it is gone.
    pub(super) fn place(&self, sheet: &Sheet) -> usize {
        let is_it = |id: &str| Some(id) == self.chosen.as_deref();
        let place = sheet.rows.iter().position(|row| is_it(&row.id));
        place.unwrap_or(0)
    }

    /// A key was pressed. Whether to go on.
    pub(super) fn press(&mut self, key: Key) -> bool {
        if key == Key::Interrupt {
            return false;
        }
        if self.is_filtering {
            self.write(key);
            return true;
        }
        if self.is_explaining {
            self.is_explaining = false;
            return key != Key::Char('q');
        }
        match key {
            Key::Char('q') => return false,
            Key::Char('?' | 'h') => self.is_explaining = true,
            Key::Char('/') => self.is_filtering = true,
            Key::Char('s' | '>') => self.sort(1),
            Key::Char('<') => self.sort(-1),
            Key::Char('r') => {
                let kind = self.view.kind();
                self.orders[kind].is_reversed ^= true;
            }
            Key::Char(digit @ '1'..='4') => {
                let place = usize::try_from(u32::from(digit) - u32::from('1'));
                self.go(place.unwrap_or(0));
            }
            Key::Tab => self.go((self.view.main() + 1) % MAIN.len()),
            Key::Enter => self.enter(),
            Key::Escape | Key::Backspace => self.leave(),
            Key::Up | Key::Char('k') => self.choose(|place, _| place.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.choose(|place, _| place + 1),
            Key::PageUp => self.choose(|place, _| place.saturating_sub(PAGE)),
            Key::PageDown => self.choose(|place, _| place + PAGE),
            Key::Home => self.choose(|_, _| 0),
            Key::End => self.choose(|_, rows| rows),
            Key::Char(_) | Key::Interrupt => {}
        }
        true
    }

    /// A key while the filter is being written.
    fn write(&mut self, key: Key) {
        match key {
            Key::Char(character) if self.filter.chars().count() < FILTER_MOST => {
                self.filter.push(character);
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.is_filtering = false,
            Key::Escape => {
                self.is_filtering = false;
                self.filter.clear();
            }
            _ => {}
        }
    }

    /// Sorts by another column.
    fn sort(&mut self, step: isize) {
        let Some(sheet) = self.sheet() else { return };
        let order = &mut self.orders[self.view.kind()];
        let columns = sheet.columns.len();
        order.column = (order.column + columns).saturating_add_signed(step) % columns;
        // Who sorts by a number asks for the largest.
        order.is_reversed = sheet
            .columns
            .get(order.column)
            .is_some_and(|column| column.is_number);
    }

    fn go(&mut self, main: usize) {
        if let Some((view, _)) = MAIN.get(main) {
            self.view = view.clone();
            self.chosen = None;
            self.filter.clear();
        }
    }

    fn enter(&mut self) {
        let Some(sheet) = self.sheet() else { return };
        let row = sheet.rows.get(self.place(&sheet));
        if let Some(view) = row.and_then(|row| self.view.behind(&row.id)) {
            self.view = view;
            self.chosen = None;
            self.filter.clear();
        }
    }

    /// Takes the filter away, or else goes back to where the screen was reached from, and to its row.
    fn leave(&mut self) {
        if !self.filter.is_empty() {
            self.filter.clear();
            return;
        }
        let Some(view) = self.view.out() else { return };
        let left = std::mem::replace(&mut self.view, view);
        self.chosen = match left {
            View::Backends(name) | View::Drops(Some(name)) => Some(name),
            _ => None,
        };
    }

    /// Chooses another row, from the place and the number of rows.
    fn choose(&mut self, to: impl Fn(usize, usize) -> usize) {
        let Some(sheet) = self.sheet() else { return };
        let last = sheet.rows.len().saturating_sub(1);
        let place = to(self.place(&sheet), sheet.rows.len()).min(last);
        self.chosen = sheet.rows.get(place).map(|row| row.id.clone());
    }
}
