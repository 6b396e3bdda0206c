//! How the vectors of a prompt start.

use crate::error::{Error, Result, require};
use crate::parameter_efficient::frozen_linear::{compute_type, stored_type};
use crate::parameter_efficient::low_rank::uniform;
use crate::shape::{Axes, made, size};
use candle_core::{DType, Tensor, Var};
use rand::Rng;
use rand::seq::index;
use serde::{Deserialize, Serialize};

/// Settings of [`PromptEmbedding`](crate::parameter_efficient::PromptEmbedding).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptConfig {
    /// p ≥ 1, the number of virtual positions. Default 100, the paper's (§3).
    pub length: usize,
    /// How the vectors start. Default: sampled vocabulary. The paper's default is its labels, which not every
    /// task has; the paper fills the remaining positions with vocabulary (§3.2).
    pub init: PromptInit,
}

impl Default for PromptConfig {
    fn default() -> Self {
        Self {
            length: 100,
            init: PromptInit::Vocabulary { common: 5000 },
        }
    }
}

/// How the vectors start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PromptInit {
    /// Each number from U(−½, ½): the paper's "random uniform".
    Uniform,
    /// Rows of the table, drawn from its first `common` ones (5,000 in the paper, whose vocabulary is
    /// sorted by frequency); from all of a smaller table. No row is drawn twice, unless there are fewer
    /// rows than positions.
    Vocabulary {
        /// How many rows, counted from the first, may be drawn.
        common: usize,
    },
    /// One position per label: the mean of the label's tokens. The remaining positions are drawn as for
    /// [`PromptInit::Vocabulary`]. The paper's default, "class label".
    Labels {
        /// The tokens of each label; at most one label per position.
        labels: Vec<Vec<u32>>,
        /// How many rows, counted from the first, may be drawn for the remaining positions.
        common: usize,
    },
    /// The rows of a text's tokens in order. A text that is too long is cut; one that is too short is
    /// repeated. PEFT's `TEXT`.
    Text {
        /// The tokens of the text.
        tokens: Vec<u32>,
    },
}

impl PromptConfig {
    /// The vectors at the start, `[length, dim]`.
    pub(super) fn start(
        &self,
        function: &'static str,
        table: &Tensor,
        rng: &mut impl Rng,
    ) -> Result<Var> {
        size(function, "length", self.length)?;
        Axes::new(function).axes("table", table, &["vocabulary", "dim"])?;
        let dtype = compute_type(stored_type(function, "table", table)?);
        let (vocabulary, dim) = table.dims2()?;
        made(function, "length", &[self.length, dim])?;
        let rows = Rows {
            function,
            table: table.detach(),
            dtype,
            vocabulary,
        };
        let length = self.length;
        let values = match &self.init {
            PromptInit::Uniform => {
                return uniform(0.5, (length, dim), dtype, table.device(), rng);
            }
            PromptInit::Vocabulary { common } => rows.drawn(length, *common, rng)?,
            PromptInit::Labels { labels, common } => {
                if labels.len() > length {
                    return Err(Error::argument(
                        function,
                        "labels",
                        format!(
                            "are {}, but the prompt has {length} positions",
                            labels.len()
                        ),
                    ));
                }
                let mut parts = Vec::new();
                for label in labels {
                    rows.known("labels", label)?;
                    parts.push(rows.of(label)?.mean_keepdim(0)?);
                }
                let rest = rows.drawn(length, *common, rng)?;
                parts.push(rest.narrow(0, labels.len(), length - labels.len())?);
                Tensor::cat(&parts, 0)?
            }
            PromptInit::Text { tokens } => {
                rows.known("tokens", tokens)?;
                let tokens: Vec<u32> = tokens.iter().copied().cycle().take(length).collect();
                rows.of(&tokens)?
            }
        };
        Ok(Var::from_tensor(&values.copy()?)?)
    }
}

/// The rows of the embedding table.
struct Rows {
    function: &'static str,
    table: Tensor,
    dtype: DType,
    vocabulary: usize,
}

impl Rows {
    /// An error unless there are tokens and the table has them all.
    fn known(&self, argument: &str, tokens: &[u32]) -> Result<()> {
        let problem = |text: String| Err(Error::argument(self.function, argument, text));
        if tokens.is_empty() {
            return problem("holds no token".to_string());
        }
        match tokens.iter().find(|&&t| t as usize >= self.vocabulary) {
            None => Ok(()),
            Some(token) => problem(format!(
                "holds {token}, outside the vocabulary of {}",
                self.vocabulary
            )),
        }
    }

    /// The rows of these tokens.
    fn of(&self, tokens: &[u32]) -> Result<Tensor> {
        let tokens = Tensor::new(tokens, self.table.device())?;
        Ok((self.table.index_select(&tokens, 0)?).to_dtype(self.dtype)?)
    }

    /// `length` of the first `common` rows.
    fn drawn(&self, length: usize, common: usize, rng: &mut impl Rng) -> Result<Tensor> {
        require(common >= 1, self.function, "common", ">= 1", common)?;
        let population = common.min(self.vocabulary);
        if population == 0 {
            let text = "has a vocabulary of 0";
            return Err(Error::argument(self.function, "table", text));
        }
        let tokens: Vec<u32> = match length <= population {
            true => index::sample(rng, population, length)
                .into_iter()
                .map(|token| token as u32)
                .collect(),
            false => (0..length)
                .map(|_| rng.random_range(0..population as u32))
                .collect(),
        };
        self.of(&tokens)
    }
}
