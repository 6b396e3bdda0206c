//! The preference objectives since the survey: each value is its equation with the numbers in it.

use crate::common::lists::{list, pair};
use crate::common::{
    EXACT, assert_close, bits, logistic_loss, matrix, numbers, sigma, var, vector,
};
use candle_align::online::reward_models::{
    GrmAuxiliary, GrmConfig, ImplicitRewardConfig, SmoothedRewardConfig, VerdictShare, grm_loss,
    implicit_reward_loss, outcome_reward_loss, process_reward_loss, smoothed_reward_loss,
    verdict_score,
};
use candle_align::ranking::*;
use candle_align::{
    Pair, PreferenceLoss, Result, SftConfig, Statistics, TokenLogProbs, TokenLoss, sft_loss,
};
use candle_core::{DType, Device, Tensor, Var};

/// Two pairs whose log-ratios are −0.4 and 0.3 (chosen), −0.5 and 0.1 (rejected).
const CHOSEN: [f64; 2] = [-0.4, 0.3];
const REJECTED: [f64; 2] = [-0.5, 0.1];

fn ratios() -> LogRatios {
    let policy = pair(&[-3.5, -2.7], &[-4.5, -4.8]);
    let reference = pair(&[-3.1, -3.0], &[-4.0, -4.9]);
    LogRatios::sums(&policy, &reference).unwrap()
}

fn two(of: impl Fn(f64, f64) -> f64) -> [f64; 2] {
    [of(CHOSEN[0], REJECTED[0]), of(CHOSEN[1], REJECTED[1])]
}

/// The losses, and the rewards beside them.
#[track_caller]
fn check(out: Result<PreferenceLoss>, want: [f64; 2], reward: impl Fn(f64) -> f64, what: &str) {
    let out = out.unwrap();
    assert_close(&numbers(&out.loss), &want, EXACT, what);
    let rewards = |scores: [f64; 2]| scores.map(&reward);
    assert_close(&numbers(&out.rewards.chosen), &rewards(CHOSEN), EXACT, what);
    assert_close(
        &numbers(&out.rewards.rejected),
        &rewards(REJECTED),
        EXACT,
        what,
    );
    assert!(!out.rewards.chosen.track_op(), "{what}");
}

#[test]
fn log_ratios_say_whether_they_are_sums_or_means() {
    let lengths = pair(&[4.0, 2.0], &[2.0, 5.0]);
    let sums = ratios();
    assert_close(&numbers(&sums.scores().chosen), &CHOSEN, EXACT, "sums");
    let means = sums.per_token(&lengths).unwrap();
    assert_close(
        &numbers(&means.scores().chosen),
        &[-0.1, 0.15],
        EXACT,
        "means",
    );
    assert_close(
        &numbers(&means.scores().rejected),
        &[-0.25, 0.02],
        EXACT,
        "means",
    );
    let half = means.rewards(0.5).unwrap();
    assert_close(&numbers(&half.chosen), &[-0.05, 0.075], EXACT, "rewards");
}

#[test]
fn scores_of_divergences() {
    let score =
        |divergence: FDivergence, x: f64| numbers(&divergence.score(&vector(&[x])).unwrap())[0];
    for x in [-2.0, -1e-9, 0.0, 0.7, 30.0] {
        assert_eq!(score(FDivergence::ReverseKl, x), x);
        let forward = score(FDivergence::ForwardKl, x);
        assert!(
            (forward + (-x).exp_m1()).abs() <= 4e-15 * forward.abs(),
            "{x}: {forward}"
        );
        let js = score(FDivergence::JensenShannon, x);
        assert_close(&[js], &[2f64.ln() - logistic_loss(x)], EXACT, "js");
        let alpha = score(FDivergence::Alpha { alpha: 0.3 }, x);
        assert!(
            (alpha + (-0.7 * x).exp_m1() / 0.7).abs() <= 4e-15 * alpha.abs().max(1.0),
            "{x}"
        );
    }
    // the exponent stops, the slope does not
    for (dtype, largest) in [(DType::F64, 700.0), (DType::F32, 80.0)] {
        let far = Var::new(&[-1e4f64], &Device::Cpu).unwrap();
        let x = far.to_dtype(dtype).unwrap();
        let loss = FDivergence::ForwardKl.score(&x).unwrap();
        let slope = numbers(loss.backward().unwrap().get(&far).unwrap())[0];
        assert!((slope.ln() - largest).abs() < 1e-3, "{slope}");
    }
}

#[test]
fn difference_losses() {
    let r = ratios();
    check(
        ipo_loss(&r, &IpoConfig { beta: 0.2 }),
        two(|w, l| (w - l - 2.5).powi(2)),
        |x| 0.2 * x,
        "ipo",
    );
    let config = FDpoConfig {
        beta: 0.7,
        divergence: FDivergence::ForwardKl,
    };
    let forward = |x: f64| 1.0 - (-x).exp();
    let want = two(|w, l| logistic_loss(0.7 * (forward(w) - forward(l))));
    check(f_dpo_loss(&r, &config), want, |x| 0.7 * forward(x), "f-dpo");
    let config = RobustDpoConfig {
        beta: 0.7,
        flip_rate: 0.2,
    };
    let robust = |z: f64| (0.8 * logistic_loss(z) - 0.2 * logistic_loss(-z)) / 0.6;
    check(
        robust_dpo_loss(&r, &config),
        two(|w, l| robust(0.7 * (w - l))),
        |x| 0.7 * x,
        "robust",
    );
    let hinge = hinge_dpo_loss(&r, &HingeDpoConfig { beta: 6.0 });
    check(
        hinge,
        two(|w, l| (1.0 - 6.0 * (w - l)).max(0.0)),
        |x| 6.0 * x,
        "hinge",
    );
    let exo = |z: f64| {
        let q = sigma(z);
        q * (q / 0.9).ln() + (1.0 - q) * ((1.0 - q) / 0.1).ln()
    };
    let config = ExoConfig {
        beta: 0.7,
        label_smoothing: 0.1,
    };
    check(
        exo_pair_loss(&r, &config),
        two(|w, l| exo(0.7 * (w - l))),
        |x| 0.7 * x,
        "exo",
    );
    let config = DiscopopConfig {
        beta: 0.7,
        tau: 0.3,
    };
    let discopop = |z: f64| (1.0 - sigma(z / 0.3)) * logistic_loss(z) + sigma(z / 0.3) * (-z).exp();
    check(
        discopop_loss(&r, &config),
        two(|w, l| discopop(0.7 * (w - l))),
        |x| 0.7 * x,
        "discopop",
    );
    check(
        spin_loss(&r, &SpinConfig { beta: 0.7 }),
        two(|w, l| logistic_loss(0.7 * (w - l))),
        |x| 0.7 * x,
        "spin",
    );
}

#[test]
fn losses_with_lengths() {
    let (r, lengths) = (ratios(), pair(&[4.0, 2.0], &[2.0, 5.0]));
    let config = LengthNormalizedDpoConfig { beta: 3.0 };
    let out = length_normalized_dpo_loss(&r, &lengths, &config).unwrap();
    let want = [
        logistic_loss(3.0 * (-0.1 + 0.25)),
        logistic_loss(3.0 * (0.15 - 0.02)),
    ];
    assert_close(&numbers(&out.loss), &want, EXACT, "length-normalized");
    let out = r_dpo_loss(
        &r,
        &lengths,
        &RDpoConfig {
            beta: 0.5,
            alpha: 0.1,
        },
    )
    .unwrap();
    let want = [logistic_loss(0.05 + 0.2), logistic_loss(0.1 - 0.3)];
    assert_close(&numbers(&out.loss), &want, EXACT, "r-dpo");
    assert_close(
        &numbers(&out.rewards.chosen),
        &[-0.2 + 0.4, 0.15 + 0.2],
        EXACT,
        "r-dpo",
    );
}

#[test]
fn losses_of_each_answer() {
    let r = ratios();
    let nca = |w: f64, l: f64| {
        logistic_loss(0.7 * w) + 0.5 * logistic_loss(-0.7 * w) + 0.5 * logistic_loss(-0.7 * l)
    };
    check(
        nca_pair_loss(&r, &NcaPairConfig { beta: 0.7 }),
        two(nca),
        |x| 0.7 * x,
        "nca",
    );
    let zero = |w: f64, l: f64| 1.0 - sigma(0.7 * w) + sigma(0.7 * l);
    check(
        apo_zero_loss(&r, &ApoConfig { beta: 0.7 }),
        two(zero),
        |x| 0.7 * x,
        "apo zero",
    );
    let down = |w: f64, l: f64| sigma(0.7 * w) + 1.0 - sigma(0.7 * (w - l));
    check(
        apo_down_loss(&r, &ApoConfig { beta: 0.7 }),
        two(down),
        |x| 0.7 * x,
        "apo down",
    );
    let shift = Tensor::new(0.2f64, &Device::Cpu).unwrap();
    let bco = |w: f64, l: f64| logistic_loss(0.7 * w - 0.2) + logistic_loss(-0.7 * l + 0.2);
    check(
        bco_pair_loss(&r, &shift, &BcoConfig { beta: 0.7 }),
        two(bco),
        |x| 0.7 * x,
        "bco pair",
    );
    let wins = pair(&[0.9, 0.9], &[0.3, 0.3]);
    let sppo = |w: f64, l: f64| 0.5 * (w - 0.8).powi(2) + 0.5 * (l + 0.4).powi(2);
    check(
        sppo_loss(&r, &wins, &SppoConfig { beta: 0.5 }),
        two(sppo),
        |x| 0.5 * x,
        "sppo",
    );
    let cal =
        |w: f64, l: f64| logistic_loss(w - l) + 0.5 * (w - 1.25).powi(2) + 0.5 * (l + 1.25).powi(2);
    check(
        cal_dpo_loss(&r, &CalDpoConfig { beta: 0.4 }),
        two(cal),
        |x| 0.4 * x,
        "cal-dpo",
    );
    assert_eq!(CalDpoConfig::default().beta, 0.002);
    let rewards = pair(&[1.0, 0.2], &[0.5, 0.6]);
    let out = rebel_loss(&r, &rewards, &RebelConfig { eta: 2.0 }).unwrap();
    let want = [(0.1f64 - 1.0).powi(2), (0.2f64 + 0.8).powi(2)];
    assert_close(&numbers(&out.loss), &want, EXACT, "rebel");
    assert_close(&numbers(&out.rewards.chosen), &[-0.2, 0.15], EXACT, "rebel");
}

#[test]
fn the_numbers_of_the_defaults() {
    let mean = |out: Result<PreferenceLoss>| numbers(&out.unwrap().loss.mean_all().unwrap())[0];
    let r = ratios();
    // the same two pairs under TRL 1.16 in f32; `golden/since.rs` has it in f64
    for (got, want) in [
        (mean(hinge_dpo_loss(&r, &HingeDpoConfig::default())), 0.985),
        (
            mean(nca_pair_loss(&r, &NcaPairConfig::default())),
            1.38285995,
        ),
        (
            mean(robust_dpo_loss(&r, &RobustDpoConfig::default())),
            0.68380344,
        ),
        (mean(apo_zero_loss(&r, &ApoConfig::default())), 0.99625093),
        (mean(apo_down_loss(&r, &ApoConfig::default())), 0.99500048),
        (
            mean(discopop_loss(&r, &DiscopopConfig::default())),
            0.85757875,
        ),
        (
            mean(f_dpo_loss(
                &r,
                &FDpoConfig {
                    divergence: FDivergence::ForwardKl,
                    ..Default::default()
                },
            )),
            0.68515646,
        ),
        (
            mean(f_dpo_loss(
                &r,
                &FDpoConfig {
                    divergence: FDivergence::JensenShannon,
                    ..Default::default()
                },
            )),
            0.68937701,
        ),
        (
            mean(f_dpo_loss(
                &r,
                &FDpoConfig {
                    divergence: FDivergence::Alpha { alpha: 0.5 },
                    ..Default::default()
                },
            )),
            0.68552029,
        ),
    ] {
        assert!((got - want).abs() < 2e-7, "{got} {want}");
    }
    let lengths = pair(&[4.0, 2.0], &[3.0, 4.0]);
    let means = r.per_token(&lengths).unwrap();
    assert!((mean(ipo_loss(&means, &IpoConfig::default())) - 24.0517006).abs() < 2e-5);
    let divergences = pair(&[0.2, 0.1], &[0.05, 0.3]);
    for (got, want) in [
        (
            mean(tdpo1_loss(&r, &divergences, &Tdpo1Config::default())),
            0.68693624,
        ),
        (
            mean(tdpo2_loss(&r, &divergences, &Tdpo2Config::default())),
            0.68629757,
        ),
        (
            mean(dpop_loss(
                &r,
                &DpopConfig {
                    lambda: 5.0,
                    ..Default::default()
                },
            )),
            0.73792505,
        ),
        (
            mean(r_dpo_loss(
                &r,
                &lengths,
                &RDpoConfig {
                    alpha: 0.05,
                    ..Default::default()
                },
            )),
            0.69877204,
        ),
        (
            mean(simper_loss(&pair(&[-0.875, -1.35], &[-1.5, -1.2]))),
            -0.07588895,
        ),
        (
            mean(simpo_loss(
                &pair(&[-0.875, -1.35], &[-1.5, -1.2]),
                &SimpoConfig {
                    margin: RequiredLead::Gamma(0.5),
                    ..Default::default()
                },
            )),
            0.77898584,
        ),
        (
            mean(simpo_loss(
                &pair(&[-0.875, -1.35], &[-1.5, -1.2]),
                &SimpoConfig::default(),
            )),
            1.05847394,
        ),
    ] {
        assert!((got - want).abs() < 6e-9, "{got} {want}");
    }
}

#[test]
fn lists_against_a_reference() {
    let log_ratios = [0.3, -0.1, 0.2, -0.4];
    let answers = list(&log_ratios, &[1.0; 4], &[1.0, 0.2, 0.5, -0.3]);
    let zeros = matrix(&[&[0.0; 4]]);
    let nca = NcaConfig {
        beta: 0.1,
        alpha: 0.5,
    };
    let exo = ExoListConfig {
        beta: 0.1,
        reward_beta: 0.5,
    };
    for (got, want) in [
        (info_nca_loss(&answers, &zeros, &nca), 1.36698030),
        (nca_loss(&answers, &zeros, &nca), 1.37663440),
        (exo_loss(&answers, &zeros, &exo), 0.38634725),
    ] {
        assert!((numbers(&got.unwrap())[0] - want).abs() < 6e-9);
    }
}

fn token_losses() -> TokenLoss {
    let values = matrix(&[&[-1.0, -0.5, -7.0], &[-2.0, -0.2, -0.3]]);
    let tokens = TokenLogProbs::new(&values, &bits(&[&[1, 1, 0], &[1, 1, 1]])).unwrap();
    sft_loss(&tokens, None, &SftConfig::default()).unwrap()
}

#[test]
fn likelihood_terms_are_sums_or_means() {
    let (r, chosen) = (ratios(), token_losses());
    let (sums, means) = ([1.5, 2.5], [0.75, 2.5 / 3.0]);
    for (tokens, nll) in [(ReferenceTokens::Sum, sums), (ReferenceTokens::Mean, means)] {
        let config = RpoConfig {
            beta: 0.7,
            alpha: 0.3,
            tokens,
        };
        let dpo = two(|w, l| logistic_loss(0.7 * (w - l)));
        let want = [dpo[0] + 0.3 * nll[0], dpo[1] + 0.3 * nll[1]];
        check(rpo_loss(&r, &chosen, &config), want, |x| 0.7 * x, "rpo");

        let policy = pair(&[-3.5, -2.7], &[-4.5, -4.8]);
        let config = CpoConfig {
            beta: 0.7,
            label_smoothing: 0.2,
            alpha: 0.3,
            tokens,
        };
        let smoothed = |z: f64| 0.8 * logistic_loss(z) + 0.2 * logistic_loss(-z);
        let want = [
            smoothed(0.7) + 0.3 * nll[0],
            smoothed(0.7 * 2.1) + 0.3 * nll[1],
        ];
        let out = cpo_loss(&policy, &chosen, &config).unwrap();
        assert_close(&numbers(&out.loss), &want, EXACT, "cpo");
        let config = TpoConfig {
            beta: 0.7,
            label_smoothing: 0.2,
            alpha: 0.3,
            margin: RequiredLead::GammaOverBeta(0.5),
            tokens,
        };
        let want = [
            smoothed(0.7 * 0.5) + 0.3 * nll[0],
            smoothed(0.7 * 1.6) + 0.3 * nll[1],
        ];
        let out = tpo_loss(&policy, &chosen, &config).unwrap();
        assert_close(&numbers(&out.loss), &want, EXACT, "tpo");

        let means = pair(&[-0.75, -0.9], &[-1.2, -0.4]);
        let odds = |x: f64| x.exp() / (1.0 - x.exp());
        let lost = |w: f64, l: f64| logistic_loss((odds(w) / odds(l)).ln());
        let want = [
            nll[0] + 0.3 * lost(-0.75, -1.2),
            nll[1] + 0.3 * lost(-0.9, -0.4),
        ];
        let out = orpo_loss(
            &means,
            &chosen,
            &OrpoConfig {
                lambda: 0.3,
                tokens,
            },
        )
        .unwrap();
        assert_close(&numbers(&out.loss), &want, EXACT, "orpo");
    }
}

#[test]
fn equal_means_have_equal_odds() {
    for mean in [-1e-9, -0.3, -4.0, -1e3] {
        let loss = odds_ratio_loss(&pair(&[mean], &[mean])).unwrap().loss;
        assert_close(&numbers(&loss), &[2f64.ln()], EXACT, "odds");
    }
    let config = OrpoConfig {
        lambda: 0.0,
        ..Default::default()
    };
    let loss = orpo_loss(
        &pair(&[-1.0, -2.0], &[-1.0, -2.0]),
        &token_losses(),
        &config,
    )
    .unwrap();
    assert_close(
        &numbers(&loss.loss),
        &[0.75, 2.5 / 3.0],
        EXACT,
        "likelihood alone",
    );
}

#[test]
fn a_lead_is_gamma_or_gamma_over_beta() {
    let means = pair(&[-0.8], &[-1.5]);
    let loss = |margin| {
        let out = simpo_loss(&means, &SimpoConfig { beta: 4.0, margin }).unwrap();
        numbers(&out.loss)[0]
    };
    let want = logistic_loss(4.0 * 0.7 - 0.3);
    assert_close(&[loss(RequiredLead::Gamma(0.3))], &[want], EXACT, "gamma");
    assert_close(
        &[loss(RequiredLead::GammaOverBeta(0.075))],
        &[want],
        EXACT,
        "ratio",
    );
    let config = AlphaPoConfig {
        beta: 4.0,
        alpha: -0.5,
        margin: RequiredLead::Gamma(0.3),
    };
    let reward = |x: f64| (1.0 - (0.5 * x).exp()) / -0.5;
    let want = logistic_loss(4.0 * (reward(-0.8) - reward(-1.5)) - 0.3);
    let out = alpha_po_loss(&means, &config).unwrap();
    assert_close(&numbers(&out.loss), &[want], EXACT, "alpha po");
    assert_close(
        &numbers(&out.rewards.chosen),
        &[4.0 * reward(-0.8)],
        EXACT,
        "alpha po",
    );
}

#[test]
fn simper_hardly_moves_an_unlikely_answer() {
    let (chosen, rejected) = (var(&[-1.0, -10.0]), var(&[-2.0, -2.0]));
    let means = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let out = simper_loss(&means).unwrap();
    let want = [
        (-2f64).exp() - (-1f64).exp(),
        (-2f64).exp() - (-10f64).exp(),
    ];
    assert_close(&numbers(&out.loss), &want, EXACT, "simper");
    let grads = out.loss.backward().unwrap();
    let slopes = [-(-1f64).exp(), -(-10f64).exp()];
    assert_close(
        &numbers(grads.get(&chosen).unwrap()),
        &slopes,
        EXACT,
        "slope",
    );
}

#[test]
fn quantiles_are_compared_in_order() {
    let policy = pair(&[-3.0, -1.0, -2.0], &[-5.0, -2.0, -2.5]);
    let reference = pair(&[-3.0, -2.0, -2.0], &[-4.0, -2.1, -5.0]);
    let config = AotConfig {
        beta: 0.7,
        label_smoothing: 0.2,
    };
    let smoothed = |z: f64| 0.8 * logistic_loss(z) + 0.2 * logistic_loss(-z);
    // gaps 2, 1, 0.5 against 1, 0.1, 3
    let want = [0.5 - 0.1, 0.0, 2.0 - 3.0].map(|gap| smoothed(0.7 * gap));
    let out = aot_loss(&policy, &reference, &config).unwrap();
    assert_close(&numbers(&out.loss), &want, EXACT, "aot");
    assert_close(
        &numbers(&out.rewards.chosen),
        &[0.0, 0.7, 0.0],
        EXACT,
        "rewards",
    );
    // 0, 1, 0 against −1, 0.1, 2.5
    let ratios = LogRatios::sums(&policy, &reference).unwrap();
    let want = [0.0 + 1.0, 0.0 - 0.1, 1.0 - 2.5].map(|gap| smoothed(0.7 * gap));
    let out = aot_unpaired_loss(&ratios, &config).unwrap();
    assert_close(&numbers(&out.loss), &want, EXACT, "aot unpaired");
}

#[test]
fn the_chosen_answer_pays_for_falling_below_its_reference() {
    let out = dpop_loss(
        &ratios(),
        &DpopConfig {
            beta: 0.7,
            lambda: 3.0,
        },
    );
    let want = [logistic_loss(0.7 * (0.1 - 1.2)), logistic_loss(0.7 * 0.2)];
    check(out, want, |x| 0.7 * x, "dpop");
}

#[test]
fn divergences_of_whole_answers_enter_the_margin() {
    let divergences = pair(&[0.2, 0.1], &[0.05, 0.3]);
    let want = [logistic_loss(0.7 * (0.1 + 0.15)), 2f64.ln()];
    check(
        tdpo1_loss(&ratios(), &divergences, &Tdpo1Config { beta: 0.7 }),
        want,
        |x| 0.7 * x,
        "tdpo1",
    );
    let config = Tdpo2Config {
        beta: 0.7,
        alpha: 2.0,
    };
    let want = [
        logistic_loss(0.7 * (0.1 + 0.3)),
        logistic_loss(0.7 * (0.2 - 0.4)),
    ];
    check(
        tdpo2_loss(&ratios(), &divergences, &config),
        want,
        |x| 0.7 * x,
        "tdpo2",
    );

    // ½, ½ against ¾, ¼ at two positions, one of which counts
    let policy = Tensor::new(&[[[0.0f64, 0.0], [f64::NAN, 1.0]]], &Device::Cpu).unwrap();
    let reference = Tensor::new(&[[[3f64.ln(), 0.0], [1.0, 5.0]]], &Device::Cpu).unwrap();
    let kl = sequential_kl(&policy, &reference, &bits(&[&[1, 0]])).unwrap();
    let want = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
    assert_close(&numbers(&kl), &[want], EXACT, "kl");
    let excluded = Tensor::new(&[[[0.0f64, f64::NEG_INFINITY]]], &Device::Cpu).unwrap();
    let kl = sequential_kl(&excluded, &excluded, &bits(&[&[1]])).unwrap();
    assert_close(&numbers(&kl), &[0.0], EXACT, "a symbol that both exclude");
}

fn tokens(values: &[&[f64]], mask: &[&[u8]]) -> TokenLogProbs {
    TokenLogProbs::new(&matrix(values), &bits(mask)).unwrap()
}

#[test]
fn tokens_beyond_the_shorter_answer_weigh_less() {
    let answers = Pair {
        chosen: tokens(
            &[&[9.0, -1.0, -0.5, -2.0], &[-1.0, -0.5, 9.0, -2.0]],
            &[&[0, 1, 1, 1], &[1, 1, 0, 1]],
        ),
        rejected: tokens(&[&[-3.0, 9.0], &[-3.0, -1.5]], &[&[1, 0], &[1, 1]]),
    };
    let sums = length_desensitized_sums(&answers, 0.25).unwrap();
    assert_close(
        &numbers(&sums.chosen),
        &[-1.0 - 0.625, -1.5 - 0.5],
        EXACT,
        "chosen",
    );
    assert_close(&numbers(&sums.rejected), &[-3.0, -4.5], EXACT, "rejected");
    let reference = Pair {
        chosen: answers.chosen.detach(),
        rejected: answers.rejected.detach(),
    };
    let out = ld_dpo_loss(&answers, &reference, &LdDpoConfig::default()).unwrap();
    assert_close(
        &numbers(&out.loss),
        &[2f64.ln(); 2],
        EXACT,
        "an untouched policy",
    );
}

#[test]
fn wpo_weighs_a_pair_by_what_the_policy_would_write() {
    let statistics = Statistics {
        log_collision: true,
        ..Default::default()
    };
    let answer = |logits: [[f64; 2]; 3], tokens: [u32; 3], mask: [u8; 3]| {
        TokenLogProbs::next_token_with(
            &Tensor::new(&[logits], &Device::Cpu).unwrap(),
            &Tensor::new(&[tokens], &Device::Cpu).unwrap(),
            &Tensor::new(&[mask], &Device::Cpu).unwrap(),
            statistics,
        )
        .unwrap()
    };
    let peaked = [3f64.ln(), 0.0];
    let uniform = Pair {
        chosen: answer([[0.0; 2]; 3], [0, 1, 1], [0, 1, 1]),
        rejected: answer([[0.0; 2]; 3], [0, 0, 1], [0, 1, 0]),
    };
    let weight = |pair: &Pair<TokenLogProbs>, largest| {
        numbers(&wpo_weights(pair, &WpoConfig { largest }).unwrap())[0]
    };
    assert_close(&[weight(&uniform, None)], &[1.0], EXACT, "a uniform policy");
    let likely = Pair {
        chosen: answer([peaked; 3], [0, 0, 0], [0, 1, 1]),
        rejected: answer([peaked; 3], [0, 0, 1], [0, 1, 1]),
    };
    // ¾ or ¼ over Σ p² = 10/16, the geometric mean of each answer
    let (a, b): (f64, f64) = (0.75 / 0.625, 0.25 / 0.625);
    assert_close(
        &[weight(&likely, None)],
        &[a * (a * b).sqrt()],
        EXACT,
        "weight",
    );
    let often = Pair {
        chosen: likely.chosen.clone(),
        rejected: likely.chosen.clone(),
    };
    assert_close(&[weight(&often, Some(1.0))], &[1.0], EXACT, "capped");
    assert_close(&[weight(&often, None)], &[a * a], EXACT, "not capped");
}

#[test]
fn unpaired_answers_have_a_baseline() {
    let (policy, reference) = (vector(&[-3.5, -2.7]), vector(&[-3.1, -3.0]));
    // any label but 0 is desirable
    let labels = Tensor::new(&[16u8, 0], &Device::Cpu).unwrap();
    let baseline = kto_baseline(&vector(&[-2.0, -3.0]), &vector(&[-2.5, -3.1])).unwrap();
    assert_close(&numbers(&baseline), &[0.3], EXACT, "baseline");
    let below = kto_baseline(&vector(&[-3.0]), &vector(&[-2.5])).unwrap();
    assert_close(&numbers(&below), &[0.0], EXACT, "below 0");
    // the mean is cut, not each answer
    let mixed = kto_baseline(&vector(&[-2.0, -3.4]), &vector(&[-3.0, -3.0])).unwrap();
    assert_close(&numbers(&mixed), &[0.3], EXACT, "mixed");
    let trained = var(&[-2.0, -3.0]);
    let constant = kto_baseline(&trained, &vector(&[-2.5, -3.1])).unwrap();
    assert!(!constant.track_op(), "a constant");
    let nothing = kto_baseline(&vector(&[]), &vector(&[])).unwrap();
    assert_close(&numbers(&nothing), &[0.0], EXACT, "of nothing");
    let config = KtoConfig {
        beta: 0.7,
        desirable_weight: 1.5,
        undesirable_weight: 0.5,
    };
    let out = kto_loss(&policy, &reference, &labels, &baseline, &config).unwrap();
    let want = [1.5 * (1.0 - sigma(0.7 * (-0.4 - 0.3))), 0.5 * 0.5];
    assert_close(&numbers(&out.loss), &want, EXACT, "kto");
    assert_close(&numbers(&out.rewards), &[-0.28, 0.21], EXACT, "rewards");
    let config = ApoUnpairedConfig { beta: 0.7 };
    let out = apo_zero_unpaired_loss(&policy, &reference, &labels, &config).unwrap();
    assert_close(
        &numbers(&out.loss),
        &[1.0 - sigma(-0.28), sigma(0.21)],
        EXACT,
        "apo",
    );
    let shift = Tensor::new(0.2f64, &Device::Cpu).unwrap();
    let out = bco_loss(
        &policy,
        &reference,
        &labels,
        &shift,
        &BcoConfig { beta: 0.7 },
    )
    .unwrap();
    let want = [logistic_loss(-0.28 - 0.2), logistic_loss(0.2 - 0.21)];
    assert_close(&numbers(&out.loss), &want, EXACT, "bco");
}

#[test]
fn the_shift_is_the_mean_of_all_rewards() {
    let mut whole = RewardShift::default();
    whole.update(&vector(&[0.2, 0.4, 0.9, 0.1])).unwrap();
    let mut parts = RewardShift::default();
    for part in [&[0.2][..], &[], &[0.4, 0.9], &[0.1]] {
        parts.update(&vector(part)).unwrap();
    }
    assert!((whole.mean - 0.4).abs() < EXACT && (parts.mean - 0.4).abs() < EXACT);
    assert_eq!((whole.count, parts.count), (4, 4));
    parts.update(&vector(&[f64::NAN])).unwrap_err();
    assert_eq!(parts.count, 4);
    assert_close(
        &numbers(&whole.tensor(&vector(&[0.0])).unwrap()),
        &[0.4],
        EXACT,
        "tensor",
    );
}

#[test]
fn own_answers_are_ordered_by_their_scores() {
    let policy = matrix(&[&[-3.5, -4.5], &[-2.7, -4.8], &[-1.0, -1.0]]);
    let reference = matrix(&[&[-3.1, -4.0], &[-3.0, -4.9], &[-1.5, -1.2]]);
    let scores = matrix(&[&[0.1, 0.7], &[0.9, 0.7], &[0.4, 0.4]]);
    let loss = |ties| {
        let out = online_dpo_loss(
            &policy,
            &reference,
            &scores,
            &OnlineDpoConfig { beta: 0.7, ties },
        );
        numbers(&out.unwrap().loss)
    };
    let (first, second) = (logistic_loss(0.7 * -0.1), logistic_loss(0.7 * 0.2));
    assert_close(
        &loss(TiedScores::Skip),
        &[first, second, 0.0],
        EXACT,
        "skipped",
    );
    let tied = logistic_loss(0.7 * 0.3);
    assert_close(
        &loss(TiedScores::FirstWins),
        &[first, second, tied],
        EXACT,
        "the first wins",
    );

    let drawn = vector(&[-6.0, -2.0]);
    let config = XpoConfig {
        beta: 0.7,
        alpha: 0.1,
    };
    let want = two(|w, l| logistic_loss(0.7 * (w - l)));
    let want = [want[0] - 0.6, want[1] - 0.2];
    check(
        xpo_loss(&ratios(), &drawn, &config),
        want,
        |x| 0.7 * x,
        "xpo",
    );
}

/// An answer that the policy excludes, whose reward is too low for a share.
#[test]
fn an_answer_without_a_share_may_be_impossible() {
    let candidates = list(&[-1.0, f64::NEG_INFINITY], &[2.0, 3.0], &[0.0, -1e4]);
    let reference = matrix(&[&[-1.5, -2.0]]);
    let config = NcaConfig {
        beta: 0.4,
        alpha: 1.0,
    };
    // βρ = 0.2 and −∞: the first answer has all the shares, and there is no noise in the second
    let nca = nca_loss(&candidates, &reference, &config).unwrap();
    let want = logistic_loss(0.2) + 0.5 * logistic_loss(-0.2);
    assert_close(&numbers(&nca), &[want], EXACT, "nca");
    let info = info_nca_loss(&candidates, &reference, &config).unwrap();
    assert_close(&numbers(&info), &[0.0], EXACT, "info-nca");
}

#[test]
fn what_the_caller_passes_beside_the_answers_is_a_constant() {
    let (policy, reference, given) = (var(&[-3.5, -2.7]), var(&[-3.1, -3.0]), var(&[0.1]));
    let number = given.squeeze(0).unwrap();
    let labels = Tensor::new(&[1u8, 0], &Device::Cpu).unwrap();
    let two = || Pair {
        chosen: policy.as_tensor().clone(),
        rejected: vector(&[-4.5, -4.8]),
    };
    let ratios = LogRatios::sums(&two(), &pair(&[0.0, 0.0], &[0.0, 0.0])).unwrap();
    let all = [
        kto_loss(&policy, &reference, &labels, &number, &KtoConfig::default())
            .unwrap()
            .loss,
        bco_loss(&policy, &reference, &labels, &number, &BcoConfig::default())
            .unwrap()
            .loss,
        bco_pair_loss(&ratios, &number, &BcoConfig::default())
            .unwrap()
            .loss,
    ];
    for (at, loss) in all.iter().enumerate() {
        let grads = loss.sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&policy).is_some(), "{at}");
        assert!(grads.get(&given).is_none(), "{at}");
        assert!(grads.get(&reference).is_none(), "{at}");
    }
}

#[test]
fn nash_md_pays_for_the_policys_tokens_alone() {
    let policy = tokens(&[&[-1.0, -2.0, -9.0]], &[&[1, 1, 0]]);
    let longer = tokens(&[&[-1.5, -1.0, -9.0]], &[&[1, 1, 1]]);
    let reference = tokens(&[&[-1.5, -1.0, -9.0]], &[&[1, 1, 0]]);
    for credit in [KlCredit::Token, KlCredit::Answer] {
        let config = NashMdConfig { beta: 0.1, credit };
        let of = |reference| {
            numbers(&nash_md_loss(&policy, reference, &vector(&[0.75]), &config).unwrap())
        };
        assert_eq!(of(&longer), of(&reference));
    }
}

#[test]
fn nash_md_pays_for_the_answer_or_for_each_token() {
    let mask: &[&[u8]] = &[&[1, 1, 0]];
    let policy = tokens(&[&[-1.0, -2.0, -9.0]], mask);
    let reference = tokens(&[&[-1.5, -1.0, -9.0]], mask);
    let loss = |credit| {
        let config = NashMdConfig { beta: 0.1, credit };
        numbers(&nash_md_loss(&policy, &reference, &vector(&[0.75]), &config).unwrap())[0]
    };
    let gain = 0.25 * -3.0;
    assert_close(
        &[loss(KlCredit::Token)],
        &[0.1 * (-0.5 + 2.0) - gain],
        EXACT,
        "token",
    );
    assert_close(
        &[loss(KlCredit::Answer)],
        &[0.1 * (-0.5 * -3.0) - gain],
        EXACT,
        "answer",
    );

    let (p, q) = ([0.2f64, 0.8], [0.6f64, 0.4]);
    let logits = |x: [f64; 2]| Tensor::new(&[[x.map(f64::ln)]], &Device::Cpu).unwrap();
    let mixture = numbers(&geometric_mixture(&logits(p), &logits(q), 0.25).unwrap());
    let shares: Vec<f64> = (0..2).map(|i| q[i].powf(0.25) * p[i].powf(0.75)).collect();
    let total: f64 = shares.iter().sum();
    let want: Vec<f64> = shares.iter().map(|s| (s / total).ln()).collect();
    assert_close(&mixture, &want, EXACT, "mixture");
    let reference = Var::from_tensor(&logits(q)).unwrap();
    let constant = geometric_mixture(&logits(p), &reference, 0.25).unwrap();
    assert!(!constant.track_op(), "the reference is a constant");
}

#[test]
fn reward_models_since() {
    let scores = pair(&[1.5, -0.7], &[0.5, 0.8]);
    let config = SmoothedRewardConfig {
        label_smoothing: 0.2,
    };
    let smoothed = |z: f64| 0.8 * logistic_loss(z) + 0.2 * logistic_loss(-z);
    let out = smoothed_reward_loss(&scores, &config).unwrap();
    assert_close(
        &numbers(&out.loss),
        &[smoothed(1.0), smoothed(-1.5)],
        EXACT,
        "smoothed",
    );

    let loss = outcome_reward_loss(&vector(&[0.5, 2.0, -1.0]), &vector(&[1.0, 0.0, 0.3])).unwrap();
    let want = [
        logistic_loss(0.5),
        logistic_loss(-2.0),
        0.3 * logistic_loss(-1.0) + 0.7 * logistic_loss(1.0),
    ];
    assert_close(&numbers(&loss), &want, EXACT, "outcome");

    let scores = matrix(&[&[9.0, 0.5, f64::NAN, -1.0]]);
    let labels = matrix(&[&[f64::NAN, 1.0, 0.0, 0.0]]);
    let loss = process_reward_loss(&scores, &labels, &bits(&[&[0, 1, 0, 1]])).unwrap();
    let want = [0.0, logistic_loss(0.5), 0.0, logistic_loss(1.0)];
    assert_close(&numbers(&loss.loss), &want, EXACT, "process");

    let mask: &[&[u8]] = &[&[1, 1, 0], &[1, 0, 0]];
    let policy = tokens(&[&[-1.0, -2.0, 9.0], &[-1.0, 9.0, 9.0]], mask);
    let reference = tokens(&[&[-1.5, -1.0, 9.0], &[-3.0, 9.0, 9.0]], mask);
    let config = ImplicitRewardConfig { beta: 0.5 };
    let out = implicit_reward_loss(&policy, &reference, &vector(&[1.0, 0.0]), &config).unwrap();
    assert_close(
        &numbers(&out.loss),
        &[logistic_loss(-0.25), logistic_loss(-1.0)],
        EXACT,
        "implicit",
    );
    assert_close(
        &numbers(&out.rewards),
        &[0.25, -0.5, 0.0, 1.0, 0.0, 0.0],
        EXACT,
        "rewards",
    );
}

#[test]
fn grm_adds_a_term_of_the_language_model() {
    let (scores, policy) = (pair(&[1.5], &[0.5]), pair(&[-3.5], &[-4.5]));
    let reference = pair(&[-3.1], &[-4.0]);
    let loss = |auxiliary, reference| {
        let config = GrmConfig {
            weight: 0.3,
            auxiliary,
        };
        numbers(&grm_loss(&scores, &policy, reference, &config).unwrap().loss)[0]
    };
    let comparison = 0.7 * logistic_loss(1.0);
    for (got, want) in [
        (
            loss(GrmAuxiliary::Dpo { beta: 0.4 }, Some(&reference)),
            logistic_loss(0.04),
        ),
        (
            loss(GrmAuxiliary::Dpo { beta: 0.4 }, None),
            logistic_loss(0.4),
        ),
        (loss(GrmAuxiliary::Sft, None), 3.5),
        (
            loss(GrmAuxiliary::LogSigmoid { beta: 0.4 }, None),
            logistic_loss(-1.4),
        ),
    ] {
        assert_close(&[got], &[comparison + 0.3 * want], EXACT, "grm");
    }
}

#[test]
fn a_verdict_is_a_share_of_all_words_or_of_two() {
    let of = |p: f64| vector(&[p.ln()]);
    let score = |share| numbers(&verdict_score(&of(0.6), &of(0.2), share).unwrap())[0];
    assert_close(&[score(VerdictShare::AllWords)], &[0.6], EXACT, "all");
    assert_close(&[score(VerdictShare::TwoVerdicts)], &[0.75], EXACT, "two");
}

#[test]
fn apo_down_starts_on_the_rejected_answer_alone() {
    let (chosen, rejected) = (var(&[-3.0]), var(&[-5.0]));
    let policy = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let ratios = LogRatios::sums(&policy, &policy).unwrap();
    let loss = apo_down_loss(&ratios, &ApoConfig { beta: 0.4 })
        .unwrap()
        .loss;
    assert_close(&numbers(&loss), &[1.0], EXACT, "loss");
    let grads = loss.backward().unwrap();
    assert_close(
        &numbers(grads.get(&chosen).unwrap()),
        &[0.0],
        EXACT,
        "chosen",
    );
    assert_close(
        &numbers(grads.get(&rejected).unwrap()),
        &[0.1],
        EXACT,
        "rejected",
    );
}
