//! One layer under an adapter, built from a base model's weights and a file's tensors.

use super::FUNCTION;
use super::PREFIX;
use super::config::AdaLoraFile;
use super::layer::AnyAdapter;
use super::load::Loader;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::parameter_efficient::adalora::AdaLoraLinear;
use crate::parameter_efficient::adapter::Adapter;
use crate::parameter_efficient::dora::DoraLinear;
use crate::parameter_efficient::frozen_linear::compute_type;
use crate::parameter_efficient::ia3::Ia3Linear;
use crate::parameter_efficient::lora::LoraLinear;
use crate::parameter_efficient::lora::config::{LoraBias, LoraConfig};
use crate::parameter_efficient::lora::embedding::LoraEmbedding;
use crate::parameter_efficient::nf4::Nf4Linear;
use crate::parameter_efficient::qlora::QloraLinear;
use crate::parameter_efficient::vera::{VeraLinear, VeraProjections};
use candle_core::Tensor;
use candle_nn::{Embedding, Linear};
use rand::SeedableRng;
use rand::rngs::StdRng;

impl Loader<'_> {
    /// The module of the base at `path`: a weight `[out, in]` and its bias. A weight that was saved
    /// with the adapter takes precedence over the base's.
    fn module(&mut self, path: &str, turned: bool) -> Result<Linear> {
        let name = format!("{path}.weight");
        let mut weight = self.base[&name].clone();
        if weight.rank() != 2 {
            let text = format!(
                "holds `{name}` with {} axes; the settings choose `{path}`, and only linear layers \
                 and embeddings have an adapter",
                weight.rank()
            );
            return Err(Error::argument(FUNCTION, "base", text));
        }
        if weight.elem_count() == 0 {
            let text = format!("holds `{name}` of shape {:?}: it is empty", weight.dims());
            return Err(Error::argument(FUNCTION, "base", text));
        }
        let saved = format!("{PREFIX}{path}.base_layer.weight");
        if self.left.contains_key(&saved)
            && let Some(found) = self.take(&saved, weight.dims())?
            && let Some(found) = self.cast(&saved, &found, &weight)?
        {
            weight = found;
            self.found.weights.insert(name, weight.clone());
        }
        if turned {
            weight = weight.t()?.contiguous()?;
        }
        Ok(Linear::new(
            weight,
            self.base.get(&format!("{path}.bias")).cloned(),
        ))
    }

    /// A fresh layer of the right shape, filled with the file's numbers.
    pub(super) fn layer(
        &mut self,
        path: &str,
        settings: &Settings,
        fan_in_fan_out: bool,
    ) -> Result<Option<AnyAdapter>> {
        let embedding = ["A", "B"].iter().any(|factor| {
            let name = format!("{PREFIX}{path}.lora_embedding_{factor}");
            self.left.contains_key(&name)
        });
        let quantized = format!("{path}.weight.quant_state.bitsandbytes__nf4");
        if self.base.contains_key(&quantized) {
            return self.quantized(path, settings, fan_in_fan_out);
        }
        let base = self.module(path, self.turned.contains(path) && !embedding)?;
        // before a rank that only the settings name allocates memory
        if let Settings::Lora(config, _) = settings {
            let (inputs, name) = match embedding {
                true => (base.weight().dim(0)?, "lora_embedding_A"),
                false => (base.weight().dim(1)?, "lora_A.weight"),
            };
            let name = format!("{PREFIX}{path}.{name}");
            if !self.fits(&name, &[config.rank, inputs])? {
                return Ok(None);
            }
        }
        // the drawn numbers are overwritten
        let rng = &mut StdRng::seed_from_u64(0);
        let layer = match settings {
            Settings::Lora(_, true) if embedding => {
                let text =
                    format!("holds `{path}` as an embedding under DoRA, which is not supported");
                return Err(Error::argument(FUNCTION, super::TENSORS, text));
            }
            Settings::Lora(config, _) if embedding => {
                let config = LoraConfig {
                    dropout: 0.0,
                    ..with_bias(config, false)
                };
                let dim = base.weight().dim(1)?;
                let table = Embedding::new(base.weight().clone(), dim);
                AnyAdapter::LoraEmbedding(LoraEmbedding::new(&table, &config, rng)?)
            }
            Settings::Lora(config, true) => {
                let config = with_bias(config, base.bias().is_some());
                AnyAdapter::Dora(DoraLinear::new(&base, &config, rng)?)
            }
            Settings::Lora(config, false) => {
                let config = with_bias(config, base.bias().is_some());
                AnyAdapter::Lora(LoraLinear::new(&base, &config, rng)?)
            }
            Settings::AdaLora(file) => return self.triplets(path, &base, file),
            Settings::Ia3(place) => AnyAdapter::Ia3(Ia3Linear::new(&base, *place)?),
            Settings::Vera(config) => {
                let Some(shared) = &self.found.projections else {
                    return Ok(None);
                };
                let dtype = compute_type(base.weight().dtype());
                let device = base.weight().device();
                let wide = |t: &Tensor| t.to_dtype(dtype)?.to_device(device);
                let shared = VeraProjections::from_tensors(wide(shared.a())?, wide(shared.b())?)?;
                AnyAdapter::Vera(VeraLinear::new(&base, &shared, config)?)
            }
        };
        self.filled(path, layer)
    }

    /// The layer with the file's numbers in it; `None` if one is missing.
    fn filled(&mut self, path: &str, layer: AnyAdapter) -> Result<Option<AnyAdapter>> {
        let mut whole = true;
        for (name, var) in layer.trainable(path) {
            match self.factor(&format!("{PREFIX}{name}"), var.dims(), &var)? {
                Some(found) => var.set(&found)?,
                None => whole = false,
            }
        }
        Ok(whole.then_some(layer))
    }

    /// The tensor of this name and shape in the type and on the device of `like`.
    fn factor(&mut self, name: &str, shape: &[usize], like: &Tensor) -> Result<Option<Tensor>> {
        match self.take(name, shape)? {
            Some(found) => self.cast(name, &found, like),
            None => Ok(None),
        }
    }

    /// LoRA over a weight of four bits.
    fn quantized(
        &mut self,
        path: &str,
        settings: &Settings,
        fan_in_fan_out: bool,
    ) -> Result<Option<AnyAdapter>> {
        let Settings::Lora(config, false) = settings else {
            let text = format!("holds `{path}` quantized, over which only LoRA is supported");
            return Err(Error::argument(FUNCTION, "base", text));
        };
        if fan_in_fan_out {
            let text = format!("is true, and `{path}` is quantized, which is `[out, in]` alone");
            return Err(Error::argument(FUNCTION, "fan_in_fan_out", text));
        }
        let base = Nf4Linear::from_state_dict(&self.base, path)?;
        let inputs = base.weight().shape().dims2()?.1;
        let name = format!("{PREFIX}{path}.lora_A.weight");
        if !self.fits(&name, &[config.rank, inputs])? {
            return Ok(None);
        }
        let config = with_bias(config, base.bias().is_some());
        let layer = QloraLinear::over(base, &config, &mut StdRng::seed_from_u64(0))?;
        self.filled(path, AnyAdapter::Qlora(layer))
    }

    fn triplets(
        &mut self,
        path: &str,
        base: &Linear,
        file: &AdaLoraFile,
    ) -> Result<Option<AnyAdapter>> {
        let (outputs, inputs) = base.weight().dims2()?;
        let rank = match file.kept.get(path) {
            None => file.model.config.rank,
            Some(kept) if kept.len() == file.model.config.rank => {
                kept.iter().filter(|k| **k).count()
            }
            Some(kept) => {
                let (found, rank) = (kept.len(), file.model.config.rank);
                let text = format!("has {found} entries for `{path}`, and the rank is {rank}");
                return Err(Error::argument(FUNCTION, "rank_pattern", text));
            }
        };
        let like = base.weight().narrow(0, 0, 1)?;
        let like = like.to_dtype(compute_type(like.dtype()))?;
        let q = self.factor(&format!("{PREFIX}{path}.lora_A"), &[rank, inputs], &like)?;
        let p = self.factor(&format!("{PREFIX}{path}.lora_B"), &[outputs, rank], &like)?;
        let lambda = self.factor(&format!("{PREFIX}{path}.lora_E"), &[rank, 1], &like)?;
        let (Some(q), Some(p), Some(lambda)) = (q, p, lambda) else {
            return Ok(None);
        };
        let layer = AdaLoraLinear::from_factors(base, &file.model.config, &p, &lambda, &q)?;
        Ok(Some(AnyAdapter::AdaLora(layer)))
    }

    /// VeRA's A and B, as large as the largest chosen module needs.
    pub(super) fn projections(&mut self, rank: usize, chosen: &[(String, Settings)]) -> Result<()> {
        let (mut most_outputs, mut most_inputs) = (0, 0);
        for (path, _) in chosen {
            let shape = self.base[&format!("{path}.weight")].dims();
            let (outputs, inputs) = match (shape, self.turned.contains(path)) {
                ([a, b], false) | ([b, a], true) => (*a, *b),
                _ => continue, // an error below, with the module's name
            };
            most_outputs = most_outputs.max(outputs);
            most_inputs = most_inputs.max(inputs);
        }
        let a = self.take("base_model.vera_A", &[rank, most_inputs])?;
        let b = self.take("base_model.vera_B", &[most_outputs, rank])?;
        if let (Some(a), Some(b)) = (a, b) {
            let wide = |t: Tensor| t.to_dtype(compute_type(t.dtype()));
            let shared = VeraProjections::from_tensors(wide(a)?, wide(b)?)?;
            self.found.projections = Some(shared);
        }
        Ok(())
    }
}

/// `lora_only` trains only the biases that exist.
fn with_bias(config: &LoraConfig, has_bias: bool) -> LoraConfig {
    let bias = match config.bias {
        LoraBias::Base if !has_bias => LoraBias::Frozen,
        other => other,
    };
    LoraConfig {
        bias,
        ..config.clone()
    }
}
