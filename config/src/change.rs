//! What an operator changes of backends without touching the file: an [`Overlay`] over the model
//! that the file says, for as long as the process runs, until it is written into the file.
//!
//! A backend is known by its service's name and its address, as in the file. For each one that was
//! changed the overlay remembers what the file said then. [`Overlay::rebase`] is the rule for
//! another file: a change stays while the file says the same of that backend as it did when the
//! change was made; where the file says something else by now, whoever wrote the file knew better,
//! and the change is dropped.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;

use toml_edit::{DocumentMut, Item, Value};

use crate::limits::WEIGHT_MAX;
use crate::model::{Backend, Model};
use crate::parse;

/// One change of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its share of new flows, 0 to [`WEIGHT_MAX`]. It does not begin or end a drain.
    Weight(u32),
    /// No new flows; those that it has go on. Its weight is remembered.
    Drain,
    /// Nothing at all: its flows go elsewhere.
    Disable,
    /// Undoes a drain and a disable.
    Enable,
}

/// What is said of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its weight, were it not draining.
    pub weight: u32,
    /// It gets no new flows whatever its weight.
    pub draining: bool,
    /// It is not used.
    pub disabled: bool,
}

impl Said {
    const fn of(backend: &Backend) -> Self {
        Self {
            weight: backend.weight,
            draining: false,
            disabled: backend.disabled,
        }
    }

    /// Its weight, as it is.
    #[must_use]
    pub const fn effective_weight(self) -> u32 {
        if self.draining { 0 } else { self.weight }
    }
}

/// What the file says of a backend, and what holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsaved {
    /// The file; never draining.
    pub file: Said,
    /// Since the change.
    pub now: Said,
}

impl fmt::Display for Unsaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, now } = self;
        let mut parts = Vec::new();
        if now.weight != file.weight {
            parts.push(format!("weight {} for {}", now.weight, file.weight));
        }
        if now.draining {
            parts.push("draining".to_owned());
        }
        match (now.disabled, file.disabled) {
            (true, false) => parts.push("disabled".to_owned()),
            (false, true) => parts.push("enabled".to_owned()),
            _ => {}
        }
        f.write_str(&parts.join(", "))
    }
}

/// Why a change cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// There is no such service.
    NoService,
    /// The service has no such backend.
    NoBackend,
    /// The weight is above [`WEIGHT_MAX`].
    Weight,
}

/// Why changes cannot be written into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// Its text is not the one that the model was read from.
    OtherText,
    /// What would be written does not say what it should.
    Unfaithful,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherText => "the file does not say what is in force: reload first",
            Self::Unfaithful => {
                "the file is written in a way that cannot be changed here: change it by hand"
            }
        })
    }
}

/// A service's name and a backend's address.
type Name = (String, SocketAddr);

/// The changes that are in force and in no file. See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    changed: BTreeMap<Name, Unsaved>,
}

impl Overlay {
    /// Whether the file says all that holds.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// How many backends are not as the file says.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changed.len()
    }

    /// What is unsaved of a backend.
    #[must_use]
    pub fn of(&self, service: &str, backend: SocketAddr) -> Option<Unsaved> {
        if self.changed.is_empty() {
            return None;
        }
        self.changed.get(&(service.to_owned(), backend)).copied()
    }

    /// Makes one change. What holds of the backend before and after it.
    ///
    /// # Errors
    ///
    /// There is no such backend in the file's model, or the weight is out of bounds; nothing has
    /// changed then.
    pub fn change(
        &mut self,
        file: &Model,
        service: &str,
        backend: SocketAddr,
        change: Change,
    ) -> Result<(Said, Said), Misfit> {
        let mut services = file.services.iter();
        let found = services.find(|one| one.name == service);
        let mut backends = found.ok_or(Misfit::NoService)?.backends.iter();
        let found = backends.find(|one| one.address == backend);
        let file = Said::of(found.ok_or(Misfit::NoBackend)?);
        let name = (service.to_owned(), backend);
        let before = self.changed.get(&name).map_or(file, |unsaved| unsaved.now);
        let mut now = before;
        match change {
            Change::Weight(weight) if weight > WEIGHT_MAX => return Err(Misfit::Weight),
            Change::Weight(weight) => now.weight = weight,
            Change::Drain => now.draining = true,
            Change::Disable => now.disabled = true,
            Change::Enable => (now.draining, now.disabled) = (false, false),
        }
        if now == file {
            self.changed.remove(&name);
        } else {
            self.changed.insert(name, Unsaved { file, now });
        }
        Ok((before, now))
    }

    /// The file's model with the changes. One whose backend it does not have is left out.
    #[must_use]
    pub fn over(&self, file: &Model) -> Model {
        let mut model = file.clone();
        let mut by_service: HashMap<&str, Vec<(SocketAddr, Said)>> = HashMap::new();
        for ((service, backend), unsaved) in &self.changed {
            let changes = by_service.entry(service).or_default();
            changes.push((*backend, unsaved.now));
        }
        for service in &mut model.services {
            for (address, now) in by_service.remove(&*service.name).unwrap_or_default() {
                let mut backends = service.backends.iter_mut();
                if let Some(backend) = backends.find(|one| one.address == address) {
                    backend.weight = now.effective_weight();
                    backend.disabled = now.disabled;
                }
            }
        }
        model
    }

    /// Drops the changes of backends of which another file says something else than the one before,
    /// or nothing, and gives back whose they were, with what they were.
    pub fn rebase(&mut self, file: &Model) -> Vec<(String, SocketAddr, Unsaved)> {
        if self.changed.is_empty() {
            return Vec::new();
        }
        let says: HashMap<(&str, SocketAddr), Said> = file
            .services
            .iter()
            .flat_map(|service| {
                let backends = service.backends.iter();
                backends.map(|one| ((&*service.name, one.address), Said::of(one)))
            })
            .collect();
        let is_kept = |(service, address): &Name, unsaved: &Unsaved| {
            says.get(&(&**service, *address)) == Some(&unsaved.file)
        };
        let (kept, dropped) = std::mem::take(&mut self.changed)
            .into_iter()
            .partition(|(name, unsaved)| is_kept(name, unsaved));
        self.changed = kept;
        let dropped: BTreeMap<Name, Unsaved> = dropped;
        let dropped = dropped.into_iter();
        dropped
            .map(|((service, address), unsaved)| (service, address, unsaved))
            .collect()
    }

    /// The text of the file with the changes in it, all else as it was, comments too. A drain is
    /// written as the weight 0. `file` is the model that the text says.
    ///
    /// # Errors
    ///
    /// The text is another's, or what came of it does not say what is in force. Then nothing may be
    /// written.
    pub fn write(&self, file: &Model, text: &str) -> Result<String, WriteError> {
        if parse("", text).map(|parsed| parsed.model).as_ref() != Ok(file) {
            return Err(WriteError::OtherText);
        }
        let mut document: DocumentMut = text.parse().map_err(|_| WriteError::OtherText)?;
        for (at, service) in file.services.iter().enumerate() {
            for (number, backend) in service.backends.iter().enumerate() {
                let Some(unsaved) = self.of(&service.name, backend.address) else {
                    continue;
                };
                // A model has the order of its file.
                let table = document
                    .get_mut("service")
                    .and_then(|services| services.get_mut(at))
                    .and_then(|service| service.get_mut("backend"))
                    .and_then(|backends| backends.get_mut(number))
                    .ok_or(WriteError::Unfaithful)?;
                let (file, now) = (unsaved.file, unsaved.now);
                if now.effective_weight() != file.weight {
                    set(table, "weight", i64::from(now.effective_weight()))?;
                }
                if now.disabled != file.disabled {
                    set(table, "disabled", now.disabled)?;
                }
            }
        }
        let written = document.to_string();
        let said = parse("", &written).map(|parsed| parsed.model);
        if said.as_ref() != Ok(&self.over(file)) {
            return Err(WriteError::Unfaithful);
        }
        Ok(written)
    }
}

/// Gives a key another value. What stands around the old one stays: blanks, a comment behind it.
fn set(table: &mut Item, key: &str, value: impl Into<Value>) -> Result<(), WriteError> {
    let table = table.as_table_like_mut().ok_or(WriteError::Unfaithful)?;
    let mut value = value.into();
    if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
        *value.decor_mut() = old.decor().clone();
        *old = value;
    } else {
        table.insert(key, Item::Value(value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# The head.
[[interface]]
name = "eth0"

[[service]]
name = "web"
listen = "10.100.0.1:80"
protocol = "tcp"
forward = "nat"

  [[service.backend]] # first
  address = "10.2.0.11:8080"
  weight = 100 # half of it

  [[service.backend]]
  address = "10.2.0.12" # the port is the service's
  disabled = true

# Written in another way.
[[service]]
name = "dns"
listen = "10.100.0.1:53"
protocol = "udp"
forward = "nat"
backend = [{ address = "10.2.0.11:53", weight = 7 }, { address = "10.2.0.12:53" }]
"#;

    fn model(text: &str) -> Model {
        parse("test.toml", text).unwrap().model
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn standing(model: &Model, service: usize, backend: usize) -> (u32, bool) {
        let backend = &model.services()[service].backends()[backend];
        (backend.weight(), backend.disabled())
    }

    const FIRST: (&str, &str) = ("web", "10.2.0.11:8080");
    const SECOND: (&str, &str) = ("web", "10.2.0.12:80");

    fn changed(changes: &[((&str, &str), Change)]) -> Overlay {
        let mut overlay = Overlay::default();
        for ((service, backend), change) in changes {
            let backend = address(backend);
            overlay
                .change(&model(FILE), service, backend, *change)
                .unwrap();
        }
        overlay
    }

    #[test]
    fn changes_hold_over_the_file_and_undone_ones_leave_nothing() {
        let file = model(FILE);
        let mut overlay = changed(&[
            (FIRST, Change::Weight(50)),
            (FIRST, Change::Drain),
            (SECOND, Change::Enable),
            (("dns", "10.2.0.12:53"), Change::Disable),
        ]);
        let now = overlay.over(&file);
        assert_eq!(standing(&now, 0, 0), (0, false));
        assert_eq!(standing(&now, 0, 1), (100, false));
        assert_eq!(standing(&now, 1, 0), (7, false));
        assert_eq!(standing(&now, 1, 1), (100, true));
        let shown = overlay.of("web", address(FIRST.1)).unwrap().to_string();
        assert_eq!(shown, "weight 50 for 100, draining");
        assert_eq!(overlay.len(), 3);
        let mut undo = |(service, backend): (&str, &str), change| {
            let done = overlay.change(&file, service, address(backend), change);
            (done.unwrap().1, overlay.over(&file))
        };
        let (said, now) = undo(FIRST, Change::Enable);
        assert_eq!((said.weight, standing(&now, 0, 0)), (50, (50, false)));
        undo(FIRST, Change::Weight(100));
        undo(SECOND, Change::Disable);
        let (_, now) = undo(("dns", "10.2.0.12:53"), Change::Enable);
        assert_eq!(now, file);
        assert!(overlay.is_empty());
    }

    #[test]
    fn what_is_not_there_cannot_be_changed() {
        let (file, mut overlay) = (model(FILE), Overlay::default());
        let first = address(FIRST.1);
        for (service, backend, change, misfit) in [
            ("wep", first, Change::Drain, Misfit::NoService),
            ("dns", first, Change::Drain, Misfit::NoBackend),
            ("web", first, Change::Weight(WEIGHT_MAX + 1), Misfit::Weight),
        ] {
            let refused = overlay.change(&file, service, backend, change);
            assert_eq!(refused, Err(misfit));
        }
        assert!(overlay.is_empty());
    }

    #[test]
    fn a_change_stays_while_the_file_says_the_same_of_its_backend() {
        let made = || {
            changed(&[
                (FIRST, Change::Drain),
                (SECOND, Change::Enable),
                (("dns", "10.2.0.11:53"), Change::Weight(8)),
            ])
        };
        let mut overlay = made();
        // Something else has changed, also of the same backend's service.
        let other = FILE.replace("forward = \"nat\"", "forward = \"dsr-l2\"");
        let other = other.replace("10.2.0.11:8080", "10.2.0.11:80");
        let mut kept = overlay.clone();
        assert_eq!(kept.rebase(&model(FILE)), []);
        assert_eq!(kept, overlay);
        let dropped = overlay.rebase(&model(&other.replace(":53\", weight = 7", ":53\"")));
        let whose: Vec<_> = dropped
            .iter()
            .map(|(name, backend, _)| (&**name, *backend))
            .collect();
        // One has another weight in the file, the other another address.
        assert_eq!(
            whose,
            [("dns", address("10.2.0.11:53")), ("web", address(FIRST.1))]
        );
        assert_eq!(overlay.len(), 1);
        assert!(overlay.of("web", address(SECOND.1)).is_some());
        // The file now says itself what was changed.
        let mut overlay = made();
        let said = FILE.replace("disabled = true", "disabled = false");
        assert_eq!(overlay.rebase(&model(&said)).len(), 1);
        assert_eq!(standing(&overlay.over(&model(&said)), 0, 1), (100, false));
    }

    #[test]
    fn what_is_written_is_the_file_with_the_changes_and_nothing_else() {
        let overlay = changed(&[
            (FIRST, Change::Drain),
            (SECOND, Change::Enable),
            (SECOND, Change::Weight(9)),
            (("dns", "10.2.0.11:53"), Change::Weight(8)),
            (("dns", "10.2.0.12:53"), Change::Disable),
        ]);
        let written = overlay.write(&model(FILE), FILE).unwrap();
        let expected = FILE
            .replace("weight = 100 #", "weight = 0 #")
            .replace("disabled = true", "disabled = false\nweight = 9")
            .replace("weight = 7", "weight = 8")
            .replace(
                "{ address = \"10.2.0.12:53\" }",
                "{ address = \"10.2.0.12:53\" , disabled = true}",
            );
        let squeeze = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(squeeze(&written), squeeze(&expected));
        assert!(written.contains("  weight = 0 # half of it\n"), "{written}");
        assert_eq!(model(&written), overlay.over(&model(FILE)));
        let untouched = Overlay::default().write(&model(FILE), FILE);
        assert_eq!(untouched.as_deref(), Ok(FILE));
    }

    #[test]
    fn into_another_file_nothing_is_written() {
        let overlay = changed(&[(FIRST, Change::Drain)]);
        for text in [FILE.replace("weight = 7", "weight = 6"), "[".to_owned()] {
            let refused = overlay.write(&model(FILE), &text);
            assert_eq!(refused, Err(WriteError::OtherText));
        }
    }
}
