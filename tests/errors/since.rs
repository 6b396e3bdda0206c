//! What the preference objectives since the survey say about a wrong setting or argument, word for word.

use crate::common::lists::{list, pair};
use crate::common::{bits, matrix, says, vector};
use candle_align::online::reward_models::{
    GrmAuxiliary, GrmConfig, ImplicitRewardConfig, SmoothedRewardConfig, grm_loss,
    implicit_reward_loss, smoothed_reward_loss,
};
use candle_align::ranking::*;
use candle_align::{Pair, TokenLogProbs, TokenLoss};
use candle_core::{DType, Device, Tensor};

fn ratios() -> LogRatios {
    LogRatios::sums(&pair(&[-1.0], &[-2.0]), &pair(&[-1.0], &[-2.0])).unwrap()
}

fn loss() -> TokenLoss {
    TokenLoss {
        loss: matrix(&[&[1.0]]),
        mask: bits(&[&[1]]),
    }
}

#[test]
fn log_ratios() {
    let sums = ratios();
    let lengths = pair(&[2.0], &[3.0]);
    let means = sums.per_token(&lengths).unwrap();
    says(
        means.scored(FDivergence::ForwardKl),
        "LogRatios::scored: `self` are already divided by lengths; call `scored` before `per_token`",
    );
    says(
        means.per_token(&lengths),
        "LogRatios::per_token: `self` are already divided by lengths",
    );
    says(
        sums.per_token(&pair(&[2.0], &[3.0, 1.0])),
        "LogRatios::per_token: `lengths.rejected` has shape [2], expected [batch=1 (from `self.chosen`)]",
    );
    says(
        LogRatios::sums(&pair(&[1.0], &[1.0]), &pair(&[1.0, 2.0], &[1.0])),
        "LogRatios::sums: `reference.chosen` has shape [2], expected [batch=1 (from `policy.chosen`)]",
    );
    says(
        sums.scored(FDivergence::Alpha { alpha: f64::NAN }),
        "FDivergence::score: `alpha` must be finite, got NaN",
    );
}

#[test]
fn settings_out_of_range() {
    let r = ratios();
    let two = pair(&[1.0], &[1.0]);
    let beta = -1.0;
    let positive = "`beta` must be finite and > 0, got -1";
    let say = |function: &str, what: &str| format!("{function}: {what}");
    macro_rules! refused {
        ($function:literal, $result:expr) => {
            says($result, &say($function, positive))
        };
    }
    refused!("ipo_loss", ipo_loss(&r, &IpoConfig { beta }));
    refused!(
        "f_dpo_loss",
        f_dpo_loss(
            &r,
            &FDpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "hinge_dpo_loss",
        hinge_dpo_loss(&r, &HingeDpoConfig { beta })
    );
    refused!(
        "robust_dpo_loss",
        robust_dpo_loss(
            &r,
            &RobustDpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "exo_pair_loss",
        exo_pair_loss(
            &r,
            &ExoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!("nca_pair_loss", nca_pair_loss(&r, &NcaPairConfig { beta }));
    refused!("sppo_loss", sppo_loss(&r, &two, &SppoConfig { beta }));
    refused!("cal_dpo_loss", cal_dpo_loss(&r, &CalDpoConfig { beta }));
    refused!("apo_zero_loss", apo_zero_loss(&r, &ApoConfig { beta }));
    refused!("apo_down_loss", apo_down_loss(&r, &ApoConfig { beta }));
    refused!(
        "discopop_loss",
        discopop_loss(
            &r,
            &DiscopopConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "rpo_loss",
        rpo_loss(
            &r,
            &loss(),
            &RpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "aot_loss",
        aot_loss(
            &two,
            &two,
            &AotConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "aot_unpaired_loss",
        aot_unpaired_loss(
            &r,
            &AotConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "length_normalized_dpo_loss",
        length_normalized_dpo_loss(&r, &two, &LengthNormalizedDpoConfig { beta })
    );
    refused!(
        "r_dpo_loss",
        r_dpo_loss(
            &r,
            &two,
            &RDpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "dpop_loss",
        dpop_loss(
            &r,
            &DpopConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!("tdpo1_loss", tdpo1_loss(&r, &two, &Tdpo1Config { beta }));
    refused!(
        "tdpo2_loss",
        tdpo2_loss(
            &r,
            &two,
            &Tdpo2Config {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "simpo_loss",
        simpo_loss(
            &two,
            &SimpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "alpha_po_loss",
        alpha_po_loss(
            &two,
            &AlphaPoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "cpo_loss",
        cpo_loss(
            &two,
            &loss(),
            &CpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "tpo_loss",
        tpo_loss(
            &two,
            &loss(),
            &TpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!("spin_loss", spin_loss(&r, &SpinConfig { beta }));
    refused!(
        "xpo_loss",
        xpo_loss(
            &r,
            &vector(&[1.0]),
            &XpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    let lists = list(&[-1.0, -2.0], &[1.0, 1.0], &[1.0, 0.0]);
    let zeros = matrix(&[&[0.0, 0.0]]);
    refused!(
        "exo_loss",
        exo_loss(
            &lists,
            &zeros,
            &ExoListConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "nca_loss",
        nca_loss(
            &lists,
            &zeros,
            &NcaConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "info_nca_loss",
        info_nca_loss(
            &lists,
            &zeros,
            &NcaConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "online_dpo_loss",
        online_dpo_loss(
            &zeros,
            &zeros,
            &zeros,
            &OnlineDpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    let (one, labels) = (vector(&[1.0]), Tensor::new(&[1u8], &Device::Cpu).unwrap());
    let zero = Tensor::new(0f64, &Device::Cpu).unwrap();
    refused!(
        "kto_loss",
        kto_loss(
            &one,
            &one,
            &labels,
            &zero,
            &KtoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "bco_loss",
        bco_loss(&one, &one, &labels, &zero, &BcoConfig { beta })
    );
    refused!(
        "bco_pair_loss",
        bco_pair_loss(&r, &zero, &BcoConfig { beta })
    );
    refused!(
        "apo_zero_unpaired_loss",
        apo_zero_unpaired_loss(&one, &one, &labels, &ApoUnpairedConfig { beta })
    );
    let tokens = TokenLogProbs::new(&matrix(&[&[-1.0]]), &bits(&[&[1]])).unwrap();
    let answers = Pair {
        chosen: tokens.clone(),
        rejected: tokens.clone(),
    };
    refused!(
        "ld_dpo_loss",
        ld_dpo_loss(
            &answers,
            &answers,
            &LdDpoConfig {
                beta,
                ..Default::default()
            }
        )
    );
    refused!(
        "implicit_reward_loss",
        implicit_reward_loss(&tokens, &tokens, &one, &ImplicitRewardConfig { beta })
    );
}

#[test]
fn other_settings_out_of_range() {
    let r = ratios();
    let two = pair(&[1.0], &[1.0]);
    let config = ExoConfig {
        label_smoothing: 0.0,
        ..Default::default()
    };
    says(
        exo_pair_loss(&r, &config),
        "exo_pair_loss: `label_smoothing` must be in (0, 1), got 0",
    );
    let config = RobustDpoConfig {
        flip_rate: 0.5,
        ..Default::default()
    };
    says(
        robust_dpo_loss(&r, &config),
        "robust_dpo_loss: `flip_rate` must be in [0, 0.5), got 0.5",
    );
    let config = AotConfig {
        label_smoothing: 0.5,
        ..Default::default()
    };
    says(
        aot_unpaired_loss(&r, &config),
        "aot_unpaired_loss: `label_smoothing` must be in [0, 0.5), got 0.5",
    );
    let config = DiscopopConfig {
        tau: 0.0,
        ..Default::default()
    };
    says(
        discopop_loss(&r, &config),
        "discopop_loss: `tau` must be finite and > 0, got 0",
    );
    let config = RpoConfig {
        alpha: -1.0,
        ..Default::default()
    };
    says(
        rpo_loss(&r, &loss(), &config),
        "rpo_loss: `alpha` must be finite and >= 0, got -1",
    );
    let config = CpoConfig {
        label_smoothing: 0.5,
        ..Default::default()
    };
    says(
        cpo_loss(&two, &loss(), &config),
        "cpo_loss: `label_smoothing` must be in [0, 0.5), got 0.5",
    );
    let config = CpoConfig {
        alpha: -1.0,
        ..Default::default()
    };
    says(
        cpo_loss(&two, &loss(), &config),
        "cpo_loss: `alpha` must be finite and >= 0, got -1",
    );
    let config = TpoConfig {
        alpha: -1.0,
        ..Default::default()
    };
    says(
        tpo_loss(&two, &loss(), &config),
        "tpo_loss: `alpha` must be finite and >= 0, got -1",
    );
    let config = TpoConfig {
        label_smoothing: 0.5,
        ..Default::default()
    };
    says(
        tpo_loss(&two, &loss(), &config),
        "tpo_loss: `label_smoothing` must be in [0, 0.5), got 0.5",
    );
    let config = OrpoConfig {
        lambda: -1.0,
        ..Default::default()
    };
    says(
        orpo_loss(&two, &loss(), &config),
        "orpo_loss: `lambda` must be finite and >= 0, got -1",
    );
    let margin = RequiredLead::Gamma(f64::INFINITY);
    let config = SimpoConfig {
        margin,
        ..Default::default()
    };
    says(
        simpo_loss(&two, &config),
        "simpo_loss: `margin.gamma` must be finite, got inf",
    );
    let margin = RequiredLead::GammaOverBeta(f64::NAN);
    let config = AlphaPoConfig {
        margin,
        ..Default::default()
    };
    says(
        alpha_po_loss(&two, &config),
        "alpha_po_loss: `margin.gamma_over_beta` must be finite, got NaN",
    );
    let config = AlphaPoConfig {
        alpha: f64::NAN,
        ..Default::default()
    };
    says(
        alpha_po_loss(&two, &config),
        "alpha_po_loss: `alpha` must be finite, got NaN",
    );
    let config = DpopConfig {
        lambda: -1.0,
        ..Default::default()
    };
    says(
        dpop_loss(&r, &config),
        "dpop_loss: `lambda` must be finite and >= 0, got -1",
    );
    let config = RDpoConfig {
        alpha: f64::NAN,
        ..Default::default()
    };
    says(
        r_dpo_loss(&r, &two, &config),
        "r_dpo_loss: `alpha` must be finite, got NaN",
    );
    let config = Tdpo2Config {
        alpha: -1.0,
        ..Default::default()
    };
    says(
        tdpo2_loss(&r, &two, &config),
        "tdpo2_loss: `alpha` must be finite and >= 0, got -1",
    );
    let config = RebelConfig { eta: 0.0 };
    says(
        rebel_loss(&r, &two, &config),
        "rebel_loss: `eta` must be finite and > 0, got 0",
    );
    let config = XpoConfig {
        alpha: -1.0,
        ..Default::default()
    };
    says(
        xpo_loss(&r, &vector(&[1.0]), &config),
        "xpo_loss: `alpha` must be finite and >= 0, got -1",
    );
    let config = SmoothedRewardConfig {
        label_smoothing: 0.5,
    };
    says(
        smoothed_reward_loss(&two, &config),
        "smoothed_reward_loss: `label_smoothing` must be in [0, 0.5), got 0.5",
    );
    let config = GrmConfig {
        weight: 1.5,
        ..Default::default()
    };
    says(
        grm_loss(&two, &two, None, &config),
        "grm_loss: `weight` must be in [0, 1], got 1.5",
    );
    for (auxiliary, field) in [
        (GrmAuxiliary::Dpo { beta: 0.0 }, "auxiliary.dpo.beta"),
        (
            GrmAuxiliary::LogSigmoid { beta: 0.0 },
            "auxiliary.log_sigmoid.beta",
        ),
    ] {
        let config = GrmConfig {
            auxiliary,
            ..Default::default()
        };
        says(
            grm_loss(&two, &two, None, &config),
            &format!("grm_loss: `{field}` must be finite and > 0, got 0"),
        );
    }
    let lists = list(&[-1.0, -2.0], &[1.0, 1.0], &[1.0, 0.0]);
    let zeros = matrix(&[&[0.0, 0.0]]);
    let config = NcaConfig {
        alpha: 0.0,
        ..Default::default()
    };
    says(
        nca_loss(&lists, &zeros, &config),
        "nca_loss: `alpha` must be finite and > 0, got 0",
    );
    let config = ExoListConfig {
        reward_beta: 0.0,
        ..Default::default()
    };
    says(
        exo_loss(&lists, &zeros, &config),
        "exo_loss: `reward_beta` must be finite and > 0, got 0",
    );
    let (one, labels) = (vector(&[1.0]), Tensor::new(&[1u8], &Device::Cpu).unwrap());
    let zero = Tensor::new(0f64, &Device::Cpu).unwrap();
    let config = KtoConfig {
        desirable_weight: -1.0,
        ..Default::default()
    };
    says(
        kto_loss(&one, &one, &labels, &zero, &config),
        "kto_loss: `desirable_weight` must be finite and >= 0, got -1",
    );
    let config = KtoConfig {
        undesirable_weight: -1.0,
        ..Default::default()
    };
    says(
        kto_loss(&one, &one, &labels, &zero, &config),
        "kto_loss: `undesirable_weight` must be finite and >= 0, got -1",
    );
    let tokens = TokenLogProbs::new(&matrix(&[&[-1.0]]), &bits(&[&[1]])).unwrap();
    let config = NashMdConfig {
        beta: -1.0,
        ..Default::default()
    };
    says(
        nash_md_loss(&tokens, &tokens, &one, &config),
        "nash_md_loss: `beta` must be finite and >= 0, got -1",
    );
    let answers = Pair {
        chosen: tokens.clone(),
        rejected: tokens,
    };
    says(
        length_desensitized_sums(&answers, 1.5),
        "length_desensitized_sums: `alpha` must be in [0, 1], got 1.5",
    );
    let logits = Tensor::new(&[[[0f64, 1.0]]], &Device::Cpu).unwrap();
    says(
        geometric_mixture(&logits, &logits, 1.5),
        "geometric_mixture: `reference_share` must be in [0, 1], got 1.5",
    );
}

#[test]
fn arguments_that_do_not_fit() {
    let r = ratios();
    let two = pair(&[1.0], &[1.0]);
    says(
        sppo_loss(&r, &pair(&[1.0, 0.0], &[0.0]), &SppoConfig::default()),
        "sppo_loss: `wins.chosen` has shape [2], expected [batch=1 (from `ratios.chosen`)]",
    );
    let three = matrix(&[&[1.0, 2.0, 3.0]]);
    says(
        online_dpo_loss(&three, &three, &three, &OnlineDpoConfig::default()),
        "online_dpo_loss: `policy` has 3 answers to each prompt, expected 2",
    );
    let tokens = TokenLogProbs::new(&matrix(&[&[-1.0]]), &bits(&[&[1]])).unwrap();
    let answers = Pair {
        chosen: tokens.clone(),
        rejected: tokens,
    };
    says(
        wpo_weights(&answers, &WpoConfig::default()),
        "wpo_weights: `policy.chosen` was computed without Statistics::log_collision",
    );
    says(
        wpo_weights(&answers, &WpoConfig { largest: Some(0.0) }),
        "wpo_weights: `largest` must be finite and > 0, got 0",
    );
    says(
        grm_loss(&two, &two, Some(&two), &GrmConfig::default()),
        "grm_loss: `reference` is given, but only the auxiliary term of DPO reads one",
    );
    let wide = vector(&[0.1, 0.2]);
    says(
        bco_pair_loss(&r, &wide, &BcoConfig::default()),
        "bco_pair_loss: `shift` has shape [2], expected []",
    );
    says(
        rpo_loss(
            &r,
            &TokenLoss {
                loss: matrix(&[&[1.0], &[2.0]]),
                mask: bits(&[&[1], &[1]]),
            },
            &RpoConfig::default(),
        ),
        "rpo_loss: `chosen.loss` has shape [2, 1], expected [batch=1 (from `policy`), time]",
    );
    let mut shift = RewardShift::default();
    says(
        shift.update(&vector(&[0.5, f64::INFINITY])),
        "RewardShift::update: `rewards` holds inf at position 1; it must be finite",
    );
    let labels = vector(&[1.0]);
    let zero = Tensor::new(0f64, &Device::Cpu).unwrap();
    says(
        kto_loss(&labels, &labels, &labels, &zero, &KtoConfig::default()),
        "kto_loss: `desirable` is f64, expected u8",
    );
    let single = zero.to_dtype(DType::F32).unwrap();
    let hard = Tensor::new(&[1u8], &Device::Cpu).unwrap();
    says(
        kto_loss(&labels, &labels, &hard, &single, &KtoConfig::default()),
        "kto_loss: `baseline` is f32, expected f64 (from `policy`)",
    );
}

#[test]
fn settings_are_read_and_misspelt_ones_refused() {
    let error = serde_json::from_str::<SimpoConfig>(r#"{"gamma": 0.5}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `gamma`"),
        "{error}"
    );
    let config: SimpoConfig =
        serde_json::from_str(r#"{"margin": {"gamma_over_beta": 0.3}}"#).unwrap();
    assert_eq!(config.margin, RequiredLead::GammaOverBeta(0.3));
    let config: FDpoConfig =
        serde_json::from_str(r#"{"divergence": {"alpha": {"alpha": 0.5}}}"#).unwrap();
    assert_eq!(config.divergence, FDivergence::Alpha { alpha: 0.5 });
    let error = serde_json::from_str::<RpoConfig>(r#"{"tokens": "average"}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown variant `average`"),
        "{error}"
    );
    let shift: RewardShift = serde_json::from_str(r#"{"mean": 0.25, "count": 8}"#).unwrap();
    assert_eq!(
        serde_json::to_string(&shift).unwrap(),
        r#"{"mean":0.25,"count":8}"#
    );
}
