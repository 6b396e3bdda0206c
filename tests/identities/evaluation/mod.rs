//! The properties that the pages of the evaluation claim.

mod by_model;
mod closed_form;
mod human;
mod meta;
mod reference_based;

use candle_align::evaluation::{Game, Outcome};
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::First),
        Just(Outcome::Second),
        Just(Outcome::Tie)
    ]
}

/// Games of four models, in a cycle of ties first, so that every rating is known.
fn games() -> impl Strategy<Value = Vec<Game>> {
    let game = (0..4usize, 1..4usize, outcome());
    let game = game.prop_map(|(first, step, outcome)| Game {
        first,
        second: (first + step) % 4,
        outcome,
    });
    proptest::collection::vec(game, 0..40).prop_map(|mut games| {
        let cycle = |first| Game {
            first,
            second: (first + 1) % 4,
            outcome: Outcome::Tie,
        };
        games.extend((0..4).map(cycle));
        games
    })
}

fn is_close(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0)
}

/// The same in reverse order.
fn reversed<T: Clone>(items: &[T]) -> Vec<T> {
    items.iter().rev().cloned().collect()
}
