//! Dynamic fine-tuning: supervised fine-tuning that trusts the policy's own probability (after the survey).
//!
//! In one sentence: each token's cross-entropy times its own probability, which makes the gradient that of
//! the probability itself.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | π_θ(yₜ│y₍<t₎, x) | e^ of [`TokenLogProbs::values`] | `[batch, time]` |
//! | sg( · ) | detached | – |
//! | mean over tokens | [`Reduction`](crate::Reduction) | scalar |
//!
//! Read next: [`sft_loss`](crate::sft_loss), without the weight; [`eaft`](super::eaft), another weight.

use crate::error::Result;
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use crate::outputs::TokenLoss;
use crate::shape::Axes;

/// The cross-entropy of each demonstrated token, times the token's probability.
///
/// # Equation
/// ```text
/// lₜ = −sg( P(yₜ│x, y₍<t₎) ) · log P(yₜ│x, y₍<t₎)
/// ```
/// # Shapes
/// `log_probs` `[batch, time]`; the result is `[batch, time]` with its mask.
/// # Errors
/// Only candle's own.
/// # Properties
/// * The gradient with respect to each counted log-probability is −P, that of −P(yₜ): the expected number of
///   tokens that a draw gets right. [`sft_loss`](crate::sft_loss) has −1 there, whatever P is.
/// * The optimum is all mass on the most frequent token of the data, not the data's distribution: the
///   calibration of supervised fine-tuning is given up.
/// * A token that the policy finds nearly impossible teaches next to nothing. From scratch, where P is 1/V,
///   nothing moves. An impossible token (−∞) has loss 0 and slope 0.
/// * lₜ is largest, 1/e, at P = 1/e, and falls on both sides. It is no measure of progress: watch the
///   plain cross-entropy.
/// # Departures
/// None from the paper's loss and from TRL 1.16's `loss_type="dft"`. LLaMA-Factory's ASFT adds a forward
/// divergence from a reference: the sum of this loss and
/// [`gkd_loss`](crate::distillation::gkd::gkd_loss) with the reference as teacher, times 0.1.
/// # Examples
/// ```
/// use candle_align::sft::dft::dft_loss;
/// use candle_align::{Reduction, TokenLogProbs};
/// use candle_core::{Device, Tensor, Var};
///
/// let values = Var::new(&[[0.25f64.ln(), -3.0]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0]], &Device::Cpu)?;
/// let loss = dft_loss(&TokenLogProbs::new(&values, &mask)?)?.reduce(Reduction::Sum)?;
/// assert!((loss.to_scalar::<f64>()? - 0.25 * 4.0f64.ln()).abs() < 1e-15);
/// let slopes = loss.backward()?.get(&values).unwrap().to_vec2::<f64>()?;
/// assert!((slopes[0][0] + 0.25).abs() < 1e-15 && slopes[0][1] == 0.0);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Inspect
/// The mean probability of a token (it rises), beside the mean cross-entropy on held-out examples (it rises
/// too once the rarer tokens are given up).
/// # Try
/// * Train on data with shares 0.5, 0.3 and 0.2. What does each of SFT and DFT learn? Solution:
///   `tests/optimum/sft_since.rs::dynamic_fine_tuning_learns_the_mode_and_sft_the_data`.
/// # Source
/// Wu et al. 2025, arXiv:2508.05629, the token-level loss; TRL 1.16, `sft_trainer.py`, `compute_loss`.
#[doc(alias = "DFT")]
#[doc(alias = "dynamic fine-tuning")]
#[doc(alias = "ASFT")]
pub fn dft_loss(log_probs: &TokenLogProbs) -> Result<TokenLoss> {
    let mut axes = Axes::new("dft_loss");
    let values = axes.float("log_probs", log_probs.values(), &["batch", "time"])?;

    // sg( P )
    let p = values.detach().exp()?;
    // 0 · log 0 = 0
    let possible = masked(&values, &p.ne(0.0)?)?;
    let loss = (p.neg()? * possible)?;
    Ok(TokenLoss {
        loss: masked(&loss, log_probs.mask())?,
        mask: log_probs.mask().clone(),
    })
}
