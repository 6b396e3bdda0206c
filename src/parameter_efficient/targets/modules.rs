//! A choice of modules by names or by an expression, and its form in JSON.

use crate::error::Result;
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

pub(super) const ALL_LINEAR: &str = "all-linear";

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
