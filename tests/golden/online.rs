//! RLHF with PPO, against TRL's statements and the papers' sums.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::math::Whiten;
use candle_align::math::whiten;
use candle_align::online::controller::KlController;
use candle_align::{
    GaeConfig, KlEstimator, PpoConfig, PpoValueConfig, Reduction, Result, ShapedRewardsConfig,
    TokenLogProbs, gae, ppo_policy_loss, ppo_value_loss, shaped_rewards,
};
use candle_core::{Device, Tensor};

/// TRL counts its clip fractions in f32.
const COUNTED: f64 = 6e-8;

#[test]
fn ppo() {
    each("ppo", |case| match case.word("kind") {
        "rollout" => rollout(case),
        "losses" => losses(case),
        "policy" => policy(case),
        "whiten" => whitened(case),
        "controller" => controller(case),
        other => panic!("{}: {other}", case.name),
    });
}

fn rollout(case: &Case) -> Result<()> {
    let mask = case.mask("mask")?;
    let log_probs = TokenLogProbs::new(&case.input("log_probs")?, &mask)?;
    let config = ShapedRewardsConfig {
        beta: case.number("beta"),
        estimator: match case.word("estimator") {
            "k1" => KlEstimator::K1,
            "k3" => KlEstimator::K3,
            other => panic!("{}: {other}", case.name),
        },
    };
    let (reference, scores) = (case.input("reference")?, case.input("scores")?);
    let rewards = shaped_rewards(&log_probs, &reference, &scores, &config)?;
    case.check("rewards", &rewards, EXACT)?;

    let config = GaeConfig {
        gamma: case.number("gamma"),
        lambda: case.number("lambda"),
    };
    let out = gae(&rewards, &case.input("values")?, &mask, &config)?;
    case.check("advantages", &out.advantages, EXACT)?;
    case.check("returns", &out.returns, EXACT)
}

fn losses(case: &Case) -> Result<()> {
    let mask = case.mask("mask")?;
    let (log_probs, values) = (case.var("log_probs")?, case.var("values")?);
    let config = PpoConfig {
        clip: case.number("clip"),
        ..Default::default()
    };
    let policy = ppo_policy_loss(
        &TokenLogProbs::new(&log_probs, &mask)?,
        &case.input("old")?,
        &case.input("advantages")?,
        &config,
    )?;
    let clip = case.number("value_clip");
    let (old_values, returns) = (case.input("old_values")?, case.input("returns")?);
    let config = PpoValueConfig { clip: Some(clip) };
    let value = ppo_value_loss(&values, &old_values, &returns, &mask, &config)?;

    case.check("ratio", &policy.ratio, EXACT)?;
    let metrics = policy.metrics()?;
    case.check("clip_fraction", &metrics.clip_fraction, COUNTED)?;
    let policy = policy.loss.reduce(Reduction::TokenMean)?;
    let value = value.reduce(Reduction::TokenMean)?;
    let loss = (&policy + (&value * case.number("value_weight"))?)?;
    case.check("policy", &policy, EXACT)?;
    case.check("value", &value, EXACT)?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("log_probs", &loss, &log_probs, EXACT)?;
    case.check_gradient("values", &loss, &values, EXACT)
}

fn policy(case: &Case) -> Result<()> {
    let log_probs = case.var("log_probs")?;
    let config = PpoConfig {
        clip: case.number("clip_low"),
        clip_high: case.optional("clip_high"),
        dual_clip: case.optional("dual_clip"),
    };
    let out = ppo_policy_loss(
        &TokenLogProbs::new(&log_probs, &case.mask("mask")?)?,
        &case.input("old")?,
        &case.input("advantages")?,
        &config,
    )?;
    case.check("loss", &out.loss.loss, EXACT)?;
    case.check_gradient("log_probs", &out.loss.loss, &log_probs, EXACT)
}

fn whitened(case: &Case) -> Result<()> {
    let (x, mask) = (case.input("x")?, case.mask("mask")?);
    case.check("zero_mean", &whiten(&x, &mask, Whiten::ZeroMean)?, EXACT)?;
    case.check("keep_mean", &whiten(&x, &mask, Whiten::KeepMean)?, EXACT)
}

fn controller(case: &Case) -> Result<()> {
    let mut controller = KlController::Adaptive {
        beta: case.number("start"),
        target: case.number("target"),
        horizon: case.number("horizon"),
    };
    let mut path = Vec::new();
    for kl in case.input("kl")?.to_vec1::<f64>()? {
        controller = controller.update(kl, case.number("steps") as usize)?;
        path.push(controller.beta());
    }
    case.check("beta", &Tensor::new(path, &Device::Cpu)?, EXACT)
}
