//! What makes one configuration another: a list of actions, in an order that never leaves anybody
//! without a server in between.
//!
//! Things are the same by what they are to packets, not by their place in the file: a service by
//! where it listens and its protocol, a backend by its service and address. So order does not count, a
//! service that listens elsewhere is another one, and one that is only called otherwise is not.
//!
//! Order: what is added comes before what is removed, and what gives a backend more before what takes
//! from one. After each action a service has all backends that take new flows of the old configuration, or
//! all of the new one. (A running balancer does all of it at once, in one snapshot; who changes
//! servers by hand, one after the other, does it in this order.)

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use crate::model::{Backend, Listen, Model, Protocol, Service};

mod settings;

pub use settings::Setting;

/// One step from one configuration to another. Prints as a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// A key of which only a restart can take notice.
    Restart(Setting),
    /// A key of `[balancer]` changes.
    Balancer(Setting),
    /// A service is there that was not, with its backends.
    AddService(&'a Service),
    /// A service has one backend more.
    AddBackend {
        /// As it will be.
        service: &'a Service,
        /// The new one.
        backend: &'a Backend,
    },
    /// A backend stays and is another.
    ChangeBackend {
        /// As it will be.
        service: &'a Service,
        /// As it was.
        old: &'a Backend,
        /// As it will be.
        new: &'a Backend,
        /// Key by key; never empty.
        settings: Vec<Setting>,
    },
    /// A service stays and is another, its backends aside.
    ChangeService {
        /// As it was.
        old: &'a Service,
        /// As it will be.
        new: &'a Service,
        /// Key by key; never empty.
        settings: Vec<Setting>,
    },
    /// A service has one backend less.
    RemoveBackend {
        /// As it was.
        service: &'a Service,
        /// The one that goes.
        backend: &'a Backend,
    },
    /// A service is no longer there, nor are its backends.
    RemoveService(&'a Service),
}

impl<'a> Action<'a> {
    /// The kind, for programs: `backend-added` and the like.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Restart(_) => "restart-needed",
            Self::Balancer(_) => "balancer-changed",
            Self::AddService(_) => "service-added",
            Self::AddBackend { .. } => "backend-added",
            Self::ChangeBackend { .. } => "backend-changed",
            Self::ChangeService { .. } => "service-changed",
            Self::RemoveBackend { .. } => "backend-removed",
            Self::RemoveService(_) => "service-removed",
        }
    }

    /// The service that it is about, as it is called then.
    #[must_use]
    pub const fn service(&self) -> Option<&'a Service> {
        match self {
            Self::Restart(_) | Self::Balancer(_) => None,
            Self::AddService(service)
            | Self::RemoveService(service)
            | Self::AddBackend { service, .. }
            | Self::ChangeBackend { service, .. }
            | Self::RemoveBackend { service, .. } => Some(service),
            Self::ChangeService { new, .. } => Some(new),
        }
    }

    /// The backend that it is about.
    #[must_use]
    pub const fn backend(&self) -> Option<&'a Backend> {
        match self {
            Self::AddBackend { backend, .. } | Self::RemoveBackend { backend, .. } => Some(backend),
            Self::ChangeBackend { new, .. } => Some(new),
            _ => None,
        }
    }

    /// What changes, key by key; of what is added or removed nothing.
    #[must_use]
    pub fn settings(&self) -> &[Setting] {
        match self {
            Self::Restart(setting) | Self::Balancer(setting) => std::slice::from_ref(setting),
            Self::ChangeBackend { settings, .. } | Self::ChangeService { settings, .. } => settings,
            _ => &[],
        }
    }

    /// Its place in the order of the module's documentation.
    fn rank(&self) -> u8 {
        match self {
            Self::Restart(_) => 0,
            Self::Balancer(_) => 1,
            Self::AddService(_) => 2,
            Self::AddBackend { .. } => 3,
            Self::ChangeBackend { old, new, .. } if share(new) >= share(old) => 4,
            Self::ChangeService { .. } => 5,
            Self::ChangeBackend { .. } => 6,
            Self::RemoveBackend { .. } => 7,
            Self::RemoveService(_) => 8,
        }
    }
}

/// What new flows a backend asks for.
const fn share(backend: &Backend) -> u32 {
    if backend.disabled() {
        0
    } else {
        backend.weight()
    }
}

impl fmt::Display for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart(setting) => write!(f, "{setting}: only a restart can change this"),
            Self::Balancer(setting) => write!(f, "{setting}"),
            Self::AddService(service) => {
                write!(f, "service {} added: {}", service.name(), sketch(service))
            }
            Self::RemoveService(service) => {
                write!(f, "service {} removed: {}", service.name(), sketch(service))
            }
            Self::AddBackend { service, backend } => {
                let (service_name, name) = (service.name(), backend.name());
                let weight = backend.weight();
                write!(
                    f,
                    "service {service_name}: backend {name} added, weight {weight}"
                )?;
                if backend.forward() != service.forward() {
                    write!(f, ", {}", backend.forward())?;
                }
                f.write_str(if backend.disabled() { ", disabled" } else { "" })
            }
            Self::RemoveBackend { service, backend } => {
                let (service, name) = (service.name(), backend.name());
                write!(f, "service {service}: backend {name} removed")
            }
            Self::ChangeBackend {
                service,
                new,
                settings,
                ..
            } => {
                write!(f, "service {}: backend {} ", service.name(), new.name())?;
                listed(f, settings)
            }
            Self::ChangeService { new, settings, .. } => {
                write!(f, "service {}: ", new.name())?;
                listed(f, settings)
            }
        }
    }
}

fn listed(f: &mut fmt::Formatter<'_>, settings: &[Setting]) -> fmt::Result {
    for (index, setting) in settings.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { ", " })?;
        write!(f, "{setting}")?;
    }
    Ok(())
}

/// A service in a few words.
fn sketch(service: &Service) -> String {
    let (protocol, listen, forward) = (service.protocol(), service.listen(), service.forward());
    match service.backends().len() {
        1 => format!("{protocol} {listen}, {forward}, 1 backend"),
        count => format!("{protocol} {listen}, {forward}, {count} backends"),
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff<'a> {
    actions: Vec<Action<'a>>,
}

/// What makes a service the same one.
type Identity = (Listen, Protocol);

fn identity(service: &Service) -> Identity {
    (*service.listen(), service.protocol())
}

impl<'a> Diff<'a> {
    /// What leads from `old` to `new`.
    #[must_use]
    pub fn between(old: &'a Model, new: &'a Model) -> Self {
        let mut diff = Self {
            actions: settings::of_process(old, new),
        };
        let known: HashMap<Identity, &Service> = old
            .services()
            .iter()
            .map(|service| (identity(service), service))
            .collect();
        let mut left = known.clone();
        for service in new.services() {
            match left.remove(&identity(service)) {
                None => diff.actions.push(Action::AddService(service)),
                Some(old) if old == service => {}
                Some(old) => diff.service(old, service),
            }
        }
        let gone = old.services().iter();
        let gone = gone.filter(|service| left.contains_key(&identity(service)));
        diff.actions.extend(gone.map(Action::RemoveService));
        // Stable: within a rank, the file's order.
        diff.actions.sort_by_key(Action::rank);
        diff
    }

    /// The actions, in the order in which they are safe.
    #[must_use]
    pub fn actions(&self) -> &[Action<'a>] {
        &self.actions
    }

    /// Whether the configurations mean the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// What keeps a running balancer from taking the new configuration.
    pub fn restarts(&self) -> impl Iterator<Item = &Setting> {
        self.actions.iter().filter_map(|action| match action {
            Action::Restart(setting) => Some(setting),
            _ => None,
        })
    }

    fn service(&mut self, old: &'a Service, new: &'a Service) {
        let before = self.actions.len();
        let settings = settings::of_service(old, new);
        if !settings.is_empty() {
            self.actions
                .push(Action::ChangeService { old, new, settings });
        }
        self.backends(old, new);
        if self.actions.len() == before && settings::is_other(old, new) {
            let settings = vec![Setting::unnamed()];
            self.actions
                .push(Action::ChangeService { old, new, settings });
        }
    }

    fn backends(&mut self, old: &'a Service, new: &'a Service) {
        let (mut before, mut after) = (old.backends(), new.backends());
        // Most reloads change little: what stands in its place at either end needs no search.
        while let ([first, rest @ ..], [other, others @ ..]) = (before, after)
            && first.address() == other.address()
        {
            self.backend(new, first, other);
            (before, after) = (rest, others);
        }
        let mut ends = Vec::new();
        while let ([rest @ .., last], [others @ .., other]) = (before, after)
            && last.address() == other.address()
        {
            ends.push((last, other));
            (before, after) = (rest, others);
        }
        let mut left: HashMap<SocketAddr, &Backend> = before
            .iter()
            .map(|backend| (backend.address(), backend))
            .collect();
        for backend in after {
            match left.remove(&backend.address()) {
                Some(old) => self.backend(new, old, backend),
                None => self.actions.push(Action::AddBackend {
                    service: new,
                    backend,
                }),
            }
        }
        for (old, other) in ends.into_iter().rev() {
            self.backend(new, old, other);
        }
        let gone = before
            .iter()
            .filter(|backend| left.contains_key(&backend.address()));
        self.actions
            .extend(gone.map(|backend| Action::RemoveBackend {
                service: old,
                backend,
            }));
    }

    fn backend(&mut self, service: &'a Service, old: &'a Backend, new: &'a Backend) {
        if old == new {
            return;
        }
        let mut settings = settings::of_backend(old, new);
        if settings.is_empty() {
            settings.push(Setting::unnamed());
        }
        self.actions.push(Action::ChangeBackend {
            service,
            old,
            new,
            settings,
        });
    }
}

#[cfg(test)]
mod tests;
