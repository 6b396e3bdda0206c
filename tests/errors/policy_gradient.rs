use crate::common::{bits, matrix, says, vector};
use candle_align::online::group_advantages::*;
use candle_align::online::policy_gradient::*;
use candle_align::online::ratio::{RatioLevel, importance_ratio};
use candle_align::online::rollout_correction::*;
use candle_align::online::shaping::*;
use candle_align::{KlEstimator, TokenLogProbs, TokenLoss};
use candle_core::{DType, Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};

fn new() -> TokenLogProbs {
    TokenLogProbs::new(&square(), &bits(&[&[1, 1, 1], &[1, 1, 1]])).unwrap()
}

fn square() -> Tensor {
    matrix(&[&[-1.0, -2.0, -0.5], &[-1.0, -2.0, -0.5]])
}

fn good() -> Tensor {
    vector(&[1.0, -1.0])
}

#[test]
fn inputs_of_the_losses() {
    let narrow = matrix(&[&[-1.0, -2.0], &[-1.0, -2.0]]);
    let config = GrpoConfig::default();
    says(
        grpo_loss(&new(), &narrow, &good(), &config),
        "grpo_loss: `old` has shape [2, 2], expected [batch=2 (from `new`), time=3 (from `new`)]",
    );
    says(
        grpo_loss(&new(), &square(), &vector(&[1.0]), &config),
        "grpo_loss: `advantages` has shape [1], expected [batch=2 (from `new`)]",
    );
    says(
        grpo_loss(&new(), &square(), &narrow, &config),
        "grpo_loss: `advantages` has shape [2, 2], expected [batch=2 (from `new`), time=3 (from `new`)]",
    );
    let single = good().to_dtype(DType::F32).unwrap();
    says(
        cispo_loss(&new(), &square(), &single, &CispoConfig::default()),
        "cispo_loss: `advantages` is f32, expected f64 (from `new`)",
    );
    let of_tokens = "`advantages` is [batch, time]; a loss of whole answers takes one advantage for each, [batch]";
    says(
        gspo_loss(&new(), &square(), &square(), &GspoConfig::default()),
        &format!("gspo_loss: {of_tokens}"),
    );
    says(
        gmpo_loss(&new(), &square(), &square(), &GmpoConfig::default()),
        &format!("gmpo_loss: {of_tokens}"),
    );
    says(
        importance_ratio(&new(), &narrow, RatioLevel::Token),
        "importance_ratio: `old` has shape [2, 2], expected [batch=2 (from `new`), time=3 (from `new`)]",
    );
    says(
        reinforce_loss(&new(), &vector(&[1.0])),
        "reinforce_loss: `advantages` has shape [1], expected [batch=2 (from `new`)]",
    );
    let right = Tensor::new(&[1u8], &Device::Cpu).unwrap();
    says(
        added_nll_loss(&new(), Some(&right), &AddedNllConfig::default()),
        "added_nll_loss: `counted` has shape [1], expected [batch=2 (from `log_probs`)]",
    );
}

#[test]
fn settings_of_the_losses() {
    let (new, old, good) = (new(), square(), good());
    for (clip, text) in [(0.0, "0"), (f64::INFINITY, "inf")] {
        let config = GrpoConfig {
            clip,
            ..GrpoConfig::default()
        };
        says(
            grpo_loss(&new, &old, &good, &config),
            &format!("grpo_loss: `clip` must be finite and > 0, got {text}"),
        );
        let config = GrpoConfig {
            clip_high: Some(clip),
            ..GrpoConfig::default()
        };
        says(
            grpo_loss(&new, &old, &good, &config),
            &format!("grpo_loss: `clip_high` must be finite and > 0, got {text}"),
        );
        let config = GspoConfig {
            clip_high: clip,
            ..GspoConfig::default()
        };
        says(
            gspo_loss(&new, &old, &good, &config),
            &format!("gspo_loss: `clip_high` must be finite and > 0, got {text}"),
        );
        let config = GmpoConfig {
            clip,
            clip_high: None,
        };
        says(
            gmpo_loss(&new, &old, &good, &config),
            &format!("gmpo_loss: `clip` must be finite and > 0, got {text}"),
        );
        let config = CispoConfig {
            clip: CispoClip::Absolute { high: clip },
            ..CispoConfig::default()
        };
        says(
            cispo_loss(&new, &old, &good, &config),
            &format!("cispo_loss: `high` must be finite and > 0, got {text}"),
        );
        let config = SapoConfig {
            temperature_negative: clip,
            ..SapoConfig::default()
        };
        says(
            sapo_loss(&new, &old, &good, &config),
            &format!("sapo_loss: `temperature_negative` must be finite and > 0, got {text}"),
        );
        let config = VespoConfig {
            decay_positive: clip,
            ..VespoConfig::default()
        };
        says(
            vespo_loss(&new, &old, &good, None, &config),
            &format!("vespo_loss: `decay_positive` must be finite and > 0, got {text}"),
        );
        let config = DppoConfig {
            largest_ratio: clip,
            ..DppoConfig::default()
        };
        says(
            dppo_loss(&new, &old, &good, &config),
            &format!("dppo_loss: `largest_ratio` must be finite and > 0, got {text}"),
        );
    }
    for (delta, text) in [(1.0, "1"), (f64::NAN, "NaN")] {
        let config = GrpoConfig {
            delta: Some(delta),
            ..GrpoConfig::default()
        };
        says(
            grpo_loss(&new, &old, &good, &config),
            &format!("grpo_loss: `delta` must be finite and > 1, got {text}"),
        );
    }
    let clip = CispoClip::AroundOne {
        low: -0.2,
        high: 0.2,
    };
    let config = CispoConfig {
        clip,
        ..CispoConfig::default()
    };
    says(
        cispo_loss(&new, &old, &good, &config),
        "cispo_loss: `low` must be finite and >= 0, got -0.2",
    );
    says(
        token_dro_loss(&new, &old, &good, &TokenDroConfig { beta: -1.0 }),
        "token_dro_loss: `beta` must be finite and >= 0, got -1",
    );
    says(
        added_nll_loss(&new, None, &AddedNllConfig { weight: -1.0 }),
        "added_nll_loss: `weight` must be finite and >= 0, got -1",
    );
    let paying = bits(&[&[1, 1, 1], &[1, 1, 1]]);
    says(
        kl_cov_loss(
            &new,
            &old,
            &good,
            &paying,
            &KlCovConfig { coefficient: -1.0 },
        ),
        "kl_cov_loss: `coefficient` must be finite and >= 0, got -1",
    );
    says(
        kl_cov_tokens(&new, &good, 0.0),
        "kl_cov_tokens: `share` must be in (0, 1], got 0",
    );
    let mut rng = StdRng::seed_from_u64(1);
    let config = ClipCovConfig {
        high: 1.0,
        ..ClipCovConfig::default()
    };
    says(
        clip_cov_tokens(&new, &old, &good, &config, &mut rng),
        "clip_cov_tokens: `high` must be finite and > low, got 1",
    );
}

#[test]
fn unknown_fields_of_the_settings() {
    for text in [
        serde_json::from_str::<GrpoConfig>(r#"{"epsilon":0.2}"#).err(),
        serde_json::from_str::<CispoConfig>(r#"{"clip":{"absolute":{"high":5,"low":0}}}"#).err(),
        serde_json::from_str::<RolloutWeightConfig>(r#"{"cap":3}"#).err(),
    ] {
        assert!(
            text.expect("an error")
                .to_string()
                .contains("unknown field")
        );
    }
    let config: GrpoConfig = serde_json::from_str(r#"{"level":"sequence_mean"}"#).unwrap();
    assert_eq!(config.level, RatioLevel::SequenceMean);
    let config: CispoConfig =
        serde_json::from_str(r#"{"clip":{"around_one":{"low":0.2,"high":0.28}}}"#).unwrap();
    assert_eq!(
        config.clip,
        CispoClip::AroundOne {
            low: 0.2,
            high: 0.28
        }
    );
}

#[test]
fn rewards_and_what_stands_beside_them() {
    let rewards = matrix(&[&[1.0, f64::NAN]]);
    let nan = "`rewards` holds NaN at flat position 1; it must be finite where the mask counts";
    says(
        grpo_advantages(&rewards, None, &GrpoAdvantageConfig::default()),
        &format!("grpo_advantages: {nan}"),
    );
    says(
        rloo_advantages(&rewards, None),
        &format!("rloo_advantages: {nan}"),
    );
    says(
        max_rl_advantages(&rewards, None),
        &format!("max_rl_advantages: {nan}"),
    );
    says(
        informative_groups(&rewards, None),
        &format!("informative_groups: {nan}"),
    );
    let mask = bits(&[&[1, 1], &[1, 1]]);
    says(
        rloo_advantages(&matrix(&[&[1.0, 0.0]]), Some(&mask)),
        "rloo_advantages: `mask` has shape [2, 2], expected [prompts=1 (from `rewards`), answers=2 (from `rewards`)]",
    );
    let rewards = matrix(&[&[1.0, 0.0]]);
    says(
        opo_advantages(&rewards, &matrix(&[&[1.0, -3.0]]), None),
        "opo_advantages: `lengths` holds -3; it must count tokens where an answer counts",
    );
    let config = GrpoAdvantageConfig {
        epsilon: -1.0,
        ..Default::default()
    };
    says(
        grpo_advantages(&rewards, None, &config),
        "grpo_advantages: `epsilon` must be finite and >= 0, got -1",
    );
    let config = PassAtKConfig {
        epsilon: f64::NAN,
        ..Default::default()
    };
    says(
        pass_at_k_advantages(&rewards, None, &config),
        "pass_at_k_advantages: `epsilon` must be finite and >= 0, got NaN",
    );
    says(
        gdpo_advantages(&[], None, &GdpoConfig::default()),
        "gdpo_advantages: `rewards` holds no reward",
    );
    let config = GdpoConfig {
        weights: vec![1.0],
        ..GdpoConfig::default()
    };
    says(
        gdpo_advantages(&[&rewards, &rewards], None, &config),
        "gdpo_advantages: `weights` must be empty, or one finite weight for each reward, got [1.0]",
    );
    says(
        gdpo_advantages(
            &[&rewards, &matrix(&[&[1.0]])],
            None,
            &GdpoConfig::default(),
        ),
        "gdpo_advantages: `rewards[1]` has shape [1, 1], expected [prompts=1 (from `rewards[0]`), answers=2 (from `rewards[0]`)]",
    );
    let three = Tensor::ones((3, 1, 2), DType::U8, &Device::Cpu).unwrap();
    says(
        gdpo_advantages(&[&rewards, &rewards], Some(&three), &GdpoConfig::default()),
        "gdpo_advantages: `mask` has shape [3, 1, 2] for 2 rewards",
    );
    let tokens = bits(&[&[1, 1]]);
    let config = ReinforcePlusPlusConfig {
        gamma: 1.5,
        ..Default::default()
    };
    says(
        reinforce_plus_plus_advantages(&rewards, &tokens, &config),
        "reinforce_plus_plus_advantages: `gamma` must be in [0, 1], got 1.5",
    );
    says(
        remax_advantages(&rewards, &tokens, &vector(&[f64::INFINITY])),
        "remax_advantages: `baseline` holds inf at flat position 0; it must be finite where the mask counts",
    );
}

#[test]
fn corrections_and_shaping() {
    let (new, sampler, good) = (new(), square(), good());
    let config = RolloutWeightConfig {
        low: Some(4.0),
        ..Default::default()
    };
    says(
        rollout_weights(&new, &sampler, &config),
        "rollout_weights: `high` must be >= low, got 3",
    );
    says(
        sequence_band(&new, &sampler, -1.0, 2.0),
        "sequence_band: `low` must be finite and >= 0, got -1",
    );
    says(
        off_policy_mask(&new, &sampler, &good, f64::NAN),
        "off_policy_mask: `threshold` must be finite, got NaN",
    );
    says(
        off_policy_mask(&new, &matrix(&[&[0.0]]), &good, 0.5),
        "off_policy_mask: `sampler` has shape [1, 1], expected [batch=2 (from `new`), time=3 (from `new`)]",
    );
    let loss = TokenLoss {
        loss: square(),
        mask: new.mask().clone(),
    };
    says(
        corrected(&loss, &vector(&[1.0])),
        "corrected: `weights` has shape [1], expected [batch=2 (from `loss`)]",
    );
    let config = UnbiasedKlConfig::default();
    says(
        unbiased_kl_loss(&new, &sampler, &matrix(&[&[0.0]]), &config),
        "unbiased_kl_loss: `reference` has shape [1, 1], expected [batch=2 (from `policy`), time=3 (from `policy`)]",
    );
    says(
        straight_through_kl_loss(&new, &matrix(&[&[0.0]]), KlEstimator::K3),
        "straight_through_kl_loss: `reference` has shape [1, 1], expected [batch=2 (from `policy`), time=3 (from `policy`)]",
    );
    let config = OverlongConfig {
        limit: 4,
        buffer: 5,
    };
    says(
        overlong_penalty(&good, &config),
        "overlong_penalty: `buffer` must be 1 to the limit, got 5",
    );
    says(
        without_truncated(new.mask(), &Tensor::new(&[1u8], &Device::Cpu).unwrap()),
        "without_truncated: `ended` has shape [1], expected [batch=2 (from `mask`)]",
    );
    says(
        high_entropy_mask(&sampler, new.mask(), 1.5),
        "high_entropy_mask: `share` must be in (0, 1], got 1.5",
    );
    let config = EntropyControllerConfig {
        least: 2.0,
        ..Default::default()
    };
    says(
        EntropyController::new(1.0, &config),
        "EntropyController::new: `largest` must be >= least, got 1",
    );
    says(
        EntropyController::new(2.0, &EntropyControllerConfig::default()),
        "EntropyController::new: `coefficient` must be between least and largest, got 2",
    );
    let mut control = EntropyController::new(0.0, &EntropyControllerConfig::default()).unwrap();
    says(
        control.update(f64::NAN),
        "EntropyController::update: `entropy` must be finite, got NaN",
    );
}
