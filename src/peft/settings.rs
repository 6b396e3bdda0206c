//! The settings of one module, derived from those of a model.

use super::config::{AdaLoraFile, AdapterMethod, LoraFile};
use crate::error::Result;
use crate::parameter_efficient::expressions::Expressions;
use crate::parameter_efficient::ia3::Ia3Rules;
use crate::parameter_efficient::lora::config::LoraConfig;
use crate::parameter_efficient::lora::for_model::LoraRules;
use crate::parameter_efficient::targets::matcher::Matcher;
use crate::parameter_efficient::vera::VeraConfig;

/// The settings of one module.
pub(super) enum Settings<'a> {
    /// And whether it is DoRA.
    Lora(Box<LoraConfig>, bool),
    AdaLora(&'a AdaLoraFile),
    Ia3(crate::parameter_efficient::ia3::Ia3Place),
    Vera(&'a VeraConfig),
}

/// The settings of a model, with their expressions compiled.
pub(super) enum Rules<'a> {
    Lora(Box<LoraRules<'a>>, bool),
    AdaLora(Matcher<'a>, &'a AdaLoraFile),
    Ia3(Ia3Rules<'a>),
    Vera(Matcher<'a>, &'a VeraConfig),
    None,
}

impl<'a> Rules<'a> {
    pub(super) fn new(function: &'static str, method: &'a AdapterMethod) -> Result<Self> {
        let mut expressions = Expressions::new(function);
        Ok(match method {
            AdapterMethod::Lora(LoraFile { model, dora, .. }) => {
                Self::Lora(Box::new(LoraRules::new(function, model)?), *dora)
            }
            AdapterMethod::AdaLora(file) => {
                Self::AdaLora(Matcher::new(&mut expressions, &file.model.targets)?, file)
            }
            AdapterMethod::Ia3(file) => Self::Ia3(Ia3Rules::new(function, &file.model)?),
            AdapterMethod::Vera(file) => {
                let targets = Matcher::new(&mut expressions, &file.model.targets)?;
                Self::Vera(targets, &file.model.config)
            }
            AdapterMethod::Prompt(_) | AdapterMethod::Prefix(_) => Self::None,
        })
    }

    /// The settings of the module at `path`, if it gets an adapter.
    pub(super) fn of(&self, path: &str) -> Result<Option<Settings<'a>>> {
        Ok(match self {
            Self::Lora(rules, dora) => {
                let config = rules.of(path)?;
                config.map(|config| Settings::Lora(Box::new(config), *dora))
            }
            Self::AdaLora(targets, file) => {
                targets.matches(path)?.then_some(Settings::AdaLora(file))
            }
            Self::Ia3(rules) => rules.of(path)?.map(Settings::Ia3),
            Self::Vera(targets, config) => targets.matches(path)?.then_some(Settings::Vera(config)),
            Self::None => None,
        })
    }
}
