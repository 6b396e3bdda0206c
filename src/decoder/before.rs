//! Learned vectors before a row's tokens: a prompt's or a prefix's.

use crate::error::Result;
use crate::parameter_efficient::{PrefixEncoder, PromptEmbedding};
use crate::peft::{AdapterFile, PeftConfig};
use candle_core::Var;

/// What every row sees before its own tokens.
#[derive(Clone, Debug)]
pub(super) enum Before {
    /// Vectors in place of embeddings: a first segment above all rows, computed once.
    Prompt(PromptEmbedding),
    /// Keys and values in every layer.
    Prefix(PrefixEncoder),
}

impl Before {
    /// How many positions it takes.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Prompt(prompt) => prompt.virtual_positions(),
            Self::Prefix(prefix) => prefix.virtual_positions(),
        }
    }

    pub(super) fn vars(&self) -> Vec<(String, Var)> {
        match self {
            Self::Prompt(prompt) => prompt.trainable(""),
            Self::Prefix(prefix) => prefix.trainable(""),
        }
    }

    /// What a layer adds to its own keys and values.
    pub(super) fn in_layer(&self, layer: usize) -> Option<(PrefixEncoder, usize)> {
        match self {
            Self::Prompt(_) => None,
            Self::Prefix(prefix) => Some((prefix.clone(), layer)),
        }
    }

    pub(super) fn file(&self, config: PeftConfig) -> Result<AdapterFile> {
        match self {
            Self::Prompt(prompt) => AdapterFile::from_prompt(config, prompt),
            Self::Prefix(prefix) => AdapterFile::from_prefix(config, prefix),
        }
    }
}
