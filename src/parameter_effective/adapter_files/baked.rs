//! The export for readers that know nothing but A and B.

use super::config::{AdapterMethod, LoraFile};
use super::settings::Settings;
use super::{AdapterFile, PREFIX};
use crate::{Error, LoraBias, LoraConfig, Result, Scaling};
use candle_core::Tensor;
use std::collections::BTreeMap;

impl AdapterFile {
    /// The same change of the same modules with the scale in B, for readers that ignore patterns and
    /// rank stabilisation: one rank r for all modules, α = r, so that s = 1.
    ///
    /// r is the largest rank of the file; the others are filled up with zeros. B ← s·B, in the type
    /// of B. Weights of an embedding or output layer that PEFT saved with the adapter are left out:
    /// they are the base's.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the file is of LoRA, without DoRA, trained biases and modules
    /// trained whole: nothing else can be said by A and B; and for a tensor that is not of them.
    pub fn baked(&self) -> Result<Self> {
        let function = "AdapterFile::baked";
        let refuse = |text: &str| Err(Error::argument(function, "self", text));
        let AdapterMethod::Lora(LoraFile { config, dora, .. }) = &self.config.method else {
            return refuse("is not of LoRA");
        };
        if *dora {
            return refuse("is of DoRA, which A and B alone cannot say");
        }
        if config.bias != LoraBias::Frozen {
            return refuse("has trained biases, which A and B alone cannot say");
        }
        if !config.targets.modules_to_save.is_empty() {
            return refuse("has modules that were trained whole, which A and B alone cannot say");
        }
        let rank = [".lora_A.weight", ".lora_embedding_A"];
        let ranks = self
            .tensors
            .iter()
            .filter(|(name, _)| rank.iter().any(|end| name.ends_with(end)));
        let rank = ranks.filter_map(|(_, a)| a.dims().first()).max().copied();
        let Some(rank) = rank else {
            return refuse("holds no A");
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            if let Some(tensor) = baked(function, &self.config.method, name, tensor, rank)? {
                tensors.insert(name.clone(), tensor);
            }
        }
        let mut config = self.config.clone();
        if let AdapterMethod::Lora(file) = &mut config.method {
            file.config = LoraConfig {
                rank,
                alpha: rank as f64,
                scaling: Scaling::Rank,
                rank_pattern: Vec::new(),
                alpha_pattern: Vec::new(),
                ..file.config.clone()
            };
        }
        Ok(Self {
            config,
            tensors,
            left_out: Vec::new(),
        })
    }
}

/// One tensor, scaled if it is a B and filled up to `rank`; `None` for a base weight.
fn baked(
    function: &'static str,
    method: &AdapterMethod,
    name: &str,
    tensor: &Tensor,
    rank: usize,
) -> Result<Option<Tensor>> {
    let problem = |text: &str| Error::argument(function, name, text);
    let path = name.strip_prefix(PREFIX).unwrap_or_default();
    if path.ends_with(".base_layer.weight") {
        return Ok(None);
    }
    let ends = [
        (".lora_A.weight", 0),
        (".lora_B.weight", 1),
        (".lora_embedding_A", 0),
        (".lora_embedding_B", 1),
    ];
    let found = ends
        .iter()
        .find_map(|(end, axis)| Some((path.strip_suffix(end)?, *axis)));
    let (path, axis) = found.ok_or_else(|| problem("is neither an A nor a B"))?;
    let Some(Settings::Lora(config, _)) = Settings::of(method, path)? else {
        return Err(problem("is of a module that the settings do not choose"));
    };
    if tensor.rank() != 2 || tensor.dim(axis)? != config.rank {
        let text = format!(
            "has shape {:?}, and the rank is {}",
            tensor.dims(),
            config.rank
        );
        return Err(problem(&text));
    }
    let scaled = match axis {
        1 => (tensor * config.scale())?,
        _ => tensor.clone(),
    };
    Ok(Some(scaled.pad_with_zeros(axis, 0, rank - config.rank)?))
}
