//! A whole worker over memory ports, frame in to frame out.

#[cfg(test)]
mod courier;
#[cfg(test)]
mod flow_log;
#[cfg(test)]
mod fragments;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod full_nat;
#[cfg(test)]
#[path = "../support/hand.rs"]
mod hand;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod icmp_errors;
#[cfg(test)]
mod icmp_reports;
#[cfg(test)]
mod icmp_tunnels;
#[cfg(test)]
mod icmp_vlans;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod openings;
#[cfg(test)]
mod rehearsal;
#[cfg(test)]
mod residence;
#[cfg(test)]
mod tap;
#[cfg(test)]
mod vlans;
#[cfg(test)]
mod world;
