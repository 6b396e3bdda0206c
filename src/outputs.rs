//! The result types that losses of several sections share.

use crate::error::Result;
use crate::log_probs::Pair;
use crate::reduction::Reduction;
use candle_core::Tensor;

/// What every loss over pairs returns.
///
/// Whichever loss it is, `out.rewards.accuracy()` ([`Pair::accuracy`]) tells how many pairs are ordered
/// correctly, and `out.rewards.margin()` ([`Pair::margin`]) tells by how much.
///
/// ```
/// use candle_align::{Pair, PreferenceLoss, Result, SlicConfig, dpo_loss, slic_rank_loss};
/// use candle_core::{Device, Tensor};
///
/// let of = |x: [f64; 2]| Tensor::new(&x, &Device::Cpu);
/// // the first pair is ordered correctly, the second is not
/// let policy = Pair { chosen: of([-3.0, -9.0])?, rejected: of([-5.0, -8.0])? };
/// let accuracy = |out: PreferenceLoss| -> Result<f64> { Ok(out.rewards.accuracy()?.to_scalar()?) };
///
/// assert_eq!(accuracy(dpo_loss(&policy, None, &Default::default())?)?, 0.5);
/// assert_eq!(accuracy(slic_rank_loss(&policy, &SlicConfig::default())?)?, 0.5);
/// # Ok::<(), candle_align::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PreferenceLoss {
    /// One loss per pair `[batch]`.
    pub loss: Tensor,
    /// What the loss orders the answers by `[batch]`, detached: DPO's implicit rewards, SLiC's
    /// log-probabilities, or the scores of a reward model. They do not include a required margin.
    pub rewards: Pair<Tensor>,
}

impl PreferenceLoss {
    /// Detaches the rewards.
    pub(crate) fn new(loss: Tensor, rewards: &Pair<Tensor>) -> Result<Self> {
        Ok(Self {
            loss,
            rewards: rewards.detach(),
        })
    }
}

/// What a loss over lists returns.
#[derive(Clone, Debug)]
pub struct ListLoss {
    /// The whole objective, one number per list `[batch]`.
    pub loss: Tensor,
    /// Its ranking part `[batch]`, detached.
    pub ranking: Tensor,
    /// Its supervised part `[batch]`, already weighted, detached: `loss = ranking + sft`.
    pub sft: Tensor,
}

impl ListLoss {
    pub(crate) fn new(ranking: &Tensor, sft: &Tensor) -> Result<Self> {
        Ok(Self {
            loss: (ranking + sft)?,
            ranking: ranking.detach(),
            sft: sft.detach(),
        })
    }
}

/// A loss per token, and which tokens count.
#[derive(Clone, Debug)]
pub struct TokenLoss {
    /// The loss of each token `[batch, time]`, 0 where the mask does not count.
    pub loss: Tensor,
    /// Which tokens count: u8 `[batch, time]`.
    pub mask: Tensor,
}

impl TokenLoss {
    /// One number, by the given reduction.
    ///
    /// # Errors
    /// As [`Reduction::apply`].
    pub fn reduce(&self, reduction: Reduction) -> Result<Tensor> {
        reduction.apply(&self.loss, &self.mask)
    }
}
