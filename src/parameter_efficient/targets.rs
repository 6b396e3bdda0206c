//! Which modules of a model get an adapter, by their paths (PEFT's rules; beside the survey's §3.3).
//!
//! In one sentence: a list of final names, or one regular expression for the whole path, minus the
//! excluded layers and modules.
//!
//! | `adapter_config.json` | here | meaning |
//! |---|---|---|
//! | `target_modules` | [`Targets::target_modules`] | final names, or an expression for the whole path, or `"all-linear"` |
//! | `exclude_modules` | [`Targets::exclude_modules`] | in the same form; it takes precedence over everything else |
//! | `modules_to_save` | [`Targets::modules_to_save`] | modules trained as a whole: no adapter on or below them |
//! | `layers_to_transform`, `layers_pattern` | [`Targets::layers_to_transform`], [`Targets::layers_pattern`] | only these layers among those that a final name found |
//! | `rank_pattern`, `alpha_pattern` | [`LoraConfig::rank_pattern`], [`LoraConfig::alpha_pattern`] | other ranks and α for some modules |
//!
//! Read next: [`lora`](crate::parameter_efficient::lora).
//!
//! [`LoraConfig::rank_pattern`]: crate::LoraConfig::rank_pattern
//! [`LoraConfig::alpha_pattern`]: crate::LoraConfig::alpha_pattern

use crate::error::{Error, Result, require, shown};
use crate::parameter_efficient::expressions::{Expression, Expressions};
use serde::de::{Deserializer, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// A choice of modules. In JSON a list or a string; the string is `"all-linear"` in any case, or an expression.
#[doc(alias = "all-linear")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModules {
    /// A module whose path is one of these names, or ends in a dot and one of them: `q_proj` chooses
    /// `layers.0.q_proj` and not `layers.0.xq_proj`.
    Names(Vec<String>),
    /// A module whose whole path matches this regular expression.
    Pattern(String),
    /// Every module that is asked about. Ask only about the linear layers, without the output layer.
    AllLinear,
}

impl Default for TargetModules {
    /// No names: no module.
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Serialize for TargetModules {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Names(names) => names.serialize(serializer),
            Self::Pattern(pattern) => pattern.serialize(serializer),
            Self::AllLinear => ALL_LINEAR.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TargetModules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Choosing)
    }
}

struct Choosing;

impl<'de> Visitor<'de> for Choosing {
    type Value = TargetModules;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names, an expression as a string, or \"all-linear\"")
    }

    fn visit_str<E>(self, word: &str) -> Result<TargetModules, E> {
        Ok(match word.eq_ignore_ascii_case(ALL_LINEAR) {
            true => TargetModules::AllLinear,
            false => TargetModules::Pattern(word.to_string()),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<TargetModules, A::Error> {
        let names = Vec::deserialize(SeqAccessDeserializer::new(names))?;
        Ok(TargetModules::Names(names))
    }
}

const ALL_LINEAR: &str = "all-linear";

/// Which modules of a model get an adapter.
///
/// # Equation
/// ```text
/// chosen(path) = found(path) ∧ ¬ excluded(path) ∧ (path is itself a name ∨ layer(path) ∈ layers)
/// ```
/// The last term applies only with [`Targets::layers_to_transform`]. The layer of a path is its first
/// segment of digits that has two segments before it and one after it: 1 in `model.layers.1.q` and
/// in `model.layers.1.experts.0.up`, none in `layers.1.q`. With [`Targets::layers_pattern`] it is the
/// digits after `.layers.`, or after whichever pattern is found first, at the root too.
/// # Shapes
/// Paths are segments between dots, as in `model.layers.0.self_attn.q_proj`.
/// # Errors
/// [`Error::Argument`] for an expression that is invalid or costs too much (below);
/// [`Error::Parameter`] for layers beside anything but a list of names, for a layer pattern without
/// layers, and for "all-linear" where modules are excluded. [`Targets::choose`] also requires that at
/// least one module is chosen.
/// # Properties
/// * A name chooses a module by its whole final segments, never by a part of one.
/// * A path that is itself among the names is chosen whatever its layer.
/// * An excluded module is not chosen, however it was named.
/// # Departures
/// The rules are those of PEFT 0.21.2. "all-linear" takes every module that is asked about, since
/// there is no model here that tells a linear layer from another, or the output layer from the rest.
/// A null `target_modules`, which PEFT fills from a table of known models, has no counterpart.
///
/// Expressions mean what they mean in Python's `re`, including look-around, backreferences, atomic groups
/// and possessive quantifiers: `(?!.*vision).*q_proj`, `(?P<name>…)`, `\Z`. The engine is the
/// `fancy-regex` crate, which differs in these points:
///
/// | written | Python | here |
/// |---|---|---|
/// | `[`, `&&`, `--` or `~~` in brackets; octal escapes; `\2` beside a named group | as written | an error |
/// | `\h`, `\K`, `\G`, `\<`, `\p` and other escapes of that engine | an error, or the character itself | an error |
/// | `$` and `\Z` | `$` also before a final line break, `\Z` only at the end | `\Z` also before line breaks, `$` only at the end; no path has any |
/// | `\w`, `\d`, `\s`, `(?i)` beyond ASCII | its own tables | those of Unicode, which count marks among the letters and do not count U+001C to U+001F among the spaces |
/// | look-behind of variable length | an error | every length is tried |
///
/// A configuration may come from anywhere, so its expressions have a budget. Together they weigh at most
/// 131 072, where a character weighs 1, a dot 10, `\d` 150, `\w` 600, each times the counts `{n}` of its
/// expression; an expression weighs 100 more, or 1100 if it may backtrack. The counts of one expression
/// multiply to at most 1000, it compiles to at most 4 MiB, and a match backtracks at most 20 000 steps.
/// Exceeding a limit is an [`Error::Argument`] that names the field and the expression; no module is
/// silently left out. Names weigh nothing: an expression of only characters and dots is compared
/// directly.
/// # Examples
/// ```
/// use candle_align::Targets;
///
/// let targets: Targets = serde_json::from_str(
///     r#"{"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1, 2]}"#,
/// ).unwrap();
/// assert!(targets.matches("model.layers.1.self_attn.q_proj")?);
/// assert!(!targets.matches("model.layers.3.self_attn.q_proj")?);
/// assert!(!targets.matches("model.layers.1.self_attn.o_proj")?);
///
/// let targets: Targets = serde_json::from_str(
///     r#"{"target_modules": ".*\\.(up|down)_proj", "exclude_modules": ["layers.0.mlp.up_proj"]}"#,
/// ).unwrap();
/// assert!(targets.matches("layers.1.mlp.up_proj")?);
/// assert!(!targets.matches("layers.0.mlp.up_proj")?);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// PEFT 0.21.2, `tuners/tuners_utils.py`, `check_target_module_exists`; no paper describes it.
#[doc(alias = "target_modules")]
#[doc(alias = "exclude_modules")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Targets {
    /// The modules to find. Default none.
    pub target_modules: TargetModules,
    /// Modules to leave out, however they were chosen. Default none.
    pub exclude_modules: TargetModules,
    /// Modules that are trained as a whole, each an expression for one or more segments of a path. They
    /// and the modules below them get no adapter. Default none.
    pub modules_to_save: Vec<String>,
    /// The layers to keep among those that a list of names found. Default empty: all.
    pub layers_to_transform: Vec<usize>,
    /// The names before the layer numbers, as expressions (`layers`, `h`). Default empty: the first number
    /// in the path.
    pub layers_pattern: Vec<String>,
}

impl Targets {
    /// Whether the module at `path` is chosen.
    ///
    /// # Errors
    /// [`Error::Argument`] for an expression that is invalid or costs too much; [`Error::Parameter`] for
    /// settings that exclude each other.
    pub fn matches(&self, path: &str) -> Result<bool> {
        Matcher::new(&mut Expressions::new("Targets::matches"), self)?.matches(path)
    }

    /// The chosen modules among the `paths` of a model's modules, in their order.
    ///
    /// # Errors
    /// As [`Targets::matches`]; and [`Error::Argument`] if no module is chosen, or if a name chooses none.
    pub fn choose(&self, paths: &[impl AsRef<str>]) -> Result<Vec<String>> {
        let function = "Targets::choose";
        let matcher = Matcher::new(&mut Expressions::new(function), self)?;
        let mut chosen = Vec::new();
        for path in paths {
            if matcher.matches(path.as_ref())? {
                chosen.push(path.as_ref().to_string());
            }
        }
        self.not_idle(function, &chosen)?;
        Ok(chosen)
    }

    /// An error if nothing is chosen, or if a name chooses nothing.
    pub(crate) fn not_idle(&self, function: &'static str, chosen: &[String]) -> Result<()> {
        let problem = |text: String| Err(Error::argument(function, "target_modules", text));
        if let TargetModules::Names(names) = &self.target_modules {
            let idle = |name: &&String| !chosen.iter().any(|path| ends_in(path, name));
            if let Some(name) = names.iter().find(idle) {
                let name = shown(name);
                return problem(format!("names `{name}`, which chooses no module"));
            }
        }
        match chosen.is_empty() {
            true => problem("chooses no module".to_string()),
            false => Ok(()),
        }
    }
}

/// [`Targets`] with its expressions compiled.
pub(crate) struct Matcher<'a> {
    targets: &'a Targets,
    found: Choice<'a>,
    excluded: Choice<'a>,
    saved: Vec<Expression>,
    layers: Vec<Expression>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(expressions: &mut Expressions, targets: &'a Targets) -> Result<Self> {
        let function = expressions.function();
        require(
            targets.exclude_modules != TargetModules::AllLinear,
            function,
            "exclude_modules",
            "a list of names or an expression",
            ALL_LINEAR,
        )?;
        require(
            targets.layers_to_transform.is_empty()
                || matches!(targets.target_modules, TargetModules::Names(_)),
            function,
            "layers_to_transform",
            "empty unless `target_modules` is a list of names",
            format!("{:?}", targets.layers_to_transform),
        )?;
        require(
            targets.layers_pattern.is_empty() || !targets.layers_to_transform.is_empty(),
            function,
            "layers_pattern",
            "empty without `layers_to_transform`",
            format!("{:?}", targets.layers_pattern),
        )?;
        Ok(Self {
            targets,
            found: Choice::new(expressions, "target_modules", &targets.target_modules)?,
            excluded: Choice::new(expressions, "exclude_modules", &targets.exclude_modules)?,
            saved: (targets.modules_to_save.iter())
                .map(|pattern| expressions.segments("modules_to_save", pattern))
                .collect::<Result<_>>()?,
            layers: (targets.layers_pattern.iter())
                .map(|pattern| expressions.layers("layers_pattern", pattern))
                .collect::<Result<_>>()?,
        })
    }

    pub(crate) fn matches(&self, path: &str) -> Result<bool> {
        if self.excluded.takes(path)? {
            return Ok(false);
        }
        for saved in &self.saved {
            if saved.is_match(path)? {
                return Ok(false);
            }
        }
        if let TargetModules::Names(names) = &self.targets.target_modules
            && names.iter().any(|name| name == path)
        {
            return Ok(true);
        }
        let layers = &self.targets.layers_to_transform;
        let kept = |layer: Option<usize>| layer.is_some_and(|layer| layers.contains(&layer));
        Ok(self.found.takes(path)? && (layers.is_empty() || kept(self.layer(path)?)))
    }

    fn layer(&self, path: &str) -> Result<Option<usize>> {
        if self.layers.is_empty() {
            let segments: Vec<&str> = path.split('.').collect();
            let inner = segments.get(2..segments.len() - 1).unwrap_or_default();
            let digits = |s: &&&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            let number = inner.iter().find(digits);
            return Ok(number.and_then(|number| number.parse().ok()));
        }
        // The first pattern that is found decides, even if its layer is not wanted.
        for pattern in &self.layers {
            if let Some(layer) = pattern.layer(path)? {
                return Ok(layer);
            }
        }
        Ok(None)
    }
}

/// [`TargetModules`] with its expression compiled.
pub(crate) enum Choice<'a> {
    Names(&'a [String]),
    Pattern(Expression),
    All,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(
        expressions: &mut Expressions,
        field: &'static str,
        modules: &'a TargetModules,
    ) -> Result<Self> {
        Ok(match modules {
            TargetModules::Names(names) => Self::Names(names),
            TargetModules::AllLinear => Self::All,
            TargetModules::Pattern(pattern) => Self::Pattern(expressions.whole(field, pattern)?),
        })
    }

    pub(crate) fn takes(&self, path: &str) -> Result<bool> {
        match self {
            Self::Names(names) => Ok(names.iter().any(|name| ends_in(path, name))),
            Self::Pattern(pattern) => pattern.is_match(path),
            Self::All => Ok(true),
        }
    }
}

/// Whether the path is the name, or ends in a dot and the name.
pub(crate) fn ends_in(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
