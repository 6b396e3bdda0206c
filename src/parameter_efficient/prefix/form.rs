//! The trained form of a prefix: its numbers, or a network that computes them.

use super::PrefixConfig;
use crate::error::Result;
use crate::parameter_efficient::low_rank::{named, normal, uniform};
use crate::shape::{made, size};
use candle_core::{DType, Device, Tensor, Var};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// The trained form of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reparametrization {
    /// The keys and values themselves.
    Direct,
    /// A smaller matrix P′ and a network that computes keys and values from it: Linear, tanh, Linear.
    /// [`PrefixEncoder::finish`](crate::parameter_efficient::PrefixEncoder::finish) drops the network.
    Mlp {
        /// The inner width, ≥ 1: 512 in the paper for table-to-text, 800 for summarization.
        inner: usize,
    },
}

/// The trained variables.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// P.
    Plain(Var),
    /// P′, W₁, b₁, W₂, b₂.
    Mlp {
        embedding: Var,
        inner: (Var, Var),
        outer: (Var, Var),
    },
}

impl Form {
    /// A form at its start, for `length` positions of `wide` numbers, from vectors of `narrow` ones.
    pub(super) fn new(
        function: &'static str,
        [length, narrow, wide]: [usize; 3],
        config: &PrefixConfig,
        dtype: DType,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<Self> {
        made(function, "length", &[length, wide])?;
        Ok(match config.reparametrization {
            Reparametrization::Direct => {
                Self::Plain(normal(1.0, (length, wide), dtype, device, rng)?)
            }
            Reparametrization::Mlp { inner } => {
                size(function, "inner", inner)?;
                made(function, "inner", &[inner, wide])?;
                let embedding = normal(1.0, (length, narrow), dtype, device, rng)?;
                let mut map = |inputs: usize, outputs: usize| -> Result<(Var, Var)> {
                    let bound = 1.0 / (inputs as f64).sqrt();
                    let weight = uniform(bound, (outputs, inputs), dtype, device, rng)?;
                    let bias = uniform(bound, (1, outputs), dtype, device, rng)?;
                    Ok((weight, Var::from_tensor(&bias.flatten_all()?)?))
                };
                Self::Mlp {
                    embedding,
                    inner: map(narrow, inner)?,
                    outer: map(inner, wide)?,
                }
            }
        })
    }

    /// P, differentiable.
    pub(super) fn values(&self) -> Result<Tensor> {
        match self {
            Self::Plain(values) => Ok(values.as_tensor().clone()),
            Self::Mlp {
                embedding,
                inner,
                outer,
            } => {
                let linear = |x: &Tensor, (weight, bias): &(Var, Var)| {
                    x.matmul(&weight.t()?)?.broadcast_add(bias)
                };
                // W₂ tanh( W₁ P′[i, :] + b₁ ) + b₂
                Ok(linear(&linear(embedding, inner)?.tanh()?, outer)?)
            }
        }
    }

    /// p.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Plain(values) => values.dims()[0],
            Self::Mlp { embedding, .. } => embedding.dims()[0],
        }
    }

    /// The variables, sorted by name.
    pub(super) fn trainable(&self, prefix: &str) -> Vec<(String, Var)> {
        match self {
            Self::Plain(values) => vec![named(prefix, "prompt_embeddings", values)],
            Self::Mlp {
                embedding,
                inner,
                outer,
            } => vec![
                named(prefix, "embedding.weight", embedding),
                named(prefix, "transform.0.bias", &inner.1),
                named(prefix, "transform.0.weight", &inner.0),
                named(prefix, "transform.2.bias", &outer.1),
                named(prefix, "transform.2.weight", &outer.0),
            ],
        }
    }
}
