//! Who is talking to whom: a lock-free flow table.
