//! The trainer: from a preference file and settings to results.

pub mod adapter;
pub mod arguments;
pub mod batch;
pub mod checkpoint;
pub mod comparisons;
pub mod data;
pub mod error;
pub mod evaluation;
pub mod fit;
pub mod held_out;
pub mod input;
pub mod metric;
pub mod micro_batches;
pub mod model;
pub mod objectives;
pub mod optimizer;
pub mod output;
pub mod overwrite;
pub mod plot;
pub mod progress;
pub mod report;
pub mod run;
pub mod settings;
pub mod similarity;
pub mod trainer;
pub mod world;

// the library's way to write and read files
#[path = "../../../src/atomic.rs"]
#[allow(dead_code)] // this uses only a part
mod atomic;
#[path = "../../../src/files.rs"]
#[allow(dead_code)]
mod files;

pub use arguments::Arguments;
