//! The model that the tour, the trainer, tests and benches train: a small transformer, and adapters on it.
//! No part of the library.

/// Returns an error with this message.
macro_rules! fail {
    ($($message:tt)*) => {
        return Err(candle_core::Error::Msg(format!($($message)*)).into())
    };
}

pub mod adapter_config;
pub mod adapter_files;
pub mod adapters;
mod attention;
pub mod beside;
pub mod linear_adapters;
pub mod softmax;
pub mod transformer;
mod weights;

// the library's way to write and read files
#[path = "../../../src/atomic.rs"]
#[allow(dead_code)] // this uses only a part
mod atomic;
#[path = "../../../src/files.rs"]
#[allow(dead_code)]
mod files;
