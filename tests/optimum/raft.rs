use crate::common::draws::{best_of, best_of_formula, kl};
use crate::common::policy::{BETA, REFERENCE, REWARDS, descend, distance, log, normalized, tilted};
use crate::common::{EXACT, assert_close, matrix, numbers, vector};
use candle_align::online::raft::{best_of_k, kl_adjusted_rewards, top_share};
use candle_align::{
    RaftConfig, Reduction, Result, SamplingConfig, SftConfig, Statistics, TokenLogProbs, sample,
    sft_loss,
};
use candle_core::{DType, Device, Tensor, Var};
use rand::{SeedableRng, rngs::StdRng};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

/// −Σ d(y) log π(y) through the loss itself: answers of one token, weighted by how often they were
/// kept.
fn fine_tuning(log_policy: &Tensor, kept: &[f64]) -> Result<Tensor> {
    let k = kept.len();
    let logits = log_policy.reshape((1, 1, k))?.broadcast_as((k, 1, k))?;
    let targets = Tensor::arange(0, k as u32, &Device::Cpu)?.unsqueeze(1)?;
    let mask = Tensor::ones((k, 1), DType::U8, &Device::Cpu)?;
    let log_probs = TokenLogProbs::aligned(&logits, &targets, &mask, Statistics::default())?;
    sft_loss(&log_probs, Some(&vector(kept)), &SftConfig::default())?.reduce(Reduction::Sum)
}

/// The policy after a round that ended in fine-tuning on `kept`.
fn learned(from: &[f64], kept: &[f64]) -> Vec<f64> {
    descend(&log(from), 2.0, 500, |l| fine_tuning(l, kept))
}

#[test]
fn a_round_ends_at_the_law_of_the_best_of_n() {
    for (n, want) in [
        (2, [0.16, 0.45, 0.2, 0.19]),
        (4, [0.0256, 0.5265, 0.104, 0.3439]),
        (8, [0.00065536, 0.41367105, 0.0161408, 0.56953279]),
    ] {
        // all 4ⁿ draws, the best of each, learned
        let law = best_of(&REFERENCE, &REWARDS, n);
        assert_close(&law, &want, EXACT, "B_n");
        assert_close(
            &law,
            &best_of_formula(&REFERENCE, &REWARDS, n),
            EXACT,
            "B_n",
        );
    }
    let four = best_of(&REFERENCE, &REWARDS, 4);
    let pi = learned(&REFERENCE, &four);
    assert!(distance(&pi, &four) < REACHED, "{pi:?}");
    let bound = 4f64.ln() - 0.75;
    let moved = kl(&pi, &REFERENCE);
    assert!((moved - 0.5825).abs() < 5e-5 && moved < bound, "{moved}");
}

#[test]
fn rounds_of_the_best_of_n_are_one_of_a_power_of_n() {
    // by the law, four rounds of three
    let mut p = REFERENCE.to_vec();
    for round in 1..=4 {
        p = best_of(&p, &REWARDS, 3);
        let at_once = best_of_formula(&REFERENCE, &REWARDS, 3usize.pow(round));
        assert_close(&p, &at_once, EXACT, "B_3 ∘ … ∘ B_3");
    }
    // by training, two rounds of two
    let once = learned(&REFERENCE, &best_of(&REFERENCE, &REWARDS, 2));
    let twice = learned(&once, &best_of(&once, &REWARDS, 2));
    let four = best_of(&REFERENCE, &REWARDS, 4);
    assert!(distance(&twice, &four) < 1e-8, "{twice:?}");
}

#[test]
fn the_end_of_all_rounds_is_the_highest_reward_and_its_ties_keep_their_ratio() {
    let rewards = [0.0, 1.0, 0.5, 1.0];
    let mut p = REFERENCE.to_vec();
    for _ in 0..12 {
        p = normalized(&best_of(&p, &rewards, 3));
    }
    assert!(distance(&p, &[0.0, 0.75, 0.0, 0.25]) < REACHED, "{p:?}");
}

#[test]
fn a_temperature_below_one_sharpens_the_policy_without_any_reward() {
    let config = SamplingConfig {
        temperature: 0.85,
        ..Default::default()
    };
    let mut p = REFERENCE.to_vec();
    for _ in 0..10 {
        let logits = vector(&log(&p)).unsqueeze(0).unwrap();
        let drawn_from = numbers(&config.probabilities(&logits).unwrap());
        p = best_of(&drawn_from, &[7.0; 4], 4);
    }
    let power = 0.85f64.powi(-10);
    let want = normalized(&REFERENCE.map(|p| p.powf(power)));
    assert_close(&p, &want, REACHED, "p^(1/λ) ten times");
    assert!(p[0] > 0.79 && p[3] < 0.001, "{p:?}");
}

#[test]
fn a_temperature_changes_what_the_best_of_n_is_taken_from() {
    let config = SamplingConfig {
        temperature: 0.7,
        ..Default::default()
    };
    let logits = vector(&log(&REFERENCE)).unsqueeze(0).unwrap();
    let law = best_of(
        &numbers(&config.probabilities(&logits).unwrap()),
        &REWARDS,
        4,
    );
    let sharper = normalized(&REFERENCE.map(|p| p.powf(1.0 / 0.7)));
    let want = best_of_formula(&sharper, &REWARDS, 4);
    let pi = learned(&REFERENCE, &law);
    assert!(distance(&pi, &want) < REACHED, "{pi:?}");
    assert!(
        distance(&pi, &best_of(&REFERENCE, &REWARDS, 4)) > 0.05,
        "{pi:?}"
    );
}

/// r̃ of the four answers under policy p.
fn adjusted(p: &[f64]) -> Vec<f64> {
    let row = |x: &[f64]| vector(x).unsqueeze(0).unwrap();
    let (policy, reference) = (row(&log(p)), row(&log(&REFERENCE)));
    let config = RaftConfig { beta: BETA };
    numbers(&kl_adjusted_rewards(&row(&REWARDS), &policy, &reference, &config).unwrap())
}

#[test]
fn the_kl_penalized_optimum_is_a_fixed_point_that_does_not_attract() {
    let star = tilted(&REFERENCE, &REWARDS, BETA);
    // all answers tie, but for rounding; and among ties the best of n is any
    let ranked: Vec<f64> = adjusted(&star).iter().map(|r| (r * 1e9).round()).collect();
    assert!(distance(&best_of(&star, &ranked, 4), &star) < EXACT);

    // a millionth beside it, one round goes far away
    let mut beside = star.clone();
    beside[3] += 1e-6;
    let beside = normalized(&beside);
    let next = best_of(&beside, &adjusted(&beside), 4);
    assert!(distance(&next, &star) > 0.4, "{next:?}");

    // and rounds do not settle
    let mut p = REFERENCE.to_vec();
    let mut far = 0;
    for round in 0..200 {
        p = normalized(&best_of(&p, &adjusted(&p), 4));
        far += usize::from(round >= 100 && distance(&p, &star) > 0.1);
    }
    assert!(far > 50, "{far} of the last 100 rounds end far away");
}

#[test]
fn small_mixtures_of_old_and_new_tend_to_the_kl_penalized_optimum() {
    let star = tilted(&REFERENCE, &REWARDS, BETA);
    // how near is a matter of the share alone; a smaller one goes on where the larger one ended
    let mut p = REFERENCE.to_vec();
    for (share, rounds, within) in [(0.1, 200, 0.08), (0.01, 600, 0.008), (0.001, 400, 0.0008)] {
        let mut farthest: f64 = 0.0;
        for round in 0..rounds {
            let best = best_of(&p, &adjusted(&p), 4);
            let mixed: Vec<f64> = p
                .iter()
                .zip(&best)
                .map(|(old, new)| (1.0 - share) * old + share * new)
                .collect();
            p = normalized(&mixed);
            if round >= rounds * 3 / 4 {
                farthest = farthest.max(distance(&p, &star));
            }
        }
        assert!(farthest < within, "share {share}: {farthest}");
        // without the price on leaving it would be the best answer alone
        assert!(distance(&p, &[0.0, 0.0, 0.0, 1.0]) > 0.3, "{p:?}");
    }
}

/// What the best share keeps of draws from the reference, one prompt per level of its rewards.
fn kept_of(levels: &[f64], share: f64) -> Vec<f64> {
    // 120 draws of each prompt, mixed, so that no prompt stands first where rewards tie
    let mut drawn = Vec::new();
    for _ in 0..12 {
        for prompt in 0..levels.len() {
            for (answer, times) in [4, 3, 2, 1].into_iter().enumerate() {
                drawn.extend(std::iter::repeat_n((prompt, answer), times));
            }
        }
    }
    let rewards: Vec<f64> = drawn.iter().map(|&(x, y)| REWARDS[y] + levels[x]).collect();
    let rewards = vector(&rewards).unsqueeze(1).unwrap();
    let rows = top_share(&rewards, None, share).unwrap();
    let mut kept = vec![0.0; 4 * levels.len()];
    for row in &rows {
        let (prompt, answer) = drawn[*row];
        kept[4 * prompt + answer] += 1.0 / rows.len() as f64;
    }
    kept
}

#[test]
fn the_top_share_cuts_off_what_lies_below() {
    for (share, want) in [
        (0.5, [0.0, 0.6, 0.2, 0.2]),
        (0.25, [0.0, 0.6, 0.0, 0.4]),
        (0.125, [0.0, 0.2, 0.0, 0.8]),
    ] {
        let kept = kept_of(&[0.0], share);
        assert_close(&kept, &want, EXACT, "top share");
        let moved = kl(&kept, &REFERENCE);
        assert!(moved <= (1.0 / share).ln() + EXACT, "{moved}");
    }
    // a whole class kept: as far as the bound
    let kept = kept_of(&[0.0], 0.1);
    assert_close(&[kl(&kept, &REFERENCE)], &[10f64.ln()], EXACT, "bound");
    // and farther than the best of the same number, which cuts nothing off
    let four = best_of(&REFERENCE, &REWARDS, 4);
    assert!(kl(&kept_of(&[0.0], 0.25), &REFERENCE) > kl(&four, &REFERENCE));
}

#[test]
fn hard_prompts_vanish_from_the_top_share_but_not_from_the_best_of_k() {
    let kept = kept_of(&[0.0, -1.5], 0.25);
    let mass: Vec<f64> = kept.chunks(4).map(|prompt| prompt.iter().sum()).collect();
    assert_close(&mass, &[14.0 / 15.0, 1.0 / 15.0], EXACT, "mass per prompt");
    // what the hard prompt learns is its own top slice
    assert_close(
        &normalized(&kept[4..]),
        &[0.0, 0.0, 0.0, 1.0],
        EXACT,
        "hard prompt",
    );

    // four answers to each: the same rows of both prompts, whatever their level
    let rewards = matrix(&[&REWARDS, &REWARDS.map(|r| r - 1.5)]);
    assert_eq!(best_of_k(&rewards, None).unwrap(), [3, 4 + 3]);
}

#[test]
fn rounds_of_drawing_choosing_and_learning_find_the_best_answer() {
    // prompts 5, 6 and 7, each with its own right symbol, after which the answer should end with 4
    let table = Var::zeros((8, 5), DType::F64, &Device::Cpu).unwrap();
    let model = |tokens: &Tensor| -> Result<Tensor> {
        let (batch, time) = tokens.dims2()?;
        let rows = table.index_select(&tokens.flatten_all()?, 0)?;
        Ok(rows.reshape((batch, time, 5))?)
    };
    let config = SamplingConfig {
        answers: 4,
        max_new_tokens: 3,
        ends: vec![4],
        ..Default::default()
    };
    let prompts: Vec<[u32; 1]> = (0..24).map(|i| [5 + i % 3]).collect();
    let mut rng = StdRng::seed_from_u64(5);
    let score = |row: &candle_align::Sample| {
        let tokens = row.sequence.tokens();
        let right = tokens[1] == tokens[0] - 4;
        f64::from(right) + f64::from(right && tokens.get(2) == Some(&4))
    };
    for _ in 0..60 {
        let drawn = sample(model, &prompts, &config, &Device::Cpu, &mut rng).unwrap();
        let rewards: Vec<f64> = drawn.rows.iter().map(score).collect();
        let rewards = Tensor::from_vec(rewards, (24, 4), &Device::Cpu).unwrap();
        let kept = drawn.select(&best_of_k(&rewards, None).unwrap()).unwrap();
        let batch = kept.batch(0, &Device::Cpu).unwrap();
        let logits = model(&batch.tokens).unwrap();
        let log_probs = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.mask).unwrap();
        let loss = sft_loss(&log_probs, None, &SftConfig::default()).unwrap();
        let grads = loss
            .reduce(Reduction::SequenceMean)
            .unwrap()
            .backward()
            .unwrap();
        let step = (grads.get(&table).unwrap() * 2.0).unwrap();
        table.set(&(table.as_tensor() - step).unwrap()).unwrap();
    }
    let pi = candle_nn::ops::softmax(&table, 1).unwrap();
    let pi = pi.to_vec2::<f64>().unwrap();
    for right in 1..4 {
        let answer = pi[4 + right][right] * pi[right][4];
        assert!(answer > 0.9, "prompt {}: {answer} of {pi:?}", 4 + right);
    }
}
