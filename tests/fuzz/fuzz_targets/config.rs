//! Any text as a configuration file: a model or problems, all of which can be told, and never a
//! panic. What is accepted is accepted again, as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate_config::parse;

fuzz_target!(|text: &str| {
    match parse("fuzz.toml", text) {
        Ok(parsed) => {
            for warning in &parsed.warnings {
                assert!(!warning.to_string().is_empty());
            }
            let again = parse("fuzz.toml", text).unwrap();
            assert_eq!(again.model, parsed.model);
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
