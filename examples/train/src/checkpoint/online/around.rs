//! What the terms of GRPO's tokens are multiplied by; which tokens count, and so every divisor, stays as it is.
//!
//! | setting | TRL 1.16 | verl | factor of a token |
//! |---|---|---|---|
//! | `top_entropy_quantile` | the same | – | 1 if its entropy is among the highest of the step |
//! | `off_policy_mask_threshold` | the same | – | 0 in a bad answer that became much less likely |
//! | `importance_sampling_mode`, `_clip_max`, `_clip_min` | `vllm_importance_sampling_…` | `rollout_is` | the weight of [`rollout_weights`] |

use super::super::super::error::{Error, Result};
use super::super::objective::Text;
use super::super::objective::text::log_probs_with;
use super::fit::Learner;
use super::loss::{ENTROPY, counts};
use super::rollout::{Answer, padded, unpadded};
use super::settings::{LossType, Online};
use candle_align::decoder::{Decoder, Mode};
use candle_align::online::rollout_correction::{corrected, off_policy_mask, rollout_weights};
use candle_align::online::shaping::high_entropy_mask;
use candle_align::{TokenLogProbs, TokenLoss};
use candle_core::{DType, Tensor};

/// The factors of some answers' tokens.
pub struct Around {
    /// The sampler's.
    pub weights: Option<Tensor>,
    fresh: Option<Tensor>,
    forking: Option<Tensor>,
}

impl Around {
    pub fn of(
        online: &Online,
        new: &TokenLogProbs,
        [old, sampler, advantages]: [&Tensor; 3],
        forking: Option<Tensor>,
    ) -> Result<Self> {
        let fresh = match online.off_policy_mask_threshold {
            Some(threshold) => Some(off_policy_mask(new, sampler, advantages, threshold)?),
            None => None,
        };
        let weights = match online.importance_sampling_mode {
            Some(mode) => {
                let old = TokenLogProbs::new(old, new.mask())?;
                let (low, high) = (
                    online.importance_sampling_clip_min,
                    online.importance_sampling_clip_max,
                );
                Some(rollout_weights(&old, sampler, &mode.config(low, high))?)
            }
            None => None,
        };
        Ok(Self {
            weights,
            fresh,
            forking,
        })
    }

    /// A loss under all factors. VESPO reads the sampler's itself.
    pub fn apply(&self, loss: &TokenLoss, weighted: bool) -> Result<TokenLoss> {
        let weights = self.weights.as_ref().filter(|_| weighted);
        let mut loss = self.of_forking(loss)?;
        for factor in [self.fresh.as_ref(), weights].into_iter().flatten() {
            loss = corrected(&loss, factor)?;
        }
        Ok(loss)
    }

    /// A loss on the tokens of high entropy.
    pub fn of_forking(&self, loss: &TokenLoss) -> Result<TokenLoss> {
        Ok(match &self.forking {
            Some(forking) => corrected(loss, forking)?,
            None => loss.clone(),
        })
    }
}

impl Learner<'_> {
    /// Which tokens have a high entropy, of all that the loss covers, before the first step on them.
    pub(super) fn forking(
        &self,
        decoder: &Decoder,
        answers: &[Answer],
    ) -> Result<Option<Vec<Vec<f64>>>> {
        let share = self.settings.online.top_entropy_quantile;
        if share == 1.0 {
            return Ok(None);
        }
        let quiet = decoder.without_gradients();
        let compute = |texts: &[&Text]| {
            let of = log_probs_with(&quiet, texts, Mode::Evaluation, ENTROPY)?;
            let none = || Error::Usage("the model gave no entropy".to_string());
            Ok(of.entropy().ok_or_else(none)?.clone())
        };
        let entropy = self.of_tokens(&compute, answers)?;
        let count = |answer: &Answer| f64::from(counts(self.settings, answer));
        let covered = answers
            .iter()
            .map(|answer| vec![count(answer); answer.ids.len()]);
        let covered = padded(&covered.collect::<Vec<_>>())?.to_dtype(DType::U8)?;
        let keep = high_entropy_mask(&padded(&entropy)?, &covered, share)?;
        let keep = keep.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        Ok(Some(unpadded(keep, &entropy)))
    }
}

impl Online {
    /// An error for a factor out of its range.
    pub(super) fn check_around(&self) -> Result<()> {
        let usage = |text: String| Err(Error::Usage(text));
        let share = self.top_entropy_quantile;
        if !(share > 0.0 && share <= 1.0) {
            return usage(format!(
                "`online.top_entropy_quantile` must be in (0, 1], got {share}"
            ));
        }
        let weight = self.entropy_coef;
        if !(weight.is_finite() && weight >= 0.0) {
            return usage(format!(
                "`online.entropy_coef` must be finite and >= 0, got {weight}"
            ));
        }
        if let Some(threshold) = self.off_policy_mask_threshold.filter(|t| !t.is_finite()) {
            return usage(format!(
                "`online.off_policy_mask_threshold` must be finite, got {threshold}"
            ));
        }
        let low = self.importance_sampling_clip_min.unwrap_or(0.0);
        if !(low.is_finite() && low >= 0.0) {
            return usage(format!(
                "`online.importance_sampling_clip_min` must be finite and >= 0, got {low}"
            ));
        }
        if let Some(high) = self.importance_sampling_clip_max
            && !(high.is_finite() && high > 0.0 && high >= low)
        {
            return usage(format!(
                "`online.importance_sampling_clip_max` must be finite, > 0 and not below \
                 `online.importance_sampling_clip_min`, {low}, got {high}"
            ));
        }
        if self.max_num_gen_batches == 0 {
            return usage("`online.max_num_gen_batches` must be at least 1, got 0".to_string());
        }
        let of_answers = |mode: &super::sampler_weights::Correction| !mode.of_tokens();
        if self.loss_type == LossType::Vespo
            && self
                .importance_sampling_mode
                .as_ref()
                .is_some_and(of_answers)
        {
            return usage(
                "`online.importance_sampling_mode` must be `token_truncate` or `token_mask` for `vespo`, which takes \
                 the product over an answer itself"
                    .to_string(),
            );
        }
        Ok(())
    }
}
