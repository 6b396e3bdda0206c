//! What the examples share. Not part of the library: a model to train, and nothing else.
#![allow(dead_code)] // every example is its own crate and uses a part of this

pub mod adapter_config;
pub mod adapter_files;
pub mod adapters;
pub mod linear_adapters;
pub mod softmax;
pub mod transformer;

// how the library writes and reads files
#[path = "../../src/atomic.rs"]
pub mod atomic;
#[path = "../../src/files.rs"]
pub mod files;
