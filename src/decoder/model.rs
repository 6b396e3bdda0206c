//! The decoder: its weights, its passes, and which adapter is active.

use super::adapters::Attached;
use super::config::{DecoderConfig, Family};
use super::folder;
use super::layer::{Layer, Norm, Tables};
use super::projection::Weight;
use super::tensors::Tensors;
use super::{Pass, Prefix};
use crate::error::{Error, Result};
use crate::log_probs::OutputHead;
use crate::ops::Segments;
use crate::training::recompute;
use candle_core::{DType, Device, Tensor, Var};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
pub(super) const SCORE: &str = "score.weight";

/// How [`Decoder::load`] holds the weights.
#[derive(Clone, Debug)]
pub struct Load {
    /// The type in memory: f32, f64, bf16 or f16. Half types are for frozen weights; hidden states are then
    /// f32. Default f32.
    pub dtype: DType,
    /// Whether the model's own weights are trained. Default false: they are frozen and cost nothing in the
    /// backward pass.
    pub trained: bool,
    /// Default the CPU.
    pub device: Device,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            dtype: DType::F32,
            trained: false,
            device: Device::Cpu,
        }
    }
}

/// A causal language model of the Llama family, from a Hugging Face folder.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub(super) config: DecoderConfig,
    pub(super) embedding: Weight,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    /// None: the embedding, or nothing for a classifier.
    pub(super) head: Option<Weight>,
    pub(super) score: Option<Weight>,
    pub(super) adapter: Option<String>,
    pub(super) attached: BTreeMap<String, Attached>,
    pub(super) recompute: bool,
}

impl Decoder {
    /// Reads a folder: `config.json`, and `model.safetensors` or the shards of an index.
    ///
    /// # Errors
    /// As [`DecoderConfig::read`]; [`Error::Argument`] with the path for a file that cannot be read, and with
    /// the name of a tensor that is missing, misshapen or unexpected.
    pub fn load(folder: impl AsRef<Path>, load: &Load) -> Result<Self> {
        let function = "Decoder::load";
        let folder = folder.as_ref();
        let config = DecoderConfig::read(folder)?;
        let half = matches!(load.dtype, DType::BF16 | DType::F16);
        if !half && !matches!(load.dtype, DType::F32 | DType::F64) {
            let found = load.dtype.as_str();
            return Err(Error::argument(
                function,
                "load.dtype",
                format!("is {found}, and weights are f32, f64, bf16 or f16"),
            ));
        }
        if half && load.trained {
            let text = "is a half type, in which the steps of an optimizer are lost: train in f32";
            return Err(Error::argument(function, "load.dtype", text));
        }
        let tensors = folder::read(function, folder)?;
        let source = folder.display().to_string();
        let mut tensors = Tensors::new(
            function,
            source,
            tensors,
            (load.dtype, &load.device),
            load.trained,
        );
        let table = [config.vocab_size, config.hidden_size];
        let embedding = tensors.take(EMBEDDING, &table)?;
        let layers =
            (0..config.num_hidden_layers).map(|number| Layer::new(&mut tensors, &config, number));
        let layers = layers.collect::<Result<Vec<Layer>>>()?;
        let norm = Norm::new(&mut tensors, &config, "model.norm", config.hidden_size)?;
        let score = match tensors.has(SCORE) {
            true => {
                let labels = config.num_labels.unwrap_or(1);
                Some(tensors.take(SCORE, &[labels, config.hidden_size])?)
            }
            false => None,
        };
        let head = match (config.tie_word_embeddings, tensors.has(HEAD)) {
            (true, false) => None,
            // a tied file may hold the table twice; another table is no tie
            (true, true) => {
                let head = tensors.take(HEAD, &table)?;
                (!same(head.tensor(), embedding.tensor())?).then_some(head)
            }
            (false, false) if score.is_some() => None,
            (false, _) => Some(tensors.take(HEAD, &table)?),
        };
        tensors.none_left()?;
        Ok(Self {
            config,
            embedding,
            layers,
            norm,
            head,
            score,
            adapter: None,
            attached: BTreeMap::new(),
            recompute: false,
        })
    }

    /// What `config.json` says.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Whether the backward pass computes each layer's activations again instead of keeping them. Memory
    /// then does not grow with the number of layers; a step takes about a third longer. Off at first.
    #[doc(alias = "gradient_checkpointing")]
    pub fn set_recompute(&mut self, recompute: bool) {
        self.recompute = recompute;
    }

    /// The last hidden states `[tokens, hidden]` of a flat batch, in evaluation.
    ///
    /// # Errors
    /// [`Error::Argument`] for a token outside of the vocabulary, a row longer than the context, or another
    /// number of tokens than the segments have.
    pub fn hidden(&self, tokens: &[u32], segments: &Segments) -> Result<Tensor> {
        self.pass("Decoder::hidden", tokens, segments, None)
    }

    /// As [`Decoder::hidden`], in training: with the dropout of the active adapter, drawn from `seed`.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn hidden_train(&self, tokens: &[u32], segments: &Segments, seed: u64) -> Result<Tensor> {
        self.pass("Decoder::hidden_train", tokens, segments, Some(seed))
    }

    fn pass(
        &self,
        function: &'static str,
        tokens: &[u32],
        segments: &Segments,
        seed: Option<u64>,
    ) -> Result<Tensor> {
        self.check(function, tokens, segments)?;
        let mut h = self.embed(tokens)?;
        let positions = segments.positions();
        let tables = self.tables(&positions)?;
        let segments = Arc::new(segments.clone());
        let prefix: Option<Prefix> = None;
        for (number, layer) in self.layers.iter().enumerate() {
            let tables = tables.of(&self.config, number).clone();
            let pass = Pass {
                adapter: self.adapter.clone(),
                dropout: seed.map(|seed| seed.wrapping_add(number as u64)),
            };
            h = match self.recompute {
                false => layer.forward(&h, &segments, &tables, prefix.as_ref(), &pass)?,
                true => {
                    let (layer, segments) = (layer.clone(), segments.clone());
                    let vars = self.layer_vars(&layer);
                    recompute(&h, &vars, move |h| {
                        layer.forward(h, &segments, &tables, None, &pass)
                    })?
                }
            };
        }
        self.norm.forward(&h)
    }

    pub(super) fn check(
        &self,
        function: &'static str,
        tokens: &[u32],
        segments: &Segments,
    ) -> Result<()> {
        if tokens.len() != segments.tokens() {
            let text = format!(
                "has {} tokens for the {} of `segments`",
                tokens.len(),
                segments.tokens()
            );
            return Err(Error::argument(function, "tokens", text));
        }
        let vocabulary = self.config.vocab_size;
        if let Some(at) = tokens.iter().position(|&id| id as usize >= vocabulary) {
            let text = format!(
                "holds {} at {at}, and the vocabulary has {vocabulary}",
                tokens[at]
            );
            return Err(Error::argument(function, "tokens", text));
        }
        self.check_lengths(function, &segments.row_lengths())
    }

    pub(super) fn check_lengths(&self, function: &'static str, lengths: &[usize]) -> Result<()> {
        let most = self.config.max_position_embeddings;
        if let Some(row) = lengths.iter().position(|&length| length > most) {
            let text = format!(
                "has {} tokens in row {row}, and the model was made for {most}; cut it",
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
        if let (Weight::Trained(_), Some(pad)) = (&self.embedding, self.config.pad_token_id) {
            if tokens.contains(&pad) {
                let learns = ids.ne(pad)?.unsqueeze(1)?.broadcast_as(h.shape())?;
                h = learns.where_cond(&h, &h.detach())?;
            }
        }
        if self.config.family == Family::Gemma3 {
            // rounded to the type of the weights, as in Transformers
            let scale = Tensor::new((self.config.hidden_size as f64).sqrt(), table.device())?;
            let scale = scale
                .to_dtype(table.dtype())?
                .to_dtype(DType::F64)?
                .to_scalar::<f64>()?;
            h = (wide(&h)? * scale)?;
        }
        wide(&h)
    }

    /// The tables of rotary positions at these positions.
    pub(super) fn tables(&self, positions: &[u32]) -> Result<Rotary> {
        let table = self.embedding.tensor();
        let dtype = match table.dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let of = |rope: &super::Rope| -> Result<Tables> {
            let (cos, sin) = rope.tables(positions, table.device())?;
            Ok((cos.to_dtype(dtype)?, sin.to_dtype(dtype)?))
        };
        Ok(Rotary {
            full: of(&self.config.rope)?,
            windowed: self.config.window_rope.as_ref().map(of).transpose()?,
        })
    }

    /// The output layer, for [`TokenLogProbs::from_hidden`](crate::TokenLogProbs::from_hidden).
    ///
    /// # Errors
    /// [`Error::Argument`] for a classifier without one.
    pub fn head(&self) -> Result<OutputHead> {
        let weight = match &self.head {
            Some(head) => head,
            None if self.config.tie_word_embeddings => &self.embedding,
            None => {
                let text = "is a classifier, which has no output layer over the vocabulary";
                return Err(Error::argument("Decoder::head", "self", text));
            }
        };
        let head = OutputHead::new(weight.tensor(), None)?;
        match self.config.final_logit_softcapping {
            Some(cap) => head.with_soft_cap(cap),
            None => Ok(head),
        }
    }

    /// The logits `[…, vocabulary]` of hidden states. They are large: for training, give [`Decoder::head`] to
    /// [`TokenLogProbs::from_hidden`](crate::TokenLogProbs::from_hidden).
    ///
    /// # Errors
    /// As [`Decoder::head`].
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let head = self.head()?;
        let rows = hidden.flatten_to(hidden.rank().saturating_sub(2))?;
        let logits = head.logits(&rows)?;
        let mut shape = hidden.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.config.vocab_size;
        }
        Ok(logits.reshape(shape)?)
    }

    /// The model's own tensors, by their names in the file: a state dict, for adapters of Python's PEFT.
    pub fn state_dict(&self) -> HashMap<String, Tensor> {
        let own = self.weights().into_iter();
        own.map(|(name, weight)| (name, weight.tensor().clone()))
            .collect()
    }

    /// The trained variables by name, sorted: the model's own, if they are trained, and those of the active
    /// adapter. A tied output layer is the embedding, listed once.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let own = self.weights().into_iter();
        let mut vars: Vec<(String, Var)> = own
            .filter_map(|(name, weight)| Some((name, weight.var()?.clone())))
            .collect();
        for layer in &self.layers {
            vars.extend(self.adapter_vars(layer));
        }
        vars.extend(self.adapter_score());
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    fn layer_vars(&self, layer: &Layer) -> Vec<(String, Var)> {
        let own = layer.tensors().into_iter();
        let own = own.filter_map(|(name, weight)| Some((name, weight.var()?.clone())));
        own.chain(self.adapter_vars(layer)).collect()
    }

    /// All tensors of the model itself.
    pub(super) fn weights(&self) -> Vec<(String, &Weight)> {
        let mut all = vec![(EMBEDDING.to_string(), &self.embedding)];
        for layer in &self.layers {
            all.extend(layer.tensors());
        }
        all.push(self.norm.tensor());
        all.extend(self.head.as_ref().map(|head| (HEAD.to_string(), head)));
        all.extend(self.score.as_ref().map(|score| (SCORE.to_string(), score)));
        all
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

/// In the type of hidden states.
fn wide(x: &Tensor) -> Result<Tensor> {
    Ok(match x.dtype() {
        DType::F32 | DType::F64 => x.clone(),
        _ => x.to_dtype(DType::F32)?,
    })
}

fn same(one: &Tensor, other: &Tensor) -> Result<bool> {
    let differ = one.ne(other)?.to_dtype(DType::F64)?.sum_all()?;
    Ok(differ.to_scalar::<f64>()? == 0.0)
}
