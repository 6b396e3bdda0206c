use crate::common::{bits, matrix, vector};
use candle_align::math::Whiten;
use candle_align::{
    EntropyConfig, Experience, ExperienceConfig, GaeConfig, PpoConfig, PpoValueConfig, Result,
    RlhfConfig, Rollout, ShapedRewardsConfig, TokenLogProbs, rlhf_loss,
};
use candle_core::{DType, Device, Tensor};
use rand::{SeedableRng, rngs::StdRng};

fn square() -> Tensor {
    matrix(&[&[-1.0, -2.0, -0.5], &[-1.0, -2.0, -0.5]])
}

fn narrow() -> Tensor {
    matrix(&[&[-1.0, -2.0], &[-1.0, -2.0]])
}

fn ones() -> Tensor {
    bits(&[&[1, 1, 1], &[1, 1, 0]])
}

fn single() -> Tensor {
    square().to_dtype(DType::F32).unwrap()
}

fn log_probs() -> TokenLogProbs {
    TokenLogProbs::new(&square(), &ones()).unwrap()
}

fn rollout() -> Rollout {
    Rollout {
        old: log_probs(),
        reference: square(),
        values: square(),
        scores: vector(&[1.0, 2.0]),
        ended: Some(Tensor::new(&[1u8, 0], &Device::Cpu).unwrap()),
    }
}

fn experience() -> Experience {
    rollout().experience(&ExperienceConfig::default()).unwrap()
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T>, want: &str) {
    assert_eq!(result.unwrap_err().to_string(), want);
}

#[track_caller]
fn refuses(change: impl Fn(&mut Rollout), want: &str) {
    let mut rollout = rollout();
    change(&mut rollout);
    fails(
        rollout.experience(&ExperienceConfig::default()),
        &format!("Rollout::experience: {want}"),
    );
}

#[test]
fn shapes_and_types_of_a_rollout() {
    refuses(
        |r| r.reference = narrow(),
        "`reference` has shape [2, 2], expected [batch=2 (from `old`), time=3 (from `old`)]",
    );
    refuses(
        |r| r.reference = single(),
        "`reference` is f32, expected f64 (from `old`)",
    );
    refuses(
        |r| r.values = narrow(),
        "`values` has shape [2, 2], expected [batch=2 (from `old`), time=3 (from `old`)]",
    );
    refuses(
        |r| r.values = single(),
        "`values` is f32, expected f64 (from `old`)",
    );
    refuses(
        |r| r.scores = square(),
        "`scores` has shape [2, 3], expected [batch=2 (from `old`)]",
    );
    refuses(
        |r| r.scores = r.scores.to_dtype(DType::F32).unwrap(),
        "`scores` is f32, expected f64 (from `old`)",
    );
    refuses(
        |r| r.ended = Some(vector(&[1.0, 0.0])),
        "`ended` is f64, expected u8",
    );
    refuses(
        |r| r.ended = Some(Tensor::new(&[1u8], &Device::Cpu).unwrap()),
        "`ended` has shape [1], expected [batch=2 (from `old`)]",
    );
}

#[test]
fn a_number_that_would_poison_the_batch_is_named() {
    let with = |x: f64| matrix(&[&[-1.0, -2.0, -0.5], &[-1.0, x, f64::NAN]]);
    let text = "at flat position 4; it must be finite where the mask counts";
    refuses(
        |r| r.old = TokenLogProbs::new(&with(f64::NAN), &ones()).unwrap(),
        &format!("`old` holds NaN {text}"),
    );
    refuses(
        |r| r.reference = with(f64::NEG_INFINITY),
        &format!("`reference` holds -inf {text}"),
    );
    refuses(
        |r| r.values = with(f64::INFINITY),
        &format!("`values` holds inf {text}"),
    );
    refuses(
        |r| r.scores = vector(&[1.0, f64::NAN]),
        "`scores` holds NaN at flat position 1; it must be finite where the mask counts",
    );
    let mut fine = rollout();
    (fine.reference, fine.values) = (with(-2.0), with(0.0));
    assert!(fine.experience(&ExperienceConfig::default()).is_ok());
}

#[test]
fn settings_of_an_experience() {
    let with = |change: &dyn Fn(&mut ExperienceConfig)| {
        let mut config = ExperienceConfig::default();
        change(&mut config);
        let no_end = Rollout {
            ended: None,
            ..rollout()
        };
        no_end.experience(&config)
    };
    for (penalty, text) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        fails(
            with(&|c| c.missing_eos_penalty = penalty),
            &format!(
                "Rollout::experience: `missing_eos_penalty` must be finite and >= 0, got {text}"
            ),
        );
    }
    fails(
        with(&|c| c.missing_eos_penalty = 0.5),
        "Rollout::experience: `ended` is none, which missing_eos_penalty > 0 needs",
    );
    assert!(with(&|c| c.missing_eos_penalty = 0.0).is_ok());
    fails(
        with(&|c| c.rewards.beta = -1.0),
        "shaped_rewards: `beta` must be finite and >= 0, got -1",
    );
    fails(
        with(&|c| c.advantages.gamma = 1.5),
        "gae: `gamma` must be in [0, 1], got 1.5",
    );
}

#[test]
fn rows_and_minibatches() {
    let experience = experience();
    let mut rng = StdRng::seed_from_u64(1);
    fails(
        experience.minibatches(0, &mut rng),
        "Experience::minibatches: `size` must be at least 1, got 0",
    );
    fails(
        experience.rows(&vector(&[0.0])),
        "Experience::rows: `rows` is f64, expected u32 or i64",
    );
    fails(
        experience.rows(&Tensor::new(&[[0u32]], &Device::Cpu).unwrap()),
        "Experience::rows: `rows` has shape [1, 1], expected [rows]",
    );
    for (row, text) in [(2i64, "2"), (-1, "-1"), (i64::MAX, "9223372036854775807")] {
        fails(
            experience.rows(&Tensor::new(&[0, row], &Device::Cpu).unwrap()),
            &format!("Experience::rows: `rows` holds {text}, outside the 2 rows of the experience"),
        );
    }
    fails(
        experience.rows(&Tensor::new(&[u32::MAX], &Device::Cpu).unwrap()),
        "Experience::rows: `rows` holds 4294967295, outside the 2 rows of the experience",
    );
}

#[test]
fn shapes_and_types_of_a_minibatch() {
    let config = RlhfConfig::default();
    fails(
        rlhf_loss(&log_probs(), &narrow(), &experience(), &config),
        "rlhf_loss: `values` has shape [2, 2], expected [batch=2 (from `new`), time=3 (from `new`)]",
    );
    fails(
        rlhf_loss(&log_probs(), &single(), &experience(), &config),
        "rlhf_loss: `values` is f32, expected f64 (from `new`)",
    );
    let one = Tensor::new(&[0u32], &Device::Cpu).unwrap();
    fails(
        rlhf_loss(
            &log_probs(),
            &square(),
            &experience().rows(&one).unwrap(),
            &config,
        ),
        "rlhf_loss: `experience.old` has shape [1, 3], expected [batch=2 (from `new`), time=3 (from `new`)]",
    );
    let refuses = |change: &dyn Fn(&mut Experience), want: &str| {
        let mut experience = experience();
        change(&mut experience);
        let got = rlhf_loss(&log_probs(), &square(), &experience, &config);
        fails(got, &format!("rlhf_loss: `experience.{want}"));
    };
    let shape = "has shape [2, 2], expected [batch=2 (from `new`), time=3 (from `new`)]";
    let dtype = "is f32, expected f64 (from `new`)";
    refuses(&|e| e.old = single(), &format!("old` {dtype}"));
    refuses(
        &|e| e.old_values = narrow(),
        &format!("old_values` {shape}"),
    );
    refuses(
        &|e| e.old_values = single(),
        &format!("old_values` {dtype}"),
    );
    refuses(
        &|e| e.advantages = narrow(),
        &format!("advantages` {shape}"),
    );
    refuses(
        &|e| e.advantages = single(),
        &format!("advantages` {dtype}"),
    );
    refuses(&|e| e.returns = narrow(), &format!("returns` {shape}"));
    refuses(&|e| e.returns = single(), &format!("returns` {dtype}"));
    refuses(
        &|e| e.mask = bits(&[&[1, 1], &[1, 1]]),
        &format!("mask` {shape}"),
    );
    refuses(&|e| e.mask = square(), "mask` is f64, expected u8");
}

#[test]
fn settings_of_a_minibatch() {
    let with = |config: RlhfConfig| rlhf_loss(&log_probs(), &square(), &experience(), &config);
    for (value_weight, text) in [(-0.5, "-0.5"), (f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        fails(
            with(RlhfConfig {
                value_weight,
                ..Default::default()
            }),
            &format!("rlhf_loss: `value_weight` must be finite and >= 0, got {text}"),
        );
    }
    fails(
        with(RlhfConfig {
            policy: PpoConfig {
                clip: 1.0,
                ..Default::default()
            },
            ..Default::default()
        }),
        "ppo_policy_loss: `clip` must be in (0, 1), got 1",
    );
    fails(
        with(RlhfConfig {
            value: PpoValueConfig { clip: Some(0.0) },
            ..Default::default()
        }),
        "ppo_value_loss: `clip` must be finite and > 0, got 0",
    );
    fails(
        with(RlhfConfig {
            entropy: Some(EntropyConfig::default()),
            ..Default::default()
        }),
        "rlhf_loss: `new` was computed without Statistics::entropy, which entropy needs",
    );
}

#[test]
fn settings_as_json() {
    let misspelt = |json: &str, field: &str| {
        let error = serde_json::from_str::<RlhfConfig>(json).unwrap_err();
        let start = format!("unknown field `{field}`");
        assert!(error.to_string().starts_with(&start), "{error}");
    };
    misspelt(r#"{"vf_coef": 0.1}"#, "vf_coef");
    misspelt(r#"{"experience": {"whiten": "keep_mean"}}"#, "whiten");

    let json = r#"{
        "experience": {
            "missing_eos_penalty": 1.5,
            "rewards": {"beta": 0.1},
            "reward_whitening": null,
            "advantages": {"lambda": 1.0},
            "advantage_whitening": "keep_mean"
        },
        "policy": {"clip": 0.3},
        "value": {"clip": null},
        "entropy": {"coefficient": 0.02}
    }"#;
    let want = RlhfConfig {
        experience: ExperienceConfig {
            missing_eos_penalty: 1.5,
            rewards: ShapedRewardsConfig {
                beta: 0.1,
                ..Default::default()
            },
            reward_whitening: None,
            advantages: GaeConfig {
                lambda: 1.0,
                ..Default::default()
            },
            advantage_whitening: Some(Whiten::KeepMean),
        },
        policy: PpoConfig {
            clip: 0.3,
            ..Default::default()
        },
        value: PpoValueConfig { clip: None },
        value_weight: 0.1,
        entropy: Some(EntropyConfig { coefficient: 0.02 }),
    };
    assert_eq!(serde_json::from_str::<RlhfConfig>(json).unwrap(), want);
    let written = serde_json::to_string(&want).unwrap();
    assert_eq!(serde_json::from_str::<RlhfConfig>(&written).unwrap(), want);
}
