use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::math::Whiten;
use candle_align::{
    EntropyConfig, Experience, ExperienceConfig, GaeConfig, KlEstimator, PpoConfig, PpoValueConfig,
    Reduction, RlhfConfig, Rollout, ShapedRewardsConfig, Statistics, TokenLogProbs, rlhf_loss,
};
use candle_core::{DType, Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};

const NAN: f64 = f64::NAN;

/// Three answers: two tokens and padding; one token after a gap, cut off; none at all.
fn rollout() -> Rollout {
    let mask: [&[u8]; 3] = [&[1, 1, 0], &[0, 0, 1], &[0, 0, 0]];
    let old = matrix(&[&[-1.0, -2.0, NAN], &[NAN, 9.0, -0.5], &[NAN; 3]]);
    Rollout {
        old: TokenLogProbs::new(&old, &bits(&mask)).unwrap(),
        reference: matrix(&[&[-1.5, -1.2, NAN], &[NAN, NAN, -0.9], &[NAN; 3]]),
        values: matrix(&[&[0.25, 0.75, NAN], &[NAN, NAN, -0.5], &[NAN; 3]]),
        scores: vector(&[3.0, 2.0, NAN]),
        ended: Some(Tensor::new(&[1u8, 0, 0], &Device::Cpu).unwrap()),
    }
}

fn plain() -> ExperienceConfig {
    ExperienceConfig {
        missing_eos_penalty: 1.25,
        rewards: ShapedRewardsConfig {
            beta: 0.3,
            ..Default::default()
        },
        reward_whitening: None,
        advantages: GaeConfig {
            gamma: 0.9,
            lambda: 0.8,
        },
        advantage_whitening: None,
    }
}

/// What the tokens of [`rollout`] are paid: the two of the first answer, the one of the second.
const PAID: [f64; 3] = [-0.3 * 0.5, -0.3 * -0.8 + 3.0, -0.3 * 0.4 + (2.0 - 1.25)];

fn spread(x: [f64; 3]) -> [f64; 9] {
    [x[0], x[1], 0.0, 0.0, 0.0, x[2], 0.0, 0.0, 0.0]
}

/// Advantages and returns of rewards, with γ = 0.9 and λ = 0.8.
fn advantages(r: [f64; 3]) -> ([f64; 3], [f64; 3]) {
    let last = r[1] - 0.75;
    let first = r[0] + 0.9 * 0.75 - 0.25 + 0.9 * 0.8 * last;
    let other = r[2] + 0.5;
    (
        [first, last, other],
        [first + 0.25, last + 0.75, other - 0.5],
    )
}

fn moments(x: [f64; 3]) -> (f64, f64) {
    let mean = x.iter().sum::<f64>() / 3.0;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0;
    (mean, (variance + 1e-8).sqrt())
}

#[test]
fn scores_become_rewards_and_rewards_advantages() {
    let got = rollout().experience(&plain()).unwrap();
    assert_close(&numbers(&got.rewards), &spread(PAID), EXACT, "rewards");
    let (a, r) = advantages(PAID);
    assert_close(&numbers(&got.advantages), &spread(a), EXACT, "advantages");
    assert_close(&numbers(&got.returns), &spread(r), EXACT, "returns");
    // what later steps compare with, clean of what stood under the mask
    assert_eq!(numbers(&got.old), spread([-1.0, -2.0, -0.5]));
    assert_eq!(numbers(&got.old_values), spread([0.25, 0.75, -0.5]));
    assert_eq!(numbers(&got.mask), spread([1.0, 1.0, 1.0]));
    assert_close(&numbers(&got.kl), &spread([0.5, -0.8, 0.4]), EXACT, "kl");
    assert_eq!((got.len(), got.is_empty()), (3, false));
}

#[test]
fn the_kl_is_summed_over_an_answer_and_averaged_over_answers_with_a_token() {
    let want = ((0.5 - 0.8) + 0.4) / 2.0;
    for estimator in [KlEstimator::K1, KlEstimator::K3] {
        let mut config = plain();
        config.rewards.estimator = estimator;
        let kl = rollout().experience(&config).unwrap().mean_kl().unwrap();
        assert!((kl - want).abs() < EXACT, "{kl}");
    }
    // in f32 too; and of nothing, nothing
    let experience = rollout().experience(&plain()).unwrap();
    let none = Tensor::new(&[2u32], &Device::Cpu).unwrap();
    assert_eq!(experience.rows(&none).unwrap().mean_kl().unwrap(), 0.0);
    let none = Tensor::zeros(0, DType::U32, &Device::Cpu).unwrap();
    let nothing = experience.rows(&none).unwrap();
    assert!(nothing.is_empty());
    assert_eq!(nothing.mean_kl().unwrap(), 0.0);
    let single = Experience {
        kl: experience.kl.to_dtype(DType::F32).unwrap(),
        ..experience
    };
    assert!((single.mean_kl().unwrap() - want).abs() < 1e-6);
}

#[test]
fn rewards_are_whitened_before_the_advantages_and_returns_are_not() {
    let (mean, deviation) = moments(PAID);
    let keep = PAID.map(|r| (r - mean) / deviation + mean);
    let zero = PAID.map(|r| (r - mean) / deviation);
    for (whitening, paid) in [(Whiten::KeepMean, keep), (Whiten::ZeroMean, zero)] {
        for after in [None, Some(Whiten::ZeroMean), Some(Whiten::KeepMean)] {
            let config = ExperienceConfig {
                reward_whitening: Some(whitening),
                advantage_whitening: after,
                ..plain()
            };
            let got = rollout().experience(&config).unwrap();
            assert_close(&numbers(&got.rewards), &spread(paid), EXACT, "rewards");
            let (a, r) = advantages(paid);
            let (mean, deviation) = moments(a);
            let a = match after {
                None => a,
                Some(Whiten::ZeroMean) => a.map(|a| (a - mean) / deviation),
                Some(Whiten::KeepMean) => a.map(|a| (a - mean) / deviation + mean),
            };
            assert_close(&numbers(&got.advantages), &spread(a), EXACT, "advantages");
            assert_close(&numbers(&got.returns), &spread(r), EXACT, "returns");
        }
    }
}

#[test]
fn an_answer_that_was_cut_off_pays_and_ends_there() {
    let free = ExperienceConfig {
        missing_eos_penalty: 0.0,
        ..plain()
    };
    let cut = rollout().experience(&plain()).unwrap();
    let kept = rollout().experience(&free).unwrap();
    let difference = numbers(&(kept.rewards - cut.rewards).unwrap());
    assert_close(&difference, &spread([0.0, 0.0, 1.25]), EXACT, "penalty");
    // without a penalty nobody needs to know
    let unknown = Rollout {
        ended: None,
        ..rollout()
    };
    let got = unknown.experience(&free).unwrap();
    assert_eq!(numbers(&got.returns), numbers(&kept.returns));
}

#[test]
fn the_defaults_are_those_of_the_authors() {
    let config = RlhfConfig::default();
    let experience = &config.experience;
    assert_eq!(experience.missing_eos_penalty, 0.0);
    assert_eq!(experience.rewards.beta, 0.02);
    assert_eq!(experience.reward_whitening, Some(Whiten::KeepMean));
    assert_eq!(experience.advantage_whitening, Some(Whiten::ZeroMean));
    let advantages = &experience.advantages;
    assert_eq!((advantages.gamma, advantages.lambda), (1.0, 0.95));
    assert_eq!((config.policy.clip, config.value.clip), (0.2, Some(0.2)));
    assert_eq!((config.value_weight, config.entropy), (0.1, None));
}

#[test]
fn an_epoch_takes_every_row_once_in_an_order_of_its_own() {
    let batch = 11;
    let mask = Tensor::ones((batch, 1), DType::U8, &Device::Cpu).unwrap();
    let x = Tensor::zeros((batch, 1), DType::F64, &Device::Cpu).unwrap();
    let experience = Experience {
        mask,
        old: x.clone(),
        old_values: x.clone(),
        kl: x.clone(),
        rewards: x.clone(),
        advantages: x.clone(),
        returns: x,
    };
    let epoch = |size, rng: &mut StdRng| -> Vec<Vec<u32>> {
        let rows = experience.minibatches(size, rng).unwrap();
        rows.iter().map(|r| r.to_vec1::<u32>().unwrap()).collect()
    };
    let mut rng = StdRng::seed_from_u64(3);
    let mut seen = Vec::new();
    for (size, sizes) in [
        (4, vec![4, 4, 3]),
        (11, vec![11]),
        (50, vec![11]),
        (1, vec![1; 11]),
        (4, vec![4, 4, 3]),
    ] {
        let rows = epoch(size, &mut rng);
        assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        let order = rows.concat();
        let mut sorted = order.clone();
        sorted.sort();
        assert_eq!(sorted, (0..batch as u32).collect::<Vec<_>>());
        assert!(!seen.contains(&order), "the same order twice: {order:?}");
        seen.push(order);
    }
    // from the generator alone
    let again = epoch(4, &mut StdRng::seed_from_u64(3));
    assert_eq!(again.concat(), seen[0]);
    let none = Tensor::zeros(0, DType::U32, &Device::Cpu).unwrap();
    let nothing = experience.rows(&none).unwrap();
    assert!(nothing.minibatches(4, &mut rng).unwrap().is_empty());
}

#[test]
fn rows_are_taken_in_the_order_asked_for_and_nothing_is_computed_anew() {
    let config = ExperienceConfig::default();
    let experience = rollout().experience(&config).unwrap();
    let fields = |e: &Experience| {
        [
            &e.old,
            &e.old_values,
            &e.kl,
            &e.rewards,
            &e.advantages,
            &e.returns,
        ]
        .map(|x| x.to_vec2::<f64>().unwrap())
    };
    for dtype in [DType::U32, DType::I64] {
        let rows = vector(&[1.0, 0.0, 1.0]).to_dtype(dtype).unwrap();
        let some = experience.rows(&rows).unwrap();
        for (some, all) in fields(&some).iter().zip(fields(&experience)) {
            assert_eq!(*some, [all[1].clone(), all[0].clone(), all[1].clone()]);
        }
        let mask = some.mask.to_vec2::<u8>().unwrap();
        assert_eq!(mask, [[0, 0, 1], [1, 1, 0], [0, 0, 1]]);
    }
}

/// Everything off its default, entropy included: two answers over two symbols.
#[test]
fn a_minibatchs_loss_is_the_sum_of_its_parts() {
    let config = RlhfConfig {
        experience: plain(),
        policy: PpoConfig {
            clip: 0.1,
            ..Default::default()
        },
        value: PpoValueConfig { clip: Some(0.3) },
        value_weight: 0.6,
        entropy: Some(EntropyConfig { coefficient: 0.4 }),
    };
    // log-odds of symbol 1 at each position; the third of row 0 does not count
    let odds = [0.4f64, -1.0, 0.0, 0.0, 0.0, 2.0];
    let logits: Vec<f64> = odds.iter().flat_map(|z| [0.0, *z]).collect();
    let logits = Tensor::from_vec(logits, (2, 3, 2), &Device::Cpu).unwrap();
    let tokens = Tensor::new(&[[1u32, 0, 0], [0, 0, 1]], &Device::Cpu).unwrap();
    let mask = bits(&[&[1, 1, 0], &[0, 0, 1]]);
    let statistics = Statistics {
        entropy: true,
        ..Default::default()
    };
    let new = TokenLogProbs::aligned(&logits, &tokens, &mask, statistics).unwrap();
    let sigma = |z: f64| 1.0 / (1.0 + (-z).exp());
    let p = [sigma(0.4), sigma(1.0), sigma(2.0)];

    let rows = Tensor::new(&[0u32, 1], &Device::Cpu).unwrap();
    let experience = rollout().experience(&config.experience).unwrap();
    let experience = experience.rows(&rows).unwrap();
    let values = matrix(&[&[0.5, 1.5, NAN], &[NAN, NAN, -0.6]]);
    let out = rlhf_loss(&new, &values, &experience, &config).unwrap();

    let (a, r) = advantages(PAID);
    let old: [f64; 3] = [-1.0, -2.0, -0.5];
    let mut want = [[0.0; 3]; 4];
    for i in 0..3 {
        let ratio = p[i] * (-old[i]).exp();
        let policy = (-a[i] * ratio).max(-a[i] * ratio.clamp(0.9, 1.1));
        let (v, v_old) = ([0.5f64, 1.5, -0.6][i], [0.25, 0.75, -0.5][i]);
        let near = v_old + (v - v_old).clamp(-0.3, 0.3);
        let value = 0.5 * (v - r[i]).powi(2).max((near - r[i]).powi(2));
        let entropy = -p[i] * p[i].ln() - (1.0 - p[i]) * (1.0 - p[i]).ln();
        let total = policy + 0.6 * value - 0.4 * entropy;
        for (row, x) in want.iter_mut().zip([policy, value, entropy, total]) {
            row[i] = x;
        }
    }
    let [policy, value, entropy, total] = want;
    let six = |x: [f64; 3]| [x[0], x[1], 0.0, 0.0, 0.0, x[2]];
    let got = |x: &Tensor, want, what| assert_close(&numbers(x), &six(want), EXACT, what);
    got(&out.policy.loss.loss, policy, "policy");
    got(&out.value.loss, value, "value");
    got(out.entropy.as_ref().unwrap(), entropy, "entropy");
    got(&out.loss.loss, total, "loss");
    assert_eq!(numbers(&out.loss.mask), numbers(&mask));

    // means over three tokens, not six positions
    let metrics = out.metrics().unwrap();
    let mean = |x: [f64; 3]| x.iter().sum::<f64>() / 3.0;
    let ratios: Vec<f64> = (0..3).map(|i| p[i] * (-old[i]).exp()).collect();
    let k1: Vec<f64> = ratios.iter().map(|ratio| -ratio.ln()).collect();
    let k3: Vec<f64> = ratios
        .iter()
        .map(|ratio| ratio - 1.0 - ratio.ln())
        .collect();
    for (got, want) in [
        (&metrics.loss, mean(total)),
        (&metrics.policy_loss, mean(policy)),
        (&metrics.value_loss, mean(value)),
        (metrics.entropy.as_ref().unwrap(), mean(entropy)),
        (&metrics.policy.ratio, ratios.iter().sum::<f64>() / 3.0),
        (&metrics.policy.kl_k1, k1.iter().sum::<f64>() / 3.0),
        (&metrics.policy.kl_k3, k3.iter().sum::<f64>() / 3.0),
    ] {
        assert_close(&numbers(got), &[want], EXACT, "metric");
        assert!(!got.track_op(), "a metric has a history");
    }
    let mean = out.loss.reduce(Reduction::TokenMean).unwrap();
    assert_eq!(numbers(&mean), numbers(&metrics.loss));
}

#[test]
fn a_token_without_a_log_probability_is_nan_and_not_a_number_that_looks_right() {
    let experience = rollout().experience(&plain()).unwrap();
    let mask = bits(&[&[1, 0, 1], &[0, 0, 1], &[1, 0, 0]]);
    let new =
        TokenLogProbs::new(&Tensor::full(-1.0, (3, 3), &Device::Cpu).unwrap(), &mask).unwrap();
    let values = Tensor::zeros((3, 3), DType::F64, &Device::Cpu).unwrap();
    let out = rlhf_loss(&new, &values, &experience, &RlhfConfig::default()).unwrap();
    let nan: Vec<bool> = numbers(&out.loss.loss).iter().map(|l| l.is_nan()).collect();
    // the second token of the first answer; what only `new` counts is left out
    let mut want = [false; 9];
    want[1] = true;
    assert_eq!(nan, want);
    let loss = numbers(&out.loss.loss);
    assert_eq!([loss[2], loss[6]], [0.0, 0.0]);
}

#[test]
fn what_only_the_new_policy_counts_has_no_bonus_either() {
    let experience = rollout().experience(&plain()).unwrap();
    let logits = Tensor::zeros((3, 3, 2), DType::F64, &Device::Cpu).unwrap();
    let tokens = Tensor::zeros((3, 3), DType::U32, &Device::Cpu).unwrap();
    let statistics = Statistics {
        entropy: true,
        ..Default::default()
    };
    let everywhere = tokens.ones_like().unwrap().to_dtype(DType::U8).unwrap();
    let new = TokenLogProbs::aligned(&logits, &tokens, &everywhere, statistics).unwrap();
    let values = Tensor::zeros((3, 3), DType::F64, &Device::Cpu).unwrap();
    let config = RlhfConfig {
        entropy: Some(EntropyConfig { coefficient: 0.4 }),
        ..Default::default()
    };
    let out = rlhf_loss(&new, &values, &experience, &config).unwrap();
    let entropy = numbers(out.entropy.as_ref().unwrap());
    assert_close(&entropy, &spread([2f64.ln(); 3]), EXACT, "entropy");
    let parts = (&out.policy.loss.loss + (&out.value.loss * 0.1).unwrap()).unwrap();
    let bonus = numbers(&(&out.loss.loss - parts).unwrap());
    let want = spread([-0.4 * 2f64.ln(); 3]);
    assert_close(&bonus, &want, EXACT, "bonus");
}
