//! The decoder against Transformers, on the tiny checkpoints in `golden/checkpoints`.

mod adapters;
mod config;
mod errors;
mod parity;
mod quantized;
mod rotary;
mod saved;
mod virtual_tokens;
mod wild;

use candle_align::Result;
use candle_align::decoder::{Decoder, Load};
use candle_align::ops::Segments;
use candle_align::peft::{AdapterMethod, LoraFile, PeftConfig};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The checkpoints of families that can be read.
const NAMES: [&str; 11] = [
    "llama",
    "llama_tied",
    "llama_biased",
    "llama_yarn",
    "llama_dynamic",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/checkpoints")
        .join(name)
}

/// What Transformers computed.
fn expected(name: &str) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
    candle_core::safetensors::load_buffer(&bytes, &candle_core::Device::Cpu).unwrap()
}

/// The rows of tokens, without padding.
fn rows(expected: &HashMap<String, Tensor>) -> Vec<Vec<u32>> {
    let tokens = expected["tokens"].to_vec2::<i64>().unwrap();
    let mask = expected["mask"].to_vec2::<i64>().unwrap();
    let row = |(tokens, mask): (&Vec<i64>, &Vec<i64>)| {
        let real = tokens.iter().zip(mask).filter(|(_, real)| **real == 1);
        real.map(|(token, _)| *token as u32).collect()
    };
    tokens.iter().zip(&mask).map(row).collect()
}

fn load(name: &str, trained: bool) -> Result<Decoder> {
    let load = Load {
        trained,
        ..Load::default()
    };
    Decoder::load(folder(name), &load)
}

/// A copy of a checkpoint, with a changed `config.json`.
fn changed(name: &str, change: impl FnOnce(&mut Map<String, Value>)) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder(name)).unwrap() {
        let path = file.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let at = copy.path().join("config.json");
    let mut json = serde_json::from_slice(&fs::read(&at).unwrap()).unwrap();
    change(&mut json);
    fs::write(at, serde_json::to_vec(&json).unwrap()).unwrap();
    copy
}

/// The tensors of a folder with one file.
fn tensors(folder: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap()
}

/// A copy of a checkpoint with changed tensors.
fn with_tensors(name: &str, change: impl FnOnce(&mut HashMap<String, Tensor>)) -> TempDir {
    let copy = changed(name, |_| {});
    let mut found = tensors(copy.path());
    change(&mut found);
    candle_core::safetensors::save(&found, copy.path().join("model.safetensors")).unwrap();
    copy
}

/// LoRA on modules by PEFT's rules.
fn lora(targets: &str) -> PeftConfig {
    let text =
        format!(r#"{{"rank": 2, "alpha": 4.0, "targets": {{"target_modules": {targets}}}}}"#);
    let model = serde_json::from_str(&text).unwrap();
    AdapterMethod::Lora(LoraFile {
        model,
        ..LoraFile::default()
    })
    .into()
}

/// LoRA on all linear maps, with every number drawn: fresh adapters change nothing.
fn adapted(mut decoder: Decoder, config: &PeftConfig) -> Decoder {
    let mut rng = StdRng::seed_from_u64(3);
    decoder.add_adapter("default", config, &mut rng).unwrap();
    for (at, (_, var)) in decoder.vars().iter().enumerate() {
        let count = var.elem_count();
        let numbers: Vec<f32> = (0..count)
            .map(|i| 0.3 * ((i + 7 * at) as f32).sin())
            .collect();
        let numbers = Tensor::from_vec(numbers, var.shape(), &Device::Cpu).unwrap();
        var.set(&numbers).unwrap();
    }
    decoder
}

/// The logits of rows that share nothing, `[tokens, vocabulary]`.
fn logits(decoder: &Decoder, rows: &[Vec<u32>]) -> Tensor {
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    let segments = Segments::from_lengths(&lengths).unwrap();
    decoder
        .logits(&decoder.hidden(&rows.concat(), &segments).unwrap())
        .unwrap()
}

/// The largest difference.
fn apart(one: &Tensor, two: &Tensor) -> f32 {
    let far = (one - two)
        .unwrap()
        .abs()
        .unwrap()
        .flatten_all()
        .unwrap()
        .max_all()
        .unwrap();
    far.to_dtype(DType::F32).unwrap().to_scalar().unwrap()
}
