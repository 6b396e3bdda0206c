use crate::common::policy::{BETA, REFERENCE, REWARDS, log, tilted};
use crate::common::{EXACT, assert_close, bits, numbers, vector};
use candle_align::math::{Whiten, whiten};
use candle_align::training::GradAccumulator;
use candle_align::{
    EntropyConfig, Experience, ExperienceConfig, GaeConfig, PpoConfig, Reduction, Result,
    RlhfConfig, Rollout, ShapedRewardsConfig, Statistics, TokenLogProbs, ppo_value_loss, rlhf_loss,
};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;
use rand::{SeedableRng, rngs::StdRng};

/// Five answers of up to four tokens: padding on the right, on the left, in the middle, everywhere.
fn mask() -> Tensor {
    bits(&[
        &[1, 1, 1, 1],
        &[1, 1, 0, 0],
        &[0, 0, 0, 1],
        &[0, 0, 0, 0],
        &[1, 0, 1, 0],
    ])
}

/// An irregular `[5, 4]`.
fn irregular(seed: f64) -> Tensor {
    let data: Vec<f64> = (0..20).map(|i| (1.7 * i as f64 + seed).sin()).collect();
    Tensor::from_vec(data, (5, 4), &Device::Cpu).unwrap()
}

fn rollout() -> Rollout {
    Rollout {
        old: TokenLogProbs::new(&(irregular(0.3) - 1.5).unwrap(), &mask()).unwrap(),
        reference: (irregular(2.0) - 1.5).unwrap(),
        values: irregular(4.0),
        scores: vector(&[1.5, -0.7, 2.0, 9.0, 0.4]),
        ended: Some(Tensor::new(&[1u8, 0, 1, 1, 0], &Device::Cpu).unwrap()),
    }
}

/// Without whitening, every other setting off its default.
fn plain() -> ExperienceConfig {
    ExperienceConfig {
        missing_eos_penalty: 0.6,
        rewards: ShapedRewardsConfig {
            beta: 0.3,
            ..Default::default()
        },
        reward_whitening: None,
        advantages: GaeConfig {
            gamma: 0.9,
            lambda: 0.7,
        },
        advantage_whitening: None,
    }
}

fn whitened() -> ExperienceConfig {
    ExperienceConfig {
        reward_whitening: Some(Whiten::KeepMean),
        advantage_whitening: Some(Whiten::ZeroMean),
        ..plain()
    }
}

fn fields(e: &Experience) -> [&Tensor; 7] {
    [
        &e.mask,
        &e.old,
        &e.old_values,
        &e.kl,
        &e.rewards,
        &e.advantages,
        &e.returns,
    ]
}

#[track_caller]
fn same(got: &Experience, want: &Experience, what: &str) {
    for (got, want) in fields(got).iter().zip(fields(want)) {
        assert_eq!(got.dims(), want.dims(), "{what}");
        assert_close(&numbers(got), &numbers(want), EXACT, what);
    }
}

fn rows(rows: &[u32]) -> Tensor {
    Tensor::new(rows, &Device::Cpu).unwrap()
}

/// The rollout with every tensor changed alike.
fn changed(of: impl Fn(&Tensor) -> Tensor) -> Rollout {
    let r = rollout();
    Rollout {
        old: TokenLogProbs::new(&of(r.old.values()), &of(r.old.mask())).unwrap(),
        reference: of(&r.reference),
        values: of(&r.values),
        scores: of(&r.scores),
        ended: r.ended.map(|e| of(&e)),
    }
}

#[test]
fn answers_in_another_order_are_the_same_experience_in_that_order() {
    let order = rows(&[3, 0, 4, 2, 1]);
    let permuted = changed(|x| x.index_select(&order, 0).unwrap());
    for config in [plain(), whitened()] {
        let want = rollout().experience(&config).unwrap().rows(&order).unwrap();
        same(&permuted.experience(&config).unwrap(), &want, "order");
    }
}

#[test]
fn positions_that_do_not_count_change_no_experience_wherever_they_stand() {
    for at in 0..=4 {
        let longer = changed(|x| {
            if x.rank() == 1 {
                return x.clone();
            }
            let column = Tensor::full(f64::NAN, (5, 1), &Device::Cpu).unwrap();
            let column = match x.dtype() {
                DType::U8 => column.zeros_like().unwrap().to_dtype(DType::U8).unwrap(),
                _ => column,
            };
            let (left, right) = (x.narrow(1, 0, at), x.narrow(1, at, 4 - at));
            Tensor::cat(&[&left.unwrap(), &column, &right.unwrap()], 1).unwrap()
        });
        let kept: Vec<u32> = (0..4).map(|c| c + u32::from(at as u32 <= c)).collect();
        let kept = rows(&kept);
        for config in [plain(), whitened()] {
            let long = longer.experience(&config).unwrap();
            let short = rollout().experience(&config).unwrap();
            for (long, short) in fields(&long).iter().zip(fields(&short)) {
                let long = long.index_select(&kept, 1).unwrap();
                assert_close(&numbers(&long), &numbers(short), EXACT, "inserted");
            }
        }
    }
}

#[test]
fn without_whitening_an_answer_is_paid_by_itself() {
    let whole = rollout().experience(&plain()).unwrap();
    let mixed = rollout().experience(&whitened()).unwrap();
    for b in 0..5 {
        let alone = changed(|x| x.narrow(0, b, 1).unwrap());
        let want = whole.rows(&rows(&[b as u32])).unwrap();
        same(&alone.experience(&plain()).unwrap(), &want, "alone");
    }
    let alone = changed(|x| x.narrow(0, 0, 1).unwrap());
    let alone = numbers(&alone.experience(&whitened()).unwrap().advantages);
    assert!((alone[0] - numbers(&mixed.advantages)[0]).abs() > 0.01);
}

/// log π_old − log π_ref of the counted tokens.
fn log_ratios() -> Vec<Vec<f64>> {
    let r = rollout();
    let x = (r.old.values() - &r.reference).unwrap();
    let x = candle_align::math::masked(&x, &mask()).unwrap();
    x.to_vec2::<f64>().unwrap()
}

#[test]
fn returns_are_the_score_less_the_kl_from_the_token_on() {
    let config = ExperienceConfig {
        advantages: GaeConfig {
            gamma: 1.0,
            lambda: 1.0,
        },
        ..plain()
    };
    let got = rollout().experience(&config).unwrap().returns;
    let scores = [1.5, -0.7 - 0.6, 2.0, 9.0, 0.4 - 0.6];
    let mask = mask().to_vec2::<u8>().unwrap();
    for (b, got) in got.to_vec2::<f64>().unwrap().iter().enumerate() {
        for t in 0..4 {
            let kl: f64 = log_ratios()[b][t..].iter().sum();
            let want = f64::from(mask[b][t]) * (scores[b] - 0.3 * kl);
            assert!((got[t] - want).abs() < EXACT, "{b} {t}");
        }
    }
}

#[test]
fn whitened_rewards_keep_beta_against_the_score_and_price_length() {
    let rollout = Rollout {
        scores: (rollout().scores * 3.0).unwrap(),
        ..rollout()
    };
    let sum = |config: &ExperienceConfig| {
        let rewards = rollout.experience(config).unwrap().rewards;
        numbers(&rewards.sum(D::Minus1).unwrap())
    };
    let plain = plain();
    let paid = sum(&plain);
    let lengths = [4.0, 2.0, 1.0, 0.0, 2.0];
    // μ and s of the nine rewards
    let each: Vec<f64> = {
        let rewards = rollout.experience(&plain).unwrap().rewards;
        let (rewards, mask) = (numbers(&rewards), numbers(&mask()));
        (0..20)
            .filter(|&i| mask[i] > 0.0)
            .map(|i| rewards[i])
            .collect()
    };
    assert_eq!(each.len(), 9);
    let mu = each.iter().sum::<f64>() / 9.0;
    let s = (each.iter().map(|r| (r - mu).powi(2)).sum::<f64>() / 9.0 + 1e-8).sqrt();
    for (whitening, price) in [
        (Whiten::KeepMean, mu * (1.0 - 1.0 / s)),
        (Whiten::ZeroMean, -mu / s),
    ] {
        let config = ExperienceConfig {
            reward_whitening: Some(whitening),
            ..plain.clone()
        };
        let want: Vec<f64> = (0..5).map(|b| paid[b] / s + lengths[b] * price).collect();
        assert_close(&sum(&config), &want, EXACT, "price");
        assert!(price.abs() > 0.05, "a price that a test can see: {price}");
    }
}

#[test]
fn whitened_advantages_do_not_know_how_much_there_is_to_gain() {
    let config = ExperienceConfig {
        missing_eos_penalty: 0.0,
        advantage_whitening: Some(Whiten::ZeroMean),
        ..plain()
    };
    let mut tenfold = config.clone();
    tenfold.rewards.beta *= 10.0;
    let richer = Rollout {
        scores: (rollout().scores * 10.0).unwrap(),
        values: (rollout().values * 10.0).unwrap(),
        ..rollout()
    };
    let before = rollout().experience(&config).unwrap();
    let after = richer.experience(&tenfold).unwrap();
    // up to the 1e-8 under the root
    let (got, want) = (numbers(&after.advantages), numbers(&before.advantages));
    assert_close(&got, &want, 1e-7, "advantages");
    let returns = (before.returns * 10.0).unwrap();
    assert_close(
        &numbers(&after.returns),
        &numbers(&returns),
        EXACT,
        "returns",
    );
}

#[test]
fn an_experience_is_made_of_constants() {
    let var = |x: &Tensor| match x.dtype() {
        DType::U8 => x.clone(),
        _ => Var::from_tensor(x).unwrap().as_tensor().clone(),
    };
    let live = changed(var);
    for config in [plain(), whitened()] {
        let experience = live.experience(&config).unwrap();
        let first = experience.rows(&rows(&[0, 1])).unwrap();
        for x in fields(&experience).iter().chain(&fields(&first)) {
            assert!(!x.track_op(), "a history");
        }
    }
}

fn step_config() -> RlhfConfig {
    RlhfConfig {
        experience: whitened(),
        value_weight: 0.6,
        ..Default::default()
    }
}

/// New log-probabilities and values, some ratios beyond the clip.
fn moved() -> (Var, Var) {
    let new = (rollout().old.values() + (irregular(7.0) * 0.3).unwrap()).unwrap();
    let values = (rollout().values + (irregular(9.0) * 0.3).unwrap()).unwrap();
    (
        Var::from_tensor(&new).unwrap(),
        Var::from_tensor(&values).unwrap(),
    )
}

/// The gradients in new log-probabilities and values of one backward pass per minibatch, added up.
fn accumulated(minibatches: &[Tensor], reduction: Reduction) -> [Vec<f64>; 2] {
    let config = step_config();
    let experience = rollout().experience(&config.experience).unwrap();
    let (new, values) = moved();
    let vars = [("new", &new), ("values", &values)].map(|(n, v)| (n.to_string(), v.clone()));
    let mut sum = GradAccumulator::new();
    for rows in minibatches {
        let of = |x: &Tensor| x.index_select(rows, 0).unwrap();
        let log_probs = TokenLogProbs::new(&of(&new), &of(&mask())).unwrap();
        let minibatch = experience.rows(rows).unwrap();
        let out = rlhf_loss(&log_probs, &of(&values), &minibatch, &config).unwrap();
        let loss = out.loss.reduce(reduction).unwrap();
        sum.add(&vars, &loss.backward().unwrap()).unwrap();
    }
    let grads = sum.take();
    [new, values].map(|v| numbers(grads.get(&v).unwrap()))
}

#[test]
fn minibatches_divided_by_the_count_of_all_are_one_batch() {
    let experience = rollout().experience(&whitened()).unwrap();
    for reduction in [
        Reduction::TokenMean,
        Reduction::SequenceMean,
        Reduction::MeanOfSequenceMeans,
    ] {
        let whole = accumulated(&[rows(&[0, 1, 2, 3, 4])], reduction);
        assert!(whole[0].iter().any(|g| g.abs() > 0.01));
        let count = reduction.count(&experience.mask).unwrap();
        for size in [1, 2, 3, 5] {
            let mut rng = StdRng::seed_from_u64(size as u64);
            let minibatches = experience.minibatches(size, &mut rng).unwrap();
            let parts = accumulated(&minibatches, reduction.over(count));
            for (part, whole) in parts.iter().zip(&whole) {
                assert_close(part, whole, EXACT, "accumulated");
            }
        }
    }
}

#[test]
fn a_mean_per_minibatch_weighs_a_token_by_how_few_share_it() {
    let (crowded, lonely) = (rows(&[0, 1, 4]), rows(&[2, 3]));
    let whole = accumulated(&[rows(&[0, 1, 2, 3, 4])], Reduction::TokenMean);
    let parts = accumulated(&[crowded, lonely], Reduction::TokenMean);
    // nine tokens: eight in one minibatch, one in the other
    for i in 0..20 {
        let share = if (8..12).contains(&i) {
            9.0 / 1.0
        } else {
            9.0 / 8.0
        };
        assert!((parts[0][i] - share * whole[0][i]).abs() < EXACT);
    }
}

#[test]
fn the_first_step_is_the_policy_gradient() {
    let config = RlhfConfig {
        experience: plain(),
        ..Default::default()
    };
    let experience = rollout().experience(&config.experience).unwrap();
    let new = Var::from_tensor(rollout().old.values()).unwrap();
    let log_probs = TokenLogProbs::new(&new, &mask()).unwrap();
    let out = rlhf_loss(&log_probs, &rollout().values, &experience, &config).unwrap();
    let grads = out.loss.loss.sum_all().unwrap().backward().unwrap();
    let want = numbers(&experience.advantages.neg().unwrap());
    assert_eq!(numbers(grads.get(&new).unwrap()), want);
    assert_eq!(numbers(&out.policy.clipped), [0.0; 20]);
}

#[test]
fn policy_and_critic_do_not_mix() {
    let config = step_config();
    let experience = rollout().experience(&config.experience).unwrap();
    let (new, values) = moved();
    let gradients = |values: &Var| {
        let log_probs = TokenLogProbs::new(&new, &mask()).unwrap();
        let out = rlhf_loss(&log_probs, values, &experience, &config).unwrap();
        let grads = out.loss.loss.sum_all().unwrap().backward().unwrap();
        [&new, values].map(|v| numbers(grads.get(v).unwrap()))
    };
    let [policy, critic] = gradients(&values);
    let elsewhere = Var::from_tensor(&irregular(20.0)).unwrap();
    assert_eq!(gradients(&elsewhere)[0], policy);

    let alone = ppo_value_loss(
        &values,
        &experience.old_values,
        &experience.returns,
        &mask(),
        &config.value,
    );
    let grads = alone.unwrap().loss.sum_all().unwrap().backward().unwrap();
    let alone = (grads.get(&values).unwrap() * 0.6).unwrap();
    assert_close(&critic, &numbers(&alone), EXACT, "c_V");
}

#[test]
fn entropy_is_reported_without_a_bonus_and_a_bonus_of_nothing_changes_nothing() {
    let logits = Var::from_tensor(&irregular(1.0).reshape((5, 2, 2)).unwrap()).unwrap();
    let tokens = Tensor::zeros((5, 2), DType::U32, &Device::Cpu).unwrap();
    let mask = bits(&[&[1, 1], &[1, 0], &[0, 1], &[0, 0], &[1, 1]]);
    let statistics = Statistics {
        entropy: true,
        ..Default::default()
    };
    let new = TokenLogProbs::aligned(&logits, &tokens, &mask, statistics).unwrap();
    let x = irregular(3.0).narrow(1, 0, 2).unwrap();
    let rollout = Rollout {
        old: new.detach(),
        reference: x.clone(),
        values: x.clone(),
        scores: vector(&[1.0, 2.0, 3.0, 4.0, 5.0]),
        ended: None,
    };
    let free = RlhfConfig::default();
    let bonus = RlhfConfig {
        entropy: Some(EntropyConfig { coefficient: 0.0 }),
        ..Default::default()
    };
    let experience = rollout.experience(&free.experience).unwrap();
    let [free, bonus] = [free, bonus].map(|c| rlhf_loss(&new, &x, &experience, &c).unwrap());
    assert_eq!(numbers(&free.loss.loss), numbers(&bonus.loss.loss));
    for out in [free, bonus] {
        let entropy = out.entropy.unwrap();
        assert!(!entropy.track_op(), "a metric has a history");
        assert_eq!(numbers(&entropy), numbers(new.entropy().unwrap()));
    }
}

// Whitening, on four answers of one token.

/// The gradient of a scalar in `at`.
fn gradient(at: &[f64], loss: impl Fn(&Tensor) -> Result<Tensor>) -> Vec<f64> {
    let theta = Var::new(at, &Device::Cpu).unwrap();
    let grads = loss(&theta).unwrap().backward().unwrap();
    numbers(grads.get(&theta).expect("a gradient"))
}

/// The step's loss on a batch of answers of one token drawn by the policy, a mean over answers.
fn step_on(theta: &Tensor, answers: &[u32], config: &RlhfConfig) -> Result<Tensor> {
    let log_policy = log_softmax(theta, D::Minus1)?;
    let answers = Tensor::new(answers, &Device::Cpu)?;
    let pick = |x: &Tensor| x.index_select(&answers, 0);
    let mask = Tensor::ones((answers.elem_count(), 1), DType::U8, &Device::Cpu)?;
    let new = TokenLogProbs::new(&pick(&log_policy)?.unsqueeze(1)?, &mask)?;
    let nothing = new.values().zeros_like()?.detach();
    let rollout = Rollout {
        old: new.detach(),
        reference: pick(&vector(&log(&REFERENCE)))?.unsqueeze(1)?,
        values: nothing.clone(),
        scores: pick(&vector(&REWARDS))?,
        ended: None,
    };
    let experience = rollout.experience(&config.experience)?;
    let out = rlhf_loss(&new, &nothing, &experience, config)?;
    out.loss.reduce(Reduction::SequenceMean)
}

/// The KL in the reward, no values, no reward whitening.
fn bandit(beta: f64, advantage_whitening: Option<Whiten>) -> RlhfConfig {
    RlhfConfig {
        experience: ExperienceConfig {
            rewards: ShapedRewardsConfig {
                beta,
                ..Default::default()
            },
            reward_whitening: None,
            advantage_whitening,
            ..Default::default()
        },
        policy: PpoConfig::default(),
        ..Default::default()
    }
}

/// −∇[ E r − β KL ] in logits: −πᵢ (Rᵢ − E R), R = r − β log(π/ρ).
fn objective(theta: &[f64], beta: f64) -> Vec<f64> {
    let p = tilted(&[1.0; 4], theta, 1.0);
    let gain: Vec<f64> = (0..4)
        .map(|i| REWARDS[i] - beta * (p[i] / REFERENCE[i]).ln())
        .collect();
    let mean: f64 = (0..4).map(|i| p[i] * gain[i]).sum();
    (0..4).map(|i| -p[i] * (gain[i] - mean)).collect()
}

/// Ten draws that hold every answer as often as these probabilities say.
const TEN: [u32; 10] = [0, 0, 1, 1, 1, 1, 2, 3, 3, 3];
const TENTHS: [f64; 4] = [0.2, 0.4, 0.1, 0.3];

#[test]
fn a_batch_with_exact_frequencies_gives_the_exact_gradient_whitened_or_not() {
    let theta = log(&TENTHS);
    let want = objective(&theta, BETA);
    let plain = gradient(&theta, |theta| step_on(theta, &TEN, &bandit(BETA, None)));
    assert_close(&plain, &want, EXACT, "exact");

    // one number divides them all: the direction, and so β, stays
    let whitened = bandit(BETA, Some(Whiten::ZeroMean));
    let got = gradient(&theta, |theta| step_on(theta, &TEN, &whitened));
    let gain: Vec<f64> = (0..4)
        .map(|i| REWARDS[i] - BETA * (TENTHS[i] / REFERENCE[i]).ln())
        .collect();
    let mean: f64 = (0..4).map(|i| TENTHS[i] * gain[i]).sum();
    let variance: f64 = (0..4).map(|i| TENTHS[i] * (gain[i] - mean).powi(2)).sum();
    let scaled: Vec<f64> = want.iter().map(|g| g / (variance + 1e-8).sqrt()).collect();
    assert_close(&got, &scaled, EXACT, "direction");
}

#[test]
fn the_mean_of_n_answers_as_a_baseline_keeps_all_but_one_nth() {
    let theta = log(&TENTHS);
    let want = objective(&theta, BETA);
    for n in [2usize, 3] {
        // every batch of n draws, with its probability
        let batches: Vec<Vec<u32>> = (0..4usize.pow(n as u32))
            .map(|i| {
                (0..n as u32)
                    .map(|j| (i / 4usize.pow(j) % 4) as u32)
                    .collect()
            })
            .collect();
        let mut with = [0.0; 4];
        for batch in &batches {
            let chance: f64 = batch.iter().map(|&a| TENTHS[a as usize]).product();
            let got = gradient(&theta, |theta| {
                let log_policy = log_softmax(theta, D::Minus1)?;
                let answers = Tensor::new(batch.as_slice(), &Device::Cpu)?;
                let new = log_policy.index_select(&answers, 0)?.unsqueeze(1)?;
                let mask = Tensor::ones((n, 1), DType::U8, &Device::Cpu)?;
                let new = TokenLogProbs::new(&new, &mask)?;
                let config = bandit(BETA, None);
                let rollout = Rollout {
                    old: new.detach(),
                    reference: vector(&log(&REFERENCE))
                        .index_select(&answers, 0)?
                        .unsqueeze(1)?,
                    values: new.values().zeros_like()?.detach(),
                    scores: vector(&REWARDS).index_select(&answers, 0)?,
                    ended: None,
                };
                let mut experience = rollout.experience(&config.experience)?;
                // the mean alone, without the deviation
                let mean = experience.advantages.mean_all()?;
                experience.advantages = experience.advantages.broadcast_sub(&mean)?;
                let out = rlhf_loss(&new, &rollout.values, &experience, &config)?;
                out.loss.reduce(Reduction::SequenceMean)
            });
            for i in 0..4 {
                with[i] += chance * got[i];
            }
        }
        let share = 1.0 - 1.0 / n as f64;
        let want = want.clone().into_iter().map(|g| share * g);
        let want: Vec<f64> = want.collect();
        assert_close(&with, &want, EXACT, "1 − 1/n");
    }
}

#[test]
fn scores_of_zero_and_one_whitened_climb_the_arcsine_of_the_root() {
    // answers 0 and 2 succeed: p = 0.3
    let theta = log(&TENTHS);
    let got = gradient(&theta, |theta| {
        let log_policy = log_softmax(theta, D::Minus1)?;
        let answers = Tensor::new(&TEN, &Device::Cpu)?;
        let new = log_policy.index_select(&answers, 0)?.unsqueeze(1)?;
        let mask = Tensor::ones((10, 1), DType::U8, &Device::Cpu)?;
        let new = TokenLogProbs::new(&new, &mask)?;
        let rollout = Rollout {
            old: new.detach(),
            reference: new.values().detach(),
            values: new.values().zeros_like()?.detach(),
            scores: vector(&[1.0, 0.0, 1.0, 0.0]).index_select(&answers, 0)?,
            ended: None,
        };
        let config = bandit(0.0, Some(Whiten::ZeroMean));
        let experience = rollout.experience(&config.experience)?;
        let out = rlhf_loss(&new, &rollout.values, &experience, &config)?;
        out.policy.loss.reduce(Reduction::SequenceMean)
    });
    // −∇ 2 arcsin √p = −∇p / √(p(1 − p)), ∇p = π (1[success] − p)
    let p: f64 = 0.3;
    let slope = 1.0 / (p * (1.0 - p) + 1e-8).sqrt();
    let success = [1.0, 0.0, 1.0, 0.0];
    let want: Vec<f64> = (0..4)
        .map(|i| -slope * TENTHS[i] * (success[i] - p))
        .collect();
    assert_close(&got, &want, EXACT, "arcsine");
    let arcsine = |theta: &[f64]| {
        let q = tilted(&[1.0; 4], theta, 1.0);
        2.0 * (q[0] + q[2]).sqrt().asin()
    };
    let mut moved = theta.clone();
    moved[0] += 1e-5;
    let mut back = theta.clone();
    back[0] -= 1e-5;
    let difference = (arcsine(&moved) - arcsine(&back)) / 2e-5;
    assert!((got[0] + difference).abs() < 1e-7, "{difference}");
}

#[test]
fn whitening_a_minibatch_by_itself_is_not_whitening_the_batch() {
    let whole = rollout().experience(&whitened()).unwrap();
    let part = rows(&[0, 1]);
    let kept = whole.rows(&part).unwrap();
    let anew = whiten(&kept.advantages, &kept.mask, Whiten::ZeroMean).unwrap();
    let gap = (anew - kept.advantages).unwrap().abs().unwrap();
    assert!(numbers(&gap).iter().any(|g| *g > 0.01));
}
