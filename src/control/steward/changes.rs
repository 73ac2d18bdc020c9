//! What operators change without touching the file: it is in force at once, shown as unsaved, and
//! written into the file when they say so.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Instant;

use ringgate_config::{Backend, Change, Misfit, Model, Overlay, Said};
use serde_json::{Value, json};

use super::Steward;
use crate::control::admin::http::Response;
use crate::control::admin::secure::Secure;
use crate::control::events::Event;
use crate::control::slab::Key;
use crate::reload::in_force::InForce;

/// Somebody who is answered once every worker works with what he asked for, and packets of its services come.
#[derive(Debug)]
pub(super) struct Promise {
    key: Key,
    body: Value,
    /// The snapshot that has it, once it is built.
    generation: Option<u64>,
}

impl Steward {
    /// Makes one change; who asked for it is answered when it is in force.
    pub(super) fn change(
        &mut self,
        key: Key,
        (service, address): (String, SocketAddr),
        change: Change,
        now: Instant,
    ) {
        let done = self.overlay.change(&self.file, &service, address, change);
        let (before, after) = match done {
            Ok(done) => done,
            Err(misfit) => return self.answer_later(key, refusal(&misfit)),
        };
        let backend = self.name_of(&service, address);
        let body = json!({
            "service": service,
            "backend": backend,
            "before": said(before),
            "now": said(after),
            "unsaved": self.overlay.of(&service, address).is_some(),
        });
        if before != after {
            let what = told(before, after);
            tracing::info!(service, backend, "{what}, as an operator says");
            self.events.tell(&Event::Changed {
                service,
                backend,
                change: what,
            });
            self.apply_overlay(now);
        }
        self.promise(key, body, None);
    }

    /// Answers with this when a snapshot is in force: that of the generation, or else the next that is built.
    pub(super) fn promise(&mut self, key: Key, body: Value, generation: Option<u64>) {
        self.promises.push(Promise {
            key,
            body,
            generation,
        });
    }

    /// Takes up what the file says now. What was changed stays where the file says the same of its
    /// backend as before. Gives back what was in force.
    pub(super) fn take_up(&mut self, file: Model) -> Model {
        for (service, address, dropped) in self.overlay.rebase(&file) {
            let backend = match address.port() {
                0 => address.ip().to_string(),
                _ => address.to_string(),
            };
            tracing::warn!(
                service,
                backend,
                "no longer {dropped}: the file says something else of it now, and the file holds"
            );
            self.events.tell(&Event::Changed {
                service,
                backend,
                change: format!("no longer {dropped}"),
            });
        }
        if file.api() != self.file.api() {
            self.admin.admit(file.api());
        }
        // Also where the file says the same: certificates are renewed under their names.
        if let Some(remote) = file.api().remote() {
            match Secure::load(remote) {
                Ok(secure) => self.admin.secure_by(secure),
                Err(error) => tracing::warn!(%error, "those who come by TLS find what was before"),
            }
        }
        let model = self.overlay.over(&file);
        self.file = file;
        std::mem::replace(&mut self.model, model)
    }

    fn apply_overlay(&mut self, now: Instant) {
        self.model = self.overlay.over(&self.file);
        self.in_force.forget();
        // One that is disabled is not checked.
        self.roster.follow(&self.model, &mut self.checker, now);
        self.latencies.follow(&self.model);
        self.stale = true;
    }

    fn name_of(&self, service: &str, address: SocketAddr) -> String {
        let mut services = self.file.services().iter();
        services
            .find(|one| one.name() == service)
            .and_then(|one| one.backends().iter().find(|one| one.address() == address))
            .map_or_else(|| address.to_string(), Backend::name)
    }

    /// Answers those whose wishes are in force. To be called after every
    /// [`renew`](Self::renew).
    pub(super) fn keep_promises(&mut self) {
        if self.promises.is_empty() {
            return;
        }
        let is_steered = self.steer_after.is_none();
        let newest = self.snapshot.generation;
        let plane = &self.plane;
        let mut kept = Vec::new();
        self.promises.retain_mut(|promise| {
            let generation = *promise.generation.get_or_insert(newest);
            if !is_steered || !plane.has_adopted(generation) {
                return true;
            }
            kept.push((promise.key, promise.body.take()));
            false
        });
        for (key, body) in kept {
            self.answer_later(key, Response::ok(body));
        }
    }

    /// Writes what was changed into the file.
    pub(super) fn save(&mut self) -> Response {
        let path = self.config.display().to_string();
        let saved = self.overlay.len();
        if saved > 0 {
            let text = match fs::read_to_string(&self.config) {
                Ok(text) => text,
                Err(error) => {
                    let message = format!("{path}: cannot be read: {error}");
                    return Response::error(409, &message);
                }
            };
            let written = match self.overlay.write(&self.file, &text) {
                Ok(written) => written,
                Err(error) => return Response::error(409, &format!("{path}: {error}")),
            };
            if let Err(error) = replace(&self.config, &text, &written) {
                let message = format!("{path}: cannot be written: {error}");
                return Response::error(409, &message);
            }
            // What the file says is what is in force.
            self.file = self.model.clone();
            self.overlay = Overlay::default();
            self.in_force = InForce::from_file();
            tracing::info!(config = path, backends = saved, "saved");
            self.events.tell(&Event::Saved { backends: saved });
        }
        Response::ok(json!({ "file": path, "backends": saved }))
    }
}

/// Replaces a file's text as a whole: whoever reads it sees the old or the new, also after a crash.
/// Mode and owner stay; a link stays one.
fn replace(path: &Path, old: &str, new: &str) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let wrote = (|| {
        let found = fs::metadata(&path)?;
        let mut file = File::create(&fresh)?;
        file.set_permissions(fs::Permissions::from_mode(found.mode() & 0o7777))?;
        std::os::unix::fs::fchown(&file, Some(found.uid()), Some(found.gid()))?;
        file.write_all(new.as_bytes())?;
        file.sync_all()?;
        // The last look: what somebody has written in the meantime is not to be lost.
        if fs::read_to_string(&path)? != old {
            return Err(io::Error::other("somebody else is changing it: try again"));
        }
        fs::rename(&fresh, &path)
    })();
    if wrote.is_err() {
        // Where it was never made, there is nothing to remove.
        let _gone = fs::remove_file(&fresh);
    }
    wrote
}

fn refusal(misfit: &Misfit) -> Response {
    match misfit {
        // It was there when the request was read: a reload has come between.
        Misfit::NoService | Misfit::NoBackend => Response::error(404, "it is gone by now"),
        Misfit::Weight => Response::error(400, "the weight is too large"),
    }
}

fn said(said: Said) -> Value {
    json!({ "weight": said.weight, "draining": said.draining, "disabled": said.disabled })
}

/// What has changed, in words.
fn told(before: Said, now: Said) -> String {
    let mut parts = Vec::new();
    if before.weight != now.weight {
        parts.push(format!("weight {} for {}", now.weight, before.weight));
    }
    match (before.draining, now.draining) {
        (false, true) => parts.push("draining".to_owned()),
        (true, false) => parts.push("draining no more".to_owned()),
        _ => {}
    }
    match (before.disabled, now.disabled) {
        (false, true) => parts.push("disabled".to_owned()),
        (true, false) => parts.push("enabled".to_owned()),
        _ => {}
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.toml"), folder.path().join("b.toml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "old", "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let error = replace(&file, "old", "newer").unwrap_err();
        assert!(error.to_string().contains("somebody else"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_change_is_told_in_words() {
        let file = Said {
            weight: 100,
            draining: false,
            disabled: true,
        };
        let now = Said {
            weight: 5,
            draining: true,
            disabled: false,
        };
        assert_eq!(told(file, now), "weight 5 for 100, draining, enabled");
        assert_eq!(
            told(now, file),
            "weight 100 for 5, draining no more, disabled"
        );
    }
}
