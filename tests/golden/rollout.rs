//! One whole training step, against its scalars written out.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::math::Whiten;
use candle_align::{
    ExperienceConfig, GaeConfig, KlEstimator, PpoConfig, PpoValueConfig, Reduction, RlhfConfig,
    Rollout, ShapedRewardsConfig, TokenLogProbs, rlhf_loss,
};
use candle_core::{Device, Tensor};

fn whitening(case: &Case, key: &str) -> Option<Whiten> {
    match case.word(key) {
        "keep_mean" => Some(Whiten::KeepMean),
        "zero_mean" => Some(Whiten::ZeroMean),
        _ => None,
    }
}

#[test]
fn a_training_step() {
    each("rollout", |case| {
        let config = RlhfConfig {
            experience: ExperienceConfig {
                missing_eos_penalty: case.number("penalty"),
                rewards: ShapedRewardsConfig {
                    beta: case.number("beta"),
                    estimator: match case.word("estimator") {
                        "k1" => KlEstimator::K1,
                        "k2" => KlEstimator::K2,
                        "k3" => KlEstimator::K3,
                        other => panic!("{}: {other}", case.name),
                    },
                },
                reward_whitening: whitening(case, "reward_whitening"),
                advantages: GaeConfig {
                    gamma: case.number("gamma"),
                    lambda: case.number("lambda"),
                },
                advantage_whitening: whitening(case, "advantage_whitening"),
            },
            policy: PpoConfig {
                clip: case.number("clip"),
                ..Default::default()
            },
            value: PpoValueConfig {
                clip: case.optional("value_clip"),
            },
            value_weight: case.number("value_weight"),
            entropy: None,
        };
        let mask = case.mask("mask")?;
        let rollout = Rollout {
            old: TokenLogProbs::new(&case.input("old")?, &mask)?,
            reference: case.input("reference")?,
            values: case.input("old_values")?,
            scores: case.input("scores")?,
            ended: Some(case.mask("ended")?),
        };
        let experience = rollout.experience(&config.experience)?;
        case.check("rewards", &experience.rewards, EXACT)?;
        case.check("advantages", &experience.advantages, EXACT)?;
        case.check("returns", &experience.returns, EXACT)?;
        let kl = Tensor::new(experience.mean_kl()?, &Device::Cpu)?;
        case.check("mean_kl", &kl, EXACT)?;

        // two minibatches, each divided by the tokens of the batch
        let reduction = Reduction::TokenMean.over(Reduction::TokenMean.count(&mask)?);
        let (new, values) = (case.var("new")?, case.var("values")?);
        let (mut losses, mut policy, mut value, mut clipped) = (vec![], vec![], vec![], vec![]);
        for first in 0..2 {
            let rows = Tensor::arange_step(first, mask.dim(0)? as u32, 2, &Device::Cpu)?;
            let of = |x: &Tensor| x.index_select(&rows, 0);
            let log_probs = TokenLogProbs::new(&of(&new)?, &of(&mask)?)?;
            let minibatch = experience.rows(&rows)?;
            let out = rlhf_loss(&log_probs, &of(&values)?, &minibatch, &config)?;
            losses.push(out.loss.reduce(reduction)?);
            policy.push(out.policy.loss.reduce(reduction)?);
            value.push(out.value.reduce(reduction)?);
            clipped.push(reduction.apply(&out.policy.clipped, &minibatch.mask)?);
        }
        case.check("first", &losses[0], EXACT)?;
        case.check("second", &losses[1], EXACT)?;
        for (name, parts) in [
            ("policy", &policy),
            ("value", &value),
            ("clip_fraction", &clipped),
        ] {
            case.check(name, &(&parts[0] + &parts[1])?, EXACT)?;
        }
        let loss = (&losses[0] + &losses[1])?;
        case.check("loss", &loss, EXACT)?;
        case.check_gradient("new", &loss, &new, EXACT)?;
        case.check_gradient("values", &loss, &values, EXACT)
    });
}
