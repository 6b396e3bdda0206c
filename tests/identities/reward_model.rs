use crate::common::policy::{REWARDS, ordered_pairs};
use crate::common::{
    EXACT, assert_close, bits, logistic_loss, matrix, numbers, rankings, sigma, vector,
};
use candle_align::online::reward_head::{RewardHead, RewardNormalization};
use candle_align::online::reward_model::{Ties, ranking_accuracy};
use candle_align::{
    DpoConfig, Pair, PairwiseRewardConfig, RankedRewardConfig, Result, choose_best_loss, dpo_loss,
    pairwise_reward_loss, plackett_luce_reward_loss, ranked_reward_loss,
};
use candle_core::{DType, Device, Tensor, Var};
use rand::{SeedableRng, rngs::StdRng};

const CHOSEN: [f64; 4] = [1.5, -0.5, 2.0, 0.3];
const REJECTED: [f64; 4] = [0.5, 0.75, 2.0, -4.0];
/// Scores at no special point.
const SCORES: [f64; 4] = [0.3, -1.0, 2.0, 0.8];

fn column(data: &[f64], at: usize) -> Vec<f64> {
    data.iter().skip(at).step_by(2).copied().collect()
}

/// Σ loss over the batch and its gradient with respect to `scores`.
fn slope(scores: &Tensor, loss: impl Fn(&Tensor) -> Result<Tensor>) -> (Vec<f64>, Vec<f64>) {
    let scores = Var::from_tensor(scores).expect("a copy");
    let loss = loss(&scores).expect("a loss");
    let grads = loss.sum_all().expect("a sum").backward().expect("backward");
    (
        numbers(&loss),
        numbers(grads.get(&scores).expect("a gradient")),
    )
}

/// The pairs as lists `[4, 2]`, the chosen answer first.
fn two() -> Tensor {
    let rows: Vec<[f64; 2]> = CHOSEN
        .into_iter()
        .zip(REJECTED)
        .map(|(w, l)| [w, l])
        .collect();
    let rows: Vec<&[f64]> = rows.iter().map(|row| row.as_slice()).collect();
    matrix(&rows)
}

type Loss<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;

fn first_is_better() -> Tensor {
    matrix(&[[2.0, 1.0].as_slice(); 4])
}

fn halves(lists: &Tensor) -> Result<Pair<Tensor>> {
    Ok(Pair {
        chosen: lists.narrow(1, 0, 1)?.squeeze(1)?,
        rejected: lists.narrow(1, 1, 1)?.squeeze(1)?,
    })
}

#[test]
fn two_answers_are_a_pair_whatever_the_loss_over_lists() -> Result<()> {
    let labels = first_is_better();
    let best = Tensor::zeros(4, DType::U32, &Device::Cpu)?;
    let none = PairwiseRewardConfig::default();
    let pairs = slope(&two(), |s| {
        Ok(pairwise_reward_loss(&halves(s)?, None, &none)?.loss)
    });
    let lists = [
        slope(&two(), |s| {
            ranked_reward_loss(s, &labels, None, &Default::default())
        }),
        slope(&two(), |s| choose_best_loss(s, &best, None)),
        slope(&two(), |s| plackett_luce_reward_loss(s, &labels, None)),
    ];
    for (loss, gradient) in lists {
        assert_close(&loss, &pairs.0, EXACT, "loss");
        assert_close(&gradient, &pairs.1, EXACT, "gradient");
    }
    Ok(())
}

#[test]
fn two_ranked_answers_are_a_pair_with_margin_and_centering() -> Result<()> {
    let labels = first_is_better();
    let margin = vector(&[0.4; 4]);
    let pair = PairwiseRewardConfig { centering: 0.3 };
    for ties in [Ties::Skip, Ties::Half] {
        let config = RankedRewardConfig {
            ties,
            margin: 0.4,
            centering: 0.3,
        };
        let want = slope(&two(), |s| {
            Ok(pairwise_reward_loss(&halves(s)?, Some(&margin), &pair)?.loss)
        });
        let got = slope(&two(), |s| ranked_reward_loss(s, &labels, None, &config));
        assert_close(&got.0, &want.0, EXACT, "loss");
        assert_close(&got.1, &want.1, EXACT, "gradient");
    }
    Ok(())
}

#[test]
fn a_pair_is_dpo_without_a_reference_at_beta_one() -> Result<()> {
    let config = DpoConfig {
        beta: 1.0,
        label_smoothing: 0.0,
    };
    let none = PairwiseRewardConfig::default();
    let scores = slope(&two(), |s| {
        Ok(pairwise_reward_loss(&halves(s)?, None, &none)?.loss)
    });
    let policy = slope(&two(), |s| Ok(dpo_loss(&halves(s)?, None, &config)?.loss));
    assert_close(&scores.0, &policy.0, EXACT, "loss");
    assert_close(&scores.1, &policy.1, EXACT, "gradient");
    Ok(())
}

#[test]
fn the_slope_of_a_pair_is_the_probability_of_the_other_outcome() -> Result<()> {
    let margin = vector(&[0.4; 4]);
    let none = PairwiseRewardConfig::default();
    let (_, gradient) = slope(&two(), |s| {
        Ok(pairwise_reward_loss(&halves(s)?, Some(&margin), &none)?.loss)
    });
    let lost: Vec<f64> = CHOSEN
        .iter()
        .zip(REJECTED)
        .map(|(w, l)| sigma(l - w + 0.4))
        .collect();
    let won: Vec<f64> = lost.iter().map(|p| -p).collect();
    assert_close(&column(&gradient, 0), &won, EXACT, "chosen");
    assert_close(&column(&gradient, 1), &lost, EXACT, "rejected");

    let level = matrix(&[&[0.7, 0.7]]);
    let (loss, gradient) = slope(&level, |s| {
        Ok(pairwise_reward_loss(&halves(s)?, None, &none)?.loss)
    });
    assert_close(&loss, &[2.0f64.ln()], EXACT, "loss at equal scores");
    assert_close(&gradient, &[-0.5, 0.5], EXACT, "slope at equal scores");
    Ok(())
}

#[test]
fn the_best_is_the_first_stage_of_a_ranking() -> Result<()> {
    let labels = [2.0, 1.0, 4.0, 3.0];
    let whole = plackett_luce_reward_loss(&matrix(&[&SCORES]), &matrix(&[&labels]), None)?;
    let best = Tensor::new(&[2u32], &Device::Cpu)?;
    let first = choose_best_loss(&matrix(&[&SCORES]), &best, None)?;
    let mask = bits(&[&[1, 1, 0, 1]]);
    let rest = plackett_luce_reward_loss(&matrix(&[&SCORES]), &matrix(&[&labels]), Some(&mask))?;
    assert_close(
        &numbers(&whole),
        &numbers(&(first + rest)?),
        EXACT,
        "stages",
    );
    Ok(())
}

#[test]
fn one_number_added_to_all_scores_changes_nothing() -> Result<()> {
    let labels = matrix(&[&[2.0, 1.0, 4.0, 4.0]]);
    let best = Tensor::new(&[2u32], &Device::Cpu)?;
    let config = RankedRewardConfig {
        ties: Ties::Half,
        margin: 0.4,
        centering: 0.0,
    };
    let at = matrix(&[&SCORES]);
    let moved = (&at + 7.5)?;
    let losses: [Loss; 3] = [
        &|s| ranked_reward_loss(s, &labels, None, &config),
        &|s| choose_best_loss(s, &best, None),
        &|s| plackett_luce_reward_loss(s, &labels, None),
    ];
    for loss in losses {
        let (here, there) = (slope(&at, loss), slope(&moved, loss));
        assert_close(&there.0, &here.0, EXACT, "loss");
        assert_close(&there.1, &here.1, EXACT, "gradient");
        let total: f64 = here.1.iter().sum();
        assert_close(&[total], &[0.0], EXACT, "sum of the gradient");
    }
    let none = PairwiseRewardConfig::default();
    let pairs = |s: &Tensor| Ok(pairwise_reward_loss(&halves(s)?, None, &none)?.loss);
    let (here, there) = (slope(&two(), pairs), slope(&(two() + 7.5)?, pairs));
    assert_close(&there.0, &here.0, EXACT, "loss");
    assert_close(&there.1, &here.1, EXACT, "gradient");
    Ok(())
}

#[test]
fn at_equal_scores_each_rank_has_its_slope() -> Result<()> {
    for k in 2..7usize {
        let n = k as f64;
        let level = Tensor::full(0.7f64, (1, k), &Device::Cpu)?;
        // rank 1 first
        let labels: Vec<f64> = (0..k).map(|i| -(i as f64)).collect();
        let labels = matrix(&[&labels]);

        let (loss, gradient) = slope(&level, |s| {
            ranked_reward_loss(s, &labels, None, &Default::default())
        });
        let pairs = n * (n - 1.0) / 2.0;
        let want: Vec<f64> = (1..=k)
            .map(|rank| (2.0 * rank as f64 - n - 1.0) / (2.0 * pairs))
            .collect();
        assert_close(&loss, &[2.0f64.ln()], EXACT, "ranked loss");
        assert_close(&gradient, &want, EXACT, "ranked");

        let (loss, gradient) = slope(&level, |s| plackett_luce_reward_loss(s, &labels, None));
        let want: Vec<f64> = (1..=k)
            .map(|rank| {
                let lost: f64 = (1..=rank.min(k - 1))
                    .map(|stage| 1.0 / (k - stage + 1) as f64)
                    .sum();
                lost - if rank < k { 1.0 } else { 0.0 }
            })
            .collect();
        let orders: f64 = (1..=k).map(|i| i as f64).product();
        assert_close(&loss, &[orders.ln()], EXACT, "plackett-luce loss");
        assert_close(&gradient, &want, EXACT, "plackett-luce");

        let best = Tensor::new(&[1u32], &Device::Cpu)?;
        let (loss, gradient) = slope(&level, |s| choose_best_loss(s, &best, None));
        let mut want = vec![1.0 / n; k];
        want[1] -= 1.0;
        assert_close(&loss, &[n.ln()], EXACT, "choose best loss");
        assert_close(&gradient, &want, EXACT, "choose best");
    }
    Ok(())
}

#[test]
fn rankings_are_uniform_pairs_in_expectation() -> Result<()> {
    let (labels, probabilities) = rankings::population(&REWARDS);
    let scores = matrix(&vec![SCORES.as_slice(); probabilities.len()]);
    for margin in [0.0, 0.6] {
        let config = RankedRewardConfig {
            margin,
            ..Default::default()
        };
        let losses = numbers(&ranked_reward_loss(&scores, &labels, None, &config)?);
        let rankings: f64 = losses.iter().zip(&probabilities).map(|(l, p)| l * p).sum();
        // each of the six pairs as often; the better one by Bradley–Terry
        let pairs: f64 = ordered_pairs(4)
            .iter()
            .map(|&(w, l)| {
                let won = sigma(REWARDS[w] - REWARDS[l]);
                won * logistic_loss(SCORES[w] - SCORES[l] - margin) / 6.0
            })
            .sum();
        assert_close(&[rankings], &[pairs], EXACT, "expectation");
    }
    Ok(())
}

#[test]
fn centering_a_ranking_pulls_all_scores_alike() -> Result<()> {
    let labels = matrix(&[&[2.0, 1.0, 4.0, 3.0]]);
    let with = |centering: f64| {
        let config = RankedRewardConfig {
            centering,
            ..Default::default()
        };
        slope(&matrix(&[&SCORES]), |s| {
            ranked_reward_loss(s, &labels, None, &config)
        })
    };
    let (plain, centered) = (with(0.0), with(0.3));
    let pull: Vec<f64> = centered
        .1
        .iter()
        .zip(&plain.1)
        .map(|(c, p)| c - p)
        .collect();
    // c · (2 · mean)², whose slope is 8c/K · mean for every answer
    let mean = SCORES.iter().sum::<f64>() / 4.0;
    assert_close(&pull, &[8.0 * 0.3 / 4.0 * mean; 4], EXACT, "pull");
    let added = 0.3 * (2.0 * mean).powi(2);
    assert_close(&centered.0, &[plain.0[0] + added], EXACT, "loss");
    Ok(())
}

#[test]
fn centering_every_pair_also_pulls_the_scores_together() -> Result<()> {
    let chosen: Vec<f64> = ordered_pairs(4).iter().map(|&(i, _)| SCORES[i]).collect();
    let rejected: Vec<f64> = ordered_pairs(4).iter().map(|&(_, j)| SCORES[j]).collect();
    let pairs = Pair {
        chosen: vector(&chosen),
        rejected: vector(&rejected),
    };
    let total = |centering: f64| -> Result<f64> {
        let loss = pairwise_reward_loss(&pairs, None, &PairwiseRewardConfig { centering })?.loss;
        Ok(numbers(&loss).iter().sum())
    };
    // Σ_{i≠j}(sᵢ + sⱼ)² = 2(K − 2) Σs² + 2(Σs)²
    let squares: f64 = SCORES.iter().map(|s| s * s).sum();
    let sum: f64 = SCORES.iter().sum();
    let want = 2.0 * 2.0 * squares + 2.0 * sum * sum;
    assert_close(&[total(1.0)? - total(0.0)?], &[want], EXACT, "centering");
    Ok(())
}

#[test]
fn no_comparison_teaches_the_bias_of_a_head() -> Result<()> {
    let mut rng = StdRng::seed_from_u64(2);
    let head = RewardHead::new(3, &mut rng, DType::F64, &Device::Cpu)?.with_bias()?;
    let hidden: Vec<f64> = (0..24).map(|i| (i as f64 * 0.7).sin()).collect();
    let hidden = Tensor::from_vec(hidden, (4, 2, 3), &Device::Cpu)?;
    let mask = bits(&[&[1, 1], &[1, 0], &[0, 1], &[1, 1]]);
    let labels = matrix(&[&[2.0, 1.0, 4.0, 3.0]]);
    let best = Tensor::new(&[2u32], &Device::Cpu)?;
    let lists = head.forward(&hidden, &mask)?.reshape((1, 4))?;
    let pairs = Pair::from_rows(&head.forward(&hidden, &mask)?)?;
    let losses = [
        pairwise_reward_loss(&pairs, None, &Default::default())?.loss,
        ranked_reward_loss(&lists, &labels, None, &Default::default())?,
        choose_best_loss(&lists, &best, None)?,
        plackett_luce_reward_loss(&lists, &labels, None)?,
    ];
    for loss in losses {
        let grads = loss.sum_all()?.backward()?;
        let trainable = head.trainable();
        let bias = numbers(grads.get(&trainable[0].1).expect("a gradient"));
        assert_close(&bias, &[0.0], EXACT, "bias");
        let weight = numbers(grads.get(&trainable[1].1).expect("a gradient"));
        assert!(weight.iter().any(|g| g.abs() > 1e-3), "{weight:?}");
    }
    Ok(())
}

#[test]
fn a_scale_changes_no_comparison() -> Result<()> {
    let scores = matrix(&[&SCORES]);
    let labels = matrix(&[&[2.0, 1.0, 4.0, 3.0]]);
    let before = numbers(&ranking_accuracy(&scores, &labels, None)?);
    let none = RankedRewardConfig::default();
    let loss = ranked_reward_loss(&scores, &labels, None, &none)?;

    let bias = RewardNormalization::zero_mean(&vector(&SCORES))?;
    let moved = bias.apply(&scores)?;
    assert_eq!(numbers(&ranking_accuracy(&moved, &labels, None)?), before);
    let same = ranked_reward_loss(&moved, &labels, None, &none)?;
    assert_close(&numbers(&same), &numbers(&loss), EXACT, "loss");

    let both = RewardNormalization::zero_mean_unit_variance(&vector(&SCORES))?;
    let scaled = both.apply(&scores)?;
    assert_eq!(numbers(&ranking_accuracy(&scaled, &labels, None)?), before);
    // a second fit finds nothing left to do
    let again = RewardNormalization::zero_mean_unit_variance(&scaled.flatten_all()?)?;
    assert_close(&[again.gain, again.bias], &[1.0, 0.0], EXACT, "second fit");
    Ok(())
}

#[test]
fn the_accuracy_of_two_answers_is_that_of_pairs_and_has_no_history() -> Result<()> {
    let scores = Var::from_tensor(&two())?;
    let labels = first_is_better();
    let share = ranking_accuracy(&scores, &labels, None)?;
    assert_eq!(numbers(&share), numbers(&halves(&scores)?.accuracy()?));
    assert_eq!(numbers(&share), [(2.0 + 0.5) / 4.0]);
    assert!(!share.track_op());
    Ok(())
}
