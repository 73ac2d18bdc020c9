//! `min-healthy` and `when-below`: how few healthy backends a service puts up with.

use super::scope::Scope;
use crate::error::quote;
use crate::file::{self, Field, TextOrWhole};
use crate::limits::BACKENDS_TOTAL_MAX;
use crate::model::{MinHealthy, WhenBelow};

/// The outer `None` is a problem.
pub(super) fn resolve(
    scope: &mut Scope<'_, '_, '_>,
    raw: &file::Service<'_>,
) -> Option<(Option<MinHealthy>, WhenBelow)> {
    let when_below = scope.word("when-below", &raw.when_below, Some(WhenBelow::Closed), &[]);
    let value = match &raw.min_healthy {
        Field::Given(value) => value,
        Field::Bad => return None,
        Field::Absent => {
            if let Field::Given(text) = &raw.when_below {
                let found = "when-below without min-healthy".to_owned();
                let expected = "both".to_owned();
                let cure = "add min-healthy = 2, or say with when-empty what happens without any";
                scope.misfit("when-below", &text.span(), found, expected, cure);
                return None;
            }
            return Some((None, when_below?));
        }
    };
    let at = value.span();
    if let Field::Given(text) = &raw.when_empty {
        let found = "when-empty beside min-healthy".to_owned();
        let expected = "one of them: when-below is about no healthy backend too".to_owned();
        scope.misfit(
            "when-empty",
            &text.span(),
            found,
            expected,
            "write when-below instead",
        );
    }
    let least = match value.get_ref() {
        TextOrWhole::Whole(count) => u32::try_from(*count)
            .ok()
            .filter(|count| (1..=BACKENDS_TOTAL_MAX).contains(&(*count as usize)))
            .map(MinHealthy::Count),
        TextOrWhole::Text(text) => text
            .strip_suffix('%')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|percent| (1..=100).contains(percent))
            .map(MinHealthy::Percent),
    };
    let Some(least) = least else {
        let found = match value.get_ref() {
            TextOrWhole::Whole(count) => count.to_string(),
            TextOrWhole::Text(text) => quote(text),
        };
        let expected = format!("a number of 1 to {BACKENDS_TOTAL_MAX}, or a share of 1% to 100%");
        let cure = "write it like 2 or \"50%\"";
        scope.refuse("min-healthy", &at, found, expected, cure);
        return None;
    };
    if let MinHealthy::Count(count) = least
        && (count as usize) > raw.backends.len()
    {
        let found = format!(
            "{count} healthy backends are wanted of {}: there are never enough",
            raw.backends.len()
        );
        let cure = "add backends, or write a smaller number".to_owned();
        scope.warn("min-healthy", &at, found, cure);
    }
    Some((Some(least), when_below?))
}
