//! The settings of one module, out of those of a model.

use super::config::{AdaLoraFile, AdapterMethod, LoraFile};
use crate::{LoraConfig, Result};

/// The settings of one module.
pub(super) enum Settings<'a> {
    /// And whether it is DoRA.
    Lora(Box<LoraConfig>, bool),
    AdaLora(&'a AdaLoraFile),
    Ia3(crate::Ia3Place),
    Vera(&'a crate::VeraConfig),
}

impl<'a> Settings<'a> {
    /// Of the module at `path`, if it gets an adapter.
    pub(super) fn of(method: &'a AdapterMethod, path: &str) -> Result<Option<Self>> {
        Ok(match method {
            AdapterMethod::Lora(LoraFile { config, dora, .. }) => config
                .for_module(path)?
                .map(|config| Self::Lora(Box::new(config), *dora)),
            AdapterMethod::AdaLora(file) => {
                file.targets.matches(path)?.then_some(Self::AdaLora(file))
            }
            AdapterMethod::Ia3(file) => file.config.for_module(path)?.map(Self::Ia3),
            AdapterMethod::Vera(file) => {
                let found = file.targets.matches(path)?;
                found.then_some(Self::Vera(&file.config))
            }
            AdapterMethod::Prompt(_) | AdapterMethod::Prefix(_) => None,
        })
    }
}
