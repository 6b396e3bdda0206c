//! The settings of a layer for the chosen modules of a model.

use super::Targets;
use super::matcher::Matcher;
use crate::error::Result;
use crate::parameter_efficient::expressions::Expressions;
use serde::{Deserialize, Serialize};

/// The settings of a layer, and the modules of a model that get one.
///
/// For methods whose layers all have the same settings: `ForModel<AdaLoraConfig>`,
/// `ForModel<VeraConfig>`, or the settings of your own layer.
/// [`LoraForModel`](crate::parameter_efficient::LoraForModel) and [`Ia3ForModel`](crate::parameter_efficient::Ia3ForModel) have the same methods, and
/// settings that differ between modules.
///
/// In JSON `targets` stands beside the keys of the layer's settings, as in the example.
///
/// # Examples
/// ```
/// use candle_align::parameter_efficient::{ForModel, VeraConfig};
///
/// let config: ForModel<VeraConfig> = serde_json::from_str(
///     r#"{"rank": 4, "targets": {"target_modules": ["q_proj", "v_proj"]}}"#,
/// ).unwrap();
///
/// let layers = config.for_modules(&["layers.0.q_proj", "layers.0.o_proj", "layers.0.v_proj"])?;
/// let paths: Vec<&str> = layers.iter().map(|(path, _)| path.as_str()).collect();
/// assert_eq!(paths, ["layers.0.q_proj", "layers.0.v_proj"]);
/// assert_eq!(layers[0].1, VeraConfig { rank: 4, ..Default::default() });
/// # Ok::<(), candle_align::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForModel<C> {
    /// The settings of every chosen module.
    #[serde(flatten)]
    pub config: C,
    /// Which modules get a layer. Default none.
    pub targets: Targets,
}

impl<C: Clone> ForModel<C> {
    /// The settings of the module at `path`; `None` if it gets no layer. A name that chooses no module at
    /// all is not an error here.
    ///
    /// # Errors
    /// As for [`Targets`].
    pub fn for_module(&self, path: &str) -> Result<Option<C>> {
        let targets = Matcher::new(&mut Expressions::new("ForModel::for_module"), &self.targets)?;
        let chosen = targets.matches(path)?;
        Ok(chosen.then(|| self.config.clone()))
    }

    /// The settings of every module that gets a layer, among the `paths` of a model's modules and in their
    /// order.
    ///
    /// # Errors
    /// As [`ForModel::for_module`]; and [`Error::Argument`](crate::Error::Argument) if no module is chosen,
    /// or if a name chooses none.
    pub fn for_modules(&self, paths: &[impl AsRef<str>]) -> Result<Vec<(String, C)>> {
        let function = "ForModel::for_modules";
        let targets = Matcher::new(&mut Expressions::new(function), &self.targets)?;
        targets.chosen(function, paths, |_| Ok(self.config.clone()))
    }
}
