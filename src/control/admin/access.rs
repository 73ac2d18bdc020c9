//! Who asks, and what they may do.
//!
//! Root and the balancer's own user may all. Others may what the groups of `[api]` allow that they are
//! in: by the kernel's word at the moment when they connected (`SO_PEERCRED` and `SO_PEERGROUPS`,
//! unix(7)), not by anything that they say. Who is in none may nothing, also where the socket's mode
//! lets them connect.

use std::os::fd::AsFd;

use nix::unistd::Group;
use ringgate_config::Api;
use rustix::net::sockopt;

use super::peer_groups;

/// What who asks may do. The greater includes the lesser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    /// Nothing.
    Nothing,
    /// Look.
    Read,
    /// Change what runs.
    Write,
}

/// Who may what, beside root and the balancer's own user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    read: Option<u32>,
    write: Option<u32>,
}

impl Rules {
    /// Looks up the groups that the configuration names. One that the host does not have has no
    /// members, and the log says so.
    pub(crate) fn of(api: &Api) -> Self {
        Self {
            read: api.read_group().and_then(|name| number("read-group", name)),
            write: api
                .write_group()
                .and_then(|name| number("write-group", name)),
        }
    }

    /// What the process at the other end of a unix socket may do.
    pub(super) fn of_peer(&self, socket: impl AsFd) -> Access {
        let owner = rustix::process::geteuid();
        let Ok(peer) = sockopt::socket_peercred(&socket) else {
            return Access::Nothing;
        };
        if peer.uid.is_root() || peer.uid == owner {
            return Access::Write;
        }
        let others = peer_groups::of(&socket).unwrap_or_default();
        self.of_groups(peer.gid.as_raw(), &others)
    }

    fn of_groups(&self, first: u32, others: &[u32]) -> Access {
        let has = |group: Option<u32>| {
            group.is_some_and(|group| group == first || others.contains(&group))
        };
        match (has(self.write), has(self.read)) {
            (true, _) => Access::Write,
            (false, true) => Access::Read,
            (false, false) => Access::Nothing,
        }
    }
}

/// A group's number, by its name or in digits.
fn number(key: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Some(group.gid.as_raw()),
        Ok(None) => {
            tracing::warn!("[api] {key}: this host has no group {name:?}, so nobody is in it");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "[api] {key}: cannot look up the group {name:?}: nobody is in it");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(keys: &str) -> Rules {
        let text = format!("[[interface]]\nname = \"eth0\"\n[api]\n{keys}");
        let parsed = ringgate_config::parse("test.toml", &text).unwrap();
        Rules::of(parsed.model.api())
    }

    #[test]
    fn groups_are_known_by_name_or_number_and_missing_ones_have_no_members() {
        let known = Rules {
            read: Some(4_000_001),
            write: Some(0),
        };
        assert_eq!(
            rules("read-group = \"4000001\"\nwrite-group = \"root\""),
            known
        );
        assert_eq!(rules("read-group = \"no-such-group\""), Rules::default());
        assert_eq!(rules(""), Rules::default());
    }

    #[test]
    fn a_member_of_both_groups_may_the_more() {
        let rules = Rules {
            read: Some(10),
            write: Some(20),
        };
        for (first, others, access) in [
            (10, &[][..], Access::Read),
            (20, &[], Access::Write),
            (5, &[7, 10], Access::Read),
            (5, &[10, 20], Access::Write),
            (10, &[20], Access::Write),
            (5, &[6], Access::Nothing),
        ] {
            assert_eq!(rules.of_groups(first, others), access, "{first} {others:?}");
        }
        assert_eq!(Rules::default().of_groups(0, &[0]), Access::Nothing);
    }

    #[test]
    fn the_balancers_own_user_may_all() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(Rules::default().of_peer(&ours), Access::Write);
    }
}
