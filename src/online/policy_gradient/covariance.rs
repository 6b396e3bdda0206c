//! Clip-Cov and KL-Cov: the few tokens that make the entropy fall are held back (2025, after the survey).
//!
//! In one sentence: entropy falls where likely tokens have high advantages, so the tokens of the largest covariance
//! lose their gradient, or pay for moving.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | log π_θ, log π_old, Â | `new`, `old`, `advantages` | `[batch, time]` |
//! | Cov(yₜ) | (Â − mean Â)(log π − mean log π) | `[batch, time]` |
//! | r, ω_low, ω_high | [`ClipCovConfig`] | numbers |
//! | k, β | the share of [`kl_cov_tokens`], [`KlCovConfig::coefficient`] | numbers |
//!
//! Read next: [`crate::online::shaping::entropy`].

use super::super::advantages::on_host;
use super::super::kl::bounded_exp;
use super::super::ppo::PolicyLoss;
use super::super::surrogate::times;
use super::grpo::{GrpoConfig, surrogate};
use super::inputs::{Inputs, spread};
use crate::error::{Result, non_negative, require};
use crate::log_probs::TokenLogProbs;
use crate::math::{hinge, masked, to_host, weighted};
use crate::shape::Axes;
use candle_core::{Device, Tensor};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Settings of [`clip_cov_tokens`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipCovConfig {
    /// r in (0, 1], the share of the tokens that lose their gradient, at least one. Default 2·10⁻⁴, the paper's.
    pub share: f64,
    /// ω_low: only tokens above it. Default 1, that of verl.
    pub low: f64,
    /// ω_high > ω_low: only tokens below it. Default 5, that of verl.
    pub high: f64,
    /// The clip of the loss beside it: tokens that it stops are not drawn. Default that of [`GrpoConfig`].
    pub clip: GrpoConfig,
}

impl Default for ClipCovConfig {
    fn default() -> Self {
        Self {
            share: 2e-4,
            low: 1.0,
            high: 5.0,
            clip: GrpoConfig::default(),
        }
    }
}

/// The tokens that keep their gradient under Clip-Cov.
///
/// # Equation
/// ```text
/// Cov(yₜ) = ( Âₜ − mean Â )( log π_θ(yₜ) − mean log π_θ )
/// I = max( 1, ⌊r N⌋ ) tokens drawn from those with ω_low < Cov < ω_high that the clip did not stop
/// result: 0 for the tokens in I, 1 for all others
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The result is u8 `[batch, time]`, 0 where the
/// mask does not count: for [`corrected`](crate::online::rollout_correction::corrected).
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) for a setting out of its range. It reads the numbers to the host.
/// # Properties
/// * The loss is [`grpo_loss`](super::grpo_loss) with the same clip, times this. The tokens drawn stay in the divisor.
/// * The means and N are of what is passed. Draw once for the window, then cut it: micro-batches are then one batch.
/// * The same generator state gives the same tokens. A batch without a token between the bounds loses none.
/// # Departures
/// None from verl's code. The draw is an argument, because a loss is a function without randomness.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::{ClipCovConfig, clip_cov_tokens};
/// use candle_core::{Device, Tensor};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let mask = Tensor::new(&[[1u8], [1]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-0.1f64], [-4.1]], &Device::Cpu)?, &mask)?;
/// // covariances (1)(2) and (−1)(−2): both within the bounds, one of them is drawn
/// let advantages = Tensor::new(&[1.0f64, -1.0], &Device::Cpu)?;
/// let config = ClipCovConfig::default();
/// let mut rng = StdRng::seed_from_u64(1);
/// let kept = clip_cov_tokens(&new, new.values(), &advantages, &config, &mut rng)?;
/// assert_eq!(kept.to_vec2::<u8>()?.concat().iter().sum::<u8>(), 1);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Cui et al. 2025, arXiv:2505.22617v1; PRIME-RL/Entropy-Mechanism-of-RL, as in volcengine/verl,
/// `trainer/ppo/core_algos.py`.
#[doc(alias = "Clip-Cov")]
pub fn clip_cov_tokens<R: Rng + ?Sized>(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    config: &ClipCovConfig,
    rng: &mut R,
) -> Result<Tensor> {
    let function = "clip_cov_tokens";
    in_share(function, config.share)?;
    let bounded = config.low.is_finite() && config.high.is_finite() && config.high > config.low;
    require(bounded, function, "high", "finite and > low", config.high)?;
    let clipped = surrogate(function, &new.detach(), old, advantages, &config.clip)?.clipped;
    let covariances = covariances(function, new, advantages)?;
    let stopped = on_host(&clipped)?;

    // those within the bounds that the clip did not stop
    let mut drawn: Vec<usize> = covariances
        .iter()
        .filter(|(at, cov)| *cov > config.low && *cov < config.high && stopped[*at] == 0.0)
        .map(|(at, _)| *at)
        .collect();
    drawn.shuffle(rng);
    drawn.truncate(count(config.share, covariances.len()));

    let mut kept = vec![0u8; stopped.len()];
    covariances.iter().for_each(|(at, _)| kept[*at] = 1);
    drawn.into_iter().for_each(|at| kept[at] = 0);
    on_device(kept, new.mask())
}

/// The tokens that pay under KL-Cov: those of the largest covariance.
///
/// # Equation
/// ```text
/// Cov(yₜ) = ( Âₜ − mean Â )( log π_θ(yₜ) − mean log π_θ )
/// result: 1 for the max( 1, ⌊k N⌋ ) tokens of the largest Cov, 0 for all others
/// ```
/// # Shapes
/// `new` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`. The result is u8 `[batch, time]`: for
/// [`kl_cov_loss`].
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless the share is in (0, 1]. It reads the numbers to the host.
/// # Properties
/// * The means and N are of what is passed. Choose once for the window, then cut it: micro-batches are then one batch.
/// * Of equal covariances the first token is taken. A batch without tokens has none.
/// # Departures
/// None from verl's code, whose default share is 2·10⁻⁴.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::kl_cov_tokens;
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1], [1, 0]], &Device::Cpu)?;
/// let new = Tensor::new(&[[-0.1f64, -2.0], [-4.2, 0.0]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&new, &mask)?;
/// let advantages = Tensor::new(&[1.0f64, -0.5], &Device::Cpu)?;
/// // means 0.5 and −2.1: covariances 1.0, 0.05 and 2.1
/// let paying = kl_cov_tokens(&new, &advantages, 2e-4)?;
/// assert_eq!(paying.to_vec2::<u8>()?, [[0, 0], [1, 0]]);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Cui et al. 2025, arXiv:2505.22617v1; volcengine/verl, `trainer/ppo/core_algos.py`.
pub fn kl_cov_tokens(new: &TokenLogProbs, advantages: &Tensor, share: f64) -> Result<Tensor> {
    let function = "kl_cov_tokens";
    in_share(function, share)?;
    let mut covariances = covariances(function, new, advantages)?;
    let most = count(share, covariances.len());
    covariances.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut paying = vec![0u8; new.mask().elem_count()];
    let largest = covariances.iter().take(most);
    largest.for_each(|(at, _)| paying[*at] = 1);
    on_device(paying, new.mask())
}

/// Settings of [`kl_cov_loss`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlCovConfig {
    /// β ≥ 0, the price per nat. Default 1, that of the authors' code; verl's configuration sets 0.1.
    pub coefficient: f64,
}

impl Default for KlCovConfig {
    fn default() -> Self {
        Self { coefficient: 1.0 }
    }
}

/// The loss of each token under KL-Cov.
///
/// # Equation
/// ```text
/// l = −ρ Â                                                for most tokens
/// l = −ρ Â + β │ log π_θ(yₜ) − log π_old(yₜ) │            for the tokens that pay
/// ```
/// # Shapes
/// `new`, `old` `[batch, time]`; `advantages` `[batch]` or `[batch, time]`; `paying` u8 `[batch, time]`, of
/// [`kl_cov_tokens`]. The results are `[batch, time]` with the mask of `new`; nothing is `clipped`. All but `new` get no
/// gradient.
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) if shapes or types differ;
/// [`Error::Parameter`](crate::Error::Parameter) unless β is finite and not negative.
/// # Properties
/// * There is no clip: the ratio of a token that does not pay is free.
/// * At the first step the price is 0 with slope 0, and the gradient is that of [`grpo_loss`](super::grpo_loss).
/// * The absolute value prices a move in either direction; it is not an estimate of a KL.
/// # Departures
/// None from verl's code but that the choice of tokens is an argument, so that a micro-batch does not choose by itself.
/// # Examples
/// ```
/// use candle_align::TokenLogProbs;
/// use candle_align::online::policy_gradient::{KlCovConfig, kl_cov_loss};
/// use candle_core::{Device, Tensor};
///
/// let mask = Tensor::new(&[[1u8, 1]], &Device::Cpu)?;
/// let new = TokenLogProbs::new(&Tensor::new(&[[-1.0f64, -1.0]], &Device::Cpu)?, &mask)?;
/// let old = Tensor::new(&[[-0.5f64, -0.5]], &Device::Cpu)?;
/// let advantages = Tensor::new(&[2.0f64], &Device::Cpu)?;
/// let paying = Tensor::new(&[[0u8, 1]], &Device::Cpu)?;
/// let loss = kl_cov_loss(&new, &old, &advantages, &paying, &KlCovConfig::default())?;
/// let loss = loss.loss.loss.to_vec2::<f64>()?;
/// assert!((loss[0][1] - loss[0][0] - 0.5).abs() < 1e-15);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Cui et al. 2025, arXiv:2505.22617v1; volcengine/verl, `trainer/ppo/core_algos.py`.
#[doc(alias = "KL-Cov")]
pub fn kl_cov_loss(
    new: &TokenLogProbs,
    old: &Tensor,
    advantages: &Tensor,
    paying: &Tensor,
    config: &KlCovConfig,
) -> Result<PolicyLoss> {
    let function = "kl_cov_loss";
    non_negative(function, "coefficient", config.coefficient)?;
    let inputs = Inputs::read(function, new, old, advantages)?;
    let mut axes = Axes::new(function);
    axes.float("new", new.values(), &["batch", "time"])?;
    let paying = axes.mask("paying", paying, &["batch", "time"])?;

    // −ρ Â
    let ratio = bounded_exp(&inputs.log_ratio)?;
    let policy = times(&ratio, &inputs.advantages.neg()?)?;

    // + β │d│, with slope 0 at 0; beside −∞ of the first term it is nothing
    let lost = ratio
        .detach()
        .eq(f64::INFINITY)?
        .mul(&inputs.advantages.gt(0.0)?)?;
    let moved = masked(&masked(&inputs.log_ratio, &paying)?, &lost.eq(0u8)?)?;
    let size = (hinge(&moved)? + hinge(&moved.neg()?)?)?;
    let loss = (policy + weighted(&size, config.coefficient)?)?;
    let mask = &inputs.mask;
    PolicyLoss::new(loss, mask, &ratio, &inputs.free()?, &inputs.log_ratio)
}

/// The flat position and the covariance of every token that counts.
fn covariances(
    function: &'static str,
    new: &TokenLogProbs,
    advantages: &Tensor,
) -> Result<Vec<(usize, f64)>> {
    let mut axes = Axes::new(function);
    axes.float("new", new.values(), &["batch", "time"])?;
    let advantages = spread(&mut axes, "advantages", advantages, new.mask())?;
    let (advantages, log_probs) = (on_host(&advantages)?, on_host(new.values())?);
    let counts = to_host::<u8>(new.mask())?;
    let counted: Vec<usize> = (0..counts.len()).filter(|at| counts[*at] != 0).collect();
    let mean = |x: &[f64]| counted.iter().map(|at| x[*at]).sum::<f64>() / counted.len() as f64;
    let (of_advantages, of_log_probs) = (mean(&advantages), mean(&log_probs));
    let covariance =
        |at: &usize| (advantages[*at] - of_advantages) * (log_probs[*at] - of_log_probs);
    Ok(counted.iter().map(|at| (*at, covariance(at))).collect())
}

fn in_share(function: &'static str, share: f64) -> Result<()> {
    let holds = share > 0.0 && share <= 1.0;
    require(holds, function, "share", "in (0, 1]", share)
}

/// max( 1, ⌊share · n⌋ )
fn count(share: f64, n: usize) -> usize {
    ((share * n as f64) as usize).max(1)
}

fn on_device(x: Vec<u8>, like: &Tensor) -> Result<Tensor> {
    let x = Tensor::from_vec(x, like.shape(), &Device::Cpu)?;
    Ok(x.to_device(like.device())?)
}
