//! EXO: the KL from the policy's preference to the labels' (2024, after the survey).
//!
//! In one sentence: DPO minimizes KL(labels‖policy) over the answers of a pair or a list; EXO minimizes
//! the KL in the other direction, which is the direction of reinforcement learning.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | f_θ(yᵢ) = β · log(π_θ/π_ref) | `candidates`, `reference` of [`exo_loss`] | `[batch, k]` |
//! | β_π, β_r | [`ExoConfig::beta`], [`ExoListConfig::reward_beta`] | number |
//! | ε | [`ExoConfig::label_smoothing`] | number |
//!
//! Read next: [`nca`](super::nca), [`dpo`](crate::ranking::dpo).

use super::{LogRatios, lists};
use crate::error::{Result, positive, require};
use crate::known::with_slope;
use crate::log_probs::Candidates;
use crate::math::{at_most, log_softmax, masked, masked_sum, sigmoid, softplus};
use crate::outputs::PreferenceLoss;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`exo_pair_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExoConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// ε in (0, 1): the share of the labels for the rejected answer. Default 0.001, TRL's value; the
    /// authors' code has e⁻¹⁰. It cannot be 0, because the KL to a label without doubt is infinite.
    pub label_smoothing: f64,
}

impl Default for ExoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            label_smoothing: 0.001,
        }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = q · log( q/(1 − ε) ) + (1 − q) · log( (1 − q)/ε ),        q = σ(z),  z = β · (ρ_w − ρ_l)
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and 0 < ε < 1.
/// # Properties
/// * ∂L/∂z = q(1 − q)(z − z*), z* = log((1 − ε)/ε): the margin stops at z*, 6.907 for ε = 0.001.
/// * The slope dies on both sides. A pair that is badly wrong hardly pulls, where DPO pulls most.
/// * KL(q‖p) and DPO's −Σ p log q have the same minimum, q = p.
/// * It is [`exo_loss`] of two answers whose rewards are β_r · z* apart.
/// # Departures
/// None from TRL 1.16's `exo_pair`. The authors' code writes 0 for log(1 − ε).
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{ExoConfig, LogRatios, exo_pair_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = exo_pair_loss(&ratios, &ExoConfig { beta: 1.0, label_smoothing: 0.25 })?;
/// let q = 1.0 / (1.0 + (-0.1f64).exp());
/// let want = q * (q / 0.75).ln() + (1.0 - q) * ((1.0 - q) / 0.25).ln();
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch the share of pairs with |z| above 10: they have stopped training, right or wrong.
/// # Try
/// * Train one pair from a wrong start and from a right one. Solution:
///   `tests/optimum/since.rs::exo_stops_the_margin_at_the_log_odds_of_its_labels`.
/// # Source
/// Ji et al. 2024, arXiv:2402.00856, EXO-pref; authors' code haozheji/exact-optimization.
#[doc(alias = "exo_pair")]
#[doc(alias = "efficient exact optimization")]
pub fn exo_pair_loss(ratios: &LogRatios, config: &ExoConfig) -> Result<PreferenceLoss> {
    let function = "exo_pair_loss";
    let epsilon = config.label_smoothing;
    positive(function, "beta", config.beta)?;
    let inside = epsilon > 0.0 && epsilon < 1.0;
    require(inside, function, "label_smoothing", "in (0, 1)", epsilon)?;
    let rewards = ratios.rewards(config.beta)?;
    PreferenceLoss::new(kl_of_pair(&rewards.margin()?, epsilon)?, &rewards)
}

/// KL( (σ(z), σ(−z)) ‖ (1 − ε, ε) ), and its slope.
fn kl_of_pair(z: &Tensor, epsilon: f64) -> Result<Tensor> {
    let plain = z.detach();
    let (q, rest) = (sigmoid(&plain)?, sigmoid(&plain.neg()?)?);
    // −[ q log q + (1 − q) log(1 − q) ] = log(1 + e^{−│z│}) + │z│ σ(−│z│)
    let size = at_most(&plain.abs()?, FAR)?;
    let entropy = (softplus(&size.neg()?)? + (&size * sigmoid(&size.neg()?)?)?)?;
    let cross = ((&q * -(-epsilon).ln_1p())? + (&rest * -epsilon.ln())?)?;
    let value = (cross - entropy)?;

    // q (1 − q) (z − z*)
    let bounded = at_most(&at_most(&plain, FAR)?.neg()?, FAR)?.neg()?;
    let aim = (-epsilon).ln_1p() - epsilon.ln();
    let slope = ((q * rest)? * (bounded - aim)?)?;
    Ok(with_slope(z, value, move |grad| grad * &slope)?)
}

/// Beyond this σ(−│z│) is 0 in every type, and must stay so beside an infinite z.
const FAR: f64 = 1e3;

/// Settings of [`exo_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExoListConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// β_r > 0, by which rewards are divided before they become shares. Default 1, rewards in nats.
    pub reward_beta: f64,
}

impl Default for ExoListConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            reward_beta: 1.0,
        }
    }
}

/// The loss of each list of answers with rewards.
///
/// # Equation
/// ```text
/// L = Σᵢ qᵢ · ( log qᵢ − log pᵢ ),        q = softmax( β · ρ ),  p = softmax( R/β_r )
/// ```
/// # Shapes
/// `candidates` holds sums and rewards `[batch, k]`, `reference` the reference's sums `[batch, k]`. Both
/// may hold anything where the mask does not count. The result is `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and β_r > 0,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless all
/// are f32 or all are f64.
/// # Properties
/// * Its minimum is 0, at q = p: β · ρᵢ = Rᵢ/β_r + c, up to one constant per list.
/// * ∂L/∂ρᵢ = β qᵢ ( log(qᵢ/pᵢ) − L ): an answer with a vanishing share does not pull, however good it is.
/// * A list of one answer, and an empty one, has loss 0.
/// # Departures
/// None from the paper's EXO-rw. The reference is added here to the sums, so rewards need no normalizer.
/// # Examples
/// ```
/// use candle_align::Candidates;
/// use candle_align::ranking::{ExoListConfig, exo_loss};
/// use candle_core::{Device, Tensor};
///
/// let row = |x: [f64; 2]| Tensor::new(&[x], &Device::Cpu);
/// let answers = Candidates::new(&row([-2.0, -3.0])?, &row([4.0, 5.0])?, &row([1.0, 0.0])?, None)?;
/// let loss = exo_loss(&answers, &row([-2.0, -3.0])?, &ExoListConfig::default())?;
/// // q = (½, ½), p = (σ(1), σ(−1))
/// let p = 1.0 / (1.0 + (-1.0f64).exp());
/// let want = 0.5 * (0.5 / p).ln() + 0.5 * (0.5 / (1.0 - p)).ln();
/// assert!((loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The loss is 0 only where shares agree; a mean far above 0 that no longer falls is a best answer with
///   hardly any share.
/// # Try
/// * Give four answers rewards and compare with p. Solution:
///   `tests/optimum/since.rs::exo_and_info_nca_teach_the_tilted_reference`.
/// # Source
/// Ji et al. 2024, arXiv:2402.00856, EXO-rw; authors' code haozheji/exact-optimization.
#[doc(alias = "EXO-rw")]
pub fn exo_loss(
    candidates: &Candidates,
    reference: &Tensor,
    config: &ExoListConfig,
) -> Result<Tensor> {
    let function = "exo_loss";
    positive(function, "beta", config.beta)?;
    positive(function, "reward_beta", config.reward_beta)?;
    let mask = candidates.mask();
    let ratios = lists::log_ratios(function, candidates, reference)?;

    // log q, log p
    let log_q = log_softmax(&(ratios * config.beta)?, Some(mask))?;
    let log_p = log_softmax(&(candidates.rewards() / config.reward_beta)?, Some(mask))?;
    // Σᵢ qᵢ · ( log qᵢ − log pᵢ ), where 0 · log 0 = 0
    let q = masked(&log_q.exp()?, mask)?;
    let possible = q.gt(0.0)?;
    let difference = (masked(&log_q, &possible)? - masked(&log_p, &possible)?)?;
    masked_sum(&(q * difference)?, mask)
}
