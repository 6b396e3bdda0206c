//! The example `train`, run whole: its own unit tests, and every objective from file to picture.

#[path = "../../examples/train/main.rs"]
#[allow(dead_code)]
mod train;

mod adapter_configs;
mod adapters;
mod language;
mod losses;
mod rows;
mod runs;
