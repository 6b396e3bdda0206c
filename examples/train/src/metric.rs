//! One measurement of a run, and means over batches.

use super::error::Result;
use candle_core::Tensor;
use serde::Serialize;

/// One line of `metrics.jsonl`. Nothing in it depends on the machine's speed: the same seed writes
/// the same file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// Counted from 1 within a phase; 0 is before it.
    pub step: usize,
    /// `sft` for the supervised steps at the start, or `base` if an adapter follows; then the objective's
    /// name.
    pub phase: String,
    /// `train`: of this step's batch. `held_out`: of all held-out examples.
    pub split: &'static str,
    pub loss: f64,
    /// AdaLoRA's penalty; not part of `loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub penalty: Option<f64>,
    /// The share of pairs that are ordered correctly, if there are pairs.
    pub accuracy: Option<f64>,
    /// Mean log-probability of a whole best answer. Preference losses may lower it.
    pub best_log_prob: Option<f64>,
    /// The same after bad words, if there are such words; `best_log_prob` is then after good ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_log_prob_bad_words: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
}

/// The mean of numbers that come in tensors `[size]`.
#[derive(Default)]
pub struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    pub fn add(&mut self, values: Option<&Tensor>) -> Result<()> {
        if let Some(values) = values {
            self.sum += f64::from(values.sum_all()?.to_scalar::<f32>()?);
            self.count += values.elem_count();
        }
        Ok(())
    }

    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}
