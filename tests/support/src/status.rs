//! What `ringgate status --json` says, with every counter by name.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// A status of one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Status(pub Value);

impl Status {
    /// The number at a JSON pointer (RFC 6901).
    ///
    /// # Panics
    ///
    /// When there is no number.
    #[must_use]
    pub fn number(&self, pointer: &str) -> u64 {
        let value = self.0.pointer(pointer).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("the status has no number at {pointer}:\n{self}"))
    }

    /// The text at a JSON pointer.
    ///
    /// # Panics
    ///
    /// When there is no text.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        let value = self.0.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("the status has no text at {pointer}:\n{self}"))
    }

    /// The elements of the list at a JSON pointer.
    ///
    /// # Panics
    ///
    /// When there is no list.
    #[must_use]
    pub fn list(&self, pointer: &str) -> Vec<Self> {
        let list = self.0.pointer(pointer).and_then(Value::as_array);
        let list = list.unwrap_or_else(|| panic!("the status has no list at {pointer}:\n{self}"));
        list.iter().cloned().map(Self).collect()
    }

    /// One interface.
    ///
    /// # Panics
    ///
    /// When it is not there.
    #[must_use]
    pub fn interface(&self, name: &str) -> Self {
        self.named("/interfaces", "/name", name)
    }

    /// One service.
    ///
    /// # Panics
    ///
    /// When it is not there.
    #[must_use]
    pub fn service(&self, name: &str) -> Self {
        self.named("/services", "/name", name)
    }

    /// The backends of a service, by address.
    ///
    /// # Panics
    ///
    /// When the service is not there.
    #[must_use]
    pub fn backends(&self, service: &str) -> BTreeMap<String, Self> {
        let backends = self.service(service).list("/backends");
        backends
            .into_iter()
            .map(|one| (one.text("/address").to_owned(), one))
            .collect()
    }

    /// One backend of a service; `number` as the playground counts.
    ///
    /// # Panics
    ///
    /// When it is not there.
    #[must_use]
    pub fn backend(&self, service: &str, number: u8) -> Self {
        let backends = self.backends(service);
        let parts = [
            format!("10.2.0.{}:", 10 + number),
            format!("[fd00:2::{}]:", 10 + number),
        ];
        let is_it = |address: &str| parts.iter().any(|part| address.starts_with(part.as_str()));
        let found = backends.into_iter().find(|(address, _)| is_it(address));
        found
            .unwrap_or_else(|| panic!("{service} has no backend {number}:\n{self}"))
            .1
    }

    /// The state of a backend in every service that has it, sorted, each once.
    #[must_use]
    pub fn states(&self, number: u8) -> Vec<String> {
        let parts = [
            format!("10.2.0.{}:", 10 + number),
            format!("[fd00:2::{}]:", 10 + number),
        ];
        let mut states = Vec::new();
        for service in self.list("/services") {
            for backend in service.list("/backends") {
                let address = backend.text("/address").to_owned();
                if parts.iter().any(|part| address.starts_with(part.as_str())) {
                    states.push(backend.text("/state").to_owned());
                }
            }
        }
        states.sort();
        states.dedup();
        states
    }

    /// A counter of every backend of a service, summed.
    #[must_use]
    pub fn sum_of_backends(&self, service: &str, counter: &str) -> u64 {
        self.backends(service)
            .values()
            .map(|one| one.number(&format!("/{counter}")))
            .sum()
    }

    /// Drops by reason, over all interfaces; only those that happened.
    #[must_use]
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for interface in self.list("/interfaces") {
            for (reason, count) in interface.numbers("/dropped") {
                if count > 0 {
                    *sums.entry(reason).or_default() += count;
                }
            }
        }
        sums
    }

    /// Every number of the object at a JSON pointer.
    ///
    /// # Panics
    ///
    /// When there is no object, or something else in it.
    #[must_use]
    pub fn numbers(&self, pointer: &str) -> BTreeMap<String, u64> {
        let object = self.0.pointer(pointer).and_then(Value::as_object);
        let object = object.unwrap_or_else(|| panic!("the status has no {pointer}:\n{self}"));
        object
            .iter()
            .map(|(name, value)| (name.clone(), value.as_u64().unwrap()))
            .collect()
    }

    /// How many packets the steering program has redirected, of an interface's status.
    ///
    /// # Panics
    ///
    /// When this is not an interface's.
    #[must_use]
    pub fn redirected(&self) -> u64 {
        let counters = self.numbers("/steering");
        let redirected =
            |(name, count): (&String, &u64)| name.starts_with("redirected_").then_some(*count);
        counters.iter().filter_map(redirected).sum()
    }

    fn named(&self, list: &str, key: &str, name: &str) -> Self {
        let found = self
            .list(list)
            .into_iter()
            .find(|one| one.text(key) == name);
        found.unwrap_or_else(|| panic!("there is no {name} in {list}:\n{self}"))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}
