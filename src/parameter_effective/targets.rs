//! Which modules of a model get an adapter, by their paths (PEFT's rules; beside the survey's §3.3).
//!
//! In one sentence: a list of last names, or one regular expression over whole paths, with layers
//! and modules left out.
//!
//! | `adapter_config.json` | here | meaning |
//! |---|---|---|
//! | `target_modules` | [`Targets::target_modules`] | last names, or an expression for the whole path, or `"all-linear"` |
//! | `exclude_modules` | [`Targets::exclude_modules`] | as above; it goes before everything else |
//! | `modules_to_save` | [`Targets::modules_to_save`] | modules trained whole: no adapter on or below them |
//! | `layers_to_transform`, `layers_pattern` | [`Targets::layers_to_transform`], [`Targets::layers_pattern`] | only these layers of those that a last name found |
//! | `rank_pattern`, `alpha_pattern` | [`LoraConfig::rank_pattern`], [`LoraConfig::alpha_pattern`] | numbers of their own for some modules |
//!
//! Read next: [`lora`](super::lora).
//!
//! [`LoraConfig::rank_pattern`]: crate::LoraConfig::rank_pattern
//! [`LoraConfig::alpha_pattern`]: crate::LoraConfig::alpha_pattern

use crate::error::require;
use crate::{Error, Result};
use regex::Regex;
use serde::de::{Deserializer, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// A choice of modules. In JSON a list, or a string: `"all-linear"` in any case, else an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModules {
    /// A module whose path is one of these, or ends in a dot and one of these: `q_proj` chooses
    /// `layers.0.q_proj` and not `layers.0.xq_proj`.
    Names(Vec<String>),
    /// A module whose whole path is matched by this regular expression.
    Pattern(String),
    /// Every module that is asked about. Ask about the linear layers, without the output layer.
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
/// The last term stands only with [`Targets::layers_to_transform`]. The layer of a path is its first
/// segment of digits that has two segments before it and one after it: 1 in `model.layers.1.q` and
/// in `model.layers.1.experts.0.up`, none in `layers.1.q`. With [`Targets::layers_pattern`] it is
/// the digits after `.layers.`, or whatever the first pattern is that is found, at the root too.
/// # Shapes
/// Paths are segments between dots, as in `model.layers.0.self_attn.q_proj`.
/// # Errors
/// [`Error::Argument`] for an expression that cannot be compiled; [`Error::Parameter`] for layers
/// beside anything but a list of names, for a pattern of layers without layers, and for "all-linear"
/// where modules are excluded. [`Targets::choose`] adds that a choice chooses something.
/// # Properties
/// * A name chooses a module by its whole last segments, never by a part of one.
/// * A path that is itself among the names is chosen whatever its layer.
/// * An excluded module is not chosen, however it was named.
/// # Departures
/// The rules are those of PEFT 0.21.2. "all-linear" takes every module that is asked about, since
/// there is no model here to tell a linear layer from another, and the output layer from the rest;
/// a null `target_modules`, which PEFT fills from a table of known models, has no counterpart.
///
/// Expressions are those of the `regex` crate. Look-around, back-references, atomic groups and `\Z`
/// are refused with an error. Three things that Python's `re` reads otherwise are not: inside
/// brackets `[`, `&&`, `--` and `~~` are operations on sets; `a*+` is `(a*)+` and not possessive;
/// `$` does not match before a last line break, which no path has.
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Targets {
    /// The modules to find. Default none.
    pub target_modules: TargetModules,
    /// Modules to leave out, however they were found. Default none.
    pub exclude_modules: TargetModules,
    /// Modules that are trained whole, each an expression for one or more segments of a path: they
    /// and what is below them get no adapter. Default none.
    pub modules_to_save: Vec<String>,
    /// The layers to keep of those that a list of names found. Default empty: all.
    pub layers_to_transform: Vec<usize>,
    /// Names, as expressions, of what the layers are numbered under (`layers`, `h`). Default empty:
    /// the first number in the path.
    pub layers_pattern: Vec<String>,
}

impl Targets {
    /// Whether the module at `path` is chosen.
    ///
    /// # Errors
    /// As the type's page says.
    pub fn matches(&self, path: &str) -> Result<bool> {
        Ok(Matcher::new("Targets::matches", self)?.matches(path))
    }

    /// Those that are chosen among the `paths` of a model's modules, in their order.
    ///
    /// # Errors
    /// As the type's page says; and [`Error::Argument`] if no module is chosen, or if a name chooses
    /// none.
    pub fn choose(&self, paths: &[impl AsRef<str>]) -> Result<Vec<String>> {
        let function = "Targets::choose";
        let matcher = Matcher::new(function, self)?;
        let paths = paths.iter().map(|path| path.as_ref().to_string());
        let chosen: Vec<String> = paths.filter(|path| matcher.matches(path)).collect();
        self.not_idle(function, &chosen)?;
        Ok(chosen)
    }

    /// An error if nothing is chosen, or if a name chooses nothing.
    pub(crate) fn not_idle(&self, function: &'static str, chosen: &[String]) -> Result<()> {
        let problem = |text: String| Err(Error::argument(function, "target_modules", text));
        if let TargetModules::Names(names) = &self.target_modules {
            let idle = |name: &&String| !chosen.iter().any(|path| ends_in(path, name));
            if let Some(name) = names.iter().find(idle) {
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
    saved: Vec<Regex>,
    layers: Vec<Regex>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(function: &'static str, targets: &'a Targets) -> Result<Self> {
        let all = |patterns: &[String], field, wrap: fn(&str) -> String| -> Result<Vec<Regex>> {
            let each = patterns.iter();
            each.map(|pattern| compile(function, field, pattern, &wrap(pattern)))
                .collect()
        };
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
            found: Choice::new(function, "target_modules", &targets.target_modules)?,
            excluded: Choice::new(function, "exclude_modules", &targets.exclude_modules)?,
            // Put together as in PEFT, without brackets around what the user wrote.
            saved: all(&targets.modules_to_save, "modules_to_save", |pattern| {
                format!(r"\A(?:(^|.*\.){pattern}($|\..*))")
            })?,
            layers: all(&targets.layers_pattern, "layers_pattern", |pattern| {
                format!(r"\A(?:(?:^|.*?\.){pattern}\.(?P<layer>\d+)\.)")
            })?,
        })
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        if self.excluded.takes(path) || self.saved.iter().any(|saved| saved.is_match(path)) {
            return false;
        }
        let layers = &self.targets.layers_to_transform;
        match &self.targets.target_modules {
            TargetModules::Names(names) if names.iter().any(|name| name == path) => true,
            _ => {
                self.found.takes(path)
                    && (layers.is_empty()
                        || self
                            .layer(path)
                            .is_some_and(|layer| layers.contains(&layer)))
            }
        }
    }

    fn layer(&self, path: &str) -> Option<usize> {
        if self.layers.is_empty() {
            let segments: Vec<&str> = path.split('.').collect();
            let inner = segments.get(2..segments.len() - 1)?;
            let digits = |s: &&&str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
            return inner.iter().find(digits)?.parse().ok();
        }
        // The first pattern that is found decides, even if its layer is not wanted.
        let found = self.layers.iter().find_map(|layer| layer.captures(path))?;
        found.name("layer")?.as_str().parse().ok()
    }
}

/// [`TargetModules`] with its expression compiled.
pub(crate) enum Choice<'a> {
    Names(&'a [String]),
    Pattern(Regex),
    All,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(
        function: &'static str,
        field: &'static str,
        modules: &'a TargetModules,
    ) -> Result<Self> {
        Ok(match modules {
            TargetModules::Names(names) => Self::Names(names),
            TargetModules::AllLinear => Self::All,
            TargetModules::Pattern(pattern) => {
                // On its own first: `a)(b` is none, though it is one between brackets.
                compile(function, field, pattern, pattern)?;
                let whole = format!(r"\A(?:{pattern})\z");
                Self::Pattern(compile(function, field, pattern, &whole)?)
            }
        })
    }

    pub(crate) fn takes(&self, path: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| ends_in(path, name)),
            Self::Pattern(pattern) => pattern.is_match(path),
            Self::All => true,
        }
    }
}

/// Whether the path is the name, or ends in a dot and the name.
pub(crate) fn ends_in(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The keys of a `rank_pattern` or an `alpha_pattern`, compiled: each is an expression for the last
/// segments of a path.
pub(crate) fn compile_keys<T>(
    function: &'static str,
    field: &'static str,
    patterns: &[(String, T)],
) -> Result<Vec<Regex>> {
    let keys = patterns.iter().map(|(key, _)| key);
    keys.map(|key| compile(function, field, key, &format!(r"\A(?:(.*\.)?({key})$)")))
        .collect()
}

fn compile(
    function: &'static str,
    field: &'static str,
    written: &str,
    expression: &str,
) -> Result<Regex> {
    Regex::new(expression).map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default();
        let reason = reason.trim_start_matches("error: ");
        Error::argument(
            function,
            field,
            format!("holds `{written}`, which is not an expression here: {reason}"),
        )
    })
}

/// A JSON object as pairs in the order in which they were written; a key twice is an error.
pub(crate) mod in_order {
    use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
    use serde::ser::{Serialize, Serializer};
    use std::collections::HashSet;
    use std::fmt;
    use std::marker::PhantomData;

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        pairs: &[(String, T)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, T)>, D::Error> {
        deserializer.deserialize_map(Pairs(PhantomData))
    }

    struct Pairs<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
        type Value = Vec<(String, T)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of expressions and numbers")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs: Self::Value = Vec::new();
            let mut seen = HashSet::new();
            while let Some((key, value)) = map.next_entry::<String, T>()? {
                if !seen.insert(key.clone()) {
                    return Err(A::Error::custom(format!("the key `{key}` stands twice")));
                }
                pairs.push((key, value));
            }
            Ok(pairs)
        }
    }
}
