//! The maps of one loaded steering program, and what this process has put into them.
//!
//! Nobody else writes them, so what is there is remembered here and not asked of the kernel. Maps
//! change together: first every map gets what is new, then the number of the change goes up, then
//! every map loses what is old. So what stays is always in one of the maps, even if it moves; and the
//! program, which reads them one after the other, sees by the number that it may have missed it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::{Ebpf, Pod};

use super::errors::{AttachError, SteerError, explain, is_missing};
use super::layout::{
    Address, Endpoint, Layout, PORT_PREFIX_BYTES, PREFIX_BYTES, RULES_BYTES, Word, addresses_only,
};
use super::{SteerCounters, Synced};
use crate::steered::Steered;
use crate::wire::ethernet::Mac;

/// Bytes of `struct settings`.
const SETTINGS_BYTES: usize = 16;

/// A map that is changed key by key.
trait Store<K, V> {
    fn put(&mut self, key: &K, value: &V) -> Result<(), MapError>;
    fn delete(&mut self, key: &K) -> Result<(), MapError>;
}

impl<K: Pod, V: Pod> Store<K, V> for HashMap<MapData, K, V> {
    fn put(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.insert(key, value, 0)
    }

    fn delete(&mut self, key: &K) -> Result<(), MapError> {
        self.remove(key)
    }
}

impl<const N: usize, V: Pod> Store<(u32, [u8; N]), V> for LpmTrie<MapData, [u8; N], V> {
    fn put(&mut self, &(bits, data): &(u32, [u8; N]), value: &V) -> Result<(), MapError> {
        self.insert(&Key::new(bits, data), value, 0)
    }

    fn delete(&mut self, &(bits, data): &(u32, [u8; N])) -> Result<(), MapError> {
        self.remove(&Key::new(bits, data))
    }
}

/// A map, and what is in it.
struct Known<S, K, V> {
    name: &'static str,
    store: S,
    entries: BTreeMap<K, V>,
}

type Table<K, V> = Known<HashMap<MapData, K, V>, K, V>;
type Trie<const N: usize, V> = Known<LpmTrie<MapData, [u8; N], V>, (u32, [u8; N]), V>;

/// A map that did not do as told.
type Refused = (&'static str, MapError);

impl<S: Store<K, V>, K: Ord + Copy, V: PartialEq + Copy> Known<S, K, V> {
    /// Puts in what is wanted and is not there, or is there as another value.
    fn add(&mut self, wanted: &BTreeMap<K, V>, synced: &mut Synced) -> Result<(), Refused> {
        for (key, value) in wanted {
            let known = self.entries.get(key);
            if known == Some(value) {
                continue;
            }
            let counter = match known {
                Some(_) => &mut synced.replaced,
                None => &mut synced.added,
            };
            let result = self.store.put(key, value);
            result.map_err(|error| (self.name, error))?;
            *counter += 1;
            self.entries.insert(*key, *value);
        }
        Ok(())
    }

    /// Takes out what is not wanted.
    fn keep(&mut self, wanted: &BTreeMap<K, V>, synced: &mut Synced) -> Result<(), Refused> {
        let known = self.entries.keys();
        let gone: Vec<K> = known
            .filter(|key| !wanted.contains_key(key))
            .copied()
            .collect();
        for key in gone {
            match self.store.delete(&key) {
                Err(error) if !is_missing(&error) => return Err((self.name, error)),
                _ => {}
            }
            self.entries.remove(&key);
            synced.removed += 1;
        }
        Ok(())
    }
}

/// See the module's documentation.
pub(super) struct Maps {
    interface: String,
    xsks: XskMap<MapData>,
    services: Table<Endpoint, Word>,
    ranges: Trie<PREFIX_BYTES, [u8; RULES_BYTES]>,
    addresses: Trie<PREFIX_BYTES, Word>,
    returns: Table<Endpoint, Word>,
    return_ranges: Trie<PORT_PREFIX_BYTES, Word>,
    locals: Table<Address, Word>,
    pool: Table<Address, Word>,
    tunnel_sources: Trie<PREFIX_BYTES, Word>,
    settings: Array<MapData, [u8; SETTINGS_BYTES]>,
    stats: PerCpuArray<MapData, u64>,
    /// What the maps say, if they all say it. Most snapshots differ in weights, states or neighbours,
    /// of which the program knows nothing.
    told_of: Option<Steered>,
    own: Mac,
    /// `has`, `pad`, `pool_first` and `pool_last` of `struct settings`.
    told: [u8; SETTINGS_BYTES - 10],
    /// How many changes there have been; it may wrap around.
    change: u32,
}

impl Maps {
    /// Takes the maps out of a loaded object, all empty. aya compares the sizes of key and value
    /// with those that the object's BTF gives, so a layout that differs from ours is refused here.
    pub(super) fn take(ebpf: &mut Ebpf, interface: &str) -> Result<Self, AttachError> {
        let mut taking = Taking { ebpf, interface };
        Ok(Self {
            xsks: taking.take("xsks", XskMap::try_from)?,
            services: taking.known("services", HashMap::try_from)?,
            ranges: taking.known("ranges", LpmTrie::try_from)?,
            addresses: taking.known("addresses", LpmTrie::try_from)?,
            returns: taking.known("returns", HashMap::try_from)?,
            return_ranges: taking.known("return_ranges", LpmTrie::try_from)?,
            locals: taking.known("locals", HashMap::try_from)?,
            pool: taking.known("pool", HashMap::try_from)?,
            tunnel_sources: taking.known("tunnel_sources", LpmTrie::try_from)?,
            settings: taking.take("settings", Array::try_from)?,
            stats: taking.take("steer_stats", PerCpuArray::try_from)?,
            told_of: None,
            own: Mac([0; 6]),
            told: [0; SETTINGS_BYTES - 10],
            change: 0,
            interface: interface.to_owned(),
        })
    }

    pub(super) fn register(&mut self, queue: u32, socket: impl AsFd) -> Result<(), SteerError> {
        let socket = socket.as_fd().as_raw_fd();
        let result = self.xsks.set(queue, socket, 0);
        result.map_err(|error| self.error("xsks", &error))
    }

    pub(super) fn unregister(&mut self, queue: u32) -> Result<(), SteerError> {
        match self.xsks.unset(queue) {
            Err(error) if !is_missing(&error) => Err(self.error("xsks", &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn sync(&mut self, steered: &Steered) -> Result<Synced, SteerError> {
        if self.told_of.as_ref() == Some(steered) {
            return Ok(Synced::default());
        }
        self.told_of = None;
        let layout = Layout::of(steered).map_err(|many| SteerError {
            interface: self.interface.clone(),
            map: "ranges",
            found: format!(
                "{} port ranges cover {}, and there is room for 8; divide the prefix, or join \
                 ranges",
                many.ranges, many.prefix
            ),
        })?;
        let mut synced = Synced::default();
        let result = self.add(&layout, &mut synced);
        result.map_err(|(map, error)| self.error(map, &error))?;
        let ([a, b], [c, d]) = (
            layout.pool_first.to_ne_bytes(),
            layout.pool_last.to_ne_bytes(),
        );
        // A map is looked at until it has been emptied: who sees that it need not be must see the change.
        let [had, ..] = self.told;
        self.told = [had | layout.has, 0, a, b, c, d];
        self.change = self.change.wrapping_add(1);
        self.write_settings()?;
        let result = self.keep(&layout, &mut synced);
        result.map_err(|(map, error)| self.error(map, &error))?;
        self.told = [layout.has, 0, a, b, c, d];
        if had & !layout.has != 0 {
            self.write_settings()?;
        }
        self.told_of = Some(steered.clone());
        Ok(synced)
    }

    fn add(&mut self, layout: &Layout, synced: &mut Synced) -> Result<(), Refused> {
        self.pool.add(&layout.pool, synced)?;
        self.tunnel_sources.add(&layout.tunnel_sources, synced)?;
        self.returns.add(&layout.returns, synced)?;
        self.return_ranges.add(&layout.return_ranges, synced)?;
        self.addresses.add(&layout.addresses, synced)?;
        self.ranges.add(&layout.ranges, synced)?;
        self.services.add(&layout.services, synced)
    }

    fn keep(&mut self, layout: &Layout, synced: &mut Synced) -> Result<(), Refused> {
        self.services.keep(&layout.services, synced)?;
        self.ranges.keep(&layout.ranges, synced)?;
        self.addresses.keep(&layout.addresses, synced)?;
        self.return_ranges.keep(&layout.return_ranges, synced)?;
        self.returns.keep(&layout.returns, synced)?;
        self.tunnel_sources.keep(&layout.tunnel_sources, synced)?;
        self.pool.keep(&layout.pool, synced)
    }

    pub(super) fn sync_locals(&mut self, wanted: &[IpAddr]) -> Result<Synced, SteerError> {
        let wanted = addresses_only(wanted);
        let mut synced = Synced::default();
        let result = self.locals.add(&wanted, &mut synced);
        let result = result.and_then(|()| self.locals.keep(&wanted, &mut synced));
        result.map_err(|(map, error)| self.error(map, &error))?;
        Ok(synced)
    }

    pub(super) fn set_own_address(&mut self, address: Mac) -> Result<(), SteerError> {
        self.own = address;
        self.write_settings()
    }

    fn write_settings(&mut self) -> Result<(), SteerError> {
        let mut bytes = [0; SETTINGS_BYTES];
        let (own, rest) = bytes.split_at_mut(6);
        let (told, change) = rest.split_at_mut(6);
        own.copy_from_slice(&self.own.0);
        told.copy_from_slice(&self.told);
        change.copy_from_slice(&self.change.to_ne_bytes());
        let result = self.settings.set(0, bytes, 0);
        result.map_err(|error| self.error("settings", &error))
    }

    pub(super) fn counters(&self) -> Result<SteerCounters, SteerError> {
        let read = |index| {
            let values = self.stats.get(&index, 0);
            let values = values.map_err(|error| self.error("steer_stats", &error))?;
            // They count packets from one attach on: 2^64 is out of reach.
            Ok(values.iter().sum())
        };
        // In the order of `enum counter` in steer.bpf.c.
        Ok(SteerCounters {
            received: read(0)?,
            passed_other: read(1)?,
            passed_no_socket: read(2)?,
            passed_vlan: read(3)?,
            redirected_service: read(4)?,
            redirected_return: read(5)?,
            redirected_fragment: read(6)?,
            redirected_icmp: read(7)?,
            redirected_echo: read(8)?,
        })
    }

    fn error(&self, map: &'static str, error: &MapError) -> SteerError {
        SteerError {
            interface: self.interface.clone(),
            map,
            found: explain(error),
        }
    }
}

/// A loaded object whose maps are being taken out.
struct Taking<'a> {
    ebpf: &'a mut Ebpf,
    interface: &'a str,
}

impl Taking<'_> {
    fn take<T>(
        &mut self,
        name: &str,
        convert: impl FnOnce(Map) -> Result<T, MapError>,
    ) -> Result<T, AttachError> {
        let load = |found| AttachError::Load {
            interface: self.interface.to_owned(),
            found,
        };
        let map = self.ebpf.take_map(name);
        let map = map.ok_or_else(|| load(format!("the object has no map `{name}`")))?;
        convert(map).map_err(|error| load(format!("map `{name}`: {}", explain(&error))))
    }

    fn known<S, K, V>(
        &mut self,
        name: &'static str,
        convert: impl FnOnce(Map) -> Result<S, MapError>,
    ) -> Result<Known<S, K, V>, AttachError> {
        Ok(Known {
            name,
            store: self.take(name, convert)?,
            entries: BTreeMap::new(),
        })
    }
}
