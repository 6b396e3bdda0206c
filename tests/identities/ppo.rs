use crate::common::policy::{BETA, REFERENCE, answers, log, reference};
use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::math::{Whiten, whiten};
use candle_align::online::controller::KlController;
use candle_align::online::rewards::missing_eos_penalty;
use candle_align::{
    GaeConfig, KlEstimator, PpoConfig, PpoValueConfig, PtxConfig, Reduction, Result, SftConfig,
    ShapedRewardsConfig, TokenLogProbs, gae, kl_loss, ppo_policy_loss, ppo_value_loss, ptx_loss,
    sft_loss, shaped_rewards,
};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;

/// Logits of a policy away from the reference.
const LOGITS: [f64; 4] = [0.3, -0.8, 0.5, -0.1];

/// The gradient of a scalar in `at`.
fn gradient(at: &[f64], loss: impl Fn(&Tensor) -> Result<Tensor>) -> Vec<f64> {
    let theta = Var::new(at, &Device::Cpu).unwrap();
    let grads = loss(&theta).unwrap().backward().unwrap();
    numbers(grads.get(&theta).expect("a gradient"))
}

/// Σᵢ stop[πᵢ] · lossᵢ: the expectation over the policy's own draws, as a sampler would estimate it.
fn expected(log_policy: &Tensor, loss: &Tensor) -> Result<Tensor> {
    Ok((loss.sum(D::Minus1)? * log_policy.exp()?.detach())?.sum_all()?)
}

/// E ∇ of an estimator as a loss.
fn as_loss(at: &[f64], estimator: KlEstimator) -> Vec<f64> {
    gradient(at, |theta| {
        let log_policy = log_softmax(theta, D::Minus1)?;
        let k = kl_loss(&answers(&log_policy)?, &reference(), estimator)?;
        expected(&log_policy, &k.loss)
    })
}

/// E k ∇ log π of an estimator inside the reward: −1 times the score, of weight 1.
fn as_reward(at: &[f64], estimator: KlEstimator) -> Vec<f64> {
    gradient(at, |theta| {
        let log_policy = log_softmax(theta, D::Minus1)?;
        let policy = answers(&log_policy)?;
        let config = ShapedRewardsConfig {
            beta: 1.0,
            estimator,
        };
        let rewards = shaped_rewards(&policy, &reference(), &vector(&[0.0; 4]), &config)?;
        let out = ppo_policy_loss(&policy, policy.values(), &rewards, &PpoConfig::default())?;
        expected(&log_policy, &out.loss.loss)
    })
}

/// ∇KL(π‖ρ).
fn reverse(at: &[f64]) -> Vec<f64> {
    gradient(at, |theta| {
        let log_policy = log_softmax(theta, D::Minus1)?;
        let x = (&log_policy - vector(&log(&REFERENCE)))?;
        Ok((log_policy.exp()? * x)?.sum_all()?)
    })
}

/// ∇KL(ρ‖π).
fn forward(at: &[f64]) -> Vec<f64> {
    gradient(at, |theta| {
        let log_policy = log_softmax(theta, D::Minus1)?;
        Ok((log_policy.neg()? * vector(&REFERENCE))?.sum_all()?)
    })
}

#[test]
fn k1_and_k3_measure_the_kl_and_k2_does_not() {
    let log_policy = log_softmax(&vector(&LOGITS), D::Minus1).unwrap();
    let mean = |estimator| {
        let k = kl_loss(&answers(&log_policy).unwrap(), &reference(), estimator).unwrap();
        assert!(estimator == KlEstimator::K1 || numbers(&k.loss).iter().all(|k| *k >= 0.0));
        numbers(&expected(&log_policy, &k.loss).unwrap())[0]
    };
    let kl: f64 = numbers(&log_policy)
        .iter()
        .zip(REFERENCE)
        .map(|(l, p)| l.exp() * (l - p.ln()))
        .sum();
    assert!((mean(KlEstimator::K1) - kl).abs() < EXACT);
    assert!((mean(KlEstimator::K3) - kl).abs() < EXACT);
    assert!((mean(KlEstimator::K2) - kl).abs() > 1e-3);
}

#[test]
fn what_each_estimator_is_as_a_loss() {
    assert_close(
        &as_loss(&LOGITS, KlEstimator::K1),
        &[0.0; 4],
        EXACT,
        "k1: nothing",
    );
    assert_close(
        &as_loss(&LOGITS, KlEstimator::K2),
        &reverse(&LOGITS),
        EXACT,
        "k2",
    );
    assert_close(
        &as_loss(&LOGITS, KlEstimator::K3),
        &forward(&LOGITS),
        EXACT,
        "k3",
    );
}

#[test]
fn what_each_estimator_is_as_a_reward() {
    let (reverse, forward) = (reverse(&LOGITS), forward(&LOGITS));
    assert_close(&as_reward(&LOGITS, KlEstimator::K1), &reverse, EXACT, "k1");
    let difference: Vec<f64> = reverse.iter().zip(&forward).map(|(r, f)| r - f).collect();
    assert_close(
        &as_reward(&LOGITS, KlEstimator::K3),
        &difference,
        EXACT,
        "k3",
    );

    // k2's two parts together are the gradient of its mean
    let whole = gradient(&LOGITS, |theta| {
        let log_policy = log_softmax(theta, D::Minus1)?;
        let k2 = kl_loss(&answers(&log_policy)?, &reference(), KlEstimator::K2)?;
        Ok((k2.loss.squeeze(1)? * log_policy.exp()?)?.sum_all()?)
    });
    let parts: Vec<f64> = as_reward(&LOGITS, KlEstimator::K2)
        .iter()
        .zip(as_loss(&LOGITS, KlEstimator::K2))
        .map(|(a, b)| a + b)
        .collect();
    assert_close(&parts, &whole, EXACT, "k2");
}

#[test]
fn near_the_reference_k2_and_k3_as_rewards_do_not_hold_a_policy() {
    let at = |delta: f64| -> Vec<f64> {
        let moved = [delta, -delta, 0.5 * delta, 2.0 * delta];
        log(&REFERENCE)
            .iter()
            .zip(moved)
            .map(|(a, b)| a + b)
            .collect()
    };
    let size = |g: Vec<f64>| g.iter().map(|g| g.abs()).fold(0.0, f64::max);
    // how much smaller the gradient is at a tenth of the distance
    let order = |of: &dyn Fn(&[f64]) -> Vec<f64>| size(of(&at(1e-2))) / size(of(&at(1e-3)));
    for holds in [
        order(&|at| as_reward(at, KlEstimator::K1)),
        order(&|at| as_loss(at, KlEstimator::K2)),
        order(&|at| as_loss(at, KlEstimator::K3)),
    ] {
        assert!((holds / 10.0 - 1.0).abs() < 0.1, "{holds}");
    }
    for lets_go in [
        order(&|at| as_reward(at, KlEstimator::K2)),
        order(&|at| as_reward(at, KlEstimator::K3)),
    ] {
        assert!((lets_go / 100.0 - 1.0).abs() < 0.1, "{lets_go}");
    }
}

/// A policy of up to two tokens over three symbols, the first of which ends the answer: logits of
/// the first token, of the second after symbol 1, and after symbol 2.
const TREE: [f64; 9] = [0.2, -0.4, 0.7, 1.1, -0.3, 0.0, -0.9, 0.4, 0.6];
/// The same for the reference.
const TREE_REFERENCE: [f64; 9] = [0.0, 0.5, -0.2, 0.3, 0.3, -0.8, 0.1, 1.2, -0.5];
/// The score of each of its seven answers.
const TREE_SCORES: [f64; 7] = [0.3, 1.0, -0.5, 2.0, 0.0, -1.2, 0.8];

/// Its seven answers, with a position in the middle and one at the end that do not count.
fn tree(logits: &Tensor) -> Result<TokenLogProbs> {
    let leaves = log_softmax(&logits.reshape((3, 3))?, D::Minus1)?.flatten_all()?;
    let pick = |index: [u32; 7]| -> Result<Tensor> {
        Ok(leaves
            .index_select(&Tensor::new(&index, &Device::Cpu)?, 0)?
            .unsqueeze(1)?)
    };
    let first = pick([0, 1, 1, 1, 2, 2, 2])?;
    let second = pick([0, 3, 4, 5, 6, 7, 8])?;
    let nothing = Tensor::full(f64::NAN, (7, 1), &Device::Cpu)?;
    let mask: [&[u8]; 7] = [
        &[1, 0, 0, 0],
        &[1, 0, 1, 0],
        &[1, 0, 1, 0],
        &[1, 0, 1, 0],
        &[1, 0, 1, 0],
        &[1, 0, 1, 0],
        &[1, 0, 1, 0],
    ];
    let values = Tensor::cat(&[&first, &nothing, &second, &nothing], 1)?;
    TokenLogProbs::new(&values, &bits(&mask))
}

/// ∇[ −E r + β KL ], by enumeration.
fn tree_objective(weight: f64, beta: f64) -> Vec<f64> {
    gradient(&TREE, |theta| {
        let policy = tree(theta)?.sum()?;
        let x = (&policy - tree(&vector(&TREE_REFERENCE))?.sum()?)?;
        let cost = ((x * beta)? - (vector(&TREE_SCORES) * weight)?)?;
        Ok((policy.exp()? * cost)?.sum_all()?)
    })
}

#[test]
fn rewards_advantages_and_policy_loss_make_the_gradient_of_the_objective() {
    let nan = f64::NAN;
    // without values, and with some: a baseline of what came before changes nothing on average
    let (a, b, c) = (0.4, -0.7, 1.3);
    let baseline = matrix(&[
        &[a, nan, nan, nan],
        &[a, nan, b, nan],
        &[a, 9.0, b, nan],
        &[a, nan, b, 5.0],
        &[a, nan, c, nan],
        &[a, nan, c, nan],
        &[a, nan, c, nan],
    ]);
    for values in [baseline.zeros_like().unwrap(), baseline] {
        let got = gradient(&TREE, |theta| {
            let policy = tree(theta)?;
            let reference = tree(&vector(&TREE_REFERENCE))?;
            let config = ShapedRewardsConfig {
                beta: BETA,
                ..Default::default()
            };
            let scores = vector(&TREE_SCORES);
            let rewards = shaped_rewards(&policy, reference.values(), &scores, &config)?;
            let config = GaeConfig {
                gamma: 1.0,
                lambda: 1.0,
            };
            let out = gae(&rewards, &values, policy.mask(), &config)?;
            let config = PpoConfig::default();
            let loss = ppo_policy_loss(&policy, policy.values(), &out.advantages, &config)?;
            expected(&policy.sum()?, &loss.loss.loss)
        });
        assert_close(&got, &tree_objective(1.0, BETA), EXACT, "tree");
    }
}

#[test]
fn k2_as_a_loss_is_the_kl_of_answers_on_sums_and_not_per_token() {
    let kl = tree_objective(0.0, 1.0);
    let on_sums = gradient(&TREE, |theta| {
        let sum = tree(theta)?.sum()?;
        let one = Tensor::ones((7, 1), DType::U8, &Device::Cpu)?;
        let policy = TokenLogProbs::new(&sum.unsqueeze(1)?, &one)?;
        let reference = tree(&vector(&TREE_REFERENCE))?.sum()?.unsqueeze(1)?;
        let k = kl_loss(&policy, &reference, KlEstimator::K2)?;
        expected(&sum, &k.loss)
    });
    assert_close(&on_sums, &kl, EXACT, "sums");
    let per_token = gradient(&TREE, |theta| {
        let policy = tree(theta)?;
        let reference = tree(&vector(&TREE_REFERENCE))?;
        let k = kl_loss(&policy, reference.values(), KlEstimator::K2)?;
        expected(&policy.sum()?, &k.loss)
    });
    let gap = per_token.iter().zip(&kl).map(|(a, b)| (a - b).abs());
    assert!(gap.fold(0.0, f64::max) > 0.01, "{per_token:?} {kl:?}");
}

#[test]
fn shaped_rewards_add_up_to_the_penalized_score() {
    let policy = tree(&vector(&TREE)).unwrap();
    let reference = tree(&vector(&TREE_REFERENCE)).unwrap();
    let config = ShapedRewardsConfig {
        beta: 0.3,
        ..Default::default()
    };
    let scores = vector(&TREE_SCORES);
    let rewards = shaped_rewards(&policy, reference.values(), &scores, &config).unwrap();
    let log_ratio = (policy.sum().unwrap() - reference.sum().unwrap()).unwrap();
    let want = (scores - (log_ratio * 0.3).unwrap()).unwrap();
    let got = rewards.sum(D::Minus1).unwrap();
    assert_close(&numbers(&got), &numbers(&want), EXACT, "sums");
}

fn episode() -> (Tensor, Tensor, Tensor) {
    (
        matrix(&[&[0.3, -0.4, 1.0, 0.2], &[-1.0, 0.6, 0.1, 2.0]]),
        matrix(&[&[0.5, 0.1, -0.7, 0.4], &[1.2, -0.3, 0.8, 0.9]]),
        bits(&[&[1, 1, 1, 1], &[1, 1, 1, 0]]),
    )
}

#[test]
fn lambda_one_is_the_return_and_lambda_zero_the_temporal_difference() {
    let (rewards, values, mask) = episode();
    let (r, v) = (numbers(&rewards), numbers(&values));
    let lengths = [4, 3];
    for gamma in [1.0, 0.9] {
        let run = |lambda| gae(&rewards, &values, &mask, &GaeConfig { gamma, lambda }).unwrap();
        let (full, none) = (run(1.0), run(0.0));
        for (b, &length) in lengths.iter().enumerate() {
            for t in 0..length {
                let at = b * 4 + t;
                let to_come: f64 = (t..length)
                    .map(|i| gamma.powi((i - t) as i32) * r[b * 4 + i])
                    .sum();
                let next = if t + 1 < length { v[at + 1] } else { 0.0 };
                let advantage = numbers(&full.advantages)[at];
                assert!((advantage - (to_come - v[at])).abs() < EXACT);
                assert!((numbers(&full.returns)[at] - to_come).abs() < EXACT);
                let advantage = numbers(&none.advantages)[at];
                assert!((advantage - (r[at] + gamma * next - v[at])).abs() < EXACT);
            }
        }
    }
    // γ = 0: only the token's own reward, whatever λ
    let config = GaeConfig {
        gamma: 0.0,
        lambda: 0.7,
    };
    let out = gae(&rewards, &values, &mask, &config).unwrap();
    assert_close(&numbers(&out.returns)[..7], &r[..7], EXACT, "γ = 0");
}

#[test]
fn columns_that_do_not_count_change_no_advantage_wherever_they_stand() {
    let (rewards, values, mask) = episode();
    let config = GaeConfig {
        gamma: 0.9,
        lambda: 0.8,
    };
    let plain = gae(&rewards, &values, &mask, &config).unwrap();
    let fill = |x: f64| Tensor::full(x, (2, 1), &Device::Cpu).unwrap();
    let insert = |x: &Tensor, at: usize, column: &Tensor| {
        let (left, right) = (x.narrow(1, 0, at), x.narrow(1, at, x.dim(1).unwrap() - at));
        Tensor::cat(&[&left.unwrap(), column, &right.unwrap()], 1).unwrap()
    };
    let zeros = fill(0.0).to_dtype(DType::U8).unwrap();
    for first in 0..=4 {
        for second in 0..=5 {
            let twice =
                |x: &Tensor, column: &Tensor| insert(&insert(x, first, column), second, column);
            let out = gae(
                &twice(&rewards, &fill(7.0)),
                &twice(&values, &fill(f64::NAN)),
                &twice(&mask, &zeros),
                &config,
            )
            .unwrap();
            // where the four columns went
            let kept: Vec<u32> = (0..4u32)
                .map(|c| c + u32::from(first as u32 <= c))
                .map(|c| c + u32::from(second as u32 <= c))
                .collect();
            let kept = Tensor::new(kept.as_slice(), &Device::Cpu).unwrap();
            for (long, short) in [
                (&out.advantages, &plain.advantages),
                (&out.returns, &plain.returns),
            ] {
                let long = long.index_select(&kept, 1).unwrap();
                assert_close(&numbers(&long), &numbers(short), EXACT, "inserted");
            }
        }
    }
}

fn moved() -> (Tensor, Tensor, Tensor, Tensor) {
    (
        matrix(&[&[-0.4, -1.3, -2.0], &[-1.1, -0.2, -2.5]]),
        bits(&[&[1, 1, 1], &[1, 0, 1]]),
        matrix(&[&[-0.9, -1.3, -1.4], &[-2.1, 4.0, -2.8]]),
        matrix(&[&[1.5, -0.7, 0.8], &[-1.2, 2.0, -0.6]]),
    )
}

/// Loss and gradient in the new log-probabilities.
fn surrogate(old_is_new: bool, config: &PpoConfig) -> (Vec<f64>, Vec<f64>) {
    let (new, mask, old, advantages) = moved();
    let new = Var::from_tensor(&new).unwrap();
    let log_probs = TokenLogProbs::new(&new, &mask).unwrap();
    let old = if old_is_new { new.as_tensor() } else { &old };
    let out = ppo_policy_loss(&log_probs, old, &advantages, config).unwrap();
    for metric in [&out.ratio, &out.clipped, &out.kl_k1, &out.kl_k3] {
        assert!(!metric.track_op(), "a metric has a history");
    }
    let grads = out.loss.loss.sum_all().unwrap().backward().unwrap();
    let slopes = numbers(grads.get(&new).unwrap());
    (numbers(&out.loss.loss), slopes)
}

#[test]
fn at_its_own_policy_the_gradient_is_the_policy_gradient() {
    let (new, mask, _, advantages) = moved();
    let new = Var::from_tensor(&new).unwrap();
    let log_probs = TokenLogProbs::new(&new, &mask).unwrap();
    let policy_gradient = (log_probs.values() * advantages.neg().unwrap()).unwrap();
    let grads = policy_gradient.sum_all().unwrap().backward().unwrap();
    let want = numbers(grads.get(&new).unwrap());
    for dual_clip in [None, Some(3.0)] {
        let config = PpoConfig {
            dual_clip,
            ..Default::default()
        };
        assert_eq!(surrogate(true, &config).1, want);
    }
}

#[test]
fn limits_of_the_clips() {
    let plain = PpoConfig::default();
    let huge = PpoConfig {
        dual_clip: Some(1e6),
        ..plain.clone()
    };
    assert_eq!(surrogate(false, &huge), surrogate(false, &plain));
    let same = PpoConfig {
        clip_high: Some(plain.clip),
        ..plain.clone()
    };
    assert_eq!(surrogate(false, &same), surrogate(false, &plain));

    // with bounds that no ratio reaches, −Âρ
    let wide = PpoConfig {
        clip: 0.99,
        clip_high: Some(1e3),
        dual_clip: None,
    };
    let (new, mask, old, advantages) = moved();
    let ratio = (new - old).unwrap().exp().unwrap();
    let want = (ratio * advantages.neg().unwrap()).unwrap();
    let want = candle_align::math::masked(&want, &mask).unwrap();
    assert_close(
        &surrogate(false, &wide).0,
        &numbers(&want),
        EXACT,
        "no clip",
    );
}

#[test]
fn a_huge_value_clip_is_none() {
    let (values, mask, old, returns) = moved();
    let run = |clip| {
        let config = PpoValueConfig { clip };
        let loss = ppo_value_loss(&values, &old, &returns, &mask, &config).unwrap();
        numbers(&loss.loss)
    };
    assert_eq!(run(Some(1e6)), run(None));
    assert_ne!(run(Some(0.2)), run(None));
}

#[test]
fn k3_is_k1_and_the_ratio() {
    let (new, mask, old, advantages) = moved();
    let log_probs = TokenLogProbs::new(&new, &mask).unwrap();
    let config = PpoConfig::default();
    let metrics = ppo_policy_loss(&log_probs, &old, &advantages, &config)
        .unwrap()
        .metrics()
        .unwrap();
    let want = ((metrics.ratio - 1.0).unwrap() + metrics.kl_k1).unwrap();
    assert_close(&numbers(&metrics.kl_k3), &numbers(&want), EXACT, "k3");
}

#[test]
fn ptx_is_gamma_times_supervised_fine_tuning() {
    let (values, mask, _, _) = moved();
    let text = TokenLogProbs::new(&values, &mask).unwrap();
    let sft = sft_loss(&text, None, &SftConfig::default()).unwrap();
    for gamma in [0.0, 1.0, 27.8] {
        let loss = ptx_loss(&text, &PtxConfig { gamma }).unwrap();
        let want = (&sft.loss * gamma).unwrap();
        assert_close(&numbers(&loss.loss), &numbers(&want), EXACT, "ptx");
        let of = Reduction::SequenceMean;
        let (got, want) = (loss.reduce(of).unwrap(), sft.reduce(of).unwrap());
        let want = numbers(&want)[0] * gamma;
        assert_close(&numbers(&got), &[want], EXACT, "reduced");
    }
}

#[test]
fn at_its_target_an_adaptive_controller_is_a_fixed_one() {
    let adaptive = KlController::Adaptive {
        beta: 0.3,
        target: 4.0,
        horizon: 50.0,
    };
    let fixed = KlController::Fixed { beta: 0.3 };
    assert_eq!(
        adaptive.update(4.0, 20).unwrap().beta(),
        fixed.update(4.0, 20).unwrap().beta()
    );
}

#[test]
fn the_papers_gain_is_a_horizon_of_ten_batches() {
    let samples = 512;
    let controller = KlController::Adaptive {
        beta: 0.3,
        target: 4.0,
        horizon: 10.0 * samples as f64,
    };
    for kl in [1.0f64, 3.9, 4.4, 20.0] {
        let error = ((kl - 4.0) / 4.0).clamp(-0.2, 0.2);
        let got = controller.update(kl, samples).unwrap().beta();
        assert!((got - 0.3 * (1.0 + 0.1 * error)).abs() < EXACT);
    }
}

#[test]
fn whitening_forgets_scale_and_one_of_two_forgets_the_mean() {
    let (_, mask, _, x) = moved();
    let run = |x: &Tensor, mean| numbers(&whiten(x, &mask, mean).unwrap());
    let changed = x.affine(10.0, 3.0).unwrap();
    let (before, after) = (run(&x, Whiten::ZeroMean), run(&changed, Whiten::ZeroMean));
    // up to the 1e-8 under the root
    assert_close(&after, &before, 1e-7, "scale and shift");
    let mean = (1.5 - 0.7 + 0.8 - 1.2 - 0.6) / 5.0;
    let kept = run(&x, Whiten::KeepMean);
    for (i, counts) in numbers(&mask).iter().enumerate() {
        assert!((kept[i] - before[i] - mean * counts).abs() < EXACT);
    }
}

#[test]
fn rewards_and_advantages_are_constants() {
    let var = |x: &Tensor| Var::from_tensor(x).unwrap();
    let (new, mask, old, _) = moved();
    let (new, old, scores) = (var(&new), var(&old), var(&vector(&[1.0, 2.0])));
    let policy = TokenLogProbs::new(&new, &mask).unwrap();
    let config = ShapedRewardsConfig::default();
    let rewards = shaped_rewards(&policy, &old, &scores, &config).unwrap();
    assert!(!rewards.track_op());
    let ended = Tensor::new(&[1u8, 0], &Device::Cpu).unwrap();
    assert!(
        !missing_eos_penalty(&scores, &ended, 1.0)
            .unwrap()
            .track_op()
    );
    let out = gae(&new, &old, &mask, &GaeConfig::default()).unwrap();
    assert!(!out.advantages.track_op() && !out.returns.track_op());
}

#[test]
fn only_k1_of_the_tokens_adds_up_to_that_of_the_answer() {
    // the answers b, ab and aa: after nothing stands a or b, after a too
    let tree = |a: f64, aa: f64| {
        let first = a.ln();
        [
            [(1.0 - a).ln(), 0.0],
            [first, (1.0 - aa).ln()],
            [first, aa.ln()],
        ]
    };
    let (policy, reference) = (tree(0.6, 0.3), tree(0.4, 0.7));
    let whole = |of: &[[f64; 2]; 3]| of.map(|[x, y]| x + y);
    let rows = |of: &[[f64; 2]; 3]| matrix(&of.each_ref().map(|row| &row[..]));
    let column = |of: &[[f64; 2]; 3]| vector(&whole(of)).unsqueeze(1).unwrap();

    // each answer's k: the sum over its tokens, and that of the answer as one
    let both = |estimator| {
        let mask = bits(&[&[1, 0], &[1, 1], &[1, 1]]);
        let tokens = TokenLogProbs::new(&rows(&policy), &mask).unwrap();
        let tokens = kl_loss(&tokens, &rows(&reference), estimator).unwrap();
        let mask = bits(&[&[1], &[1], &[1]]);
        let answer = TokenLogProbs::new(&column(&policy), &mask).unwrap();
        let answer = kl_loss(&answer, &column(&reference), estimator).unwrap();
        [tokens, answer].map(|k| numbers(&k.loss.sum(D::Minus1).unwrap()))
    };
    let mean = |k: &[f64]| -> f64 {
        let p = whole(&policy);
        p.iter().zip(k).map(|(p, k)| p.exp() * k).sum()
    };
    let log_ratio: Vec<f64> = (0..3)
        .map(|i| whole(&policy)[i] - whole(&reference)[i])
        .collect();
    let kl = mean(&log_ratio);

    let [tokens, answer] = both(KlEstimator::K1);
    assert_close(&tokens, &answer, EXACT, "k1");
    assert_close(&[mean(&tokens)], &[kl], EXACT, "mean of k1");

    let [tokens, answer] = both(KlEstimator::K3);
    assert_close(&tokens[..1], &answer[..1], EXACT, "one token");
    for i in [1, 2] {
        assert!((tokens[i] - answer[i]).abs() > 0.1, "{tokens:?} {answer:?}");
    }
    assert_close(
        &[mean(&tokens), mean(&answer)],
        &[kl; 2],
        EXACT,
        "mean of k3",
    );

    let [tokens, answer] = both(KlEstimator::K2);
    assert!((mean(&tokens) - mean(&answer)).abs() > 0.05);
}

#[test]
fn a_penalty_above_the_range_of_the_scores_puts_cut_off_answers_last() {
    let scores = vector(&[0.3, 1.9, -1.0, 0.7]);
    let ended = Tensor::new(&[1u8, 0, 1, 0], &Device::Cpu).unwrap();
    let after = |penalty| numbers(&missing_eos_penalty(&scores, &ended, penalty).unwrap());
    assert_eq!(after(0.0), numbers(&scores));
    let [a, b, c, d] = after(3.0)[..] else {
        panic!("four scores")
    };
    assert_eq!((a, c), (0.3, -1.0));
    // below those that ended, and in their order among themselves
    assert!(b < c && d < b);
}
