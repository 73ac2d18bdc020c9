//! Two workers, step by step, in every order with few changes between them: a step ends where the code says
//! [`between`].
//!
//! What a step does to a table is one access, which is atomic as others see it: that is judged by loom
//! (`conntrack/tests`). So the orders of the steps are all that can happen.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex};

/// How often one worker is stopped for the other. Mistakes that need more than two are rare (Musuvathi and
/// Qadeer, "Iterative Context Bounding", PLDI 2007).
const STOPS: usize = 4;

/// A worker's place in a play.
struct Place {
    me: usize,
    stage: Arc<Stage>,
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// The end of a step: the other worker may go on, if there is one.
pub(in crate::steer) fn between() {
    PLACE.with_borrow(|place| {
        if let Some(Place { me, stage }) = place {
            stage.hand_over(*me);
        }
    });
}

#[derive(Default)]
struct Stage {
    play: Mutex<Play>,
    changed: Condvar,
}

#[derive(Default)]
struct Play {
    turn: usize,
    has_ended: [bool; 2],
    choices: Choices,
}

impl Stage {
    fn enter(&self, me: usize) {
        let play = self.play.lock().unwrap();
        let _mine = self.changed.wait_while(play, |play| play.turn != me);
    }

    fn hand_over(&self, me: usize) {
        let mut play = self.play.lock().unwrap();
        if !play.has_ended[1 - me] && play.choices.next() {
            play.turn = 1 - me;
            self.changed.notify_all();
            drop(play);
            self.enter(me);
        }
    }

    fn leave(&self, me: usize) {
        let mut play = self.play.lock().unwrap();
        play.has_ended[me] = true;
        play.turn = 1 - me;
        self.changed.notify_all();
    }
}

/// Whether to hand over, at each step of one play.
#[derive(Default)]
struct Choices {
    taken: Vec<bool>,
    made: usize,
}

impl Choices {
    fn next(&mut self) -> bool {
        let stops = self.taken[..self.made].iter().filter(|taken| **taken);
        if stops.count() == STOPS {
            return false;
        }
        if self.made == self.taken.len() {
            self.taken.push(false);
        }
        self.made += 1;
        self.taken[self.made - 1]
    }

    /// Whether there is another order to be played.
    fn advance(&mut self) -> bool {
        assert_eq!(
            self.made,
            self.taken.len(),
            "the same choices, the same steps"
        );
        self.made = 0;
        while self.taken.pop_if(|taken| *taken).is_some() {}
        self.taken.last_mut().is_some_and(|last| {
            *last = true;
            true
        })
    }
}

/// The orders in which the steps of two workers can come, one after the other.
pub(super) struct Orders {
    stage: Arc<Stage>,
    played: usize,
}

impl Orders {
    pub(super) fn new() -> Self {
        Self {
            stage: Arc::default(),
            played: 0,
        }
    }

    /// Whether there is one that was not played yet.
    pub(super) fn are_left(&mut self) -> bool {
        self.played == 0 || self.stage.play.lock().unwrap().choices.advance()
    }

    /// How many were played.
    pub(super) fn played(&self) -> usize {
        self.played
    }

    /// Has both work, in the next order.
    pub(super) fn play<R: Send>(
        &mut self,
        first: impl FnOnce() -> R + Send,
        second: impl FnOnce() -> R + Send,
    ) -> [R; 2] {
        self.played += 1;
        {
            let mut play = self.stage.play.lock().unwrap();
            play.has_ended = [false; 2];
            play.turn = usize::from(play.choices.next());
        }
        let stage = &self.stage;
        std::thread::scope(|scope| {
            let first = scope.spawn(|| part(stage, 0, first));
            let second = scope.spawn(|| part(stage, 1, second));
            [first.join().unwrap(), second.join().unwrap()]
        })
    }
}

/// What one worker does, in its turns.
fn part<R>(stage: &Arc<Stage>, me: usize, work: impl FnOnce() -> R) -> R {
    /// Leaves also where the work panics, so that the other ends too.
    struct Leaving<'a>(&'a Stage, usize);

    impl Drop for Leaving<'_> {
        fn drop(&mut self) {
            self.0.leave(self.1);
        }
    }

    stage.enter(me);
    let _leaving = Leaving(stage, me);
    let stage = Arc::clone(stage);
    PLACE.set(Some(Place { me, stage }));
    work()
}

#[test]
fn every_order_is_played() {
    let mut orders = Orders::new();
    let mut seen = std::collections::BTreeSet::new();
    while orders.are_left() {
        let steps = Mutex::new(String::new());
        let work = |name: char| {
            for _ in 0..2 {
                steps.lock().unwrap().push(name);
                between();
            }
        };
        orders.play(|| work('a'), || work('b'));
        seen.insert(steps.into_inner().unwrap());
    }
    let all = ["aabb", "abab", "abba", "baab", "baba", "bbaa"];
    assert!(seen.iter().eq(all.iter()), "{seen:?}");
}
