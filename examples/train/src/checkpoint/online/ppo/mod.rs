//! PPO: a value model judges each token.
//!
//! The value model is TRL's and OpenRLHF's: a model of its own with a head that gives one number, begun from the trained
//! model. Under an adapter it shares the frozen weights and has another adapter with the same settings and its own head;
//! else it is a second copy.
//!
//! ```text
//! round     answers, their log-probabilities, values and rewards ─► Rollout::experience ─► advantages and returns
//! steps     num_ppo_epochs times: every answer once, in num_mini_batches steps in a new order
//! step      ppo_policy_loss + vf_coef · ppo_value_loss, each a mean over the tokens of the step
//! ```
//!
//! | file | does |
//! |---|---|
//! | this one | the settings |
//! | [`critic`] | the value model |
//! | [`lesson`] | what a round teaches; which answers a step takes |

pub mod critic;
pub mod lesson;
mod step;

pub use step::loss;

use super::super::super::error::{Error, Result};
use candle_align::math::Whiten;
use candle_align::{ExperienceConfig, GaeConfig, KlEstimator, ShapedRewardsConfig};
use serde::{Deserialize, Serialize};

/// The settings, with the names and defaults of TRL's `PPOConfig`. The clip of the ratio is `online.epsilon`, and the price
/// of the KL `online.beta`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ppo {
    /// How often the answers of a round are learned from.
    pub num_ppo_epochs: usize,
    /// The steps of an epoch, each with `fit.batch` times `fit.accumulation` answers.
    pub num_mini_batches: usize,
    /// The weight of the value model's loss.
    pub vf_coef: f64,
    /// How far a value may move from the old one; null: without a bound.
    pub cliprange_value: Option<f64>,
    /// γ, the discount per token.
    pub gamma: f64,
    /// λ of generalized advantage estimation.
    pub lam: f64,
    /// Whether rewards are brought to deviation 1 over the round. Advantages always are.
    pub whiten_rewards: bool,
    /// The estimate of the KL in the reward.
    pub kl_estimator: KlEstimator,
    /// What an answer without an end pays; null: nothing.
    pub missing_eos_penalty: Option<f64>,
}

impl Default for Ppo {
    fn default() -> Self {
        Self {
            num_ppo_epochs: 4,
            num_mini_batches: 1,
            vf_coef: 0.1,
            cliprange_value: Some(0.2),
            gamma: 1.0,
            lam: 0.95,
            whiten_rewards: false,
            kl_estimator: KlEstimator::K1,
            missing_eos_penalty: None,
        }
    }
}

impl Ppo {
    /// An error for a value out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let clip = self.cliprange_value.unwrap_or(1.0);
        let penalty = self.missing_eos_penalty.unwrap_or(0.0);
        let (epochs, parts) = (self.num_ppo_epochs, self.num_mini_batches);
        for (name, value, holds, expected) in [
            ("num_ppo_epochs", epochs as f64, epochs > 0, "at least 1"),
            ("num_mini_batches", parts as f64, parts > 0, "at least 1"),
            (
                "vf_coef",
                self.vf_coef,
                not_negative(self.vf_coef),
                "finite and >= 0",
            ),
            ("cliprange_value", clip, positive(clip), "finite and > 0"),
            ("gamma", self.gamma, share(self.gamma), "in [0, 1]"),
            ("lam", self.lam, share(self.lam), "in [0, 1]"),
            (
                "missing_eos_penalty",
                penalty,
                not_negative(penalty),
                "finite and >= 0",
            ),
        ] {
            if !holds {
                let problem = format!("`online.ppo.{name}` must be {expected}, got {value}");
                return Err(Error::Usage(problem));
            }
        }
        Ok(())
    }

    /// How rewards become advantages. `beta` is the price of the KL.
    pub fn experience(&self, beta: f64) -> ExperienceConfig {
        ExperienceConfig {
            missing_eos_penalty: self.missing_eos_penalty.unwrap_or(0.0),
            rewards: ShapedRewardsConfig {
                beta,
                estimator: self.kl_estimator,
            },
            reward_whitening: self.whiten_rewards.then_some(Whiten::KeepMean),
            advantages: GaeConfig {
                gamma: self.gamma,
                lambda: self.lam,
            },
            advantage_whitening: Some(Whiten::ZeroMean),
        }
    }
}
