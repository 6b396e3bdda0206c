//! An adapter merged into the weights.

use super::model::Decoder;
use super::projection::{Projection, Weight};
use crate::error::{Error, Result};
use crate::parameter_efficient::Adapter;
use candle_core::Tensor;

impl Decoder {
    /// The model with an adapter merged into its weights, in their own type, and without adapters: to be
    /// [saved](Decoder::save) or run at the base model's cost. A trained head takes the place of the old one.
    ///
    /// In a half type the merged weights are rounded; load the base in f32 to merge exactly. Over weights in four
    /// bits all of them are dequantized, into the type that they were quantized from: the merged model computes
    /// what was trained.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no adapter of this name, if there are others, which were made for
    /// the weights before, if the adapter has a bias where the model has none, or if it is a prompt or a prefix;
    /// as
    /// [`Adapter::merged_weights`].
    #[doc(alias = "merge_and_unload")]
    pub fn merge_adapter(mut self, name: &str) -> Result<Self> {
        let function = "Decoder::merge_adapter";
        let attached = self.attached(function, name)?;
        if attached.before.is_some() {
            let text = format!("is `{name}`, a prompt or a prefix, which no weights can hold");
            return Err(Error::argument(function, "name", text));
        }
        let score = attached.score.clone();
        if self.attached.len() > 1 {
            let text = format!(
                "has the adapters {}: the others were made for the weights before",
                self.adapters().join(", ")
            );
            return Err(Error::argument(function, "self", text));
        }
        for layer in &mut self.layers {
            for map in layer.projections_mut() {
                if let Some(adapter) = map.adapters.get(name) {
                    let (weight, bias) = adapter.merged_weights()?;
                    *map = map.replaced(function, weight, bias)?;
                } else if let Some(quantized) = map.nf4() {
                    *map = map.replaced(function, quantized.weight().dequantize()?, None)?;
                }
            }
        }
        if let (Some(score), Some(old)) = (score, &self.score) {
            let score = score.as_tensor().detach().to_dtype(old.tensor().dtype())?;
            self.score = Some(Weight::Frozen(score));
        }
        self.attached.clear();
        self.adapter = None;
        Ok(self)
    }
}

impl Projection {
    /// A frozen map with other weights and without adapters.
    fn replaced(
        &self,
        function: &'static str,
        weight: Tensor,
        bias: Option<Tensor>,
    ) -> Result<Self> {
        let (dtype, old_bias) = (self.dtype(), self.bias());
        if bias.is_some() && old_bias.is_none() {
            let text = "has a bias in the adapter and none in the model, whose `config.json` has no place for one";
            return Err(Error::argument(function, &self.path, text));
        }
        let frozen = |tensor: Tensor| -> Result<Weight> {
            Ok(Weight::Frozen(tensor.detach().to_dtype(dtype)?))
        };
        let bias = match bias {
            Some(bias) => Some(frozen(bias)?),
            None => old_bias.map(|bias| Weight::Frozen(bias.clone())),
        };
        Projection::new(self.path.clone(), frozen(weight)?, bias)
    }
}
