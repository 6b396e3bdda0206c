//! Log-ratios of K answers, and their shares by reward.

use crate::error::Result;
use crate::log_probs::Candidates;
use crate::math::{log_softmax, masked};
use crate::shape::Axes;
use candle_core::Tensor;

/// ρᵢ = ℓᵢ − ℓᵢ(reference) `[batch, k]`, 0 where the mask does not count.
pub(super) fn log_ratios(
    function: &'static str,
    candidates: &Candidates,
    reference: &Tensor,
) -> Result<Tensor> {
    let mut axes = Axes::new(function);
    let sums = axes.float("candidates", candidates.sums(), &["batch", "k"])?;
    let reference = axes
        .float("reference", reference, &["batch", "k"])?
        .detach();
    Ok((sums - masked(&reference, candidates.mask())?)?)
}

/// softmax( R/α ) `[batch, k]`, constants, 0 where the mask does not count.
pub(super) fn shares(candidates: &Candidates, alpha: f64) -> Result<Tensor> {
    let mask = candidates.mask();
    let log_shares = log_softmax(&(candidates.rewards() / alpha)?, Some(mask))?;
    Ok(masked(&log_shares.exp()?, mask)?.detach())
}
