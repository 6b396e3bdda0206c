//! What a distribution over the vocabulary is asked for.

/// What else to compute from the logits, beside the log-probability of the chosen token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// H = −Σᵥ pᵥ log pᵥ per token, for an entropy bonus.
    pub entropy: bool,
    /// (1/V) Σᵥ log pᵥ per token, for label smoothing; over the symbols that are possible, if some
    /// logits are −∞.
    pub vocabulary_mean: bool,
    /// log Σᵥ pᵥ² per token, the log-probability that two draws agree: for weighting by confidence.
    pub log_collision: bool,
}
