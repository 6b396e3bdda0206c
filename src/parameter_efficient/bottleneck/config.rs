//! The settings of bottleneck adapters (He et al. 2022, arXiv:2110.04366v3), and what they choose from.

use crate::error::Result;
use crate::math::hinge;
use crate::parameter_efficient::{PrefixConfig, Reparametrization};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of [`BottleneckAdapter`](super::BottleneckAdapter).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BottleneckConfig {
    /// r ≥ 1, the inner width. Default 64: of the sizes 8, 64 and 256 in the first paper on adapters, the
    /// one that it uses for all tasks (Houlsby et al. 2019, §3.2).
    pub width: usize,
    /// f. Default relu, as in the unified view.
    pub activation: Activation,
    /// s > 0. Default 1; the unified view finds 4 better for parallel adapters.
    pub scale: f64,
    /// What the network reads. Default: the sub-layer's output, as in the paper.
    pub insertion: Insertion,
    /// Whether both maps have a bias. Default yes: 2·r·d + r + d numbers (Houlsby et al., §2.1).
    /// The unified view counts the numbers without biases.
    pub bias: bool,
}

impl Default for BottleneckConfig {
    fn default() -> Self {
        Self {
            width: 64,
            activation: Activation::Relu,
            scale: 1.0,
            insertion: Insertion::Sequential,
            bias: true,
        }
    }
}

/// What the network of an adapter reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Insertion {
    /// The sub-layer's output: h ← h + s·f(h W_down) W_up.
    Sequential,
    /// The sub-layer's input: h ← h + s·f(x W_down) W_up.
    Parallel,
}

/// Where a transformer block has adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// After the attention and after the feed-forward part, each before its residual sum: Houlsby et al.
    /// 2019.
    AttentionAndFeedForward,
    /// At the feed-forward part only: Pfeiffer et al. 2021, and the better place in the unified view.
    FeedForward,
}

/// The activation f between the two maps of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// f(x) = x: the adapter then has LoRA's form.
    Linear,
    /// max(0, x), with slope 0 at 0; candle's relu has slope 1 there.
    Relu,
    /// x·Φ(x), with its exact slope; candle's slope is truncated after six digits.
    Gelu,
    /// x·σ(x), also called silu.
    Swish,
}

impl Activation {
    /// f, elementwise.
    ///
    /// # Errors
    /// Only candle's own.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Linear => x.clone(),
            Activation::Relu => hinge(x)?,
            // x · (1 + erf(x/√2)) / 2
            Activation::Gelu => (x * (x * 0.5f64.sqrt())?.erf()?.affine(0.5, 0.5)?)?,
            Activation::Swish => x.silu()?,
        })
    }
}

/// Settings of the MAM adapter, "mix and match": a prefix in the attention and a scaled parallel
/// adapter at the feed-forward part.
#[doc(alias = "mix-and-match adapter")]
#[doc(alias = "MAM adapter")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MamConfig {
    /// Default l = 30 (He et al. 2022, §4.6), with the network of prefix tuning.
    pub prefix: PrefixConfig,
    /// Default parallel, relu, r = 512, s = 4, without biases (§4.6).
    pub adapter: BottleneckConfig,
}

impl Default for MamConfig {
    fn default() -> Self {
        Self {
            prefix: PrefixConfig {
                length: 30,
                reparametrization: Reparametrization::Mlp { inner: 512 },
            },
            adapter: BottleneckConfig {
                width: 512,
                scale: 4.0,
                insertion: Insertion::Parallel,
                bias: false,
                ..Default::default()
            },
        }
    }
}
