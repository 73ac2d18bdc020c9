//! Durations as the file writes them: a whole number and one unit, `"500ms"`, `"1s"`, `"2m"`, `"1h"`.

use std::fmt;
use std::time::Duration;

use crate::error::{Refusal, quote};

/// The units, each with its length in milliseconds, the longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads a duration. Nothing is guessed: no sign, no fraction, no space, no sum of units.
pub(crate) fn read(text: &str) -> Result<Duration, Refusal> {
    let refuse = |cure: &str| Refusal {
        found: quote(text),
        expected: "a whole number and a unit of ms, s, m, h".to_owned(),
        cure: cure.to_owned(),
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(refuse("write it like \"500ms\" or \"5s\""));
    }
    if unit.is_empty() {
        return Err(refuse(&format!(
            "add the unit: \"{}s\" for seconds",
            shorten(number)
        )));
    }
    let Some(&(_, unit_millis)) = UNITS.iter().find(|&&(name, _)| name == unit) else {
        return Err(refuse(
            "write one number and one unit, like \"1500ms\" for 1.5 s",
        ));
    };
    let millis = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit_millis));
    let Some(millis) = millis else {
        return Err(refuse(
            "that is longer than can be counted: write a smaller number",
        ));
    };
    Ok(Duration::from_millis(millis))
}

/// Digits short enough to repeat.
fn shorten(digits: &str) -> &str {
    if digits.len() <= 9 { digits } else { "5" }
}

/// A duration in the file's own spelling, in the longest unit that keeps it whole.
pub(crate) struct Spelt(pub(crate) Duration);

impl fmt::Display for Spelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let whole = |&&(_, unit): &&(&str, u64)| millis > 0 && millis.is_multiple_of(unit.into());
        let (name, unit) = UNITS.iter().find(whole).copied().unwrap_or(("s", 1_000));
        write!(f, "{}{name}", millis / u128::from(unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_spelt() {
        for (text, millis) in [
            ("500ms", 500),
            ("1s", 1_000),
            ("90s", 90_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            let duration = read(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis));
            assert_eq!(Spelt(duration).to_string(), text);
        }
        assert_eq!(read("0s").unwrap(), Duration::ZERO);
        assert_eq!(Spelt(Duration::ZERO).to_string(), "0s");
        assert_eq!(Spelt(read("60s").unwrap()).to_string(), "1m");
    }

    #[test]
    fn nothing_is_guessed() {
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "+5s",
            "1.5s",
            "5 s",
            " 5s",
            "5s ",
            "5S",
            "1m30s",
            "5us",
            "٥s",
            "18446744073709551616ms",
            "18446744073709551615h",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(
            read("5").unwrap_err().cure,
            "add the unit: \"5s\" for seconds"
        );
    }
}
