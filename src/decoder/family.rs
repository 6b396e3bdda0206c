//! The kinds of models, and of the gate inside.

/// The families that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2, 3 and 3.x, SmolLM2, and what else has `model_type` `llama`.
    Llama,
    /// Mistral: a sliding window in every layer.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: normalized queries and keys.
    Qwen3,
    /// Gemma 2: four norms in a layer, bounded scores and logits.
    Gemma2,
    /// Gemma 3, its text model (`gemma3_text`): four norms in a layer, two kinds of rotary positions.
    Gemma3,
    /// Phi-3 and Phi-4-mini: one matrix for queries, keys and values, one for gate and up.
    Phi3,
}

impl Family {
    /// Whether the norms multiply by 1 + w, the branches are normalized too, and the embedding is scaled.
    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }
}

/// The nonlinearity of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// x·σ(x).
    Silu,
    /// The tangent form of x·Φ(x).
    GeluTanh,
}
