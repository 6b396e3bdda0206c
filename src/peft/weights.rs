//! Weights of the file that replace the base's, and tensors without a place.

use super::PREFIX;
use super::load::{Loader, adapted};
use super::saved::{Saved, base_parameter};
use crate::error::Result;

impl Loader<'_> {
    /// A weight of the base, taken from the file.
    fn weight(&mut self, name: &str) -> Result<()> {
        let base = self.base[name].clone();
        let file = format!("{PREFIX}{name}");
        if let Some(found) = self.take(&file, base.dims())?
            && let Some(found) = self.cast(&file, &found, &base)?
        {
            self.found.weights.insert(name.to_string(), found);
        }
        Ok(())
    }

    /// All parameters of the modules that were trained as a whole.
    pub(super) fn saved(&mut self, saved: &Saved) -> Result<()> {
        for name in saved.missing(self.base.keys()) {
            self.problem(format!(
                "was made with `modules_to_save` = `{name}`, which is not in `base`{}",
                self.advice(name)
            ))?;
        }
        for parameter in self.parameters(|name| saved.holds(name)) {
            if !self.found.weights.contains_key(&parameter) {
                self.weight(&parameter)?;
            }
        }
        Ok(())
    }

    /// The biases of the modules without an adapter; those of the others are in the layers.
    pub(super) fn biases(&mut self) -> Result<()> {
        for name in self.parameters(|name| name.ends_with(".bias")) {
            let path = name.trim_end_matches(".bias");
            let adapted = self.found.layers.contains_key(path);
            if !adapted && !self.found.weights.contains_key(&name) {
                self.weight(&name)?;
            }
        }
        // PEFT writes the biases of modules trained as a whole three times, and reads them under their own name
        let found = &self.found.weights;
        self.left
            .retain(|name, _| base_parameter(name).is_none_or(|name| !found.contains_key(&name)));
        Ok(())
    }

    /// What remains: parameters of the base, which PEFT loads whatever the settings say, and tensors
    /// without a place.
    pub(super) fn rest(&mut self) -> Result<()> {
        let left: Vec<String> = self.left.keys().cloned().collect();
        for name in left {
            // a layer has its own names, and a parameter that is already set has no second source
            let taken = |parameter: &str| {
                let path = parameter.rsplit_once('.').map_or("", |(path, _)| path);
                self.found.layers.contains_key(path) || self.found.weights.contains_key(parameter)
            };
            match name.strip_prefix(PREFIX) {
                Some(parameter) if self.base.contains_key(parameter) && !taken(parameter) => {
                    self.weight(parameter)?
                }
                Some(parameter) => match adapted(parameter) {
                    Some(path) if !self.base.contains_key(&format!("{path}.weight")) => {
                        let advice = self.advice(path);
                        self.problem(format!(
                            "holds `{name}`, and `base` holds no `{path}.weight`{advice}"
                        ))?
                    }
                    _ => self.nowhere(&name)?,
                },
                None => self.nowhere(&name)?,
            }
        }
        Ok(())
    }

    fn nowhere(&mut self, name: &str) -> Result<()> {
        self.problem(format!("holds `{name}`, which the settings give no place"))
    }
}
