//! scaffold
mod adapters;
mod classifier;
mod config;
mod folder;
mod generate;
mod keys;
mod layer;
mod model;
mod projection;
mod rope;
mod scaling;
mod tensors;

use candle_core::Tensor;

pub use config::{DecoderConfig, Family, Gate};
pub use model::{Decoder, Load};
pub use rope::Rope;

/// What a pass is: under which adapter, and with which dropout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pass {
    pub(crate) adapter: Option<String>,
    /// The seed of a layer's dropout in training.
    pub(crate) dropout: Option<u64>,
}

/// Keys and values that every token of a layer sees.
type Prefix = (Tensor, Tensor);
