//! One linear map of the decoder: frozen or trained, with any number of adapters, one of them active.

use super::trained;
use crate::error::Result;
use crate::ops::few_rows;
use crate::parameter_efficient::frozen_linear::compute_type;
use crate::parameter_efficient::{
    Adapter, BlockScale, FrozenLinear, Nf4Linear, Nf4Tensor, PrefixEncoder,
};
use crate::peft::AnyAdapter;
use candle_core::{DType, Tensor, Var};
use candle_nn::{Linear, Module};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;

/// A tensor of the model, with its name in the file.
#[derive(Clone, Debug)]
pub(super) enum Weight {
    Frozen(Tensor),
    Trained(Var),
}

impl Weight {
    pub(super) fn tensor(&self) -> &Tensor {
        match self {
            Self::Frozen(tensor) => tensor,
            Self::Trained(var) => var.as_tensor(),
        }
    }

    /// In the type of hidden states.
    pub(super) fn wide(&self) -> Result<Tensor> {
        wide(self.tensor())
    }

    pub(super) fn var(&self) -> Option<&Var> {
        match self {
            Self::Frozen(_) => None,
            Self::Trained(var) => Some(var),
        }
    }
}

/// In the type of hidden states: f32 in place of a half type.
pub(super) fn wide(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_dtype(compute_type(x.dtype()))?)
}

/// What a pass is: under which adapter, and with which dropout.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    pub(super) adapter: Option<String>,
    /// The seed of a layer's dropout in training.
    pub(super) dropout: Option<u64>,
    /// The prefix of the adapter, and the number of the layer.
    pub(super) prefix: Option<(PrefixEncoder, usize)>,
    /// One token of each row, and nothing is trained.
    pub(super) few: bool,
}

/// A map's matrix.
#[derive(Clone, Debug)]
enum Matrix {
    Whole(Weight),
    /// In four bits, with the bias.
    Nf4(Nf4Linear),
}

/// A frozen map, as an adapter is put over it.
pub(super) enum Base {
    Linear(Linear),
    Nf4(Nf4Linear),
}

/// y = W x + b, or an adapter in its place.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    /// The path of the module, as in `model.layers.0.self_attn.q_proj`.
    pub(super) path: String,
    weight: Matrix,
    bias: Option<Weight>,
    /// The map as one operation, if it is frozen and not in four bits.
    frozen: Option<FrozenLinear>,
    pub(super) adapters: BTreeMap<String, AnyAdapter>,
}

impl Projection {
    pub(super) fn new(path: String, weight: Weight, bias: Option<Weight>) -> Result<Self> {
        let frozen = match (&weight, &bias) {
            (Weight::Frozen(weight), None) => Some(FrozenLinear::new(weight.clone(), None)?),
            (Weight::Frozen(weight), Some(Weight::Frozen(bias))) => {
                Some(FrozenLinear::new(weight.clone(), Some(bias.clone()))?)
            }
            _ => None,
        };
        Ok(Self {
            path,
            weight: Matrix::Whole(weight),
            bias,
            frozen,
            adapters: BTreeMap::new(),
        })
    }

    /// A frozen map whose matrix is put into four bits.
    pub(super) fn quantized(
        path: String,
        weight: &Weight,
        bias: Option<Weight>,
        scale: BlockScale,
    ) -> Result<Self> {
        let weight = Nf4Tensor::quantize(weight.tensor(), scale)?;
        let of_map = bias.as_ref().map(|bias| bias.tensor().clone());
        Ok(Self {
            path,
            weight: Matrix::Nf4(Nf4Linear::new(weight, of_map)?),
            bias,
            frozen: None,
            adapters: BTreeMap::new(),
        })
    }

    /// `[tokens, in]` to `[tokens, out]`.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        let adapter = pass
            .adapter
            .as_ref()
            .and_then(|name| self.adapters.get(name));
        if let Some(adapter) = adapter {
            return match pass.dropout {
                Some(seed) => {
                    let mut rng = StdRng::seed_from_u64(seed ^ number(&self.path));
                    adapter.forward_train(x, &mut rng)
                }
                None => match adapter {
                    AnyAdapter::Lora(lora) if pass.few => lora.forward_by(x, few_rows::product),
                    _ => Ok(adapter.forward(x)?),
                },
            };
        }
        let weight = match &self.weight {
            Matrix::Whole(weight) => weight.tensor(),
            Matrix::Nf4(map) => return Ok(map.forward(x)?),
        };
        let y = match &self.frozen {
            _ if pass.few => few_rows::product(x, weight)?,
            Some(frozen) => return Ok(frozen.forward(x)?),
            None => trained::product(x, weight)?,
        };
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(&bias.wide()?)?),
            None => Ok(y),
        }
    }

    /// The model's own tensors, by name; a matrix in four bits is not among them.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (String, &Weight)> {
        let named = |name: &str| format!("{}.{name}", self.path);
        let weight = match &self.weight {
            Matrix::Whole(weight) => Some((named("weight"), weight)),
            Matrix::Nf4(_) => None,
        };
        let bias = self.bias.as_ref().map(|bias| (named("bias"), bias));
        weight.into_iter().chain(bias)
    }

    /// Whether the map's own weights are trained.
    pub(super) fn is_trained(&self) -> bool {
        matches!(self.weight, Matrix::Whole(Weight::Trained(_)))
    }

    /// The map in four bits, if it is.
    pub(super) fn nf4(&self) -> Option<&Nf4Linear> {
        match &self.weight {
            Matrix::Whole(_) => None,
            Matrix::Nf4(map) => Some(map),
        }
    }

    /// The type of the matrix, or that which it was quantized from.
    pub(super) fn dtype(&self) -> DType {
        match &self.weight {
            Matrix::Whole(weight) => weight.tensor().dtype(),
            Matrix::Nf4(map) => map.weight().dtype(),
        }
    }

    pub(super) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref().map(Weight::tensor)
    }

    /// The map for an adapter over it, sharing its weights.
    pub(super) fn base(&self) -> Base {
        match &self.weight {
            Matrix::Whole(weight) => {
                let bias = self.bias().cloned();
                Base::Linear(Linear::new(weight.tensor().clone(), bias))
            }
            Matrix::Nf4(map) => Base::Nf4(map.clone()),
        }
    }
}

/// A number for a name: each module draws its own dropout.
fn number(path: &str) -> u64 {
    // FNV-1a
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
