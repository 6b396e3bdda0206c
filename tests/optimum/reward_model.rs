//! Scores over four answers whose comparisons follow known rewards: gradient descent finds those
//! rewards, up to what the objective leaves open.

use crate::common::policy::{
    REFERENCE, REWARDS, descend_free, distance, normalized, ordered_pairs,
};
use crate::common::{assert_close, matrix, rankings, sigma, vector};
use candle_align::online::reward_model::Ties;
use candle_align::{
    Pair, PairwiseRewardConfig, RankedRewardConfig, Result, choose_best_loss, pairwise_reward_loss,
    plackett_luce_reward_loss, ranked_reward_loss,
};
use candle_core::{Device, Tensor};

/// What plain gradient descent reaches on a smooth, strictly convex loss.
const REACHED: f64 = 1e-11;
/// For numbers that are known to four digits.
const DIGITS: f64 = 1e-4;
/// A start with a sum of its own.
const START: [f64; 4] = [0.3, -0.2, 0.5, 0.1];

fn centered(s: &[f64]) -> Vec<f64> {
    let mean = s.iter().sum::<f64>() / s.len() as f64;
    s.iter().map(|s| s - mean).collect()
}

/// A pair: the answers, and how often it is drawn.
type Drawn = ((usize, usize), f64);

/// Every pair as often.
fn uniform() -> Vec<Drawn> {
    ordered_pairs(4)
        .into_iter()
        .map(|p| (p, 1.0 / 12.0))
        .collect()
}

/// Two different answers drawn from the reference.
fn sampled() -> Vec<Drawn> {
    let pairs = ordered_pairs(4);
    let weights: Vec<f64> = pairs
        .iter()
        .map(|&(i, j)| REFERENCE[i] * REFERENCE[j])
        .collect();
    pairs.into_iter().zip(normalized(&weights)).collect()
}

/// E over drawn pairs, and over who wins by Bradley–Terry, of the pairwise loss.
fn pairs(
    scores: &Tensor,
    drawn: &[Drawn],
    config: &PairwiseRewardConfig,
    margin: impl Fn(usize, usize) -> f64,
) -> Result<Tensor> {
    let (mut won, mut lost, mut weights, mut margins) = (vec![], vec![], vec![], vec![]);
    for &((i, j), share) in drawn {
        for (w, l) in [(i, j), (j, i)] {
            won.push(w as u32);
            lost.push(l as u32);
            weights.push(share * sigma(REWARDS[w] - REWARDS[l]));
            margins.push(margin(w, l));
        }
    }
    let scores = Pair {
        chosen: scores.index_select(&Tensor::new(won, &Device::Cpu)?, 0)?,
        rejected: scores.index_select(&Tensor::new(lost, &Device::Cpu)?, 0)?,
    };
    let losses = pairwise_reward_loss(&scores, Some(&vector(&margins)), config)?.loss;
    Ok((losses * vector(&weights))?.sum_all()?)
}

/// The same loss at given scores, as a number.
fn value(scores: &[f64], loss: impl Fn(&Tensor) -> Result<Tensor>) -> f64 {
    let loss = loss(&vector(scores)).expect("a loss");
    loss.to_scalar::<f64>().expect("a scalar")
}

/// Σ p · L over one list per outcome, all with the same scores.
fn expected(
    scores: &Tensor,
    probabilities: &[f64],
    losses: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let lists = scores
        .unsqueeze(0)?
        .broadcast_as((probabilities.len(), scores.dim(0)?))?;
    Ok((losses(&lists)? * vector(probabilities))?.sum_all()?)
}

#[test]
fn pairs_teach_the_reward_up_to_a_constant_whichever_are_drawn() {
    let none = PairwiseRewardConfig::default();
    for (drawn, alpha, steps) in [(uniform(), 6.93, 60), (sampled(), 5.0, 120)] {
        let loss = |s: &Tensor| pairs(s, &drawn, &none, |_, _| 0.0);
        let s = descend_free(&START, alpha, steps, loss);
        assert_close(&centered(&s), &centered(&REWARDS), REACHED, "r");
        // the constant is that of the start
        let (sum, start): (f64, f64) = (s.iter().sum(), START.iter().sum());
        assert_close(&[sum], &[start], REACHED, "sum");
        // what is left is the entropy of the labels
        let entropy: f64 = drawn
            .iter()
            .map(|&((i, j), share)| {
                let p = sigma(REWARDS[i] - REWARDS[j]);
                -share * (p * p.ln() + (1.0 - p) * (1.0 - p).ln())
            })
            .sum();
        assert_close(&[value(&s, loss)], &[entropy], REACHED, "least loss");
    }
}

#[test]
fn each_connected_set_of_answers_has_a_constant_of_its_own() {
    let drawn = [((0, 1), 0.5), ((2, 3), 0.5)];
    let none = PairwiseRewardConfig::default();
    let s = descend_free(&START, 5.0, 100, |s| pairs(s, &drawn, &none, |_, _| 0.0));
    let got = [s[1] - s[0], s[3] - s[2], s[0] + s[1], s[2] + s[3]];
    let want = [
        REWARDS[1] - REWARDS[0],
        REWARDS[3] - REWARDS[2],
        START[0] + START[1],
        START[2] + START[3],
    ];
    assert_close(&got, &want, REACHED, "differences and sums");
}

#[test]
fn a_constant_margin_stretches_a_lone_pair() {
    let (p, m) = (0.8, 1.0f64);
    let s = descend_free(&[0.0, 0.0], 3.0, 200, |s| {
        let (first, second) = (s.narrow(0, 0, 1)?, s.narrow(0, 1, 1)?);
        let scores = Pair {
            chosen: Tensor::cat(&[&first, &second], 0)?,
            rejected: Tensor::cat(&[&second, &first], 0)?,
        };
        let losses =
            pairwise_reward_loss(&scores, Some(&vector(&[m, m])), &Default::default())?.loss;
        Ok((losses * vector(&[p, 1.0 - p]))?.sum_all()?)
    });
    let gain: f64 = 2.0 * p - 1.0;
    let root = (gain * gain + 4.0 * p * (1.0 - p) * (-2.0 * m).exp()).sqrt();
    let want = ((gain + root) / (2.0 * (1.0 - p) * (-m).exp())).ln();
    assert_close(&[s[0] - s[1]], &[want], REACHED, "difference");
    assert!(want > (p / (1.0 - p)).ln() + 0.5, "a margin stretches");
}

#[test]
fn a_constant_margin_makes_the_optimum_depend_on_the_pairs() {
    // found by another solver
    let want = [
        (uniform(), [-1.3854, 0.2244, -0.5747, 1.7357]),
        (sampled(), [-1.4018, 0.2453, -0.5686, 1.7252]),
    ];
    for (drawn, want) in want {
        let none = PairwiseRewardConfig::default();
        let s = descend_free(&[0.0; 4], 5.0, 150, |s| pairs(s, &drawn, &none, |_, _| 1.0));
        assert_close(&centered(&s), &want, DIGITS, "margin 1");
    }
}

#[test]
fn a_signed_margin_in_proportion_to_the_reward_scales_it() {
    let none = PairwiseRewardConfig::default();
    let a = 0.5;
    let signed = |w: usize, l: usize| a * (REWARDS[w] - REWARDS[l]);
    let s = descend_free(&[0.0; 4], 5.0, 150, |s| pairs(s, &uniform(), &none, signed));
    let want: Vec<f64> = REWARDS.iter().map(|r| (1.0 + a) * r).collect();
    assert_close(&centered(&s), &centered(&want), REACHED, "(1 + a) r");

    let absolute = |w: usize, l: usize| signed(w, l).abs();
    let s = descend_free(&[0.0; 4], 5.0, 150, |s| {
        pairs(s, &uniform(), &none, absolute)
    });
    let ratio = |i: usize, j: usize| (s[i] - s[j]) / (REWARDS[i] - REWARDS[j]);
    assert!(
        (ratio(3, 0) - ratio(1, 2)).abs() > 0.02,
        "not linear: {s:?}"
    );
}

#[test]
fn centering_pairs_fixes_the_constant_of_two_and_shrinks_four() {
    let config = PairwiseRewardConfig { centering: 0.05 };
    let lone = [((1, 3), 1.0)];
    let s = descend_free(&START, 2.0, 200, |s| pairs(s, &lone, &config, |_, _| 0.0));
    let got = [s[3] - s[1], s[3] + s[1]];
    assert_close(&got, &[REWARDS[3] - REWARDS[1], 0.0], REACHED, "two");

    // found by another solver
    let config = PairwiseRewardConfig { centering: 0.01 };
    let s = descend_free(&START, 5.0, 300, |s| {
        pairs(s, &uniform(), &config, |_, _| 0.0)
    });
    let sum: f64 = s.iter().sum();
    assert_close(&[s[3] - s[0], sum], &[1.8737, 0.0], DIGITS, "four");
}

#[test]
fn rankings_teach_the_reward_up_to_a_constant() {
    let (labels, probabilities) = rankings::population(&REWARDS);
    let none = RankedRewardConfig::default();
    let loss = |s: &Tensor| {
        expected(s, &probabilities, |lists| {
            ranked_reward_loss(lists, &labels, None, &none)
        })
    };
    assert_close(&[value(&[0.0; 4], loss)], &[2.0f64.ln()], REACHED, "start");
    let s = descend_free(&[0.0; 4], 6.93, 60, loss);
    assert_close(&s, &centered(&REWARDS), REACHED, "r");
    let entropy: f64 = uniform()
        .iter()
        .map(|&((i, j), share)| {
            let p = sigma(REWARDS[i] - REWARDS[j]);
            -2.0 * share * p * p.ln()
        })
        .sum();
    assert_close(&[value(&s, loss)], &[entropy], REACHED, "least loss");
}

#[test]
fn centering_a_ranking_fixes_the_constant_and_nothing_else() {
    let (labels, probabilities) = rankings::population(&REWARDS);
    let config = RankedRewardConfig {
        centering: 0.05,
        ..Default::default()
    };
    let s = descend_free(&START, 6.0, 80, |s| {
        expected(s, &probabilities, |lists| {
            ranked_reward_loss(lists, &labels, None, &config)
        })
    });
    assert_close(&s, &centered(&REWARDS), REACHED, "r, centered");
}

#[test]
fn half_a_tie_is_half_a_win_for_each() {
    // the first is better, worse, or as good
    let (won, lost, tied) = (0.5f64, 0.2, 0.3);
    let labels = matrix(&[&[2.0, 1.0], &[1.0, 2.0], &[1.0, 1.0]]);
    let learned = |ties: Ties| {
        let config = RankedRewardConfig {
            ties,
            ..Default::default()
        };
        let s = descend_free(&[0.0, 0.0], 2.0, 300, |s| {
            expected(s, &[won, lost, tied], |lists| {
                ranked_reward_loss(lists, &labels, None, &config)
            })
        });
        s[0] - s[1]
    };
    let half = ((won + tied / 2.0) / (lost + tied / 2.0)).ln();
    assert_close(&[learned(Ties::Half)], &[half], REACHED, "half");
    assert_close(
        &[learned(Ties::Skip)],
        &[(won / lost).ln()],
        REACHED,
        "skip",
    );
}

#[test]
fn choices_of_the_best_teach_the_reward_up_to_a_constant() {
    let odds: Vec<f64> = REWARDS.iter().map(|r| r.exp()).collect();
    let probabilities = normalized(&odds);
    let best = Tensor::new(&[0u32, 1, 2, 3], &Device::Cpu).expect("a vector");
    let loss = |s: &Tensor| {
        expected(s, &probabilities, |lists| {
            choose_best_loss(lists, &best, None)
        })
    };
    assert_close(&[value(&[0.0; 4], loss)], &[4.0f64.ln()], REACHED, "start");
    let s = descend_free(&[0.0; 4], 2.88, 120, loss);
    assert_close(&s, &centered(&REWARDS), REACHED, "r");
    let entropy: f64 = probabilities.iter().map(|p| -p * p.ln()).sum();
    assert_close(&[value(&s, loss)], &[entropy], REACHED, "least loss");
}

#[test]
fn stages_of_rankings_teach_the_reward_up_to_a_constant() {
    let (labels, probabilities) = rankings::population(&REWARDS);
    let loss = |s: &Tensor| {
        expected(s, &probabilities, |lists| {
            plackett_luce_reward_loss(lists, &labels, None)
        })
    };
    assert_close(&[value(&[0.0; 4], loss)], &[24.0f64.ln()], REACHED, "start");
    let s = descend_free(&[0.0; 4], 1.66, 60, loss);
    assert_close(&s, &centered(&REWARDS), REACHED, "r");
    let entropy: f64 = probabilities.iter().map(|p| -p * p.ln()).sum();
    assert_close(&[value(&s, loss)], &[entropy], REACHED, "least loss");
}

#[test]
fn labels_that_follow_no_such_model_part_the_objectives() {
    // the first is best half of the time, worst otherwise
    let labels = matrix(&[&[4.0, 3.0, 2.0, 1.0], &[1.0, 4.0, 3.0, 2.0]]);
    let shares = [0.5, 0.5];
    let pairs = descend_free(&[0.0; 4], 0.5, 100, |s| {
        expected(s, &shares, |lists| {
            ranked_reward_loss(lists, &labels, None, &Default::default())
        })
    });
    let stages = descend_free(&[0.0; 4], 0.5, 100, |s| {
        expected(s, &shares, |lists| {
            plackett_luce_reward_loss(lists, &labels, None)
        })
    });
    let gap = distance(&centered(&pairs), &centered(&stages));
    assert!(gap > 0.1, "{pairs:?} against {stages:?}");
}
