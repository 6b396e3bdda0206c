//! Where a pass begins: with what is before the tokens, prompt tuning and prefix tuning on the decoder.

use super::before::Before;
use super::model::Decoder;
use super::projection::wide;
use crate::error::{Error, Result};
use crate::ops::Segments;
use crate::parameter_efficient::frozen_linear::compute_type;
use crate::parameter_efficient::{
    PrefixConfig, PrefixEncoder, PrefixShape, PromptConfig, PromptEmbedding, Reparametrization,
};
use crate::peft::{AdapterFile, AdapterMethod};
use candle_core::Tensor;
use rand::Rng;

/// What the first layer gets.
pub(super) struct Start {
    pub(super) h: Tensor,
    pub(super) segments: Segments,
    pub(super) positions: Vec<u32>,
    /// The first row of `h` that is a token's.
    pub(super) first: usize,
    /// How many keys of every layer are no token's and of no segment.
    pub(super) cached: usize,
}

impl Decoder {
    /// What the active adapter puts before the tokens.
    pub(super) fn before(&self) -> Option<&Before> {
        self.attached.get(self.adapter.as_ref()?)?.before.as_ref()
    }

    /// How many positions of a row the active adapter takes before the first token: those of a prompt or a prefix. A
    /// row may have [`max_position_embeddings`](super::DecoderConfig::max_position_embeddings) tokens less these.
    #[doc(alias = "num_virtual_tokens")]
    pub fn virtual_tokens(&self) -> usize {
        self.before().map_or(0, Before::length)
    }

    pub(super) fn start(
        &self,
        tokens: &[u32],
        segments: &Segments,
        before: Option<&Before>,
    ) -> Result<Start> {
        let h = self.embed(tokens)?;
        let length = before.map_or(0, Before::length);
        Ok(match before {
            Some(Before::Prompt(prompt)) => {
                let segments = segments.below(length)?;
                Start {
                    h: Tensor::cat(&[prompt.values().as_tensor(), &h], 0)?,
                    positions: segments.positions(),
                    segments,
                    first: length,
                    cached: 0,
                }
            }
            _ => Start {
                h,
                positions: shifted(segments.positions(), length as u32),
                segments: segments.clone(),
                first: 0,
                cached: length,
            },
        })
    }

    /// A fresh prompt or prefix; `None` for other methods.
    pub(super) fn fresh_before(
        &self,
        function: &'static str,
        method: &AdapterMethod,
        rng: &mut impl Rng,
    ) -> Result<Option<Before>> {
        let table = self.embedding.tensor();
        let before = match method {
            AdapterMethod::Prompt(file) => {
                let config = PromptConfig {
                    length: file.length,
                    ..PromptConfig::default()
                };
                self.check_width(function, "token_dim", file.dim)?;
                let rows = PromptEmbedding::new(table, &config, rng)?;
                let rows = self.scaled_embedding(&rows.values().as_detached_tensor())?;
                Before::Prompt(PromptEmbedding::from_values(&rows)?)
            }
            AdapterMethod::Prefix(file) => {
                let config = PrefixConfig {
                    length: file.length,
                    reparametrization: Reparametrization::Direct,
                };
                self.check_shape(function, file.shape)?;
                let (dtype, device) = (compute_type(table.dtype()), table.device());
                Before::Prefix(PrefixEncoder::new(file.shape, &config, dtype, device, rng)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(before))
    }

    /// That of a file; `None` for other methods.
    pub(super) fn loaded_before(
        &self,
        function: &'static str,
        file: &AdapterFile,
    ) -> Result<Option<Before>> {
        let table = self.embedding.tensor();
        let stored = |values: &Tensor| -> Result<Tensor> {
            let values = values.detach().to_device(table.device())?;
            Ok(wide(&values)?.to_dtype(compute_type(table.dtype()))?)
        };
        Ok(match &file.config().method {
            AdapterMethod::Prompt(settings) => {
                self.check_width(function, "token_dim", settings.dim)?;
                let values = stored(file.prompt()?.values().as_tensor())?;
                Some(Before::Prompt(PromptEmbedding::from_values(&values)?))
            }
            AdapterMethod::Prefix(settings) => {
                self.check_shape(function, settings.shape)?;
                let values = stored(&file.prefix()?.values()?)?;
                Some(Before::Prefix(PrefixEncoder::from_values(
                    settings.shape,
                    &values,
                )?))
            }
            _ => None,
        })
    }

    fn check_width(&self, function: &'static str, argument: &str, width: usize) -> Result<()> {
        let hidden = self.config.hidden_size;
        match width == hidden {
            true => Ok(()),
            false => {
                let text = format!("is {width}, and the model's `hidden_size` is {hidden}");
                Err(Error::argument(function, argument, text))
            }
        }
    }

    fn check_shape(&self, function: &'static str, shape: PrefixShape) -> Result<()> {
        let of_model = PrefixShape {
            layers: self.config.num_hidden_layers,
            heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
        };
        for (argument, found, model) in [
            ("num_layers", shape.layers, of_model.layers),
            ("num_attention_heads", shape.heads, of_model.heads),
            ("token_dim", shape.width(), of_model.width()),
        ] {
            if found != model {
                let text = format!("is {found}, and the keys of this model ask for {model}");
                return Err(Error::argument(function, argument, text));
            }
        }
        Ok(())
    }
}

fn shifted(mut positions: Vec<u32>, by: u32) -> Vec<u32> {
    positions.iter_mut().for_each(|position| *position += by);
    positions
}
