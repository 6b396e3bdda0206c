//! Every loss over pairs returns what it orders the answers by, in one type.

use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::{
    DpoConfig, Pair, PairwiseRewardConfig, PreferenceLoss, Result, SlicConfig, dpo_loss,
    pairwise_reward_loss, slic_margin_loss, slic_rank_loss,
};
use candle_core::{Tensor, Var};

/// Right, wrong, tied, right.
const CHOSEN: [f64; 4] = [-3.0, -9.0, -4.0, -0.5];
const REJECTED: [f64; 4] = [-5.0, -8.5, -4.0, -0.75];

type Loss = fn(&Pair<Tensor>) -> Result<PreferenceLoss>;

/// Each loss, and by what it multiplies the numbers that it is given.
fn losses() -> [(&'static str, f64, Loss); 4] {
    [
        ("dpo", 0.3, |pair| {
            let config = DpoConfig {
                beta: 0.3,
                ..Default::default()
            };
            dpo_loss(pair, None, &config)
        }),
        ("slic rank", 1.0, |pair| {
            slic_rank_loss(pair, &SlicConfig { delta: 2.0 })
        }),
        ("slic margin", 1.0, |pair| {
            let similarity = Pair {
                chosen: vector(&[0.9; 4]),
                rejected: vector(&[0.1; 4]),
            };
            slic_margin_loss(pair, &similarity, &SlicConfig { delta: 2.0 })
        }),
        ("pairwise reward", 1.0, |pair| {
            // a margin moves the loss, and not the order
            let margin = vector(&[1.0, -2.0, 3.0, 0.5]);
            pairwise_reward_loss(
                pair,
                Some(&margin),
                &PairwiseRewardConfig { centering: 0.1 },
            )
        }),
    ]
}

#[test]
fn accuracy_and_margin_are_asked_in_one_way() {
    for (name, scale, loss) in losses() {
        let out = loss(&Pair {
            chosen: vector(&CHOSEN),
            rejected: vector(&REJECTED),
        })
        .unwrap();
        assert_eq!(out.loss.dims(), [4], "{name}");
        for (got, want) in [
            (&out.rewards.chosen, CHOSEN),
            (&out.rewards.rejected, REJECTED),
        ] {
            assert_close(&numbers(got), &want.map(|x| scale * x), EXACT, name);
        }
        let accuracy = out.rewards.accuracy().unwrap();
        assert_eq!(
            numbers(&accuracy),
            [(1.0 + 0.0 + 0.5 + 1.0) / 4.0],
            "{name}"
        );
        let margin = out.rewards.margin().unwrap();
        let want = [2.0, -0.5, 0.0, 0.25].map(|x| scale * x);
        assert_close(&numbers(&margin), &want, EXACT, name);
    }
}

#[test]
fn what_a_loss_orders_by_has_no_history_and_the_loss_has() {
    for (name, _, loss) in losses() {
        let of = |x: [f64; 4]| Var::from_tensor(&vector(&x)).unwrap();
        let (chosen, rejected) = (of(CHOSEN), of(REJECTED));
        let pair = Pair {
            chosen: chosen.as_tensor().clone(),
            rejected: rejected.as_tensor().clone(),
        };
        let out = loss(&pair).unwrap();
        assert!(
            !out.rewards.chosen.track_op() && !out.rewards.chosen.is_variable(),
            "{name}"
        );
        assert!(
            !out.rewards.rejected.track_op() && !out.rewards.rejected.is_variable(),
            "{name}"
        );
        let grads = out.loss.sum_all().unwrap().backward().unwrap();
        assert!(
            grads.get(&chosen).is_some() && grads.get(&rejected).is_some(),
            "{name}"
        );
        // what is better by more loses no more
        let lost = |lead: f64| {
            let at = |x: f64| vector(&[x; 4]);
            let pair = Pair {
                chosen: at(lead / 2.0),
                rejected: at(-lead / 2.0),
            };
            numbers(&loss(&pair).unwrap().loss)[0]
        };
        assert!(lost(1.0) < lost(-1.0), "{name}");
    }
}
