//! The control thread: one loop, one driver, bounded work per turn.
//!
//! # The loop
//! ```text
//!        ┌────────────── Driver::wait(until the next thing is due) ◄─────────────┐
//!        ▼                                                                       │
//!  completions ── token ──► signals   Readable ► Signals::next until None        │
//!                      ├──► netlink   Readable ► Watcher::read                   │
//!                      ├──► checks    Prober::completed ► Checker::ended         │
//!                      ├──► admin     Admin::completed, Admin::pump              │
//!                      └──► timers    Elapsed                                    │
//!        then: Checker::tick ► Prober::start; Network::generation moved,         │
//!        a check changed sides, a reload ► a new snapshot; start what is wanted ─┘
//! ```
//!
//! Every room here either is a pure state machine or asks for operations; only the driver waits, and only
//! the loop knows all of them. Each operation carries a token of the loop's that says whose it is.
//!
//! # Rules
//! 1. One thread uses all of this. The driver is opened on it (io_uring binds the ring to its first user).
//! 2. Signals are blocked in `main`, before any thread is started.
//! 3. A `Readable` operation is one-shot: it is started again after each completion, with the descriptor
//!    that came back. The rooms hand out duplicates for it and keep their own to read from.
//! 4. Nothing blocks but `Driver::wait`; what could (the first netlink dumps, claiming the admin socket)
//!    is done before the loop begins.
//! 5. Time is read once a turn ([`clock::now`]) and handed on; once more at its end, to tell how long it took.
//!
//! | file | owns |
//! |---|---|
//! | [`driver`] | operations, completions, which driver |
//! | [`ring`] | the driver over io_uring; the only unsafe code of the control thread |
//! | [`epoll`] | the driver over epoll |
//! | [`slab`] | the fixed slab under both |
//! | [`netlink`] | links, addresses, routes, neighbours |
//! | [`steward`] | the loop; in files of their own what is asked of it, flushes, the end, backends that change sides,
//! | | what agents report, services without a backend |
//! | [`fib`] | the workers' forwarding table, from the kernel's |
//! | [`checks`] | which checks the configuration asks for |
//! | [`status`] | what `status` tells |
//! | [`meter`] | what backends and services have been sent, and rates |
//! | [`metrics`] | what collectors of metrics are told |
//! | [`latency`] | how long checks and turns of the loop take |
//! | [`health`] | which backends answer: rise and fall, flaps, suspicion, what an agent reports |
//! | [`signs`] | what the traffic of backends' new connections shows |
//! | [`stall`] | that the thread was held up, which is no backend's fault |
//! | [`probe`] | how a check is carried out, each kind in a file of its own |
//! | [`truepath`] | checks that go the way of the traffic |
//! | [`signals`] | SIGHUP, SIGTERM, SIGINT |
//! | [`admin`] | the admin socket |
//! | [`exporter`] | the listener for collectors of metrics |
//! | [`api`] | what can be asked through it |
//! | [`events`] | what has happened, and who follows it |
//! | [`client`] | its other end, for the commands |
//! | [`taps`] | the tap that an operator has opened: `trace` and `capture` |
//! | [`notify`] | what the service manager is told |
//! | [`clock`] | where real time enters |

pub(crate) mod admin;
pub(crate) mod api;
pub(crate) mod checks;
pub(crate) mod chronicle;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod driver;
pub(crate) mod epoll;
pub(crate) mod events;
pub(crate) mod exporter;
pub(crate) mod fib;
pub(crate) mod health;
pub(crate) mod latency;
pub(crate) mod meter;
pub(crate) mod metrics;
pub(crate) mod netlink;
pub(crate) mod notify;
pub(crate) mod probe;
pub(crate) mod ring;
pub(crate) mod roster;
pub(crate) mod signals;
pub(crate) mod signs;
pub(crate) mod slab;
pub(crate) mod stall;
pub(crate) mod status;
pub(crate) mod steward;
pub(crate) mod taps;
pub(crate) mod truepath;
