//! What must not move stays: flows through any change of backends, under floods of SYNs, and
//! with keys that were chosen against the balancer. Whole workers over memory ports, virtual time.
//!
//! All runs are seeded; `STEADFAST_SEED` replays one. A debug build does a small part.

#[cfg(test)]
mod changes;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod flood;
#[cfg(test)]
#[path = "../support/hand.rs"]
mod hand;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod random;
#[cfg(test)]
mod segment;
#[cfg(test)]
mod world;
