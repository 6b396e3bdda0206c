//! Shared by the examples and not part of the library: a model to train.
#![allow(dead_code)] // every example is its own crate and uses only a part

pub mod adapter_config;
pub mod adapter_files;
pub mod adapters;
pub mod linear_adapters;
pub mod softmax;
pub mod transformer;

// the library's way to write and read files
#[path = "../../src/atomic.rs"]
pub mod atomic;
#[path = "../../src/files.rs"]
pub mod files;
