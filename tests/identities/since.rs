//! The identities that the pages of the objectives since the survey claim.

use crate::common::lists::{list, pair};
use crate::common::{EXACT, assert_close, bits, logistic_loss, matrix, numbers, var, vector};
use candle_align::online::reward_models::{
    GrmConfig, ImplicitRewardConfig, SmoothedRewardConfig, VerdictShare, grm_loss,
    implicit_reward_loss, outcome_reward_loss, process_reward_loss, smoothed_reward_loss,
    verdict_score,
};
use candle_align::ranking::*;
use candle_align::{
    DpoConfig, Pair, PairwiseRewardConfig, PreferenceLoss, Result, SftConfig, SlicConfig,
    TokenLogProbs, TokenLoss, dpo_loss, pairwise_reward_loss, sft_loss, slic_rank_loss,
};
use candle_core::{Device, Tensor, Var};

const CHOSEN: [f64; 3] = [-3.5, -2.7, -8.0];
const REJECTED: [f64; 3] = [-4.5, -4.8, -5.0];

fn policy() -> Pair<Tensor> {
    pair(&CHOSEN, &REJECTED)
}

fn reference() -> Pair<Tensor> {
    pair(&[-3.1, -3.0, -6.0], &[-4.0, -4.9, -5.5])
}

fn ratios() -> LogRatios {
    LogRatios::sums(&policy(), &reference()).unwrap()
}

fn dpo(beta: f64, label_smoothing: f64) -> Vec<f64> {
    let config = DpoConfig {
        beta,
        label_smoothing,
    };
    numbers(
        &dpo_loss(&policy(), Some(&reference()), &config)
            .unwrap()
            .loss,
    )
}

#[track_caller]
fn same(out: Result<PreferenceLoss>, want: &[f64], what: &str) {
    assert_close(&numbers(&out.unwrap().loss), want, EXACT, what);
}

/// The slopes of a loss in both answers where policy and reference agree.
fn first_slopes(loss: impl Fn(&LogRatios) -> Result<PreferenceLoss>) -> [f64; 2] {
    let (chosen, rejected) = (var(&[-3.0]), var(&[-5.0]));
    let policy = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let ratios = LogRatios::sums(&policy, &policy).unwrap();
    let grads = loss(&ratios).unwrap().loss.backward().unwrap();
    let of = |var: &Var| grads.get(var).map_or(0.0, |g| numbers(g)[0]);
    [of(&chosen), of(&rejected)]
}

#[test]
fn every_score_starts_with_the_slope_of_the_log_ratio_but_jensen_shannon() {
    let slope = |divergence: FDivergence, x: f64| {
        let x = var(&[x]);
        let grads = divergence.score(&x).unwrap().backward().unwrap();
        numbers(grads.get(&x).unwrap())[0]
    };
    let alpha = |alpha| FDivergence::Alpha { alpha };
    for divergence in [FDivergence::ForwardKl, alpha(0.5), alpha(1.0), alpha(-2.0)] {
        assert_close(&[slope(divergence, 0.0)], &[1.0], EXACT, "at 0");
    }
    assert_close(
        &[slope(FDivergence::JensenShannon, 0.0)],
        &[0.5],
        EXACT,
        "at 0",
    );
    assert_close(
        &[slope(FDivergence::ForwardKl, -3.0)],
        &[3f64.exp()],
        1e-11,
        "at −3",
    );
    assert_close(&[slope(alpha(0.5), -3.0)], &[1.5f64.exp()], EXACT, "at −3");
    assert!(slope(FDivergence::JensenShannon, -3.0) < 1.0);
    for x in [-2.0, 0.3] {
        let at = |d: FDivergence| numbers(&d.score(&vector(&[x])).unwrap())[0];
        assert_close(
            &[at(alpha(0.0))],
            &[at(FDivergence::ForwardKl)],
            EXACT,
            "α = 0",
        );
        assert_close(&[at(alpha(1.0 + 2e-6))], &[x], 1e-5, "α → 1");
        assert_eq!(at(alpha(1.0)), x);
    }
    let config = FDpoConfig {
        beta: 0.7,
        divergence: FDivergence::ReverseKl,
    };
    same(f_dpo_loss(&ratios(), &config), &dpo(0.7, 0.0), "f-dpo");
}

#[test]
fn the_hinge_is_slic_on_log_ratios() {
    for beta in [0.3, 2.0] {
        let slic = SlicConfig { delta: 1.0 / beta };
        let want = slic_rank_loss(ratios().scores(), &slic).unwrap().loss;
        let want: Vec<f64> = numbers(&want).iter().map(|loss| beta * loss).collect();
        same(
            hinge_dpo_loss(&ratios(), &HingeDpoConfig { beta }),
            &want,
            "hinge",
        );
    }
}

#[test]
fn hard_sppo_starts_with_the_slope_of_ipo_by_halves() {
    let (beta, hard) = (0.4, pair(&[1.0], &[0.0]));
    let sppo = first_slopes(|r| sppo_loss(r, &hard, &SppoConfig { beta }));
    let ipo = first_slopes(|r| ipo_loss(r, &IpoConfig { beta }));
    assert_close(&sppo, &[-0.5 / beta, 0.5 / beta], EXACT, "sppo");
    assert_close(&ipo, &[-1.0 / beta, 1.0 / beta], EXACT, "ipo");
    // ½x² + ½y² = ¼(x − y)² + ¼(x + y)²
    let half = numbers(
        &ipo_loss(&ratios(), &IpoConfig { beta: beta / 2.0 })
            .unwrap()
            .loss,
    );
    let scores = ratios();
    let sums = (&scores.scores().chosen + &scores.scores().rejected).unwrap();
    let want: Vec<f64> = half
        .iter()
        .zip(numbers(&sums))
        .map(|(ipo, sum)| 0.25 * ipo + 0.25 * sum * sum)
        .collect();
    let hard = pair(&[1.0; 3], &[0.0; 3]);
    same(
        sppo_loss(&ratios(), &hard, &SppoConfig { beta }),
        &want,
        "sppo",
    );
}

#[test]
fn cal_dpo_is_dpo_and_sppo_and_stops() {
    let beta = 0.4;
    let hard = pair(&[1.0; 3], &[0.0; 3]);
    let sppo = sppo_loss(&ratios(), &hard, &SppoConfig { beta }).unwrap();
    let want: Vec<f64> = dpo(1.0, 0.0)
        .iter()
        .zip(numbers(&sppo.loss))
        .map(|(dpo, sppo)| dpo + sppo)
        .collect();
    same(
        cal_dpo_loss(&ratios(), &CalDpoConfig { beta }),
        &want,
        "cal-dpo",
    );
    let first = first_slopes(|r| cal_dpo_loss(r, &CalDpoConfig { beta }));
    assert_close(&first, &[-0.5 - 1.25, 0.5 + 1.25], EXACT, "first step");
    // ρ = 1/(2β) + σ(−2ρ)
    let stop = (0..100).fold(1.0, |rho: f64, _| 1.25 + 1.0 / (1.0 + (2.0 * rho).exp()));
    let (chosen, rejected) = (var(&[stop]), var(&[-stop]));
    let policy = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let ratios = LogRatios::sums(&policy, &pair(&[0.0], &[0.0])).unwrap();
    let out = cal_dpo_loss(&ratios, &CalDpoConfig { beta }).unwrap();
    let grads = out.loss.backward().unwrap();
    for answer in [&chosen, &rejected] {
        assert_close(&numbers(grads.get(answer).unwrap()), &[0.0], EXACT, "stop");
    }
    assert!(stop > 1.25 && stop < 1.4, "{stop}");
}

#[test]
fn rebel_with_constant_rewards_is_ipo() {
    let (beta, eta) = (0.4, 0.7);
    let gap = 1.0 / (2.0 * beta * eta);
    let rewards = pair(&[gap; 3], &[0.0; 3]);
    let want = numbers(&ipo_loss(&ratios(), &IpoConfig { beta }).unwrap().loss);
    same(
        rebel_loss(&ratios(), &rewards, &RebelConfig { eta }),
        &want,
        "rebel",
    );
    let swapped = LogRatios::sums(&pair(&REJECTED, &CHOSEN), &pair(&[0.0; 3], &[0.0; 3])).unwrap();
    let plain = LogRatios::sums(&policy(), &pair(&[0.0; 3], &[0.0; 3])).unwrap();
    let want = numbers(
        &rebel_loss(&plain, &rewards, &RebelConfig { eta })
            .unwrap()
            .loss,
    );
    let rewards = pair(&[0.0; 3], &[gap; 3]);
    same(
        rebel_loss(&swapped, &rewards, &RebelConfig { eta }),
        &want,
        "exchanged",
    );
}

#[test]
fn without_flips_robust_dpo_is_dpo() {
    let config = RobustDpoConfig {
        beta: 0.7,
        flip_rate: 0.0,
    };
    same(
        robust_dpo_loss(&ratios(), &config),
        &dpo(0.7, 0.0),
        "robust",
    );
    // with flips it is the inverse of the smoothing: (1 − ε) L(z) + ε L(−z) is DPO's loss
    let epsilon = 0.2;
    let config = RobustDpoConfig {
        beta: 0.7,
        flip_rate: epsilon,
    };
    let swapped = LogRatios::sums(
        &pair(&REJECTED, &CHOSEN),
        &pair(&[-4.0, -4.9, -5.5], &[-3.1, -3.0, -6.0]),
    );
    let (a, b) = (
        numbers(&robust_dpo_loss(&ratios(), &config).unwrap().loss),
        numbers(&robust_dpo_loss(&swapped.unwrap(), &config).unwrap().loss),
    );
    let mean: Vec<f64> = a
        .iter()
        .zip(b)
        .map(|(a, b)| (1.0 - epsilon) * a + epsilon * b)
        .collect();
    assert_close(&mean, &dpo(0.7, 0.0), EXACT, "the mean over flips");
}

#[test]
fn kto_around_zero_is_apo_zero() {
    let beta = 0.7;
    let policy = Tensor::cat(&[&vector(&CHOSEN), &vector(&REJECTED)], 0).unwrap();
    let r = reference();
    let reference = Tensor::cat(&[&r.chosen, &r.rejected], 0).unwrap();
    let labels = Tensor::new(&[1u8, 1, 1, 0, 0, 0], &Device::Cpu).unwrap();
    let zero = Tensor::new(0f64, &Device::Cpu).unwrap();
    let config = KtoConfig {
        beta,
        ..Default::default()
    };
    let kto = numbers(
        &kto_loss(&policy, &reference, &labels, &zero, &config)
            .unwrap()
            .loss,
    );
    let config = ApoUnpairedConfig { beta };
    let apo = apo_zero_unpaired_loss(&policy, &reference, &labels, &config).unwrap();
    assert_close(&numbers(&apo.loss), &kto, EXACT, "unpaired");
    let want: Vec<f64> = (0..3).map(|i| kto[i] + kto[i + 3]).collect();
    same(
        apo_zero_loss(&ratios(), &ApoConfig { beta }),
        &want,
        "pairs",
    );
}

#[test]
fn a_pair_is_two_samples_of_bco() {
    let beta = 0.7;
    let policy = Tensor::cat(&[&vector(&CHOSEN), &vector(&REJECTED)], 0).unwrap();
    let r = reference();
    let reference = Tensor::cat(&[&r.chosen, &r.rejected], 0).unwrap();
    let labels = Tensor::new(&[1u8, 1, 1, 0, 0, 0], &Device::Cpu).unwrap();
    let shift = Tensor::new(0.3f64, &Device::Cpu).unwrap();
    let config = BcoConfig { beta };
    let one = numbers(
        &bco_loss(&policy, &reference, &labels, &shift, &config)
            .unwrap()
            .loss,
    );
    let want: Vec<f64> = (0..3).map(|i| one[i] + one[i + 3]).collect();
    same(bco_pair_loss(&ratios(), &shift, &config), &want, "pair");
}

fn token_losses() -> TokenLoss {
    let values = matrix(&[&[-1.0, -0.5], &[-2.0, -0.2], &[-0.1, -0.2]]);
    let tokens = TokenLogProbs::new(&values, &bits(&[&[1, 1], &[1, 1], &[1, 0]])).unwrap();
    sft_loss(&tokens, None, &SftConfig::default()).unwrap()
}

#[test]
fn without_its_likelihood_term_rpo_is_dpo() {
    let config = RpoConfig {
        beta: 0.7,
        alpha: 0.0,
        ..Default::default()
    };
    same(
        rpo_loss(&ratios(), &token_losses(), &config),
        &dpo(0.7, 0.0),
        "rpo",
    );
}

#[test]
fn without_its_likelihood_term_cpo_is_dpo_without_a_reference() {
    let config = CpoConfig {
        beta: 0.7,
        label_smoothing: 0.2,
        alpha: 0.0,
        ..Default::default()
    };
    let dpo = DpoConfig {
        beta: 0.7,
        label_smoothing: 0.2,
    };
    let want = numbers(&dpo_loss(&policy(), None, &dpo).unwrap().loss);
    same(cpo_loss(&policy(), &token_losses(), &config), &want, "cpo");
}

#[test]
fn tpo_with_the_chosen_answer_as_gold_is_cpo() {
    let config = CpoConfig {
        beta: 0.7,
        label_smoothing: 0.2,
        alpha: 0.3,
        tokens: ReferenceTokens::Mean,
    };
    let want = numbers(&cpo_loss(&policy(), &token_losses(), &config).unwrap().loss);
    let tpo = TpoConfig {
        beta: 0.7,
        label_smoothing: 0.2,
        alpha: 0.3,
        ..Default::default()
    };
    same(tpo_loss(&policy(), &token_losses(), &tpo), &want, "tpo");
    let (margin, beta) = (RequiredLead::GammaOverBeta(0.4), 1.5);
    let tpo = TpoConfig {
        beta,
        alpha: 0.0,
        margin,
        ..Default::default()
    };
    let want = simpo_loss(&policy(), &SimpoConfig { beta, margin })
        .unwrap()
        .loss;
    same(
        tpo_loss(&policy(), &token_losses(), &tpo),
        &numbers(&want),
        "tpo-l",
    );
}

#[test]
fn simpo_is_a_reward_model_with_a_margin() {
    let (beta, gamma) = (1.5, 0.6);
    let config = SimpoConfig {
        beta,
        margin: RequiredLead::Gamma(gamma),
    };
    let scores = Pair {
        chosen: (vector(&CHOSEN) * beta).unwrap(),
        rejected: (vector(&REJECTED) * beta).unwrap(),
    };
    let margin = vector(&[gamma; 3]);
    let want = pairwise_reward_loss(&scores, Some(&margin), &PairwiseRewardConfig::default());
    same(
        simpo_loss(&policy(), &config),
        &numbers(&want.unwrap().loss),
        "simpo",
    );
    let none = SimpoConfig {
        beta,
        margin: RequiredLead::Gamma(0.0),
    };
    let dpo = DpoConfig {
        beta,
        ..Default::default()
    };
    let want = numbers(&dpo_loss(&policy(), None, &dpo).unwrap().loss);
    same(simpo_loss(&policy(), &none), &want, "without a lead");
}

#[test]
fn alpha_po_becomes_simpo() {
    let simpo = numbers(&simpo_loss(&policy(), &SimpoConfig::default()).unwrap().loss);
    for (alpha, tolerance) in [(0.0, EXACT), (1e-9, 1e-6), (-1e-9, 1e-6)] {
        let config = AlphaPoConfig {
            alpha,
            ..Default::default()
        };
        let loss = numbers(&alpha_po_loss(&policy(), &config).unwrap().loss);
        assert_close(&loss, &simpo, tolerance, "alpha po");
    }
}

#[test]
fn odds_of_unlikely_answers_are_their_probabilities() {
    let means = pair(&[-40.0, -50.0], &[-41.0, -48.0]);
    let want = [logistic_loss(1.0), logistic_loss(-2.0)];
    same(odds_ratio_loss(&means), &want, "odds");
    let config = OrpoConfig {
        lambda: 0.0,
        ..Default::default()
    };
    let out = orpo_loss(&policy(), &token_losses(), &config);
    same(out, &[0.75, 1.1, 0.1], "likelihood alone");
    let equal = simper_loss(&pair(&[-0.3], &[-0.3]));
    same(equal, &[0.0], "simper");
}

#[test]
fn sorting_depends_on_the_whole_batch() {
    let config = AotConfig {
        beta: 0.7,
        label_smoothing: 0.1,
    };
    // gaps of 1, 2.1 and −3 against gaps in another order
    let other = || pair(&[-3.1, -3.0, -2.0], &[-4.0, -4.9, -5.5]);
    let whole = numbers(&aot_loss(&policy(), &other(), &config).unwrap().loss);
    let mut parts = Vec::new();
    for i in 0..3 {
        let one = |p: Pair<Tensor>| Pair {
            chosen: p.chosen.narrow(0, i, 1).unwrap(),
            rejected: p.rejected.narrow(0, i, 1).unwrap(),
        };
        let out = aot_loss(&one(policy()), &one(other()), &config).unwrap();
        parts.extend(numbers(&out.loss));
    }
    let dpo = DpoConfig {
        beta: 0.7,
        label_smoothing: 0.1,
    };
    let want = dpo_loss(&policy(), Some(&other()), &dpo).unwrap().loss;
    assert_close(&parts, &numbers(&want), EXACT, "a pair alone is DPO");
    let (a, b): (f64, f64) = (whole.iter().sum(), parts.iter().sum());
    assert!((a - b).abs() > 1e-3, "{a} {b}");
}

#[test]
fn unpaired_quantiles_do_not_read_the_pairs() {
    let config = AotConfig::default();
    let want = numbers(&aot_unpaired_loss(&ratios(), &config).unwrap().loss);
    let order = Tensor::new(&[2u32, 0, 1], &Device::Cpu).unwrap();
    let shuffled = |p: Pair<Tensor>| Pair {
        chosen: p.chosen,
        rejected: p.rejected.index_select(&order, 0).unwrap(),
    };
    let ratios = LogRatios::sums(&shuffled(policy()), &shuffled(reference())).unwrap();
    same(aot_unpaired_loss(&ratios, &config), &want, "shuffled");
}

#[test]
fn above_its_reference_a_chosen_answer_makes_dpop_dpo() {
    let above = LogRatios::sums(&policy(), &pair(&[-9.0; 3], &REJECTED)).unwrap();
    let config = DpopConfig {
        beta: 0.3,
        lambda: 7.0,
    };
    let dpo = DpoConfig {
        beta: 0.3,
        ..Default::default()
    };
    let want = numbers(&dpo_loss(above.scores(), None, &dpo).unwrap().loss);
    same(dpop_loss(&above, &config), &want, "dpop");
    let slopes = first_slopes(|r| dpop_loss(r, &config));
    assert_close(&slopes, &[-0.15, 0.15], EXACT, "at its kink, DPO's slope");
    let chosen = var(&[-1e-9]);
    let policy = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: vector(&[0.0]),
    };
    let ratios = LogRatios::sums(&policy, &pair(&[0.0], &[0.0])).unwrap();
    let grads = dpop_loss(&ratios, &config)
        .unwrap()
        .loss
        .backward()
        .unwrap();
    let slope = numbers(grads.get(&chosen).unwrap());
    assert_close(&slope, &[-0.15 * 8.0], 1e-8, "below it, 1 + λ times");
}

#[test]
fn without_divergence_tdpo_is_dpo() {
    let none = pair(&[0.0; 3], &[0.0; 3]);
    let want = dpo(0.7, 0.0);
    same(
        tdpo1_loss(&ratios(), &none, &Tdpo1Config { beta: 0.7 }),
        &want,
        "tdpo1",
    );
    let moved = pair(&[0.2, 0.1, 0.5], &[0.05, 0.3, 0.4]);
    let at = |alpha| Tdpo2Config { beta: 0.7, alpha };
    same(tdpo2_loss(&ratios(), &moved, &at(0.0)), &want, "tdpo2");
    let want = tdpo1_loss(&ratios(), &moved, &Tdpo1Config { beta: 0.7 })
        .unwrap()
        .loss;
    same(
        tdpo2_loss(&ratios(), &moved, &at(1.0)),
        &numbers(&want),
        "α = 1",
    );
    // at the first step the divergence and its gradient are 0
    let logits = Var::new(&[[[0.3f64, -1.0, 2.0]]], &Device::Cpu).unwrap();
    let kl = sequential_kl(&logits, &logits, &bits(&[&[1]])).unwrap();
    assert_close(&numbers(&kl), &[0.0], EXACT, "kl");
    let grads = kl.backward().unwrap();
    assert_close(
        &numbers(grads.get(&logits).unwrap()),
        &[0.0; 3],
        EXACT,
        "slope",
    );
}

#[test]
fn lengths_alike_change_nothing() {
    let lengths = pair(&[4.0; 3], &[4.0; 3]);
    let config = LengthNormalizedDpoConfig { beta: 0.7 * 4.0 };
    let out = length_normalized_dpo_loss(&ratios(), &lengths, &config);
    same(out, &dpo(0.7, 0.0), "length-normalized");
    let config = RDpoConfig {
        beta: 0.7,
        alpha: 0.3,
    };
    same(
        r_dpo_loss(&ratios(), &lengths, &config),
        &dpo(0.7, 0.0),
        "r-dpo",
    );

    let tokens = |values: &[&[f64]]| {
        let mask: Vec<&[u8]> = values.iter().map(|_| &[1u8, 1][..]).collect();
        TokenLogProbs::new(&matrix(values), &bits(&mask)).unwrap()
    };
    let policy = Pair {
        chosen: tokens(&[&[-1.0, -2.0]]),
        rejected: tokens(&[&[-0.5, -3.0]]),
    };
    let reference = Pair {
        chosen: tokens(&[&[-1.5, -1.0]]),
        rejected: tokens(&[&[-0.7, -2.0]]),
    };
    let config = LdDpoConfig {
        beta: 0.7,
        alpha: 0.0,
    };
    let want = [logistic_loss(0.7 * (-0.5 + 0.8))];
    same(
        ld_dpo_loss(&policy, &reference, &config),
        &want,
        "ld-dpo, two answers of one length",
    );
}

#[test]
fn lists_of_two_with_all_the_reward_on_one_are_pairs() {
    let (beta, far) = (0.7, 200.0);
    let zeros = matrix(&[&[0.0, 0.0]]);
    let nca = NcaConfig { beta, alpha: 1.0 };
    for i in 0..3 {
        let scores = ratios();
        let of = |x: &Tensor| numbers(x)[i];
        let (w, l) = (of(&scores.scores().chosen), of(&scores.scores().rejected));
        let answers = list(&[w, l], &[1.0; 2], &[far, 0.0]);
        let pairs = nca_pair_loss(&ratios(), &NcaPairConfig { beta }).unwrap();
        let got = numbers(&nca_loss(&answers, &zeros, &nca).unwrap());
        assert_close(&got, &[of(&pairs.loss)], EXACT, "nca");
        let got = numbers(&info_nca_loss(&answers, &zeros, &nca).unwrap());
        assert_close(&got, &[dpo(beta, 0.0)[i]], EXACT, "info nca");

        let epsilon: f64 = 0.1;
        let gap = ((1.0 - epsilon) / epsilon).ln();
        let answers = list(&[w, l], &[1.0; 2], &[gap * 0.5, 0.0]);
        let config = ExoListConfig {
            beta,
            reward_beta: 0.5,
        };
        let got = numbers(&exo_loss(&answers, &zeros, &config).unwrap());
        let config = ExoConfig {
            beta,
            label_smoothing: epsilon,
        };
        let pairs = exo_pair_loss(&ratios(), &config).unwrap();
        assert_close(&got, &[of(&pairs.loss)], EXACT, "exo");
    }
}

#[test]
fn online_dpo_orders_its_own_pairs() {
    let stacked = |p: Pair<Tensor>| Tensor::stack(&[&p.chosen, &p.rejected], 1).unwrap();
    let config = OnlineDpoConfig {
        beta: 0.7,
        ..Default::default()
    };
    let scores = matrix(&[&[1.0, 0.0], &[0.2, 0.1], &[3.0, -3.0]]);
    let (first, second) = (stacked(policy()), stacked(reference()));
    same(
        online_dpo_loss(&first, &second, &scores, &config),
        &dpo(0.7, 0.0),
        "ordered",
    );
    let turned = |x: &Tensor| {
        let order = Tensor::new(&[1u32, 0], &Device::Cpu).unwrap();
        x.index_select(&order, 1).unwrap()
    };
    let out = online_dpo_loss(&turned(&first), &turned(&second), &turned(&scores), &config);
    same(out, &dpo(0.7, 0.0), "exchanged");
}

#[test]
fn without_its_bonus_xpo_is_dpo() {
    let config = XpoConfig {
        beta: 0.7,
        alpha: 0.0,
    };
    let drawn = vector(&[f64::NEG_INFINITY, -2.0, -3.0]);
    same(xpo_loss(&ratios(), &drawn, &config), &dpo(0.7, 0.0), "xpo");
    same(
        spin_loss(&ratios(), &SpinConfig { beta: 0.7 }),
        &dpo(0.7, 0.0),
        "spin",
    );
}

#[test]
fn a_single_token_pays_alike_under_both_credits() {
    let slopes = |values: &[f64], mask: &[u8], credit| {
        let policy = Var::from_tensor(&matrix(&[values])).unwrap();
        let tokens = TokenLogProbs::new(&policy, &bits(&[mask])).unwrap();
        let reference = TokenLogProbs::new(&matrix(&[&[-1.5, -0.2]]), &bits(&[mask])).unwrap();
        let config = NashMdConfig { beta: 0.3, credit };
        let loss = nash_md_loss(&tokens, &reference, &vector(&[0.9]), &config).unwrap();
        numbers(loss.backward().unwrap().get(&policy).unwrap())
    };
    for (mask, alike) in [([1, 0], true), ([1, 1], false)] {
        let of = |credit| slopes(&[-1.0, -2.0], &mask, credit);
        let (answer, token) = (of(KlCredit::Answer), of(KlCredit::Token));
        assert_eq!(answer == token, alike, "{answer:?} {token:?}");
    }
    let want = [0.3 * (0.5 - 1.8) - 0.4; 2];
    assert_close(
        &slopes(&[-1.0, -2.0], &[1, 1], KlCredit::Answer),
        &want,
        EXACT,
        "answer",
    );
    let want = [0.3 * 0.5 - 0.4, 0.3 * -1.8 - 0.4];
    assert_close(
        &slopes(&[-1.0, -2.0], &[1, 1], KlCredit::Token),
        &want,
        EXACT,
        "token",
    );
}

#[test]
fn reward_models_since_are_the_ones_before_at_the_edges() {
    let scores = policy();
    let plain = numbers(
        &pairwise_reward_loss(&scores, None, &Default::default())
            .unwrap()
            .loss,
    );
    let config = SmoothedRewardConfig {
        label_smoothing: 0.0,
    };
    same(
        smoothed_reward_loss(&scores, &config),
        &plain,
        "without smoothing",
    );
    let config = SmoothedRewardConfig {
        label_smoothing: 0.2,
    };
    let dpo = DpoConfig {
        beta: 1.0,
        label_smoothing: 0.2,
    };
    let want = numbers(&dpo_loss(&scores, None, &dpo).unwrap().loss);
    same(smoothed_reward_loss(&scores, &config), &want, "smoothed");
    let config = GrmConfig {
        weight: 0.0,
        ..Default::default()
    };
    same(
        grm_loss(&scores, &reference(), None, &config),
        &plain,
        "grm",
    );

    let (s, labels) = (vector(&CHOSEN), vector(&[1.0, 0.0, 0.3]));
    let outcome = numbers(&outcome_reward_loss(&s, &labels).unwrap());
    let wide = |x: &Tensor| x.unsqueeze(1).unwrap();
    let process = process_reward_loss(&wide(&s), &wide(&labels), &bits(&[&[1], &[1], &[1]]));
    assert_close(
        &numbers(&process.unwrap().loss),
        &outcome,
        EXACT,
        "one step",
    );

    let mask = bits(&[&[1, 1], &[1, 0]]);
    let policy = TokenLogProbs::new(&matrix(&[&[-1.0, -2.0], &[-0.4, 9.0]]), &mask).unwrap();
    let old = TokenLogProbs::new(&matrix(&[&[-1.5, -0.2], &[-0.9, 9.0]]), &mask).unwrap();
    let config = ImplicitRewardConfig { beta: 0.4 };
    let labels = vector(&[1.0, 0.0]);
    let out = implicit_reward_loss(&policy, &old, &labels, &config).unwrap();
    let want = outcome_reward_loss(&out.rewards.sum(1).unwrap(), &labels).unwrap();
    assert_close(&numbers(&out.loss), &numbers(&want), EXACT, "implicit");
    let zero = Tensor::new(0f64, &Device::Cpu).unwrap();
    let hard = Tensor::new(&[1u8, 0], &Device::Cpu).unwrap();
    let (a, b) = (policy.sum().unwrap(), old.sum().unwrap());
    let bco = bco_loss(&a, &b, &hard, &zero, &BcoConfig { beta: 0.4 }).unwrap();
    assert_close(
        &numbers(&out.loss),
        &numbers(&bco.loss),
        EXACT,
        "bco without a shift",
    );

    // without a third word both shares agree
    let of = |p: f64| vector(&[p.ln()]);
    let score = |share| numbers(&verdict_score(&of(0.3), &of(0.7), share).unwrap())[0];
    let (all, two) = (
        score(VerdictShare::AllWords),
        score(VerdictShare::TwoVerdicts),
    );
    assert_close(&[all], &[two], EXACT, "verdict");
}
