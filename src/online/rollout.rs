//! One batch of the policy's own answers, and what is learned from it (survey §3.1).
//!
//! In one sentence: scores become rewards, and rewards become advantages. All of them are constants,
//! computed once for the whole batch, before it is split into minibatches.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_old(yₜ│x, y₍<t₎), log π_ref(yₜ│x, y₍<t₎) | [`Rollout::old`], [`Rollout::reference`] | `[batch, time]` |
//! | V_old(sₜ) | [`Rollout::values`], what was expected before token t was chosen | `[batch, time]` |
//! | r(x, y) | [`Rollout::scores`] | `[batch]` |
//! | y has its end-of-sequence token | [`Rollout::ended`] | `[batch]` |
//! | rₜ, Âₜ, R̂ₜ | [`Experience::rewards`], [`Experience::advantages`], [`Experience::returns`] | `[batch, time]` |
//! | KL(π_old‖π_ref) | [`Experience::kl`], [`Experience::mean_kl`] | `[batch, time]`, number |
//!
//! Read next: [`crate::online::rlhf`], the loss on a minibatch, and the whole loop.

use super::advantages::{GaeConfig, gae};
use super::kl::{KlEstimator, kl_loss};
use super::rewards::{ShapedRewardsConfig, missing_eos_penalty, shaped_rewards};
use crate::error::{Error, Result, non_negative, require};
use crate::log_probs::TokenLogProbs;
use crate::math::{Whiten, mask_count, require_finite, to_host, whiten};
use crate::reduction::Reduction;
use crate::shape::Axes;
use candle_core::{DType, Tensor};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Settings of [`Rollout::experience`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExperienceConfig {
    /// p ≥ 0, subtracted from the score of an answer that did not end. Default 0. If it is above 0, the
    /// rollout must say which answers ended.
    pub missing_eos_penalty: f64,
    /// The KL in the reward. If a [`KlController`](crate::online::controller::KlController) steers β, write its current
    /// value here before each batch.
    pub rewards: ShapedRewardsConfig,
    /// How the rewards are scaled. Default [`Whiten::KeepMean`], as in lm-human-preferences. None
    /// leaves them unchanged, as later code does by default.
    pub reward_whitening: Option<Whiten>,
    /// γ and λ.
    pub advantages: GaeConfig,
    /// How the advantages are scaled. Default [`Whiten::ZeroMean`], as in lm-human-preferences. None
    /// leaves them unchanged.
    #[doc(alias = "advantage normalization")]
    pub advantage_whitening: Option<Whiten>,
}

impl Default for ExperienceConfig {
    fn default() -> Self {
        Self {
            missing_eos_penalty: 0.0,
            rewards: ShapedRewardsConfig::default(),
            reward_whitening: Some(Whiten::KeepMean),
            advantages: GaeConfig::default(),
            advantage_whitening: Some(Whiten::ZeroMean),
        }
    }
}

/// Answers drawn by the policy, and what was measured on them. [`Rollout::experience`] checks it.
///
/// The mask of `old` says which positions are tokens of an answer. It counts the end-of-sequence
/// token, which the policy chose like any other token, and nothing after it. If padding uses the same
/// symbol, only the first one counts. Prompts, padding and the output of tools do not count, wherever
/// they are.
#[doc(alias = "trajectory")]
#[derive(Clone, Debug)]
pub struct Rollout {
    /// log π_old of the tokens drawn `[batch, time]`, such as [`Samples::log_probs`](crate::Samples::log_probs).
    /// Compute it as log π_θ is computed later: at the same temperature, in the same type, and with
    /// dropout off. Otherwise the ratio of an unchanged policy is not 1.
    pub old: TokenLogProbs,
    /// log π_ref of the same tokens `[batch, time]`.
    pub reference: Tensor,
    /// V_old(sₜ) `[batch, time]`: the critic's output at the position that predicts token t.
    pub values: Tensor,
    /// r(x, y) `[batch]`.
    pub scores: Tensor,
    /// u8 `[batch]`, 0 where the answer was cut off. It may be none if that has no penalty.
    pub ended: Option<Tensor>,
}

/// What is learned from a [`Rollout`], or from some of its answers: constants.
///
/// Every tensor is `[batch, time]`. All but the mask are 0 where the mask does not count.
#[doc(alias = "rollout buffer")]
#[derive(Clone, Debug)]
pub struct Experience {
    /// Which tokens count, u8.
    pub mask: Tensor,
    /// log π_old.
    pub old: Tensor,
    /// V_old(sₜ).
    pub old_values: Tensor,
    /// k₁ of KL(π_old‖π_ref), whichever estimator the reward uses.
    pub kl: Tensor,
    /// rₜ, whitened if that was requested.
    pub rewards: Tensor,
    /// Âₜ, whitened if that was requested.
    pub advantages: Tensor,
    /// R̂ₜ, never whitened.
    pub returns: Tensor,
}

impl Rollout {
    /// Rewards, advantages and returns of the whole batch.
    ///
    /// # Equation
    /// ```text
    /// r′     = r(x, y) − p · [y did not end]
    /// rₜ     = −β · k( log π_ref(yₜ) − log π_old(yₜ) )  +  r′ · [t is the last token that counts]
    /// rₜ     ← rₜ / s + μ (1 − 1/s)                       μ, s: mean and deviation of the rₜ of the batch
    /// Âₜ, R̂ₜ = GAE( r, V_old )
    /// Âₜ     ← ( Âₜ − mean Â ) / deviation of Â
    /// ```
    /// # Shapes
    /// As [`Rollout`] and [`Experience`] say.
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] if the shapes or types differ. [`Error::Argument`] if a
    /// log-probability, a value or a score that counts is not finite, or if `ended` is none and its
    /// penalty is not 0. [`Error::Parameter`] for a setting out of its range. These checks read the
    /// numbers to the host, once per rollout.
    /// # Properties
    /// * Reordering the answers reorders the experience and changes nothing else. Adding positions that
    ///   do not count changes nothing.
    /// * Without whitening, each answer's experience depends on that answer alone, and with γ = λ = 1
    ///   R̂ₜ is the score less β times the log-ratio of token t and all later ones.
    /// * With k₁, [`Whiten::KeepMean`] on the rewards pays an answer
    ///   Σₜ rₜ = ( r − β log π/π_ref ) / s + │y│ μ (1 − 1/s). β keeps its meaning relative to the score,
    ///   but length gets a separate price. [`Whiten::ZeroMean`] there pays −│y│ μ / s.
    /// * Advantages whitened by [`Whiten::ZeroMean`] are the same for ten times the rewards. The size
    ///   of a step no longer shows how much there is to gain (see
    ///   [the page on whitening](crate::online::rlhf#what-whitening-does-to-β)).
    /// # Departures
    /// The authors' code whitens inside the loss, each minibatch separately. With its default of one
    /// minibatch that is the same. Here the whole batch is whitened. Their code handles neither padding
    /// nor answers that end early. It sets the score of an answer without the end token to −1, where this
    /// function subtracts p.
    /// # Examples
    /// ```
    /// use candle_align::{ExperienceConfig, GaeConfig, Rollout, ShapedRewardsConfig, TokenLogProbs};
    /// use candle_core::{Device, Tensor};
    ///
    /// let mask = Tensor::new(&[[1u8, 1, 0]], &Device::Cpu)?;
    /// let rollout = Rollout {
    ///     old: TokenLogProbs::new(&Tensor::new(&[[-1.0f64, -2.0, 0.0]], &Device::Cpu)?, &mask)?,
    ///     reference: Tensor::new(&[[-1.5f64, -1.0, 0.0]], &Device::Cpu)?,
    ///     values: Tensor::new(&[[0.25f64, 0.75, 0.0]], &Device::Cpu)?,
    ///     scores: Tensor::new(&[3.0f64], &Device::Cpu)?,
    ///     ended: Some(Tensor::new(&[0u8], &Device::Cpu)?),
    /// };
    /// let config = ExperienceConfig {
    ///     missing_eos_penalty: 1.0,
    ///     rewards: ShapedRewardsConfig { beta: 0.5, ..Default::default() },
    ///     reward_whitening: None,
    ///     advantages: GaeConfig { gamma: 1.0, lambda: 1.0 },
    ///     advantage_whitening: None,
    /// };
    /// let experience = rollout.experience(&config)?;
    ///
    /// // k₁ = 0.5 and −1; the answer was cut off
    /// let (first, last) = (-0.5 * 0.5, -0.5 * -1.0 + (3.0 - 1.0));
    /// assert_eq!(experience.rewards.to_vec2::<f64>()?, [[first, last, 0.0]]);
    /// assert_eq!(experience.returns.to_vec2::<f64>()?, [[first + last, last, 0.0]]);
    /// assert_eq!(experience.advantages.to_vec2::<f64>()?, [[first + last - 0.25, last - 0.75, 0.0]]);
    /// assert_eq!(experience.mean_kl()?, 0.5 - 1.0);
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Inspect
    /// Whitening hides the scale of the rewards, so look at the numbers before it, batch by batch: the mean
    /// and the deviation of the scores, the share of answers that did not end, and
    /// [`Experience::mean_kl`]. In the first batch, before any training, the mean KL is 0; if not, policy
    /// and reference were computed in different ways. If the deviation of the scores falls to 0, all
    /// answers are worth the same, and whitened advantages hold only the KL and the critic's errors.
    /// # Try
    /// * Which answers does [`Whiten::KeepMean`] favor, long ones or short ones? Solution:
    ///   `tests/identities/rollout.rs::whitened_rewards_keep_beta_against_the_score_and_price_length`.
    /// * Whiten each minibatch separately instead. What changes? Solution:
    ///   `tests/identities/rollout.rs::whitening_a_minibatch_by_itself_is_not_whitening_the_batch`.
    /// # Source
    /// Ziegler et al. 2019, arXiv:1909.08593v2, eq. 2; Schulman et al. 2017, arXiv:1707.06347v2,
    /// eqs. 11–12; authors' code openai/lm-human-preferences, `train_policy.py`, `PPOTrainer.step`
    /// and the first half of `PPOTrainer.loss`.
    #[doc(alias = "advantage whitening")]
    pub fn experience(&self, config: &ExperienceConfig) -> Result<Experience> {
        let function = "Rollout::experience";
        let penalty = config.missing_eos_penalty;
        non_negative(function, "missing_eos_penalty", penalty)?;
        self.check(function)?;
        let old = self.old.detach();
        let mask = old.mask();

        // r′ = r − p · [y did not end]. Apart from that, an answer that was cut off is treated as if it
        // had ended there: nothing is expected after it.
        let scores = match &self.ended {
            Some(ended) => missing_eos_penalty(&self.scores, ended, penalty)?,
            None if penalty == 0.0 => self.scores.clone(),
            None => {
                let problem = "is none, which missing_eos_penalty > 0 needs";
                return Err(Error::argument(function, "ended", problem));
            }
        };

        // rₜ = −β k + r′ · [t is the last token that counts]. The KL is charged token by token and not
        // in one sum with the score, so that each token pays for itself and for what followed from it.
        // Its estimate is a constant here and acts through the advantages. That calls for k₁, the only
        // one of the three whose value times ∇ log π is the gradient of KL(π‖π_ref). The score goes to
        // the last token that counts, which is the end-of-sequence token if there is one. It does not go
        // to the last position, which may be padding, or past the end, where no token was chosen.
        let mut rewards = shaped_rewards(&old, &self.reference, &scores, &config.rewards)?;

        // rₜ ← rₜ / s + μ (1 − 1/s), over the counted tokens of all answers, without padding
        if let Some(mean) = config.reward_whitening {
            rewards = whiten(&rewards, mask, mean)?;
        }

        // Âₜ, R̂ₜ. After the last token of an answer V and Â are 0, wherever padding begins, so no value
        // past the end enters. With γ < 1 the score reaches token t multiplied by γ to the number of
        // tokens after t; positions that do not count are not among them.
        let estimate = gae(&rewards, &self.values, mask, &config.advantages)?;

        // Âₜ ← (Âₜ − mean) / deviation. This comes after the returns, which the critic should learn
        // unscaled. It runs over the whole batch, before the split: a minibatch's own mean and deviation
        // would depend on which answers happen to share it and would cancel 1/n of an answer's own
        // signal, and accumulated minibatches would not equal one batch.
        let advantages = match config.advantage_whitening {
            Some(mean) => whiten(&estimate.advantages, mask, mean)?,
            None => estimate.advantages,
        };

        Ok(Experience {
            mask: mask.clone(),
            old: old.values().clone(),
            old_values: crate::math::masked(&self.values.detach(), mask)?,
            kl: kl_loss(&old, &self.reference, KlEstimator::K1)?.loss,
            rewards,
            advantages,
            returns: estimate.returns,
        })
    }

    fn check(&self, function: &'static str) -> Result<()> {
        let mask = self.old.mask();
        let mut axes = Axes::new(function);
        axes.float("old", self.old.values(), &["batch", "time"])?;
        axes.float("reference", &self.reference, &["batch", "time"])?;
        axes.float("values", &self.values, &["batch", "time"])?;
        axes.float("scores", &self.scores, &["batch"])?;
        if let Some(ended) = &self.ended {
            axes.mask("ended", ended, &["batch"])?;
        }
        // Whitening would spread one NaN to every advantage of the batch, so it is named here.
        require_finite(function, "old", self.old.values(), mask)?;
        require_finite(function, "reference", &self.reference, mask)?;
        require_finite(function, "values", &self.values, mask)?;
        // the score of an answer without a token is never read
        let answers = mask_count(mask, DType::F64)?.gt(0.0)?;
        require_finite(function, "scores", &self.scores, &answers)
    }
}

impl Experience {
    /// The number of answers.
    pub fn len(&self) -> usize {
        self.mask.dims().first().copied().unwrap_or(0)
    }

    /// Whether there are no answers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// KL(π_old‖π_ref) in nats per answer, for [`KlController::update`](crate::online::controller::KlController::update):
    /// k₁ summed over each answer, then averaged over the answers that count a token.
    ///
    /// It is not a mean over tokens, and β is not in it. It belongs to the whole rollout, not to a
    /// minibatch after some updates. It may be negative. Use it to set β for the next batch.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn mean_kl(&self) -> Result<f64> {
        let kl = Reduction::SequenceMean.apply(&self.kl, &self.mask)?;
        Ok(kl.to_dtype(DType::F64)?.to_scalar::<f64>()?)
    }

    /// One epoch: the rows of each minibatch, in u32. Every row of the experience occurs exactly once, in
    /// an order drawn from `rng`. Call this again for the next epoch.
    ///
    /// The last minibatch is smaller if `size` does not divide the batch; dropping it would drop answers.
    /// Take the same rows of the tokens that the model reads: `tokens.index_select(&rows, 0)`.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless `size` ≥ 1.
    pub fn minibatches(&self, size: usize, rng: &mut impl Rng) -> Result<Vec<Tensor>> {
        require(
            size >= 1,
            "Experience::minibatches",
            "size",
            "at least 1",
            size,
        )?;
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.shuffle(rng);
        let rows = order
            .chunks(size)
            .map(|rows| Ok(Tensor::new(rows, self.mask.device())?));
        rows.collect()
    }

    /// Some of the answers, in the order of `rows` (u32 or i64).
    ///
    /// Nothing is recomputed: whitened advantages stay those of the whole batch.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] unless `rows` is a list of u32 or i64;
    /// [`Error::Argument`] if one of them is not a row of the experience.
    pub fn rows(&self, rows: &Tensor) -> Result<Self> {
        let function = "Experience::rows";
        let rows = Axes::new(function).index("rows", rows, &["rows"])?;
        // checked here, because candle reads the largest index of each type as "a row of zeros"
        let batch = self.len();
        for row in to_host::<i64>(&rows.to_dtype(DType::I64)?)? {
            if !usize::try_from(row).is_ok_and(|row| row < batch) {
                let problem = format!("holds {row}, outside the {batch} rows of the experience");
                return Err(Error::argument(function, "rows", problem));
            }
        }
        let of = |x: &Tensor| match rows.elem_count() * x.elem_count() {
            0 => {
                let mut shape = x.dims().to_vec();
                shape[0] = rows.elem_count();
                Tensor::zeros(shape, x.dtype(), x.device())
            }
            _ => x.index_select(&rows, 0),
        };
        Ok(Self {
            mask: of(&self.mask)?,
            old: of(&self.old)?,
            old_values: of(&self.old_values)?,
            kl: of(&self.kl)?,
            rewards: of(&self.rewards)?,
            advantages: of(&self.advantages)?,
            returns: of(&self.returns)?,
        })
    }
}
