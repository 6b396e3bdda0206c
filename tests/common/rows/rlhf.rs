use super::super::{Input, Row, constant, index, mask, trained};
use candle_align::math::Whiten;
use candle_align::{
    EntropyConfig, ExperienceConfig, GaeConfig, PpoConfig, PpoValueConfig, Result, RlhfConfig,
    Rollout, ShapedRewardsConfig, Statistics, TokenLogProbs, rlhf_loss,
};
use candle_core::{D, Tensor};

#[rustfmt::skip]
const OLD: [f64; 12] = [
    -0.4, -1.3, -2.0, -0.7,   -1.1, -0.2, -2.5, -3.0,   -0.9, -1.6, -0.3, -2.2,
];

/// log-ratios new − old: inside and beyond both bounds.
#[rustfmt::skip]
const MOVED: [f64; 12] = [
    0.0, 0.05, 0.6, -0.6,   -0.1, 1.0, 0.4, 0.0,   0.9, -0.9, 0.02, -0.3,
];

fn reference(shape: &[usize], old: &[f64]) -> Input {
    let reference: Vec<f64> = (0..old.len())
        .map(|i| old[i] + 0.4 * (1.3 * i as f64).sin())
        .collect();
    constant("reference", shape, &reference)
}

fn inputs(scale: f64) -> Vec<Input> {
    let new: Vec<f64> = OLD.iter().zip(MOVED).map(|(p, d)| p + d * scale).collect();
    #[rustfmt::skip]
    let (old_values, values) = (
        [0.8, 0.6, -0.1, 1.0,    0.3,  0.0, 1.5, 0.2,   0.9, 0.4,  -0.2, -1.0],
        [0.85, 0.1, -0.5, 0.9,   0.7, -0.1, 1.1, 0.0,   0.5, 0.45,  0.7, -0.7],
    );
    vec![
        trained("new", &[3, 4], &new),
        mask("mask", &[3, 4], &[0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1]),
        // checked where the log-probabilities are made
        constant("values", &[3, 4], &OLD),
        reference(&[3, 4], &OLD),
        constant("values", &[3, 4], &old_values),
        constant("scores", &[3], &[1.5, -0.7, 0.4]),
        mask("ended", &[3], &[1, 0, 1]),
        trained("values", &[3, 4], &values),
    ]
}

fn rollout(old: TokenLogProbs, x: &[Tensor]) -> Rollout {
    Rollout {
        old,
        reference: x[0].clone(),
        values: x[1].clone(),
        scores: x[2].clone(),
        ended: Some(x[3].clone()),
    }
}

fn step(x: &[Tensor], config: &RlhfConfig) -> Result<Tensor> {
    let old = TokenLogProbs::new(&x[2], &x[1])?;
    let experience = rollout(old, &x[3..7]).experience(&config.experience)?;
    let new = TokenLogProbs::new(&x[0], &x[1])?;
    let out = rlhf_loss(&new, &x[7], &experience, config)?;
    Ok(out.loss.loss.sum(D::Minus1)?)
}

fn plain() -> RlhfConfig {
    RlhfConfig {
        experience: ExperienceConfig {
            missing_eos_penalty: 0.9,
            rewards: ShapedRewardsConfig {
                beta: 0.35,
                ..Default::default()
            },
            reward_whitening: None,
            advantages: GaeConfig {
                gamma: 0.9,
                lambda: 0.7,
            },
            advantage_whitening: None,
        },
        policy: PpoConfig {
            clip: 0.1,
            ..Default::default()
        },
        value: PpoValueConfig { clip: None },
        value_weight: 0.6,
        entropy: None,
    }
}

/// The new policy from its logits, with an entropy bonus.
fn with_entropy(x: &[Tensor]) -> Result<Tensor> {
    let config = RlhfConfig {
        entropy: Some(EntropyConfig { coefficient: 0.3 }),
        ..plain()
    };
    let old = TokenLogProbs::new(&x[3], &x[2])?;
    let experience = rollout(old, &x[4..8]).experience(&config.experience)?;
    let statistics = Statistics {
        entropy: true,
        ..Default::default()
    };
    let new = TokenLogProbs::aligned(&x[0], &x[1], &x[2], statistics)?;
    let out = rlhf_loss(&new, &x[8], &experience, &config)?;
    Ok(out.loss.loss.sum(D::Minus1)?)
}

fn logits() -> Vec<Input> {
    #[rustfmt::skip]
    let logits = [
        0.3, -1.0, 2.0,   0.0, 0.0, 0.0,   1.5, 0.2, -0.7,
        -0.4, 0.9, 0.1,   2.2, -2.0, 0.5,  0.6, 0.6, -1.1,
    ];
    let old = [-0.5, -1.0, -0.3, -0.6, -2.0, -0.9];
    vec![
        trained("logits", &[2, 3, 3], &logits),
        index("targets", &[2, 3], &[2, 1, 0, 1, 1, 0]),
        mask("mask", &[2, 3], &[1, 1, 0, 0, 1, 1]),
        constant("values", &[2, 3], &old),
        reference(&[2, 3], &old),
        constant("values", &[2, 3], &[0.1, -0.4, 0.9, 0.3, 0.5, -0.2]),
        constant("scores", &[2], &[1.0, -0.6]),
        mask("ended", &[2], &[1, 0]),
        trained("values", &[2, 3], &[0.3, -0.1, 0.2, 0.4, 0.9, -0.6]),
    ]
}

pub fn rows() -> Vec<Row> {
    // whitening mixes the examples of a batch
    let row = |name, inputs, loss, independent| Row {
        name,
        inputs,
        loss,
        independent,
    };
    vec![
        row(
            "rlhf",
            inputs(1.0),
            |x| step(x, &RlhfConfig::default()),
            false,
        ),
        row(
            "rlhf, at its start",
            inputs(0.0),
            |x| step(x, &RlhfConfig::default()),
            false,
        ),
        row("rlhf, plain", inputs(1.0), |x| step(x, &plain()), true),
        row(
            "rlhf, the other whitenings",
            inputs(1.0),
            |x| {
                let mut config = plain();
                config.experience.reward_whitening = Some(Whiten::ZeroMean);
                config.experience.advantage_whitening = Some(Whiten::KeepMean);
                step(x, &config)
            },
            false,
        ),
        row("rlhf, entropy", logits(), with_entropy, true),
    ]
}
