//! The model that the tour, the trainer, tests and benches train: a small transformer, and adapters on it.
//! No part of the library.

pub mod adapter_config;
pub mod adapter_files;
pub mod adapters;
pub mod linear_adapters;
pub mod softmax;
pub mod transformer;

// the library's way to write and read files
#[path = "../../../src/atomic.rs"]
#[allow(dead_code)] // this uses only a part
mod atomic;
#[path = "../../../src/files.rs"]
#[allow(dead_code)]
mod files;
