//! The settings of LoRA for the chosen modules of a model.

use super::config::{LoraBias, LoraConfig, LoraInit, Scaling};
use crate::error::{Error, Result, shown};
use crate::in_order;
use crate::parameter_efficient::expressions::{Expression, Expressions};
use crate::parameter_efficient::targets::Targets;
use crate::parameter_efficient::targets::matcher::Matcher;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Settings of LoRA, QLoRA or DoRA for a whole model: which modules get a layer, and where rank and α
/// differ.
///
/// [`LoraForModel::for_module`] derives the settings of one module, which is what a layer takes. In JSON
/// all keys stand side by side, as in the example.
///
/// # Equation
/// ```text
/// r(path) = rank_pattern[k],  k the first key with (.*\.)?(k) = path,  else rank
/// α(path) = alpha_pattern[k], k the first key with (.*\.)?(k) = path,  else alpha
/// s(path) = α(path)/r(path), or α(path)/√r(path)
/// ```
/// # Shapes
/// Paths as for [`Targets`].
/// # Errors
/// [`LoraForModel::for_module`] and [`LoraForModel::for_modules`] list theirs.
/// # Properties
/// * The order of keys matters: with `q` before `layers.1.q` the second is never reached.
/// * A key is an expression for the last segments of a path: `q` matches `layers.1.q`, `^q` only a `q`
///   at the root, and `q` never matches `xq`.
/// * Rank and α are looked up separately: a pattern that changes only the rank changes s.
/// # Departures
/// PEFT says nothing about a key that matches no module; [`LoraForModel::for_modules`] returns an error.
/// PEFT writes the keys of its file in alphabetical order, whatever their order was in training: where
/// two match one module, the file can mean another rank than the training used.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::LoraForModel;
///
/// let config: LoraForModel = serde_json::from_str(r#"{
///     "rank": 8, "alpha": 16.0,
///     "rank_pattern": {"layers.0.q_proj": 2}, "alpha_pattern": {"v_proj": 4.0},
///     "targets": {"target_modules": ["q_proj", "v_proj"]}
/// }"#).unwrap();
///
/// let layer = config.for_module("model.layers.0.q_proj")?.unwrap();
/// assert_eq!((layer.rank, layer.alpha, layer.scale()), (2, 16.0, 16.0 / 2.0));
/// let layer = config.for_module("model.layers.7.v_proj")?.unwrap();
/// assert_eq!((layer.rank, layer.alpha, layer.scale()), (8, 4.0, 4.0 / 8.0));
/// assert!(config.for_module("model.layers.0.o_proj")?.is_none());
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// PEFT 0.21.2, `utils/other.py`, `get_pattern_key`; r and α are of Hu et al. 2021,
/// arXiv:2106.09685v2, §4.1.
#[doc(alias = "rank_pattern")]
#[doc(alias = "alpha_pattern")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat", into = "Flat")]
pub struct LoraForModel {
    /// The settings of a module that no pattern changes.
    pub config: LoraConfig,
    /// Ranks for some modules: an expression for the end of a path, and the rank. The first match
    /// counts. Default none.
    pub rank_pattern: Vec<(String, usize)>,
    /// α for some modules, in the same way. Default none.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Which modules get a layer. Default none.
    pub targets: Targets,
}

/// The form in JSON.
#[derive(Serialize, Deserialize)]
#[serde(rename = "LoraForModel", default, deny_unknown_fields)]
struct Flat {
    rank: usize,
    alpha: f64,
    scaling: Scaling,
    dropout: f64,
    init: LoraInit,
    bias: LoraBias,
    #[serde(with = "in_order")]
    rank_pattern: Vec<(String, usize)>,
    #[serde(with = "in_order")]
    alpha_pattern: Vec<(String, f64)>,
    targets: Targets,
}

impl Default for Flat {
    fn default() -> Self {
        LoraForModel::default().into()
    }
}

impl From<LoraForModel> for Flat {
    fn from(whole: LoraForModel) -> Self {
        let LoraConfig {
            rank,
            alpha,
            scaling,
            dropout,
            init,
            bias,
        } = whole.config;
        Self {
            rank,
            alpha,
            scaling,
            dropout,
            init,
            bias,
            rank_pattern: whole.rank_pattern,
            alpha_pattern: whole.alpha_pattern,
            targets: whole.targets,
        }
    }
}

impl From<Flat> for LoraForModel {
    fn from(flat: Flat) -> Self {
        Self {
            config: LoraConfig {
                rank: flat.rank,
                alpha: flat.alpha,
                scaling: flat.scaling,
                dropout: flat.dropout,
                init: flat.init,
                bias: flat.bias,
            },
            rank_pattern: flat.rank_pattern,
            alpha_pattern: flat.alpha_pattern,
            targets: flat.targets,
        }
    }
}

impl From<LoraConfig> for LoraForModel {
    /// The same settings for every module; no module is chosen yet.
    fn from(config: LoraConfig) -> Self {
        Self {
            config,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            targets: Targets::default(),
        }
    }
}

impl LoraForModel {
    /// The settings of the module at `path`; `None` if it gets no layer. A key or a name that matches no
    /// module at all is not an error here.
    ///
    /// # Errors
    /// As for [`Targets`], and [`Error::Argument`] for a key that is not an expression.
    pub fn for_module(&self, path: &str) -> Result<Option<LoraConfig>> {
        LoraRules::new("LoraForModel::for_module", self)?.of(path)
    }

    /// The settings of every module that gets a layer, among the `paths` of a model's modules and in their
    /// order.
    ///
    /// # Errors
    /// As [`LoraForModel::for_module`]; and [`Error::Argument`] if no module is chosen, or if a name or
    /// a key has no effect: it matches none of the chosen modules, or an earlier key matches them all.
    pub fn for_modules(&self, paths: &[impl AsRef<str>]) -> Result<Vec<(String, LoraConfig)>> {
        let function = "LoraForModel::for_modules";
        let rules = LoraRules::new(function, self)?;
        let keys = |path: &str| Ok((rules.ranks.key(path)?, rules.alphas.key(path)?));
        let chosen = rules.targets.chosen(function, paths, keys)?;
        let used = chosen.iter().map(|(path, (rank, _))| (path, *rank));
        rules.ranks.not_idle(function, &used.collect::<Vec<_>>())?;
        let used = chosen.iter().map(|(path, (_, alpha))| (path, *alpha));
        rules.alphas.not_idle(function, &used.collect::<Vec<_>>())?;
        let chosen = chosen.into_iter();
        Ok(chosen
            .map(|(path, keys)| (path, rules.with(keys)))
            .collect())
    }
}

/// [`LoraForModel`] with its expressions compiled.
pub(crate) struct LoraRules<'a> {
    config: &'a LoraConfig,
    targets: Matcher<'a>,
    ranks: Pattern<'a, usize>,
    alphas: Pattern<'a, f64>,
}

impl<'a> LoraRules<'a> {
    pub(crate) fn new(function: &'static str, whole: &'a LoraForModel) -> Result<Self> {
        let mut expressions = Expressions::new(function);
        let all = &mut expressions;
        Ok(Self {
            config: &whole.config,
            targets: Matcher::new(all, &whole.targets)?,
            ranks: Pattern::new(all, "rank_pattern", &whole.rank_pattern)?,
            alphas: Pattern::new(all, "alpha_pattern", &whole.alpha_pattern)?,
        })
    }

    /// The settings of the module at `path`, if it gets a layer.
    pub(crate) fn of(&self, path: &str) -> Result<Option<LoraConfig>> {
        if !self.targets.matches(path)? {
            return Ok(None);
        }
        Ok(Some(
            self.with((self.ranks.key(path)?, self.alphas.key(path)?)),
        ))
    }

    /// The settings with the values of these keys.
    fn with(&self, (rank, alpha): (Option<usize>, Option<usize>)) -> LoraConfig {
        LoraConfig {
            rank: self.ranks.value(rank).unwrap_or(self.config.rank),
            alpha: self.alphas.value(alpha).unwrap_or(self.config.alpha),
            ..self.config.clone()
        }
    }
}

/// A pattern with its keys compiled.
struct Pattern<'a, T> {
    field: &'static str,
    pairs: &'a [(String, T)],
    compiled: Vec<Expression>,
}

impl<'a, T: Copy> Pattern<'a, T> {
    fn new(
        expressions: &mut Expressions,
        field: &'static str,
        pairs: &'a [(String, T)],
    ) -> Result<Self> {
        let keys = pairs.iter().map(|(key, _)| key);
        Ok(Self {
            field,
            pairs,
            compiled: keys
                .map(|key| expressions.end(field, key))
                .collect::<Result<_>>()?,
        })
    }

    /// k, the first key with (.*\.)?(k) = path: its place in the pattern.
    fn key(&self, path: &str) -> Result<Option<usize>> {
        for (at, key) in self.compiled.iter().enumerate() {
            if key.is_match(path)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn value(&self, key: Option<usize>) -> Option<T> {
        key.map(|at| self.pairs[at].1)
    }

    /// An error if a key sets no chosen module's value; beside each module is the key that sets its own.
    fn not_idle(&self, function: &'static str, chosen: &[(&String, Option<usize>)]) -> Result<()> {
        let used: HashSet<usize> = chosen.iter().filter_map(|(_, key)| *key).collect();
        let Some(at) = (0..self.pairs.len()).find(|at| !used.contains(at)) else {
            return Ok(());
        };
        let mut fits = false;
        for (path, _) in chosen {
            fits |= self.compiled[at].is_match(path)?;
        }
        let key = shown(&self.pairs[at].0);
        let why = match fits {
            true => "which is never reached: earlier keys fit its modules",
            false => "which fits no chosen module",
        };
        let text = format!("holds `{key}`, {why}");
        Err(Error::argument(function, self.field, text))
    }
}
