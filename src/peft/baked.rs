//! The export for readers that know only A and B.

use super::config::{AdapterMethod, LoraFile};
use super::settings::{Rules, Settings};
use super::{AdapterFile, PREFIX, TENSORS, finite};
use crate::error::{Error, Result};
use crate::parameter_efficient::lora::config::{LoraBias, LoraConfig, Scaling};
use crate::parameter_efficient::lora::for_model::LoraForModel;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

impl AdapterFile {
    /// The same change of the same modules with the scale merged into B, for readers that ignore patterns
    /// and rank stabilization: one rank r for all modules and α = r, so that s = 1.
    ///
    /// r is the largest rank of the file; smaller ranks are padded with zeros, to at most 1024 times
    /// their size. B ← s·B, in the type of B. Weights of an embedding or output layer that PEFT saved with
    /// the adapter are left out: they are the base's.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the file is a LoRA file without DoRA, trained biases, modules trained as a
    /// whole and trained rows, none of which A and B alone can express. [`Error::Argument`] also for a tensor
    /// that is not an A or a B, is empty, is not finite, or has no counterpart; for s·B that overflows the
    /// type of B, or underflows completely; and for ranks further apart.
    pub fn baked(&self) -> Result<Self> {
        let function = "AdapterFile::baked";
        let refuse = |text: &str| Err(Error::argument(function, "self", text));
        let AdapterMethod::Lora(LoraFile {
            model,
            dora,
            tokens,
            ..
        }) = &self.config.method
        else {
            return refuse("is not of LoRA");
        };
        if !tokens.is_empty() {
            return refuse("has trained rows of a table, which A and B alone cannot say");
        }
        if *dora {
            return refuse("is of DoRA, which A and B alone cannot say");
        }
        if model.config.bias != LoraBias::Frozen {
            return refuse("has trained biases, which A and B alone cannot say");
        }
        if !model.targets.modules_to_save.is_empty() {
            return refuse("has modules that were trained whole, which A and B alone cannot say");
        }
        finite::require(function, TENSORS, &self.tensors)?;
        let factors = self.factors(function)?;
        let ranks = || factors.iter().map(|factor| factor.config.rank);
        let (Some(least), Some(rank)) = (ranks().min(), ranks().max()) else {
            return refuse("holds no A");
        };
        if least.saturating_mul(WIDEST) < rank {
            return refuse(&format!(
                "has ranks from {least} to {rank}, too far apart to be filled up"
            ));
        }
        let mut tensors = BTreeMap::new();
        for factor in factors {
            let Factor {
                tensor,
                axis,
                config,
                ..
            } = &factor;
            let scaled = match axis {
                1 => scaled(function, factor.name, tensor, config.scale())?,
                _ => (*tensor).clone(),
            };
            let filled = scaled.pad_with_zeros(*axis, 0, rank - config.rank)?;
            tensors.insert(factor.name.to_string(), filled);
        }
        let mut config = self.config.clone();
        if let AdapterMethod::Lora(file) = &mut config.method {
            file.model = LoraForModel {
                config: LoraConfig {
                    rank,
                    alpha: rank as f64,
                    scaling: Scaling::Rank,
                    ..file.model.config.clone()
                },
                rank_pattern: Vec::new(),
                alpha_pattern: Vec::new(),
                targets: file.model.targets.clone(),
            };
        }
        Ok(Self {
            config,
            tensors,
            left_out: Vec::new(),
        })
    }

    /// All A and B, each with its counterpart and of the shape that the settings of its module give.
    fn factors(&self, function: &'static str) -> Result<Vec<Factor<'_>>> {
        let rules = Rules::new(function, &self.config.method)?;
        let mut factors = Vec::new();
        let mut halves: BTreeMap<(&str, bool), [bool; 2]> = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let problem = |text: &str| Error::argument(function, name.as_str(), text);
            let path = name.strip_prefix(PREFIX).unwrap_or_default();
            if path.ends_with(".base_layer.weight") {
                continue;
            }
            let ends = [
                (".lora_A.weight", false, 0),
                (".lora_B.weight", false, 1),
                (".lora_embedding_A", true, 0),
                (".lora_embedding_B", true, 1),
            ];
            let mut ends = ends.iter();
            let found =
                ends.find_map(|(end, table, axis)| Some((path.strip_suffix(end)?, *table, *axis)));
            let (path, table, axis) = found.ok_or_else(|| problem("is neither an A nor a B"))?;
            let Some(Settings::Lora(config, _)) = rules.of(path)? else {
                return Err(problem("is of a module that the settings do not choose"));
            };
            if tensor.rank() != 2 || tensor.dim(axis)? != config.rank {
                let (dims, rank) = (tensor.dims(), config.rank);
                return Err(problem(&format!(
                    "has shape {dims:?}, and the rank is {rank}"
                )));
            }
            if tensor.elem_count() == 0 {
                return Err(problem(&format!(
                    "has shape {:?}: it is empty",
                    tensor.dims()
                )));
            }
            halves.entry((path, table)).or_default()[axis] = true;
            factors.push(Factor {
                name,
                tensor,
                axis,
                config,
            });
        }
        for ((path, _), found) in halves {
            let text = match found {
                [true, true] => continue,
                [true, false] => "has an A and no B",
                _ => "has a B and no A",
            };
            return Err(Error::argument(function, path, text));
        }
        Ok(factors)
    }
}

/// s·B in the type of B, which may not be able to hold it.
fn scaled(function: &'static str, name: &str, b: &Tensor, scale: f64) -> Result<Tensor> {
    // in f32, since the scale alone may exceed the range of a half type
    let wide = match b.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let scaled = (b.to_dtype(wide)? * scale)?.to_dtype(b.dtype())?;
    let kind = b.dtype().as_str();
    if let Some((at, value)) = finite::first(&scaled)? {
        let text =
            format!("would hold {value} at flat position {at}: {scale} · B is beyond {kind}");
        return Err(Error::argument(function, name, text));
    }
    let nothing = |t: &Tensor| -> Result<bool> {
        let wide = t.to_dtype(DType::F64)?;
        Ok(wide.abs()?.max_all()?.to_scalar::<f64>()? == 0.0)
    };
    if nothing(&scaled)? && !nothing(b)? {
        let text = format!("would be all zeros: {scale} · B is below {kind}");
        return Err(Error::argument(function, name, text));
    }
    Ok(scaled)
}

/// An A or a B, with its rank axis and the settings of its module.
struct Factor<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    axis: usize,
    config: Box<LoraConfig>,
}

/// The largest ratio between the largest and the smallest rank, which bounds the growth by padding.
const WIDEST: usize = 1024;
