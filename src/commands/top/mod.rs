//! `ringgate top`: a running balancer, watched.
//!
//! | file | owns |
//! |---|---|
//! | [`sample`] | what is taken from a status; rates between two |
//! | [`sheet`] | tables: cells, order, filter |
//! | [`views`] | which tables there are |
//! | [`state`] | what keys and samples make of what is shown |
//! | [`screen`] | the terminal's cells |
//!
//! Only this file does I/O. A thread asks the balancer, so that a silent one does not hold up the keys;
//! it is asked again and again, so one that stops and comes back is seen to.
#![expect(clippy::print_stdout, reason = "printing is what this command is for")]

mod sample;
mod screen;
mod sheet;
mod state;
#[cfg(test)]
mod tests;
mod views;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::cli::{Screen, Top};
use crate::control::client;
use crate::control::signals::Signals;
use sample::Sample;
use state::{Key, State};
use views::View;

/// How long keys are waited for at a time: how soon a sample that has come is shown.
const GLANCE: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn run(args: &Top) -> ExitCode {
    let mut state = State::new(view(args));
    state.filter = args.filter.clone().unwrap_or_default();
    let done = if args.once || !io::stdout().is_terminal() {
        once(&mut state, args)
    } else {
        watch(&mut state, args).map_err(|error| error.to_string())
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringgate top: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The screen that is asked for.
fn view(args: &Top) -> View {
    match (&args.service, args.screen) {
        (Some(service), _) => View::Backends(service.clone()),
        (None, Screen::Services) => View::Services,
        (None, Screen::Workers) => View::Workers,
        (None, Screen::Interfaces) => View::Interfaces,
        (None, Screen::Drops) => View::Drops(None),
    }
}

/// Asks the balancer once.
fn ask(admin: &Path) -> Result<Sample, String> {
    let status = client::get(admin, "/v1/status").map_err(|error| error.to_string())?;
    Sample::read(&status).map_err(|error| format!("a status that makes no sense: {error}"))
}

/// One screen, as text: all rows of it. Two looks, since one has no rates.
fn once(state: &mut State, args: &Top) -> Result<(), String> {
    state.feed(Ok(ask(&args.admin.admin)?));
    std::thread::sleep(args.interval());
    state.feed(Ok(ask(&args.admin.admin)?));
    let rows = state.sheet().map_or(0, |sheet| sheet.rows.len());
    let height = u16::try_from(rows).unwrap_or(u16::MAX);
    let height = height.saturating_add(screen::AROUND);
    let width = args.width.unwrap_or_else(|| screen::natural_width(state));
    print!("{}", screen::text(state, width, height));
    Ok(())
}

/// The screen, until somebody has seen enough.
fn watch(state: &mut State, args: &Top) -> io::Result<()> {
    // So that their end comes by the loop's, and the terminal is as it was.
    let signals = Signals::block()?;
    let samples = follow(args.admin.admin.clone(), args.interval());
    // Puts the terminal back if this panics, too.
    let mut terminal = ratatui::try_init()?;
    let ended = turn(state, &mut terminal, &samples, &signals);
    ratatui::try_restore()?;
    ended
}

fn turn(
    state: &mut State,
    terminal: &mut ratatui::DefaultTerminal,
    samples: &Receiver<Result<Sample, String>>,
    signals: &Signals,
) -> io::Result<()> {
    loop {
        while let Ok(told) = samples.try_recv() {
            state.feed(told);
        }
        terminal.draw(|frame| screen::draw(state, frame.area(), frame.buffer_mut()))?;
        // Drawn anew after each event, so in a new size after a change of it.
        if event::poll(GLANCE)?
            && let Event::Key(pressed) = event::read()?
            && let Some(key) = key(pressed)
            && !state.press(key)
        {
            return Ok(());
        }
        if signals.next()?.is_some() {
            return Ok(());
        }
    }
}

/// Asks in a thread of its own, again and again; it ends with the process.
fn follow(admin: PathBuf, every: Duration) -> Receiver<Result<Sample, String>> {
    let (tell, told): (SyncSender<_>, _) = sync_channel(1);
    std::thread::spawn(move || {
        while tell.send(ask(&admin)).is_ok() {
            std::thread::sleep(every);
        }
    });
    told
}

/// What a key means; nothing, for most.
fn key(pressed: KeyEvent) -> Option<Key> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    let is_control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    Some(match pressed.code {
        KeyCode::Char('c') if is_control => Key::Interrupt,
        KeyCode::Char(_) if is_control => return None,
        KeyCode::Char(character) => Key::Char(character),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        _ => return None,
    })
}
