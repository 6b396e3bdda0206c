use crate::common::{bits, matrix, vector};
use candle_align::online::controller::KlController;
use candle_align::online::rewards::missing_eos_penalty;
use candle_align::{
    EntropyConfig, GaeConfig, KlEstimator, PpoConfig, PpoValueConfig, PtxConfig,
    ShapedRewardsConfig, TokenLogProbs, entropy_loss, gae, kl_loss, ppo_policy_loss,
    ppo_value_loss, ptx_loss, shaped_rewards,
};
use candle_core::{DType, Device, Tensor};

fn log_probs() -> TokenLogProbs {
    TokenLogProbs::new(&square(), &ones()).unwrap()
}

fn square() -> Tensor {
    matrix(&[&[-1.0, -2.0, -0.5], &[-1.0, -2.0, -0.5]])
}

fn ones() -> Tensor {
    bits(&[&[1, 1, 1], &[1, 1, 1]])
}

fn narrow() -> Tensor {
    matrix(&[&[-1.0, -2.0], &[-1.0, -2.0]])
}

fn single() -> Tensor {
    square().to_dtype(DType::F32).unwrap()
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: candle_align::Result<T>, want: &str) {
    assert_eq!(result.unwrap_err().to_string(), want);
}

#[test]
fn kl_and_its_reference() {
    fails(
        kl_loss(&log_probs(), &narrow(), KlEstimator::K1),
        "kl_loss: `reference` has shape [2, 2], expected [batch=2 (from `policy`), time=3 (from `policy`)]",
    );
    fails(
        kl_loss(&log_probs(), &single(), KlEstimator::K3),
        "kl_loss: `reference` is f32, expected f64 (from `policy`)",
    );
}

#[test]
fn rewards_and_scores() {
    let scores = vector(&[1.0, 2.0]);
    let config = ShapedRewardsConfig::default();
    for (beta, text) in [(-0.1, "-0.1"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let config = ShapedRewardsConfig {
            beta,
            ..Default::default()
        };
        fails(
            shaped_rewards(&log_probs(), &square(), &scores, &config),
            &format!("shaped_rewards: `beta` must be finite and >= 0, got {text}"),
        );
    }
    fails(
        shaped_rewards(&log_probs(), &narrow(), &scores, &config),
        "shaped_rewards: `reference` has shape [2, 2], expected [batch=2 (from `old`), time=3 (from `old`)]",
    );
    fails(
        shaped_rewards(&log_probs(), &square(), &square(), &config),
        "shaped_rewards: `scores` has shape [2, 3], expected [batch=2 (from `old`)]",
    );
    fails(
        shaped_rewards(
            &log_probs(),
            &square(),
            &scores.to_dtype(DType::F32).unwrap(),
            &config,
        ),
        "shaped_rewards: `scores` is f32, expected f64 (from `old`)",
    );

    let ended = Tensor::new(&[1u8, 0], &Device::Cpu).unwrap();
    fails(
        missing_eos_penalty(&scores, &ended, -1.0),
        "missing_eos_penalty: `penalty` must be finite and >= 0, got -1",
    );
    fails(
        missing_eos_penalty(&scores, &scores, 1.0),
        "missing_eos_penalty: `ended` is f64, expected u8",
    );
    fails(
        missing_eos_penalty(&vector(&[1.0]), &ended, 1.0),
        "missing_eos_penalty: `ended` has shape [2], expected [batch=1 (from `scores`)]",
    );
    fails(
        missing_eos_penalty(&ended, &ended, 1.0),
        "missing_eos_penalty: `scores` is u8, expected f32 or f64",
    );
}

#[test]
fn advantages_and_their_discounts() {
    for (value, text) in [(-0.1, "-0.1"), (1.1, "1.1"), (f64::NAN, "NaN")] {
        let config = GaeConfig {
            gamma: value,
            ..Default::default()
        };
        fails(
            gae(&square(), &square(), &ones(), &config),
            &format!("gae: `gamma` must be in [0, 1], got {text}"),
        );
        let config = GaeConfig {
            lambda: value,
            ..Default::default()
        };
        fails(
            gae(&square(), &square(), &ones(), &config),
            &format!("gae: `lambda` must be in [0, 1], got {text}"),
        );
    }
    let config = GaeConfig::default();
    fails(
        gae(&vector(&[1.0]), &square(), &ones(), &config),
        "gae: `rewards` has shape [1], expected [batch, time]",
    );
    fails(
        gae(&square(), &narrow(), &ones(), &config),
        "gae: `values` has shape [2, 2], expected [batch=2 (from `rewards`), time=3 (from `rewards`)]",
    );
    fails(
        gae(&square(), &single(), &ones(), &config),
        "gae: `values` is f32, expected f64 (from `rewards`)",
    );
    fails(
        gae(&square(), &square(), &square(), &config),
        "gae: `mask` is f64, expected u8",
    );
    fails(
        gae(&square(), &square(), &bits(&[&[1, 1, 1]]), &config),
        "gae: `mask` has shape [1, 3], expected [batch=2 (from `rewards`), time=3 (from `rewards`)]",
    );
}

#[test]
fn policy_loss_settings() {
    let call = |config: &PpoConfig| ppo_policy_loss(&log_probs(), &square(), &square(), config);
    for (clip, text) in [(0.0, "0"), (1.0, "1"), (-0.2, "-0.2"), (f64::NAN, "NaN")] {
        let config = PpoConfig {
            clip,
            ..Default::default()
        };
        fails(
            call(&config),
            &format!("ppo_policy_loss: `clip` must be in (0, 1), got {text}"),
        );
    }
    for (clip_high, text) in [(0.0, "0"), (-0.2, "-0.2"), (f64::INFINITY, "inf")] {
        let config = PpoConfig {
            clip_high: Some(clip_high),
            ..Default::default()
        };
        fails(
            call(&config),
            &format!("ppo_policy_loss: `clip_high` must be finite and > 0, got {text}"),
        );
    }
    for (dual_clip, text) in [(1.0, "1"), (0.5, "0.5"), (f64::INFINITY, "inf")] {
        let config = PpoConfig {
            dual_clip: Some(dual_clip),
            ..Default::default()
        };
        fails(
            call(&config),
            &format!("ppo_policy_loss: `dual_clip` must be finite and > 1, got {text}"),
        );
    }
}

#[test]
fn policy_loss_shapes() {
    let config = PpoConfig::default();
    fails(
        ppo_policy_loss(&log_probs(), &narrow(), &square(), &config),
        "ppo_policy_loss: `old` has shape [2, 2], expected [batch=2 (from `new`), time=3 (from `new`)]",
    );
    fails(
        ppo_policy_loss(&log_probs(), &square(), &vector(&[1.0, 2.0]), &config),
        "ppo_policy_loss: `advantages` has shape [2], expected [batch=2 (from `new`), time=3 (from `new`)]",
    );
    fails(
        ppo_policy_loss(&log_probs(), &square(), &single(), &config),
        "ppo_policy_loss: `advantages` is f32, expected f64 (from `new`)",
    );
}

#[test]
fn value_loss_settings_and_shapes() {
    let (x, mask) = (square(), ones());
    for (clip, text) in [(0.0, "0"), (-0.2, "-0.2"), (f64::NAN, "NaN")] {
        fails(
            ppo_value_loss(&x, &x, &x, &mask, &PpoValueConfig { clip: Some(clip) }),
            &format!("ppo_value_loss: `clip` must be finite and > 0, got {text}"),
        );
    }
    let config = PpoValueConfig::default();
    fails(
        ppo_value_loss(&x, &narrow(), &x, &mask, &config),
        "ppo_value_loss: `old_values` has shape [2, 2], expected [batch=2 (from `values`), time=3 (from `values`)]",
    );
    fails(
        ppo_value_loss(&x, &x, &single(), &mask, &config),
        "ppo_value_loss: `returns` is f32, expected f64 (from `values`)",
    );
    fails(
        ppo_value_loss(&x, &x, &x, &x, &config),
        "ppo_value_loss: `mask` is f64, expected u8",
    );
    fails(
        ppo_value_loss(&vector(&[1.0]), &x, &x, &mask, &config),
        "ppo_value_loss: `values` has shape [1], expected [batch, time]",
    );
}

#[test]
fn the_terms_that_are_added() {
    fails(
        entropy_loss(&log_probs(), &EntropyConfig::default()),
        "entropy_loss: `log_probs` was computed without Statistics::entropy",
    );
    fails(
        entropy_loss(&log_probs(), &EntropyConfig { coefficient: -1.0 }),
        "entropy_loss: `coefficient` must be finite and >= 0, got -1",
    );
    fails(
        ptx_loss(&log_probs(), &PtxConfig { gamma: f64::NAN }),
        "ptx_loss: `gamma` must be finite and >= 0, got NaN",
    );
}

#[test]
fn a_controller_and_what_it_is_told() {
    let adaptive = |beta, target, horizon| KlController::Adaptive {
        beta,
        target,
        horizon,
    };
    let prefix = "KlController::update: ";
    for (controller, kl, samples, want) in [
        (
            adaptive(0.0, 6.0, 100.0),
            1.0,
            1,
            "`beta` must be finite and > 0, got 0",
        ),
        (
            adaptive(0.1, 0.0, 100.0),
            1.0,
            1,
            "`target` must be finite and > 0, got 0",
        ),
        (
            adaptive(0.1, 6.0, -1.0),
            1.0,
            1,
            "`horizon` must be finite and > 0, got -1",
        ),
        (
            adaptive(0.1, 6.0, 100.0),
            f64::NAN,
            1,
            "`kl` must be finite, got NaN",
        ),
        (
            adaptive(0.1, 6.0, 100.0),
            1.0,
            500,
            "`samples` must be < 5 · horizon, got 500",
        ),
        (
            KlController::Fixed { beta: -0.5 },
            1.0,
            1,
            "`beta` must be finite and >= 0, got -0.5",
        ),
        (
            KlController::Fixed { beta: 0.5 },
            f64::INFINITY,
            1,
            "`kl` must be finite, got inf",
        ),
    ] {
        fails(controller.update(kl, samples), &format!("{prefix}{want}"));
    }
    assert!(adaptive(0.1, 6.0, 100.0).update(1.0, 499).is_ok());
    assert!(KlController::Fixed { beta: 0.0 }.update(1.0, 1).is_ok());
}

#[test]
fn settings_as_json() {
    let misspelt = |error: serde_json::Error, field: &str| {
        let start = format!("unknown field `{field}`");
        assert!(error.to_string().starts_with(&start), "{error}");
    };
    misspelt(
        serde_json::from_str::<PpoConfig>(r#"{"epsilon": 0.1}"#).unwrap_err(),
        "epsilon",
    );
    misspelt(
        serde_json::from_str::<PpoValueConfig>(r#"{"clp": 0.1}"#).unwrap_err(),
        "clp",
    );
    misspelt(
        serde_json::from_str::<GaeConfig>(r#"{"lam": 0.1}"#).unwrap_err(),
        "lam",
    );
    misspelt(
        serde_json::from_str::<ShapedRewardsConfig>(r#"{"kl": 0.1}"#).unwrap_err(),
        "kl",
    );
    misspelt(
        serde_json::from_str::<EntropyConfig>(r#"{"c": 0.1}"#).unwrap_err(),
        "c",
    );
    misspelt(
        serde_json::from_str::<PtxConfig>(r#"{"g": 0.1}"#).unwrap_err(),
        "g",
    );
    misspelt(
        serde_json::from_str::<KlController>(r#"{"fixed": {"beta": 0.1, "target": 6.0}}"#)
            .unwrap_err(),
        "target",
    );

    let config: PpoConfig = serde_json::from_str(r#"{"dual_clip": 3.0}"#).unwrap();
    let want = PpoConfig {
        dual_clip: Some(3.0),
        ..Default::default()
    };
    assert_eq!(config, want);
    let config: ShapedRewardsConfig = serde_json::from_str(r#"{"estimator": "k3"}"#).unwrap();
    assert_eq!((config.beta, config.estimator), (0.02, KlEstimator::K3));
    let config: PpoValueConfig = serde_json::from_str(r#"{"clip": null}"#).unwrap();
    assert_eq!(config.clip, None);
    let controller = KlController::default();
    let json = serde_json::to_string(&controller).unwrap();
    assert_eq!(
        json,
        r#"{"adaptive":{"beta":0.15,"target":6.0,"horizon":10000.0}}"#
    );
    assert_eq!(
        serde_json::from_str::<KlController>(&json).unwrap(),
        controller
    );
}
