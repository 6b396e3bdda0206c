//! What every policy loss reads, checked once.

use super::super::ppo::PolicyLoss;
use super::super::surrogate::times;
use crate::error::Result;
use crate::log_probs::TokenLogProbs;
use crate::math::masked;
use crate::shape::Axes;
use candle_core::{DType, Tensor};

/// The inputs of a loss, 0 where the mask does not count.
pub(super) struct Inputs {
    pub mask: Tensor,
    /// log π_θ − log π_old `[batch, time]`, differentiable in the new policy.
    pub log_ratio: Tensor,
    /// `[batch, time]`, a constant.
    pub advantages: Tensor,
}

impl Inputs {
    /// `advantages` is `[batch]`, one for each answer, or `[batch, time]`.
    pub(super) fn read(
        function: &'static str,
        new: &TokenLogProbs,
        old: &Tensor,
        advantages: &Tensor,
    ) -> Result<Self> {
        let mut axes = Axes::new(function);
        axes.float("new", new.values(), &["batch", "time"])?;
        let old = axes.float("old", old, &["batch", "time"])?;
        let mask = new.mask();
        Ok(Self {
            mask: mask.clone(),
            log_ratio: masked(&(new.values() - old.detach())?, mask)?,
            advantages: spread(&mut axes, "advantages", advantages, mask)?,
        })
    }

    /// The loss whose weight c is a constant: −c · log π_θ, with a slope of −c everywhere.
    pub(super) fn weighted_log_probs(
        &self,
        new: &TokenLogProbs,
        constant: &Tensor,
        ratio: &Tensor,
        stopped: &Tensor,
    ) -> Result<PolicyLoss> {
        let loss = times(new.values(), &constant.neg()?)?;
        let stopped = masked(stopped, &self.mask)?;
        PolicyLoss::new(loss, &self.mask, ratio, &stopped, &self.log_ratio)
    }

    /// A number for every token, a constant.
    pub(super) fn constant(&self, x: f64) -> Result<Tensor> {
        Ok(self.advantages.zeros_like()?.affine(0.0, x)?)
    }

    /// Nothing is stopped.
    pub(super) fn free(&self) -> Result<Tensor> {
        Ok(Tensor::zeros(
            self.mask.shape(),
            DType::U8,
            self.mask.device(),
        )?)
    }
}

/// One number for each answer `[batch]`, or one for each token `[batch, time]`: `[batch, time]`, detached, 0 where the
/// mask does not count.
pub(super) fn spread(axes: &mut Axes, argument: &str, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let x = match x.rank() {
        1 => axes.float(argument, x, &["batch"])?.unsqueeze(1)?,
        _ => axes.float(argument, x, &["batch", "time"])?,
    };
    masked(&x.detach().broadcast_as(mask.shape())?, mask)
}
