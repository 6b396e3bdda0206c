//! The settings of LoRA.

use crate::error::{Error, Result, positive, require, shown};
use crate::in_order;
use crate::parameter_efficient::expressions::{Expression, Expressions};
use crate::parameter_efficient::targets::{Matcher, Targets};
use crate::shape::size;
use serde::{Deserialize, Serialize};

/// Settings of [`LoraLinear`](crate::LoraLinear) and [`LoraEmbedding`](crate::LoraEmbedding), for
/// one module or for a whole model.
///
/// The settings of a whole model say which modules get an adapter, and where rank and α differ.
/// [`LoraConfig::for_module`] derives the settings of one module, which is what a layer takes.
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
/// [`LoraConfig::for_module`] and [`LoraConfig::for_modules`] list theirs; a layer refuses settings
/// that still hold patterns or targets.
/// # Properties
/// * The order of keys matters: with `q` before `layers.1.q` the second is never reached.
/// * A key is an expression for the last segments of a path: `q` matches `layers.1.q`, `^q` only a `q`
///   at the root, and `q` never matches `xq`.
/// * Rank and α are looked up separately: a pattern that changes only the rank changes s.
/// # Departures
/// PEFT says nothing about a key that matches no module; [`LoraConfig::for_modules`] returns an error.
/// PEFT writes the keys of its file in alphabetical order, whatever their order was in training: where
/// two match one module, the file can mean another rank than the training used.
/// # Examples
/// ```
/// use candle_align::LoraConfig;
///
/// let config: LoraConfig = serde_json::from_str(r#"{
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// r ≥ 1, the rank of the update. Default 8, as in PEFT. The paper finds 1 to 8 enough (§7.2).
    pub rank: usize,
    /// α > 0, the numerator of the scale. Default 8, as in PEFT: the paper sets α to the first r that it
    /// tries and keeps it (§4.1), so that other ranks need no new learning rate.
    pub alpha: f64,
    /// How the scale s follows from α and r. Default α/r, the paper's.
    pub scaling: Scaling,
    /// p in [0, 1), the share of A's inputs that is dropped in training. Default 0, as in PEFT and
    /// the authors' code. An embedding has no such input: there it must be 0.
    pub dropout: f64,
    /// How the factor that does not start at zero is drawn. Default as in the authors' code.
    pub init: LoraInit,
    /// What is trained beside A and B. Default nothing, as in PEFT and the authors' code; an embedding
    /// accepts nothing else.
    pub bias: LoraBias,
    /// Ranks for some modules: an expression for the end of a path, and the rank. The first match
    /// counts. Default none.
    #[serde(with = "in_order")]
    pub rank_pattern: Vec<(String, usize)>,
    /// α for some modules, in the same way. Default none.
    #[serde(with = "in_order")]
    pub alpha_pattern: Vec<(String, f64)>,
    /// Which modules get an adapter. Default none; settings for one module have none.
    pub targets: Targets,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            scaling: Scaling::Rank,
            dropout: 0.0,
            init: LoraInit::KaimingUniform,
            bias: LoraBias::Frozen,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            targets: Targets::default(),
        }
    }
}

impl LoraConfig {
    /// s, the factor of B·A.
    pub fn scale(&self) -> f64 {
        match self.scaling {
            Scaling::Rank => self.alpha / self.rank as f64,
            Scaling::RankSqrt => self.alpha / (self.rank as f64).sqrt(),
        }
    }

    /// The settings of the module at `path`, without patterns and targets; `None` if it gets no
    /// adapter. A key or a target that matches no module at all is not an error here.
    ///
    /// # Errors
    /// As for [`Targets`], and [`Error::Argument`] for a key that is not an expression.
    pub fn for_module(&self, path: &str) -> Result<Option<LoraConfig>> {
        let settings = WholeModel::new("LoraConfig::for_module", self)?;
        Ok(settings.for_module(path)?.map(|found| found.config))
    }

    /// The settings of every module that gets an adapter, among the `paths` of a model's modules and
    /// in their order.
    ///
    /// # Errors
    /// As [`LoraConfig::for_module`]; and [`Error::Argument`] if no module is chosen, or if a name or
    /// a key has no effect: it matches none of the chosen modules, or an earlier key matches them all.
    pub fn for_modules(&self, paths: &[impl AsRef<str>]) -> Result<Vec<(String, LoraConfig)>> {
        let function = "LoraConfig::for_modules";
        let settings = WholeModel::new(function, self)?;
        let mut chosen = Vec::new();
        let (mut ranks, mut alphas) = (Vec::new(), Vec::new());
        for path in paths {
            if let Some(found) = settings.for_module(path.as_ref())? {
                chosen.push((path.as_ref().to_string(), found.config));
                ranks.extend(found.rank_key);
                alphas.extend(found.alpha_key);
            }
        }
        let names: Vec<String> = chosen.iter().map(|(path, _)| path.clone()).collect();
        self.targets.not_idle(function, &names)?;
        for (field, keys, used, compiled) in [
            (
                "rank_pattern",
                keys(&self.rank_pattern),
                ranks,
                &settings.ranks,
            ),
            (
                "alpha_pattern",
                keys(&self.alpha_pattern),
                alphas,
                &settings.alphas,
            ),
        ] {
            let unused = (0..keys.len()).find(|at| !used.contains(at));
            if let Some((at, key)) = unused.map(|at| (at, keys[at])) {
                let key = shown(key);
                let mut fits = false;
                for path in &names {
                    fits |= compiled[at].is_match(path)?;
                }
                let why = match fits {
                    true => "which is never reached: earlier keys fit its modules",
                    false => "which fits no chosen module",
                };
                let text = format!("holds `{key}`, {why}");
                return Err(Error::argument(function, field, text));
            }
        }
        Ok(chosen)
    }

    /// Whether these settings can make a layer.
    pub(crate) fn check(&self, function: &'static str) -> Result<()> {
        for (field, keys) in [
            ("rank_pattern", keys(&self.rank_pattern)),
            ("alpha_pattern", keys(&self.alpha_pattern)),
        ] {
            require(
                keys.is_empty(),
                function,
                field,
                ONE_MODULE,
                shown(&keys.join(", ")),
            )?;
        }
        require(
            self.targets == Targets::default(),
            function,
            "targets",
            ONE_MODULE,
            "the targets of a model",
        )?;
        size(function, "rank", self.rank)?;
        positive(function, "alpha", self.alpha)?;
        require(
            (0.0..1.0).contains(&self.dropout),
            function,
            "dropout",
            "in [0, 1)",
            self.dropout,
        )
    }
}

/// Whether these are settings for one module.
const ONE_MODULE: &str = "that of one module, by `LoraConfig::for_module`";

fn keys<T>(patterns: &[(String, T)]) -> Vec<&str> {
    patterns.iter().map(|(key, _)| key.as_str()).collect()
}

/// Settings with their expressions compiled.
pub(crate) struct WholeModel<'a> {
    config: &'a LoraConfig,
    targets: Matcher<'a>,
    ranks: Vec<Expression>,
    alphas: Vec<Expression>,
}

/// The settings of a module, and the keys that set them.
pub(crate) struct Found {
    pub(crate) config: LoraConfig,
    rank_key: Option<usize>,
    alpha_key: Option<usize>,
}

impl<'a> WholeModel<'a> {
    pub(crate) fn new(function: &'static str, config: &'a LoraConfig) -> Result<Self> {
        let mut expressions = Expressions::new(function);
        let targets = Matcher::new(&mut expressions, &config.targets)?;
        let mut all = |field, keys: Vec<&str>| -> Result<Vec<Expression>> {
            let keys = keys.into_iter();
            keys.map(|key| expressions.end(field, key)).collect()
        };
        Ok(Self {
            config,
            ranks: all("rank_pattern", keys(&config.rank_pattern))?,
            alphas: all("alpha_pattern", keys(&config.alpha_pattern))?,
            targets,
        })
    }

    pub(crate) fn for_module(&self, path: &str) -> Result<Option<Found>> {
        if !self.targets.matches(path)? {
            return Ok(None);
        }
        // the first key with (.*\.)?(k) = path
        let (rank_key, alpha_key) = (first(&self.ranks, path)?, first(&self.alphas, path)?);
        let whole = self.config;
        let config = LoraConfig {
            rank: rank_key.map_or(whole.rank, |at| whole.rank_pattern[at].1),
            alpha: alpha_key.map_or(whole.alpha, |at| whole.alpha_pattern[at].1),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            targets: Targets::default(),
            ..whole.clone()
        };
        Ok(Some(Found {
            config,
            rank_key,
            alpha_key,
        }))
    }
}

/// The first key that matches the path.
fn first(keys: &[Expression], path: &str) -> Result<Option<usize>> {
    for (at, key) in keys.iter().enumerate() {
        if key.is_match(path)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// How the scale s of the update follows from α and the rank r.
#[doc(alias = "rsLoRA")]
#[doc(alias = "rank-stabilized LoRA")]
#[doc(alias = "use_rslora")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// s = α/r: the paper's (§4.1).
    #[default]
    Rank,
    /// s = α/√r: rank-stabilized LoRA (rsLoRA), with which neither outputs nor gradients vanish as r grows
    /// (Kalajdzievski 2023, arXiv:2312.03732v1).
    RankSqrt,
}

/// How the factor that does not start at zero is drawn.
#[doc(alias = "init_lora_weights")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// Linear layer: A ~ U(−1/√in, 1/√in), which is kaiming-uniform with a = √5, as in PEFT and the
    /// authors' code. Embedding: B ~ N(0, 1), as in both.
    #[default]
    KaimingUniform,
    /// Linear layer: A ~ N(0, (1/r)²). The paper says "random Gaussian" without a width; this width
    /// is PEFT's. Embedding: B ~ N(0, 1), as above.
    Gaussian,
}

/// What is trained beside A and B.
#[doc(alias = "lora_bias")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// Nothing: PEFT's `bias="none"`.
    #[default]
    Frozen,
    /// A copy of the base layer's bias, used instead of it: PEFT's `bias="lora_only"`. The base
    /// layer keeps its own bias, so disabling still restores the base model; in PEFT it does not.
    Base,
    /// A bias on B that starts at 0 and is scaled with B: s·(B A x + b_B). PEFT's `lora_bias=True`.
    Update,
}
