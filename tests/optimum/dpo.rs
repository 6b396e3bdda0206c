use crate::common::policy::{
    BETA, REFERENCE, REWARDS, descend, descend_free, distance, log, normalized, ordered_pairs,
    tilted,
};
use crate::common::{numbers, rankings, sigma, vector};
use candle_align::{DpoConfig, Pair, Result, dpo_loss, plackett_luce_reward_loss};
use candle_core::{D, Device, Tensor};
use candle_nn::ops::log_softmax;

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

fn at(log_policy: &Tensor, pairs: &[(usize, usize)]) -> Result<Pair<Tensor>> {
    let pick = |of: fn(&(usize, usize)) -> usize| -> Result<Tensor> {
        let index: Vec<u32> = pairs.iter().map(|p| of(p) as u32).collect();
        Ok(log_policy.index_select(&Tensor::new(index.as_slice(), &Device::Cpu)?, 0)?)
    };
    Ok(Pair {
        chosen: pick(|p| p.0)?,
        rejected: pick(|p| p.1)?,
    })
}

/// Σ over ordered pairs of weight · P(first preferred) · loss.
fn population(
    log_policy: &Tensor,
    pairs: &[(usize, usize)],
    weights: &[f64],
    config: &DpoConfig,
) -> Result<Tensor> {
    let policy = at(log_policy, pairs)?;
    let reference = at(&vector(&log(&REFERENCE)), pairs)?;
    let loss = dpo_loss(&policy, Some(&reference), config)?.loss;
    let labels: Vec<f64> = pairs
        .iter()
        .zip(weights)
        .map(|((i, j), w)| w * sigma(REWARDS[*i] - REWARDS[*j]))
        .collect();
    // each unordered pair stands twice among the ordered ones, once with each label
    Ok((loss * vector(&labels))?.sum_all()?)
}

fn config(beta: f64) -> DpoConfig {
    DpoConfig {
        beta,
        ..Default::default()
    }
}

fn uniform(pairs: &[(usize, usize)]) -> Vec<f64> {
    vec![2.0 / pairs.len() as f64; pairs.len()]
}

#[test]
fn bradley_terry_labels_lead_to_the_tilted_reference() {
    let pairs = ordered_pairs(4);
    let weights = uniform(&pairs);
    let pi = descend(&log(&REFERENCE), 20.0, 50, |l| {
        population(l, &pairs, &weights, &config(BETA))
    });
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
    // the best answer is the reference's rarest: a wrong β, sign or reference is far from here
    let numbers = [0.0464026992, 0.2571541106, 0.0630678070, 0.6333753832];
    assert!(distance(&want, &numbers) < 1e-10, "{want:?}");
    for (beta, reference) in [(1.0, REFERENCE), (BETA, [0.25; 4])] {
        assert!(distance(&want, &tilted(&reference, &REWARDS, beta)) > 0.1);
    }
}

#[test]
fn which_pairs_are_compared_how_often_does_not_matter() {
    let pairs = ordered_pairs(4);
    let weights: Vec<f64> = pairs
        .iter()
        .map(|(i, j)| REFERENCE[*i] * REFERENCE[*j])
        .collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|w| 2.0 * w / total).collect();
    let pi = descend(&log(&REFERENCE), 20.0, 200, |l| {
        population(l, &pairs, &weights, &config(BETA))
    });
    assert!(
        distance(&pi, &tilted(&REFERENCE, &REWARDS, BETA)) < REACHED,
        "{pi:?}"
    );
}

#[test]
fn the_least_loss_is_the_entropy_of_the_labels() {
    let pairs = ordered_pairs(4);
    let pi = tilted(&REFERENCE, &REWARDS, BETA);
    let least = population(&vector(&log(&pi)), &pairs, &uniform(&pairs), &config(BETA)).unwrap();
    let entropy: f64 = pairs
        .iter()
        .map(|(i, j)| {
            let p = sigma(REWARDS[*i] - REWARDS[*j]);
            -(p * p.ln()) * 2.0 / 12.0
        })
        .sum();
    assert!((numbers(&least)[0] - entropy).abs() < REACHED);
    assert!((entropy - 0.5550810456).abs() < 1e-10);
}

#[test]
fn an_answer_in_no_pair_loses_mass_although_it_is_the_best() {
    // answers 0, 1, 2 are compared, 3 is not: θ₃ stays, θ₀ + θ₁ + θ₂ stays
    let pairs = ordered_pairs(3);
    let pi = descend(&log(&REFERENCE), 20.0, 400, |l| {
        population(l, &pairs, &uniform(&pairs), &config(BETA))
    });
    let mean = (REWARDS[0] + REWARDS[1] + REWARDS[2]) / 3.0;
    let tilt: Vec<f64> = (0..4)
        .map(|i| match i {
            3 => REFERENCE[3],
            i => REFERENCE[i] * ((REWARDS[i] - mean) / BETA).exp(),
        })
        .collect();
    let want = normalized(&tilt);
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
    assert!(pi[3] < 0.08);
}

#[test]
fn smoothing_stops_the_margin_of_a_lone_pair_whatever_beta() {
    for beta in [0.1, 0.5] {
        let config = DpoConfig {
            beta,
            label_smoothing: 0.1,
        };
        let pi = descend(&log(&[0.3, 0.7]), 1.0 / (beta * beta), 500, |l| {
            let policy = at(l, &[(0, 1)])?;
            let reference = at(&vector(&log(&[0.3, 0.7])), &[(0, 1)])?;
            Ok(dpo_loss(&policy, Some(&reference), &config)?
                .loss
                .sum_all()?)
        });
        let margin = beta * ((pi[0] / 0.3).ln() - (pi[1] / 0.7).ln());
        assert!((margin - (0.9f64 / 0.1).ln()).abs() < REACHED, "{margin}");
    }
}

#[test]
fn labels_without_noise_have_no_optimum() {
    let start = [0.5, 0.5];
    // α β² = 1 for both
    for (beta, alpha, steps) in [(0.5, 4.0, 2000), (0.1, 100.0, 2000)] {
        let config = config(beta);
        let loss = |l: &Tensor| {
            let policy = at(l, &[(0, 1)])?;
            let reference = at(&vector(&log(&start)), &[(0, 1)])?;
            Ok(dpo_loss(&policy, Some(&reference), &config)?
                .loss
                .sum_all()?)
        };
        let pi = descend(&log(&start), alpha, steps, loss);
        // the loss falls like 1 / (2 β² α N)
        let left = numbers(&loss(&vector(&log(&pi))).unwrap())[0];
        let rate = left * 2.0 * beta * beta * alpha * steps as f64;
        assert!((rate - 1.0).abs() < 0.01, "{rate}");
        // and the KL grows towards −log π_ref(best), whatever β
        let kl = pi[0] * (2.0 * pi[0]).ln() + pi[1] * (2.0 * pi[1]).ln();
        assert!((kl - 2f64.ln()).abs() < 0.01, "{beta}: {kl}");
    }
}

#[test]
fn length_means_in_place_of_sums_tilt_the_optimum_by_length() {
    let lengths = [1.0, 2.0, 3.0, 4.0];
    let pairs = ordered_pairs(4);
    let means = |l: &Tensor| -> Result<Tensor> { Ok((l / vector(&lengths))?) };
    let reference = log(&REFERENCE);
    let pi = descend(&reference, 20.0, 3000, |l| {
        let policy = at(&means(l)?, &pairs)?;
        let reference = at(&means(&vector(&reference))?, &pairs)?;
        let loss = dpo_loss(&policy, Some(&reference), &config(BETA))?.loss;
        let labels: Vec<f64> = pairs
            .iter()
            .map(|(i, j)| sigma(REWARDS[*i] - REWARDS[*j]) / 6.0)
            .collect();
        Ok((loss * vector(&labels))?.sum_all()?)
    });
    let want = [0.0129287133, 0.0171115680, 0.0001356436, 0.9698240751];
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
}

#[test]
fn each_connected_set_of_answers_keeps_the_sum_of_its_logits() {
    // {0, 1} and {2, 3}: within a set as in π*, and between the sets as the start has it
    let pairs = [(0, 1), (1, 0), (2, 3), (3, 2)];
    let pi = descend(&log(&REFERENCE), 20.0, 200, |l| {
        population(l, &pairs, &uniform(&pairs), &config(BETA))
    });
    let tilt = |i: usize, mean: f64| REFERENCE[i] * ((REWARDS[i] - mean) / BETA).exp();
    let want = normalized(&[tilt(0, 0.5), tilt(1, 0.5), tilt(2, 1.25), tilt(3, 1.25)]);
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
    let known = [0.1011052738, 0.5603044051, 0.0306617242, 0.3079285969];
    assert!(distance(&pi, &known) < REACHED, "{pi:?}");
}

/// h = β · log π/π_ref, less its mean.
fn implied(pi: &[f64], reference: &[f64], beta: f64) -> Vec<f64> {
    let h: Vec<f64> = pi
        .iter()
        .zip(reference)
        .map(|(p, q)| beta * (p / q).ln())
        .collect();
    let mean = h.iter().sum::<f64>() / h.len() as f64;
    h.iter().map(|h| h - mean).collect()
}

#[test]
fn smoothing_a_total_order_of_three_stops_each_gap_elsewhere() {
    let reference = [0.5, 0.3, 0.2];
    let pairs = [(0, 1), (0, 2), (1, 2)];
    for beta in [0.1, 0.5] {
        let config = DpoConfig {
            beta,
            label_smoothing: 0.1,
        };
        let pi = descend(&log(&reference), 4.0 / (beta * beta), 400, |l| {
            let policy = at(l, &pairs)?;
            let reference = at(&vector(&log(&reference)), &pairs)?;
            Ok(dpo_loss(&policy, Some(&reference), &config)?.loss.mean(0)?)
        });
        let h = implied(&pi, &reference, beta);
        let (first, second) = (h[0] - h[1], h[1] - h[2]);
        // σ(a) + σ(2a) = 2 (1 − ε): not log((1 − ε)/ε) for any pair
        assert!((sigma(first) + sigma(2.0 * first) - 1.8).abs() < REACHED);
        assert!((first - 1.6338484451).abs() < 1e-9, "{first}");
        assert!((second - first).abs() < REACHED, "{second}");
    }
}

#[test]
fn smoothing_shrinks_the_rewards_of_noisy_labels_and_the_pairs_matter() {
    let pairs = ordered_pairs(4);
    let sampled = normalized(
        &pairs
            .iter()
            .map(|(i, j)| REFERENCE[*i] * REFERENCE[*j])
            .collect::<Vec<_>>(),
    );
    let sampled: Vec<f64> = sampled.iter().map(|w| 2.0 * w).collect();
    let config = DpoConfig {
        beta: BETA,
        label_smoothing: 0.1,
    };
    // found by another solver
    for (weights, alpha, steps, want) in [
        (
            uniform(&pairs),
            30.0,
            300,
            [-0.652930, 0.099703, -0.279643, 0.832870],
        ),
        (
            sampled,
            20.0,
            500,
            [-0.660020, 0.108611, -0.275810, 0.827219],
        ),
    ] {
        let pi = descend(&log(&REFERENCE), alpha, steps, |l| {
            population(l, &pairs, &weights, &config)
        });
        let h = implied(&pi, &REFERENCE, BETA);
        assert!(distance(&h, &want) < 1e-6, "{h:?}");
    }
}

#[test]
fn the_two_orders_of_a_pair_take_flipped_labels_back() {
    // a share ε of the labels is flipped: ((1 − ε) φ(z) − ε φ(−z)) / (1 − 2ε) is right on average
    let epsilon = 0.1;
    let pairs = ordered_pairs(4);
    let turned: Vec<(usize, usize)> = pairs.iter().map(|&(i, j)| (j, i)).collect();
    let labels: Vec<f64> = pairs
        .iter()
        .map(|&(i, j)| {
            let p = sigma(REWARDS[i] - REWARDS[j]);
            ((1.0 - epsilon) * p + epsilon * (1.0 - p)) / 6.0
        })
        .collect();
    let of = |l: &Tensor, pairs: &[(usize, usize)]| -> Result<Tensor> {
        let reference = at(&vector(&log(&REFERENCE)), pairs)?;
        Ok(dpo_loss(&at(l, pairs)?, Some(&reference), &config(BETA))?.loss)
    };
    let learned = |back: f64| {
        descend(&log(&REFERENCE), 20.0, 60, |l| {
            let right = (of(l, &pairs)? * ((1.0 - back) / (1.0 - 2.0 * back)))?;
            let wrong = (of(l, &turned)? * (back / (1.0 - 2.0 * back)))?;
            Ok(((right - wrong)? * vector(&labels))?.sum_all()?)
        })
    };
    let star = tilted(&REFERENCE, &REWARDS, BETA);
    let pi = learned(epsilon);
    assert!(distance(&pi, &star) < REACHED, "{pi:?}");
    assert!(distance(&learned(0.0), &star) > 0.05);
}

#[test]
fn rankings_lead_to_the_tilted_reference() {
    // the Plackett–Luce loss on h = β · log π/π_ref
    let (labels, probabilities) = rankings::population(&REWARDS);
    let loss = |l: &Tensor| -> Result<Tensor> {
        let h = ((l - vector(&log(&REFERENCE)))? * BETA)?;
        let lists = h.unsqueeze(0)?.broadcast_as(labels.shape())?;
        let losses = plackett_luce_reward_loss(&lists, &labels, None)?;
        Ok((losses * vector(&probabilities))?.sum_all()?)
    };
    let start = numbers(&loss(&vector(&log(&REFERENCE))).unwrap());
    assert!((start[0] - 24f64.ln()).abs() < REACHED, "{start:?}");
    let pi = descend(&log(&REFERENCE), 4.0, 100, loss);
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
}

/// All answers of at most three symbols `a` and `b`, by the choices that make each: the node of the
/// tree, and what is chosen there; 2 is the end, which the longest answers lack.
fn answers() -> Vec<Vec<(usize, usize)>> {
    // nodes in the order of breadth: the children of node n are 2n + 1 and 2n + 2
    fn below(node: usize, path: &[(usize, usize)], all: &mut Vec<Vec<(usize, usize)>>) {
        if path.len() == 3 {
            return all.push(path.to_vec());
        }
        all.push([path, &[(node, 2)]].concat());
        for symbol in 0..2 {
            let path = [path, &[(node, symbol)]].concat();
            below(2 * node + 1 + symbol, &path, all);
        }
    }
    let mut all = Vec::new();
    below(0, &[], &mut all);
    all
}

#[test]
fn answers_of_several_tokens_reach_the_tilted_reference_too() {
    let answers = answers();
    assert_eq!(answers.len(), 15);
    // which of the 7 · 3 choices are in each answer
    let mut choices = vec![0.0; 15 * 21];
    for (row, answer) in answers.iter().enumerate() {
        answer
            .iter()
            .for_each(|(node, symbol)| choices[row * 21 + node * 3 + symbol] = 1.0);
    }
    let choices = Tensor::from_vec(choices, (15, 21), &Device::Cpu).unwrap();
    let log_policy = |theta: &Tensor| -> Result<Tensor> {
        let next = log_softmax(&theta.reshape((7, 3))?, D::Minus1)?;
        Ok(choices.matmul(&next.reshape((21, 1))?)?.squeeze(1)?)
    };
    let start: Vec<f64> = (0..21)
        .map(|i| 0.9 * (1.0 + 3.0 * (i / 3) as f64 + 1.7 * (i % 3) as f64).sin())
        .collect();
    let rewards: Vec<f64> = (0..15)
        .map(|y| 1.2 * (2.0 * y as f64 + 0.5).cos())
        .collect();
    let reference = numbers(&log_policy(&vector(&start)).unwrap());
    let probabilities: Vec<f64> = reference.iter().map(|l| l.exp()).collect();
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);

    let pairs = ordered_pairs(15);
    let labels: Vec<f64> = pairs
        .iter()
        .map(|&(i, j)| 2.0 / 210.0 * sigma(rewards[i] - rewards[j]))
        .collect();
    let (labels, compared) = (vector(&labels), at(&vector(&reference), &pairs).unwrap());
    let theta = descend_free(&start, 16.0, 450, |theta| {
        let policy = at(&log_policy(theta)?, &pairs)?;
        let losses = dpo_loss(&policy, Some(&compared), &config(BETA))?.loss;
        Ok((losses * &labels)?.sum_all()?)
    });
    let pi = numbers(&log_policy(&vector(&theta)).unwrap().exp().unwrap());
    let want = tilted(&probabilities, &rewards, BETA);
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
    assert!(distance(&want, &probabilities) > 0.2);
}
