//! Adapters in folders, for the messages that they bring about.

use candle_align::peft::{AdapterFile, Strictness};
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::fs;

pub fn tensor(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let data: Vec<f32> = (0..count).map(|i| i as f32 / 7.0 - 0.5).collect();
    Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
}

pub fn tensors(list: &[(&str, &[usize])]) -> HashMap<String, Tensor> {
    let each = list.iter();
    each.map(|(name, shape)| (name.to_string(), tensor(shape)))
        .collect()
}

/// The two files of an adapter.
pub fn folder(config: &str, tensors: &HashMap<String, Tensor>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    let at = folder.path().join("adapter_model.safetensors");
    candle_core::safetensors::save(tensors, at).unwrap();
    folder
}

pub fn read(config: &str, list: &[(&str, &[usize])]) -> AdapterFile {
    let folder = folder(config, &tensors(list));
    AdapterFile::read(folder.path(), Strictness::Strict).unwrap()
}
