use crate::common::draws::expectation;
use crate::common::policy::{
    BETA, REFERENCE, REWARDS, answers, descend, descend_free, distance, log, normalized, reference,
    tilted,
};
use crate::common::{bits, numbers, vector};
use candle_align::math::{Whiten, whiten};
use candle_align::{
    EntropyConfig, GaeConfig, KlEstimator, PpoConfig, PpoValueConfig, PtxConfig, Result,
    ShapedRewardsConfig, Statistics, TokenLogProbs, entropy_loss, gae, kl_loss, ppo_policy_loss,
    ppo_value_loss, ptx_loss, shaped_rewards,
};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::log_softmax;

/// What gradient descent reaches where the objective is smooth at its optimum.
const REACHED: f64 = 1e-9;

/// Σᵢ stop[πᵢ] · lossᵢ: exact on-policy expectation.
fn expected(log_policy: &Tensor, loss: &Tensor) -> Result<Tensor> {
    Ok((loss.squeeze(1)? * log_policy.exp()?.detach())?.sum_all()?)
}

/// E of the policy loss on fresh draws with these advantages `[4, 1]`.
fn on_policy(log_policy: &Tensor, advantages: &Tensor) -> Result<Tensor> {
    let policy = answers(log_policy)?;
    let config = PpoConfig::default();
    let out = ppo_policy_loss(&policy, policy.values(), advantages, &config)?;
    expected(log_policy, &out.loss.loss)
}

/// E of the policy loss with rewards r, plus β · E of an estimator as a loss.
fn penalized(log_policy: &Tensor, beta: f64, estimator: KlEstimator) -> Result<Tensor> {
    let rewards = vector(&REWARDS).unsqueeze(1)?;
    let k = kl_loss(&answers(log_policy)?, &reference(), estimator)?;
    let penalty = (expected(log_policy, &k.loss)? * beta)?;
    Ok((on_policy(log_policy, &rewards)? + penalty)?)
}

#[test]
fn k1_in_the_reward_arrives_at_the_optimum_of_the_penalized_objective() {
    let got = descend(&log(&REFERENCE), 4.0, 300, |log_policy| {
        let policy = answers(log_policy)?;
        let config = ShapedRewardsConfig {
            beta: BETA,
            estimator: KlEstimator::K1,
        };
        let rewards = shaped_rewards(&policy, &reference(), &vector(&REWARDS), &config)?;
        // a value that is wrong by a constant is a baseline
        let values = rewards.zeros_like()?.affine(1.0, 0.7)?;
        let out = gae(&rewards, &values, policy.mask(), &GaeConfig::default())?;
        on_policy(log_policy, &out.advantages)
    });
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    assert!(distance(&got, &want) < REACHED, "{got:?} against {want:?}");
}

#[test]
fn k2_in_the_loss_arrives_there_too() {
    let got = descend(&log(&REFERENCE), 4.0, 300, |log_policy| {
        penalized(log_policy, BETA, KlEstimator::K2)
    });
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    assert!(distance(&got, &want) < REACHED, "{got:?} against {want:?}");
}

/// π = weight / (λ − r), with λ > max r such that it sums to 1.
fn polynomial(weights: &[f64]) -> Vec<f64> {
    let at = |lambda: f64| -> Vec<f64> {
        weights
            .iter()
            .zip(REWARDS)
            .map(|(w, r)| w / (lambda - r))
            .collect()
    };
    let (mut low, mut high) = (2.0, 100.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if at(middle).iter().sum::<f64>() > 1.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    normalized(&at(high))
}

#[test]
fn k3_in_the_loss_arrives_at_a_polynomial_instead_of_a_tilt() {
    let got = descend(&log(&REFERENCE), 1.0, 1500, |log_policy| {
        penalized(log_policy, BETA, KlEstimator::K3)
    });
    let want = polynomial(&REFERENCE.map(|p| BETA * p));
    assert!(distance(&got, &want) < REACHED, "{got:?} against {want:?}");
    assert!(distance(&want, &tilted(&REFERENCE, &REWARDS, BETA)) > 0.1);
}

#[test]
fn k1_in_the_loss_is_no_penalty() {
    // as without any: max r − E r → (K − 1)/(KαN)
    let (alpha, steps) = (2.0, 4000);
    let got = descend(&log(&REFERENCE), alpha, steps, |log_policy| {
        penalized(log_policy, BETA, KlEstimator::K1)
    });
    let gap = 2.0 - expectation(&got, &REWARDS);
    let rate = 0.75 / (alpha * steps as f64);
    assert!((gap / rate - 1.0).abs() < 0.05, "{gap} against {rate}");
}

#[test]
fn inner_steps_stop_at_the_least_loss_of_the_clipped_surrogate() {
    let advantages: Vec<f64> = REWARDS.iter().map(|r| r - 0.6).collect();
    assert!(expectation(&REFERENCE, &advantages).abs() < REACHED);
    let loss = |log_policy: &Tensor| -> Result<Tensor> {
        let advantages = vector(&advantages).unsqueeze(1)?;
        let config = PpoConfig::default();
        let out = ppo_policy_loss(&answers(log_policy)?, &reference(), &advantages, &config)?;
        Ok((out.loss.loss.squeeze(1)? * vector(&REFERENCE))?.sum_all()?)
    };
    let got = descend(&log(&REFERENCE), 0.5, 60, loss);
    let least = numbers(&loss(&vector(&log(&got))).unwrap())[0];
    let absolute: Vec<f64> = advantages.iter().map(|a| a.abs()).collect();
    assert!((least + 0.2 * expectation(&REFERENCE, &absolute)).abs() < REACHED);

    // every ratio at or beyond its bound, and some well beyond: a clip is not a bound
    let ratios: Vec<f64> = got.iter().zip(REFERENCE).map(|(p, q)| p / q).collect();
    for (ratio, advantage) in ratios.iter().zip(&advantages) {
        let stopped = if *advantage > 0.0 {
            *ratio >= 1.2
        } else {
            *ratio <= 0.8
        };
        assert!(stopped, "{ratios:?}");
    }
    assert!(ratios[1] > 1.3, "{ratios:?}");
}

/// Scores whitened over a batch that holds every answer as often as the policy draws it.
fn whitened_scores(log_policy: &Tensor, scale: f64) -> Result<Tensor> {
    let draws = 20_000.0;
    let (mut batch, mut first) = (Vec::new(), Vec::new());
    for (log_p, reward) in numbers(log_policy).iter().zip(REWARDS) {
        let count = (log_p.exp() * draws).round().max(1.0) as usize;
        first.push(batch.len() as u32);
        batch.extend(std::iter::repeat_n(reward * scale, count));
    }
    let batch = vector(&batch).unsqueeze(0)?;
    let mask = batch.ones_like()?.to_dtype(DType::U8)?;
    let whitened = whiten(&batch, &mask, Whiten::KeepMean)?.squeeze(0)?;
    let first = Tensor::new(first.as_slice(), &Device::Cpu)?;
    Ok(whitened.index_select(&first, 0)?.unsqueeze(1)?)
}

fn with_whitened_scores(beta: f64, scale: f64, steps: usize) -> Vec<f64> {
    with_whitened_scores_from(&REFERENCE, beta, scale, steps)
}

fn with_whitened_scores_from(start: &[f64], beta: f64, scale: f64, steps: usize) -> Vec<f64> {
    descend(&log(start), 1.0, steps, |log_policy| {
        let k = kl_loss(&answers(log_policy)?, &reference(), KlEstimator::K2)?;
        let penalty = (expected(log_policy, &k.loss)? * beta)?;
        let scores = whitened_scores(log_policy, scale)?;
        Ok((on_policy(log_policy, &scores)? + penalty)?)
    })
}

#[test]
fn whitened_scores_multiply_beta_by_their_deviation() {
    // s = std of r under π ∝ ρ e^{r/(βs)}, β = 1
    let mut deviation = 1.0;
    for _ in 0..500 {
        let policy = tilted(&REFERENCE, &REWARDS, deviation);
        let mean = expectation(&policy, &REWARDS);
        let variance = expectation(&policy, &REWARDS.map(|r| (r - mean).powi(2)));
        deviation = variance.sqrt();
    }
    assert!((deviation - 0.7093572946).abs() < 1e-9, "{deviation}");
    let want = tilted(&REFERENCE, &REWARDS, deviation);
    // as fine as a batch of 20 000 draws can show the policy
    let rounding = 1e-3;
    for scale in [1.0, 10.0] {
        let got = with_whitened_scores(1.0, scale, 100);
        assert!(distance(&got, &want) < rounding, "{got:?} against {want:?}");
    }
    assert!(distance(&want, &tilted(&REFERENCE, &REWARDS, 1.0)) > 0.1);

    // a smaller β does not hold: the best answer alone, where π* would give it 0.63
    let got = with_whitened_scores(0.5, 1.0, 200);
    assert!(got[3] > 0.99, "{got:?}");
}

#[test]
fn whitened_scores_hold_a_policy_down_to_a_beta_of_three_quarters() {
    // a fixed point needs s = std of r under ρ e^{r/u}, u = βs: β = u / s has a least value
    let deviation = |u: f64| {
        let policy = tilted(&REFERENCE, &REWARDS, u);
        let mean = expectation(&policy, &REWARDS);
        expectation(&policy, &REWARDS.map(|r| (r - mean).powi(2))).sqrt()
    };
    let least = (1..3000)
        .map(|i| f64::from(i) * 1e-3)
        .filter(|u| *u > 0.05)
        .map(|u| u / deviation(u))
        .fold(f64::MAX, f64::min);
    assert!((least - 0.7704).abs() < 1e-4, "{least}");

    // a little above it stays, a little below it falls
    let got = with_whitened_scores(0.82, 1.0, 200);
    assert!((0.55..0.65).contains(&got[3]), "{got:?}");
    let got = with_whitened_scores(0.72, 1.0, 400);
    assert!(got[3] > 0.99, "{got:?}");
}

#[test]
fn whitened_scores_have_a_second_point_that_turns_a_policy_away() {
    // s = std of r under ρ e^{r/u}, and what is left of it at β = 1: fixed points are its zeros
    let deviation = |u: f64| {
        let policy = tilted(&REFERENCE, &REWARDS, u);
        let mean = expectation(&policy, &REWARDS);
        expectation(&policy, &REWARDS.map(|r| (r - mean).powi(2))).sqrt()
    };
    let gap = |s: f64| deviation(s) - s;
    let zero = |mut low: f64, mut high: f64| {
        assert!(gap(low) * gap(high) < 0.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            match gap(low) * gap(middle) < 0.0 {
                true => high = middle,
                false => low = middle,
            }
        }
        low
    };
    let signs: Vec<bool> = (30..300)
        .map(|i| gap(f64::from(i) * 1e-2 / 3.0) > 0.0)
        .collect();
    assert_eq!(signs.windows(2).filter(|w| w[0] != w[1]).count(), 2);
    let (away, to) = (zero(0.1, 0.4), zero(0.4, 0.9));
    assert!((away - 0.248).abs() < 5e-5, "{away}");
    assert!((to - 0.7094).abs() < 5e-5, "{to}");
    let policy = tilted(&REFERENCE, &REWARDS, away);
    assert!((policy[3] - 0.944).abs() < 5e-4, "{policy:?}");

    // the two meet where u / s(u) is least
    let least = (400..420)
        .map(|i| f64::from(i) * 1e-3)
        .map(|u| (u / deviation(u), deviation(u)));
    let (beta, s) = least.fold((f64::MAX, 0.0), |a, b| if b.0 < a.0 { b } else { a });
    assert!(
        (beta - 0.7704).abs() < 5e-5 && (s - 0.526).abs() < 1e-3,
        "{beta} {s}"
    );

    // a policy a little sharper falls to the best answer alone, one a little flatter comes back
    let from = |s: f64| {
        let start = tilted(&REFERENCE, &REWARDS, s);
        with_whitened_scores_from(&start, 1.0, 1.0, 400)
    };
    let sharp = from(0.22);
    assert!(sharp[3] > 0.99, "{sharp:?}");
    let flat = from(0.28);
    assert!(
        distance(&flat, &tilted(&REFERENCE, &REWARDS, to)) < 1e-2,
        "{flat:?}"
    );
}

/// What pretraining text says, for PPO-ptx.
const TEXT: [f64; 4] = [0.1, 0.2, 0.6, 0.1];

fn with_pretraining(beta: f64, gamma: f64, alpha: f64, steps: usize) -> Vec<f64> {
    descend(&log(&REFERENCE), alpha, steps, |log_policy| {
        let policy = answers(log_policy)?;
        let config = ShapedRewardsConfig {
            beta,
            ..Default::default()
        };
        let rewards = shaped_rewards(&policy, &reference(), &vector(&REWARDS), &config)?;
        let text = ptx_loss(&policy, &PtxConfig { gamma })?;
        let text = (text.loss.squeeze(1)? * vector(&TEXT))?.sum_all()?;
        Ok((on_policy(log_policy, &rewards)? + text)?)
    })
}

#[test]
fn the_pretraining_term_pulls_towards_the_text() {
    let gamma = 0.3;
    let got = with_pretraining(BETA, gamma, 1.0, 600);
    let price: Vec<f64> = (0..4)
        .map(|i| REWARDS[i] - BETA * (got[i] / REFERENCE[i]).ln() + gamma * TEXT[i] / got[i])
        .collect();
    for p in &price {
        assert!((p - price[0]).abs() < REACHED, "{price:?}");
    }

    // without the KL: γ d / (λ − r)
    let got = with_pretraining(0.0, gamma, 1.0, 1500);
    let want = polynomial(&TEXT.map(|d| gamma * d));
    assert!(distance(&got, &want) < REACHED, "{got:?} against {want:?}");
}

#[test]
fn an_entropy_bonus_is_a_tie_to_the_uniform_distribution() {
    let coefficient = 0.5;
    let theta = descend_free(&log(&REFERENCE), 4.0, 1000, |theta| {
        let log_policy = log_softmax(theta, D::Minus1)?;
        let statistics = Statistics {
            entropy: true,
            ..Default::default()
        };
        let target = Tensor::new(&[[0u32]], &Device::Cpu)?;
        let logits = theta.reshape((1, 1, 4))?;
        let log_probs = TokenLogProbs::aligned(&logits, &target, &bits(&[&[1]]), statistics)?;
        let bonus = entropy_loss(&log_probs, &EntropyConfig { coefficient })?;
        let rewards = vector(&REWARDS).unsqueeze(1)?;
        Ok((on_policy(&log_policy, &rewards)? + bonus.loss.sum_all()?)?)
    });
    let weights: Vec<f64> = theta.iter().map(|t| t.exp()).collect();
    let want = tilted(&[0.25; 4], &REWARDS, coefficient);
    assert!(distance(&normalized(&weights), &want) < REACHED);
}

#[test]
fn a_value_arrives_at_the_mean_return_also_by_clipped_steps() {
    // three answers share one value; the old value follows after every 4 steps
    let returns = vector(&[1.0, 4.0, 2.5]).unsqueeze(0).unwrap();
    let mask = bits(&[&[1, 1, 1]]);
    for config in [PpoValueConfig::default(), PpoValueConfig { clip: None }] {
        let mut value = vec![-3.0];
        for _ in 0..40 {
            let old = vector(&[value[0]; 3]).unsqueeze(0).unwrap();
            value = descend_free(&value, 0.2, 4, |value| {
                let values = value.unsqueeze(0)?.broadcast_as((1, 3))?;
                let loss = ppo_value_loss(&values, &old, &returns, &mask, &config)?;
                Ok(loss.loss.sum_all()?)
            });
        }
        assert!((value[0] - 2.5).abs() < REACHED, "{value:?} {config:?}");
    }
}
