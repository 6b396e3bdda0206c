//! Training with the step, and what the KL estimators and whitening make of its optimum.

use crate::common::policy::{
    BETA, REFERENCE, REWARDS, answers, descend, descend_free, distance, log, tilted,
};
use crate::common::{bits, numbers, vector};
use candle_align::math::Whiten;
use candle_align::{
    ExperienceConfig, GaeConfig, KlEstimator, Result, RlhfConfig, Rollout, ShapedRewardsConfig,
    TokenLogProbs, kl_loss, rlhf_loss,
};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;

/// What gradient descent reaches where the objective is smooth at its optimum.
const REACHED: f64 = 1e-9;

fn config(beta: f64, estimator: KlEstimator) -> RlhfConfig {
    RlhfConfig {
        experience: ExperienceConfig {
            rewards: ShapedRewardsConfig { beta, estimator },
            reward_whitening: None,
            advantages: GaeConfig {
                gamma: 1.0,
                lambda: 1.0,
            },
            advantage_whitening: None,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// The step's policy loss on every answer, once, with these scores, summed over its tokens and
/// weighed by how often the policy draws it: its exact expectation on fresh draws.
fn expected(
    policy: &TokenLogProbs,
    reference: &TokenLogProbs,
    scores: &Tensor,
    config: &RlhfConfig,
) -> Result<Tensor> {
    let rollout = Rollout {
        old: policy.clone(),
        reference: reference.values().clone(),
        // wrong by a constant: a baseline
        values: reference.values().zeros_like()?.affine(1.0, 0.7)?,
        scores: scores.clone(),
        ended: None,
    };
    let experience = rollout.experience(&config.experience)?;
    let out = rlhf_loss(policy, &rollout.values, &experience, config)?;
    weighed(policy, &out.policy.loss.loss)
}

/// Σ_y stop[π(y)] Σₜ lₜ.
fn weighed(policy: &TokenLogProbs, loss: &Tensor) -> Result<Tensor> {
    let chance = policy.sum()?.exp()?.detach();
    Ok((loss.sum(D::Minus1)? * chance)?.sum_all()?)
}

// Four answers of one token.

fn reference() -> TokenLogProbs {
    answers(&vector(&log(&REFERENCE))).unwrap()
}

fn trained(alpha: f64, steps: usize, config: &RlhfConfig) -> Vec<f64> {
    descend(&log(&REFERENCE), alpha, steps, |log_policy| {
        let policy = answers(log_policy)?;
        expected(&policy, &reference(), &vector(&REWARDS), config)
    })
}

#[test]
fn steps_on_fresh_draws_arrive_at_the_optimum() {
    let got = trained(4.0, 300, &config(BETA, KlEstimator::K1));
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    assert!(distance(&got, &want) < REACHED, "{got:?} against {want:?}");
}

#[test]
fn k2_and_k3_in_the_reward_drop_answers_even_at_a_large_beta() {
    let beta = 2.0;
    let optimum = tilted(&REFERENCE, &REWARDS, beta);
    assert!(optimum.iter().all(|p| *p > 0.15), "{optimum:?}");

    // two answers are left, at a share p where r − β log²(π/ρ)/2 is the same for both
    let paid = |i: usize, p: f64| REWARDS[i] - beta * (p / REFERENCE[i]).ln().powi(2) / 2.0;
    let (mut low, mut high) = (0.5, 0.8);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        match paid(1, middle) > paid(3, 1.0 - middle) {
            true => low = middle,
            false => high = middle,
        }
    }
    let want = [0.0, low, 0.0, 1.0 - low];
    assert!((low - 0.647).abs() < 1e-3, "{low}");
    let got = trained(0.4, 1000, &config(beta, KlEstimator::K2));
    assert!(distance(&got, &want) < 1e-3, "{got:?} against {want:?}");

    let got = trained(0.1, 500, &config(beta, KlEstimator::K3));
    let left = got.iter().filter(|p| **p > 1e-6).count();
    assert_eq!(left, 1, "{got:?}");
}

#[test]
fn k1_clamped_at_zero_fills_answers_up_to_a_level() {
    for (beta, within) in [(0.5, 2e-3), (2.0, 8e-3)] {
        let free = config(0.0, KlEstimator::K1);
        let got = descend(&log(&REFERENCE), 1.0, 2000, |log_policy| {
            let policy = answers(log_policy)?;
            let k1 = kl_loss(&policy.detach(), reference().values(), KlEstimator::K1)?;
            let clamped = (k1.loss.squeeze(1)?.maximum(0.0)? * -beta)?;
            let scores = (vector(&REWARDS) + clamped)?;
            expected(&policy, &reference(), &scores, &free)
        });
        let want = match beta {
            // the level is the reward of answer 1, which takes what the best one leaves
            0.5 => {
                let best = 0.1 * (1.0f64 / 0.5).exp();
                vec![0.0, 1.0 - best, 0.0, best]
            }
            // the level lies between the rewards of answer 0 and of the other three
            _ => tilted(&[0.0, 0.3, 0.2, 0.1], &REWARDS, beta),
        };
        assert!(distance(&got, &want) < within, "{got:?} against {want:?}");
        assert!(distance(&want, &tilted(&REFERENCE, &REWARDS, beta)) > 0.1);
    }
}

// A tree: up to two tokens over three symbols, the first of which ends the answer.

/// Logits of the reference: of the first token, of the second after symbol 1, and after symbol 2.
const TREE: [f64; 9] = [0.0, 0.5, -0.2, 0.3, 0.3, -0.8, 0.1, 1.2, -0.5];
/// The score of each of its seven answers.
const SCORES: [f64; 7] = [0.3, 1.0, -0.5, 1.5, 0.9, -0.4, 1.7];

/// Its seven answers; the one of one token is padded.
fn tree(logits: &Tensor) -> Result<TokenLogProbs> {
    let leaves = log_softmax(&logits.reshape((3, 3))?, D::Minus1)?.flatten_all()?;
    let index = [[0u32, 0], [1, 3], [1, 4], [1, 5], [2, 6], [2, 7], [2, 8]];
    let index = Tensor::new(&index, &Device::Cpu)?.flatten_all()?;
    let values = leaves.index_select(&index, 0)?.reshape((7, 2))?;
    let both: &[u8] = &[1, 1];
    TokenLogProbs::new(
        &values,
        &bits(&[&[1, 0], both, both, both, both, both, both]),
    )
}

/// The next-token distributions, node by node: π_ref e^{Q/β}, Q from the leaves up by `above`.
fn backward(beta: f64, above: impl Fn(&[f64], &[f64], &[f64]) -> f64) -> Vec<f64> {
    let reference: Vec<Vec<f64>> = TREE.chunks(3).map(|z| tilted(&[1.0; 3], z, 1.0)).collect();
    let leaves: [&[f64]; 2] = [&SCORES[1..4], &SCORES[4..7]];
    let mut nodes = Vec::new();
    let mut q = vec![SCORES[0]];
    for (rho, leaves) in reference[1..].iter().zip(leaves) {
        let policy = tilted(rho, leaves, beta);
        q.push(above(&policy, rho, leaves));
        nodes.extend(policy);
    }
    [tilted(&reference[0], &q, beta), nodes].concat()
}

fn descend_tree(loss: impl Fn(&TokenLogProbs, &TokenLogProbs) -> Result<Tensor>) -> Vec<f64> {
    let reference = tree(&vector(&TREE)).unwrap();
    let theta = descend_free(&TREE, 6.0, 1200, |theta| loss(&tree(theta)?, &reference));
    let nodes = theta.chunks(3).map(|z| tilted(&[1.0; 3], z, 1.0));
    nodes.collect::<Vec<_>>().concat()
}

#[test]
fn the_kl_of_later_tokens_counts_in_the_reward_and_not_in_a_loss_per_token() {
    let scores = vector(&SCORES);
    // the optimum: soft values, V = β log Σ ρ e^{Q/β}
    let optimum = backward(BETA, |_, rho, q| {
        let sum: f64 = rho.iter().zip(q).map(|(p, q)| p * (q / BETA).exp()).sum();
        BETA * sum.ln()
    });
    let in_reward = descend_tree(|policy, reference| {
        expected(policy, reference, &scores, &config(BETA, KlEstimator::K1))
    });
    assert!(
        distance(&in_reward, &optimum) < REACHED,
        "{in_reward:?} against {optimum:?}"
    );

    // plain values: the expected score, whatever KL it costs
    let plain = backward(BETA, |policy, _, q| {
        policy.iter().zip(q).map(|(p, q)| p * q).sum()
    });
    let in_loss = descend_tree(|policy, reference| {
        let reward = expected(policy, reference, &scores, &config(0.0, KlEstimator::K1))?;
        let k2 = kl_loss(policy, reference.values(), KlEstimator::K2)?;
        Ok((reward + (weighed(policy, &k2.loss)? * BETA)?)?)
    });
    assert!(
        distance(&in_loss, &plain) < REACHED,
        "{in_loss:?} against {plain:?}"
    );
    assert!(distance(&plain, &optimum) > 0.02);
}

// Whitened advantages.

/// The largest distance from π* in the last steps, with the learning rate of each step given.
fn walk(steps: usize, last: usize, rate: impl Fn(usize) -> f64) -> f64 {
    let draws = 200.0;
    let optimum = tilted(&REFERENCE, &REWARDS, BETA);
    let mut config = config(BETA, KlEstimator::K1);
    config.experience.advantage_whitening = Some(Whiten::ZeroMean);
    let theta = Var::new(log(&REFERENCE), &Device::Cpu).unwrap();
    let mut furthest: f64 = 0.0;
    for step in 0..steps {
        let log_policy = log_softmax(&theta, D::Minus1).unwrap();
        let p: Vec<f64> = numbers(&log_policy).iter().map(|l| l.exp()).collect();
        if step >= steps - last {
            furthest = furthest.max(distance(&p, &optimum));
        }
        // a batch that holds every answer about as often as the policy draws it
        let (mut batch, mut first) = (Vec::new(), Vec::new());
        for (answer, p) in p.iter().enumerate() {
            first.push(batch.len() as u32);
            let count = (p * draws).round().max(1.0) as usize;
            batch.extend(std::iter::repeat_n(answer as u32, count));
        }
        let batch = Tensor::new(batch.as_slice(), &Device::Cpu).unwrap();
        let pick = |x: &Tensor| x.index_select(&batch, 0).unwrap();
        let column = |x: &Tensor| pick(x).unsqueeze(1).unwrap();
        let mask = Tensor::ones((batch.elem_count(), 1), DType::U8, &Device::Cpu).unwrap();
        let old = TokenLogProbs::new(&column(&log_policy), &mask).unwrap();
        let rollout = Rollout {
            values: old.values().zeros_like().unwrap(),
            reference: column(&vector(&log(&REFERENCE))),
            scores: pick(&vector(&REWARDS)),
            old,
            ended: None,
        };
        let experience = rollout.experience(&config.experience).unwrap();
        // each answer once, weighed by its exact probability
        let first = Tensor::new(first.as_slice(), &Device::Cpu).unwrap();
        let experience = experience.rows(&first).unwrap();
        let policy = answers(&log_policy).unwrap();
        let out = rlhf_loss(&policy, &experience.old_values, &experience, &config).unwrap();
        let loss = weighed(&policy, &out.loss.loss).unwrap();
        let grads = loss.backward().unwrap();
        let step = (grads.get(&theta).unwrap() * rate(step)).unwrap();
        theta.set(&(theta.as_tensor() - step).unwrap()).unwrap();
    }
    furthest
}

#[test]
fn whitened_advantages_walk_around_the_optimum_as_far_as_the_rate_is_large() {
    let wide = walk(200, 60, |_| 1.0);
    assert!((0.05..0.4).contains(&wide), "{wide}");
    let narrow = walk(400, 60, |_| 0.1);
    assert!((0.005..0.04).contains(&narrow), "{narrow}");
    // a rate that falls arrives
    let falling = walk(1000, 60, |step| 1.0 / (step + 1) as f64);
    assert!(falling < 1e-3, "{falling}");
}
