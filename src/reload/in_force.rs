//! Where the running configuration came from, and whether the file on disk says the same.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ringgate_config::Model;
use ringgate_config::diff::Diff;
use serde_json::{Value, json};

/// What the file on disk is to the configuration in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// Nobody has looked yet.
    Unknown,
    /// It says the same.
    Same,
    /// It says something else: the next reload or restart changes the configuration.
    Differs,
    /// It is refused: the next reload changes nothing, a restart does not start.
    Refused,
    /// It cannot be read.
    Unreadable,
}

impl Disk {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A file as the kernel describes it; another one, or one that was written to, is described otherwise.
type Stamp = (u64, u64, i64, i64);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct InForce {
    /// What an operator has applied in place of the file, by the name he gave.
    applied: Option<String>,
    disk: Disk,
    seen: Option<Stamp>,
}

impl InForce {
    /// The configuration was read from the file.
    pub(crate) const fn from_file() -> Self {
        Self {
            applied: None,
            disk: Disk::Unknown,
            seen: None,
        }
    }

    /// The configuration was sent by an operator, who calls it by this name.
    pub(crate) const fn applied(name: String) -> Self {
        Self {
            applied: Some(name),
            disk: Disk::Unknown,
            seen: None,
        }
    }

    /// Looks at the file, if it is another than when it was last looked at. It is read and compared with
    /// `running` then.
    pub(crate) fn look(&mut self, file: &Path, running: &Model) {
        let Ok(stamp) = std::fs::metadata(file)
            .map(|found| (found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        else {
            (self.disk, self.seen) = (Disk::Unreadable, None);
            return;
        };
        if self.seen == Some(stamp) {
            return;
        }
        self.seen = Some(stamp);
        self.disk = match std::fs::read_to_string(file) {
            Err(_) => Disk::Unreadable,
            Ok(text) => match ringgate_config::parse("", &text) {
                Err(_) => Disk::Refused,
                Ok(parsed) if Diff::between(running, &parsed.model).is_empty() => Disk::Same,
                Ok(_) => Disk::Differs,
            },
        };
    }

    /// For `status`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "applied": self.applied,
            "on_disk": self.disk.as_str(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[[interface]]\nname = \"eth0\"\n";

    #[test]
    fn the_file_is_looked_at_again_when_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ringgate.toml");
        let running = ringgate_config::parse("", FILE).unwrap().model;
        let mut in_force = InForce::from_file();
        assert_eq!(in_force.to_json()["on_disk"], "unknown");
        let mut after = |text: Option<&str>| {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            in_force.look(&path, &running);
            in_force.to_json()["on_disk"].as_str().unwrap().to_owned()
        };
        assert_eq!(after(Some(FILE)), "same");
        let drain = format!("[balancer]\ndrain = \"9s\"\n{FILE}");
        assert_eq!(after(Some(&drain)), "differs");
        assert_eq!(after(Some(&format!("# Only a word.\n{FILE}"))), "same");
        assert_eq!(after(Some("[[interface]]\n")), "refused");
        assert_eq!(after(None), "unreadable");
        assert_eq!(after(Some(FILE)), "same");
    }

    #[test]
    fn what_was_applied_has_its_name() {
        let applied = InForce::applied("new.toml".to_owned()).to_json();
        assert_eq!(applied["applied"], "new.toml");
        assert_eq!(InForce::from_file().to_json()["applied"], Value::Null);
    }
}
