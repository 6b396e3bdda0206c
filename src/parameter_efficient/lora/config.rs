//! The settings of LoRA.

use crate::error::{Result, positive, require};
use crate::shape::size;
use serde::{Deserialize, Serialize};

/// Settings of one [`LoraLinear`](crate::parameter_efficient::LoraLinear), [`LoraEmbedding`](crate::parameter_efficient::LoraEmbedding),
/// [`QloraLinear`](crate::parameter_efficient::QloraLinear) or [`DoraLinear`](crate::parameter_efficient::DoraLinear).
///
/// [`LoraForModel`](crate::parameter_efficient::LoraForModel) holds those of a whole model: which modules get a layer, and where
/// rank and α differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// r ≥ 1, the rank of the update. Default 8, as in PEFT. The paper finds 1 to 8 enough (§7.2).
    pub rank: usize,
    /// α > 0, the numerator of the scale. Default 8, as in PEFT: the paper sets α to the first r that it
    /// tries and keeps it (§4.1), so that other ranks need no new learning rate.
    pub alpha: f64,
    /// How the scale s follows from α and r. Default α/r, the paper's.
    pub scaling: Scaling,
    /// p in [0, 1), the share of A's inputs that is dropped in training. Default 0, as in PEFT and
    /// the authors' code. An embedding has no such input: there it must be 0.
    pub dropout: f64,
    /// How the factor that does not start at zero is drawn. Default as in the authors' code.
    pub init: LoraInit,
    /// What is trained beside A and B. Default nothing, as in PEFT and the authors' code; an embedding
    /// accepts nothing else.
    pub bias: LoraBias,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            scaling: Scaling::Rank,
            dropout: 0.0,
            init: LoraInit::KaimingUniform,
            bias: LoraBias::Frozen,
        }
    }
}

impl LoraConfig {
    /// s, the factor of B·A.
    pub fn scale(&self) -> f64 {
        match self.scaling {
            Scaling::Rank => self.alpha / self.rank as f64,
            Scaling::RankSqrt => self.alpha / (self.rank as f64).sqrt(),
        }
    }

    /// Whether these settings can make a layer.
    pub(crate) fn check(&self, function: &'static str) -> Result<()> {
        size(function, "rank", self.rank)?;
        positive(function, "alpha", self.alpha)?;
        require(
            (0.0..1.0).contains(&self.dropout),
            function,
            "dropout",
            "in [0, 1)",
            self.dropout,
        )
    }
}

/// How the scale s of the update follows from α and the rank r.
#[doc(alias = "rsLoRA")]
#[doc(alias = "rank-stabilized LoRA")]
#[doc(alias = "use_rslora")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// s = α/r: the paper's (§4.1).
    #[default]
    Rank,
    /// s = α/√r: rank-stabilized LoRA (rsLoRA), with which neither outputs nor gradients vanish as r grows
    /// (Kalajdzievski 2023, arXiv:2312.03732v1).
    RankSqrt,
}

/// How the factor that does not start at zero is drawn.
#[doc(alias = "init_lora_weights")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// Linear layer: A ~ U(−1/√in, 1/√in), which is kaiming-uniform with a = √5, as in PEFT and the
    /// authors' code. Embedding: B ~ N(0, 1), as in both.
    #[default]
    KaimingUniform,
    /// Linear layer: A ~ N(0, (1/r)²). The paper says "random Gaussian" without a width; this width
    /// is PEFT's. Embedding: B ~ N(0, 1), as above.
    Gaussian,
}

/// What is trained beside A and B.
#[doc(alias = "lora_bias")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// Nothing: PEFT's `bias="none"`.
    #[default]
    Frozen,
    /// A copy of the base layer's bias, used instead of it: PEFT's `bias="lora_only"`. The base
    /// layer keeps its own bias, so disabling still restores the base model; in PEFT it does not.
    Base,
    /// A bias on B that starts at 0 and is scaled with B: s·(B A x + b_B). PEFT's `lora_bias=True`.
    Update,
}
