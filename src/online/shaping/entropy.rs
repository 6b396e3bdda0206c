//! Entropy: which tokens teach, and how strongly it is held up (2025, after the survey).
//!
//! In one sentence: most tokens are certain and teach little; the few where the answer forks carry the lesson.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | Hₜ | `entropy`, of [`TokenLogProbs::entropy`](crate::TokenLogProbs::entropy) | `[batch, time]` |
//! | ρ | `share` | number |
//! | α_k, Δ, tgt-ent | [`EntropyControllerConfig`] | numbers |
//!
//! Read next: [`crate::online::auxiliary`], the entropy bonus.

use super::super::advantages::on_host;
use crate::error::{Result, non_negative, require};
use crate::math::{quantile, to_host};
use crate::shape::Axes;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// The tokens of the highest entropy.
///
/// # Equation
/// ```text
/// keep = [ Hₜ ≥ τ ],   τ the (1 − ρ)-quantile of the entropies that count
/// ```
/// Between two entropies the quantile is interpolated.
/// # Shapes
/// `entropy` `[batch, time]`, `mask` u8 `[batch, time]`. The result is u8 `[batch, time]`, 0 where the mask does not count:
/// for [`corrected`](crate::online::rollout_correction::corrected).
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless the share is in (0, 1]. It reads the entropies to the host.
/// # Properties
/// * A share of 1 keeps every token. Tokens that tie with τ are kept.
/// * The quantile is of what is passed: the window's entropies. Cut the mask into micro-batches, not the quantile.
/// * On the policy's term alone, the tokens left out still feel a KL and still count in the divisor.
/// # Departures
/// TRL computes τ in f32 whatever the type of the entropies, and here only f64 ones have τ in f64. Its GMPO takes the
/// tokens out of the geometric mean: give those log-probabilities this mask.
/// # Examples
/// ```
/// use candle_align::online::shaping::high_entropy_mask;
/// use candle_core::{Device, Tensor};
///
/// let entropy = Tensor::new(&[[0.1f64, 2.0, 0.2], [0.3, 1.5, 9.0]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 1, 1], [1, 1, 0]], &Device::Cpu)?;
/// // of five the 0.6-quantile lies between 0.3 and 1.5, at 0.78
/// let keep = high_entropy_mask(&entropy, &mask, 0.4)?;
/// assert_eq!(keep.to_vec2::<u8>()?, [[0, 1, 0], [0, 1, 0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Wang et al. 2025, arXiv:2506.01939v1, eq. 6 (ρ = 0.2); huggingface/trl, `trainer/grpo_trainer.py` of release 1.16.0,
/// `get_high_entropy_mask`.
#[doc(alias = "top_entropy_quantile")]
#[doc(alias = "forking tokens")]
pub fn high_entropy_mask(entropy: &Tensor, mask: &Tensor, share: f64) -> Result<Tensor> {
    let function = "high_entropy_mask";
    let holds = share > 0.0 && share <= 1.0;
    require(holds, function, "share", "in (0, 1]", share)?;
    let mut axes = Axes::new(function);
    let entropy = axes.float("entropy", entropy, &["batch", "time"])?;
    let mask = axes.mask("mask", mask, &["batch", "time"])?;
    let entropies = on_host(&entropy)?;
    let counts = to_host::<u8>(&mask)?;

    // τ
    let counted = entropies.iter().zip(&counts).filter(|(_, m)| **m != 0);
    let mut sorted: Vec<f64> = counted.map(|(h, _)| *h).collect();
    sorted.sort_by(f64::total_cmp);
    let threshold = match entropy.dtype() {
        DType::F64 => quantile(&sorted, 1.0 - share),
        _ => single_quantile(&sorted, 1.0 - share),
    };

    // Hₜ ≥ τ
    let kept = |(h, m): (&f64, &u8)| u8::from(*m != 0 && *h >= threshold);
    let kept: Vec<u8> = entropies.iter().zip(&counts).map(kept).collect();
    let kept = Tensor::from_vec(kept, entropy.shape(), &Device::Cpu)?;
    Ok(kept.to_device(entropy.device())?)
}

/// `torch.quantile` of numbers in f32: the rank is rounded to f32 too, and may come to lie above a token that it meets
/// exactly.
fn single_quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let rank = q as f32 * last as f32;
    let (below, weight) = (rank.floor(), rank - rank.floor());
    let at = |rank: f32| sorted[(rank as usize).min(last)] as f32;
    let (low, high) = (at(below), at(rank.ceil()));
    f64::from(match weight < 0.5 {
        true => low + weight * (high - low),
        false => high - (high - low) * (1.0 - weight),
    })
}

/// Settings of [`EntropyController`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EntropyControllerConfig {
    /// The entropy to hold, in nats a token, ≥ 0. Default 0.2, the paper's.
    pub target: f64,
    /// Δ ≥ 0, by which the coefficient moves after a step. Default 0.005, the paper's.
    pub step: f64,
    /// The least coefficient, ≥ 0. Default 0.
    pub least: f64,
    /// The largest coefficient, not below the least. Default 1.
    pub largest: f64,
}

impl Default for EntropyControllerConfig {
    fn default() -> Self {
        Self {
            target: 0.2,
            step: 0.005,
            least: 0.0,
            largest: 1.0,
        }
    }
}

/// The coefficient of the entropy bonus, moved by a fixed step towards a target entropy.
///
/// ```
/// use candle_align::online::shaping::{EntropyController, EntropyControllerConfig};
///
/// let mut control = EntropyController::new(0.0, &EntropyControllerConfig::default())?;
/// control.update(0.1)?; // below the target of 0.2
/// assert_eq!(control.coefficient(), 0.005);
/// control.update(0.3)?; // above: the bonus rests, and the coefficient falls
/// assert_eq!(control.coefficient(), 0.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// The coefficient is that of [`EntropyConfig::coefficient`](crate::EntropyConfig::coefficient) in the next step, and it is
/// 0 as long as the last entropy was above the target. From Skywork-OR1 (arXiv:2505.22312), as in TRL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntropyController {
    config: EntropyControllerConfig,
    reached: f64,
    resting: bool,
}

impl EntropyController {
    /// Starts at a coefficient, with the bonus on.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) for a setting out of its range, or a coefficient that is not between
    /// the least and the largest.
    pub fn new(coefficient: f64, config: &EntropyControllerConfig) -> Result<Self> {
        let function = "EntropyController::new";
        for (field, value) in [
            ("target", config.target),
            ("step", config.step),
            ("least", config.least),
            ("largest", config.largest),
        ] {
            non_negative(function, field, value)?;
        }
        let (least, largest) = (config.least, config.largest);
        require(largest >= least, function, "largest", ">= least", largest)?;
        let between = (least..=largest).contains(&coefficient);
        let expected = "between least and largest";
        require(between, function, "coefficient", expected, coefficient)?;
        Ok(Self {
            config: config.clone(),
            reached: coefficient,
            resting: false,
        })
    }

    /// The coefficient to use now: 0 while the last entropy was above the target.
    pub fn coefficient(&self) -> f64 {
        match self.resting {
            true => 0.0,
            false => self.reached,
        }
    }

    /// After a step, with the mean entropy per token of its whole window.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if the entropy is not finite: NaN is above no target, so it would raise
    /// the coefficient step by step. Nothing has changed then.
    pub fn update(&mut self, entropy: f64) -> Result<()> {
        let function = "EntropyController::update";
        require(entropy.is_finite(), function, "entropy", "finite", entropy)?;
        let EntropyControllerConfig {
            target,
            step,
            least,
            largest,
        } = self.config;
        self.resting = entropy > target;
        self.reached = match self.resting {
            true => (self.reached - step).max(least),
            false => (self.reached + step).min(largest),
        };
        Ok(())
    }
}
