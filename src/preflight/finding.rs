//! One thing that was looked at, and what came of it.

use std::fmt;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// Works, but the operator should know.
    Warning,
    /// Ringgate cannot run like this.
    Refusal,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) level: Level,
    /// What was looked at.
    pub(crate) subject: String,
    /// What was found.
    pub(crate) found: String,
    /// What would be right; empty when it is good.
    pub(crate) expected: String,
    /// What to do about it; empty when it is good.
    pub(crate) cure: String,
}

impl Finding {
    pub(crate) fn good(subject: impl Into<String>, found: impl Into<String>) -> Self {
        let (subject, found) = (subject.into(), found.into());
        Self {
            level: Level::Good,
            subject,
            found,
            expected: String::new(),
            cure: String::new(),
        }
    }

    pub(crate) fn warning(
        subject: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Warning,
            expected: expected.into(),
            cure: cure.into(),
            ..Self::good(subject, found)
        }
    }

    pub(crate) fn refusal(
        subject: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Refusal,
            ..Self::warning(subject, found, expected, cure)
        }
    }

    /// What was found, what was expected and what to do, on one line: for the log.
    pub(crate) fn line(&self) -> String {
        let Self {
            subject,
            found,
            expected,
            cure,
            ..
        } = self;
        if self.level == Level::Good {
            return format!("{subject}: {found}");
        }
        format!("{subject}: {found}; expected {expected}; {cure}")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.level {
            Level::Good => "ok  ",
            Level::Warning => "warn",
            Level::Refusal => "FAIL",
        };
        write!(f, "{mark}  {:<22} {}", self.subject, self.found)?;
        if self.level != Level::Good {
            write!(f, "\n      {:<22} expected: {}", "", self.expected)?;
            write!(f, "\n      {:<22} -> {}", "", self.cure)?;
        }
        Ok(())
    }
}
