//! AOT: order the distribution of rewards, not each pair (2024, after the survey).
//!
//! In one sentence: sort the chosen and the rejected rewards of a batch, and ask each quantile of the one
//! to be above the same quantile of the other.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | sorted samples | the batch | `[batch]` |
//! | β | [`AotConfig::beta`] | number |
//!
//! Read next: [`dpo`](crate::ranking::dpo) (a batch of one pair).

use super::LogRatios;
use crate::error::{Result, positive, require};
use crate::log_probs::Pair;
use crate::math::smoothed_logistic;
use crate::outputs::PreferenceLoss;
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`aot_loss`] and [`aot_unpaired_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AotConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// ε in [0, ½): as in [`DpoConfig`](crate::DpoConfig). Default 0.
    pub label_smoothing: f64,
}

impl Default for AotConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            label_smoothing: 0.0,
        }
    }
}

/// The paired loss: the sorted gaps of the policy against the sorted gaps of the reference.
///
/// # Equation
/// ```text
/// L₍ₖ₎ = −(1 − ε) · log σ( β·δ₍ₖ₎ ) − ε · log σ( −β·δ₍ₖ₎ )
/// δ₍ₖ₎ = sort( log π_θ(y_w) − log π_θ(y_l) )₍ₖ₎ − sort( log π_ref(y_w) − log π_ref(y_l) )₍ₖ₎
/// ```
/// # Shapes
/// All `[batch]`, sums of token log-probabilities. The loss `[batch]` is one per quantile, from the
/// lowest; the rewards β·ρ are in the order of the pairs.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and 0 ≤ ε < ½,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless all
/// are f32 or all are f64.
/// # Properties
/// * A batch of one pair is [`dpo_loss`](crate::dpo_loss).
/// * The loss of a quantile depends on the whole batch: micro-batches do not give the gradient of one
///   batch. Larger batches order finer quantiles.
/// * The order of the batch changes nothing. Tied gaps may share their quantiles in either order; at a tie
///   the loss has a kink.
/// * The gradient goes through the permutation: each gap gets the slope of the quantile in which it
///   stands.
/// # Departures
/// None from TRL 1.16's `aot`, which sorts within the batch of one device.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{AotConfig, aot_loss};
/// use candle_core::{Device, Tensor};
///
/// let of = |x: [f64; 2]| Tensor::new(&x, &Device::Cpu);
/// let policy = Pair { chosen: of([-3.0, -1.0])?, rejected: of([-5.0, -2.0])? };
/// let reference = Pair { chosen: of([-3.0, -2.0])?, rejected: of([-4.0, -2.5])? };
/// let out = aot_loss(&policy, &reference, &AotConfig { beta: 1.0, ..Default::default() })?;
/// // gaps 2 and 1 against 1 and 0.5: sorted, 1 − 0.5 and 2 − 1
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// let loss = out.loss.to_vec1::<f64>()?;
/// assert!((loss[0] - lost(0.5)).abs() < 1e-12 && (loss[1] - lost(1.0)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * A loss that falls while `out.rewards.accuracy()` stands still is what this loss allows: quantiles are
///   in order, pairs are not.
/// # Try
/// * Split a batch of four into two halves and compare the losses. Solution:
///   `tests/identities/since.rs::sorting_depends_on_the_whole_batch`.
/// # Source
/// Melnyk et al. 2024, arXiv:2406.05882; huggingface/trl, `trainer/dpo_trainer.py` of release 1.16.0,
/// `aot`.
#[doc(alias = "alignment via optimal transport")]
pub fn aot_loss(
    policy: &Pair<Tensor>,
    reference: &Pair<Tensor>,
    config: &AotConfig,
) -> Result<PreferenceLoss> {
    let function = "aot_loss";
    check(function, config)?;
    let mut axes = Axes::new(function);
    let policy = axes.pair("policy", policy)?;
    let reference = axes.pair("reference", reference)?.detach();

    // δ₍ₖ₎
    let lead = (sorted(&policy.margin()?)? - sorted(&reference.margin()?)?)?;
    let ratios = LogRatios::sums(&policy, &reference)?;
    PreferenceLoss::new(smoothed(&lead, config)?, &ratios.rewards(config.beta)?)
}

/// The unpaired loss: the sorted log-ratios of chosen answers against those of rejected ones.
///
/// # Equation
/// ```text
/// L₍ₖ₎ = −(1 − ε) · log σ( β·δ₍ₖ₎ ) − ε · log σ( −β·δ₍ₖ₎ ),        δ₍ₖ₎ = sort( ρ_w )₍ₖ₎ − sort( ρ_l )₍ₖ₎
/// ```
/// # Shapes
/// `ratios` `[batch]`: as many chosen answers as rejected ones, which need not belong together. The loss
/// is `[batch]`, one per quantile from the lowest.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and 0 ≤ ε < ½.
/// # Properties
/// * A batch of one pair is [`dpo_loss`](crate::dpo_loss).
/// * Permuting the rejected answers alone changes nothing: the pairs are not read.
/// * As [`aot_loss`] it depends on the whole batch and has kinks at ties.
/// # Departures
/// None from TRL 1.16's `aot_unpaired`.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{AotConfig, LogRatios, aot_unpaired_loss};
/// use candle_core::{Device, Tensor};
///
/// let of = |x: [f64; 2]| Tensor::new(&x, &Device::Cpu);
/// let policy = Pair { chosen: of([2.0, 1.0])?, rejected: of([0.0, 0.5])? };
/// let zeros = Pair { chosen: of([0.0, 0.0])?, rejected: of([0.0, 0.0])? };
/// let ratios = LogRatios::sums(&policy, &zeros)?;
/// let out = aot_unpaired_loss(&ratios, &AotConfig { beta: 1.0, ..Default::default() })?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// let loss = out.loss.to_vec1::<f64>()?;
/// assert!((loss[0] - lost(1.0)).abs() < 1e-12 && (loss[1] - lost(1.5)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The accuracy of `out.rewards` compares answers that need not belong together; read the loss instead.
/// # Try
/// * Shuffle the rejected answers of a batch. Solution:
///   `tests/identities/since.rs::unpaired_quantiles_do_not_read_the_pairs`.
/// # Source
/// Melnyk et al. 2024, arXiv:2406.05882; huggingface/trl, `trainer/dpo_trainer.py` of release 1.16.0,
/// `aot_unpaired`.
pub fn aot_unpaired_loss(ratios: &LogRatios, config: &AotConfig) -> Result<PreferenceLoss> {
    check("aot_unpaired_loss", config)?;
    let scores = ratios.scores();

    // δ₍ₖ₎
    let lead = (sorted(&scores.chosen)? - sorted(&scores.rejected)?)?;
    PreferenceLoss::new(smoothed(&lead, config)?, &ratios.rewards(config.beta)?)
}

fn check(function: &'static str, config: &AotConfig) -> Result<()> {
    positive(function, "beta", config.beta)?;
    let epsilon = config.label_smoothing;
    let inside = (0.0..0.5).contains(&epsilon);
    require(inside, function, "label_smoothing", "in [0, 0.5)", epsilon)
}

/// The numbers of x `[batch]` from the lowest to the highest.
fn sorted(x: &Tensor) -> Result<Tensor> {
    // candle's sort has no room for nothing
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    let order = x.detach().contiguous()?.arg_sort_last_dim(true)?;
    Ok(x.index_select(&order, 0)?)
}

/// −(1 − ε) · log σ( β·δ ) − ε · log σ( −β·δ )
fn smoothed(lead: &Tensor, config: &AotConfig) -> Result<Tensor> {
    smoothed_logistic(&(lead * config.beta)?, config.label_smoothing)
}
