//! The tensors of a checkpoint's folder, each taken once under its name.

use super::projection::{Projection, Weight};
use crate::error::{Error, Result};
use crate::parameter_efficient::BlockScale;
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;

/// How [`Decoder::load`](super::Decoder::load) holds the weights.
#[derive(Clone, Debug)]
pub struct Load {
    /// The type in memory: f32, f64, bf16 or f16. Half types are for frozen weights; hidden states are then
    /// f32. Default f32.
    pub dtype: DType,
    /// Whether the model's own weights are trained. Default false: they are frozen and cost nothing in the
    /// backward pass.
    pub trained: bool,
    /// Whether the linear maps of the layers are quantized to NF4, as bitsandbytes does it, and how the scales
    /// are stored: `BlockScale::Single` is bitsandbytes' default, 4.5 bits per weight. They are quantized from
    /// `dtype`, in which embedding, norms, biases and output layer stay. LoRA over them is QLoRA. Default none.
    #[doc(alias = "load_in_4bit")]
    pub nf4: Option<BlockScale>,
    /// Default the CPU.
    pub device: Device,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            trained: false,
            nf4: None,
            device: Device::Cpu,
        }
    }
}

/// What is left of a folder's tensors while a model takes its own.
pub(super) struct Tensors {
    function: &'static str,
    /// The folder, for messages.
    source: String,
    left: BTreeMap<String, Tensor>,
    load: Load,
}

impl Tensors {
    pub(super) fn new(
        function: &'static str,
        source: String,
        left: BTreeMap<String, Tensor>,
        load: &Load,
    ) -> Self {
        Self {
            function,
            source,
            left,
            load: load.clone(),
        }
    }

    pub(super) fn problem(&self, text: String) -> Error {
        Error::argument(self.function, &self.source, text)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.left.contains_key(name)
    }

    /// A tensor of this shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight> {
        let Some(tensor) = self.left.remove(name) else {
            return Err(self.problem(format!("holds no tensor `{name}`, of shape {shape:?}")));
        };
        if tensor.dims() != shape {
            return Err(self.problem(format!(
                "holds `{name}` of shape {:?}, and `config.json` asks for {shape:?}",
                tensor.dims()
            )));
        }
        let tensor = tensor
            .to_dtype(self.load.dtype)?
            .to_device(&self.load.device)?;
        Ok(match self.load.trained {
            true => Weight::Trained(Var::from_tensor(&tensor)?),
            false => Weight::Frozen(tensor),
        })
    }

    pub(super) fn linear(
        &mut self,
        path: String,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Projection> {
        let weight = self.take(&format!("{path}.weight"), &[outputs, inputs])?;
        let bias = match bias {
            true => Some(self.take(&format!("{path}.bias"), &[outputs])?),
            false => None,
        };
        match self.load.nf4 {
            None => Projection::new(path, weight, bias),
            Some(scale) => Projection::quantized(path, &weight, bias, scale),
        }
    }

    /// An error if a tensor is left that no model of this kind has.
    pub(super) fn none_left(self) -> Result<()> {
        // old files hold these; they are computed
        let mut left = self
            .left
            .keys()
            .filter(|name| !name.ends_with("rotary_emb.inv_freq"));
        match left.next() {
            None => Ok(()),
            Some(name) => {
                let more = left.count();
                Err(self.problem(format!(
                    "holds `{name}`{}, which a model of this `config.json` does not have",
                    match more {
                        0 => String::new(),
                        more => format!(" and {more} more"),
                    }
                )))
            }
        }
    }
}
