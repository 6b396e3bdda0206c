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
//! | `rank_pattern`, `alpha_pattern` | [`LoraForModel::rank_pattern`], [`LoraForModel::alpha_pattern`] | other ranks and α for some modules |
//! | `feedforward_modules` | [`Ia3ForModel::feedforward_modules`] | (IA)³ on the input of these modules |
//!
//! The settings of a layer ([`LoraConfig`](crate::parameter_efficient::LoraConfig), [`VeraConfig`](crate::parameter_efficient::VeraConfig), …) say
//! nothing about the model. These types hold the settings of a whole model, and derive from them those of
//! each chosen module:
//!
//! | methods | type | what a module gets |
//! |---|---|---|
//! | LoRA, QLoRA, DoRA | [`LoraForModel`] | a [`LoraConfig`](crate::parameter_efficient::LoraConfig), with the module's rank and α |
//! | (IA)³ | [`Ia3ForModel`] | an [`Ia3Place`](crate::parameter_efficient::Ia3Place) |
//! | AdaLoRA, VeRA, any other | [`ForModel`] | the same settings as every other module |
//!
//! All have a field `targets` and the methods `for_module` and `for_modules`, which mean the same.
//!
//! Read next: [`lora`](crate::parameter_efficient::lora).
//!
//! [`LoraForModel`]: crate::parameter_efficient::LoraForModel
//! [`LoraForModel::rank_pattern`]: crate::parameter_efficient::LoraForModel::rank_pattern
//! [`LoraForModel::alpha_pattern`]: crate::parameter_efficient::LoraForModel::alpha_pattern
//! [`Ia3ForModel`]: crate::parameter_efficient::Ia3ForModel
//! [`Ia3ForModel::feedforward_modules`]: crate::parameter_efficient::Ia3ForModel::feedforward_modules

mod for_model;
pub(crate) mod matcher;
pub(crate) mod modules;

pub use for_model::ForModel;
pub use modules::TargetModules;

use crate::error::Result;
use crate::parameter_efficient::expressions::Expressions;
use matcher::Matcher;
use serde::{Deserialize, Serialize};

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
/// [`Error::Argument`](crate::Error::Argument) for an expression that is invalid or costs too much (below);
/// [`Error::Parameter`](crate::Error::Parameter) for layers beside anything but a list of names, for a layer pattern without
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
/// Exceeding a limit is an [`Error::Argument`](crate::Error::Argument) that names the field and the expression; no module is
/// silently left out. Names weigh nothing: an expression of only characters and dots is compared
/// directly.
/// # Examples
/// ```
/// use candle_align::parameter_efficient::Targets;
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
    /// [`Error::Argument`](crate::Error::Argument) for an expression that is invalid or costs too much;
    /// [`Error::Parameter`](crate::Error::Parameter) for settings that exclude each other.
    pub fn matches(&self, path: &str) -> Result<bool> {
        Matcher::new(&mut Expressions::new("Targets::matches"), self)?.matches(path)
    }

    /// The chosen modules among the `paths` of a model's modules, in their order.
    ///
    /// # Errors
    /// As [`Targets::matches`]; and [`Error::Argument`](crate::Error::Argument) if no module is chosen,
    /// or if a name chooses none.
    pub fn choose(&self, paths: &[impl AsRef<str>]) -> Result<Vec<String>> {
        let function = "Targets::choose";
        let matcher = Matcher::new(&mut Expressions::new(function), self)?;
        let chosen = matcher.chosen(function, paths, |_| Ok(()))?;
        Ok(chosen.into_iter().map(|(path, ())| path).collect())
    }
}
