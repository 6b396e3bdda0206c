use super::super::{Input, Row, constant, index, mask, trained};
use candle_align::{
    EntropyConfig, KlEstimator, PpoConfig, PpoValueConfig, PtxConfig, Result, Statistics,
    TokenLogProbs, TokenLoss, entropy_loss, kl_loss, ppo_policy_loss, ppo_value_loss, ptx_loss,
};
use candle_core::{D, Tensor};

fn per_example(loss: TokenLoss) -> Result<Tensor> {
    Ok(loss.loss.sum(D::Minus1)?)
}

fn counted() -> Input {
    mask("mask", &[3, 4], &[0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 1, 1])
}

#[rustfmt::skip]
const POLICY: [f64; 12] = [
    -0.4, -1.3, -2.0, -0.7,   -1.1, -0.2, -2.5, -3.0,   -0.9, -1.6, -0.3, -2.2,
];

/// log-ratios new − old: inside and beyond both bounds, under advantages of both signs and 0.
#[rustfmt::skip]
const MOVED: [f64; 12] = [
    0.0, 0.05, 0.6, -0.6,   -0.1, 1.0, 0.4, 0.0,   0.9, -0.9, 0.02, -0.3,
];

#[rustfmt::skip]
const ADVANTAGES: [f64; 12] = [
    9.0, 1.5, 0.7, 0.8,   -1.2, 2.0, -0.6, 4.0,   -2.0, -0.4, 0.0, 1.1,
];

fn kl(x: &[Tensor], estimator: KlEstimator) -> Result<Tensor> {
    per_example(kl_loss(
        &TokenLogProbs::new(&x[0], &x[1])?,
        &x[2],
        estimator,
    )?)
}

fn kl_inputs(scale: f64) -> Vec<Input> {
    let reference: Vec<f64> = POLICY
        .iter()
        .zip(MOVED)
        .map(|(p, d)| p - d * scale)
        .collect();
    vec![
        trained("values", &[3, 4], &POLICY),
        counted(),
        constant("reference", &[3, 4], &reference),
    ]
}

fn policy(x: &[Tensor], config: &PpoConfig) -> Result<Tensor> {
    let new = TokenLogProbs::new(&x[0], &x[1])?;
    per_example(ppo_policy_loss(&new, &x[2], &x[3], config)?.loss)
}

fn policy_inputs(scale: f64) -> Vec<Input> {
    let mut inputs = kl_inputs(scale);
    inputs[2].name = "old";
    inputs.push(constant("advantages", &[3, 4], &ADVANTAGES));
    inputs
}

fn value(x: &[Tensor], config: &PpoValueConfig) -> Result<Tensor> {
    per_example(ppo_value_loss(&x[0], &x[1], &x[2], &x[3], config)?)
}

fn value_inputs() -> Vec<Input> {
    #[rustfmt::skip]
    let returns = [
        1.0, 0.5, -1.0, 2.0,   0.0, -0.4, 1.9, 0.3,   -0.6, 0.1, 1.0, -2.0,
    ];
    #[rustfmt::skip]
    let old = [
        0.8, 0.6, -0.1, 1.0,   0.3, 0.0, 1.5, 0.2,   0.9, 0.4, -0.2, -1.0,
    ];
    #[rustfmt::skip]
    let values = [
        0.85, 0.1, -0.5, 0.9,   0.7, -0.1, 1.1, 0.0,   0.5, 0.45, 0.7, -0.7,
    ];
    vec![
        trained("values", &[3, 4], &values),
        constant("old_values", &[3, 4], &old),
        constant("returns", &[3, 4], &returns),
        counted(),
    ]
}

fn logits() -> Vec<Input> {
    #[rustfmt::skip]
    let logits = [
        0.3, -1.0, 2.0,   0.0, 0.0, 0.0,   1.5, 0.2, -0.7,
        -0.4, 0.9, 0.1,   2.2, -2.0, 0.5,  0.6, 0.6, -1.1,
    ];
    vec![
        trained("logits", &[2, 3, 3], &logits),
        index("targets", &[2, 3], &[2, 1, 0, 1, 1, 0]),
        mask("mask", &[2, 3], &[1, 1, 0, 0, 1, 1]),
    ]
}

pub fn rows() -> Vec<Row> {
    let row = |name, inputs, loss| Row {
        name,
        inputs,
        loss,
        independent: true,
    };
    vec![
        row("kl, k1", kl_inputs(1.0), |x| kl(x, KlEstimator::K1)),
        row("kl, k2", kl_inputs(1.0), |x| kl(x, KlEstimator::K2)),
        row("kl, k3", kl_inputs(1.0), |x| kl(x, KlEstimator::K3)),
        row("kl, k2, at its start", kl_inputs(0.0), |x| {
            kl(x, KlEstimator::K2)
        }),
        row("kl, k3, at its start", kl_inputs(0.0), |x| {
            kl(x, KlEstimator::K3)
        }),
        row("kl, k3, near its start", kl_inputs(1e-3), |x| {
            kl(x, KlEstimator::K3)
        }),
        row("ppo policy", policy_inputs(1.0), |x| {
            policy(x, &PpoConfig::default())
        }),
        row("ppo policy, at its start", policy_inputs(0.0), |x| {
            policy(x, &PpoConfig::default())
        }),
        row("ppo policy, clips 0.3 and 0.6", policy_inputs(1.0), |x| {
            let config = PpoConfig {
                clip: 0.3,
                clip_high: Some(0.6),
                ..Default::default()
            };
            policy(x, &config)
        }),
        row("ppo policy, dual clip 1.7", policy_inputs(1.0), |x| {
            let config = PpoConfig {
                dual_clip: Some(1.7),
                ..Default::default()
            };
            policy(x, &config)
        }),
        row("ppo value", value_inputs(), |x| {
            value(x, &PpoValueConfig::default())
        }),
        row("ppo value, clip 0.35", value_inputs(), |x| {
            value(x, &PpoValueConfig { clip: Some(0.35) })
        }),
        row("ppo value, no clip", value_inputs(), |x| {
            value(x, &PpoValueConfig { clip: None })
        }),
        row("entropy", logits(), |x| {
            let statistics = Statistics {
                entropy: true,
                ..Default::default()
            };
            let log_probs = TokenLogProbs::aligned(&x[0], &x[1], &x[2], statistics)?;
            per_example(entropy_loss(
                &log_probs,
                &EntropyConfig { coefficient: 0.3 },
            )?)
        }),
        row("ptx", kl_inputs(1.0)[..2].to_vec(), |x| {
            per_example(ptx_loss(
                &TokenLogProbs::new(&x[0], &x[1])?,
                &PtxConfig::default(),
            )?)
        }),
    ]
}
