//! The settings of one module, derived from those of a model.

use super::config::{AdaLoraFile, AdapterMethod, LoraFile};
use crate::error::Result;
use crate::parameter_efficient::expressions::Expressions;
use crate::parameter_efficient::ia3::Ia3Rules;
use crate::parameter_efficient::lora::config::{LoraConfig, WholeModel};
use crate::parameter_efficient::targets::Matcher;
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
    Lora(Box<WholeModel<'a>>, bool),
    AdaLora(Matcher<'a>, &'a AdaLoraFile),
    Ia3(Ia3Rules<'a>),
    Vera(Matcher<'a>, &'a VeraConfig),
    None,
}

impl<'a> Rules<'a> {
    pub(super) fn new(function: &'static str, method: &'a AdapterMethod) -> Result<Self> {
        let mut expressions = Expressions::new(function);
        Ok(match method {
            AdapterMethod::Lora(LoraFile { config, dora, .. }) => {
                Self::Lora(Box::new(WholeModel::new(function, config)?), *dora)
            }
            AdapterMethod::AdaLora(file) => {
                Self::AdaLora(Matcher::new(&mut expressions, &file.targets)?, file)
            }
            AdapterMethod::Ia3(file) => Self::Ia3(Ia3Rules::new(function, &file.config)?),
            AdapterMethod::Vera(file) => {
                Self::Vera(Matcher::new(&mut expressions, &file.targets)?, &file.config)
            }
            AdapterMethod::Prompt(_) | AdapterMethod::Prefix(_) => Self::None,
        })
    }

    /// The settings of the module at `path`, if it gets an adapter.
    pub(super) fn of(&self, path: &str) -> Result<Option<Settings<'a>>> {
        Ok(match self {
            Self::Lora(whole, dora) => {
                let found = whole.for_module(path)?;
                found.map(|found| Settings::Lora(Box::new(found.config), *dora))
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
