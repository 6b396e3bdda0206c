//! A pass through the decoder.

use super::before::Before;
use super::config::DecoderConfig;
use super::language_model::Mode;
use super::layer::{Layer, Tables};
use super::model::Decoder;
use super::projection::{Pass, Weight, wide};
use super::rope::Rope;
use crate::error::{Error, Result};
use crate::ops::Segments;
use crate::parameter_efficient::frozen_linear::compute_type;
use crate::training::recompute;
use candle_core::{DType, Tensor, Var};
use std::sync::Arc;

impl Decoder {
    /// The last hidden states `[tokens, hidden]` of a flat batch, in evaluation.
    ///
    /// # Errors
    /// [`Error::Argument`] for a token outside of the vocabulary, a row longer than the context, or another
    /// number of tokens than the segments have.
    pub fn hidden(&self, tokens: &[u32], segments: &Segments) -> Result<Tensor> {
        self.pass("Decoder::hidden", tokens, segments, Mode::Evaluation)
    }

    /// As [`Decoder::hidden`], in training: with the dropout of the active adapter, drawn from `seed`.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn hidden_train(&self, tokens: &[u32], segments: &Segments, seed: u64) -> Result<Tensor> {
        self.pass(
            "Decoder::hidden_train",
            tokens,
            segments,
            Mode::Train { seed },
        )
    }

    pub(super) fn pass(
        &self,
        function: &'static str,
        tokens: &[u32],
        segments: &Segments,
        mode: Mode,
    ) -> Result<Tensor> {
        let (adapter, seed) = match mode {
            Mode::Train { seed } => (self.adapter.clone(), Some(seed)),
            Mode::Evaluation => (self.adapter.clone(), None),
            Mode::Reference => (None, None),
        };
        let before = self.before().filter(|_| adapter.is_some());
        self.check(function, tokens, segments, before.map_or(0, Before::length))?;
        let start = self.start(tokens, segments, before)?;
        let (mut h, first) = (self.kept(start.h), start.first);
        let tables = self.tables(&start.positions)?;
        let segments = Arc::new(start.segments);
        for (number, layer) in self.layers.iter().enumerate() {
            let tables = tables.of(&self.config, number).clone();
            let pass = Pass {
                adapter: adapter.clone(),
                dropout: seed.map(|seed| seed.wrapping_add(number as u64)),
                prefix: before.and_then(|before| before.in_layer(number)),
                few: false,
            };
            h = self.kept(match self.recompute && self.keeps_graph {
                false => layer.forward(&h, &segments, &tables, &pass)?,
                true => {
                    let (layer, segments) = (layer.clone(), segments.clone());
                    let vars = self.layer_vars(&layer);
                    recompute(&h, &vars, move |h| {
                        layer.forward(h, &segments, &tables, &pass)
                    })?
                }
            });
        }
        Ok(self.kept(self.norm.forward(&h.narrow(0, first, tokens.len())?)?))
    }

    /// Whether these tokens can go through the model.
    pub(super) fn check(
        &self,
        function: &'static str,
        tokens: &[u32],
        segments: &Segments,
        before: usize,
    ) -> Result<()> {
        if tokens.len() != segments.tokens() {
            let text = format!(
                "has {} tokens for the {} of `segments`",
                tokens.len(),
                segments.tokens()
            );
            return Err(Error::argument(function, "tokens", text));
        }
        self.check_vocabulary(function, tokens)?;
        self.check_lengths(function, &segments.row_lengths(), before)
    }

    /// An error for a token that the vocabulary does not have.
    pub(super) fn check_vocabulary(&self, function: &'static str, tokens: &[u32]) -> Result<()> {
        let vocabulary = self.config.vocab_size;
        if let Some(at) = tokens.iter().position(|&id| id as usize >= vocabulary) {
            let text = format!(
                "holds {} at {at}, and the vocabulary has {vocabulary}",
                tokens[at]
            );
            return Err(Error::argument(function, "tokens", text));
        }
        Ok(())
    }

    /// An error for a row that is longer than the context, of which `before` positions are taken.
    pub(super) fn check_lengths(
        &self,
        function: &'static str,
        lengths: &[usize],
        before: usize,
    ) -> Result<()> {
        let most = self.config.max_position_embeddings;
        if let Some(row) = lengths.iter().position(|&length| length + before > most) {
            let behind = match before {
                0 => String::new(),
                before => format!(" behind {before} virtual ones"),
            };
            let text = format!(
                "has {} tokens in row {row}{behind}, and the model was made for {most}; cut it",
                lengths[row]
            );
            return Err(Error::argument(function, "segments", text));
        }
        Ok(())
    }

    /// `[tokens, hidden]`.
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let table = self.embedding.tensor();
        let ids = Tensor::new(tokens, table.device())?;
        let mut h = table.index_select(&ids, 0)?;
        if let (Weight::Trained(_), Some(pad)) = (&self.embedding, self.config.pad_token_id)
            && tokens.contains(&pad)
        {
            let learns = ids.ne(pad)?.unsqueeze(1)?.broadcast_as(h.shape())?;
            h = learns.where_cond(&h, &h.detach())?;
        }
        self.scaled_embedding(&wide(&h)?)
    }

    /// Gemma's embedding is longer than its table.
    pub(super) fn scaled_embedding(&self, rows: &Tensor) -> Result<Tensor> {
        if !self.config.family.is_gemma() {
            return Ok(rows.clone());
        }
        // rounded to the type of the weights, as in Transformers
        let scale = Tensor::new((self.config.hidden_size as f64).sqrt(), rows.device())?;
        let scale = scale
            .to_dtype(self.embedding.tensor().dtype())?
            .to_dtype(DType::F64)?
            .to_scalar::<f64>()?;
        Ok((rows * scale)?)
    }

    /// The tables of rotary positions at these positions.
    pub(super) fn tables(&self, positions: &[u32]) -> Result<Rotary> {
        let table = self.embedding.tensor();
        let dtype = compute_type(table.dtype());
        let of = |rope: &Rope| -> Result<Tables> {
            let (cos, sin) = rope.tables(positions, table.device())?;
            Ok((cos.to_dtype(dtype)?, sin.to_dtype(dtype)?))
        };
        Ok(Rotary {
            full: of(&self.config.rope)?,
            windowed: self.config.window_rope.as_ref().map(of).transpose()?,
        })
    }

    fn layer_vars(&self, layer: &Layer) -> Vec<(String, Var)> {
        let own = layer.tensors().into_iter();
        let own = own.filter_map(|(name, weight)| Some((name, weight.var()?.clone())));
        let prefix = self.before().filter(|before| before.in_layer(0).is_some());
        let prefix = prefix.map(Before::vars).unwrap_or_default();
        own.chain(self.adapter_vars(layer)).chain(prefix).collect()
    }
}

/// The tables of both kinds of layers.
pub(super) struct Rotary {
    full: Tables,
    windowed: Option<Tables>,
}

impl Rotary {
    pub(super) fn of(&self, config: &DecoderConfig, layer: usize) -> &Tables {
        match &self.windowed {
            Some(windowed) if config.windows[layer].is_some() => windowed,
            _ => &self.full,
        }
    }
}
