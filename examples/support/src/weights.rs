//! The decoder's weights by name: drawn, written and read.

use super::transformer::Config;
use crate::atomic::Staged;
use crate::files;
use candle_align::Result;
use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand_distr::{Distribution, Normal};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Random weights.
pub(super) fn random(
    config: &Config,
    dtype: DType,
    rng: &mut StdRng,
) -> Result<BTreeMap<String, Tensor>> {
    let c = config;
    let sizes = [c.vocabulary, c.dim, c.heads, c.layers, c.max_len];
    if sizes.contains(&0) || c.feed_forward == 0 || !c.dim.is_multiple_of(c.heads) {
        fail!("sizes must be positive and heads must divide dim: {c:?}");
    }
    let width = 1.0 / (c.dim as f64).sqrt();
    // The more often something is added to the residual stream, the smaller it starts.
    let depth = 1.0 / ((2 * c.layers) as f64).sqrt();
    let inner = depth / (c.feed_forward as f64).sqrt();
    let mut shapes = vec![
        ("embedding.weight".into(), vec![c.vocabulary, c.dim], 0.5),
        ("head.weight".into(), vec![c.vocabulary, c.dim], 0.2 * width),
        ("norm.weight".into(), vec![c.dim], 0.0),
        ("position.weight".into(), vec![c.max_len, c.dim], 0.5),
    ];
    for l in 0..c.layers {
        let mut add = |name: &str, shape, scale| {
            shapes.push((format!("layers.{l}.{name}.weight"), shape, scale));
        };
        add("attention.output", vec![c.dim, c.dim], width * depth);
        add("attention.qkv", vec![3 * c.dim, c.dim], width);
        add("attention_norm", vec![c.dim], 0.0);
        add("feed_forward.down", vec![c.dim, c.feed_forward], inner);
        add("feed_forward.up", vec![c.feed_forward, c.dim], width);
        add("feed_forward_norm", vec![c.dim], 0.0);
    }
    let mut weights = BTreeMap::new();
    for (name, shape, scale) in shapes {
        // Norms start at 1, everything else is drawn.
        let values: Vec<f64> = match shape.len() {
            1 => vec![1.0; shape[0]],
            _ => {
                let normal = Normal::new(0.0, scale).expect("a positive scale");
                (0..shape.iter().product())
                    .map(|_| normal.sample(rng))
                    .collect()
            }
        };
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?;
        weights.insert(name, tensor);
    }
    Ok(weights)
}

/// Writes them as safetensors.
pub(super) fn save(weights: &BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
    let all: HashMap<String, Tensor> = weights.clone().into_iter().collect();
    let save = |part: &Path| candle_core::safetensors::save(&all, part);
    let saved = Staged::new(path, save).and_then(Staged::put);
    Ok(saved.map_err(candle_core::Error::msg)?)
}

/// Reads them, each with its name, shape and type.
pub(super) fn load(config: &Config, path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = match files::read(path) {
        Ok(bytes) => bytes,
        Err(error) => fail!("cannot be read: {error}"),
    };
    let mut stored = match candle_core::safetensors::load_buffer(&bytes, &Device::Cpu) {
        Ok(stored) => stored,
        Err(error) => fail!(
            "{}",
            files::not_tensors(&bytes).unwrap_or(&error.to_string())
        ),
    };
    let mut rng = rand::SeedableRng::seed_from_u64(0);
    let mut weights = random(config, DType::F32, &mut rng)?;
    for (name, weight) in &mut weights {
        match stored.remove(name) {
            Some(found) if found.dtype() != weight.dtype() => fail!(
                "`{name}` is {}, expected {}",
                found.dtype().as_str(),
                weight.dtype().as_str()
            ),
            Some(found) if found.dims() == weight.dims() => *weight = found,
            Some(found) => fail!(
                "`{name}` has shape {:?}, expected {:?}",
                found.dims(),
                weight.dims()
            ),
            None => fail!("`{name}` is missing"),
        }
    }
    if let Some(name) = stored.keys().min() {
        fail!("`{name}` is not a weight of this model");
    }
    Ok(weights)
}

pub(super) fn weight<'a>(weights: &'a BTreeMap<String, Tensor>, name: &str) -> Result<&'a Tensor> {
    match weights.get(name) {
        Some(weight) => Ok(weight),
        None => fail!("`{name}` is missing"),
    }
}
