//! BCO: a classifier of good and bad answers, with the policy as its score (2024, after the survey).
//!
//! In one sentence: a logistic classifier, whose score is the implicit reward less a running mean, tells
//! desirable answers from the others.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | β log(π_θ/π_ref) | reward | `[batch]` |
//! | δ | `shift`, from [`RewardShift`] | scalar |
//! | β | [`BcoConfig::beta`] | number |
//!
//! Read next: [`kto`](super::kto), [`nca`](crate::ranking::reference::nca).

use super::{UnpairedLoss, by_label};
use crate::error::{Error, Result, positive};
use crate::math::{log_sigmoid, to_host};
use crate::outputs::PreferenceLoss;
use crate::ranking::LogRatios;
use crate::shape::Axes;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// δ: the mean of all implicit rewards seen so far, of desirable and other answers together.
///
/// Call [`RewardShift::update`] once for all rewards of an accumulation window, before its first loss, and give
/// the same δ to each micro-batch: then micro-batches are one batch. TRL, which updates before each
/// micro-batch, gives its micro-batches different δ.
///
/// ```
/// use candle_align::ranking::RewardShift;
/// use candle_core::{Device, Tensor};
///
/// let mut shift = RewardShift::default();
/// shift.update(&Tensor::new(&[0.2f64, 0.4, 0.9], &Device::Cpu)?)?;
/// shift.update(&Tensor::new(&[0.1f64], &Device::Cpu)?)?;
/// assert!((shift.mean - 1.6 / 4.0).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardShift {
    /// The mean so far; 0 before the first reward.
    pub mean: f64,
    /// How many rewards it is of.
    pub count: u64,
}

impl RewardShift {
    /// Takes in more rewards `[count]`, which are read to the host.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is one axis, [`Error::DType`] unless it is f32 or f64, [`Error::Argument`] if a
    /// reward is not finite: then the mean is unchanged.
    pub fn update(&mut self, rewards: &Tensor) -> Result<()> {
        let function = "RewardShift::update";
        let rewards = Axes::new(function).float("rewards", rewards, &["count"])?;
        let rewards = to_host::<f64>(&rewards.to_dtype(DType::F64)?)?;
        if let Some(at) = rewards.iter().position(|reward| !reward.is_finite()) {
            let problem = format!("holds {} at position {at}; it must be finite", rewards[at]);
            return Err(Error::argument(function, "rewards", problem));
        }
        for reward in rewards {
            self.count += 1;
            self.mean += (reward - self.mean) / self.count as f64;
        }
        Ok(())
    }

    /// δ as a scalar of the type and device of `like`, for [`bco_loss`].
    ///
    /// # Errors
    /// Only candle's own.
    pub fn tensor(&self, like: &Tensor) -> Result<Tensor> {
        Ok(Tensor::new(self.mean, like.device())?.to_dtype(like.dtype())?)
    }
}

/// Settings of [`bco_loss`] and [`bco_pair_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BcoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
}

impl Default for BcoConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The loss of each answer.
///
/// # Equation
/// ```text
/// desirable:  L = −log σ( β·ρ − δ )
/// otherwise:  L = −log σ( −(β·ρ − δ) )
/// ```
/// # Shapes
/// `policy` and `reference` `[batch]`, sums of token log-probabilities; `desirable` `[batch]` in u8, 1 for
/// a desirable answer; `shift` a scalar, a constant. The loss and the rewards β·ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`] unless β > 0, [`Error::Shape`] if
/// sizes differ, [`Error::DType`] unless the floats are f32 or f64 alike and the
/// labels u8.
/// # Properties
/// * ∂L/∂ρ = −β σ(−(β·ρ − δ)) for a desirable answer: unlike KTO's it does not die for answers that are
///   badly wrong.
/// * The optimum of an answer that is desirable with probability p is β·ρ = δ + log(p/(1 − p)).
/// * Given δ, an answer's loss depends on it alone.
/// # Departures
/// None from TRL 1.13's BCO trainer, given δ. It also weighs other answers by the odds with which a
/// classifier of prompts takes them for desirable ones (UDM): multiply the losses by such weights.
/// LLaMA-Factory updates δ with the mean of a batch as one sample.
/// # Examples
/// ```
/// use candle_align::ranking::{BcoConfig, bco_loss};
/// use candle_core::{Device, Tensor};
///
/// let of = |x: [f64; 2]| Tensor::new(&x, &Device::Cpu);
/// let desirable = Tensor::new(&[1u8, 0], &Device::Cpu)?;
/// let shift = Tensor::new(0.2f64, &Device::Cpu)?;
/// let out = bco_loss(&of([-3.0, -4.0])?, &of([-3.5, -3.0])?, &desirable, &shift, &BcoConfig { beta: 0.5 })?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// let loss = out.loss.to_vec1::<f64>()?;
/// assert!((loss[0] - lost(0.25 - 0.2)).abs() < 1e-12 && (loss[1] - lost(0.5 + 0.2)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch δ: it should settle. A δ that keeps falling means that all answers lose likelihood.
/// # Try
/// * Call an answer desirable three times in four. Where does its reward end? Solution:
///   `tests/optimum/since.rs::bco_learns_the_log_odds_of_an_answer`.
/// # Source
/// Jung et al. 2024, arXiv:2404.04656; huggingface/trl, `experimental/bco` of release 1.13.0.
#[doc(alias = "binary classifier optimization")]
pub fn bco_loss(
    policy: &Tensor,
    reference: &Tensor,
    desirable: &Tensor,
    shift: &Tensor,
    config: &BcoConfig,
) -> Result<UnpairedLoss> {
    let function = "bco_loss";
    positive(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    let policy = axes.float("policy", policy, &["batch"])?;
    let reference = axes.float("reference", reference, &["batch"])?.detach();
    let desirable = axes.mask("desirable", desirable, &["batch"])?;
    let shift = axes.float("shift", shift, &[])?.detach();

    // β·ρ − δ
    let rewards = ((policy - reference)? * config.beta)?;
    let score = rewards.broadcast_sub(&shift)?;
    // −log σ( ±( … ) )
    let (good, other) = (
        log_sigmoid(&score)?.neg()?,
        log_sigmoid(&score.neg()?)?.neg()?,
    );
    Ok(UnpairedLoss {
        loss: by_label(&desirable, &good, &other)?,
        rewards: rewards.detach(),
    })
}

/// The loss of each pair: both answers as samples of the two classes.
///
/// # Equation
/// ```text
/// L = −log σ( β·ρ_w − δ ) − log σ( −(β·ρ_l − δ) )
/// ```
/// # Shapes
/// `ratios` `[batch]`; `shift` a scalar, a constant. The loss and the rewards β·ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`] unless β > 0, [`Error::Shape`]
/// unless the shift is a scalar, [`Error::DType`] unless it has the type of the
/// ratios.
/// # Properties
/// * It is the sum of [`bco_loss`] over the two answers.
/// * At the first step, with δ = 0, L = 2 ln 2 and the slopes are ∓β/2.
/// # Departures
/// TRL 1.16's `bco_pair` has δ = 0; its release 0.24.0 had the running mean.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{BcoConfig, LogRatios, bco_pair_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let zeros = Pair { chosen: at(0.0)?, rejected: at(0.0)? };
/// let ratios = LogRatios::sums(&Pair { chosen: at(-0.4)?, rejected: at(-0.5)? }, &zeros)?;
/// let shift = Tensor::new(0.0f64, &Device::Cpu)?;
/// let out = bco_pair_loss(&ratios, &shift, &BcoConfig { beta: 0.5 })?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// assert!((out.loss.to_vec1::<f64>()?[0] - (lost(-0.2) + lost(0.25))).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch both rewards apart: each has a class of its own.
/// # Try
/// * Compare with the unpaired loss of the two answers. Solution:
///   `tests/identities/since.rs::a_pair_is_two_samples_of_bco`.
/// # Source
/// Jung et al. 2024, arXiv:2404.04656; huggingface/trl, `trainer/dpo_trainer.py` of release 1.16.0,
/// `bco_pair`.
#[doc(alias = "bco_pair")]
pub fn bco_pair_loss(
    ratios: &LogRatios,
    shift: &Tensor,
    config: &BcoConfig,
) -> Result<PreferenceLoss> {
    let function = "bco_pair_loss";
    positive(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    axes.pair("ratios", ratios.scores())?;
    let shift = axes.float("shift", shift, &[])?.detach();
    let rewards = ratios.rewards(config.beta)?;

    // −log σ( β·ρ_w − δ )
    let chosen = log_sigmoid(&rewards.chosen.broadcast_sub(&shift)?)?;
    // − log σ( −(β·ρ_l − δ) )
    let rejected = log_sigmoid(&rewards.rejected.broadcast_sub(&shift)?.neg()?)?;
    PreferenceLoss::new((chosen + rejected)?.neg()?, &rewards)
}
