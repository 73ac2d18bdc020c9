//! The account: where every packet went, and the identity that has to hold (docs/COUNTERS.md).

use std::fmt;

use crate::status::Status;

/// One interface's account at a quiet moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    name: String,
    arrived: u64,
    passed: u64,
    redirected: u64,
    lost_by_kernel: u64,
    received: u64,
    forwarded: u64,
    answered: u64,
    dropped: u64,
    dropped_by_reason: u64,
    transmitted: u64,
    completed: u64,
}

/// All interfaces' accounts, and the copies of ICMP errors, which are no packets that were received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account(Vec<Line>, u64);

impl Account {
    /// Reads it from a status.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let lines = status.list("/interfaces").iter().map(Line::of).collect();
        Self(lines, status.number("/icmp/copies"))
    }

    /// Whether no packet of a service was counted since `before`. What passes to the kernel does
    /// not matter: the balancer's own checks go on all the time.
    #[must_use]
    pub fn is_as_quiet_as(&self, before: &Self) -> bool {
        let without_passed = |line: &Line| Line {
            arrived: line.redirected,
            passed: 0,
            ..line.clone()
        };
        self.0
            .iter()
            .map(without_passed)
            .eq(before.0.iter().map(without_passed))
    }

    /// What does not add up; empty when all does.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.0.iter().flat_map(Line::faults).collect();
        let sum = |of: fn(&Line) -> u64| self.0.iter().map(of).sum::<u64>();
        let left = sum(|line| line.forwarded + line.answered) + self.1;
        let transmitted = sum(|line| line.transmitted);
        let completed = sum(|line| line.completed);
        if left != transmitted {
            faults.push(format!(
                "forwarded, answered or copied {left}, but transmitted {transmitted}"
            ));
        }
        if transmitted != completed {
            faults.push(format!(
                "transmitted {transmitted}, but completed {completed}"
            ));
        }
        faults
    }
}

impl Line {
    fn of(interface: &Status) -> Self {
        let number = |pointer: &str| interface.number(pointer);
        Self {
            name: interface.text("/name").to_owned(),
            arrived: number("/steering/received"),
            passed: number("/steering/passed")
                + number("/steering/passed_no_worker")
                + number("/steering/passed_vlan"),
            redirected: interface.redirected(),
            // `rx_fill_ring_empty_descs` counts a cause of `rx_dropped`, not a further loss.
            lost_by_kernel: number("/kernel/rx_dropped") + number("/kernel/rx_ring_full"),
            received: number("/received"),
            forwarded: number("/forwarded"),
            answered: number("/answered"),
            dropped: number("/dropped_total"),
            dropped_by_reason: interface.numbers("/dropped").values().sum(),
            transmitted: number("/port/transmitted"),
            completed: number("/port/completed"),
        }
    }

    fn faults(&self) -> Vec<String> {
        let sums = [
            (
                "arrived = passed + redirected",
                self.arrived,
                self.passed + self.redirected,
            ),
            (
                "redirected = received + lost by the kernel",
                self.redirected,
                self.received + self.lost_by_kernel,
            ),
            (
                "received = forwarded + answered + dropped",
                self.received,
                self.forwarded + self.answered + self.dropped,
            ),
            (
                "dropped = the sum of its reasons",
                self.dropped,
                self.dropped_by_reason,
            ),
        ];
        let wrong = sums.into_iter().filter(|(_, left, right)| left != right);
        wrong
            .map(|(rule, left, right)| format!("{}: not {rule}: {left} and {right}", self.name))
            .collect()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            writeln!(
                f,
                "{}: arrived {}, passed {}, redirected {}, lost by the kernel {}, received {}, \
                 forwarded {}, answered {}, dropped {}; transmitted {}, completed {}",
                line.name,
                line.arrived,
                line.passed,
                line.redirected,
                line.lost_by_kernel,
                line.received,
                line.forwarded,
                line.answered,
                line.dropped,
                line.transmitted,
                line.completed,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(forwarded: u64) -> Line {
        Line {
            name: "front".to_owned(),
            arrived: 12,
            passed: 2,
            redirected: 10,
            lost_by_kernel: 1,
            received: 9,
            forwarded,
            answered: 1,
            dropped: 2,
            dropped_by_reason: 2,
            transmitted: 8,
            completed: 8,
        }
    }

    #[test]
    fn passing_packets_do_not_disturb_the_quiet_and_others_do() {
        let before = Account(vec![line(6)], 1);
        let checked = Line {
            arrived: 15,
            passed: 5,
            ..line(6)
        };
        let checked = Account(vec![checked], 1);
        let busy = Line {
            arrived: 13,
            redirected: 11,
            ..line(6)
        };
        let busy = Account(vec![busy], 1);
        assert!(checked.is_as_quiet_as(&before) && !busy.is_as_quiet_as(&before));
    }

    #[test]
    fn an_account_that_adds_up_has_no_faults_and_a_lost_packet_is_one() {
        assert_eq!(Account(vec![line(6)], 1).faults(), Vec::<String>::new());
        let faults = Account(vec![line(5)], 1).faults();
        assert_eq!(faults.len(), 2, "{faults:?}"); // of the interface, and of the sums
        let faults = Account(vec![line(6)], 0).faults();
        assert_eq!(faults.len(), 1, "{faults:?}"); // a copy that nobody made
    }
}
