//! Where the field slips: formulas of public projects, an input, what they give, and what is right.
//!
//! Each formula is written out here as the project computes it, in scalars of the type it uses; none of its
//! code runs. `src/since.md` lists them with their threads.

use crate::common::lists::{list, pair};
use crate::common::{
    EXACT, assert_close, bits, logistic_loss, matrix, numbers, sigma, var, vector,
};
use candle_align::online::reward_models::{ImplicitRewardConfig, implicit_reward_loss};
use candle_align::ranking::*;
use candle_align::{
    DpoConfig, Pair, SftConfig, TokenLogProbs, dpo_loss, pairwise_reward_loss, sft_loss,
};
use candle_core::{DType, Device, Tensor, Var};

fn of(chosen: f64, rejected: f64) -> LogRatios {
    LogRatios::sums(&pair(&[chosen], &[rejected]), &pair(&[0.0], &[0.0])).unwrap()
}

/// log σ(x) as frameworks compute it.
fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

#[test]
fn ipo_with_the_tokens_that_moved_as_length_is_nothing_over_nothing_at_first() {
    // HALOs: the length is the number of tokens whose log-ratio is not 0
    let tokens = [0.0, 0.0, 0.0];
    let moved = tokens.iter().filter(|x| **x != 0.0).count() as f64;
    assert!((tokens.iter().sum::<f64>() / moved).is_nan());
    let lengths = pair(&[3.0], &[3.0]);
    let ratios = of(0.0, 0.0).per_token(&lengths).unwrap();
    let loss = ipo_loss(&ratios, &IpoConfig { beta: 0.1 }).unwrap().loss;
    assert_close(&numbers(&loss), &[25.0], EXACT, "1/(4β²)");
}

#[test]
fn ipo_of_sums_and_of_means_are_two_losses() {
    // trl#1677: one name for both
    let lengths = pair(&[4.0], &[2.0]);
    let loss =
        |ratios: &LogRatios| numbers(&ipo_loss(ratios, &IpoConfig { beta: 0.5 }).unwrap().loss)[0];
    let sums = of(-0.4, -0.5);
    assert_close(&[loss(&sums)], &[(0.1f64 - 1.0).powi(2)], EXACT, "sums");
    let means = sums.per_token(&lengths).unwrap();
    assert_close(
        &[loss(&means)],
        &[(-0.1f64 + 0.25 - 1.0).powi(2)],
        EXACT,
        "means",
    );
}

#[test]
fn smoothing_that_is_set_is_used() {
    // TRL 1.16: `sigmoid` leaves `label_smoothing` out
    let z = 1.5;
    let theirs = -log_sigmoid(z);
    let config = DpoConfig {
        beta: 1.0,
        label_smoothing: 0.1,
    };
    let ours = dpo_loss(of(z, 0.0).scores(), None, &config).unwrap().loss;
    let right = 0.9 * logistic_loss(z) + 0.1 * logistic_loss(-z);
    assert_close(&numbers(&ours), &[right], EXACT, "smoothed");
    assert!((right - theirs).abs() > 0.1);
}

#[test]
fn a_rate_of_flips_of_a_half_is_refused() {
    // TRL 1.16 warns and divides by 1 − 2ε = 0
    let z = 1.5;
    let theirs = (-0.5 * log_sigmoid(z) + 0.5 * log_sigmoid(-z)) / 0.0;
    assert!(theirs.is_infinite());
    let config = RobustDpoConfig {
        flip_rate: 0.5,
        ..Default::default()
    };
    robust_dpo_loss(&of(z, 0.0), &config).unwrap_err();
}

#[test]
fn discopop_pushes_the_wrong_way_from_a_fresh_start() {
    // the published function: its slope is positive between z = −0.118 and 0.072
    let slope = |z: f64| {
        let chosen = var(&[z]);
        let policy = Pair {
            chosen: chosen.as_tensor().clone(),
            rejected: vector(&[0.0]),
        };
        let ratios = LogRatios::sums(&policy, &pair(&[0.0], &[0.0])).unwrap();
        let config = DiscopopConfig {
            beta: 1.0,
            tau: 0.05,
        };
        let loss = discopop_loss(&ratios, &config).unwrap().loss;
        numbers(loss.backward().unwrap().get(&chosen).unwrap())[0]
    };
    assert_close(
        &[slope(0.0)],
        &[-0.75 + (1.0 - 2f64.ln()) / 0.2],
        EXACT,
        "at first",
    );
    for (z, up) in [
        (-0.12, false),
        (-0.116, true),
        (0.0, true),
        (0.07, true),
        (0.074, false),
    ] {
        assert_eq!(slope(z) > 0.0, up, "{z}: {}", slope(z));
    }
}

#[test]
fn an_exponential_that_overflows_under_a_gate_of_zero() {
    // TRL 1.16, DiscoPOP in f32: σ(z/τ) · e^(−z) = 0 · ∞ at z = −100
    let z = -100f32;
    let gate = 1.0 / (1.0 + (-z / 0.05).exp());
    assert!((gate * (-z).exp()).is_nan());
    for (dtype, z) in [
        (DType::F32, -100.0f64),
        (DType::F64, -1e4),
        (DType::F64, 1e4),
    ] {
        let chosen = Var::new(&[z], &Device::Cpu).unwrap();
        let at = |x: &Tensor| x.to_dtype(dtype).unwrap();
        let zero = at(&vector(&[0.0]));
        let policy = Pair {
            chosen: at(&chosen),
            rejected: zero.clone(),
        };
        let reference = Pair {
            chosen: zero.clone(),
            rejected: zero,
        };
        let ratios = LogRatios::sums(&policy, &reference).unwrap();
        let config = DiscopopConfig {
            beta: 1.0,
            tau: 0.05,
        };
        let loss = discopop_loss(&ratios, &config).unwrap().loss;
        assert_close(&numbers(&loss), &[(-z).max(0.0)], 1e-4, "loss");
        let slope = numbers(loss.backward().unwrap().get(&chosen).unwrap());
        assert_close(&slope, &[if z < 0.0 { -1.0 } else { 0.0 }], 1e-6, "slope");
    }
}

#[test]
fn a_forward_kl_that_overflows_twice_still_compares() {
    // TRL 1.16 in f32: 1 − e^(−ρ) of both answers is −∞, their difference NaN
    let score = |ratio: f32| 1.0 - (-ratio).exp();
    assert!((score(-100.0) - score(-120.0)).is_nan());
    let single = |x: f64| vector(&[x]).to_dtype(DType::F32).unwrap();
    let policy = Pair {
        chosen: single(-100.0),
        rejected: single(-120.0),
    };
    let zeros = Pair {
        chosen: single(0.0),
        rejected: single(0.0),
    };
    let config = FDpoConfig {
        divergence: FDivergence::ForwardKl,
        ..Default::default()
    };
    let ratios = LogRatios::sums(&policy, &zeros).unwrap();
    let loss = numbers(&f_dpo_loss(&ratios, &config).unwrap().loss);
    assert!(loss[0].is_finite(), "{loss:?}");
}

#[test]
fn an_exponent_that_stops_keeps_its_slope() {
    // TRL 1.16, α-divergence: clamp(…, max = 80) has slope 0 beyond 80, so the pair does not train
    let chosen = Var::new(&[-200.0f32], &Device::Cpu).unwrap();
    let score = FDivergence::Alpha { alpha: 0.5 }.score(&chosen).unwrap();
    let slope = numbers(score.backward().unwrap().get(&chosen).unwrap())[0];
    assert!(slope.is_finite() && slope > 1e30, "{slope}");
}

#[test]
fn alpha_po_of_an_answer_whose_probability_underflows() {
    // TRL 1.16, CPO with alpha: (1 − p^(−α))/α with p = e^l̄; both p are 0, both rewards −∞
    let reward = |mean: f32| (1.0 - mean.exp().powf(-0.25)) / 0.25;
    assert!((reward(-200.0) - reward(-210.0)).is_nan());
    let config = AlphaPoConfig {
        beta: 1.0,
        alpha: 0.25,
        margin: RequiredLead::Gamma(0.0),
    };
    let single = |x: f64| vector(&[x]).to_dtype(DType::F32).unwrap();
    let means = Pair {
        chosen: single(-200.0),
        rejected: single(-210.0),
    };
    let loss = numbers(&alpha_po_loss(&means, &config).unwrap().loss);
    assert!(loss[0].is_finite(), "{loss:?}");
    // and more than 10 % off near α = 0, where 1 − p^(−α) cancels
    let (alpha, mean) = (1e-6f32, -0.42f32);
    let theirs = (1.0 - mean.exp().powf(-alpha)) / alpha;
    assert!((theirs / mean - 1.0).abs() > 0.1, "{theirs}");
    let config = AlphaPoConfig {
        alpha: 1e-6,
        ..config
    };
    let zero = single(0.0);
    let means = Pair {
        chosen: single(-0.42),
        rejected: zero,
    };
    let rewards = alpha_po_loss(&means, &config).unwrap().rewards;
    assert_close(&numbers(&rewards.chosen), &[-0.42], 1e-6, "α → 0");
}

#[test]
fn a_certain_answer_has_a_finite_slope_under_odds() {
    // LLaMA-Factory, Liger: log1p(−exp(l̄)) is −∞ where e^l̄ rounds to 1; TRL 1.16: a NaN gradient through `where`
    let mean = -1e-20f64;
    assert!((-mean.exp()).ln_1p().is_infinite());
    let right = (-mean.exp_m1()).ln();
    assert!((right + 46.0517).abs() < 1e-4);
    for mean in [-1e-20, -1e-300, 0.0] {
        let (chosen, rejected) = (var(&[mean]), var(&[-1.0]));
        let means = Pair {
            chosen: chosen.as_tensor().clone(),
            rejected: rejected.as_tensor().clone(),
        };
        let loss = odds_ratio_loss(&means).unwrap().loss;
        assert_close(&numbers(&loss), &[0.0], EXACT, "loss");
        let grads = loss.backward().unwrap();
        // −odds(y_l)
        let odds = (-1f64).exp() / (1.0 - (-1f64).exp());
        assert_close(
            &numbers(grads.get(&chosen).unwrap()),
            &[-odds],
            EXACT,
            "chosen",
        );
        assert_close(
            &numbers(grads.get(&rejected).unwrap()),
            &[0.0],
            EXACT,
            "rejected",
        );
    }
    let loss = odds_ratio_loss(&pair(&[-1.0], &[-1e-20])).unwrap().loss;
    let odds = (-1f64).exp() / (1.0 - (-1f64).exp());
    assert_close(
        &numbers(&loss),
        &[46.051701859880914 - odds.ln()],
        1e-9,
        "rejected",
    );
}

#[test]
fn a_baseline_from_matched_answers_moves_with_them() {
    // trustformers-training: z₀ is the mean of the same answers' log-ratios, and is not cut at 0
    let theirs = |ratio: f64| {
        let mean_of_one = ratio;
        1.0 - sigma(0.1 * (ratio - mean_of_one))
    };
    assert_eq!(theirs(-5.0), theirs(5.0));
    let labels = Tensor::new(&[1u8], &Device::Cpu).unwrap();
    let loss = |ratio: f64| {
        let baseline = kto_baseline(&vector(&[-2.0]), &vector(&[-2.5])).unwrap();
        let (policy, reference) = (vector(&[ratio]), vector(&[0.0]));
        let config = KtoConfig::default();
        numbers(
            &kto_loss(&policy, &reference, &labels, &baseline, &config)
                .unwrap()
                .loss,
        )[0]
    };
    assert_close(&[loss(5.0)], &[1.0 - sigma(0.1 * 4.5)], EXACT, "kto");
    assert!(loss(-5.0) > loss(5.0) + 0.2);
}

#[test]
fn a_row_that_is_nan_is_seen() {
    // TRL 1.16, KTO and BCO: `nanmean` leaves it out of the loss, and no one learns of it
    let labels = Tensor::new(&[1u8, 1], &Device::Cpu).unwrap();
    let (policy, zeros) = (vector(&[f64::NAN, -1.0]), vector(&[0.0, 0.0]));
    let zero = Tensor::new(0f64, &Device::Cpu).unwrap();
    let out = kto_loss(&policy, &zeros, &labels, &zero, &KtoConfig::default()).unwrap();
    let losses = numbers(&out.loss);
    let counted = losses.iter().filter(|loss| !loss.is_nan());
    let theirs = counted.clone().sum::<f64>() / counted.count() as f64;
    assert_close(&[theirs], &[1.0 - sigma(-0.1)], EXACT, "nanmean");
    assert!(losses[0].is_nan() && losses[1].is_finite());
    assert!(numbers(&out.loss.mean_all().unwrap())[0].is_nan());
}

#[test]
fn a_running_mean_counts_its_samples() {
    // LLaMA-Factory, BCO: the mean of a batch enters as one sample, however large the batch
    let batches: [&[f64]; 2] = [&[1.0], &[0.0, 0.0, 0.0]];
    let theirs = batches
        .iter()
        .map(|b| b.iter().sum::<f64>() / b.len() as f64)
        .sum::<f64>()
        / 2.0;
    assert_eq!(theirs, 0.5);
    let mut shift = RewardShift::default();
    for batch in batches {
        shift.update(&vector(batch)).unwrap();
    }
    assert_close(&[shift.mean], &[0.25], EXACT, "the mean of four rewards");
}

fn tokens(values: &[&[f64]], mask: &[&[u8]]) -> TokenLogProbs {
    TokenLogProbs::new(&matrix(values), &bits(mask)).unwrap()
}

#[test]
fn positions_are_counted_from_the_answer_not_from_the_prompt() {
    // TRL 0.24, LD-DPO: positions and lengths are compared from the prompt on, so a prompt of two tokens takes
    // up the two positions that both answers share, and the last two tokens of the answer are left out
    let theirs = |prompt: usize| -> f64 {
        let (answer, shared, alpha) = ([-1.0, -0.5, -2.0], 2, 0.25);
        let at = |(i, x): (usize, &f64)| match i + prompt {
            position if position < shared => *x,
            position if position < answer.len() => alpha * x,
            _ => 0.0,
        };
        answer.iter().enumerate().map(at).sum()
    };
    assert_close(&[theirs(0), theirs(2)], &[-2.0, -0.25], EXACT, "theirs");
    let sums = |prompt: usize| {
        let row = |values: &[f64]| -> Vec<f64> {
            let before = std::iter::repeat_n(-7.0, prompt);
            before.chain(values.iter().copied()).collect()
        };
        let counted = |length: usize| -> Vec<u8> {
            let before = std::iter::repeat_n(0, prompt);
            before.chain(std::iter::repeat_n(1, length)).collect()
        };
        let answers = Pair {
            chosen: tokens(&[&row(&[-1.0, -0.5, -2.0])], &[&counted(3)]),
            rejected: tokens(&[&row(&[-3.0, -1.0])], &[&counted(2)]),
        };
        numbers(&length_desensitized_sums(&answers, 0.25).unwrap().chosen)[0]
    };
    assert_close(
        &[sums(0), sums(2)],
        &[-1.5 - 0.5; 2],
        EXACT,
        "shared and beyond",
    );
}

#[test]
fn the_reference_is_weighed_like_the_policy() {
    // LLaMA-Factory passes `ld_alpha` to the policy only: an untouched policy has a margin
    let answers = Pair {
        chosen: tokens(&[&[-1.0, -0.5, -2.0]], &[&[1, 1, 1]]),
        rejected: tokens(&[&[-3.0]], &[&[1]]),
    };
    let weighed = length_desensitized_sums(&answers, 0.25).unwrap();
    let plain = length_desensitized_sums(&answers, 1.0).unwrap();
    let theirs = LogRatios::sums(&weighed, &plain).unwrap();
    assert!(numbers(&theirs.scores().margin().unwrap())[0] > 1.0);
    let config = LdDpoConfig {
        alpha: 0.25,
        ..Default::default()
    };
    let loss = ld_dpo_loss(&answers, &answers, &config).unwrap().loss;
    assert_close(&numbers(&loss), &[2f64.ln()], EXACT, "untouched");
}

#[test]
fn simpo_adds_no_likelihood_unless_asked() {
    // trl#1725: the trainer that has SimPO adds the likelihood of the chosen answer with weight 1 by default
    let means = pair(&[-0.8], &[-1.5]);
    let config = SimpoConfig {
        beta: 2.0,
        margin: RequiredLead::Gamma(0.5),
    };
    let loss = numbers(&simpo_loss(&means, &config).unwrap().loss);
    assert_close(&loss, &[logistic_loss(1.4 - 0.5)], EXACT, "simpo");
    let theirs = logistic_loss(1.4 - 0.5) + 0.8;
    assert!((loss[0] - theirs).abs() > 0.5);
}

#[test]
fn one_gamma_means_two_leads() {
    // trl#1703: 0.5 as γ or as γ/β, with β = 10
    let means = pair(&[-0.8], &[-1.5]);
    let loss = |margin| {
        let config = SimpoConfig { beta: 10.0, margin };
        numbers(&simpo_loss(&means, &config).unwrap().loss)[0]
    };
    let (gamma, ratio) = (
        loss(RequiredLead::Gamma(0.5)),
        loss(RequiredLead::GammaOverBeta(0.5)),
    );
    assert_close(
        &[gamma, ratio],
        &[logistic_loss(6.5), logistic_loss(2.0)],
        EXACT,
        "leads",
    );
}

#[test]
fn an_empty_answer_has_a_mean() {
    // trl#5826: 0/0 in means of truncated answers
    let empty = tokens(&[&[-1.0, -2.0]], &[&[0, 0]]);
    let full = tokens(&[&[-1.0, -2.0]], &[&[1, 1]]);
    let means = Pair {
        chosen: empty.mean().unwrap(),
        rejected: full.mean().unwrap(),
    };
    let loss = simpo_loss(&means, &SimpoConfig::default()).unwrap().loss;
    assert!(numbers(&loss)[0].is_finite());
    let chosen = sft_loss(&empty, None, &SftConfig::default()).unwrap();
    let config = CpoConfig::default();
    let sums = Pair {
        chosen: empty.sum().unwrap(),
        rejected: full.sum().unwrap(),
    };
    let loss = cpo_loss(&sums, &chosen, &config).unwrap().loss;
    assert_close(&numbers(&loss), &[logistic_loss(0.3)], EXACT, "cpo");
    let zeros = Pair {
        chosen: vector(&[0.0]),
        rejected: vector(&[0.0]),
    };
    let ratios = LogRatios::sums(&sums, &zeros).unwrap();
    let lengths = Pair {
        chosen: empty.lengths().unwrap(),
        rejected: full.lengths().unwrap(),
    };
    let loss = ipo_loss(&ratios.per_token(&lengths).unwrap(), &IpoConfig::default()).unwrap();
    assert!(numbers(&loss.loss)[0].is_finite());
}

#[test]
fn apo_down_reads_log_ratios_alone() {
    // trl#6441: one term of the divergence's score, one of the raw log-ratio
    let (w, l) = (-0.4, -0.5);
    let score = |x: f64| 1.0 - (-x).exp();
    let theirs = sigma(0.1 * w) + 1.0 - sigma(0.1 * (score(w) - score(l)));
    let ratios = of(w, l);
    let ours = |ratios: &LogRatios| {
        numbers(&apo_down_loss(ratios, &ApoConfig::default()).unwrap().loss)[0]
    };
    let right = sigma(0.1 * w) + 1.0 - sigma(0.1 * (w - l));
    assert_close(&[ours(&ratios)], &[right], EXACT, "raw");
    let scored = ratios.scored(FDivergence::ForwardKl).unwrap();
    let both = sigma(0.1 * score(w)) + 1.0 - sigma(0.1 * (score(w) - score(l)));
    assert_close(&[ours(&scored)], &[both], EXACT, "scored");
    assert!((theirs - right).abs() > 1e-3 && (theirs - both).abs() > 1e-3);
}

#[test]
fn a_tie_teaches_nothing_unless_asked() {
    // TRL 1.16, online DPO: `>=` takes the first of two equal answers for the better one
    let (policy, reference) = (matrix(&[&[-1.0, -1.0]]), matrix(&[&[-1.0, -1.0]]));
    let scores = matrix(&[&[0.5, 0.5]]);
    let loss = |ties| {
        let config = OnlineDpoConfig {
            ties,
            ..Default::default()
        };
        numbers(
            &online_dpo_loss(&policy, &reference, &scores, &config)
                .unwrap()
                .loss,
        )[0]
    };
    assert_eq!(loss(TiedScores::Skip), 0.0);
    assert_close(
        &[loss(TiedScores::FirstWins)],
        &[2f64.ln()],
        EXACT,
        "their form",
    );
}

#[test]
fn a_classifier_s_sigma_is_never_rounded() {
    // PRIME: σ first, then the cross-entropy of its rounded value
    let score = 20f32;
    let rounded = 1.0 / (1.0 + (-score).exp());
    assert!((-(1.0 - rounded).ln()).is_infinite());
    let mask: &[&[u8]] = &[&[1]];
    let (policy, reference) = (tokens(&[&[-1.0]], mask), tokens(&[&[-21.0]], mask));
    let config = ImplicitRewardConfig { beta: 1.0 };
    let out = implicit_reward_loss(&policy, &reference, &vector(&[0.0]), &config).unwrap();
    assert_close(&numbers(&out.loss), &[logistic_loss(-20.0)], EXACT, "loss");
}

#[test]
fn a_logarithm_of_a_softmax_of_an_excluded_symbol() {
    // TDPO's code: softmax().log() of a logit of −∞ is −∞, and 0 · (−∞ − −∞) is NaN
    let (p, log_p, log_q) = (0.0f64, f64::NEG_INFINITY, f64::NEG_INFINITY);
    assert!((p * (log_p - log_q)).is_nan());
    let logits = Var::new(&[[[0.5f64, f64::NEG_INFINITY, 0.0]]], &Device::Cpu).unwrap();
    let reference = Tensor::new(&[[[0.0f64, f64::NEG_INFINITY, 0.0]]], &Device::Cpu).unwrap();
    let kl = sequential_kl(&logits, &reference, &bits(&[&[1]])).unwrap();
    let q = sigma(0.5);
    assert_close(
        &numbers(&kl),
        &[-0.5 * q.ln() - 0.5 * (1.0 - q).ln() - 2f64.ln()],
        EXACT,
        "kl",
    );
    let slope = numbers(kl.backward().unwrap().get(&logits).unwrap());
    assert_close(&slope, &[q - 0.5, 0.0, 0.5 - q], EXACT, "slope");
}

#[test]
fn labels_of_exo_sum_to_one() {
    // the authors' code: 0 in place of log(1 − ε), so the loss of the optimum is below 0
    let epsilon: f64 = 0.25;
    let q = 1.0 - epsilon;
    let theirs = q * q.ln(); // the rejected answer adds nothing: its share is its label's
    assert!(theirs < -0.2);
    let config = ExoConfig {
        beta: 1.0,
        label_smoothing: epsilon,
    };
    let best = of((q / epsilon).ln(), 0.0);
    let loss = exo_pair_loss(&best, &config).unwrap().loss;
    assert_close(&numbers(&loss), &[0.0], EXACT, "a KL is 0 at its best");
}

#[test]
fn nca_is_a_loss_of_each_list() {
    // the authors' code averages over the answers and the batch at once, 1/K of the paper's
    let answers = list(&[0.3, -0.1, 0.2, -0.4], &[1.0; 4], &[0.0; 4]);
    let config = NcaConfig {
        beta: 1.0,
        alpha: 1.0,
    };
    let loss = numbers(&nca_loss(&answers, &matrix(&[&[0.0; 4]]), &config).unwrap())[0];
    let each = |x: f64| 0.25 * logistic_loss(x) + 0.25 * logistic_loss(-x);
    let want: f64 = [0.3, -0.1, 0.2, -0.4].map(each).iter().sum();
    assert_close(&[loss], &[want], EXACT, "a sum over answers");
    assert!((loss - want / 4.0).abs() > 1.0);
}

#[test]
fn a_pair_seen_one_way_only_runs_away_under_robust_dpo() {
    // the published loss falls without a bound: its slope tends to −ε/(1 − 2ε)
    let (epsilon, config) = (
        0.1,
        RobustDpoConfig {
            beta: 1.0,
            flip_rate: 0.1,
        },
    );
    let published =
        |z: f64| (0.9 * logistic_loss(z) - 0.1 * logistic_loss(-z)) / (1.0 - 2.0 * epsilon);
    assert!((published(100.0) + 12.5).abs() < 1e-9);
    let ours = |z: f64| numbers(&robust_dpo_loss(&of(z, 0.0), &config).unwrap().loss)[0];
    assert_close(&[ours(100.0)], &[published(100.0)], EXACT, "inherent");
    // seen both ways at the rate of the flips it is DPO, which is bounded
    let both = (1.0 - epsilon) * ours(100.0) + epsilon * ours(-100.0);
    assert!((both - logistic_loss(100.0)).abs() < 1e-9, "{both}");
}

#[test]
fn a_reversed_batch_matches_its_middle_row_with_itself() {
    // trl#1911: z₀ from the answers in reverse order; of three rows the second keeps its own answer
    let ratio = |prompt: usize, answer: usize| if prompt == answer { 6.0 } else { 0.3 };
    let reversed: Vec<f64> = (0..3).map(|i| ratio(i, 2 - i)).collect();
    let mean = |ratios: &[f64]| {
        let zeros = vector(&vec![0.0; ratios.len()]);
        numbers(&kto_baseline(&vector(ratios), &zeros).unwrap())[0]
    };
    assert_close(&[mean(&reversed)], &[2.2], EXACT, "theirs");
    let rotated: Vec<f64> = (0..3).map(|i| ratio(i, (i + 1) % 3)).collect();
    assert_close(
        &[mean(&rotated)],
        &[0.3],
        EXACT,
        "the answer of the next row",
    );
}

#[test]
fn a_penalty_outside_the_sigmoid_with_its_sign_turned_pays_for_falling() {
    // LLaMA-Factory#2587, a proposal: −log σ(βΔ) − λ · max(0, −ρ_w)
    let (beta, lambda) = (0.1, 5.0);
    let theirs = |w: f64| logistic_loss(beta * w) - lambda * (-w).max(0.0);
    assert!(theirs(-2.0) < theirs(-1.0) && theirs(-1.0) < theirs(0.0));
    let ours = |w: f64| {
        numbers(
            &dpop_loss(&of(w, 0.0), &DpopConfig { beta, lambda })
                .unwrap()
                .loss,
        )[0]
    };
    for w in [-2.0, -1.0, 0.0, 1.0f64] {
        let right = logistic_loss(beta * (w - lambda * (-w).max(0.0)));
        assert_close(&[ours(w)], &[right], EXACT, "inside");
    }
    assert!(ours(-2.0) > ours(-1.0) && ours(-1.0) > ours(0.0));
}

#[test]
fn a_comparison_of_distant_scores_is_finite() {
    // OpenRLHF's LogExpLoss in f32: log(1 + e^(r_l − r_w)) is +∞, and its gradient ∞/∞. DeepSpeed-Chat: σ is
    // rounded to 0 before its logarithm
    let theirs = (1.0 + 100f32.exp()).ln();
    let rounded = -(1.0 / (1.0 + 100f32.exp())).ln();
    assert!(theirs.is_infinite() && rounded.is_infinite());
    let chosen = Var::new(&[-100f32], &Device::Cpu).unwrap();
    let scores = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: chosen.zeros_like().unwrap().detach(),
    };
    let loss = pairwise_reward_loss(&scores, None, &Default::default());
    let loss = loss.unwrap().loss;
    assert_close(&numbers(&loss), &[100.0], EXACT, "loss");
    let slope = numbers(loss.backward().unwrap().get(&chosen).unwrap());
    assert_close(&slope, &[-1.0], EXACT, "slope");
}

#[test]
fn a_token_with_the_number_of_an_ignored_index_is_learned() {
    // TRL 0.24, the likelihood of RPO: `ignore_index=0` leaves out every token that is number 0
    let logits = Tensor::new(&[[[3f64.ln(), 0.0], [0.0, 0.0], [0.0, 0.0]]], &Device::Cpu).unwrap();
    let ids = [1u32, 0, 1];
    let each = [-0.75f64.ln(), 2f64.ln()];
    let theirs: Vec<f64> = (0..2)
        .filter(|t| ids[t + 1] != 0)
        .map(|t| each[t])
        .collect();
    assert_eq!(theirs, [2f64.ln()]);
    let ids = Tensor::new(&[ids], &Device::Cpu).unwrap();
    let tokens = TokenLogProbs::next_token(&logits, &ids, &bits(&[&[0, 1, 1]])).unwrap();
    let chosen = sft_loss(&tokens, None, &SftConfig::default()).unwrap();
    let config = RpoConfig {
        beta: 1.0,
        alpha: 1.0,
        tokens: ReferenceTokens::Mean,
    };
    let loss = rpo_loss(&of(0.0, 0.0), &chosen, &config).unwrap().loss;
    let right = 2f64.ln() + (each[0] + each[1]) / 2.0;
    assert_close(&numbers(&loss), &[right], EXACT, "both tokens");
}

#[test]
fn a_loss_of_a_list_does_not_change_the_others() {
    // TRL 0.24, ms-swift: `ipo` anywhere in a list of losses divides the log-ratios of all of them by their lengths
    let lengths = pair(&[4.0], &[2.0]);
    let theirs = logistic_loss(0.5 * (-0.1 + 0.25));
    let config = DpoConfig {
        beta: 0.5,
        label_smoothing: 0.0,
    };
    let ratios = of(-0.4, -0.5);
    let means = ratios.per_token(&lengths).unwrap();
    let ipo = ipo_loss(&means, &IpoConfig { beta: 0.5 }).unwrap().loss;
    let dpo = dpo_loss(ratios.scores(), None, &config).unwrap().loss;
    let want = [(0.15f64 - 1.0).powi(2), logistic_loss(0.5 * 0.1)];
    assert_close(
        &[numbers(&ipo), numbers(&dpo)].concat(),
        &want,
        EXACT,
        "a list of two",
    );
    assert!((want[1] - theirs).abs() > 0.01);
}

#[test]
fn a_baseline_counts_answers_that_have_not_moved() {
    // HALOs: the sum of the mismatched log-ratios over the number of those that are not 0
    let ratios = [0.0, 0.0, 0.6];
    let moved = ratios.iter().filter(|x| **x != 0.0).count() as f64;
    assert_eq!(ratios.iter().sum::<f64>() / moved.max(1.0), 0.6);
    let baseline = kto_baseline(&vector(&ratios), &vector(&[0.0; 3])).unwrap();
    assert_close(&numbers(&baseline), &[0.2], EXACT, "a mean of three");
}

#[test]
fn odds_near_certainty_have_no_floor() {
    // oxicuda-rlhf: 1 − p + 10⁻⁷ for 1 − p, which takes ln 1.1 off the log-odds at l̄ = −10⁻⁶
    let mean = -1e-6f64;
    let theirs = mean - (1.0 - mean.exp() + 1e-7).ln();
    let right = mean - (-mean.exp_m1()).ln();
    assert!((right - theirs - 1.1f64.ln()).abs() < 1e-6);
    let even = |x: f64| x - (-x.exp_m1()).ln();
    let loss = odds_ratio_loss(&pair(&[-1.0], &[mean])).unwrap().loss;
    let want = logistic_loss(even(-1.0) - right);
    assert_close(&numbers(&loss), &[want], EXACT, "odds");
}
