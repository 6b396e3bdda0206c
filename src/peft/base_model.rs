//! The base model of an adapter, and whether its output layer is its embedding.

use super::FUNCTION;
use crate::error::{Error, Result};
use crate::math::to_host;
use candle_core::{DType, Tensor};
use std::borrow::Cow;
use std::collections::HashMap;

/// A base model as its state dict: the weights under their names in Python, such as
/// `model.layers.0.self_attn.q_proj.weight`.
///
/// A state dict does not tell whether the model's output layer is its embedding. Where that decides
/// what an adapter means ([the page](super), "Tied weights"), say so with [`BaseModel::tied`] or
/// [`BaseModel::untied`]. Otherwise a reference to the state dict is enough.
#[derive(Clone, Copy, Debug)]
pub struct BaseModel<'a> {
    pub(super) tensors: &'a HashMap<String, Tensor>,
    pub(super) tie: Tie<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Tie<'a> {
    Unsaid,
    No,
    /// The paths of the two modules.
    Of(&'a str, &'a str),
}

impl<'a> BaseModel<'a> {
    /// A model whose output layer `head` uses the table of `embedding` as its weight
    /// (`tie_word_embeddings` in Python). Both are module paths, such as `model.embed_tokens` and
    /// `lm_head`. The state dict may hold the table under one name or both.
    #[doc(alias = "tie_word_embeddings")]
    #[doc(alias = "tied weights")]
    pub fn tied(tensors: &'a HashMap<String, Tensor>, embedding: &'a str, head: &'a str) -> Self {
        let tie = Tie::Of(embedding, head);
        Self { tensors, tie }
    }

    /// A model in which no two modules share a weight, or that has no output layer.
    pub fn untied(tensors: &'a HashMap<String, Tensor>) -> Self {
        let tie = Tie::No;
        Self { tensors, tie }
    }
}

impl<'a> From<&'a HashMap<String, Tensor>> for BaseModel<'a> {
    fn from(tensors: &'a HashMap<String, Tensor>) -> Self {
        let tie = Tie::Unsaid;
        Self { tensors, tie }
    }
}

impl<'a> BaseModel<'a> {
    /// The state dict under the names of all modules.
    pub(super) fn whole(&self) -> Result<Cow<'a, HashMap<String, Tensor>>> {
        let Tie::Of(embedding, head) = self.tie else {
            return Ok(Cow::Borrowed(self.tensors));
        };
        let names = [embedding, head].map(|path| format!("{path}.weight"));
        let said = "which are said to be one table";
        let problem = |text: String| Err(Error::argument(FUNCTION, "base", text));
        let (given, lacking) = match names.each_ref().map(|name| self.tensors.get(name)) {
            _ if embedding == head => {
                return problem(format!("is said to tie `{head}` to itself"));
            }
            [None, None] => {
                let [embedding, head] = names;
                return problem(format!("holds neither `{embedding}` nor `{head}`, {said}"));
            }
            [Some(one), Some(other)] => {
                if !same(one, other)? {
                    let [embedding, head] = names;
                    return problem(format!(
                        "holds `{embedding}` and `{head}`, {said}: they differ"
                    ));
                }
                return Ok(Cow::Borrowed(self.tensors));
            }
            [Some(given), None] => (given, &names[1]),
            [None, Some(given)] => (given, &names[0]),
        };
        let mut whole = self.tensors.clone();
        whole.insert(lacking.clone(), given.clone());
        Ok(Cow::Owned(whole))
    }
}

/// Whether two tensors hold the same numbers.
pub(super) fn same(one: &Tensor, other: &Tensor) -> Result<bool> {
    if one.id() == other.id() {
        return Ok(true);
    }
    if one.dims() != other.dims() || one.dtype() != other.dtype() {
        return Ok(false);
    }
    let values = |t: &Tensor| to_host::<f64>(&t.to_dtype(DType::F64)?);
    Ok(values(one)? == values(other)?)
}
