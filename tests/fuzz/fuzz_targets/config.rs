//! Any text as a configuration file: a model or problems, all of which can be told, and never a
//! panic. What is accepted is accepted again, as the same; and what is changed while it runs and
//! written into the text is read from there again, as it was in force.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate_config::{Change, Model, Overlay, WriteError, parse};

/// Something of every kind, for as many backends as there are.
fn changed(model: &Model) -> Overlay {
    let kinds = [
        Change::Drain,
        Change::Weight(7),
        Change::Disable,
        Change::Enable,
    ];
    let mut kinds = kinds.into_iter().cycle();
    let mut overlay = Overlay::default();
    for service in model.services() {
        for backend in service.backends() {
            let kind = kinds.next().unwrap();
            let done = overlay.change(model, service.name(), backend.address(), kind);
            assert!(done.is_ok(), "{done:?}");
        }
    }
    overlay
}

fuzz_target!(|text: &str| {
    match parse("fuzz.toml", text) {
        Ok(parsed) => {
            for warning in &parsed.warnings {
                assert!(!warning.to_string().is_empty());
            }
            let again = parse("fuzz.toml", text).unwrap();
            assert_eq!(again.model, parsed.model);
            let overlay = changed(&parsed.model);
            match overlay.write(&parsed.model, text) {
                Ok(written) => {
                    let said = parse("fuzz.toml", &written).unwrap().model;
                    assert_eq!(said, overlay.over(&parsed.model));
                }
                // It may be written in a way that is left alone; but never taken for another's.
                Err(error) => assert_eq!(error, WriteError::Unfaithful),
            }
        }
        Err(problems) => {
            assert!(!problems.list().is_empty());
            for problem in problems.list() {
                let told = problem.to_string();
                assert!(!told.contains(char::is_control), "{told:?}");
            }
            assert!(!problems.to_string().is_empty());
        }
    }
});
