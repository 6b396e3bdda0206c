//! NCA and InfoNCA: noise contrast with rewards (2024, after the survey).
//!
//! In one sentence: tell answers of the policy from answers of the reference, weighed by their rewards;
//! NCA looks at each answer alone and so fixes its log-ratio absolutely, InfoNCA only compares.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log(π_θ/π_ref) of each answer | [`LogRatios`] | `[batch]` |
//! | log(π_θ/π_ref) of K answers | `candidates`, `reference` of [`nca_loss`] and [`info_nca_loss`] | `[batch, k]` |
//! | e^{r/α} / Σ e^{r/α} | from [`Candidates::rewards`] and [`NcaConfig::alpha`] | `[batch, k]` |
//!
//! Read next: [`dpo`](crate::ranking::dpo) (InfoNCA of two answers without doubt),
//! [`bco`](crate::ranking::unpaired::bco).

use super::{LogRatios, lists};
use crate::error::{Result, positive};
use crate::log_probs::Candidates;
use crate::math::{log_sigmoid, log_softmax, masked, masked_mean, masked_sum};
use crate::outputs::PreferenceLoss;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`nca_pair_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NcaPairConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
}

impl Default for NcaPairConfig {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// The loss of each pair.
///
/// # Equation
/// ```text
/// L = −log σ( β·ρ_w ) − ½ · log σ( −β·ρ_w ) − ½ · log σ( −β·ρ_l )
/// ```
/// # Shapes
/// `ratios` holds `[batch]`: sums, scores of another divergence, or means per token. The loss and the
/// rewards β · ρ are `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0.
/// # Properties
/// * It is [`nca_loss`] of two answers with all the reward on one.
/// * At the first step L = 2 ln 2, ∂L/∂ρ_w = −β/4 and ∂L/∂ρ_l = +β/4.
/// * ∂L/∂ρ_w changes its sign at β·ρ_w = ln 2: the chosen log-probability neither falls freely nor rises
///   without end.
/// # Departures
/// None from TRL 1.16's `nca_pair`.
/// # Examples
/// ```
/// use candle_align::Pair;
/// use candle_align::ranking::{LogRatios, NcaPairConfig, nca_pair_loss};
/// use candle_core::{Device, Tensor};
///
/// let at = |x: f64| Tensor::new(&[x], &Device::Cpu);
/// let policy = Pair { chosen: at(-3.5)?, rejected: at(-4.5)? };
/// let reference = Pair { chosen: at(-3.1)?, rejected: at(-4.0)? };
/// let ratios = LogRatios::sums(&policy, &reference)?; // −0.4 and −0.5
///
/// let out = nca_pair_loss(&ratios, &NcaPairConfig { beta: 0.5 })?;
/// let lost = |z: f64| (1.0 + (-z).exp()).ln();
/// let want = lost(-0.2) + 0.5 * lost(0.2) + 0.5 * lost(0.25);
/// assert!((out.loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * Watch `out.rewards.chosen`: it should stay near ln 2 at most. Growing far beyond it means that the
///   pairs of a prompt disagree about which answer is chosen.
/// # Try
/// * Follow the chosen log-ratio under NCA and under DPO. Solution:
///   `tests/optimum/since.rs::nca_fixes_each_log_ratio`.
/// # Source
/// Chen et al. 2024, arXiv:2402.05369; authors' code thu-ml/Noise-Contrastive-Alignment.
#[doc(alias = "nca_pair")]
#[doc(alias = "noise contrastive alignment")]
pub fn nca_pair_loss(ratios: &LogRatios, config: &NcaPairConfig) -> Result<PreferenceLoss> {
    positive("nca_pair_loss", "beta", config.beta)?;
    let rewards = ratios.rewards(config.beta)?;

    // −log σ( β·ρ_w )
    let from_data = log_sigmoid(&rewards.chosen)?.neg()?;
    // −½ · log σ( −β·ρ_w ) − ½ · log σ( −β·ρ_l )
    let noise = (log_sigmoid(&rewards.chosen.neg()?)? + log_sigmoid(&rewards.rejected.neg()?)?)?;
    PreferenceLoss::new((from_data - (noise * 0.5)?)?, &rewards)
}

/// Settings of [`nca_loss`] and [`info_nca_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NcaConfig {
    /// β > 0. Default 0.1, as in DPO and in TRL.
    pub beta: f64,
    /// α > 0, by which rewards are divided before they become shares. Default 1, rewards in nats; the
    /// authors' code takes the inverse.
    pub alpha: f64,
}

impl Default for NcaConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 1.0,
        }
    }
}

/// The loss of each list: absolute log-ratios.
///
/// # Equation
/// ```text
/// L = −Σᵢ sᵢ · log σ( β·ρᵢ ) − (1/K) Σᵢ log σ( −β·ρᵢ ),        s = softmax( R/α )
/// ```
/// # Shapes
/// `candidates` holds sums and rewards `[batch, k]`, `reference` the reference's sums `[batch, k]`. Both
/// may hold anything where the mask does not count; K is the number of answers that count. The result is
/// `[batch]`.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) unless β > 0 and α > 0,
/// [`Error::Shape`](crate::Error::Shape) if sizes differ, [`Error::DType`](crate::Error::DType) unless all
/// are f32 or all are f64.
/// # Properties
/// * The optimum of each answer is β·ρᵢ = log(K sᵢ): absolute, not up to a constant. With many answers
///   drawn from the reference it is log(π/π_ref) = (R/α − log E e^{R/α})/β, a distribution for β = 1 only;
///   for other β the policy compromises.
/// * Two answers with all the reward on one are [`nca_pair_loss`].
/// # Departures
/// None from the paper. The authors' code takes the mean over K and the batch at once, 1/K of this.
/// # Examples
/// ```
/// use candle_align::Candidates;
/// use candle_align::ranking::{NcaConfig, nca_loss};
/// use candle_core::{Device, Tensor};
///
/// let row = |x: [f64; 2]| Tensor::new(&[x], &Device::Cpu);
/// let answers = Candidates::new(&row([-2.0, -3.0])?, &row([4.0, 5.0])?, &row([1.0, 0.0])?, None)?;
/// let loss = nca_loss(&answers, &row([-2.4, -2.5])?, &NcaConfig { beta: 0.5, alpha: 1.0 })?;
/// let (s, lost) = (1.0 / (1.0 + (-1.0f64).exp()), |z: f64| (1.0 + (-z).exp()).ln());
/// let want = s * lost(0.2) + (1.0 - s) * lost(-0.25) + 0.5 * (lost(-0.2) + lost(0.25));
/// assert!((loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The loss of an untouched policy is 2 ln 2, whatever the rewards.
/// # Try
/// * Give four answers rewards and compare each log-ratio with log(K sᵢ). Solution:
///   `tests/optimum/since.rs::nca_fixes_each_log_ratio`.
/// # Source
/// Chen et al. 2024, arXiv:2402.05369; authors' code thu-ml/Noise-Contrastive-Alignment.
pub fn nca_loss(candidates: &Candidates, reference: &Tensor, config: &NcaConfig) -> Result<Tensor> {
    let (rewards, shares) = scored("nca_loss", candidates, reference, config)?;
    let mask = candidates.mask();

    // −Σᵢ sᵢ · log σ( β·ρᵢ ), where a share of 0 leaves its answer out
    let log_wins = masked(&log_sigmoid(&rewards)?, &shares.gt(0.0)?)?;
    let data = masked_sum(&(shares * log_wins)?, mask)?;
    // −(1/K) Σᵢ log σ( −β·ρᵢ )
    let noise = masked_mean(&log_sigmoid(&rewards.neg()?)?, mask)?;
    Ok((data + noise)?.neg()?)
}

/// The loss of each list: shares among its answers.
///
/// # Equation
/// ```text
/// L = −Σᵢ sᵢ · log softmax( β·ρ )ᵢ,        s = softmax( R/α )
/// ```
/// # Shapes
/// As [`nca_loss`].
/// # Errors
/// As [`nca_loss`].
/// # Properties
/// * ∂L/∂ρᵢ = β( softmax(βρ)ᵢ − sᵢ ). The optimum is β·ρᵢ = Rᵢ/α + c.
/// * Two answers with all the reward on one are [`dpo_loss`](crate::dpo_loss).
/// * [`exo_loss`](super::exo::exo_loss) has the KL of the same two distributions in the other direction.
/// # Departures
/// None from the paper.
/// # Examples
/// ```
/// use candle_align::Candidates;
/// use candle_align::ranking::{NcaConfig, info_nca_loss};
/// use candle_core::{Device, Tensor};
///
/// let row = |x: [f64; 2]| Tensor::new(&[x], &Device::Cpu);
/// let answers = Candidates::new(&row([-2.0, -3.0])?, &row([4.0, 5.0])?, &row([1.0, 0.0])?, None)?;
/// let loss = info_nca_loss(&answers, &row([-2.4, -2.5])?, &NcaConfig { beta: 0.5, alpha: 1.0 })?;
/// let (s, lost) = (1.0 / (1.0 + (-1.0f64).exp()), |z: f64| (1.0 + (-z).exp()).ln());
/// let want = s * lost(0.45) + (1.0 - s) * lost(-0.45);
/// assert!((loss.to_vec1::<f64>()?[0] - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// * The loss of an untouched policy is log K; its least value is the entropy of the shares, not 0.
/// # Try
/// * Compare its optimum with EXO's. Solution:
///   `tests/optimum/since.rs::exo_and_info_nca_teach_the_tilted_reference`.
/// # Source
/// Chen et al. 2024, arXiv:2402.05369.
pub fn info_nca_loss(
    candidates: &Candidates,
    reference: &Tensor,
    config: &NcaConfig,
) -> Result<Tensor> {
    let (rewards, shares) = scored("info_nca_loss", candidates, reference, config)?;
    let mask = candidates.mask();

    // −Σᵢ sᵢ · log softmax( β·ρ )ᵢ, where a share of 0 leaves its answer out
    let log_softmax = masked(&log_softmax(&rewards, Some(mask))?, &shares.gt(0.0)?)?;
    Ok(masked_sum(&(shares * log_softmax)?, mask)?.neg()?)
}

/// β·ρ and the shares by reward.
fn scored(
    function: &'static str,
    candidates: &Candidates,
    reference: &Tensor,
    config: &NcaConfig,
) -> Result<(Tensor, Tensor)> {
    positive(function, "beta", config.beta)?;
    positive(function, "alpha", config.alpha)?;
    let ratios = lists::log_ratios(function, candidates, reference)?;
    Ok((
        (ratios * config.beta)?,
        lists::shares(candidates, config.alpha)?,
    ))
}
