//! What else to compute from each distribution over the vocabulary.

/// What else to compute from the logits, besides the log-probability of the chosen token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// H = −Σᵥ pᵥ log pᵥ per token, for an entropy bonus.
    pub entropy: bool,
    /// (1/V) Σᵥ log pᵥ per token, for label smoothing. If some logits are −∞, the mean is over the
    /// possible symbols.
    pub vocabulary_mean: bool,
    /// log Σᵥ pᵥ² per token, the log-probability that two draws agree, for weighting by confidence.
    pub log_collision: bool,
}
