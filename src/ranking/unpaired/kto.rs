//! KTO: answers that are desirable or not, without pairs (2024, after the survey).
//!
//! In one sentence: value an answer by how far its log-ratio is above or below a baseline, as people value
//! gains and losses, and raise that of desirable answers and lower that of the others.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | r_θ(x, y) | log π_θ(y│x) − log π_ref(y│x) | `[batch]` |
//! | z₀ | `baseline`, from [`kto_baseline`] | scalar |
//! | β, λ_D, λ_U | [`KtoConfig`] | number |
//!
//! Read next: [`bco`](super::bco), [`apo`](crate::ranking::reference::apo).

use super::{UnpairedLoss, by_label};
use crate::error::{Result, non_negative, positive};
use crate::math::{hinge, sigmoid, weighted};
use crate::shape::Axes;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// z₀ = max( 0, mean of log π_θ(y′│x) − log π_ref(y′│x) ) over mismatched answers: a scalar constant.
///
/// `policy` and `reference` are sums of token log-probabilities `[count]` of answers y′ that belong to other prompts
/// than x. How they are matched is the caller's choice: TRL rotates the answers of a micro-batch by one, HALOs
/// draws a batch of its own. Pass those of the whole accumulation window, and give the same z₀ to each of its
/// micro-batches: then micro-batches are one batch. Over no answers z₀ is 0.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless both are f32 or
/// f64 alike.
pub fn kto_baseline(policy: &Tensor, reference: &Tensor) -> Result<Tensor> {
    let mut axes = Axes::new("kto_baseline");
    let policy = axes.float("policy", policy, &["count"])?.detach();
    let reference = axes.float("reference", reference, &["count"])?.detach();
    let ratios = (policy - reference)?;
    match ratios.elem_count() {
        0 => Ok(Tensor::zeros((), ratios.dtype(), ratios.device())?),
        _ => hinge(&ratios.mean_all()?),
    }
}

/// Settings of [`kto_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KtoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// λ_D ≥ 0, the weight of a desirable answer. Default 1. The paper advises λ_D n_D/(λ_U n_U) between 1
    /// and 4/3 for n_D desirable and n_U other answers.
    pub desirable_weight: f64,
    /// λ_U ≥ 0, the weight of any other answer. Default 1.
    pub undesirable_weight: f64,
}

impl Default for KtoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
        }
    }
}

/// The loss of each answer.
///
/// # Equation
/// ```text
/// desirable:  L = λ_D · ( 1 − σ( β·(ρ − z₀) ) )
/// otherwise:  L = λ_U · ( 1 − σ( β·(z₀ − ρ) ) )
/// ```
/// # Shapes
/// `policy` and `reference` `[batch]`, sums of token log-probabilities; `desirable` `[batch]` in u8, 1 for
/// a desirable answer; `baseline` a scalar, a constant. The loss and the rewards β·ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and both weights are ≥ 0,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless the
/// floats are f32 or f64 alike and the labels u8.
/// # Properties
/// * ∂L/∂ρ = ∓λ β σ′(β·(ρ − z₀)): largest at the baseline, dying on both sides.
/// * With z₀ = 0 and weights 1 the two answers of a pair are
///   [`apo_zero_loss`](crate::ranking::reference::apo::apo_zero_loss), and each is
///   [`apo_zero_unpaired_loss`].
/// * Given z₀, an answer's loss depends on it alone.
/// * There is no finite optimum.
/// # Departures
/// * The paper's loss has λ_y − v; the constant is the same here as in TRL, 1 − σ times the weight.
/// * TRL takes z₀ from each micro-batch, so its gradient depends on how a batch is divided, and reversed
///   pairings left the middle row matched (trl#1911). It averages with `nanmean`, which drops a NaN row
///   silently.
/// # Examples
/// ```
/// use candle_align::ranking::{KtoConfig, kto_baseline, kto_loss};
/// use candle_core::{Device, Tensor};
///
/// let of = |x: [f64; 2]| Tensor::new(&x, &Device::Cpu);
/// let desirable = Tensor::new(&[1u8, 0], &Device::Cpu)?;
/// let baseline = kto_baseline(&of([-2.0, -3.0])?, &of([-2.5, -3.1])?)?; // 0.3
/// let out = kto_loss(&of([-3.0, -4.0])?, &of([-3.5, -3.0])?, &desirable, &baseline, &KtoConfig::default())?;
/// let sigma = |z: f64| 1.0 / (1.0 + (-z).exp());
/// let loss = out.loss.to_vec1::<f64>()?;
/// assert!((loss[0] - (1.0 - sigma(0.1 * (0.5 - 0.3)))).abs() < 1e-12);
/// assert!((loss[1] - (1.0 - sigma(0.1 * (0.3 + 1.0)))).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch z₀ in nats beside the mean log-ratio of desirable answers. A baseline far above all of them, or
///   always 0, is one from matched or from too few answers.
/// * Watch the mean reward of desirable and of other answers apart.
/// # Try
/// * Take z₀ from the matched answers instead. Solution:
///   `tests/values/slips.rs::a_baseline_from_matched_answers_moves_with_them`.
/// # Source
/// Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7 and 8; huggingface/trl, `trainer/kto_trainer.py` of
/// release 1.16.0.
#[doc(alias = "Kahneman-Tversky optimization")]
pub fn kto_loss(
    policy: &Tensor,
    reference: &Tensor,
    desirable: &Tensor,
    baseline: &Tensor,
    config: &KtoConfig,
) -> Result<UnpairedLoss> {
    let function = "kto_loss";
    positive(function, "beta", config.beta)?;
    non_negative(function, "desirable_weight", config.desirable_weight)?;
    non_negative(function, "undesirable_weight", config.undesirable_weight)?;
    let mut axes = Axes::new(function);
    let policy = axes.float("policy", policy, &["batch"])?;
    let reference = axes.float("reference", reference, &["batch"])?.detach();
    let desirable = axes.mask("desirable", desirable, &["batch"])?;
    let baseline = axes.float("baseline", baseline, &[])?.detach();

    // β·(ρ − z₀)
    let ratios = (policy - reference)?;
    let above = (ratios.broadcast_sub(&baseline)? * config.beta)?;
    // 1 − σ( ±β·(ρ − z₀) ) = σ( ∓β·(ρ − z₀) )
    let gain = weighted(&sigmoid(&above.neg()?)?, config.desirable_weight)?;
    let loss = weighted(&sigmoid(&above)?, config.undesirable_weight)?;
    Ok(UnpairedLoss {
        loss: by_label(&desirable, &gain, &loss)?,
        rewards: (ratios * config.beta)?.detach(),
    })
}

/// Settings of [`apo_zero_unpaired_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApoUnpairedConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
}

impl Default for ApoUnpairedConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// APO-zero without pairs: the loss of each answer.
///
/// # Equation
/// ```text
/// desirable:  L = 1 − σ( β·ρ )
/// otherwise:  L = σ( β·ρ )
/// ```
/// # Shapes
/// `policy` and `reference` `[batch]`, sums of token log-probabilities; `desirable` `[batch]` in u8, 1 for
/// a desirable answer; the loss and the rewards β·ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0, [`Error::Shape`](crate::Error::Shape) if
/// sizes differ, [`Error::DType`](crate::Error::DType) unless the floats are f32 or f64 alike and the
/// labels u8.
/// # Properties
/// * It is [`kto_loss`] with a baseline of 0 and weights 1.
/// * The two answers of a pair sum to [`apo_zero_loss`](crate::ranking::reference::apo::apo_zero_loss).
/// # Departures
/// None from TRL 1.16's `apo_zero_unpaired`, which also applies KTO's weights: multiply by them.
/// # Examples
/// ```
/// use candle_align::ranking::{ApoUnpairedConfig, apo_zero_unpaired_loss};
/// use candle_core::{Device, Tensor};
///
/// let of = |x: [f64; 2]| Tensor::new(&x, &Device::Cpu);
/// let desirable = Tensor::new(&[1u8, 0], &Device::Cpu)?;
/// let config = ApoUnpairedConfig { beta: 0.5 };
/// let out = apo_zero_unpaired_loss(&of([-3.0, -4.0])?, &of([-3.5, -3.0])?, &desirable, &config)?;
/// let sigma = |z: f64| 1.0 / (1.0 + (-z).exp());
/// let loss = out.loss.to_vec1::<f64>()?;
/// assert!((loss[0] - sigma(-0.25)).abs() < 1e-12 && (loss[1] - sigma(-0.5)).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the mean reward of desirable and of other answers apart.
/// # Try
/// * Compare with KTO. Solution: `tests/identities/since.rs::kto_around_zero_is_apo_zero`.
/// # Source
/// D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7; huggingface/trl, `trainer/kto_trainer.py` of
/// release 1.16.0.
#[doc(alias = "apo_zero_unpaired")]
pub fn apo_zero_unpaired_loss(
    policy: &Tensor,
    reference: &Tensor,
    desirable: &Tensor,
    config: &ApoUnpairedConfig,
) -> Result<UnpairedLoss> {
    let function = "apo_zero_unpaired_loss";
    positive(function, "beta", config.beta)?;
    let mut axes = Axes::new(function);
    let policy = axes.float("policy", policy, &["batch"])?;
    let reference = axes.float("reference", reference, &["batch"])?.detach();
    let desirable = axes.mask("desirable", desirable, &["batch"])?;

    // 1 − σ( β·ρ ), or σ( β·ρ )
    let rewards = ((policy - reference)? * config.beta)?;
    let loss = by_label(&desirable, &sigmoid(&rewards.neg()?)?, &sigmoid(&rewards)?)?;
    Ok(UnpairedLoss {
        loss,
        rewards: rewards.detach(),
    })
}
