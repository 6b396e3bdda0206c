//! The decoder: its weights, its output layer, its variables.

use super::before::Before;
use super::config::DecoderConfig;
use super::layer::Layer;
use super::norm::Norm;
use super::projection::Weight;
use crate::error::{Error, Result};
use crate::log_probs::OutputHead;
use crate::ops::few_rows;
use crate::parameter_efficient::VeraProjections;
use crate::peft::PeftConfig;
use candle_core::{Tensor, Var};
use std::collections::{BTreeMap, HashMap};

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const HEAD: &str = "lm_head.weight";
pub(super) const SCORE: &str = "score.weight";

/// A causal language model of the Llama family, from a Hugging Face folder. [The page](super) says what it
/// reads, how it is trained and what it refuses.
///
/// A clone shares the weights.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub(super) config: DecoderConfig,
    pub(super) embedding: Weight,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    /// None: the embedding, or nothing for a classifier.
    pub(super) head: Option<Weight>,
    pub(super) score: Option<Weight>,
    /// The token at the ends of rows that scores pass over.
    pub(super) padding: Option<u32>,
    pub(super) adapter: Option<String>,
    pub(super) attached: BTreeMap<String, Attached>,
    pub(super) recompute: bool,
    /// Whether what a pass returns can be differentiated.
    pub(super) keeps_graph: bool,
}

/// What an adapter has beside the layers that hold it.
#[derive(Clone, Debug)]
pub(super) struct Attached {
    pub(super) config: PeftConfig,
    pub(super) projections: Option<VeraProjections>,
    /// The reward head that is trained with the adapter.
    pub(super) score: Option<Var>,
    /// Learned vectors before a row's tokens.
    pub(super) before: Option<Before>,
}

impl Decoder {
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

    /// The same model for measurements: its passes keep no graph, so what they return has no gradient, and their
    /// memory does not grow with the number of layers. The values are the same bit for bit. The weights are
    /// shared.
    #[doc(alias = "no_grad")]
    pub fn without_gradients(&self) -> Self {
        Self {
            keeps_graph: false,
            ..self.clone()
        }
    }

    /// A result of a pass, cut from its graph if no graph is kept.
    pub(super) fn kept(&self, result: Tensor) -> Tensor {
        match self.keeps_graph {
            true => result,
            false => result.detach(),
        }
    }

    /// The output layer, for [`TokenLogProbs::from_hidden`](crate::TokenLogProbs::from_hidden).
    ///
    /// # Errors
    /// [`Error::Argument`] for a classifier without one.
    pub fn head(&self) -> Result<OutputHead> {
        self.head_with(self.head_weight()?.tensor())
    }

    /// As [`Decoder::head`], in the type of hidden states.
    pub(super) fn wide_head(&self) -> Result<OutputHead> {
        self.head_with(&self.head_weight()?.wide()?)
    }

    /// The logits of a few rows, without a graph.
    pub(super) fn next_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = few_rows::product(hidden, self.head_weight()?.tensor())?;
        Ok(match self.config.final_logit_softcapping {
            Some(cap) => ((logits / cap)?.tanh()? * cap)?,
            None => logits,
        })
    }

    pub(super) fn head_weight(&self) -> Result<&Weight> {
        let weight = match &self.head {
            Some(head) => head,
            None if self.config.tie_word_embeddings && self.score.is_none() => &self.embedding,
            None => {
                let text = "is a classifier, which has no output layer over the vocabulary";
                return Err(Error::argument("Decoder::head", "self", text));
            }
        };
        Ok(weight)
    }

    fn head_with(&self, weight: &Tensor) -> Result<OutputHead> {
        let head = OutputHead::new(&self.kept(weight.clone()), None)?;
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
        let head = self.wide_head()?;
        let rows = hidden.flatten_to(hidden.rank().saturating_sub(2))?;
        let logits = head.logits(&rows)?;
        let mut shape = hidden.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.config.vocab_size;
        }
        Ok(logits.reshape(shape)?)
    }

    /// The model's own tensors, by their names in the file: a state dict, for adapters of Python's PEFT. Matrices in
    /// four bits are not among them.
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
        vars.extend(self.before().map(Before::vars).unwrap_or_default());
        vars.sort_by(|a, b| a.0.cmp(&b.0));
        vars
    }

    /// Whether the linear maps of the layers are in four bits.
    pub(super) fn is_quantized(&self) -> bool {
        let mut maps = self.layers.iter().flat_map(Layer::projections);
        maps.any(|map| map.nf4().is_some())
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
