//! The decoder against Transformers, on the tiny checkpoints in `golden/checkpoints`.

mod parity;

use candle_align::Result;
use candle_align::decoder::{Decoder, Load};
use candle_core::Tensor;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The checkpoints of families that can be read.
const NAMES: [&str; 10] = [
    "llama",
    "llama_tied",
    "llama_biased",
    "llama_yarn",
    "llama_dynamic",
    "mistral",
    "qwen2",
    "qwen3",
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
