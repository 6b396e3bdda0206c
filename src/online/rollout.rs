//! One batch of own answers, and what is learnt from it (survey §3.1).
//!
//! In one sentence: scores become rewards, and rewards advantages, all of them constants, once for
//! the whole batch and before it is cut into minibatches.
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
    /// p ≥ 0, taken from the score of an answer that did not end. Default 0; above it the rollout
    /// must say which answers ended.
    pub missing_eos_penalty: f64,
    /// The KL in the reward. Where a [`KlController`](crate::KlController) steers β, its current
    /// value belongs in here before each batch.
    pub rewards: ShapedRewardsConfig,
    /// How the rewards are scaled. Default [`Whiten::KeepMean`], as in lm-human-preferences; none
    /// leaves them, as later code does by default.
    pub reward_whitening: Option<Whiten>,
    /// γ and λ.
    pub advantages: GaeConfig,
    /// How the advantages are scaled. Default [`Whiten::ZeroMean`], as in lm-human-preferences; none
    /// leaves them.
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

/// Answers drawn by the policy, and what was measured on them: checked by [`Rollout::experience`].
///
/// The mask of `old` says which positions are tokens of an answer. It counts the end-of-sequence
/// token, which the policy chose like any other, and nothing after it: where padding is written with
/// the same symbol, only the first of them. Prompts, padding and what a tool returned do not count,
/// wherever they stand.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// log π_old of the tokens drawn `[batch, time]`, such as [`Samples::log_probs`](crate::Samples::log_probs).
    /// Computed at the same temperature, in the same type and with dropout off as later log π_θ:
    /// else the ratio of an unchanged policy is not 1.
    pub old: TokenLogProbs,
    /// log π_ref of the same tokens `[batch, time]`.
    pub reference: Tensor,
    /// V_old(sₜ) `[batch, time]`: the critic's output at the position that predicts token t.
    pub values: Tensor,
    /// r(x, y) `[batch]`.
    pub scores: Tensor,
    /// u8 `[batch]`, 0 where the answer was cut off. May be none without a penalty for it.
    pub ended: Option<Tensor>,
}

/// What is learnt from a [`Rollout`], or from some of its answers: constants.
///
/// Every tensor but the mask is 0 where the mask does not count, and `[batch, time]`.
#[derive(Clone, Debug)]
pub struct Experience {
    /// Which tokens count, u8.
    pub mask: Tensor,
    /// log π_old.
    pub old: Tensor,
    /// V_old(sₜ).
    pub old_values: Tensor,
    /// k₁ of KL(π_old‖π_ref), whichever estimator the reward pays.
    pub kl: Tensor,
    /// rₜ, whitened where that was asked for.
    pub rewards: Tensor,
    /// Âₜ, whitened where that was asked for.
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
    /// penalty is not 0. [`Error::Parameter`] for a setting out of its range. The numbers are read to
    /// the host for it, once per rollout.
    /// # Properties
    /// * The answers in another order are the same experience in that order; so are the answers with
    ///   positions added that do not count.
    /// * Without whitening each answer's experience is that of the answer alone, and with γ = λ = 1
    ///   R̂ₜ is the score less β times the log-ratio of token t and all later ones.
    /// * With k₁, [`Whiten::KeepMean`] on the rewards pays an answer
    ///   Σₜ rₜ = ( r − β log π/π_ref ) / s + │y│ μ (1 − 1/s): β keeps its meaning against the score,
    ///   but length gets a price of its own. [`Whiten::ZeroMean`] there pays −│y│ μ / s.
    /// * Advantages whitened by [`Whiten::ZeroMean`] are the same for ten times the rewards: the size
    ///   of a step no longer tells how much there is to gain (see
    ///   [the page on whitening](crate::online::rlhf#what-whitening-does-to-β)).
    /// # Departures
    /// The authors' code whitens inside the loss, each minibatch by itself; its default of one
    /// minibatch makes that the same. Here it is the whole batch. Their code knows neither padding nor
    /// answers that end early, and replaces the score of an answer without the token looked for by −1
    /// where this subtracts p.
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
    /// # Source
    /// Ziegler et al. 2019, arXiv:1909.08593v2, eq. 2; Schulman et al. 2017, arXiv:1707.06347v2,
    /// eqs. 11–12; authors' code openai/lm-human-preferences, `train_policy.py`, `PPOTrainer.step`
    /// and the first half of `PPOTrainer.loss`.
    pub fn experience(&self, config: &ExperienceConfig) -> Result<Experience> {
        let function = "Rollout::experience";
        let penalty = config.missing_eos_penalty;
        non_negative(function, "missing_eos_penalty", penalty)?;
        self.check(function)?;
        let old = self.old.detach();
        let mask = old.mask();

        // r′ = r − p · [y did not end]. An answer that was cut off is otherwise treated as one that
        // ended where it was cut: nothing is expected after it.
        let scores = match &self.ended {
            Some(ended) => missing_eos_penalty(&self.scores, ended, penalty)?,
            None if penalty == 0.0 => self.scores.clone(),
            None => {
                let problem = "is none, which missing_eos_penalty > 0 needs";
                return Err(Error::argument(function, "ended", problem));
            }
        };

        // rₜ = −β k + r′ · [t is the last token that counts]. The KL is paid token by token and not
        // in one sum with the score, so that a token answers for itself and for what it led to. Its
        // estimate is a constant here, and acts through the advantages: k₁, the only one of the
        // three whose value times ∇ log π is the gradient of KL(π‖π_ref). The score stands on the
        // last token that counts, the end-of-sequence token where there is one: not on the last
        // position, which may be padding, nor one past the end, where no token was chosen.
        let mut rewards = shaped_rewards(&old, &self.reference, &scores, &config.rewards)?;

        // rₜ ← rₜ / s + μ (1 − 1/s), over the counted tokens of all answers, padding left out
        if let Some(mean) = config.reward_whitening {
            rewards = whiten(&rewards, mask, mean)?;
        }

        // Âₜ, R̂ₜ. After the last token of an answer V and Â are 0, wherever padding begins: no
        // reward is borrowed from a value behind the end. With γ < 1 the score reaches token t
        // multiplied by γ to the number of tokens after t; positions that do not count are no
        // distance.
        let estimate = gae(&rewards, &self.values, mask, &config.advantages)?;

        // Âₜ ← (Âₜ − mean) / deviation. After the returns, which the critic is to learn as they are.
        // Over the whole batch, before it is cut: a minibatch's own mean and deviation would depend
        // on which answers happened to share it, would cancel 1/n of an answer's own signal, and
        // accumulated minibatches would not be one batch.
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
        // Whitening carries one NaN into every advantage of the batch: it is named here instead.
        require_finite(function, "old", self.old.values(), mask)?;
        require_finite(function, "reference", &self.reference, mask)?;
        require_finite(function, "values", &self.values, mask)?;
        // an answer without a token has no score that anybody reads
        let answers = mask_count(mask, DType::F64)?.gt(0.0)?;
        require_finite(function, "scores", &self.scores, &answers)
    }
}

impl Experience {
    /// The number of answers.
    pub fn len(&self) -> usize {
        self.mask.dims().first().copied().unwrap_or(0)
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// KL(π_old‖π_ref) in nats per answer, for [`KlController::update`](crate::KlController::update):
    /// k₁ summed over each answer, the mean over the answers that count a token.
    ///
    /// Not over tokens, not times β, and of the whole rollout rather than of a minibatch after some
    /// updates. It may be negative. The result sets β for the next batch.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn mean_kl(&self) -> Result<f64> {
        let kl = Reduction::SequenceMean.apply(&self.kl, &self.mask)?;
        Ok(kl.to_dtype(DType::F64)?.to_scalar::<f64>()?)
    }

    /// One epoch: the rows of each minibatch, u32, every row of the experience exactly once, in an
    /// order drawn from `rng`. Call it again for the next epoch.
    ///
    /// The last minibatch is smaller where `size` does not divide the batch: dropping it would drop
    /// answers. Take the same rows of the tokens that the model reads:
    /// `tokens.index_select(&rows, 0)`.
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
    /// Nothing is computed anew: whitened advantages stay those of the whole batch.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] unless `rows` is a list of u32 or i64;
    /// [`Error::Argument`] if one of them is not a row of the experience.
    pub fn rows(&self, rows: &Tensor) -> Result<Self> {
        let function = "Experience::rows";
        let rows = Axes::new(function).index("rows", rows, &["rows"])?;
        // checked here: candle takes the largest index of each type for "a row of zeros"
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
